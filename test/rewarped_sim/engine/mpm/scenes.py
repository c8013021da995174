"""A small dough or fluid scene with tools of every kind, for tests of the whole solver."""

import numpy as np

from rewarped_sim.engine.kinematics import Joint, Shape, Tool
from rewarped_sim.engine.mpm.materials import Corotated, Dough, Fluid, NeoHookean, Sand
from rewarped_sim.engine.mpm.model import MpmModel, Part
from rewarped_sim.engine.mpm.solver import MpmSolver
from rewarped_sim.engine.scalars import FLOAT64

GRID = 16
HALF = float(np.sqrt(0.5))
TOOL = Tool(
    joints=(
        Joint(name="x", kind="prismatic", axis=(1.0, 0.0, 0.0), position=(0.0, 0.5, 0.0)),
        Joint(name="z", kind="prismatic", axis=(0.0, 0.0, 1.0), parent=0),
        Joint(name="yaw", kind="revolute", axis=(0.0, 0.0, 1.0), parent=1),
    ),
    shapes=(
        Shape(
            name="pin", kind="capsule", size=(0.06, 0.15), body=2, position=(0.0, 0.02, 0.0),
            quaternion=(HALF, 0.0, 0.0, HALF),
        ),
        Shape(name="foot", kind="box", size=(0.05, 0.03, 0.04), body=2, position=(-0.12, 0.03, -0.06)),
        Shape(name="ball", kind="sphere", size=(0.05,), body=2, position=(0.1, -0.02, -0.03)),
        Shape(
            name="side", kind="plane", size=(), body=-1, position=(0.42, 0.5, 0.3),
            quaternion=(0.0, HALF, 0.0, HALF),
        ),
    ),
)  # fmt: skip
MATERIALS = {
    "dough": Dough(young=5000.0, poisson=0.2, yield_stress=50.0, density=1.0),
    "sand": Sand(young=5000.0, poisson=0.2, density=1.0, friction_angle_deg=25.0, cohesion=0.01),
    "neo_hookean": NeoHookean(young=5000.0, poisson=0.2, density=1.0),
    "corotated": Corotated(young=5000.0, poisson=0.2, density=1.0),
    "fluid": Fluid(young=1.0e5, poisson=0.3, density=1000.0),
}
MIXED = ("dough", "sand", "corotated")
"""Materials of one density that share a scene when `material` is `mixed`."""


def make_model(
    *, material="dough", num_substeps=8, num_particles=160, floor_friction=500.0, tool=TOOL, **changes
):
    names = MIXED if material == "mixed" else (material,)
    settings = {
        "grid_size": GRID,
        "dt_s": 1.0e-4,
        "num_substeps": num_substeps,
        "parts": tuple(
            Part(
                material=MATERIALS[name],
                num_particles=num_particles // len(names) + (i < num_particles % len(names)),
                particle_volume=0.2 * 0.2 * 0.15 / num_particles,
            )
            for i, name in enumerate(names)
        ),
        "tool": tool,
        "gravity": (0.0, 0.0, -90.0),
        "floor_friction": floor_friction,
        "tool_friction": 0.9,
        # This grid is coarse: let tools reach as many cells as the published ones do.
        "softness": 60.0,
        "max_blocks": 64,
    }
    return MpmModel(**(settings | changes))


def random_state(rng, num_envs, num_particles):
    """Deformed, moving particles in a block that touches floor and tools, (num_envs, num_particles, 24) float64."""
    state = np.zeros((num_envs, num_particles, 24))
    state[..., 0:3] = rng.uniform(-0.5, 0.5, (num_envs, num_particles, 3)) * (0.2, 0.2, 0.15) + (
        0.5,
        0.5,
        0.24,
    )
    state[..., 3:6] = rng.normal(size=(num_envs, num_particles, 3))
    state[..., 6:15] = 20.0 * rng.normal(size=(num_envs, num_particles, 9))
    F = np.eye(3) + 0.02 * rng.normal(size=(num_envs, num_particles, 3, 3))
    state[..., 15:24] = F.reshape(num_envs, num_particles, 9)
    return state


def random_joints(rng, num_envs):
    """Joint coordinates that put the tool into the dough, and their change in a control step."""
    q = np.array([0.5, 0.33, 0.1]) + 0.01 * rng.normal(size=(num_envs, 3))
    dq = np.array([0.003, -0.004, 0.02]) * (1.0 + 0.1 * rng.normal(size=(num_envs, 3)))
    return q, dq


def make_solver(model, *, num_envs=1, num_slots=1, scalars=FLOAT64, **options):
    return MpmSolver(model, num_envs=num_envs, num_slots=num_slots, scalars=scalars, device="cpu", **options)


def run_forward(solver, state, q, dq, slot=0):
    """State after one control step, in the solver's precision."""
    first = slot * (solver.model.num_substeps + 1)
    solver.state.numpy()[first] = state.reshape(-1)
    solver.joint_q.numpy()[slot] = q
    solver.joint_dq.numpy()[slot] = dq
    solver.forward(slot)
    solver.check()
    return solver.state.numpy()[first + solver.model.num_substeps].reshape(state.shape).copy()


def run_backward(solver, result_bar, slot=0):
    """Adjoints of (state, q, dq)."""
    solver.state_bar.numpy()[solver.result_row] = result_bar.reshape(-1)
    solver.backward(slot)
    return (
        solver.state_bar.numpy()[0].reshape(result_bar.shape).copy(),
        solver.joint_q_bar.numpy().copy(),
        solver.joint_dq_bar.numpy().copy(),
    )
