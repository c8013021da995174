"""Forces against energies that are written down here a second time, and what forces must conserve."""

import numpy as np
import pytest
from soft_bodies import GAINS, ControlStep, model, start

from rewarped_sim.engine.fem.model import Ground

DT = 1.0e-5
"""Of the one substep whose change of velocity tells the force."""


def forces(soft, state, activation):
    before, after = ControlStep(soft)(state[None], activation[None])[:, 0]
    return soft.masses[:, None] * ((after - before)[:, 3:] / soft.dt_s - soft.gravity)


def deformation(soft, positions):
    """Gradient of the map from the rest shape, from the two shapes' edges alone: (tets, 3, 3)."""

    def edge_matrix(x):
        return np.stack([x[soft.tets[:, k]] - x[soft.tets[:, 0]] for k in (1, 2, 3)], axis=2)

    return edge_matrix(positions) @ np.linalg.inv(edge_matrix(soft.vertices))


def rest_volumes(soft):
    a, b, c, d = (soft.vertices[soft.tets[:, k]] for k in range(4))
    return np.einsum("ti,ti->t", np.cross(b - a, c - a), d - a) / 6.0


def energy(soft, positions, activation):
    F = deformation(soft, positions)
    invariant, J = (F**2).sum(axis=(1, 2)), np.linalg.det(F)
    alpha = 1.0 + soft.mu / soft.lam - soft.mu / (4.0 * soft.lam)
    density = soft.mu / 2.0 * (invariant - 3.0 - np.log(invariant + 1.0))
    return (rest_volumes(soft) * (density + soft.lam / 2.0 * (J - alpha + activation) ** 2)).sum()


def dissipation(soft, positions, velocities):
    """Half the power that damping takes: of the deformation's rate, and of the volume's by a difference in time."""
    rate = deformation(soft, velocities)
    ahead, behind = (np.linalg.det(deformation(soft, positions + s * velocities)) for s in (1e-5, -1e-5))
    volume_rate = (ahead - behind) / 2e-5
    return soft.damping / 2.0 * (rest_volumes(soft) * ((rate**2).sum(axis=(1, 2)) + volume_rate**2)).sum()


def minus_slope(function, at, eps):
    slope = np.zeros_like(at)
    for index in np.ndindex(at.shape):
        step = np.zeros_like(at)
        step[index] = eps
        slope[index] = (function(at + step) - function(at - step)) / (2.0 * eps)
    return -slope


def test_elastic_forces_are_the_slope_of_the_energy():
    soft = model(dt=DT, damping=0.0)
    state, activation = start(soft)
    state, activation = state[0], activation[0]
    expected = minus_slope(lambda x: energy(soft, x, activation), state[:, :3], 1e-6)
    assert np.abs(expected).max() > 1.0
    np.testing.assert_allclose(forces(soft, state, activation), expected, atol=1e-7 * np.abs(expected).max())


def test_damping_forces_are_the_slope_of_the_dissipated_power():
    soft, undamped = model(dt=DT), model(dt=DT, damping=0.0)
    state, activation = start(soft)
    state, activation = state[0], activation[0]
    damping = forces(soft, state, activation) - forces(undamped, state, activation)
    expected = minus_slope(lambda v: dissipation(soft, state[:, :3], v), state[:, 3:], 1e-4)
    np.testing.assert_allclose(damping, expected, atol=1e-7 * np.abs(expected).max())


def test_the_rest_shape_is_free_of_forces_and_an_activation_pulls_it_together():
    soft = model(dt=DT)
    state, activation = start(soft, strain=0.0, speed=0.0)
    np.testing.assert_allclose(forces(soft, state[0], 0.0 * activation[0]), 0.0, atol=1e-9)
    pulled = forces(soft, state[0], np.full(soft.num_tets, 0.1))
    outwards = state[0, :, :3] - state[0, :, :3].mean(axis=0)
    assert (pulled * outwards).sum() < -0.1


def test_a_body_in_free_fall_falls_as_symplectic_euler_does():
    substeps, dt = 40, 2.0e-4
    soft = model(substeps=substeps, dt=dt)
    state, activation = start(soft, strain=0.0, speed=0.0)
    last = ControlStep(soft)(state, 0.0 * activation)[-1, 0]
    time = substeps * dt
    np.testing.assert_allclose(last[:, 5], -9.81 * time, rtol=1e-12)
    np.testing.assert_allclose(
        last[:, 2] - state[0, :, 2], -9.81 * dt**2 * substeps * (substeps + 1) / 2.0, rtol=1e-9
    )
    np.testing.assert_allclose(last[:, [0, 1, 3, 4]], state[0][:, [0, 1, 3, 4]], atol=1e-12)


def test_momentum_is_conserved_in_free_flight():
    soft = model(substeps=64, gravity=(0.0, 0.0, 0.0))
    state, activation = start(soft)
    states = ControlStep(soft)(state, activation)[:, 0]
    momentum = (soft.masses[:, None] * states[..., 3:]).sum(axis=1)
    np.testing.assert_allclose(momentum[-1], momentum[0], rtol=1e-12)


def test_angular_momentum_is_conserved_without_damping():
    # Published damping acts on the rate of F, which a rotation has as well: with it, spin is lost.
    soft = model(substeps=64, gravity=(0.0, 0.0, 0.0), damping=0.0)
    state, activation = start(soft)
    states = ControlStep(soft)(state, activation)[:, 0]
    spin = (soft.masses[:, None] * np.cross(states[..., :3], states[..., 3:])).sum(axis=1)
    np.testing.assert_allclose(spin[-1], spin[0], rtol=1e-11)


def test_energy_of_an_undamped_body_stays_within_the_first_order_of_the_substep():
    def drift(dt):
        soft = model(substeps=round(0.05 / dt), dt=dt, gravity=(0.0, 0.0, 0.0), damping=0.0)
        state, activation = start(soft)
        states = ControlStep(soft)(state, 0.0 * activation)[:, 0]
        rest = energy(soft, soft.vertices, 0.0)
        total = [
            energy(soft, one[:, :3], 0.0) - rest + 0.5 * (soft.masses[:, None] * one[:, 3:] ** 2).sum()
            for one in states[:: len(states) // 16]
        ]
        return np.ptp(total) / total[0]

    coarse, fine = drift(2.0e-4), drift(1.0e-4)
    assert coarse < 0.05
    assert fine < 0.6 * coarse


def contact_force(law, *, depth, velocity, damping=5.0):
    """Force of the ground per vertex on a body that only moves; all its vertices are at the same height."""
    gains = GAINS | {"damping": damping, "law": law}
    soft, free = (
        model(dt=DT, damping=0.0, vertex_radius=10.0, ground=Ground(**gains)),
        model(dt=DT, damping=0.0),
    )
    state, activation = start(soft, strain=0.0, speed=0.0, height=10.0 - depth)
    state[..., 3:] = velocity
    state, activation = state[0], 0.0 * activation[0]
    depths = np.maximum(10.0 - state[:, 2], 0.0)
    return depths, forces(soft, state, activation) - forces(free, state, activation)


@pytest.mark.parametrize("velocity", [(0.5, -0.2, -0.4), (0.001, 0.0, 0.3), (3.0, 4.0, -1.0)])
def test_contact_follows_the_published_law(velocity):
    depths, force = contact_force("published", depth=0.02, velocity=velocity)
    touching = depths > 0.0
    normal = 2.0e3 * depths + touching * 5.0 * max(-velocity[2], 0.0)
    slip = np.array(velocity[:2])
    friction = -np.outer(np.minimum(10.0, 0.7 * normal / np.linalg.norm(slip)), slip)
    assert 0 < touching.sum() < len(touching)
    np.testing.assert_allclose(force, np.column_stack([friction, normal]), atol=1e-7)


@pytest.mark.parametrize("velocity", [(0.5, -0.2, -0.4), (0.001, 0.0, 0.3), (3.0, 4.0, -1.0)])
def test_contact_follows_the_regularized_law(velocity):
    depths, force = contact_force("regularized", depth=0.02, velocity=velocity)
    normal = depths * (2.0e3 + 5.0 * max(-velocity[2], 0.0))
    slip = np.array(velocity[:2])
    friction = -np.outer(np.minimum(10.0, 0.7 * normal / np.hypot(np.linalg.norm(slip), 1e-3)), slip)
    np.testing.assert_allclose(force, np.column_stack([friction, normal]), atol=1e-7)
