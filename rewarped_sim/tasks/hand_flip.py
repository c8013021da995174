"""HandFlip: fold a thin disc of dough in half in the palm of a Shadow hand.

The task of DexDeform as the SAPO paper runs it (there y-up; here z-up: upstream's (x, y, z) is our (x, 1 - z, y)). All
24 joints are driven, none is coupled; the hand is not pushed back. A control step is 2 ms of dough time.

The fold is measured against the start of the episode; upstream measures against the state after its first step, which
differs by round-off as long as the disc falls freely. The volume of a particle is upstream's constant; neither it nor
the density matters for the motion.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from rewarped_sim.assets.shadow_hand import LOWER, REST, UPPER, shadow_hand
from rewarped_sim.engine.mpm.materials import Dough
from rewarped_sim.engine.mpm.model import MpmModel, Part
from rewarped_sim.registry import register
from rewarped_sim.task import State
from rewarped_sim.unit_cube import (
    NUM_POINTS,
    UnitCubeConfig,
    UnitCubeTask,
    at_rest,
    in_thousandths,
    shifted_and_scaled,
)

DISC_CENTRE = (0.5, 0.4, 0.38)
DISC_RADIUS = 0.1
DISC_HALF_THICKNESS = 0.003
PARTICLE_VOLUME = 1.0 / 128.0**2
JOINT_STEP = 0.33 * 0.002 * 40
"""Largest turn of a joint per control step [rad]."""

# Fingers point along -y, the palm looks up.
HAND = shadow_hand(
    scale=2.5, position=(0.5, 0.7, 0.275), quaternion=(0.0, -math.sqrt(0.5), math.sqrt(0.5), 0.0)
)


@dataclass(frozen=True, kw_only=True)
class HandFlipConfig(UnitCubeConfig):
    """Settings of the task; the defaults are the published ones."""

    num_particles: int = 2500
    """A multiple of 250, so that the points observed are mirror images, too."""
    max_blocks: int = 64
    young: float = 4000.0
    """[Pa]"""
    poisson: float = 0.2
    yield_stress: float = 130.0
    """[Pa]"""
    disc_seed: int = 0
    """Draws the particles once, the same in all envs; see docs/decisions/0002-dough-seed.md."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_particles % NUM_POINTS:
            raise ValueError(f"num_particles must be a multiple of {NUM_POINTS}, got {self.num_particles}")


@register(
    "hand_flip_small",
    config=HandFlipConfig(num_particles=500, grid_size=32, num_substeps=16, max_blocks=48),
    num_envs=4,
    summary="hand_flip with fewer particles on a coarser grid, for quick starts on a CPU",
)
@register(
    "hand_flip",
    config=HandFlipConfig(),
    num_envs=4,
    summary="fold a disc of dough with a Shadow hand (2500 particles, 48^3 grid), as published",
)
class HandFlip(UnitCubeTask):
    """See the module."""

    default_joint_pos = REST
    num_start_random = 4
    particle_color = (0.93, 0.78, 0.58)

    def __init__(self, name: str, config: HandFlipConfig, device: torch.device) -> None:
        super().__init__(
            name,
            config,
            device,
            tool=HAND,
            particle_radius=0.9 * DISC_RADIUS * math.sqrt(math.pi / config.num_particles),
            step=(JOINT_STEP,) * len(REST),
            lower=LOWER,
            upper=UPPER,
            joint_unit="rad",
        )
        self.config = config
        self._disc = at_rest(mirrored_disc(config.num_particles // 2, config.disc_seed), device)
        self._rest = torch.tensor(REST, device=device)

    def build(self) -> MpmModel:
        config = self.config
        dough = Dough(
            young=config.young, poisson=config.poisson, yield_stress=config.yield_stress, density=1.0
        )
        return MpmModel(
            grid_size=config.grid_size,
            dt_s=0.002 / config.num_substeps,
            num_substeps=config.num_substeps,
            parts=(
                Part(material=dough, num_particles=config.num_particles, particle_volume=PARTICLE_VOLUME),
            ),
            tool=HAND,
            gravity=(0.0, 0.0, -90.0),
            floor_friction=500.0,
            tool_friction=0.5,
            contact=config.contact,
            max_blocks=config.max_blocks,
        )

    def start_state(self, uniform: Tensor) -> State:
        """Besides particles and joints, `open_width`: the halves' distance that folding is measured against [m]."""
        u = in_thousandths(2.0 * uniform - 1.0)
        upwards = (u[:, 1] + 1.0) / 2.0
        shift = 0.1 * torch.stack((u[:, 0], -u[:, 2], upwards), dim=1)
        spread = float(self.config.randomize)
        particles = shifted_and_scaled(self._disc, spread * shift, 1.0 + spread * 0.05 * u[:, 3])
        return {
            "particles": particles,
            "joint_q": self._rest.repeat(len(uniform), 1),
            "open_width": self._width(particles)[:, None],
        }

    def reward(self, state: State, action: Tensor) -> dict[str, Tensor]:
        open_width = state["open_width"][:, 0]
        return {"fold": ((open_width - self._width(state["particles"])) / open_width).clamp(-1.0, 1.0)}

    def _width(self, particles: Tensor) -> Tensor:
        """Mean distance between observed particles that were mirror images at the start, (num_envs,) [m]."""
        points = particles[:, self._observed, :3]
        return (points[:, : NUM_POINTS // 2] - points[:, NUM_POINTS // 2 :]).norm(dim=2).mean(dim=1)


def mirrored_disc(num_half: int, seed: int) -> NDArray[np.float64]:
    """Particles of the disc: one half at random, from the fold outwards, then its mirror image, (2 num_half, 3) [m]."""
    rng = np.random.default_rng(seed)
    half = np.empty((0, 3))
    while len(half) < num_half:
        x, y, z = rng.uniform((-1.0, 0.0, -1.0), 1.0, (4 * num_half, 3)).T
        half = np.concatenate((half, np.stack((x, y, z), axis=1)[x * x + y * y <= 1.0]))
    half = half[:num_half]
    half = half[np.lexsort((half[:, 2], half[:, 0], half[:, 1]))]
    extent = (DISC_RADIUS, DISC_RADIUS, DISC_HALF_THICKNESS)
    return np.concatenate((half * (1.0, -1.0, 1.0), half)) * extent + DISC_CENTRE
