import copy

import pytest
import torch
from torch import nn

from sapo_learner.networks import StackedCritics, trunk
from sapo_learner.optimization import make_adamw, step_clipped
from sapo_learner.temperature import Temperature


def make(modules, **kwargs):
    return make_adamw(
        modules, **({"learning_rate": 0.1, "betas": (0.7, 0.95), "weight_decay": 0.01} | kwargs)
    )


def test_only_weight_matrices_decay():
    generator = torch.Generator().manual_seed(0)
    modules = [trunk([3, 4], generator), StackedCritics(2, 3, [4], generator)]
    optimizer = make(modules)
    names = {parameter: name for module in modules for name, parameter in module.named_parameters()}
    decay = {
        names[parameter]: group["weight_decay"]
        for group in optimizer.param_groups
        for parameter in group["params"]
    }
    assert decay == {
        "0.weight": 0.01,
        "0.bias": 0.0,
        "1.weight": 0.0,  # LayerNorm
        "1.bias": 0.0,
        "layers.0.weight": 0.01,
        "layers.0.bias": 0.0,
        "layers.1.weight": 0.0,
        "layers.1.bias": 0.0,
        "layers.3.weight": 0.01,
        "layers.3.bias": 0.0,
    }


def test_the_clip_is_one_norm_over_all_parameters():
    modules = [nn.Linear(2, 1), nn.Linear(3, 1)]
    optimizer = make(modules)
    parameters = [p for module in modules for p in module.parameters()]
    for parameter in parameters:
        parameter.grad = torch.ones_like(parameter)
    norm = step_clipped(optimizer, max_norm=0.5)
    assert norm.item() == pytest.approx(7**0.5)  # 2 + 1 + 3 + 1 ones
    after = torch.cat([p.grad.flatten() for p in parameters]).norm()
    assert after.item() == pytest.approx(0.5, rel=1e-4)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_a_gradient_that_is_not_finite_changes_nothing(bad):
    layer = nn.Linear(3, 2)
    optimizer = make([layer])
    for parameter in layer.parameters():
        parameter.grad = torch.ones_like(parameter)
    step_clipped(optimizer, max_norm=0.5)  # so that there are moments to spoil
    before = copy.deepcopy((layer.state_dict(), optimizer.state_dict()["state"]))
    layer.weight.grad = torch.ones_like(layer.weight)
    layer.weight.grad[0, 0] = bad
    assert not step_clipped(optimizer, max_norm=0.5).isfinite()
    after = (layer.state_dict(), optimizer.state_dict()["state"])
    torch.testing.assert_close(after, before, rtol=0.0, atol=0.0)

    for parameter in layer.parameters():
        parameter.grad = torch.ones_like(parameter)
    step_clipped(optimizer, max_norm=0.5)
    assert not torch.equal(layer.weight, before[0]["weight"])


@pytest.mark.parametrize(("entropy", "direction"), [(3.0, -1.0), (-3.0, 1.0)])
def test_the_temperature_falls_above_the_target_entropy_and_rises_below(entropy, direction):
    temperature = Temperature(1.0)
    optimizer = make([temperature], learning_rate=5e-3, weight_decay=0.0)
    for _ in range(100):
        optimizer.zero_grad()
        temperature.loss(torch.full((2, 2), entropy), -1.0).backward()
        step_clipped(optimizer, max_norm=0.5)
    # the clipped gradient is a constant, so Adam moves log alpha by its learning rate: exp(0.5) in 100 steps
    assert temperature.value.log().item() == pytest.approx(direction * 0.5, rel=0.01)


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e3])
def test_the_clip_is_torchs_own_to_the_last_bit(size):
    generator = torch.Generator().manual_seed(0)
    ours, theirs = (nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 2)) for _ in range(2))
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        mine.grad = size * torch.randn(mine.shape, generator=generator)
        other.grad = mine.grad.clone()
    norm = step_clipped(make([ours]), max_norm=0.5)
    assert torch.equal(norm, nn.utils.clip_grad_norm_(reordered(theirs), 0.5, foreach=True))
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        assert torch.equal(mine.grad, other.grad)


def reordered(module):
    """The parameters in the order of an optimiser: weights that decay come first."""
    return [parameter for dim in (2, 1) for parameter in module.parameters() if parameter.dim() == dim]
