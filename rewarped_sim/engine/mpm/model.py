"""What an MPM scene is made of: constants of one environment, checked before anything is built."""

import math
from dataclasses import dataclass

import numpy as np

from rewarped_sim.engine.kinematics import Tool
from rewarped_sim.engine.mpm.bodies import Body, Spring
from rewarped_sim.engine.mpm.contact import CONTACT_LAWS
from rewarped_sim.engine.mpm.grid import BLOCK, BLOCK_NODES, MAX_BLOCKS_PER_AXIS, MAX_SHAPES
from rewarped_sim.engine.mpm.materials import Material
from rewarped_sim.engine.mpm.state import PARTICLE_SIZE

Vec3 = tuple[float, float, float]

MAX_CFL = 0.5
"""Largest share of a cell that a pressure wave may cross in a substep."""

MAX_SPRING_RATE = 0.5
"""Largest share of the own time scale of a spring, or of a body's contact with the floor, that a substep may take."""


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
    """Coulomb coefficient of every shape, of the tool and of bodies."""
    contact: str = "published"
    """`published`: the law that the published tasks run with; `smooth`: continuously differentiable. See `contact`."""
    bodies: tuple[Body, ...] = ()
    """Rigid bodies that the particles push back."""
    springs: tuple[Spring, ...] = ()
    """What ties bodies to the driven tree."""
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
        for name in ("floor_friction", "tool_friction"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name} must be >= 0, got {getattr(self, name)}")
        if not self.parts:
            raise ValueError("parts: a scene needs at least one")
        if self.contact not in CONTACT_LAWS:
            raise ValueError(f"contact must be one of {sorted(CONTACT_LAWS)}, got {self.contact!r}")
        if self.num_shapes > MAX_SHAPES:
            raise ValueError(f"tool and bodies may have {MAX_SHAPES} shapes together, got {self.num_shapes}")
        self.check_cfl()
        self._check_bodies()

    def check_cfl(self, stiffer_by: float = 1.0) -> None:
        """Raise a ValueError if a substep is too long for the pressure waves of these materials, or stiffer ones."""
        cfl = self.cfl * math.sqrt(stiffer_by)
        if cfl > MAX_CFL:
            raise ValueError(
                f"unstable: a pressure wave at {self.sound_speed * math.sqrt(stiffer_by):.1f} m/s crosses {cfl:.2f} of "
                f"a cell of {1.0 / self.grid_size:.4f} m in dt_s = {self.dt_s:g} s; at most {MAX_CFL}. Take a smaller "
                f"dt_s (<= {self.dt_s * MAX_CFL / cfl:.2g}), a coarser grid or a softer material"
            )

    def _check_bodies(self) -> None:
        densest = max(part.material.density for part in self.parts)
        for body in self.bodies:
            layer = densest * body.contact_layer(1.0 / self.grid_size)
            if body.mass < 0.5 * layer:
                raise ValueError(
                    f"body {body.name!r}: mass {body.mass:g} kg is too small: the particles in the cell around it may "
                    f"weigh {layer:.2g} kg, and the explicit exchange of momentum is unstable below half of that"
                )
            where = f"floor contact of body {body.name!r}"
            self._check_rate(where, body.floor_stiffness, body.floor_damping, body.mass)
        for spring in self.springs:
            where = f"spring of body {spring.body}"
            if not 0 <= spring.body < len(self.bodies):
                raise ValueError(f"{where}: there is no such body; bodies: {len(self.bodies)}")
            if not -1 <= spring.joint < len(self.tool.joints):
                raise ValueError(
                    f"{where}: there is no joint {spring.joint}; joints: {len(self.tool.joints)}"
                )
            self._check_rate(where, spring.stiffness, spring.damping, self.bodies[spring.body].mass)

    def _check_rate(self, where: str, stiffness: float, damping: float, mass: float) -> None:
        rate = self.dt_s * (math.sqrt(stiffness / mass) + damping / mass)
        if rate > MAX_SPRING_RATE:
            raise ValueError(
                f"{where}: too stiff for dt_s = {self.dt_s:g} s: dt (sqrt(k / m) + c / m) = {rate:.2g}, at most "
                f"{MAX_SPRING_RATE}"
            )

    @property
    def num_shapes(self) -> int:
        """Shapes of the tool and of all bodies."""
        return len(self.tool.shapes) + sum(len(body.shapes) for body in self.bodies)

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
    def laws(self) -> frozenset[int]:
        """Codes of the laws of stress that the scene needs."""
        return frozenset(part.material.law for part in self.parts)

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
