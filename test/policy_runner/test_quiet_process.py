"""What a process asks for once it is to be quiet, seen from a child; and what it does where that is denied."""

from __future__ import annotations

import os
import subprocess
import sys

from policy_runner import quiet_process
from policy_runner.quiet_process import NICENESS, keep_ticks_short

CHILD = """
import os, resource, sys
from policy_runner.quiet_process import SWITCH_INTERVAL_S, keep_ticks_short

if sys.argv[1] == "quiet":
    keep_ticks_short()
    assert sys.getswitchinterval() == SWITCH_INTERVAL_S
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(20):
    cloud = b"x" * 40_000_000
    del cloud
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(kind):
    ended = subprocess.run(
        [sys.executable, "-c", CHILD, kind], capture_output=True, text=True, check=True, timeout=60
    )
    return int(ended.stdout)


def test_memory_that_is_freed_is_there_for_the_next_cloud():
    pages = 40_000_000 // 4096
    assert page_faults("as it starts") > 10 * pages
    assert page_faults("quiet") < 2 * pages


MANY_THREADS = """
import ctypes, sys, threading
from policy_runner.quiet_process import keep_ticks_short

if sys.argv[1] == "quiet":
    keep_ticks_short()
together, taken = threading.Barrier(12), []

def take():
    together.wait()
    taken.append([bytes(600 + index) for index in range(1000)])
    together.wait()

threads = [threading.Thread(target=take) for _ in range(12)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc = ctypes.CDLL(None)
libc.malloc_info(0, ctypes.c_void_p.in_dll(libc, "stdout"))
libc.fflush(None)
"""


def pools(kind):
    command = [sys.executable, "-c", MANY_THREADS, kind]
    ended = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    return ended.stdout.count("<heap nr=")


def test_threads_share_a_few_pools_of_memory():
    assert pools("as it starts") > quiet_process.ARENAS
    assert 1 <= pools("quiet") <= quiet_process.ARENAS


def ask(monkeypatch, *, niceness, allowed):
    """Ask as a process of this niceness; return the answer, and the niceness that was asked for."""
    asked = []

    def set_priority(which, who, value):
        asked.append(value)
        if not allowed:
            raise PermissionError

    monkeypatch.setattr(os, "getpriority", lambda which, who: niceness)
    monkeypatch.setattr(os, "setpriority", set_priority)
    monkeypatch.setattr(quiet_process.ctypes, "CDLL", lambda _: None)  # nothing of it is for this process
    monkeypatch.setattr(quiet_process.sys, "setswitchinterval", lambda _: None)
    return keep_ticks_short(), asked


def test_it_goes_before_other_programs_where_it_may(monkeypatch):
    assert ask(monkeypatch, niceness=0, allowed=True) == ("", [NICENESS])


def test_where_it_may_not_it_says_so_and_goes_on(monkeypatch):
    answer, asked = ask(monkeypatch, niceness=0, allowed=False)
    assert asked == [NICENESS] and "does not allow this user a niceness of -10" in answer


def test_a_niceness_that_somebody_has_chosen_stays(monkeypatch):
    for niceness in (5, -3, -20):
        assert ask(monkeypatch, niceness=niceness, allowed=True) == ("", [])
