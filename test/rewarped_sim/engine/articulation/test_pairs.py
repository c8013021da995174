"""Contact of two shapes against MuJoCo's distances, against differences, and along paths without a jump."""

from dataclasses import replace

import mujoco
import numpy as np
import pytest
from pair_cases import (
    IDENTITY,
    OTHER_SIZES,
    SIZES,
    about,
    contacts,
    contacts_adj,
    multiply,
    path,
    random_poses,
    random_quaternions,
    rotate,
)

from rewarped_sim.engine.articulation.model import ArticulationModel, Body, Geom, Joint
from rewarped_sim.engine.articulation.pairs import NUM_CANDIDATES, all_geoms, pair_tables
from rewarped_sim.engine.articulation.shapes import bounding_radius
from rewarped_sim.engine.scalars import FLOAT32

KINDS = list(NUM_CANDIDATES)
SAME_KINDS = [kinds for kinds in KINDS if kinds[0] == kinds[1]]
BOXES = ("box", "box")
X, Y, Z = np.eye(3)


def mujoco_distances(kinds, poses):
    """MuJoCo's signed distance (n,) and its unit normals from b to a (n, 3)."""
    kind_of = {name: getattr(mujoco.mjtGeom, f"mjGEOM_{name.upper()}") for name in SIZES}
    spec = mujoco.MjSpec()
    spec.option.ccd_tolerance = 1e-10
    spec.option.ccd_iterations = 200
    for kind, size in zip(kinds, (poses.size_a, poses.size_b), strict=True):
        body = spec.worldbody.add_body()
        body.add_freejoint()
        body.add_geom(type=kind_of[kind], size=size)
    model = spec.compile()
    data = mujoco.MjData(model)
    found = np.empty((len(poses), 7))
    for i in range(len(poses)):
        data.qpos[:] = [
            *poses.pos_a[i], *np.roll(poses.rot_a[i], 1), *poses.pos_b[i], *np.roll(poses.rot_b[i], 1)
        ]  # fmt: skip
        mujoco.mj_kinematics(model, data)
        found[i, 0] = mujoco.mj_geomDistance(model, data, 0, 1, 10.0, found[i, 1:])
    gap = found[:, 0]
    normal = np.sign(gap)[:, None] * (found[:, 1:4] - found[:, 4:])
    return gap, normal / np.linalg.norm(normal, axis=1, keepdims=True)


def shallow(kinds, count, depth, seed=1):
    """Random poses, drawn apart along MuJoCo's normal until they overlap by `depth`, and that normal."""
    poses = random_poses(kinds, np.random.default_rng(seed), count, 0.4)
    poses = poses.where(core_is_outside(kinds, poses)) if kinds[0] == "capsule" else poses
    gap, normal = mujoco_distances(kinds, poses)
    overlapping = gap < -depth
    poses = poses.where(overlapping)
    away = (-gap[overlapping] - depth)[:, None] * normal[overlapping]
    return replace(poses, pos_a=poses.pos_a + away), normal[overlapping]


@pytest.mark.parametrize("kinds", [kinds for kinds in KINDS if kinds[0] == "sphere"])
def test_gap_and_normal_of_a_sphere_are_those_of_mujoco(kinds):
    poses = random_poses(kinds, np.random.default_rng(0), 300, 0.45)
    gap, normal = mujoco_distances(kinds, poses)
    ours = contacts(kinds, poses)
    assert (gap < 0).sum() > 50
    assert (gap > 0).sum() > 50
    np.testing.assert_allclose(ours.gap[:, 0], gap, atol=1e-12)
    clear = np.abs(gap) > 1e-3
    np.testing.assert_allclose(ours.normal[clear, 0], normal[clear], atol=1e-6)


def core_is_outside(kinds, poses):
    """Whether a capsule's core has no point in a box; MuJoCo's distances are right only then."""
    inverse = poses.rot_b * [-1, -1, -1, 1]
    centre = rotate(inverse, poses.pos_a - poses.pos_b)
    axis = rotate(inverse, rotate(poses.rot_a, np.broadcast_to(Z, centre.shape)))
    points = centre[:, None] + np.linspace(-1, 1, 201)[:, None] * poses.size_a[1] * axis[:, None]
    return (np.abs(points) > poses.size_b).any(2).all(1) | (kinds[1] != "box")


@pytest.mark.parametrize("kinds", [("capsule", "capsule"), ("capsule", "box")])
def test_a_capsules_nearest_point_goes_on_where_its_ends_leave_off(kinds):
    poses = random_poses(kinds, np.random.default_rng(0), 500, 0.5)
    poses = poses.where(core_is_outside(kinds, poses))
    gap, normal = mujoco_distances(kinds, poses)
    ours = contacts(kinds, poses)
    together = ours.gap[:, 2] - ours.depth[:, :2].max(1)
    assert (gap < 0).sum() > 50
    # Almost all nearest points are exact; those of nearly parallel cores are pulled aside, where distances are flat.
    error = np.abs(together - gap)
    assert np.quantile(error, 0.98) < 2e-5
    assert error.max() < 3e-4
    deepest = ours.gap.argmin(1)
    alone = (ours.depth > 0).sum(1) == 1
    assert alone.sum() > 30
    chosen = ours.normal[np.arange(len(deepest)), deepest]
    np.testing.assert_allclose(chosen[alone], normal[alone], atol=3e-2)


def overlaps(poses):
    """Overlap of two boxes along their 15 axes, (n, 15): three face normals each, then edge pairs."""
    axes_a, axes_b = (
        np.stack([rotate(q, np.broadcast_to(e, (len(q), 3))) for e in np.eye(3)], 1)
        for q in (poses.rot_a, poses.rot_b)
    )
    pairs = np.cross(axes_b[:, :, None], axes_a[:, None]).reshape(-1, 9, 3)
    axes = np.concatenate([axes_b, axes_a, pairs], 1)
    axes = axes / np.linalg.norm(axes, axis=2, keepdims=True)
    reach = sum(
        (np.abs(np.einsum("nki,nmi->nkm", axes, own)) * size).sum(2)
        for own, size in ((axes_a, poses.size_a), (axes_b, poses.size_b))
    )
    return reach - np.abs(np.einsum("nki,ni->nk", axes, poses.pos_a - poses.pos_b))


def test_boxes_touch_exactly_where_mujoco_says_so():
    poses = random_poses(BOXES, np.random.default_rng(0), 300, 0.55)
    gap, _ = mujoco_distances(BOXES, poses)
    assert 50 < (gap < 0).sum() < 250
    apart = gap > 0
    assert (contacts(BOXES, poses.where(apart)).gap > 0).all()
    touching = contacts(BOXES, poses.where(~apart))
    assert ((touching.depth > 0).any(1)).mean() > 0.99


def test_gap_and_normal_of_boxes_are_those_of_mujoco_where_one_axis_stands_out():
    poses, normal = shallow(BOXES, 400, 2e-3)
    along = overlaps(poses)
    face, edge = along[:, :6].min(1), along[:, 6:].min(1)
    others = np.sort(along, 1)[:, 1] > 3 * along.min(1)
    by_edges = others & (edge < 0.75 * face)
    by_face = others & (face < edge)
    assert by_edges.sum() > 80
    assert by_face.sum() > 80
    ours = contacts(BOXES, poses)
    deepest = ours.gap.argmin(1)
    assert (deepest[by_face] < 24).all()
    assert (deepest[by_edges] >= 24).all()
    alone, row = others & (by_edges | by_face), np.arange(len(poses))
    np.testing.assert_allclose(ours.gap[row, deepest][alone], -2e-3, atol=1e-9)
    np.testing.assert_allclose(ours.normal[row, deepest][alone], normal[alone], atol=1e-6)


def test_boxes_that_touch_by_two_axes_at_once_still_push_each_other_apart():
    poses, normal = shallow(BOXES, 400, 2e-3)
    push = (contacts(BOXES, poses).force() * normal).sum(1)
    assert (push > 0).mean() > 0.99
    assert (push > 1e-3).mean() > 0.93


def canonical(found):
    """Gaps, normals and points of the touching candidates in an order that does not depend on numbers."""
    rows = [
        np.hstack([gap[gap < -1e-9, None], normal[gap < -1e-9], point[gap < -1e-9]])
        for gap, normal, point in zip(found.gap, found.normal, found.point, strict=True)
    ]
    return [row[np.lexsort(np.round(row, 7).T)] for row in rows]


@pytest.mark.parametrize("kinds", SAME_KINDS)
def test_it_does_not_matter_which_shape_comes_first(kinds):
    poses = random_poses(kinds, np.random.default_rng(2), 200, 0.4)
    there = contacts(kinds, poses)
    back = contacts(kinds, poses.swapped())
    back = replace(back, normal=-back.normal)
    assert (there.gap < 0).any(1).sum() > 30
    for one, other in zip(canonical(there), canonical(back), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-9)


@pytest.mark.parametrize("kinds", KINDS)
def test_contact_moves_with_the_shapes(kinds):
    rng = np.random.default_rng(3)
    poses = random_poses(kinds, rng, 200, 0.4)
    turn, shift = random_quaternions(rng, 1), np.array([0.3, -0.5, 0.2])
    there, moved = contacts(kinds, poses), contacts(kinds, poses.moved(turn, shift))
    touching = there.gap < -1e-9
    turns = np.broadcast_to(turn, (touching.sum(), 4))
    np.testing.assert_allclose(moved.gap[touching], there.gap[touching], atol=1e-12)
    np.testing.assert_allclose(moved.normal[touching], rotate(turns, there.normal[touching]), atol=1e-9)
    np.testing.assert_allclose(moved.point[touching], rotate(turns, there.point[touching]) + shift, atol=1e-9)


def nudged(poses, name, eps):
    """Poses with a shape shifted or turned along world axes by vectors eps (3,)."""
    shape, kind = name[-1], name[:-2]
    if kind == "shift":
        return replace(poses, **{f"pos_{shape}": getattr(poses, f"pos_{shape}") + eps})
    q = getattr(poses, f"rot_{shape}")
    angle = np.linalg.norm(eps)
    turn = np.broadcast_to(about(eps / angle, angle), q.shape)
    return replace(poses, **{f"rot_{shape}": multiply(turn, q)})


@pytest.mark.parametrize("kinds", KINDS)
def test_derivatives_of_gap_normal_and_point_are_exact(kinds):
    rng = np.random.default_rng(4)
    poses, _ = shallow(kinds, 400, 0.01)
    touching = contacts(kinds, poses).gap < -1e-9
    gap_bar, vector_bars = rng.normal(size=touching.shape), rng.normal(size=(2, *touching.shape, 3))
    gap_bar, vector_bars = gap_bar * touching, vector_bars * touching[..., None]

    def seen(poses):
        found = contacts(kinds, poses)
        vectors = np.where(touching[..., None], [found.normal, found.point], 0.0)
        return (found.gap * gap_bar).sum(1) + (vectors * vector_bars).sum((0, 2, 3))

    bars = contacts_adj(kinds, poses, gap_bar, *vector_bars)
    worst, smooth = np.zeros(len(poses)), np.ones(len(poses), bool)
    for name, q, bar in (
        ("shift_a", None, bars[0]),
        ("turn_a", poses.rot_a, bars[1]),
        ("shift_b", None, bars[2]),
        ("turn_b", poses.rot_b, bars[3]),
    ):
        for axis in np.eye(3):
            sums = [seen(nudged(poses, name, k * 5e-6 * axis)) for k in (1, -1, 2, -2, 4, -4)]
            differences = [one - other for one, other in zip(sums[::2], sums[1::2], strict=True)]
            fine, coarse = (
                (8 * differences[i] - differences[i + 1]) / (12 * 5e-6 * (i + 1)) for i in range(2)
            )
            spin = np.hstack([np.broadcast_to(axis / 2, (len(poses), 3)), np.zeros((len(poses), 1))])
            expected = bar @ axis if q is None else (bar * multiply(spin, q)).sum(1)
            size = 1.0 + np.abs(expected)
            smooth &= np.abs(fine - coarse) / size < 1e-6
            worst = np.maximum(worst, np.abs(expected - fine) / size)
    assert touching.any(1).sum() > 100
    assert smooth.mean() > 0.98  # the others have a kink within a step
    assert worst[smooth].max() < 1e-7


def degenerate(kinds):
    """Poses at which something is not defined: no direction, several nearest points, parallel edges."""
    reach = sum(
        bounding_radius(Geom(kind=kind, size=size[: {"sphere": 1, "capsule": 2, "box": 3}[kind]]))
        for kind, size in ((kinds[0], SIZES[kinds[0]]), (kinds[1], OTHER_SIZES[kinds[1]]))
    )
    shifts = [f * reach * e for e in (X, Y, Z, X + Y, X + Y + Z) for f in (0.0, 0.1, 0.25, 0.5, -0.5)]
    size_a, size_b = np.array(SIZES[kinds[0]]), np.array(OTHER_SIZES[kinds[1]])
    shifts += [size_b, size_b * (1, 0, 0), size_b * (1, 1, 0), size_a + size_b, (size_a + size_b) * (0, 0, 1)]
    turns = [
        IDENTITY, *about(X, np.pi / 2), *about(Z, np.pi / 4), *about(Y, np.pi), *about(X + Y, np.pi / 4)
    ]  # fmt: skip
    turns = [np.asarray(turn) / np.linalg.norm(turn) for turn in turns]
    both = [(shift, turn) for shift in shifts for turn in turns]
    return path(kinds, shift=np.array([s for s, _ in both]), rot_a=np.array([t for _, t in both]))


@pytest.mark.parametrize("kinds", KINDS)
def test_values_and_derivatives_are_finite_where_something_is_undefined(kinds):
    poses = degenerate(kinds)
    found = contacts(kinds, poses)
    for values in (found.gap, found.normal, found.point):
        assert np.isfinite(values).all()
    touching = found.gap < 0
    np.testing.assert_allclose(np.linalg.norm(found.normal[touching], axis=1), 1.0, atol=1e-9)
    ones = np.ones((*touching.shape, 3))
    for bar in contacts_adj(kinds, poses, ones[..., 0], ones, ones):
        assert np.isfinite(bar).all()


@pytest.mark.parametrize("kinds", KINDS)
def test_float32_finds_the_same_contact(kinds):
    poses, _ = shallow(kinds, 200, 5e-3)
    exact, rounded = contacts(kinds, poses), contacts(kinds, poses, FLOAT32)
    np.testing.assert_allclose(rounded.wrench(poses.pos_b), exact.wrench(poses.pos_b), atol=2e-5)
    gap_bar, vector_bar = np.ones(exact.gap.shape), np.zeros((*exact.gap.shape, 3))
    bars = contacts_adj(kinds, poses, gap_bar, vector_bar, vector_bar, FLOAT32)
    assert all(np.isfinite(bar).all() for bar in bars)


TABLE = (0.3, 0.3, 0.1)


def on_table(kinds, depth, rot_a, shift=(0.0, 0.0)):
    """Shape a on the top of a box, its lowest point below the surface by `depth`; turns (n, 4), shifts (n, 2)."""
    count = max(len(rot_a), len(np.atleast_2d(shift)))
    rot_a = np.broadcast_to(rot_a, (count, 4))
    inverse = rot_a * [-1, -1, -1, 1]
    up = np.abs(rotate(inverse, np.broadcast_to(Z, (count, 3))))
    size = SIZES[kinds[0]]
    below = up @ size if kinds[0] == "box" else size[0] + up[:, 2] * size[1]
    height = TABLE[2] + below - depth
    shifts = np.hstack([np.broadcast_to(shift, (count, 2)), np.broadcast_to(height, count)[:, None]])
    return path(kinds, shift=shifts, rot_a=rot_a, size_b=TABLE)


def slide_over_the_edge(kinds, t):
    return on_table(kinds, 3e-3, about(Z, 0.3), np.stack([0.55 * t, 0.05 + 0 * t], 1))


def stand_up(kinds, t):
    return on_table(kinds, 3e-3, multiply(about(Z, 0.4 + 0 * t), about(Y, 0.45 * np.pi * t)), (0.02, 0.03))


def turn_on_the_spot(kinds, t):
    return on_table(
        kinds, 3e-3, multiply(about(Z, np.pi * t), about(Y, np.full_like(t, np.pi / 2))), (0.25, 0.1)
    )


def scissors(kinds, t):
    return path(
        kinds,
        shift=[0.02, 0.03, 0.17],
        rot_a=multiply(about(Z, 0.6 * np.pi * t), about(Y, np.full_like(t, np.pi / 2))),
        rot_b=about(Y, np.pi / 2),
    )


def past_each_other(kinds, t):
    return path(
        kinds,
        shift=np.stack([0.7 * t - 0.35, 0 * t, 0.17 + 0 * t], 1),
        rot_a=about(Y, 1.5),
        rot_b=about(Y, 1.6),
    )


def head_on(kinds, t):
    return path(
        kinds, shift=np.stack([0.1 - 0.2 * t, 0.02 + 0 * t, 0.52 + 0 * t], 1), rot_a=about(Y, 0.3 * t)
    )


@pytest.mark.parametrize(
    ("kinds", "course"),
    [
        (BOXES, slide_over_the_edge),
        (BOXES, stand_up),
        (BOXES, turn_on_the_spot),
        (("capsule", "box"), slide_over_the_edge),
        (("capsule", "box"), stand_up),
        (("capsule", "box"), turn_on_the_spot),
        (("capsule", "capsule"), scissors),
        (("capsule", "capsule"), past_each_other),
        (("capsule", "capsule"), head_on),
    ],
)
def test_force_and_torque_do_not_jump(kinds, course):
    def largest_step(count):
        poses = course(kinds, np.linspace(0.0, 1.0, count))
        wrench = contacts(kinds, poses).wrench(poses.pos_b)
        assert (np.abs(wrench).max(1) > 1e-4).mean() > 0.3
        return np.abs(np.diff(wrench, axis=0)).max()

    assert largest_step(40001) < 0.5 * largest_step(10001)  # a quarter without a jump, 1 with one


def pushes(kinds, poses):
    """Sum of forces up."""
    return contacts(kinds, poses).force()[:, 2]


@pytest.mark.parametrize("angle", [0.0, 0.3, np.pi / 4])
def test_a_box_face_on_a_table_has_four_points_however_it_lies(angle):
    shifts = np.array([(0.0, 0.0), (0.2, 0.0), (0.28, 0.1), (0.1, -0.2)])
    up = pushes(BOXES, on_table(BOXES, 2e-3, about(Z, angle), shifts))
    np.testing.assert_allclose(up, 4 * 2e-3, rtol=3e-3)


def test_a_stack_of_equal_boxes_stands():
    angles = np.linspace(-0.01, 0.01, 11)
    size = SIZES["box"]
    height = np.array([0.0, 0.0, 2 * size[2] - 4e-3])
    poses = path(BOXES, shift=height, rot_a=about(Y, angles), size_b=size)
    found = contacts(BOXES, poses)
    np.testing.assert_allclose(found.force()[5], [0.0, 0.0, 4 * 4e-3], atol=1e-12)
    righting = found.wrench(poses.pos_a)[:, 4]
    assert (righting * angles < 0)[angles != 0].all()
    np.testing.assert_allclose(righting, -righting[::-1], atol=1e-9)


def test_a_lying_capsule_has_two_points_and_a_standing_one_has_one():
    kinds = ("capsule", "box")
    lying = on_table(kinds, 2e-3, about(Y, np.pi / 2))
    np.testing.assert_allclose(pushes(kinds, lying), 2 * 2e-3, rtol=1e-9)
    assert np.ptp(contacts(kinds, lying).point[0, :2, 0]) == pytest.approx(2 * SIZES["capsule"][1])
    np.testing.assert_allclose(pushes(kinds, on_table(kinds, 2e-3, about(Y, 0.0))), 2e-3, rtol=1e-3)


def test_a_finger_across_a_box_is_carried_at_both_edges():
    kinds = ("capsule", "box")
    poses = replace(on_table(kinds, 2e-3, about(Y, np.pi / 2)), size_b=(0.09, 0.3, 0.1))
    found = contacts(kinds, poses)
    np.testing.assert_allclose(found.depth[0], [2e-3, 2e-3, 0.0], atol=1e-9)
    np.testing.assert_allclose(np.sort(found.point[0, :2, 0]), [-0.09, 0.09], atol=1e-9)


def test_capsules_side_by_side_touch_at_both_ends_of_their_overlap():
    kinds = ("capsule", "capsule")
    poses = path(kinds, shift=[0.17, 0.0, 0.05])
    found = contacts(kinds, poses)
    np.testing.assert_allclose(found.depth[0], [0.01, 0.01, 0.0], atol=1e-9)
    np.testing.assert_allclose(np.sort(found.point[0, :2, 2]), [-0.15, 0.15], atol=1e-9)


@pytest.mark.parametrize("kinds", KINDS)
def test_beyond_the_sum_of_bounding_radii_nothing_touches(kinds):
    rng = np.random.default_rng(5)
    poses = random_poses(kinds, rng, 500, 1.0)
    geoms = [
        Geom(kind=kind, size=size[: {"sphere": 1, "capsule": 2, "box": 3}[kind]])
        for kind, size in zip(kinds, (poses.size_a, poses.size_b), strict=True)
    ]
    reach = sum(map(bounding_radius, geoms))
    # Every shape holds a point at its bounding radius: turned towards each other they touch at `reach`.
    towards = [{"sphere": X, "capsule": Z}.get(geom.kind, np.array(geom.size)) for geom in geoms]
    axis = towards[0] / np.linalg.norm(towards[0])
    facing = turn_between(towards[1] / np.linalg.norm(towards[1]), -axis)
    for distance, touches in ((0.999 * reach, True), (1.001 * reach, False)):
        tight = path(kinds, shift=-distance * axis, rot_b=facing)
        assert (contacts(kinds, tight).gap < 0).any() == touches
    apart = np.linalg.norm(poses.pos_a - poses.pos_b, axis=1) > reach
    assert apart.sum() > 50
    assert (contacts(kinds, poses.where(apart)).gap >= 0).all()


def turn_between(start, end):
    """The quaternion (1, 4) that turns one unit vector into another; they must not oppose each other."""
    q = np.append(np.cross(start, end), 1.0 + start @ end)
    if np.linalg.norm(q) < 1e-6:
        return about(Y, np.pi)
    return (q / np.linalg.norm(q))[None]


def little_model(contact_pairs):
    sphere = Geom(kind="sphere", size=(0.1,))
    capsule = Geom(kind="capsule", size=(0.1, 0.2))
    box = Geom(kind="box", size=(0.1, 0.2, 0.3))
    shadow = Geom(kind="box", size=(1.0, 1.0, 1.0), contact=None)

    def body(name, *geoms):
        return Body(name=name, joints=(Joint(name=f"{name}_joint", kind="free"),), geoms=geoms)

    return ArticulationModel(
        bodies=(body("hand", box, shadow, sphere), body("cube", box), body("ball", capsule)),
        control_dt_s=0.01,
        num_substeps=1,
        contact_pairs=contact_pairs,
    )


def test_every_pair_of_shapes_is_listed_once_under_its_kinds():
    pairs = (("hand", "cube"), ("ball", "hand"), ("cube", "hand"))
    model = little_model(pairs)
    assert [name for name, _ in all_geoms(model)] == ["hand", "hand", "hand", "cube", "ball"]
    found = {
        table.kinds: list(zip(table.geom_a.tolist(), table.geom_b.tolist(), strict=True))
        for table in pair_tables(model)
    }
    assert found == {
        ("sphere", "capsule"): [(2, 4)],
        ("sphere", "box"): [(2, 3)],
        ("capsule", "box"): [(4, 0)],
        ("box", "box"): [(0, 3)],
    }


def test_a_table_knows_how_far_its_shapes_reach():
    (table,) = pair_tables(replace(little_model((("cube", "ball"),))))
    assert table.num_candidates == 3
    np.testing.assert_allclose(table.reach, [0.3 + np.sqrt(0.14)])


def test_a_model_without_contact_pairs_has_no_tables():
    assert pair_tables(little_model(())) == []
