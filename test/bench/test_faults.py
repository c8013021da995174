"""The table of faults: whole, about tests that exist and counters that there are, and rendered as it was measured."""

from __future__ import annotations

import ast
import json

import pytest

from bench.faults import DOCUMENT, TESTS, cases, faults, in_words, measured, rendered
from bench.report import RESULTS
from policy_runner.cloud_worker import CloudDrop
from policy_runner.safety import HoldReason

ROWS = [*range(1, 33), 48, 49, 50]
COUNTERS = {
    *(f"held_{reason.value}" for reason in HoldReason),
    *(f"dropped_{reason.value}" for reason in CloudDrop),
    *("dropped_joint_state_bad", "deadline_misses", "saturation", "policies_refused", "policies_exchanged"),
}


def test_every_row_is_there_once():
    assert [fault.row for fault in faults()] == ROWS


@pytest.mark.parametrize("fault", faults(), ids=lambda fault: str(fault.row))
def test_every_row_has_tests_that_exist_and_counters_that_there_are(fault):
    assert fault.tests
    for test in fault.tests:
        file, _, name = test.partition("::")
        tree = ast.parse((TESTS / file).read_text())
        assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}, test
    assert set(fault.counters) <= COUNTERS


def test_the_document_says_what_was_measured():
    rows = json.loads((RESULTS / "faults.json").read_text())["rows"]
    assert [row["row"] for row in rows] == ROWS
    assert rendered(faults(), rows) in DOCUMENT.read_text()


REPORT = """<testsuites><testsuite>
<testcase file="test/policy_runner/faults/test_cloud_faults.py" name="test_stamps_an_hour_off_hold">
 <properties>
  <property name="fault" value='{"commands": 20, "largest_step": 0.5, "held_for": "x", "from_last_inputs": 13}' />
  <property name="fault" value='{"commands": 30, "largest_step": 0.7, "rss_mb": 1.25}' />
  <property name="other" value="nothing to us" />
 </properties>
</testcase>
<testcase file="test/policy_runner/faults/test_cloud_faults.py" name="test_stamps_that_stand_still_hold[a]">
 <failure message="it did not" />
</testcase>
<testcase file="test/policy_runner/test_frames.py" name="test_stamps_an_hour_off_hold" />
</testsuite></testsuites>"""


def test_what_tests_record_is_gathered_by_row(tmp_path):
    report = tmp_path / "report.xml"
    report.write_text(REPORT)
    (fault,) = (fault for fault in faults() if fault.row == 8)
    row = measured(fault, list(cases(report)))
    assert row == {
        "row": 8, "cases": 2, "passed": 1, "holds": 1, "from_last_inputs": 13, "commands": 50,
        "largest_step": 0.7, "memory_mb": 1.25,
    }  # fmt: skip
    assert in_words(row) == (
        "1 of 2 pass; held once, 13 commands from the last inputs; "
        "50 commands, largest step 0.70 of the limit; memory +1.2 MB"
    )
