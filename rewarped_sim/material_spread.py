"""Materials that differ between environments and episodes."""

from __future__ import annotations

import torch
from torch import Tensor

from rewarped_sim.engine.mpm.material_table import MATERIAL_FIELDS
from rewarped_sim.engine.mpm.model import MpmModel
from rewarped_sim.random import uniform

_STREAM = 0x4D41
"""Keeps these draws apart from those of the start states."""


class MaterialSpread:
    """The task's constants with stiffness and yield stress varied by env, episode and part."""

    def __init__(self, model: object, spread: float, device: torch.device, *, first_env: int = 0) -> None:
        """spread: largest relative change, in [0, 1); 0 varies nothing, and is all that models without materials take.

        first_env: see `rewarped_sim.random.uniform`.
        Raises ValueError where a material could become too stiff for the substep.
        """
        if not 0.0 <= spread < 1.0:
            raise ValueError(f"material_spread must be in [0, 1), got {spread}")
        self._spread = spread
        self._first_env = first_env
        if spread == 0.0:
            return
        if not isinstance(model, MpmModel):
            raise ValueError(f"material_spread = {spread}: this task has no materials to vary")
        model.check_cfl(stiffer_by=1.0 + spread)
        self._own = torch.tensor(model.material_table, dtype=torch.float32, device=device)

    def __call__(self, seed: int, episode: Tensor) -> dict[str, Tensor]:
        """Nothing, or `materials` (num_envs, parts, len(MATERIAL_FIELDS)) for episodes (num_envs,) int64."""
        if self._spread == 0.0:
            return {}
        parts = len(self._own)
        draws = uniform(seed + _STREAM, episode, 2 * parts, first_env=self._first_env).view(-1, parts, 2)
        stiffness, strength = (1.0 + self._spread * (2.0 * draws - 1.0)).unbind(dim=2)
        varied = self._own.repeat(len(episode), 1, 1)
        for name, factor in (("mu", stiffness), ("lam", stiffness), ("yield_stress", strength)):
            varied[..., MATERIAL_FIELDS.index(name)] *= factor
        return {"materials": varied}
