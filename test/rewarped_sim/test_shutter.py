"""Rate and latency of pictures, by their stamps, on clocks that the tests turn."""

import pytest

from rewarped_sim.shutter import NANOSECONDS, Shutter

MS = 1_000_000


def watch(shutter, moments_ns):
    """Ask at every moment; a picture is the moment at which it was taken: (moment, shot) of those handed on."""
    numbers = []
    shots = []
    for now_ns in moments_ns:

        def take(number, now_ns=now_ns):
            numbers.append(number)
            return now_ns

        if (shot := shutter.open(now_ns, take)) is not None:
            shots.append((now_ns, shot))
    assert numbers == list(range(len(numbers)))
    return shots


@pytest.mark.parametrize(("rate_hz", "asked_hz"), [(30.0, 60.0), (15.0, 60.0), (24.0, 60.0), (10.0, 1000.0)])
def test_pictures_come_at_their_own_rate(rate_hz, asked_hz):
    moments = [round(k * NANOSECONDS / asked_hz) for k in range(round(20 * asked_hz))]
    shots = watch(Shutter(rate_hz=rate_hz, latency_s=0.0), moments)
    assert len(shots) == pytest.approx(20 * rate_hz, abs=1)
    for number, (_, shot) in enumerate(shots):
        due_ns = number * NANOSECONDS / rate_hz
        assert -10 <= shot.taken_ns - due_ns <= NANOSECONDS / asked_hz + 10, (
            "at the first moment after its turn"
        )


def test_without_a_rate_every_moment_is_a_picture():
    moments = [k * 7 * MS for k in range(50)]
    shots = watch(Shutter(rate_hz=0.0, latency_s=0.0), moments)
    assert [shot.taken_ns for _, shot in shots] == moments


@pytest.mark.parametrize("latency_ms", [1, 20, 45, 300])
def test_a_picture_is_handed_on_late_with_the_time_it_was_taken_at(latency_ms):
    moments = [5 * k * MS for k in range(200)]
    shots = watch(Shutter(rate_hz=50.0, latency_s=1e-3 * latency_ms), moments)
    for now_ns, shot in shots[1:]:
        assert shot.picture == shot.taken_ns
        assert latency_ms * MS <= now_ns - shot.taken_ns < (latency_ms + 5) * MS
    assert len(shots) == pytest.approx((1000 - latency_ms) / 20, abs=2), "none is lost on the way"


def test_the_newest_that_has_come_through_is_handed_on_after_a_pause():
    shutter = Shutter(rate_hz=100.0, latency_s=0.1)
    shots = watch(shutter, [0, *(k * 10 * MS for k in range(1, 8)), 1000 * MS])
    assert [shot.taken_ns for _, shot in shots] == [-100 * MS, 70 * MS]


def test_after_a_cut_the_new_scene_shows_at_once_and_the_old_one_never():
    shutter = Shutter(rate_hz=20.0, latency_s=0.1)
    watch(shutter, [k * 10 * MS for k in range(50)])
    shutter.cut()
    at_once = shutter.open(500 * MS, lambda number: "new scene")
    assert at_once is not None and at_once.picture == "new scene"
    assert at_once.taken_ns == 400 * MS
    later = [shutter.open((500 + 10 * k) * MS, lambda number: "new scene") for k in range(1, 30)]
    assert {shot.picture for shot in later if shot is not None} == {"new scene"}
    assert all(shot.taken_ns >= 500 * MS for shot in later if shot is not None)


def test_when_the_clock_is_set_back_pictures_go_on():
    shutter = Shutter(rate_hz=100.0, latency_s=0.02)
    moments = [k * 10 * MS for k in range(20)]
    before = watch(shutter, [3600 * NANOSECONDS + now_ns for now_ns in moments])
    shots = []
    for now_ns in moments:
        if (shot := shutter.open(now_ns, lambda number: number)) is not None:
            shots.append(shot)
    assert len(shots) == len(before)
    assert [shot.taken_ns for shot in shots] == [-20 * MS, *(k * 10 * MS for k in range(1, 18))]
