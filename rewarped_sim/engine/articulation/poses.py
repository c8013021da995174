"""Forward kinematics of a model on the host, in float64: where its bodies and shapes are."""

import numpy as np
from numpy.typing import NDArray

from rewarped_sim.engine.articulation.tree import BALL, FREE, HINGE, Pose, Tree, compose, product
from rewarped_sim.engine.kinematics import rotation_matrix


def link_poses(tree: Tree, joint_q: NDArray[np.floating]) -> list[Pose]:
    """Pose of every link in the world from joint coordinates (num_coordinates,), link 0 being the world itself."""
    poses: list[Pose] = [(np.zeros(3), np.array([0.0, 0.0, 0.0, 1.0]))]
    for link in range(1, tree.num_links):
        kind, at = tree.kind[link], tree.q_start[link]
        if kind == FREE:
            poses.append((np.array(joint_q[at : at + 3], float), _unit(joint_q[at + 3 : at + 7])))
            continue
        before = compose(poses[tree.parent[link]], (tree.offset_position[link], tree.offset_quaternion[link]))
        position, quaternion = before
        if kind in (HINGE, BALL):
            turn = _unit(joint_q[at : at + 4]) if kind == BALL else _about(tree.axis[link], joint_q[at])
            anchor = position + rotation_matrix(quaternion) @ tree.anchor[link]
            quaternion = product(quaternion, turn)
            position = anchor - rotation_matrix(quaternion) @ tree.anchor[link]
        else:
            position = position + joint_q[at] * (rotation_matrix(quaternion) @ tree.axis[link])
        poses.append((position, quaternion))
    return poses


def body_poses(tree: Tree, joint_q: NDArray[np.floating]) -> list[Pose]:
    """Pose of every body in the world, in the model's order: position [m] and quaternion x y z w."""
    links = link_poses(tree, joint_q)
    return [compose(links[link], pose) for link, pose in zip(tree.body_link, tree.body_pose, strict=True)]


def _about(axis: NDArray[np.float64], angle: float) -> NDArray[np.float64]:
    return np.append(np.sin(angle / 2.0) * axis, np.cos(angle / 2.0))


def _unit(quaternion: NDArray[np.floating]) -> NDArray[np.float64]:
    q = np.array(quaternion, float)
    return q / np.linalg.norm(q)
