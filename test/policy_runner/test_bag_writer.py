"""Bags are what standard tools read, are cut rather than lost, and make nobody wait."""

from __future__ import annotations

import re
import resource
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from numbered_bag import TYPE, encoded, entry, numbers_in
from rosbags.highlevel import AnyReader
from rosbags.rosbag2 import Reader

from policy_runner import bag_writer
from policy_runner.bag import read_bag
from policy_runner.bag_writer import ROOM_BYTES, SYNC_S, BagWriter, Entry

ROOT = Path(__file__).parents[2]
PATIENCE_S = 60.0


def wait_until(condition):
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_bag_is_a_ros_2_bag_with_metadata_types_and_their_definitions(tmp_path):
    bag = BagWriter(tmp_path / "bag", max_bytes=1 << 30, on_end=pytest.fail)
    bag.put(entry(1), entry(2, topic="/others"), entry(3))
    bag.close()
    with Reader(tmp_path / "bag") as reader:
        assert reader.message_count == 3
        assert {topic: info.msgcount for topic, info in reader.topics.items()} == {
            "/numbers": 2,
            "/others": 1,
        }
        assert re.fullmatch("RIHS01_[0-9a-f]{64}", reader.connections[0].digest)
    metadata = (tmp_path / "bag" / "metadata.yaml").read_text()
    assert "version: 9" in metadata and "storage_identifier: mcap" in metadata
    with AnyReader([tmp_path / "bag"]) as reader:  # knows no message but by the definitions in the bag
        values = [
            reader.deserialize(data, connection.msgtype).key for connection, _, data in reader.messages()
        ]
    assert values == ["1", "2", "3"]


def test_messages_that_come_out_of_order_get_log_times_in_order(tmp_path):
    bag = BagWriter(tmp_path / "bag", max_bytes=1 << 30, on_end=pytest.fail)
    bag.put(entry(0, at_ns=5000), entry(1, at_ns=3000), entry(2, at_ns=6000))
    bag.close()
    assert [message.log_time_ns for message in read_bag(tmp_path / "bag")] == [5000, 5000, 6000]


def test_a_process_that_is_killed_leaves_all_but_its_last_moment(tmp_path):
    code = f"""
import sys, time
from pathlib import Path
sys.path.insert(0, {str(Path(__file__).parent)!r})
from numbered_bag import entry
from policy_runner.bag_writer import BagWriter
bag = BagWriter(Path(sys.argv[1]), max_bytes=1 << 30, on_end=print)
for number in range(500):
    bag.put(entry(number))
while next(Path(sys.argv[1]).glob("*.mcap")).stat().st_size < 1000:
    time.sleep(0.01)
print("written", flush=True)
time.sleep(1000)
"""
    process = subprocess.Popen(
        [sys.executable, "-c", code, str(tmp_path / "bag")], cwd=ROOT, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout.readline() == "written\n"
    finally:
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert not (tmp_path / "bag" / "metadata.yaml").exists()
    assert numbers_in(tmp_path / "bag") == list(range(500))


def test_what_is_recorded_is_handed_to_the_file_system_every_second(tmp_path):
    bag = BagWriter(tmp_path / "bag", max_bytes=1 << 30, on_end=pytest.fail)
    bag.put(entry(7))
    wait_until(lambda: numbers_in(tmp_path / "bag") == [7])  # and not only when a chunk is full
    bag.put(entry(8))
    wait_until(lambda: numbers_in(tmp_path / "bag") == [7, 8])
    bag.close()
    assert SYNC_S <= 1.0


def test_on_a_full_disk_the_recording_ends_with_one_line_and_keeps_what_it_had(tmp_path):
    lines = []
    bag = BagWriter(tmp_path / "bag", max_bytes=1 << 30, on_end=lines.append)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3 << 20, hard))
        for number in range(8):
            bag.put(entry(number, size=1 << 20))
        wait_until(lambda: bag.problem)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, handler)
    assert lines == [bag.problem] and "File too large" in bag.problem
    dropped = bag.dropped
    assert not bag.put(entry(9)) and bag.dropped == dropped + 1
    bag.close()
    numbers = numbers_in(tmp_path / "bag")
    assert numbers == list(range(len(numbers))) and len(numbers) >= 2


def test_at_its_limit_the_recording_ends_and_the_bag_is_whole(tmp_path):
    lines = []
    bag = BagWriter(tmp_path / "bag", max_bytes=10_000, on_end=lines.append)
    for number in range(100):
        bag.put(entry(number, size=1000))
    wait_until(lambda: bag.problem)
    bag.close()
    assert lines == ["it has reached its 0.01 MB"]
    with Reader(tmp_path / "bag") as reader:
        assert reader.message_count == bag.written == 9
    assert bag.written + bag.dropped == 100


def test_whoever_hands_over_never_waits_and_clouds_leave_room_for_others(tmp_path):
    released = threading.Event()
    stuck = Entry(topic="/numbers", type=TYPE, log_time_ns=0, encode=lambda: released.wait() and encoded(0))
    bag = BagWriter(tmp_path / "bag", max_bytes=1 << 40, on_end=pytest.fail)
    bag.put(stuck)
    wait_until(lambda: not bag._waiting)  # the writer has it, and writes nothing more
    big = ROOM_BYTES // 8 - 1000

    def cloud(number):
        return Entry(topic="/numbers", type=TYPE, log_time_ns=1, encode=lambda: encoded(number), size=big)

    assert [bag.put(cloud(n), bulky=True) for n in range(1, 7)] == [True] * 4 + [False] * 2
    assert [bag.put(cloud(n)) for n in range(11, 17)] == [True] * 4 + [False] * 2
    assert not bag.put(cloud(20), cloud(21))  # all or none
    assert bag.dropped == 6
    released.set()
    bag.close()
    assert numbers_in(tmp_path / "bag") == [0, 1, 2, 3, 4, 11, 12, 13, 14]


def test_a_disk_that_hangs_does_not_hold_up_the_end(tmp_path, monkeypatch):
    monkeypatch.setattr(bag_writer, "CLOSE_S", 0.1)
    released, lines = threading.Event(), []
    bag = BagWriter(tmp_path / "bag", max_bytes=1 << 30, on_end=lines.append)
    bag.put(Entry(topic="/numbers", type=TYPE, log_time_ns=0, encode=lambda: released.wait() and encoded(0)))
    bag.close()
    assert lines == ["it could not be closed within 0.1 s"]
    released.set()


def test_a_message_that_cannot_be_put_into_bytes_is_dropped_alone(tmp_path):
    bag = BagWriter(tmp_path / "bag", max_bytes=1 << 30, on_end=pytest.fail)
    bag.put(entry(1))
    bag.put(Entry(topic="/numbers", type=TYPE, log_time_ns=10**18 + 2, encode=lambda: encoded(1 / 0)))
    bag.put(entry(3))
    bag.close()
    assert numbers_in(tmp_path / "bag") == [1, 3] and bag.dropped == 1
