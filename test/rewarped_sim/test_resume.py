"""What a run finds when it comes back: nothing yet, an older checkpoint, somebody else, a disk that was full."""

import logging
import resource
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

from rewarped_sim.registry import ConfigError
from rewarped_sim.run_control import NoObserver, RunControl
from rewarped_sim.train import main, train
from rewarped_sim.train_config import read_train_config
from sapo_learner.checkpoint import NotSavedError
from sapo_learner.metrics import read_metrics
from sapo_learner.state_digest import state_sha256

TINY = """
run: {task: cartpole, num_envs: 2, epochs: 6, checkpoint_every: 2, eval_episodes: 2, video: false, device: cpu}
task: {max_episode_steps: 12}
sapo: {horizon: 5, actor_hidden: [8], critic_hidden: [8], critic_passes: 1}
"""


@pytest.fixture(scope="module")
def config_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(TINY)
    return str(path)


def run(config_path, out_dir, *, resume="", observer=None, **values):
    config = read_train_config({"out_dir": str(out_dir), **values}, config_path=config_path, resume=resume)
    return train(config, observer=observer, control=observer.control if observer else None)


class AfterEpoch(NoObserver):
    """Calls `then(control)` when an epoch is finished."""

    def __init__(self, epoch, then):
        self.control = RunControl()
        self._epoch, self._then = epoch, then

    def on_status(self, status):
        if status.epoch == self._epoch:
            self._then(self.control)


def stopped(config_path, out_dir, *, epoch, **values):
    observer = AfterEpoch(epoch, lambda control: control.stop.set())
    return run(config_path, out_dir, observer=observer, **values)


def learner_sha256(result):
    return state_sha256(torch.load(result.checkpoint, weights_only=True)["state"])


def assert_same_end(found, expected):
    assert learner_sha256(found) == learner_sha256(expected)
    assert (found.out_dir / "metrics.csv").read_bytes() == (expected.out_dir / "metrics.csv").read_bytes()


@pytest.fixture(scope="module")
def undisturbed(config_path, tmp_path_factory):
    return run(config_path, tmp_path_factory.mktemp("runs") / "undisturbed")


def test_a_run_without_a_checkpoint_begins_anew(config_path, tmp_path, undisturbed, caplog):
    killed = stopped(config_path, tmp_path / "run", epoch=1)
    killed.checkpoint.unlink()  # as if it had been killed in its second epoch
    caplog.set_level(logging.INFO)
    assert_same_end(run(config_path, killed.out_dir, resume="true"), undisturbed)
    assert f"the run in {killed.out_dir} has no checkpoint yet: it begins with epoch 1" in caplog.text


def test_a_run_continues_from_an_older_checkpoint_and_keeps_the_newer_ones(
    config_path, tmp_path, undisturbed, caplog
):
    first = run(config_path, tmp_path / "run")
    caplog.set_level(logging.INFO)
    older = first.out_dir / "checkpoints" / "checkpoint_000002.pt"
    again = stopped(config_path, "", epoch=3, resume=str(older))
    aside = older.parent / "aside_1"
    assert sorted(path.name for path in aside.iterdir()) == ["checkpoint_000004.pt", "checkpoint_000006.pt"]
    assert f"newer checkpoints are now in {aside}" in caplog.text
    assert again.epoch == 3 and len(read_metrics(first.out_dir / "metrics.csv")) == 3
    assert_same_end(run(config_path, "", resume=str(first.out_dir)), undisturbed)


def test_a_folder_that_another_run_has_is_refused(config_path, tmp_path):
    refusals = []

    def intrude(control):
        for resume in ("true", str(tmp_path / "run")):
            with pytest.raises(ConfigError, match="in use by process"):
                run(config_path, tmp_path / "run", resume=resume)
            refusals.append(resume)

    first = run(config_path, tmp_path / "run", observer=AfterEpoch(6, intrude), epochs=6)
    assert refusals and not first.interrupted
    assert run(config_path, tmp_path / "run", resume="true").epoch == 6


@contextmanager
def full_disk():
    """Gives a function that sets the largest size [bytes] that a file may get, so that a write stops in the middle.

    It ends with the block, and not with the test: what pytest says of the test may go to a file as well.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    try:
        yield lambda size: resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnhandledThreadExceptionWarning"
)  # TensorBoard's own thread
def test_a_disk_that_is_full_for_a_while_costs_nothing(config_path, tmp_path, undisturbed, caplog):
    class FullDuringEpoch3And4(NoObserver):
        control = RunControl()

        def on_status(self, status):
            limit_file_size(300 if status.epoch in (3, 4) else resource.RLIM_INFINITY)

    with full_disk() as limit_file_size:
        result = run(config_path, tmp_path / "run", observer=FullDuringEpoch3And4())
    assert_same_end(result, undisturbed)
    assert caplog.text.count("checkpoint_000004.pt: cannot be written: File too large; training goes on") == 1
    assert caplog.text.count("metrics.csv: File too large; rows wait until it can be written") == 1
    kept = sorted(path.name for path in (tmp_path / "run" / "checkpoints").iterdir())
    assert kept == ["checkpoint_000002.pt", "checkpoint_000005.pt", "checkpoint_000006.pt"]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnhandledThreadExceptionWarning")
def test_a_disk_that_stays_full_ends_the_run_with_a_message_and_whole_checkpoints(
    config_path, tmp_path, undisturbed
):
    message = r"checkpoint_000006\.pt: cannot be written: File too large"
    with full_disk() as limit_file_size, pytest.raises(NotSavedError, match=message):
        run(config_path, tmp_path / "run", observer=AfterEpoch(3, lambda control: limit_file_size(300)))
    assert [path.name for path in (tmp_path / "run" / "checkpoints").iterdir()] == ["checkpoint_000002.pt"]
    assert_same_end(run(config_path, tmp_path / "run", resume="true"), undisturbed)


def test_checkpoints_that_cannot_be_written_are_said_in_one_line_and_exit_code_1(
    config_path, tmp_path, capsys, monkeypatch
):
    monkeypatch.setattr("rewarped_sim.train.show_log", lambda *_: None)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "checkpoints").write_text(
        "a file is in the way, as a folder that is read-only would be"
    )
    assert main(["--config", config_path, "--out-dir", str(tmp_path / "run"), "--epochs", "2"]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith("error: ") and "checkpoint_000002.pt: cannot be written: " in last


def test_settings_are_replaced_as_a_whole(config_path, tmp_path):
    first = stopped(config_path, tmp_path / "run", epoch=1)
    before = Path(first.out_dir / "config.yaml").read_bytes()
    with (
        full_disk() as limit_file_size,
        pytest.raises(ConfigError, match="cannot be written: File too large"),
    ):
        limit_file_size(10)
        run(config_path, first.out_dir, resume="true", epochs=9)
    assert Path(first.out_dir / "config.yaml").read_bytes() == before
