"""Poses of driven tools against matrix products in NumPy, and their adjoint against central differences."""

import numpy as np
import pytest
import warp as wp

from rewarped_sim.engine.kinematics import (
    Anchor,
    Joint,
    Shape,
    Tool,
    ToolModel,
    ToolPoses,
    kinematics_kernels,
    rotation_matrix,
)
from rewarped_sim.engine.scalars import FLOAT64

TURN = tuple(np.array([0.3, -0.2, 0.5, 0.8]) / np.linalg.norm([0.3, -0.2, 0.5, 0.8]))
TREE = Tool(
    joints=(
        Joint(name="slide", kind="prismatic", axis=(1.0, 0.0, 0.0), position=(0.1, 0.2, 0.3)),
        Joint(name="wrist", kind="revolute", axis=(0.0, 0.6, 0.8), parent=0, quaternion=TURN),
        Joint(name="finger", kind="revolute", axis=(0.0, 0.0, 1.0), parent=1, position=(0.0, 0.1, 0.05)),
        Joint(name="thumb", kind="prismatic", axis=(0.0, 1.0, 0.0), parent=1, position=(0.05, 0.0, 0.0)),
    ),
    shapes=(
        Shape(name="tip", kind="sphere", size=(0.01,), body=2, position=(0.02, 0.03, 0.0)),
        Shape(name="pad", kind="box", size=(0.01, 0.02, 0.03), body=3, quaternion=TURN),
        Shape(name="table", kind="plane", size=(), body=-1, position=(0.0, 0.0, 0.4)),
    ),
)
ANCHORS = (Anchor(body=3, position=(0.1, -0.2, 0.3)), Anchor(body=-1, position=(0.5, 0.5, 0.5)))
ENVS, SUBSTEPS = 2, 4


def run_poses(q, dq):
    """All shape poses, (substeps + 1, envs, shapes, 3) and (..., 3, 3), with the device objects."""
    model = ToolModel(TREE, FLOAT64, wp.get_device("cpu"), ANCHORS)
    # One place more in each row than the tool needs, as when free bodies share the array.
    poses = ToolPoses(model, ENVS, SUBSTEPS, len(TREE.shapes) + 1, FLOAT64, wp.get_device("cpu"))
    slot = wp.zeros(1, dtype=int, device="cpu")
    joint_q = wp.array(q[None], dtype=wp.float64, device="cpu")
    joint_dq = wp.array(dq[None], dtype=wp.float64, device="cpu")
    wp.launch(
        kinematics_kernels(FLOAT64).pose,
        (SUBSTEPS + 1, ENVS),
        [
            0, ENVS, SUBSTEPS, model.num_joints, model.num_shapes, poses.num_shapes, model.num_anchors,
            model.joint_kind, model.joint_parent, model.joint_axis, model.joint_pos, model.joint_rot,
            model.shape_body, model.shape_pos, model.shape_rot, model.anchor_body, model.anchor_pos,
            slot, joint_q, joint_dq,
            poses.body_pos, poses.body_rot, poses.exact_pos, poses.exact_rot, poses.anchor,
        ],
        device="cpu",
    )  # fmt: skip
    shape = (SUBSTEPS + 1, ENVS, len(TREE.shapes) + 1)
    return (
        poses.exact_pos.numpy().reshape(*shape, 3),
        poses.exact_rot.numpy().reshape(*shape, 3, 3),
        model,
        poses,
    )


def numpy_pose(q, shape):
    """Homogeneous transform of a shape, composed from the world outwards."""

    def transform(rotation, position):
        T = np.eye(4)
        T[:3, :3], T[:3, 3] = rotation, position
        return T

    T = transform(rotation_matrix(shape.quaternion), shape.position)
    body = shape.body
    while body >= 0:
        joint = TREE.joints[body]
        if joint.kind == "prismatic":
            motion = transform(np.eye(3), q[body] * np.array(joint.axis))
        else:
            half = q[body] / 2.0
            motion = transform(
                rotation_matrix((*(np.sin(half) * np.array(joint.axis)), np.cos(half))), (0, 0, 0)
            )
        T = transform(rotation_matrix(joint.quaternion), joint.position) @ motion @ T
        body = joint.parent
    return T


def test_poses_equal_products_of_transforms_at_every_substep():
    rng = np.random.default_rng(0)
    q, dq = rng.normal(size=(2, ENVS, 4))
    pos, rot, _, _ = run_poses(q, dq)
    for n in range(SUBSTEPS + 1):
        for env in range(ENVS):
            for s, shape in enumerate(TREE.shapes):
                expected = numpy_pose(q[env] + n / SUBSTEPS * dq[env], shape)
                np.testing.assert_allclose(pos[n, env, s], expected[:3, 3], atol=1e-13)
                np.testing.assert_allclose(rot[n, env, s], expected[:3, :3], atol=1e-13)


def test_anchors_move_with_their_joints():
    rng = np.random.default_rng(2)
    q, dq = rng.normal(size=(2, ENVS, 4))
    *_, poses = run_poses(q, dq)
    anchors = poses.anchor.numpy().reshape(SUBSTEPS + 1, ENVS, 2, 3)
    for n in range(SUBSTEPS + 1):
        for env in range(ENVS):
            point = Shape(name="point", kind="sphere", size=(1.0,), body=3, position=ANCHORS[0].position)
            expected = numpy_pose(q[env] + n / SUBSTEPS * dq[env], point)[:3, 3]
            np.testing.assert_allclose(anchors[n, env, 0], expected, atol=1e-13)
            np.testing.assert_array_equal(anchors[n, env, 1], ANCHORS[1].position)


def test_wrenches_become_joint_adjoints_exactly():
    rng = np.random.default_rng(1)
    q, dq = rng.normal(size=(2, ENVS, 4))
    pos_bar = rng.normal(size=(SUBSTEPS + 1, ENVS, 4, 3))
    rot_bar = rng.normal(size=(SUBSTEPS + 1, ENVS, 4, 3, 3))
    anchor_bar = rng.normal(size=(SUBSTEPS + 1, ENVS, 2, 3))

    def loss(q, dq):
        pos, rot, _, poses = run_poses(q, dq)
        anchor = poses.anchor.numpy().reshape(anchor_bar.shape)
        return (pos * pos_bar).sum() + (rot * rot_bar).sum() + (anchor * anchor_bar).sum()

    _, rot, model, poses = run_poses(q, dq)
    # d(rot) = [theta]x rot, so the torque is the axial vector of rot_bar rot^T.
    M = rot_bar @ np.swapaxes(rot, -1, -2)
    torque = np.stack(
        [M[..., 2, 1] - M[..., 1, 2], M[..., 0, 2] - M[..., 2, 0], M[..., 1, 0] - M[..., 0, 1]], -1
    )
    poses.force.assign(pos_bar.reshape(-1, 3))
    poses.torque.assign(torque.reshape(-1, 3))
    poses.anchor_bar.assign(anchor_bar.reshape(-1, 3))
    q_bar, dq_bar = (wp.full((ENVS, 4), np.nan, dtype=wp.float64, device="cpu") for _ in range(2))
    wp.launch(
        kinematics_kernels(FLOAT64).pose_adj,
        (ENVS, 4),
        [
            0, ENVS, SUBSTEPS, model.num_joints, model.num_shapes, poses.num_shapes, model.num_anchors,
            model.joint_kind, model.joint_parent, model.joint_axis, model.shape_body, model.anchor_body,
            poses.body_pos, poses.body_rot, poses.exact_pos, poses.force, poses.torque,
            poses.anchor, poses.anchor_bar, q_bar, dq_bar,
        ],
        device="cpu",
    )  # fmt: skip
    eps = 1e-6
    for env in range(ENVS):
        for j in range(4):
            step = np.zeros((ENVS, 4))
            step[env, j] = eps
            expected = (loss(q + step, dq) - loss(q - step, dq)) / (2 * eps)
            assert q_bar.numpy()[env, j] == pytest.approx(expected, rel=1e-7, abs=1e-8)
            expected = (loss(q, dq + step) - loss(q, dq - step)) / (2 * eps)
            assert dq_bar.numpy()[env, j] == pytest.approx(expected, rel=1e-7, abs=1e-8)


def test_a_broken_tool_is_refused_by_name():
    with pytest.raises(ValueError, match=r"shape 'cup': unknown kind 'mug'; known: .*capsule"):
        Shape(name="cup", kind="mug", size=(), body=0)
    with pytest.raises(ValueError, match="shape 'pin': a capsule takes 2 sizes"):
        Shape(name="pin", kind="capsule", size=(0.1,), body=0)
    with pytest.raises(ValueError, match="joint 'a': parent 3 must come before it"):
        Tool(joints=(Joint(name="a", kind="revolute", axis=(1.0, 0.0, 0.0), parent=3),))
    with pytest.raises(ValueError, match="joint 'a': axis must have length 1"):
        Tool(joints=(Joint(name="a", kind="revolute", axis=(1.0, 1.0, 0.0)),))
    nowhere = (0.0, 0.0, 0.0, 0.0)
    with pytest.raises(ValueError, match="joint 'a': quaternion must not be zero"):
        Tool(joints=(Joint(name="a", kind="revolute", axis=(1.0, 0.0, 0.0), quaternion=nowhere),))
    with pytest.raises(ValueError, match="shape 'ball': quaternion must not be zero"):
        Shape(name="ball", kind="sphere", size=(0.1,), quaternion=nowhere)
