"""The command that replays: what it prints, writes and returns."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from recorded_run import altered, record

from policy_runner.bundle import load_bundle
from policy_runner.inference import Policy
from policy_runner.replay import main

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def second(bundles, tmp_path_factory):
    contract = bundles.contract(policy_name="second")
    return bundles.write(tmp_path_factory.mktemp("second"), contract, w=bundles.weights(contract, seed=9))


@pytest.fixture(scope="module")
def run(bundle, second, tmp_path_factory):
    """Bag of a run in which two bundles take turns."""
    path = tmp_path_factory.mktemp("run") / "bag"
    record(path, [Policy(load_bundle(folder)) for folder in (bundle, second)], seed=1)
    return path


def replay(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_run_is_equal_to_the_bit(run, bundle, second, capsys):
    code, out, err = replay(capsys, run, "--policy", bundle, "--policy", second)
    assert (code, err) == (0, "")
    assert "run        roller for rolling_flat" in out and "closed" in out
    assert "all equal to the bit" in out


def test_without_raw_clouds_it_says_that_there_was_nothing_to_make_again(run, bundle, second, capsys):
    code, out, _ = replay(capsys, run, "--policy", bundle, "--policy", second, "--clouds")
    assert code == 0 and "clouds     0 made again from raw clouds, nothing to compare; " in out


def test_a_changed_command_is_named_with_time_and_joint(run, bundle, second, capsys, tmp_path):
    def change(kind, values):
        if kind == "tick" and values["command"] and values["seq"] > 500:
            values["command"][2] += 0.25
        return values

    changed = altered(run, tmp_path / "changed", change)
    code, out, _ = replay(capsys, changed, "--policy", bundle, "--policy", second)
    assert code == 1
    assert "NOT as recorded; the first:" in out and "joint 'pin_yaw': recorded" in out
    assert "pin_yaw          0.25 at" in out


def test_what_cannot_be_replayed_is_refused_in_one_line(run, bundle, second, capsys, tmp_path):
    for arguments, message in (
        ((run, "--policy", second), "the run took the bundle with digest"),
        ((run, "--policy", tmp_path / "nothing"), "found nothing"),
        ((tmp_path, "--policy", bundle), "expected a bag, found a folder without .mcap file"),
        ((run, "--policy", bundle, "--out", "/proc/out"), "--out /proc/out cannot be written"),
    ):
        code, out, err = replay(capsys, *arguments)
        assert (code, out) == (2, "")
        assert err.startswith("refused: ") and message in err and err.count("\n") == 1


def test_missing_events_have_an_exit_code_of_their_own(run, bundle, second, capsys, tmp_path):
    shorter = altered(run, tmp_path / "shorter", lambda _, values: None if values["seq"] == 700 else values)
    code, out, _ = replay(capsys, shorter, "--policy", bundle, "--policy", second)
    assert code == 3 and "1 events missing after" in out and "all equal to the bit" in out


def test_what_another_policy_would_have_commanded_is_shown_and_written(run, bundle, second, capsys, tmp_path):
    pytest.importorskip("matplotlib")
    code, out, _ = replay(capsys, run, "--policy", second, "--other", "--out", tmp_path / "out")
    assert code == 0
    assert "by the other policy" in out and "largest difference of commands" in out
    with (tmp_path / "out" / "commands.csv").open() as file:
        header, *rows = csv.reader(file)
    assert header[:2] == ["time_s", "recorded pin_x"] and header[4] == "replayed pin_x"
    commanded = [row for row in rows if row[1] and row[4]]
    largest = max(abs(float(row[4]) - float(row[1])) for row in commanded)
    assert f"pin_x            {largest:.6g} at" in out
    assert (tmp_path / "out" / "commands.png").read_bytes().startswith(b"\x89PNG")


def test_commands_are_written_to_the_last_digit(run, bundle, second, capsys, tmp_path):
    replay(capsys, run, "--policy", bundle, "--policy", second, "--out", tmp_path)
    with (tmp_path / "commands.csv").open() as file:
        rows = [row for row in list(csv.reader(file))[1:] if row[1]]
    assert len(rows) > 100
    recorded, replayed = (np.array([row[i : i + 3] for row in rows], np.float64) for i in (1, 4))
    np.testing.assert_array_equal(recorded, replayed)


def test_it_runs_without_ros_matplotlib_or_a_display(run, bundle, second, tmp_path):
    code = f"""
import sys
sys.modules["matplotlib"] = None  # as on a robot
from policy_runner.replay import main
code = main([{str(run)!r}, "--policy", {str(bundle)!r}, "--policy", {str(second)!r}, "--out", {str(tmp_path)!r}])
print(code, [name for name in ("rclpy", "torch", "warp") if name in sys.modules])
"""
    ended = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert ended.stdout.endswith("0 []\n") and "no commands.png" in ended.stderr
    assert (tmp_path / "commands.csv").exists() and not (tmp_path / "commands.png").exists()
