"""What every algorithm has: an env, clocks, random state, episode statistics; saved, restored and undone as one."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from sapo_learner.distributions import standard_normal
from sapo_learner.episodes import EpisodeStatistics
from sapo_learner.parallel import SINGLE, Ranks
from sapo_learner.settings import require
from sapo_learner.vec_env import VecEnv


class Interrupted(Exception):  # noqa: N818 (asked for by the caller, so not an error)
    """An update was stopped at the caller's wish; the learner and its env are as they were before it."""


class TrainingDiverged(RuntimeError):  # noqa: N818
    """Too many epochs in a row met gradients that were not finite."""

    def __init__(self, message: str, metrics: dict[str, float]) -> None:
        super().__init__(message)
        self.metrics = metrics
        """Of the last of them."""


class Epoch(NamedTuple):
    """What an algorithm reports of one epoch of H steps in N envs."""

    reward: Tensor
    """(H, N)."""
    done: Tensor
    """(H, N) bool: an episode ended with this step."""
    info: dict[str, Tensor]
    """(H, N) each: what the env reports besides."""
    metrics: dict[str, Tensor | float]
    """Figures by name; tensors are scalars on the env's device. `actor/skipped` must be among them."""


class Learner(ABC):
    """An algorithm around one `VecEnv`, which it resets once, when it is made.

    The same seed gives the same first networks on every device, and the same training on the same machine.
    Torch's global random state is neither used nor changed.
    """

    policy: Any
    """What it learns, a `Policy` and a module."""

    def __init__(
        self, env: VecEnv, *, seed: int, planned_epochs: int, max_skipped_updates: int, ranks: Ranks = SINGLE
    ) -> None:
        """Raise ValueError unless `planned_epochs` is > 0. env: this rank's share, as large as any other's."""
        require(planned_epochs > 0, f"planned_epochs must be > 0, got {planned_epochs}")
        self.env = env
        self.ranks = ranks
        self.planned_epochs = planned_epochs
        self.epoch = 0
        """Finished epochs."""
        self.env_steps = 0
        """Control steps in all envs together."""
        self.before_update: dict[str, Any] | None = None
        """`state_dict` before the last update, without what is too large to copy each time."""
        self._weights = Generator().manual_seed(seed)
        seeds = torch.randint(2**62, (2,), generator=self._weights).tolist()
        self._generator, self._samples = (Generator(env.device).manual_seed(seed) for seed in seeds)
        self.num_envs = ranks.size * env.num_envs
        """Envs of all ranks together."""
        self._episodes = EpisodeStatistics(self.num_envs, window=2 * self.num_envs)
        self._max_skipped_updates = max_skipped_updates
        self._skipped_in_a_row = 0
        env.reset()

    @property
    def progress(self) -> float:
        """Share of the planned epochs that is done, at most 1."""
        return min(self.epoch / self.planned_epochs, 1.0)

    def update(self, should_stop: Callable[[], bool] | None = None) -> dict[str, float]:
        """Carry out one epoch and return its metrics by name.

        should_stop: asked before every control step; all ranks stop where one is told to.

        Raises:
            Interrupted: `should_stop()` turned true; nothing has changed.
            TrainingDiverged: a gradient of actor or critics was not finite in too many epochs in a row. The epoch is
                complete but for the steps that were left out, and the learner can be saved.
        Whatever else goes wrong, a keyboard interrupt too, leaves the learner as it was, to be saved and continued.
        """
        before = self._snapshot()
        stop = should_stop or (lambda: False)
        try:
            epoch = self._of_all_envs(self._epoch(lambda: self.ranks.any(stop())))
            self.epoch += 1
            self.env_steps += epoch.done.numel()
            report = self._report(epoch)
        except BaseException:
            self._undo(before)
            raise
        self.before_update = before
        self._count_skipped(report)
        return report

    @abstractmethod
    def _epoch(self, should_stop: Callable[[], bool]) -> Epoch:
        """Act for a window and learn from it. Raises Interrupted when `should_stop()` turns true."""

    @abstractmethod
    def _parts(self) -> dict[str, Any]:
        """Return all that the next update depends on, by name: modules, optimisers, anything with a `state_dict`.

        They are the same on all ranks; what is not is among `_parts_of_envs`.
        """

    def _parts_of_envs(self) -> dict[str, Any]:
        """Return what belongs to this rank's envs, by name."""
        return {"env": self.env}

    def _noise(self, *leading: int) -> Tensor:
        """Draw standard normal numbers for this rank's envs, (*leading, N, d)."""
        shape = (*leading, self.num_envs, self.env.action_dim)
        return self.ranks.own(standard_normal(shape, self._generator), dim=-2)

    def _of_all_envs(self, epoch: Epoch) -> Epoch:
        """Return the epoch with the envs of all ranks in it, and the mean of their figures."""
        if self.ranks.size == 1:
            return epoch
        figures = {name: value for name, value in epoch.metrics.items() if isinstance(value, Tensor)}
        means = torch.stack([value.double() for value in figures.values()])
        self.ranks.average_([means])
        return Epoch(
            reward=self.ranks.gather(epoch.reward, dim=1),
            done=self.ranks.gather(epoch.done, dim=1),
            info={name: self.ranks.gather(value, dim=1) for name, value in epoch.info.items()},
            metrics={**epoch.metrics, **dict(zip(figures, means, strict=True))},
        )

    def _report(self, epoch: Epoch) -> dict[str, float]:
        """Bring the epoch's figures to the host: of reports and events, means over the window and counts."""
        reward = epoch.reward.detach()
        self._episodes.update(reward.cpu(), epoch.done.cpu())
        metrics: dict[str, Any] = {**epoch.metrics, "step_reward": reward.mean()}
        for name, values in epoch.info.items():
            metrics[name] = values.sum() if values.dtype == torch.bool else values.mean()
        tensors = {name: value for name, value in metrics.items() if isinstance(value, Tensor)}
        figures = torch.stack([value.double() for value in tensors.values()]).tolist()
        return {
            "env_steps": float(self.env_steps),
            **self._episodes.summary(),
            **metrics,
            **dict(zip(tensors, figures, strict=True)),
        }

    def _count_skipped(self, report: dict[str, float]) -> None:
        broken = [name for name in ("actor", "critic") if report.get(f"{name}/skipped", 0.0) > 0]
        self._skipped_in_a_row = self._skipped_in_a_row + 1 if broken else 0
        if self._skipped_in_a_row >= self._max_skipped_updates:
            raise TrainingDiverged(
                f"epoch {self.epoch}: no finite {' and '.join(broken)} gradient "
                f"{self._skipped_in_a_row} times in a row; "
                "smaller learning rates or rewards, or a shorter horizon, may help",
                report,
            )

    @contextmanager
    def _back_again(self) -> Iterator[None]:
        """Let the caller act in the env, and then go back to where env and noise were."""
        env, noise = self.env.state_dict(), self._generator.get_state()
        try:
            yield
        finally:
            self.env.load_state_dict(env)
            self._generator.set_state(noise)

    # ---- state ---------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of all that the next update depends on, in tensors and plain containers.

        All ranks must call it together; what rank 0 gets is complete, and restores them all.
        """
        state = self._snapshot()
        return {**state, **{name: self.ranks.collect(state[name]) for name in self._parts_of_envs()}}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` gave: the next update is, bit for bit, what it would have been.

        Where this learner was given other settings than the one that was saved, its own count.
        Raises ValueError naming what the state lacks, as one of another version may, the first weight of another
        size, or the two numbers of ranks where they differ; nothing has changed then.
        """
        known = {*self._clocks(), *self._all_parts()}
        missing = sorted(known - set(state))
        if missing:
            raise ValueError(f"learner state: {missing[0]!r} is missing; it was saved by another version")
        self._require_networks_of_own_sizes(state)
        of_own_envs = {name: self.ranks.pick(state[name]) for name in self._parts_of_envs()}
        with self._settings_of_optimizers_kept():
            self._undo({**state, **of_own_envs})

    def load_networks(self, state: dict[str, Any]) -> None:
        """Restore the networks alone, of any number of envs on any device: enough to act and to look, not to go on.

        Raises ValueError naming what does not fit.
        """
        for name, part in self._parts().items():
            if isinstance(part, nn.Module):
                try:
                    part.load_state_dict(state[name])
                except (KeyError, RuntimeError) as error:
                    raise ValueError(f"learner state: {name}: {' '.join(str(error).split())}") from error

    def _require_networks_of_own_sizes(self, state: dict[str, Any]) -> None:
        for name, part in self._parts().items():
            if not isinstance(part, nn.Module):
                continue
            own, saved = (
                {key: tuple(value.shape) for key, value in weights.items()}
                for weights in (part.state_dict(), state[name])
            )
            for key in (*own, *saved):
                expected, got = own.get(key, "none"), saved.get(key, "none")
                require(
                    expected == got,
                    f"learner state: {name}: {key}: expected {expected}, got {got}; it was saved with other settings",
                )

    @contextmanager
    def _settings_of_optimizers_kept(self) -> Iterator[None]:
        """Take back the settings that torch's optimisers restore together with their moments, but for the rates."""
        optimizers = [part for part in self._parts().values() if isinstance(part, Optimizer)]
        groups = [group for optimizer in optimizers for group in optimizer.param_groups]
        own = [{name: group[name] for name in ("betas", "weight_decay")} for group in groups]
        yield
        restored = [group for optimizer in optimizers for group in optimizer.param_groups]
        for group, settings in zip(restored, own, strict=True):
            group.update(settings)

    def _snapshot(self) -> dict[str, Any]:
        parts = {name: part.state_dict() for name, part in self._all_parts().items()}
        return self._clocks() | copy.deepcopy(parts)

    def _all_parts(self) -> dict[str, Any]:
        return {**self._parts(), **self._parts_of_envs()}

    def _clocks(self) -> dict[str, Any]:
        return {
            "epoch": self.epoch,
            "env_steps": self.env_steps,
            "skipped_in_a_row": self._skipped_in_a_row,
            "generator": self._generator.get_state(),
            "policy_generator": self._samples.get_state(),
            "episodes": self._episodes.state_dict(),
        }

    def _undo(self, state: dict[str, Any]) -> None:
        for name, part in self._all_parts().items():
            own = copy.deepcopy(state[name])  # an optimiser goes on with the very tensors it is given
            part.load_state_dict(own)
        self.epoch = state["epoch"]
        self.env_steps = state["env_steps"]
        self._skipped_in_a_row = state["skipped_in_a_row"]
        self._generator.set_state(state["generator"])
        self._samples.set_state(state["policy_generator"])
        self._episodes.load_state_dict(state["episodes"])
