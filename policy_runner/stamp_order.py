"""Which clouds are news, by their stamps: late, repeated and absurd ones are none."""

from __future__ import annotations

MAX_STEP_S = 2.0
"""By more than this, no cloud is late, nor ahead of the time that has passed: a clock was set."""


class StampError(ValueError):
    """Why a cloud is no news."""


class OutOfOrderError(StampError):
    """It is as old as the last one, or older."""


class BadStampError(StampError):
    """Its stamp is no time at which a cloud may have been taken after the last one."""


class StampOrder:
    """Lets through clouds that are newer than the last one let through.

    A repeated stamp is never news, however long it goes on: to the arrival-time watchdog, a camera that sends its last
    image over and over is one that sends none. Where the stamps have jumped, to the past or into the future, clouds are
    held back for `settle_s`; if they are still there then, it was the clock that was set, and they count again. Clouds
    without a stamp, 0, are taken as they come.
    """

    def __init__(self, *, settle_s: float) -> None:
        """Begin with whatever comes.

        settle_s: longer than it takes until whoever acts on clouds notices that there are none.
        """
        self._settle_s = settle_s
        self._stamp_ns = 0
        self._arrival_s = 0.0

    def check(self, stamp_ns: int, arrival_s: float) -> None:
        """Take note of a cloud that is news.

        stamp_ns: of the cloud; arrival_s: by the monotonic clock.

        Raises:
            StampError: it is none.
        """
        if stamp_ns < 0:
            raise BadStampError(f"stamp: expected >= 0, got {stamp_ns} ns")
        if stamp_ns == 0:
            return
        if stamp_ns == self._stamp_ns:
            raise OutOfOrderError(f"stamp {stamp_ns} ns: the same as that of the last cloud")
        passed_s = arrival_s - self._arrival_s
        if self._stamp_ns and passed_s < self._settle_s:
            step_s = (stamp_ns - self._stamp_ns) * 1e-9
            if step_s < -MAX_STEP_S or step_s > passed_s + MAX_STEP_S:
                raise BadStampError(
                    f"stamp {stamp_ns} ns: {step_s:+.3f} s from the last one, {passed_s:.3f} s after it came"
                )
            if step_s < 0.0:
                raise OutOfOrderError(f"stamp {stamp_ns} ns: {-step_s:.3f} s older than the last cloud")
        self._stamp_ns, self._arrival_s = stamp_ns, arrival_s
