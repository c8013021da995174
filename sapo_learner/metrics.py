"""Metrics of a run, epoch by epoch, as `metrics.csv` and as TensorBoard events; both go on after a resume.

The CSV file is what counts: a row is with the operating system when `log` returns, and so outlives the process.
TensorBoard writes behind; what a killed process still owed it is written anew from the CSV file.
"""

from __future__ import annotations

import contextlib
import csv
import io
import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter

from sapo_learner.atomic_file import clear_leftovers, write_atomically

EPOCH = "epoch"

log = logging.getLogger(__name__)


class MetricsLogger:
    """Writes each epoch's metrics as they come, so that nothing is lost with the process.

    A disk that is full costs no row and does not end the training: it is said once, and rows wait for the next epoch.
    """

    def __init__(self, directory: str | os.PathLike[str], *, epoch: int = 0) -> None:
        """Open or continue the files in `directory`; what they hold of epochs after `epoch` is dropped."""
        self.path = Path(directory) / "metrics.csv"
        folder = self.path.parent
        folder.mkdir(parents=True, exist_ok=True)
        clear_leftovers(folder)
        self._rows = [row for row in read_metrics(self.path) if row[EPOCH] <= epoch]
        last = self._rows[-1][EPOCH] if self._rows else 0
        if last < epoch:
            log.warning("%s ends with epoch %d; rows up to %d are lost", self.path, last, epoch)
        self._columns = list(self._rows[0]) if self._rows else []
        self._written = 0
        """How many of the rows are in the file."""
        if self._rows:
            self._rewrite()
            self._written = len(self._rows)
        else:
            self.path.unlink(missing_ok=True)
        for events in folder.glob("events.out.tfevents.*"):
            events.unlink()
        self._tensorboard: SummaryWriter | None = SummaryWriter(str(folder))
        for row in self._rows:
            self._show(row)

    def log(self, epoch: int, metrics: Mapping[str, float]) -> None:
        """Add the metrics of an epoch. A name not seen before becomes a new column, NaN in earlier rows."""
        row = {name: float(_as_text(value)) for name, value in {EPOCH: epoch, **metrics}.items()}
        self._rows.append(row)
        all_written = self._written == len(self._rows) - 1
        new = [name for name in row if name not in self._columns]
        self._columns += new
        try:
            if new or not all_written:
                self._rewrite()
            else:
                with self.path.open("ab") as file:
                    file.write(self._csv([row]))
            self._written = len(self._rows)
        except OSError as error:
            if all_written:  # else it was said before
                log.warning("%s: %s; rows wait until it can be written", self.path, error.strerror or error)
        self._show(row)

    def sync(self) -> None:
        """Bring the rows to the disk, so that a power cut leaves those of a checkpoint that is saved after this."""
        # a disk that takes no rows takes no checkpoint either, and that is said
        with contextlib.suppress(OSError), self.path.open("rb") as file:
            os.fsync(file.fileno())

    def close(self) -> None:
        """Flush the TensorBoard events; the CSV file is complete at any time."""
        try:
            if self._tensorboard is not None:
                self._tensorboard.close()
        except OSError as error:
            self._give_up_tensorboard(error)

    def _rewrite(self) -> None:
        header = (",".join(self._columns) + "\n").encode()
        write_atomically(self.path, header + self._csv(self._rows))

    def _csv(self, rows: Sequence[Mapping[str, float]]) -> bytes:
        text = io.StringIO()
        writer = csv.DictWriter(text, self._columns, restval="nan", lineterminator="\n")
        writer.writerows({name: _as_text(value) for name, value in row.items()} for row in rows)
        return text.getvalue().encode()

    def _show(self, row: Mapping[str, float]) -> None:
        if self._tensorboard is None:
            return
        try:
            for name, value in row.items():
                if name != EPOCH:
                    self._tensorboard.add_scalar(name, value, int(row[EPOCH]))
        except OSError as error:
            self._give_up_tensorboard(error)

    def _give_up_tensorboard(self, error: OSError) -> None:
        log.warning("no more TensorBoard events: %s; a resume writes them anew", error.strerror or error)
        self._tensorboard = None


def read_metrics(path: str | os.PathLike[str]) -> list[dict[str, float]]:
    """Read a `metrics.csv`, one dict an epoch with NaN where there was nothing; no file means no rows.

    A last row that a crash cut short is left out. So is, with a warning, a line without numbers and what follows it.
    """
    path = Path(path)
    if not path.exists():
        return []
    text = path.read_text(errors="replace")
    names, *lines = text[: text.rfind("\n") + 1].splitlines() or [EPOCH]
    columns, rows = names.split(","), []
    for number, line in enumerate(lines, start=2):
        try:
            values = [float(value) for value in line.split(",")]
            rows.append(dict(zip(columns, values, strict=True)))
        except ValueError:
            log.warning("%s: line %d cannot be read; it and what follows is left out", path, number)
            break
    if rows and EPOCH not in columns:
        log.warning("%s: line 1 cannot be read; the file is left out", path)
        return []
    return rows


def _as_text(value: float) -> str:
    return f"{value:.9g}"
