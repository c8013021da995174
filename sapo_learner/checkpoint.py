"""Checkpoints on disk: a folder of `checkpoint_<epoch>.pt`, each whole or recognised as broken.

A file is what `torch.save` writes, of tensors and plain containers only, and a last line with the sha256 of
all bytes before it, which `torch.load(..., weights_only=True)` does not mind. It is written under another
name, brought to the disk, and only then renamed: a crash at any moment leaves the earlier checkpoints, and
never half a new one.
"""

from __future__ import annotations

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
from sapo_learner.vec_env import VecEnv

FORMAT = 1
_NAME = re.compile(r"checkpoint_(\d{6,})\.pt")
_TEMPORARY = ".writing_"
_TRAILER = re.compile(rb"\nsha256 ([0-9a-f]{64})\n\Z")
_TRAILER_SIZE = len("\nsha256 \n") + 64


class CheckpointError(RuntimeError):
    """A checkpoint cannot be written, or none can be loaded; the message names file and reason."""


@dataclass(frozen=True, kw_only=True)
class CheckpointHeader:
    """What a checkpoint must agree on with the run that continues from it."""

    task: str
    algo: str
    device: str
    """`cpu` or `cuda`: random state does not carry over from one to the other."""
    num_envs: int
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
        """Return the fields as plain containers, one entry for each observation term."""
        fields = asdict(self) | {"format": FORMAT, "obs_spec": [term.name for term in self.obs_spec]}
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
        CheckpointError: the folder or the file cannot be written. Earlier checkpoints are still there.
    """
    folder = Path(directory)
    path = folder / f"checkpoint_{epoch:06d}.pt"
    buffer = io.BytesIO()
    torch.save({"header": header.fields(), "epoch": epoch, "state": state}, buffer)
    digest = hashlib.sha256(buffer.getbuffer()).hexdigest()
    buffer.seek(0, os.SEEK_END)
    buffer.write(f"\nsha256 {digest}\n".encode())
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for leftover in folder.glob(f"{_TEMPORARY}*"):  # of a process that was killed while it wrote
            leftover.unlink()
        _write_atomically(path, buffer.getbuffer())
        for old in _checkpoints(folder)[keep:]:
            old.unlink()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written: {error.strerror or error}") from error
    return path


def load_latest(directory: str | os.PathLike[str], *, header: CheckpointHeader) -> Restored:
    """Read the newest checkpoint that is whole.

    Raises:
        CheckpointError: there is none, or it is of another task, algorithm, device or size; the first field
            that differs is named.
    """
    folder = Path(directory)
    broken: list[str] = []
    for path in _checkpoints(folder):
        try:
            content = _read(path)
        except CheckpointError as error:
            broken.append(str(error))
            continue
        _check_header(path, expected=header.fields(), found=content["header"])
        return Restored(path=path, epoch=content["epoch"], state=content["state"], broken=tuple(broken))
    if broken:
        raise CheckpointError(f"{folder}: no whole checkpoint: {'; '.join(broken)}")
    raise CheckpointError(f"{folder}: no checkpoint (checkpoint_<epoch>.pt) in it")


def _checkpoints(folder: Path) -> list[Path]:
    """List all checkpoints, the newest first."""
    found = [(int(match[1]), path) for path in folder.glob("*.pt") if (match := _NAME.fullmatch(path.name))]
    return [path for _, path in sorted(found, reverse=True)]


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


def _write_atomically(path: Path, data: memoryview) -> None:
    temporary = path.with_name(_TEMPORARY + path.name)
    try:
        with temporary.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        temporary.unlink(missing_ok=True)
        raise
    descriptor = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(descriptor)  # the new name itself must survive a power cut
    finally:
        os.close(descriptor)
