import numpy as np
import pytest
from soft_bodies import GROUND, ControlStep, brick, model, start

from rewarped_sim.engine.fem.mesh import boundary_triangles, neighbours, signed_volumes
from rewarped_sim.engine.fem.model import FemModel, Ground
from rewarped_sim.engine.fem.solver import FemSolver


def test_volumes_and_masses_add_up_to_those_of_the_brick():
    vertices, tets = brick(size=(3, 2, 1), cell=0.5, irregular=0.0)
    soft = model(vertices=vertices, tets=tets, density=8.0)
    assert signed_volumes(vertices, tets).sum() == pytest.approx(6 * 0.125)
    assert soft.masses.sum() == pytest.approx(8.0 * 6 * 0.125)
    # A vertex in the middle of an edge of the brick weighs more than a corner that two tetrahedra meet at.
    assert soft.masses.min() == pytest.approx(8.0 * 2 * 0.125 / 6 / 4)


def test_the_boundary_is_closed_and_looks_outwards():
    vertices, tets = brick(size=(3, 2, 1), cell=0.5, irregular=0.1)
    triangles = boundary_triangles(tets)
    assert len(triangles) == 2 * 2 * (3 * 2 + 3 * 1 + 2 * 1)
    a, b, c = (vertices[triangles[:, k]] for k in range(3))
    # Divergence theorem: what the surface encloses is the volume of the tetrahedra.
    enclosed = np.einsum("ti,ti->t", a, np.cross(b, c)).sum() / 6.0
    assert enclosed == pytest.approx(signed_volumes(vertices, tets).sum())
    np.testing.assert_allclose(np.cross(b - a, c - a).sum(axis=0), 0.0, atol=1e-12)


def test_neighbours_share_a_face():
    _, tets = brick(size=(1, 1, 1))
    for index, others in enumerate(neighbours(tets)):
        shared = [len(np.intersect1d(tets[index], tet)) for tet in tets]
        assert others == [i for i, count in enumerate(shared) if count == 3]


def test_models_do_not_follow_the_arrays_that_they_were_made_of():
    vertices, tets = brick()
    soft = model(vertices=vertices, tets=tets)
    vertices[:] = 0.0
    assert soft.volumes.min() > 0.0
    with pytest.raises(ValueError, match="read-only"):
        soft.vertices[0, 0] = 1.0


def flipped(tets, at):
    tets = tets.copy()
    tets[at, :2] = tets[at, 1::-1]
    return tets


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (lambda v, t: {"tets": flipped(t, 3)}, r"tets\[3\] .* is inside out"),
        (lambda v, t: {"vertices": v * [1.0, 1.0, 0.0]}, r"is degenerate: 0 m\^3"),
        (lambda v, t: {"tets": t[:, :3]}, r"tets: expected \(m, 4\)"),
        (lambda v, t: {"tets": t + 1}, r"tets: corners are indices in \[0, 12\), got 1 to 12"),
        (lambda v, t: {"vertices": v[:, :2]}, r"vertices: expected finite numbers \(n, 3\)"),
        (lambda v, t: {"vertices": np.vstack([v, v[:1]])}, r"vertices\[12\] belongs to no tetrahedron"),
        (lambda v, t: {"tets": t + 0.5}, "tets: corners are indices, got numbers that are no int32"),
        (lambda v, t: {"mu": 0.0}, "mu must be > 0 and finite, got 0.0"),
        (lambda v, t: {"density": np.inf}, "density must be > 0 and finite, got inf"),
        (lambda v, t: {"damping": -1.0}, "damping must be >= 0 and finite, got -1.0"),
        (lambda v, t: {"vertex_radius": np.inf}, "vertex_radius must be >= 0 and finite, got inf"),
        (lambda v, t: {"gravity": (0.0, np.nan, 0.0)}, "gravity must be finite"),
        (lambda v, t: {"num_substeps": 0}, "num_substeps must be > 0 and finite, got 0"),
        (lambda v, t: {"lam": 1.0e8}, "unstable: waves in the smallest tetrahedra"),
        (
            lambda v, t: {"ground": Ground(stiffness=1e8, damping=0, friction_stiffness=0, friction=0)},
            "unstable: the ground takes",
        ),
        (
            lambda v, t: {"ground": Ground(stiffness=0, damping=0, friction_stiffness=1e3, friction=1)},
            "unstable: the ground takes",
        ),
    ],
)
def test_what_cannot_be_simulated_is_refused_by_name(changes, message):
    vertices, tets = brick()
    with pytest.raises(ValueError, match=message):
        model(**{"vertices": vertices, "tets": tets} | changes(vertices, tets))


def test_an_unknown_law_of_contact_is_refused_with_the_choices():
    with pytest.raises(ValueError, match=r"\['regularized', 'published'\], got 'soft'"):
        Ground(stiffness=1.0, damping=1.0, friction_stiffness=1.0, friction=1.0, law="soft")


def test_a_ground_of_numbers_that_are_none_is_refused():
    with pytest.raises(ValueError, match="ground: friction must be >= 0 and finite, got inf"):
        Ground(stiffness=1.0, damping=1.0, friction_stiffness=1.0, friction=np.inf)


@pytest.mark.parametrize("changes", [{"damping": 0.0}, {"mu": 50.0, "lam": 50.0, "damping": 40.0}])
def test_the_estimate_of_stability_is_safe_and_not_far_off(changes):
    """Energy of a nudged body, with the substep that the estimate allows and with a much longer one."""

    def growth(rate, monkeypatch):
        unit = model(dt=1.0e-9, **changes)
        slopes = (unit.rest_inverse**2).sum(axis=(1, 2)) + (unit.rest_inverse.sum(axis=1) ** 2).sum(axis=1)
        p, q = slopes.max() * (unit.lam + 2 * unit.mu), 4 * slopes.max() * unit.damping
        dt = (-q + np.sqrt(q * q + 4 * p * rate)) / (2 * p)
        monkeypatch.setattr("rewarped_sim.engine.fem.model.MAX_RATE", np.inf)
        soft = model(dt=dt, substeps=200, gravity=(0.0, 0.0, 0.0), **changes)
        assert soft.elastic_rate == pytest.approx(rate)
        state, activation = start(soft, strain=1e-4, speed=0.0)
        states = ControlStep(soft)(state, 0.0 * activation)[:, 0]
        shift = np.abs(states[..., :3] - states[0, :, :3]).max(axis=(1, 2))
        return shift[-1] / 1e-4

    with pytest.MonkeyPatch.context() as monkeypatch:
        assert growth(0.75, monkeypatch) < 10.0
        with np.errstate(all="ignore"):
            assert not growth(8.0, monkeypatch) < 1e3


def test_slots_follow_one_another_as_substeps_do():
    once, twice = model(substeps=8, ground=GROUND), model(substeps=4, ground=GROUND)
    state, activation = start(once, height=0.0, strain=0.05)
    whole = ControlStep(once)
    expected = whole(state, activation)
    weights = np.random.default_rng(0).normal(size=state.shape)
    state_bar, activation_bar = whole.gradient(weights)

    solver = FemSolver(twice, num_envs=1, num_slots=2)
    rows = np.zeros(solver.state.shape, np.float32)
    rows[0] = state
    solver.state.assign(rows)
    solver.activation.assign(np.stack([activation] * 2).astype(np.float32))
    solver.forward(0)
    rows = solver.state.numpy()
    rows[5] = rows[4]
    solver.state.assign(rows)
    solver.forward(1)
    np.testing.assert_allclose(solver.state.numpy()[9], expected[8], rtol=1e-4, atol=1e-5)
    solver.state_bar.assign(weights.astype(np.float32))
    solver.backward(1)
    from_second = solver.activation_bar.numpy().copy()
    solver.backward(0)
    for found, bar in (
        (solver.state_bar.numpy(), state_bar),
        (from_second + solver.activation_bar.numpy(), activation_bar),
    ):
        assert np.linalg.norm(found - bar) < 1e-4 * np.linalg.norm(bar)


def test_the_memory_told_is_what_an_environment_takes():
    soft = model(substeps=5)
    solver = FemSolver(soft, num_envs=16, num_slots=1, num_threads=1)
    assert soft.bytes_per_env_slot == solver.state.size * 4 // 16 + solver.activation.size * 4 // 16


def test_a_model_keeps_its_defaults_apart_from_what_is_given():
    vertices, tets = brick()
    soft = FemModel(
        vertices=vertices, tets=tets, density=2.0, mu=1.0, lam=1.0, control_dt_s=0.01, num_substeps=10
    )
    assert soft.dt_s == pytest.approx(0.001)
    assert soft.ground is None and soft.gravity == (0.0, 0.0, -9.81)
