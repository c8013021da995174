import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml

from rewarped_sim import make
from sapo_learner.export import export_bundle
from sapo_learner.policy import make_policy

LAUNCH = Path(__file__).resolve().parents[2] / "launch"
PATIENCE_S = 300
"""Guards against hangs only."""


@pytest.fixture
def launch(tmp_path):
    """Start `ros2 launch`; what still runs at the end of the test is ended."""
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = os.environ | {
        "PATH": path,
        "ROS_DOMAIN_ID": str(1 + os.getpid() % 100),
        "ROS_AUTOMATIC_DISCOVERY_RANGE": "LOCALHOST",
    }
    started = []

    def start(name, *words):
        process = subprocess.Popen(
            [shutil.which("ros2", path=path) or "ros2", "launch", str(LAUNCH / f"{name}.launch.py"), *words],
            cwd=tmp_path,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield start
    for process in started:
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            process.communicate(timeout=PATIENCE_S)


def finish(process):
    output, _ = process.communicate(timeout=PATIENCE_S)
    return process.returncode, output


@pytest.mark.parametrize(
    ("name", "arguments"),
    [
        ("train", "task algo num_envs seed device epochs out_dir resume rviz config wait_for_goal"),
        ("play", "policy task seed device task_config episodes real_time_factor lockstep command_type rviz"),
        ("play", "camera camera_position camera_look_at camera_self_filter"),
        ("deploy", "policy config command_type cloud_frame cloud_extrinsics"),
        ("view", "view"),
    ],
)
def test_every_argument_is_described(launch, name, arguments):
    code, output = finish(launch(name, "--show-args"))
    assert code == 0
    described = dict(re.findall(r"^    '(\w+)':\*?\n        (.+)$", output, re.MULTILINE))
    assert set(arguments.split()) <= set(described)
    assert all(len(text) > 10 and "no description" not in text for text in described.values())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["task:=roling_flat"], "unknown task 'roling_flat'; did you mean 'rolling_flat'"),
        (["epoch:=3"], "unknown launch argument 'epoch'; did you mean 'epochs'"),
        (["epochs:=many"], "launch argument 'epochs': expected a whole number, got 'many'"),
        (["rviz:=maybe"], "maybe"),
        (["device:=cuda:99"], "device 'cuda:99'"),
        (["out_dir:=/proc/run"], "out_dir /proc/run cannot be written"),
        (["resume:=true"], "no earlier run under"),
    ],
)
def test_bad_input_fails_the_launch_with_a_reason(launch, tmp_path, words, message):
    code, output = finish(launch("train", *words))
    assert code != 0
    assert message in output
    assert list(tmp_path.iterdir()) == []


def test_a_bundle_that_is_none_fails_the_launch(launch):
    code, output = finish(launch("play", "policy:=nowhere"))
    assert code != 0
    assert "nowhere" in output


def test_a_policy_that_no_runner_can_run_is_refused_before_anything_starts(launch, tmp_path):
    env = make("cartpole", num_envs=2, requires_grad=False)
    numbers = torch.Generator()
    policy = make_policy(
        env.obs_spec, env.action_dim, hidden=(8,), pool="mean", weights=numbers, samples=numbers
    )
    contract = env.contract(policy_name="untrained", train={"algo": "none"})
    export_bundle(policy, contract, env.reset(), tmp_path / "bundle")
    code, output = finish(launch("play", "policy:=bundle"))
    assert code != 0
    assert "'privileged' is known to the simulator only" in output
    assert "process started" not in output and "Traceback" not in output


def test_training_ends_the_launch_and_the_policy_plays(launch, tiny_config, tmp_path):
    code, output = finish(
        launch("train", f"config:={tiny_config}", "epochs:=2", "out_dir:=run", "rviz:=true", "resume:=false")
    )
    assert code == 0, output
    assert "rolling_flat_small: policy " in output and "do-nothing" in output
    if shutil.which("rviz2") is None:
        assert "rviz2 is not on the PATH" in output

    for sight in ("none", "depth"):
        words = [f"task_config:={tiny_config}", "episodes:=2", f"camera:={sight}"]
        code, output = finish(launch("play", "policy:=run/bundle", *words))
        assert code == 0, output
        assert re.search(r"mean return \d+\.\d+ over 2 episodes", output)


def test_what_a_file_or_an_earlier_run_says_counts_unless_an_argument_says_otherwise(launch, tmp_path):
    said = {"task": "cartpole", "algo": "apg", "seed": 7, "epochs": 1, "num_envs": 2, "video": False}
    (tmp_path / "mine.yaml").write_text(
        yaml.safe_dump({"run": {**said, "eval_episodes": 2, "device": "cpu"}})
    )
    code, output = finish(launch("train", "config:=mine.yaml", "out_dir:=run"))
    assert code == 0, output
    code, output = finish(launch("train", "resume:=run", "epochs:=2"))
    assert code == 0, output
    found = yaml.safe_load((tmp_path / "run" / "config.yaml").read_text())["run"]
    assert {name: found[name] for name in said} == said | {"epochs": 2}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["camera:=deep"], "deep"),
        (["camera:=depth", "camera_position:=1 2"], "'camera_position': expected 3 numbers, got '1 2'"),
        (["camera:=depth", "camera_look_at:=0.5 -0.35 1.15"], "look_at: must differ from position"),
    ],
)
def test_a_camera_that_cannot_be_fails_the_launch(launch, words, message):
    code, output = finish(launch("play", "policy:=nowhere", *words))
    assert code != 0
    assert message in output


def test_ctrl_c_saves_a_checkpoint_and_resume_goes_on(launch, tiny_config, tmp_path):
    def train(*words):
        return launch("train", f"config:={tiny_config}", "out_dir:=run", *words)

    process = train("epochs:=100000")
    checkpoints = tmp_path / "run" / "checkpoints"
    deadline = time.monotonic() + PATIENCE_S
    while not list(checkpoints.glob("checkpoint_*.pt")) and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    code, output = finish(process)
    assert code == 0, output
    saved = int(re.search(r"stopped after epoch (\d+); checkpoint saved", output)[1])
    assert (checkpoints / f"checkpoint_{saved:06d}.pt").is_file()

    code, output = finish(train("resume:=true", f"epochs:={saved + 1}"))
    assert code == 0, output
    assert f"(epoch {saved})" in output
    assert (checkpoints / f"checkpoint_{saved + 1:06d}.pt").is_file()
