"""Contact between shapes: geometry against MuJoCo's distances, gradients against differences, force at rest."""

import dataclasses
from itertools import combinations_with_replacement

import mujoco
import numpy as np
import pytest
import warp as wp
from systems import gradients, make_solver, run
from test_articulation_gradients import differences

from rewarped_sim.engine.articulation.model import (
    ArticulationModel,
    Body,
    ContactMaterial,
    Geom,
    Joint,
    all_body_pairs,
)
from rewarped_sim.engine.articulation.shape_contact import Core, pair_functions
from rewarped_sim.engine.kinematics import SHAPE_KINDS, rotation_matrix
from rewarped_sim.engine.scalars import FLOAT64

SOFT = ContactMaterial(stiffness=2e3, damping=500.0, friction_stiffness=50.0, friction=0.6)
SPRING = ContactMaterial(stiffness=2e3, damping=0.0, friction_stiffness=0.0, friction=0.0)
SIZES = {"sphere": (0.1,), "capsule": (0.07, 0.12), "box": (0.1, 0.08, 0.06)}
PAIRS = [*combinations_with_replacement(SIZES, 2)]
PAIR_IDS = [f"{a}-{b}" for a, b in PAIRS]
_GEOMETRY = pair_functions(FLOAT64)
_core_distance, _crossing = _GEOMETRY.core_distance, _GEOMETRY.crossing


@wp.kernel(module="unique", enable_backward=False)
def _distances(
    kind: int,
    half: wp.vec3d,
    start: wp.array(dtype=wp.vec3d),
    way: wp.array(dtype=wp.vec3d),
    found: wp.array(dtype=wp.vec4d),
    weights: wp.array(dtype=wp.float64),
):
    """Of points (`way` zero) and of segments: nearest distance and normal of a core, and the crossing's weight."""
    i = wp.tid()
    weight = wp.float64(1.0)
    place = wp.float64(0.0)
    if wp.dot(way[i], way[i]) > wp.float64(0.0):
        place, weight = _crossing(kind, half, start[i], way[i])
    found[i] = _core_distance(half, start[i] + place * way[i])
    weights[i] = weight


def system(a, b, *, material=SOFT, law="regularized", count=4, swap=False):
    bodies = tuple(
        Body(
            name=name,
            joints=(Joint(name=name, kind="free"),),
            geoms=(Geom(kind=kind, size=SIZES[kind], contact=material),),
        )
        for name, kind in (("a", a), ("b", b))
    )
    return ArticulationModel(
        bodies=bodies,
        contact_pairs=(("b", "a") if swap else ("a", "b"),),
        contact_law=law,
        control_dt_s=count * 1e-3,
        num_substeps=count,
        gravity=(0.0, 0.0, -1.0),
    )


def random_turns(rng, *shape):
    q = rng.normal(size=(*shape, 4))
    return q / np.linalg.norm(q, axis=-1, keepdims=True)


def poses(rng, count, nearest=0.13, farthest=0.2):
    """Joint coordinates of two bodies near each other, (count, 14)."""
    q = np.zeros((count, 14))
    q[:, 3:7], q[:, 10:14] = random_turns(rng, count), random_turns(rng, count)
    way = rng.normal(size=(count, 3))
    way *= rng.uniform(nearest, farthest, size=(count, 1)) / np.linalg.norm(way, axis=1, keepdims=True)
    q[:, 7:10] = way
    return q


def core_distance(a, b, q):
    """Least distance that feelers and crossings find between the cores of two shapes at joint coordinates (14,)."""
    cores = [Core.of(Geom(kind=kind, size=SIZES[kind])) for kind in (a, b)]
    found = []
    for me, other, kind in ((0, 1, b), (1, 0, a)):
        turn, position = rotation_matrix(q[7 * me + 3 : 7 * me + 7]), q[7 * me : 7 * me + 3]
        other_turn, other_position = (
            rotation_matrix(q[7 * other + 3 : 7 * other + 7]),
            q[7 * other : 7 * other + 3],
        )
        segments = [(corner, corner) for corner in cores[me].corners] + [tuple(e) for e in cores[me].edges]
        ends = (np.array(segments) @ turn.T + position - other_position) @ other_turn
        start, way = np.ascontiguousarray(ends[:, 0]), np.ascontiguousarray(ends[:, 1] - ends[:, 0])
        result, weights = wp.zeros(len(start), dtype=wp.vec4d), wp.zeros(len(start), dtype=wp.float64)
        wp.launch(
            _distances,
            len(start),
            inputs=[
                SHAPE_KINDS[kind], wp.vec3d(cores[other].half), wp.array(start, dtype=wp.vec3d),
                wp.array(way, dtype=wp.vec3d), result, weights,
            ],
            device="cpu",
        )  # fmt: skip
        found += result.numpy()[weights.numpy() > 0.0, 0].tolist()
    return min(found)


def mujoco_distance(a, b, q):
    """Distance of the same cores, which are the shapes less their radii; a point and a segment have a tiny radius."""
    tiny = 1e-7
    geoms = []
    for index, kind in enumerate((a, b)):
        core = Core.of(Geom(kind=kind, size=SIZES[kind]))
        size = {"sphere": [tiny], "capsule": [tiny, core.half[2]], "box": core.half}[kind]
        pose = q[7 * index : 7 * index + 7]
        geoms.append(
            f'<geom type="{kind}" size="{" ".join(map(repr, map(float, size)))}" '
            f'pos="{" ".join(map(repr, map(float, pose[:3])))}" '
            f'quat="{" ".join(map(repr, map(float, np.roll(pose[3:], 1))))}"/>'
        )
    physics = mujoco.MjModel.from_xml_string(f"<mujoco><worldbody>{''.join(geoms)}</worldbody></mujoco>")
    data = mujoco.MjData(physics)
    mujoco.mj_forward(physics, data)
    return mujoco.mj_geomDistance(physics, data, 0, 1, 1.0, None) + tiny * ((a != "box") + (b != "box"))


@pytest.mark.parametrize(("a", "b"), PAIRS, ids=PAIR_IDS)
def test_the_nearest_contact_is_as_far_as_mujoco_says(a, b):
    rng = np.random.default_rng(0)
    errors = []
    for q in poses(rng, 60, 0.2, 0.4):
        expected = mujoco_distance(a, b, q)
        if expected > 1e-3:  # cores apart: shapes overlap by less than their radii
            errors.append(core_distance(a, b, q) - expected)
    assert len(errors) > 20
    # Nearly parallel capsules are pulled towards the middle of their overlap, a little past the nearest point.
    assert np.abs(errors).max() < (2e-4 if (a, b) == ("capsule", "capsule") else 1e-6)


@pytest.mark.parametrize("swap", [False, True])
@pytest.mark.parametrize(("a", "b"), PAIRS, ids=PAIR_IDS)
def test_gradients_of_contact_match_differences(a, b, swap):
    rng = np.random.default_rng(0)
    model = system(a, b, swap=swap)
    worlds = 12
    solver = make_solver(model, num_envs=worlds)
    inputs = {
        "joint_q": poses(rng, worlds),
        "joint_qd": rng.normal(size=(worlds, 12)),
        "joint_f": np.zeros((worlds, 12)),
        "joint_target": np.zeros((worlds, 12)),
        "activation": np.zeros((worlds, 1)),
        "parameters": solver.parameters.numpy()[0].copy(),
    }
    weights = rng.normal(size=(worlds, 14)), rng.normal(size=(worlds, 12))
    found = gradients(solver, inputs, weights)
    apart = make_solver(dataclasses.replace(model, contact_pairs=()), num_envs=worlds)
    touching = np.abs(run(solver, inputs)[1] - run(apart, inputs)[1]).max(axis=1) > 1e-9
    assert touching.sum() >= 9
    for name in ("joint_q", "joint_qd", "parameters"):
        expected = differences(solver, inputs, weights, name)
        errors = np.linalg.norm(found[name] - expected, axis=1) / np.linalg.norm(expected, axis=1)
        assert errors.max() < 1e-6, name


@pytest.mark.parametrize(("a", "b"), PAIRS, ids=PAIR_IDS)
def test_momentum_is_exchanged_and_not_made(a, b):
    rng = np.random.default_rng(1)
    model = dataclasses.replace(system(a, b), gravity=(0.0, 0.0, 0.0))
    solver = make_solver(model, num_envs=8)
    q = poses(rng, 8)
    _, qd = run(solver, {"joint_q": q, "joint_qd": np.zeros((8, 12))})
    masses = [part.mass for part in solver.tree.link_mass[1:]]
    momenta = [mass * qd[:, at : at + 3] for mass, at in zip(masses, (0, 6), strict=True)]
    assert np.abs(momenta[0]).max() > 1e-3
    assert np.abs(momenta[0] + momenta[1]).max() < 1e-12 * np.abs(momenta[0]).max() + 1e-12


@pytest.mark.parametrize(("a", "b"), [pair for pair in PAIRS if pair != ("box", "box")], ids=PAIR_IDS[:-1])
def test_it_does_not_matter_which_shape_comes_first(a, b):
    rng = np.random.default_rng(2)
    q, qd = poses(rng, 8), rng.normal(size=(8, 12))
    results = [
        run(make_solver(system(a, b, swap=swap), num_envs=8), {"joint_q": q, "joint_qd": qd})[1]
        for swap in (False, True)
    ]
    # Capsules choose their point by the first one's core: nearly parallel ones differ a little.
    assert np.allclose(*results, atol=2e-3 if (a, b) == ("capsule", "capsule") else 1e-10)


@pytest.mark.parametrize("kind", SIZES)
def test_poses_without_a_direction_stay_finite(kind):
    """Coincident centres, parallel axes, faces flush with each other."""
    model = system(kind, kind)
    solver = make_solver(model, num_envs=4)
    q = np.zeros((4, 14))
    q[:, 6] = q[:, 13] = 1.0
    q[1, 7], q[2, 8], q[3, 9] = 0.19, 0.15, 0.11
    inputs = {"joint_q": q, "joint_qd": np.zeros((4, 12))}
    inputs |= {name: np.zeros((4, 12)) for name in ("joint_f", "joint_target")}
    inputs |= {"activation": np.zeros((4, 1)), "parameters": solver.parameters.numpy()[0].copy()}
    found = gradients(solver, inputs, (np.ones((4, 14)), np.ones((4, 12))))
    assert all(np.isfinite(value).all() for value in found.values())


@pytest.mark.parametrize(("kind", "height"), [("sphere", 0.14), ("capsule", 0.2), ("box", 0.212)])
def test_forces_are_continuous_while_one_shape_slides_over_another(kind, height):
    """A tilted box passes over a tilted shape, overlapping by less than their radii: finer steps, smaller changes."""
    model = dataclasses.replace(system(kind, "box", material=SPRING, count=1), gravity=(0.0, 0.0, 0.0))
    largest = []
    for count in (4000, 16000):
        q = np.zeros((count, 14))
        q[:, 3:7] = (0.2, 0.3, 0.1, np.sqrt(1.0 - 0.14))
        q[:, 10:14] = (-0.1, 0.2, 0.3, np.sqrt(1.0 - 0.14))
        q[:, 7] = np.linspace(-0.3, 0.3, count)
        q[:, 9] = height
        assert min(core_distance(kind, "box", q[i]) for i in range(0, count, count // 80)) > 0.0
        solver = make_solver(model, num_envs=count, requires_grad=False)
        _, qd = run(solver, {"joint_q": q, "joint_qd": np.zeros((count, 12))})
        assert np.count_nonzero(qd[:, :3].any(axis=1)) > count // 20
        largest.append(np.abs(np.diff(qd[:, :6], axis=0)).max())
    assert largest[1] < 0.3 * largest[0]


def test_a_box_rests_on_a_box():
    """Its weight is carried by eight corners where the boxes are equal; it neither falls through nor drifts."""
    bodies = tuple(
        Body(
            name=name,
            position=(0.0, 0.0, height),
            joints=(Joint(name=name, kind="free"),),
            geoms=(
                Geom(kind="box", size=(0.1, 0.1, 0.1), contact=ContactMaterial(stiffness=2e4, damping=2e5)),
            ),
        )
        for name, height in (("lower", 0.1), ("upper", 0.3))
    )
    model = ArticulationModel(
        bodies=bodies,
        contact_pairs=all_body_pairs(bodies),
        ground=ContactMaterial(stiffness=2e4, damping=2e5),
        control_dt_s=0.1,
        num_substeps=400,
    )
    solver = make_solver(model, requires_grad=False)
    q, qd = model.start_q()[None], np.zeros((1, 12))
    for _ in range(20):
        q, qd = run(solver, {"joint_q": q, "joint_qd": qd})
    sunk = 0.2 - (q[0, 9] - q[0, 2])
    assert sunk == pytest.approx(8.0 * 9.81 / (8 * 2e4), rel=0.05)
    assert np.abs(q[0, 7:9]).max() < 1e-6
    assert np.abs(qd).max() < 1e-3


def test_a_capsule_lies_on_a_box_by_its_ends():
    """Two ends carry it, and it stays level."""
    material = ContactMaterial(stiffness=2e4, damping=2e5)
    box = Geom(kind="box", size=(0.3, 0.3, 0.1), contact=material)
    floor = Body(name="floor", geoms=(box,))
    rod = Body(
        name="rod",
        position=(0.0, 0.0, 0.15),
        quaternion=(0.0, np.sqrt(0.5), 0.0, np.sqrt(0.5)),
        joints=(Joint(name="rod", kind="free"),),
        geoms=(Geom(kind="capsule", size=(0.05, 0.1), contact=material),),
    )
    model = ArticulationModel(
        bodies=(floor, rod), contact_pairs=(("floor", "rod"),), control_dt_s=0.1, num_substeps=200
    )
    solver = make_solver(model, requires_grad=False)
    q, qd = model.start_q()[None], np.zeros((1, 6))
    for _ in range(20):
        q, qd = run(solver, {"joint_q": q, "joint_qd": qd})
    mass = solver.tree.link_mass[1].mass
    assert 0.15 - q[0, 2] == pytest.approx(mass * 9.81 / (2 * 2e4), rel=0.02)
    assert abs(rotation_matrix(q[0, 3:7])[2, 2]) < 1e-6


def test_the_law_huber_acts_between_shapes_too():
    rng = np.random.default_rng(3)
    q, qd = poses(rng, 8), rng.normal(size=(8, 12))
    results = [
        run(make_solver(system("sphere", "box", law=law), num_envs=8), {"joint_q": q, "joint_qd": qd})[1]
        for law in ("regularized", "huber")
    ]
    assert np.abs(results[0] - results[1]).max() > 1e-4
