"""Adjoints of the articulation engine against central differences in float64."""

import numpy as np
import pytest
from systems import (
    GROUND,
    INPUTS,
    creature,
    gradients,
    make_solver,
    random_inputs,
    run,
    substeps,
    window_gradients,
)

from rewarped_sim.assets.ant import START_JOINTS, ant, ant_run
from rewarped_sim.assets.hopper import hopper
from rewarped_sim.engine.articulation.model import CONTACT_LAWS
from rewarped_sim.engine.articulation.parameters import default_parameters
from rewarped_sim.engine.scalars import FLOAT32, FLOAT64

STEPS = {"joint_f": 1e-3, "joint_target": 1e-3, "activation": 1e-3}
"""Differences by inputs in which a substep is linear are taken over a longer way: less round-off."""
TOUCHING = 0.2
"""Height of the creature's root at which several of its shapes press into the ground [m]."""


def differences(solver, inputs, weights, name):
    """Central differences of sum(weights * result) by one input, (num_envs, n)."""
    slopes = np.zeros_like(inputs[name])
    for j in range(slopes.shape[1]):
        step = STEPS.get(name, 1e-6) * max(1.0, np.abs(inputs[name][:, j]).max())
        sums = []
        for side in (1.0, -1.0):
            moved = inputs[name].copy()
            moved[:, j] += side * step
            q, qd = run(solver, inputs | {name: moved})
            sums.append((weights[0] * q).sum(axis=1) + (weights[1] * qd).sum(axis=1))
        slopes[:, j] = (sums[0] - sums[1]) / (2.0 * step)
    return slopes


def weights_for(model, rng, num_envs):
    return rng.normal(size=(num_envs, model.num_coordinates)), rng.normal(size=(num_envs, model.num_dofs))


def assert_gradients_match(model, *, height=None, seed=1):
    rng = np.random.default_rng(seed)
    solver = make_solver(model, num_envs=2)
    inputs = random_inputs(model, rng, 2, height=height)
    weights = weights_for(model, rng, 2)
    found = gradients(solver, inputs, weights)
    for name in INPUTS:
        expected = differences(solver, inputs, weights, name)
        assert np.linalg.norm(expected) > 0.0, name
        assert np.linalg.norm(found[name] - expected) < 1e-6 * np.linalg.norm(expected), name


@pytest.mark.parametrize("count", [1, 16, 64])
def test_gradients_in_the_air_match_differences(count):
    assert_gradients_match(substeps(creature(), count))


@pytest.mark.parametrize("count", [1, 16, 64])
def test_gradients_on_the_ground_match_differences(count):
    assert_gradients_match(substeps(creature(ground=GROUND), count), height=TOUCHING)


@pytest.mark.parametrize("law", CONTACT_LAWS)
def test_every_contact_law_has_its_gradients(law):
    assert_gradients_match(substeps(creature(ground=GROUND, contact_law=law), 4), height=TOUCHING)


def test_a_root_made_of_slides_has_its_gradients():
    assert_gradients_match(substeps(creature(root="planar", ground=GROUND), 16))


def test_contact_and_mass_have_gradients_of_their_own():
    model = substeps(creature(ground=GROUND), 4)
    rng = np.random.default_rng(0)
    solver = make_solver(model)
    inputs, weights = random_inputs(model, rng, 1, height=TOUCHING), weights_for(model, rng, 1)
    bar = gradients(solver, inputs, weights)["parameters"][0]
    assert np.all(bar[:3] != 0.0)  # gravity
    assert np.all(bar[3:7] != 0.0)  # contact
    assert np.all(bar[7:11] != 0.0)  # masses; the welded fifth body follows the fourth
    assert bar[11] == 0.0


def test_float32_gradients_agree_with_float64_over_a_window():
    model = substeps(creature(ground=GROUND), 8)
    rng = np.random.default_rng(3)
    inputs, weights = random_inputs(model, rng, 2, height=0.5), weights_for(model, rng, 2)
    inputs["joint_f"] *= 0.2
    exact, single = (window_gradients(model, inputs, weights, 32, scalars) for scalars in (FLOAT64, FLOAT32))
    for name in INPUTS:
        assert np.linalg.norm(single[name] - exact[name]) < 1e-3 * np.linalg.norm(exact[name]), name


def test_a_world_is_not_touched_by_its_neighbours_nor_by_threads():
    model = substeps(creature(ground=GROUND), 8)
    rng = np.random.default_rng(4)
    inputs, weights = random_inputs(model, rng, 5, height=TOUCHING), weights_for(model, rng, 5)
    together = gradients(make_solver(model, num_envs=5, scalars=FLOAT32, num_threads=3), inputs, weights)
    for w in range(5):
        alone = gradients(
            make_solver(model, scalars=FLOAT32),
            {name: value[w : w + 1] for name, value in inputs.items()},
            [weight[w : w + 1] for weight in weights],
        )
        for name in INPUTS:
            assert np.array_equal(alone[name][0], together[name][w]), name


def test_backward_needs_a_solver_with_adjoints():
    with pytest.raises(RuntimeError, match="requires_grad=False"):
        make_solver(creature(), requires_grad=False).backward(0)


@pytest.mark.parametrize(
    ("model", "joints"),
    [(ant(contact_law="regularized"), START_JOINTS), (ant_run(), START_JOINTS), (hopper(), None)],
    ids=["ant, regularized", "ant_run", "hopper"],
)
def test_float32_gradients_hold_over_32_control_steps_of_robots(model, joints):
    """Dropped to the ground under random torques, through touch-downs: what a policy's window looks like."""
    rng = np.random.default_rng(0)
    q = np.tile(model.start_q(), (4, 1))
    root = model.num_dofs - len(joints or range(3))
    if joints:
        q[:, 2], q[:, 7:] = 0.55, joints
    q += 0.02 * rng.normal(size=q.shape)
    if joints:
        q[:, 3:7] /= np.linalg.norm(q[:, 3:7], axis=1, keepdims=True)
    force = 10.0 * rng.normal(size=(4, model.num_dofs))
    force[:, :root] = 0.0
    inputs = {
        "joint_q": q,
        "joint_qd": 0.1 * rng.normal(size=(4, model.num_dofs)),
        "joint_f": force,
        "parameters": np.tile(default_parameters(model), (4, 1)),
    }
    weights = weights_for(model, rng, 4)
    exact, single = (window_gradients(model, inputs, weights, 32, scalars) for scalars in (FLOAT64, FLOAT32))
    for name in inputs:
        errors = np.linalg.norm(single[name] - exact[name], axis=1) / np.linalg.norm(exact[name], axis=1)
        assert errors.max() < 1e-3, name
