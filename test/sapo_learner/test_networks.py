import torch
from torch import nn

from sapo_learner.networks import StackedCritics, linear, trunk


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(3)


def test_stacked_critics_give_what_separate_ones_would():
    stacked = StackedCritics(3, 5, [8, 4], generator())
    with torch.no_grad():
        for parameter in stacked.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator())
    x = torch.randn(7, 5, generator=generator())
    layers = list(stacked.layers)
    for member in range(3):
        separate = nn.Sequential(
            nn.Linear(5, 8),
            nn.LayerNorm(8),
            nn.SiLU(),
            nn.Linear(8, 4),
            nn.LayerNorm(4),
            nn.SiLU(),
            nn.Linear(4, 1),
        )
        for own, shared in zip(separate, layers, strict=True):
            if isinstance(own, nn.Linear):
                own.weight.data.copy_(shared.weight[member].T)
                own.bias.data.copy_(shared.bias[member, 0])
            elif isinstance(own, nn.LayerNorm):
                own.weight.data.copy_(shared.weight[member, 0])
                own.bias.data.copy_(shared.bias[member, 0])
        torch.testing.assert_close(stacked(x)[member], separate(x).squeeze(-1), rtol=1e-5, atol=1e-6)


def test_stacked_critics_start_different_from_each_other():
    values = StackedCritics(2, 5, [8], generator())(torch.randn(7, 5, generator=generator()))
    assert (values[0] - values[1]).abs().max() > 0.1


def test_weights_are_orthogonal_and_biases_zero():
    for layer in (linear(6, 6, generator()), linear(6, 4, generator()), linear(4, 6, generator())):
        gram = (
            layer.weight @ layer.weight.T
            if layer.out_features <= layer.in_features
            else layer.weight.T @ layer.weight
        )
        torch.testing.assert_close(gram, torch.eye(len(gram)), rtol=0.0, atol=1e-6)
        assert layer.bias.count_nonzero() == 0


def test_the_trunk_is_linear_then_norm_then_silu():
    kinds = [type(layer) for layer in trunk([3, 8, 4], generator())]
    assert kinds == [nn.Linear, nn.LayerNorm, nn.SiLU] * 2


def test_making_networks_draws_nothing_from_the_global_generator():
    before = torch.random.get_rng_state()
    StackedCritics(2, 4, [8], generator())
    assert torch.equal(before, torch.random.get_rng_state())
