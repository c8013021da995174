"""Draw the pictures of docs/articulation.md: the models and, from finished runs, strides.

python docs/draw_robots.py runs/ant_run_sapo_0 runs/hopper_sapo_0 runs/cartpole_sapo_0
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

import imageio.v2 as imageio
import numpy as np
import onnxruntime
import torch
import yaml
from numpy.typing import NDArray

import rewarped_sim
from policy_runner.bundle import OBS_INPUT
from rewarped_sim.env import Env
from rewarped_sim.render import Camera, render_scene
from rewarped_sim.scene import Scene

PICTURES = Path(__file__).parent / "pictures"
MODELS = {"ant_run": 60, "hopper": 40, "humanoid": 12, "snu_humanoid": 6, "cartpole": 60, "hand_reorient": 20}
"""Tasks, and the control step of random actions at which they are drawn."""
STRIDES = {"ant_run": (120, 6), "hopper": (120, 6), "cartpole": (0, 20)}
"""First control step of a strip, and steps between its frames."""
FRAMES = 6


def main() -> int:
    """Draw the models, and what the runs given have learned."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", type=Path, nargs="*", help="folders of finished runs")
    runs = parser.parse_args().runs
    for path in (run / name for run in runs for name in ("config.yaml", "bundle/policy.onnx")):
        if not path.exists():
            print(f"{path} is missing: give folders of finished runs", file=sys.stderr)
            return 2
    PICTURES.mkdir(exist_ok=True)
    draw_models(PICTURES / "articulated_models.png")
    for run in runs:
        draw_strip(PICTURES / f"{task_of(run)}.png", run)
    return 0


def draw_models(path: Path) -> None:
    """Every model in a moment of random motion, three in a row."""
    panels = []
    for task, steps in MODELS.items():
        env = rewarped_sim.make(task, requires_grad=False)
        env.reset()
        generator = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for _ in range(steps):
                env.step(0.3 * torch.randn(1, env.action_dim, generator=generator))
        panels.append(picture(env.scene(0), Camera.framing([env.scene(0)]), 400))
    rows = [np.concatenate(panels[i : i + 3], axis=1) for i in range(0, len(panels), 3)]
    imageio.imwrite(path, np.concatenate(rows, axis=0))


def draw_strip(path: Path, run: Path) -> None:
    """Moments of an episode of the trained policy, side by side."""
    task = task_of(run)
    first, between = STRIDES.get(task, (60, 10))
    env = rewarped_sim.make(task, requires_grad=False, seed=1)
    policy = onnxruntime.InferenceSession(run / "bundle" / "policy.onnx")
    obs, scenes = env.reset(), []
    with torch.no_grad():
        for step in range(first + FRAMES * between):
            if step >= first and (step - first) % between == 0:
                scenes.append(env.scene(0))
            obs = env.step(act(policy, env, obs)).obs
    camera = Camera.framing(scenes)
    imageio.imwrite(path, np.concatenate([picture(scene, camera, 260) for scene in scenes], axis=1))


def act(policy: Any, env: Env, obs: dict[str, torch.Tensor]) -> torch.Tensor:
    """The exported policy's action, (1, action_dim)."""
    state = torch.cat([obs[term.name].flatten(1) for term in env.obs_spec], dim=1)
    return torch.from_numpy(policy.run(None, {OBS_INPUT: state.numpy()})[0])


def picture(scene: Scene, camera: Camera, size_px: int) -> NDArray[np.uint8]:
    """A scene, seen by a camera that follows it."""
    return render_scene(scene, camera.towards(scene), width=size_px, height=size_px)


def task_of(run: Path) -> str:
    """The task that a run trained."""
    return yaml.safe_load((run / "config.yaml").read_text())["run"]["task"]


if __name__ == "__main__":
    sys.exit(main())
