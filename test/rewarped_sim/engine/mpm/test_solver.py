"""Whole control steps: adjoints against central differences, conservation, independence of batch, slot and thread."""

import numpy as np
import pytest
from scenes import MATERIALS, make_model, make_solver, random_joints, random_state, run_backward, run_forward

from rewarped_sim.engine.kinematics import Tool
from rewarped_sim.engine.mpm.contact import APPROACH_BAND, CONTACT_LAWS
from rewarped_sim.engine.mpm.grid import CROWDED, RUNAWAY
from rewarped_sim.engine.mpm.material_table import MATERIAL_FIELDS
from rewarped_sim.engine.mpm.solver import BlockPoolError
from rewarped_sim.engine.scalars import FLOAT32, FLOAT64

FIELDS = {"x": slice(0, 3), "v": slice(3, 6), "C": slice(6, 15), "F": slice(15, 24)}
# Steps sized to the field, so that differences of all of them move particles by about as much.
EPS = {"x": 1e-7, "v": 1e-4, "C": 1e-3, "F": 1e-7, "q": 1e-7, "dq": 1e-8}


def inputs(seed, model, num_envs=1):
    rng = np.random.default_rng(seed)
    state = random_state(rng, num_envs, model.num_particles)
    q, dq = random_joints(rng, num_envs)
    # Weights that give every field of the result a similar say.
    result_bar = rng.normal(size=state.shape)
    result_bar[..., FIELDS["v"]] *= 1e-2
    result_bar[..., FIELDS["C"]] *= 1e-4
    return rng, state, q, dq, result_bar


def directional_errors(model, seed):
    """Relative error of the adjoint along random directions, by input."""
    solver = make_solver(model)
    rng, state, q, dq, result_bar = inputs(seed, model)
    result = run_forward(solver, state, q, dq)
    state_bar, q_bar, dq_bar = run_backward(solver, result_bar)

    def change(name, direction, eps):
        def loss(sign):
            s, a, b = state.copy(), q.copy(), dq.copy()
            if name == "q":
                a = a + sign * eps * direction
            elif name == "dq":
                b = b + sign * eps * direction
            else:
                s[..., FIELDS[name]] += sign * eps * direction
            return ((run_forward(solver, s, a, b) - result) * result_bar).sum()

        # Fourth order: the step may be ten times larger, which keeps round-off away.
        return (8 * (loss(1) - loss(-1)) - (loss(2) - loss(-2))) / (12 * eps)

    errors = {}
    for name, eps in EPS.items():
        bar = {"q": q_bar, "dq": dq_bar}.get(name)
        bar = state_bar[..., FIELDS[name]] if bar is None else bar
        for _ in range(3):
            direction = rng.normal(size=bar.shape)
            # Lean on the gradient itself: a random direction alone may cancel to nothing.
            direction += bar / np.abs(bar).max() if np.abs(bar).max() > 0 else 0.0
            expected = change(name, direction, eps)
            errors[name] = max(errors.get(name, 0.0), abs((bar * direction).sum() - expected) / abs(expected))
    return errors


@pytest.mark.parametrize("material", [*MATERIALS, "mixed"])
@pytest.mark.parametrize("contact", list(CONTACT_LAWS))
@pytest.mark.parametrize("floor_friction", [500.0, 0.4, 0.0])
def test_substep_adjoint_equals_central_differences(material, floor_friction, contact):
    model = make_model(material=material, num_substeps=1, floor_friction=floor_friction, contact=contact)
    errors = directional_errors(model, seed=3)
    assert max(errors.values()) < 1e-7, errors


@pytest.mark.parametrize("contact", list(CONTACT_LAWS))
@pytest.mark.parametrize("material", [*MATERIALS, "mixed"])
def test_control_step_adjoint_equals_central_differences(material, contact):
    errors = directional_errors(make_model(material=material, num_substeps=20, contact=contact), seed=5)
    assert max(errors.values()) < 1e-6, errors


@pytest.mark.parametrize("material", [*MATERIALS, "mixed"])
def test_adjoints_of_material_constants_equal_central_differences(material):
    model = make_model(material=material, num_substeps=20)
    solver = make_solver(model, material_gradient=True)
    _, state, q, dq, result_bar = inputs(67, model)
    result = run_forward(solver, state, q, dq)
    run_backward(solver, result_bar)
    bar = solver.material_bar.numpy()[0].copy()
    table = solver.material_table.numpy()
    for index in zip(*np.nonzero(model.material_table), strict=True):
        if index[1] == MATERIAL_FIELDS.index("law"):
            continue
        value = table[0][index]

        def loss(change, index=index, value=value):
            table[0][index] = value + change
            return ((run_forward(solver, state, q, dq) - result) * result_bar).sum()

        eps = 1e-5 * value
        expected = (8 * (loss(eps) - loss(-eps)) - (loss(2 * eps) - loss(-2 * eps))) / (12 * eps)
        loss(0.0)
        assert bar[index] == pytest.approx(expected, rel=1e-6), (index[0], MATERIAL_FIELDS[index[1]])
    # A second pass starts from a clean sum.
    run_forward(solver, state, q, dq)
    run_backward(solver, result_bar)
    np.testing.assert_array_equal(solver.material_bar.numpy()[0], bar)


def test_every_env_has_constants_of_its_own():
    model = make_model(num_substeps=5)
    _, state, q, dq, result_bar = inputs(71, model, num_envs=2)
    both = make_solver(model, num_envs=2, scalars=FLOAT32, material_gradient=True, num_threads=1)
    column = MATERIAL_FIELDS.index("mu")
    both.material_table.numpy()[1, 0, column] *= 1.3
    result = run_forward(both, state, q, dq)
    run_backward(both, result_bar)
    for env, factor in ((0, 1.0), (1, 1.3)):
        one = slice(env, env + 1)
        single = make_solver(model, scalars=FLOAT32, material_gradient=True)
        single.material_table.numpy()[0, 0, column] *= factor
        np.testing.assert_array_equal(run_forward(single, state[one], q[one], dq[one]), result[one])
        run_backward(single, result_bar[one])
        np.testing.assert_array_equal(single.material_bar.numpy()[0], both.material_bar.numpy()[env])


def test_forward_and_adjoint_sweeps_are_transposes():
    # <J u, w> = <u, J^T w>, with J u from the difference of two runs.
    model = make_model(num_substeps=10)
    solver = make_solver(model)
    rng, state, q, dq, _ = inputs(11, model)
    u = np.zeros_like(state)
    u[..., FIELDS["v"]] = rng.normal(size=u[..., FIELDS["v"]].shape)
    w = rng.normal(size=state.shape)
    eps = 1e-5
    Ju = (run_forward(solver, state + eps * u, q, dq) - run_forward(solver, state - eps * u, q, dq)) / (
        2 * eps
    )
    run_forward(solver, state, q, dq)
    state_bar, _, _ = run_backward(solver, w)
    assert (Ju * w).sum() == pytest.approx((u * state_bar).sum(), rel=1e-6)


def test_float32_gradient_agrees_with_float64_over_40_substeps():
    model = make_model(num_substeps=40, dt_s=5e-5)
    gradients = []
    for scalars in (FLOAT32, FLOAT64):
        solver = make_solver(model, scalars=scalars)
        _, state, q, dq, result_bar = inputs(7, model)
        state, q, dq = (a.astype(np.float32).astype(scalars.numpy) for a in (state, q, dq))
        run_forward(solver, state, q, dq)
        gradients.append(run_backward(solver, result_bar.astype(scalars.numpy)))
    single, double = gradients
    for name, part in FIELDS.items():
        difference = np.linalg.norm(single[0][..., part] - double[0][..., part])
        assert difference / np.linalg.norm(double[0][..., part]) < 1e-3, name
    for a, b in zip(single[1:], double[1:], strict=True):
        assert np.linalg.norm(a - b) / np.linalg.norm(b) < 1e-3


def test_an_env_neither_feels_nor_disturbs_its_neighbours():
    model = make_model()
    _, state, q, dq, result_bar = inputs(13, model, num_envs=3)
    batch = make_solver(model, num_envs=3, scalars=FLOAT32, num_threads=1)
    result = run_forward(batch, state, q, dq)
    bars = run_backward(batch, result_bar)
    single = make_solver(model, scalars=FLOAT32)
    for env in range(3):
        one = slice(env, env + 1)
        np.testing.assert_array_equal(run_forward(single, state[one], q[one], dq[one]), result[one])
        for alone, together in zip(run_backward(single, result_bar[one]), bars, strict=True):
            np.testing.assert_array_equal(alone, together[one])


def test_a_broken_env_stays_alone():
    model = make_model()
    _, state, q, dq, result_bar = inputs(17, model, num_envs=3)
    solver = make_solver(model, num_envs=3, scalars=FLOAT32)
    expected = run_forward(solver, state, q, dq)
    expected_bars = run_backward(solver, result_bar)
    broken = state.copy()
    broken[1, ::7, 3:6] = np.nan
    broken[1, 1::7, 0:3] = 1e30
    result = run_forward(solver, broken, q, dq)
    bars = run_backward(solver, result_bar)
    assert not np.isfinite(result[1]).all()
    for env in (0, 2):
        np.testing.assert_array_equal(result[env], expected[env])
        for a, b in zip(bars, expected_bars, strict=True):
            np.testing.assert_array_equal(a[env], b[env])
    # ... and leaves nothing behind on the grid.
    np.testing.assert_array_equal(run_forward(solver, state, q, dq), expected)


@pytest.mark.parametrize("num_threads", [2, 3])
def test_threads_change_nothing(num_threads):
    model = make_model()
    _, state, q, dq, result_bar = inputs(19, model, num_envs=3)
    runs = []
    for threads in (1, num_threads):
        solver = make_solver(model, num_envs=3, scalars=FLOAT32, num_threads=threads)
        runs.append((run_forward(solver, state, q, dq), *run_backward(solver, result_bar)))
    for a, b in zip(*runs, strict=True):
        np.testing.assert_array_equal(a, b)


def test_slots_keep_their_trajectories_apart():
    model = make_model()
    solver = make_solver(model, num_slots=3, scalars=FLOAT32)
    runs = [inputs(seed, model) for seed in (23, 29, 31)]
    results = [run_forward(solver, *run[1:4], slot=slot) for slot, run in enumerate(runs)]
    bars = [run_backward(solver, run[4], slot=slot) for slot, run in reversed(list(enumerate(runs)))][::-1]
    alone = make_solver(model, scalars=FLOAT32)
    for run, result, bar in zip(runs, results, bars, strict=True):
        np.testing.assert_array_equal(run_forward(alone, *run[1:4]), result)
        for a, b in zip(run_backward(alone, run[4]), bar, strict=True):
            np.testing.assert_array_equal(a, b)


def free_model(**changes):
    return make_model(tool=Tool(), gravity=(0.0, 0.0, 0.0), **changes)


def test_momentum_and_angular_momentum_are_conserved_in_free_flight():
    model = free_model(num_substeps=40)
    solver = make_solver(model)
    rng = np.random.default_rng(37)
    state = random_state(rng, 1, model.num_particles)
    state[..., 2] += 0.25  # away from the floor
    result = run_forward(solver, state, np.zeros((1, 1)), np.zeros((1, 1)))

    def momenta(s):
        x, v, B = s[0, :, 0:3], s[0, :, 3:6], s[0, :, 6:15].reshape(-1, 3, 3) / (4 * model.grid_size**2)
        # APIC carries the angular momentum of the affine field too (Jiang et al. 2015).
        spin = np.stack([B[:, 2, 1] - B[:, 1, 2], B[:, 0, 2] - B[:, 2, 0], B[:, 1, 0] - B[:, 0, 1]], 1)
        return v.sum(0), (np.cross(x, v) + spin).sum(0)

    for before, after in zip(momenta(state), momenta(result), strict=True):
        np.testing.assert_allclose(after, before, atol=1e-10)


def test_a_block_falls_like_a_stone():
    model = make_model(tool=Tool(), num_substeps=30)
    solver = make_solver(model)
    rng = np.random.default_rng(41)
    state = np.zeros((1, model.num_particles, 24))
    state[..., 0:3] = rng.uniform(-0.1, 0.1, (model.num_particles, 3)) + np.array([0.5, 0.5, 0.6])
    state[..., 3:6] = (0.3, -0.2, 0.1)
    state[..., 15:24] = np.eye(3).reshape(9)
    result = run_forward(solver, state, np.zeros((1, 1)), np.zeros((1, 1)))
    n, dt, g = model.num_substeps, model.dt_s, np.array(model.gravity)
    np.testing.assert_allclose(result[..., 3:6], state[..., 3:6] + n * dt * g, atol=1e-9)
    # Semi-implicit Euler: x_n = x_0 + n dt v_0 + n (n + 1) / 2 dt^2 g.
    fallen = n * dt * state[..., 3:6] + n * (n + 1) / 2 * dt**2 * g
    np.testing.assert_allclose(result[..., 0:3], state[..., 0:3] + fallen, atol=1e-10)


def test_initial_velocity_moves_total_momentum_by_mass():
    # d(total momentum) / d(v0) is the mass of each particle, whatever happens inside the block.
    model = free_model(num_substeps=20)
    solver = make_solver(model)
    state = random_state(np.random.default_rng(43), 1, model.num_particles)
    state[..., 2] += 0.25
    run_forward(solver, state, np.zeros((1, 1)), np.zeros((1, 1)))
    result_bar = np.zeros_like(state)
    result_bar[..., 3] = 1.0
    state_bar, _, _ = run_backward(solver, result_bar)
    np.testing.assert_allclose(state_bar[..., 3:6], np.broadcast_to((1.0, 0.0, 0.0), (1, 160, 3)), atol=1e-9)


def test_a_tool_out_of_reach_gets_no_gradient():
    model = make_model()
    solver = make_solver(model)
    _, state, q, dq, result_bar = inputs(47, model)
    q[:, 1] += 0.6
    state[..., 0] += 0.2  # away from the fixed plane, too
    run_forward(solver, state, q, dq)
    _, q_bar, dq_bar = run_backward(solver, result_bar)
    assert (q_bar == 0).all()
    assert (dq_bar == 0).all()


def test_nothing_passes_a_wall():
    model = make_model(tool=Tool(), num_substeps=50, material="fluid", dt_s=2e-4, floor_friction=0.0)
    solver = make_solver(model, scalars=FLOAT32)
    state = random_state(np.random.default_rng(53), 1, model.num_particles)
    state[..., 6:15] = 0.0
    state[..., 15:24] = np.eye(3).reshape(9)
    for velocity in np.concatenate([np.eye(3), -np.eye(3)]) * 8.0:
        moving = state.copy()
        moving[..., 3:6] = velocity
        for _ in range(20):
            moving = run_forward(solver, moving, np.zeros((1, 1)), np.zeros((1, 1)))
        assert np.isfinite(moving).all()
        low, high = 2.0 / model.grid_size, 1.0 - 2.0 / model.grid_size
        assert moving[..., :3].min() > low
        assert moving[..., :3].max() < high


def test_a_sticky_floor_lets_go_at_once_or_smoothly():
    # One particle per column slides over the floor, rising or sinking slowly: what is left of its horizontal speed.
    rising = np.linspace(-0.12, 0.04, 161)
    left = {}
    for contact in CONTACT_LAWS:
        model = make_model(
            tool=Tool(), num_substeps=1, num_particles=1, gravity=(0.0, 0.0, 0.0), contact=contact
        )
        solver = make_solver(model, num_envs=len(rising), num_threads=1)
        state = np.zeros((len(rising), 1, 24))
        state[..., 0:3] = (0.5, 0.5, 1.5 / model.grid_size)  # all of its nodes belong to the floor
        state[..., 3] = 1.0
        state[:, 0, 5] = rising
        state[..., 15:24] = np.eye(3).reshape(9)
        zero = np.zeros((len(rising), 1))
        left[contact] = run_forward(solver, state, zero, zero)[:, 0, 3]
    np.testing.assert_allclose(left["published"], np.where(rising < 0, 0.0, 1.0), atol=1e-9)
    t = np.clip(-rising / APPROACH_BAND, 0.0, 1.0)
    np.testing.assert_allclose(left["smooth"], 1.0 - t**2 * (3.0 - 2.0 * t), atol=1e-9)


def test_only_blocks_that_particles_touch_are_swept():
    model = make_model(num_substeps=3)
    solver = make_solver(model)
    _, state, q, dq, _ = inputs(59, model)
    run_forward(solver, state, q, dq)
    touched = set()
    base = np.floor(state[0, :, :3] * model.grid_size - 0.5).astype(int)
    for corner in np.ndindex(3, 3, 3):
        touched |= {tuple(node // 4) for node in base + corner}
    assert solver.active_blocks(0)[0] == len(touched)


def test_a_full_block_pool_is_an_error_that_says_what_to_raise():
    model = make_model(max_blocks=2)
    solver = make_solver(model)
    _, state, q, dq, _ = inputs(61, model)
    with pytest.raises(BlockPoolError, match="max_blocks=2; raise max_blocks"):
        run_forward(solver, state, q, dq)


def test_an_env_that_finds_the_pool_full_is_flagged_and_leaves_nothing_behind():
    model = make_model(max_blocks=30)
    rng, state, q, dq, _ = inputs(73, model)
    solver = make_solver(model, scalars=FLOAT32)
    expected = run_forward(solver, state, q, dq)
    assert not solver.faults.numpy().any()
    spread = state.copy()
    spread[..., 0:3] = rng.uniform(0.25, 0.75, spread[..., 0:3].shape)
    with pytest.raises(BlockPoolError):
        run_forward(solver, spread, q, dq)
    assert solver.faults.numpy()[0].tolist()[CROWDED] == 1
    # The next step is clean even if no one asks for the error.
    solver.state.numpy()[0] = spread.reshape(-1)
    solver.forward(0)
    solver.state.numpy()[0] = state.reshape(-1)
    solver.forward(0)
    np.testing.assert_array_equal(solver.state.numpy()[model.num_substeps].reshape(state.shape), expected)


def test_a_full_block_pool_is_told_of_even_if_its_slot_ran_again():
    model = make_model(max_blocks=30)
    rng, state, q, dq, _ = inputs(73, model)
    solver = make_solver(model, scalars=FLOAT32)
    spread = state.copy()
    spread[..., 0:3] = rng.uniform(0.25, 0.75, spread[..., 0:3].shape)
    for particles in (state, spread, state, state):
        solver.state.numpy()[0] = particles.reshape(-1)
        solver.forward(0)
    with pytest.raises(BlockPoolError):
        solver.check()
    run_forward(solver, state, q, dq)  # told once


def test_an_env_that_found_the_pool_full_passes_no_gradient():
    model = make_model(max_blocks=30)
    rng, state, q, dq, result_bar = inputs(73, model)
    solver = make_solver(model, scalars=FLOAT32)
    run_forward(solver, state, q, dq)
    run_backward(solver, result_bar)  # leaves adjoints on the nodes
    state[..., 0:3] = rng.uniform(0.25, 0.75, state[..., 0:3].shape)
    solver.state.numpy()[0] = state.reshape(-1)
    solver.forward(0)
    assert solver.faults.numpy()[0, CROWDED] == 1
    for bar in run_backward(solver, np.zeros_like(result_bar)):
        assert (bar == 0.0).all()


@pytest.mark.parametrize("num_threads", [1, 3])
def test_an_env_that_flies_apart_takes_no_one_else_s_room(num_threads):
    model = make_model(max_blocks=30, num_substeps=40, dt_s=5e-5)
    rng, state, q, dq, result_bar = inputs(79, model, num_envs=3)
    solver = make_solver(model, num_envs=3, scalars=FLOAT32, num_threads=num_threads)
    expected = run_forward(solver, state, q, dq)
    expected_bars = run_backward(solver, result_bar)
    wild, calm_bar = state.copy(), result_bar.copy()
    wild[1, :, 3:6] = rng.normal(size=wild[1, :, 3:6].shape) * 3000.0
    calm_bar[1] = 0.0  # as an env gives it that resets this one
    result = run_forward(solver, wild, q, dq)
    assert solver.active_blocks(0).sum() < solver.asked.numpy().sum(), "it asked for no more than its share"
    assert solver.faults.numpy()[:, CROWDED].tolist() == [0, 0, 0]
    assert solver.faults.numpy()[:, RUNAWAY].tolist() == [0, 1, 0]
    for bars, expected_bar in zip(run_backward(solver, calm_bar), expected_bars, strict=True):
        np.testing.assert_array_equal(bars[[0, 2]], expected_bar[[0, 2]])
        assert (bars[1] == 0.0).all()
    np.testing.assert_array_equal(result[[0, 2]], expected[[0, 2]])
    np.testing.assert_array_equal(run_forward(solver, state, q, dq), expected)


def test_more_envs_than_a_block_can_name_are_refused():
    with pytest.raises(ValueError, match=r"num_envs must be in \[1, 8192\], got 8193"):
        make_solver(make_model(), num_envs=8193)


def test_the_last_env_that_a_block_can_name_falls_like_the_first():
    model = make_model(
        tool=Tool(), grid_size=8, num_particles=1, num_substeps=1, max_blocks=8, floor_friction=0.0
    )
    solver = make_solver(model, num_envs=8192, scalars=FLOAT32, requires_grad=False, num_threads=1)
    state = np.zeros((8192, 1, 24))
    state[..., 0:3] = 0.5
    state[..., 15:24] = np.eye(3).reshape(9)
    zero = np.zeros((8192, 1))
    result = run_forward(solver, state, zero, zero)
    np.testing.assert_allclose(result[..., 5], model.dt_s * model.gravity[2], rtol=1e-6)


@pytest.mark.parametrize("name", ["floor_friction", "tool_friction"])
@pytest.mark.parametrize("value", [-0.1, float("nan")])
def test_friction_that_would_push_is_refused_by_name(name, value):
    with pytest.raises(ValueError, match=f"{name} must be >= 0, got {value}"):
        make_model(**{name: value})


def test_an_unstable_substep_is_refused_with_the_reason():
    with pytest.raises(ValueError, match=r"unstable: a pressure wave at 74\.5 m/s .* Take a smaller dt_s"):
        make_model(dt_s=1e-3)


def test_a_forward_only_solver_says_that_it_is_one():
    solver = make_solver(make_model(), requires_grad=False)
    with pytest.raises(RuntimeError, match="requires_grad=False"):
        solver.backward(0)
