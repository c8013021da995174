"""The composition root: task, algorithm, checkpoints and results in one training run. No ROS.

    python -m rewarped_sim.train --task rolling_flat_small --epochs 50

A run ends with a policy bundle, a learning curve, a video and one line that compares policy and do-nothing.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import logging
import math
import signal
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
import warp as wp

from rewarped_sim.best_policy import BestPolicy
from rewarped_sim.env import DeviceError, Env, resolve_device
from rewarped_sim.fault_dump import FaultDump
from rewarped_sim.make import make
from rewarped_sim.registry import ConfigError, UnknownTaskError, configure, find, task_names
from rewarped_sim.results import (
    Comparison,
    Stopped,
    compare_with_do_nothing,
    draw_learning_curve,
    sample_observations,
    save_actions,
)
from rewarped_sim.run_control import NoObserver, RunControl, RunObserver, RunState, RunStatus
from rewarped_sim.run_folder import RunFolder, open_run_folder
from rewarped_sim.train_config import DEFAULT_TASK, TrainConfig, read_train_config
from rewarped_sim.trained_run import EVALUATION_SEED_OFFSET, SELECTION_SEED_OFFSET, held_out_env
from rewarped_sim.video import write_video
from rewarped_sim.watched_env import WatchedEnv
from sapo_learner.algorithms import ALGORITHMS, NAMES, Algorithm, split_name
from sapo_learner.checkpoint import (
    CheckpointError,
    CheckpointHeader,
    NoCheckpointError,
    NotSavedError,
    load_checkpoint,
    load_latest,
    save_checkpoint,
    set_aside_newer,
)
from sapo_learner.export import ExportError, export_bundle
from sapo_learner.learner import Interrupted, TrainingDiverged
from sapo_learner.metrics import MetricsLogger
from sapo_learner.progress import Progress
from sapo_learner.trajopt import OpenLoop

log = logging.getLogger("rewarped_sim.train")

BAD_INPUT = (UnknownTaskError, ConfigError, CheckpointError)
"""What `train` raises when it was told something it cannot do; nothing is lost then."""


@dataclass(frozen=True, kw_only=True)
class TrainResult:
    """How a run ended."""

    out_dir: Path
    epoch: int
    env_steps: int
    interrupted: bool
    """It was stopped before its last epoch or before its results; the checkpoint is there."""
    checkpoint: Path
    bundle: Path | None
    policy_return: float
    """Mean over the evaluation episodes; NaN where they were not run."""
    do_nothing_return: float
    message: str
    """One line for people."""


def train(
    config: TrainConfig, *, observer: RunObserver | None = None, control: RunControl | None = None
) -> TrainResult:
    """Train, checkpoint, and at the end evaluate and export.

    When `control.stop` is set, the epoch in progress is given up, a checkpoint of the last whole one is
    saved and the results are left out; a resumed run goes on as if nothing had happened.

    Raises:
        ConfigError, UnknownTaskError, CheckpointError, DeviceError: before anything is built or overwritten.
        TrainingDiverged: the gradients were not finite for too long; a checkpoint is saved.
    """
    algorithm = ALGORITHMS[split_name(config.algo)[0]]
    algo_config = configure(algorithm.config(), dict(config.algo_options), config.algo)
    configure(find(config.task).config, dict(config.task_options), config.task)
    device = choose_device(config.device)
    # The optimisers' moments of idle weights decay into denormal numbers, on which a CPU is 15 times slower.
    torch.set_flush_denormal(True)
    with open_run_folder(config) as folder:
        run = _Run(
            config, algorithm, algo_config, device, folder, observer or NoObserver(), control or RunControl()
        )
        try:
            return run.carry_out()
        except Exception as error:
            run.report(RunState.FAILED, f"{type(error).__name__}: {error}")
            raise
        finally:
            run.close()


class _Run:
    """One run: the learner and everything that is written next to it."""

    def __init__(
        self,
        config: TrainConfig,
        algorithm: Algorithm,
        algo_config: Any,
        device: str,
        folder: RunFolder,
        observer: RunObserver,
        control: RunControl,
    ) -> None:
        self._config = config
        self._folder = folder
        self._observer = observer
        self._control = control
        self._device = device
        self._status = RunStatus(
            state=RunState.STARTING,
            message="building the simulator",
            task=config.task,
            algo=config.algo,
            out_dir=str(folder.path),
            num_envs=config.num_envs,
            planned_epochs=config.epochs,
        )
        self.report(RunState.STARTING, "building the simulator; the first time, kernels are compiled")
        log.info("run folder: %s", folder.path)
        log.info("%s", self._status.message)
        self._env = make(
            config.task,
            num_envs=config.num_envs,
            device=device,
            seed=config.seed,
            horizon=algo_config.horizon,
            requires_grad=algorithm.differentiates,
            **config.task_options,
        )
        log.info("device %s; %s", device, self._env.memory_report())
        self._learner = algorithm.learner(
            WatchedEnv(self._env, lambda env, _: observer.on_step(env)),
            algo_config,
            seed=config.seed,
            planned_epochs=config.epochs,
        )
        self._best = BestPolicy(self._forward_env(SELECTION_SEED_OFFSET)) if config.select_every else None
        self._header = CheckpointHeader.of(self._env, task=config.task, algo=config.algo)
        self._saved_epoch = -1
        if config.resume:
            self._restore()
            folder.describe(config)
        self._faults = FaultDump(folder.faults, self._header)
        self._metrics = MetricsLogger(folder.path, epoch=self._learner.epoch)
        self._trained_s = self._bad_adjoints = 0.0

    def carry_out(self) -> TrainResult:
        """Train to the last epoch, then show the results."""
        self._train()
        checkpoint = self._save()
        if self._control.stop.is_set():
            message = f"stopped after epoch {self._learner.epoch}; checkpoint saved: {checkpoint}"
            return self._finish(checkpoint, None, None, message)
        return self._show_results(checkpoint)

    def report(self, state: RunState, message: str, **figures: Any) -> None:
        """Tell the observer; figures that are not given stay as they were."""
        self._status = replace(self._status, state=state, message=message, **figures)
        self._observer.on_status(self._status)

    def close(self) -> None:
        """Flush what is still open, and answer those who asked too late."""
        self._metrics.close()
        while not self._control.requests.empty():
            self._control.requests.get()[1].set_exception(RuntimeError("the run has ended"))

    # ---- training ------------------------------------------------------------------------------------------

    def _train(self) -> None:
        learner, stop = self._learner, self._control.stop
        progress = Progress(self._config.epochs, epoch=learner.epoch)
        self.report(RunState.TRAINING, "training", epoch=learner.epoch, env_steps=learner.env_steps)
        try:
            while learner.epoch < self._config.epochs and not stop.is_set():
                started = time.monotonic()
                metrics = learner.update(stop.is_set)
                self._after_epoch(metrics, progress, time.monotonic() - started)
        except Interrupted:
            pass
        except TrainingDiverged as error:
            self._record(error.metrics)
            self._save()
            raise
        finally:
            progress.close()

    def _after_epoch(self, metrics: dict[str, float], progress: Progress, took_s: float) -> None:
        learner, epochs = self._learner, self._config.epochs
        self._trained_s += took_s
        self._record(metrics)
        progress.update(learner.epoch, metrics)
        status = self._status
        self.report(
            RunState.TRAINING,
            "training",
            epoch=learner.epoch,
            env_steps=learner.env_steps,
            env_steps_per_second=(learner.env_steps - status.env_steps) / took_s,
            elapsed_s=self._trained_s,
            eta_s=(epochs - learner.epoch) * took_s,
            episode_return=metrics["return"],
            episode_length=metrics["episode_length"],
            actor_loss=-metrics.get("actor/objective", math.nan),
            value_loss=metrics.get("critic/loss", math.nan),
            alpha=metrics.get("temperature", math.nan),
            entropy=metrics.get("entropy", math.nan) / self._env.action_dim,
            actor_grad_norm=metrics["actor/grad_norm"],
            nonfinite_envs=status.nonfinite_envs + round(metrics["nonfinite"]),
            skipped_updates=status.skipped_updates
            + round(metrics["actor/skipped"] + metrics.get("critic/skipped", 0.0)),
        )
        self._try_out()
        if learner.epoch - max(self._saved_epoch, 0) >= self._config.checkpoint_every:
            self._save_if_possible()
        self._answer_requests()
        self._wait_while_paused()

    def _record(self, metrics: dict[str, float]) -> None:
        """Log a finished epoch, and keep the state before it where something went wrong in it."""
        bad_adjoints = float(self._env.bad_adjoints.sum())
        metrics["bad_adjoints"], self._bad_adjoints = bad_adjoints - self._bad_adjoints, bad_adjoints
        self._metrics.log(self._learner.epoch, metrics)
        self._faults.look_at(self._learner, metrics)

    def _try_out(self) -> None:
        """Try the policy where a trial is due."""
        epoch, config = self._learner.epoch, self._config
        if self._best is None or (epoch % config.select_every and epoch < config.epochs):
            return
        earned = self._best.try_out(self._learner.policy, epoch)
        log.info("epoch %d: a trial earns %.2f, the best one %.2f", epoch, earned, self._best.mean_return)

    def _chosen_policy(self) -> Any:
        """The best policy tried, or the present one where none is tried."""
        policy = self._learner.policy
        return policy if self._best is None else self._best.take(policy)

    def _wait_while_paused(self) -> None:
        control = self._control
        if not control.paused.is_set():
            return
        self.report(RunState.PAUSED, f"paused after epoch {self._learner.epoch}")
        while control.paused.is_set() and not control.stop.wait(0.1):
            self._answer_requests()
        self.report(RunState.TRAINING, "training")

    def _answer_requests(self) -> None:
        jobs: dict[str, Callable[[], Path]] = {"checkpoint": self._save, "export": self._export}
        while not self._control.requests.empty():
            job, future = self._control.requests.get()
            _answer(future, jobs[job])

    def _save(self) -> Path:
        """Save a checkpoint of the last whole epoch, unless that was done."""
        learner = self._learner
        if learner.epoch != self._saved_epoch:
            state = learner.state_dict()
            if self._best is not None:
                state["best_policy"] = self._best.state_dict()
            self._checkpoint = save_checkpoint(
                self._folder.checkpoints, state, epoch=learner.epoch, header=self._header
            )
            self._saved_epoch = learner.epoch
        return self._checkpoint

    def _save_if_possible(self) -> None:
        """Save, or where the disk does not take it, say so and train on: the next epoch tries again."""
        try:
            self._save()
        except NotSavedError as error:
            log.warning("%s; training goes on and tries again after the next epoch", error)

    def _restore(self) -> None:
        """Take over the newest whole checkpoint, or the one named; a run that has none yet begins anew."""
        config, folder = self._config, self._folder.checkpoints
        try:
            if config.resume_from:
                restored = load_checkpoint(Path(config.resume_from), header=self._header)
            else:
                restored = load_latest(folder, header=self._header)
        except NoCheckpointError:
            log.info("the run in %s has no checkpoint yet: it begins with epoch 1", self._folder.path)
            return
        for line in restored.broken:
            log.warning("passed over a broken checkpoint: %s", line)
        try:
            self._learner.load_state_dict(restored.state)
        except ValueError as error:
            raise CheckpointError(f"{restored.path}: {error}") from error
        if self._best is not None and "best_policy" in restored.state:  # a run may begin to choose later
            self._best.load_state_dict(restored.state["best_policy"])
        self._checkpoint, self._saved_epoch = restored.path, restored.epoch
        if aside := set_aside_newer(folder, epoch=restored.epoch):
            log.info("newer checkpoints are now in %s", aside)
        log.info("resumed from %s (epoch %d)", restored.path, restored.epoch)

    # ---- results -------------------------------------------------------------------------------------------

    def _show_results(self, checkpoint: Path) -> TrainResult:
        """Evaluate, export, draw. A stop in between leaves the rest out."""
        config, folder, stop = self._config, self._folder, self._control.stop
        policy = self._chosen_policy()
        self.report(RunState.EVALUATING, "comparing the policy with doing nothing")
        try:
            comparison = compare_with_do_nothing(
                self._forward_env(EVALUATION_SEED_OFFSET),
                policy,
                episodes_per_env=max(1, config.eval_episodes // self._env.num_envs),
                should_stop=stop.is_set,
            )
        except Stopped:
            message = f"stopped before the evaluation was done; checkpoint saved: {checkpoint}"
            return self._finish(checkpoint, None, None, message)
        self.report(RunState.EXPORTING, f"writing bundle, curve and video to {folder.path}")
        bundle = self._export()
        title = f"{config.task}, {config.algo.upper()}, seed {config.seed}"
        draw_learning_curve(folder.curve, self._metrics.path, title, comparison)
        log.info("learning curve: %s", folder.curve)
        if config.video:
            self._draw_video(comparison)
        return self._finish(checkpoint, bundle, comparison, comparison.line(config.task))

    def _forward_env(self, seed_offset: int) -> Env:
        return held_out_env(self._config, seed_offset=seed_offset, device=self._device)

    def _export(self) -> Path:
        config, learner, policy, folder = self._config, self._learner, self._chosen_policy(), self._folder
        contract = self._env.contract(
            policy_name=f"{config.task}-{config.algo}-{config.seed}",
            train={
                "algo": config.algo,
                "seed": config.seed,
                "epochs": learner.epoch,
                "policy_of_epoch": self._best.epoch
                if self._best and self._best.epoch >= 0
                else learner.epoch,
                "env_steps": learner.env_steps,
                "versions": {name: importlib.metadata.version(name) for name in ("torch", "warp-lang")},
            },
        )
        if isinstance(policy, OpenLoop):
            path = save_actions(folder.path / "actions.npz", policy, contract)
            log.info("open-loop actions: %s (no policy, so there is no bundle)", path)
            return path
        observations = sample_observations(self._forward_env(EVALUATION_SEED_OFFSET), policy)
        bundle = export_bundle(policy, contract, observations, folder.bundle)
        log.info("policy bundle: %s", bundle)
        return bundle

    def _draw_video(self, comparison: Comparison) -> None:
        """Draw the video; whatever goes wrong there is said, and costs nothing else."""
        path = self._folder.video
        try:
            remark = write_video(path, comparison.recordings, should_stop=self._control.stop.is_set)
        except (OSError, RuntimeError, ImportError) as error:
            log.warning("no video: %s", " ".join(str(error).split()))
            return
        log.info("rollout video: %s%s", path, f" ({remark})" if remark else "")

    def _finish(
        self, checkpoint: Path, bundle: Path | None, comparison: Comparison | None, message: str
    ) -> TrainResult:
        self.report(RunState.FINISHED, message)
        log.info("%s", message)
        return TrainResult(
            out_dir=self._folder.path,
            epoch=self._learner.epoch,
            env_steps=self._learner.env_steps,
            interrupted=comparison is None,
            checkpoint=checkpoint,
            bundle=bundle,
            policy_return=comparison.policy.mean if comparison else math.nan,
            do_nothing_return=comparison.do_nothing.mean if comparison else math.nan,
            message=message,
        )


def _answer(future: Future[str], job: Callable[[], Path]) -> None:
    try:
        future.set_result(str(job()))
    except (CheckpointError, ExportError, OSError) as error:  # the asker is told; training goes on
        future.set_exception(error)


def choose_device(device: str) -> str:
    """Turn `auto` into cuda where there is one, else cpu; raises DeviceError for what is not there."""
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    return str(resolve_device(device))


def main(arguments: Sequence[str] | None = None) -> int:
    """Train from the command line; returns 0 done or interrupted, 2 bad input, 3 device missing, 1 failed."""
    options = _parser().parse_args(arguments)
    show_log()
    control = RunControl()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: control.stop.set())
    values = {field.name: getattr(options, field.name, None) for field in fields(TrainConfig)} | {
        "resume": None
    }
    try:
        config = read_train_config(values, config_path=options.config, resume=options.resume)
        train(config, control=control)
    except (TrainingDiverged, ExportError, NotSavedError, OSError) as error:
        return _complain(error, 1)
    except BAD_INPUT as error:
        return _complain(error, 2)
    except DeviceError as error:
        return _complain(error, 3)
    return 0


def show_log() -> None:
    """Print what runs report to standard error, and keep Warp to its warnings."""
    package = logging.getLogger("rewarped_sim")
    package.addHandler(logging.StreamHandler())
    package.setLevel(logging.INFO)
    wp.config.log_level = wp.LOG_WARNING


def _complain(error: Exception, code: int) -> int:
    sys.stderr.write(f"error: {error}\n")
    return code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rewarped_train", description="Train a policy by gradients through physics."
    )
    add = parser.add_argument
    add("--task", help=f"one of {', '.join(task_names())} (default: {DEFAULT_TASK})")
    add("--algo", help=f"one of {', '.join(NAMES)} (default: sapo)")
    add("--num-envs", type=int, help="environments simulated side by side (default: the task's own number)")
    add("--seed", type=int, help="of every random number generator (default: 0)")
    add("--device", help="auto, cpu, cuda or cuda:N (default: auto, which is cuda where there is one)")
    add("--epochs", type=int, help="epoch at which to end, those before a resume included")
    add("--out-dir", help="folder for everything the run writes (default: a new runs/<task>_<algo>_<seed>)")
    add(
        "--resume",
        nargs="?",
        const="true",
        default="",
        help="continue the newest run, the one in this folder, or from this checkpoint",
    )
    add("--config", default="", help="YAML file of differences with sections run, task and one per algorithm")
    add("--checkpoint-every", type=int, help="epochs between checkpoints")
    add("--eval-episodes", type=int, help="episodes of the comparison with do-nothing")
    add("--no-video", dest="video", action="store_false", default=None, help="leave the video out")
    return parser


if __name__ == "__main__":
    sys.exit(main())
