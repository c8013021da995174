import errno
import os
import random

import pytest
import torch
from point_mass import PointMass

from policy_runner.contract import ObsTerm
from sapo_learner.checkpoint import (
    CheckpointError,
    CheckpointHeader,
    NoCheckpointError,
    load_checkpoint,
    load_latest,
    save_checkpoint,
    set_aside_newer,
)

HEADER = CheckpointHeader.of(PointMass(), task="point_mass", algo="sapo")


def state(epoch: int) -> dict:
    return {"weights": torch.full((100,), float(epoch)), "epoch": epoch, "list": [1.5, 2], "nothing": None}


def save(folder, epoch: int, **kwargs):
    return save_checkpoint(folder, state(epoch), epoch=epoch, header=HEADER, **kwargs)


def assert_loads(folder, epoch: int):
    restored = load_latest(folder, header=HEADER)
    assert restored.epoch == epoch
    torch.testing.assert_close(restored.state, state(epoch), rtol=0.0, atol=0.0)
    return restored


def names(folder) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_newest_checkpoint_comes_back_as_it_was_saved(tmp_path):
    for epoch in (10, 20, 1_000_000):  # more digits than the name pads to
        path = save(tmp_path / "new" / "folder", epoch)
    restored = assert_loads(tmp_path / "new" / "folder", 1_000_000)
    assert restored.path == path and restored.broken == ()


def test_only_the_newest_few_are_kept(tmp_path):
    for epoch in range(5):
        save(tmp_path, epoch, keep=3)
    assert names(tmp_path) == [f"checkpoint_00000{epoch}.pt" for epoch in (2, 3, 4)]


def test_plain_torch_reads_the_file_without_trusting_it(tmp_path):
    content = torch.load(save(tmp_path, 7), weights_only=True)
    torch.testing.assert_close(content["state"], state(7))


@pytest.mark.parametrize("share", [0.0, 0.3, 0.9, 0.999])
def test_a_truncated_file_is_passed_over_and_named(tmp_path, share):
    save(tmp_path, 1)
    newest = save(tmp_path, 2)
    data = newest.read_bytes()
    newest.write_bytes(data[: int(share * len(data))])
    restored = assert_loads(tmp_path, 1)
    assert len(restored.broken) == 1 and "checkpoint_000002.pt: truncated" in restored.broken[0]


def test_a_flipped_bit_anywhere_is_noticed(tmp_path):
    save(tmp_path, 1)
    newest = save(tmp_path, 2)
    data = newest.read_bytes()
    chosen = random.Random(0)
    for position in [0, len(data) - 1, len(data) - 40, *(chosen.randrange(len(data)) for _ in range(60))]:
        damaged = bytearray(data)
        damaged[position] ^= 1 << chosen.randrange(8)
        newest.write_bytes(damaged)
        assert "checkpoint_000002.pt" in assert_loads(tmp_path, 1).broken[0]


def test_without_a_whole_one_every_broken_one_is_named(tmp_path):
    for epoch in (1, 2):
        save(tmp_path, epoch).write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"no whole checkpoint: .*000002.pt: .*000001.pt: "):
        load_latest(tmp_path, header=HEADER)


def test_an_empty_folder_has_no_checkpoint_and_one_with_a_broken_one_is_not_empty(tmp_path):
    with pytest.raises(NoCheckpointError, match="no checkpoint"):
        load_latest(tmp_path, header=HEADER)
    save(tmp_path, 1).write_bytes(b"")
    with pytest.raises(CheckpointError) as refusal:
        load_latest(tmp_path, header=HEADER)
    assert not isinstance(refusal.value, NoCheckpointError)


def test_a_named_checkpoint_is_read_whatever_there_is_besides(tmp_path):
    for epoch in (1, 2, 3):
        save(tmp_path, epoch)
    assert load_checkpoint(tmp_path / "checkpoint_000002.pt", header=HEADER).epoch == 2
    (tmp_path / "checkpoint_000002.pt").write_bytes(b"")
    with pytest.raises(CheckpointError, match=r"checkpoint_000002\.pt: truncated"):
        load_checkpoint(tmp_path / "checkpoint_000002.pt", header=HEADER)


def test_newer_checkpoints_are_set_aside_each_time_in_a_folder_of_their_own(tmp_path):
    for number in (1, 2):
        for epoch in (1, 2, 3):
            save(tmp_path, epoch)
        aside = set_aside_newer(tmp_path, epoch=1)
        assert aside == tmp_path / f"aside_{number}"
        assert names(aside) == ["checkpoint_000002.pt", "checkpoint_000003.pt"]
        assert_loads(tmp_path, 1)
    assert set_aside_newer(tmp_path, epoch=1) is None
    assert_loads(tmp_path / "aside_2", 3)


@pytest.mark.parametrize("moved", [0, 1, 2])
def test_cut_short_setting_aside_leaves_the_newest_of_a_run_as_it_was(tmp_path, monkeypatch, moved):
    class Crash(BaseException):
        pass

    rename, left = type(tmp_path).rename, iter(range(moved))

    def crashing(path, target):
        if next(left, None) is None:
            raise Crash
        return rename(path, target)

    for epoch in (1, 2, 3, 4):
        save(tmp_path, epoch, keep=4)
    with monkeypatch.context() as patch, pytest.raises(Crash):
        patch.setattr(type(tmp_path), "rename", crashing)
        set_aside_newer(tmp_path, epoch=1)
    assert_loads(tmp_path, 4 - moved)


def test_a_checkpoint_that_runs_code_when_loaded_is_refused(tmp_path):
    class Payload:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "canary"),)

    save_checkpoint(tmp_path, {"x": Payload()}, epoch=1, header=HEADER)
    with pytest.raises(CheckpointError, match="not a file of tensors and plain containers"):
        load_latest(tmp_path, header=HEADER)
    assert not (tmp_path / "canary").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "other"}, "task: expected 'other', got 'point_mass'"),
        ({"algo": "shac"}, "algo: expected 'shac', got 'sapo'"),
        ({"device": "cuda"}, "device: expected 'cuda', got 'cpu'"),
        ({"num_envs": 64}, "num_envs: expected 64, got 2"),
        ({"action_dim": 3}, "action_dim: expected 3, got 1"),
        ({"obs_spec": HEADER.obs_spec[:1]}, r"obs_spec: expected \['x'\], got \['x', 'v'\]"),
        (
            {"obs_spec": (HEADER.obs_spec[0], ObsTerm(name="v", kind="joint_velocity", shape=(2,)))},
            r"obs_spec.v: expected \{.*\(2,\).*\}, got \{.*\(1,\)",
        ),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_by_the_field_that_differs(tmp_path, changes, message):
    save(tmp_path, 1)
    other = CheckpointHeader(
        **({name: getattr(HEADER, name) for name in HEADER.__dataclass_fields__} | changes)
    )
    with pytest.raises(CheckpointError, match=f"checkpoint_000001.pt: {message}"):
        load_latest(tmp_path, header=other)


def test_a_full_disk_is_an_error_and_costs_no_earlier_checkpoint(tmp_path, monkeypatch):
    save(tmp_path, 1)

    def full(descriptor):
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(CheckpointError, match=r"checkpoint_000002.pt: cannot be written: No space left"):
            save(tmp_path, 2)
    assert names(tmp_path) == ["checkpoint_000001.pt"]
    assert_loads(tmp_path, 1)


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(CheckpointError, match="cannot be written"):
        save(tmp_path / "file" / "folder", 1)


@pytest.mark.parametrize("call", range(6))
@pytest.mark.parametrize("half_done", [False, True])
def test_a_crash_at_any_moment_leaves_the_old_or_the_new_checkpoint_whole(
    tmp_path, monkeypatch, call, half_done
):
    class Crash(BaseException):
        pass

    calls = iter(range(100))

    def crashing(function):
        def wrapper(*args, **kwargs):
            crash = next(calls) == call
            if crash and not half_done:
                raise Crash
            result = function(*args, **kwargs)
            if crash:
                raise Crash
            return result

        return wrapper

    for epoch in (1, 2):
        save(tmp_path, epoch, keep=2)
    with monkeypatch.context() as patch:
        for name in ("fsync", "replace", "open", "close", "unlink"):
            patch.setattr(os, name, crashing(getattr(os, name)))
        crashed = False
        try:
            save(tmp_path, 3, keep=2)
        except Crash:
            crashed = True
    restored = load_latest(tmp_path, header=HEADER)
    assert restored.epoch in ((2, 3) if crashed else (3,)) and restored.broken == ()
    save(tmp_path, 4, keep=2)  # whatever was left behind is cleared away
    assert all(name.startswith("checkpoint_") for name in names(tmp_path))
    assert_loads(tmp_path, 4)
