"""Check a bundle in a process of its own, with bounded memory and time, before this process opens its models.

Parsing and running a model from elsewhere can exhaust memory, hang or crash the process that does it. The
child reads and checks the whole bundle; the parent then uses the bytes that it has read itself, and only if
their digest is the one that the child has checked.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

import policy_runner
from policy_runner.bundle import Bundle, BundleError, load_bundle, read_bundle


@dataclass(frozen=True, kw_only=True)
class VetLimits:
    """What the checking process may use."""

    memory_bytes: int = 4 << 30
    """Address space; the libraries alone take 0.2 GiB of it."""
    cpu_s: int = 10
    """Processor time [s]; a good bundle takes under one."""
    wall_s: float = 10.0
    """Time by the clock [s]."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not value > 0:
                raise ValueError(f"{name} must be > 0, got {value}")


def load_vetted(path: str | os.PathLike[str], limits: VetLimits | None = None) -> Bundle:
    """Have a bundle checked by a child process, then read it.

    Raises:
        BundleError: the bundle is refused, the check ran out of memory or time, or the files changed
        meanwhile.
    """
    limits = limits or VetLimits()
    folder = Path(path).absolute()
    bundle = read_bundle(folder)  # cheap, opens no model, and says at once what most often is wrong
    package_folder = str(Path(policy_runner.__file__).parent.parent)
    search_path = os.pathsep.join(filter(None, (package_folder, os.environ.get("PYTHONPATH"))))
    try:
        child = subprocess.run(
            [
                sys.executable,
                "-m",
                "policy_runner.vet",
                str(folder),
                str(limits.memory_bytes),
                str(limits.cpu_s),
            ],
            env=dict(os.environ, PYTHONPATH=search_path),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=limits.wall_s,
            start_new_session=True,  # a Ctrl-C in the terminal is for the parent to handle
        )
    except subprocess.TimeoutExpired as error:
        raise BundleError(f"{folder}: the check took longer than {limits.wall_s} s") from error
    if child.returncode < 0:
        name = signal.Signals(-child.returncode).name
        raise BundleError(f"{folder}: the check was ended by {name}; limits: {limits}")
    try:
        verdict = json.loads(child.stdout)
    except json.JSONDecodeError as error:
        last_line = (child.stderr.decode(errors="replace").strip().splitlines() or ["no output"])[-1]
        raise BundleError(f"{folder}: the check failed with code {child.returncode}: {last_line}") from error
    if "refused" in verdict:
        raise BundleError(verdict["refused"])
    if verdict["digest"] != bundle.digest:
        raise BundleError(f"{folder}: changed while it was checked")
    return bundle


def main(arguments: list[str]) -> int:
    """Check a bundle and print a JSON verdict; arguments: folder, memory [bytes], processor time [s]."""
    folder, memory_bytes, cpu_s = arguments[0], int(arguments[1]), int(arguments[2])
    resource.setrlimit(resource.RLIMIT_AS, (memory_bytes, memory_bytes))
    resource.setrlimit(resource.RLIMIT_CPU, (cpu_s, cpu_s + 1))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    try:
        verdict = {"digest": load_bundle(folder).digest}
    except BundleError as error:
        verdict = {"refused": str(error)}
    except MemoryError:
        verdict = {"refused": f"{folder}: the check needs more than {memory_bytes} bytes of memory"}
    print(json.dumps(verdict))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
