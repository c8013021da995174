"""Text that is known only when the launch runs (`launch.substitutions` and `launch_ros.substitutions`)."""

from __future__ import annotations

import abc
import importlib
import math
import os
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Union

from .context import LaunchContext
from .log import log
from .packages import package_prefix, package_share

SomeText = Union[str, Path, "Substitution", Sequence["SomeText"]]
"""Text, a substitution, or a list of both that stands for their concatenation."""


class SubstitutionError(RuntimeError):
    """A substitution stands for nothing: what it names does not exist."""


class Substitution(abc.ABC):
    """Text that depends on the launch."""

    @abc.abstractmethod
    def perform(self, context: LaunchContext) -> str:
        """Return the text."""

    def describe(self) -> str:
        """Return how `--show-args` writes this substitution."""
        parts = (f"{describe(value)}" for value in vars(self).values() if value is not None)
        return f"{type(self).__name__}({', '.join(parts)})"


def perform(context: LaunchContext, text: SomeText) -> str:
    """Return the text that a substitution, or a list of texts and substitutions, stands for."""
    if isinstance(text, Substitution):
        return text.perform(context)
    if isinstance(text, (str, Path)):
        return str(text)
    if isinstance(text, (list, tuple)):
        return "".join(perform(context, part) for part in text)
    raise TypeError(f"expected text, a substitution or a list of them, got {type(text).__name__}: {text!r}")


def describe(text: Any) -> str:
    """Return how `--show-args` writes text, a substitution or a list of them."""
    if isinstance(text, Substitution):
        return text.describe()
    if isinstance(text, (list, tuple)):
        return " + ".join(describe(part) for part in text)
    return f"'{text}'"


def to_bool(text: str) -> bool:
    """Parse true, false, 1 or 0, whatever the case."""
    word = text.strip().lower()
    if word not in ("true", "1", "false", "0"):
        raise ValueError(f"expected true, false, 1 or 0, got '{text}'")
    return word in ("true", "1")


class TextSubstitution(Substitution):
    """Plain text."""

    def __init__(self, *, text: str) -> None:
        self.text = text

    def perform(self, context: LaunchContext) -> str:
        """Return the text."""
        return self.text

    def describe(self) -> str:
        """Return the text in quotes."""
        return f"'{self.text}'"


class LaunchConfiguration(Substitution):
    """Value of a launch argument, or of what SetLaunchConfiguration set."""

    def __init__(self, variable_name: SomeText, *, default: SomeText | None = None) -> None:
        self.variable_name = variable_name
        self.default = default

    def perform(self, context: LaunchContext) -> str:
        """Return the value; raises `SubstitutionError` if there is neither a value nor a default."""
        name = perform(context, self.variable_name)
        if name in context.launch_configurations:
            return str(context.launch_configurations[name])
        if self.default is None:
            raise SubstitutionError(f"launch configuration '{name}' does not exist")
        return perform(context, self.default)


class EnvironmentVariable(Substitution):
    """Value of an environment variable."""

    def __init__(self, name: SomeText, *, default_value: SomeText | None = None) -> None:
        self.name = name
        self.default_value = default_value

    def perform(self, context: LaunchContext) -> str:
        """Return the value; raises `SubstitutionError` if there is neither a value nor a default."""
        name = perform(context, self.name)
        if name in context.environment:
            return context.environment[name]
        if self.default_value is None:
            raise SubstitutionError(f"environment variable '{name}' does not exist")
        return perform(context, self.default_value)


class PathJoinSubstitution(Substitution):
    """Parts of a path, joined."""

    def __init__(self, substitutions: Sequence[SomeText]) -> None:
        self.substitutions = substitutions

    def perform(self, context: LaunchContext) -> str:
        """Return the path."""
        return os.path.join(*(perform(context, part) for part in self.substitutions))

    def describe(self) -> str:
        """Return the parts, separated by commas."""
        return f"PathJoin({', '.join(describe(part) for part in self.substitutions)})"


class PythonExpression(Substitution):
    """A Python expression, evaluated with the contents of `python_modules` at hand."""

    def __init__(self, expression: SomeText, python_modules: Sequence[str] = ("math",)) -> None:
        self.expression = expression
        self.python_modules = python_modules

    def perform(self, context: LaunchContext) -> str:
        """Return the value as text."""
        names: dict[str, Any] = {}
        for name in self.python_modules:
            module = importlib.import_module(name)
            names |= vars(module) | {name: module}
        return str(eval(perform(context, self.expression), {}, names))

    def describe(self) -> str:
        """Return the expression."""
        return f"PythonExpr({describe(self.expression)})"


class ThisLaunchFile(Substitution):
    """Path of the launch file that is being read."""

    def perform(self, context: LaunchContext) -> str:
        """Return the path; raises `SubstitutionError` outside a launch file."""
        return str(_current_file(context))


class ThisLaunchFileDir(Substitution):
    """Folder of the launch file that is being read."""

    def perform(self, context: LaunchContext) -> str:
        """Return the folder; raises `SubstitutionError` outside a launch file."""
        return str(_current_file(context).parent)


def _current_file(context: LaunchContext) -> Path:
    if context.launch_file is None:
        raise SubstitutionError("ThisLaunchFile and ThisLaunchFileDir have a value only while a file is read")
    return context.launch_file


class FindExecutable(Substitution):
    """Path of an executable on the PATH."""

    def __init__(self, *, name: SomeText) -> None:
        self.name = name

    def perform(self, context: LaunchContext) -> str:
        """Return the path; raises `SubstitutionError` if there is none."""
        name = perform(context, self.name)
        path = shutil.which(name, path=context.environment.get("PATH"))
        if path is None:
            raise SubstitutionError(f"executable '{name}' not found on the PATH")
        return path


class Command(Substitution):
    """What a command prints. Text on its standard error is a failure unless `on_stderr` says otherwise."""

    def __init__(self, command: SomeText, on_stderr: SomeText = "fail") -> None:
        self.command = command
        self.on_stderr = on_stderr

    def perform(self, context: LaunchContext) -> str:
        """Run the command and return its standard output."""
        words = shlex.split(perform(context, self.command))
        on_stderr = perform(context, self.on_stderr)
        if on_stderr not in ("fail", "ignore", "warn", "capture"):
            raise ValueError(f"Command: on_stderr must be fail, ignore, warn or capture, got '{on_stderr}'")
        done = subprocess.run(
            words, capture_output=True, text=True, env=dict(context.environment), check=False
        )
        if done.returncode != 0:
            raise SubstitutionError(f"command {words} ended with exit code {done.returncode}: {done.stderr}")
        if done.stderr and on_stderr == "fail":
            raise SubstitutionError(f"command {words} wrote to its standard error: {done.stderr}")
        if done.stderr and on_stderr == "warn":
            log("WARNING", "launch", f"command {words} wrote to its standard error: {done.stderr}")
        return done.stdout + (done.stderr if on_stderr == "capture" else "")


class EqualsSubstitution(Substitution):
    """`true` if both sides are equal, as booleans or numbers where both are such, else as text."""

    def __init__(self, left: SomeText, right: SomeText) -> None:
        self.left = left
        self.right = right

    def perform(self, context: LaunchContext) -> str:
        """Return `true` or `false`."""
        return _from_bool(_equal(perform(context, self.left), perform(context, self.right)))


class NotEqualsSubstitution(EqualsSubstitution):
    """`true` if the sides differ."""

    def perform(self, context: LaunchContext) -> str:
        """Return `true` or `false`."""
        return _from_bool(not _equal(perform(context, self.left), perform(context, self.right)))


class NotSubstitution(Substitution):
    """`true` if the operand is false."""

    def __init__(self, value: SomeText) -> None:
        self.value = value

    def perform(self, context: LaunchContext) -> str:
        """Return `true` or `false`."""
        return _from_bool(not to_bool(perform(context, self.value)))


class AndSubstitution(Substitution):
    """`true` if both sides are true."""

    def __init__(self, left: SomeText, right: SomeText) -> None:
        self.left = left
        self.right = right

    def perform(self, context: LaunchContext) -> str:
        """Return `true` or `false`."""
        return _from_bool(to_bool(perform(context, self.left)) and to_bool(perform(context, self.right)))


class OrSubstitution(AndSubstitution):
    """`true` if either side is true."""

    def perform(self, context: LaunchContext) -> str:
        """Return `true` or `false`."""
        return _from_bool(to_bool(perform(context, self.left)) or to_bool(perform(context, self.right)))


def _from_bool(value: bool) -> str:
    return str(value).lower()


def _equal(left: str, right: str) -> bool:
    booleans = ("true", "false")
    if left.lower() in booleans and right.lower() in booleans:
        return left.lower() == right.lower()
    try:
        return math.isclose(float(left), float(right))
    except ValueError:
        return left == right


class FindPackagePrefix(Substitution):
    """Install prefix of a package."""

    def __init__(self, package: SomeText) -> None:
        self.package = package

    def perform(self, context: LaunchContext) -> str:
        """Return the prefix; raises `NotFoundError` if no prefix holds the package."""
        return str(package_prefix(perform(context, self.package)))


class FindPackageShare(FindPackagePrefix):
    """Folder of a package's data files."""

    def perform(self, context: LaunchContext) -> str:
        """Return the folder; raises `NotFoundError` if no prefix holds the package."""
        return str(package_share(perform(context, self.package)))
