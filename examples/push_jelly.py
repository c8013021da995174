"""A task of one's own, complete: a ball pushes a cube of jelly over a bed of sand. docs/mpm.md walks through it.

python -m examples.push_jelly
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

import rewarped_sim
from policy_runner.contract import ActionSpec, ObsTerm
from rewarped_sim.delta_position import DeltaPosition
from rewarped_sim.engine.kinematics import Joint, Shape, Tool
from rewarped_sim.engine.mpm.materials import NeoHookean, Sand
from rewarped_sim.engine.mpm.model import MpmModel, Part
from rewarped_sim.observation import fill, observed_particles
from rewarped_sim.registry import register
from rewarped_sim.scene import Scene
from rewarped_sim.task import State, Task
from rewarped_sim.unit_cube import CLOUD, COM_Q, NUM_POINTS, PARTICLE_Q, at_rest, draw

GRID_SIZE = 32
FLOOR = 2.3 / GRID_SIZE
"""Where particles come to rest: the floor's uppermost nodes are number 2."""
SAND_SIZE, SAND_CENTRE = (0.5, 0.3, 0.05), (0.5, 0.5, FLOOR + 0.025)
JELLY_SIZE, JELLY_CENTRE = (0.12, 0.12, 0.12), (0.42, 0.5, FLOOR + 0.11)
BALL_START = 0.28
BALL = Tool(
    joints=(Joint(name="ball_x", kind="prismatic", axis=(1.0, 0.0, 0.0)),),
    shapes=(Shape(name="ball", kind="sphere", size=(0.05,), body=0, position=(0.0, 0.5, FLOOR + 0.11)),),
)


@dataclass(frozen=True, kw_only=True)
class PushJellyConfig:
    """Settings of the task."""

    num_sand: int = 1500
    num_jelly: int = 500
    young: float = 3.0e4
    """Of the jelly [Pa]."""
    contact: str = "smooth"


@register(
    "push_jelly", config=PushJellyConfig(), num_envs=4, summary="push a cube of jelly over a bed of sand"
)
class PushJelly(Task):
    """See the module."""

    control_dt_s = 1.0 / 60.0
    max_episode_steps = 60
    default_joint_pos = (BALL_START,)
    num_random = 1

    def __init__(self, name: str, config: PushJellyConfig, device: torch.device) -> None:
        self.name, self.config = name, config
        self.obs_spec = (
            COM_Q,
            ObsTerm(name="joint_q", kind="joint_position", shape=(1,), unit="m"),
            PARTICLE_Q,
        )
        self.point_cloud = CLOUD
        self.action = ActionSpec(
            joint_names=BALL.joint_names, mode="delta_position", scale=(0.005,), lower=(0.2,), upper=(0.7,),
            max_velocity=(0.3,),
        )  # fmt: skip
        rng = np.random.default_rng(0)
        sand = rng.uniform(-0.5, 0.5, (config.num_sand, 3)) * SAND_SIZE + SAND_CENTRE
        jelly = rng.uniform(-0.5, 0.5, (config.num_jelly, 3)) * JELLY_SIZE + JELLY_CENTRE
        self._start = at_rest(np.concatenate((sand, jelly)), device)
        self._move = DeltaPosition(self.action, device)
        self._observed = observed_particles(len(self._start), NUM_POINTS, device)

    def build(self) -> MpmModel:
        """Two materials; a control step is 16 substeps, as long as on a robot."""
        sand = Sand(young=1.0e5, poisson=0.3, density=1600.0, friction_angle_deg=30.0)
        jelly = NeoHookean(young=self.config.young, poisson=0.3, density=1000.0)
        return MpmModel(
            grid_size=GRID_SIZE,
            dt_s=self.control_dt_s / 16,
            num_substeps=16,
            parts=(
                Part(
                    material=sand,
                    num_particles=self.config.num_sand,
                    particle_volume=math.prod(SAND_SIZE) / self.config.num_sand,
                ),
                Part(
                    material=jelly,
                    num_particles=self.config.num_jelly,
                    particle_volume=math.prod(JELLY_SIZE) / self.config.num_jelly,
                ),
            ),
            tool=BALL,
            gravity=(0.0, 0.0, -9.81),
            floor_friction=0.5,
            tool_friction=0.3,
            contact=self.config.contact,
        )

    def initial_state(self, uniform: Tensor) -> State:
        """The ball starts up to 2 cm further away."""
        return {
            "particles": self._start.repeat(len(uniform), 1, 1),
            "joint_q": BALL_START - 0.02 * uniform,
        }

    def control(self, state: State, action: Tensor) -> dict[str, Tensor]:
        """Change of the ball's position."""
        return {"joint_dq": self._move(state["joint_q"], action)}

    def observe(self, state: State, action: Tensor) -> dict[str, Tensor]:
        """What the policy sees: the cloud, its centre and the ball."""
        cloud = state["particles"][:, self._observed, :3]
        return fill(self.obs_spec, joint_position=state["joint_q"], cloud=cloud)

    def reward(self, state: State, action: Tensor) -> dict[str, Tensor]:
        """How far the jelly is from where it started [m]."""
        jelly = state["particles"][:, self.config.num_sand :, 0]
        return {"pushed": jelly.mean(dim=1) - JELLY_CENTRE[0]}

    def scene(self, state: State, action: Tensor, index: int) -> Scene:
        """Particles, ball and floor, for videos and RViz."""
        return draw(
            particles=state["particles"][index], color=(0.93, 0.78, 0.58), radius=0.006, tool=BALL,
            joint_q=state["joint_q"][index], grid_size=GRID_SIZE,
        )  # fmt: skip


def main() -> None:
    """Push with half the speed, and ask what a faster push would bring."""
    env = rewarped_sim.make("push_jelly", num_envs=1, horizon=40)
    print(env.memory_report())
    env.reset()
    speed = torch.tensor([[0.5]], requires_grad=True)
    total = torch.stack([env.step(speed).reward for _ in range(40)]).sum()
    (slope,) = torch.autograd.grad(total, speed)
    print(f"return {total:.3f}, derivative by the speed {slope.item():.3f}; faults: {env.nonfinite.tolist()}")


if __name__ == "__main__":
    main()
