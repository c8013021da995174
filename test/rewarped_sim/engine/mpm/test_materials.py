"""Every material law against an independent NumPy oracle, every adjoint against central differences in float64."""

from functools import cache

import numpy as np
import pytest
import warp as wp

from rewarped_sim.engine.mpm.fluid import fluid_functions
from rewarped_sim.engine.mpm.von_mises import SERIES_RADIUS, von_mises_functions
from rewarped_sim.engine.scalars import FLOAT32, FLOAT64

MU, LAM, YIELD = 2083.0, 1389.0, 50.0
YIELD_STRAIN = YIELD / (2.0 * MU)


@cache
def law_kernels(scalars, name):
    """Kernels that apply one law, and its adjoint, to a list of deformation gradients."""
    real, mat33 = scalars.real, scalars.mat33
    if name == "dough":
        law, law_adj = von_mises_functions(scalars).law, von_mises_functions(scalars).law_adj

        @wp.kernel(module="unique", enable_backward=False)
        def forward(F: wp.array(dtype=mat33), F_new: wp.array(dtype=mat33), tau: wp.array(dtype=mat33)):
            i = wp.tid()
            a, b = law(F[i], real(MU), real(LAM), real(YIELD))
            F_new[i] = a
            tau[i] = b

        @wp.kernel(module="unique", enable_backward=False)
        def backward(
            F: wp.array(dtype=mat33), F_bar: wp.array(dtype=mat33), tau_bar: wp.array(dtype=mat33),
            out: wp.array(dtype=mat33),
        ):  # fmt: skip
            i = wp.tid()
            out[i] = law_adj(F[i], real(MU), real(LAM), real(YIELD), F_bar[i], tau_bar[i])

    else:
        fluid_law, fluid_law_adj = fluid_functions(scalars).law, fluid_functions(scalars).law_adj

        @wp.kernel(module="unique", enable_backward=False)
        def forward(F: wp.array(dtype=mat33), F_new: wp.array(dtype=mat33), tau: wp.array(dtype=mat33)):
            i = wp.tid()
            a, b = fluid_law(F[i], real(LAM))
            F_new[i] = a
            tau[i] = b

        @wp.kernel(module="unique", enable_backward=False)
        def backward(
            F: wp.array(dtype=mat33), F_bar: wp.array(dtype=mat33), tau_bar: wp.array(dtype=mat33),
            out: wp.array(dtype=mat33),
        ):  # fmt: skip
            i = wp.tid()
            out[i] = fluid_law_adj(F[i], real(LAM), F_bar[i], tau_bar[i])

    return forward, backward


def apply_law(scalars, name, F):
    forward, _ = law_kernels(scalars, name)
    out = [wp.full(len(F), np.nan, dtype=scalars.mat33, device="cpu") for _ in range(2)]
    wp.launch(forward, len(F), [wp.array(F, dtype=scalars.mat33, device="cpu"), *out], device="cpu")
    return out[0].numpy(), out[1].numpy()


def apply_adjoint(scalars, name, F, F_bar, tau_bar):
    _, backward = law_kernels(scalars, name)
    out = wp.full(len(F), np.nan, dtype=scalars.mat33, device="cpu")
    inputs = [wp.array(a, dtype=scalars.mat33, device="cpu") for a in (F, F_bar, tau_bar)]
    wp.launch(backward, len(F), [*inputs, out], device="cpu")
    return out.numpy()


def numpy_dough(F):
    """The law as written in the facts: NumPy's SVD, float64."""
    U, s, Vt = np.linalg.svd(F)
    e = np.log(s)
    d = e - e.mean(-1, keepdims=True)
    n = np.linalg.norm(d, axis=-1, keepdims=True) + 1e-5
    k = np.maximum(n - YIELD_STRAIN, 0.0) / n
    e = e - k * d
    F_new = np.where(k[..., None] > 0, np.einsum("nij,nj,njk->nik", U, np.exp(e), Vt), F)
    t = 2 * MU * e + LAM * e.sum(-1, keepdims=True)
    return F_new, np.einsum("nij,nj,nkj->nik", U, t, U)


def central_differences(scalars, name, F, F_bar, tau_bar, eps=1e-6):
    grad = np.zeros_like(F)
    for a in range(3):
        for b in range(3):
            step = np.zeros((3, 3))
            step[a, b] = eps
            high, low = apply_law(scalars, name, F + step), apply_law(scalars, name, F - step)
            grad[:, a, b] = (
                ((high[0] - low[0]) * F_bar).sum((1, 2)) + ((high[1] - low[1]) * tau_bar).sum((1, 2))
            ) / (2 * eps)
    return grad


def rotations(rng, count):
    Q = np.linalg.qr(rng.normal(size=(count, 3, 3)))[0]
    return Q * np.sign(np.linalg.det(Q))[:, None, None]


def with_stretches(rng, stretches):
    """Deformation gradients with these singular values, in random frames."""
    count = len(stretches)
    return np.einsum("nij,nj,nkj->nik", rotations(rng, count), stretches, rotations(rng, count))


def stretches_of(kind, rng, count):
    """Log-stretches by name; the share that yields is checked where the name promises it."""
    gap = {"repeated": 0.0, "gap 1e-8": 1e-8, "gap 1e-6": 1e-6, "gap 1e-3": 1e-3}.get(kind)
    volume = rng.uniform(-0.02, 0.02, (count, 1))
    if gap is not None:
        base = rng.uniform(-0.003, 0.003, (count, 1)) * np.array([1.0, 1.0, -2.0])
        return np.exp(volume + base + gap * np.array([1.0, 0.0, 0.0]))
    deviator = rng.normal(size=(count, 3))
    deviator -= deviator.mean(-1, keepdims=True)
    deviator /= np.linalg.norm(deviator, axis=-1, keepdims=True)
    radius = {
        "elastic": 0.8 * YIELD_STRAIN,
        "just below yield": YIELD_STRAIN * (1 - 2e-3) - 1e-5,
        "just above yield": YIELD_STRAIN * (1 + 2e-3) - 1e-5,
        "plastic": 0.08,
        "large": 0.4,
    }[kind]
    return np.exp(volume + radius * deviator)


KINDS = [
    "repeated", "gap 1e-8", "gap 1e-6", "gap 1e-3", "elastic", "just below yield", "just above yield", "plastic",
    "large",
]  # fmt: skip


@pytest.mark.parametrize("kind", KINDS)
def test_dough_follows_the_svd_law(kind):
    rng = np.random.default_rng(0)
    F = with_stretches(rng, stretches_of(kind, rng, 200))
    F_new, tau = apply_law(FLOAT64, "dough", F)
    F_ref, tau_ref = numpy_dough(F)
    np.testing.assert_allclose(F_new, F_ref, atol=2e-7)
    np.testing.assert_allclose(tau / (2 * MU), tau_ref / (2 * MU), atol=2e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_dough_adjoint_is_the_derivative_of_the_law(kind):
    rng = np.random.default_rng(1)
    F = with_stretches(rng, stretches_of(kind, rng, 100))
    F_bar = rng.normal(size=F.shape)
    tau_bar = rng.normal(size=F.shape) / (2 * MU)
    grad = apply_adjoint(FLOAT64, "dough", F, F_bar, tau_bar)
    expected = central_differences(FLOAT64, "dough", F, F_bar, tau_bar)
    error = np.linalg.norm(grad - expected, axis=(1, 2)) / np.linalg.norm(expected, axis=(1, 2))
    assert error.max() < 1e-7


def test_dough_switches_to_singular_values_without_a_seam():
    rng = np.random.default_rng(2)
    direction = np.array([1.0, 0.0, -1.0]) / np.sqrt(2.0)
    # |Z| is close to |dev e| here; sample densely around the switch and look for a jump in tau.
    radii = np.linspace(SERIES_RADIUS * 0.99, SERIES_RADIUS * 1.02, 4001)
    frames = np.repeat(rotations(rng, 1), len(radii), axis=0)
    F = np.einsum("nij,nj,nkj->nik", frames, np.exp(radii[:, None] * direction), frames)
    _, tau = apply_law(FLOAT64, "dough", F)
    _, tau_ref = numpy_dough(F)
    assert np.abs(tau - tau_ref).max() / (2 * MU) < 3e-8


def test_dough_float32_gradient_agrees_with_float64():
    rng = np.random.default_rng(3)
    for kind in KINDS:
        F = with_stretches(rng, stretches_of(kind, rng, 200)).astype(np.float32)
        F_bar, tau_bar = rng.normal(size=(2, *F.shape)).astype(np.float32)
        tau_bar /= np.float32(2 * MU)
        single = apply_adjoint(FLOAT32, "dough", F, F_bar, tau_bar)
        double = apply_adjoint(FLOAT64, "dough", *(a.astype(np.float64) for a in (F, F_bar, tau_bar)))
        error = np.linalg.norm(single - double, axis=(1, 2)) / np.linalg.norm(double, axis=(1, 2))
        assert np.median(error) < 1e-5, kind
        # The yield surface itself is a kink: points within round-off of it may fall on either side.
        assert np.quantile(error, 0.9) < 1e-3, kind


@pytest.mark.parametrize("determinant", [-0.3, 0.0, 1e-4])
def test_dough_survives_collapsed_and_inverted_particles(determinant):
    rng = np.random.default_rng(4)
    F = with_stretches(rng, np.tile([1.2, 0.9, determinant], (20, 1)))
    F_new, tau = apply_law(FLOAT32, "dough", F.astype(np.float32))
    grad = apply_adjoint(FLOAT32, "dough", *(np.asarray(a, np.float32) for a in (F, F, F)))
    for array in (F_new, tau, grad):
        assert np.isfinite(array).all()
    assert np.abs(grad).max() < 1e7


def test_fluid_keeps_only_volume_and_presses_isotropically():
    rng = np.random.default_rng(5)
    F = np.eye(3) + 0.1 * rng.normal(size=(100, 3, 3))
    F_new, tau = apply_law(FLOAT64, "fluid", F)
    J = np.linalg.det(F)
    np.testing.assert_allclose(F_new, np.cbrt(J)[:, None, None] * np.eye(3), atol=1e-12)
    np.testing.assert_allclose(tau, (LAM * J * (J - 1))[:, None, None] * np.eye(3), atol=1e-9)


def test_fluid_adjoint_is_the_derivative_of_the_law():
    rng = np.random.default_rng(6)
    F = np.eye(3) + 0.1 * rng.normal(size=(100, 3, 3))
    F_bar = rng.normal(size=F.shape)
    tau_bar = rng.normal(size=F.shape) / LAM
    grad = apply_adjoint(FLOAT64, "fluid", F, F_bar, tau_bar)
    expected = central_differences(FLOAT64, "fluid", F, F_bar, tau_bar)
    # One scalar, J_bar, carries the whole gradient and may cancel to nothing: compare with its usual size.
    size = np.linalg.norm(expected, axis=(1, 2))
    error = np.linalg.norm(grad - expected, axis=(1, 2)) / np.maximum(size, np.median(size))
    assert error.max() < 1e-7


def test_fluid_survives_negative_volume():
    F = np.diag([1.0, 1.0, -0.5])[None].astype(np.float32)
    F_new, tau = apply_law(FLOAT32, "fluid", F)
    grad = apply_adjoint(FLOAT32, "fluid", F, F, F)
    assert np.isfinite(F_new).all()
    assert np.isfinite(tau).all()
    assert (grad == 0).all()
