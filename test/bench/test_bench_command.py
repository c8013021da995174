"""The command that runs benchmarks by name."""

import pytest

from bench import __main__ as command


def test_a_benchmark_that_is_none_is_refused_and_the_known_ones_are_named(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["bench", "mpm_stepp"])
    monkeypatch.setattr(command.subprocess, "run", None)  # nothing is run
    with pytest.raises(SystemExit) as caught:
        command.main()
    assert caught.value.code == 2
    error = capsys.readouterr().err
    assert "unknown benchmark 'mpm_stepp'; known: ['mpm_step'," in error


def test_what_is_no_name_is_for_the_benchmark(monkeypatch):
    commands = []

    class Done:
        returncode = 0

    monkeypatch.setattr(command.subprocess, "run", lambda words, check: commands.append(words[1:]) or Done())
    monkeypatch.setattr("sys.argv", ["bench", "deployed_return", "--run", "runs/camera"])
    assert command.main() == 0
    assert commands == [["-m", "bench.deployed_return", "--run", "runs/camera"]]
