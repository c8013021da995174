"""Articulated systems small enough to differentiate by differences, and how to set and read a solver's state."""

import dataclasses

import numpy as np

from rewarped_sim.engine.articulation.model import (
    ArticulationModel,
    Body,
    ContactMaterial,
    Geom,
    Joint,
    Muscle,
    MusclePoint,
    capsule_between,
)
from rewarped_sim.engine.articulation.parameters import default_parameters
from rewarped_sim.engine.articulation.solver import ArticulationSolver
from rewarped_sim.engine.scalars import FLOAT64

TILTED = (0.1026, 0.2052, -0.3078, 0.9234)
GROUND = ContactMaterial(stiffness=4e3, damping=1e3, friction_stiffness=3e2, friction=0.75)
STATE = ("joint_q", "joint_qd")
INPUTS = (*STATE, "joint_f", "joint_target", "activation", "parameters")


def creature(*, root="free", **changes):
    """Every kind of joint, a body with two joints, a welded body, springs, a limit, a drive and a muscle."""
    if root == "free":
        root_joints = (Joint(name="root", kind="free"),)
    else:
        root_joints = (
            Joint(name="root_x", kind="slide", axis=(1.0, 0.0, 0.0)),
            Joint(name="root_z", kind="slide"),
            Joint(name="root_pitch", kind="hinge", axis=(0.0, 1.0, 0.0), damping=0.3, armature=0.1),
        )
    bodies = (
        Body(
            name="torso",
            position=(0.0, 0.0, 1.0),
            joints=root_joints,
            geoms=(Geom(kind="sphere", size=(0.25,)), capsule_between((0, 0, 0), (0.2, 0.2, 0.1), 0.08)),
        ),
        Body(
            name="arm",
            parent="torso",
            position=(0.2, 0.1, 0.0),
            quaternion=TILTED,
            joints=(
                Joint(
                    name="shoulder",
                    kind="hinge",
                    axis=(1.0, 0.5, 0.0),
                    position=(0.05, 0.02, 0.01),
                    stiffness=3.0,
                    rest=0.2,
                    damping=1.0,
                    armature=0.05,
                    lower=-0.05,
                    upper=0.05,
                    limit_stiffness=40.0,
                    limit_damping=2.0,
                ),
            ),
            geoms=(Geom(kind="box", size=(0.1, 0.05, 0.2), position=(0.1, 0.0, 0.1)),),
        ),
        Body(
            name="hand",
            parent="arm",
            position=(0.3, 0.0, 0.1),
            quaternion=TILTED,
            joints=(
                Joint(
                    name="wrist",
                    kind="ball",
                    position=(0.02, 0.05, 0.0),
                    damping=0.2,
                    armature=0.02,
                    stiffness=2.0,
                ),
            ),
            geoms=(capsule_between((0, 0, 0), (0.2, 0.2, 0.1), 0.05),),
        ),
        Body(
            name="finger",
            parent="hand",
            position=(0.1, 0.0, 0.1),
            joints=(
                Joint(
                    name="reach", kind="slide", axis=(0.0, 1.0, 1.0), drive_stiffness=30.0, drive_damping=2.0
                ),
                Joint(name="curl", kind="hinge", axis=(0.0, 1.0, 0.2), position=(0.0, 0.1, 0.0)),
            ),
            geoms=(Geom(kind="sphere", size=(0.1,), position=(0.0, 0.1, 0.1)),),
        ),
        Body(
            name="nail",
            parent="finger",
            position=(0.1, 0.0, 0.1),
            quaternion=TILTED,
            geoms=(Geom(kind="box", size=(0.1, 0.05, 0.2), position=(0.1, 0.0, 0.1)),),
        ),
    )
    muscle = Muscle(
        name="flexor",
        max_force=50.0,
        points=(
            MusclePoint(body="torso", position=(0.1, 0.0, 0.2)),
            MusclePoint(body="arm", position=(0.1, 0.1, 0.0)),
            MusclePoint(body="arm", position=(0.1, 0.1, 0.1)),
            MusclePoint(body="nail", position=(0.0, 0.1, 0.0)),
        ),
    )
    values = {"control_dt_s": 1e-3, "num_substeps": 1, "muscles": (muscle,)} | changes
    return ArticulationModel(bodies=bodies, **values)


def substeps(model, count):
    """The same model with another number of substeps of the same duration in a control step."""
    return dataclasses.replace(model, num_substeps=count, control_dt_s=count * model.dt_s)


def make_solver(model, *, num_envs=1, num_slots=1, scalars=FLOAT64, num_threads=1, **options):
    return ArticulationSolver(
        model, num_envs=num_envs, num_slots=num_slots, scalars=scalars, num_threads=num_threads, **options
    )


def random_inputs(model, rng, num_envs, *, height=None):
    """Inputs of a control step by name, (num_envs, n) each, near the pose in which the model is written."""
    q = model.start_q() + 0.2 * rng.normal(size=(num_envs, model.num_coordinates))
    for joint in model.joints:
        if joint.kind in ("free", "ball"):
            at = model.coordinate(joint.name) + (3 if joint.kind == "free" else 0)
            q[:, at : at + 4] /= np.linalg.norm(q[:, at : at + 4], axis=1, keepdims=True)
    if height is not None:
        q[:, 2] = height
    own = default_parameters(model)
    return {
        "joint_q": q,
        "joint_qd": rng.normal(size=(num_envs, model.num_dofs)),
        "joint_f": 10.0 * rng.normal(size=(num_envs, model.num_dofs)),
        "joint_target": rng.normal(size=(num_envs, model.num_dofs)),
        "activation": rng.uniform(size=(num_envs, max(len(model.muscles), 1))),
        "parameters": own * rng.uniform(0.9, 1.1, size=(num_envs, len(own))),
    }


def run(solver, inputs, slot=0):
    """(joint_q, joint_qd) after one control step from inputs by name; those that are not given stay."""
    rows = solver.model.num_substeps + 1
    for name, value in inputs.items():
        array = getattr(solver, name)
        values = array.numpy()
        values[slot * rows if name in STATE else slot] = value
        array.assign(values)
    solver.forward(slot)
    last = slot * rows + rows - 1
    return solver.joint_q.numpy()[last].copy(), solver.joint_qd.numpy()[last].copy()


def gradients(solver, inputs, weights):
    """Gradients by name of sum(weights * result), (num_envs, n) each."""
    run(solver, inputs)
    solver.joint_q_bar.assign(weights[0].astype(solver.scalars.numpy))
    solver.joint_qd_bar.assign(weights[1].astype(solver.scalars.numpy))
    solver.backward(0)
    return {name: getattr(solver, f"{name}_bar").numpy().copy() for name in INPUTS}


def window_gradients(model, inputs, weights, steps, scalars):
    """Like `gradients`, over a window of control steps with constant inputs; theirs are summed over the steps."""
    solver = make_solver(model, num_envs=len(inputs["joint_q"]), num_slots=steps, scalars=scalars)
    state = {name: inputs[name] for name in STATE}
    for slot in range(steps):
        state = dict(zip(STATE, run(solver, inputs | state, slot), strict=True))
    solver.joint_q_bar.assign(weights[0].astype(scalars.numpy))
    solver.joint_qd_bar.assign(weights[1].astype(scalars.numpy))
    found = dict.fromkeys(INPUTS, 0.0)
    for slot in reversed(range(steps)):
        solver.backward(slot)
        found |= {name: found[name] + getattr(solver, f"{name}_bar").numpy() for name in INPUTS[2:]}
    return found | {name: getattr(solver, f"{name}_bar").numpy().copy() for name in STATE}
