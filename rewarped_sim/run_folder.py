"""The folder of a training run: made, found again, and checked before anything expensive starts."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

from rewarped_sim.registry import ConfigError
from rewarped_sim.run_lock import RunLock, RunLockedError
from sapo_learner.atomic_file import write_atomically
from sapo_learner.checkpoint import is_checkpoint_name
from sapo_learner.parallel import Ranks

if TYPE_CHECKING:
    from rewarped_sim.train_config import TrainConfig

CONFIG_FILE = "config.yaml"
"""Written first: it marks a folder as one of a run."""
CHECKPOINTS = "checkpoints"


@dataclass(frozen=True)
class RunFolder:
    """Where everything of a run lies. As a context, it keeps other processes out until its end."""

    path: Path
    lock: RunLock | None
    """None for processes that take part in the run of another one, and write nothing."""

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.lock is not None:
            self.lock.release()

    def describe(self, config: TrainConfig) -> None:
        """Write the run's configuration: at any moment, the old one or the new one is there, whole. Raises OSError."""
        write_atomically(self.config, config.to_yaml().encode())

    @property
    def config(self) -> Path:
        """The run's configuration, as a file of differences."""
        return self.path / CONFIG_FILE

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / CHECKPOINTS

    @property
    def faults(self) -> Path:
        """Folder of the states from which something went wrong."""
        return self.path / "faults"

    @property
    def bundle(self) -> Path:
        """Folder of the exported policy bundle."""
        return self.path / "bundle"

    @property
    def curve(self) -> Path:
        """Picture of the learning curve."""
        return self.path / "learning_curve.png"

    @property
    def video(self) -> Path:
        """Video of a rollout."""
        return self.path / "rollout.mp4"


def open_run_folder(config: TrainConfig) -> RunFolder:
    """Open the folder to resume in, or make a new one with the configuration in it; nobody else has it then.

    A fresh start never takes the folder of an earlier run: the default one is numbered, a chosen one refused.
    Raises ConfigError when there is nothing to resume, the folder is taken or in use, or it cannot be written.
    """
    path = _with_home(config.out_dir) if config.out_dir else _unused_folder(config)
    try:
        if config.resume and not _can_resume(path):
            raise ConfigError(f"out_dir {path} {_NOT_A_RUN}; nothing to resume")
        if not config.resume and (path / CONFIG_FILE).is_file():
            raise ConfigError(
                f"out_dir {path} holds an earlier run; continue it with resume, or choose another folder"
            )
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
        folder = RunFolder(path.absolute(), RunLock(path))
        if not folder.config.is_file():
            folder.describe(config)
    except RunLockedError as error:
        raise ConfigError(f"out_dir {path} is {error}") from error
    except OSError as error:
        raise ConfigError(f"out_dir {path} cannot be written: {error.strerror or error}") from error
    return folder


def open_folder_of_ranks(config: TrainConfig, ranks: Ranks) -> RunFolder:
    """Open the folder on rank 0, as `open_run_folder` does, and tell the others where it is; all raise its errors."""
    opened: list[RunFolder] = []

    def open_first() -> Path:
        opened.append(open_run_folder(config))
        return opened[0].path

    path = ranks.on_first(open_first)
    return opened[0] if opened else RunFolder(path, None)


def find_run(config: TrainConfig, resume: str) -> tuple[Path, Path | None]:
    """Find what `resume` means: true, latest, a run's folder, or one of its checkpoints.

    Returns the folder, and the checkpoint where one is named. Raises ConfigError when there is none.
    """
    try:
        return _found_run(config, resume)
    except OSError as error:
        raise ConfigError(f"resume: {error.filename} cannot be read: {error.strerror}") from error


def _found_run(config: TrainConfig, resume: str) -> tuple[Path, Path | None]:
    if resume.lower() not in ("true", "latest"):
        path = _with_home(resume).absolute()
        if path.is_file():
            return _run_of_checkpoint(path), path
    elif config.out_dir:
        path = _with_home(config.out_dir).absolute()
    else:
        path = _newest_run(_default_folder(config).absolute())
    if not _can_resume(path):
        raise ConfigError(f"resume: {path} {_NOT_A_RUN}")
    return path, None


_NOT_A_RUN = f"is not the folder of a run (no {CONFIG_FILE} in it)"


def _with_home(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise ConfigError(f"{path}: there is no such user's home folder") from error


def _can_resume(path: Path) -> bool:
    """Whether a run is or was in this folder: killed in its first moments, it has left hidden files at most."""
    if (path / CONFIG_FILE).is_file():
        return True
    return path.is_dir() and all(entry.name.startswith(".") for entry in path.iterdir())


def _run_of_checkpoint(path: Path) -> Path:
    folder = path.parent.parent
    if not (is_checkpoint_name(path.name) and path.parent.name == CHECKPOINTS and _can_resume(folder)):
        raise ConfigError(
            f"resume: {path} is a file, but no checkpoint in the folder of its run; expected true, latest, a run's "
            f"folder or <folder>/{CHECKPOINTS}/checkpoint_<epoch>.pt"
        )
    return folder


def _newest_run(first: Path) -> Path:
    numbered = [
        path for path in first.parent.glob(f"{first.name}_*") if path.name[len(first.name) + 1 :].isdigit()
    ]
    runs = [path for path in (first, *numbered) if (path / CONFIG_FILE).is_file()]
    if not runs:
        raise ConfigError(f"resume: no earlier run under {first}; name its folder with out_dir")
    return max(runs, key=lambda path: path.stat().st_mtime)


def _unused_folder(config: TrainConfig) -> Path:
    first = _default_folder(config)
    path, number = first, 2
    while path.exists():
        path, number = first.with_name(f"{first.name}_{number}"), number + 1
    return path


def _default_folder(config: TrainConfig) -> Path:
    return Path("runs") / f"{config.task}_{config.algo.replace('/', '-')}_{config.seed}"
