"""A run of two ranks under torchrun: what one process would learn, killed, resumed and refused."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
import yaml

from rewarped_sim.registry import ConfigError
from rewarped_sim.train import train
from rewarped_sim.train_config import read_train_config
from sapo_learner.checkpoint import CheckpointError, write_state
from sapo_learner.metrics import read_metrics
from sapo_learner.parallel import Ranks

EPOCHS = 40
TINY = {
    "run": {
        "task": "cartpole",
        "num_envs": 4,
        "epochs": EPOCHS,
        "checkpoint_every": 5,
        "eval_episodes": 4,
        "video": False,
    },
    "task": {"max_episode_steps": 30},
    "sapo": {"horizon": 8, "actor_hidden": [16], "critic_hidden": [16], "critic_passes": 2},
}


@pytest.fixture(scope="module")
def config_path(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(yaml.safe_dump(TINY))
    return str(path)


def start(config_path, out_dir, *words):
    """Start a run of two ranks; torchrun's standard error has that of both."""
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    on_loopback = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "--local-addr", "127.0.0.1"]
    run = ["-m", "rewarped_sim.train", "--config", config_path, "--out-dir", str(out_dir), *words]
    return subprocess.Popen(
        [*torchrun, *on_loopback, *run],
        env=os.environ
        | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )


def pid_of_rank(torchrun: subprocess.Popen, rank: int) -> int:
    children = Path(f"/proc/{torchrun.pid}/task/{torchrun.pid}/children").read_text().split()
    of_rank = [pid for pid in children if f"\0RANK={rank}\0" in Path(f"/proc/{pid}/environ").read_text()]
    assert len(of_rank) == 1
    return int(of_rank[0])


def wait_for(path: Path, run: subprocess.Popen) -> None:
    deadline = time.monotonic() + 200.0
    while not path.exists():
        assert run.poll() is None and time.monotonic() < deadline, run.communicate()[1]
        time.sleep(0.02)


def networks(out_dir: Path) -> dict:
    state = torch.load(out_dir / f"checkpoints/checkpoint_{EPOCHS:06d}.pt", weights_only=True)["state"]
    return {name: state[name] for name in ("policy", "critics", "temperature")}


@pytest.fixture(scope="module")
def undisturbed(config_path, tmp_path_factory):
    """Folder and messages of a finished run."""
    out_dir = tmp_path_factory.mktemp("runs") / "undisturbed"
    run = start(config_path, out_dir)
    stderr = run.communicate(timeout=240)[1]
    assert run.returncode == 0, stderr
    return out_dir, stderr


def test_a_run_of_two_ranks_learns_what_one_process_does(undisturbed, config_path, tmp_path):
    alone = train(read_train_config({"out_dir": str(tmp_path / "alone")}, config_path=config_path))
    found, expected = (
        read_metrics(undisturbed[0] / "metrics.csv"),
        read_metrics(alone.out_dir / "metrics.csv"),
    )
    assert [row["env_steps"] for row in found] == [row["env_steps"] for row in expected]
    for name in ("return", "step_reward", "critic/loss", "actor/grad_norm", "temperature"):
        first_epochs = [
            [row[name] for row in rows[:8]] for rows in (found, expected)
        ]  # float32: it drifts apart
        assert first_epochs[0] == pytest.approx(first_epochs[1], rel=1e-3, nan_ok=True), name


def test_rank_0_alone_reports_and_leaves_results(undisturbed):
    out_dir, stderr = undisturbed
    assert stderr.count("run folder: ") == 1
    assert stderr.count("cartpole: policy ") == 1
    assert (out_dir / "bundle" / "policy.onnx").is_file()
    assert sorted(path.name for path in out_dir.parent.iterdir()) == ["undisturbed"]


def test_a_rank_killed_ends_the_run_by_name_and_a_resume_ends_with_the_same_bits(
    undisturbed, config_path, tmp_path
):
    run = start(config_path, tmp_path / "run")
    wait_for(tmp_path / "run/checkpoints/checkpoint_000005.pt", run)
    os.kill(pid_of_rank(run, 1), signal.SIGKILL)
    stderr = run.communicate(timeout=60)[1]
    assert run.returncode != 0
    assert "error: rank 1 of 2 ended or does not answer" in stderr and "start again with --resume" in stderr
    assert not (tmp_path / "run/bundle").exists()

    again = start(config_path, tmp_path / "run", "--resume")
    stderr = again.communicate(timeout=240)[1]
    assert again.returncode == 0, stderr
    assert "resumed from" in stderr
    torch.testing.assert_close(
        networks(tmp_path / "run"), networks(undisturbed[0]), rtol=0.0, atol=0.0, equal_nan=True
    )


class SavedHeader(NamedTuple):
    """That of a checkpoint which is written again."""

    content: dict

    def fields(self) -> dict:
        return self.content


def test_ranks_go_on_together_after_a_trial_that_a_stop_cut_short(config_path, tmp_path):
    config = yaml.safe_load(Path(config_path).read_text())
    config["run"] |= {"epochs": 4, "checkpoint_every": 3, "select_every": 1}
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(config))
    run = start(str(tmp_path / "tiny.yaml"), tmp_path / "run")
    assert run.wait(timeout=240) == 0
    third, last = (tmp_path / f"run/checkpoints/checkpoint_{epoch:06d}.pt" for epoch in (3, 4))
    expected = torch.load(last, weights_only=True)["state"]
    saved = torch.load(third, weights_only=True)
    saved["state"]["trial_owed"] = True
    write_state(third, saved["state"], epoch=3, header=SavedHeader(saved["header"]))

    again = start(str(tmp_path / "tiny.yaml"), tmp_path / "run", "--resume", str(third))
    stderr = again.communicate(timeout=60)[1]
    assert again.returncode == 0, stderr
    assert "epoch 3: a trial earns" in stderr
    found = torch.load(last, weights_only=True)["state"]
    torch.testing.assert_close(found["policy"], expected["policy"], rtol=0.0, atol=0.0)
    assert found["best_policy"]["epoch"] == expected["best_policy"]["epoch"]


def test_a_run_of_two_ranks_is_not_resumed_by_one(undisturbed, config_path):
    config = read_train_config({"out_dir": str(undisturbed[0])}, config_path=config_path, resume="true")
    with pytest.raises(CheckpointError, match=r"saved by 2 rank\(s\), and this run has 1"):
        train(config)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"num_envs": 5}, "num_envs must be a multiple of the number of ranks, 2, .*, got 5"),
        ({"algo": "sac"}, "algo 'sac' runs in one process, got 2 ranks; those that scale: .*'shac'"),
    ],
)
def test_what_cannot_be_shared_is_refused_before_anything_is_written(config_path, tmp_path, values, message):
    class Two(Ranks):
        size = 2

    config = read_train_config({"out_dir": str(tmp_path / "run"), **values}, config_path=config_path)
    with pytest.raises(ConfigError, match=message):
        train(config, ranks=Two())
    assert not (tmp_path / "run").exists()
