"""Feed the cloud chain legal clouds, clouds that lie and noise: read exactly or refused, and memory stays flat.

    python -m bench fuzz_clouds --inputs 100000

Every cloud is decoded and compared, value by value, with what `struct` reads; then it goes through the whole chain, of
a random specification, under a random transform. Any exception but a `CloudError`, any wrong point and any growth
beyond 10 MB ends it with exit code 1.
"""

import argparse
import os
import random
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from bench.cloud_mutations import KINDS, MAKERS, read_by_hand
from bench.report import table, write
from policy_runner.contract import PointCloudSpec
from policy_runner.pointcloud import CloudError, Points, decode, preprocess

WARM_UP = 2000
"""Inputs before memory is looked at."""
MAX_GROWTH_MB = 10.0


class WrongPointsError(AssertionError):
    """A cloud was read, but not as it is, or refused although there is nothing wrong with it."""


def feed(seed: int, number: int) -> tuple[str, str]:
    """Make input `number`, send it through the chain, and return its kind and what became of it.

    Raises:
        WrongPointsError: see there.
    """
    chance = random.Random(f"{seed} {number}")
    kind = chance.choice(KINDS)
    cloud = MAKERS[kind](chance)
    expected = read_by_hand(cloud)
    try:
        points = decode(cloud)
    except CloudError as error:
        if expected is not None:
            raise WrongPointsError(f"input {number}, {kind}: refused a good cloud: {error}") from error
        return kind, "refused"
    wanted = None if expected is None else np.array(expected, np.float32).reshape(-1, 3)
    if wanted is None or not np.array_equal(points, wanted, equal_nan=True):
        raise WrongPointsError(f"input {number}, {kind}: expected {expected}, read {points.tolist()}")
    few = decode(cloud, max_points=chance.randint(1, 30))
    if not {row.tobytes() for row in few} <= {row.tobytes() for row in points}:
        raise WrongPointsError(f"input {number}, {kind}: thinning has changed points")
    return kind, _through_the_chain(points, chance, number)


def _through_the_chain(points: Points, chance: random.Random, number: int) -> str:
    spec = PointCloudSpec(
        frame="world",
        crop_min=(-1.0, -0.5, -2.0),
        crop_max=(1.5, 1.0, 2.0),
        num_points=chance.choice([1, 8, 50]),
        voxel_m=chance.choice([0.0, 0.05, 3.0]),
        sampler=chance.choice(["stride", "random", "farthest"]),
        seed=number,
        min_points=chance.choice([1, 5]),
    )
    transform = np.eye(4)
    transform[:3] += [[chance.choice([0.0, 0.0, chance.gauss(0.0, 0.3)]) for _ in range(4)] for _ in range(3)]
    try:
        seen = preprocess(points, spec, chance.choice([None, transform]))
    except CloudError:
        return "read, too few points"
    low, high = np.array(spec.crop_min) - 1e-5, np.array(spec.crop_max) + 1e-5
    inside = ((seen >= low) & (seen <= high)).all()
    if seen.shape != (spec.num_points, 3) or seen.dtype != np.float32 or not inside:
        raise WrongPointsError(f"input {number}: the network would see {seen.tolist()}")
    return "read"


def rss_mb() -> float:
    """Memory of this process [MB]."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def main() -> int:
    """Feed, count, report."""
    parser = argparse.ArgumentParser(prog="bench fuzz_clouds", description=__doc__)
    parser.add_argument("--inputs", type=int, default=100_000, help="so many (default: 100000)")
    parser.add_argument("--seed", type=int, default=0, help="of the inputs (default: 0)")
    options = parser.parse_args()
    outcomes: Counter[tuple[str, str]] = Counter()
    escaped, before_mb, started_s = 0, 0.0, time.monotonic()
    for number in range(options.inputs):
        if number == min(WARM_UP, options.inputs // 2):
            before_mb = rss_mb()
        try:
            outcomes[feed(options.seed, number)] += 1
        except Exception as error:  # the point of it all: there must be none
            escaped += 1
            print(f"input {number}: {error!r}", file=sys.stderr)
    growth_mb = rss_mb() - before_mb
    rows: list[dict[str, Any]] = [
        {"clouds": kind}
        | {what: outcomes[kind, what] for what in ("read", "read, too few points", "refused")}
        for kind in KINDS
    ]
    total = {
        "inputs": options.inputs,
        "seed": options.seed,
        "escaped_or_wrong": escaped,
        "memory_growth_mb": round(growth_mb, 2),
        "seconds": round(time.monotonic() - started_s, 1),
    }
    write("fuzz_clouds", [*rows, total])
    print(table(rows), table([total]), sep="\n\n")
    return int(escaped > 0 or growth_mb > MAX_GROWTH_MB)


if __name__ == "__main__":
    sys.exit(main())
