"""Run every benchmark, or those named: `python -m bench [mpm_step ...]`."""

import argparse
import subprocess
import sys

BENCHMARKS = ("mpm_step", "articulation_step", "fem_step", "contact_laws", "gpu_code")


def main() -> int:
    """Run each benchmark in a process of its own, so that none inherits another's memory or threads."""
    parser = argparse.ArgumentParser(prog="bench", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], help=f"any of {', '.join(BENCHMARKS)}")
    names = parser.parse_args().names or BENCHMARKS
    for name in names:
        print(f"== {name}", flush=True)
        done = subprocess.run([sys.executable, "-m", f"bench.{name}"], check=False)
        if done.returncode:
            return done.returncode
    return 0


if __name__ == "__main__":
    sys.exit(main())
