"""TrajOpt: one open-loop sequence of actions, improved by gradients through the simulator.

All envs follow the same T actions from their different starts. One epoch: carry on for a window of H steps, and step
up the gradient of the reward in it; what lies beyond the window is not seen. It is the baseline that tells how far
a task can be solved without looking.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import AdamW

from sapo_learner.learner import Epoch, Interrupted, Learner
from sapo_learner.optimization import ascend, set_learning_rate
from sapo_learner.outcome import Outcome
from sapo_learner.parallel import SINGLE, Ranks
from sapo_learner.settings import require_betas, require_not_negative, require_positive
from sapo_learner.vec_env import Obs, VecEnv


@dataclass(frozen=True, kw_only=True)
class TrajOptConfig:
    """Settings of TrajOpt; the defaults are those of the published comparison, whose runs had 16 envs."""

    horizon: int = 32
    """H, control steps in a window."""
    learning_rate: float = 1e-2
    """Constant."""
    betas: tuple[float, float] = (0.7, 0.95)
    """Decay rates of AdamW's two moments."""
    weight_decay: float = 0.0
    """Draws the actions towards zero."""
    max_grad_norm: float = 0.5
    """Clip of the gradient norm over the whole sequence."""
    max_skipped_updates: int = 10
    """Epochs in a row that may meet a non-finite gradient before `TrainingDiverged`."""

    def __post_init__(self) -> None:
        require_betas(self)
        require_positive(self, "horizon", "learning_rate", "max_grad_norm", "max_skipped_updates")
        require_not_negative(self, "weight_decay")


class OpenLoop(nn.Module):
    """Plays a sequence of actions in every env, from the start of each episode on, and sees nothing."""

    step: Tensor

    def __init__(self, num_envs: int, length: int, action_dim: int) -> None:
        super().__init__()
        self.actions = nn.Parameter(torch.zeros(length, action_dim))
        """(T, d), within [-1, 1]."""
        self.register_buffer("step", torch.zeros(num_envs, dtype=torch.int64), persistent=False)

    def act(self, obs: Obs, deterministic: bool) -> Tensor:
        """Return the next actions, (N, d); there is no other mode. Past its end the sequence's last one stays."""
        actions = self.actions[self.step.clamp(max=len(self.actions) - 1)]
        self.step = self.step + 1
        return actions

    def begin(self, started: Tensor) -> None:
        """Go back to the first action where an episode begins. started: (N,) bool, of any N."""
        step = self.step if len(self.step) == len(started) else torch.zeros_like(started, dtype=torch.int64)
        self.step = torch.where(started, 0, step)


class TrajOpt(Learner):
    """The learner: the sequence, its optimiser, and where in it each env is."""

    def __init__(
        self, env: VecEnv, config: TrajOptConfig, *, seed: int, planned_epochs: int, ranks: Ranks = SINGLE
    ) -> None:
        super().__init__(
            env,
            seed=seed,
            planned_epochs=planned_epochs,
            max_skipped_updates=config.max_skipped_updates,
            ranks=ranks,
        )
        self.config = config
        self.policy = OpenLoop(env.num_envs, env.max_episode_steps, env.action_dim).to(env.device)
        self._clock = _Clock(torch.zeros(env.num_envs, dtype=torch.int64, device=env.device))
        self._optimizer = AdamW(  # as it is: of `make_adamw`, only the weights of layers decay
            [self.policy.actions],
            lr=config.learning_rate,
            betas=config.betas,
            weight_decay=config.weight_decay,
            fused=True,  # so that `step_clipped` can leave a step out
        )

    def _epoch(self, should_stop: Callable[[], bool]) -> Epoch:
        config = self.config
        set_learning_rate(self._optimizer, config.learning_rate)
        self.env.detach()
        steps = []
        for t in range(config.horizon):
            if should_stop():
                raise Interrupted(f"stopped before step {t} of {config.horizon}")
            step = self.env.step(self.policy.actions[self._clock.step])
            self._clock.advance(step.terminated | step.truncated)
            steps.append(step)
        outcome = Outcome.of(steps)
        objective = outcome.reward.mean()
        metrics = ascend(self._optimizer, objective, max_norm=config.max_grad_norm, ranks=self.ranks)
        with torch.no_grad():  # what lies beyond would be clipped by the env, and get no gradient any more
            self.policy.actions.clamp_(-1.0, 1.0)
        rate = {"actor/learning_rate": config.learning_rate}
        return Epoch(outcome.reward, outcome.done, outcome.info, {**metrics, **rate})

    def _parts(self) -> dict[str, Any]:
        return {"policy": self.policy, "optimizer": self._optimizer}

    def _parts_of_envs(self) -> dict[str, Any]:
        return {**super()._parts_of_envs(), "clock": self._clock}


class _Clock:
    """How many steps each env's episode is old, (N,) int64."""

    def __init__(self, step: Tensor) -> None:
        self.step = step

    def advance(self, done: Tensor) -> None:
        self.step = torch.where(done, 0, self.step + 1)

    def state_dict(self) -> dict[str, Tensor]:
        return {"step": self.step.clone()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        self.step = state["step"].to(self.step.device, copy=True)
