"""JSON files that are whole or not there."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sapo_learner.atomic_file import write_atomically


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write plain containers, one entry a line, numbers that are not finite as null. Raises OSError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    entries = [
        f" {json.dumps(key)}: {json.dumps(_finite(value), allow_nan=False)}" for key, value in content.items()
    ]
    write_atomically(path, ("{\n" + ",\n".join(entries) + "\n}\n").encode())


def _finite(content: Any) -> Any:
    if isinstance(content, Mapping):
        return {key: _finite(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_finite(value) for value in content]
    return None if isinstance(content, float) and not math.isfinite(content) else content
