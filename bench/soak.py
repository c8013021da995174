"""Half an hour of a robot's life in which nothing may grow: memory, descriptors, threads, the time of a tick.

    python -m bench soak --minutes 30

50 Hz with clouds of 77 thousand points at 15 Hz, as in `runner_latency`, while faults, stops and exchanges of policies
follow one another (`bench.ros.soaked_robot`). The runner's memory, descriptors and threads are read every second from
outside; how much of the memory is in use, by its own diagnostics. The rest is kept for the next cloud: it grows in
steps, whenever more large blocks than ever before are needed at once. Slopes are of straight lines through the medians
of ten-second windows, after a third of the time for warming up. Exit code 1 if in the measured time more memory would
come to be in use than `MAX_GROWTH_MB`, or be held than `MAX_KEPT_MB`, or descriptors or threads grew.
"""

import argparse
import os
import sys
import tempfile
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from numpy.typing import NDArray

from bench.exported_bundle import exported_bundle
from bench.report import table, write
from bench.runner_process import cores, heard, runner, save_image

IMAGE, CLOUD_HZ = (320, 240), 15.0
PICTURE = Path(__file__).parents[1] / "docs" / "pictures" / "soak.png"
SAMPLE_S, WINDOW_S = 1.0, 10.0
WARM_UP_SHARE = 1.0 / 3.0
"""The first few dozen exchanges of the policy fill what later ones find again."""
MAX_GROWTH_MB, MAX_KEPT_MB = 1.0, 16.0
TIMEOUTS = {"cloud_timeout_s": 0.5, "joint_state_timeout_s": 0.5}


@dataclass(frozen=True, kw_only=True)
class Sample:
    """The runner's process at one moment."""

    time_s: float
    memory_mb: float
    """Resident."""
    descriptors: int
    threads: int


def sample(pid: int, time_s: float) -> Sample:
    """Read /proc."""
    folder = Path(f"/proc/{pid}")
    pages = int((folder / "statm").read_text().split()[1])
    return Sample(
        time_s=time_s,
        memory_mb=pages * os.sysconf("SC_PAGESIZE") / 1e6,
        descriptors=len(os.listdir(folder / "fd")),
        threads=len(os.listdir(folder / "task")),
    )


class Watch:
    """Samples a process, from now on until it is told that it is over."""

    def __init__(self, pid: int) -> None:
        self.samples: list[Sample] = []
        self._pid, self._over = pid, threading.Event()
        self._thread = threading.Thread(target=self._look, name="watch", daemon=True)
        self._thread.start()

    def end(self) -> list[Sample]:
        """Stop, and return what was seen."""
        self._over.set()
        self._thread.join()
        return self.samples

    def _look(self) -> None:
        began_s = time.monotonic()
        while not self._over.wait(SAMPLE_S):
            self.samples.append(sample(self._pid, time.monotonic() - began_s))


def windows(values: list[float]) -> NDArray[np.float64]:
    """Return the medians of windows of `WINDOW_S`, after the warm-up; values come every `SAMPLE_S`."""
    size = round(WINDOW_S / SAMPLE_S)
    warm = values[round(WARM_UP_SHARE * len(values)) :]
    count = max(len(warm) // size, 1)
    return np.array([np.median(part) for part in np.array_split(warm, count)])


def growth(values: list[float]) -> float:
    """Return by how much a straight line through the windows rises from the first to the last one."""
    medians = windows(values)
    if len(medians) < 2:
        return 0.0
    slope = np.polyfit(np.arange(len(medians)), medians, 1)[0]
    return float(slope * (len(medians) - 1))


def series(diagnostics: list[dict[str, str]], name: str) -> list[float]:
    """Return a value of the diagnostics over time."""
    return [float(values[name]) for values in diagnostics if name in values]


def summary(samples: list[Sample], found: dict[str, Any]) -> dict[str, Any]:
    """One row: what was done, what grew, how the loop kept time."""
    memory, in_use = [entry.memory_mb for entry in samples], series(found["diagnostics"], "heap_in_use_mb")
    hours = len(windows(memory)) * WINDOW_S / 3600.0
    late = windows(series(found["diagnostics"], "tick_p99_ms"))
    quarter = max(len(late) // 4, 1)
    return {
        "minutes": round(found["seconds"] / 60.0, 1),
        "commands": found["published"],
        "events": sum(found["events"].values()),
        "memory_mb": float(windows(memory)[-1]),
        "memory_growth_mb": growth(memory),
        "in_use_mb": float(windows(in_use)[-1]),
        "in_use_growth_mb": growth(in_use),
        "in_use_mb_per_h": growth(in_use) / hours,
        "new_descriptors": round(growth([float(entry.descriptors) for entry in samples])),
        "new_threads": round(growth([float(entry.threads) for entry in samples])),
        "p99_first_quarter_ms": float(np.median(late[:quarter])),
        "p99_last_quarter_ms": float(np.median(late[-quarter:])),
    }


def draw(samples: list[Sample], diagnostics: list[dict[str, str]], path: Path) -> None:
    """Memory, descriptors and threads, and the tick's 99th percentile over time."""
    figure = Figure(figsize=(9.0, 6.0), layout="constrained")
    FigureCanvasAgg(figure)
    top, middle, bottom = figure.subplots(3, 1, sharex=True)
    minutes = [entry.time_s / 60.0 for entry in samples]
    top.plot(minutes, [entry.memory_mb for entry in samples], label="held")
    in_use = series(diagnostics, "heap_in_use_mb")
    top.plot(np.linspace(minutes[0], minutes[-1], len(in_use)), in_use, label="heap in use")
    top.set_ylabel("memory [MB]")
    top.legend()
    middle.plot(minutes, [entry.descriptors for entry in samples], label="descriptors")
    middle.plot(minutes, [entry.threads for entry in samples], label="threads")
    middle.legend()
    p99 = series(diagnostics, "tick_p99_ms")
    bottom.plot(np.linspace(minutes[0], minutes[-1], len(p99)), p99)
    bottom.set_ylabel("tick p99 [ms]")
    bottom.set_xlabel("time [min]")
    for axes in (top, middle, bottom):
        axes.set_ylim(bottom=0.0)
        axes.grid(alpha=0.3)
    path.parent.mkdir(exist_ok=True)
    figure.savefig(path, dpi=100)


def main() -> int:
    """Soak, report."""
    parser = argparse.ArgumentParser(prog="bench soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0, help="how long (default: 30)")
    options = parser.parse_args()
    runner_core, robot_core = cores()
    with tempfile.TemporaryDirectory(prefix="soak_") as name:
        folder = Path(name)
        bundles = [exported_bundle(folder / kind, seed=seed, name=kind) for seed, kind in enumerate("ab")]
        image = save_image(folder / "cloud.npy", *IMAGE)
        allowed = {"policy_dirs": f"['{folder}']", "vet_timeout_s": 60.0}
        with runner(bundles[0], folder / "runner.log", runner_core, **TIMEOUTS, **allowed) as process:
            watch = Watch(process.pid)
            found = heard("soaked_robot", robot_core, image, CLOUD_HZ, 60.0 * options.minutes, *bundles)
            samples = watch.end()
        samples = [entry for entry in samples if entry.time_s > 0.0]
    row = summary(samples, found)
    draw(samples, found["diagnostics"], PICTURE)
    last = found["diagnostics"][-1]
    counters = {key: int(last[key]) for key in last if key.startswith(("held_", "dropped_"))}
    every = max(round(WINDOW_S / SAMPLE_S), 1)
    write(
        "soak",
        [
            row
            | {"done": found["events"], "counters": counters, "series": [asdict(s) for s in samples[::every]]}
        ],
    )
    print(table([row]))
    print(f"{found['events']}\n{counters}\n{PICTURE}")
    grew = row["in_use_growth_mb"] > MAX_GROWTH_MB or row["memory_growth_mb"] > MAX_KEPT_MB
    return int(grew or row["new_descriptors"] > 0 or row["new_threads"] > 0)


if __name__ == "__main__":
    sys.exit(main())
