"""Tell whether two states are the same to the last bit: those of a learner, an env, an optimiser."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor


def state_sha256(state: Any) -> str:
    """Return the sha256 of a state: names, shapes, types and every bit of every value.

    state: tensors and plain values in dicts, lists and tuples. The file that `torch.save` makes of it would not do: it
    also depends on which of two equal objects is the same one.
    """
    digest = hashlib.sha256()
    for path, value in _leaves(state, ""):
        if isinstance(value, Tensor):
            digest.update(f"{path} {value.dtype} {tuple(value.shape)}\n".encode())
            digest.update(value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().tobytes())
        else:
            digest.update(f"{path} {type(value).__name__} {value!r}\n".encode())
    return digest.hexdigest()


def _leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, dict):
        yield path, sorted(map(str, value))
        for key in sorted(value, key=str):
            yield from _leaves(value[key], f"{path}/{key}")
    elif isinstance(value, (list, tuple)):
        yield path, len(value)
        for index, item in enumerate(value):
            yield from _leaves(item, f"{path}/{index}")
    else:
        yield path, value
