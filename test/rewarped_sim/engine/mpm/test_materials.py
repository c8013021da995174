"""Every material law against a NumPy oracle; every adjoint, that of the constants too, against differences."""

from functools import cache

import numpy as np
import pytest
import warp as wp

from rewarped_sim.engine.mpm.hencky import SERIES_RADIUS, SHORT_RADIUS
from rewarped_sim.engine.mpm.material_table import LAW_CONSTANTS, MATERIAL_FIELDS, material_table_functions
from rewarped_sim.engine.mpm.materials import (
    Corotated,
    Dough,
    Fluid,
    NeoHookean,
    Sand,
    lame,
    material_functions,
)
from rewarped_sim.engine.scalars import FLOAT32, FLOAT64

ELASTIC = {"young": 5000.0, "poisson": 0.2, "density": 1.0}
MU, LAM = lame(5000.0, 0.2)
YIELD = 50.0
YIELD_STRAIN = YIELD / (2.0 * MU)
MATERIALS = {
    "dough": Dough(**ELASTIC, yield_stress=YIELD),
    "sand": Sand(**ELASTIC, friction_angle_deg=25.0, cohesion=0.004),
    "neo_hookean": NeoHookean(**ELASTIC),
    "corotated": Corotated(**ELASTIC),
    "fluid": Fluid(**ELASTIC),
}


@cache
def law_kernels(scalars, law):
    """Kernels that apply one law, and its adjoint, to a list of deformation gradients."""
    mat33, real = scalars.mat33, scalars.real
    functions = material_functions(scalars, frozenset({law}))
    stress, stress_adj = functions.stress, functions.stress_adj
    load = material_table_functions(scalars).load

    @wp.kernel(module="unique", enable_backward=False)
    def forward(
        table: wp.array3d(dtype=real), F: wp.array(dtype=mat33), F_new: wp.array(dtype=mat33),
        tau: wp.array(dtype=mat33),
    ):  # fmt: skip
        i = wp.tid()
        a, b = stress(F[i], load(table, 0, 0))
        F_new[i] = a
        tau[i] = b

    @wp.kernel(module="unique", enable_backward=False)
    def backward(
        table: wp.array3d(dtype=real), F: wp.array(dtype=mat33), F_bar: wp.array(dtype=mat33),
        tau_bar: wp.array(dtype=mat33), out: wp.array(dtype=mat33), constants: wp.array2d(dtype=real),
    ):  # fmt: skip
        i = wp.tid()
        a, b = stress_adj(F[i], load(table, 0, 0), F_bar[i], tau_bar[i])
        out[i] = a
        constants[i, 0] = b.mu
        constants[i, 1] = b.lam
        constants[i, 2] = b.yield_stress
        constants[i, 3] = b.friction
        constants[i, 4] = b.cohesion

    return forward, backward


def row(name):
    return np.array(MATERIALS[name].row(1.0))


def matrices(scalars, values):
    return wp.array(values, dtype=scalars.mat33, device="cpu")


def apply_law(scalars, name, F, constants=None):
    """(F', tau) with the constants of a material, or others."""
    forward, _ = law_kernels(scalars, MATERIALS[name].law)
    constants = row(name) if constants is None else constants
    table = wp.array(constants[None, None].astype(scalars.numpy), dtype=scalars.real, device="cpu")
    out = [wp.full(len(F), np.nan, dtype=scalars.mat33, device="cpu") for _ in range(2)]
    wp.launch(forward, len(F), [table, matrices(scalars, F), *out], device="cpu")
    return out[0].numpy(), out[1].numpy()


def apply_adjoint(scalars, name, F, F_bar, tau_bar):
    """(F_bar, adjoints of the constants), (count, 3, 3) and (count, 5)."""
    _, backward = law_kernels(scalars, MATERIALS[name].law)
    table = wp.array(row(name)[None, None].astype(scalars.numpy), dtype=scalars.real, device="cpu")
    out = wp.full(len(F), np.nan, dtype=scalars.mat33, device="cpu")
    constants = wp.full((len(F), 5), np.nan, dtype=scalars.real, device="cpu")
    inputs = [table, *(matrices(scalars, a) for a in (F, F_bar, tau_bar)), out, constants]
    wp.launch(backward, len(F), inputs, device="cpu")
    return out.numpy(), constants.numpy()


def numpy_law(name, F, constants=None):
    """The laws as they are written down: NumPy's SVD, float64."""
    constants = row(name) if constants is None else constants
    _, mu, lam, yield_stress, friction, cohesion = constants[:6]
    J = np.linalg.det(F)
    if name == "fluid":
        return np.cbrt(J)[:, None, None] * np.eye(3), (lam * J * (J - 1))[:, None, None] * np.eye(3)
    if name == "neo_hookean":
        b = F @ np.swapaxes(F, 1, 2)
        return F, mu * (b - np.eye(3)) + (lam * np.log(J))[:, None, None] * np.eye(3)
    U, s, Vt = np.linalg.svd(F)
    if name == "corotated":
        pressure = (lam * J * (J - 1))[:, None, None] * np.eye(3)
        return F, 2 * mu * (F - U @ Vt) @ np.swapaxes(F, 1, 2) + pressure
    e = np.log(s)
    tr = e.sum(-1, keepdims=True)
    d = e - tr / 3
    norm = np.linalg.norm(d, axis=-1, keepdims=True)
    if name == "dough":
        n = norm + 1e-5
        k = np.maximum(n - yield_stress / (2 * mu), 0.0) / n
        e_new = e - k * d
        moved = k > 0
    else:
        above = tr - 3 * cohesion
        excess = norm + (3 * lam + 2 * mu) / (2 * mu) * friction * above
        e_new = np.where(above >= 0, cohesion, e - np.maximum(excess, 0.0) / np.maximum(norm, 1e-30) * d)
        moved = (above >= 0) | (excess > 0)
    F_new = np.where(moved[..., None], np.einsum("nij,nj,njk->nik", U, np.exp(e_new), Vt), F)
    t = 2 * mu * e_new + lam * e_new.sum(-1, keepdims=True)
    return F_new, np.einsum("nij,nj,nkj->nik", U, t, U)


def rotations(rng, count):
    Q = np.linalg.qr(rng.normal(size=(count, 3, 3)))[0]
    return Q * np.sign(np.linalg.det(Q))[:, None, None]


def with_stretches(rng, stretches):
    """Deformation gradients with these singular values, in random frames."""
    count = len(stretches)
    return np.einsum("nij,nj,nkj->nik", rotations(rng, count), stretches, rotations(rng, count))


def stretches_of(kind, rng, count):
    """Log-stretches by name; the names of dough and sand say which side of the yield surface they are on."""
    gap = {"repeated": 0.0, "gap 1e-8": 1e-8, "gap 1e-6": 1e-6, "gap 1e-3": 1e-3}.get(kind)
    volume = rng.uniform(-0.02, 0.02, (count, 1))
    if gap is not None:
        base = rng.uniform(-0.003, 0.003, (count, 1)) * np.array([1.0, 1.0, -2.0])
        return np.exp(volume + base + gap * np.array([1.0, 0.0, 0.0]))
    deviator = rng.normal(size=(count, 3))
    deviator -= deviator.mean(-1, keepdims=True)
    deviator /= np.linalg.norm(deviator, axis=-1, keepdims=True)
    radius, shift = {
        "elastic": (0.8 * YIELD_STRAIN, 0.0),
        "just below yield": (YIELD_STRAIN * (1 - 2e-3) - 1e-5, 0.0),
        "just above yield": (YIELD_STRAIN * (1 + 2e-3) - 1e-5, 0.0),
        "plastic": (0.08, 0.0),
        "large": (0.4, 0.0),
        "in the cone": (0.03, -0.05),
        "sheared out of the cone": (0.06, -0.03),
        "pulled apart": (0.05, 0.04),
        "large and pulled apart": (0.4, 0.1),
        "large and crushed": (0.5, -0.2),
    }[kind]
    return np.exp(volume + shift + radius * deviator)


REPEATED = ["repeated", "gap 1e-8", "gap 1e-6", "gap 1e-3"]
KINDS = {
    "dough": [*REPEATED, "elastic", "just below yield", "just above yield", "plastic", "large"],
    "sand": [
        "in the cone", "sheared out of the cone", "pulled apart", "large", "large and pulled apart",
        "large and crushed",
    ],
    "neo_hookean": [*REPEATED, "elastic", "large"],
    "corotated": [*REPEATED, "elastic", "large"],
    "fluid": ["repeated", "elastic", "large"],
}  # fmt: skip
CASES = [(name, kind) for name, kinds in KINDS.items() for kind in kinds]


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_law_agrees_with_numpy(name, kind):
    rng = np.random.default_rng(0)
    F = with_stretches(rng, stretches_of(kind, rng, 200))
    F_new, tau = apply_law(FLOAT64, name, F)
    F_ref, tau_ref = numpy_law(name, F)
    np.testing.assert_allclose(F_new, F_ref, atol=2e-7)
    np.testing.assert_allclose(tau / (2 * MU), tau_ref / (2 * MU), atol=2e-7)


def objective(name, F, F_bar, tau_bar, constants=None):
    F_new, tau = apply_law(FLOAT64, name, F, constants)
    return (F_new * F_bar).sum((1, 2)) + (tau * tau_bar).sum((1, 2))


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_adjoint_is_the_derivative_of_the_law(name, kind):
    rng = np.random.default_rng(1)
    F = with_stretches(rng, stretches_of(kind, rng, 100))
    F_bar, tau_bar = rng.normal(size=F.shape), rng.normal(size=F.shape) / (2 * MU)
    grad, constants_bar = apply_adjoint(FLOAT64, name, F, F_bar, tau_bar)
    expected = np.zeros_like(F)
    for index in np.ndindex(3, 3):
        step = np.zeros((3, 3))
        step[index] = eps = 4e-6
        for steps, weight in ((1, 8), (-1, -8), (2, -1), (-2, 1)):
            moved = objective(name, F + steps * step, F_bar, tau_bar)
            expected[:, index[0], index[1]] += weight * moved / (12 * eps)
    # The gradient of a fluid is one scalar that may cancel to nothing: compare with its usual size.
    size = np.linalg.norm(expected, axis=(1, 2))
    error = np.linalg.norm(grad - expected, axis=(1, 2)) / np.maximum(size, np.median(size))
    assert error.max() < 1e-7

    used = np.flatnonzero(row(name)[1:6])
    assert set(np.flatnonzero(np.abs(constants_bar).max(0))) <= set(used), "unused constants have no gradient"
    for constant in used:
        steps = [row(name), row(name)]
        eps = 1e-5 * row(name)[constant + 1]
        steps[0][constant + 1] += eps
        steps[1][constant + 1] -= eps
        high, low = (objective(name, F, F_bar, tau_bar, step) for step in steps)
        difference = (high - low) / (2 * eps)
        size = max(np.abs(difference).max(), 1e-12 / eps)
        assert np.abs(constants_bar[:, constant] - difference).max() / size < 1e-7, LAW_CONSTANTS[constant]


def test_the_table_has_a_column_for_each_entry_of_a_row():
    for name, material in MATERIALS.items():
        entries = dict(zip(MATERIAL_FIELDS, material.row(2.0), strict=True))
        assert entries["volume"] == 2.0, name
        assert entries["mass"] == 2.0 * material.density, name
        assert entries["law"] == material.law, name


@pytest.mark.parametrize("radius", [SERIES_RADIUS, SHORT_RADIUS])
def test_dough_changes_its_formula_without_a_seam(radius):
    rng = np.random.default_rng(2)
    direction = np.array([1.0, 0.0, -1.0]) / np.sqrt(2.0)
    # |Z| is close to |dev e| here; sample densely around the switch and look for a jump in tau.
    radii = np.linspace(radius * 0.97, radius * 1.03, 4001)
    frames = np.repeat(rotations(rng, 1), len(radii), axis=0)
    F = np.einsum("nij,nj,nkj->nik", frames, np.exp(radii[:, None] * direction), frames)
    F_new, tau = apply_law(FLOAT64, "dough", F)
    F_ref, tau_ref = numpy_law("dough", F)
    assert np.abs(tau - tau_ref).max() / (2 * MU) < 3e-8
    assert np.abs(F_new - F_ref).max() < 3e-8


@pytest.mark.parametrize("name", list(MATERIALS))
def test_float32_gradient_agrees_with_float64(name):
    rng = np.random.default_rng(3)
    for kind in KINDS[name]:
        F = with_stretches(rng, stretches_of(kind, rng, 200)).astype(np.float32)
        F_bar, tau_bar = rng.normal(size=(2, *F.shape)).astype(np.float32)
        tau_bar /= np.float32(2 * MU)
        single, _ = apply_adjoint(FLOAT32, name, F, F_bar, tau_bar)
        double, _ = apply_adjoint(FLOAT64, name, *(a.astype(np.float64) for a in (F, F_bar, tau_bar)))
        size = np.linalg.norm(double, axis=(1, 2))
        error = np.linalg.norm(single - double, axis=(1, 2)) / np.maximum(size, np.median(size))
        assert np.median(error) < 1e-5, kind
        # The yield surface itself is a kink: points within round-off of it may fall on either side.
        assert np.quantile(error, 0.9) < 1e-3, kind


@pytest.mark.parametrize("name", list(MATERIALS))
@pytest.mark.parametrize("determinant", [-0.3, 0.0, 1e-4])
def test_collapsed_and_inverted_particles_are_survived(name, determinant):
    rng = np.random.default_rng(4)
    F = with_stretches(rng, np.tile([1.2, 0.9, determinant], (20, 1)))
    F_new, tau = apply_law(FLOAT32, name, F.astype(np.float32))
    grad, constants = apply_adjoint(FLOAT32, name, *(np.asarray(a, np.float32) for a in (F, F, F)))
    for array in (F_new, tau, grad, constants):
        assert np.isfinite(array).all()
    assert np.abs(grad).max() < 1e7


@pytest.mark.parametrize("name", list(MATERIALS))
def test_stress_turns_with_the_material(name):
    rng = np.random.default_rng(5)
    F = with_stretches(rng, stretches_of("elastic", rng, 50))
    R = rotations(rng, 50)
    _, tau = apply_law(FLOAT64, name, F)
    _, turned = apply_law(FLOAT64, name, R @ F)
    np.testing.assert_allclose(turned, R @ tau @ np.swapaxes(R, 1, 2), atol=1e-9 * MU)


@pytest.mark.parametrize("name", ["dough", "neo_hookean", "corotated"])
def test_small_strain_is_linear_elasticity(name):
    strain = 1e-5 * np.array([[1.0, 0.4, -0.2], [0.4, -0.5, 0.3], [-0.2, 0.3, 0.7]])
    _, tau = apply_law(FLOAT64, name, (np.eye(3) + strain)[None])
    expected = 2 * MU * strain + LAM * np.trace(strain) * np.eye(3)
    np.testing.assert_allclose(tau[0], expected, rtol=1e-3, atol=1e-4 * MU * 1e-5)


def deviator(tau):
    return tau - np.trace(tau, axis1=1, axis2=2)[:, None, None] / 3 * np.eye(3)


def test_dough_never_holds_more_than_its_yield_stress():
    rng = np.random.default_rng(6)
    F = with_stretches(rng, np.exp(0.3 * rng.normal(size=(500, 3))))
    _, tau = apply_law(FLOAT64, "dough", F)
    assert np.linalg.norm(deviator(tau), axis=(1, 2)).max() <= YIELD * (1 + 1e-6)


def test_sand_stays_in_its_cone_and_bears_no_more_tension_than_its_cohesion():
    rng = np.random.default_rng(7)
    F = with_stretches(rng, np.exp(0.1 * rng.normal(size=(500, 3))))
    _, tau = apply_law(FLOAT64, "sand", F)
    friction, cohesion = row("sand")[4:6]
    tension = (3 * LAM + 2 * MU) * cohesion
    pressure = tension - np.trace(tau, axis1=1, axis2=2) / 3
    assert (pressure > -1e-9 * MU).all()
    # |dev tau| <= alpha (3 lambda + 2 mu) (-(tr e' - 3 c)), and the mean stress is (lambda + 2 mu / 3) tr e'.
    assert (
        np.linalg.norm(deviator(tau), axis=(1, 2)) <= friction * 3 * pressure * (1 + 1e-6) + 1e-9 * MU
    ).all()


def test_sand_without_cohesion_and_pulled_apart_has_no_stress():
    constants = row("sand")
    constants[5] = 0.0
    F = np.diag([1.03, 1.01, 1.0])[None]
    F_new, tau = apply_law(FLOAT64, "sand", F, constants)
    np.testing.assert_allclose(tau, 0.0, atol=1e-9 * MU)
    np.testing.assert_allclose(F_new, np.eye(3)[None], atol=1e-9)


def test_fluid_keeps_only_its_volume():
    rng = np.random.default_rng(8)
    F = np.eye(3) + 0.1 * rng.normal(size=(100, 3, 3))
    F_new, _ = apply_law(FLOAT64, "fluid", F)
    np.testing.assert_allclose(F_new, np.cbrt(np.linalg.det(F))[:, None, None] * np.eye(3), atol=1e-12)


def test_constants_out_of_range_are_refused_by_name():
    with pytest.raises(ValueError, match=r"poisson must be in \[0, 0.5\), got 0.5"):
        NeoHookean(young=1.0, poisson=0.5, density=1.0)
    with pytest.raises(ValueError, match="yield_stress must be > 0, got 0"):
        Dough(**ELASTIC, yield_stress=0.0)
    with pytest.raises(ValueError, match=r"friction_angle_deg must be in \(0, 90\), got 95"):
        Sand(**ELASTIC, friction_angle_deg=95.0)
    with pytest.raises(ValueError, match=r"cohesion must be >= 0, got -0\.1"):
        Sand(**ELASTIC, cohesion=-0.1)
