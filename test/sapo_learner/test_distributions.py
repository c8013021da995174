import math

import pytest
import torch

from sapo_learner.distributions import SquashedNormal, log_tanh_slope, normalized_entropy

CASES = [(0.0, 0.0), (0.6, -1.0), (-1.5, 0.4), (0.2, -3.0)]


def one_dimensional(mean: float, log_std: float) -> SquashedNormal:
    return SquashedNormal(
        torch.tensor([mean], dtype=torch.float64), torch.tensor([log_std], dtype=torch.float64)
    )


def density(a, mean: float, log_std: float, width: float = 1e-6):
    """Of the action, as the slope of its cumulative distribution."""
    normal = torch.distributions.Normal(mean, math.exp(log_std))
    return (normal.cdf(torch.atanh(a + width)) - normal.cdf(torch.atanh(a - width))) / (2.0 * width)


@pytest.mark.parametrize(("mean", "log_std"), CASES)
def test_the_log_probability_is_the_slope_of_the_cumulative_distribution(mean, log_std):
    a = torch.linspace(-0.95, 0.95, 39, dtype=torch.float64)
    expected = density(a, mean, log_std)
    found = one_dimensional(mean, log_std).log_prob(torch.atanh(a)[:, None]).exp()
    visible = expected > 1e-4
    assert visible.sum() > 3
    torch.testing.assert_close(found[visible], expected[visible], rtol=1e-6, atol=0.0)


@pytest.mark.parametrize(("mean", "log_std"), CASES)
def test_the_entropy_estimate_averages_to_the_integral_over_all_actions(mean, log_std):
    u = torch.linspace(
        mean - 12 * math.exp(log_std), mean + 12 * math.exp(log_std), 200_001, dtype=torch.float64
    )
    normal = torch.distributions.Normal(mean, math.exp(log_std))
    # H(tanh u) = H(u) + E[log slope], with the slope taken the naive way, in float64 and where it is not 0
    log_slope = torch.log((1.0 / torch.cosh(u)) ** 2)
    expected = normal.entropy() + torch.trapezoid(normal.log_prob(u).exp() * log_slope, u)
    noise = torch.randn(400_000, 1, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    found = one_dimensional(mean, log_std).entropy(noise)
    assert found.item() == pytest.approx(expected.item(), abs=0.01)


def test_log_probabilities_add_up_over_dimensions():
    both = SquashedNormal(torch.tensor([0.3, -0.2]), torch.tensor([-1.0, 0.5]))
    u = torch.tensor([[0.1, 0.7]])
    alone = [
        SquashedNormal(both.mean[i : i + 1], both.log_std[i : i + 1]).log_prob(u[:, i : i + 1])
        for i in (0, 1)
    ]
    torch.testing.assert_close(both.log_prob(u), alone[0] + alone[1])


def test_the_log_probability_is_finite_where_tanh_rounds_to_one():
    u = torch.tensor([[40.0], [-40.0]], requires_grad=True)
    log_prob = SquashedNormal(torch.tensor([0.0]), torch.tensor([2.0])).log_prob(u)
    log_prob.sum().backward()
    assert torch.tanh(u[0]).item() == 1.0
    assert log_prob.isfinite().all() and u.grad.isfinite().all()
    assert log_tanh_slope(u).detach().squeeze().tolist() == pytest.approx([2 * math.log(2) - 80] * 2)


def test_entropy_reaches_mean_and_standard_deviation_with_its_gradient():
    mean, log_std = (torch.tensor([0.5], requires_grad=True) for _ in range(2))
    SquashedNormal(mean, log_std).entropy(torch.tensor([[0.3]])).backward()
    assert mean.grad.item() != 0.0 and log_std.grad.item() != 0.0


def test_more_entropy_samples_scatter_less():
    noise = torch.randn(8, 2000, 1, generator=torch.Generator().manual_seed(0))
    distribution = SquashedNormal(torch.zeros(2000, 1), torch.zeros(2000, 1))
    one, eight = distribution.entropy(noise[:1]).std(), distribution.entropy(noise).std()
    assert eight.item() == pytest.approx(one.item() / math.sqrt(8), rel=0.1)


def test_normalised_entropy_is_zero_at_the_target_and_one_at_its_mirror_image():
    target = -4.0
    found = normalized_entropy(torch.tensor([-4.0, 4.0, 0.0]), target)
    assert found.tolist() == [0.0, 1.0, 0.5]


def test_the_normalised_entropy_of_uniform_actions_is_the_known_bound():
    d = 24
    uniform = torch.tensor(d * math.log(2.0))  # the entropy of (-1, 1)^d
    assert normalized_entropy(uniform, -0.5 * d).item() == pytest.approx(1.193, abs=1e-3)


def test_the_deterministic_action_is_the_tanh_of_the_mean():
    distribution = SquashedNormal(torch.tensor([1.3, -0.4]), torch.zeros(2))
    assert distribution.mode().tolist() == pytest.approx([math.tanh(1.3), math.tanh(-0.4)])
