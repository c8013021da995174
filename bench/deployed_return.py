"""What a trained policy earns in processes of their own, robot, camera and runner, beside what it earns in one.

    python -m bench deployed_return --run runs/rolling_flat_small_sapo_0

`in process` is the policy on the cloud that it was trained with. Each row after that changes one thing: the cloud is
that of the simulated depth camera, at first of a perfect one; then it has errors; then a rate and a latency of its own;
then all is over ROS, `ros2 launch deploy.launch.py` against `sim_node`, first in lockstep, then in real time. All meet
the same starts. Where lockstep earns what the row before it does, nothing is lost between the processes.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
import yaml
from numpy.typing import NDArray

from bench.report import table, write
from policy_runner.bundle import Bundle, load_bundle
from policy_runner.frames import pose_matrix
from policy_runner.inference import Policy
from policy_runner.inputs import CloudSample, GoalSample, JointSample
from policy_runner.observation import ObservationBuilder
from policy_runner.pointcloud import preprocess
from rewarped_sim.env import Env
from rewarped_sim.scene_camera import SceneCamera
from rewarped_sim.sensor_model import SensorConfig, deproject
from rewarped_sim.shutter import NANOSECONDS, Shutter
from rewarped_sim.train_config import TrainConfig
from rewarped_sim.trained_run import EVALUATION_SEED_OFFSET, held_out_env, read_run_config
from sapo_learner.evaluate import Zero, evaluate
from sapo_learner.statistics import mean_ci95
from sapo_learner.vec_env import Obs

ROOT = Path(__file__).parents[1]
CAMERA = SensorConfig(self_filter=True)
PROMPT = replace(CAMERA, rate_hz=0.0, latency_s=0.0)
PERFECT = replace(PROMPT, depth_noise=0.0, dropout=0.0, edge_dropout=0.0)
PATIENCE_S = 60.0
"""A loaded machine is slow."""
AT_THE_END = {"disarmed", "no_listener"}
"""Why a runner holds between two episodes and after the last one."""
SHOWN = ("policy", "episodes", "mean", "ci95", "to_in_process", "to_in_process_ci95", "held_for")


class Player(Protocol):
    """What `evaluate` needs of a policy."""

    def act(self, obs: Obs, deterministic: bool) -> torch.Tensor:
        """Return actions (num_envs, action_dim)."""
        ...

    def begin(self, started: torch.Tensor) -> None:
        """Be told which envs begin an episode, (num_envs,) bool."""
        ...


class Runner:
    """The exported policy and the runner's observation, called without a message in between."""

    def __init__(self, env: Env, bundle: Bundle) -> None:
        self._env, self._policy = env, Policy(bundle)
        self._builder = ObservationBuilder(bundle.contract)
        (self._cloud,) = bundle.contract.cloud_terms
        self._previous_action = np.zeros(bundle.contract.action.size, np.float32)

    def act(self, obs: Obs, deterministic: bool) -> torch.Tensor:
        """Return the mean action, (1, action_dim)."""
        goal = self._env.goal_position
        inputs = self._builder.build(
            JointSample(
                position=self._env.joint_q[0].double().numpy(),
                velocity=self._env.joint_qd[0].double().numpy(),
                stamp_ns=0,
                arrival_s=0.0,
            ),
            CloudSample(points=self._points(obs), stamp_ns=0, arrival_s=0.0),
            None if goal is None else GoalSample(position=goal[0].double().numpy()),
            self._previous_action,
        )
        self._previous_action = self._policy.act(inputs)
        return torch.from_numpy(self._previous_action)[None]

    def begin(self, started: torch.Tensor) -> None:
        """Forget the last episode's action."""
        if started[0]:
            self._previous_action = np.zeros_like(self._previous_action)

    def _points(self, obs: Obs) -> NDArray[np.float32]:
        return np.asarray(obs[self._cloud.name][0] / self._cloud.scale, np.float32)


class RunnerWithCamera(Runner):
    """The same, seeing by a depth camera; pictures are taken and come through as those of `sim_node` in lockstep."""

    def __init__(self, env: Env, bundle: Bundle, sensor: SensorConfig) -> None:
        super().__init__(env, bundle)
        assert bundle.contract.point_cloud is not None
        self._sensor, self._spec = sensor, bundle.contract.point_cloud
        self._camera = SceneCamera(sensor)
        pose = np.array(sensor.pose)
        self._transform = pose_matrix(pose[:3], pose[3:])
        self._shutter: Shutter[NDArray[np.float32]] = Shutter(
            rate_hz=sensor.rate_hz, latency_s=sensor.latency_s
        )
        self._newest = np.zeros((0, 3), np.float32)
        self._num_steps = 0

    def begin(self, started: torch.Tensor) -> None:
        """Forget the last episode's pictures, too."""
        super().begin(started)
        if started[0]:
            self._shutter.cut()

    def _points(self, obs: Obs) -> NDArray[np.float32]:
        scene = self._env.scene(0)

        def take(number: int) -> NDArray[np.float32]:
            points = deproject(self._camera.measure(scene, number), self._sensor)
            return preprocess(points.reshape(-1, 3), self._spec, self._transform)

        now_ns = round(NANOSECONDS * self._num_steps * self._env.control_dt_s)
        self._num_steps += 1
        if (shot := self._shutter.open(now_ns, take)) is not None:
            self._newest = shot.picture
        return self._newest


@dataclass(frozen=True, kw_only=True)
class Trial:
    """What all trials of one policy share."""

    config: TrainConfig
    bundle: Path
    episodes: int

    @property
    def seed(self) -> int:
        """Of the starts, none of which was trained on."""
        return self.config.seed + EVALUATION_SEED_OFFSET

    def in_process(self, player: Callable[[Env], Player]) -> list[float]:
        """Return what a player earns, episode by episode."""
        env = held_out_env(self.config, seed_offset=EVALUATION_SEED_OFFSET, device="cpu", num_envs=1)
        earned = evaluate(env, player(env), episodes_per_env=self.episodes)  # pyright: ignore[reportArgumentType]
        return earned.returns[:, 0].tolist()

    def deployed(
        self, folder: Path, sensor: SensorConfig, *, lockstep: bool, real_time_factor: float
    ) -> tuple[list[float], str]:
        """Return what it earns over ROS, runner and robot in processes of their own, and for what the runner held."""
        settings = folder / "robot.yaml"
        robot = {
            "task": self.config.task,
            "config": str(folder / "task.yaml"),
            "seed": self.seed,
            "episodes": self.episodes,
            "runner": "policy_runner",
            "lockstep": lockstep,
            "lockstep_timeout_s": PATIENCE_S,
            "real_time_factor": real_time_factor,
            "publish_clock": real_time_factor != 1.0,
            "camera": "depth",
        }
        for name, value in asdict(sensor).items():
            robot[f"camera_{name}"] = list(value) if isinstance(value, tuple) else value
        settings.write_text(yaml.safe_dump({"/**": {"ros__parameters": robot}}))
        (folder / "task.yaml").write_text(yaml.safe_dump({"task": dict(self.config.task_options)}))
        ros2 = shutil.which("ros2", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        launch = [
            ros2 or "ros2", "launch", str(ROOT / "launch" / "deploy.launch.py"), f"policy:={self.bundle}",
            f"config:={ROOT / 'config' / 'runner_in_simulation.yaml'}", f"cloud_frame:={sensor.frame}",
            f"cloud_extrinsics:={' '.join(map(str, sensor.pose))}",
            f"use_sim_time:={str(real_time_factor != 1.0).lower()}",
        ]  # fmt: skip
        remapped = [f"~/{name}:=policy_runner/{name}" for name in ("joint_trajectory", "goal")]
        node = [
            sys.executable, "-m", "rewarped_sim.nodes.sim_node", "--ros-args", "--params-file", str(settings),
            *(word for remapping in remapped for word in ("-r", remapping)),
        ]  # fmt: skip
        with running(launch, folder / "runner.log"):
            done = subprocess.run(
                node, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
            )
        log = (folder / "runner.log").read_text()
        returns = [float(value) for value in re.findall(r"episode \d+: return (-?[\d.]+)", done.stdout)]
        if done.returncode or len(returns) != self.episodes:
            raise RuntimeError(
                f"{len(returns)} of {self.episodes} episodes:\n{done.stdout[-2000:]}\n{log[-2000:]}"
            )
        holds = re.findall(r"active: holding: (\w+)", log)
        return returns, ", ".join(f"{holds.count(why)} {why}" for why in sorted({*holds} - AT_THE_END))


def environment() -> dict[str, str]:
    """Variables of all ROS processes: a domain of our own, and the profile that lets clouds through."""
    profile = ROOT / "config" / "fastdds_shm.xml"
    return os.environ | {
        "ROS_DOMAIN_ID": str(1 + os.getpid() % 100),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
        "FASTDDS_DEFAULT_PROFILES_FILE": str(profile),
    }


@contextmanager
def running(command: list[str], log: Path) -> Iterator[None]:
    """Run a command beside what is done here, and end it as Ctrl-C would."""
    with log.open("w") as file:
        process = subprocess.Popen(command, env=environment(), stdout=file, stderr=subprocess.STDOUT)
        try:
            yield
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(PATIENCE_S)


def rows_of(trial: Trial, folder: Path, real_time_factor: float) -> Iterator[dict[str, Any]]:
    """Yield one row after the other."""
    bundle = load_bundle(trial.bundle)
    base: list[float] = []

    def row(what: str, returns: list[float], held_for: str = "") -> dict[str, Any]:
        base.extend(returns if not base else [])
        mean, paired = mean_ci95(returns), mean_ci95(np.subtract(returns, base))
        return {
            "policy": what,
            "episodes": len(returns),
            "mean": mean.estimate,
            "ci95": mean.half_width,
            "to_in_process": paired.estimate,
            "to_in_process_ci95": paired.half_width,
            "held_for": held_for,
            "returns": [round(value, 3) for value in returns],
        }

    def seen(sensor: SensorConfig) -> list[float]:
        return trial.in_process(lambda env: RunnerWithCamera(env, bundle, sensor))

    yield row("in process", trial.in_process(lambda env: Runner(env, bundle)))
    yield row("in process, perfect camera", seen(PERFECT))
    yield row("in process, its errors", seen(PROMPT))
    yield row("in process, its rate and latency", seen(CAMERA))
    yield row("deployed in lockstep", *trial.deployed(folder, CAMERA, lockstep=True, real_time_factor=1.0))
    yield row(
        f"deployed, {real_time_factor:g} x real time",
        *trial.deployed(folder, CAMERA, lockstep=False, real_time_factor=real_time_factor),
    )
    yield row("in process, tool not filtered", seen(replace(CAMERA, self_filter=False)))
    yield row("nothing is done", trial.in_process(lambda env: Zero(env.action_dim)))


def main() -> None:
    """Try, print, write after every row."""
    parser = argparse.ArgumentParser(prog="bench.deployed_return", description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="folder of a finished run")
    parser.add_argument("--episodes", type=int, default=16, help="of every trial (default: 16)")
    parser.add_argument(
        "--real-time-factor", type=float, default=1.0, help="of the last deployed trial (default: 1)"
    )
    options = parser.parse_args()
    torch.set_num_threads(1)
    run = options.run.resolve()
    trial = Trial(config=read_run_config(run), bundle=run / "bundle", episodes=options.episodes)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory(prefix="deployed_return_") as folder:
        for row in rows_of(trial, Path(folder), options.real_time_factor):
            rows.append(
                {"task": trial.config.task, "cloud": trial.config.task_options.get("cloud", "particles")}
                | row
            )
            print(table([{name: row[name] for name in SHOWN} for row in rows]), flush=True)
            print(write("deployed_return", rows), flush=True)


if __name__ == "__main__":
    main()
