"""What an MPM scene is made of: constants of one environment, checked before anything is built."""

from dataclasses import dataclass

import numpy as np

from rewarped_sim.engine.kinematics import Tool
from rewarped_sim.engine.mpm.grid import BLOCK, BLOCK_NODES, MAX_BLOCKS_PER_AXIS, MAX_SHAPES
from rewarped_sim.engine.mpm.materials import Material
from rewarped_sim.engine.mpm.state import PARTICLE_SIZE

Vec3 = tuple[float, float, float]

MAX_CFL = 0.5
"""Largest share of a cell that a pressure wave may cross in a substep."""


@dataclass(frozen=True, kw_only=True)
class Part:
    """Particles of one material that follow one another in the state."""

    material: Material
    num_particles: int
    particle_volume: float
    """Rest volume of a particle [m^3]."""

    def __post_init__(self) -> None:
        for name in ("num_particles", "particle_volume"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be > 0, got {getattr(self, name)}")


@dataclass(frozen=True, kw_only=True)
class MpmModel:
    """Constants of a scene: particles in the unit cube, z up, floor at the lower end of z."""

    grid_size: int
    """Nodes along each axis of the unit cube; a multiple of 4."""
    dt_s: float
    """Substep [s]."""
    num_substeps: int
    """Substeps per control step."""
    parts: tuple[Part, ...]
    """What the particles of an environment are made of, in the order of the particles."""
    tool: Tool
    gravity: Vec3
    """[m/s^2]."""
    floor_friction: float
    """Coulomb coefficient of the floor; 99 and more: nothing slides."""
    tool_friction: float
    """Coulomb coefficient of every tool shape."""
    softness: float = 666.0
    """Decay of a shape's influence with distance [1/m]."""
    max_blocks: int = 160
    """Blocks of 4^3 nodes that an environment touches in a substep, on average over a control step, at most."""

    def __post_init__(self) -> None:
        n = self.grid_size
        if n % BLOCK or not 2 * BLOCK <= n <= BLOCK * MAX_BLOCKS_PER_AXIS:
            raise ValueError(
                f"grid_size must be a multiple of {BLOCK} in [8, {BLOCK * MAX_BLOCKS_PER_AXIS}], got {n}"
            )
        for name in ("dt_s", "num_substeps", "softness", "max_blocks"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be > 0, got {getattr(self, name)}")
        if not self.parts:
            raise ValueError("parts: a scene needs at least one")
        if len(self.tool.shapes) > MAX_SHAPES:
            raise ValueError(f"a tool may have {MAX_SHAPES} shapes, got {len(self.tool.shapes)}")
        if self.cfl > MAX_CFL:
            raise ValueError(
                f"unstable: a pressure wave at {self.sound_speed:.1f} m/s crosses {self.cfl:.2f} of a "
                f"cell of {1.0 / n:.4f} m in dt_s = {self.dt_s:g} s; at most {MAX_CFL}. Take a smaller dt_s "
                f"(<= {self.dt_s * MAX_CFL / self.cfl:.2g}), a coarser grid or a softer material"
            )

    @property
    def num_particles(self) -> int:
        """Particles per environment."""
        return sum(part.num_particles for part in self.parts)

    @property
    def part_of_particle(self) -> np.ndarray:
        """Index of each particle's part, (num_particles,) int32."""
        counts = [part.num_particles for part in self.parts]
        return np.repeat(np.arange(len(counts), dtype=np.int32), counts)

    @property
    def material_table(self) -> np.ndarray:
        """Material constants of each part, (parts, len(MATERIAL_FIELDS)) float64."""
        return np.array([part.material.row(part.particle_volume) for part in self.parts])

    @property
    def lightest_particle(self) -> float:
        """Mass of the lightest particle [kg]."""
        return min(part.particle_volume * part.material.density for part in self.parts)

    @property
    def sound_speed(self) -> float:
        """Speed of the fastest pressure wave [m/s]."""
        return max(part.material.sound_speed() for part in self.parts)

    @property
    def cfl(self) -> float:
        """Share of a cell that a pressure wave crosses in a substep."""
        return self.dt_s * self.sound_speed * self.grid_size

    @property
    def bytes_per_env_slot(self) -> int:
        """Memory that one environment's control step takes in float32: states and saved node momenta."""
        states = (self.num_substeps + 1) * self.num_particles * PARTICLE_SIZE * 4
        nodes = self.num_substeps * self.max_blocks * (BLOCK_NODES * 16 + 8)
        return states + nodes

    @property
    def bytes_per_env_state(self) -> int:
        """Memory of one environment's state in float32."""
        return self.num_particles * PARTICLE_SIZE * 4
