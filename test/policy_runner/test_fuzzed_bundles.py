"""A thousand broken bundles, always the same; `python -m bench fuzz_bundles` offers a hundred thousand."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from bench.bundle_mutations import MUTATIONS, mutated
from policy_runner.bundle import MANIFEST, read_bundle

ROOT = Path(__file__).parents[2]
PROGRAM = """
import json, sys
from bench.fuzz_bundles import fuzz, rows
from policy_runner.bundle import MANIFEST, read_bundle
good = read_bundle(sys.argv[1])
*_, tally = fuzz({MANIFEST: good.manifest, **good.files}, range(1000), seed=1, vetted=200)
stages = {result: count for (kind, result), count in tally.outcomes.items() if kind == "all"}
print(json.dumps([rows(tally), stages, tally.findings, tally.vetted]))
"""


@pytest.fixture(scope="module")
def whole(bundles, tmp_path_factory):
    return bundles.write(tmp_path_factory.mktemp("bundle"))


def test_of_a_thousand_broken_bundles_each_is_taken_or_refused_and_nothing_else_happens(whole):
    """In a process without threads, which may fork."""
    ended = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(whole)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert ended.returncode == 0, ended.stderr
    rows, stages, findings, vetted = json.loads(ended.stdout)
    assert findings == []
    assert [row["mutation"] for row in rows] == [*MUTATIONS, "all"]
    assert rows[-1]["bundles"] == 1000 and rows[-1]["escaped"] == 0
    assert vetted > 0
    # the mutations reach every stage: they get past the hashes
    assert all(stages[f"refused: {stage}"] > 100 for stage in ("reading", "models", "golden pairs"))
    assert stages["taken"] > 10  # names, free text, unused bytes


def test_a_mutation_can_be_had_again_from_its_number(whole):
    good = read_bundle(whole)
    files = {MANIFEST: good.manifest, **good.files}
    kinds = set()
    for number in range(40):
        kind, changed = mutated(files, number)
        assert mutated(files, number) == (kind, changed)
        kinds.add(kind)
    assert kinds == set(MUTATIONS)
    assert files == {MANIFEST: good.manifest, **good.files}  # left as they were
