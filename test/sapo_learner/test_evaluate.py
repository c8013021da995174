import pytest
import torch
from point_mass import PointMass

from sapo_learner.evaluate import EvalResult, Random, Zero, evaluate


class PushRight:
    def act(self, obs, deterministic):
        return torch.ones(len(obs["x"]), 1)

    def begin(self, started):
        pass


def test_returns_are_sums_of_rewards_over_whole_episodes():
    env = PointMass(max_episode_steps=7, start=torch.tensor([0.5, -1.0]))
    result = evaluate(env, Zero(1), episodes_per_env=3)  # at rest and without a push, the mass stays
    torch.testing.assert_close(result.returns, torch.tensor([[-7 * 0.25, -7 * 1.0]] * 3).double())
    assert result.lengths.tolist() == [[7, 7]] * 3
    assert result.mean == pytest.approx(-4.375)


def test_every_env_counts_the_same_number_of_episodes_however_short_they_are():
    env = PointMass(max_episode_steps=20, start=torch.tensor([1.9, -1.9]))
    result = evaluate(env, PushRight(), episodes_per_env=4)
    assert result.lengths[:, 0].tolist() == [2] * 4  # 1.9, 1.95, 2.05: failed
    assert (result.lengths[:, 1] > 5).all()
    assert result.returns.shape == (4, 2) and (result.returns[:, 0] == result.returns[0, 0]).all()


def test_the_confidence_interval_is_that_of_student_t():
    result = EvalResult(returns=torch.tensor([[1.0, 3.0], [5.0, 7.0]]), lengths=torch.ones(2, 2))
    assert result.mean == 4.0
    assert result.ci95 == pytest.approx(3.182446 * (20 / 3) ** 0.5 / 2)
    assert str(result) == "4.00 ± 4.11 (4 episodes)"
    alone = EvalResult(returns=torch.tensor([[3.0]]), lengths=torch.ones(1, 1))
    assert alone.text(1) == "3.0"


def test_the_env_is_left_as_it_was_and_two_policies_meet_the_same_starts():
    starts = []

    class Remembers(Zero):
        def act(self, obs, deterministic):
            starts.append(obs["x"].clone())
            return super().act(obs, deterministic)

    env = PointMass(num_envs=3)
    env.step(torch.ones(3, 1))
    before = env.state_dict()
    for _ in range(2):
        evaluate(env, Remembers(1))
    torch.testing.assert_close(env.state_dict(), before, rtol=0.0, atol=0.0)
    assert len(starts) == 2 * env.max_episode_steps
    assert torch.equal(starts[0], starts[env.max_episode_steps])
    assert not torch.equal(starts[0], before["x"])


def test_no_gradient_history_is_kept():
    class Differentiable(Zero):
        def act(self, obs, deterministic):
            assert not torch.is_grad_enabled()
            return super().act(obs, deterministic)

    evaluate(PointMass(), Differentiable(1))


def test_random_actions_fill_the_range_and_repeat_with_the_seed():
    obs = {"x": torch.zeros(1000, 1)}
    actions = Random(4, seed=1).act(obs, False)
    assert actions.shape == (1000, 4) and torch.equal(actions, Random(4, seed=1).act(obs, False))
    assert actions.min() < -0.99 and actions.max() > 0.99 and actions.abs().max() <= 1.0
