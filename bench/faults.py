"""Inject every fault of docs/faults.yaml into the runner, and write what was measured into docs/faults.md.

    python -m bench faults
    python -m bench faults --render    # the document again, from what was measured last

The tests that inject them run as they do in CI; what they record in their reports is what is measured here. Exit code 1
if one of them fails.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from bench.report import RESULTS, write
from rewarped_sim.reproduction.document import write_between_markers

ROOT = Path(__file__).parents[1]
TABLE = ROOT / "docs" / "faults.yaml"
DOCUMENT = ROOT / "docs" / "faults.md"
TESTS = ROOT / "test" / "policy_runner"
HEADER = "| # | fault | what the runner does | counters | measured | tests |\n| --- | --- | --- | --- | --- | --- |"


@dataclass(frozen=True, kw_only=True)
class Fault:
    """A row of the table."""

    row: int
    section: str
    fault: str
    answer: str
    counters: tuple[str, ...]
    """Values of the diagnostics that tell of it."""
    tests: tuple[str, ...]
    """Each `file::name`, the file relative to `TESTS`."""


def faults(path: Path = TABLE) -> list[Fault]:
    """Read the table."""
    return [
        Fault(
            row=row["row"],
            section=section["section"],
            fault=row["fault"],
            answer=row["answer"],
            counters=tuple(row["counters"]),
            tests=tuple(f"{file}::{name}" for file, names in row["tests"].items() for name in names),
        )
        for section in yaml.safe_load(path.read_text(encoding="utf-8"))
        for row in section["rows"]
    ]


def run(table: list[Fault], report: Path) -> int:
    """Run the tests of the table, with what they record going to `report`; return pytest's exit code."""
    tests = list(dict.fromkeys(f"{TESTS}/{test}" for fault in table for test in fault.tests))
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-o",
        "junit_family=xunit1",
        f"--junitxml={report}",
        *tests,
    ]
    return subprocess.run(command, cwd=ROOT, check=False).returncode


@dataclass(frozen=True, kw_only=True)
class Case:
    """One test with one set of parameters."""

    test: str
    """As in `Fault.tests`."""
    passed: bool
    injected: tuple[dict[str, Any], ...]
    """What it recorded of each fault that it injected."""


def cases(report: Path) -> Iterator[Case]:
    """Read what the tests recorded."""
    for case in ElementTree.parse(report).iter("testcase"):
        file = os.path.relpath(ROOT / case.attrib["file"], TESTS)
        yield Case(
            test=f"{file}::{case.attrib['name'].partition('[')[0]}",
            passed=not any(case.find(kind) is not None for kind in ("failure", "error", "skipped")),
            injected=tuple(
                json.loads(entry.attrib["value"])
                for entry in case.iter("property")
                if entry.attrib["name"] == "fault"
            ),
        )


def measured(fault: Fault, all_cases: list[Case]) -> dict[str, Any]:
    """Return what all cases of a row have shown."""
    own = [case for case in all_cases if case.test in fault.tests]
    injected = [entry for case in own for entry in case.injected]
    return {
        "row": fault.row,
        "cases": len(own),
        "passed": sum(case.passed for case in own),
        "holds": sum(bool(entry.get("held_for")) for entry in injected),
        "from_last_inputs": max((entry.get("from_last_inputs", 0) for entry in injected), default=0),
        "commands": sum(entry["commands"] for entry in injected),
        "largest_step": max((entry["largest_step"] for entry in injected), default=0.0),
        "memory_mb": max((entry.get("rss_mb", 0.0) for entry in injected), default=0.0),
    }


def in_words(row: dict[str, Any]) -> str:
    """Say what was measured of one row."""
    parts = [f"{row['passed']} of {row['cases']} pass"]
    if row["holds"]:
        late = (
            f"{row['from_last_inputs']} commands from the last inputs"
            if row["from_last_inputs"]
            else "at once"
        )
        parts.append(f"held {'once' if row['holds'] == 1 else str(row['holds']) + ' times'}, {late}")
    if row["commands"]:
        parts.append(f"{row['commands']} commands, largest step {row['largest_step']:.2f} of the limit")
        parts.append(f"memory {row['memory_mb']:+.1f} MB")
    return "; ".join(parts)


def rendered(table: list[Fault], rows: list[dict[str, Any]]) -> str:
    """Return the tables of the document, one for each section."""
    by_row, lines, section = {row["row"]: row for row in rows}, [], ""
    for fault in table:
        if fault.section != section:
            section = fault.section
            lines += ["", f"### {section}", "", HEADER]
        tests = "<br>".join(f"`{test}`" for test in fault.tests)
        counters = "<br>".join(f"`{counter}`" for counter in fault.counters)
        words = in_words(by_row[fault.row]) if fault.row in by_row else "not measured"
        lines.append(f"| {fault.row} | {fault.fault} | {fault.answer} | {counters} | {words} | {tests} |")
    return "\n".join(lines).strip()


def main() -> int:
    """Run, write, render."""
    parser = argparse.ArgumentParser(prog="bench faults", description=__doc__)
    parser.add_argument("--render", action="store_true", help="the document alone, from the last results")
    options = parser.parse_args()
    table, code = faults(), 0
    if not options.render:
        with tempfile.TemporaryDirectory(prefix="faults_") as folder:
            report = Path(folder) / "report.xml"
            code = run(table, report)
            found = list(cases(report))
        write("faults", [measured(fault, found) for fault in table])
    rows = json.loads((RESULTS / "faults.json").read_text())["rows"]
    write_between_markers(DOCUMENT, "faults", rendered(table, rows))
    print(
        f"{sum(row['passed'] for row in rows)} of {sum(row['cases'] for row in rows)} cases pass; {DOCUMENT}"
    )
    return code


if __name__ == "__main__":
    sys.exit(main())
