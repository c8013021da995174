"""How critics begin: without a preference for any state, and at the mean of what they are to learn."""

import pytest
import torch
from test_every_algorithm import make

TINY = {"critic_learning_rate": 1e-9, "final_learning_rate": 1e-9}
"""The fit changes next to nothing."""


@pytest.mark.parametrize("name", ["sapo", "shac"])
def test_critics_that_prefer_no_state_and_meet_the_mean_are_off_by_the_targets_spread(name):
    report = make(name, critic_head_gain=1e-6, meet_mean=True, **TINY).update()
    assert report["critic/target_std"] > 0.01
    assert report["critic/loss"] == pytest.approx(report["critic/target_std"] ** 2, rel=1e-3)


@pytest.mark.parametrize("name", ["sapo", "shac"])
def test_else_critics_that_prefer_no_state_are_off_by_the_targets_mean_too(name):
    report = make(name, critic_head_gain=1e-6, **TINY).update()
    assert abs(report["critic/target_mean"]) > 0.01
    expected = report["critic/target_std"] ** 2 + report["critic/target_mean"] ** 2
    assert report["critic/loss"] == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("name", "critics"), [("sapo", "critics"), ("shac", "critic"), ("shac", "target_critic")]
)
def test_the_gain_makes_the_first_last_layer_smaller_and_draws_the_same_numbers(name, critics):
    usual, small = (make(name, critic_head_gain=gain)._parts()[critics].heads for gain in (1.0, 0.01))
    torch.testing.assert_close(small.last.weight, 0.01 * usual.last.weight)
    assert torch.equal(small.layers[0].weight, usual.layers[0].weight)


@pytest.mark.parametrize("name", ["sapo", "shac", "apg"])
def test_the_gain_of_the_actors_last_layer_makes_a_first_policy_of_mean_0(name):
    usual, small = (make(name, head_gain=gain).policy.head.mean.weight for gain in (1.0, 0.01))
    torch.testing.assert_close(small, 0.01 * usual)
