"""What stops a simulated robot when nobody commands it any more."""

from __future__ import annotations

import math


class CommandWatchdog:
    """Tells when the last command is too old to be followed, as the `cmd_timeout` of a joint trajectory controller.

    Time is that of the simulated world and passes with its control steps, so a world that stands still, be it in
    lockstep or because its process is slow, makes no command older.
    """

    def __init__(self, *, timeout_s: float, control_dt_s: float) -> None:
        """Begin without a command.

        timeout_s: how long a command is followed after its end [s]; 0 or infinity: for ever. control_dt_s: of one step
        [s].
        """
        self._timeout_s = timeout_s
        self._control_dt_s = control_dt_s
        self._steps_left = math.inf
        self.timeouts = 0
        """How often a command became too old."""

    def heard(self, *, lasts_s: float = 0.0) -> None:
        """Take note of a command, which ends `lasts_s` from now, as a trajectory does."""
        self._steps_left = math.inf
        if 0.0 < self._timeout_s < math.inf:
            steps = (lasts_s + self._timeout_s) / self._control_dt_s
            self._steps_left = max(math.ceil(steps - 1e-6), 1)  # 0.1 / 0.02 is five steps, not six

    def rest(self) -> None:
        """Forget the last command: there is nothing to wait for."""
        self._steps_left = math.inf

    def step(self) -> bool:
        """Let a control step begin; returns True for the first one in which the last command is too old."""
        if self._steps_left > 0:
            self._steps_left -= 1
            return False
        self.timeouts += 1
        self.rest()
        return True
