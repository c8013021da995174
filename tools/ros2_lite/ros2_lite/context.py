"""What a launch description reads and writes while it is carried out."""

from __future__ import annotations

import asyncio
import contextlib
import os
import tempfile
import traceback
from collections.abc import Coroutine, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .events import Event, Shutdown
from .log import log

if TYPE_CHECKING:
    from .actions import DeclareLaunchArgument
    from .event_handlers import EventHandler
    from .substitutions import Substitution


class LaunchContext:
    """State of one launch. Actions change it, substitutions read it, events go through it."""

    def __init__(self, *, argv: Sequence[str] = ()) -> None:
        self.argv = list(argv)
        """The launch arguments as given on the command line, each `name:=value`."""
        self.launch_configurations: dict[str, Any] = {}
        """Values of launch arguments by name; also what `nodes.py` keeps for the nodes of a scope."""
        self.environment = os.environ
        """Environment of the processes to come; a scoped group restores it."""
        self.launch_file: Path | None = None
        """File whose description is being read."""
        self.declared_arguments: list[DeclareLaunchArgument] = []
        self.handlers: list[EventHandler] = []
        self.tasks: set[asyncio.Task[None]] = set()
        """Running processes and timers: the launch ends when there are none."""
        self.shutdown_requested = asyncio.Event()
        self.process_count = 0
        self.failed = False
        """Whether an action, a handler or a process could not be carried out."""
        self.debug = False
        """Show tracebacks."""
        self.show_all_output = False
        """Show what processes print even where their `output` says to log it only."""
        self._parameter_files: list[Path] = []

    @property
    def is_shutdown(self) -> bool:
        """Whether the launch is shutting down."""
        return self.shutdown_requested.is_set()

    def perform_substitution(self, substitution: Substitution) -> str:
        """Return the text that the substitution stands for now."""
        return substitution.perform(self)

    def visit(self, entities: Any) -> None:
        """Carry out an action, a launch description, a list of them, or None."""
        if entities is None:
            return
        if isinstance(entities, (list, tuple)):
            for entity in entities:
                self.visit(entity)
            return
        entities.visit(self)

    def emit(self, event: Event) -> None:
        """Let every handler that wants the event react to it, the latest one first."""
        with self.failing_on_error():
            for handler in reversed(self.handlers):
                if handler.wants(event):
                    self.visit(handler.react(event, self))

    def start(self, activity: Coroutine[Any, Any, None]) -> None:
        """Run a process or a timer from now on, after the description has been read to its end."""

        async def guarded() -> None:
            with self.failing_on_error():
                await activity

        self.tasks.add(asyncio.get_running_loop().create_task(guarded()))

    def request_shutdown(self, event: Shutdown) -> None:
        """Begin to shut down, once: handlers react first, then every process is asked to end."""
        if not self.is_shutdown:
            self.shutdown_requested.set()
            self.emit(event)

    @contextlib.contextmanager
    def failing_on_error(self) -> Iterator[None]:
        """Make an exception within the block the failure of the launch: one line, a shutdown, exit code 1."""
        try:
            yield
        except Exception as error:
            self.failed = True
            log("ERROR", "launch", f"Caught exception in launch (see debug for traceback): {error}")
            if self.debug:
                traceback.print_exc()
            self.request_shutdown(Shutdown(reason=str(error)))

    @contextlib.contextmanager
    def scope(self) -> Iterator[None]:
        """Undo all changes of configurations and environment at the end of the block."""
        configurations, environment = dict(self.launch_configurations), dict(self.environment)
        try:
            yield
        finally:
            self.launch_configurations = configurations
            for name in set(self.environment) - set(environment):
                del self.environment[name]
            self.environment.update(environment)

    @contextlib.contextmanager
    def reading(self, launch_file: Path) -> Iterator[None]:
        """Make `launch_file` the current one within the block."""
        includer, self.launch_file = self.launch_file, launch_file
        try:
            yield
        finally:
            self.launch_file = includer

    def write_parameter_file(self, text: str) -> Path:
        """Write a file that is removed when the launch ends."""
        with tempfile.NamedTemporaryFile("w", prefix="launch_params_", suffix=".yaml", delete=False) as file:
            file.write(text)
        self._parameter_files.append(Path(file.name))
        return Path(file.name)

    def remove_parameter_files(self) -> None:
        """Remove what `write_parameter_file` wrote."""
        for path in self._parameter_files:
            path.unlink(missing_ok=True)
        self._parameter_files.clear()
