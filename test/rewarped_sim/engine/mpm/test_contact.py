"""Both contact laws against their definitions, their adjoints against differences, and the smooth one is smooth."""

from functools import cache

import numpy as np
import pytest
import warp as wp
from shape_cases import SIZES, array, distances

from rewarped_sim.engine.kinematics import SHAPE_KINDS, rotation_matrix
from rewarped_sim.engine.mpm.contact import (
    APPROACH_BAND,
    CONTACT_LAWS,
    MIN_INFLUENCE,
    SLIP_BAND,
    contact_functions,
)
from rewarped_sim.engine.scalars import FLOAT64

SOFTNESS, FRICTION, DT = 6.0, 0.5, 0.01


@cache
def kernels():
    functions = contact_functions(FLOAT64)
    contact, contact_adj, driven_adj = functions.contact, functions.contact_adj, functions.driven_adj
    real, vec3, mat33 = FLOAT64.real, FLOAT64.vec3, FLOAT64.mat33

    @wp.kernel(module="unique", enable_backward=False)
    def push(
        kind: int, law: int, size: vec3, v: wp.array(dtype=vec3), x: wp.array(dtype=vec3), pos: wp.array(dtype=vec3),
        rot: wp.array(dtype=mat33), out: wp.array(dtype=vec3),
    ):  # fmt: skip
        i = wp.tid()
        out[i] = contact(
            v[i], x[i], kind, size, pos[2 * i], rot[2 * i], (pos[2 * i + 1] - pos[2 * i]) / real(DT),
            (rot[2 * i + 1] - rot[2 * i]) / real(DT), real(SOFTNESS), real(FRICTION), law,
        )  # fmt: skip

    @wp.kernel(module="unique", enable_backward=False)
    def push_adj(
        kind: int, law: int, size: vec3, v: wp.array(dtype=vec3), x: wp.array(dtype=vec3), pos: wp.array(dtype=vec3),
        rot: wp.array(dtype=mat33), given: wp.array(dtype=vec3), out: wp.array2d(dtype=vec3),
    ):  # fmt: skip
        i = wp.tid()
        spin = (rot[2 * i + 1] - rot[2 * i]) / real(DT)
        r = contact_adj(
            v[i], x[i], kind, size, pos[2 * i], rot[2 * i], (pos[2 * i + 1] - pos[2 * i]) / real(DT),
            spin, real(SOFTNESS), real(FRICTION), law, given[i],
        )  # fmt: skip
        d = driven_adj(x[i], pos[2 * i], rot[2 * i], spin, real(DT), r.body_v_bar)
        out[i, 0] = r.v_bar
        out[i, 1] = r.force + d.force
        out[i, 2] = r.torque + d.torque
        out[i, 3] = d.next_force
        out[i, 4] = d.next_torque

    return push, push_adj


def pushed(kind, law, v, x, pos, rot):
    out = wp.zeros(len(v), dtype=FLOAT64.vec3, device="cpu")
    inputs = [SHAPE_KINDS[kind], CONTACT_LAWS[law], FLOAT64.vec3(*SIZES[kind]), array(v), array(x)]
    inputs += [array(pos.reshape(-1, 3)), array(rot.reshape(-1, 3, 3), FLOAT64.mat33), out]
    wp.launch(kernels()[0], len(v), inputs, device="cpu")
    return out.numpy()


def scene(kind, rng, count):
    """Nodes around a moving shape; both poses differ by a substep's motion."""
    x = rng.uniform(-0.7, 0.7, (count, 3))
    v = rng.normal(size=(count, 3))
    turns = rng.normal(size=(count, 2, 4))
    turns[:, 1] = turns[:, 0] + 0.005 * rng.normal(size=(count, 4))
    rot = np.array([[rotation_matrix(tuple(t)) for t in pair] for pair in turns])
    pos = rng.uniform(-0.1, 0.1, (count, 1, 3)) + 0.01 * rng.normal(size=(count, 2, 3))
    return v, x, pos, rot


def reference_contact(kind, law, v, x, pos, rot):
    """The law as its module defines it, one node at a time."""
    q = np.einsum("nji,nj->ni", rot[:, 0], x - pos[:, 0])
    dn = distances(kind, q)
    result = v.copy()
    for i, (d, *n) in enumerate(dn):
        s = min(np.exp(-SOFTNESS * d), 1.0)
        if not (s > MIN_INFLUENCE or d <= 0):
            continue
        n = rot[i, 0] @ n
        body_v = (pos[i, 1] + rot[i, 1] @ q[i] - x[i]) / DT
        u = v[i] - body_v
        c = u @ n
        approach = min(c, 0.0)
        if law == "smooth":
            t = (s - MIN_INFLUENCE) / (1 - MIN_INFLUENCE)
            s = 3 * t**2 - 2 * t**3
            if abs(c) < APPROACH_BAND:
                approach = -((c - APPROACH_BAND) ** 2) / (4 * APPROACH_BAND)
        tangent = u - approach * n
        length, limit = np.linalg.norm(tangent), -FRICTION * approach
        left = max(0.0, length - limit)
        if law == "smooth" and abs(length - limit) < SLIP_BAND * limit:
            left = (length - (1 - SLIP_BAND) * limit) ** 2 / (4 * SLIP_BAND * limit)
        if approach < 0:
            tangent = tangent / length * left
        result[i] = body_v + (1 - s) * u + s * tangent
    return result


LAWS = sorted(CONTACT_LAWS)


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("kind", list(SIZES))
def test_contact_follows_its_law(kind, law):
    v, x, pos, rot = scene(kind, np.random.default_rng(3), 500)
    np.testing.assert_allclose(
        pushed(kind, law, v, x, pos, rot), reference_contact(kind, law, v, x, pos, rot), atol=1e-11
    )


def walk_into_a_plane(law, heights, velocity):
    """Velocities of nodes at these heights above a resting plane, after contact."""
    count = len(heights)
    x = np.zeros((count, 3))
    x[:, 2] = heights
    still = np.broadcast_to(np.eye(3), (count, 2, 3, 3))
    return pushed("plane", law, np.tile(velocity, (count, 1)), x, np.zeros((count, 2, 3)), still)


def test_the_published_law_jumps_at_the_cutoff_and_the_smooth_one_does_not():
    cutoff = -np.log(MIN_INFLUENCE) / SOFTNESS
    step = 1e-6
    heights = np.array([cutoff - step, cutoff + step])
    jump = {law: np.ptp(walk_into_a_plane(law, heights, (1.0, 0.0, -1.0))[:, 2]) for law in LAWS}
    assert jump["published"] == pytest.approx(0.1, rel=1e-4)
    assert jump["smooth"] < 1e-9


@pytest.mark.parametrize("along", ["distance", "approach", "slip"])
def test_the_smooth_law_has_no_kink(along):
    # The slope of a continuously differentiable function changes by O(step); a kink changes it at once.
    steps = 4000
    t = np.linspace(0.0, 1.0, steps)
    if along == "distance":
        values = walk_into_a_plane("smooth", 0.6 * t - 0.1, (1.0, 0.0, -1.0))
    else:
        still = np.broadcast_to(np.eye(3), (steps, 2, 3, 3))
        v = np.tile((1.0, 0.0, -0.3), (steps, 1))
        if along == "approach":
            v[:, 2] = 0.4 * t - 0.2
        else:
            v[:, 0] = 0.4 * t + 1e-3
        x = np.tile((0.0, 0.0, 0.05), (steps, 1))
        values = pushed("plane", "smooth", v, x, np.zeros((steps, 2, 3)), still)
    slope = np.diff(values, axis=0) * steps
    assert np.abs(np.diff(slope, axis=0)).max() < 0.02 * np.ptp(slope, axis=0).max()


def turned(rot, axis, angle):
    """rot after a small turn about a world axis."""
    half = angle / 2
    return rotation_matrix((*(np.sin(half) * np.eye(3)[axis]), np.cos(half))) @ rot


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("kind", list(SIZES))
def test_contact_adjoint_is_the_derivative_of_the_law(kind, law):
    rng = np.random.default_rng(4)
    count = 400
    v, x, pos, rot = scene(kind, rng, count)
    given = rng.normal(size=(count, 3))
    out = wp.full((count, 5), np.nan, dtype=FLOAT64.vec3, device="cpu")
    inputs = [SHAPE_KINDS[kind], CONTACT_LAWS[law], FLOAT64.vec3(*SIZES[kind]), array(v), array(x)]
    inputs += [array(pos.reshape(-1, 3)), array(rot.reshape(-1, 3, 3), FLOAT64.mat33), array(given), out]
    wp.launch(kernels()[1], count, inputs, device="cpu")
    adjoint = out.numpy()

    expected, coarse = (differences(kind, law, v, x, pos, rot, given, eps) for eps in (1e-4, 2e-4))
    scale = np.maximum(np.linalg.norm(expected, axis=2), 1.0)
    # A node at a kink (onset of contact, of sliding) has no derivative: there two step sizes disagree.
    smooth = (np.linalg.norm(expected - coarse, axis=2) / scale).max(axis=1) < 1e-6
    assert smooth.mean() > 0.95
    error = np.linalg.norm(adjoint - expected, axis=2) / scale
    assert error[smooth].max() < 1e-7
    assert (np.abs(expected[:, 3]).max(axis=1) > 0).mean() > 0.3, "too few nodes in contact to mean anything"


def differences(kind, law, v, x, pos, rot, given, eps):
    """Fourth-order central differences with respect to v, both origins and both orientations."""
    total = np.zeros((len(v), 5, 3))
    for axis in range(3):
        for steps, weight in ((1, 8), (-1, -8), (2, -1), (-2, 1)):
            e = steps * eps * np.eye(3)[axis]
            moved, next_moved, spun, next_spun = pos.copy(), pos.copy(), rot.copy(), rot.copy()
            moved[:, 0] += e
            next_moved[:, 1] += e
            spun[:, 0] = turned(rot[:, 0], axis, steps * eps)
            next_spun[:, 1] = turned(rot[:, 1], axis, steps * eps)
            variants = [
                (v + e, pos, rot), (v, moved, rot), (v, pos, spun), (v, next_moved, rot), (v, pos, next_spun),
            ]  # fmt: skip
            for k, (vv, pp, rr) in enumerate(variants):
                total[:, k, axis] += weight * (pushed(kind, law, vv, x, pp, rr) * given).sum(1) / (12 * eps)
    return total
