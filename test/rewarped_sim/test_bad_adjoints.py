"""A gradient that breaks or explodes in one env's physics: a whole update is as if it had been 0 there."""

import pytest
import torch

import rewarped_sim
from rewarped_sim.torch_bridge.bridge import Bridge
from sapo_learner.sapo import Sapo, SapoConfig
from sapo_learner.state_digest import state_sha256

TASKS = {
    "cartpole": {"max_episode_steps": 50},
    "rolling_flat_small": {
        "num_particles": 250,
        "grid_size": 24,
        "num_substeps": 8,
        "max_episode_steps": 50,
    },  # a cloud, so that encoders take part
    "soft_jumper_small": {"max_episode_steps": 50},
}
HORIZON, ENVS = 4, 3
SLOT, ENV = 2, 1
BACKWARD = Bridge._backward


def updated(task, monkeypatch, backward):
    """The learner after one update in which the physics' backward pass is `backward`."""
    env = rewarped_sim.make(task, num_envs=ENVS, horizon=HORIZON, storage="store", **TASKS[task])
    config = SapoConfig(horizon=HORIZON, actor_hidden=(16,), critic_hidden=(16,), critic_passes=1)
    learner = Sapo(env, config, seed=0, planned_epochs=10)
    with monkeypatch.context() as patch:
        patch.setattr(Bridge, "_backward", backward)
        metrics = learner.update()
    return learner, env, metrics


def broken(spoil):
    """This goes back into the physics of one env in one step."""

    def backward(bridge, slot, result_bars):
        if slot == SLOT:
            result_bars = tuple(bar.clone() for bar in result_bars)
            for bar in result_bars:
                bar[ENV] = spoil
        return BACKWARD(bridge, slot, result_bars)

    return backward


def zeroed(bridge, slot, result_bars):
    """What comes out of the physics of this env in this step is 0."""
    bars = [bar.clone() for bar in BACKWARD(bridge, slot, result_bars)]
    if slot == SLOT:
        for bar in bars:
            bar[ENV] = 0.0
    return bars


@pytest.mark.parametrize(
    ("task", "spoil"),
    [
        *((task, torch.nan) for task in TASKS),
        ("cartpole", 1e15),  # the norm could still be told, and would be this env's alone
        ("cartpole", 1e25),  # it could not: no env would have its step
    ],
)
def test_an_update_with_a_broken_adjoint_is_the_one_with_a_gradient_of_zero(task, spoil, monkeypatch):
    found, env, metrics = updated(task, monkeypatch, broken(spoil))
    expected, other, _ = updated(task, monkeypatch, zeroed)
    clean, _, _ = updated(task, monkeypatch, BACKWARD)
    assert env.bad_adjoints.tolist() == [0, 1, 0]
    assert not other.bad_adjoints.any()
    assert metrics["actor/skipped"] == 0
    assert state_sha256(found.state_dict()) == state_sha256(expected.state_dict())
    assert state_sha256(found.policy.state_dict()) != state_sha256(clean.policy.state_dict()), "it mattered"
