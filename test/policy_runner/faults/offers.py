"""Bundles that are offered to a runner while its policy moves a robot."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
from command_stream import by_policy
from injection import counters, follower


def write_policies(bundles, parent):
    """Return a folder that policies may come from, with two in it; a third one lies beside the folder."""
    contract, w = follower(bundles)
    folder = parent / "policies"
    bundles.write(folder / "first", contract, w=w)
    slow = {name: np.float32(0.5) * value for name, value in w.items()}
    bundles.write(folder / "second", replace(contract, policy_name="second"), w=slow)
    shutil.copytree(folder / "second", parent / "elsewhere")
    return folder


def taking_from(policies):
    """Parameters of a runner that takes these policies."""
    return {
        "policy": policies / "first",
        "policy_dirs": [str(policies)],
        "vet_timeout_s": 6.0,
        "deadline_miss_limit": 1000,
    }


class Offers:
    """Bundles that are offered to a runner, and the refusals that it has to count."""

    def __init__(self, robot):
        self.robot, self.refusals, self.last = robot, 0, ""

    def refused(self, path) -> str:
        """Offer a bundle that is refused, and return why; the answer names the policy that stays."""
        response = self.robot.call("load_policy", path=str(path))
        assert not response.success and response.message.startswith("refused: ")
        assert response.policy_name == "roller"
        self.refusals, self.last = self.refusals + 1, response.message
        return response.message.removeprefix("refused: ")


@contextmanager
def unnoticed(faults):
    """What is done inside leaves no trace in the commands: a policy is in command all the time."""
    armed = faults.move()
    robot, offers = faults.robot, Offers(faults.robot)
    before, rss_mb = robot.diagnosis(), robot.rss_mb()
    yield offers
    after = robot.diagnosis()
    assert int(after["policies_refused"]) == int(before["policies_refused"]) + offers.refusals
    assert offers.last in ("", after["last_refused_policy"])
    assert counters(after) == counters(before), "why it held"
    stream = robot.stream[armed:]
    assert len(by_policy(stream)) == len(stream) > 5
    faults.observe(stream, counted={"policies_refused": offers.refusals}, rss_mb=robot.rss_mb() - rss_mb)
