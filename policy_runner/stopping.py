"""What becomes of the command while the policy is not in command."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from policy_runner.contract import PolicyContract
from policy_runner.limiter import CommandLimiter, JointLimits, LimitError, PositionLimiter
from policy_runner.settings import SettingsError

Float64 = NDArray[np.float64]

HOME_AUTHORITY = 0.2
"""Share of the top speed that the way home may use."""


class Stopping:
    """Commands of a hold, tick by tick, by `RunnerSettings.stop_mode`."""

    def __init__(
        self,
        mode: str,
        limiter: CommandLimiter,
        limits: JointLimits,
        contract: PolicyContract,
        home_position: Mapping[str, float],
    ) -> None:
        """Choose what a hold does.

        home_position: by joint [rad or m]; the joints that are left out have the contract's start pose as
        their home.

        Raises:
            SettingsError: the way home needs position commands, which this policy does not give.
            LimitError: home has a joint that the policy does not command, or is outside the limits.
        """
        self._mode, self._limiter = mode, limiter
        self._go_home: Callable[[], Float64] | None = None
        self.homing = False
        """Whether the last command was one of the way home."""
        _check_names(contract, home_position)
        if mode == "return_home":
            if not isinstance(limiter, PositionLimiter):
                raise SettingsError(
                    f"stop_mode: return_home needs position commands, but the policy's mode is "
                    f"{contract.action.mode!r}"
                )
            self._go_home = partial(limiter.approach, _home(contract, limits, home_position), HOME_AUTHORITY)

    @property
    def silent(self) -> bool:
        """Whether a hold publishes nothing, so that nobody knows what the robot does meanwhile."""
        return self._mode == "publish_nothing"

    def command(self, *, may_go_home: bool) -> Float64 | None:
        """Return the next command (num_joints,) of this hold, None where nothing is to be published.

        may_go_home: whether anything but coming to rest is allowed.
        """
        limiter = self._limiter
        if self.silent:
            limiter.halt()
            return None
        if self._mode == "hold_now":
            return limiter.halt()
        if self._go_home is not None and may_go_home and (self.homing or limiter.at_rest):
            self.homing = True
            return self._go_home()
        self.homing = False
        return limiter.brake()


def _check_names(contract: PolicyContract, home_position: Mapping[str, float]) -> None:
    known = list(contract.action.joint_names)
    for joint in home_position:
        if joint not in known:
            raise LimitError(f"home_position.{joint}: no such joint; the policy commands {known}")


def _home(contract: PolicyContract, limits: JointLimits, home_position: Mapping[str, float]) -> Float64:
    names = contract.action.joint_names
    start = zip(names, contract.default_joint_pos, strict=True)
    home = [home_position.get(joint, position) for joint, position in start]
    for joint, position, low, high in zip(names, home, limits.lower, limits.upper, strict=True):
        if not low <= position <= high:
            raise LimitError(f"home_position.{joint}: must be in [{low}, {high}], got {position}")
    return np.array(home)
