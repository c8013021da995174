"""One robot a module, in motion from one fault to the next."""

from __future__ import annotations

import pytest
from injection import SETTINGS, Faults, follower, round_trip
from robot import Robot


@pytest.fixture(scope="module")
def moving_robot(ros_context, bundles, tmp_path_factory):
    """A robot that follows the cloud around."""
    contract, w = follower(bundles)
    folder = tmp_path_factory.mktemp("follower")
    policy = bundles.write(folder / "bundle", contract, w=w)
    robot = Robot(ros_context, bundles, folder / "log", contract=contract, policy=policy, **SETTINGS)
    robot.drift = round_trip
    yield robot
    robot.close()
    print((folder / "log").read_text())


@pytest.fixture
def faults(moving_robot, record_property):
    return Faults(moving_robot, record_property)
