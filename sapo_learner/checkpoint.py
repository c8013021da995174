"""Checkpoints on disk: a folder of `checkpoint_<epoch>.pt`, each whole or recognised as broken.

A file is what `torch.save` writes, of tensors and plain containers only, and a last line with the sha256 of
all bytes before it, which `torch.load(..., weights_only=True)` does not mind. It is written under another
name, brought to the disk, and only then renamed: a crash at any moment leaves the earlier checkpoints, and
never half a new one.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import pickle
import re
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from policy_runner.contract import ObsTerm
from sapo_learner.atomic_file import clear_leftovers, write_atomically
from sapo_learner.vec_env import VecEnv

FORMAT = 1
_NAME = re.compile(r"checkpoint_(\d{6,})\.pt")
_TRAILER = re.compile(rb"\nsha256 ([0-9a-f]{64})\n\Z")
_TRAILER_SIZE = len("\nsha256 \n") + 64


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written, or none can be loaded; the message names file and reason."""


class NotSavedError(CheckpointError):
    """A checkpoint cannot be written. Those before it are still there."""


class NoCheckpointError(CheckpointError):
    """There is none yet, not even a broken one."""


@dataclass(frozen=True, kw_only=True)
class CheckpointHeader:
    """What a checkpoint must agree on with the run that continues from it."""

    task: str
    algo: str
    device: str | None
    """`cpu` or `cuda`: random state does not carry over from one to the other. None: either will do."""
    num_envs: int | None
    """None: any number will do."""
    action_dim: int
    obs_spec: tuple[ObsTerm, ...]

    @staticmethod
    def of(env: VecEnv, *, task: str, algo: str) -> CheckpointHeader:
        """Describe the learner of `algo` on `env`."""
        return CheckpointHeader(
            task=task,
            algo=algo,
            device=env.device.type,
            num_envs=env.num_envs,
            action_dim=env.action_dim,
            obs_spec=tuple(env.obs_spec),
        )

    def fields(self) -> dict[str, Any]:
        """Return the fields that matter as plain containers, one entry for each observation term."""
        fields = {name: value for name, value in asdict(self).items() if value is not None}
        fields |= {"format": FORMAT, "obs_spec": [term.name for term in self.obs_spec]}
        return fields | {f"obs_spec.{term.name}": asdict(term) for term in self.obs_spec}


@dataclass(frozen=True, kw_only=True)
class Restored:
    """A checkpoint that was read back."""

    path: Path
    epoch: int
    state: dict[str, Any]
    """What was saved, on the CPU."""
    broken: tuple[str, ...]
    """One line for each newer checkpoint that was passed over: file and reason."""


def save_checkpoint(
    directory: str | os.PathLike[str],
    state: dict[str, Any],
    *,
    epoch: int,
    header: CheckpointHeader,
    keep: int = 3,
) -> Path:
    """Write `checkpoint_<epoch>.pt` and delete all but the newest `keep` ones.

    Raises:
        NotSavedError: the folder or the file cannot be written. Earlier checkpoints are still there.
    """
    folder = Path(directory)
    path = folder / f"checkpoint_{epoch:06d}.pt"
    write_state(path, state, epoch=epoch, header=header)
    for old in _checkpoints(folder)[keep:]:
        with contextlib.suppress(OSError):  # it is in nobody's way
            old.unlink()
    return path


def write_state(path: Path, state: dict[str, Any], *, epoch: int, header: CheckpointHeader) -> None:
    """Write one file in the format of a checkpoint, under any name. Raises NotSavedError."""
    buffer = io.BytesIO()
    torch.save({"header": header.fields(), "epoch": epoch, "state": state}, buffer)
    digest = hashlib.sha256(buffer.getbuffer()).hexdigest()
    buffer.seek(0, os.SEEK_END)
    buffer.write(f"\nsha256 {digest}\n".encode())
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        clear_leftovers(path.parent)
        write_atomically(path, buffer.getbuffer())
    except OSError as error:
        raise NotSavedError(f"{path}: cannot be written: {error.strerror or error}") from error


def load_latest(directory: str | os.PathLike[str], *, header: CheckpointHeader) -> Restored:
    """Read the newest checkpoint that is whole.

    Raises:
        NoCheckpointError: there is none at all.
        CheckpointError: all are broken, or the newest whole one is of another task, algorithm, device or size; the
            first field that differs is named.
    """
    folder = Path(directory)
    broken: list[str] = []
    for path in _checkpoints(folder):
        try:
            content = _read(path)
        except CheckpointError as error:
            broken.append(str(error))
            continue
        return _restored(path, content, header, tuple(broken))
    if broken:
        raise CheckpointError(f"{folder}: no whole checkpoint: {'; '.join(broken)}")
    raise NoCheckpointError(f"{folder}: no checkpoint (checkpoint_<epoch>.pt) in it")


def load_checkpoint(path: Path, *, header: CheckpointHeader) -> Restored:
    """Read this file. Raises CheckpointError where it is broken or does not fit, as `load_latest` does."""
    return _restored(path, _read(path), header, ())


def is_checkpoint_name(name: str) -> bool:
    """Tell whether a file of this name is a checkpoint."""
    return _NAME.fullmatch(name) is not None


def set_aside_newer(directory: str | os.PathLike[str], *, epoch: int) -> Path | None:
    """Move checkpoints of later epochs to a new folder `aside_<n>` beside them, and return it; None: there are none.

    A run that goes back to `epoch` would otherwise take them for its own newest ones. The newest goes first: whenever
    this is cut short, the newest that is left is one of the run as it was. Raises CheckpointError.
    """
    folder = Path(directory)
    newer = [path for path in _checkpoints(folder) if _epoch(path) > epoch]
    if not newer:
        return None
    number = 1
    while (aside := folder / f"aside_{number}").exists():
        number += 1
    try:
        aside.mkdir()
        for path in newer:
            path.rename(aside / path.name)
    except OSError as error:
        raise CheckpointError(f"{aside}: cannot be written: {error.strerror or error}") from error
    return aside


def _checkpoints(folder: Path) -> list[Path]:
    """List all checkpoints, the newest first."""
    return sorted(
        filter(lambda path: is_checkpoint_name(path.name), folder.glob("*.pt")), key=_epoch, reverse=True
    )


def _epoch(path: Path) -> int:
    return int(path.stem.removeprefix("checkpoint_"))


def _restored(
    path: Path, content: dict[str, Any], header: CheckpointHeader, broken: tuple[str, ...]
) -> Restored:
    _check_header(path, expected=header.fields(), found=content["header"])
    return Restored(path=path, epoch=content["epoch"], state=content["state"], broken=broken)


def _read(path: Path) -> dict[str, Any]:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path.name}: cannot be read: {error.strerror or error}") from error
    trailer = _TRAILER.fullmatch(data[-_TRAILER_SIZE:])
    if trailer is None:
        raise CheckpointError(f"{path.name}: truncated, or not a checkpoint: no sha256 at its end")
    payload = memoryview(data)[:-_TRAILER_SIZE]
    found, expected = hashlib.sha256(payload).hexdigest(), trailer[1].decode()
    if found != expected:
        raise CheckpointError(f"{path.name}: damaged: sha256 expected {expected}, found {found}")
    try:
        return torch.load(io.BytesIO(payload), weights_only=True, map_location="cpu")
    except (pickle.UnpicklingError, RuntimeError, EOFError, zipfile.BadZipFile) as error:
        raise CheckpointError(f"{path.name}: not a file of tensors and plain containers: {error}") from error


def _check_header(path: Path, *, expected: dict[str, Any], found: dict[str, Any]) -> None:
    for name, value in expected.items():
        if found.get(name) != value:
            raise CheckpointError(f"{path}: {name}: expected {value!r}, got {found.get(name)!r}")
