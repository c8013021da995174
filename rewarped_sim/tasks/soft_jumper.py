"""SoftJumper: a soft table on four legs hops forward and up by shrinking and swelling.

The task of the SAPO paper (there y-up; here z-up: upstream's (x, y, z) is our (x, -z, y)). Each action drives two
tetrahedra; here two that share a face, upstream whichever follow one another. Upstream also offers velocities of all
vertices, a phase and a penalty for lateral motion; its policies look at none of them, and neither do ours.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from policy_runner.contract import ActionSpec, ObsTerm, PointCloudSpec
from rewarped_sim.assets.soft_table import soft_table
from rewarped_sim.engine.fem.mesh import boundary_triangles
from rewarped_sim.engine.fem.model import STATE_SIZE, FemModel, Ground
from rewarped_sim.observation import fill, observed_particles, privileged_term
from rewarped_sim.registry import register
from rewarped_sim.scene import Scene, SceneShape, SceneSurface
from rewarped_sim.task import State, Task
from rewarped_sim.unit_cube import in_thousandths

FRAME = "world"
NUM_VERTICES, NUM_TETS = 204, 444
TETS_PER_ACTION = 2
NUM_ACTIONS = NUM_TETS // TETS_PER_ACTION
ACTIVATION = 0.3
"""Share of its volume by which a tetrahedron shrinks, or swells, at action 1 or -1."""
LIFT_M = 0.2
"""Height above the mesh's own place in which the body starts."""
OBS_SCALE = 0.1
"""Of positions and velocities, as a policy sees them."""
SHIFT_M = 0.8
"""Largest shift of the start forward and to the sides."""
HIGHEST_SHIFT_M = 0.4
"""Largest shift of the start upwards."""
STRETCH = 0.1
"""Largest share by which a start is stretched or pressed together; the rest shape stays."""
HEIGHT_WEIGHT = 3.0
EFFORT_WEIGHT = 0.001
VIEW_RADIUS_M = 2.2
COLOR = (0.85, 0.45, 0.35)

APPROACH_DAMPING = {"published": 0.1, "regularized": 10.0}
"""By law of contact; equal at a depth of 1 cm."""


@dataclass(frozen=True, kw_only=True)
class SoftJumperConfig:
    """Settings of the task; the defaults are the published ones."""

    num_substeps: int = 80
    """Substeps that a control step is divided into."""
    num_points: int = NUM_VERTICES
    """Vertices that a policy sees; those are all, or every k-th."""
    contact: str = "published"
    """Law between vertices and ground: `published`, or the smoother `regularized`."""
    max_episode_steps: int = 300
    randomize: bool = True
    """Vary the start at every reset."""

    def __post_init__(self) -> None:
        if self.max_episode_steps < 1:
            raise ValueError(f"max_episode_steps must be >= 1, got {self.max_episode_steps}")
        if not 1 <= self.num_points <= NUM_VERTICES:
            raise ValueError(f"num_points must be in [1, {NUM_VERTICES}], got {self.num_points}")
        if self.contact not in APPROACH_DAMPING:
            raise ValueError(f"contact must be one of {list(APPROACH_DAMPING)}, got {self.contact!r}")


@register(
    "soft_jumper_small",
    config=SoftJumperConfig(num_substeps=40, num_points=51, contact="regularized"),
    num_envs=16,
    summary="soft_jumper with fewer substeps and points and a smooth ground, for quick starts on a CPU",
)
@register(
    "soft_jumper",
    config=SoftJumperConfig(),
    num_envs=32,
    summary="a soft table hops forward (204 vertices, 444 tetrahedra, 222 actions), as published",
)
class SoftJumper(Task):
    """See the module."""

    control_dt_s = 1.0 / 60.0
    default_joint_pos = (0.0,) * NUM_ACTIONS
    num_random = 4
    action = ActionSpec(
        joint_names=tuple(
            f"tets_{TETS_PER_ACTION * k}_{TETS_PER_ACTION * k + 1}" for k in range(NUM_ACTIONS)
        ),
        mode="effort",
        scale=(ACTIVATION,) * NUM_ACTIONS,
        lower=(-ACTIVATION,) * NUM_ACTIONS,
        upper=(ACTIVATION,) * NUM_ACTIONS,
        max_velocity=(2.0 * ACTIVATION / control_dt_s,) * NUM_ACTIONS,
    )

    def __init__(self, name: str, config: SoftJumperConfig, device: torch.device) -> None:
        self.name = name
        self.config = config
        self.max_episode_steps = config.max_episode_steps
        points = config.num_points
        self.point_cloud = PointCloudSpec(
            frame=FRAME, crop_min=(-50.0, -50.0, -1.0), crop_max=(50.0, 50.0, 20.0), num_points=points
        )
        self.obs_spec = (
            ObsTerm(name="com_q", kind="cloud_mean", shape=(3,), scale=OBS_SCALE, unit="m", frame=FRAME),
            privileged_term("com_qd", 3, "m/s", scale=OBS_SCALE, frame=FRAME),
            ObsTerm(name="actions", kind="previous_action", shape=(NUM_ACTIONS,)),
            ObsTerm(
                name="particle_q", kind="cloud", shape=(points, 3), scale=OBS_SCALE, unit="m", frame=FRAME
            ),
        )
        self._observed = observed_particles(NUM_VERTICES, points, device)
        table = soft_table()
        self._triangles = boundary_triangles(table.tets)
        self._start = torch.zeros(NUM_VERTICES, STATE_SIZE, device=device)
        self._start[:, :3] = torch.tensor(table.vertices, dtype=torch.float32)
        self._start[:, 2] += LIFT_M
        self._start_height = float(table.vertices[:, 2].mean()) + LIFT_M

    def build(self) -> FemModel:
        table, contact = soft_table(), self.config.contact
        return FemModel(
            vertices=table.vertices,
            tets=table.tets,
            density=1.0,
            mu=1000.0,
            lam=1000.0,
            damping=1.0,
            vertex_radius=0.05,
            ground=Ground(
                stiffness=2.0e3,
                damping=APPROACH_DAMPING[contact],
                friction_stiffness=10.0,
                friction=0.7,
                law=contact,
            ),
            control_dt_s=self.control_dt_s,
            num_substeps=self.config.num_substeps,
        )

    def initial_state(self, uniform: Tensor) -> State:
        """Somewhere else, then scaled about the origin: that shifts as well as it stretches, as published."""
        u = float(self.config.randomize) * in_thousandths(2.0 * uniform - 1.0)
        upwards = float(self.config.randomize) * in_thousandths(uniform[:, 1])
        shift = torch.stack((SHIFT_M * u[:, 0], -SHIFT_M * u[:, 2], HIGHEST_SHIFT_M * upwards), dim=1)
        vertices = self._start.repeat(len(uniform), 1, 1)
        scale = 1.0 + STRETCH * u[:, 3]
        vertices[..., :3] = scale[:, None, None] * (vertices[..., :3] + shift[:, None])
        return {"vertices": vertices}

    def control(self, state: State, action: Tensor) -> dict[str, Tensor]:
        """The same activation for the tetrahedra of an action."""
        return {"activation": (ACTIVATION * action).repeat_interleave(TETS_PER_ACTION, dim=1)}

    def observe(self, state: State, action: Tensor) -> dict[str, Tensor]:
        position, velocity = state["vertices"].split(3, dim=2)
        return fill(
            self.obs_spec,
            cloud=position[:, self._observed],
            privileged={"com_qd": velocity.mean(dim=1)},
            previous_action=action,
        )

    def reward(self, state: State, action: Tensor) -> dict[str, Tensor]:
        # The mean of the vertices, not the centre of mass: so it is published.
        middle = state["vertices"].mean(dim=1)
        return {
            "speed": middle[:, 3],
            "height": HEIGHT_WEIGHT * (middle[:, 2] - self._start_height),
            "effort": -EFFORT_WEIGHT * action.square().sum(dim=1),
        }

    @property
    def joint_names(self) -> tuple[str, ...]:
        """None: a soft body has no joints."""
        return ()

    def joint_position(self, state: State) -> Tensor:
        return state["vertices"].new_zeros(len(state["vertices"]), 0)

    def scene(self, state: State, action: Tensor, index: int) -> Scene:
        vertices = state["vertices"][index, :, :3].detach().cpu().numpy().copy()
        x, y, z = (float(value) for value in vertices.mean(axis=0))
        floor = SceneShape(
            name="floor",
            kind="plane",
            size=(),
            position=np.zeros(3, np.float32),
            quaternion=np.array((0.0, 0.0, 0.0, 1.0), np.float32),
        )
        return Scene(
            frame=FRAME,
            particles=np.zeros((0, 3), np.float32),
            particle_color=COLOR,
            particle_radius=0.0,
            shapes=(floor,),
            bounds_min=(x - VIEW_RADIUS_M, y - VIEW_RADIUS_M, 0.0),
            bounds_max=(x + VIEW_RADIUS_M, y + VIEW_RADIUS_M, 2.0 * VIEW_RADIUS_M),
            surfaces=(SceneSurface(name="body", vertices=vertices, triangles=self._triangles, color=COLOR),),
            focus=(x, y, z),
        )
