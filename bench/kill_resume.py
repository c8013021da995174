"""Kill a real training run at random moments, resume it, and compare its end with that of an undisturbed one.

    python -m bench kill_resume --kills 200

Each life of a run is a process of its own, which `SIGKILL` ends at a moment drawn uniformly over the processor time
that the undisturbed run takes: in its imports, while it builds, trains, evaluates or exports. Every fourth one is
ended, from that moment on, as soon as a file is half written. A run is resumed until a life ends by itself; everything
in its folder must then be what the undisturbed run left: settings, metrics, checkpoints, best policy, bundle, learning
curve and TensorBoard events. Exit code 1 if anything is not.
"""

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from bench.report import table, write
from rewarped_sim.run_lock import LOCK_FILE
from sapo_learner.atomic_file import TEMPORARY
from sapo_learner.metrics import read_metrics
from sapo_learner.state_digest import state_sha256

SHORT_RUN: dict[str, dict[str, Any]] = {
    "run": {
        "task": "cartpole",
        "num_envs": 4,
        "epochs": 60,
        "checkpoint_every": 2,
        "select_every": 10,
        "eval_episodes": 4,
        "video": False,
        "device": "cpu",
    },
    "task": {"max_episode_steps": 40},
    "sapo": {"horizon": 8, "actor_hidden": [16], "critic_hidden": [16], "critic_passes": 2},
}
"""A run of seconds, of which starting, training and results take about a third each."""
AIMED_SHARE = 0.25
"""Of the kills, those that wait for a file to be half written."""
PHASES = ("start-up", "building", "training", "writing a file", "results")


@dataclass(frozen=True, kw_only=True)
class Kill:
    """A life that was ended."""

    phase: str
    """What was going on, one of PHASES."""
    epoch: int
    """Finished epochs, as far as the log of metrics goes."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """A run that was killed again and again until it ended by itself."""

    kills: tuple[Kill, ...]
    differences: tuple[str, ...]
    """What is not as in the undisturbed run, file by file."""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """The undisturbed run."""

    contents: dict[str, str]
    """See `contents`."""
    cpu_s: float
    """Processor time; unlike the time on the clock, it does not depend on what else the machine does."""


class KilledRun:
    """A training run in `folder` and the settings that it takes."""

    def __init__(self, folder: Path, settings: dict[str, dict[str, Any]] = SHORT_RUN) -> None:
        self.folder = folder
        self._settings = folder.with_suffix(".yaml")
        self._settings.write_text(yaml.safe_dump(settings))
        self._log = folder.with_suffix(".log")
        self._epochs = settings["run"]["epochs"]

    def undisturbed(self) -> Reference:
        """Let it run. Raises RuntimeError with the end of its log where it fails."""
        before = os.times()
        self._check_end(self._start().wait())
        after = os.times()
        cpu_s = sum(after[2:4]) - sum(before[2:4])  # of children that have ended
        return Reference(contents=contents(self.folder), cpu_s=cpu_s)

    def killed(self, chance: random.Random, reference: Reference) -> Outcome:
        """Kill and resume it until it ends by itself; raises RuntimeError where a life ends in any other way."""
        kills = []
        while True:
            moment, aimed = chance.uniform(0.0, reference.cpu_s), chance.random() < AIMED_SHARE
            process = self._start()
            if not self._kill(process, moment, aimed):
                break
            kills.append(self._look())
        self._check_end(process.returncode)
        return Outcome(kills=tuple(kills), differences=differences(contents(self.folder), reference.contents))

    def _start(self) -> subprocess.Popen[bytes]:
        resume = ["--resume"] if self.folder.exists() else []
        command = [sys.executable, "-m", "rewarped_sim.train", "--config", str(self._settings)]
        with self._log.open("wb") as log:
            return subprocess.Popen([*command, "--out-dir", str(self.folder), *resume], stderr=log)

    def _kill(self, process: subprocess.Popen[bytes], moment: float, aimed: bool) -> bool:
        """End it by SIGKILL after `moment` seconds and, if aimed, in the middle of a file; False: it ended before."""
        while process.poll() is None and _cpu_s(process.pid) < moment:
            time.sleep(2e-3)
        while aimed and process.poll() is None and not self._half_written():
            time.sleep(1e-4)
        process.send_signal(signal.SIGKILL)  # does nothing where it has ended
        return process.wait() == -signal.SIGKILL

    def _half_written(self) -> bool:
        return any(
            entry.name.startswith(TEMPORARY)
            for folder in (self.folder, self.folder / "checkpoints")
            if folder.is_dir()
            for entry in os.scandir(folder)
        )

    def _look(self) -> Kill:
        """Tell what was going on, from what the life left behind."""
        epoch = len(read_metrics(self.folder / "metrics.csv"))
        if self._half_written():
            phase = "writing a file"
        elif b"run folder:" not in self._log.read_bytes():
            phase = "start-up"
        elif b"trajectory memory" not in self._log.read_bytes():
            phase = "building"
        else:
            phase = "results" if epoch == self._epochs else "training"
        return Kill(phase=phase, epoch=epoch)

    def _check_end(self, code: int) -> None:
        if code:
            tail = "\n".join(self._log.read_text().splitlines()[-15:])
            raise RuntimeError(f"{self.folder.name}: exit code {code}, expected 0 or a kill:\n{tail}")


def _cpu_s(pid: int) -> float:
    """Processor time that a child, which nobody has waited for yet, has used so far."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def contents(folder: Path) -> dict[str, str]:
    """Return the sha256 of everything in a run's folder by name, of checkpoints and events that of what they hold."""
    found = {"TensorBoard": _events_sha256(folder)}
    for path in sorted(folder.rglob("*")):
        name = str(path.relative_to(folder))
        if path.is_dir() or path.name == LOCK_FILE or ".tfevents." in path.name:
            continue
        if path.suffix == ".pt":
            found[name] = state_sha256(torch.load(path, weights_only=True))
        else:
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def differences(found: dict[str, str], expected: dict[str, str]) -> tuple[str, ...]:
    """Name the files that differ, are missing or were left over."""
    lines = [f"{name}: missing" for name in expected if name not in found]
    lines += [f"{name}: left over" for name in found if name not in expected]
    lines += [f"{name}: differs" for name in found if found[name] != expected.get(name, found[name])]
    return tuple(lines)


def _events_sha256(folder: Path) -> str:
    events = EventAccumulator(str(folder), size_guidance={"scalars": 0})
    events.Reload()
    scalars = {
        tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]
    }
    return state_sha256(scalars)


def outcomes(
    parent: Path, reference: Reference, *, kills: int, seed: int, workers: int
) -> Iterator[tuple[int, Outcome]]:
    """Yield runs, with their number, until there have been so many kills."""

    def one(number: int) -> Outcome:
        return KilledRun(parent / f"run_{number}").killed(random.Random(f"{seed} {number}"), reference)

    number, done = 0, 0
    with ThreadPoolExecutor(workers) as pool:
        while done < kills:
            batch = range(number, number + workers)
            for number, outcome in zip(batch, pool.map(one, batch), strict=True):
                done += len(outcome.kills)
                yield number, outcome
            number += 1


def summary(finished: list[Outcome]) -> list[dict[str, Any]]:
    """One row for each phase, and one for all: kills, those in runs that ended exactly, and the epochs they fell in."""
    rows = []
    for phases in (*((phase,) for phase in PHASES), PHASES):
        cases = [(kill, not o.differences) for o in finished for kill in o.kills if kill.phase in phases]
        rows.append(
            {
                "killed while": phases[0] if len(phases) == 1 else "all",
                "kills": len(cases),
                "exact": sum(exact for _, exact in cases),
                "epochs": " ".join(str(epoch) for epoch in sorted({kill.epoch for kill, _ in cases})),
            }
        )
    return rows


def main() -> int:
    """Kill, resume, compare, report."""
    parser = argparse.ArgumentParser(prog="bench kill_resume", description=__doc__)
    parser.add_argument("--kills", type=int, default=200, help="at least so many (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--workers", type=int, default=1, help="runs side by side (default: 1)")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="kill_resume_") as parent:
        warm_up = KilledRun(
            Path(parent) / "warm_up"
        ).undisturbed()  # compiles kernels, fills the disk's cache
        reference = KilledRun(Path(parent) / "undisturbed").undisturbed()
        if lines := differences(warm_up.contents, reference.contents):
            print(f"two undisturbed runs differ already: {'; '.join(lines)}")
            return 1
        print(f"undisturbed: {reference.cpu_s:.1f} s of processor time", flush=True)
        started, finished, kills = time.monotonic(), [], 0
        for number, outcome in outcomes(
            Path(parent), reference, kills=options.kills, seed=options.seed, workers=options.workers
        ):
            finished.append(outcome)
            write("kill_resume", summary(finished))
            kills += len(outcome.kills)
            left_s = (time.monotonic() - started) / max(kills, 1) * max(options.kills - kills, 0)
            verdict = "exact" if not outcome.differences else "; ".join(outcome.differences)
            print(
                f"run {number}: {len(outcome.kills)} kills, {verdict}; "
                f"{kills}/{options.kills}, {timedelta(seconds=round(left_s))} left",
                flush=True,
            )
    print(table([{key: row[key] for key in ("killed while", "kills", "exact")} for row in summary(finished)]))
    return int(any(outcome.differences for outcome in finished))


if __name__ == "__main__":
    sys.exit(main())
