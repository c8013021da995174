"""One robot a module, in motion from one fault to the next."""

from __future__ import annotations

import pytest

pytest.register_assert_rewrite("command_stream", "injection", "offers")  # before they are imported

from injection import PROFILE, SETTINGS, Faults, follower, round_trip  # noqa: E402
from robot import Robot  # noqa: E402


@pytest.fixture(scope="module")
def start_moving(ros_context, bundles, tmp_path_factory):
    """Start the runner of a module, with a policy that lets a robot follow the cloud around."""
    contract, w = follower(bundles)
    folder = tmp_path_factory.mktemp("follower")
    policy = bundles.write(folder / "bundle", contract, w=w)
    robots = []

    def start(**parameters):
        parameters = {"contract": contract, "policy": policy} | SETTINGS | parameters
        with pytest.MonkeyPatch.context() as patch:
            for name, value in PROFILE.items():
                patch.setenv(name, value)
            robots.append(Robot(ros_context, bundles, folder / "log", **parameters))
        robots[-1].drift = round_trip
        return robots[-1]

    yield start
    for robot in robots:
        robot.close()
    print((folder / "log").read_text())


@pytest.fixture(scope="module")
def moving_robot(start_moving):
    return start_moving()


@pytest.fixture
def faults(moving_robot, record_property):
    return Faults(moving_robot, record_property)
