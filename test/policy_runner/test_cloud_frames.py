"""How clouds come into the policy's frame: by the pose that was given, or by the tree, and by nothing else."""

from __future__ import annotations

import math

import numpy as np
import pytest

from policy_runner.cloud_frames import FixedFrame, TrackedFrames, TransformJumpError, WrongFrameError
from policy_runner.frames import FrameTree, NoTransformError, StampedTransform

SECOND = 1_000_000_000
SETTLE_S = 0.5


def test_where_a_pose_is_given_clouds_have_that_frame_and_no_other():
    camera = FixedFrame("camera", (0.1, 0.2, 0.3, 0.0, 0.0, 0.0, 1.0))
    np.testing.assert_allclose(camera.matrix("camera", stamp_ns=0, arrival_s=0.0)[:3, 3], [0.1, 0.2, 0.3])
    for other in ("world", "", "Camera", "camera "):
        with pytest.raises(WrongFrameError, match=f"frame '{other}', expected 'camera'"):
            camera.matrix(other, stamp_ns=0, arrival_s=0.0)


def test_clouds_in_the_policys_own_frame_stay_as_they_are():
    assert FixedFrame("world").matrix("world", stamp_ns=0, arrival_s=0.0) is None
    assert Camera().frames.matrix("world", stamp_ns=0, arrival_s=0.0) is None


class Camera:
    """A camera whose pose in the world is told anew before each cloud."""

    def __init__(self, **changes):
        self.tree = FrameTree(timeout_s=0.05)
        limits = {"max_jump_m": 0.1, "max_jump_rad": 0.3, "settle_s": SETTLE_S} | changes
        self.frames = TrackedFrames(self.tree, "world", **limits)

    def see(self, now_s, x=0.0, yaw=0.0, frame="camera"):
        self.tree.add(
            StampedTransform(
                parent="world",
                child=frame,
                stamp_ns=round(now_s * SECOND),
                position=np.array([x, 0.0, 0.0]),
                quaternion=np.array([0.0, 0.0, math.sin(yaw / 2), math.cos(yaw / 2)]),
            ),
            static=False,
        )
        return self.frames.matrix(frame, stamp_ns=round(now_s * SECOND), arrival_s=now_s)


def test_a_camera_that_moves_is_followed():
    camera = Camera()
    for step in range(50):
        matrix = camera.see(1.0 + 0.1 * step, x=0.09 * step, yaw=0.29 * step)
        assert matrix[0, 3] == pytest.approx(0.09 * step)


@pytest.mark.parametrize(
    ("jump", "told"), [({"x": 0.2}, "0.200 m, 0.000 rad"), ({"yaw": -0.5}, "0.000 m, 0.500 rad")]
)
def test_after_a_jump_nothing_is_known_until_the_frame_has_stood_still_for_a_while(jump, told):
    camera = Camera()
    camera.see(1.0)
    for now_s in (1.1, 1.3, 1.55):
        with pytest.raises(
            TransformJumpError, match=f"frame 'camera' jumped by {told}; expected at most 0.1 m"
        ):
            camera.see(now_s, **jump)
    assert camera.see(1.1 + SETTLE_S, **jump) is not None


def test_a_frame_that_jumps_on_and_on_is_never_used():
    camera = Camera()
    camera.see(1.0)
    for step in range(1, 100):
        with pytest.raises(TransformJumpError):
            camera.see(1.0 + 0.1 * step, x=0.2 * (step % 2))


def test_a_jump_while_there_were_no_clouds_is_noticed_as_well():
    camera = Camera()
    camera.see(1.0)
    with pytest.raises(TransformJumpError):
        camera.see(100.0, x=1.0)


def test_two_cameras_that_take_turns_are_a_jump():
    camera = Camera()
    camera.see(1.0)
    with pytest.raises(TransformJumpError, match="frame 'other' jumped"):
        camera.see(1.1, x=1.0, frame="other")


def test_zero_allows_any_jump():
    camera = Camera(max_jump_m=0.0, max_jump_rad=0.0)
    camera.see(1.0)
    assert camera.see(1.1, x=5.0, yaw=3.0)[0, 3] == 5.0


def test_a_frame_that_nobody_told_of_is_an_error_and_not_the_identity():
    with pytest.raises(NoTransformError, match="no transform of frame 'camera'"):
        Camera().frames.matrix("camera", stamp_ns=SECOND, arrival_s=1.0)
