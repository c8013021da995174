"""The newest joint state, cloud and goal, and what is wrong with them at a given moment."""

from __future__ import annotations

import math
from dataclasses import dataclass

from policy_runner.inputs import CloudSample, GoalSample, JointSample
from policy_runner.safety import HoldReason


@dataclass(frozen=True, kw_only=True)
class InputNeeds:
    """What a policy takes in, and how old it may be."""

    cloud: bool
    goal: bool
    joint_state_timeout_s: float
    cloud_timeout_s: float
    max_skew_s: float = math.inf
    """How much the stamps of cloud and joint state may disagree with their arrivals."""


class LatestInputs:
    """Holds the newest sample of each kind. Times are of `clock.now_s` [s]."""

    def __init__(self, needs: InputNeeds) -> None:
        self._needs = needs
        self._fresh_from_s = -math.inf
        self.joints: JointSample | None = None
        self.cloud: CloudSample | None = None
        self.goal: GoalSample | None = None

    def take_joints(self, sample: JointSample) -> None:
        """Keep a joint state instead of the last one."""
        if sample.arrival_s >= self._fresh_from_s:
            self.joints = sample

    def take_cloud(self, sample: CloudSample) -> None:
        """Keep a cloud instead of the last one."""
        if sample.arrival_s >= self._fresh_from_s:
            self.cloud = sample

    def take_goal(self, sample: GoalSample) -> None:
        """Keep a goal; it stands until the next one."""
        self.goal = sample

    def forget(self, until_s: float) -> None:
        """Forget what sensors said, and believe nothing that came, or comes, before `until_s`.

        A goal is what an operator said, and stands.
        """
        self.joints = self.cloud = None
        self._fresh_from_s = until_s

    def fault(self, now_s: float) -> HoldReason | None:
        """Return what is wrong, the gravest first; None if a policy may act on the inputs."""
        needs = self._needs
        if self.joints is None or now_s - self.joints.arrival_s > needs.joint_state_timeout_s:
            return HoldReason.JOINT_STATE_STALE
        if needs.cloud and (self.cloud is None or now_s - self.cloud.arrival_s > needs.cloud_timeout_s):
            return HoldReason.CLOUD_STALE
        if needs.goal and self.goal is None:
            return HoldReason.GOAL_MISSING
        if self._skew_s() > needs.max_skew_s:
            return HoldReason.INPUT_SKEW
        return None

    def evidence(self, fault: HoldReason, now_s: float) -> str:
        """Return how one can tell that `fault` is so, for an operator to read; empty where inputs cannot tell."""
        needs = self._needs
        if fault is HoldReason.JOINT_STATE_STALE:
            return _age(self.joints, now_s, needs.joint_state_timeout_s)
        if fault is HoldReason.CLOUD_STALE:
            return _age(self.cloud, now_s, needs.cloud_timeout_s)
        if fault is HoldReason.GOAL_MISSING:
            return "none has come"
        if fault is HoldReason.INPUT_SKEW:
            limit = f"at most {needs.max_skew_s} s"
            return f"the stamps of cloud and joint state disagree by {self._skew_s():.3f} s, {limit}"
        return ""

    def ages_s(self, now_s: float) -> dict[str, float]:
        """Return how long ago the newest samples came [s], without those that never came."""
        samples = {"joint_state": self.joints, "cloud": self.cloud}
        return {name: now_s - sample.arrival_s for name, sample in samples.items() if sample is not None}

    def oldest_stamp_ns(self) -> int:
        """Return the stamp of the older one of the samples that the policy acts on."""
        samples = (self.joints, self.cloud if self._needs.cloud else None)
        return min(sample.stamp_ns for sample in samples if sample is not None)

    def _skew_s(self) -> float:
        """Return how much the stamps of cloud and joint state disagree with their arrivals [s].

        Comparing with arrivals takes out the age that the older of the two has gained by waiting for the
        tick.
        """
        if self.joints is None or self.cloud is None:
            return 0.0
        if not (self.joints.stamp_ns and self.cloud.stamp_ns):  # unstamped
            return 0.0
        by_stamp_s = (self.joints.stamp_ns - self.cloud.stamp_ns) * 1e-9
        return abs(by_stamp_s - (self.joints.arrival_s - self.cloud.arrival_s))


def _age(sample: JointSample | CloudSample | None, now_s: float, timeout_s: float) -> str:
    if sample is None:
        return "none has come"
    return f"the last one came {now_s - sample.arrival_s:.2f} s ago, at most {timeout_s:.2f} s"
