import dataclasses
import struct

import numpy as np
import pytest
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus
from rewarped_msgs.msg import TrainingStatus
from visualization_msgs.msg import Marker

from policy_runner.pointcloud import decode
from rewarped_sim.engine.kinematics import SHAPE_SIZES
from rewarped_sim.nodes import messages
from rewarped_sim.run_control import RunState, RunStatus
from rewarped_sim.scene import Scene, SceneLines, SceneShape, SceneSurface
from rewarped_sim.sensor_model import SensorConfig

STAMP = Time(sec=3, nanosec=4)
HALF = 2**-0.5


def shape(kind, size, quaternion=(0, 0, 0, 1)):
    return SceneShape(
        name="tool",
        kind=kind,
        size=size,
        position=np.array([1, 2, 3], np.float32),
        quaternion=np.array(quaternion, np.float32),
        color=(0.1, 0.2, 0.3),
    )


def scene(particles, *shapes):
    return Scene(
        frame="table",
        particles=np.array(particles, np.float32).reshape(-1, 3),
        particle_color=(0.9, 0.7, 0.4),
        particle_radius=0.01,
        shapes=shapes,
        bounds_min=(0, 0, 0),
        bounds_max=(1, 1, 1),
    )


POINTS = [[0.1, 0.2, 0.3], [-1.5, 2.5, 0.25], [7.0, 8.0, 9.0]]


def test_a_cloud_holds_every_particle_in_order():
    cloud = messages.cloud_message(scene(POINTS), STAMP)
    assert (cloud.header.frame_id, cloud.header.stamp) == ("table", STAMP)
    assert (cloud.width, cloud.height, cloud.point_step, cloud.row_step) == (3, 1, 12, 36)
    assert [(f.name, f.offset) for f in cloud.fields] == [("x", 0), ("y", 4), ("z", 8)]
    values = struct.unpack("<9f", bytes(cloud.data))
    assert values == pytest.approx([v for point in POINTS for v in point])


def test_a_picture_of_points_goes_row_by_row():
    points = np.arange(2 * 3 * 3, dtype=np.float32).reshape(2, 3, 3)
    points[1, 0] = np.nan
    cloud = messages.organised_cloud_message(points, "camera", STAMP)
    assert (cloud.header.frame_id, cloud.header.stamp) == ("camera", STAMP)
    assert (cloud.height, cloud.width, cloud.point_step, cloud.row_step) == (2, 3, 12, 36)
    assert struct.unpack_from("<3f", bytes(cloud.data), 36 + 12) == (12.0, 13.0, 14.0)
    assert not cloud.is_dense


def test_intrinsics_are_those_of_a_camera_without_distortion():
    config = SensorConfig(width=40, height=30, fx=50.0, fy=60.0, cx=19.0, cy=14.0, frame="eye")
    info = messages.camera_info_message(config, STAMP)
    assert (info.width, info.height, info.header.frame_id, info.header.stamp) == (40, 30, "eye", STAMP)
    assert list(info.k) == [50.0, 0.0, 19.0, 0.0, 60.0, 14.0, 0.0, 0.0, 1.0]
    np.testing.assert_array_equal(np.reshape(info.p, (3, 4))[:, :3], np.reshape(info.k, (3, 3)))
    np.testing.assert_array_equal(np.reshape(info.r, (3, 3)), np.eye(3))
    assert info.distortion_model == "plumb_bob" and not any(info.d)


def test_a_cloud_holds_the_vertices_of_soft_bodies_too():
    skin = SceneSurface(
        name="jelly",
        vertices=np.array(POINTS[1:], np.float32),
        triangles=np.zeros((0, 3), np.int32),
        color=(1, 0, 0),
    )
    cloud = messages.cloud_message(dataclasses.replace(scene(POINTS[:1]), surfaces=(skin,)), STAMP)
    assert struct.unpack("<9f", bytes(cloud.data)) == pytest.approx([v for point in POINTS for v in point])


def test_a_cloud_holds_what_the_camera_sees_where_there_is_one():
    seen = np.array([[0.5, 0.25, 0.125]], np.float32)
    cloud = messages.cloud_message(dataclasses.replace(scene(POINTS), cloud=seen), STAMP)
    np.testing.assert_array_equal(decode(cloud), seen)
    nothing = dataclasses.replace(scene(POINTS), cloud=np.zeros((0, 3), np.float32))
    assert messages.cloud_message(nothing, STAMP).width == 0


def test_a_goal_is_a_pose_that_does_not_turn():
    goal = messages.goal_message(np.array([0.5, -0.25, 2.0], np.float32), "table", STAMP)
    assert (goal.header.frame_id, goal.header.stamp) == ("table", STAMP)
    assert (goal.pose.position.x, goal.pose.position.y, goal.pose.position.z) == (0.5, -0.25, 2.0)
    turn = goal.pose.orientation
    assert (turn.x, turn.y, turn.z, turn.w) == (0.0, 0.0, 0.0, 1.0)


def test_an_empty_cloud_still_has_a_point_step():
    cloud = messages.colored_cloud_message(scene([]), STAMP)
    assert (cloud.width, cloud.point_step, len(cloud.data)) == (0, 16, 0)


def test_colors_are_packed_as_rviz_reads_them():
    cloud = messages.colored_cloud_message(scene(POINTS), STAMP)
    assert [(f.name, f.offset) for f in cloud.fields] == [("x", 0), ("y", 4), ("z", 8), ("rgb", 12)]
    rows = [struct.unpack_from("<3fI", bytes(cloud.data), 16 * k) for k in range(3)]
    assert [row[:3] for row in rows] == [pytest.approx(point) for point in POINTS]
    reds, greens, blues = zip(
        *((row[3] >> 16 & 255, row[3] >> 8 & 255, row[3] & 255) for row in rows), strict=True
    )
    assert all(row[3] >> 24 == 0 for row in rows)
    assert min(reds) > max(blues) // 2 and all(r > g > b for r, g, b in zip(reds, greens, blues, strict=True))
    assert reds[2] > reds[0] > 0  # the highest particle is the lightest


def test_very_many_points_are_thinned_for_viewers_only():
    many = np.random.default_rng(0).random((50_001, 3))
    assert messages.cloud_message(scene(many), STAMP).width == 50_001
    shown = messages.colored_cloud_message(scene(many), STAMP)
    assert 10_000 < shown.width <= 20_000
    assert len(shown.data) == 16 * shown.width < 512 * 1024


def test_a_capsule_is_a_cylinder_with_a_ball_at_each_end():
    markers = messages.shapes_message(
        scene([], shape("capsule", (0.1, 0.4), (HALF, 0, 0, HALF))), STAMP
    ).markers
    assert [m.type for m in markers] == [Marker.CYLINDER, Marker.SPHERE, Marker.SPHERE]
    assert [m.id for m in markers] == [0, 1, 2]
    assert {m.ns for m in markers} == {"tool"}
    assert (markers[0].scale.x, markers[0].scale.z) == pytest.approx((0.2, 0.8))
    ends = sorted((m.pose.position.x, m.pose.position.y, m.pose.position.z) for m in markers[1:])
    assert ends == [pytest.approx((1, 1.6, 3)), pytest.approx((1, 2.4, 3))]  # local z is turned to y
    assert markers[0].pose.orientation.x == pytest.approx(HALF)
    assert (markers[0].color.r, markers[0].color.a) == pytest.approx((0.1, 1.0))


@pytest.mark.parametrize(
    ("kind", "size", "marker", "scale"),
    [
        ("sphere", (0.2,), Marker.SPHERE, (0.4, 0.4, 0.4)),
        ("box", (0.1, 0.2, 0.3), Marker.CUBE, (0.2, 0.4, 0.6)),
        ("cylinder", (0.1, 0.3), Marker.CYLINDER, (0.2, 0.2, 0.6)),
    ],
)
def test_markers_have_full_sizes_where_shapes_have_half(kind, size, marker, scale):
    (found,) = messages.shapes_message(scene([], shape(kind, size)), STAMP).markers
    assert found.type == marker
    assert (found.scale.x, found.scale.y, found.scale.z) == pytest.approx(scale)
    assert found.header.frame_id == "table"


def test_a_cone_is_a_list_of_triangles_in_its_own_frame():
    turn = (HALF, 0, 0, HALF)
    (found,) = messages.shapes_message(scene([], shape("cone", (0.1, 0.3), turn)), STAMP).markers
    assert found.type == Marker.TRIANGLE_LIST
    assert (found.scale.x, found.scale.y, found.scale.z) == (1.0, 1.0, 1.0)
    assert (found.pose.position.y, found.pose.orientation.x) == pytest.approx((2.0, HALF))
    corners = np.array([(p.x, p.y, p.z) for p in found.points]).reshape(-1, 3, 3)
    assert corners.reshape(-1, 3).max(axis=0) == pytest.approx([0.1, 0.1, 0.3], abs=1e-3)
    a, b, c = corners[:, 0], corners[:, 1], corners[:, 2]
    volume = np.einsum("ij,ij->", a, np.cross(b, c)) / 6  # positive: seen counter-clockwise from outside
    assert volume == pytest.approx(np.pi * 0.1**2 * 0.6 / 3, rel=0.02)


def test_a_skin_is_one_list_of_its_triangles():
    vertices = np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    triangles = np.array([[0, 2, 1], [0, 1, 3]], np.int32)
    skin = SceneSurface(name="jelly", vertices=vertices, triangles=triangles, color=(0.5, 0.25, 0.125))
    (found,) = messages.shapes_message(dataclasses.replace(scene([]), surfaces=(skin,)), STAMP).markers
    assert (found.type, found.ns, found.header.frame_id) == (Marker.TRIANGLE_LIST, "jelly", "table")
    assert (found.scale.x, found.scale.y, found.scale.z, found.pose.orientation.w) == (1.0, 1.0, 1.0, 1.0)
    assert (found.color.r, found.color.g, found.color.b, found.color.a) == (0.5, 0.25, 0.125, 1.0)
    assert [(p.x, p.y, p.z) for p in found.points] == [
        tuple(vertices[corner]) for triangle in triangles for corner in triangle
    ]


def test_strings_are_one_list_of_lines_in_their_colors():
    lines = SceneLines(
        name="muscles",
        starts=np.array([[0, 0, 0], [1, 1, 1]], np.float32),
        ends=np.array([[0, 0, 1], [2, 1, 1]], np.float32),
        colors=np.array([[1, 0, 0], [0, 0.5, 0]], np.float32),
        radius=0.25,
    )
    (found,) = messages.shapes_message(dataclasses.replace(scene([]), lines=(lines,)), STAMP).markers
    assert (found.type, found.ns, found.scale.x) == (Marker.LINE_LIST, "muscles", 0.5)
    assert [(p.x, p.y, p.z) for p in found.points] == [(0, 0, 0), (0, 0, 1), (1, 1, 1), (2, 1, 1)]
    assert [(c.r, c.g, c.a) for c in found.colors] == [(1, 0, 1), (1, 0, 1), (0, 0.5, 1), (0, 0.5, 1)]


def test_what_hides_others_is_see_through():
    solid = shape("box", (0.1, 0.1, 0.1))
    veil = dataclasses.replace(solid, see_through=True)
    opacity = [messages.shapes_message(scene([], s), STAMP).markers[0].color.a for s in (solid, veil)]
    assert 0.0 < opacity[1] < opacity[0] == 1.0


def test_joint_states_tell_positions_and_velocities_by_name():
    state = messages.joint_state_message(
        ("hip", "knee"), np.array([0.5, -1.0], np.float32), np.array([2.0, 4.0], np.float32), STAMP
    )
    assert (list(state.name), state.header.stamp) == (["hip", "knee"], STAMP)
    assert (list(state.position), list(state.velocity)) == ([0.5, -1.0], [2.0, 4.0])


def test_every_kind_that_collides_has_markers():
    for kind, count in SHAPE_SIZES.items():
        assert messages.shapes_message(scene([], shape(kind, (0.1, 0.2, 0.3)[:count])), STAMP).markers


def test_a_plane_is_a_slab_whose_upper_side_is_the_plane():
    (found,) = messages.shapes_message(scene([], shape("plane", ())), STAMP).markers
    assert found.pose.position.z + found.scale.z / 2 == pytest.approx(3.0)


def status(**figures):
    return RunStatus(
        state=RunState.TRAINING,
        message="training",
        task="a_task",
        algo="sapo",
        out_dir="/out",
        num_envs=4,
        **figures,
    )


def test_a_status_fills_every_field_of_its_message():
    fields = set(TrainingStatus.get_fields_and_field_types()) - {"header"}
    assert fields == set(RunStatus.__dataclass_fields__)
    message = messages.status_message(status(epoch=3, alpha=0.5), STAMP)
    assert (message.task, message.epoch, message.alpha) == ("a_task", 3, 0.5)
    assert message.state == TrainingStatus.STATE_TRAINING
    assert np.isnan(message.episode_return)  # not known yet


def test_states_have_the_numbers_of_the_message():
    for state in RunState:
        assert getattr(TrainingStatus, f"STATE_{state.name}") == state


@pytest.mark.parametrize(
    ("figures", "level", "summary"),
    [
        ({}, DiagnosticStatus.OK, "training"),
        (
            {"nonfinite_envs": 2, "skipped_updates": 1},
            DiagnosticStatus.WARN,
            "2 environments and 1 updates dropped",
        ),
    ],
)
def test_diagnostics_warn_of_dropped_work(figures, level, summary):
    (health,) = messages.diagnostics_message("/train_node", status(**figures), STAMP).status
    assert health.level == level
    assert summary in health.message
    assert {value.key: value.value for value in health.values}["task"] == "a_task"
