"""Keeps the state from which something went wrong, so that it can be looked at: see `rewarped_sim.replay_fault`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from sapo_learner.checkpoint import CheckpointHeader, NotSavedError, write_state
from sapo_learner.learner import Learner

log = logging.getLogger(__name__)

FAULTS = {
    "nonfinite": "an env broke (state or reward not finite, or a fault of its physics) and was reset",
    "bad_adjoints": "the gradient through an env's physics was not finite, or beyond 1e12, and was dropped",
    "actor/skipped": "the actor's gradient was not finite, or (SAC) no finite transition came",
    "critic/skipped": "a critic's gradient was not finite: no step was taken",
    "critic/masked_targets": "targets of the critics were not finite and were left out",
}
"""Counts among an epoch's metrics that should be 0, and what it means when they are not."""


class FaultDump:
    """Writes `epoch_<n>.pt` into `folder` the first time that each kind of fault shows up in the epochs it is shown."""

    def __init__(self, folder: Path, header: CheckpointHeader) -> None:
        self._folder = folder
        self._header = header
        self._seen: set[str] = set()

    def look_at(self, learner: Learner, metrics: Mapping[str, float]) -> None:
        """Look at the epoch that `learner` just finished; dumps the learner and its envs as they were before it."""
        new = [name for name in FAULTS if metrics.get(name, 0) > 0 and name not in self._seen]
        if not new:
            return
        self._seen.update(new)
        said = "; ".join(f"{FAULTS[name]} ({metrics[name]:.0f} times)" for name in new)
        path = self._folder / f"epoch_{learner.epoch:06d}.pt"
        assert learner.before_update is not None
        try:
            write_state(path, learner.before_update, epoch=learner.epoch - 1, header=self._header)
        except NotSavedError as error:
            log.warning("epoch %d: %s. %s", learner.epoch, said, error)
            return
        log.warning(
            "epoch %d: %s. To see where: python -m rewarped_sim.replay_fault %s", learner.epoch, said, path
        )
