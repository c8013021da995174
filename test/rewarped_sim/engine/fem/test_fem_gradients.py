"""Adjoints of whole control steps against central differences in float64, and the batch against its members."""

import numpy as np
import pytest
from soft_bodies import GROUND, PUBLISHED_GROUND, ControlStep, model, start

from rewarped_sim.engine.scalars import FLOAT32, FLOAT64

GROUNDS = {"air": None, "regularized": GROUND, "published": PUBLISHED_GROUND}


def scene(where, substeps):
    soft = model(substeps=substeps, ground=GROUNDS[where])
    # Lower vertices are in the ground, and slide on it: above it as below, none is where a law has a kink.
    height = 0.5 if where == "air" else 0.0
    state, activation = start(soft, height=height, strain=0.05)
    weights = np.random.default_rng(2).normal(size=state.shape)
    return soft, state, activation, weights


@pytest.mark.parametrize("substeps", [1, 16, 64])
@pytest.mark.parametrize("where", GROUNDS)
def test_gradients_equal_central_differences(where, substeps):
    soft, state, activation, weights = scene(where, substeps)
    step = ControlStep(soft)

    def loss(x, a):
        return (step(x, a)[-1] * weights).sum()

    touched = (step(state, activation)[:, 0, :, 2] < soft.vertex_radius).any(axis=0)
    assert touched.any() == (where != "air")
    state_bar, activation_bar = step.gradient(weights)
    rng = np.random.default_rng(3)
    for part in (slice(0, 3), slice(3, 6)):
        for direction in (state_bar[..., part], rng.normal(size=state_bar[..., part].shape)):
            way = np.zeros_like(state)
            way[..., part] = direction / np.linalg.norm(direction)
            eps = 1e-6
            difference = (loss(state + eps * way, activation) - loss(state - eps * way, activation)) / (
                2 * eps
            )
            assert abs((state_bar * way).sum() - difference) < 1e-6 * np.linalg.norm(state_bar[..., part])
    for direction in (activation_bar, rng.normal(size=activation_bar.shape)):
        way, eps = direction / np.linalg.norm(direction), 1e-4
        difference = (loss(state, activation + eps * way) - loss(state, activation - eps * way)) / (2 * eps)
        assert abs((activation_bar * way).sum() - difference) < 1e-6 * np.linalg.norm(activation_bar)


@pytest.mark.parametrize(
    ("where", "substeps"),
    [("air", 64), ("published", 64), ("regularized", 64), ("regularized", 32 * 80)],  # 32 control steps
)
def test_single_precision_gradients_are_those_of_double_precision(where, substeps):
    soft, state, activation, weights = scene(where, substeps)
    bars = {}
    for scalars in (FLOAT32, FLOAT64):
        step = ControlStep(soft, scalars=scalars)
        step(state, activation)
        bars[scalars.numpy] = step.gradient(weights)
    for single, double in zip(bars[np.float32], bars[np.float64], strict=True):
        assert np.linalg.norm(single - double) < 1e-3 * np.linalg.norm(double)


@pytest.mark.parametrize("num_threads", [1, 3])
def test_a_batch_is_bit_for_bit_its_environments_alone(num_threads):
    num_envs = 37  # neither one register full nor a multiple of it
    soft = model(substeps=8, ground=GROUND)
    state, activation = start(soft, num_envs=num_envs, height=0.0, strain=0.05)
    weights = np.random.default_rng(2).normal(size=state.shape)
    batch = ControlStep(soft, num_envs=num_envs, scalars=FLOAT32, num_threads=num_threads)
    states = batch(state, activation)
    state_bar, activation_bar = batch.gradient(weights)
    alone = ControlStep(soft, scalars=FLOAT32)
    for env in (0, 15, 16, 36):
        one = slice(env, env + 1)
        np.testing.assert_array_equal(alone(state[one], activation[one]), states[:, one])
        own_state_bar, own_activation_bar = alone.gradient(weights[one])
        np.testing.assert_array_equal(own_state_bar, state_bar[one])
        np.testing.assert_array_equal(own_activation_bar, activation_bar[one])


def test_an_environment_that_breaks_leaves_the_others_alone():
    soft = model(substeps=4, ground=GROUND)
    state, activation = start(soft, num_envs=3)
    step = ControlStep(soft, num_envs=3)
    weights = np.ones_like(state)
    healthy, healthy_bar = step(state, activation)[-1], step.gradient(weights)[0]
    state[1, 0, 0] = np.nan
    broken, broken_bar = step(state, activation)[-1], step.gradient(weights)[0]
    assert np.isnan(broken[1]).any()
    for env in (0, 2):
        np.testing.assert_array_equal(broken[env], healthy[env])
        np.testing.assert_array_equal(broken_bar[env], healthy_bar[env])


def test_a_solver_without_gradient_refuses_to_go_back():
    from rewarped_sim.engine.fem.solver import FemSolver

    solver = FemSolver(model(), num_envs=1, num_slots=1, requires_grad=False)
    with pytest.raises(RuntimeError, match="requires_grad=False"):
        solver.backward(0)
