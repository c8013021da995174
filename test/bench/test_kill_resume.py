"""A few kills of a real run; `python -m bench kill_resume` does hundreds."""

import copy
import random

import pytest

from bench.kill_resume import PHASES, SHORT_RUN, Kill, KilledRun, Outcome, contents, differences, summary

SHORTER_RUN = copy.deepcopy(SHORT_RUN)
SHORTER_RUN["run"] |= {"epochs": 30}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    run = KilledRun(tmp_path_factory.mktemp("runs") / "undisturbed", SHORTER_RUN)
    return run.folder, run.undisturbed()


def test_a_killed_run_ends_as_an_undisturbed_one(tmp_path, undisturbed):
    _, reference = undisturbed
    chance = random.Random(3)
    kills = 0
    for number in range(10):
        outcome = KilledRun(tmp_path / f"run_{number}", SHORTER_RUN).killed(chance, reference)
        assert outcome.differences == ()
        kills += len(outcome.kills)
        if kills >= 3:
            return
    pytest.fail(f"only {kills} kills in 10 runs")


def test_what_differs_is_named(undisturbed, tmp_path):
    folder, reference = undisturbed
    assert contents(folder) == reference.contents
    assert {"metrics.csv", "config.yaml", "checkpoints/checkpoint_000030.pt", "TensorBoard"} < set(
        reference.contents
    )
    found = reference.contents | {"metrics.csv": "0", "checkpoints/.writing_checkpoint_000030.pt": "1"}
    del found["config.yaml"]
    assert differences(found, reference.contents) == (
        "config.yaml: missing",
        "checkpoints/.writing_checkpoint_000030.pt: left over",
        "metrics.csv: differs",
    )


def test_a_run_that_fails_is_an_error_with_its_last_words(tmp_path):
    settings = copy.deepcopy(SHORT_RUN)
    settings["run"]["task"] = "cartpol"
    with pytest.raises(
        RuntimeError, match="exit code 2, expected 0 or a kill:\nerror: unknown task 'cartpol'"
    ):
        KilledRun(tmp_path / "run", settings).undisturbed()


def test_kills_of_a_run_that_ends_differently_are_not_exact():
    good = Outcome(kills=(Kill(phase="start-up", epoch=0), Kill(phase="training", epoch=7)), differences=())
    bad = Outcome(kills=(Kill(phase="training", epoch=3),), differences=("metrics.csv: differs",))
    rows = {row["killed while"]: row for row in summary([good, bad])}
    assert list(rows) == [*PHASES, "all"]
    assert (rows["training"]["kills"], rows["training"]["exact"], rows["training"]["epochs"]) == (2, 1, "3 7")
    assert (rows["all"]["kills"], rows["all"]["exact"]) == (3, 2)
