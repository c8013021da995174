"""Offer a hundred thousand broken bundles to the checks: each is taken or refused, nothing else ever happens.

    python -m bench fuzz_bundles --count 100000

The files of a good bundle, freshly exported, are changed at random, most of the time with hashes that fit again. Each
result goes through what the runner's process does, reading manifest and contract, and then through what the vetting
process does, looking into models and running them on their golden pairs; here both are in one forked worker, limited as
the vetting process is, so that hundreds are done in a second. A bundle that ends the worker, as only an
error in a C++ library can, goes through the real vetting process, and so does every `--vetted`-th of all: the verdict
must be a refusal, or the same as the worker's. What is taken must then make a controller.

Exit code 1 if anything but a BundleError ever came out, a verdict differed, or memory grew.
"""

import argparse
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from bench.bundle_mutations import MUTATIONS, Files, mutated
from bench.exported_bundle import exported_bundle
from bench.report import table, write
from policy_runner.bundle import MANIFEST, Bundle, BundleError, assemble, read_bundle
from policy_runner.contract import ContractError
from policy_runner.controller import Controller
from policy_runner.golden import check_golden
from policy_runner.inference import InferenceThread, Policy
from policy_runner.limiter import LimitError
from policy_runner.model_check import check_models
from policy_runner.settings import RunnerSettings
from policy_runner.vet import VetLimits, vet

SECONDS = 10
"""As long as one bundle may take before the worker is ended, as the vetting process would be."""
BATCH = 2000
"""Bundles to a worker: a crash then costs little, and growth of memory can be told from noise."""
MAX_GROWTH_BYTES = 64 << 20
"""Of one worker's memory over a batch."""
SMALL_POLICY: dict[str, Any] = {"actor_hidden": (16,), "critic_hidden": (16,)}
ESCAPED = "escaped: "
ENDED = "ended the worker"


@dataclass(kw_only=True)
class Tally:
    """What became of the bundles."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    """How many, by kind of mutation and what became of them."""
    findings: list[str] = field(default_factory=list)
    """What should not be: one line each, with the number of the bundle."""
    vetted: int = 0
    """Bundles that went through the real vetting process."""
    growth_bytes: int = 0
    """Largest growth of a worker's memory over its batch."""


def outcome(files: Files) -> str:
    """Say what becomes of a bundle: `taken`, `refused: <stage>` or, as must never be, `escaped: ...`."""
    stage = "reading"
    try:
        bundle = _assembled(files)
        stage = "models"
        check_models(bundle)
        stage = "golden pairs"
        check_golden(bundle)
        stage = "controller"
        network = InferenceThread(Policy(bundle), budget_s=1.0)
        try:
            Controller(network, RunnerSettings())
        finally:
            network.close()
    except BundleError:
        return f"refused: {stage}"
    except MemoryError:  # which the vetting process turns into a refusal
        return (
            f"refused: {stage}" if stage in ("models", "golden pairs") else f"{ESCAPED}MemoryError at {stage}"
        )
    except (ContractError, LimitError) as error:
        return f"refused: {stage}" if stage == "controller" else f"{ESCAPED}{error!r} at {stage}"
    except Exception as error:
        return f"{ESCAPED}{type(error).__name__} at {stage}: {str(error)[:200]}"
    return "taken"


def _assembled(files: Files) -> Bundle:
    return assemble(Path("bundle"), files[MANIFEST], lambda name: files[name])


def fuzz(files: Files, numbers: range, *, seed: int = 0, vetted: int = 0) -> Iterator[Tally]:
    """Offer the mutations with these numbers to the checks; yield what there is so far, after each batch.

    vetted: every so manyth goes through the real vetting process too; 0: none but those that end a worker.
    """
    tally, begin = Tally(), numbers.start
    while begin < numbers.stop:
        end = min(begin + BATCH, numbers.stop)
        begin = _run_batch(files, range(begin, end), seed, tally)
        if begin < end:  # number `begin` has ended the worker
            kind, changed = mutated(files, begin, seed)
            tally.outcomes[kind, ENDED] += 1
            _compare(changed, begin, "refused", tally)
            begin += 1
        yield tally
    for number in numbers[::vetted] if vetted else ():
        _, changed = mutated(files, number, seed)
        _compare(changed, number, outcome(changed), tally)
        yield tally


def _run_batch(files: Files, numbers: range, seed: int, tally: Tally) -> int:
    """Have a worker go through a batch; return the number that ended it, or where the batch ends."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe(duplex=False)
    worker = context.Process(target=_work, args=(files, numbers, seed, there))
    worker.start()
    there.close()
    done = numbers.start
    try:
        while done < numbers.stop:
            kind, result = here.recv()
            tally.outcomes[kind, "refused" if result.startswith("refused") else result[:80]] += 1
            tally.outcomes["all", result[:80]] += 1
            if result.startswith(ESCAPED):
                tally.findings.append(f"{done}: {kind}: {result}")
            done += 1
        growth_bytes = here.recv()
        tally.growth_bytes = max(tally.growth_bytes, growth_bytes)
        if growth_bytes > MAX_GROWTH_BYTES:
            tally.findings.append(f"{numbers}: the worker's memory grew by {growth_bytes} bytes")
    except EOFError:
        pass
    worker.join()
    return done


def _work(files: Files, numbers: range, seed: int, results: Connection) -> None:
    limit = memory_bytes("size") + VetLimits().memory_bytes
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # onnxruntime tells of every error
    started_with = 0
    for number in numbers:
        if number == numbers.start + len(numbers) // 4:  # caches are filled
            started_with = memory_bytes("resident")
        kind, changed = mutated(files, number, seed)
        signal.alarm(SECONDS)
        result = outcome(changed)
        signal.alarm(0)
        results.send((kind, result))
    results.send(memory_bytes("resident") - started_with)


def _compare(files: Files, number: int, expected: str, tally: Tally) -> None:
    """Give a bundle to the real vetting process, and compare verdicts."""
    try:
        bundle = _assembled(files)
        tally.vetted += 1
        vet(bundle, VetLimits(wall_s=60.0))
        found = "taken"
    except BundleError:
        found = "refused"
    except Exception as error:
        found = f"{ESCAPED}{error!r}"
    if found != expected.partition(":")[0] and expected != "refused: controller":
        tally.findings.append(f"{number}: the vetting process says {found!r}, the worker {expected!r}")


def memory_bytes(kind: str) -> int:
    """Return how much address space (`size`) or memory (`resident`) this process has now."""
    pages = Path("/proc/self/statm").read_text().split()[("size", "resident").index(kind)]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def rows(tally: Tally) -> list[dict[str, Any]]:
    """One row for each kind of mutation, and one for all."""
    lines = []
    for kinds in (*((kind,) for kind in MUTATIONS), tuple(MUTATIONS)):
        found: Counter[str] = Counter()
        for (kind, result), count in tally.outcomes.items():
            if kind in kinds:
                found[result] += count
        lines.append(
            {
                "mutation": kinds[0] if len(kinds) == 1 else "all",
                "bundles": sum(found.values()),
                "refused": found["refused"],
                "taken": found["taken"],
                "ended the worker": found[ENDED],
                "escaped": sum(count for result, count in found.items() if result.startswith(ESCAPED)),
            }
        )
    return lines


def main() -> int:
    """Fuzz and report."""
    parser = argparse.ArgumentParser(prog="bench fuzz_bundles", description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="bundles (default: 100000)")
    parser.add_argument("--seed", type=int, default=0, help="of the mutations (default: 0)")
    parser.add_argument("--vetted", type=int, default=1000, help="every so manyth in a child (default: 1000)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="fuzz_bundles_") as parent:
        good = read_bundle(exported_bundle(Path(parent) / "bundle", **SMALL_POLICY))
    files = {MANIFEST: good.manifest, **good.files}
    before_bytes, started, tally = memory_bytes("resident"), time.monotonic(), Tally()
    for tally in fuzz(files, range(options.count), seed=options.seed, vetted=options.vetted):
        done = rows(tally)[-1]["bundles"]
        print(f"{done}/{options.count}, {tally.vetted} vetted, {len(tally.findings)} findings", flush=True)
    report = rows(tally)
    report[-1] |= {
        "by stage": {result: count for (kind, result), count in tally.outcomes.items() if kind == "all"},
        "vetted in a child": tally.vetted,
        "findings": tally.findings,
        "growth of a worker [MiB]": tally.growth_bytes / 2**20,
        "growth of the parent [MiB]": (memory_bytes("resident") - before_bytes) / 2**20,
        "bundles/s": options.count / (time.monotonic() - started),
    }
    write("fuzz_bundles", report)
    print(table([{key: row[key] for key in report[0]} for row in report]))
    print("\n".join(tally.findings) or "nothing but BundleError came out, and every verdict was the same")
    return int(bool(tally.findings))


if __name__ == "__main__":
    sys.exit(main())
