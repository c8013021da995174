"""The command `ros2`, with `launch` and `run` only."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from . import arguments, service
from .context import LaunchContext
from .log import say
from .offer import offer_modules
from .packages import NotFoundError, find_executable, find_launch_file, launch_files, prefixes

DESCRIPTION = (
    "A stand-in for the ros2 command that knows `launch` and `run` only; a ROS 2 installation has the rest."
)
WHEELS_GUARD = "_ROS_WHEELS_BOOTSTRAP_COMPLETE"
"""Set by the ROS wheels, together with LD_LIBRARY_PATH, when Python starts; child processes inherit it."""


def main() -> None:
    """Hand over to a real `ros2` if there is one on the PATH, else launch or run; ends the process."""
    real = find_real_ros2()
    if real is not None:
        drop_wheel_libraries()
        os.execv(real, [str(real), *sys.argv[1:]])
    prepare_environment()
    try:
        sys.exit(carry_out(sys.argv[1:]))
    except (NotFoundError, OSError, RuntimeError, ValueError) as error:
        sys.exit(f"ros2: {error}")


def find_real_ros2() -> Path | None:
    """Return the first `ros2` on the PATH that is not this stand-in, be it in this environment or another."""
    for folder in os.environ.get("PATH", os.defpath).split(os.pathsep):
        candidate = Path(folder, "ros2")
        if not (candidate.is_file() and os.access(candidate, os.X_OK)):
            continue
        if b"ros2_lite" not in candidate.read_bytes():
            return candidate
    return None


def drop_wheel_libraries() -> None:
    """Take the libraries of this environment's wheels off LD_LIBRARY_PATH: another ROS has its own."""
    if os.environ.pop(WHEELS_GUARD, None) is None:
        return
    paths = os.environ.get("LD_LIBRARY_PATH", "").split(os.pathsep)
    own = [path for path in paths if path and not Path(path).is_relative_to(sys.prefix)]
    os.environ["LD_LIBRARY_PATH"] = os.pathsep.join(own)


def prepare_environment() -> None:
    """Let processes find this interpreter, and packages installed into its prefix."""
    scripts = str(Path(sys.executable).parent)
    paths = os.environ.get("PATH", os.defpath).split(os.pathsep)
    os.environ["PATH"] = os.pathsep.join([scripts, *(path for path in paths if path != scripts)])
    os.environ["AMENT_PREFIX_PATH"] = os.pathsep.join(map(str, prefixes()))


def carry_out(words: Sequence[str]) -> int:
    """Parse the command line and do what it says; returns the exit code."""
    parser = argparse.ArgumentParser(prog="ros2", description=DESCRIPTION)
    verbs = parser.add_subparsers(dest="verb", metavar="launch | run", required=True)

    launch = verbs.add_parser(
        "launch", help="run a Python launch file", description="Run a Python launch file."
    )
    launch.add_argument("package", metavar="PACKAGE | FILE", help="a package, or the path of a launch file")
    launch.add_argument(
        "rest",
        metavar="[FILE] NAME:=VALUE",
        nargs="*",
        help="the name of the package's launch file, then arguments for it",
    )
    launch.add_argument(
        "-s", "--show-args", action="store_true", help="list the arguments of the launch file and stop"
    )
    launch.add_argument(
        "-a", "--show-all-subprocesses-output", action="store_true", help="show all that the processes print"
    )
    launch.add_argument("-d", "--debug", action="store_true", help="show tracebacks")
    launch.add_argument(
        "-n",
        "--noninteractive",
        action="store_true",
        help="accepted for compatibility; nothing here is interactive",
    )

    run = verbs.add_parser(
        "run", help="run an executable of a package", description="Run an executable of a package."
    )
    run.add_argument("package", metavar="PACKAGE")
    run.add_argument("executable", metavar="EXECUTABLE")
    run.add_argument(
        "arguments", metavar="ARGUMENT", nargs=argparse.REMAINDER, help="arguments for the executable"
    )

    options = parser.parse_args(words)
    if options.verb == "run":
        path = find_executable(options.package, options.executable)
        os.execv(path, [str(path), *options.arguments])
    return _launch(options)


def _launch(options: argparse.Namespace) -> int:
    rest = list(options.rest)
    if Path(options.package).is_file():
        launch_file = Path(options.package).resolve()
    elif rest and ":=" not in rest[0]:
        launch_file = find_launch_file(options.package, rest.pop(0))
    else:
        names = ", ".join(path.name for path in launch_files(options.package))
        raise NotFoundError(f"name a launch file of package '{options.package}': {names or 'it has none'}")
    given = arguments.parse(rest)
    offer_modules()
    if options.show_args:
        say(arguments.listing(launch_file))
        return 0
    context = LaunchContext(argv=rest)
    context.launch_configurations.update(given)
    context.debug = options.debug
    context.show_all_output = options.show_all_subprocesses_output
    return service.run(launch_file, context)
