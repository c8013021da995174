"""Where a measurement was taken, and how it is kept: one JSON file a benchmark."""

import json
from pathlib import Path
from typing import Any

from rewarped_sim.machine import machine

RESULTS = Path(__file__).parent / "results"


def write(name: str, rows: list[dict[str, Any]]) -> Path:
    """Write `bench/results/<name>.json`."""
    RESULTS.mkdir(exist_ok=True)
    path = RESULTS / f"{name}.json"
    path.write_text(json.dumps({"machine": machine(), "rows": rows}, indent=1) + "\n")
    return path


def table(rows: list[dict[str, Any]]) -> str:
    """Rows with equal keys as an aligned text table."""
    header = list(rows[0])
    cells = [header] + [
        [f"{v:.4g}" if isinstance(v, float) else str(v) for v in row.values()] for row in rows
    ]
    widths = [max(len(line[i]) for line in cells) for i in range(len(header))]
    return "\n".join(
        "  ".join(cell.rjust(width) for cell, width in zip(line, widths, strict=True)) for line in cells
    )
