"""What an env promises holds for muscles, for contact between shapes and for soft bodies alike."""

import pytest
import torch

import rewarped_sim

STEPS = 4
TASKS = {
    "snu_humanoid": ("joint_q", "joint_qd"),
    "hand_reorient": ("joint_q", "joint_qd"),
    "soft_jumper_small": ("vertices",),
}
"""Entries of a state that physics moves, by task."""
BREAKAGES = [(task, entry) for task, entries in TASKS.items() for entry in entries]


def make(task, *, num_envs=3, **options):
    fewer = {"num_substeps": 16} if task == "hand_reorient" else {}
    env = rewarped_sim.make(task, num_envs=num_envs, horizon=STEPS, **fewer, **options)
    env.reset()
    return env


def actions_for(env, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return 0.3 * torch.randn(STEPS, env.num_envs, env.action_dim, generator=generator)


def learn(env, actions):
    """Results of the steps, and the gradient of all rewards with respect to the actions."""
    given = actions.clone().requires_grad_()
    results = [env.step(action) for action in given]
    (gradient,) = torch.autograd.grad(torch.stack([result.reward for result in results]).sum(), given)
    return results, gradient


def assert_same(results, others, envs):
    for result, other in zip(results, others, strict=True):
        assert torch.equal(result.reward[envs], other.reward[envs])
        for name, value in result.obs.items():
            assert torch.equal(value[envs], other.obs[name][envs])


@pytest.mark.parametrize(("task", "entry"), BREAKAGES)
def test_an_env_that_breaks_is_reset_counted_and_harms_no_other(task, entry):
    env, clean = make(task), make(task)
    state = env.state_dict()
    state[entry][1].view(-1)[-1] = float("nan")
    env.load_state_dict(state)
    actions = actions_for(env)
    results, gradient = learn(env, actions)
    expected, clean_gradient = learn(clean, actions)
    assert env.nonfinite.tolist() == [0, 1, 0]
    assert results[0].terminated.tolist() == [False, True, False]
    assert results[0].reward[1].item() == 0.0
    assert all(torch.isfinite(value).all() for result in results for value in result.terminal_obs.values())
    assert_same(results, expected, [0, 2])
    assert torch.equal(gradient[:, [0, 2]], clean_gradient[:, [0, 2]])
    assert torch.isfinite(gradient).all()
    assert not gradient[0, 1].any()
    assert gradient[1:, 1].any()


@pytest.mark.parametrize("task", TASKS)
def test_an_episode_that_ends_in_a_window_ends_no_other(task):
    env, clean = make(task), make(task)
    state = env.state_dict()
    state["clock"][1] = env.max_episode_steps - 2
    env.load_state_dict(state)
    actions = actions_for(env)
    results, gradient = learn(env, actions)
    expected, clean_gradient = learn(clean, actions)
    assert [result.truncated.tolist() for result in results] == [
        [False] * 3,
        [False, True, False],
        *[[False] * 3] * 2,
    ]
    assert_same(results, expected, [0, 2])
    assert torch.equal(gradient[:, [0, 2]], clean_gradient[:, [0, 2]])
    # Env 1 goes on, in another episode.
    for step, (result, other) in enumerate(zip(results, expected, strict=True)):
        assert torch.equal(result.reward[1], other.reward[1]) == (step < 2)
    assert gradient[:2, 1].any() and gradient[2:, 1].any()


@pytest.mark.parametrize("task", TASKS)
def test_stored_and_recomputed_gradients_are_bit_identical(task):
    stored, recomputed = (make(task, storage=storage) for storage in ("store", "recompute"))
    actions = actions_for(stored)
    assert torch.equal(learn(stored, actions)[1], learn(recomputed, actions)[1])


@pytest.mark.parametrize("task", TASKS)
def test_a_restored_env_goes_on_exactly(task):
    env = make(task, requires_grad=False)
    actions = actions_for(env)
    with torch.no_grad():
        env.step(actions[0])
        saved = env.state_dict()
        expected = [env.step(action) for action in actions]
        other = make(task, requires_grad=False, seed=9)
        other.load_state_dict(saved)
        assert_same([other.step(action) for action in actions], expected, [0, 1, 2])


@pytest.mark.parametrize("task", TASKS)
def test_one_env_of_a_batch_is_that_env_alone(task):
    batch, alone = make(task, num_threads=2), make(task, num_envs=1)
    actions = actions_for(batch)
    results, gradient = learn(batch, actions)
    expected, own_gradient = learn(alone, actions[:, :1])
    assert_same(results, expected, [0])
    assert torch.equal(gradient[:, :1], own_gradient)
