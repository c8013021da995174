"""What a soft body is made of: its mesh, its material, its ground, and how time is divided."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from rewarped_sim.engine.fem.contact import CONTACT_LAWS
from rewarped_sim.engine.fem.mesh import edges, signed_volumes
from rewarped_sim.engine.kinematics import Vec3

STATE_SIZE = 6
"""Numbers per vertex in a state: position x y z [m], velocity x y z [m/s]."""
MAX_RATE = 0.75
"""Largest share of what symplectic Euler bears at rest, see `FemModel.elastic_rate`; compressed bodies are stiffer."""
MIN_QUALITY = 1.0e-6
"""Smallest volume of a tetrahedron in units of its longest edge cubed: flatter ones are degenerate."""


@dataclass(frozen=True, kw_only=True)
class Ground:
    """The plane z = 0 and the penalty force on the vertices that reach it."""

    stiffness: float
    """Normal force per depth [N/m]."""
    damping: float
    """Against approach: [N s/m] per depth [m] in the law `regularized`, [N s/m] in `published`."""
    friction_stiffness: float
    """Friction per slip speed while it sticks [N s/m]."""
    friction: float
    """Coulomb coefficient."""
    law: str = "regularized"
    """One of `CONTACT_LAWS`; see `contact`."""

    def __post_init__(self) -> None:
        for name in ("stiffness", "damping", "friction_stiffness", "friction"):
            if not 0.0 <= getattr(self, name) < np.inf:
                raise ValueError(f"ground: {name} must be >= 0 and finite, got {getattr(self, name)}")
        if self.law not in CONTACT_LAWS:
            raise ValueError(f"ground: law must be one of {list(CONTACT_LAWS)}, got {self.law!r}")


@dataclass(frozen=True, kw_only=True, eq=False)
class FemModel:
    """One environment: a body of tetrahedra that can be told to shrink or swell, z up.

    Its elastic energy is that of stable neo-Hookean solids (Smith, de Goes, Kim 2018) with an activation a per
    tetrahedron that shifts the volume at rest; see `elasticity`. The mass of a tetrahedron is shared by its corners.
    """

    vertices: NDArray[np.float64]
    """Rest positions (num_vertices, 3) [m]."""
    tets: NDArray[np.int32]
    """Corners (num_tets, 4), indices of vertices; of positive volume, see `mesh.signed_volumes`."""
    density: float
    """[kg/m^3]"""
    mu: float
    """Resistance to shear [Pa]."""
    lam: float
    """Resistance to changes of volume [Pa]."""
    damping: float = 0.0
    """Against the rate of deformation, and of the volume [Pa s]."""
    vertex_radius: float = 0.0
    """Height above the ground at which a vertex touches it [m]."""
    ground: Ground | None = None
    """None: there is no ground."""
    gravity: Vec3 = (0.0, 0.0, -9.81)
    """[m/s^2]"""
    control_dt_s: float
    """Duration of a control step [s]."""
    num_substeps: int
    """Steps of symplectic Euler in a control step."""

    def __post_init__(self) -> None:
        vertices = np.array(self.vertices, np.float64)
        tets = np.array(self.tets).astype(np.int32)
        if not np.array_equal(tets, self.tets):
            raise ValueError("tets: corners are indices, got numbers that are no int32")
        if vertices.ndim != 2 or vertices.shape[1] != 3 or not np.isfinite(vertices).all():
            raise ValueError(f"vertices: expected finite numbers (n, 3), got an array {vertices.shape}")
        if tets.ndim != 2 or tets.shape[1] != 4 or len(tets) == 0:
            raise ValueError(f"tets: expected (m, 4) with m > 0, got an array {tets.shape}")
        if tets.min() < 0 or tets.max() >= len(vertices):
            raise ValueError(
                f"tets: corners are indices in [0, {len(vertices)}), got {tets.min()} to {tets.max()}"
            )
        for array in (vertices, tets):
            array.setflags(write=False)
        object.__setattr__(self, "vertices", vertices)
        object.__setattr__(self, "tets", tets)
        for name in ("density", "mu", "lam", "control_dt_s", "num_substeps"):
            if not 0.0 < getattr(self, name) < np.inf:
                raise ValueError(f"{name} must be > 0 and finite, got {getattr(self, name)}")
        for name in ("damping", "vertex_radius"):
            if not 0.0 <= getattr(self, name) < np.inf:
                raise ValueError(f"{name} must be >= 0 and finite, got {getattr(self, name)}")
        if not np.isfinite(self.gravity).all():
            raise ValueError(f"gravity must be finite, got {self.gravity}")
        self._check_mesh()
        self._check_substep()

    def _check_mesh(self) -> None:
        volumes = self.volumes
        corners = self.vertices[self.tets]
        longest = np.linalg.norm(corners[:, :, None] - corners[:, None], axis=3).max(axis=(1, 2))
        worst = int(np.argmin(volumes / np.maximum(longest, np.finfo(float).tiny) ** 3))
        where = f"tets[{worst}] = {self.tets[worst].tolist()}"
        if volumes[worst] < -MIN_QUALITY * longest[worst] ** 3:
            raise ValueError(
                f"{where} is inside out: its volume is {volumes[worst]:g} m^3; swap two of its corners"
            )
        if volumes[worst] <= MIN_QUALITY * longest[worst] ** 3:
            raise ValueError(
                f"{where} is degenerate: {volumes[worst]:g} m^3 with an edge of {longest[worst]:g} m"
            )
        unused = np.setdiff1d(np.arange(self.num_vertices), self.tets)
        if len(unused):
            raise ValueError(f"vertices[{unused[0]}] belongs to no tetrahedron and so has no mass")

    def _check_substep(self) -> None:
        if self.elastic_rate > MAX_RATE:
            raise ValueError(
                f"unstable: waves in the smallest tetrahedra take {self.elastic_rate:.2g} of what a substep of "
                f"{self.dt_s:.3g} s can bear, at most {MAX_RATE}. Take more substeps, a coarser mesh, or less of mu, "
                "lam or damping"
            )
        if self.contact_rate > MAX_RATE:
            raise ValueError(
                f"unstable: the ground takes {self.contact_rate:.2g} of what a substep of {self.dt_s:.3g} s can bear "
                f"with a vertex of {self.masses.min():.3g} kg, at most {MAX_RATE}. Take more substeps, or less of the "
                "ground's stiffness, damping or friction_stiffness"
            )

    @property
    def dt_s(self) -> float:
        """Duration of a substep [s]."""
        return self.control_dt_s / self.num_substeps

    @property
    def num_vertices(self) -> int:
        """Vertices per environment."""
        return len(self.vertices)

    @property
    def num_tets(self) -> int:
        """Tetrahedra per environment."""
        return len(self.tets)

    @property
    def bytes_per_env_state(self) -> int:
        """Memory of one environment's state in float32."""
        return 4 * STATE_SIZE * self.num_vertices

    @property
    def bytes_per_env_slot(self) -> int:
        """Memory of one environment's control step in float32: a state per substep, and the activations."""
        return (self.num_substeps + 1) * self.bytes_per_env_state + 4 * self.num_tets

    @property
    def volumes(self) -> NDArray[np.float64]:
        """Rest volume of each tetrahedron (num_tets,) [m^3]."""
        return signed_volumes(self.vertices, self.tets)

    @property
    def masses(self) -> NDArray:
        """Mass of each vertex (num_vertices,) [kg]: a quarter of each tetrahedron around it."""
        shares = np.repeat(self.density * self.volumes / 4.0, 4)
        return np.bincount(self.tets.ravel(), weights=shares, minlength=self.num_vertices)

    @property
    def rest_inverse(self) -> NDArray:
        """Inverse of each tetrahedron's matrix of rest edges (num_tets, 3, 3) [1/m]."""
        return np.linalg.inv(edges(self.vertices, self.tets))

    @property
    def elastic_rate(self) -> float:
        """Estimate of (dt w)^2 / 4 + dt c / 2 of the fastest mode, w its frequency and c its decay; unstable beyond 1.

        A tetrahedron's own modes bound those of the mesh (Fried 1972). With its heights h_i and its mass at its
        corners, w^2 <= 4 (lam + 2 mu) / density * sum 1 / h_i^2, and c likewise with the damping.
        """
        rows = self.rest_inverse
        slopes = (rows**2).sum(axis=(1, 2)) + (rows.sum(axis=1) ** 2).sum(axis=1)
        stiffness = self.dt_s**2 * (self.lam + 2.0 * self.mu) + 4.0 * self.dt_s * self.damping
        return float(slopes.max() * stiffness / self.density)

    @property
    def contact_rate(self) -> float:
        """The same of the lightest vertex on the ground: of its bounce, or of its slip if that is faster."""
        if self.ground is None:
            return 0.0
        dt, ground = self.dt_s, self.ground
        bounce = dt**2 * ground.stiffness / 4.0
        if ground.law == "published":
            bounce += dt * ground.damping / 2.0
        return float(max(bounce, dt * ground.friction_stiffness / 2.0) / self.masses.min())
