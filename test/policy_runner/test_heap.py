"""The heap in use goes up by what is allocated, and down again by what is freed, whatever is kept of it."""

from __future__ import annotations

from policy_runner.heap import heap_in_use_bytes

SIZE = 50_000_000
TOLERANCE = 5_000_000


def test_what_is_allocated_counts_until_it_is_freed():
    before = heap_in_use_bytes()
    assert before is not None and before > 1_000_000
    block = bytearray(SIZE)
    during = heap_in_use_bytes()
    assert during is not None and abs(during - before - SIZE) < TOLERANCE
    del block
    after = heap_in_use_bytes()
    assert after is not None and abs(after - before) < TOLERANCE


def test_small_blocks_count_as_well():
    before = heap_in_use_bytes()
    blocks = [bytes(600 + index % 7) for index in range(50_000)]  # beyond Python's own pools of 512 bytes
    during = heap_in_use_bytes()
    assert before is not None and during is not None and during - before > 25_000_000
    del blocks
