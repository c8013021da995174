"""The runner tells whether large clouds reach it, once in its log and for ever in its diagnostics."""

from __future__ import annotations

from pathlib import Path

import pytest

PROFILE = Path(__file__).parents[3] / "config" / "fastdds_shm.xml"


@pytest.mark.parametrize(("profile", "warnings"), [("", 1), (str(PROFILE), 0)])
def test_the_transport_is_in_the_diagnostics_and_a_warning_only_where_something_is_wrong(
    start, tmp_path, monkeypatch, profile, warnings
):
    monkeypatch.setenv("FASTDDS_DEFAULT_PROFILES_FILE", profile)
    monkeypatch.delenv("FASTRTPS_DEFAULT_PROFILES_FILE", raising=False)
    robot = start()
    robot.until(lambda: robot.status is not None and robot.status.message == "active: idle")
    found = robot.diagnosis()["transport"]
    assert ("fastdds_shm.xml: 32 MiB" in found) == bool(profile)
    assert ("FASTDDS_DEFAULT_PROFILES_FILE is not set" in found) == (not profile)
    log = (tmp_path / "log").read_text()
    assert log.count("large clouds may not arrive") == warnings
