"""What running on legs looks like to a policy: the torso, its heading, and the joints.

The tasks are those of DFlex and Rewarped, which have y up; here z is up and +x forward. Their point (x, y, z) is our
(x, -z, y), and their torso's nominal orientation, -90 degrees about x, is our identity.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from policy_runner.contract import ObsTerm
from rewarped_sim.articulated_scene import articulated_scene
from rewarped_sim.articulated_task import ArticulatedTask
from rewarped_sim.observation import privileged_term
from rewarped_sim.quaternion import multiply, rotate
from rewarped_sim.scene import Scene
from rewarped_sim.task import State

FREE_Q, FREE_QD = 7, 6
"""Coordinates and velocities of the torso's free joint, which come first."""
POSITION_SPREAD_M = 0.1
TILT_SPREAD_RAD = math.pi / 24.0
JOINT_SPREAD_RAD = 0.2
VELOCITY_SPREAD = 0.25
"""Of every velocity: of the centre of mass [m/s], of the torso's and the joints' turning [rad/s]."""
TORSO_RANDOM = 7
"""Random numbers for the torso's start pose: position, axis and angle of its tilt."""


def torso_terms(*joints: ObsTerm) -> tuple[ObsTerm, ...]:
    """Height, orientation, velocity of the centre of mass and spin of the torso, then `joints`, then up and heading."""
    return (
        privileged_term("torso_height", 1, "m", frame="world"),
        privileged_term("torso_orientation", 4, frame="world"),
        privileged_term("torso_velocity", 3, "m/s", frame="world"),
        privileged_term("torso_angular_velocity", 3, "rad/s", frame="world"),
        *joints,
        privileged_term("up", 1, frame="world"),
        privileged_term("heading", 1, frame="world"),
    )


def hinge_terms(count: int) -> tuple[ObsTerm, ObsTerm]:
    """Angles and a tenth of the velocities of the driven hinges."""
    return (
        ObsTerm(name="joint_position", kind="joint_position", shape=(count,), unit="rad"),
        ObsTerm(name="joint_velocity", kind="joint_velocity", shape=(count,), unit="rad/s", scale=0.1),
    )


@dataclass(frozen=True)
class Torso:
    """State of a torso in the world, batched."""

    height: Tensor
    """(num_envs,) [m]"""
    orientation: Tensor
    """(num_envs, 4) x y z w."""
    velocity: Tensor
    """Of its centre of mass, (num_envs, 3) [m/s]."""
    angular_velocity: Tensor
    """(num_envs, 3) [rad/s]"""

    @staticmethod
    def of(state: State, com: Tensor) -> Torso:
        """From joint coordinates and velocities, and the centre of mass (3,) in the torso's frame [m]."""
        q, qd = state["joint_q"], state["joint_qd"]
        orientation, spin = q[:, 3:7], qd[:, 3:6]
        return Torso(
            q[:, 2], orientation, qd[:, :3] + torch.linalg.cross(spin, rotate(orientation, com)), spin
        )

    @property
    def up(self) -> Tensor:
        """How upright: the vertical part of the torso's own z axis, (num_envs,)."""
        x, y, _, _ = self.orientation.unbind(dim=1)
        return 1.0 - 2.0 * (x**2 + y**2)

    @property
    def heading(self) -> Tensor:
        """How straight: the forward part of the torso's own x axis, (num_envs,)."""
        _, y, z, _ = self.orientation.unbind(dim=1)
        return 1.0 - 2.0 * (y**2 + z**2)

    def observed(self) -> dict[str, Tensor]:
        """Values of the privileged `torso_terms`."""
        return {
            "torso_height": self.height[:, None],
            "torso_orientation": self.orientation,
            "torso_velocity": self.velocity,
            "torso_angular_velocity": self.angular_velocity,
            "up": self.up[:, None],
            "heading": self.heading[:, None],
        }


class LeggedTask(ArticulatedTask):
    """A task whose model begins with a torso on a free joint."""

    def torso(self, state: State) -> Torso:
        """The torso of all envs."""
        return Torso.of(state, self._com)

    @cached_property
    def _com(self) -> Tensor:
        """Centre of mass in the torso's frame, (3,) [m]; copied to the device once, since a step that copies waits."""
        return torch.tensor(self.tree.link_mass[1].com, dtype=torch.float32, device=self.device)

    def around(self, start_q: Tensor, uniform: Tensor, *, joint_spread: float = JOINT_SPREAD_RAD) -> State:
        """Start states around `start_q` (coordinates,).

        uniform: random numbers in [0, 1), (num_envs, TORSO_RANDOM + joint coordinates + dofs). Joint coordinates vary
        by up to `joint_spread`, which must be 0 where some of them are quaternions.
        """
        count, u = len(uniform), 2.0 * uniform - 1.0
        joints = len(start_q) - FREE_Q
        place, axis, angle, bent, moving = u.split((3, 3, 1, joints, self.model.num_dofs), dim=1)
        axis = axis / axis.norm(dim=1, keepdim=True).clamp(min=1e-9)
        half = 0.5 * TILT_SPREAD_RAD * angle
        tilt = torch.cat((half.sin() * axis, half.cos()), dim=1)
        q = start_q.repeat(count, 1)
        orientation = multiply(q[:, 3:7], tilt)
        joint_q = torch.cat(
            (q[:, :3] + POSITION_SPREAD_M * place, orientation, q[:, FREE_Q:] + joint_spread * bent), dim=1
        )
        velocity, spin, joint_qd = (VELOCITY_SPREAD * moving).split((3, 3, moving.shape[1] - FREE_QD), dim=1)
        at_origin = velocity - torch.linalg.cross(spin, rotate(orientation, self._com))
        return {"joint_q": joint_q, "joint_qd": torch.cat((at_origin, spin, joint_qd), dim=1)}

    def scene(self, state: State, action: Tensor, index: int) -> Scene:
        q = state["joint_q"][index].detach().cpu().double().numpy()
        focus = (float(q[0]), float(q[1]), 0.5)
        pulls = self.control(state, action).get("activation")
        activation = None if pulls is None else pulls[index].detach().cpu().numpy()
        return articulated_scene(self.tree, q, focus=focus, follow=True, activation=activation)
