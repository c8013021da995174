"""Articulated systems behind the env: gradients, early termination, isolation, windows, parameters."""

import pytest
import torch

import rewarped_sim
from rewarped_sim.engine.articulation.parameters import ParameterLayout
from rewarped_sim.env import StateError
from rewarped_sim.torch_bridge import WindowError


def make(task="ant", **options):
    env = rewarped_sim.make(task, **{"num_envs": 2, "horizon": 8} | options)
    env.start = env.state_dict()
    return env


def returns(env, actions):
    """Undiscounted return of each env from its first start, under actions (steps, num_envs, action_dim)."""
    env.load_state_dict(env.start)
    return torch.stack([env.step(action).reward for action in actions]).sum(dim=0)


@pytest.mark.parametrize("task", ["cartpole", "hopper", "ant", "ant_run", "humanoid", "snu_humanoid"])
def test_the_gradient_of_the_return_is_its_slope(task):
    """Central differences in float32 along a random direction; the airborne first steps have no kinks."""
    env = make(task)
    generator = torch.Generator().manual_seed(0)
    shape = (4, 2, env.action_dim)
    actions = 0.2 * torch.randn(shape, generator=generator)
    way = torch.randn(shape, generator=generator)
    variable = actions.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(returns(env, variable).sum(), variable)
    predicted = (gradient * way).sum(dim=(0, 2))
    with torch.no_grad():
        step = 0.05
        slope = (returns(env, actions + step * way) - returns(env, actions - step * way)) / (2.0 * step)
    assert torch.allclose(predicted, slope, rtol=2e-2, atol=2e-3 * slope.abs().max())


@pytest.mark.parametrize("storage", ["store", "recompute"])
def test_stored_and_recomputed_windows_agree(storage):
    env = make(num_envs=3, storage=storage)
    torch.manual_seed(0)
    actions = torch.randn(8, 3, 8, requires_grad=True)
    (gradient,) = torch.autograd.grad(returns(env, actions).sum(), actions)
    other = make(num_envs=3, storage="recompute" if storage == "store" else "store")
    (expected,) = torch.autograd.grad(returns(other, actions).sum(), actions)
    assert torch.equal(gradient, expected)


def test_a_fall_ends_one_episode_and_no_gradient_but_its_own():
    """Env 0 is dropped to the ground in the middle of a window; env 1 learns as if it were alone."""
    actions = 0.3 * torch.randn(6, 2, 8, generator=torch.Generator().manual_seed(1))

    def run(height):
        env = make()
        env.reset()
        state = env.state_dict()
        state["joint_q"][0, 2] = height
        env.load_state_dict(state)
        variable = actions.clone().requires_grad_()
        env.detach()
        results = [env.step(action) for action in variable]
        total = torch.stack([result.reward for result in results]).sum()
        (gradient,) = torch.autograd.grad(total, variable)
        return results, gradient

    fallen, with_fall = run(0.2)
    standing, without = run(0.75)
    assert bool(fallen[0].terminated[0])
    assert not any(bool(result.terminated[0]) for result in standing)
    assert not any(bool(result.terminated[1]) for result in fallen)
    assert torch.equal(with_fall[:, 1], without[:, 1])
    assert with_fall[:, 1].abs().min(dim=0).values.max() > 0.0
    # What follows the fall is a new episode: the fatal action has no part in its rewards.
    after = torch.stack([result.reward[0] for result in fallen[1:]]).sum().detach()
    assert float(after) != 0.0
    assert with_fall[1:, 0].abs().max() > 0.0


def test_the_terminal_observation_is_that_of_the_fallen():
    env = make()
    env.reset()
    state = env.state_dict()
    state["joint_q"][0, 2] = 0.2
    env.load_state_dict(state)
    with torch.no_grad():
        result = env.step(torch.zeros(2, 8))
    assert float(result.terminal_obs["torso_height"][0]) < 0.27
    assert float(result.obs["torso_height"][0]) > 0.6


@pytest.mark.parametrize("entry", ["joint_q", "joint_qd"])
def test_a_state_that_is_not_finite_is_reset_and_counted(entry):
    env, clean = make(), make()
    actions = torch.zeros(3, 2, 8, requires_grad=True)
    for one in (env, clean):
        one.reset()
    state = env.state_dict()
    state[entry][0, 3] = float("nan")
    env.load_state_dict(state)
    results = [env.step(action) for action in actions]
    expected = [clean.step(action) for action in actions]
    assert env.nonfinite.tolist() == [1, 0]
    assert bool(results[0].terminated[0])
    assert results[0].reward[0].item() == 0.0
    assert torch.isfinite(results[-1].obs["torso_velocity"]).all()
    for one, other in zip(results, expected, strict=True):
        assert torch.equal(one.reward[1], other.reward[1])
    (gradient,) = torch.autograd.grad(torch.stack([r.reward for r in results]).sum(), actions)
    (clean_gradient,) = torch.autograd.grad(torch.stack([r.reward for r in expected]).sum(), actions)
    assert torch.isfinite(gradient).all()
    assert torch.equal(gradient[:, 1], clean_gradient[:, 1])
    assert torch.equal(gradient[0, 0], torch.zeros(8))


def test_parameters_given_act_and_have_gradients():
    env = make(parameter_gradient=True)
    own = env._bridge.engine.ports[-1].default
    mass = ParameterLayout.of(env.model).mass
    actions = 0.3 * torch.randn(4, 2, 8, generator=torch.Generator().manual_seed(2))

    def total(factor):
        parameters = own.repeat(2, 1)
        parameters[:, mass] = factor
        env.parameters = parameters
        return returns(env, actions).sum()

    factor = torch.ones(9, requires_grad=True)
    (gradient,) = torch.autograd.grad(total(factor), factor)
    with torch.no_grad():
        slope = (total(torch.full((9,), 1.02)) - total(torch.full((9,), 0.98))) / 0.04
        env.parameters = None
        plain = returns(env, actions).sum()
    assert float(gradient.sum()) == pytest.approx(float(slope), rel=0.02)
    assert float(plain) == pytest.approx(float(total(torch.ones(9)).detach()), rel=1e-6)


def test_a_gradient_of_parameters_must_be_asked_for():
    env = make()
    env.reset()
    env.parameters = env._bridge.engine.ports[-1].default.repeat(2, 1).requires_grad_()
    with pytest.raises(WindowError, match="make the env with parameter_gradient=True"):
        env.step(torch.zeros(2, 8))


def test_a_batch_is_its_envs_alone():
    batch = make(num_envs=3, num_threads=2)
    actions = 0.5 * torch.randn(8, 3, 8, generator=torch.Generator().manual_seed(3))
    batch.reset()
    start = batch.state_dict()
    with torch.no_grad():
        for action in actions:
            batch.step(action)
    for i in range(3):
        alone = make(num_envs=1)
        alone.reset()
        mine = alone.state_dict()
        for name in ("joint_q", "joint_qd"):
            mine[name] = start[name][i : i + 1]
        alone.load_state_dict(mine)
        with torch.no_grad():
            for action in actions:
                alone.step(action[i : i + 1])
        assert torch.equal(alone.state["joint_q"][0], batch.state["joint_q"][i])


def test_a_saved_env_goes_on_where_it_was():
    env = make("hand_reorient", num_envs=2, requires_grad=False)
    env.reset()
    actions = torch.randn(6, 2, 16, generator=torch.Generator().manual_seed(4))
    with torch.no_grad():
        for action in actions[:3]:
            env.step(action)
        saved = env.state_dict()
        expected = [env.step(action).reward for action in actions[3:]]
        other = make("hand_reorient", num_envs=2, requires_grad=False)
        other.load_state_dict(saved)
        found = [other.step(action).reward for action in actions[3:]]
    assert torch.equal(torch.stack(found), torch.stack(expected))


def test_materials_are_refused_where_there_are_none():
    with pytest.raises(ValueError, match=r"material_spread = 0\.2: this task has no materials to vary"):
        make(material_spread=0.2)


@pytest.mark.parametrize("dtype", [torch.float64, torch.int64])
def test_actions_of_another_precision_do_the_same(dtype):
    action = torch.ones(2, 8)
    env, other = make(), make()
    result, same = env.step(action), other.step(action.to(dtype))
    assert same.reward.dtype == torch.float32
    assert torch.equal(result.reward, same.reward)
    assert torch.equal(env.look_ahead(action)[0]["joint_q"], other.look_ahead(action.to(dtype))[0]["joint_q"])


@pytest.mark.parametrize("count", [0, -1])
def test_a_number_of_threads_that_is_none_is_refused(count):
    with pytest.raises(ValueError, match=f"num_threads must be >= 1, got {count}"):
        make(num_threads=count)


def test_materials_given_to_a_robot_are_refused_by_name():
    env = make()
    env.materials = torch.zeros(2, 1, 8)
    with pytest.raises(StateError, match=r"env\.materials: ant has none; its physics takes \['joint_q', "):
        env.step(torch.zeros(2, 8))
