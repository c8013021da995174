"""A thousand clouds of a fixed seed; `python -m bench fuzz_clouds` feeds a hundred thousand."""

import random
import tracemalloc
from collections import Counter

import numpy as np
import pytest

from bench import fuzz_clouds
from bench.cloud_mutations import KINDS, legal_cloud, read_by_hand
from bench.fuzz_clouds import WrongPointsError, feed


@pytest.mark.filterwarnings("error")
def test_a_thousand_clouds_are_read_exactly_or_refused():
    outcomes = Counter(feed(seed=7, number=number) for number in range(1000))
    assert {kind for kind, _ in outcomes} == set(KINDS)
    assert outcomes["legal", "refused"] == 0 and outcomes["legal", "read"] > 50
    assert outcomes["with lies", "refused"] > 100 and outcomes["with lies", "read"] > 10
    assert outcomes["noise", "refused"] > 100


def test_no_cloud_is_kept():
    for number in range(100):
        feed(seed=8, number=number)
    tracemalloc.start()
    for number in range(100, 400):
        feed(seed=8, number=number)
    kept, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert kept < 100_000


def test_the_reader_by_hand_knows_what_it_reads():
    cloud = legal_cloud(random.Random(1))
    points = read_by_hand(cloud)
    assert points is not None and len(points) == cloud.height * cloud.width
    cloud.data = cloud.data[:-9]  # five bytes may follow the last point
    assert read_by_hand(cloud) is None


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (lambda points: points + np.float32(1e-3), "expected"),
        (lambda points: points[:-1], "expected"),
        (lambda points: points[::-1], "expected"),
    ],
)
def test_a_decoder_that_is_wrong_is_found_out(monkeypatch, fault, message):
    right = fuzz_clouds.decode
    monkeypatch.setattr(fuzz_clouds, "decode", lambda cloud, **options: fault(right(cloud, **options)))
    with pytest.raises(WrongPointsError, match=message):
        for number in range(50):
            feed(seed=7, number=number)


def test_a_decoder_that_refuses_too_much_is_found_out(monkeypatch):
    def refuse(cloud, **_):
        raise fuzz_clouds.CloudError("never")

    monkeypatch.setattr(fuzz_clouds, "decode", refuse)
    with pytest.raises(WrongPointsError, match="refused a good cloud: never"):
        for number in range(50):
            feed(seed=7, number=number)
