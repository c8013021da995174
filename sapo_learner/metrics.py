"""Metrics of a run, epoch by epoch, as `metrics.csv` and as TensorBoard events; both go on after a resume."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

from torch.utils.tensorboard import SummaryWriter

EPOCH = "epoch"


class MetricsLogger:
    """Writes each epoch's metrics as they come, so that nothing is lost with the process."""

    def __init__(self, directory: str | os.PathLike[str], *, epoch: int = 0) -> None:
        """Open or continue the files in `directory`; what they hold of epochs after `epoch` is dropped."""
        self.path = Path(directory) / "metrics.csv"
        self.path.parent.mkdir(parents=True, exist_ok=True)
        rows = [row for row in read_metrics(self.path) if row[EPOCH] <= epoch]
        self._columns = list(rows[0]) if rows else []
        if self._columns:
            self._rewrite(rows)
        else:
            self.path.unlink(missing_ok=True)
        self._tensorboard = SummaryWriter(str(self.path.parent), purge_step=epoch + 1)

    def log(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Add the metrics of an epoch. A name not seen before becomes a new column, NaN in earlier rows."""
        row = {EPOCH: float(epoch), **metrics}
        if new := [name for name in row if name not in self._columns]:
            self._columns += new
            self._rewrite(read_metrics(self.path))
        with self.path.open("a", newline="") as file:
            self._writer(file).writerow(_as_text(row))
        for name, value in metrics.items():
            self._tensorboard.add_scalar(name, value, epoch)

    def close(self) -> None:
        """Flush the TensorBoard events; the CSV file is complete at any time."""
        self._tensorboard.close()

    def _rewrite(self, rows: list[dict[str, float]]) -> None:
        temporary = self.path.with_suffix(".tmp")
        with temporary.open("w", newline="") as file:
            writer = self._writer(file)
            writer.writeheader()
            writer.writerows(_as_text(row) for row in rows)
        os.replace(temporary, self.path)

    def _writer(self, file: TextIO) -> csv.DictWriter:
        return csv.DictWriter(file, self._columns, restval="nan", lineterminator="\n")


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, float]]:
    """Read a `metrics.csv`, one dict an epoch with NaN where there was nothing; no file means no rows.

    A last row that a crash cut short is left out.
    """
    path = Path(path)
    if not path.exists():
        return []
    text = path.read_text()
    whole_lines = text[: text.rfind("\n") + 1].splitlines()
    return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(whole_lines)]


def _as_text(row: Mapping[str, float]) -> dict[str, str]:
    return {name: f"{value:.9g}" for name, value in row.items()}
