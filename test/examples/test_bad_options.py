"""What an example cannot do is refused in one line, before any work."""

import pytest

from examples import identify_dough, optimise_trajectory


@pytest.mark.parametrize(
    ("example", "words", "message"),
    [
        (identify_dough, ["--young", "-5"], "--young must be > 0, got -5.0"),
        (optimise_trajectory, ["--steps", "0"], "--steps must be > 0, got 0"),
        (identify_dough, ["--out", "/proc/results"], "--out /proc/results cannot be written"),
        (optimise_trajectory, ["--out", "/proc/results"], "--out /proc/results cannot be written"),
        (optimise_trajectory, ["--device", "cuda:99", "--out", "."], "device 'cuda:99': torch sees"),
    ],
)
def test_what_cannot_be_is_refused_before_any_work(example, words, message, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["example", *words])
    with pytest.raises(SystemExit) as caught:
        example.main()
    assert caught.value.code == 2 and message in capsys.readouterr().err
