"""What a launch prints: its own messages, in the format of the real command, and what its processes say."""

import os
import sys


def log(level: str, name: str, message: str) -> None:
    """Print a message; `level` is INFO, WARNING or ERROR, `name` is `launch` or the label of a process."""
    say(f"[{level}] [{name}]: {message}")


def say(line: str) -> None:
    """Print a line at once; a reader that went away, such as `head`, is no reason to leave the processes."""
    try:
        print(line, flush=True)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
