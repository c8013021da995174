import csv
import dataclasses
import logging
import math
import os
import subprocess
import sys
import threading

import imageio.v2 as imageio
import pytest
import torch

from policy_runner.bundle import load_bundle
from rewarped_sim import best_policy
from rewarped_sim.env import DeviceError
from rewarped_sim.registry import ConfigError, UnknownTaskError
from rewarped_sim.run_control import NoObserver, RunControl, RunState
from rewarped_sim.torch_bridge.bridge import Bridge
from rewarped_sim.train import train
from rewarped_sim.train_config import read_train_config
from sapo_learner.checkpoint import CheckpointError
from sapo_learner.evaluate import evaluate


def tiny_run(tiny_config, out_dir, *, resume="", observer=None, control=None, **values):
    config = read_train_config({"out_dir": str(out_dir), **values}, config_path=tiny_config, resume=resume)
    return train(config, observer=observer, control=control)


class StopAt(NoObserver):
    """Stops a run in the middle of its n-th control step; an epoch of the tiny run has five."""

    def __init__(self, steps):
        self.control = RunControl()
        self.states = []
        self._steps_left = steps

    def on_status(self, status):
        self.states.append(status.state)

    def on_step(self, env):
        self._steps_left -= 1
        if self._steps_left == 0:
            self.control.stop.set()


@pytest.fixture(scope="module")
def finished(tiny_config, tmp_path_factory):
    """An uninterrupted run."""
    return tiny_run(tiny_config, tmp_path_factory.mktemp("runs") / "whole", video=True)


def stopped_run(tiny_config, out_dir, *, steps, **values):
    """A run that ends after so many control steps, with a checkpoint but without results."""
    observer = StopAt(steps)
    return tiny_run(tiny_config, out_dir, observer=observer, control=observer.control, **values)


def saved_tensors(checkpoint):
    """All tensors of a checkpoint by path."""
    found = {}

    def walk(value, path):
        if isinstance(value, torch.Tensor):
            found[path] = value
        elif isinstance(value, dict):
            for key, inner in value.items():
                walk(inner, f"{path}/{key}")
        elif isinstance(value, (list, tuple)):
            for index, inner in enumerate(value):
                walk(inner, f"{path}/{index}")

    walk(torch.load(checkpoint, weights_only=True), "")
    return found


def metrics_of(folder):
    with (folder / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def test_a_run_leaves_bundle_curve_video_log_and_checkpoint(finished):
    assert not finished.interrupted
    assert (finished.epoch, finished.env_steps) == (4, 4 * 5 * 2)
    assert load_bundle(finished.bundle).contract.task == "rolling_flat_small"
    assert load_bundle(finished.bundle).contract.train["env_steps"] == 40
    assert imageio.imread(finished.out_dir / "learning_curve.png").std() > 5
    with imageio.get_reader(finished.out_dir / "rollout.mp4") as video:
        assert video.count_frames() > 10
    assert [row["epoch"] for row in metrics_of(finished.out_dir)] == ["1", "2", "3", "4"]
    assert finished.checkpoint.name == "checkpoint_000004.pt"
    assert list(finished.out_dir.glob("events.out.tfevents*"))


def test_pictures_that_cannot_be_drawn_cost_a_run_nothing_else(tiny_config, tmp_path, caplog, monkeypatch):
    def fail(*args, **kwargs):
        raise MemoryError("so much as a picture")

    monkeypatch.setattr("rewarped_sim.train.draw_learning_curve", fail)
    monkeypatch.setattr("rewarped_sim.train.write_video", fail)
    result = tiny_run(tiny_config, tmp_path / "run", epochs=1, video=True)
    assert not result.interrupted and (result.bundle / "policy.onnx").is_file()
    for what in ("learning curve", "video"):
        assert f"no {what}: MemoryError: so much as a picture" in caplog.text


def test_the_last_line_compares_policy_and_do_nothing(finished):
    assert math.isfinite(finished.policy_return) and math.isfinite(finished.do_nothing_return)
    assert finished.message.startswith(f"rolling_flat_small: policy {finished.policy_return:.1f} ± ")
    assert f"do-nothing {finished.do_nothing_return:.1f} ± " in finished.message
    assert "(2 episodes each, same starts" in finished.message


def test_an_interrupted_run_resumes_to_the_same_last_bit(tiny_config, tmp_path, finished):
    observer = StopAt(steps=13)  # in the middle of the third epoch
    stopped = tiny_run(tiny_config, tmp_path / "run", observer=observer, control=observer.control)
    assert stopped.interrupted and stopped.bundle is None
    assert stopped.checkpoint.name == "checkpoint_000002.pt"
    assert observer.states[-1] is RunState.FINISHED

    resumed = tiny_run(tiny_config, tmp_path / "run", resume="true")
    assert not resumed.interrupted
    expected, found = saved_tensors(finished.checkpoint), saved_tensors(resumed.checkpoint)
    assert expected.keys() == found.keys() and len(expected) > 50
    assert [name for name in expected if not torch.equal(expected[name], found[name])] == []
    assert metrics_of(resumed.out_dir) == metrics_of(finished.out_dir)
    assert resumed.policy_return == finished.policy_return


def test_a_truncated_checkpoint_is_passed_over_and_named(tiny_config, tmp_path, caplog):
    newest = stopped_run(tiny_config, tmp_path / "run", steps=18).checkpoint
    newest.write_bytes(newest.read_bytes()[:-1000])
    with caplog.at_level(logging.INFO, logger="rewarped_sim"):
        again = stopped_run(tiny_config, tmp_path / "run", resume="true", steps=8)
    assert "passed over a broken checkpoint: checkpoint_000003.pt: truncated" in caplog.text
    assert "resumed from" in caplog.text and "checkpoint_000002.pt (epoch 2)" in caplog.text
    assert again.epoch == 3


def test_when_every_checkpoint_is_broken_nothing_is_overwritten(tiny_config, tmp_path):
    first = stopped_run(tiny_config, tmp_path / "run", steps=8)
    first.checkpoint.write_bytes(b"")
    with pytest.raises(CheckpointError, match="no whole checkpoint"):
        tiny_run(tiny_config, tmp_path / "run", resume="true", epochs=2)
    assert first.checkpoint.read_bytes() == b""
    assert len(metrics_of(first.out_dir)) == 1


def test_a_run_cannot_be_resumed_as_another_one(tiny_config, tmp_path):
    stopped_run(tiny_config, tmp_path / "run", steps=1)
    with pytest.raises(CheckpointError, match="num_envs: expected 3, got 2"):
        tiny_run(tiny_config, tmp_path / "run", resume="true", num_envs=3)


def test_pause_checkpoint_and_export_are_done_between_epochs(tiny_config, tmp_path):
    control = RunControl()
    control.paused.set()
    asked = {job: control.request(job) for job in ("checkpoint", "export")}
    paused_at = []

    class Impatient(NoObserver):
        def on_status(self, status):
            if status.state is RunState.PAUSED:
                paused_at.append(status.epoch)
                threading.Timer(0.3, control.paused.clear).start()
            elif paused_at:
                control.stop.set()

    result = tiny_run(tiny_config, tmp_path / "run", observer=Impatient(), control=control)
    assert paused_at == [1]
    assert asked["checkpoint"].result(timeout=0).endswith("checkpoint_000001.pt")
    assert asked["export"].result(timeout=0) == str(result.out_dir / "bundle")
    assert load_bundle(result.out_dir / "bundle").contract.train["epochs"] == 1
    assert result.interrupted


def test_the_status_counts_gradients_that_were_dropped(tiny_config, tmp_path, monkeypatch):
    backward = Bridge._backward

    def broken(bridge, slot, result_bars):
        """NaN goes into the physics of one env in one step of each window."""
        if slot == 1:
            result_bars = tuple(bar.clone() for bar in result_bars)
            for bar in result_bars:
                bar[1] = math.nan
        return backward(bridge, slot, result_bars)

    class Statuses(NoObserver):
        def on_status(self, status):
            self.last = status

    monkeypatch.setattr(Bridge, "_backward", broken)
    observer = Statuses()
    tiny_run(tiny_config, tmp_path / "run", epochs=3, observer=observer)
    assert (observer.last.nonfinite_envs, observer.last.skipped_updates) == (3, 0)


def test_a_request_that_comes_too_late_is_answered(tiny_config, tmp_path):
    asked = []

    class Late(StopAt):
        def on_status(self, status):
            if status.state is RunState.FINISHED:
                asked.append(self.control.request("checkpoint"))

    late = Late(steps=1)
    tiny_run(tiny_config, tmp_path / "run", observer=late, control=late.control)
    with pytest.raises(RuntimeError, match="the run has ended"):
        asked[0].result(timeout=0)


def test_a_stop_before_the_first_epoch_saves_too(tiny_config, tmp_path):
    control = RunControl()
    control.stop.set()
    result = tiny_run(tiny_config, tmp_path / "run", control=control)
    assert result.interrupted and result.epoch == 0
    assert result.checkpoint.is_file()


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"device": "cuda:99"}, DeviceError, "cuda:99"),
        ({"algo_options": {"gama": 0.9}}, ConfigError, "unknown setting 'gama'; did you mean 'gamma'"),
        ({"algo_options": {"gamma": 2.0}}, ConfigError, "gamma must be .*, got 2.0"),
        (
            {"algo_options": {"num_minibatches": 10**6}},
            ConfigError,
            r"num_minibatches must be <= horizon \* num_envs",
        ),
        ({"task_options": {"yung": 1.0}}, ConfigError, "unknown setting 'yung'; did you mean 'young'"),
        ({"task_options": {"young": 5.0e6}}, ConfigError, "rolling_flat_small: unstable: a pressure wave"),
    ],
)
def test_bad_input_is_refused_before_anything_is_written(tiny_config, tmp_path, options, error, message):
    config = read_train_config({"out_dir": str(tmp_path / "run")}, config_path=tiny_config)
    with pytest.raises(error, match=message):
        train(dataclasses.replace(config, **options))
    assert not (tmp_path / "run").exists()


def test_an_unknown_task_is_refused(tiny_config, tmp_path):
    with pytest.raises(UnknownTaskError, match="did you mean 'rolling_flat'"):
        tiny_run(tiny_config, tmp_path / "run", task="roling_flat")


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["--task", "roling_flat"], 2, "did you mean 'rolling_flat'"),
        (["--epochs", "many"], 2, "invalid int value: 'many'"),
        (["--epochs", "3", "--device", "cuda:99"], 3, "device 'cuda:99'"),
        (["--out-dir", "{file}/run"], 2, "cannot be written"),
        (["--resume", "{file}"], 2, "is a file, but no checkpoint in the folder of its run"),
    ],
)
def test_the_command_line_says_what_is_wrong_in_one_line(tmp_path, words, code, message):
    (tmp_path / "file").write_text("")
    words = [word.format(file=tmp_path / "file") for word in words]
    done = subprocess.run(
        [sys.executable, "-m", "rewarped_sim.train", *words],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == code
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_the_best_policy_tried_is_the_one_that_is_exported_also_after_a_resume(tiny_config, tmp_path, caplog):
    caplog.set_level(logging.INFO)
    whole = tiny_run(tiny_config, tmp_path / "whole", select_every=1, checkpoint_every=1)
    trials = [record.args for record in caplog.records if "a trial earns" in record.msg]
    best = max(trials, key=lambda trial: trial[1])
    assert [trial[0] for trial in trials] == list(range(1, whole.epoch + 1))
    assert trials[-1][2] == best[1]
    assert load_bundle(whole.bundle).contract.train["policy_of_epoch"] == best[0]

    stopped_run(tiny_config, tmp_path / "parts", steps=8, select_every=1, checkpoint_every=1)
    resumed = tiny_run(tiny_config, tmp_path / "parts", resume="true")
    assert resumed.policy_return == whole.policy_return
    assert load_bundle(resumed.bundle).contract.train["policy_of_epoch"] == best[0]


@pytest.mark.parametrize("stopped_trial", [1, 4])
def test_a_stop_ends_a_trial_and_the_resumed_run_makes_up_for_it(
    tiny_config, tmp_path, monkeypatch, stopped_trial
):
    whole = tiny_run(tiny_config, tmp_path / "whole", select_every=1)
    assert whole.epoch == 4
    control, trials = RunControl(), []

    def stop_during_a_trial(*args, **options):
        trials.append(args)
        if len(trials) == stopped_trial:
            control.stop.set()
        return evaluate(*args, **options)

    with monkeypatch.context() as patch:
        patch.setattr(best_policy, "evaluate", stop_during_a_trial)
        stopped = tiny_run(tiny_config, tmp_path / "parts", select_every=1, control=control)
    assert (stopped.interrupted, stopped.epoch, len(trials)) == (True, stopped_trial, stopped_trial)

    resumed = tiny_run(tiny_config, tmp_path / "parts", resume="true")
    assert resumed.policy_return == whole.policy_return
    ours, theirs = saved_tensors(resumed.checkpoint), saved_tensors(whole.checkpoint)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[path], theirs[path]) for path in ours)
