"""Whoever asks a network in its thread gets its answer, or none in time, and never waits for more."""

from __future__ import annotations

import gc
import signal
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from policy_runner.inference import InferenceLateError, InferenceThread
from policy_runner.realtime import current_priority, go_first

PATIENCE_S = 30.0
PRIORITY = 7


class SlowNetwork:
    """Answers with what it was asked, once it may; or raises what it is told to."""

    contract, digest = "the contract", "the digest"

    def __init__(self):
        self.may_answer = threading.Event()
        self.may_answer.set()
        self.error = None
        self.threads = set()
        self.priority = None

    def act(self, observation):
        self.threads.add(threading.current_thread())
        self.priority = current_priority()
        assert self.may_answer.wait(PATIENCE_S)
        if self.error is not None:
            raise self.error
        return observation["obs"]


@pytest.fixture
def network():
    network = SlowNetwork()
    yield network
    network.may_answer.set()


def ask(thread, value):
    return float(thread.act({"obs": np.float32(value)}))


def until(condition):
    pause = threading.Event()
    for _ in range(round(PATIENCE_S / 0.001)):
        if condition():
            return
        pause.wait(0.001)
    raise AssertionError("it never came true")


def test_answers_are_those_of_the_network_from_one_thread_that_is_not_ours(network):
    thread = InferenceThread(network, budget_s=PATIENCE_S)
    assert [ask(thread, value) for value in range(100)] == list(range(100))
    (other,) = network.threads
    assert other is not threading.current_thread() and other.daemon
    assert (thread.contract, thread.digest) == ("the contract", "the digest")
    thread.close()
    other.join(PATIENCE_S)
    assert not other.is_alive()


def test_a_network_that_takes_too_long_is_given_up_and_its_late_answer_is_never_used(network):
    thread = InferenceThread(network, budget_s=0.01)
    network.may_answer.clear()
    with pytest.raises(InferenceLateError, match=r"no action within 0.0100 s"):
        ask(thread, 1.0)
    assert not thread.ready
    with pytest.raises(InferenceLateError, match="still busy with an earlier observation"):
        ask(thread, 2.0)
    network.may_answer.set()
    until(lambda: thread.ready)
    thread._budget_s = PATIENCE_S
    assert ask(thread, 3.0) == 3.0  # and neither 1 nor 2
    thread.close()


def test_what_the_network_raises_is_raised_here_and_it_goes_on(network):
    thread = InferenceThread(network, budget_s=PATIENCE_S)
    network.error = ZeroDivisionError("no")
    with pytest.raises(ZeroDivisionError, match="no"):
        ask(thread, 1.0)
    network.error = None
    assert thread.ready and ask(thread, 2.0) == 2.0
    thread.close()


def test_closing_does_not_wait_for_a_network_that_hangs(network):
    thread = InferenceThread(network, budget_s=0.01)
    network.may_answer.clear()
    with pytest.raises(InferenceLateError):
        ask(thread, 1.0)
    thread.close()
    (other,) = network.threads
    assert other.is_alive()  # it still hangs
    network.may_answer.set()
    other.join(PATIENCE_S)
    assert not other.is_alive()


def test_a_network_has_its_priority_but_while_it_owes_an_answer_that_nobody_waits_for(network):
    with ThreadPoolExecutor(1) as pool:
        expected = 0 if pool.submit(go_first, PRIORITY).result() else PRIORITY
    thread = InferenceThread(network, budget_s=PATIENCE_S, priority=PRIORITY)

    def priorities():
        (other,) = network.threads
        return network.priority, current_priority(other.native_id)

    ask(thread, 1.0)
    assert priorities() == (expected, expected)
    thread._budget_s = 0.01
    network.may_answer.clear()
    with pytest.raises(InferenceLateError, match="no action within"):
        ask(thread, 2.0)
    assert priorities()[1] == 0  # it may hang for ever
    network.may_answer.set()
    until(lambda: thread.ready)
    thread._budget_s = PATIENCE_S
    ask(thread, 3.0)
    assert priorities() == (expected, expected)
    thread.close()


def test_a_closed_network_is_let_go_of():
    network = SlowNetwork()
    thread = InferenceThread(network, budget_s=PATIENCE_S)
    ask(thread, 1.0)
    (other,) = network.threads
    gone = weakref.ref(network)
    thread.close()
    other.join(PATIENCE_S)
    del network, thread, other
    gc.collect()
    assert gone() is None


def test_a_signal_whose_handler_outlasts_the_budget_does_not_make_it_wait_for_ever(network):
    thread = InferenceThread(network, budget_s=0.05)
    network.may_answer.clear()
    handled = []

    def dawdle(*_):
        time.sleep(0.2)
        handled.append(True)

    before = signal.signal(signal.SIGALRM, dawdle)
    guard = threading.Timer(
        PATIENCE_S / 2.0, network.may_answer.set
    )  # it would then answer, and the test fail
    guard.start()
    signal.setitimer(signal.ITIMER_REAL, 0.02)
    try:
        with pytest.raises(InferenceLateError, match="no action within"):
            ask(thread, 1.0)
    finally:
        guard.cancel()
        signal.setitimer(signal.ITIMER_REAL, 0.0)
        signal.signal(signal.SIGALRM, before)
    assert handled
