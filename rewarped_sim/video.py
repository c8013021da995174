"""Rollout videos: several recordings side by side, with titles and running captions, as one MP4 file."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import imageio_ffmpeg
import numpy as np
from PIL import Image as PillowImage
from PIL import ImageDraw, ImageFont

from rewarped_sim.render import Camera, Image, RenderError, height_range, particle_colors, render_scene
from rewarped_sim.scene import Scene
from sapo_learner.atomic_file import TEMPORARY


@dataclass(kw_only=True)
class Recording:
    """The scenes of one episode in order, with a caption for each."""

    title: str
    scenes: list[Scene] = field(default_factory=list)
    captions: list[str] = field(default_factory=list)

    def add(self, scene: Scene, caption: str) -> None:
        """Append one scene and its caption."""
        self.scenes.append(scene)
        self.captions.append(caption)


STEADINESS = 5
"""A camera that follows goes by the mean over so many scenes before and after: strides do not shake it."""
Painter = Callable[[Scene, Camera, int, tuple[float, float]], Image]
"""Scene, camera, edge length in pixels, height range of the colours [m] -> square picture."""


def write_video(
    path: Path,
    recordings: Sequence[Recording],
    *,
    panel_px: int = 400,
    fps: float = 20.0,
    max_frames: int = 75,
    should_stop: Callable[[], bool] = lambda: False,
) -> str:
    """Draw the recordings side by side and write an MP4 file; the last frame stays for a second.

    panel_px: edge length of one square panel, even. Longer recordings are thinned to max_frames.
    should_stop: asked before each frame; a stopped video ends there, but has one frame at least and is whole.
    Returns a remark for people: empty, or why the pictures are plainer than they should be.
    Raises OSError when the file cannot be written, a full disk included; `path` is then what it was before.
    """
    unfinished = path.with_name(TEMPORARY + path.name)
    try:
        frames, remark = _write_frames(unfinished, recordings, panel_px, fps, max_frames, should_stop)
        # The encoder writes most of a file when it ends, and tells nobody whether it could.
        if (readable := _num_frames(unfinished)) != frames:
            raise OSError(f"{path}: of {frames} frames, {readable} came onto the disk; is it full?")
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return remark


def _write_frames(
    path: Path,
    recordings: Sequence[Recording],
    panel_px: int,
    fps: float,
    max_frames: int,
    should_stop: Callable[[], bool],
) -> tuple[int, str]:
    """Write the file as it comes; returns the number of frames, and the remark."""
    frames = max(len(recording.scenes) for recording in recordings)
    chosen = np.unique(np.linspace(0, frames - 1, min(frames, max_frames)).round().astype(int))
    scenes = [scene for recording in recordings for scene in recording.scenes]
    camera, heights = Camera.framing(scenes[:: max(1, len(scenes) // 50)]), height_range(scenes)
    panels = [_Panel(recording, camera, panel_px, heights) for recording in recordings]
    remark, painter = "", _ray_cast
    writer: Any = imageio.get_writer(path, fps=fps, codec="libx264", quality=8, macro_block_size=2)
    with writer:
        written, picture = 0, None
        for frame in chosen:
            if should_stop() and picture is not None:
                break
            try:
                picture = np.concatenate([panel.at(frame, painter) for panel in panels], axis=1)
            except RenderError as error:
                remark, painter = f"drawn with Matplotlib, because {error}", _scatter
                picture = np.concatenate([panel.at(frame, painter) for panel in panels], axis=1)
            writer.append_data(picture)
            written += 1
        for _ in range(round(fps)):
            writer.append_data(picture)
            written += 1
    return written, remark


def _num_frames(path: Path) -> int:
    """Frames that can be read back."""
    try:
        return imageio_ffmpeg.count_frames_and_secs(str(path))[0] or 0
    except RuntimeError:
        return 0


class _Panel:
    """One recording's part of the frames, drawn again only where something changed."""

    def __init__(
        self, recording: Recording, camera: Camera, size_px: int, heights: tuple[float, float]
    ) -> None:
        self._recording, self._scenes = recording, steadied(recording.scenes)
        self._camera, self._size_px, self._heights = camera, size_px, heights
        self._shown = -1
        self._picture: Image = np.zeros((size_px, size_px, 3), np.uint8)

    def at(self, frame: int, painter: Painter) -> Image:
        """Draw a frame; a shorter episode waits for the longest."""
        index = min(frame, len(self._scenes) - 1)
        if index != self._shown:
            self._picture = self._drawn(index, painter)
            self._shown = index
        return self._picture

    def _drawn(self, index: int, painter: Painter) -> Image:
        scene, size_px = self._scenes[index], self._size_px
        picture = PillowImage.fromarray(painter(scene, self._camera.towards(scene), size_px, self._heights))
        draw = ImageDraw.Draw(picture)
        large, small = (ImageFont.load_default(size=size_px / part) for part in (20, 26))
        margin = size_px // 30
        draw.text((margin, margin), self._recording.title, fill=(40, 44, 52), font=large)
        caption = self._recording.captions[index]
        draw.text((margin, size_px - margin), caption, fill=(70, 76, 88), font=small, anchor="ls")
        return np.asarray(picture)


def steadied(scenes: Sequence[Scene]) -> list[Scene]:
    """Scenes whose focus moves smoothly; where it moves evenly anyway, and at both ends, it stays what it is."""
    result = []
    for index, scene in enumerate(scenes):
        reach = min(STEADINESS, index, len(scenes) - 1 - index)
        around = [near.focus for near in scenes[index - reach : index + reach + 1] if near.focus is not None]
        if scene.focus is not None:
            x, y, z = np.mean(around, axis=0).tolist()
            scene = replace(scene, focus=(x, y, z))
        result.append(scene)
    return result


def _ray_cast(scene: Scene, camera: Camera, size_px: int, heights: tuple[float, float]) -> Image:
    return render_scene(scene, camera, width=size_px, height=size_px, color_range_m=heights)


def _scatter(scene: Scene, camera: Camera, size_px: int, heights: tuple[float, float]) -> Image:
    """Draw particles as dots and the rest as triangles, with Matplotlib: needs no library of the system."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    from rewarped_sim.meshes import lines_mesh, shape_mesh, surface_mesh

    figure = Figure(figsize=(size_px / 100, size_px / 100), dpi=100)
    canvas = FigureCanvasAgg(figure)
    axes: Any = figure.add_axes((0, 0, 1, 1), projection="3d")
    axes.set_proj_type("persp")
    away = np.subtract(camera.eye, camera.look_at)
    axes.view_init(
        elev=np.degrees(np.arctan2(away[2], np.hypot(away[0], away[1]))),
        azim=np.degrees(np.arctan2(away[1], away[0])),
    )
    reach = np.linalg.norm(away) * np.sin(np.radians(camera.fov_deg) / 2) * 0.7
    for axis, center in zip("xyz", camera.look_at, strict=True):
        getattr(axes, f"set_{axis}lim")(center - reach, center + reach)
    axes.set_axis_off()
    axes.scatter(*scene.particles.T, s=6, c=np.clip(particle_colors(scene, heights), 0, 1), depthshade=False)
    meshes = [(surface_mesh(surface), surface.color) for surface in scene.surfaces]
    meshes += [(lines_mesh(lines), tuple(lines.colors.mean(axis=0))) for lines in scene.lines]
    meshes += [(shape_mesh(shape), shape.color) for shape in scene.shapes if shape.kind != "plane"]
    for mesh, color in meshes:
        axes.plot_trisurf(
            *mesh.vertices.T, triangles=mesh.triangles.astype(int), color=color, linewidth=0, alpha=0.9
        )
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[:size_px, :size_px, :3]
