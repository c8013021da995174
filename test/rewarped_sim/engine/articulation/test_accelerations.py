"""Accelerations of every articulated model against MuJoCo, in random states under random forces."""

import dataclasses

import mujoco
import numpy as np
import pytest
from mjcf import acceleration_from_mujoco, compiled, dofs_to_mujoco, passive_forces, to_mujoco
from systems import creature, make_solver, random_inputs, run

from rewarped_sim.assets.allegro_hand import allegro_hand
from rewarped_sim.assets.ant import ant, ant_run
from rewarped_sim.assets.cartpole import cartpole
from rewarped_sim.assets.hopper import hopper
from rewarped_sim.assets.humanoid import humanoid
from rewarped_sim.assets.snu_lower_body import snu_lower_body
from rewarped_sim.engine.articulation.parameters import default_parameters

STATES = 100
MODELS = {
    "every kind of joint": creature,
    "a root made of slides": lambda: creature(root="planar"),
    "ant": ant,
    "ant_run": ant_run,
    "hopper": hopper,
    "humanoid": humanoid,
    "snu_lower_body": snu_lower_body,
    "cartpole": cartpole,
    "allegro_hand": allegro_hand,
    "allegro_hand with drives": lambda: allegro_hand(drive_stiffness=3.0, drive_damping=0.1),
}


def oracle(model, inputs, w):
    """What MuJoCo says of world w."""
    given = {name: value[w] for name, value in inputs.items()}
    physics = compiled(model)
    data = mujoco.MjData(physics)
    q, qd = given["joint_q"], given["joint_qd"]
    data.qpos[:], data.qvel[:] = to_mujoco(model, q, qd)
    driven = [joint for joint in model.joints if joint.drive_stiffness or joint.drive_damping]
    targets = [given["joint_target"][model.dof(joint.name)] for joint in driven]
    data.ctrl[:] = [*targets, *given["activation"][: len(model.muscles)]]
    data.qfrc_applied[:] = dofs_to_mujoco(model, q, given["joint_f"] + passive_forces(model, q, qd))
    mujoco.mj_forward(physics, data)
    return acceleration_from_mujoco(model, q, data.qacc)


@pytest.mark.parametrize("name", MODELS)
def test_accelerations_are_those_of_mujoco(name):
    # In a step this short implicit damping is explicit: what is left is the acceleration.
    model = dataclasses.replace(
        MODELS[name](), ground=None, contact_pairs=(), control_dt_s=1e-10, num_substeps=1
    )
    rng = np.random.default_rng(0)
    inputs = random_inputs(model, rng, STATES) | {
        "parameters": np.tile(default_parameters(model), (STATES, 1))
    }
    solver = make_solver(model, num_envs=STATES, requires_grad=False)
    run(solver, inputs)
    found = solver.joint_qdd.numpy()[0]
    for w in range(STATES):
        expected = oracle(model, inputs, w)
        assert np.linalg.norm(found[w] - expected) < 1e-6 * np.linalg.norm(expected)
