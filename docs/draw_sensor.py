"""Draw the picture of docs/deploy_in_simulation.md: what the simulated depth camera sees, and what a policy gets of it.

python docs/draw_sensor.py
"""

from pathlib import Path

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from numpy.typing import NDArray

import rewarped_sim
from policy_runner.contract import PointCloudSpec
from policy_runner.frames import pose_matrix
from policy_runner.pointcloud import preprocess
from rewarped_sim.env import Env
from rewarped_sim.scene_camera import SceneCamera
from rewarped_sim.sensor_model import SensorConfig, deproject

PICTURES = Path(__file__).parent / "pictures"
CLOUD = {"voxel_m": 0.02, "crop_min": (0.0, 0.0, 0.105)}
PRESSING_STEPS = 18
PARTICLE, MEASURED, SAMPLED, REST = "#c3c8d0", "#c05a3c", "#2a6fbb", "#e3d5c8"


def pressed() -> Env:
    """An env whose rolling pin stands in the dough."""
    env = rewarped_sim.make(
        "rolling_flat_small", requires_grad=False, randomize=False, cloud="camera", camera_cloud=CLOUD
    )
    env.reset()
    with torch.no_grad():
        for _ in range(PRESSING_STEPS):
            env.step(torch.tensor([[0.0, -0.5, 0.0]]))
    return env


def draw_depth(axes: Axes, depth: NDArray[np.float32], title: str) -> None:
    """A depth image; white is where there is no point."""
    shown = axes.imshow(depth, cmap="viridis_r", vmin=0.95, vmax=1.7, interpolation="nearest")
    axes.figure.colorbar(shown, ax=axes, shrink=0.75, label="depth [m]")
    axes.set(xticks=[], yticks=[])
    axes.set_title(title, fontsize=9)


def draw_side(axes: Axes, env: Env, cloud: NDArray[np.float32], spec: PointCloudSpec) -> None:
    """The scene from the side: particles, the cloud, what the crop leaves of it, and the points of the network."""
    scene = env.scene(0)
    y, z = 1, 2
    kept = ((cloud >= spec.crop_min) & (cloud <= spec.crop_max)).all(axis=1)
    sampled = preprocess(cloud, spec)
    axes.scatter(cloud[~kept, y], cloud[~kept, z], s=0.3, color=REST, linewidths=0, label="cropped away")
    axes.scatter(*scene.particles[:, [y, z]].T, s=3.0, color=PARTICLE, linewidths=0, label="particles")
    axes.scatter(cloud[kept, y], cloud[kept, z], s=0.8, color=MEASURED, linewidths=0, label="measured")
    axes.scatter(
        sampled[:, y], sampled[:, z], s=14.0, facecolors="none", edgecolors=SAMPLED, linewidths=0.7,
        label=f"what the network gets: {len(sampled)} points",
    )  # fmt: skip
    pin = next(shape for shape in scene.shapes if shape.name == "pin")
    radius, half = pin.size
    corner = (pin.position[y] - half - radius, pin.position[z] - radius)
    axes.add_patch(
        Rectangle(corner, 2 * (half + radius), 2 * radius, fill=False, color="#555b66", linewidth=0.8)
    )
    axes.axhline(spec.crop_min[z], color=SAMPLED, linewidth=0.6, linestyle=":")
    axes.set(aspect="equal", xlim=(0.22, 0.80), ylim=(0.08, 0.27), xlabel="y [m]", ylabel="z [m]")
    axes.set_title(
        "from the side; the camera is on the left, outlined is the pin, dotted the crop", fontsize=9
    )
    legend = axes.legend(frameon=False, fontsize=8, ncols=4, loc="upper center")
    for handle in legend.legend_handles[:3]:
        assert isinstance(handle, PathCollection)
        handle.set_sizes([8.0])
    axes.spines[["top", "right"]].set_visible(False)


def main() -> None:
    """Draw it."""
    env = pressed()
    spec = env.task.point_cloud
    assert spec is not None
    sensor = SensorConfig(self_filter=True)
    scene = env.scene(0)
    everything = SceneCamera(SensorConfig()).see(scene)
    measured = SceneCamera(sensor).measure(scene, 0)
    pose = np.array(sensor.pose)
    points = deproject(measured, sensor).reshape(-1, 3)
    points = points[np.isfinite(points).all(axis=1)]
    transform = pose_matrix(pose[:3], pose[3:])
    cloud = (points @ transform[:3, :3].T + transform[:3, 3]).astype(np.float32)

    figure = Figure(figsize=(10.5, 6.2), dpi=150, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(2, 2, height_ratios=(1.15, 1.0))
    draw_depth(figure.add_subplot(grid[0, 0]), everything, "what is there: dough, pin with handle, table")
    draw_depth(
        figure.add_subplot(grid[0, 1]),
        measured,
        "what is published: noise, missing points, the tool filtered out",
    )
    draw_side(figure.add_subplot(grid[1, :]), env, cloud, spec)
    figure.savefig(PICTURES / "deployed_camera.png")
    print(f"wrote {PICTURES}/deployed_camera.png")


if __name__ == "__main__":
    main()
