"""What must be true of every stream of commands, whatever happened to the runner meanwhile."""

from __future__ import annotations

import numpy as np

ROUND_OFF = 1e-9


def assert_safe(stream, action, dt_s):
    """Every command finite, inside the limits, and as near to the last one as the top speed allows.

    Returns the largest step as a share of the largest allowed one.
    """
    numbers = [sent.number for sent in stream]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers))), "a command was lost on its way here"
    positions = np.array([sent.positions for sent in stream])
    assert positions.shape == (len(stream), action.size)
    assert np.isfinite(positions).all()
    assert (positions >= np.array(action.lower) - ROUND_OFF).all()
    assert (positions <= np.array(action.upper) + ROUND_OFF).all()
    steps = np.abs(np.diff(positions, axis=0))
    allowed = np.array(action.max_velocity) * dt_s
    assert (steps <= allowed * (1 + ROUND_OFF) + ROUND_OFF).all()
    return float((steps / allowed).max(initial=0.0))


def assert_comes_to_rest(stream):
    """From the first command that holds on, none moves faster than the one before, and the last ones stand still."""
    first = next(index for index, sent in enumerate(stream) if not sent.stamp_ns)
    assert not any(sent.stamp_ns for sent in stream[first:]), "the policy came back by itself"
    positions = np.array([sent.positions for sent in stream[first - 2 :]])
    speeds = np.abs(np.diff(positions, axis=0))
    assert (np.diff(speeds, axis=0) <= ROUND_OFF).all()
    assert not speeds[-2:].any()


def by_policy(stream):
    """Return the commands that the policy gave."""
    return [sent for sent in stream if sent.stamp_ns]
