"""Exchange the policy of a running control loop a thousand times, and see whether the loop or the command notices.

    python -m bench hot_swaps --swaps 1000

Two policies with the same contract, as training exports them, take turns at 50 Hz while a thread beside the loop, as in
the node, opens the next one; every fiftieth is first read and vetted anew in a child process. The robot does as it is
told. First, the same loop runs without any swaps: what the machine does to it alone. Loop and network have the node's
real-time priorities, where the system allows it.

Exit code 1 if a tick was missed, a command left the limits, or memory grew.
"""

import argparse
import gc
import os
import sys
import tempfile
import threading
import time
import weakref
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

from bench.exported_bundle import exported_bundle
from bench.fuzz_bundles import memory_bytes
from bench.report import table, write
from policy_runner.bundle import Bundle, read_bundle
from policy_runner.clock import now_s
from policy_runner.controller import Controller
from policy_runner.inference import InferenceThread, Policy
from policy_runner.inputs import CloudSample, JointSample
from policy_runner.quiet_process import keep_ticks_short
from policy_runner.realtime import be_as_nice_as_the_process, current_priority, go_first
from policy_runner.safety import ArmError, Mode
from policy_runner.settings import RunnerSettings
from policy_runner.vet import VetLimits, load_vetted

RATE_HZ = 50.0
TICKS_PER_SWAP = 3
VET_EVERY = 50
SETTINGS = RunnerSettings(
    rate_hz=RATE_HZ,
    ramp_in_s=0.0,
    cloud_timeout_s=10.0,  # what is asked is whether a swap delays the loop, not what the loop then does
    joint_state_timeout_s=10.0,
    inference_budget_s=0.02,
    deadline_miss_limit=1000,
)
MEMORY_EVERY = 100
"""Swaps between two measurements of memory; the first one comes after as many, when caches are filled."""
MAX_GROWTH_BYTES = 16 << 20


@dataclass(kw_only=True)
class Record:
    """What was seen of a loop."""

    swaps: int = 0
    late_s: list[float] = field(default_factory=list)
    """How long after its time each tick began [s]."""
    took_s: list[float] = field(default_factory=list)
    """How long each tick took, swap included [s]."""
    swap_s: list[float] = field(default_factory=list)
    """How long the loop spent on each swap [s]."""
    largest_step: float = 0.0
    """Largest change of a command between two ticks, as a share of what the top speed allows."""
    beyond_limits: int = 0
    """Commands that were not finite or outside the position limits."""
    memory_bytes: list[int] = field(default_factory=list)
    """Of this process, after every hundredth swap."""

    @property
    def missed(self) -> int:
        """Ticks that ended after the next one was due."""
        return sum(late + took > 1.0 / RATE_HZ for late, took in zip(self.late_s, self.took_s, strict=True))

    def row(self, loop: str) -> dict[str, Any]:
        """Return what there is to tell, as one row of the table."""
        took_ms = 1e3 * np.array(self.took_s)
        return {
            "loop": loop,
            "ticks": len(self.took_s),
            "swaps": self.swaps,
            "missed ticks": self.missed,
            "tick p50 [ms]": float(np.median(took_ms)),
            "tick p99 [ms]": float(np.quantile(took_ms, 0.99)),
            "tick max [ms]": float(took_ms.max()),
            "largest step / limit": self.largest_step,
            "commands beyond limits": self.beyond_limits,
        }


def threaded(policy: Policy) -> InferenceThread:
    """Put a policy into a thread, as the node does."""
    budget_s, priority = SETTINGS.inference_budget(policy.contract), SETTINGS.realtime_priority - 1
    return InferenceThread(policy, budget_s=budget_s, priority=priority)


class Robot:
    """The loop, its controller, and a robot that does as it is told."""

    def __init__(self, bundle: Bundle) -> None:
        action = bundle.contract.action
        self.network = threaded(Policy(bundle))
        self.controller = Controller(self.network, SETTINGS)
        self._lower, self._upper = np.array(action.lower), np.array(action.upper)
        self._most = np.array(action.max_velocity) / RATE_HZ
        self._position = np.array(bundle.contract.default_joint_pos)
        spec = bundle.contract.point_cloud
        assert spec is not None
        size = np.array(spec.crop_max) - spec.crop_min
        chance = np.random.default_rng(0)
        self._clouds = (spec.crop_min + size * chance.random((50, spec.num_points, 3))).astype(np.float32)

    def swap(self, network: InferenceThread) -> None:
        """Exchange the policy, as the node does."""
        self.controller.swap(network)
        self.network.close()
        self.network = network

    def tick(self, record: Record) -> None:
        """Sense, decide, move."""
        time_s, stamp_ns = now_s(), time.time_ns()
        cloud = self._clouds[self.controller.loop.ticks % len(self._clouds)]
        self.controller.set_cloud(CloudSample(points=cloud, stamp_ns=stamp_ns, arrival_s=time_s))
        self.controller.set_joints(
            JointSample(position=self._position, velocity=None, stamp_ns=stamp_ns, arrival_s=time_s)
        )
        if self.controller.mode is not Mode.RUNNING and self.controller.at_rest:
            try:
                self.controller.arm()
            except ArmError:
                return
        command = self.controller.tick()
        if command is None:
            return
        values = command.values
        inside = np.isfinite(values).all() and (values >= self._lower).all() and (values <= self._upper).all()
        record.beyond_limits += not inside
        record.largest_step = max(
            record.largest_step, float((np.abs(values - self._position) / self._most).max())
        )
        self._position = values.copy()


class Loader:
    """Opens one policy after the other in a thread, each as soon as the one before was taken."""

    def __init__(self, folders: list[Path], *, swaps: int) -> None:
        self.ready: SimpleQueue[InferenceThread] = SimpleQueue()
        self.swaps, self.vetted = swaps, 0
        self.policies: weakref.WeakSet[Policy] = weakref.WeakSet()
        """Those that are still in memory."""
        self._folders = folders
        self._wanted = threading.Semaphore(1)
        self._thread = threading.Thread(target=self._load, name="load_policy", daemon=True)
        self._thread.start()

    def _load(self) -> None:
        be_as_nice_as_the_process()
        bundles = [read_bundle(folder) for folder in self._folders]
        for number in range(self.swaps):
            self._wanted.acquire()
            bundle = bundles[(number + 1) % len(bundles)]
            if number % VET_EVERY == 0:
                bundle = load_vetted(bundle.path, VetLimits(wall_s=60.0))
                self.vetted += 1
            policy = Policy(bundle)
            self.policies.add(policy)
            self.ready.put(threaded(policy))
            del policy  # it would be held until the next one

    def taken(self) -> None:
        """Let it open the next one."""
        self._wanted.release()


def run(robot: Robot, ticks: int, loader: Loader | None = None) -> Record:
    """Tick at `RATE_HZ`; with a loader, exchange the policy every `TICKS_PER_SWAP` ticks, as soon as one is ready."""
    record, period_s = Record(), 1.0 / RATE_HZ
    due_s, number, since = time.monotonic() + period_s, 0, 0
    while number < ticks or (loader is not None and record.swaps < loader.swaps):
        time.sleep(max(due_s - time.monotonic(), 0.0))
        began_s = time.monotonic()
        record.late_s.append(began_s - due_s)
        since += 1
        if loader is not None and since >= TICKS_PER_SWAP and not loader.ready.empty():
            robot.swap(loader.ready.get())
            record.swap_s.append(time.monotonic() - began_s)
            record.swaps, since = record.swaps + 1, 0
            loader.taken()
            if record.swaps % MEMORY_EVERY == 0:
                record.memory_bytes.append(memory_bytes("resident"))
        robot.tick(record)
        ended_s = time.monotonic()
        record.took_s.append(ended_s - began_s)
        due_s = max(due_s + period_s, ended_s)  # what is lost is lost: no burst of ticks to catch up
        number += 1
    return record


def main() -> int:
    """Run both loops and report."""
    parser = argparse.ArgumentParser(prog="bench hot_swaps", description=__doc__)
    parser.add_argument("--swaps", type=int, default=1000, help="exchanges of the policy (default: 1000)")
    parser.add_argument("--ticks", type=int, default=1000, help="of the loop without swaps (default: 1000)")
    options = parser.parse_args()
    keep_ticks_short()
    with tempfile.TemporaryDirectory(prefix="hot_swaps_") as parent:
        folders = [
            exported_bundle(Path(parent) / name, seed=seed, name=name) for seed, name in enumerate("ab")
        ]
        print(go_first(SETTINGS.realtime_priority) or "real-time priority: granted")
        robot = Robot(read_bundle(folders[0]))
        alone = run(robot, options.ticks)
        descriptors = len(os.listdir("/proc/self/fd"))
        loader = Loader(folders, swaps=options.swaps)
        swapped = run(robot, 0, loader)
        time.sleep(0.5)  # threads of policies that were closed end by themselves
        gc.collect()
    rows = [alone.row("alone"), swapped.row("with swaps")]
    growth_bytes = swapped.memory_bytes[-1] - swapped.memory_bytes[0] if swapped.memory_bytes else 0
    details = {
        "realtime priority": current_priority(),
        "vetted anew": loader.vetted,
        "swap p50 [ms]": 1e3 * float(np.median(swapped.swap_s)),
        "swap max [ms]": 1e3 * max(swapped.swap_s),
        "most ticks missed in a row": _longest_run(swapped),
        "memory growth [MiB]": growth_bytes / 2**20,
        "memory [MiB]": [round(value / 2**20, 1) for value in swapped.memory_bytes],
        "policies in memory": len(loader.policies),
        "new descriptors": len(os.listdir("/proc/self/fd")) - descriptors,
        "threads": threading.active_count(),
        "holds": {reason.value: count for reason, count in robot.controller.holds.items()},
    }
    write("hot_swaps", [rows[0], rows[1] | details])
    print(table(rows))
    print("\n".join(f"{name}: {value}" for name, value in details.items()))
    jumped = max(alone.largest_step, swapped.largest_step) > 1.0 + 1e-9 or swapped.beyond_limits > 0
    grew = growth_bytes > MAX_GROWTH_BYTES or len(loader.policies) > 1
    return int(swapped.missed > 0 or jumped or grew)


def _longest_run(record: Record) -> int:
    longest = current = 0
    for late, took in zip(record.late_s, record.took_s, strict=True):
        current = current + 1 if late + took > 1.0 / RATE_HZ else 0
        longest = max(longest, current)
    return longest


if __name__ == "__main__":
    sys.exit(main())
