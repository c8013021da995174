from rewarped_sim.machine import machine


def test_a_machine_without_git_is_described_too(monkeypatch, tmp_path):
    known = machine()
    monkeypatch.setenv("PATH", str(tmp_path))
    assert machine() == known | {"commit": ""}
