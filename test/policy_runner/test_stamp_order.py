"""Which clouds are news: by their stamps, never by trusting a clock."""

from __future__ import annotations

import pytest

from policy_runner.stamp_order import BadStampError, OutOfOrderError, StampError, StampOrder

SECOND = 1_000_000_000
SETTLE_S = 0.5
HOUR_S = 3600.0


def accepted(clouds):
    """Which of (stamp [s], arrival [s]) are taken: '.', and what the others are: 'o'ut of order or 'b'ad."""
    order, outcome = StampOrder(settle_s=SETTLE_S), ""
    for stamp_s, arrival_s in clouds:
        try:
            order.check(round(stamp_s * SECOND), arrival_s)
            outcome += "."
        except OutOfOrderError:
            outcome += "o"
        except BadStampError:
            outcome += "b"
    return outcome


def camera(count, *, offset_s=0.0, start_s=5000.0, rate_hz=10.0):
    return [(start_s + step / rate_hz + offset_s, start_s + step / rate_hz) for step in range(count)]


@pytest.mark.parametrize("offset_s", [0.0, HOUR_S, -5.0, 1.7e9])
@pytest.mark.parametrize("rate_hz", [0.2, 1.0, 30.0, 200.0])
def test_a_clock_that_is_off_but_goes_on_is_no_fault(offset_s, rate_hz):
    assert accepted(camera(100, offset_s=offset_s, rate_hz=rate_hz)) == "." * 100


def test_clouds_without_a_stamp_are_taken_as_they_come():
    assert accepted([(0.0, 10.0), (0.0, 10.0), (0.0, 11.0)]) == "..."
    assert accepted([(10.0, 10.0), (0.0, 10.1), (9.9, 10.2), (10.3, 10.3)]) == "..o."


def test_repeated_and_late_clouds_are_out_of_order():
    assert (
        accepted([(10.0, 10.0), (10.0, 10.0), (9.9, 10.01), (10.1, 10.1), (10.05, 10.11), (10.2, 10.2)])
        == ".oo.o."
    )


def test_a_stamp_that_stands_still_is_never_news_however_long_it_goes_on():
    assert accepted([(10.0, 10.0 + 0.1 * step) for step in range(1000)]) == "." + "o" * 999


def test_a_negative_stamp_is_none():
    with pytest.raises(BadStampError, match="stamp: expected >= 0, got -5 ns"):
        StampOrder(settle_s=SETTLE_S).check(-5, 10.0)


@pytest.mark.parametrize("offset_s", [HOUR_S, -HOUR_S, 3.0, -3.0])
def test_a_clock_that_is_set_is_held_back_for_a_while_and_then_counts(offset_s):
    healthy = camera(10)
    after = camera(20, start_s=5001.0, offset_s=offset_s)
    # at 10 Hz, the fifth comes half a second after the last good one
    assert accepted(healthy + after) == "." * 10 + "b" * 4 + "." * 16


@pytest.mark.parametrize("offset_s", [HOUR_S, -HOUR_S])
def test_a_single_absurd_stamp_costs_one_cloud(offset_s):
    clouds = camera(20)
    clouds[7] = (clouds[7][0] + offset_s, clouds[7][1])
    assert accepted(clouds) == "." * 7 + "b" + "." * 12


def test_a_clock_that_is_corrected_by_a_little_loses_no_more_than_that():
    assert accepted(camera(10) + camera(10, start_s=5001.0, offset_s=-0.25)) == "." * 10 + "oo" + "." * 8


def test_a_simulation_that_is_slow_or_pauses_is_no_fault():
    assert accepted([(10.0 + step / 60, 10.0 + 3.0 * step) for step in range(20)]) == "." * 20


def test_a_simulation_that_begins_anew_counts_again_after_a_while():
    again = [(0.1 * (step + 1), 5001.0 + 0.1 * step) for step in range(10)]
    assert accepted(camera(10) + again) == "." * 10 + "b" * 4 + "." * 6


def test_every_refusal_says_by_how_much():
    order = StampOrder(settle_s=SETTLE_S)
    order.check(10 * SECOND, 5.0)
    for stamp_s, message in (
        (9.9, "0.100 s older than the last"),
        (10.0, "the same as"),
        (13610.0, r"\+13600.000 s"),
    ):
        with pytest.raises(StampError, match=message):
            order.check(round(stamp_s * SECOND), 5.1)
