import os
import signal
import subprocess
import sys

import pytest
import yaml
from rewarped_msgs.msg import TrainingStatus

RUN = {
    "run": {
        "task": "cartpole",
        "num_envs": 4,
        "epochs": 100_000,
        "checkpoint_every": 100_000,
        "video": False,
    },
    "sapo": {"horizon": 8, "actor_hidden": [16], "critic_hidden": [16], "critic_passes": 2},
}


@pytest.fixture
def two_ranks(tmp_path):
    """A node of two ranks, its output in `log`."""
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(RUN))
    on_loopback = ["--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "--local-addr", "127.0.0.1"]
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", *on_loopback]
    parameters = ["-p", f"config:={tmp_path / 'config.yaml'}", "-p", f"out_dir:={tmp_path / 'run'}"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [*torchrun, "-m", "rewarped_sim.nodes.train_node", "--ros-args", *parameters],
            env=os.environ
            | {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(sys.path)},
            stdout=log,
            stderr=subprocess.STDOUT,
        )
    yield process
    if process.poll() is None:
        process.terminate()
        process.wait(timeout=60)


def test_rank_0_is_the_node_of_all_ranks_and_a_signal_saves_a_checkpoint(two_ranks, probe, tmp_path):
    probe.listen(TrainingStatus, "/train_node/status")
    status = probe.wait_for_message("/train_node/status", lambda status: status.epoch >= 1)
    assert status.num_envs == 4 and status.env_steps == status.epoch * 8 * 4
    assert probe.node.get_node_names().count("train_node") == 1
    two_ranks.send_signal(signal.SIGINT)
    two_ranks.wait(timeout=120)
    assert (tmp_path / "log").read_text().count("checkpoint saved: ") == 1
    assert len(list((tmp_path / "run/checkpoints").glob("checkpoint_*.pt"))) == 1
