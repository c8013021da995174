import pytest
import torch
from point_mass import PointMass

from sapo_learner.returns import actor_objective, td_lambda_targets

GAMMA, LAMBDA = 0.97, 0.9
H, N = 12, 6


def random_window(seed: int):
    generator = torch.Generator().manual_seed(seed)
    reward, next_values = torch.randn(2, H, N, generator=generator, dtype=torch.float64)
    done = torch.rand(H, N, generator=generator) < 0.25
    failed = done & (torch.rand(H, N, generator=generator) < 0.5)
    return reward, torch.where(failed, 0.0, next_values), done


def segment_end(done, t: int, n: int) -> int:
    while t < H - 1 and not done[t, n]:
        t += 1
    return t


@pytest.mark.parametrize("seed", range(5))
def test_lambda_returns_are_the_weighted_average_of_all_n_step_returns(seed):
    reward, next_values, done = random_window(seed)
    targets = td_lambda_targets(reward, next_values, done, gamma=GAMMA, td_lambda=LAMBDA)
    for n in range(N):
        for t in range(H):
            end = segment_end(done, t, n)
            n_step = []
            for last in range(t, end + 1):
                rewards = sum(GAMMA ** (k - t) * reward[k, n] for k in range(t, last + 1))
                n_step.append(rewards + GAMMA ** (last - t + 1) * next_values[last, n])
            weights = [(1 - LAMBDA) * LAMBDA**k for k in range(len(n_step) - 1)] + [
                LAMBDA ** (len(n_step) - 1)
            ]
            expected = sum(w * g for w, g in zip(weights, n_step, strict=True))
            assert targets[t, n].item() == pytest.approx(expected.item(), abs=1e-12)


@pytest.mark.parametrize("seed", range(5))
def test_the_actor_objective_is_what_walking_along_each_env_adds_up_to(seed):
    reward, next_values, done = random_window(seed)
    total = 0.0
    for n in range(N):
        discount, segment = 1.0, 0.0
        for t in range(H):
            segment += discount * reward[t, n].item()
            discount *= GAMMA
            if done[t, n] or t == H - 1:
                total += segment + discount * next_values[t, n].item()
                discount, segment = 1.0, 0.0
    objective = actor_objective(reward, next_values, done, gamma=GAMMA)
    assert objective.item() == pytest.approx(total / (N * H), abs=1e-12)


def objective_of(actions):
    """Of a window in which env 0 fails and env 1 reaches its time limit, with a value linear in the state."""
    env = PointMass(max_episode_steps=6, dtype=torch.float64, start=torch.tensor([1.71, 0.3]))
    steps = [env.step(action) for action in actions]
    terminal = [step.terminal_obs for step in steps]
    value = torch.stack([0.7 * obs["x"] - 0.4 * obs["v"] for obs in terminal]).squeeze(-1)
    failed = torch.stack([step.terminated for step in steps])
    done = failed | torch.stack([step.truncated for step in steps])
    assert failed[:, 0].any()
    assert done[:-1, 1].any() and not failed[:, 1].any()
    reward = torch.stack([step.reward for step in steps])
    return actor_objective(reward, torch.where(failed, 0.0, value), done, gamma=GAMMA)


@pytest.mark.parametrize("step", [0, 2, 5, 6, 9])
def test_the_gradient_of_the_actor_objective_matches_central_differences(step):
    actions = torch.full((10, 2, 1), 0.4, dtype=torch.float64, requires_grad=True)
    objective_of(actions).backward()
    for env in range(2):
        shift = torch.zeros_like(actions)
        shift[step, env] = 1e-5
        with torch.no_grad():
            difference = (objective_of(actions + shift) - objective_of(actions - shift)) / 2e-5
        assert actions.grad[step, env].item() == pytest.approx(difference.item(), rel=1e-6, abs=1e-10)
        assert difference != 0.0
