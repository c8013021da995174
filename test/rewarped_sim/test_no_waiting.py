"""No step of env or learner waits for the device, nor copies to it: what would on a GPU is seen on a CPU, too."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

import rewarped_sim
from sapo_learner.critic_fit import fit_critics, meet_mean
from sapo_learner.optimization import make_adamw
from sapo_learner.rollout import roll_out
from sapo_learner.sapo import Sapo, SapoConfig

WAITS = {
    "aten::_local_scalar_dense": "reads a number (item, bool, float)",
    "aten::equal": "compares whole tensors",
    "aten::nonzero": "counts what is true",
    "aten::masked_select": "counts what is true",
    "aten::_unique2": "counts what differs",
    "aten::lift_fresh": "copies Python numbers to the device",
}
SPREADS = {
    name: 0.1
    for name in ("mass_spread", "friction_spread", "damping_spread", "strength_spread", "gravity_spread")
}
TINY = {"num_particles": 256, "grid_size": 24, "num_substeps": 20}


class WaitingError(AssertionError):
    """An operation that a GPU's queue would have to be emptied for."""


class NeverWait(TorchDispatchMode):
    """Raise at the first such operation."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.name().split(".")[0]
        if name in WAITS:
            raise WaitingError(f"{name}: {WAITS[name]}")
        if name == "aten::index":
            masks = [index for index in args[1] if index is not None and index.dtype == torch.bool]
            if masks:
                raise WaitingError("aten::index: counts what is true")
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("task", "options"),
    [
        ("ant", SPREADS),
        ("cartpole", {}),
        ("hopper", {}),
        ("humanoid", {}),
        ("snu_humanoid", {"mass_spread": 0.1, "strength_spread": 0.1}),
        ("hand_reorient", {"friction_spread": 0.1}),
        ("soft_jumper_small", {}),
        ("rolling_flat_small", TINY | {"material_spread": 0.1}),
        ("rolling_flat_small", TINY | {"cloud": "camera", "camera_cloud": {"voxel_m": 0.02}}),
        ("spring_press", {"cloud": "camera"}),
        ("fluid_move_small", {}),
    ],
)
def test_a_step_and_its_gradient_do_not_wait(task, options):
    env = rewarped_sim.make(task, num_envs=2, horizon=2, **options)
    env.reset()
    actions = [torch.zeros(2, env.action_dim, requires_grad=True) for _ in range(2)]
    weights = torch.ones(2)
    with NeverWait():
        for action in actions:
            result = env.step(action)
        gradients = torch.autograd.grad(result.reward, actions, weights)
    assert all(torch.isfinite(gradient).all() for gradient in gradients)


@pytest.mark.parametrize("task", ["hopper", "rolling_flat_small"])
def test_neither_acting_for_a_window_nor_fitting_the_critics_to_it_waits(task):
    horizon, num_envs = 3, 2
    options = TINY if task == "rolling_flat_small" else {}
    env = rewarped_sim.make(task, num_envs=num_envs, horizon=horizon, **options)
    config = SapoConfig(horizon=horizon, actor_hidden=(8,), critic_hidden=(8,), critic_passes=2)
    sapo = Sapo(env, config, seed=0, planned_epochs=1)
    noise = torch.randn(horizon, num_envs, env.action_dim)
    optimizer = make_adamw([sapo.critics], learning_rate=1e-3, betas=(0.7, 0.95), weight_decay=0.01)
    with NeverWait():
        window = roll_out(
            env, sapo.policy, action_noise=noise, entropy_noise=noise[:, None], should_stop=lambda: False
        )
        meet_mean(sapo.critics, window.inputs, window.reward.detach())
        metrics = fit_critics(
            sapo.critics,
            optimizer,
            window.inputs,
            window.reward.detach(),
            passes=2,
            num_minibatches=2,
            shuffle=True,
            max_grad_norm=0.5,
            generator=torch.Generator().manual_seed(0),
        )
    assert metrics["critic/skipped"] == 0


@pytest.mark.parametrize(
    "operation",
    [
        lambda x: bool(x.sum() > 0.0),
        lambda x: x.sum().item(),
        lambda x: x[x > 0.0],
        lambda x: torch.nonzero(x),
        lambda x: torch.equal(x, x),
        lambda x: x + torch.tensor([1.0, 2.0]),
        lambda x: x[[0, 1]],
    ],
)
def test_what_waits_is_noticed(operation):
    x = torch.ones(2)
    with pytest.raises(WaitingError), NeverWait():
        operation(x)
