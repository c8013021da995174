"""Articulations and soft bodies behind the bridge against their own solvers in float64, driven by hand."""

import numpy as np
import pytest
import torch
from systems import GROUND, INPUTS, creature, random_inputs, substeps, window_gradients

import rewarped_sim
from rewarped_sim.engine.articulation.solver import ArticulationSolver, slot_bytes
from rewarped_sim.engine.fem.solver import FemSolver
from rewarped_sim.engine.scalars import FLOAT64
from rewarped_sim.torch_bridge import make_bridge

CPU = torch.device("cpu")
STEPS = 8


def tensors(values, *, requires_grad=False):
    return {
        name: torch.tensor(value, dtype=torch.float32, requires_grad=requires_grad)
        for name, value in values.items()
    }


def relative_error(found, exact):
    return np.linalg.norm(found.double().numpy() - exact) / np.linalg.norm(exact)


@pytest.mark.parametrize("storage", ["store", "recompute"])
def test_every_input_of_an_articulation_has_the_gradient_of_double_precision(storage):
    """Free joint, ball, hinges, slide, muscle, drive and ground, over a window of control steps."""
    model = substeps(creature(ground=GROUND), 8)
    rng = np.random.default_rng(3)
    inputs = random_inputs(model, rng, 2, height=0.5)
    inputs["joint_f"] *= 0.2
    weights = rng.normal(size=(2, model.num_coordinates)), rng.normal(size=(2, model.num_dofs))
    exact = window_gradients(model, inputs, weights, STEPS, FLOAT64)

    bridge = make_bridge(
        model, num_envs=2, device=CPU, horizon=STEPS, storage=storage, parameter_gradient=True
    )
    given = tensors(inputs, requires_grad=True)
    state = given
    for _ in range(STEPS):
        state = {**given, **bridge.step(state)}
    loss = sum(
        (torch.tensor(weight, dtype=torch.float32) * state[name]).sum()
        for name, weight in zip(("joint_q", "joint_qd"), weights, strict=True)
    )
    found = dict(zip(given, torch.autograd.grad(loss, list(given.values())), strict=True))
    for name in INPUTS:
        assert relative_error(found[name], exact[name]) < 1e-3, name
    assert not bridge.bad_adjoints.any()


def test_vertices_and_activations_of_a_soft_body_have_the_gradients_of_double_precision():
    env = rewarped_sim.make("soft_jumper_small", num_envs=2, randomize=False)
    env.reset()
    with torch.no_grad():
        for _ in range(14):  # down to the ground
            env.step(torch.zeros(2, env.action_dim))
    model, start = env.model, env.state["vertices"]
    assert (start[..., 2] < model.vertex_radius).any()
    rng = np.random.default_rng(0)
    weights = rng.normal(size=start.shape)
    activations = 0.2 * rng.uniform(-1.0, 1.0, size=(STEPS, 2, model.num_tets))

    solver = FemSolver(model, num_envs=2, num_slots=STEPS, scalars=FLOAT64)
    rows, states = model.num_substeps + 1, np.zeros(solver.state.shape)
    states[0] = start.double().numpy()
    solver.activation.assign(activations)
    for slot in range(STEPS):
        solver.state.assign(states)
        solver.forward(slot)
        states = solver.state.numpy()
        if slot + 1 < STEPS:
            states[(slot + 1) * rows] = states[slot * rows + rows - 1]
    solver.state_bar.assign(weights)
    exact = {}
    for slot in reversed(range(STEPS)):
        solver.backward(slot)
        exact[slot] = solver.activation_bar.numpy().copy()
    exact["vertices"] = solver.state_bar.numpy()

    bridge = make_bridge(model, num_envs=2, device=CPU, horizon=STEPS)
    given = tensors({"vertices": start.numpy(), "activations": activations}, requires_grad=True)
    state = {"vertices": given["vertices"]}
    for activation in given["activations"]:
        state = bridge.step({**state, "activation": activation})
    end = states[-1]
    assert np.abs(state["vertices"].detach().double().numpy() - end)[..., :3].max() < 1e-4
    loss = (torch.tensor(weights, dtype=torch.float32) * state["vertices"]).sum()
    vertices_bar, activation_bars = torch.autograd.grad(loss, list(given.values()))
    assert relative_error(vertices_bar, exact["vertices"]) < 1e-3
    for slot in range(STEPS):
        assert relative_error(activation_bars[slot], exact[slot]) < 1e-3, slot


@pytest.mark.parametrize("task", ["cartpole", "ant", "snu_humanoid"])
def test_the_memory_told_is_what_a_control_step_of_an_articulation_takes(task):
    model = rewarped_sim.make(task, requires_grad=False).model

    def taken(num_slots):
        solver = ArticulationSolver(model, num_envs=3, num_slots=num_slots, requires_grad=False)
        record = solver._record
        arrays = [record.q, record.qd, record.qdd, record.factor, *solver._inputs]
        return sum(array.size * 4 for array in arrays)

    assert 3 * slot_bytes(model) == taken(2) - taken(1)


def test_a_robot_without_drives_and_muscles_needs_forces_only():
    """What is not given is nothing: no target, no activation, the model's own parameters."""
    env = rewarped_sim.make("ant", num_envs=2)
    env.reset()
    bridge = make_bridge(env.model, num_envs=2, device=CPU, horizon=0)
    with torch.no_grad():
        plain = {
            name: value.clone()
            for name, value in bridge.step(env.state | {"joint_f": torch.zeros(2, 14)}).items()
        }
        full = bridge.step(
            env.state
            | {
                "joint_f": torch.zeros(2, 14),
                "joint_target": torch.zeros(2, 14),
                "parameters": bridge.engine.ports[-1].default.repeat(2, 1),
            }
        )
    for name, value in plain.items():
        assert torch.equal(full[name], value)
