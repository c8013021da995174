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
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import torch
import warp as wp

from rewarped_sim.best_policy import BestPolicy
from rewarped_sim.device_failure import DeviceLostError, OutOfMemoryError, device_failures_explained
from rewarped_sim.env import DeviceError, Env, resolve_device
from rewarped_sim.fault_dump import FaultDump
from rewarped_sim.make import make
from rewarped_sim.registry import ConfigError, UnknownTaskError, configure, new_task, task_names
from rewarped_sim.results import (
    Comparison,
    Stopped,
    compare_with_do_nothing,
    draw_learning_curve,
    sample_observations,
    save_actions,
)
from rewarped_sim.run_control import NoObserver, RunControl, RunObserver, RunState, RunStatus
from rewarped_sim.run_folder import RunFolder, open_folder_of_ranks
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
    Restored,
    load_checkpoint,
    load_latest,
    save_checkpoint,
    set_aside_newer,
)
from sapo_learner.critic_fit import require_enough_samples
from sapo_learner.export import ExportError, export_bundle
from sapo_learner.learner import Interrupted, TrainingDiverged
from sapo_learner.metrics import MetricsLogger
from sapo_learner.parallel import SINGLE, RankLostError, Ranks, joined
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
    config: TrainConfig,
    *,
    observer: RunObserver | None = None,
    control: RunControl | None = None,
    ranks: Ranks = SINGLE,
) -> TrainResult:
    """Train, checkpoint, and at the end evaluate and export.

    When `control.stop` is set, the epoch in progress is given up, a checkpoint of the last whole one is
    saved and the results are left out; a resumed run goes on as if nothing had happened.

    ranks: processes that all call this with the same `config`, and share its envs. Rank 0 alone writes, is observed,
    takes orders (but `control.stop` counts on any) and has the results.

    Raises:
        ConfigError, UnknownTaskError, CheckpointError, DeviceError: before anything is built or overwritten.
        TrainingDiverged: the gradients were not finite for too long; a checkpoint is saved.
        NotSavedError, OSError: the disk takes nothing more; what was saved is whole.
        OutOfMemoryError, DeviceLostError: the device gave out; what was saved is whole.
        RankLostError: another rank died; the run can be resumed from its last checkpoint.
    """
    algorithm = ALGORITHMS[split_name(config.algo)[0]]
    algo_config = configure(algorithm.config(), dict(config.algo_options), config.algo)
    new_task(config.task, dict(config.task_options), torch.device("cpu"))
    device = choose_device(config.device, ranks.local_rank)
    _check_that_it_scales(config, algorithm, ranks)
    _check_that_minibatches_hold_samples(config, algo_config)
    # The optimisers' moments of idle weights decay into denormal numbers, on which a CPU is 15 times slower.
    torch.set_flush_denormal(True)
    if observer is None or not ranks.is_first:
        observer = NoObserver()
    with device_failures_explained(), open_folder_of_ranks(config, ranks) as folder:
        run = _Run(config, algorithm, algo_config, device, folder, observer, control or RunControl(), ranks)
        try:
            return run.carry_out()
        except Exception as error:
            run.report(RunState.FAILED, f"{type(error).__name__}: {error}")
            raise
        finally:
            run.close()


def _check_that_it_scales(config: TrainConfig, algorithm: Algorithm, ranks: Ranks) -> None:
    if ranks.size > 1 and not algorithm.scales:
        able = [name for name in ALGORITHMS if ALGORITHMS[name].scales]
        raise ConfigError(
            f"algo {config.algo!r} runs in one process, got {ranks.size} ranks; those that scale: {able}"
        )
    if config.num_envs % ranks.size:
        raise ConfigError(
            f"num_envs must be a multiple of the number of ranks, {ranks.size}, which share them, got {config.num_envs}"
        )


def _check_that_minibatches_hold_samples(config: TrainConfig, algo_config: Any) -> None:
    try:
        samples = algo_config.horizon * config.num_envs
        require_enough_samples(samples, getattr(algo_config, "num_minibatches", 1))
    except ValueError as error:
        raise ConfigError(f"{config.algo}: {error}") from error


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
        ranks: Ranks,
    ) -> None:
        self._config = config
        self._folder = folder
        self._observer = observer
        self._control = control
        self._ranks = ranks
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
        share = config.num_envs // ranks.size
        self._env = make(
            config.task,
            num_envs=share,
            first_env=ranks.rank * share,
            num_threads=torch.get_num_threads() if ranks.size > 1 else None,  # torchrun gives each rank one
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
            **({"ranks": ranks} if algorithm.scales else {}),
        )
        selects = config.select_every > 0 and ranks.is_first
        self._best = BestPolicy(self._forward_env(SELECTION_SEED_OFFSET)) if selects else None
        header = CheckpointHeader.of(self._env, task=config.task, algo=config.algo)
        self._header = replace(header, num_envs=config.num_envs)
        self._saved_epoch = -1
        self._trial_owed = False
        """Whether a stop came in the middle of the last epoch's trial: who resumes the run begins with it."""
        if config.resume:
            self._restore()
            ranks.on_first(lambda: folder.describe(config))
        self._faults = FaultDump(folder.faults, self._header)
        self._metrics = MetricsLogger(folder.path, epoch=self._learner.epoch) if ranks.is_first else None
        self._trained_s = self._bad_adjoints = 0.0

    def carry_out(self) -> TrainResult:
        """Train to the last epoch, then show the results."""
        self._train()
        checkpoint = self._save()
        if self._is_stopped():
            message = f"stopped after epoch {self._learner.epoch}; checkpoint saved: {checkpoint}"
            return self._finish(checkpoint, None, None, message)
        if not self._ranks.is_first:
            return self._finish(checkpoint, None, None, "rank 0 shows the results")
        return self._show_results(checkpoint)

    def report(self, state: RunState, message: str, **figures: Any) -> None:
        """Tell the observer; figures that are not given stay as they were."""
        self._status = replace(self._status, state=state, message=message, **figures)
        self._observer.on_status(self._status)

    def close(self) -> None:
        """Flush what is still open, and answer those who asked too late."""
        if self._metrics is not None:
            self._metrics.close()
        while not self._control.requests.empty():
            self._control.requests.get()[1].set_exception(RuntimeError("the run has ended"))

    # ---- training ------------------------------------------------------------------------------------------

    def _train(self) -> None:
        learner, stop = self._learner, self._control.stop
        progress = Progress(self._config.epochs, epoch=learner.epoch) if self._ranks.is_first else None
        self.report(RunState.TRAINING, "training", epoch=learner.epoch, env_steps=learner.env_steps)
        try:
            if self._ranks.any(self._trial_owed):  # rank 0 alone tries, but all save together
                self._try_out()
                self._saved_epoch = -1  # what is saved of this epoch lacks the trial
            while learner.epoch < self._config.epochs and not self._is_stopped():
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
            if progress is not None:
                progress.close()

    def _is_stopped(self) -> bool:
        return self._ranks.any(self._control.stop.is_set())

    def _after_epoch(self, metrics: dict[str, float], progress: Progress | None, took_s: float) -> None:
        learner, epochs = self._learner, self._config.epochs
        self._trained_s += took_s
        self._record(metrics)
        if progress is not None:
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
            # Where a state breaks, its gradient may break as well: that is one env, and not two.
            nonfinite_envs=status.nonfinite_envs + round(max(metrics["nonfinite"], metrics["bad_adjoints"])),
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
        bad_adjoints = float(self._ranks.gather(self._env.bad_adjoints, dim=0).sum())
        metrics["bad_adjoints"], self._bad_adjoints = bad_adjoints - self._bad_adjoints, bad_adjoints
        if self._metrics is not None:
            self._metrics.log(self._learner.epoch, metrics)
        if self._ranks.size == 1:  # a state that several ranks saved could not be replayed in one process
            self._faults.look_at(self._learner, metrics)

    def _try_out(self) -> None:
        """Try the policy where a trial is due."""
        epoch, config = self._learner.epoch, self._config
        self._trial_owed = False
        if self._best is None or (epoch % config.select_every and epoch < config.epochs):
            return
        try:
            earned = self._best.try_out(self._learner.policy, epoch, self._control.stop.is_set)
        except Stopped:
            self._trial_owed = True
            return
        log.info("epoch %d: a trial earns %.2f, the best one %.2f", epoch, earned, self._best.mean_return)

    def _chosen_policy(self) -> Any:
        """The best policy tried, or the present one where none is tried."""
        policy = self._learner.policy
        return policy if self._best is None else self._best.take(policy)

    def _wait_while_paused(self) -> None:
        control = self._control
        if not self._ranks.any(control.paused.is_set()):
            return
        self.report(RunState.PAUSED, f"paused after epoch {self._learner.epoch}")
        while self._ranks.any(control.paused.is_set()) and not self._is_stopped():
            self._answer_requests()
            control.stop.wait(0.1)
        self.report(RunState.TRAINING, "training")

    def _answer_requests(self) -> None:
        ranks, requests = self._ranks, self._control.requests
        jobs: dict[str, Callable[[], Path]] = {
            "checkpoint": self._save,
            "export": lambda: ranks.on_first(self._export),
        }
        while ranks.on_first(lambda: not requests.empty()):
            asked, future = requests.get() if ranks.is_first else ("", Future())
            job = ranks.on_first(lambda asked=asked: asked)
            _answer(future, jobs[job])

    def _save(self) -> Path:
        """Save a checkpoint of the last whole epoch, unless that was done."""
        learner = self._learner
        if learner.epoch != self._saved_epoch:
            if self._metrics is not None:
                self._metrics.sync()
            state = learner.state_dict()
            if self._best is not None:
                state |= {"best_policy": self._best.state_dict(), "trial_owed": self._trial_owed}
            self._checkpoint = self._ranks.on_first(
                lambda: save_checkpoint(
                    self._folder.checkpoints, state, epoch=learner.epoch, header=self._header
                )
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
        try:
            restored = self._ranks.on_first(self._read_checkpoint)
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
            self._trial_owed = restored.state.get("trial_owed", False)
        self._checkpoint, self._saved_epoch = restored.path, restored.epoch
        folder = self._folder.checkpoints
        if aside := self._ranks.on_first(lambda: set_aside_newer(folder, epoch=restored.epoch)):
            log.info("newer checkpoints are now in %s", aside)
        log.info("resumed from %s (epoch %d)", restored.path, restored.epoch)

    def _read_checkpoint(self) -> Restored:
        if self._config.resume_from:
            return load_checkpoint(Path(self._config.resume_from), header=self._header)
        return load_latest(self._folder.checkpoints, header=self._header)

    # ---- results -------------------------------------------------------------------------------------------

    def _show_results(self, checkpoint: Path) -> TrainResult:
        """Evaluate, export, draw. A stop in between leaves the rest out."""
        assert self._metrics is not None
        config, folder, stop = self._config, self._folder, self._control.stop
        policy = self._chosen_policy()
        self.report(RunState.EVALUATING, "comparing the policy with doing nothing")
        try:
            comparison = compare_with_do_nothing(
                self._forward_env(EVALUATION_SEED_OFFSET),
                policy,
                episodes_per_env=max(1, config.eval_episodes // config.num_envs),
                should_stop=stop.is_set,
            )
        except Stopped:
            message = f"stopped before the evaluation was done; checkpoint saved: {checkpoint}"
            return self._finish(checkpoint, None, None, message)
        self.report(RunState.EXPORTING, f"writing bundle, curve and video to {folder.path}")
        bundle = self._export()
        title = f"{config.task}, {config.algo.upper()}, seed {config.seed}"
        with _costing_nothing("learning curve"):
            draw_learning_curve(folder.curve, self._metrics.path, title, comparison)
            log.info("learning curve: %s", folder.curve)
        if config.video:
            with _costing_nothing("video"):
                remark = write_video(folder.video, comparison.recordings, should_stop=stop.is_set)
                log.info("rollout video: %s%s", folder.video, f" ({remark})" if remark else "")
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


@contextmanager
def _costing_nothing(what: str) -> Iterator[None]:
    """Draw something to look at; whatever goes wrong there is said, and costs a run nothing else."""
    try:
        yield
    except Exception as error:
        log.warning("no %s: %s: %s", what, type(error).__name__, " ".join(str(error).split()))


def _answer(future: Future[str], job: Callable[[], Path]) -> None:
    try:
        future.set_result(str(job()))
    except (CheckpointError, ExportError, OSError) as error:  # the asker is told; training goes on
        future.set_exception(error)


def choose_device(device: str, local_rank: int = 0) -> str:
    """Turn `auto` into cuda where there is one, else cpu; raises DeviceError for what is not there.

    Of several ranks on a machine, each gets the next GPU where none is named.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if device == "cuda" and torch.cuda.is_available():
        device = f"cuda:{local_rank % torch.cuda.device_count()}"
    return str(resolve_device(device))


def main(arguments: Sequence[str] | None = None) -> int:
    """Train from the command line.

    Returns 0 done or interrupted, 2 bad input, 3 device missing, 4 device lost on the way, 1 failed otherwise.
    """
    options = _parser().parse_args(arguments)
    control = RunControl()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: control.stop.set())
    values = {field.name: getattr(options, field.name, None) for field in fields(TrainConfig)} | {
        "resume": None
    }
    try:
        with joined() as ranks:
            show_log(logging.INFO if ranks.is_first else logging.ERROR)
            config = ranks.on_first(
                lambda: read_train_config(values, config_path=options.config, resume=options.resume)
            )
            train(config, control=control, ranks=ranks)
    except RankLostError as error:
        return _complain(f"{error}; to go on from the last checkpoint, start again with --resume", 1)
    except DeviceLostError as error:
        return _complain(error, 4)
    except (TrainingDiverged, ExportError, NotSavedError, OutOfMemoryError, OSError) as error:
        return _complain(error, 1)
    except BAD_INPUT as error:
        return _complain(error, 2)
    except DeviceError as error:
        return _complain(error, 3)
    return 0


def show_log(level: int = logging.INFO) -> None:
    """Print what runs report to standard error, and keep Warp to its warnings."""
    package = logging.getLogger("rewarped_sim")
    package.addHandler(logging.StreamHandler())
    package.setLevel(level)
    wp.config.log_level = wp.LOG_WARNING


def _complain(error: Exception | str, code: int) -> int:
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
    add(
        "--epochs",
        type=int,
        help="epoch at which to end, those before a resume included (default: the task's own)",
    )
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
