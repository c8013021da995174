"""Processes of a launch: started, listened to, started again, and ended (`launch.actions.ExecuteProcess`)."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pty
import shlex
import signal
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .actions import Action
from .conditions import IfCondition
from .context import LaunchContext
from .event_handlers import OnProcessExit, Reaction
from .events import ProcessExited, ProcessStarted
from .log import log, say
from .substitutions import LaunchConfiguration, SomeText, perform, to_bool

OUTPUTS = {
    "screen": ("stdout", "stderr"),
    "both": ("stdout", "stderr"),
    "full": ("stdout", "stderr"),
    "log": ("stderr",),
    "own_log": (),
}
"""Which streams of a process are shown, by the value of its argument `output`. There are no log files."""

LAST_WORDS_S = 1.0
"""How long to read on after a process has ended: a child of its own may hold the stream open for ever."""


@dataclass(frozen=True, kw_only=True)
class ProcessPlan:
    """Everything about a process that is settled once its action is carried out."""

    label: str
    words: list[str]
    cwd: str | None
    env: dict[str, str]
    shown: tuple[str, ...]
    """Streams to show: stdout, stderr."""
    respawn: bool
    sigterm_timeout_s: float
    """From SIGINT to SIGTERM."""
    sigkill_timeout_s: float
    """From SIGTERM to SIGKILL."""


class ExecuteProcess(Action):
    """Starts a process once the whole description has been read, and ends it when the launch shuts down.

    Each process leads a group of its own, so that Ctrl-C at the terminal reaches it exactly once, as the
    SIGINT that is sent from here; signals go to the whole group.
    """

    def __init__(
        self,
        *,
        cmd: Sequence[SomeText],
        name: SomeText | None = None,
        cwd: SomeText | None = None,
        env: Mapping[SomeText, SomeText] | None = None,
        additional_env: Mapping[SomeText, SomeText] | None = None,
        prefix: SomeText | None = None,
        shell: bool = False,
        output: SomeText = "log",
        emulate_tty: bool = False,
        on_exit: Reaction = None,
        respawn: bool | SomeText = False,
        respawn_delay: float | None = None,
        respawn_max_retries: int = -1,
        sigterm_timeout: SomeText | float = LaunchConfiguration("sigterm_timeout", default="5"),  # noqa: B008
        sigkill_timeout: SomeText | float = LaunchConfiguration("sigkill_timeout", default="5"),  # noqa: B008
        condition: IfCondition | None = None,
    ) -> None:
        super().__init__(condition=condition)
        self.cmd = list(cmd)
        self.process_name = name
        self.cwd = cwd
        self.env = env
        self.additional_env = additional_env or {}
        self.prefix = prefix
        self.shell = shell
        self.output = output
        self.emulate_tty = emulate_tty
        self.on_exit = on_exit
        self.respawn = respawn
        self.respawn_delay = respawn_delay or 0.0
        self.respawn_max_retries = respawn_max_retries
        self.sigterm_timeout = sigterm_timeout
        self.sigkill_timeout = sigkill_timeout

    def command(self, context: LaunchContext) -> list[str]:
        """Return the words of the command line."""
        return [perform(context, word) for word in self.cmd]

    def execute(self, context: LaunchContext) -> None:
        """Settle everything that depends on the context now, and start the process soon."""
        if context.is_shutdown:
            return
        plan = self._plan(context)
        if self.on_exit is not None:
            context.handlers.append(OnProcessExit(target_action=self, on_exit=self.on_exit))
        context.start(self._run(plan, context))

    def _plan(self, context: LaunchContext) -> ProcessPlan:
        def pairs(variables: Mapping[SomeText, SomeText]) -> dict[str, str]:
            return {perform(context, name): perform(context, value) for name, value in variables.items()}

        def seconds(value: SomeText | float) -> float:
            return float(value if isinstance(value, (int, float)) else perform(context, value))

        prefix = shlex.split(perform(context, self.prefix)) if self.prefix is not None else []
        words = prefix + self.command(context)
        output = perform(context, self.output)
        if output not in OUTPUTS:
            raise ValueError(f"output of '{words[0]}' must be one of {sorted(OUTPUTS)}, got '{output}'")
        context.process_count += 1
        name = Path(words[0]).name if self.process_name is None else perform(context, self.process_name)
        environment = dict(context.environment) if self.env is None else pairs(self.env)
        respawn = self.respawn
        return ProcessPlan(
            label=f"{name}-{context.process_count}",
            words=words,
            cwd=None if self.cwd is None else perform(context, self.cwd),
            env=environment | pairs(self.additional_env),
            shown=OUTPUTS["screen"] if context.show_all_output else OUTPUTS[output],
            respawn=respawn if isinstance(respawn, bool) else to_bool(perform(context, respawn)),
            sigterm_timeout_s=seconds(self.sigterm_timeout),
            sigkill_timeout_s=seconds(self.sigkill_timeout),
        )

    async def _run(self, plan: ProcessPlan, context: LaunchContext) -> None:
        """Run the process, as often as it is to be started again."""
        retries = 0
        while not context.is_shutdown:
            await self._run_once(plan, context)
            if not plan.respawn or retries == self.respawn_max_retries:
                return
            retries += 1
            with contextlib.suppress(asyncio.TimeoutError):
                await asyncio.wait_for(context.shutdown_requested.wait(), self.respawn_delay)

    async def _run_once(self, plan: ProcessPlan, context: LaunchContext) -> None:
        process, readers = await self._start(plan)
        log("INFO", plan.label, f"process started with pid [{process.pid}]")
        facts = {"action": self, "name": plan.label, "cmd": plan.words, "cwd": plan.cwd, "env": plan.env}
        context.emit(ProcessStarted(pid=process.pid, **facts))
        returncode = await self._wait_or_end(process, plan, context)
        await asyncio.wait(readers, timeout=LAST_WORDS_S)
        for reader in readers:
            reader.cancel()
        if returncode == 0:
            log("INFO", plan.label, f"process has finished cleanly [pid {process.pid}]")
        else:
            command = " ".join(plan.words)
            died = f"process has died [pid {process.pid}, exit code {returncode}, cmd '{command}']."
            log("ERROR", plan.label, died)
        context.emit(ProcessExited(pid=process.pid, returncode=returncode, **facts))

    async def _start(self, plan: ProcessPlan) -> tuple[asyncio.subprocess.Process, list[asyncio.Task[None]]]:
        """Start the process, and the reading of its two streams; raises `OSError` if there is no such program."""
        streams = {name: _open_stream(self.emulate_tty) for name in ("stdout", "stderr")}
        writing_ends = {name: writing_end for name, (_, writing_end) in streams.items()}
        options = {"cwd": plan.cwd, "env": plan.env, "stdin": asyncio.subprocess.DEVNULL, **writing_ends}
        try:
            if self.shell:
                start = asyncio.create_subprocess_shell(
                    " ".join(plan.words), start_new_session=True, **options
                )
            else:
                start = asyncio.create_subprocess_exec(*plan.words, start_new_session=True, **options)
            process = await start
        except OSError:
            for reading_end, _ in streams.values():
                os.close(reading_end)
            raise
        finally:
            for writing_end in writing_ends.values():
                os.close(writing_end)
        return process, [
            asyncio.create_task(_show_lines(plan.label, reading_end, name in plan.shown))
            for name, (reading_end, _) in streams.items()
        ]

    async def _wait_or_end(
        self, process: asyncio.subprocess.Process, plan: ProcessPlan, context: LaunchContext
    ) -> int:
        """Wait until the process ends; ask it to once the launch shuts down, ever more firmly."""
        ended = asyncio.create_task(process.wait())
        shutdown = asyncio.create_task(context.shutdown_requested.wait())
        await asyncio.wait((ended, shutdown), return_when=asyncio.FIRST_COMPLETED)
        shutdown.cancel()
        patience = (
            (signal.SIGINT, plan.sigterm_timeout_s),
            (signal.SIGTERM, plan.sigkill_timeout_s),
            (signal.SIGKILL, None),
        )
        previous = None
        for number, timeout_s in patience:
            if ended.done():
                break
            if previous is not None:
                name, waited_s = previous
                waited = f"'{waited_s:g}' seconds after receiving '{name}'"
                escalating = f"escalating to '{number.name}'"
                log("ERROR", plan.label, f"process[{plan.label}] failed to terminate {waited}, {escalating}")
            log("INFO", plan.label, f"sending signal '{number.name}' to process[{plan.label}]")
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
            await asyncio.wait((ended,), timeout=timeout_s)
            previous = (number.name, timeout_s)
        return await ended


def _open_stream(emulate_tty: bool) -> tuple[int, int]:
    """Return the reading and the writing end of a pipe, or of a terminal."""
    return pty.openpty() if emulate_tty else os.pipe()


async def _show_lines(label: str, descriptor: int, shown: bool) -> None:
    """Print every line that arrives, with the label in front; read the rest too, lest the process blocks."""
    stream = asyncio.StreamReader()
    with os.fdopen(descriptor, "rb", 0) as file:
        transport, _ = await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(stream), file
        )
        try:
            pending = b""
            while chunk := await _read(stream):
                *lines, pending = (pending + chunk).split(b"\n")
                for line in lines:
                    _show(label, line, shown)
            if pending:
                _show(label, pending, shown)
        finally:
            transport.close()


async def _read(stream: asyncio.StreamReader) -> bytes:
    try:
        return await stream.read(65536)
    except OSError:  # how a terminal says that nobody holds its other end any more
        return b""


def _show(label: str, line: bytes, shown: bool) -> None:
    if shown:
        say(f"[{label}] {line.decode(errors='replace').rstrip(chr(13))}")
