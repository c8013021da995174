"""What clouds of a depth camera cost the runner's control loop: 50 Hz, on one core, robot and camera on another.

    python -m bench runner_latency --seconds 30

The node runs in a process of its own with the shared-memory profile, as launched; the cloud is a wavy surface before a
depth camera, organised, 32 bytes a point, 8 % of them NaN, turned into the policy's frame, cropped and sampled. The
first row, a cloud of a hundred points, is what the machine does to the loop by itself.

`tick_*` is how long a tick took, by the runner's own diagnostics over their last ten seconds; `late_*` how long after
the beginning of its period a command was published; `missed` the ticks of which there was no command; `age_*` how old
a cloud was when a command computed from it was published; all but `missed` in milliseconds. Exit code 1 if 77 thousand
points bring the tick's 99th percentile above 10 ms, or any cloud more missed ticks than the first row has.
"""

import argparse
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from bench.exported_bundle import exported_bundle
from bench.report import table, write
from bench.runner_process import RATE_HZ, cores, heard, runner, save_image

IMAGES = ((10, 10), (100, 100), (320, 240), (640, 480))
CLOUD_HZ = (15.0, 30.0)
REACH_POINTS, REACH_MS = 320 * 240, 10.0


def lateness_ms(times_ns: list[int]) -> NDArray[np.float64]:
    """Return how long after the beginning of its period each command was published [ms].

    Where periods begin is told by the commands: just before those that came soonest, which is after the longest part of
    the period in which none ever comes.
    """
    places = np.mod(np.array(times_ns) * 1e-9 * RATE_HZ, 1.0)
    ordered = np.sort(places)
    gaps = np.diff(ordered, prepend=ordered[-1] - 1.0)
    return np.mod(places - ordered[np.argmax(gaps)], 1.0) * 1e3 / RATE_HZ


def row(points: int, cloud_hz: float, found: dict[str, Any], load: float) -> dict[str, Any]:
    """Return what came of one case."""
    commands = found["commands"]
    numbers, times_ns = [number for number, _, _ in commands], [sent_ns for _, sent_ns, _ in commands]
    late_ms, seconds = lateness_ms(times_ns), (times_ns[-1] - times_ns[0]) * 1e-9
    ticks_due, ticks_done = round(seconds * RATE_HZ) + 1, numbers[-1] - numbers[0] + 1
    by_policy = [(sent_ns, stamp_ns) for _, sent_ns, stamp_ns in commands if stamp_ns]
    age_ms = np.array([sent_ns - stamp_ns for sent_ns, stamp_ns in by_policy]) * 1e-6
    said = found["diagnostics"]
    ticks = {name: [float(values[f"tick_{name}_ms"]) for values in said] for name in ("p50", "p99", "max")}
    return {
        "points": points,
        "cloud_hz": cloud_hz,
        "ticks": ticks_due,
        "missed": ticks_due - ticks_done,
        "tick_p50": float(np.median(ticks["p50"])),
        "tick_p99": ticks["p99"][-1],
        "tick_max": max(ticks["max"]),
        "late_p50": float(np.median(late_ms)),
        "late_p99": float(np.quantile(late_ms, 0.99)),
        "late_max": float(late_ms.max()),
        "age_p50": float(np.median(age_ms)),
        "age_p99": float(np.quantile(age_ms, 0.99)),
        "age_max": float(age_ms.max()),
        "clouds_per_s": len({stamp_ns for _, stamp_ns in by_policy}) / seconds,
        "holding": len(commands) - len(by_policy),
        "load": round(load, 1),
    }


def main() -> int:
    """Measure every size at every rate, report."""
    parser = argparse.ArgumentParser(prog="bench runner_latency", description=__doc__)
    parser.add_argument("--seconds", type=float, default=30.0, help="of each case (default: 30)")
    options = parser.parse_args()
    runner_core, robot_core = cores()
    rows = []
    with tempfile.TemporaryDirectory(prefix="runner_latency_") as name:
        folder = Path(name)
        bundle = exported_bundle(folder / "bundle")
        for width, height in IMAGES:
            image = save_image(folder / "cloud.npy", width, height)
            for cloud_hz in CLOUD_HZ if rows else CLOUD_HZ[:1]:
                load = os.getloadavg()[0]
                with runner(bundle, folder / "runner.log", runner_core):
                    found = heard("robot_with_camera", robot_core, bundle, image, cloud_hz, options.seconds)
                rows.append(row(width * height, cloud_hz, found, load))
                print(table(rows[-1:]), flush=True)
    write("runner_latency", rows)
    print(table(rows))
    slow = any(r["points"] == REACH_POINTS and r["tick_p99"] > REACH_MS for r in rows)
    return int(slow or any(r["missed"] > rows[0]["missed"] for r in rows))


if __name__ == "__main__":
    sys.exit(main())
