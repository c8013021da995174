"""From what a camera sees to the points of the network, in training: the runner's chain for many envs on the device.

    crop -> voxel -> sample

This is `policy_runner.pointcloud.preprocess` for a batch, differentiable, and without waiting for the device; it gives
the same points. Which rows a sampler keeps depends only on how many there are, so they come from the runner's own
`sample_indices`, asked once for every possible number.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from policy_runner.contract import PointCloudSpec
from policy_runner.pointcloud import sample_indices

DEVICE_SAMPLERS = ("stride", "random")
"""Samplers that look at the number of points only."""
_ABSENT = torch.iinfo(torch.int64).max


def require_device_sampler(spec: PointCloudSpec) -> None:
    """Raise ValueError for a sampler that looks at positions."""
    if spec.sampler not in DEVICE_SAMPLERS:
        raise ValueError(
            f"sampler: a simulated camera takes one of {list(DEVICE_SAMPLERS)}, got {spec.sampler!r}"
        )


class CloudChain:
    """Crop, voxelise and sample as a `PointCloudSpec` says.

    Where the runner would refuse a cloud and hold, fewer than `spec.min_points` being left of it, training goes on: all
    points are then in the middle of the crop box, and carry no gradient.
    """

    def __init__(self, spec: PointCloudSpec, num_particles: int, device: torch.device) -> None:
        """num_particles: rows of the clouds given. Raises what `require_device_sampler` raises."""
        require_device_sampler(spec)
        self.spec = spec
        nothing = np.zeros(spec.num_points, np.int64)
        rows = [nothing, *(sample_indices(count, spec) for count in range(1, num_particles + 1))]
        self._rows = torch.as_tensor(np.stack(rows), device=device)
        self._low = torch.tensor(spec.crop_min, device=device)
        self._high = torch.tensor(spec.crop_max, device=device)
        # A tensor: by a Python number, a GPU divides by multiplying with the reciprocal, which rounds differently.
        self._voxel = torch.tensor([spec.voxel_m], device=device)

    def __call__(self, points: Tensor, present: Tensor) -> Tensor:
        """The points of the network, (num_envs, spec.num_points, 3) [m].

        points: (num_envs, num_particles, 3) [m], in the frame of the specification. present: (num_envs, num_particles)
        bool, rows that there are.
        """
        low, high = self._low.to(points.dtype), self._high.to(points.dtype)
        present = present & ((points >= low) & (points <= high)).all(dim=2)
        enough = present.sum(dim=1) >= self.spec.min_points
        if self.spec.voxel_m > 0.0:
            points, present = self._voxel_means(points, present)
        chosen = _present_first(present).gather(1, self._rows[present.sum(dim=1)])
        sampled = points.gather(1, chosen[..., None].expand(-1, -1, 3))
        return torch.where(enough[:, None, None], sampled, 0.5 * (low + high))

    def _voxel_means(self, points: Tensor, present: Tensor) -> tuple[Tensor, Tensor]:
        """The mean point of each occupied voxel, voxel after voxel along x, y, z; the other rows are not present."""
        cells = ((points.detach() - self._low.to(points.dtype)) / self._voxel.to(points.dtype)).long()
        keys = (cells[..., 0] << 42) | (cells[..., 1] << 21) | cells[..., 2]
        keys, order = torch.where(present, keys, _ABSENT).sort(dim=1, stable=True)
        new = torch.zeros_like(keys)
        new[:, 1:] = keys[:, 1:] != keys[:, :-1]
        voxel = new.cumsum(dim=1)
        counts = torch.zeros_like(keys).scatter_add(1, voxel, (keys != _ABSENT).long())
        by_voxel = points.gather(1, order[..., None].expand(-1, -1, 3)).double()
        sums = torch.zeros_like(by_voxel).scatter_add(1, voxel[..., None].expand(-1, -1, 3), by_voxel)
        means = sums / counts.clamp(min=1)[..., None]
        return means.to(points.dtype), counts > 0


def _present_first(present: Tensor) -> Tensor:
    """Indices of the rows that are present, in order, then zeros: (num_envs, rows) int64."""
    num_rows = present.shape[1]
    rows = torch.arange(num_rows, device=present.device).expand_as(present)
    place = torch.where(present, present.cumsum(dim=1) - 1, num_rows)  # the last column is thrown away
    order = torch.zeros(len(present), num_rows + 1, dtype=torch.int64, device=present.device)
    return order.scatter(1, place, rows)[:, :num_rows]
