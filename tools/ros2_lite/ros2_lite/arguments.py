"""Launch arguments: what the command line gives, and the list that `--show-args` prints."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .actions import Action, DeclareLaunchArgument, IncludeLaunchDescription
from .context import LaunchContext
from .substitutions import SubstitutionError, describe


def parse(words: Iterable[str]) -> dict[str, str]:
    """Return the arguments given as `name:=value`, the last of a name; else raises `ValueError`."""
    arguments = {}
    for word in words:
        name, separator, value = word.partition(":=")
        if not separator or not name or not value:
            raise ValueError(f"malformed launch argument '{word}', expected format '<name>:=<value>'")
        arguments[name] = value
    return arguments


def listing(launch_file: Path) -> str:
    """Return a paragraph for each argument of a launch file and of the files that it includes."""
    context = LaunchContext()
    arguments: dict[str, tuple[DeclareLaunchArgument, bool]] = {}
    for argument, conditional in _declared([IncludeLaunchDescription(str(launch_file))], context, False):
        arguments.setdefault(argument.name, (argument, conditional))
    lines = ["Arguments (pass arguments as '<name>:=<value>'):"]
    for name, (argument, conditional) in arguments.items():
        lines += ["", f"    '{name}':{'*' if conditional else ''}", f"        {argument.description}"]
        if argument.default_value is not None:
            lines.append(f"        (default: {describe(argument.default_value)})")
    if not arguments:
        lines += ["", "  No arguments."]
    if any(conditional for _, conditional in arguments.values()):
        lines += ["", "* argument(s) which are only used if specific conditions occur"]
    return "\n".join(lines)


def _declared(
    entities: Iterable[Any], context: LaunchContext, conditional: bool
) -> Iterator[tuple[DeclareLaunchArgument, bool]]:
    """Yield every declaration and whether it is under a condition; nothing is carried out to find them."""
    for entity in entities:
        if not isinstance(entity, Action):
            continue
        has_condition = conditional or entity.condition is not None
        if isinstance(entity, DeclareLaunchArgument):
            yield entity, has_condition
        elif isinstance(entity, IncludeLaunchDescription):
            try:
                path = entity.source.path(context)
            except SubstitutionError:
                continue  # which file it is depends on the arguments
            with context.reading(path):
                yield from _declared(entity.sub_entities(context), context, has_condition)
        else:
            yield from _declared(entity.sub_entities(context), context, has_condition)
