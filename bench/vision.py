"""What a simulated depth camera costs, how much it sees, and what its noise does to the mean of what is seen.

One CPU core. Times are process times of the whole batch, medians; a step looks twice, at the end of an episode that may
have been, and at the start of the next.
"""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

import rewarped_sim
from bench.report import table, write
from rewarped_sim.depth_camera import CameraConfig
from rewarped_sim.env import Env

TASKS = (
    "rolling_flat_small",
    "rolling_flat",
    "hand_flip_small",
    "hand_flip",
    "fluid_move_small",
    "spring_press",
)
ENVS = (1, 4, 16, 32)
TIMED_TASK = "rolling_flat_small"
HORIZON = 2
REPEATS = 5
NOISELESS = {"depth_noise": 0.0, "lateral_noise_rad": 0.0, "dropout": 0.0}


def cost(num_envs: int) -> dict[str, Any]:
    """Share of the camera in a control step forward and back."""
    particles, camera = (
        make(TIMED_TASK, num_envs, HORIZON, cloud=cloud) for cloud in ("particles", "camera")
    )
    observe = [
        median(lambda env=env: env.task.observe(env.state, torch.zeros(num_envs, env.action_dim)))
        for env in (particles, camera)
    ]
    step = median(lambda: forward_and_back(particles)) / HORIZON
    extra = 2.0 * (observe[1] - observe[0])
    return {
        "measured": "cost",
        "task": TIMED_TASK,
        "envs": num_envs,
        "observe_particles_s": observe[0],
        "observe_camera_s": observe[1],
        "step_without_camera_s": step,
        "camera_share_of_step": extra / (step + extra),
    }


def view(task: str) -> dict[str, Any]:
    """What is seen of the starts of an episode, and how far its mean is from that of all particles [m]."""
    noisy, exact = (make(task, 32, 0, camera=camera) for camera in ({}, NOISELESS))
    count = noisy.state["particles"].shape[1]
    seen = [len(scene_cloud(exact, index)) / count for index in range(exact.num_envs)]
    middle = noisy.state["particles"][..., :3].mean(dim=1)
    with_noise, without = (env.task.observe(env.state, action(env))["com_q"] for env in (noisy, exact))
    bias = (without - middle).mean(dim=0)
    return {
        "measured": "view",
        "task": task,
        "particles": count,
        "seen_share": statistics.mean(seen),
        "mean_shift_x_m": bias[0].item(),
        "mean_shift_y_m": bias[1].item(),
        "mean_shift_z_m": bias[2].item(),
        "noise_shift_mean_m": (with_noise - without).mean(dim=0).norm().item(),
        "noise_shift_std_m": (with_noise - without).std(dim=0).norm().item(),
    }


def surface(splat: float, tolerance: float) -> dict[str, Any]:
    """How deep below the top of a block lies what a camera right above sees of it, in radii of a particle."""
    above = {"position": [0.5, 0.5, 1.3], "look_at": [0.5, 0.5, 0.1], **NOISELESS}
    env = make(
        "rolling_flat", 1, 0, camera={**above, "splat": splat, "tolerance": tolerance}, randomize=False
    )
    state = env.state_dict()
    state["joint_q"][:, 0] = 0.12  # the pin aside
    env.load_state_dict(state)
    top = float(env.state["particles"][0, :, 2].max())
    depth = (top - torch.from_numpy(scene_cloud(env, 0)[:, 2])) / env.scene(0).particle_radius
    return {
        "measured": "surface",
        "splat": splat,
        "tolerance": tolerance,
        "seen": len(depth),
        "median_depth_radii": depth.median().item(),
        "share_deeper_than_4_radii": (depth > 4.0).float().mean().item(),
    }


def make(task: str, num_envs: int, horizon: int, **options: Any) -> Env:
    """An env at its first state, with a camera unless told otherwise."""
    options = {"cloud": "camera", "requires_grad": horizon > 0, "num_threads": 1} | options
    env = rewarped_sim.make(task, num_envs=num_envs, horizon=horizon, **options)
    env.reset()
    return env


def action(env: Env) -> torch.Tensor:
    """Nothing is done."""
    return torch.zeros(env.num_envs, env.action_dim)


def scene_cloud(env: Env, index: int) -> Any:
    """What the camera of one env sees, (n, 3) [m]."""
    return env.scene(index).cloud


def forward_and_back(env: Env) -> None:
    """A window of control steps and its gradient."""
    env.detach()
    idle = action(env).requires_grad_()
    total = torch.stack([env.step(idle).reward.sum() for _ in range(HORIZON)]).sum()
    torch.autograd.grad(total, idle)


def median(run: Callable[[], Any]) -> float:
    """Process time of a call, in the median [s]; the first one is not counted."""
    run()
    times = []
    for _ in range(REPEATS):
        start = time.process_time()
        run()
        times.append(time.process_time() - start)
    return statistics.median(times)


def main() -> None:
    """Measure, print, write."""
    torch.set_num_threads(1)
    default = CameraConfig()
    costs = [cost(num_envs) for num_envs in ENVS]
    views = [view(task) for task in TASKS]
    surfaces = [surface(splat, default.tolerance) for splat in (1.0, 1.5, 2.0, 3.0)]
    for rows in (costs, views, surfaces):
        print(table(rows), end="\n\n")
    print(write("vision", [*costs, *views, *surfaces]))


if __name__ == "__main__":
    main()
