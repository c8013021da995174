import json

import pytest

from rewarped_sim.registry import ConfigError
from rewarped_sim.reproduction.record import read_records, thinned_curve


def test_a_record_comes_back_as_it_was_written(make_record, tmp_path):
    record = make_record("hopper", "sapo/neither", 3)
    assert record.write(tmp_path) == tmp_path / "cpu" / "hopper_sapo-neither_3.json"
    assert read_records(tmp_path, "cpu") == [record]
    assert read_records(tmp_path, "paper") == []


@pytest.mark.parametrize("content", ["", "{", "[1]", '{"suite": "cpu"}'])
def test_a_file_that_is_no_record_is_named(make_record, tmp_path, content):
    path = make_record().write(tmp_path)
    path.write_text(content)
    with pytest.raises(ConfigError, match=r"ant_run_sapo_0\.json cannot be read"):
        read_records(tmp_path, "cpu")


def test_what_is_not_finite_becomes_null(make_record, tmp_path):
    path = make_record(agents={"stochastic": {"mean": float("nan")}}).write(tmp_path)
    assert json.loads(path.read_text())["agents"] == {"stochastic": {"mean": None}}


def write_metrics(path, returns):
    rows = [f"{k + 1},{(k + 1) * 10},{value}" for k, value in enumerate(returns)]
    path.write_text("\n".join(["epoch,env_steps,return", *rows]) + "\n")


def test_a_long_curve_keeps_evenly_spaced_points_and_the_last_one(tmp_path):
    write_metrics(tmp_path / "metrics.csv", range(1000))
    curve = thinned_curve(tmp_path / "metrics.csv", points=4)
    assert curve == {"env_steps": [2500.0, 5000.0, 7500.0, 10000.0], "return": [249.0, 499.0, 749.0, 999.0]}


def test_epochs_without_a_finished_episode_leave_no_point(tmp_path):
    write_metrics(tmp_path / "metrics.csv", ["nan", "nan", 3.0, 4.0])
    assert thinned_curve(tmp_path / "metrics.csv") == {"env_steps": [30.0, 40.0], "return": [3.0, 4.0]}
    write_metrics(tmp_path / "metrics.csv", ["nan"])
    assert thinned_curve(tmp_path / "metrics.csv") == {"env_steps": [], "return": []}
