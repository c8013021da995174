"""Motion of articulated systems against closed forms and conservation laws, at the integrator's order."""

import numpy as np
import pytest
from systems import GROUND, creature, make_solver, run, substeps

from rewarped_sim.engine.articulation.model import (
    ArticulationModel,
    Body,
    ContactMaterial,
    Geom,
    Inertia,
    Joint,
    Muscle,
    MusclePoint,
)
from rewarped_sim.engine.articulation.parameters import ParameterLayout, default_parameters
from rewarped_sim.engine.kinematics import rotation_matrix
from rewarped_sim.engine.scalars import FLOAT32

BALL = Geom(kind="sphere", size=(0.1,))


def simulate(model, q, qd, **inputs):
    return [
        row[0]
        for row in run(make_solver(model, requires_grad=False), {"joint_q": q, "joint_qd": qd, **inputs})
    ]


def pendulum(count, **joint):
    bob = Body(
        name="bob",
        joints=(Joint(name="pivot", kind="hinge", axis=(0.0, 1.0, 0.0), position=(0.0, 0.0, 1.0), **joint),),
        inertia=Inertia(mass=2.0, matrix=((1e-6, 0, 0), (0, 1e-6, 0), (0, 0, 1e-6))),
    )
    return ArticulationModel(bodies=(bob,), control_dt_s=0.5, num_substeps=count)


def thrown(count, *, gravity=(0.0, 0.0, 0.0), position=(0.05, -0.02, 0.1)):
    """A free body whose centre of mass is not its origin, with three different moments of inertia."""
    top = Body(
        name="top",
        joints=(Joint(name="root", kind="free"),),
        inertia=Inertia(mass=1.5, position=position, matrix=((0.02, 0, 0), (0, 0.03, 0), (0, 0, 0.045))),
    )
    return ArticulationModel(bodies=(top,), control_dt_s=0.5, num_substeps=count, gravity=gravity)


def momenta(model, q, qd):
    """Linear and angular momentum (about the world's origin) of the free body of `thrown`."""
    given = model.bodies[0].inertia
    rotation, spin = rotation_matrix(q[3:7]), qd[3:6]
    arm = rotation @ np.array(given.position)
    linear = given.mass * (qd[:3] + np.cross(spin, arm))
    angular = rotation @ np.array(given.matrix) @ rotation.T @ spin + np.cross(q[:3] + arm, linear)
    return linear, angular


def order_of(error_at):
    """Exponent with which an error falls when the substeps double."""
    return np.log2(error_at(64) / error_at(128))


def test_a_pendulum_swings_by_the_elliptic_law():
    """Half a second of theta'' = -g/l sin(theta), by a Runge-Kutta solution with a step far below ours."""
    theta, omega, h = 1.0, 0.0, 1e-4
    for _ in range(5000):
        k1 = (omega, -9.81 * np.sin(theta))
        k2 = (omega + h / 2 * k1[1], -9.81 * np.sin(theta + h / 2 * k1[0]))
        k3 = (omega + h / 2 * k2[1], -9.81 * np.sin(theta + h / 2 * k2[0]))
        k4 = (omega + h * k3[1], -9.81 * np.sin(theta + h * k3[0]))
        theta += h / 6 * (k1[0] + 2 * k2[0] + 2 * k3[0] + k4[0])
        omega += h / 6 * (k1[1] + 2 * k2[1] + 2 * k3[1] + k4[1])

    def error(count):
        q, qd = simulate(pendulum(count), [1.0], [0.0])
        return np.hypot(q[0] - theta, qd[0] - omega)

    assert error(512) < 0.02
    assert order_of(error) == pytest.approx(1.0, abs=0.1)


def test_energy_of_a_pendulum_does_not_drift():
    """Semi-implicit Euler is symplectic: after many swings the energy is off by no more than within one."""
    model = pendulum(500)  # 1 ms
    solver = make_solver(model)
    q, qd, energies = np.array([[1.0]]), np.array([[0.0]]), []
    for _ in range(60):
        q, qd = run(solver, {"joint_q": q, "joint_qd": qd})
        energies.append(0.5 * 2.0 * qd[0, 0] ** 2 - 2.0 * 9.81 * np.cos(q[0, 0]))
    swing = 2.0 * 9.81 * (1.0 - np.cos(1.0))
    assert np.ptp(energies[:10]) > 0.0
    assert abs(np.mean(energies[-20:]) - np.mean(energies[:20])) < 1e-4 * swing


def test_a_thrown_body_keeps_its_momentum_to_first_order():
    q, qd = np.array([0.3, 0.1, 0.2, 0.1, 0.2, 0.3, 0.927]), np.array([0.5, -0.2, 0.1, 3.0, 2.0, -4.0])
    q[3:] /= np.linalg.norm(q[3:])
    start = np.concatenate(momenta(thrown(1), q, qd))

    def error(count):
        return np.linalg.norm(np.concatenate(momenta(thrown(1), *simulate(thrown(count), q, qd))) - start)

    assert error(1024) < 5e-3 * np.linalg.norm(start)
    assert order_of(error) == pytest.approx(1.0, abs=0.15)


def test_a_gyroscope_precesses():
    """A fast symmetric top, leaning: its axis turns about the vertical at m g l / (I_axial spin)."""
    axial, spin, arm = 0.02, 400.0, 0.1
    top = Body(
        name="top",
        joints=(Joint(name="tip", kind="ball"),),
        inertia=Inertia(mass=1.0, position=(0, 0, arm), matrix=((0.005, 0, 0), (0, 0.005, 0), (0, 0, axial))),
    )
    model = ArticulationModel(bodies=(top,), control_dt_s=0.01, num_substeps=400)
    lean = 0.5
    q = [np.sin(lean / 2.0), 0.0, 0.0, np.cos(lean / 2.0)]
    rate = 9.81 * arm / (axial * spin)
    axis = rotation_matrix(q)[:, 2]
    solver = make_solver(model, requires_grad=False)
    state = [q], [spin * axis + [0.0, 0.0, rate]]
    for _ in range(50):
        state = run(solver, {"joint_q": state[0], "joint_qd": state[1]})
    turned = rotation_matrix(state[0][0])[:, 2]
    angle = np.arctan2(*turned[1::-1]) - np.arctan2(*axis[1::-1])
    assert angle == pytest.approx(0.5 * rate, rel=0.02)
    assert turned[2] == pytest.approx(np.cos(lean), abs=2e-3)


def test_a_falling_body_follows_the_parabola():
    model = thrown(1000, gravity=(0.0, 0.0, -9.81), position=(0.0, 0.0, 0.0))
    q, qd = simulate(model, [0, 0, 2, 0, 0, 0, 1], [1.0, 0, 0, 0, 0, 0])
    assert q[0] == pytest.approx(0.5)
    assert q[2] == pytest.approx(2.0 - 0.5 * 9.81 * 0.25, abs=2e-3)
    assert qd[2] == pytest.approx(-9.81 * 0.5)


def test_far_from_the_origin_nothing_changes():
    """Moments are taken about the root: in float32, too, a robot a kilometre away moves as one here."""
    model = substeps(creature(root="planar"), 16)
    rng = np.random.default_rng(0)
    q, qd = np.zeros((1, model.num_coordinates)), rng.normal(size=(1, model.num_dofs))
    q[:, model.coordinate("wrist") + 3] = 1.0
    solver = make_solver(model, scalars=FLOAT32)
    _, here = run(solver, {"joint_q": q, "joint_qd": qd})
    q[:, 0] = 1000.0
    _, there = run(solver, {"joint_q": q, "joint_qd": qd})
    assert np.array_equal(here, there)


def test_a_drive_settles_at_its_target():
    model = pendulum(500, drive_stiffness=400.0, drive_damping=60.0)
    solver = make_solver(model)
    q, qd = np.array([[0.0]]), np.array([[0.0]])
    for _ in range(10):
        q, qd = run(solver, {"joint_q": q, "joint_qd": qd, "joint_target": [[0.3]]})
    torque = 2.0 * 9.81 * np.sin(q[0, 0])
    assert 400.0 * (0.3 - q[0, 0]) == pytest.approx(torque, rel=1e-3)


def test_a_stiff_drive_is_stable_at_a_large_step():
    """Explicit springs blow up where h^2 k / I > 4; here it is 12."""
    model = pendulum(10, drive_stiffness=1e4, drive_damping=10.0)
    solver = make_solver(model)
    q, qd = np.array([[0.0]]), np.array([[0.0]])
    for _ in range(20):
        q, qd = run(solver, {"joint_q": q, "joint_qd": qd, "joint_target": [[0.3]]})
    assert q[0, 0] == pytest.approx(0.3, abs=1e-2)


def test_a_violated_limit_pushes_back():
    model = pendulum(500, lower=-0.1, upper=0.1, limit_stiffness=2e3, limit_damping=60.0)
    solver = make_solver(model)
    q, qd = np.array([[0.0]]), np.array([[0.0]])
    for _ in range(10):
        q, qd = run(solver, {"joint_q": q, "joint_qd": qd, "joint_f": [[30.0]]})
    excess = q[0, 0] - 0.1
    assert excess > 0.0
    assert 2e3 * excess == pytest.approx(30.0 - 2.0 * 9.81 * np.sin(q[0, 0]), rel=1e-3)


def test_armature_slows_a_joint_down():
    light, heavy = (
        simulate(pendulum(100, armature=a), [0.0], [0.0], joint_f=[[1.0]])[1][0] for a in (0.0, 2.0)
    )
    assert light == pytest.approx(2.0 * heavy, rel=0.3)
    assert light > 1.4 * heavy


def test_a_muscle_pulls_with_its_tension_along_the_line():
    """A muscle from the world's side to a free ball: at first it accelerates along the string."""
    base = Body(
        name="base",
        joints=(Joint(name="base", kind="slide", armature=1e9),),
        geoms=(BALL,),
    )
    ball = Body(name="ball", joints=(Joint(name="root", kind="free"),), geoms=(BALL,))
    string = Muscle(
        name="string",
        max_force=8.0,
        points=(MusclePoint(body="base", position=(0, 0, 0)), MusclePoint(body="ball", position=(0, 0, 0))),
    )
    model = ArticulationModel(
        bodies=(base, ball), muscles=(string,), control_dt_s=1e-4, num_substeps=1, gravity=(0, 0, 0)
    )
    away = np.array([0.3, -0.2, 0.6])
    _, qd = simulate(model, [0.0, *away, 0, 0, 0, 1], np.zeros(7), activation=[[0.25]])
    mass = 1000.0 * 4.0 / 3.0 * np.pi * 0.1**3
    expected = -0.25 * 8.0 / mass * 1e-4 * away / np.linalg.norm(away)
    assert qd[1:4] == pytest.approx(expected, rel=1e-9)


def test_a_ball_comes_to_rest_where_the_ground_carries_it():
    soft = Geom(kind="sphere", size=(0.1,), contact=ContactMaterial(stiffness=1e4, damping=2e5))
    ball = Body(name="ball", joints=(Joint(name="root", kind="free"),), geoms=(soft,))
    model = ArticulationModel(bodies=(ball,), ground=GROUND, control_dt_s=0.5, num_substeps=1000)
    solver = make_solver(model)
    q, qd = np.array([[0, 0, 0.15, 0, 0, 0, 1.0]]), np.zeros((1, 6))
    for _ in range(12):
        q, qd = run(solver, {"joint_q": q, "joint_qd": qd})
    material = (GROUND.stiffness + 1e4) / 2.0
    mass = 1000.0 * 4.0 / 3.0 * np.pi * 0.1**3
    assert 0.1 - q[0, 2] == pytest.approx(mass * 9.81 / material, rel=1e-2)


def test_friction_stops_a_sliding_box_in_the_coulomb_distance():
    box = Body(
        name="box",
        joints=(Joint(name="root", kind="free"),),
        geoms=(Geom(kind="box", size=(0.2, 0.2, 0.05)),),
    )
    model = ArticulationModel(bodies=(box,), ground=GROUND, control_dt_s=0.5, num_substeps=1000)
    mass = 1000.0 * 8.0 * 0.2 * 0.2 * 0.05
    stiffness, friction = (GROUND.stiffness + 1e4) / 2.0, (0.75 + 0.5) / 2.0
    height = 0.05 - mass * 9.81 / (4.0 * stiffness)
    q, qd = simulate(model, [0, 0, height, 0, 0, 0, 1.0], [1.0, 0, 0, 0, 0, 0])
    assert q[0] == pytest.approx(1.0 / (2.0 * friction * 9.81), rel=0.03)
    assert abs(qd[0]) < 1e-2


def test_parameters_act_per_world():
    model = thrown(10, gravity=(0.0, 0.0, -9.81), position=(0.0, 0.0, 0.0))
    layout, own = ParameterLayout.of(model), default_parameters(model)
    parameters = np.stack([own, own])
    parameters[1, layout.gravity] = (0.0, 0.0, -1.62)
    solver = make_solver(model, num_envs=2)
    start = [[0, 0, 2, 0, 0, 0, 1.0]] * 2
    _, qd = run(solver, {"joint_q": start, "joint_qd": np.zeros((2, 6)), "parameters": parameters})
    assert qd[:, 2] == pytest.approx([-9.81 * 0.5, -1.62 * 0.5])


def test_a_joint_that_moves_no_mass_is_refused_by_name():
    with pytest.raises(ValueError, match="joint 'idle' moves no mass"):
        make_solver(
            ArticulationModel(
                bodies=(Body(name="ghost", joints=(Joint(name="idle", kind="hinge"),)),),
                control_dt_s=0.01,
                num_substeps=1,
            )
        )
