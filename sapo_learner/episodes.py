"""Returns and lengths of finished episodes."""

from __future__ import annotations

from collections import deque
from typing import Any

import torch
from torch import Tensor


class EpisodeStatistics:
    """Averages over the last finished episodes, at most `window`; NaN until the first one finishes.

    It works on the host, on whole windows that were copied there at once: no control step waits for it.
    """

    def __init__(self, num_envs: int, *, window: int) -> None:
        self.finished = 0
        self._return = torch.zeros(num_envs, dtype=torch.float64)
        self._length = torch.zeros(num_envs, dtype=torch.int64)
        self._returns: deque[float] = deque(maxlen=window)
        self._lengths: deque[int] = deque(maxlen=window)

    def update(self, reward: Tensor, done: Tensor) -> None:
        """Add a window of steps. reward: (H, N), done: (H, N) bool, both on the CPU."""
        for reward_t, done_t in zip(reward.double(), done, strict=True):
            self._return += reward_t
            self._length += 1
            self._returns.extend(self._return[done_t].tolist())
            self._lengths.extend(self._length[done_t].tolist())
            self.finished += int(done_t.sum())
            self._return[done_t] = 0.0
            self._length[done_t] = 0

    def summary(self) -> dict[str, float]:
        """Return the mean `return` and `episode_length`, and the number of `episodes` finished so far."""
        return {
            "return": _mean(self._returns),
            "episode_length": _mean(self._lengths),
            "episodes": float(self.finished),
        }

    def state_dict(self) -> dict[str, Any]:
        """Return everything as tensors and plain containers."""
        return {
            "finished": self.finished,
            "return": self._return.clone(),
            "length": self._length.clone(),
            "returns": list(self._returns),
            "lengths": list(self._lengths),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.finished = state["finished"]
        self._return.copy_(state["return"])
        self._length.copy_(state["length"])
        self._returns = deque(state["returns"], maxlen=self._returns.maxlen)
        self._lengths = deque(state["lengths"], maxlen=self._lengths.maxlen)


def _mean(values: deque[float] | deque[int]) -> float:
    return sum(values) / len(values) if values else float("nan")
