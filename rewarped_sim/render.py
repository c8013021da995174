"""Pictures of scenes on any machine: ray casting on the CPU, no display, no GPU, no OpenGL.

Open3D's `RaycastingScene` (Embree) finds what each ray hits; light, soft shadows and ambient occlusion are a
few lines of NumPy. Software OpenGL and Vulkan, the usual headless way, took 3 to 40 s for one picture of this
size and need a driver; this takes about a second and needs none (docs/decisions/0004-headless-rendering.md).
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rewarped_sim.meshes import Mesh, balls_mesh, shape_mesh, surface_mesh
from rewarped_sim.scene import Scene, SceneShape

Floats = NDArray[np.floating]
Image = NDArray[np.uint8]
"""(height, width, 3) red, green, blue."""

_TO_LIGHT = np.array([-0.3, -0.4, 0.866], np.float32)
_LAMP_X, _LAMP_Y = np.array([0.8, -0.6, 0.0], np.float32), np.array([0.52, 0.693, 0.5], np.float32)
_LAMP_RADIUS = 0.12  # at distance 1: sets how soft the edges of shadows are
_SUN, _SKY, _GROUND = 0.75, 0.55, 0.35  # strength of the lamp, of light from above and of light from below
_BACKGROUND = np.array([0.86, 0.89, 0.93], np.float32)
_FLOOR_COLORS = np.array([[0.80, 0.82, 0.85], [0.86, 0.88, 0.91]], np.float32)
_TILES_IN_VIEW = 8


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

    supersampling: rays per pixel along each axis; 2 gives smooth edges and shadows.
    color_range_m: heights of the darkest and the lightest particle; those of this scene when not given.
    Raises RenderError when Open3D cannot be loaded.
    """
    o3c, raycasting = _open3d()
    world = raycasting()
    tile_m = 10.0 ** np.round(np.log10(camera.view_diameter_m / _TILES_IN_VIEW))
    meshes, paints = _meshes_and_colors(scene, color_range_m, float(tile_m))
    for mesh in meshes:
        world.add_triangles(o3c.Tensor(mesh.vertices), o3c.Tensor(mesh.triangles))

    rays = world.create_rays_pinhole(  # its `up` points down the picture
        camera.fov_deg, camera.look_at, camera.eye, (0, 0, -1), width * supersampling, height * supersampling
    )
    hits = world.cast_rays(rays)
    rays_np = rays.numpy().reshape(-1, 6)
    depth = hits["t_hit"].numpy().reshape(-1)
    seen = np.flatnonzero(np.isfinite(depth))
    geometry = hits["geometry_ids"].numpy().reshape(-1)[seen]
    triangle = hits["primitive_ids"].numpy().reshape(-1)[seen]
    corner = hits["primitive_uvs"].numpy().reshape(-1, 2)[seen]

    direction = rays_np[seen, 3:]
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    point = rays_np[seen, :3] + depth[seen, None] * rays_np[seen, 3:]
    normal = np.empty_like(point)
    color = np.empty_like(point)
    gloss = np.zeros(len(point), np.float32)
    for index, (mesh, paint) in enumerate(zip(meshes, paints, strict=True)):
        mine = geometry == index
        normal[mine] = _interpolate(mesh, triangle[mine], corner[mine])
        color[mine] = paint.at(triangle[mine], point[mine])
        gloss[mine] = paint.gloss

    size_m = camera.view_diameter_m
    distance = np.linalg.norm(point[:, :2] - np.asarray(camera.look_at[:2], np.float32), axis=1) / size_m
    light = np.full(len(point), _SKY + _SUN * _TO_LIGHT[2], np.float32)  # of an open floor
    mirrored = np.zeros(len(point), np.float32)
    near = distance < 1.0  # nothing further out can be in shadow
    pattern = _sampling_pattern(width, height, supersampling)[seen[near]]
    light[near], mirrored[near] = _light(
        world, o3c, point[near], normal[near], direction[near], pattern, size_m
    )
    haze = np.clip((distance - 1.0) / 2.5, 0.0, 1.0)[
        :, None
    ]  # the floor fades into the background, without an edge

    picture = np.tile(_BACKGROUND, (len(rays_np), 1))
    picture[seen] = (color * light[:, None] + (gloss * mirrored)[:, None]) * (1 - haze) + _BACKGROUND * haze
    picture = picture.reshape(height, supersampling, width, supersampling, 3).mean(axis=(1, 3))
    return (255 * np.clip(picture, 0, 1) ** (1 / 2.2) + 0.5).astype(np.uint8)


@dataclass(frozen=True)
class _Paint:
    """Colour of a mesh: one colour, one for every `triangles_each` triangles, or tiles of `tile_m` in x and y."""

    colors: Floats
    triangles_each: int = 0
    tile_m: float = 0.0
    gloss: float = 0.0

    def at(self, triangle: NDArray[np.uint32], point: Floats) -> Floats:
        if self.tile_m:
            cell = np.floor(point[:, :2] / self.tile_m).astype(np.int64)
            return self.colors[cell.sum(axis=1) % 2]
        return self.colors[triangle // self.triangles_each] if self.triangles_each else self.colors[:1]


def _meshes_and_colors(
    scene: Scene, color_range_m: tuple[float, float] | None, tile_m: float
) -> tuple[list[Mesh], list[_Paint]]:
    meshes, paints = [], []
    if len(scene.particles):
        meshes.append(balls_mesh(scene.particles, scene.particle_radius))
        paints.append(_Paint(particle_colors(scene, color_range_m) ** 2.2, triangles_each=80))
    for surface in scene.surfaces:
        meshes.append(surface_mesh(surface))
        paints.append(_Paint(np.array([surface.color], np.float32) ** 2.2, gloss=0.2))
    for shape in scene.shapes:
        meshes.append(shape_mesh(shape))
        floor = shape.kind == "plane"
        paints.append(
            _Paint(
                _FLOOR_COLORS**2.2 if floor else np.array([shape.color], np.float32) ** 2.2,
                tile_m=tile_m if floor else 0.0,
                gloss=0.0 if floor else 0.5,
            )
        )
    if not any(shape.kind == "plane" for shape in scene.shapes):
        meshes.append(shape_mesh(_ground(scene, color_range_m)))
        paints.append(_Paint(_FLOOR_COLORS**2.2, tile_m=tile_m))
    return meshes, paints


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
    """Points of a scene's particles, surfaces and bounded shapes, (n, 3) each."""
    if len(scene.particles):
        yield scene.particles - scene.particle_radius
        yield scene.particles + scene.particle_radius
    for surface in scene.surfaces:
        yield surface.vertices
    for shape in scene.shapes:
        if shape.kind != "plane":
            yield shape_mesh(shape).vertices


def _interpolate(mesh: Mesh, triangle: NDArray[np.uint32], corner: Floats) -> Floats:
    a, b, c = (mesh.normals[mesh.triangles[triangle, k]] for k in range(3))
    u, v = corner[:, :1], corner[:, 1:]
    normal = (1 - u - v) * a + u * b + v * c
    return normal / np.linalg.norm(normal, axis=1, keepdims=True)


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
    half = _TO_LIGHT - direction
    half /= np.sqrt(np.einsum("ij,ij->i", half, half))[:, None]
    return ambient + _SUN * lit, lit * np.clip(np.einsum("ij,ij->i", normal, half), 0.0, 1.0) ** 60


@lru_cache(maxsize=2)
def _sampling_pattern(width: int, height: int, supersampling: int) -> Floats:
    """Give (rays, 4) numbers in 0..1, fixed per pixel lest grain flickers, stratified within a pixel."""
    rng = np.random.default_rng(0)
    strata = supersampling**2
    pattern = rng.random((height, width, strata, 4), dtype=np.float32)
    for column in range(4):
        pattern[..., column] = (pattern[..., column] + rng.permutation(strata)) / strata
    pattern = pattern.reshape(height, width, supersampling, supersampling, 4).swapaxes(1, 2)
    return np.ascontiguousarray(pattern).reshape(-1, 4)


def _open3d() -> tuple[Any, Any]:
    try:
        core, geometry = (importlib.import_module(f"open3d.{name}") for name in ("core", "t.geometry"))
    except (ImportError, OSError) as error:  # OSError: a shared library of the system is missing
        raise RenderError(f"Open3D cannot be loaded: {error}") from error
    return core, geometry.RaycastingScene
