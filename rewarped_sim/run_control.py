"""How others follow and steer a training run: the same for a terminal, a ROS node and a test."""

from __future__ import annotations

import math
import queue
import threading
from concurrent.futures import Future
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Protocol

from rewarped_sim.env import Env


class RunState(IntEnum):
    """What a run is doing; the numbers are those of rewarped_msgs/TrainingStatus."""

    STARTING = 0
    TRAINING = 1
    PAUSED = 2
    EVALUATING = 3
    EXPORTING = 4
    FINISHED = 5
    FAILED = 6


@dataclass(frozen=True, kw_only=True)
class RunStatus:
    """One look at a run. Names, units and meaning are those of rewarped_msgs/TrainingStatus."""

    state: RunState
    message: str
    task: str
    algo: str
    out_dir: str
    num_envs: int
    epoch: int = 0
    planned_epochs: int = 0
    env_steps: int = 0
    env_steps_per_second: float = math.nan
    elapsed_s: float = 0.0
    eta_s: float = math.nan
    episode_return: float = math.nan
    episode_length: float = math.nan
    actor_loss: float = math.nan
    value_loss: float = math.nan
    alpha: float = math.nan
    entropy: float = math.nan
    actor_grad_norm: float = math.nan
    nonfinite_envs: int = 0
    skipped_updates: int = 0


class RunObserver(Protocol):
    """Whoever watches a run. Called from the thread that trains, so every call must be short."""

    def on_status(self, status: RunStatus) -> None:
        """Take a status: after every epoch and at every change of state."""
        ...

    def on_step(self, env: Env) -> None:
        """Look at the environments after a control step; `env.scene()` costs a copy: not at every one."""
        ...


class NoObserver:
    """Nobody watches."""

    def on_status(self, status: RunStatus) -> None:
        """Do nothing."""

    def on_step(self, env: Env) -> None:
        """Do nothing."""


@dataclass(frozen=True)
class RunControl:
    """The switches of a run. Any thread may use them; the run looks at them between steps and epochs."""

    stop: threading.Event = field(default_factory=threading.Event)
    """Set: end soon, with a checkpoint. Stays set."""
    paused: threading.Event = field(default_factory=threading.Event)
    """Set: wait after the present epoch."""
    requests: queue.SimpleQueue[tuple[str, Future[str]]] = field(default_factory=queue.SimpleQueue)
    """Jobs to do after the present epoch; use `request`."""

    def request(self, job: str) -> Future[str]:
        """Ask for `checkpoint` or `export`; the future gives the path that was written."""
        future: Future[str] = Future()
        self.requests.put((job, future))
        return future
