"""Rotations as quaternions x y z w, batched and differentiable."""

import torch
from torch import Tensor


def rotate(quaternion: Tensor, vector: Tensor) -> Tensor:
    """Turn vectors (..., 3) by quaternions (..., 4)."""
    axis, w = quaternion[..., :3], quaternion[..., 3:]
    twice = 2.0 * torch.linalg.cross(axis, vector.expand_as(axis))
    return vector + w * twice + torch.linalg.cross(axis, twice)


def multiply(p: Tensor, q: Tensor) -> Tensor:
    """Product of quaternions (..., 4): the rotation q, then p."""
    (p_axis, p_w), (q_axis, q_w) = p.split((3, 1), dim=-1), q.split((3, 1), dim=-1)
    axis = p_w * q_axis + q_w * p_axis + torch.linalg.cross(p_axis, q_axis)
    return torch.cat((axis, p_w * q_w - (p_axis * q_axis).sum(dim=-1, keepdim=True)), dim=-1)


def conjugate(q: Tensor) -> Tensor:
    """The rotation back, of unit quaternions (..., 4)."""
    return torch.cat((-q[..., :3], q[..., 3:]), dim=-1)
