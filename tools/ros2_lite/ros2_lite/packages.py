"""Where packages, their executables and their launch files are: a small reader of the ament index."""

from __future__ import annotations

import difflib
import os
import sys
from collections.abc import Iterable
from pathlib import Path

MARKERS = Path("share/ament_index/resource_index/packages")


class NotFoundError(LookupError):
    """A package, an executable or a file is not where it should be."""


def prefixes() -> list[Path]:
    """Return the install prefixes to search: AMENT_PREFIX_PATH, then that of this interpreter."""
    named = [Path(path) for path in os.environ.get("AMENT_PREFIX_PATH", "").split(os.pathsep) if path]
    return list(dict.fromkeys((*named, Path(sys.prefix))))


def package_prefix(package: str) -> Path:
    """Return the first prefix that holds the package."""
    for prefix in prefixes():
        if (prefix / MARKERS / package).exists():
            return prefix
    known = {
        marker.name
        for prefix in prefixes()
        if (prefix / MARKERS).is_dir()
        for marker in (prefix / MARKERS).iterdir()
    }
    searched = ", ".join(map(str, prefixes()))
    raise NotFoundError(f"package '{package}' not found, searching: {searched}{suggestion(package, known)}")


def package_share(package: str) -> Path:
    """Return the folder of the package's data files."""
    return package_prefix(package) / "share" / package


def find_executable(package: str, name: str) -> Path:
    """Return the path of an executable that the package installed."""
    folder = package_prefix(package) / "lib" / package
    path = folder / name
    if path.is_file() and os.access(path, os.X_OK):
        return path
    known = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    raise NotFoundError(f"executable '{name}' not found in '{folder}'{suggestion(name, known)}")


def launch_files(package: str) -> list[Path]:
    """Return every Python launch file of the package."""
    return sorted(package_share(package).rglob("*.launch.py"))


def find_launch_file(package: str, name: str) -> Path:
    """Return the path of the package's launch file called `name`."""
    share = package_share(package)
    found = [path for path in share.rglob(name) if path.is_file()]
    if len(found) == 1:
        return found[0]
    if found:
        raise NotFoundError(
            f"file '{name}' was found more than once in '{share}': {', '.join(map(str, found))}"
        )
    known = [path.name for path in launch_files(package)]
    raise NotFoundError(
        f"file '{name}' was not found in the share directory of package '{package}' which is at '{share}'"
        f"{suggestion(name, known)}"
    )


def suggestion(name: str, known: Iterable[str]) -> str:
    """Return `; did you mean 'x'?` for the nearest of the known names, else a list of them if it is short."""
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"; did you mean '{near[0]}'?"
    return f"; there are: {', '.join(known)}" if 0 < len(known) <= 12 else ""
