"""A part of a document that is written by a program, in the middle of what people wrote."""

from __future__ import annotations

from pathlib import Path

from rewarped_sim.registry import ConfigError
from sapo_learner.atomic_file import write_atomically


def write_between_markers(path: Path, name: str, text: str) -> None:
    """Put `text` between the lines `<!-- begin NAME -->` and `<!-- end NAME -->`; all else stays as it is.

    Raises ConfigError where the file or a marker is missing, or a marker stands twice.
    """
    before, after = split_at_markers(path, name)
    write_atomically(path, f"{before}\n\n{text}\n\n{after}".encode())


def split_at_markers(path: Path, name: str) -> tuple[str, str]:
    """Return the document up to and with its first marker, and from its second one on. Raises as writing does."""
    begin, end = f"<!-- begin {name} -->", f"<!-- end {name} -->"
    try:
        document = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror or error}") from error
    for marker in (begin, end):
        if (count := document.count(marker)) != 1:
            raise ConfigError(f"{path}: expected the line {marker!r} once, found it {count} times")
    before, rest = document.split(begin)
    if end not in rest:
        raise ConfigError(f"{path}: {end!r} stands before {begin!r}")
    return before + begin, end + rest.split(end)[1]
