"""What a run says when its device gives out: memory that is not there, or a GPU that is gone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

_NO_MEMORY = ("out of memory", "can't allocate memory", "Failed to allocate")
_LOST = ("CUDA error", "Warp CUDA error", "cudaError")


class OutOfMemoryError(RuntimeError):
    """The device has too little memory for the run."""


class DeviceLostError(RuntimeError):
    """The device failed; this process can do nothing with it any more."""


@contextmanager
def device_failures_explained() -> Iterator[None]:
    """Turn such errors of torch and Warp into OutOfMemoryError and DeviceLostError, which say what can be done."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        first_line = str(error).partition("\n")[0]
        if isinstance(error, (MemoryError, torch.OutOfMemoryError)) or _has(error, _NO_MEMORY):
            raise OutOfMemoryError(
                f"out of memory: {first_line}. Most of it goes into the window of physics, whose size is told when the "
                "run starts: take fewer envs (num_envs) or a shorter window (horizon). Checkpoints are whole; go on "
                "from the last one with resume"
            ) from error
        if isinstance(error, torch.AcceleratorError) or _has(error, _LOST):
            raise DeviceLostError(
                f"the device failed: {first_line}. Checkpoints are whole; once it is back, go on from the last one "
                "with resume"
            ) from error
        raise


def _has(error: BaseException, marks: tuple[str, ...]) -> bool:
    return any(mark in str(error) for mark in marks)
