import dataclasses
import resource
import sys
from contextlib import contextmanager

import imageio.v2 as imageio
import numpy as np
import pytest

from rewarped_sim.plot import write_learning_curve
from rewarped_sim.render import Camera, RenderError, height_range, particle_colors, render_scene
from rewarped_sim.scene import Scene, SceneLines, SceneShape, SceneSurface
from rewarped_sim.video import STEADINESS, Recording, steadied, write_video

UPRIGHT = np.array([0, 0, 0, 1], np.float32)
FRONT = Camera(eye=(0.0, -3.0, 0.5), look_at=(0.0, 0.0, 0.5))
"""Looks along +y: x is to the right, z up."""


def ball(position, color):
    return SceneShape(
        name="ball",
        kind="sphere",
        size=(0.1,),
        position=np.array(position, np.float32),
        quaternion=UPRIGHT,
        color=color,
    )


def scene(*shapes, particles=()):
    return Scene(
        frame="world",
        particles=np.array(particles, np.float32).reshape(-1, 3),
        particle_color=(0.9, 0.7, 0.4),
        particle_radius=0.05,
        shapes=shapes,
        bounds_min=(-1, -1, 0),
        bounds_max=(1, 1, 1),
    )


def place_of(picture, channel):
    """Mean row and column of the pixels in which one colour clearly dominates."""
    picture = picture.astype(int)
    others = np.delete(picture, channel, axis=2).max(axis=2)
    rows, columns = np.nonzero(picture[..., channel] > others + 60)
    assert len(rows) > 20
    return rows.mean(), columns.mean()


def test_up_is_up_and_right_is_right():
    picture = render_scene(
        scene(ball((-0.3, 0, 0.8), (1, 0, 0)), ball((0.3, 0, 0.3), (0, 0, 1))), FRONT, width=120, height=120
    )
    red_row, red_column = place_of(picture, 0)
    blue_row, blue_column = place_of(picture, 2)
    assert red_row < blue_row
    assert red_column < blue_column


def test_a_thing_casts_a_shadow_on_the_floor():
    above = Camera(eye=(0.0, -0.01, 4.0), look_at=(0.0, 0.0, 0.0))
    floor = SceneShape(
        name="floor", kind="plane", size=(), position=np.zeros(3, np.float32), quaternion=UPRIGHT
    )
    lit, shaded = (
        render_scene(scene(floor, *things), above, width=100, height=100, supersampling=1).astype(int)
        for things in ((), (ball((0, 0, 0.3), (1, 1, 1)),))
    )
    darker = (lit - shaded).min(axis=2) > 25
    assert 20 < darker.sum() < 2000


def test_nearer_things_hide_farther_ones():
    picture = render_scene(
        scene(ball((0, -0.5, 0.5), (1, 0, 0)), ball((0, 0.5, 0.5), (0, 0, 1))), FRONT, width=80, height=80
    )
    place_of(picture, 0)
    assert (picture[..., 2].astype(int) - picture[..., 0] > 60).sum() == 0


def test_the_same_scene_gives_the_same_picture():
    one = scene(ball((0, 0, 0.3), (1, 0, 0)), particles=[[0.2, 0, 0.1]])
    first, second = (render_scene(one, FRONT, width=60, height=40) for _ in range(2))
    assert first.shape == (40, 60, 3)
    assert (first == second).all()


def test_the_camera_frames_everything_that_moves():
    left, right = scene(particles=[[-0.8, 0, 0.1]]), scene(particles=[[0.8, 0, 0.1]])
    camera = Camera.framing([left, right])
    for one in (left, right):
        empty = dataclasses.replace(one, particles=np.zeros((0, 3), np.float32))
        with_it, without = (
            render_scene(s, camera, width=80, height=80, supersampling=1).astype(int) for s in (one, empty)
        )
        rows, columns = np.nonzero(np.abs(with_it - without).max(axis=2) > 30)
        assert rows.min() > 0 and rows.max() < 79 and columns.min() > 0 and columns.max() < 79


def tetrahedron(position, color):
    vertices = 0.2 * np.array([[0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]], np.float32)
    triangles = np.array([[0, 2, 1], [0, 1, 3], [0, 3, 2], [1, 2, 3]], np.int32)
    return SceneSurface(
        name="skin", vertices=vertices + np.array(position, np.float32), triangles=triangles, color=color
    )


def test_skins_and_strings_are_drawn_where_they_are():
    string = SceneLines(
        name="string",
        starts=np.array([[-0.5, 0, 0.2]], np.float32),
        ends=np.array([[-0.5, 0, 0.6]], np.float32),
        colors=np.array([[0, 0, 1]], np.float32),
        radius=0.03,
    )
    shown = dataclasses.replace(scene(), surfaces=(tetrahedron((0.3, 0, 0.7), (1, 0, 0)),), lines=(string,))
    picture = render_scene(shown, FRONT, width=120, height=120)
    skin, line = place_of(picture, 0), place_of(picture, 2)
    assert skin[0] < line[0]  # higher
    assert skin[1] > line[1]  # further to the right


def test_a_see_through_shape_shows_what_is_inside():
    box = SceneShape(
        name="box",
        kind="box",
        size=(0.3, 0.3, 0.3),
        position=np.array((0, 0, 0.5), np.float32),
        quaternion=UPRIGHT,
        color=(0.9, 0.9, 0.9),
        see_through=True,
    )
    veiled = render_scene(scene(ball((0, 0, 0.5), (1, 0, 0)), box), FRONT, width=60, height=60)
    solid = render_scene(
        scene(ball((0, 0, 0.5), (1, 0, 0)), dataclasses.replace(box, see_through=False)),
        FRONT,
        width=60,
        height=60,
    )
    red = [int(p[30, 30, 0]) - int(p[30, 30, 1]) for p in (veiled, solid)]
    assert red[0] > 40
    assert abs(red[1]) < 10


def test_edges_are_smoothed_and_plain_parts_left_alone():
    one = scene(ball((0, 0, 0.5), (0.1, 0.1, 0.1)))
    plain, smooth = (
        render_scene(one, FRONT, width=60, height=60, supersampling=n).astype(int) for n in (1, 3)
    )
    profile = smooth[30].mean(axis=1)  # across the ball
    levels = np.abs(np.diff(profile)).max(), np.abs(np.diff(plain[30].mean(axis=1))).max()
    assert levels[0] < 0.8 * levels[1]
    far_up = slice(0, 5)  # nothing but background
    assert np.array_equal(plain[far_up], smooth[far_up])


def running(x):
    followed = scene(ball((x, 0, 0.5), (1, 0, 0)))
    return dataclasses.replace(
        followed, focus=(x, 0.0, 0.0), bounds_min=(x - 1, -1, 0), bounds_max=(x + 1, 1, 1)
    )


def test_a_camera_that_follows_keeps_a_runner_in_place_while_the_floor_moves():
    scenes = [running(x) for x in (0.0, 2.03, 30.0)]
    camera = Camera.framing(scenes)
    near, later, far = (render_scene(s, camera.towards(s), width=80, height=80) for s in scenes)
    assert place_of(near, 0) == pytest.approx(place_of(far, 0), abs=1.0)
    floor = np.s_[65:, :]  # below the ball and its shadow
    assert np.abs(near[floor].astype(int) - later[floor]).max() > 5


def test_following_is_smooth_without_lagging():
    even = [running(0.1 * k) for k in range(30)]
    assert [s.focus[0] for s in steadied(even)] == pytest.approx([0.1 * k for k in range(30)])
    shaken = [running(0.1 * k + 0.05 * (-1) ** k) for k in range(30)]
    x = np.array([s.focus[0] for s in steadied(shaken)])[STEADINESS:-STEADINESS]
    assert np.abs(np.diff(x) - 0.1).max() < 0.02
    still = [scene()] * 3
    assert steadied(still) == still


def test_higher_particles_are_lighter_within_a_fixed_range():
    one = scene(particles=[[0, 0, 0.1], [0, 0, 0.2], [0, 0, 0.3]])
    assert height_range([one]) == pytest.approx((0.1, 0.3))
    brightness = particle_colors(one).sum(axis=1)
    assert brightness[0] < brightness[1] < brightness[2]
    fixed = particle_colors(one, (0.1, 0.9))
    assert fixed[2].sum() < brightness[2]


def test_without_open3d_the_error_says_why(monkeypatch):
    monkeypatch.setitem(sys.modules, "open3d.core", None)
    with pytest.raises(RenderError, match="Open3D cannot be loaded"):
        render_scene(scene(), FRONT)


def recordings():
    long, short = Recording(title="policy"), Recording(title="do-nothing")
    for k in range(4):
        long.add(scene(ball((0, 0, 0.2 + 0.1 * k), (1, 0, 0)), particles=[[0, 0, 0.05]]), f"step {k}")
    short.add(scene(particles=[[0, 0, 0.05], [0.1, 0, 0.1]]), "step 0")
    return [long, short]


def frames_of(path):
    with imageio.get_reader(path) as reader:
        return [frame for frame in reader]  # not list(reader): it says that it is infinitely long


def test_a_video_shows_the_recordings_side_by_side(tmp_path):
    path = tmp_path / "rollout.mp4"
    assert write_video(path, recordings(), panel_px=64, fps=5) == ""
    frames = frames_of(path)
    assert len(frames) == 4 + 5  # the last one stays for a second
    assert frames[0].shape == (64, 128, 3)
    assert np.abs(frames[0].astype(int) - frames[3]).mean() > 1.0


def test_a_video_is_drawn_without_open3d_too_and_says_so(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "open3d.core", None)
    path = tmp_path / "rollout.mp4"
    assert write_video(path, recordings(), panel_px=64, fps=5).startswith(
        "drawn with Matplotlib, because Open3D"
    )
    assert len(frames_of(path)) == 9


def test_a_panel_that_waits_is_not_drawn_again(tmp_path, monkeypatch):
    drawn = []

    def counting(scene, *args, **kwargs):
        drawn.append(scene)
        return render_scene(scene, *args, **kwargs)

    monkeypatch.setattr("rewarped_sim.video.render_scene", counting)
    write_video(tmp_path / "rollout.mp4", recordings(), panel_px=64, fps=5)
    assert len(drawn) == 4 + 1


def test_a_stopped_video_is_short_but_whole(tmp_path):
    path = tmp_path / "rollout.mp4"
    asked = []
    write_video(
        path, recordings(), panel_px=64, fps=5, should_stop=lambda: len(asked) == 2 or bool(asked.append(0))
    )
    assert len(frames_of(path)) == 2 + 5


def test_a_video_that_is_stopped_at_once_shows_its_first_frame(tmp_path):
    path = tmp_path / "rollout.mp4"
    write_video(path, recordings(), panel_px=64, fps=5, should_stop=lambda: True)
    assert len(frames_of(path)) == 1 + 5


@contextmanager
def full_disk(most_bytes):
    """Nobody can write a larger file; of that alone, a process gets a signal, which Python ignores."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("there_is_one", [True, False])
def test_a_full_disk_leaves_the_old_video_and_curve_or_none(tmp_path, there_is_one):
    video, curve = tmp_path / "rollout.mp4", tmp_path / "learning_curve.png"

    def draw():
        write_video(video, recordings(), panel_px=64, fps=5)

    def plot():
        write_learning_curve(
            curve, env_steps=[0, 1], returns=[0, 1], do_nothing=0.5, final=1.0, title="a task"
        )

    if there_is_one:
        draw()
        plot()
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert len(before) == 2 * there_is_one
    with full_disk(1000):
        with pytest.raises(OSError, match="of 9 frames, 0 came onto the disk; is it full"):
            draw()
        with pytest.raises(OSError, match="File too large"):
            plot()
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_a_long_recording_is_thinned(tmp_path):
    path = tmp_path / "rollout.mp4"
    write_video(path, recordings()[:1], panel_px=32, fps=1, max_frames=2)
    assert len(frames_of(path)) == 2 + 1


def test_a_learning_curve_is_drawn_even_before_the_first_episode_ends(tmp_path):
    for name, returns in (("curve", [float("nan"), 1.0, 2.0]), ("empty", [])):
        path = tmp_path / f"{name}.png"
        write_learning_curve(
            path,
            env_steps=[10.0 * k for k in range(len(returns))],
            returns=returns,
            do_nothing=0.5 if returns else None,
            final=2.5 if returns else None,
            title="a task",
        )
        assert imageio.imread(path).std() > 5  # something is drawn
