"""Choose among the policies of a run by trying them on starts that are used for nothing else."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

from rewarped_sim.env import Env
from rewarped_sim.results import Stopped
from rewarped_sim.watched_env import WatchedEnv
from sapo_learner.evaluate import evaluate
from sapo_learner.vec_env import StepResult


class BestPolicy:
    """Remembers the policy whose mean action earned most so far. `env` supplies the starts, the same in every trial."""

    def __init__(self, env: Env) -> None:
        self._env = env
        self._weights: dict[str, Any] = {}
        self.epoch = -1
        """Of the best policy; -1 before the first trial."""
        self.mean_return = -math.inf

    def try_out(self, policy: Any, epoch: int, should_stop: Callable[[], bool] = lambda: False) -> float:
        """Run one episode in every env; returns the mean return, and keeps the policy if none was better.

        Raises Stopped when `should_stop` turns true meanwhile; then nothing has changed.
        """

        def go_on(env: Env, step: StepResult | None) -> None:
            if should_stop():
                raise Stopped

        earned = evaluate(WatchedEnv(self._env, go_on), policy).mean
        if earned > self.mean_return:
            self.epoch, self.mean_return = epoch, earned
            self._weights = copy.deepcopy(policy.state_dict())
        return earned

    def take(self, policy: Any) -> Any:
        """The best policy, as a copy of `policy` with its weights; `policy` itself before the first trial."""
        if self.epoch < 0:
            return policy
        best = copy.deepcopy(policy)
        best.load_state_dict(self._weights)
        return best

    def state_dict(self) -> dict[str, Any]:
        """Everything, in tensors and plain containers."""
        return {"epoch": self.epoch, "mean_return": self.mean_return, "weights": copy.deepcopy(self._weights)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave."""
        self.epoch, self.mean_return = state["epoch"], state["mean_return"]
        self._weights = copy.deepcopy(state["weights"])
