import pytest
import torch
from counter import Counter
from point_mass import PointMass

from sapo_learner.apg import Apg, ApgConfig

CONFIG = ApgConfig(horizon=17, actor_hidden=(16,))


def test_the_objective_is_the_discounted_reward_of_the_window_and_nothing_after_it():
    gamma = CONFIG.gamma
    apg = Apg(Counter(gamma), CONFIG, seed=0, planned_epochs=10)
    # the reward is the value before minus the discounted value after: a segment of k steps telescopes
    expected = 0.0
    for length, fails in ((5, False), (3, True)):
        whole, rest = divmod(17, length)
        end = 0.0 if fails else gamma**length * (length + 10.0)
        expected += whole * (10.0 - end) + (10.0 - gamma**rest * (rest + 10.0))
    assert apg.update()["actor/objective"] == pytest.approx(expected / (2 * 17), rel=1e-6)


def test_the_gradient_matches_central_differences_of_the_objective():
    config = ApgConfig(horizon=8, actor_hidden=(16,), max_grad_norm=1e9)  # unclipped, so it can be read off

    def objective_and_gradient(shift: float) -> tuple[float, float]:
        apg = Apg(PointMass(num_envs=4, max_episode_steps=5), config, seed=0, planned_epochs=10)
        with torch.no_grad():
            apg.policy.head.mean.bias += shift
        metrics = apg.update()
        return metrics["actor/objective"], -apg.policy.head.mean.bias.grad.item()

    _, gradient = objective_and_gradient(0.0)
    difference = (objective_and_gradient(0.01)[0] - objective_and_gradient(-0.01)[0]) / 0.02
    assert gradient == pytest.approx(difference, rel=5e-3)
    assert abs(gradient) > 1e-3
