import pytest
import torch

from sapo_learner.advantage import gae, n_step

GAMMA, LAMBDA = 0.9, 0.8


def random_window(seed: int, horizon: int = 7, envs: int = 5):
    generator = torch.Generator().manual_seed(seed)
    reward, values, after = (
        torch.randn(horizon, envs, dtype=torch.float64, generator=generator) for _ in range(3)
    )
    done = torch.rand(horizon, envs, generator=generator) < 0.3
    failed = done & (torch.rand(horizon, envs, generator=generator) < 0.5)
    return reward, values, torch.where(failed, 0.0, after), done, failed


@pytest.mark.parametrize("seed", range(5))
def test_gae_is_the_weighted_sum_of_errors_up_to_the_next_reset(seed):
    reward, values, after, done, _ = random_window(seed)
    advantage = gae(reward, values, after, done, gamma=GAMMA, gae_lambda=LAMBDA)
    for env in range(reward.shape[1]):
        for t in range(len(reward)):
            expected, weight = 0.0, 1.0
            for k in range(t, len(reward)):
                expected += weight * float(reward[k, env] + GAMMA * after[k, env] - values[k, env])
                weight *= GAMMA * LAMBDA
                if done[k, env]:
                    break
            assert float(advantage[t, env]) == pytest.approx(expected, rel=1e-12)


def test_with_lambda_one_advantage_and_value_make_the_discounted_return():
    reward, values, after, done, _ = random_window(0)
    # where nothing is reset, the value after a step is the one before the next
    after[:-1] = torch.where(done[:-1], after[:-1], values[1:])
    advantage = gae(reward, values, after, done, gamma=GAMMA, gae_lambda=1.0)
    for env in range(reward.shape[1]):
        expected, weight = 0.0, 1.0
        for k in range(len(reward)):
            expected += weight * float(reward[k, env])
            weight *= GAMMA
            if done[k, env] or k == len(reward) - 1:
                expected += weight * float(after[k, env])
                break
        assert float(advantage[0, env] + values[0, env]) == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("steps", [1, 3, 20])
def test_returns_of_n_steps_stop_at_resets_and_at_the_windows_end(seed, steps):
    reward, _, _, done, failed = random_window(seed)
    result = n_step(reward, done, ~failed, gamma=GAMMA, steps=steps)
    for env in range(reward.shape[1]):
        for t in range(len(reward)):
            total, taken = 0.0, 0
            for k in range(t, min(t + steps, len(reward))):
                total += GAMMA**taken * float(reward[k, env])
                taken += 1
                if done[k, env]:
                    break
            last = t + taken - 1
            assert float(result.reward[t, env]) == pytest.approx(total, rel=1e-12)
            assert int(result.last[t, env]) == last
            discount = 0.0 if failed[last, env] else GAMMA**taken
            assert float(result.discount[t, env]) == pytest.approx(discount, rel=1e-12)
