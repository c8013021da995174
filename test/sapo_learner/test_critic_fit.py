import copy
import math

import pytest
import torch
from torch import nn

from sapo_learner.critic_fit import fit_critics, meet_mean
from sapo_learner.critics import Critics
from sapo_learner.encoders import FlatEncoder
from sapo_learner.network_input import NetworkInput
from sapo_learner.networks import Style
from sapo_learner.optimization import make_adamw
from sapo_learner.stacked_regression import StackRegression

SIZE = 5


def make_critics(hidden=(8, 6), count=3, activation="silu") -> Critics:
    """Critics all of whose parameters are away from where they start."""
    generator = torch.Generator().manual_seed(3)
    encoder = FlatEncoder(SIZE)
    critics = Critics(encoder, count=count, hidden=hidden, weights=generator, style=Style(activation))
    with torch.no_grad():
        for parameter in critics.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=generator)
    return critics


class Opaque(nn.Module):
    """The same critics, not to be recognised: they are fitted by autograd."""

    def __init__(self, critics: Critics):
        super().__init__()
        self.critics = critics

    def forward(self, inputs):
        return self.critics(inputs)


def window(horizon=6, num_envs=4):
    generator = torch.Generator().manual_seed(4)
    state = torch.randn(horizon, num_envs, SIZE, generator=generator)
    return NetworkInput(state, None), torch.randn(horizon, num_envs, generator=generator)


def fit(critics, optimizer, inputs, targets, **options):
    settings = {"passes": 3, "num_minibatches": 5, "shuffle": True, "max_grad_norm": 0.5} | options
    generator = torch.Generator().manual_seed(5)
    return fit_critics(critics, optimizer, inputs, targets, generator=generator, **settings)


def optimizer_of(critics):
    return make_adamw([critics], learning_rate=1e-2, betas=(0.7, 0.95), weight_decay=0.01)


def gradients(critics):
    return [parameter.grad for parameter in critics.parameters()]


# ---- the gradient written out ----


@pytest.mark.parametrize("activation", ["silu", "elu"])
@pytest.mark.parametrize("hidden", [(), (8,), (8, 6)])
@pytest.mark.parametrize("count", [1, 3])
@pytest.mark.parametrize("samples", [24, 1, 0])
def test_the_gradient_written_out_is_autograds(activation, hidden, count, samples):
    critics = make_critics(hidden, count, activation)
    (state, _), targets = window()
    state, targets = state.flatten(0, 1)[:samples], targets.flatten()[:samples]
    expected_loss = (critics(NetworkInput(state, None)) - targets).square().mean(dim=0).sum() / 24
    expected = torch.autograd.grad(expected_loss, list(critics.parameters()))
    loss = StackRegression(critics.heads)(state, targets, weight=1 / 24)
    torch.testing.assert_close(loss, expected_loss.detach(), rtol=1e-6, atol=1e-6)
    for ours, theirs in zip(gradients(critics), expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)


def test_a_gradient_takes_the_place_of_the_one_before():
    critics = make_critics()
    (state, _), targets = window()
    regression = StackRegression(critics.heads)
    regression(state[0], targets[0], weight=1.0)
    first = [gradient.clone() for gradient in gradients(critics)]
    regression(state[1], targets[1], weight=1.0)
    assert not torch.equal(gradients(critics)[0], first[0])
    regression(state[0], targets[0], weight=1.0)
    assert all(torch.equal(ours, one) for ours, one in zip(gradients(critics), first, strict=True))


# ---- the mean ----


def test_each_critics_mean_becomes_that_of_the_targets_and_its_shape_stays():
    critics, (inputs, targets) = make_critics(), window()
    flat = inputs.map(lambda x: x.flatten(0, 1))
    before = critics(flat).detach()
    weights = {name: tensor.clone() for name, tensor in critics.state_dict().items()}
    meet_mean(critics, inputs, targets)
    after = critics(flat).detach()
    torch.testing.assert_close(after.mean(dim=1), targets.mean().expand(3), rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(
        after - after.mean(dim=1, keepdim=True), before - before.mean(dim=1, keepdim=True)
    )
    moved = {name for name, tensor in critics.state_dict().items() if not torch.equal(tensor, weights[name])}
    assert moved == {"heads.layers.6.bias"}


def test_the_mean_is_that_of_the_targets_that_are_finite():
    critics, (inputs, targets) = make_critics(), window()
    targets[1, 2], targets[4, 0] = math.nan, math.inf
    known = targets.isfinite()
    meet_mean(critics, inputs, targets)
    values = critics(inputs.map(lambda x: x.flatten(0, 1))).unflatten(1, targets.shape)
    error = (values - targets)[:, known]
    torch.testing.assert_close(error.mean(dim=1), torch.zeros(3), rtol=0.0, atol=1e-6)


def test_without_a_finite_target_critics_stay_as_they_are():
    critics, (inputs, targets) = make_critics(), window()
    before = [parameter.clone() for parameter in critics.parameters()]
    meet_mean(critics, inputs, torch.full_like(targets, math.nan))
    assert all(torch.equal(new, old) for new, old in zip(critics.parameters(), before, strict=True))


# ---- the fit ----


@pytest.mark.parametrize("broken_targets", [False, True])
def test_written_out_or_by_autograd_the_fit_is_the_same(broken_targets):
    inputs, targets = window()
    if broken_targets:
        targets[1, 2], targets[4, 0] = math.nan, math.inf
    written_out = make_critics()
    by_autograd = copy.deepcopy(written_out)
    metrics = fit(written_out, optimizer_of(written_out), inputs, targets)
    expected = fit(Opaque(by_autograd), optimizer_of(by_autograd), inputs, targets)
    torch.testing.assert_close(metrics, expected, rtol=1e-5, atol=1e-6, equal_nan=True)
    assert metrics["critic/masked_targets"] == (2 if broken_targets else 0)
    for ours, theirs in zip(written_out.parameters(), by_autograd.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("wrap", [lambda critics: critics, Opaque])
def test_a_target_that_is_not_finite_has_no_part_in_the_gradient(wrap):
    critics = make_critics()
    inputs, targets = window()
    others = torch.ones_like(targets, dtype=torch.bool)
    others[1, 2] = others[4, 0] = False
    errors = critics(inputs.map(lambda x: x.flatten(0, 1)[others.flatten()])) - targets[others]
    loss = errors.square().sum() / (len(errors) * targets.numel())
    expected = list(torch.autograd.grad(loss, list(critics.parameters())))
    targets[1, 2], targets[4, 0] = math.nan, -math.inf
    metrics = fit(
        wrap(critics), optimizer_of(critics), inputs, targets, passes=1, num_minibatches=1, max_grad_norm=1e9
    )
    torch.testing.assert_close(gradients(critics), expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(metrics["critic/loss"], loss.detach())
    assert metrics["critic/masked_targets"] == 2


def test_it_learns_the_targets():
    critics = make_critics(count=2)
    inputs, targets = window()
    optimizer = optimizer_of(critics)
    first = fit(critics, optimizer, inputs, targets, passes=1)["critic/loss"]
    last = fit(critics, optimizer, inputs, targets, passes=300)["critic/loss"]
    assert fit(critics, optimizer, inputs, targets, passes=1)["critic/loss"] < 0.05 * first
    assert last < first


@pytest.mark.parametrize("wrap", [lambda critics: critics, Opaque])
def test_a_minibatch_without_a_finite_gradient_changes_nothing_and_is_counted(wrap):
    critics = make_critics()
    inputs, targets = window()
    optimizer = optimizer_of(critics)
    fit(wrap(critics), optimizer, inputs, targets)  # so that there are moments to spoil
    before = copy.deepcopy((critics.state_dict(), optimizer.state_dict()))
    inputs.state[2, 1, 0] = math.inf
    metrics = fit(wrap(critics), optimizer, inputs, targets, passes=1, num_minibatches=1)
    assert metrics["critic/skipped"] == 1
    torch.testing.assert_close((critics.state_dict(), optimizer.state_dict()), before, rtol=0.0, atol=0.0)


def test_of_several_minibatches_only_the_broken_one_is_skipped():
    critics = make_critics()
    inputs, targets = window()
    inputs.state[0, 0, 0] = math.nan
    before = copy.deepcopy(critics.state_dict())
    metrics = fit(critics, optimizer_of(critics), inputs, targets, passes=2, num_minibatches=4)
    assert metrics["critic/skipped"] == 2  # once in each pass
    assert all(parameter.isfinite().all() for parameter in critics.parameters())
    assert not torch.equal(critics.heads.layers[0].weight, before["heads.layers.0.weight"])
