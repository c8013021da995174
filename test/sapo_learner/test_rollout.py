import pytest
import torch
from point_mass import PointMass
from torch.utils._python_dispatch import TorchDispatchMode

from sapo_learner.learner import Interrupted
from sapo_learner.policy import GaussianPolicy, make_policy
from sapo_learner.rollout import Window, roll_out


def policy_for(env: PointMass) -> GaussianPolicy:
    weights, samples = torch.Generator().manual_seed(1), torch.Generator().manual_seed(2)
    return make_policy(
        env.obs_spec, env.action_dim, hidden=(16,), pool="mean", weights=weights, samples=samples
    )


def act(env: PointMass, action_noise, should_stop=lambda: False) -> Window:
    entropy_noise = torch.zeros(len(action_noise), 1, env.num_envs, 1)
    return roll_out(
        env, policy_for(env), action_noise=action_noise, entropy_noise=entropy_noise, should_stop=should_stop
    )


def test_the_gradient_passes_a_neighbours_reset_and_stops_at_its_own():
    env = PointMass(max_episode_steps=100, start=torch.tensor([1.9, 0.0]))
    noise = torch.full((8, 2, 1), 3.0)  # push to the right, so that env 0 fails and env 1 does not
    noise[3:] = -3.0  # and back, so that neither fails again
    noise.requires_grad_()
    window = act(env, noise)
    reset = int(window.done[:, 0].nonzero()[0])
    assert window.done.sum() == 1 and reset < 3
    (gradient,) = torch.autograd.grad(window.reward[-1].sum(), noise)
    assert (gradient[: reset + 1, 0] == 0.0).all()
    assert (gradient[reset + 1 :, 0] != 0.0).all()
    assert (gradient[:, 1] != 0.0).all()


def test_the_window_holds_what_happened_in_the_order_of_time():
    env = PointMass(max_episode_steps=4, start=torch.tensor([0.5, -0.5]))
    window = act(env, torch.zeros(6, 2, 1))
    x = window.states[..., 0]
    assert window.states.shape == (7, 2, 2)
    assert x[0].tolist() == [0.5, -0.5]
    assert window.done.tolist() == [[False] * 2] * 3 + [[True] * 2] + [[False] * 2] * 2
    assert window.has_value.all()  # a time limit is no failure
    assert x[4].tolist() == [0.5, -0.5]  # of the new episode
    terminal_x = window.terminal.state[..., 0]
    torch.testing.assert_close(terminal_x[:3], x[1:4])
    assert (terminal_x[3] - x[3]).abs().max() < 0.3 and not torch.equal(terminal_x[3], x[4])
    torch.testing.assert_close(window.inputs.state, window.states[:-1])  # not yet normalised
    v = window.terminal.state[..., 1]
    torch.testing.assert_close(window.reward, -terminal_x.square() - 0.1 * v.square())
    torch.testing.assert_close(window.info["reward/near"] + window.info["reward/calm"], window.reward)


def test_a_failure_has_no_value_and_a_failure_at_the_time_limit_has():
    start = torch.tensor([1.99, 1.99])
    push = torch.full((1, 2, 1), 8.0)
    assert act(PointMass(max_episode_steps=10, start=start), push).has_value.tolist() == [[False, False]]
    assert act(PointMass(max_episode_steps=1, start=start), push).has_value.tolist() == [[True, True]]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 1e7])
def test_a_broken_terminal_observation_has_no_value(bad):
    class Broken(PointMass):
        def step(self, action):
            result = super().step(action)
            result.terminal_obs["v"][1] = bad
            return result

    window = act(Broken(max_episode_steps=10, start=torch.zeros(2)), torch.zeros(2, 2, 1))
    assert window.has_value.tolist() == [[True, False]] * 2


def test_gradients_reach_the_policy_through_terminal_observations_and_not_through_inputs():
    window = act(PointMass(max_episode_steps=3), torch.zeros(5, 2, 1))
    assert window.terminal.state.requires_grad and window.entropy.requires_grad
    assert not window.inputs.state.requires_grad and not window.states.requires_grad


def test_should_stop_is_asked_before_every_step():
    answers = iter([False, False, True])
    env = PointMass(max_episode_steps=100)
    with pytest.raises(Interrupted):
        act(env, torch.zeros(5, 2, 1), should_stop=lambda: next(answers))
    assert env.state_dict()["clock"].tolist() == [2, 2]


class HostReads(TorchDispatchMode):
    """Collects what would wait for a GPU: values read by Python, and sizes that depend on values."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name()
        masks = [a for a in args[1:2] if isinstance(a, list | tuple)]
        by_mask = any(isinstance(i, torch.Tensor) and i.dtype == torch.bool for mask in masks for i in mask)
        if name in ("aten::_local_scalar_dense", "aten::nonzero", "aten::masked_select") or (
            name.startswith("aten::index") and by_mask
        ):
            self.found.append(name)
        return func(*args, **(kwargs or {}))


def test_no_step_of_the_rollout_waits_for_the_device():
    with HostReads() as reads:
        act(PointMass(max_episode_steps=3, with_cloud=True), torch.zeros(8, 2, 1))
    assert reads.found == []
    with HostReads() as reads:  # the oracle sees what it should
        bool(torch.ones(2)[torch.tensor([True, False])].sum() > 0)
    assert len(reads.found) == 2


def test_the_entropy_of_a_step_is_that_of_its_own_policy_and_noise():
    env = PointMass(max_episode_steps=4)
    policy = policy_for(env)
    generator = torch.Generator().manual_seed(0)
    action_noise = torch.randn(5, 2, 1, generator=generator)
    entropy_noise = torch.randn(5, 3, 2, 1, generator=generator)
    window = roll_out(
        env, policy, action_noise=action_noise, entropy_noise=entropy_noise, should_stop=lambda: False
    )
    expected = [
        policy.distribution(window.inputs.map(lambda x, t=t: x[t])).entropy(entropy_noise[t])
        for t in range(5)
    ]
    torch.testing.assert_close(window.entropy, torch.stack(expected), rtol=1e-5, atol=1e-6)
