"""Tasks by name, and their configuration with overrides that are checked before anything is built."""

from __future__ import annotations

import difflib
import importlib
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

    from rewarped_sim.task import Task

_TASKS: dict[str, TaskEntry] = {}


@dataclass(frozen=True)
class TaskEntry:
    """A task class with the configuration that a name stands for."""

    task: type[Task]
    config: Any
    num_envs: int
    """Environments that a training run on a CPU takes by default."""
    summary: str


class UnknownTaskError(ValueError):
    """No task has this name."""


class ConfigError(ValueError):
    """A configuration has an unknown key, a value of the wrong kind, or values that do not go together."""


def register(name: str, *, config: Any, num_envs: int, summary: str) -> Callable[[type[Task]], type[Task]]:
    """Class decorator: `name` means this task with `config`. A task may be registered under several names."""

    def decorate(task: type[Task]) -> type[Task]:
        _TASKS[name] = TaskEntry(task, config, num_envs, summary)
        return task

    return decorate


def task_names() -> list[str]:
    """All task names, sorted."""
    _load_tasks()
    return sorted(_TASKS)


def find(name: str) -> TaskEntry:
    """The entry of a task; raises `UnknownTaskError` with the nearest name."""
    _load_tasks()
    if name not in _TASKS:
        raise UnknownTaskError(unknown("task", name, sorted(_TASKS)))
    return _TASKS[name]


def new_task(name: str, overrides: dict[str, Any], device: torch.device) -> Task:
    """A registered task with settings replaced; raises UnknownTaskError, and ConfigError for what cannot be built."""
    entry = find(name)
    config = configure(entry.config, overrides, name)
    try:
        task = entry.task(name, config, device)
        task.build()  # whether settings go together, a substep with a stiffness, only the physics can say
    except ValueError as error:
        raise ConfigError(f"{name}: {error}") from error
    return task


def unknown(what: str, name: str, known: list[str]) -> str:
    """Text of an error about a name: what, got, nearest, choices."""
    near = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else "."
    return f"unknown {what} {name!r}{hint} Known: {known}"


def configure(config: Any, overrides: dict[str, Any], where: str) -> Any:
    """`config` (a frozen dataclass) with fields replaced; raises `ConfigError` naming the key, its type and choices."""
    known = {field.name: getattr(config, field.name) for field in fields(config)}
    of_any_length = {field.name for field in fields(config) if "..." in str(field.type)}
    changes = {}
    for key, value in overrides.items():
        if key not in known:
            raise ConfigError(f"{where}: {unknown('setting', str(key), sorted(known))}")
        default = known[key]
        if key in of_any_length and isinstance(value, (list, tuple)):
            default = tuple(default[:1]) * len(value)
        changes[key] = _convert(value, default, f"{where}.{key}")
    try:
        return replace(config, **changes)
    except ValueError as error:
        raise ConfigError(f"{where}: {error}") from error


def _convert(value: Any, default: Any, where: str) -> Any:
    """`value` as the type of `default`; a bool is no number, an int may stand for a float.

    Settings within settings take a mapping of what differs.
    """
    if is_dataclass(default) and isinstance(value, Mapping):
        return configure(default, dict(value), where)
    if isinstance(default, tuple) and isinstance(value, (list, tuple)):
        if len(value) != len(default):
            raise ConfigError(f"{where}: expected {len(default)} values, got {len(value)}")
        return tuple(
            _convert(v, d, f"{where}[{i}]") for i, (v, d) in enumerate(zip(value, default, strict=True))
        )
    if isinstance(default, float) and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if type(value) is not type(default):
        raise ConfigError(
            f"{where}: expected {type(default).__name__}, got {value!r} ({type(value).__name__})"
            + (
                "; YAML takes 1e-3 for text, 1.0e-3 for a number"
                if _is_number_as_text(value, default)
                else ""
            )
        )
    return value


def _is_number_as_text(value: Any, default: Any) -> bool:
    if not (isinstance(value, str) and isinstance(default, float)):
        return False
    try:
        float(value)
    except ValueError:
        return False
    return True


def _load_tasks() -> None:
    package = importlib.import_module("rewarped_sim.tasks")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"{package.__name__}.{module.name}")
