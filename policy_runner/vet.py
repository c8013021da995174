"""Check a bundle in a process of its own, with bounded resources, before this process opens its models.

Parsing and running a model from elsewhere can exhaust memory, hang or crash the process that does it. The
parent reads the files once and hands these very bytes to the child, which opens no file of the bundle and knows
no path to it; whatever happens to the folder meanwhile, what was checked is what is used.

The child may not write more than a few lines, open more than a few files, outlive its time or, unless run by
root, start other processes. It inherits next to no environment. Any end of it other than an orderly answer is a
refusal.
"""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO

import policy_runner
from policy_runner.allowed import AllowedBundles
from policy_runner.bundle import MANIFEST, POLICY, Bundle, BundleError, assemble, read_bundle
from policy_runner.model_cost import ModelCost

MAX_OUTPUT_BYTES = 1 << 16
"""Of the child's answer, and of its complaints."""
MAX_OPEN_FILES = 64
NICENESS = 5
"""The child makes way for the control loop, which may share a processor with it."""

_ENVIRONMENT = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
_INHERITED = ("LD_LIBRARY_PATH",)
_PROGRAM = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); "
    "from policy_runner.vet import main; sys.exit(main(sys.argv[2]))"
)


@dataclass(frozen=True, kw_only=True)
class VetLimits:
    """What the checking process may use."""

    memory_bytes: int = 1 << 30
    """Address space; libraries and a small model take 0.3 GiB of it."""
    cpu_s: int = 10
    """Processor time [s]; a good bundle takes under one."""
    wall_s: float = 10.0
    """Time by the clock [s]."""

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if not value > 0:
                raise ValueError(f"{name} must be > 0, got {value}")


def load_vetted(
    path: str | os.PathLike[str], limits: VetLimits | None = None, allowed: AllowedBundles | None = None
) -> Bundle:
    """Read a bundle and have what was read checked by a child process.

    allowed: which bundles are taken at all; None: any.

    Raises:
        BundleError: the bundle is refused, or the check ran out of memory or time.
    """
    bundle = read_bundle(path, allowed)  # opens no model, and says at once what most often is wrong
    vet(bundle, limits)
    return bundle


def vet(bundle: Bundle, limits: VetLimits | None = None) -> ModelCost:
    """Have a bundle checked by a child process; return what its policy takes there.

    Raises:
        BundleError: the bundle is refused, or the check ran out of memory or time.
    """
    match answer := _ask_child(bundle, limits or VetLimits()):
        case {"refused": str(reason)}:
            raise BundleError(reason)
        case {"digest": bundle.digest, "open_s": float(open_s), "step_s": float(step_s)}:
            return ModelCost(open_s=open_s, step_s=step_s)
    raise BundleError(f"{bundle.path}: the check gave no verdict on {bundle.digest}: {answer}")


def _ask_child(bundle: Bundle, limits: VetLimits) -> object:
    # memory files instead of pipes: the child's limit on the size of files holds for them, and no process that may
    # have survived the child can keep anybody waiting at the other end
    with (
        _memory_file("question") as question,
        _memory_file("answer") as answer,
        _memory_file("complaints") as complaints,
    ):
        question.writelines(_parts(bundle))
        question.seek(0)
        child = subprocess.Popen(
            [sys.executable, "-I", "-S", "-B", "-c", _PROGRAM, _search_path(), json.dumps(asdict(limits))],
            env=_ENVIRONMENT | {name: os.environ[name] for name in _INHERITED if name in os.environ},
            cwd="/",
            stdin=question,
            stdout=answer,
            stderr=complaints,
            start_new_session=True,  # a group of its own, to be ended as one; and Ctrl-C is for the parent
        )
        try:
            child.wait(limits.wall_s)
        except subprocess.TimeoutExpired as error:
            raise BundleError(f"{bundle.path}: the check took longer than {limits.wall_s} s") from error
        finally:
            if child.poll() is None:
                os.killpg(child.pid, signal.SIGKILL)
                child.wait()
        if child.returncode < 0:
            name = signal.Signals(-child.returncode).name
            raise BundleError(f"{bundle.path}: the check was ended by {name}; limits: {limits}")
        try:
            return json.loads(_content(answer))
        except (ValueError, RecursionError) as error:
            lines = _content(complaints).decode(errors="replace").strip().splitlines() or ["no output"]
            code = child.returncode
            raise BundleError(f"{bundle.path}: the check failed with code {code}: {lines[-1]}") from error


def _memory_file(name: str) -> IO[bytes]:
    return os.fdopen(os.memfd_create(name), "w+b")


def _content(file: IO[bytes]) -> bytes:
    file.seek(0)
    return file.read(MAX_OUTPUT_BYTES)


def _search_path() -> str:
    """Where this process finds modules; the child, isolated, reads neither environment nor site folders for it."""
    own = str(Path(policy_runner.__file__).parent.parent)
    return json.dumps([own, *(entry for entry in sys.path if os.path.isabs(entry))])


def _parts(bundle: Bundle) -> Iterator[bytes]:
    """One line with the sizes of all files by name, then the files."""
    contents = {MANIFEST: bundle.manifest, **bundle.files}
    yield json.dumps({name: len(data) for name, data in contents.items()}).encode() + b"\n"
    yield from contents.values()


def _unpacked(file: IO[bytes]) -> Bundle:
    files = {name: file.read(size) for name, size in json.loads(file.readline()).items()}
    return assemble(Path("bundle"), files.pop(MANIFEST), files.__getitem__)


def main(argument: str) -> int:
    """Check the bundle that comes in by stdin and print a JSON verdict; argument: fields of `VetLimits` as JSON."""
    limits = VetLimits(**json.loads(argument))
    _confine(limits)
    try:
        verdict = _verdict()
    except BundleError as error:
        verdict = {"refused": str(error)}
    except MemoryError:
        verdict = {"refused": f"the check needs more than {limits.memory_bytes} bytes of memory"}
    print(json.dumps(verdict))
    return 0


def _verdict() -> dict[str, object]:
    from policy_runner.golden import check_golden
    from policy_runner.model_check import check_models

    _limit(resource.RLIMIT_NPROC, 0)  # only now: libraries may have started a thread of their own
    bundle = _unpacked(sys.stdin.buffer)
    check_models(bundle)
    cost = check_golden(bundle)
    if problem := cost.problem(bundle.contract.control_dt_s):
        raise BundleError(f"{POLICY}: {problem}")
    return {"digest": bundle.digest, **asdict(cost)}


def _confine(limits: VetLimits) -> None:
    _limit(resource.RLIMIT_AS, limits.memory_bytes)
    _limit(resource.RLIMIT_CPU, limits.cpu_s)
    _limit(resource.RLIMIT_FSIZE, MAX_OUTPUT_BYTES)
    _limit(resource.RLIMIT_NOFILE, MAX_OPEN_FILES)
    _limit(resource.RLIMIT_CORE, 0)
    signal.setitimer(signal.ITIMER_REAL, limits.wall_s + 1.0)  # should the parent be gone by then
    os.nice(NICENESS - min(os.nice(0), 0))  # whatever priority the runner has is not for its child


def _limit(what: int, most: int) -> None:
    hard = resource.getrlimit(what)[1]  # which nobody but root may raise
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (most, most))
