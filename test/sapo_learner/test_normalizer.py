import torch

from sapo_learner.normalizer import StateNormalizer


def sequential_merge(batches):
    """One batch after the other, as the textbook has it."""
    mean, variance, count = torch.zeros(batches.shape[-1]), torch.ones(batches.shape[-1]), 1.0
    mean, variance = mean.double(), variance.double()
    for batch in batches.double():
        delta, size = batch.mean(dim=0) - mean, len(batch)
        total = count + size
        m2 = variance * count + batch.var(dim=0) * size + delta**2 * count * size / total
        mean, variance, count = mean + delta * size / total, m2 / total, total
    return mean, variance, count


def test_one_update_with_all_batches_equals_updates_with_one_after_the_other():
    generator = torch.Generator().manual_seed(0)
    batches = 3.0 + 2.0 * torch.randn(9, 4, 3, generator=generator)
    mean, variance, count = sequential_merge(batches)
    at_once, in_turn = StateNormalizer(3), StateNormalizer(3)
    at_once.update(batches)
    for batch in batches:
        in_turn.update(batch[None])
    for normalizer in (at_once, in_turn):
        torch.testing.assert_close(normalizer.mean, mean, rtol=1e-12, atol=0.0)
        torch.testing.assert_close(normalizer.variance, variance, rtol=1e-12, atol=0.0)
        assert normalizer.count.item() == count


def test_many_samples_come_out_with_mean_zero_and_variance_one():
    states = 1000.0 + torch.tensor([0.01, 5.0]) * torch.randn(
        50, 100, 2, generator=torch.Generator().manual_seed(0)
    )
    normalizer = StateNormalizer(2)
    for _ in range(400):  # the initial count of 1 is forgotten
        normalizer.update(states)
    normalized = (states - normalizer.mean) * (normalizer.variance + 1e-5).rsqrt()
    assert normalized.flatten(0, 1).mean(dim=0).abs().max() < 0.1
    assert abs(normalized[..., 1].std() - 1.0) < 0.1


def test_before_the_first_update_states_pass_unchanged():
    states = torch.tensor([[1.5, -2.0]])
    assert torch.equal(StateNormalizer(2)(states), states)


def test_the_same_statistics_hold_until_the_next_update_and_pass_the_gradient():
    normalizer = StateNormalizer(1)
    normalizer.update(torch.tensor([[[1.0], [3.0]], [[5.0], [7.0]]]))
    state = torch.tensor([[2.0]], requires_grad=True)
    normalizer(state).backward()
    expected = (normalizer.variance + 1e-5).rsqrt()
    torch.testing.assert_close(state.grad.double(), expected[None], rtol=1e-6, atol=0.0)
    torch.testing.assert_close(
        normalizer(state).double(), (2.0 - normalizer.mean) * expected[None], rtol=1e-6, atol=1e-7
    )


def test_a_single_env_is_enough():
    normalizer = StateNormalizer(1)
    normalizer.update(torch.arange(100.0).view(100, 1, 1))
    assert abs(normalizer.mean.item() - 49.5) < 1.0
    assert abs(normalizer.variance.item() / torch.arange(100.0).var().item() - 1.0) < 0.05


def test_statistics_survive_a_state_dict():
    first, second = StateNormalizer(2), StateNormalizer(2)
    first.update(torch.randn(4, 3, 2, generator=torch.Generator().manual_seed(0)))
    second.load_state_dict(first.state_dict())
    state = torch.tensor([[0.3, 0.4]])
    assert torch.equal(first(state), second(state))
