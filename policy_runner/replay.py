"""Replay a recorded run and compare the commands.

    python -m policy_runner.replay BAG --policy BUNDLE

Exit codes: 0 all commands equal to the bit, or another policy was asked for; 1 some differ; 2 the bag or a bundle is
refused; 3 equal as far as the recording goes, but parts of it are missing.
"""

from __future__ import annotations

import argparse
import csv
import sys
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from policy_runner.bag import BagError
from policy_runner.bundle import BundleError
from policy_runner.cloud_replay import CloudOutcome, make_again
from policy_runner.inference import Policy
from policy_runner.journal import read_journal
from policy_runner.repeat import Outcome, RepeatError, repeat
from policy_runner.vet import load_vetted

EQUAL, DIFFERENT, REFUSED, INCOMPLETE = 0, 1, 2, 3


def report(outcome: Outcome, *, other: bool) -> str:
    """Return what a replay found as text to read; other: it was with another policy than the run's."""
    contract, events = outcome.contract, outcome.events
    began = datetime.fromtimestamp(outcome.began_ns * 1e-9, timezone.utc)
    commands = int(np.isfinite(outcome.recorded).any(axis=-1).sum()) if outcome.recorded else 0
    end = "closed" if outcome.complete else "cut short"
    if outcome.missing:
        end = (
            f"{outcome.missing} events missing after {outcome.duration_s:.3f} s, nothing after that replayed"
        )
    inputs = ("joints", "cloud", "goal", "topic")
    counts = ", ".join(
        f"{count} {kind}" for kind, count in sorted(events.items()) if kind not in (*inputs, "tick")
    )
    modes = ", ".join(f"{count} {mode}" for mode, count in outcome.modes.items())
    lines = [
        f"run        {contract.policy_name} for {contract.task}, {began:%Y-%m-%d %H:%M:%S} UTC, "
        f"{outcome.duration_s:.1f} s, {end}",
        f"inputs     {events['joints']} joint states, {events['cloud']} clouds, {events['goal']} goals",
        f"events     {counts or 'none'}",
        f"ticks      {len(outcome.times_s)}: {modes or 'none'}",
    ]
    if outcome.differences == 0:
        return "\n".join([*lines, f"commands   {commands}, all equal to the bit"])
    by = "by the other policy" if other else "NOT as recorded"
    lines.append(f"commands   {commands}; {outcome.differences} events end differently {by}; the first:")
    lines.append(f"  {outcome.first}")
    lines.append("largest difference of commands")
    for joint, (distance, time_s) in outcome.largest().items():
        lines.append(f"  {joint:<16} {distance:.6g} at {time_s:.3f} s")
    return "\n".join(lines)


def write_commands(outcome: Outcome, path: Path) -> None:
    """Write recorded and replayed commands as CSV, tick by tick; empty where there was none."""
    names = outcome.contract.action.joint_names
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        columns = [f"{kind} {name}" for kind in ("recorded", "replayed") for name in names]
        writer.writerow(["time_s", *columns])
        for time_s, *commands in zip(outcome.times_s, outcome.recorded, outcome.replayed, strict=True):
            values = np.concatenate(commands).tolist()
            writer.writerow([time_s, *("" if np.isnan(value) else repr(value) for value in values)])


def plot_commands(outcome: Outcome, path: Path) -> None:
    """Draw recorded and replayed commands over time, one panel a joint; needs Matplotlib, but no display.

    Raises:
        ImportError: Matplotlib is not installed.
    """
    from matplotlib.figure import Figure

    names = outcome.contract.action.joint_names
    figure = Figure(figsize=(9.0, 1.0 + 1.5 * len(names)), layout="constrained")
    panels = figure.subplots(len(names), sharex=True, squeeze=False)[:, 0]
    recorded, replayed = np.array(outcome.recorded), np.array(outcome.replayed)
    for column, (name, panel) in enumerate(zip(names, panels, strict=True)):
        panel.plot(outcome.times_s, recorded[:, column], label="recorded", linewidth=2.0)
        panel.plot(outcome.times_s, replayed[:, column], label="replayed", linewidth=1.0)
        panel.set_ylabel(name)
    panels[0].legend(loc="upper right")
    panels[-1].set_xlabel("time [s]")
    figure.savefig(path)


def main(arguments: Sequence[str] | None = None) -> int:
    """Replay a bag and say what came of it; see the module for the exit codes."""
    parser = argparse.ArgumentParser(
        prog="python -m policy_runner.replay",
        description="Do a recorded run again and compare the commands bit for bit. Exit codes: 0 equal, "
        "1 different, 2 bag or bundle refused, 3 equal, but parts of the recording are missing.",
    )
    parser.add_argument("bag", help="folder of the bag, or its .mcap file")
    parser.add_argument(
        "--policy",
        action="append",
        required=True,
        help="folder of the bundle of the run; again for each bundle that was loaded meanwhile",
    )
    parser.add_argument(
        "--other",
        action="store_true",
        help="the bundle is another one: show what it would have commanded in the same situations",
    )
    parser.add_argument(
        "--clouds",
        action="store_true",
        help="also make the points that the network saw again, where record_clouds was on, and compare them",
    )
    parser.add_argument("--out", type=Path, help="folder for commands.csv and, with Matplotlib, commands.png")
    options = parser.parse_args(arguments)
    if options.other and len(options.policy) > 1:
        parser.error("--other takes one --policy")
    if options.out is not None:
        try:
            options.out.mkdir(parents=True, exist_ok=True)  # now: a long replay is not to be for nothing
        except OSError as error:
            return _refuse(f"--out {options.out} cannot be written: {error.strerror}")
    try:
        networks = [Policy(load_vetted(path)) for path in options.policy]
        outcome = repeat(
            read_journal(options.bag),
            {network.digest: network for network in networks},
            other=networks[0] if options.other else None,
        )
        clouds = make_again(read_journal(options.bag)) if options.clouds else CloudOutcome()
    except (BundleError, BagError, RepeatError) as error:
        return _refuse(str(error))
    print(report(outcome, other=options.other))
    if options.clouds:
        print(f"clouds     {clouds}")
    if options.out is not None:
        _write(outcome, options.out)
    if clouds.different or (outcome.differences and not options.other):
        return DIFFERENT
    if options.other:
        return EQUAL
    return INCOMPLETE if outcome.missing else EQUAL


def _refuse(why: str) -> int:
    print(f"refused: {why}", file=sys.stderr)
    return REFUSED


def _write(outcome: Outcome, folder: Path) -> None:
    write_commands(outcome, folder / "commands.csv")
    try:
        plot_commands(outcome, folder / "commands.png")
    except ImportError:
        print("no commands.png: Matplotlib is not installed", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
