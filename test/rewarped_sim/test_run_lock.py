"""One process at a time in a run's folder, whatever became of the last one."""

import os
import signal
import subprocess
import sys

import pytest

from rewarped_sim.run_lock import LOCK_FILE, RunLock, RunLockedError

HOLD = """
import pathlib, sys, time
from rewarped_sim.run_lock import RunLock
lock = RunLock(pathlib.Path(sys.argv[1]))
print("held", flush=True)
time.sleep(600)
"""


def other_process_with_the_lock(folder):
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_the_second_is_told_who_the_first_is_until_that_is_killed(tmp_path):
    owner = other_process_with_the_lock(tmp_path)
    try:
        with pytest.raises(RunLockedError, match=f"in use by process {owner.pid} on "):
            RunLock(tmp_path)
    finally:
        owner.send_signal(signal.SIGKILL)
        owner.wait()
    lock = RunLock(tmp_path)
    assert f"process {os.getpid()} on " in (tmp_path / LOCK_FILE).read_text()
    lock.release()


def test_it_keeps_others_out_within_a_process_too(tmp_path):
    lock = RunLock(tmp_path)
    with pytest.raises(RunLockedError, match=f"in use by process {os.getpid()}"):
        RunLock(tmp_path)
    lock.release()
    RunLock(tmp_path).release()


def test_a_lock_file_without_an_owner_means_nothing(tmp_path):
    (tmp_path / LOCK_FILE).write_text("process 1 on a machine of long ago")
    RunLock(tmp_path).release()
