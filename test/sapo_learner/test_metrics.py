import logging
import math
import os
import resource

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from sapo_learner.metrics import MetricsLogger, read_metrics


def test_each_epoch_is_one_row_in_full_precision(tmp_path):
    logger = MetricsLogger(tmp_path)
    logger.log(1, {"return": 1 / 3, "loss": float("nan")})
    logger.log(2, {"return": 2e-9, "loss": 5.0})
    rows = read_metrics(tmp_path / "metrics.csv")  # readable while the run goes on
    logger.close()
    assert [row["epoch"] for row in rows] == [1, 2]
    assert [row["return"] for row in rows] == pytest.approx([1 / 3, 2e-9], rel=1e-8)
    assert math.isnan(rows[0]["loss"]) and rows[1]["loss"] == 5.0


def test_a_resumed_run_drops_what_came_after_its_checkpoint(tmp_path):
    first = MetricsLogger(tmp_path)
    for epoch in range(1, 6):
        first.log(epoch, {"return": float(epoch)})
    first.close()
    second = MetricsLogger(tmp_path, epoch=3)
    second.log(4, {"return": 40.0})
    second.close()
    assert [row["return"] for row in read_metrics(tmp_path / "metrics.csv")] == [1.0, 2.0, 3.0, 40.0]


def test_a_new_run_in_the_same_folder_starts_an_empty_file(tmp_path):
    for _ in range(2):
        logger = MetricsLogger(tmp_path)
        logger.log(1, {"return": 1.0})
        logger.close()
    assert len(read_metrics(tmp_path / "metrics.csv")) == 1


def test_a_metric_that_appears_later_is_a_new_column_and_one_that_is_missing_is_nan(tmp_path):
    logger = MetricsLogger(tmp_path)
    logger.log(1, {"return": 1.0})
    logger.log(2, {"return": 2.0, "eval": 9.0})
    logger.log(3, {"eval": 8.0})
    logger.close()
    rows = read_metrics(tmp_path / "metrics.csv")
    assert [list(row) for row in rows] == [["epoch", "return", "eval"]] * 3
    assert math.isnan(rows[0]["eval"]) and rows[1]["eval"] == 9.0 and math.isnan(rows[2]["return"])


def test_a_row_that_a_crash_cut_short_is_left_out_and_written_anew(tmp_path):
    logger = MetricsLogger(tmp_path)
    for epoch in (1, 2):
        logger.log(epoch, {"return": 12.0})
    logger.close()
    path = tmp_path / "metrics.csv"
    path.write_bytes(path.read_bytes()[:-2])  # "2,1": a number still, but not the one
    assert len(read_metrics(path)) == 1
    resumed = MetricsLogger(tmp_path, epoch=1)
    resumed.log(2, {"return": 12.0})
    resumed.close()
    assert [row["return"] for row in read_metrics(path)] == [12.0, 12.0]


@pytest.mark.parametrize("spoilt", [b"\0\0\0\0\0\0", b"2", b"2,12,3", b"2,twelve", b"\xff\xfe", b""])
def test_what_follows_a_line_that_is_no_row_is_left_out_said_and_written_anew(tmp_path, caplog, spoilt):
    """As after a power cut, or in an editor."""
    logger = MetricsLogger(tmp_path)
    for epoch in (1, 2, 3):
        logger.log(epoch, {"return": 12.0})
    logger.close()
    path = tmp_path / "metrics.csv"
    lines = path.read_bytes().splitlines()
    path.write_bytes(b"\n".join([*lines[:2], spoilt, *lines[3:], b""]))
    assert [row["epoch"] for row in read_metrics(path)] == [1]
    assert "metrics.csv: line 3 cannot be read; it and what follows is left out" in caplog.text
    resumed = MetricsLogger(tmp_path, epoch=3)
    assert "metrics.csv ends with epoch 1; rows up to 3 are lost" in caplog.text
    resumed.log(4, {"return": 13.0})
    resumed.close()
    assert [row["epoch"] for row in read_metrics(path)] == [1, 4]


def test_a_file_without_its_first_line_is_left_out_and_said(tmp_path, caplog):
    (tmp_path / "metrics.csv").write_text("1,12\n2,12\n")
    assert read_metrics(tmp_path / "metrics.csv") == []
    assert "line 1 cannot be read; the file is left out" in caplog.text


def test_rows_are_brought_to_the_disk_when_asked(tmp_path, monkeypatch):
    synced = []
    logger = MetricsLogger(tmp_path)
    logger.sync()  # nothing is there yet
    logger.log(1, {"return": 12.0})
    monkeypatch.setattr(os, "fsync", lambda number: synced.append(os.readlink(f"/proc/self/fd/{number}")))
    logger.sync()
    logger.close()
    assert synced == [str(logger.path)]


def test_no_file_means_no_rows(tmp_path):
    assert read_metrics(tmp_path / "metrics.csv") == []


def test_tensorboard_shows_the_same_numbers_also_after_a_resume(tmp_path):
    first = MetricsLogger(tmp_path)
    for epoch in (1, 2, 3):
        first.log(epoch, {"reward/height": float(epoch)})
    first.close()
    second = MetricsLogger(tmp_path, epoch=1)
    second.log(2, {"reward/height": 20.0})
    second.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    assert [(event.step, event.value) for event in events.Scalars("reward/height")] == [(1, 1.0), (2, 20.0)]


def test_tensorboard_gets_back_what_a_killed_process_still_owed_it(tmp_path):
    child = os.fork()
    if child == 0:
        logger = MetricsLogger(tmp_path)
        for epoch in range(1, 9):
            logger.log(epoch, {"return": epoch / 3})
        os._exit(0)  # as kill -9: nothing is flushed
    os.waitpid(child, 0)
    resumed = MetricsLogger(tmp_path, epoch=8)
    resumed.log(9, {"return": 3.0})
    resumed.close()
    events = EventAccumulator(str(tmp_path))
    events.Reload()
    found = [(event.step, event.value) for event in events.Scalars("return")]
    assert found == [(epoch, pytest.approx(epoch / 3, rel=1e-7)) for epoch in range(1, 10)]


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnhandledThreadExceptionWarning"
)  # TensorBoard's own thread
def test_tensorboard_shows_to_the_last_bit_what_the_file_holds(tmp_path):
    between_two_float32 = (
        1.0 + 2.0**-24 - 1e-12
    )  # nearer to 1, but nine digits of it are nearer to the next one
    logger = MetricsLogger(tmp_path)
    logger.log(1, {"return": between_two_float32})
    logger.close()

    def shown():
        events = EventAccumulator(str(tmp_path))
        events.Reload()
        return events.Scalars("return")[0].value

    before = shown()
    MetricsLogger(tmp_path, epoch=1).close()
    assert before == shown() == 1.0 + 2.0**-23


# the thread is TensorBoard's own
@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_full_disk_is_said_once_and_costs_no_row(tmp_path, caplog):
    logger = MetricsLogger(tmp_path)
    logger.log(1, {"return": 1.0})
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    caplog.set_level(logging.WARNING)
    try:
        for epoch in range(2, 6):
            resource.setrlimit(resource.RLIMIT_FSIZE, (len("epoch,return\n1,1\n2"), hard))
            logger.log(epoch, {"return": float(epoch)})
            assert [row["return"] for row in read_metrics(logger.path)] == [1.0]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
    assert sum("rows wait until it can be written" in line for line in caplog.messages) == 1
    logger.log(6, {"return": 6.0})
    logger.close()
    assert [row["return"] for row in read_metrics(logger.path)] == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
