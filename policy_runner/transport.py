"""Whether megabytes get from one process to another: what the middleware of this process was told, and its memory.

Fast DDS, as ROS sets it up, loses nearly every best-effort message of a megabyte or more (its segment of shared
memory holds 512 kB) and says nothing. A profile cures it, config/fastdds_shm.xml for one, which an environment
variable must name in every process that takes part.
"""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

LARGE_CLOUD_BYTES = 640 * 480 * 32
"""A cloud of a depth camera at full size, as drivers publish it."""
CLOUDS_IN_SEGMENT = 2
"""One that is being read, and one that is being written meanwhile."""
PROFILES_VARIABLES = ("FASTDDS_DEFAULT_PROFILES_FILE", "FASTRTPS_DEFAULT_PROFILES_FILE")
"""What Fast DDS reads from version 3, and before."""
REMEDY = "start with the launch files, or set FASTDDS_DEFAULT_PROFILES_FILE to config/fastdds_shm.xml in every process"


class ProfileError(ValueError):
    """Why profiles do not carry large messages; the message says what was found."""


@dataclass(frozen=True, kw_only=True)
class Transport:
    """What is known of the way that large messages of this process take."""

    large_messages: bool | None
    """Whether they arrive; None where nothing is known."""
    found: str
    """What the process was told, in one line."""

    @property
    def warning(self) -> str:
        """What to tell a user, remedy included; empty where there is nothing to tell."""
        return f"large clouds may not arrive: {self.found}; {REMEDY}" if self.large_messages is False else ""


def transport_of(rmw: str, environment: Mapping[str, str]) -> Transport:
    """Look at what a process was started with.

    rmw: name of its middleware, such as rmw_fastrtps_cpp; environment: its variables.
    """
    if "fastrtps" not in rmw:
        return Transport(large_messages=None, found=f"{rmw}: nothing is known of its large messages")
    for variable in PROFILES_VARIABLES:
        if environment.get(variable):
            path = Path(environment[variable])
            try:
                size = segment_bytes(path)
            except ProfileError as error:
                return Transport(large_messages=False, found=f"{variable}: {path}: {error}")
            return Transport(large_messages=True, found=f"{path}: {size / 2**20:.0f} MiB of shared memory")
    return Transport(
        large_messages=False, found=f"{rmw} without a profile: {PROFILES_VARIABLES[0]} is not set"
    )


def segment_bytes(path: Path, *, message_bytes: int = LARGE_CLOUD_BYTES) -> int:
    """Return the size of the shared memory that profiles give to every participant.

    message_bytes: size of the messages that it must be large enough for.

    Raises:
        ProfileError: the file cannot be read, or such messages would not travel through shared memory.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except OSError as error:
        raise ProfileError(error.strerror or str(error)) from error
    except ElementTree.ParseError as error:
        raise ProfileError(f"no XML: {error}") from error
    participant = next(
        (found for found in _all(root, "participant") if found.get("is_default_profile") == "true"), None
    )
    if participant is None:
        raise ProfileError('no participant has is_default_profile="true"')
    if _text(participant, "useBuiltinTransports") != "false":
        raise ProfileError("useBuiltinTransports is not false: the transports of the file are ignored")
    used = {
        name.text for users in _all(participant, "userTransports") for name in _all(users, "transport_id")
    }
    shared = [
        descriptor
        for descriptor in _all(root, "transport_descriptor")
        if _text(descriptor, "transport_id") in used and _text(descriptor, "type") == "SHM"
    ]
    if not shared:
        raise ProfileError("the default participant uses no transport of type SHM")
    size = max(_whole_number(descriptor, "segment_size") for descriptor in shared)
    needed = CLOUDS_IN_SEGMENT * message_bytes
    if size < needed:
        raise ProfileError(f"segment_size is {size}, at least {needed} are needed")
    return size


def _all(parent: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    """Elements below `parent` by name, in whatever namespace: it differs between versions."""
    return (element for element in parent.iter() if element.tag.rpartition("}")[2] == name)


def _text(parent: ElementTree.Element, name: str) -> str:
    return next((str(element.text).strip() for element in _all(parent, name)), "")


def _whole_number(parent: ElementTree.Element, name: str) -> int:
    text = _text(parent, name)
    try:
        return int(text or 0)
    except ValueError:
        raise ProfileError(f"{name}: expected a number of bytes, got {text!r}") from None
