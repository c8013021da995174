"""What there is to look at in one environment: plain arrays, for RViz, for the renderer, for a simulated camera."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

SEE_THROUGH_OPACITY = 0.35


@dataclass(frozen=True, kw_only=True)
class SceneShape:
    """A rigid shape, posed. z up, metres, quaternion x y z w."""

    name: str
    kind: str
    """`sphere`, `capsule`, `box`, `plane`, `cylinder` or `cone`."""
    size: tuple[float, ...]
    """sphere (radius,), capsule and cylinder (radius, half_length along local z), cone (radius of its base at
    z = -half_length, half_length; apex at z = half_length), box (half extents x, y, z), plane ()."""
    position: NDArray[np.float32]
    """(3,) in the environment's frame [m]."""
    quaternion: NDArray[np.float32]
    """(4,) x y z w."""
    color: tuple[float, float, float] = (0.7, 0.7, 0.75)
    """Red, green, blue in 0..1."""
    see_through: bool = False
    """Whether what is inside shows."""
    tool: bool = False
    """Whether it is part of the tool that the joints drive."""
    ghost: bool = False
    """Whether it only tells people something, such as a goal: nothing is there that a camera could see."""


@dataclass(frozen=True, kw_only=True)
class SceneSurface:
    """The skin of a soft body."""

    name: str
    vertices: NDArray[np.float32]
    """(n, 3) in the environment's frame [m]."""
    triangles: NDArray[np.int32]
    """(m, 3) indices of vertices, counterclockwise seen from outside."""
    color: tuple[float, float, float]
    """Red, green, blue in 0..1."""


@dataclass(frozen=True, kw_only=True)
class SceneLines:
    """Straight strings, such as muscles."""

    name: str
    starts: NDArray[np.float32]
    """(n, 3) in the environment's frame [m]."""
    ends: NDArray[np.float32]
    """(n, 3) [m]."""
    colors: NDArray[np.float32]
    """(n, 3) red, green, blue in 0..1, per string."""
    radius: float
    """[m]"""


@dataclass(frozen=True, kw_only=True)
class SceneLink:
    """The frame of a robot's link."""

    name: str
    parent: str
    """Name of the frame that the pose is expressed in: another link's, or the scene's."""
    position: NDArray[np.float64]
    """(3,) [m]."""
    quaternion: NDArray[np.float64]
    """(4,) x y z w."""


@dataclass(frozen=True, kw_only=True)
class Scene:
    """One environment at one instant."""

    frame: str
    """Name of the frame that positions are expressed in."""
    particles: NDArray[np.float32]
    """(num_particles, 3) [m]."""
    particle_color: tuple[float, float, float]
    """Red, green, blue in 0..1."""
    particle_radius: float
    """Drawing radius [m]."""
    shapes: tuple[SceneShape, ...]
    bounds_min: tuple[float, float, float]
    """Lower corner of the workspace, for cameras [m]."""
    bounds_max: tuple[float, float, float]
    """Upper corner of the workspace [m]."""
    surfaces: tuple[SceneSurface, ...] = ()
    lines: tuple[SceneLines, ...] = ()
    links: tuple[SceneLink, ...] = ()
    cloud: NDArray[np.float32] | None = None
    """What the task's depth camera sees, (n, 3) [m]; None: it has none, and all that is soft is seen."""
    focus: tuple[float, float, float] | None = None
    """What a camera that follows looks at [m]; None: the camera stands still."""
