"""What came out of a job, as a JSON file that outlives the run's folder."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rewarped_sim.json_file import write_json
from rewarped_sim.registry import ConfigError
from rewarped_sim.reproduction.suites import job_name
from sapo_learner.metrics import read_metrics

CURVE_POINTS = 200


@dataclass(frozen=True, kw_only=True)
class Record:
    """One finished and evaluated run."""

    suite: str
    task: str
    algo: str
    variation: str = ""
    """Point of a sweep, where the suite is one."""
    seed: int
    num_envs: int
    epochs: int
    """Planned, over which learning rates fall, and done."""
    full_epochs: int
    """Planned epochs of the full budget."""
    env_steps: int
    wall_clock_s: float
    """Of training, start-up included; the machine may have had other work at the same time. 0: not measured."""
    policy_of_epoch: int
    """Of the policy that was evaluated: the last one, unless the run chooses the best of its trials."""
    agents: Mapping[str, Mapping[str, Any]]
    """By agent, as `python -m rewarped_sim.evaluate` gives them."""
    curve: Mapping[str, list[float]]
    """`env_steps` and mean `return` of the episodes that ended lately, with sampled actions; few of all points."""
    config: Mapping[str, Any]
    """Of the run, as in its config.yaml."""
    machine: Mapping[str, Any]

    @property
    def label(self) -> str:
        """Names its row of a table: the algorithm, or in a sweep the point, with the algorithm if it is not SAPO."""
        if self.variation and self.algo != "sapo":
            return f"{self.algo}, {self.variation}"
        return self.variation or self.algo

    @property
    def name(self) -> str:
        """That of its job."""
        return job_name(self.task, self.algo, self.variation, self.seed)

    def write(self, folder: Path) -> Path:
        """Write `<folder>/<suite>/<job>.json`, whole or not at all. Raises OSError."""
        path = record_path(folder, self.suite, self.name)
        write_json(path, asdict(self))
        return path


def record_path(folder: Path, suite: str, job: str) -> Path:
    """Return where the record of a job lies."""
    return folder / suite / f"{job}.json"


def read_record(path: Path) -> Record:
    """Read a record. Raises ConfigError naming file and reason where it is not one."""
    try:
        return Record(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigError(f"results {path} cannot be read: {' '.join(str(error).split())}") from error


def read_records(folder: Path, suite: str) -> list[Record]:
    """Read all records of a suite; none is an empty list. Raises ConfigError."""
    return [read_record(path) for path in sorted((folder / suite).glob("*.json"))]


def thinned_curve(metrics_file: Path, points: int = CURVE_POINTS) -> dict[str, list[float]]:
    """Read a learning curve and keep evenly spaced points of it, the last one among them."""
    rows = [row for row in read_metrics(metrics_file) if math.isfinite(row["return"])]
    count = min(points, len(rows))
    kept = [rows[(k + 1) * len(rows) // count - 1] for k in range(count)]
    return {name: [row[name] for row in kept] for name in ("env_steps", "return")}
