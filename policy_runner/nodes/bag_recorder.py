"""Recording of a node's run into a bag."""

from __future__ import annotations

from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any

from rclpy.serialization import serialize_message

from policy_runner.bag import exact_cdr
from policy_runner.bag_writer import BagWriter
from policy_runner.contract import PolicyContract
from policy_runner.journal import Journal
from policy_runner.recording import RecordedController
from policy_runner.settings import RunnerSettings, SettingsError

MEGABYTE = 1_000_000


class BagRecorder:
    """Records into a bag of its own in the folder `RunnerSettings.record`."""

    def __init__(self, node: Any, contract: PolicyContract, settings: RunnerSettings) -> None:
        """Open the bag, for an rclpy node.

        Raises:
            SettingsError: it cannot be written there.
        """
        self._node, self._with_clouds = node, settings.record_clouds
        self._topics: dict[str, str] = {}
        name = node.get_fully_qualified_name()
        try:
            self._bag = BagWriter(
                _new_folder(Path(settings.record).expanduser(), name.strip("/").replace("/", "_")),
                max_bytes=round(settings.record_limit_mb * MEGABYTE),
                on_end=lambda problem: node.get_logger().error(f"recording ended: {problem}"),
            )
        except OSError as error:
            raise SettingsError(f"record: cannot write to {settings.record}: {error.strerror}") from error
        frame = contract.point_cloud.frame if contract.point_cloud is not None else ""
        self._journal = Journal(self._bag, node=name, frame=frame)
        self.controller = partial(RecordedController, journal=self._journal)
        node.get_logger().info(f"recording to {self._bag.folder}")

    def message(self, topic: str, message: Any, *, at_s: float | None = None) -> None:
        """Hand a message over to the bag; it becomes bytes in the bag's thread."""
        type_ = _type_name(message)
        self._journal.message(self._resolved(topic), type_, partial(_encode, message, type_), at_s=at_s)

    def cloud(self, message: Any, *, at_s: float) -> None:
        """Hand a cloud over to the bag, where clouds are wanted."""
        if self._with_clouds:
            topic, type_, size = self._resolved("points"), _type_name(message), len(message.data)
            encode = partial(_encode, message, type_)
            self._journal.message(topic, type_, encode, at_s=at_s, size=size, bulky=True)

    def remark(self, kind: str, **values: object) -> None:
        """Write an event that is no call on the controller."""
        self._journal.event(kind, values)

    def status(self) -> dict[str, object]:
        """Return where it goes, how much is there and how much was lost."""
        return {
            "recording": "" if self._bag.problem else self._bag.folder,
            "recording_problem": self._bag.problem,
            "recorded_messages": self._bag.written,
            "dropped_recording": self._bag.dropped,
        }

    def close(self) -> None:
        """Write what waits and close the bag."""
        self._journal.close()
        self._bag.close()

    def _resolved(self, topic: str) -> str:
        if topic not in self._topics:
            self._topics[topic] = self._node.resolve_topic_name(topic)
        return self._topics[topic]


def _new_folder(parent: Path, name: str) -> Path:
    """Return a folder that is not there yet, named after node and time."""
    base = f"{name}_{datetime.now(timezone.utc):%Y-%m-%dT%H-%M-%S}"
    folder, number = parent / base, 2
    while folder.exists():
        folder, number = parent / f"{base}_{number}", number + 1
    return folder


def _encode(message: Any, type_: str) -> memoryview:
    return exact_cdr(serialize_message(message), type_)


def _type_name(message: Any) -> str:
    kind = type(message)
    return f"{kind.__module__.partition('.')[0]}/msg/{kind.__name__}"
