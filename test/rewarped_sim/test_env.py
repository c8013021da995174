"""Episodes: clocks, masked resets and their gradients, isolation of broken envs, exact restore, random starts."""

import numpy as np
import pytest
import torch

import rewarped_sim
from rewarped_sim.engine.mpm.material_table import MATERIAL_FIELDS
from rewarped_sim.engine.mpm.state import PARTICLE_SIZE
from rewarped_sim.env import MAX_MAGNITUDE, DeviceError, StateError
from rewarped_sim.random import uniform
from rewarped_sim.registry import ConfigError, UnknownTaskError, task_names
from rewarped_sim.torch_bridge import WindowError

TINY = {"num_particles": 256, "grid_size": 24, "num_substeps": 20, "max_episode_steps": 6}


def make_tiny(num_envs=2, **options):
    return rewarped_sim.make("rolling_flat_small", num_envs=num_envs, **(TINY | {"horizon": 16} | options))


def actions(env, steps, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(steps, env.num_envs, env.action_dim, generator=generator) * 2 - 1


def press(env):
    """A state in which the pin stands in the dough, so that its motion matters at once."""
    state = env.state_dict()
    state["joint_q"][:, 1] = 0.19
    env.load_state_dict(state)


def test_an_episode_lasts_exactly_its_steps_and_hands_out_the_last_observation():
    env = make_tiny()
    first = env.reset()
    for step in range(2 * TINY["max_episode_steps"]):
        with torch.no_grad():
            result = env.step(torch.zeros(2, 3))
        last = (step + 1) % TINY["max_episode_steps"] == 0
        assert result.truncated.tolist() == [last, last]
        assert not result.terminated.any()
        same = torch.equal(result.obs["particle_q"], result.terminal_obs["particle_q"])
        assert same is not last
    assert not torch.equal(result.obs["particle_q"], first["particle_q"]), (
        "every episode starts from its own draw"
    )


def test_observations_follow_the_specification_and_own_their_memory():
    env = make_tiny()
    obs = env.reset()
    assert {name: tuple(value.shape[1:]) for name, value in obs.items()} == {
        term.name: term.shape for term in env.obs_spec
    }
    with torch.no_grad():
        result = env.step(torch.zeros(2, 3))
    kept = {name: value.clone() for name, value in result.obs.items()}
    with torch.no_grad():
        env.step(torch.ones(2, 3))
    for name, value in kept.items():
        assert torch.equal(result.obs[name], value)
    torch.testing.assert_close(obs["com_q"], obs["particle_q"].mean(1))
    assert result.terminal_obs["joint_q"].tolist() == pytest.approx(np.tile([0.5, 0.2875, 0.0], (2, 1)))


def test_reward_gradient_equals_the_difference_of_returns():
    def returns(delta, requires_grad=False):
        env = make_tiny(num_envs=1, max_episode_steps=50)
        env.reset()
        press(env)
        action = torch.tensor([[0.3, -0.2, 0.1]]) + delta * torch.tensor([[0.0, 1.0, 0.0]])
        action.requires_grad_(requires_grad)
        total = torch.zeros(1)
        for _ in range(6):
            total = total + env.step(action).reward
        return total, action

    total, action = returns(0.0, requires_grad=True)
    (gradient,) = torch.autograd.grad(total.sum(), action)
    # The gradient counts what the joints carry on, too: control() reads a detached joint position only for its limits.
    eps = 0.02
    expected = (returns(eps)[0].item() - returns(-eps)[0].item()) / (2 * eps)
    assert gradient[0, 1].item() == pytest.approx(expected, rel=0.05)
    assert expected != 0.0


def test_a_reset_cuts_its_own_gradient_and_no_other():
    env = make_tiny(horizon=16)
    env.reset()
    press(env)
    state = env.state_dict()
    state["clock"] = torch.tensor([TINY["max_episode_steps"] - 3, 0])  # env 0 is reset after three steps
    env.load_state_dict(state)
    sequence = actions(env, 5).requires_grad_()
    for t in range(5):
        result = env.step(sequence[t])
    (gradient,) = torch.autograd.grad(result.reward.sum(), sequence)
    assert (gradient[:3, 0] == 0).all(), "before its reset"
    assert (gradient[:3, 1] != 0).any(dim=-1).all(), "the neighbour's past"


def test_terminal_observation_keeps_its_gradient():
    env = make_tiny()
    env.reset()
    press(env)
    state = env.state_dict()
    state["clock"][:] = TINY["max_episode_steps"] - 1
    env.load_state_dict(state)
    action = torch.full((2, 3), -0.5, requires_grad=True)
    result = env.step(action)
    assert result.truncated.all()
    (through_end,) = torch.autograd.grad(result.terminal_obs["joint_q"].sum(), action, retain_graph=True)
    assert (through_end != 0).all()
    assert (
        not result.obs["joint_q"].requires_grad
        or torch.autograd.grad(result.obs["joint_q"].sum(), action, allow_unused=True)[0].eq(0).all()
    )


BREAKAGES = {
    "position is not a number": ("x", float("nan"), "runaway"),
    "velocity is not a number": ("v", float("nan"), "runaway"),
    "deformation is not a number": ("F", float("nan"), "runaway"),
    "a particle crosses a cell in one substep": ("v", 1e4, "runaway"),
    "a particle is off the grid": ("x", 1.3, "left_grid"),
    "a particle is inside out": ("F", torch.diag(torch.tensor([1.0, 1.0, -1.0])), "inverted"),
}


@pytest.mark.parametrize("breakage", list(BREAKAGES))
def test_a_broken_env_is_reset_counted_and_leaves_the_others_bit_identical(breakage):
    field, value, fault = BREAKAGES[breakage]

    def run(broken):
        env = make_tiny(num_envs=3)
        env.reset()
        press(env)
        state = env.state_dict()
        if broken:
            state[field][1, 5] = value
        env.load_state_dict(state)
        sequence = actions(env, 3).requires_grad_()
        results = [env.step(sequence[t]) for t in range(3)]
        (gradient,) = torch.autograd.grad(sum(r.reward.sum() for r in results), sequence)
        return env, results, gradient

    _, clean, clean_gradient = run(broken=False)
    env, faulty, gradient = run(broken=True)
    assert env.nonfinite.tolist() == [0, 1, 0]
    assert env.faults[fault].tolist() == [0, 1, 0]
    assert faulty[0].info[f"fault/{fault}"].tolist() == [False, True, False]
    assert faulty[0].info["nonfinite"].tolist() == [False, True, False]
    assert faulty[0].terminated.tolist() == [False, True, False]
    assert faulty[0].reward[1] == 0
    for a, b in zip(clean, faulty, strict=True):
        assert torch.equal(a.reward[::2], b.reward[::2])
        for name in a.obs:
            assert torch.equal(a.obs[name][::2], b.obs[name][::2])
            assert torch.isfinite(b.obs[name]).all()
            assert torch.isfinite(b.terminal_obs[name]).all()
    assert torch.equal(gradient[:, ::2], clean_gradient[:, ::2])
    assert torch.isfinite(gradient).all()
    assert (gradient[0, 1] == 0).all()


def test_an_env_that_breaks_in_its_last_step_did_not_reach_its_time_limit():
    env = make_tiny(max_episode_steps=1)
    env.reset()
    state = env.state_dict()
    state["x"][1, 5] = float("nan")
    env.load_state_dict(state)
    result = env.step(torch.zeros(2, 3))
    assert result.terminated.tolist() == [False, True]
    assert result.truncated.tolist() == [True, False]  # else a fresh start would be what comes after it
    assert env.state_dict()["episode"].tolist() == [2, 2]


@pytest.mark.parametrize("spoil", [float("nan"), float("inf")])
def test_a_reward_that_is_not_finite_breaks_its_env_alone(spoil, monkeypatch):
    def run(broken):
        env = make_tiny(num_envs=3)
        reward = env.task.reward

        def spoiled(state, action):
            terms = reward(state, action)
            name = next(iter(terms))
            return terms | {name: terms[name] + torch.tensor([0.0, spoil, 0.0])}

        env.reset()
        if broken:
            monkeypatch.setattr(env.task, "reward", spoiled)
        action = torch.full((3, 3), 0.5, requires_grad=True)
        result = env.step(action)
        return env, result, torch.autograd.grad(result.reward.sum(), action)[0]

    _, clean, clean_gradient = run(broken=False)
    env, faulty, gradient = run(broken=True)
    assert env.nonfinite.tolist() == [0, 1, 0]
    assert faulty.info["nonfinite"].tolist() == faulty.terminated.tolist() == [False, True, False]
    assert faulty.reward[1] == 0
    assert torch.equal(faulty.reward[::2], clean.reward[::2])
    assert torch.equal(gradient[::2], clean_gradient[::2])
    assert env.state_dict()["episode"].tolist() == [1, 2, 1]


def test_looking_ahead_shows_what_a_step_makes_and_changes_nothing():
    env = make_tiny()
    env.reset()
    press(env)
    before = env.state_dict()
    action = actions(env, 1)[0]
    with torch.no_grad():
        state, terms = env.look_ahead(action)
        state = {name: value.clone() for name, value in state.items()}
        assert all(
            torch.equal(value, before[name]) for name, value in env.state_dict().items() if name in state
        )
        result = env.step(action)
    for name, value in state.items():
        assert torch.equal(value, env.state_dict()[name])
    torch.testing.assert_close(sum(terms.values()), result.reward)


def test_stored_and_recomputed_gradients_are_bit_identical():
    gradients = []
    for storage in ("store", "recompute"):
        env = make_tiny(storage=storage, max_episode_steps=50)
        env.reset()
        press(env)
        sequence = actions(env, 8).requires_grad_()
        reward = sum(env.step(sequence[t]).reward.sum() for t in range(8))
        gradients.append(torch.autograd.grad(reward, sequence)[0])
    assert torch.equal(*gradients)
    assert (gradients[0] != 0).any()


def test_a_batch_equals_its_members():
    batch = make_tiny(num_envs=3)
    batch.reset()
    sequence = actions(batch, 4)
    with torch.no_grad():
        results = [batch.step(a) for a in sequence]
    state = batch.state_dict()
    for i in range(3):
        single = make_tiny(num_envs=1)
        single.reset()
        start = make_tiny(num_envs=3)
        start.reset()
        mine = single.state_dict()
        for name, value in start.state_dict().items():
            mine[name] = value[i : i + 1] if torch.is_tensor(value) else value
        single.load_state_dict(mine)
        with torch.no_grad():
            for t, a in enumerate(sequence):
                assert torch.equal(single.step(a[i : i + 1]).reward[0], results[t].reward[i])
        for name in ("x", "v", "C", "F"):
            assert torch.equal(single.state_dict()[name][0], state[name][i])


def test_a_restored_env_goes_on_exactly():
    env = make_tiny()
    env.reset()
    sequence = actions(env, 12)
    with torch.no_grad():
        for a in sequence[:4]:
            env.step(a)
        saved = env.state_dict()
        expected = [env.step(a) for a in sequence[4:]]  # across a reset
        other = make_tiny(seed=99)
        other.load_state_dict(saved)
        for a, result in zip(sequence[4:], expected, strict=True):
            again = other.step(a)
            assert torch.equal(again.reward, result.reward)
            assert torch.equal(again.obs["particle_q"], result.obs["particle_q"])
    assert saved["x"].shape == (2, 256, 3)
    assert saved["F"].shape == (2, 256, 3, 3)


def test_a_state_that_does_not_fit_is_refused_by_field():
    env = make_tiny()
    state = env.state_dict()
    with pytest.raises(StateError, match="field 'v' is missing"):
        env.load_state_dict({k: v for k, v in state.items() if k != "v"})
    with pytest.raises(StateError, match=r"x: expected \(2, 256, 3\), got \(2, 9, 3\)"):
        env.load_state_dict(state | {"x": torch.zeros(2, 9, 3)})
    with pytest.raises(StateError, match="task: expected 'rolling_flat_small', got 'ant'"):
        env.load_state_dict(state | {"task": "ant"})


def test_a_full_window_and_a_stale_gradient_are_errors():
    env = make_tiny(horizon=2, max_episode_steps=50)
    env.reset()
    action = torch.zeros(2, 3, requires_grad=True)
    env.step(action)
    reward = env.step(action).reward
    with pytest.raises(WindowError, match="horizon=2 control steps"):
        env.step(action)
    env.detach()
    with pytest.raises(WindowError, match="earlier window"):
        reward.sum().backward()


def test_a_forward_only_env_says_so():
    env = make_tiny(requires_grad=False)
    with pytest.raises(WindowError, match="requires_grad=False"):
        env.step(torch.zeros(2, 3, requires_grad=True))


def test_steps_without_gradient_do_not_use_up_the_window():
    env = make_tiny(horizon=1, max_episode_steps=50)
    with torch.no_grad():
        for _ in range(4):
            env.step(torch.zeros(2, 3))
    env.step(torch.zeros(2, 3, requires_grad=True))


def test_actions_are_clipped_and_joints_stay_in_their_limits():
    env = make_tiny(max_episode_steps=200)
    env.reset()
    limits = env.task.action
    with torch.no_grad():
        env.step(torch.tensor([[5.0, -5.0, 5.0]] * 2))
        torch.testing.assert_close(
            env.joint_q[0],
            torch.tensor([0.5, 0.2875, 0.0]) + torch.tensor(limits.scale) * torch.tensor([1.0, -1, 1]),
        )
        for _ in range(60):
            env.step(torch.ones(2, 3))
    torch.testing.assert_close(env.joint_q[1], torch.tensor(limits.upper))
    with pytest.raises(ValueError, match=r"action: expected \(2, 3\), got \(2, 4\)"):
        env.step(torch.zeros(2, 4))


def test_material_constants_vary_by_env_and_episode_within_their_spread():
    env = make_tiny(num_envs=64, material_spread=0.3, requires_grad=False)
    nominal = torch.tensor(env.model.material_table[0], dtype=torch.float32)
    draws = []
    for _ in range(2):
        env.reset()
        draws.append(env.state_dict()["materials"][:, 0] / nominal.clamp_min(1e-30))
    mu, lam, strength = (draws[0][:, MATERIAL_FIELDS.index(name)] for name in ("mu", "lam", "yield_stress"))
    torch.testing.assert_close(mu, lam)
    for factor in (mu, strength):
        assert factor.min() >= 0.7
        assert factor.max() <= 1.3
        assert factor.std() == pytest.approx(0.3 / 3**0.5, rel=0.2)
    assert abs(np.corrcoef(mu, strength)[0, 1]) < 0.4
    assert not torch.equal(*draws)
    kept = [MATERIAL_FIELDS.index(name) for name in ("law", "volume", "mass")]
    torch.testing.assert_close(env.state_dict()["materials"][:, 0, kept], nominal[kept].expand(64, -1))


def test_varied_constants_reach_the_physics_and_make_no_one_else_differ():
    one = make_tiny(num_envs=2, material_spread=0.5, seed=5)
    other = make_tiny(num_envs=2, seed=5)
    results = []
    for env in (one, other):
        env.reset()
        press(env)
        with torch.no_grad():
            for action in actions(env, 4):
                env.step(action)
        results.append(env.state_dict()["F"])
    assert not torch.equal(*results)
    one.reset()
    one.materials = torch.tensor(one.model.material_table, dtype=torch.float32).repeat(2, 1, 1)
    other.load_state_dict({name: v for name, v in one.state_dict().items() if name != "materials"})
    for env in (one, other):
        press(env)
        with torch.no_grad():
            env.step(actions(env, 1)[0])
    assert torch.equal(one.state_dict()["F"], other.state_dict()["F"])


def test_a_stiff_material_that_varies_is_no_broken_state():
    env = make_tiny(young=4.0e6, num_substeps=320, material_spread=0.1, requires_grad=False)
    env.reset()
    mu = env.state["materials"][..., MATERIAL_FIELDS.index("mu")]
    assert mu.min() > MAX_MAGNITUDE
    result = env.step(torch.zeros(env.num_envs, 3))
    assert not result.terminated.any() and not env.nonfinite.any()


def test_given_constants_are_forgotten_when_taken_back():
    env = make_tiny()
    env.reset()
    press(env)
    start = env.state_dict()

    def stepped():
        env.load_state_dict(start)
        with torch.no_grad():
            env.step(actions(env, 1)[0])
        return env.state_dict()["F"]

    own = stepped()
    env.materials = torch.tensor(env.model.material_table, dtype=torch.float32).repeat(2, 1, 1)
    env.materials[..., MATERIAL_FIELDS.index("mu")] *= 1.5
    assert not torch.equal(stepped(), own)
    env.materials = None
    assert torch.equal(stepped(), own)


@pytest.mark.parametrize("storage", ["store", "recompute"])
def test_gradients_with_respect_to_material_constants(storage):
    env = make_tiny(material_gradient=True, storage=storage, max_episode_steps=50)
    env.reset()
    press(env)
    start = env.state_dict()
    table = torch.tensor(env.model.material_table, dtype=torch.float32).repeat(2, 1, 1)
    sequence = 0.3 * actions(env, 5)  # gently: few nodes jump over the contact's cutoff

    def depth(materials):
        env.load_state_dict(start)
        env.materials = materials
        for action in sequence:
            result = env.step(action)
        return result.obs["com_q"][:, 2]

    materials = table.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(depth(materials).sum(), materials)
    column = MATERIAL_FIELDS.index("mu")
    with torch.no_grad():
        high, low = table.clone(), table.clone()
        high[..., column] *= 1.05
        low[..., column] *= 0.95
        expected = (depth(high) - depth(low)).double() / (0.1 * table[0, 0, column])
    torch.testing.assert_close(gradient[:, 0, column].double(), expected, rtol=0.05, atol=0.0)
    with pytest.raises(WindowError, match="material_gradient=True"):
        plain = make_tiny()
        plain.materials = materials
        plain.step(torch.zeros(2, 3))


def test_a_spread_that_makes_the_substep_too_long_is_refused():
    with pytest.raises(ValueError, match=r"unstable: a pressure wave at .* crosses 0\.\d+ of a cell"):
        make_tiny(num_substeps=8, material_spread=0.9)


def test_a_share_of_a_larger_batch_has_its_starts_and_materials():
    whole, share = make_tiny(4, material_spread=0.3), make_tiny(2, material_spread=0.3, first_env=2)
    for _ in range(2):
        whole.reset(), share.reset()
        assert not torch.equal(whole.state["particles"][:2], whole.state["particles"][2:])
        for name, value in share.state.items():
            assert torch.equal(value, whole.state[name][2:]), name


def test_starts_are_drawn_per_env_episode_and_seed_only():
    episode = torch.tensor([3, 3, 4])
    draw = uniform(7, episode, 4)
    assert torch.equal(draw[:2], uniform(7, episode[:2], 4))
    assert not torch.equal(draw[0], draw[1])
    assert not torch.equal(draw, uniform(8, episode, 4))
    assert not torch.equal(draw[0], uniform(7, episode + 1, 4)[0])


def test_random_numbers_are_uniform_and_uncorrelated():
    draws = torch.stack(
        [uniform(5, torch.full((400,), e), 6) for e in range(50)]
    ).double()  # episode, env, index
    flat = draws.flatten()
    assert flat.min() >= 0.0 and flat.max() < 1.0
    assert flat.mean().item() == pytest.approx(0.5, abs=4 * (1 / 12 / flat.numel()) ** 0.5)
    counts = torch.histc(flat, 20, 0, 1)
    chi2 = ((counts - flat.numel() / 20) ** 2 / (flat.numel() / 20)).sum().item()
    assert chi2 < 50  # 19 degrees of freedom: 1e-4 quantile is 48.6
    centred = draws - 0.5
    for shifted in (
        centred[1:] * centred[:-1],
        centred[:, 1:] * centred[:, :-1],
        centred[..., 1:] * centred[..., :-1],
    ):
        assert abs(shifted.mean().item() * 12) < 4 / shifted.numel() ** 0.5


def test_packed_state_is_named_in_order():
    env = make_tiny()
    env.reset()
    state = env.state_dict()
    packed = torch.cat([state[name].flatten(2) for name in ("x", "v", "C", "F")], dim=2)
    assert packed.shape[-1] == PARTICLE_SIZE
    assert torch.equal(packed, env._state["particles"])


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda: rewarped_sim.make("roling_flat"), UnknownTaskError, "'roling_flat'; did you mean 'rolling_flat'"),
        (lambda: make_tiny(num_particle=9), ConfigError, "'num_particle'; did you mean 'num_particles'"),
        (lambda: make_tiny(young="soft"), ConfigError, r"rolling_flat_small.young: expected float, got 'soft'"),
        (lambda: make_tiny(randomize=1), ConfigError, "randomize: expected bool, got 1"),
        (lambda: make_tiny(num_particles=9), ConfigError, "num_particles must be >= 250"),
        (lambda: make_tiny(num_substeps=0), ConfigError, "num_substeps must be >= 1, got 0"),
        (lambda: make_tiny(grid_size=0), ConfigError, "grid_size must be >= 1, got 0"),
        (lambda: make_tiny(num_envs=0), ValueError, "num_envs must be >= 1, got 0"),
        (lambda: make_tiny(horizon=-1), ValueError, "horizon must be >= 0, got -1"),
        (lambda: make_tiny(device="cuda:7"), DeviceError, "device 'cuda:7': torch sees"),
        (lambda: make_tiny(device="gpu"), DeviceError, "unknown device 'gpu'"),
        (lambda: make_tiny(device="cpu:1"), DeviceError, "'cpu:1' is not supported; known: cpu, cuda"),
        (lambda: make_tiny(young=5.0e6), ConfigError, "rolling_flat_small: unstable: a pressure wave"),
        (lambda: rewarped_sim.make("cartpole", friction_spread=0.1), ConfigError, "cartpole: friction_spread = 0.1: "),
        (lambda: make_tiny(storage="disk"), ValueError, "storage must be one of"),
    ],
)  # fmt: skip
def test_bad_input_is_refused_with_the_choices(call, error, text):
    with pytest.raises(error, match=text):
        call()


def test_every_registered_task_builds_and_steps():
    assert {"rolling_flat", "rolling_flat_small"} <= set(task_names())
    for name in task_names():
        env = rewarped_sim.make(name, num_envs=1, requires_grad=False)
        env.reset()
        with torch.no_grad():
            result = env.step(torch.zeros(1, env.action_dim))
        assert torch.isfinite(result.reward).all()
        assert "GiB" in env.memory_report()
        contract = env.contract(policy_name="p", train={"seed": 1})
        assert contract == type(contract).from_json(contract.to_json())
