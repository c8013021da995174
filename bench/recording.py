"""What recording costs the control loop: a controller at 50 Hz with joint states at 200 Hz and samples at 30 Hz.

    python -m bench recording

Without a recording, with one, and with one that takes raw clouds, in turns of a few seconds, so that whatever else the
machine does meets all three alike. Of each: how long the calls of a step take, how late a step begins, the share of a
core that the process uses, and what is written and lost.
"""

import tempfile
import time
from collections import defaultdict
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.report import table, write
from policy_runner.bag import message_types
from policy_runner.bag_writer import BagWriter
from policy_runner.clock import now_s
from policy_runner.contract import ActionSpec, ObsTerm, PointCloudSpec, PolicyContract
from policy_runner.controller import Controller
from policy_runner.inference import Float32
from policy_runner.inputs import CloudSample, JointSample
from policy_runner.journal import CLOUD_TYPE, Journal
from policy_runner.quiet_process import keep_ticks_short
from policy_runner.recording import RecordedController
from policy_runner.settings import RunnerSettings

RATE_HZ = 50.0
JOINT_STATES_PER_STEP = 4
CLOUD_HZ = 30.0
CLOUD_POINTS, POINT_BYTES = 77_000, 16
JOINTS, POLICY_POINTS = 7, 512
TURN_S, TURNS = 5.0, 3
WARM_UP_STEPS = 25
JOINT_TYPE = "sensor_msgs/msg/JointState"


class Network:
    """Answers at once, so that what is measured is the loop around it."""

    def __init__(self, contract: PolicyContract) -> None:
        self.contract, self.digest, self.ready = contract, "0" * 64, True
        self._action = np.full(contract.action.size, 0.1, np.float32)

    def act(self, observation: Mapping[str, Float32]) -> Float32:
        """Return the same action."""
        return self._action


def contract() -> PolicyContract:
    """Return a policy for an arm of seven joints that sees a cloud."""
    ones = (1.0,) * JOINTS
    return PolicyContract(
        policy_name="bench",
        task="none",
        control_dt_s=1.0 / RATE_HZ,
        obs_terms=(
            ObsTerm(name="joint_q", kind="joint_position", shape=(JOINTS,)),
            ObsTerm(name="points", kind="cloud", shape=(POLICY_POINTS, 3), frame="world"),
        ),
        action=ActionSpec(
            joint_names=tuple(f"joint_{number}" for number in range(JOINTS)),
            mode="delta_position",
            scale=(0.001,) * JOINTS,
            lower=tuple(-one for one in ones),
            upper=ones,
            max_velocity=ones,
        ),
        default_joint_pos=(0.0,) * JOINTS,
        point_cloud=PointCloudSpec(
            frame="world", crop_min=(-1.0, -1.0, -1.0), crop_max=(1.0, 1.0, 1.0), num_points=POLICY_POINTS
        ),
    )


def joint_state(position: np.ndarray) -> bytes:
    """Return a message as it would be recorded."""
    types = message_types().types
    message = types[JOINT_TYPE](
        header=types["std_msgs/msg/Header"](
            stamp=types["builtin_interfaces/msg/Time"](sec=1, nanosec=0), frame_id=""
        ),
        name=[f"joint_{number}" for number in range(JOINTS)],
        position=position,
        velocity=position,
        effort=position,
    )
    return bytes(message_types().serialize_cdr(message, JOINT_TYPE))


class Turn:
    """Some seconds of a control loop."""

    def __init__(self, controller: Controller, journal: Journal | None, *, clouds: bool) -> None:
        self._controller, self._journal, self._clouds = controller, journal, clouds
        self._message = joint_state(np.zeros(JOINTS))
        self._cloud_data = np.random.default_rng(0).bytes(CLOUD_POINTS * POINT_BYTES)
        self._points = np.zeros((POLICY_POINTS, 3), np.float32)
        self._next_cloud_s = 0.0
        self._position = np.zeros(JOINTS)
        self.step_s: list[float] = []
        self.late_s: list[float] = []

    def run(self, duration_s: float) -> None:
        """Arm, and step until the time is over."""
        next_s = time.perf_counter()
        end_s = next_s + duration_s
        while next_s < end_s:
            next_s += 1.0 / RATE_HZ
            time.sleep(max(0.0, next_s - time.perf_counter()))
            began_s = time.perf_counter()
            self._step()
            self.step_s.append(time.perf_counter() - began_s)
            self.late_s.append(began_s - next_s)

    def _step(self) -> None:
        for _ in range(JOINT_STATES_PER_STEP):
            arrival_s = now_s()
            if self._journal is not None:
                encode = partial(bytes, self._message)
                self._journal.message("/joint_states", JOINT_TYPE, encode, at_s=arrival_s)
            self._controller.set_joints(
                JointSample(position=self._position, velocity=None, stamp_ns=0, arrival_s=arrival_s)
            )
        if now_s() >= self._next_cloud_s:
            arrival_s = now_s()
            self._next_cloud_s = arrival_s + 1.0 / CLOUD_HZ
            if self._journal is not None and self._clouds:
                data = self._cloud_data
                encode = partial(bytes, memoryview(data))  # a copy, as turning a message into bytes is one
                self._journal.message(
                    "/points", CLOUD_TYPE, encode, at_s=arrival_s, size=len(data), bulky=True
                )
            self._controller.set_cloud(CloudSample(points=self._points, stamp_ns=0, arrival_s=arrival_s))
        command = self._controller.tick()
        if command is not None:
            self._position = command.values
        elif self._controller.fault() is None:
            self._controller.arm()


def take_turn(mode: str, folder: Path) -> dict[str, Any]:
    """Run the loop for a turn in a mode; returns what was measured."""
    settings = RunnerSettings(
        ramp_in_s=0.0, max_input_skew_s=0.0, joint_state_timeout_s=10.0, cloud_timeout_s=10.0
    )
    network = Network(contract())
    bag = None if mode == "off" else BagWriter(folder, max_bytes=1 << 34, on_end=print)
    cpu_s, began_s = time.process_time(), time.perf_counter()
    if bag is None:
        journal, controller = None, Controller(network, settings)
    else:
        journal = Journal(bag, node="/policy_runner", frame="world")
        controller = RecordedController(network, settings, journal=journal)
    turn = Turn(controller, journal, clouds=mode == "with raw clouds")
    turn.run(TURN_S)
    if bag is not None:
        bag.close()
    return {
        "step_s": turn.step_s[WARM_UP_STEPS:],
        "late_s": turn.late_s[WARM_UP_STEPS:],
        "cpu": (time.process_time() - cpu_s) / (time.perf_counter() - began_s),
        "bytes": sum(file.stat().st_size for file in folder.glob("*")) if bag is not None else 0,
        "dropped": bag.dropped if bag is not None else 0,
    }


def main() -> None:
    """Measure, print, write."""
    keep_ticks_short()  # as the runner does
    turns = defaultdict(list)
    message_types()  # a third of a second to load
    with tempfile.TemporaryDirectory() as folder:
        for number in range(TURNS):
            for mode in ("off", "on", "with raw clouds"):
                turns[mode].append(take_turn(mode, Path(folder, f"{mode}_{number}")))
    rows = []
    for mode, taken in turns.items():
        step_ms, late_ms = (
            1e3 * np.concatenate([turn[name] for turn in taken]) for name in ("step_s", "late_s")
        )
        rows.append(
            {
                "recording": mode,
                "step_p50_ms": float(np.median(step_ms)),
                "step_p99_ms": float(np.quantile(step_ms, 0.99)),
                "late_p50_ms": float(np.median(late_ms)),
                "late_p99_ms": float(np.quantile(late_ms, 0.99)),
                "core_share": float(np.mean([turn["cpu"] for turn in taken])),
                "mb_per_s": sum(turn["bytes"] for turn in taken) / (1e6 * TURN_S * TURNS),
                "dropped": sum(turn["dropped"] for turn in taken),
            }
        )
    print(table(rows))
    print(write("recording", rows))


if __name__ == "__main__":
    main()
