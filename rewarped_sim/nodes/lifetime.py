"""How a node of this package lives beside a simulation in the main thread, and how it ends."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node

LAST_ANSWERS = 20
"""Callbacks that a node which ends still answers, of those that wait: a goal's result takes three to leave."""


def on_stop_signal(react: Callable[[], None]) -> None:
    """Call `react` on every SIGINT and SIGTERM, in place of what Python and rclpy do.

    Launch and a terminal can send SIGINT twice within milliseconds; an exception, which is what Python
    raises, would then end the saving that the first one started.
    """
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: react())


def ignore_stop_signals() -> None:
    """Let a late signal pass: Python drops its handlers while it exits, and the default one would kill the process."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)


@contextmanager
def spinning(node: Node) -> Iterator[None]:
    """Answer the node's callbacks from a second thread; on leaving, end the thread, then the node.

    A callback that fails is logged, and the next one answered: else nobody would hear the node for the rest of a run.
    A thread that still spins while Python exits would abort the process.
    """
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    over = threading.Event()

    def spin() -> None:
        while not over.is_set():
            spin_once(timeout_s=0.1)
        for _ in range(LAST_ANSWERS):
            spin_once(timeout_s=0.0)

    def spin_once(timeout_s: float) -> None:
        try:
            executor.spin_once(timeout_sec=timeout_s)
        except Exception as error:
            node.get_logger().error(f"a callback failed: {type(error).__name__}: {error}")
            over.wait(0.1)  # what fails again and again leaves time for the simulation

    thread = threading.Thread(target=spin, name="executor")
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        executor.shutdown()
        node.destroy_node()
