"""Draw the picture of docs/vision.md: a scene with its camera, what the camera sees of it, and what a policy gets.

python docs/draw_vision.py
"""

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

import rewarped_sim
from policy_runner.pointcloud import preprocess
from rewarped_sim.depth_camera import CameraConfig
from rewarped_sim.env import Env
from rewarped_sim.render import Camera, render_scene
from rewarped_sim.scene import Scene, SceneLines

PICTURES = Path(__file__).parent / "pictures"
PRESSING_STEPS = 22
FRUSTUM_M = 0.9
"""Depth at which the drawn field of view ends."""
PIXELS_AROUND = 2.0
"""Of the picture that are shown around the dough."""
SEEN, HIDDEN, SAMPLED = "#c05a3c", "#c3c8d0", "#2a6fbb"
SIDE = (1, 2)
"""Axes y and z: seen along x."""


def pressed(task: str) -> Env:
    """An env whose rolling pin stands in the dough, with a camera."""
    env = rewarped_sim.make(task, horizon=0, requires_grad=False, cloud="camera", randomize=False)
    env.reset()
    with torch.no_grad():
        for _ in range(PRESSING_STEPS):
            env.step(torch.tensor([[0.0, -0.5, 0.0]]))
    return env


def with_frustum(scene: Scene, camera: CameraConfig) -> Scene:
    """The scene and its camera's field of view, as strings."""
    eye = np.array(camera.position)
    half_x = 0.5 * camera.width / camera.focal
    half_y = 0.5 * camera.height / camera.focal
    rays = np.array([(x, y, 1.0) for x, y in ((-1, -1), (1, -1), (1, 1), (-1, 1))]) * (half_x, half_y, 1.0)
    corners = eye + FRUSTUM_M * rays @ camera.axes
    starts = np.concatenate([np.tile(eye, (4, 1)), corners]).astype(np.float32)
    ends = np.concatenate([corners, np.roll(corners, -1, axis=0)]).astype(np.float32)
    color = np.tile(np.array((0.15, 0.35, 0.65), np.float32), (8, 1))
    return replace(
        scene, lines=(SceneLines(name="view", starts=starts, ends=ends, colors=color, radius=0.004),)
    )


def draw_image(
    axes: Axes, camera: CameraConfig, particles: NDArray[np.float32], seen: NDArray[np.bool_]
) -> None:
    """The picture plane: particles that show, and those that do not."""
    local = (particles - camera.position) @ camera.axes.T
    pixels = camera.focal * local[:, :2] / local[:, 2:] + (0.5 * camera.width, 0.5 * camera.height)
    for rows, color, size in ((~seen, HIDDEN, 1.5), (seen, SEEN, 5.0)):
        axes.scatter(*pixels[rows].T, s=size, color=color, linewidths=0)
    low, high = pixels.min(axis=0) - PIXELS_AROUND, pixels.max(axis=0) + PIXELS_AROUND
    axes.set(xlim=(low[0], high[0]), ylim=(high[1], low[1]), aspect="equal", xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    axes.set_title(f"in the picture: {seen.sum()} of {len(seen)} particles are seen", fontsize=9)


def draw_side(axes: Axes, env: Env, particles: NDArray[np.float32], seen: NDArray[np.bool_]) -> None:
    """The dough from the side, with the points that a policy gets."""
    assert env.task.point_cloud is not None
    cloud = env.scene(0).cloud
    assert cloud is not None
    sampled = preprocess(cloud, env.task.point_cloud)
    y, z = SIDE
    axes.scatter(
        particles[~seen, y], particles[~seen, z], s=2.0, color=HIDDEN, linewidths=0, label="not seen"
    )
    axes.scatter(particles[seen, y], particles[seen, z], s=5.0, color=SEEN, linewidths=0, label="seen")
    axes.scatter(
        sampled[:, y], sampled[:, z], s=12.0, facecolors="none", edgecolors=SAMPLED, linewidths=0.6,
        label=f"measured, and sampled to {len(sampled)}",
    )  # fmt: skip
    pin = next(shape for shape in env.scene(0).shapes if shape.name == "pin")
    radius, half = pin.size
    corner = (pin.position[y] - half - radius, pin.position[z] - radius)
    size = (2.0 * (half + radius), 2.0 * radius)
    axes.add_patch(Rectangle(corner, *size, fill=False, color="#555b66", linewidth=0.8))
    axes.set(aspect="equal", xlim=(0.24, 0.76), ylim=(0.05, 0.27), xlabel="y [m]", ylabel="z [m]")
    axes.set_title("from the side; the camera is on the left, outlined is the rolling pin", fontsize=9)
    axes.legend(frameon=False, fontsize=7, ncols=3, loc="upper center", columnspacing=1.0, handletextpad=0.1)
    axes.spines[["top", "right"]].set_visible(False)


def main() -> None:
    """Draw it."""
    env = pressed("rolling_flat")
    camera = CameraConfig()
    scene = env.scene(0)
    particles = scene.particles
    assert scene.cloud is not None
    # A measured point lies millimetres from its particle, which is the nearest one but for a few.
    distance = np.linalg.norm(scene.cloud[:, None] - particles[None], axis=2)
    seen = np.zeros(len(particles), np.bool_)
    seen[distance.argmin(axis=1)] = True

    figure = Figure(figsize=(11.0, 4.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 2, width_ratios=(1.0, 1.25), height_ratios=(1.4, 1.0))
    rendered = figure.add_subplot(grid[:, 0])
    image, side = figure.add_subplot(grid[0, 1]), figure.add_subplot(grid[1, 1])
    view = Camera(eye=(2.1, -1.5, 1.5), look_at=(0.5, 0.25, 0.45), fov_deg=35.0)
    rendered.imshow(render_scene(with_frustum(scene, camera), view, width=640, height=560))
    rendered.set_axis_off()
    draw_image(image, camera, particles, seen)
    draw_side(side, env, particles, seen)
    figure.savefig(PICTURES / "depth_camera.png")
    print(f"wrote {PICTURES}/depth_camera.png")


if __name__ == "__main__":
    main()
