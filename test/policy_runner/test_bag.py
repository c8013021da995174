"""Bags are read as they were written, up to where they were cut, or refused."""

from __future__ import annotations

import random

import pytest
from numbered_bag import TYPE, number_of, numbers_in, write

from policy_runner.bag import BagError, read_bag


def test_messages_come_back_as_they_were_handed_over(tmp_path):
    write(tmp_path / "bag", 1000)
    messages = list(read_bag(tmp_path / "bag"))
    assert [number_of(message) for message in messages] == list(range(1000))
    assert [message.log_time_ns for message in messages] == [10**18 + n * 1000 for n in range(1000)]
    assert {(message.topic, message.type) for message in messages} == {("/numbers", TYPE)}


def test_a_bag_that_was_cut_anywhere_is_read_up_to_the_cut(tmp_path):
    whole = write(tmp_path / "bag", 3000, size=1000).read_bytes()  # three chunks
    cut = tmp_path / "cut.mcap"
    found = []
    rng = random.Random(0)
    anywhere = (rng.randrange(len(whole)) for _ in range(60))
    near_the_end = (len(whole) - left_out for left_out in range(1, 99, 7))
    for place in sorted({*range(60), *anywhere, *near_the_end}):
        cut.write_bytes(whole[:place])
        numbers = numbers_in(cut)
        assert numbers == list(range(len(numbers)))
        assert len(numbers) >= min(3000, (place - 2000) // 1100)  # 100 bytes a message for head and index
        found.append(len(numbers))
    assert found == sorted(found) and found[0] == 0 and found[-1] == 3000


def test_damaged_bags_are_refused_by_name_or_read_and_never_crash(tmp_path):
    whole = write(tmp_path / "bag", 300, size=10).read_bytes()
    damaged = tmp_path / "damaged.mcap"
    rng = random.Random(1)
    refused = 0
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(rng.choice([1, 10])):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        damaged.write_bytes(data)
        try:
            for _ in read_bag(damaged):
                pass
        except BagError as error:
            refused += str(error).startswith(str(damaged))
    assert 0 < refused < 300


def test_what_is_no_bag_is_refused_with_what_was_found(tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text.mcap").write_text("a text that is longer than the magic bytes")
    for path, found in (
        ("nowhere", "found nothing"),
        ("empty", "found a folder without .mcap file"),
        ("text.mcap", "is no MCAP file"),
    ):
        with pytest.raises(BagError, match=found):
            list(read_bag(tmp_path / path))
