"""Gradients of the articulated tasks while something touches something: against central differences."""

import pytest
import torch

import rewarped_sim
from rewarped_sim.engine.articulation.parameters import ParameterLayout, default_parameters


@pytest.mark.parametrize(
    ("task", "options", "settle_steps"),
    [
        ("hopper", {}, 20),
        ("ant", {}, 40),
        ("ant_run", {}, 70),
        ("humanoid", {}, 30),
        ("snu_humanoid", {}, 15),
        # By the published law forces jump at every touch, and hand and cube touch again and again: differences then
        # see jumps, which no derivative does.
        ("hand_reorient", {"contact": "smooth"}, 20),
    ],
)
def test_action_gradient_equals_differences(task, options, settle_steps):
    env = rewarped_sim.make(task, horizon=3, **options)
    env.reset()
    torch.manual_seed(0)
    with torch.no_grad():
        for _ in range(settle_steps):
            assert not env.step(0.1 * torch.randn(1, env.action_dim)).terminated.any()
    start = env.state_dict()

    def total(actions):
        env.load_state_dict(start)
        return torch.stack([env.step(action).reward for action in actions]).sum()

    actions = (0.1 * torch.randn(3, 1, env.action_dim)).requires_grad_()
    value = total(actions)
    (gradient,) = torch.autograd.grad(value, actions)
    eps = 0.02  # far enough for float32, near enough for few shapes to begin or cease to touch
    for direction in (gradient, torch.randn_like(gradient)):
        direction = direction / direction.norm()
        with torch.no_grad():
            ahead, behind = total(actions + eps * direction), total(actions - eps * direction)
        difference = float(ahead - behind) / (2.0 * eps)
        expected = float((gradient * direction).sum())
        # A share of the gradient, not of the direction's own part of it: that may be next to nothing.
        assert abs(difference - expected) < 0.01 * float(gradient.norm()), (difference, expected)

    # The same without contact forces is another motion: something did touch.
    parameters = torch.tensor(default_parameters(env.model), dtype=torch.float32)[None]
    parameters[:, ParameterLayout.of(env.model).contact] = 0.0
    env.parameters = parameters
    with torch.no_grad():
        assert abs(float(total(actions) - value)) > 1e-3
