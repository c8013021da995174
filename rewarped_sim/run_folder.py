"""The folder of a training run: made, found again, and checked before anything expensive starts."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rewarped_sim.registry import ConfigError

if TYPE_CHECKING:
    from rewarped_sim.train_config import TrainConfig

CONFIG_FILE = "config.yaml"
"""Written first: it marks a folder as one of a run."""


@dataclass(frozen=True)
class RunFolder:
    """Where everything of a run lies."""

    path: Path

    @property
    def config(self) -> Path:
        """The run's configuration, as a file of differences."""
        return self.path / CONFIG_FILE

    @property
    def checkpoints(self) -> Path:
        """Folder of the checkpoints."""
        return self.path / "checkpoints"

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
    """Open the folder to resume in, or make a new one, and check that it can be written.

    A fresh start never takes the folder of an earlier run: the default one is numbered, a chosen one refused.
    Raises ConfigError when there is nothing to resume, the folder is taken, or it cannot be written.
    """
    path = Path(config.out_dir).expanduser() if config.out_dir else _unused_folder(config)
    has_run = (path / CONFIG_FILE).is_file()
    if config.resume and not has_run:
        raise ConfigError(
            f"out_dir {path} is not the folder of a run (no {CONFIG_FILE} in it); nothing to resume"
        )
    if has_run and not config.resume:
        raise ConfigError(
            f"out_dir {path} holds an earlier run; continue it with resume, or choose another folder"
        )
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError as error:
        raise ConfigError(f"out_dir {path} cannot be written: {error.strerror or error}") from error
    return RunFolder(path.absolute())


def find_run(config: TrainConfig, resume: str) -> Path:
    """Find the folder that `resume` means: true, latest, or a path. Raises ConfigError when there is none."""
    if resume.lower() not in ("true", "latest"):
        path = Path(resume).expanduser()
        if path.is_file():
            raise ConfigError(
                f"resume: {path} is a file; expected true, latest or a run's folder, "
                "of which the newest whole checkpoint is used"
            )
    elif config.out_dir:
        path = Path(config.out_dir).expanduser()
    else:
        first = _default_folder(config)
        numbered = [
            path
            for path in first.parent.glob(f"{first.name}_*")
            if path.name[len(first.name) + 1 :].isdigit()
        ]
        runs = [path for path in (first, *numbered) if (path / CONFIG_FILE).is_file()]
        if not runs:
            raise ConfigError(
                f"resume: no earlier run under {first.absolute()}; name its folder with out_dir"
            )
        path = max(runs, key=lambda path: path.stat().st_mtime)
    if not (path / CONFIG_FILE).is_file():
        raise ConfigError(f"resume: {path} is not the folder of a run (no {CONFIG_FILE} in it)")
    return path.absolute()


def _unused_folder(config: TrainConfig) -> Path:
    first = _default_folder(config)
    path, number = first, 2
    while path.exists():
        path, number = first.with_name(f"{first.name}_{number}"), number + 1
    return path


def _default_folder(config: TrainConfig) -> Path:
    return Path("runs") / f"{config.task}_{config.algo.replace('/', '-')}_{config.seed}"
