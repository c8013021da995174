"""What may go wrong while a run trains, what it says then, how it ends, and that it resumes as if nothing had been."""

import pytest
import torch

from rewarped_sim.env import Env
from rewarped_sim.train import main
from sapo_learner.metrics import read_metrics
from sapo_learner.state_digest import state_sha256

TINY = """
run: {task: cartpole, num_envs: 2, epochs: 4, checkpoint_every: 1, eval_episodes: 2, video: false, device: cpu}
task: {max_episode_steps: 12}
sapo: {horizon: 5, actor_hidden: [8], critic_hidden: [8], critic_passes: 1, max_skipped_updates: 2}
"""
FAULT_AT_STEP = 13
"""In the middle of the third epoch."""


@pytest.fixture(autouse=True)
def quiet(monkeypatch):
    monkeypatch.setattr("rewarped_sim.train.show_log", lambda *_: None)


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    path = tmp_path_factory.mktemp("config") / "tiny.yaml"
    path.write_text(TINY)
    return path


def run(config, folder, *more):
    return main(["--config", str(config), "--out-dir", str(folder), *more])


def learner_sha256(folder, epoch=4):
    path = folder / "checkpoints" / f"checkpoint_{epoch:06d}.pt"
    return state_sha256(torch.load(path, weights_only=True)["state"])


@pytest.fixture(scope="module")
def undisturbed(config, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "undisturbed"
    assert run(config, folder) == 0
    return learner_sha256(folder)


RAISED = {
    "GPU memory is full": (
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB."),
        1,
        "out of memory: CUDA out of memory. Tried to allocate 20.00 GiB.. Most",
        ("num_envs", "horizon"),
    ),
    "memory is full": (
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"),
        1,
        "out of memory: [enforce fail",
        ("num_envs", "horizon"),
    ),
    "Warp finds no memory": (
        RuntimeError("Failed to allocate 123 bytes on device 'cuda:0'"),
        1,
        "out of memory: Failed to allocate 123 bytes",
        ("num_envs", "horizon"),
    ),
    "the GPU fell off the bus": (
        torch.AcceleratorError("CUDA error: unspecified launch failure\nMore words"),
        4,
        "the device failed: CUDA error: unspecified launch failure.",
        ("go on from the last one with resume",),
    ),
}


@pytest.mark.parametrize("fault", list(RAISED))
def test_a_device_that_gives_out_ends_the_run_by_name_and_a_resume_goes_on_exactly(
    fault, config, tmp_path, undisturbed, monkeypatch, capsys
):
    error, code, beginning, words = RAISED[fault]
    step, steps = Env.step, iter(range(1, 1000))

    def failing(env, action):
        if next(steps) == FAULT_AT_STEP:
            raise error
        return step(env, action)

    with monkeypatch.context() as patch:
        patch.setattr(Env, "step", failing)
        assert run(config, tmp_path / "run") == code
    last = capsys.readouterr().err.splitlines()[-1]
    assert last.startswith(f"error: {beginning}")
    assert all(word in last for word in words)
    assert run(config, tmp_path / "run", "--resume") == 0
    assert learner_sha256(tmp_path / "run") == undisturbed


def test_an_error_of_our_own_is_not_mistaken_for_the_devices(config, tmp_path, monkeypatch):
    def failing(env, action):
        raise RuntimeError("a mistake of ours")

    monkeypatch.setattr(Env, "step", failing)
    with pytest.raises(RuntimeError, match="a mistake of ours"):
        run(config, tmp_path / "run")


def test_gradients_that_are_never_finite_end_the_run_with_exit_code_1_and_a_checkpoint(
    config, tmp_path, monkeypatch, capsys
):
    step = Env.step

    def broken(env, action):
        if action.requires_grad:
            action.register_hook(lambda bar: bar * torch.nan)
        return step(env, action)

    monkeypatch.setattr(Env, "step", broken)
    assert run(config, tmp_path / "run") == 1
    assert "epoch 2: no finite actor gradient 2 times in a row" in capsys.readouterr().err.splitlines()[-1]
    folder = tmp_path / "run"
    assert [row["actor/skipped"] for row in read_metrics(folder / "metrics.csv")] == [1, 1]
    assert [path.name for path in (folder / "faults").iterdir()] == ["epoch_000001.pt"]
    saved = torch.load(folder / "checkpoints" / "checkpoint_000002.pt", weights_only=True)["state"]
    dumped = torch.load(folder / "faults" / "epoch_000001.pt", weights_only=True)["state"]
    untouched = [name for name in saved["policy"] if not name.startswith("normalizer.")]
    assert untouched and all(torch.equal(saved["policy"][name], dumped["policy"][name]) for name in untouched)


def test_the_same_seed_gives_the_same_run_and_another_seed_another(config, tmp_path, undisturbed):
    assert run(config, tmp_path / "again") == 0
    assert learner_sha256(tmp_path / "again") == undisturbed
    assert run(config, tmp_path / "other", "--seed", "1") == 0
    assert learner_sha256(tmp_path / "other") != undisturbed
