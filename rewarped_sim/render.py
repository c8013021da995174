"""Pictures of scenes on any machine: ray casting on the CPU, no display, no GPU, no OpenGL.

Open3D's `RaycastingScene` (Embree) finds what each ray hits; light, soft shadows and ambient occlusion are a
few lines of NumPy. Software OpenGL and Vulkan, the usual headless way, took 3 to 40 s for one picture of this
size and need a driver; this takes half a second and needs none (docs/decisions/0004-headless-rendering.md).
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image as PillowImage
from PIL.ImageFilter import MaxFilter, MinFilter

from rewarped_sim.meshes import Mesh, balls_mesh, joined, lines_mesh, shape_mesh, surface_mesh
from rewarped_sim.scene import SEE_THROUGH_OPACITY, Scene, SceneShape

Floats = NDArray[np.floating]
Image = NDArray[np.uint8]
"""(height, width, 3) red, green, blue."""

_TO_LIGHT = np.array([-0.3, -0.4, 0.866], np.float32)
_LAMP_X, _LAMP_Y = np.array([0.8, -0.6, 0.0], np.float32), np.array([0.52, 0.693, 0.5], np.float32)
_LAMP_RADIUS = 0.12  # at distance 1: sets how soft the edges of shadows are
_SUN, _SKY, _GROUND = 0.75, 0.55, 0.35  # strength of the lamp, of light from above and of light from below
_BACKGROUND = np.array([0.86, 0.89, 0.93], np.float32)
_FLOOR_COLORS = np.array([[0.80, 0.82, 0.85], [0.86, 0.88, 0.91]], np.float32)
_VISIBLE_DIFFERENCE = 4  # of a colour on a screen, of 255
_TILES_M = (0.1, 0.2, 0.5, 1.0)  # edges of the floor's tiles: about a quarter of what is in view


class RenderError(RuntimeError):
    """Pictures cannot be made on this machine; the message says why."""


@dataclass(frozen=True, kw_only=True)
class Camera:
    """A pinhole camera in the scene's frame, z up."""

    eye: tuple[float, float, float]
    look_at: tuple[float, float, float]
    fov_deg: float = 30.0
    """Horizontal field of view."""

    @property
    def view_diameter_m(self) -> float:
        """Diameter of the ball around `look_at` that just fits into the picture [m]."""
        distance = np.linalg.norm(np.subtract(self.eye, self.look_at))
        return float(2 * distance * np.sin(np.radians(self.fov_deg) / 2))

    def towards(self, scene: Scene) -> Camera:
        """Return this camera, moved along to what a scene wants to be followed."""
        if scene.focus is None:
            return self
        eye, look_at = np.add(self.eye, scene.focus), np.add(self.look_at, scene.focus)
        return replace(self, eye=tuple(eye.tolist()), look_at=tuple(look_at.tolist()))

    @staticmethod
    def framing(scenes: Sequence[Scene]) -> Camera:
        """Look from the front right and above, so that all that the scenes show fits at all times.

        Where scenes are to be followed, this is the camera relative to their focus; see `towards`.
        """
        low, high = _extent(scenes)
        center = (low + high) / 2
        back = np.array([0.55, -1.0, 0.62]) / np.linalg.norm([0.55, -1.0, 0.62])
        right = np.cross([0.0, 0.0, 1.0], back) / np.hypot(back[0], back[1])
        corners = np.stack(np.meshgrid(*zip(low, high, strict=True)), axis=-1).reshape(-1, 3) - center
        aside = np.abs(corners @ np.stack([right, np.cross(back, right)], axis=1)).max(axis=1)
        fov_deg = 30.0
        distance = np.max(corners @ back + 1.1 * aside / np.tan(np.radians(fov_deg) / 2))  # with a margin
        eye = center + distance * back
        return Camera(eye=tuple(eye.tolist()), look_at=tuple(center.tolist()), fov_deg=fov_deg)


def render_scene(
    scene: Scene,
    camera: Camera,
    *,
    width: int = 640,
    height: int = 480,
    supersampling: int = 2,
    color_range_m: tuple[float, float] | None = None,
) -> Image:
    """Draw one scene.

    supersampling: rays per pixel along each axis where it is not smooth; 2 gives smooth edges and shadows.
    color_range_m: heights of the darkest and the lightest particle; those of this scene when not given.
    Raises RenderError when Open3D cannot be loaded.
    """
    size = width, height, supersampling
    light = _light_seen(scene, camera, *size, color_range_m)
    solid = tuple(shape for shape in scene.shapes if not shape.see_through)
    if len(solid) < len(scene.shapes):
        behind = _light_seen(replace(scene, shapes=solid), camera, *size, color_range_m)
        light = SEE_THROUGH_OPACITY * light + (1.0 - SEE_THROUGH_OPACITY) * behind
    return _displayed(light).reshape(height, width, 3)


def _light_seen(
    scene: Scene,
    camera: Camera,
    width: int,
    height: int,
    supersampling: int,
    color_range_m: tuple[float, float] | None,
) -> Floats:
    """Light that arrives at each pixel, row by row, (width * height, 3)."""
    o3c, raycasting = _open3d()
    world, painting = raycasting(), _Painting.of(scene, color_range_m)
    world.add_triangles(o3c.Tensor(painting.mesh.vertices), o3c.Tensor(painting.mesh.triangles))
    rays = world.create_rays_pinhole(  # its `up` points down the picture
        camera.fov_deg, camera.look_at, camera.eye, (0, 0, -1), width * supersampling, height * supersampling
    )
    rays_of = _by_pixel(rays.numpy(), supersampling)
    pattern_of = _sampling_pattern(width, height, supersampling)

    def drawn(pixels: NDArray[np.intp], samples: slice) -> Floats:
        """Mean colour of some samples of some pixels, (len(pixels), 3)."""
        rays, pattern = rays_of[pixels, samples], pattern_of[pixels, samples]
        colors = _shade(world, o3c, painting, camera, rays.reshape(-1, 6), pattern.reshape(-1, 4))
        return colors.reshape(*rays.shape[:2], 3).mean(axis=1)

    light = drawn(np.arange(width * height), slice(0, 1))
    if supersampling > 1:  # most of a picture is smooth: one sample will do there
        rough = np.flatnonzero(_is_rough(_displayed(light).reshape(height, width, 3)))
        share = 1.0 / supersampling**2
        light[rough] = share * light[rough] + (1.0 - share) * drawn(rough, slice(1, None))
    return light


def _by_pixel(samples: Floats, supersampling: int) -> Floats:
    """Rearrange a picture's samples (rows, columns, n) as (pixels, samples of a pixel, n)."""
    rows, columns, size = samples.shape
    ss = supersampling
    blocks = samples.reshape(rows // ss, ss, columns // ss, ss, size).swapaxes(1, 2)
    return np.ascontiguousarray(blocks).reshape(-1, ss * ss, size)


def _displayed(light: Floats) -> Image:
    """Give the colours by which a screen shows light."""
    return (255 * np.clip(light, 0, 1) ** (1 / 2.2) + 0.5).astype(np.uint8)


def _is_rough(picture: Image) -> NDArray[np.bool_]:
    """Pixels around which people see a difference between two, (height, width)."""
    shown = PillowImage.fromarray(picture)
    lightest, darkest = (np.asarray(shown.filter(find(3))) for find in (MaxFilter, MinFilter))
    return (lightest - darkest).max(axis=2) > _VISIBLE_DIFFERENCE


def _shade(
    world: Any, o3c: Any, painting: _Painting, camera: Camera, rays: Floats, pattern: Floats
) -> Floats:
    """Light that comes along rays (N, 6) to the camera, (N, 3); pattern as in `_light`."""
    hits = world.cast_rays(o3c.Tensor(rays))
    depth = hits["t_hit"].numpy()
    seen = np.flatnonzero(np.isfinite(depth))
    triangle = hits["primitive_ids"].numpy()[seen]
    direction = rays[seen, 3:]
    point = rays[seen, :3] + depth[seen, None] * direction
    size_m = camera.view_diameter_m
    color = painting.color_at(triangle, point, size_m)

    off_center = point[:, :2] - np.asarray(camera.look_at[:2], np.float32)
    distance = np.sqrt(np.einsum("ij,ij->i", off_center, off_center)) / size_m
    light = np.full(len(point), _SKY + _SUN * _TO_LIGHT[2], np.float32)  # of an open floor
    near = np.flatnonzero(distance < 1.0)  # nothing further out can be in shadow
    normal = _interpolate(painting.mesh, triangle[near], hits["primitive_uvs"].numpy()[seen[near]])
    mirrored = np.zeros(len(point), np.float32)
    light[near], mirrored[near] = _light(
        world, o3c, point[near], normal, _unit(direction[near]), pattern[seen[near]], size_m
    )
    mirrored *= painting.gloss[triangle]
    # The floor fades into the background, without an edge.
    haze = np.clip((distance - 1.0) / 2.5, 0.0, 1.0)[:, None]
    picture = np.tile(_BACKGROUND, (len(rays), 1))
    picture[seen] = (color * light[:, None] + mirrored[:, None]) * (1 - haze) + _BACKGROUND * haze
    return picture


@dataclass(frozen=True)
class _Painting:
    """Everything in a scene as one mesh; colours are proportional to light."""

    mesh: Mesh
    color: Floats
    """(T, 3) per triangle; that of a floor is tiled instead."""
    gloss: Floats
    """(T,) how much of the lamp a triangle mirrors."""
    floor: NDArray[np.bool_]
    """(T,) whether it is part of a floor."""

    @staticmethod
    def of(scene: Scene, color_range_m: tuple[float, float] | None) -> _Painting:
        meshes: list[Mesh] = []
        colors, gloss, floor = [], [], []

        def add(mesh: Mesh, color: ArrayLike, shine: float, *, is_floor: bool = False) -> None:
            count = len(mesh.triangles)
            meshes.append(mesh)
            colors.append(np.broadcast_to(np.asarray(color, np.float32), (count, 3)))
            gloss.append(np.full(count, shine, np.float32))
            floor.append(np.full(count, is_floor))

        if len(scene.particles):
            each = particle_colors(scene, color_range_m)
            mesh = balls_mesh(scene.particles, scene.particle_radius)
            add(mesh, np.repeat(each, len(mesh.triangles) // len(each), axis=0), 0.0)
        for surface in scene.surfaces:
            add(surface_mesh(surface), surface.color, 0.2)
        for lines in scene.lines:
            mesh = lines_mesh(lines)
            add(mesh, np.repeat(lines.colors, len(mesh.triangles) // len(lines.colors), axis=0), 0.2)
        shapes = scene.shapes
        if not any(shape.kind == "plane" for shape in shapes):
            shapes = (*shapes, _ground(scene, color_range_m))
        for shape in shapes:
            is_floor = shape.kind == "plane"
            add(shape_mesh(shape), shape.color, 0.0 if is_floor else 0.5, is_floor=is_floor)
        return _Painting(
            joined(meshes), np.concatenate(colors) ** 2.2, np.concatenate(gloss), np.concatenate(floor)
        )

    def color_at(self, triangle: NDArray[np.uint32], point: Floats, view_diameter_m: float) -> Floats:
        """Colours of hit points (N, 3)."""
        tile_m = max(edge for edge in _TILES_M if edge <= max(view_diameter_m / 4, _TILES_M[0]))
        color = self.color[triangle]
        on_floor = np.flatnonzero(self.floor[triangle])
        cell = np.floor(point[on_floor, :2] / tile_m).astype(np.int64)
        color[on_floor] = _FLOOR_COLORS[cell.sum(axis=1) % 2] ** 2.2
        return color


def particle_colors(scene: Scene, color_range_m: tuple[float, float] | None = None) -> Floats:
    """(num_particles, 3) in 0..1: the scene's particle colour, darker below and lighter above."""
    height = scene.particles[:, 2]
    low, high = color_range_m or height_range([scene])
    level = np.clip((height - low) / max(high - low, 1e-6), 0.0, 1.0)[:, None].astype(np.float32)
    base = np.asarray(scene.particle_color, np.float32)
    dark, light = base**1.6 * 0.8, 1.0 - 0.55 * (1.0 - base)
    return dark + level * (light - dark)


def height_range(scenes: Sequence[Scene]) -> tuple[float, float]:
    """Lowest and highest particle of all scenes [m]."""
    heights = [scene.particles[:, 2] for scene in scenes if len(scene.particles)]
    if not heights:
        return 0.0, 1.0
    return float(min(h.min() for h in heights)), float(max(h.max() for h in heights))


def _ground(scene: Scene, range_m: tuple[float, float] | None) -> SceneShape:
    """Make a floor for a scene without a plane: right below the lowest particle, in a video that of all scenes."""
    lowest = scene.bounds_min[2]
    if len(scene.particles):
        lowest = (range_m or height_range([scene]))[0] - scene.particle_radius
    return SceneShape(
        name="ground",
        kind="plane",
        size=(),
        position=np.array([0, 0, lowest], np.float32),
        quaternion=np.array([0, 0, 0, 1], np.float32),
    )


def _extent(scenes: Sequence[Scene]) -> tuple[Floats, Floats]:
    """Corners of the box around all that scenes show, at most the workspace [m]; around their focus if followed."""
    points = [points - (scene.focus or 0.0) for scene in scenes for points in _shown(scene)]
    low, high = (
        np.subtract(bounds, scenes[0].focus or 0.0) for bounds in (scenes[0].bounds_min, scenes[0].bounds_max)
    )
    if not points:
        return low, high
    return (
        np.maximum(low, np.min([p.min(axis=0) for p in points], axis=0)),
        np.minimum(high, np.max([p.max(axis=0) for p in points], axis=0)),
    )


def _shown(scene: Scene) -> Iterator[Floats]:
    """Points of all that a scene shows within bounds, (n, 3) each."""
    if len(scene.particles):
        yield scene.particles - scene.particle_radius
        yield scene.particles + scene.particle_radius
    for surface in scene.surfaces:
        yield surface.vertices
    for lines in scene.lines:
        yield from (lines.starts, lines.ends)
    for shape in scene.shapes:
        if shape.kind != "plane":
            yield shape_mesh(shape).vertices


def _interpolate(mesh: Mesh, triangle: NDArray[np.uint32], corner: Floats) -> Floats:
    a, b, c = mesh.triangles[triangle].T
    u, v = corner[:, :1], corner[:, 1:]
    return _unit((1 - u - v) * mesh.normals[a] + u * mesh.normals[b] + v * mesh.normals[c])


def _unit(vectors: Floats) -> Floats:
    return vectors / np.sqrt(np.einsum("ij,ij->i", vectors, vectors))[:, None]


def _light(
    world: Any,
    o3c: Any,
    point: Floats,
    normal: Floats,
    direction: Floats,
    pattern: Floats,
    size_m: float,
) -> tuple[Floats, Floats]:
    """Light that arrives and light that a glossy surface mirrors, per point.

    Lambert and Blinn-Phong from one round lamp, plus light from all around dimmed where neighbours are close.
    pattern: (N, 4) in 0..1, where on the lamp and where in the sky each point looks.
    """
    start = point + 1e-3 * size_m * normal

    def free(towards: Floats, reach_m: float) -> Floats:
        rays = np.concatenate([start, towards], axis=1, dtype=np.float32)
        return 1.0 - world.test_occlusions(o3c.Tensor(rays), 0.0, reach_m).numpy().astype(np.float32)

    angle = 2 * np.pi * pattern[:, 0]
    off_axis = _LAMP_RADIUS * np.sqrt(pattern[:, 1])
    lamp = (
        _TO_LIGHT + np.outer(off_axis * np.cos(angle), _LAMP_X) + np.outer(off_axis * np.sin(angle), _LAMP_Y)
    )
    angle, up = 2 * np.pi * pattern[:, 2], 2 * pattern[:, 3] - 1
    ring = np.sqrt(1 - up * up)
    sky = normal + np.stack([ring * np.cos(angle), ring * np.sin(angle), up], axis=1)  # cosine-weighted

    lit = free(lamp, np.inf) * np.clip(normal @ _TO_LIGHT, 0.0, 1.0)
    ambient = (_GROUND + (_SKY - _GROUND) * (0.5 + 0.5 * normal[:, 2])) * (
        0.45 + 0.55 * free(sky, 0.25 * size_m)
    )
    half = _unit(_TO_LIGHT - direction)
    return ambient + _SUN * lit, lit * np.clip(np.einsum("ij,ij->i", normal, half), 0.0, 1.0) ** 60


@lru_cache(maxsize=2)
def _sampling_pattern(width: int, height: int, supersampling: int) -> Floats:
    """Give (pixels, samples, 4) numbers in 0..1, fixed per pixel lest grain flickers, stratified within a pixel."""
    rng = np.random.default_rng(0)
    strata = supersampling**2
    pattern = rng.random((width * height, strata, 4), dtype=np.float32)
    order = rng.random(pattern.shape, dtype=np.float32).argsort(
        axis=1
    )  # else first samples would all look one way
    return (pattern + order.astype(np.float32)) / strata


def _open3d() -> tuple[Any, Any]:
    try:
        core, geometry = (importlib.import_module(f"open3d.{name}") for name in ("core", "t.geometry"))
    except (ImportError, OSError) as error:  # OSError: a shared library of the system is missing
        raise RenderError(f"Open3D cannot be loaded: {error}") from error
    return core, geometry.RaycastingScene
