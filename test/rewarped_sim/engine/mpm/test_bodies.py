"""Bodies that are pushed back: conservation, closed forms, adjoints against differences, independence of the batch."""

import numpy as np
import pytest
from scenes import HALF, make_model, make_solver, random_joints, random_state

from rewarped_sim.engine.kinematics import Shape, Tool, rotation_matrix
from rewarped_sim.engine.mpm.bodies import BODY_SIZE, FREE, HELD, Body, Spring
from rewarped_sim.engine.scalars import FLOAT32, FLOAT64

FIELDS = {"x": slice(0, 3), "v": slice(3, 6), "C": slice(6, 15), "F": slice(15, 24)}
BODY_FIELDS = {
    "position": slice(0, 3),
    "quaternion": slice(3, 7),
    "velocity": slice(7, 10),
    "angular momentum": slice(10, 13),
}
BRICK = Body(
    name="brick",
    mass=0.02,
    inertia=(2e-5, 3e-5, 4e-5),
    shapes=(
        Shape(name="brick", kind="box", size=(0.06, 0.05, 0.04), position=(0.01, 0.0, 0.0)),
        Shape(name="knob", kind="sphere", size=(0.04,), position=(0.0, 0.02, 0.06)),
    ),
)
BALL = Body(
    name="ball",
    mass=0.01,
    inertia=(1e-5, 1e-5, 1e-5),
    shapes=(Shape(name="ball", kind="sphere", size=(0.05,)),),
    floor_stiffness=50.0,
    floor_damping=0.05,
)
SPRINGS = (
    Spring(body=0, joint=2, anchor=(0.05, 0.02, 0.1), point=(0.03, 0.0, 0.0), stiffness=40.0, damping=0.02),
    Spring(body=1, joint=-1, anchor=(0.4, 0.6, 0.3), point=(0.0, 0.03, 0.0), stiffness=20.0),
)


def coupled_model(*, bodies=(BRICK, BALL), springs=SPRINGS, **changes):
    return make_model(bodies=bodies, springs=springs, **changes)


def body_states(rng, num_envs, count=2):
    """Tumbling bodies inside the dough, (num_envs, bodies, 13)."""
    states = np.zeros((num_envs, count, BODY_SIZE))
    places = np.array([[0.5, 0.47, 0.36], [0.55, 0.56, 0.235]])[:count]
    states[..., 0:3] = places + 0.005 * rng.normal(size=(num_envs, count, 3))
    q = rng.normal(size=(num_envs, count, 4)) * 0.2 + np.array([0.0, 0.0, 0.0, 1.0])
    states[..., 3:7] = q / np.linalg.norm(q, axis=-1, keepdims=True)
    states[..., 7:10] = 0.5 * rng.normal(size=(num_envs, count, 3))
    states[..., 10:13] = 5e-5 * rng.normal(size=(num_envs, count, 3))
    return states


def run(solver, state, bodies, q=None, dq=None, slot=0):
    """(particles, bodies) after one control step."""
    first = slot * (solver.model.num_substeps + 1)
    last = first + solver.model.num_substeps
    solver.state.numpy()[first] = state.reshape(-1)
    solver.bodies.numpy()[first] = bodies.reshape(-1)
    if q is not None:
        solver.joint_q.numpy()[slot] = q
        solver.joint_dq.numpy()[slot] = dq
    solver.forward(slot)
    solver.check()
    return (
        solver.state.numpy()[last].reshape(state.shape).copy(),
        solver.bodies.numpy()[last].reshape(bodies.shape).copy(),
    )


def run_back(solver, state_bar, bodies_bar, slot=0):
    """Adjoints of (particles, bodies, q, dq)."""
    first = slot * (solver.model.num_substeps + 1)
    solver.state_bar.numpy()[solver.result_row] = state_bar.reshape(-1)
    solver.bodies_bar.numpy()[first + solver.model.num_substeps] = bodies_bar.reshape(-1)
    solver.backward(slot)
    return (
        solver.state_bar.numpy()[0].reshape(state_bar.shape).copy(),
        solver.bodies_bar.numpy()[first].reshape(bodies_bar.shape).copy(),
        solver.joint_q_bar.numpy().copy(),
        solver.joint_dq_bar.numpy().copy(),
    )


def weights(rng, state, bodies):
    """Random adjoints of a result, scaled so that every field has a say."""
    state_bar, bodies_bar = rng.normal(size=state.shape), rng.normal(size=bodies.shape)
    state_bar[..., FIELDS["v"]] *= 1e-2
    state_bar[..., FIELDS["C"]] *= 1e-4
    bodies_bar[..., BODY_FIELDS["velocity"]] *= 1e-1
    bodies_bar[..., BODY_FIELDS["angular momentum"]] *= 1e3
    return state_bar, 10.0 * bodies_bar


EPS = {
    "x": 1e-7, "v": 1e-4, "C": 1e-3, "F": 1e-7, "position": 1e-7, "quaternion": 1e-7, "velocity": 1e-5,
    "angular momentum": 1e-9, "q": 1e-7, "dq": 1e-8,
}  # fmt: skip


def directional_errors(model, seed):
    solver = make_solver(model)
    rng = np.random.default_rng(seed)
    state, bodies = random_state(rng, 1, model.num_particles), body_states(rng, 1)
    q, dq = random_joints(rng, 1)
    state_bar, bodies_bar = weights(rng, state, bodies)
    result = run(solver, state, bodies, q, dq)
    bars = run_back(solver, state_bar, bodies_bar)

    def change(name, direction, eps):
        def loss(sign):
            s, b, a, da = state.copy(), bodies.copy(), q.copy(), dq.copy()
            if name in FIELDS:
                s[..., FIELDS[name]] += sign * eps * direction
            elif name in BODY_FIELDS:
                b[..., BODY_FIELDS[name]] += sign * eps * direction
            else:
                (a if name == "q" else da)[:] += sign * eps * direction
            moved = run(solver, s, b, a, da)
            return ((moved[0] - result[0]) * state_bar).sum() + ((moved[1] - result[1]) * bodies_bar).sum()

        return (8 * (loss(1) - loss(-1)) - (loss(2) - loss(-2))) / (12 * eps)

    errors = {}
    for name, eps in EPS.items():
        if name in FIELDS:
            bar = bars[0][..., FIELDS[name]]
        elif name in BODY_FIELDS:
            bar = bars[1][..., BODY_FIELDS[name]]
        else:
            bar = bars[2 if name == "q" else 3]
        for _ in range(3):
            direction = rng.normal(size=bar.shape)
            direction += bar / np.abs(bar).max() if np.abs(bar).max() > 0 else 0.0
            if name == "quaternion":  # stay on the unit sphere to first order
                along = bodies[..., BODY_FIELDS[name]]
                direction -= (direction * along).sum(-1, keepdims=True) * along
            expected = change(name, direction, eps)
            errors[name] = max(errors.get(name, 0.0), abs((bar * direction).sum() - expected) / abs(expected))
    return errors


@pytest.mark.parametrize("contact", ["published", "smooth"])
def test_substep_adjoint_equals_central_differences(contact):
    errors = directional_errors(coupled_model(num_substeps=1, contact=contact), seed=3)
    assert max(errors.values()) < 1e-7, errors


@pytest.mark.parametrize("contact", ["published", "smooth"])
def test_control_step_adjoint_equals_central_differences(contact):
    # A seed for which no node crosses the published law's cutoff between two sides of a difference.
    errors = directional_errors(coupled_model(num_substeps=20, contact=contact), seed=6)
    assert max(errors.values()) < 1e-6, errors


def test_momentum_and_angular_momentum_of_dough_and_bodies_are_conserved():
    bodies = (BRICK, Body(name="ball", mass=BALL.mass, inertia=BALL.inertia, shapes=BALL.shapes))
    model = make_model(tool=Tool(), bodies=bodies, gravity=(0.0, 0.0, 0.0), num_substeps=40)
    solver = make_solver(model)
    rng = np.random.default_rng(7)
    state, moving = random_state(rng, 1, model.num_particles), body_states(rng, 1)
    state[..., 2] += 0.2  # away from the floor
    moving[..., 2] += 0.2
    result = run(solver, state, moving)
    mass = model.material_table[0, -1]

    def momenta(state, moving):
        x, v, B = (
            state[0, :, 0:3],
            state[0, :, 3:6],
            state[0, :, 6:15].reshape(-1, 3, 3) / (4 * model.grid_size**2),
        )
        spin = np.stack([B[:, 2, 1] - B[:, 1, 2], B[:, 0, 2] - B[:, 2, 0], B[:, 1, 0] - B[:, 0, 1]], 1)
        M = np.array([[body.mass] for body in bodies])
        c, u, L = (moving[0][:, BODY_FIELDS[name]] for name in ("position", "velocity", "angular momentum"))
        return (
            mass * v.sum(0) + (M * u).sum(0),
            mass * (np.cross(x, v) + spin).sum(0) + (np.cross(c, M * u) + L).sum(0),
        )

    exchanged = BRICK.mass * np.abs(result[1][0, 0, 7:10] - moving[0, 0, 7:10]).max()
    for before, after in zip(momenta(state, moving), momenta(*result), strict=True):
        assert np.abs(after - before).max() < 1e-10 * exchanged
    assert exchanged > 1e-4, "too little contact to mean anything"


def alone(body, initial, *, substeps, dt_s=1e-4, gravity=(0.0, 0.0, 0.0), springs=()):
    """A body far from all particles, after one control step."""
    model = make_model(
        tool=Tool(), bodies=(body,), springs=springs, gravity=gravity, num_substeps=substeps, dt_s=dt_s
    )
    solver = make_solver(model)
    state = random_state(np.random.default_rng(0), 1, model.num_particles)
    state[..., 0:2] -= 0.35
    state[..., 3:15] = 0.0
    state[..., 15:24] = np.eye(3).reshape(9)
    return run(solver, state, np.array(initial).reshape(1, 1, BODY_SIZE))[1][0, 0]


def initial(position, *, quaternion=(0, 0, 0, 1), velocity=(0, 0, 0), momentum=(0, 0, 0)):
    return [*position, *quaternion, *velocity, *momentum]


def test_a_thrown_body_follows_its_parabola():
    n, dt, g = 100, 1e-4, np.array([0.0, 0.0, -90.0])
    start = initial((0.7, 0.7, 0.7), velocity=(1.0, -2.0, 3.0))
    result = alone(BRICK, start, substeps=n, dt_s=dt, gravity=tuple(g))
    v = np.array(start[7:10])
    np.testing.assert_allclose(result[0:3], np.array(start[0:3]) + n * dt * v + n * (n + 1) / 2 * dt**2 * g)
    np.testing.assert_allclose(result[7:10], v + n * dt * g)


def test_a_spinning_top_precesses_as_euler_says():
    # Free symmetric top: its axis turns about the fixed L at |L| / I1, whatever the spin about the axis.
    top = Body(name="top", mass=1.0, inertia=(2e-4, 2e-4, 1e-4), shapes=BALL.shapes)
    L = np.array([0.0, 2e-3, 4e-3])
    errors = []
    for n in (200, 400):
        result = alone(top, initial((0.7, 0.7, 0.7), momentum=L), substeps=n, dt_s=0.04 / n)
        np.testing.assert_array_equal(result[10:13], L)
        angle = np.linalg.norm(L) / top.inertia[0] * 0.04
        axis = L / np.linalg.norm(L) * np.sin(angle / 2)
        expected = rotation_matrix((*axis, np.cos(angle / 2)))[:, 2]
        errors.append(np.linalg.norm(rotation_matrix(tuple(result[3:7]))[:, 2] - expected))
    assert errors[0] < 0.05
    assert errors[0] / errors[1] == pytest.approx(2.0, rel=0.1)  # first order in dt


def test_a_spring_lets_its_body_swing_at_its_own_frequency():
    k, m = 40.0, BRICK.mass
    spring = Spring(body=0, joint=-1, anchor=(0.7, 0.7, 0.7), stiffness=k)
    period = 2 * np.pi * np.sqrt(m / k)
    n = 2000
    result = alone(BRICK, initial((0.75, 0.7, 0.7)), substeps=n, dt_s=period / 4 / n, springs=(spring,))
    assert result[0] == pytest.approx(0.7, abs=1e-4)  # a quarter of a period: through the middle
    assert result[7] == pytest.approx(-0.05 * np.sqrt(k / m), rel=1e-3)


def test_the_floor_carries_a_body_and_friction_stops_it():
    floor = 3.0 / 16.0
    ball = Body(
        name="ball", mass=0.02, inertia=(1e-4,) * 3, shapes=BALL.shapes, angular_axes=HELD,
        floor_stiffness=500.0, floor_damping=5.0, floor_friction=0.4,
    )  # fmt: skip
    sunk = 0.02 * 9.81 / 500.0
    start = initial((0.6, 0.6, floor + 0.05 - sunk), velocity=(1.0, 0.0, 0.0))
    n, dt = 1000, 1e-4
    result = alone(ball, start, substeps=n, dt_s=dt, gravity=(0.0, 0.0, -9.81))
    assert result[2] == pytest.approx(floor + 0.05 - sunk, abs=1e-7)
    assert result[7] == pytest.approx(1.0 - 0.4 * 9.81 * n * dt, rel=2e-3)


def test_held_axes_stay_held():
    piston = Body(
        name="piston", mass=0.02, inertia=(1e-4,) * 3, shapes=BALL.shapes,
        linear_axes=(0.0, 0.0, 1.0), angular_axes=(0.0, 1.0, 0.0),
    )  # fmt: skip
    start = initial((0.7, 0.7, 0.7), velocity=(1.0, 1.0, 1.0), momentum=(1e-3, 1e-3, 1e-3))
    result = alone(piston, start, substeps=50)
    np.testing.assert_array_equal(result[0:2], (0.7, 0.7))
    assert result[2] == pytest.approx(0.7 + 50 * 1e-4)
    turned = rotation_matrix(tuple(result[3:7]))
    np.testing.assert_allclose(turned[:, 1], (0.0, 1.0, 0.0), atol=1e-12)
    angle = np.arctan2(turned[0, 2], turned[0, 0])
    assert angle == pytest.approx(1e-3 / 1e-4 * 50 * 1e-4, rel=1e-3)


def test_a_hinge_off_the_principal_axes_turns_with_the_moment_about_itself():
    q = (0.0, 0.0, np.sin(np.pi / 8), np.cos(np.pi / 8))
    door = Body(
        name="door", mass=0.02, inertia=(1e-4, 3e-4, 2e-4), shapes=BALL.shapes, angular_axes=(1, 0, 0)
    )
    start = initial((0.7, 0.7, 0.7), quaternion=q, momentum=(1e-3, 0.0, 0.0))
    result = alone(door, start, substeps=100)
    R = rotation_matrix(q)
    about_x = (R @ np.diag(door.inertia) @ R.T)[0, 0]
    turned = rotation_matrix(tuple(result[3:7])) @ R.T
    assert np.arctan2(turned[2, 1], turned[1, 1]) == pytest.approx(1e-3 / about_x * 0.01, rel=1e-4)


def test_a_dropped_ball_dents_the_dough_and_stops():
    ball = Body(name="ball", mass=0.003, inertia=(3e-6,) * 3, shapes=BALL.shapes)
    model = make_model(tool=Tool(), bodies=(ball,), num_substeps=400, num_particles=600, max_blocks=64)
    solver = make_solver(model, scalars=FLOAT32)
    rng = np.random.default_rng(11)
    state = np.zeros((1, 600, 24))
    state[..., 0:3] = rng.uniform(-0.5, 0.5, (600, 3)) * (0.3, 0.3, 0.15) + (0.5, 0.5, 0.26)
    state[..., 15:24] = np.eye(3).reshape(9)
    bodies = np.array(initial((0.5, 0.5, 0.42), velocity=(0.0, 0.0, -1.0))).reshape(1, 1, BODY_SIZE)
    heights = []
    for _ in range(6):
        state, bodies = run(solver, state, bodies)
        heights.append(bodies[0, 0, 2])
    under = np.linalg.norm(state[0, :, 0:2] - bodies[0, 0, 0:2], axis=1) < 0.03
    assert np.isfinite(state).all()
    assert heights[-1] > 3.0 / 16.0 + 0.05, "the dough carries the ball: it does not reach the floor"
    assert state[0, under, 2].max() < bodies[0, 0, 2], "no dough inside the ball's lower half"
    assert abs(bodies[0, 0, 9]) < 0.5


def test_batch_and_threads_change_nothing():
    model = coupled_model()
    rng = np.random.default_rng(13)
    state, bodies = random_state(rng, 3, model.num_particles), body_states(rng, 3)
    q, dq = random_joints(rng, 3)
    state_bar, bodies_bar = weights(rng, state, bodies)
    runs = []
    for threads in (1, 2):
        solver = make_solver(model, num_envs=3, scalars=FLOAT32, num_threads=threads)
        runs.append((*run(solver, state, bodies, q, dq), *run_back(solver, state_bar, bodies_bar)))
    for a, b in zip(*runs, strict=True):
        np.testing.assert_array_equal(a, b)
    single = make_solver(model, scalars=FLOAT32)
    for env in range(3):
        one = slice(env, env + 1)
        alone = (
            *run(single, state[one], bodies[one], q[one], dq[one]),
            *run_back(single, state_bar[one], bodies_bar[one]),
        )
        for a, b in zip(alone, runs[0], strict=True):
            np.testing.assert_array_equal(a, b[one])


def test_the_way_back_takes_nothing_from_control_steps_that_ran_since():
    model = coupled_model()
    runs = []
    for seed in (19, 23, 29):
        rng = np.random.default_rng(seed)
        state, bodies = random_state(rng, 1, model.num_particles), body_states(rng, 1)
        runs.append(((state, bodies, *random_joints(rng, 1)), weights(rng, state, bodies)))
    solver = make_solver(model, num_slots=3, scalars=FLOAT32)
    for slot, (inputs, _) in enumerate(runs):
        run(solver, *inputs, slot=slot)
    window = [run_back(solver, *runs[slot][1], slot=slot) for slot in (2, 1, 0)][::-1]
    alone = make_solver(model, scalars=FLOAT32)
    for (inputs, result_bars), bars in zip(runs, window, strict=True):
        run(alone, *inputs)
        for a, b in zip(run_back(alone, *result_bars), bars, strict=True):
            np.testing.assert_array_equal(a, b)


def test_float32_gradient_agrees_with_float64_over_40_substeps():
    model = coupled_model(num_substeps=40, dt_s=5e-5)
    bars = []
    for scalars in (FLOAT32, FLOAT64):
        rng = np.random.default_rng(17)
        state, bodies = random_state(rng, 1, model.num_particles), body_states(rng, 1)
        q, dq = random_joints(rng, 1)
        state_bar, bodies_bar = weights(rng, state, bodies)
        inputs = (array.astype(np.float32).astype(scalars.numpy) for array in (state, bodies, q, dq))
        solver = make_solver(model, scalars=scalars)
        run(solver, *inputs)
        bars.append(run_back(solver, state_bar, bodies_bar))
    for single, double in zip(*bars, strict=True):
        assert np.linalg.norm(single - double) / np.linalg.norm(double) < 1e-3


def test_a_body_that_cannot_be_simulated_is_refused_with_the_reason():
    shapes = BALL.shapes
    with pytest.raises(ValueError, match="body 'b': mass must be > 0"):
        Body(name="b", mass=0.0, inertia=FREE, shapes=shapes)
    with pytest.raises(ValueError, match="body 'b': angular_axes may free all axes, none or one"):
        Body(name="b", mass=1.0, inertia=FREE, shapes=shapes, angular_axes=(1.0, 1.0, 0.0))
    endless = Shape(name="table", kind="plane", size=())
    with pytest.raises(ValueError, match=r"body 'b': shape 'table': a plane has no end, .* choices: \['box'"):
        Body(name="b", mass=1.0, inertia=FREE, shapes=(*shapes, endless))
    feather = Body(name="feather", mass=1e-6, inertia=FREE, shapes=shapes)
    with pytest.raises(
        ValueError, match=r"body 'feather': mass 1e-06 kg is too small: .* exchange of momentum"
    ):
        make_model(bodies=(feather,))
    stiff = Spring(body=0, joint=-1, anchor=(0.5, 0.5, 0.5), stiffness=1e7)
    with pytest.raises(ValueError, match=r"spring of body 0: too stiff for dt_s = 0\.0001 s"):
        make_model(bodies=(BRICK,), springs=(stiff,))
    for law in ({"floor_stiffness": 4e6}, {"floor_damping": 300.0}):
        hard = Body(name="hard", mass=0.01, inertia=FREE, shapes=shapes, **law)
        with pytest.raises(ValueError, match="floor contact of body 'hard': too stiff for dt_s"):
            make_model(bodies=(hard,))
    with pytest.raises(ValueError, match="spring of body 1: there is no such body; bodies: 1"):
        make_model(bodies=(BRICK,), springs=(SPRINGS[1],))


def test_a_turned_capsule_touches_the_floor_with_its_lower_end():
    lying = Shape(name="bar", kind="capsule", size=(0.02, 0.1), quaternion=(HALF, 0.0, 0.0, HALF))
    points = Body(name="bar", mass=1.0, inertia=FREE, shapes=(lying,)).floor_points
    ends = np.array([position for position, _ in points])
    np.testing.assert_allclose(ends[np.argsort(ends[:, 1])], [(0, -0.1, 0), (0, 0.1, 0)], atol=1e-12)
    assert {radius for _, radius in points} == {0.02}
