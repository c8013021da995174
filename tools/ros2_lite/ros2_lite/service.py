"""The run of a launch: from reading the description to the end of the last process."""

from __future__ import annotations

import asyncio
import signal
from pathlib import Path

from .actions import IncludeLaunchDescription
from .context import LaunchContext
from .events import Shutdown
from .log import log
from .packages import suggestion

UNDECLARED_BUT_USED = ("sigterm_timeout", "sigkill_timeout")
"""Arguments that every launch file takes without declaring them."""


def run(launch_file: Path, context: LaunchContext) -> int:
    """Carry out a launch file and return the exit code.

    It is 0 however the processes ended, and 1 if the description, a reaction to an event or the start of a
    process failed. The real command does the same, so a launch file whose process must not fail raises in its
    `on_exit`.
    """
    try:
        return asyncio.run(_run(launch_file, context))
    finally:
        context.remove_parameter_files()


async def _run(launch_file: Path, context: LaunchContext) -> int:
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, _on_signal, number, context)
    with context.failing_on_error():
        IncludeLaunchDescription(str(launch_file)).visit(context)
        _warn_of_unknown_arguments(context)
    while context.tasks:
        done, _ = await asyncio.wait(context.tasks, return_when=asyncio.FIRST_COMPLETED)
        context.tasks -= done
    context.request_shutdown(Shutdown(reason="idle"))
    return 1 if context.failed else 0


def _on_signal(number: signal.Signals, context: LaunchContext) -> None:
    cause = (
        f"user interrupted with ctrl-c ({number.name})" if number == signal.SIGINT else f"got {number.name}"
    )
    if context.is_shutdown:
        log("WARNING", "launch", f"{cause} again, ignoring: waiting for processes to end")
        return
    log("WARNING", "launch", cause)
    context.request_shutdown(Shutdown(reason=cause, due_to_sigint=number == signal.SIGINT))


def _warn_of_unknown_arguments(context: LaunchContext) -> None:
    """Warn of arguments that no launch file declared: most likely the name is mistyped."""
    declared = {argument.name for argument in context.declared_arguments}
    for name in (argument.split(":=")[0] for argument in context.argv):
        if name not in declared and name not in UNDECLARED_BUT_USED:
            log(
                "WARNING",
                "launch",
                f"no launch file declares the argument '{name}'{suggestion(name, declared)}",
            )
