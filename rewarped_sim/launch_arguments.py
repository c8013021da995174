"""Checks of launch arguments that `ros2 launch` itself leaves out; needs neither ROS nor a simulator."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from rewarped_sim.registry import unknown

OF_EVERY_LAUNCH = ("sigterm_timeout", "sigkill_timeout")
"""Arguments that the processes of any launch file take without a declaration."""


def refuse_unknown_arguments(words: Iterable[str], known: Iterable[str]) -> None:
    """Raise ValueError for a `name:=value` whose name no argument bears; launch would silently ignore it."""
    known = [*known, *OF_EVERY_LAUNCH]
    for word in words:
        name = word.partition(":=")[0]
        if name not in known:
            raise ValueError(unknown("launch argument", name, known))


def whole_number(name: str, text: str) -> int:
    """Return the number that a launch argument gives; raises ValueError naming the argument."""
    return int(_number(name, text, int, "a whole number"))


def number(name: str, text: str) -> float:
    """Return the number that a launch argument gives; raises ValueError naming the argument."""
    return _number(name, text, float, "a number")


def numbers(name: str, text: str, count: int) -> list[float]:
    """Return the numbers, apart by blanks, that a launch argument gives; raises ValueError naming the argument."""
    words = text.split()
    if len(words) != count:
        raise ValueError(f"launch argument {name!r}: expected {count} numbers, got {text!r}")
    return [number(name, word) for word in words]


def _number(name: str, text: str, kind: Callable[[str], float], expected: str) -> float:
    try:
        return kind(text)
    except ValueError:
        raise ValueError(f"launch argument {name!r}: expected {expected}, got {text!r}") from None
