import os
import subprocess
import sys
from pathlib import Path

import pytest

from policy_runner import doctor

ROOT = Path(__file__).parents[2]
VARIABLE = "FASTDDS_DEFAULT_PROFILES_FILE"


@pytest.fixture
def environment(monkeypatch, tmp_path):
    """Ours, without what the user may have set; /dev/shm is a folder with room."""
    monkeypatch.setattr(doctor, "LIBRARIES", {"numpy": "numpy"})
    monkeypatch.setattr(doctor, "free_bytes", lambda: 1 << 30)
    monkeypatch.setattr(doctor, "abandoned_segments", lambda: [])
    names = (
        VARIABLE,
        "FASTRTPS_DEFAULT_PROFILES_FILE",
        "ROS_AUTOMATIC_DISCOVERY_RANGE",
        "RMW_IMPLEMENTATION",
    )
    return {name: value for name, value in os.environ.items() if name not in names}


def by_subject(environment):
    return {finding.subject: finding for finding in doctor.findings(environment)}


def test_where_all_is_well_nothing_is_to_be_mended(environment):
    profile = ROOT / "config" / "fastdds_shm.xml"
    found = by_subject(environment | {VARIABLE: str(profile), "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST"})
    assert [finding for finding in found.values() if finding.remedy] == []
    assert found["discovery"].found.startswith("range LOCALHOST")
    assert "32 MiB" in found["transport"].found
    assert found["middleware"].found == "rmw_fastrtps_cpp"


def test_a_missing_profile_comes_with_what_to_set(environment):
    finding = by_subject(environment)["transport"]
    assert "config/fastdds_shm.xml in every process" in finding.remedy


def test_a_module_that_cannot_be_imported_is_named_and_harms_nobody(environment, tmp_path):
    (tmp_path / "rclpy.py").write_text("import os; os.abort()")
    found = by_subject(environment | {"PYTHONPATH": str(tmp_path)})
    assert found["rclpy"].found == "cannot be imported" and "requirements/ros.txt" in found["rclpy"].remedy
    assert "transport" not in found  # nothing can be said of it


def test_a_small_shared_memory_and_what_was_abandoned_there_are_told(environment, monkeypatch, tmp_path):
    segment = tmp_path / "fastdds_0123456789abcdef"
    segment.write_bytes(bytes(3 << 20))
    monkeypatch.setattr(doctor, "free_bytes", lambda: 64 << 20)
    monkeypatch.setattr(doctor, "abandoned_segments", lambda: [segment])
    found = by_subject(environment)
    assert found["shared memory"].found.startswith("64 MiB") and "--shm-size" in found["shared memory"].remedy
    assert "1 segments of killed processes, 3 MiB" in found["abandoned"].found


def test_the_exit_code_says_whether_something_must_be_mended(environment):
    ended = subprocess.run(
        [sys.executable, "-m", "policy_runner.doctor"],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 1, ended.stderr
    assert "MEND  transport: rmw_fastrtps_cpp without a profile" in ended.stdout
    assert "remedy: start with the launch files" in ended.stdout


def test_a_mistyped_command_ends_with_2_and_looks_at_nothing(capsys):
    with pytest.raises(SystemExit) as caught:
        doctor.main(["--fix"])
    assert caught.value.code == 2
    captured = capsys.readouterr()
    assert captured.out == "" and "unrecognized arguments: --fix" in captured.err
