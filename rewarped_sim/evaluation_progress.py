"""How far an evaluation has come, in control steps, for a person at a terminal or in a log file."""

from __future__ import annotations

import sys
import time
from typing import TextIO

from tqdm import tqdm

from rewarped_sim.env import Env
from sapo_learner.vec_env import StepResult


class EvaluationProgress:
    """A line now and then with the share done and the time left, at most: episodes may end before their time limit."""

    def __init__(
        self, rounds: int, *, episodes_per_env: int, stream: TextIO | None = None, line_every_s: float = 30.0
    ) -> None:
        """rounds: agents to try, over all runs. stream: standard error unless given."""
        self._rounds, self._episodes_per_env = rounds, episodes_per_env
        self._stream, self._line_every_s = stream or sys.stderr, line_every_s
        self._started = self._last_line = time.monotonic()
        self._round, self._agent = 0, ""
        self._steps, self._share = 0, 0.0

    def begin(self, agent: str) -> None:
        """Start the next agent."""
        self._agent, self._steps, self._share = agent, 0, 0.0

    def on_step(self, env: Env, step: StepResult | None) -> None:
        """Count a step; a reset, where there is no result, counts nothing."""
        if step is None:
            return
        self._steps += 1
        self._share = self._steps / (self._episodes_per_env * env.max_episode_steps)
        now = time.monotonic()
        if now - self._last_line >= self._line_every_s:
            self._last_line = now
            self._stream.write(f"evaluation, {self._agent}: {self.describe(now - self._started)}\n")
            self._stream.flush()

    def end(self) -> None:
        """Count an agent as done."""
        self._round, self._share = self._round + 1, 0.0

    def describe(self, elapsed_s: float) -> str:
        """Say how much is done, and how long the rest takes at most."""
        done = (self._round + min(self._share, 1.0)) / self._rounds
        left_s = elapsed_s * (1.0 - done) / max(done, 1e-9)
        return f"{100.0 * done:.0f} %, at most {tqdm.format_interval(left_s)} left"
