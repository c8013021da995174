"""How the steps of a window are kept for the way back, and how their launches are recorded and replayed.

A slot holds one control step: every substep's state. With *store-all* each control step of a window has its own
slot and the backward pass reads what the forward pass left. With *recompute* there is a single slot: the backward
pass replays a control step from its first state before it walks back. The kernels, and so the gradients, are the same.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass

import warp as wp

from rewarped_sim.engine.denormals import DenormalFlush

STORAGE_POLICIES = ("auto", "store", "recompute")


@dataclass(frozen=True)
class StoragePlan:
    """How many slots a window gets."""

    policy: str
    """`store` or `recompute`."""
    num_slots: int
    """Slots with a gradient. One more, the scratch slot, serves steps without one."""
    bytes_per_slot: int
    bytes_per_checkpoint: int
    """What `recompute` keeps of a control step: its first state."""
    horizon: int

    @property
    def total_bytes(self) -> int:
        """Memory of a whole window."""
        slots = (self.num_slots + 1) * self.bytes_per_slot
        return slots if self.policy == "store" else slots + self.horizon * self.bytes_per_checkpoint

    def describe(self) -> str:
        """One line for people."""
        gib = self.total_bytes / 2**30
        how = "every substep stored" if self.policy == "store" else "substeps recomputed in the backward pass"
        if self.num_slots == 0:
            how = "forward only"
        return f"trajectory memory {gib:.2f} GiB for a window of {self.horizon} control steps ({how})"


def plan_storage(
    *, bytes_per_slot: int, bytes_per_checkpoint: int, horizon: int, policy: str, budget_bytes: int
) -> StoragePlan:
    """Choose between storing and recomputing: store if the window fits the budget. A horizon of 0 needs no slot."""
    if policy not in STORAGE_POLICIES:
        raise ValueError(f"storage must be one of {list(STORAGE_POLICIES)}, got {policy!r}")
    if horizon < 0:
        raise ValueError(f"horizon must be >= 0, got {horizon}")
    if horizon == 0:
        return StoragePlan("store", 0, bytes_per_slot, bytes_per_checkpoint, 0)
    store = StoragePlan("store", horizon, bytes_per_slot, bytes_per_checkpoint, horizon)
    recompute = StoragePlan("recompute", 1, bytes_per_slot, bytes_per_checkpoint, horizon)
    if policy == "auto":
        return store if store.total_bytes <= budget_bytes else recompute
    return store if policy == "store" else recompute


class CapturedLaunches:
    """Sequences of kernel launches recorded once and replayed side by side.

    The parts must not depend on each other. On a CPU each runs on a thread of its own: replaying a graph leaves
    Python's lock free. On a GPU there is one part, on Warp's current stream.
    """

    def __init__(self, parts: Sequence[Callable[[], None]], device: wp.Device) -> None:
        self._graphs = []
        for part in parts:
            recorded = _without_denormals(part, device) if device.is_cpu else part
            recorded()  # compiles and loads the kernels, which a capture cannot
            with wp.ScopedCapture(device=device, force_module_load=False) as capture:
                recorded()
            self._graphs.append(capture.graph)
        self._threads = ThreadPoolExecutor(len(parts) - 1) if len(parts) > 1 else None

    def replay(self) -> None:
        """Run every part; on a CPU, return when all are done."""
        if self._threads is None:
            wp.capture_launch(self._graphs[0])
            return
        others = [self._threads.submit(wp.capture_launch, graph) for graph in self._graphs[1:]]
        wp.capture_launch(self._graphs[0])
        wait(others)
        for other in others:
            other.result()  # raises what the thread raised


def _without_denormals(part: Callable[[], None], device: wp.Device) -> Callable[[], None]:
    flush = DenormalFlush(device)

    def flushed() -> None:
        flush.begin()
        part()
        flush.end()

    return flushed
