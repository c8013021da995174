"""Data parallelism: several processes, called ranks, that together are one learner.

Rank r of R has the envs r N to (r + 1) N - 1 of the R N envs of a run. Every rank draws the random numbers of all envs
and takes its own; gradients are averaged before each step. So R ranks of N envs learn what one process with R N envs
does, but for the rounding of sums, and all of them hold the same networks at any time.
"""

from __future__ import annotations

import importlib
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from typing import Any, TypeVar, cast

import torch
import torch.distributed as dist
from torch import Tensor
from torch.distributed.distributed_c10d import PrefixStore, Store
from torch.distributed.rendezvous import rendezvous

TIMEOUT_S = 600.0
"""How long a rank waits for the others before it takes them for dead: rank 0 may be trying out a policy meanwhile.
One that really died is noticed at once, by its connections."""
_CPU = torch.device("cpu")
_SURVIVORS_TIME_S = 3.0
"""How long those who noticed a death wait for each other, to find out who is missing."""

T = TypeVar("T")


class RankLostError(RuntimeError):
    """Other ranks died, hang, or cannot be reached; the message names them."""


class Ranks:
    """One process by itself: nothing is shared, nothing is waited for. `Group` is what several of them share.

    Whatever a method of it does together with the others must be called by all ranks in the same order.
    """

    rank = 0
    """The number of this process, from 0."""
    size = 1
    """How many there are."""
    local_rank = 0
    """The number of this process among those on the same machine."""

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which owns everything that a run writes and shows."""
        return self.rank == 0

    # ---- what each can do alone ----------------------------------------------------------------------------

    def own(self, tensor: Tensor, dim: int) -> Tensor:
        """Return this rank's share of what was drawn for all envs; they lie along `dim`."""
        return tensor.chunk(self.size, dim)[self.rank]

    def own_samples(self, samples: Tensor, num_envs: int) -> Tensor:
        """Return those of a minibatch that lie in own envs, as indices into the own window.

        samples: flat indices into (H, size * num_envs). Returns flat indices into (H, num_envs), fewer of them.
        """
        return samples

    def part_of_mean(self, own: Tensor, count: int) -> Tensor:
        """Return what, averaged over the ranks, is the mean of `count` elements, of which `own` are here; a scalar."""
        return own.mean()

    # ---- what takes all of them -----------------------------------------------------------------------------

    def average_(self, tensors: Sequence[Tensor]) -> None:
        """Replace each tensor by its mean over the ranks, which is the same on all to the last bit."""

    def gather(self, tensor: Tensor, dim: int) -> Tensor:
        """Return the tensors of all ranks along `dim`, in their order; the inverse of `own`. No gradient."""
        return tensor

    def any(self, flag: bool) -> bool:
        """Tell whether the flag is true on any rank. It lies on the host: the device is not waited for."""
        return flag

    def on_first(self, function: Callable[[], T]) -> T:
        """Call a function on rank 0 alone; all get what it returns, or raise what it raises."""
        return function()

    def collect(self, value: Any) -> Any:
        """Return what a checkpoint holds of a value that each rank has its own of; `pick` takes it back."""
        return value

    def pick(self, collected: Any) -> Any:
        """Return this rank's value. Raises ValueError if as many ranks as there are now did not save it."""
        saved_by = len(collected) if isinstance(collected, list) else 1
        if saved_by != self.size:
            raise ValueError(
                f"saved by {saved_by} rank(s), and this run has {self.size}; "
                f"resume it with torchrun --nproc-per-node {saved_by}, or on as many in all"
            )
        return collected[self.rank] if isinstance(collected, list) else collected


SINGLE = Ranks()
"""A process by itself."""


class Group(Ranks):
    """The ranks that torchrun has started, joined by `torch.distributed`."""

    def __init__(self, store: Store, *, rank: int, size: int, local_rank: int) -> None:
        """Take over the present default process group. store: outlives ranks that die."""
        self.rank, self.size, self.local_rank = rank, size, local_rank
        self._store = store

    def own_samples(self, samples: Tensor, num_envs: int) -> Tensor:
        """See `Ranks`."""
        step = samples // (self.size * num_envs)
        env = samples % (self.size * num_envs) - self.rank * num_envs
        return (step * num_envs + env)[(env >= 0) & (env < num_envs)]

    def part_of_mean(self, own: Tensor, count: int) -> Tensor:
        """See `Ranks`."""
        return own.sum() * (self.size / count)  # there may be none here

    def average_(self, tensors: Sequence[Tensor]) -> None:
        """See `Ranks`."""
        flat = torch.cat([tensor.detach().flatten() for tensor in tensors])
        with self._losses_named():
            dist.all_reduce(flat)
        flat /= self.size
        for tensor, mean in zip(tensors, flat.split([tensor.numel() for tensor in tensors]), strict=True):
            tensor.detach().copy_(mean.view_as(tensor))

    def gather(self, tensor: Tensor, dim: int) -> Tensor:
        """See `Ranks`."""
        # A sum with zeros elsewhere is what every backend can do, and exact.
        own = tensor.detach().byte() if tensor.dtype == torch.bool else tensor.detach()
        whole = torch.cat([own if r == self.rank else torch.zeros_like(own) for r in range(self.size)], dim)
        with self._losses_named():
            dist.all_reduce(whole)
        return whole.to(tensor.dtype)

    def any(self, flag: bool) -> bool:
        """See `Ranks`."""
        flags = torch.tensor([flag], dtype=torch.uint8)
        with self._losses_named():
            dist.all_reduce(flags, dist.ReduceOp.MAX)
        return bool(flags)

    def on_first(self, function: Callable[[], T]) -> T:
        """See `Ranks`."""
        said: list[Any] = [None, None]
        if self.is_first:
            try:
                said[0] = function()
            except Exception as error:
                said[1] = error
        with self._losses_named():
            dist.broadcast_object_list(said, device=_CPU)
        if said[1] is not None:
            raise said[1]
        return cast("T", said[0])

    def collect(self, value: Any) -> Any:
        """See `Ranks`: a list with the value of each rank, on the CPU; it is needed, and complete, on rank 0 only."""
        collected: list[Any] = [None] * self.size
        with self._losses_named():
            dist.gather_object(_on_cpu(value), collected if self.is_first else None)
        return collected

    @contextmanager
    def _losses_named(self) -> Iterator[None]:
        try:
            yield
        except RuntimeError as error:
            raise RankLostError(f"{self._missing()} ({' '.join(str(error).split())})") from error

    def _missing(self) -> str:
        """Say which ranks do not say in time that they are still there."""
        alone = "rank 0, or the machine that the run was started from, ended or cannot be reached"
        try:
            self._store.set(f"survivor/{self.rank}", "")
            if dist.get_backend() == "gloo":
                dist.destroy_process_group()  # wakes up those who wait for this rank, and not for the missing one
            deadline = time.monotonic() + _SURVIVORS_TIME_S
            while missing := [r for r in range(self.size) if not self._store.check([f"survivor/{r}"])]:
                if time.monotonic() > deadline:
                    return f"rank {', '.join(map(str, missing))} of {self.size} ended or does not answer"
                time.sleep(0.05)
        except RuntimeError:
            return alone
        return "the connection between the ranks broke"


@contextmanager
def joined() -> Iterator[Ranks]:
    """Join the other ranks that torchrun has started; without torchrun, or with one rank only, it is `SINGLE`.

    Tensors on the CPU go through gloo. Those on GPUs go through NCCL if each rank here can have a GPU of its own, else
    through gloo too. Raises RankLostError when the others do not come.
    """
    size = int(os.environ.get("WORLD_SIZE", "1")) if dist.is_torchelastic_launched() else 1
    if size == 1:
        yield SINGLE
        return
    # What optimisers import when the first is made has the default group of that moment as default arguments. It would
    # keep the group, with its threads, until the interpreter ends, and one of those that wants it then aborts the rank.
    importlib.import_module("torch._dynamo")
    own_gpus = dist.is_nccl_available() and torch.cuda.device_count() >= int(os.environ["LOCAL_WORLD_SIZE"])
    timeout = timedelta(seconds=TIMEOUT_S)
    try:
        store, rank, size = next(rendezvous("env://", timeout=timeout))
        dist.init_process_group(
            "cpu:gloo,cuda:nccl" if own_gpus else "gloo",
            store=PrefixStore("group", store),
            rank=rank,
            world_size=size,
            timeout=timeout,
        )
        group = Group(store, rank=rank, size=size, local_rank=int(os.environ["LOCAL_RANK"]))
    except RuntimeError as error:
        raise RankLostError(f"the ranks did not find each other: {' '.join(str(error).split())}") from error
    try:
        yield group
    finally:
        if dist.is_initialized():
            dist.destroy_process_group()


def _on_cpu(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.cpu()
    if isinstance(value, dict):
        return {name: _on_cpu(inner) for name, inner in value.items()}
    return value
