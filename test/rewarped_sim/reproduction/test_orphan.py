"""A child ends when its parent is killed, which no handler of the parent's could see to."""

import os
import signal
import subprocess
import sys
import time

PARENT = """
import subprocess, sys
from rewarped_sim.reproduction.orphan import end_with_parent

command = [sys.executable, "-c", "import time; time.sleep(600)"]
told = end_with_parent() if sys.argv[1] == "ends" else None
child = subprocess.Popen(command, start_new_session=True, preexec_fn=told)
print(child.pid, flush=True)
child.wait()
"""
PATIENCE_S = 60.0


def orphan(kind):
    """Start a parent and its child, kill the parent, and return the child's process id."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT, kind], stdout=subprocess.PIPE, text=True)
    child = int(parent.stdout.readline())
    parent.kill()
    parent.wait()
    return child


def lives(process):
    try:
        with open(f"/proc/{process}/stat") as file:
            return file.read().rsplit(")", 1)[1].split()[0] != "Z"  # where nobody reaps them, the dead stay
    except FileNotFoundError:
        return False


def test_an_orphan_ends_where_it_was_told_to_and_only_there():
    left, ended = orphan("stays"), orphan("ends")
    deadline = time.monotonic() + PATIENCE_S
    while lives(ended):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert lives(left)
    os.kill(left, signal.SIGKILL)
