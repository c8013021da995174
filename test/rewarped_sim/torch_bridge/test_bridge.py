"""The bridge on an engine of two lines, whose gradients torch can find by itself."""

import pytest
import torch
from cubic_spring import FASTEST, FRICTION, PointMass, expected

from rewarped_sim.engine.trajectory import plan_storage
from rewarped_sim.torch_bridge import Bridge, WindowError

ENVS, STEPS = 3, 6
START = {"x": torch.tensor([0.5, -1.0, 1.5]), "v": torch.tensor([0.1, 0.7, -0.4])}
CONTROLS = torch.linspace(-2.0, 2.0, STEPS * ENVS).view(STEPS, ENVS)


def make(storage="store", *, horizon=STEPS, **options):
    plan = plan_storage(
        bytes_per_slot=1, bytes_per_checkpoint=1, horizon=horizon, policy=storage, budget_bytes=10**6
    )
    return Bridge(
        lambda num_slots: PointMass(num_slots, ENVS, **options),
        plan=plan,
        num_envs=ENVS,
        device=torch.device("cpu"),
    )


def run(bridge, start, controls, **constants):
    """States (steps, num_envs) of x and v."""
    state, xs, vs = dict(start), [], []
    for u in controls:
        state = bridge.step({**state, "u": u, **constants})
        xs.append(state["x"])
        vs.append(state["v"])
    return torch.stack(xs), torch.stack(vs)


def variables(dtype=torch.float32):
    values = {**START, "controls": CONTROLS, "c": torch.tensor([0.3, 0.0, 0.8])}
    return {name: value.to(dtype).clone().requires_grad_() for name, value in values.items()}


def gradients(path, given):
    """Of a loss that every state of the window has a part in."""
    xs, vs = path
    weights = torch.linspace(-1.0, 2.0, STEPS, dtype=xs.dtype)[:, None]
    loss = (weights * xs.square()).sum() + (weights * vs).sum()
    return torch.autograd.grad(loss, list(given.values()))


@pytest.mark.parametrize("storage", ["store", "recompute"])
def test_results_and_gradients_are_those_that_torch_finds(storage):
    given, exact = variables(), variables(torch.float64)
    path = run(make(storage), {"x": given["x"], "v": given["v"]}, given["controls"], c=given["c"])
    true_path = expected(exact["x"], exact["v"], exact["controls"], exact["c"])
    for found, true in zip(path, true_path, strict=True):
        torch.testing.assert_close(found.double(), true, rtol=1e-5, atol=1e-6)
    for found, true in zip(gradients(path, given), gradients(true_path, exact), strict=True):
        torch.testing.assert_close(found.double(), true, rtol=1e-5, atol=1e-5)


def test_stored_and_recomputed_gradients_are_bit_identical():
    found = []
    for storage in ("store", "recompute"):
        given = variables()
        path = run(make(storage), {"x": given["x"], "v": given["v"]}, given["controls"], c=given["c"])
        found.append(gradients(path, given))
    assert all(torch.equal(one, other) for one, other in zip(*found, strict=True))


def test_a_stored_window_is_run_once_and_a_recomputed_one_twice():
    for storage, runs in (("store", 1), ("recompute", 2)):
        bridge, given = make(storage), variables()
        gradients(run(bridge, {"x": given["x"], "v": given["v"]}, given["controls"], c=given["c"]), given)
        assert bridge.engine.forwards == runs * STEPS


def test_a_result_is_the_engines_own_memory():
    bridge = make()
    u = torch.zeros(ENVS, requires_grad=True)
    (result,) = (bridge.step({**START, "u": u})[name] for name in ("x",))
    assert result.data_ptr() == bridge.engine.ports[0].result[0].data_ptr()


def test_steps_without_gradient_leave_the_window_alone():
    bridge, given = make(), variables()
    xs, vs = [], []
    state = {"x": given["x"], "v": given["v"]}
    for u in given["controls"]:
        with torch.no_grad():
            for _ in range(3):
                bridge.step({**START, "u": torch.full((ENVS,), 9.0)})
        state = bridge.step({**state, "u": u, "c": given["c"]})
        xs.append(state["x"])
        vs.append(state["v"])
    plain = variables()
    path = run(make(), {"x": plain["x"], "v": plain["v"]}, plain["controls"], c=plain["c"])
    for found, true in zip(
        gradients((torch.stack(xs), torch.stack(vs)), given), gradients(path, plain), strict=True
    ):
        assert torch.equal(found, true)


def test_only_what_is_asked_for_gets_a_gradient():
    x = START["x"].clone().requires_grad_()
    velocity = make().step({**START, "x": x, "u": torch.zeros(ENVS)})["v"]
    (gradient,) = torch.autograd.grad(velocity.sum(), x)
    torch.testing.assert_close(gradient, -0.3 * START["x"] ** 2)


def test_a_gradient_that_is_not_finite_stays_in_its_env_and_is_counted():
    def found(x):
        bridge, given = make(), variables()
        given["x"] = x.clone().requires_grad_()
        xs, vs = run(bridge, {"x": given["x"], "v": given["v"]}, given["controls"], c=given["c"])
        # As the env does it: what broke is not looked at. The adjoint is 0 there, and 0 * inf within the engine.
        healthy = torch.isfinite(xs) & torch.isfinite(vs)
        zero = torch.zeros(())
        return bridge, gradients((torch.where(healthy, xs, zero), torch.where(healthy, vs, zero)), given)

    _, clean = found(START["x"])
    bridge, broken = found(torch.tensor([0.5, float("inf"), 1.5]))
    assert bridge.bad_adjoints.tolist() == [0, STEPS, 0]
    for one, other in zip(broken, clean, strict=True):
        assert torch.equal(one[..., ::2], other[..., ::2])
        assert not one[..., 1].any()


def test_faults_are_those_of_the_last_step():
    bridge = make()
    with torch.no_grad():
        bridge.step({**START, "v": torch.tensor([0.0, 2.0 * FASTEST, 0.0]), "u": torch.zeros(ENVS)})
        assert bridge.faults.tolist() == [[False], [True], [False]]
        bridge.step({**START, "u": torch.zeros(ENVS)})
    assert not bridge.faults.any()
    bridge.engine.faults = None
    assert bridge.faults.shape == (ENVS, 0)


def test_a_default_stands_in_until_a_value_is_given_and_again_after():
    bridge = make()

    def velocity(**constants):
        with torch.no_grad():
            return bridge.step({**START, "u": torch.zeros(ENVS), **constants})["v"].clone()

    own = velocity()
    assert not torch.equal(velocity(c=torch.full((ENVS,), 5.0)), own)
    assert torch.equal(velocity(), own)
    assert torch.equal(velocity(c=torch.full((ENVS,), FRICTION)), own)


def test_what_moves_without_physics_follows_and_strangers_are_passed_over():
    steps = torch.zeros(ENVS, dtype=torch.int64)
    result = make().step({**START, "u": torch.zeros(ENVS), "steps": steps, "goal": torch.ones(ENVS, 3)})
    assert set(result) == {"x", "v", "steps"}
    assert result["steps"].tolist() == [1, 1, 1]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"u": None}, KeyError, r"physics needs 'u'; given: \['u', 'v', 'x'\]"),
        ({"u": torch.zeros(ENVS, 1)}, ValueError, r"physics: u: expected \(3,\), got \(3, 1\)"),
        ({"v": torch.zeros(1)}, ValueError, r"physics: v: expected \(3,\), got \(1,\)"),
        ({"c": torch.zeros(())}, ValueError, r"physics: c: expected \(3,\), got \(\)"),
    ],
)
def test_an_input_that_does_not_fit_is_refused_by_name(change, error, message):
    with pytest.raises(error, match=message):
        make().step({**START, "u": torch.zeros(ENVS)} | change)


def test_gradients_outside_of_their_window_are_refused():
    bridge = make(horizon=2)
    u = torch.zeros(ENVS, requires_grad=True)
    path = run(bridge, START, [u, u])
    with pytest.raises(WindowError, match="horizon=2 control steps with gradient and is full"):
        bridge.step({**START, "u": u})
    bridge.rewind()
    bridge.step({**START, "u": u})
    with pytest.raises(WindowError, match="earlier window"):
        path[0].sum().backward()


def test_gradients_that_were_not_built_for_are_refused_with_the_option():
    u = torch.zeros(ENVS, requires_grad=True)
    with pytest.raises(WindowError, match="requires_grad=False"):
        make(horizon=0).step({**START, "u": u})
    c = torch.full((ENVS,), 0.1, requires_grad=True)
    with pytest.raises(WindowError, match="c require a gradient: make the env with parameter_gradient=True"):
        make(parameter_gradient=False).step({**START, "u": u, "c": c})


@pytest.mark.parametrize("storage", ["store", "recompute"])
def test_second_derivatives_are_refused(storage):
    u = torch.zeros(STEPS, ENVS, requires_grad=True)
    xs, _ = run(make(storage), START, u)
    (slope,) = torch.autograd.grad(xs.square().sum() + u.square().sum(), u, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiate twice"):
        slope.square().sum().backward()


def test_a_new_window_asks_the_engine_whether_all_went_well():
    bridge = make()
    bridge.rewind()
    assert bridge.engine.checks == 1
