"""Random numbers without state: a pure function of (seed, env, episode, index).

What env i draws in its k-th episode depends on nothing else, neither on the other envs nor on how far they are, so
batches of any size agree, resets need no host, and resuming needs no generator to be saved.
"""

from typing import TypeVar

import torch
from torch import Tensor

_MASK = 0xFFFFFFFF


_Bits = TypeVar("_Bits", int, Tensor)


def _mix(value: _Bits) -> _Bits:
    """Finaliser of MurmurHash3 on 32 bits (an int64 tensor's products wrap modulo 2^64; the mask keeps 32 bits)."""
    value = ((value ^ (value >> 16)) * 0x85EBCA6B) & _MASK
    value = ((value ^ (value >> 13)) * 0xC2B2AE35) & _MASK
    return value ^ (value >> 16)


def uniform(seed: int, episode: Tensor, count: int, *, first_env: int = 0) -> Tensor:
    """Uniform numbers in [0, 1), (num_envs, count) float32.

    seed: any int. episode: (num_envs,) int64 >= 0, how many episodes each env has begun. first_env: the
    number of the first of these envs, where they are a share of more.
    """
    device = episode.device
    env = first_env + torch.arange(len(episode), device=device)
    state = _mix((env + _mix(seed & _MASK)) & _MASK)
    state = _mix((state + episode + _mix(episode >> 32) + _mix(seed >> 32 & _MASK)) & _MASK)
    index = torch.arange(count, device=device)
    bits = _mix((_mix(state[:, None] ^ (index + 0x9E3779B9)[None]) + state[:, None]) & _MASK)
    return (bits >> 8).to(torch.float32) * 2.0**-24
