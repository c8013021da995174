"""Threads that go first, where the system allows it, and what is said where it does not."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
import threading

from policy_runner import realtime
from policy_runner.realtime import be_as_nice_as_the_process, current_priority, go_first, take_turns

PRIORITY = 7
CHILD = "import os; print(os.sched_getscheduler(0) == os.SCHED_OTHER)"


def in_thread(function):
    """Return what a function returns in a thread of its own."""
    answers = []
    thread = threading.Thread(target=lambda: answers.append(function()))
    thread.start()
    thread.join()
    return answers[0]


def test_a_thread_goes_first_and_neither_its_threads_nor_its_children_do():
    def rise_and_fall():
        denied = go_first(PRIORITY)
        high = current_priority()
        child = subprocess.run([sys.executable, "-c", CHILD], capture_output=True, text=True, check=True)
        below = in_thread(current_priority)
        take_turns()
        return denied, high, child.stdout.strip(), below, current_priority()

    denied, high, child_is_ordinary, below, after = in_thread(rise_and_fall)
    assert high == (0 if denied else PRIORITY)
    assert (child_is_ordinary, below, after) == ("True", 0, 0)
    assert current_priority() == 0  # the others' is theirs


def test_a_thread_of_one_that_goes_first_is_as_nice_as_the_process_when_it_says_so(monkeypatch):
    asked = []
    monkeypatch.setattr(os, "getpriority", lambda which, who: {os.getpid(): -10, 0: 0}[who])
    monkeypatch.setattr(os, "setpriority", lambda which, who, value: asked.append((who, value)))
    be_as_nice_as_the_process()
    assert asked == [(0, -10)]


def test_where_it_is_denied_it_says_so_and_goes_on(monkeypatch):
    def refuse(*_):
        raise PermissionError

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    assert "does not allow this user 7" in go_first(PRIORITY)
    assert go_first(0) == ""
    take_turns()  # there is nothing to give back


class Kernel:
    """Schedules as Linux does for a user who may take priorities and has no other privilege."""

    def __init__(self):
        self.policy, self.priority = os.SCHED_OTHER, 0

    def setscheduler(self, _, policy, param):
        if self.policy & os.SCHED_RESET_ON_FORK and not policy & os.SCHED_RESET_ON_FORK:
            raise PermissionError  # that takes CAP_SYS_NICE
        self.policy, self.priority = policy, param.sched_priority

    def getparam(self, _):
        return os.sched_param(self.priority)


def test_a_user_without_privileges_gives_back_the_priority_and_takes_it_again(monkeypatch):
    kernel = Kernel()
    monkeypatch.setattr(os, "sched_setscheduler", kernel.setscheduler)
    monkeypatch.setattr(os, "sched_getparam", kernel.getparam)
    for _ in range(2):
        assert go_first(PRIORITY) == "" and current_priority() == PRIORITY
        take_turns()
        assert current_priority() == 0


def test_where_the_system_knows_one_way_of_scheduling_alone_it_says_so_and_goes_on(monkeypatch):
    def refuse(*_):
        raise OSError(errno.EINVAL, "Invalid argument")

    monkeypatch.setattr(os, "sched_setscheduler", refuse)
    assert go_first(PRIORITY) == "no real-time priority: Invalid argument"


def test_where_there_is_none_it_says_so(monkeypatch):
    monkeypatch.delattr(realtime.os, "SCHED_RESET_ON_FORK")
    assert "none on this system" in go_first(PRIORITY)
