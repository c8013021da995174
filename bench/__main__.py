"""Run every benchmark, or those named: `python -m bench [mpm_step ...]`; the long ones only if named."""

import argparse
import subprocess
import sys

BENCHMARKS = (
    "mpm_step",
    "articulation_step",
    "fem_step",
    "contact_laws",
    "gpu_code",
    "learner_epoch",
    "vision",
    "recording",
    "cloud_chain",
    "transport",
)
LONG = (
    "deployed_return",
    "faults",
    "fuzz_bundles",
    "fuzz_clouds",
    "hot_swaps",
    "kill_resume",
    "learning_extras",
    "runner_latency",
    "scale_out",
    "soak",
    "vision_training",
)


def main() -> int:
    """Run each benchmark in a process of its own, so that none inherits another's memory or threads."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    known = BENCHMARKS + LONG
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"any of {', '.join(known)}")
    options, rest = parser.parse_known_args()  # the rest is for the benchmark, if it takes any
    if unknown := [name for name in options.names if name not in known]:
        parser.error(f"unknown benchmark {unknown[0]!r}; known: {list(known)}")
    names = options.names or BENCHMARKS
    for name in names:
        print(f"== {name}", flush=True)
        done = subprocess.run([sys.executable, "-m", f"bench.{name}", *rest], check=False)
        if done.returncode:
            return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
