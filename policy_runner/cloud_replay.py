"""Make the points that a network saw once more, from the raw clouds of a recording, and compare."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from policy_runner.bag import BagMessage, message_types
from policy_runner.cloud_frames import FixedFrame
from policy_runner.contract import PolicyContract
from policy_runner.frames import FrameError
from policy_runner.journal import NANOSECONDS, Event, points_of
from policy_runner.pointcloud import CloudError, decode, preprocess
from policy_runner.settings import RunnerSettings, settings_from

MATCH_NS = 100_000_000
"""How far the log time of a raw cloud may be from the arrival of the sample that was made of it [ns]."""
MOST_WAITING = 100
"""Raw clouds that are kept while no sample comes."""


@dataclass(kw_only=True)
class CloudOutcome:
    """What became of the samples of a recording; filled while they are made again."""

    equal: int = 0
    """Samples that came out the same, bit for bit."""
    different: int = 0
    largest_m: float = 0.0
    """Largest difference of a coordinate [m]."""
    without_raw: int = 0
    """Samples whose raw cloud is not in the bag."""
    moved: int = 0
    """Samples of clouds in another frame than the settings say: /tf is not recorded."""

    def __str__(self) -> str:
        made = self.equal + self.different
        result = "all equal to the bit" if made else "nothing to compare"
        if self.different:
            result = f"{self.different} NOT as recorded, by up to {self.largest_m:.6g} m"
        left_out = [
            f"{count} {why}"
            for count, why in ((self.without_raw, "without raw cloud"), (self.moved, "moved by /tf"))
            if count
        ]
        return "; ".join([f"{made} made again from raw clouds, {result}", *left_out])


def make_again(events: Iterator[Event]) -> CloudOutcome:
    """Take the raw clouds of a journal, `journal.read_journal`, through the chain of its settings.

    Raises:
        BagError: the bag is damaged.
        ContractError, SettingsError: the beginning of the journal is not one of a run.
    """
    begin = next(events).values
    contract = PolicyContract.from_json(json.dumps(begin["contract"]))
    settings, outcome = settings_from(begin["settings"]), CloudOutcome()
    waiting: deque[tuple[BagMessage, Any]] = deque(maxlen=MOST_WAITING)
    for event in events:
        waiting.extend((raw, message_types().deserialize_cdr(raw.data, raw.type)) for raw in event.raw_clouds)
        if event.kind == "cloud" and event.points is not None:
            arrival_ns = begin["log_time_offset_ns"] + round(event.values["arrival_s"] * NANOSECONDS)
            while waiting and waiting[0][0].log_time_ns < arrival_ns - MATCH_NS:
                waiting.popleft()
            same_stamp = [
                (abs(raw.log_time_ns - arrival_ns), cloud)
                for raw, cloud in waiting
                if _stamp_ns(cloud) == event.values["stamp_ns"]
            ]
            if not same_stamp:
                outcome.without_raw += 1
                continue
            _, cloud = min(same_stamp, key=lambda match: match[0])
            _compare(cloud, event.points, contract, settings, outcome)
    return outcome


def _compare(
    cloud: Any, sample: BagMessage, contract: PolicyContract, settings: RunnerSettings, outcome: CloudOutcome
) -> None:
    spec, pose = contract.point_cloud, settings.cloud_extrinsics
    assert spec is not None  # else there were no samples
    frames = FixedFrame(
        settings.cloud_frame or spec.frame, pose if pose != RunnerSettings.cloud_extrinsics else None
    )
    try:
        matrix = frames.matrix(cloud.header.frame_id, stamp_ns=0, arrival_s=0.0)
    except FrameError:
        outcome.moved += 1
        return
    recorded, distance = points_of(sample), np.inf
    try:
        made = preprocess(decode(cloud, max_points=settings.max_cloud_points), spec, matrix)
    except CloudError:  # there was a sample, so this is another cloud than it was
        made = np.empty((0, 3), np.float32)
    if made.tobytes() == recorded.tobytes():
        outcome.equal += 1
        return
    if made.shape == recorded.shape:
        distance = np.abs(made.astype(np.float64) - recorded).max()
    outcome.different += 1
    outcome.largest_m = max(outcome.largest_m, float(distance))


def _stamp_ns(cloud: Any) -> int:
    return cloud.header.stamp.sec * NANOSECONDS + cloud.header.stamp.nanosec
