"""Gradients of whole tasks, in contact, through physics, observations and reward: against central differences."""

import pytest
import torch

import rewarped_sim

SETTLE_STEPS = 40


def hand_in_contact(env):
    """Fingers on their way in; not all alike, so that the direction of the gradient means something."""
    action = torch.zeros(1, 24)
    for i, finger in enumerate(("FF", "MF", "RF", "LF")):
        for joint, share in (("J2", 0.5), ("J1", 0.3), ("J0", 0.3)):
            action[0, env.joint_names.index(finger + joint)] = share + 0.02 * i
    return action


def box_in_motion(env):
    # No round numbers: where two faces of a wall are equally near a node, its normal jumps, and so do differences.
    return torch.tensor([[0.3137, -0.2271, 0.4193]])


def fold(result):
    return result.reward.sum()


def fluid_goes_along(result):
    # The reward knows of the fluid only by a step of 1e-5 m, too narrow for any difference.
    return (result.terminal_obs["com_q"] * torch.tensor([1.0, 0.5, 2.0])).sum()


@pytest.mark.parametrize(
    ("task", "moving", "push_steps", "objective", "eps"),
    [
        ("hand_flip", hand_in_contact, 40, fold, 0.03),
        ("hand_flip_small", hand_in_contact, 40, fold, 0.03),
        ("fluid_move", box_in_motion, 10, fluid_goes_along, 0.02),
        ("fluid_move_small", box_in_motion, 10, fluid_goes_along, 0.01),
    ],
)
def test_action_gradient_equals_differences(task, moving, push_steps, objective, eps):
    env = rewarped_sim.make(task, horizon=2, randomize=False, contact="smooth")
    env.reset()
    action = moving(env)
    with torch.no_grad():
        for step in range(SETTLE_STEPS + push_steps):
            env.step(action * (step >= SETTLE_STEPS))
    start = env.state_dict()

    def total(actions):
        env.load_state_dict(start)
        return torch.stack([objective(env.step(one)) for one in actions.unbind()]).sum()

    actions = action.repeat(2, 1, 1).requires_grad_()
    (gradient,) = torch.autograd.grad(total(actions), actions)
    torch.manual_seed(0)
    for direction in (gradient, torch.randn_like(gradient)):
        direction = direction / direction.norm()
        with torch.no_grad():
            ahead, behind = total(actions + eps * direction), total(actions - eps * direction)
        difference = (ahead - behind).double() / (2.0 * eps)
        expected = (gradient * direction).sum().double()
        # A share of the gradient, not of the direction's own part of it: that may be next to nothing.
        assert abs(difference - expected) < 0.02 * gradient.norm()
