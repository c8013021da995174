"""Pictures of articulated systems show what physics has: shapes, muscles and frames where MuJoCo puts them."""

from itertools import pairwise

import mujoco
import numpy as np
import pytest
import torch
from mjcf import compiled, to_mujoco

import rewarped_sim
from rewarped_sim.articulated_scene import SLACK_COLOR, TIGHT_COLOR, articulated_scene
from rewarped_sim.assets.allegro_hand import allegro_hand
from rewarped_sim.assets.ant import ant
from rewarped_sim.assets.snu_lower_body import snu_lower_body
from rewarped_sim.engine.articulation.tree import Tree
from rewarped_sim.engine.kinematics import rotation_matrix


def posed(model, seed=0):
    """A scene of random joint coordinates, and the same in MuJoCo."""
    rng = np.random.default_rng(seed)
    q = np.array(model.start_q(), float) + 0.3 * rng.normal(size=model.num_coordinates)
    for joint in model.joints:
        if joint.kind in ("free", "ball"):
            at = model.coordinate(joint.name) + (3 if joint.kind == "free" else 0)
            q[at : at + 4] /= np.linalg.norm(q[at : at + 4])
    physics = compiled(model)
    data = mujoco.MjData(physics)
    data.qpos[:], _ = to_mujoco(model, q, np.zeros(model.num_dofs))
    mujoco.mj_kinematics(physics, data)
    return q, data


@pytest.mark.parametrize("make_model", [ant, allegro_hand, snu_lower_body])
def test_shapes_are_where_mujoco_has_them(make_model):
    model = make_model()
    q, data = posed(model)
    scene = articulated_scene(Tree(model), q, focus=(0.0, 0.0, 0.5))
    shapes = [shape for shape in scene.shapes if shape.kind != "plane"]
    assert len(shapes) == len(data.geom_xpos)
    for shape, position, rotation in zip(shapes, data.geom_xpos, data.geom_xmat, strict=True):
        np.testing.assert_allclose(shape.position, position, atol=1e-6)
        np.testing.assert_allclose(rotation_matrix(shape.quaternion), rotation.reshape(3, 3), atol=1e-6)
    assert len({shape.name for shape in scene.shapes}) == len(scene.shapes)


def test_there_is_a_floor_where_there_is_ground():
    def kinds(model):
        return [s.kind for s in articulated_scene(Tree(model), posed(model)[0], focus=(0, 0, 0)).shapes]

    assert kinds(ant()).count("plane") == 1
    assert "plane" not in kinds(allegro_hand())


def test_muscles_run_through_their_points_and_redden_as_they_pull():
    model = snu_lower_body()
    q, data = posed(model)
    activation = np.linspace(0.0, 1.0, len(model.muscles))
    scene = articulated_scene(Tree(model), q, focus=(0.0, 0.0, 0.5), activation=activation)
    (lines,) = scene.lines
    line = 0
    for index, muscle in enumerate(model.muscles):
        points = [data.site(f"{muscle.name}.{k}").xpos for k in range(len(muscle.points))]
        for start, end in pairwise(points):
            np.testing.assert_allclose(lines.starts[line], start, atol=1e-6)
            np.testing.assert_allclose(lines.ends[line], end, atol=1e-6)
            expected = (1.0 - activation[index]) * SLACK_COLOR + activation[index] * TIGHT_COLOR
            np.testing.assert_allclose(lines.colors[line], expected, atol=1e-6)
            line += 1
    assert line == len(lines.starts)
    assert all(shape.see_through == (shape.kind != "plane") for shape in scene.shapes)


def test_without_muscles_nothing_is_see_through():
    scene = articulated_scene(Tree(ant()), posed(ant())[0], focus=(0.0, 0.0, 0.5))
    assert not scene.lines
    assert not any(shape.see_through for shape in scene.shapes)


def test_a_task_of_muscles_shows_what_they_were_told():
    env = rewarped_sim.make("snu_humanoid", requires_grad=False)
    env.reset()
    action = torch.linspace(-1.0, 1.0, 152).expand(env.num_envs, 152)
    env.step(action)
    (lines,) = env.scene(0).lines
    owners = np.repeat(np.arange(152), [len(muscle.points) - 1 for muscle in env.model.muscles])
    pull = (lines.colors[:, 0] - SLACK_COLOR[0]) / (TIGHT_COLOR[0] - SLACK_COLOR[0])
    np.testing.assert_allclose(pull, 0.5 * (action[0].numpy()[owners] + 1.0), atol=1e-5)


@pytest.mark.parametrize("name", ["ant", "hopper", "soft_jumper"])
def test_a_camera_follows_what_runs_away(name):
    env = rewarped_sim.make(name, requires_grad=False)
    env.reset()
    moved = env.state_dict()
    before = env.scene(0).focus
    entry, at = ("vertices", (..., 0)) if name == "soft_jumper" else ("joint_q", (..., 0))
    moved[entry][at] += 7.0
    env.load_state_dict(moved)
    np.testing.assert_allclose(np.subtract(env.scene(0).focus, before), (7.0, 0.0, 0.0), atol=1e-5)
