import pytest
import torch
from point_mass import PointMass

from sapo_learner.evaluate import evaluate
from sapo_learner.trajopt import OpenLoop, TrajOpt, TrajOptConfig

START = torch.tensor([0.5, -1.0, 1.5])


def make(**values) -> TrajOpt:
    config = TrajOptConfig(**{"horizon": 4, **values})
    env = PointMass(num_envs=3, max_episode_steps=6, start=START)
    return TrajOpt(env, config, seed=0, planned_epochs=10)


def test_it_begins_with_doing_nothing():
    learner = make()
    assert learner.policy.actions.shape == (6, 1) and not learner.policy.actions.any()


def test_the_gradient_is_that_of_the_windows_mean_reward_at_each_envs_own_step():
    """Central differences; the second window begins at step 4 and goes on in the next episode."""

    def objective(window: int, index: int, shift: float) -> tuple[float, float]:
        learner = make(max_grad_norm=1e9, learning_rate=1e-12)
        learner.policy.actions.data += torch.linspace(-0.3, 0.4, 6)[:, None]
        for _ in range(window):
            learner.update()
        learner.policy.actions.data[index] += shift
        report = learner.update()
        return report["actor/objective"], -learner.policy.actions.grad[index].item()

    for window, unused in ((0, {4, 5}), (1, {2, 3})):
        for index in range(6):
            _, gradient = objective(window, index, 0.0)
            difference = (objective(window, index, 0.01)[0] - objective(window, index, -0.01)[0]) / 0.02
            assert gradient == pytest.approx(difference, rel=5e-3, abs=2e-5)
            assert (gradient == 0.0) == (index in unused)


def test_actions_stay_within_their_bounds_and_can_come_back():
    learner = make(learning_rate=5.0)
    for _ in range(3):
        learner.update()
    assert learner.policy.actions.abs().max() == 1.0


def test_the_weight_decay_draws_actions_towards_zero():
    learners = [make(weight_decay=decay, learning_rate=0.1) for decay in (0.0, 0.2)]
    for learner in learners:
        learner.policy.actions.data += 0.5
        learner.update()
    free, drawn = (learner.policy.actions for learner in learners)
    torch.testing.assert_close(free - drawn, torch.full((6, 1), 0.1 * 0.2 * 0.5))


def test_an_open_loop_starts_over_where_an_episode_begins():
    policy = OpenLoop(2, 3, 1)
    policy.actions.data.copy_(torch.tensor([[0.1], [0.2], [0.3]]))
    policy.begin(torch.tensor([True, True]))
    seen = [policy.act({}, True).squeeze(1).tolist() for _ in range(2)]
    policy.begin(torch.tensor([False, True]))
    seen += [policy.act({}, True).squeeze(1).tolist() for _ in range(2)]
    torch.testing.assert_close(
        torch.tensor(seen), torch.tensor([[0.1, 0.1], [0.2, 0.2], [0.3, 0.1], [0.3, 0.2]])
    )


def test_evaluating_it_plays_the_sequence_in_every_episode_of_any_number_of_envs():
    policy = OpenLoop(3, 6, 1)
    policy.actions.data.uniform_(-1.0, 1.0, generator=torch.Generator().manual_seed(0))
    env = PointMass(num_envs=2, max_episode_steps=6, start=torch.tensor([0.5, 0.5]))
    returns = evaluate(env, policy, episodes_per_env=3).returns
    torch.testing.assert_close(returns, returns[:1, :1].expand(3, 2))
    assert returns[0, 0] != evaluate(env, OpenLoop(2, 6, 1), episodes_per_env=1).returns[0, 0]
