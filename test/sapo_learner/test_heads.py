import pytest
import torch

from sapo_learner.heads import BoundedHead, FreeStdHead, SquashedHead


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_log_standard_deviations_are_clamped_hard_and_without_gradient_beyond():
    head = SquashedHead(1, [], 3, generator())
    head.log_std.bias.data.copy_(torch.tensor([-9.0, 0.0, 5.0]))
    _, log_std = head(torch.zeros(1, 1))
    log_std.sum().backward()
    assert log_std.tolist() == [[-5.0, 0.0, 2.0]]
    assert head.log_std.bias.grad.tolist() == [0.0, 1.0, 0.0]


def test_a_head_of_small_gain_prefers_nothing_at_first():
    features = torch.randn(100, 8, generator=generator())
    mean, log_std = SquashedHead(8, [16], 3, generator(), gain=0.01)(features)
    assert mean.abs().max() < 0.05
    assert log_std.abs().max() < 0.05
    mean, _ = SquashedHead(8, [16], 3, generator())(features)
    assert mean.abs().max() > 0.5


def test_a_free_standard_deviation_is_the_same_whatever_is_seen():
    head = FreeStdHead(8, [16], 3, generator())
    distribution = head(torch.randn(100, 8, generator=generator()))
    assert torch.equal(distribution.log_std, torch.full((100, 3), -1.0))
    assert distribution.mean.std() > 0.1
    distribution.log_std.sum().backward()
    assert head.log_std.grad.tolist() == [100.0] * 3


def test_a_bounded_head_stays_within_its_bounds():
    distribution = BoundedHead(8, [16], 3, generator())(100.0 * torch.randn(100, 8, generator=generator()))
    assert distribution.mean.abs().max() <= 1.0
    assert distribution.std.min() >= 0.1 and distribution.std.max() <= 1.0


@pytest.mark.parametrize("head", [SquashedHead, FreeStdHead, BoundedHead])
def test_heads_draw_nothing_from_the_global_generator(head):
    before = torch.random.get_rng_state()
    head(4, [8], 2, generator())
    assert torch.equal(before, torch.random.get_rng_state())
