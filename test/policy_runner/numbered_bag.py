"""Bags of messages that are numbers."""

from __future__ import annotations

import pytest

from policy_runner.bag import message_types, read_bag
from policy_runner.bag_writer import BagWriter, Entry

TYPE = "diagnostic_msgs/msg/KeyValue"


def encoded(number, size=0):
    message = message_types().types[TYPE](key=str(number), value="x" * size)
    return bytes(message_types().serialize_cdr(message, TYPE))


def entry(number, *, size=0, topic="/numbers", at_ns=None):
    log_time_ns = 10**18 + number * 1000 if at_ns is None else at_ns
    return Entry(topic=topic, type=TYPE, log_time_ns=log_time_ns, encode=lambda: encoded(number, size))


def number_of(message):
    return int(message_types().deserialize_cdr(message.data, message.type).key)


def numbers_in(path):
    return [number_of(message) for message in read_bag(path)]


def write(path, count, *, size=0, max_bytes=1 << 30):
    bag = BagWriter(path, max_bytes=max_bytes, on_end=pytest.fail)
    for number in range(count):
        assert bag.put(entry(number, size=size))
    bag.close()
    return next(path.glob("*.mcap"))
