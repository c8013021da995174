"""Choose among the policies of a run by trying them on starts that are used for nothing else."""

from __future__ import annotations

import copy
import math
from typing import Any

from rewarped_sim.env import Env
from sapo_learner.evaluate import evaluate


class BestPolicy:
    """Remembers the policy whose mean action earned most so far. `env` supplies the starts, the same in every trial."""

    def __init__(self, env: Env) -> None:
        self._env = env
        self._weights: dict[str, Any] = {}
        self.epoch = -1
        """Of the best policy; -1 before the first trial."""
        self.mean_return = -math.inf

    def try_out(self, policy: Any, epoch: int) -> float:
        """Run one episode in every env; returns the mean return, and keeps the policy if none was better."""
        earned = evaluate(self._env, policy).mean
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
