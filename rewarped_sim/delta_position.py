"""Actions that add to joint positions and never leave the joints' limits."""

from __future__ import annotations

import torch
from torch import Tensor

from policy_runner.contract import ActionSpec


class DeltaPosition:
    """What a `delta_position` action means: `scale` times the action, cut where the limits are."""

    def __init__(self, spec: ActionSpec, device: torch.device) -> None:
        self._scale = torch.tensor(spec.scale, device=device)
        self._lower = torch.tensor(spec.lower, device=device)
        self._upper = torch.tensor(spec.upper, device=device)

    def __call__(self, joint_q: Tensor, action: Tensor) -> Tensor:
        """Change of the joint coordinates, (num_envs, joints), from positions and actions of the same shape.

        A joint that starts outside of its limits is brought inside. Where the limit decides, the action gets
        no gradient; neither does the position that the limit is measured from, as in the published tasks: to
        earlier actions the joint looks free to go on.
        """
        q = joint_q.detach()
        return torch.clamp(action * self._scale, self._lower - q, self._upper - q)
