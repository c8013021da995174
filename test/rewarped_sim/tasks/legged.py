"""Hand-set states of tasks with a torso on a free joint."""

import math

import torch

import rewarped_sim

HALF = math.sqrt(0.5)


def make(task, **options):
    return rewarped_sim.make(task, requires_grad=False, **options)


def with_torso(
    env, *, position=(0.0, 0.0, 1.0), quaternion=(0.0, 0.0, 0.0, 1.0), velocity=(0, 0, 0), spin=(0, 0, 0)
):
    """A state whose torso is so and whose joints stand at zero; velocity is that of the torso's origin."""
    state = {name: value.clone() for name, value in env.state.items()}
    state["joint_q"][:] = torch.tensor(env.model.start_q(), dtype=torch.float32)
    state["joint_q"][:, :3] = torch.tensor(position)
    state["joint_q"][:, 3:7] = torch.tensor(quaternion)
    state["joint_qd"][:] = 0.0
    state["joint_qd"][:, :3] = torch.tensor(velocity, dtype=torch.float32)
    state["joint_qd"][:, 3:6] = torch.tensor(spin, dtype=torch.float32)
    return state


def roll_out(env, steps, action=0.0):
    """Rewards and heights of the first env under a constant action."""
    rewards, heights = [], []
    env.reset()
    with torch.no_grad():
        for _ in range(steps):
            result = env.step(torch.full((env.num_envs, env.action_dim), action))
            rewards.append(float(result.reward[0]))
            heights.append(float(result.terminal_obs["torso_height"][0]))
    return rewards, heights
