"""HandReorient: an Allegro hand, palm up, turns a cube to one random orientation after the other.

The task of IsaacGymEnvs as the SAPO paper runs it: torques at 120 Hz, 5 s, and a smoothed reward. Its quirks are kept:
the cube starts over the fingers rather than the palm, and the bonus for success, meant as 250, never exceeds 125,
because a smoothed "equal" is 1/2 at most. What was wrong with its physics is not: there, inertias were assigned to the
wrong links, and fingertips weighed twice what they do.

Coordinates of the hand come thumb first, then finger by finger: see `assets.allegro_hand`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from policy_runner.contract import ObsTerm
from rewarped_sim.articulated_scene import articulated_scene
from rewarped_sim.articulated_task import ArticulatedConfig, ArticulatedTask
from rewarped_sim.assets import allegro_hand as asset
from rewarped_sim.observation import fill, privileged_term
from rewarped_sim.quaternion import conjugate, multiply
from rewarped_sim.registry import register
from rewarped_sim.scene import Scene, SceneShape
from rewarped_sim.task import Draw, State

NUM_JOINTS = len(asset.JOINT_NAMES)
STRENGTH_NM = 2.0
GOAL_POSITION = (0.0, -0.1, 0.56)
LOST_M = 0.24
"""A cube farther than this from the goal is lost."""
SUCCESS_RAD = 0.1
"""A cube turned to within this angle of the goal has reached it."""
BONUS = 250.0
EFFORT = 0.0002
SHARPNESS = 1.0e-3
"""Width of the smoothed steps of the bonus."""
CUBE_SPREAD_M = 0.01
JOINT_SPREAD = 0.2
"""Share of the joints' ranges that starts are drawn from."""
CONTACTS = {"published": ("huber", asset.CONTACT), "smooth": ("regularized", asset.SMOOTH_CONTACT)}
"""Law and material by the name of the setting."""


@dataclass(frozen=True, kw_only=True)
class HandReorientConfig(ArticulatedConfig):
    """Settings of the task; the defaults are the published ones."""

    max_episode_steps: int = 600
    num_substeps: int = 64
    """In a control step of 1/120 s."""
    contact: str = "published"
    """Law of contact: `published`, or `smooth`, which does not jump where shapes begin to touch. By the published one
    hand and cube pass from touch to touch, and gradients, exact within each, miss what the jumps contribute."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.contact not in CONTACTS:
            raise ValueError(f"contact must be one of {sorted(CONTACTS)}, got {self.contact!r}")


@register(
    "hand_reorient",
    config=HandReorientConfig(),
    num_envs=16,
    summary="an Allegro hand turns a cube to random orientations",
)
class HandReorient(ArticulatedTask):
    """See the module."""

    obs_spec = (
        # Positions are mapped so that the joints' limits become -1 and 1.
        privileged_term("joint_position_in_range", NUM_JOINTS),
        ObsTerm(name="joint_velocity", kind="joint_velocity", shape=(NUM_JOINTS,), unit="rad/s", scale=0.2),
        privileged_term("cube_position", 3, "m", frame="world"),
        privileged_term("cube_orientation", 4, frame="world"),
        privileged_term("cube_velocity", 3, "m/s", frame="world"),
        privileged_term("cube_angular_velocity", 3, "rad/s", scale=0.2, frame="world"),
        ObsTerm(name="goal_position", kind="goal_position", shape=(3,), unit="m", frame="world"),
        privileged_term("goal_orientation", 4, frame="world"),
        privileged_term("turn_from_goal", 4, frame="world"),
        ObsTerm(name="previous_action", kind="previous_action", shape=(NUM_JOINTS,)),
    )
    num_start_random = 3 + 2 + NUM_JOINTS + 2

    def __init__(self, name: str, config: HandReorientConfig, device: torch.device) -> None:
        law, material = CONTACTS[config.contact]
        super().__init__(
            name,
            config,
            device,
            model=asset.allegro_hand(num_substeps=config.num_substeps, contact=material, contact_law=law),
            joints=asset.JOINT_NAMES,
            strength=(STRENGTH_NM,) * NUM_JOINTS,
            max_velocity=10.0,
            default_joint_pos=(0.0,) * NUM_JOINTS,
        )
        self._spread = float(config.randomize)
        self._cube = self.model.coordinate(asset.CUBE)
        self._cube_dof = self.model.dof(asset.CUBE)
        self._lower = torch.tensor(asset.LOWER, device=device)
        self._upper = torch.tensor(asset.UPPER, device=device)
        self._cube_start = torch.tensor(asset.CUBE_START, device=device)
        self._goal = torch.tensor(GOAL_POSITION, device=device)

    def start_state(self, uniform: Tensor) -> State:
        """Besides joints: `goal_orientation` (num_envs, 4), and `successes` (num_envs,) in this episode."""
        count, spread = len(uniform), self._spread
        place, turned, joints, goal = uniform.split((3, 2, NUM_JOINTS, 2), dim=1)
        hand = spread * JOINT_SPREAD * torch.lerp(self._lower, self._upper, joints)
        cube = self._cube_start + spread * CUBE_SPREAD_M * (2.0 * place - 1.0)
        orientation = _random_turn(torch.lerp(torch.full_like(turned, 0.5), turned, spread))
        return {
            "joint_q": torch.cat((hand, cube, orientation), dim=1),
            "joint_qd": torch.zeros(count, self.model.num_dofs, device=self.device),
            "goal_orientation": _random_turn(torch.lerp(torch.full_like(goal, 0.5), goal, spread)),
            "successes": torch.zeros(count, device=self.device),
        }

    def observe(self, state: State, action: Tensor) -> dict[str, Tensor]:
        q, qd = state["joint_q"], state["joint_qd"]
        at, dof = self._cube, self._cube_dof
        middle, half_range = 0.5 * (self._upper + self._lower), 0.5 * (self._upper - self._lower)
        return fill(
            self.obs_spec,
            privileged={
                "joint_position_in_range": (self.joint_position(state) - middle) / half_range,
                "cube_position": q[:, at : at + 3],
                "cube_orientation": q[:, at + 3 : at + 7],
                "cube_velocity": qd[:, dof : dof + 3],
                "cube_angular_velocity": qd[:, dof + 3 : dof + 6],
                "goal_orientation": state["goal_orientation"],
                "turn_from_goal": self._turn_from_goal(state),
            },
            joint_velocity=self.joint_velocity(state),
            goal_position=self._goal.expand(len(q), -1),
            previous_action=action,
        )

    def reward(self, state: State, action: Tensor) -> dict[str, Tensor]:
        angle = self._angle(state)
        reached = torch.sigmoid((SUCCESS_RAD - angle) / SHARPNESS)
        return {
            "distance": -10.0 * self._distance(state),
            "rotation": 1.0 / (angle + 0.1),
            "effort": -EFFORT * action.square().sum(dim=1),
            "bonus": BONUS * torch.sigmoid(-(reached - 1.0).abs() / SHARPNESS),
        }

    def terminated(self, state: State) -> Tensor:
        return self._distance(state) >= LOST_M

    def after_step(self, state: State, draw: Draw) -> State:
        """A new goal where the old one is reached; the clock runs on."""
        reached = self._angle(state).detach() <= SUCCESS_RAD
        successes = state["successes"] + reached
        goal = _random_turn(draw(successes.long(), 2))
        orientation = torch.where(reached[:, None], goal, state["goal_orientation"])
        return state | {"goal_orientation": orientation, "successes": successes}

    def scene(self, state: State, action: Tensor, index: int) -> Scene:
        q = state["joint_q"][index].detach().cpu().double().numpy()
        goal = SceneShape(
            name="goal",
            kind="box",
            size=(asset.CUBE_HALF_SIZE_M,) * 3,
            position=np.array((-0.2, GOAL_POSITION[1], GOAL_POSITION[2] + 0.1), np.float32),
            quaternion=state["goal_orientation"][index].detach().cpu().numpy().copy(),
            color=(0.35, 0.65, 0.40),
            ghost=True,
        )
        return articulated_scene(self.tree, q, focus=(0.0, -0.05, 0.5), view_radius=0.25, extra=(goal,))

    def _distance(self, state: State) -> Tensor:
        """Of the cube's centre from its goal, (num_envs,) [m]."""
        away = state["joint_q"][:, self._cube : self._cube + 3] - self._goal
        # Not `norm`, whose gradient at 0 is not a number.
        return (away.square().sum(dim=1) + 1e-12).sqrt()

    def _turn_from_goal(self, state: State) -> Tensor:
        """Quaternion of the turn from the goal's orientation to the cube's, (num_envs, 4)."""
        orientation = state["joint_q"][:, self._cube + 3 : self._cube + 7]
        return multiply(orientation, conjugate(state["goal_orientation"]))

    def _angle(self, state: State) -> Tensor:
        """Of that turn, (num_envs,) [rad]."""
        vector = self._turn_from_goal(state)[:, :3]
        return 2.0 * torch.asin((vector.square().sum(dim=1) + 1e-12).sqrt().clamp(max=0.999))


def _random_turn(uniform: Tensor) -> Tensor:
    """Turn about y, then about x, by up to half a turn each way: quaternions from numbers in [0, 1), (num_envs, 2)."""
    half = 0.5 * math.pi * (2.0 * uniform - 1.0)
    (sx, sy), (cx, cy) = half.sin().unbind(dim=1), half.cos().unbind(dim=1)
    zero = torch.zeros_like(sx)
    about_x, about_y = torch.stack((sx, zero, zero, cx), dim=1), torch.stack((zero, sy, zero, cy), dim=1)
    return multiply(about_x, about_y)
