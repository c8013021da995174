"""Run an epoch again in which something went wrong, and say where it began: which step, which env, which quantity.

    python -m rewarped_sim.replay_fault runs/cartpole_sapo_0/faults/epoch_000123.pt

The file is one that a training run kept (see `rewarped_sim.fault_dump`); the settings are those of its run.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import Tensor

from rewarped_sim.env import MAX_MAGNITUDE, DeviceError, Env
from rewarped_sim.make import make
from rewarped_sim.registry import configure
from rewarped_sim.train import BAD_INPUT, choose_device, show_log
from rewarped_sim.trained_run import read_run_config
from rewarped_sim.watched_env import WatchedEnv
from sapo_learner.algorithms import ALGORITHMS, split_name
from sapo_learner.checkpoint import CheckpointError, CheckpointHeader, load_checkpoint
from sapo_learner.learner import Learner, TrainingDiverged
from sapo_learner.vec_env import Obs, StepResult

log = logging.getLogger("rewarped_sim.replay_fault")  # as a program, this module is __main__

MAX_LINES = 20


@dataclass(frozen=True)
class Finding:
    """Something that was not finite."""

    step: int
    """Control step of the window, from 0; -1 for what belongs to none."""
    env: int
    """-1 for what belongs to none."""
    what: str

    def __str__(self) -> str:
        where = f"step {self.step}, env {self.env}: " if self.step >= 0 else ""
        return where + self.what


class FaultFinder(WatchedEnv):
    """An env that looks at all that goes in and comes out of it, forward and backward.

    Of what follows from one another within a step, it notes the first: action, state, physics, reward, observation.
    """

    def __init__(self, env: Env) -> None:
        super().__init__(env, lambda env, result: None)
        self.findings: list[Finding] = []
        """In the order of their coming about: forward step by step, then backward from the last step."""
        self._step = 0
        self._bad_adjoints = env.bad_adjoints.clone()

    def detach(self) -> Obs:
        """Begin a window."""
        self._step = 0
        return super().detach()

    def step(self, action: Tensor) -> StepResult:
        """Step, and look."""
        step, noted = self._step, set()
        self._step += 1

        def note(name: str, values: Tensor, limit: float = float("inf")) -> None:
            for env, what in _not_finite(values.detach(), limit):
                if env not in noted:
                    self.findings.append(Finding(step, env, f"{name} {what}"))
                    noted.add(env)

        note("the action", action)
        state, terms = self.env.look_ahead(action)
        for name, value in state.items():
            if value.is_floating_point():
                note(f"state {name!r}", value, MAX_MAGNITUDE)
        for name, value in terms.items():
            note(f"reward term {name!r}", value)
        result = super().step(action)
        for name, happened in result.info.items():
            if name.startswith("fault/"):
                note(
                    f"physics reports {name.removeprefix('fault/')!r}:", torch.where(happened, torch.nan, 0.0)
                )
        for name, value in result.terminal_obs.items():
            note(f"observation {name!r}", value)
        self._look_back(step, action, result)
        return result

    def _look_back(self, step: int, action: Tensor, result: StepResult) -> None:
        """Be told of the gradients when they come."""

        def noting(name: str) -> Callable[[Tensor], None]:
            return lambda bar: self.findings.extend(
                Finding(step, env, f"the gradient that reaches {name} {what}")
                for env, what in _not_finite(bar, float("inf"))
            )

        def after_physics(_: Tensor) -> None:
            dropped = self.env.bad_adjoints - self._bad_adjoints
            self._bad_adjoints = self.env.bad_adjoints.clone()
            self.findings.extend(
                Finding(
                    step, env, "the gradient through physics is not finite or beyond 1e12, and is dropped"
                )
                for env in dropped.nonzero().flatten().tolist()
            )

        outputs = {"the reward": result.reward}
        outputs |= {f"observation {name!r}": value for name, value in result.obs.items()}
        outputs |= {
            f"observation {name!r} before a reset": value for name, value in result.terminal_obs.items()
        }
        for name, value in outputs.items():
            if value.requires_grad:
                value.register_hook(noting(name))
        if action.requires_grad:
            action.register_hook(after_physics)
            action.register_hook(noting("the action"))


def _not_finite(values: Tensor, limit: float) -> list[tuple[int, str]]:
    """For every env with an entry that is not finite or beyond +-limit: its number, and where the first one is."""
    flat = values.reshape(len(values), -1)
    broken = ~(flat.abs() < limit) if limit < float("inf") else ~flat.isfinite()
    found = []
    for env in broken.any(dim=1).nonzero().flatten().tolist():
        first = int(broken[env].nonzero()[0])
        index = [int(i) for i in torch.unravel_index(torch.tensor(first), values.shape[1:])]
        place = f" at {index}" if index else ""
        found.append((env, f"is {flat[env, first].item():.3g}{place}"))
    return found


def replay(path: Path) -> tuple[dict[str, float], list[Finding]]:
    """Run the epoch again that begins in this state; returns its metrics and what was not finite.

    Raises:
        ConfigError: the file is not in the folder of its run.
        CheckpointError: it is missing or broken, or the run has other settings now.
        DeviceError: the run's device is not there.
    """
    if not path.is_file():
        raise CheckpointError(
            f"{path}: expected <run>/faults/epoch_<n>.pt, found {'a folder' if path.exists() else 'nothing'}"
        )
    config = read_run_config(path.absolute().parent.parent)
    algorithm = ALGORITHMS[split_name(config.algo)[0]]
    algo_config = configure(algorithm.config(), dict(config.algo_options), config.algo)
    torch.set_flush_denormal(True)  # as in the run
    env = make(
        config.task,
        num_envs=config.num_envs,
        device=choose_device(config.device),
        seed=config.seed,
        horizon=algo_config.horizon,
        requires_grad=algorithm.differentiates,
        **config.task_options,
    )
    header = CheckpointHeader.of(env, task=config.task, algo=config.algo)
    restored = load_checkpoint(path, header=replace(header, num_envs=config.num_envs))
    finder = FaultFinder(env)
    learner: Learner = algorithm.learner(finder, algo_config, seed=config.seed, planned_epochs=config.epochs)
    try:
        learner.load_state_dict(restored.state)
    except (ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    try:
        metrics = learner.update()
    except TrainingDiverged as error:
        metrics = error.metrics
    return metrics, finder.findings + _of_parameters(learner)


def _of_parameters(learner: Learner) -> list[Finding]:
    return [
        Finding(-1, -1, f"the gradient of the policy's {name} is not finite")
        for name, parameter in learner.policy.named_parameters()
        if parameter.grad is not None and not parameter.grad.isfinite().all()
    ]


def main(arguments: Sequence[str] | None = None) -> int:
    """Replay from the command line; returns 0 fault found, 1 nothing found, 2 bad input, 3 device missing."""
    parser = argparse.ArgumentParser(prog="replay_fault", description="Say where an epoch went wrong.")
    parser.add_argument("file", type=Path, help="<run>/faults/epoch_<n>.pt")
    options = parser.parse_args(arguments)
    show_log()
    try:
        metrics, findings = replay(options.file)
    except BAD_INPUT as error:
        return _complain(error, 2)
    except DeviceError as error:
        return _complain(error, 3)
    norm, skipped = metrics["actor/grad_norm"], metrics["actor/skipped"]
    log.info(
        "actor's gradient norm %.3g, %s; %d envs reset for what was not finite",
        norm,
        "its step was left out" if skipped else "its step was taken",
        metrics["nonfinite"],
    )
    for finding in findings[:MAX_LINES]:
        log.info("%s", finding)
    if len(findings) > MAX_LINES:
        log.info("... and %d more, which came later", len(findings) - MAX_LINES)
    if not findings and not skipped:
        log.info("nothing was wrong this time")
    return 0 if findings or skipped else 1


def _complain(error: Exception, code: int) -> int:
    sys.stderr.write(f"error: {error}\n")
    return code


if __name__ == "__main__":
    sys.exit(main())
