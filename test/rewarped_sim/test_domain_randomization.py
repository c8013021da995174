import pytest
import torch

import rewarped_sim
from rewarped_sim.assets.allegro_hand import allegro_hand
from rewarped_sim.domain_randomization import DomainRandomization, RandomParameters
from rewarped_sim.engine.articulation.parameters import ParameterLayout, default_parameters
from rewarped_sim.registry import ConfigError

SPREADS = {
    "mass_spread": 0.1,
    "friction_spread": 0.2,
    "stiffness_spread": 0.3,
    "damping_spread": 0.4,
    "strength_spread": 0.2,
    "gravity_spread": 0.05,
}


def make(**options):
    return rewarped_sim.make("ant", requires_grad=False, **options)


def test_by_default_nothing_varies():
    assert "parameters" not in make().state


@pytest.mark.parametrize(
    ("name", "field", "where", "columns"),
    [
        ("mass_spread", "mass", slice(None), 9),
        ("friction_spread", "contact", slice(3, 4), 1),
        ("stiffness_spread", "contact", slice(0, 1), 1),
        ("damping_spread", "damping", slice(6, None), 1),
        ("gravity_spread", "gravity", slice(2, 3), 1),
    ],
)
def test_each_quantity_varies_within_its_spread_and_alone(name, field, where, columns):
    env, plain = make(num_envs=256, **{name: 0.2}), make()
    own = plain._bridge.engine.ports[-1].default
    ratio = torch.where(own != 0.0, env.state["parameters"] / own, 1.0)
    place = getattr(ParameterLayout.of(env.model), field)
    varied = ratio[:, place][:, where]
    assert varied.min() == pytest.approx(0.8, abs=0.02)
    assert varied.max() == pytest.approx(1.2, abs=0.02)
    assert len(torch.unique(varied, dim=1)[0]) == columns
    changed = (ratio != 1.0).any(dim=0)
    expected = torch.zeros_like(changed)
    expected[torch.arange(len(changed))[place][where]] = True
    assert torch.equal(changed, expected)


def test_starts_are_the_same_with_and_without():
    plain, varied = make(num_envs=4), make(num_envs=4, **SPREADS)
    for name, value in plain.state.items():
        assert torch.equal(varied.state[name], value)


def test_parameters_differ_between_envs_and_episodes_and_stay_within_one():
    env = make(num_envs=2, **SPREADS)
    env.reset()
    first = env.state["parameters"].clone()
    with torch.no_grad():
        env.step(torch.zeros(2, 8))
    assert torch.equal(env.state["parameters"], first)
    env.reset()
    assert not torch.equal(env.state["parameters"], first)
    assert not torch.equal(first[0], first[1])


def test_weaker_gravity_is_felt():
    env = make(num_envs=64, gravity_spread=0.5, randomize=False)
    env.reset()
    with torch.no_grad():
        obs = env.step(torch.zeros(64, 8)).obs
    gravity = env.state["parameters"][:, 2]
    assert torch.allclose(obs["torso_velocity"][:, 2], gravity / 60.0, rtol=1e-4)


def test_drives_vary_where_there_are_any():
    model = allegro_hand(drive_stiffness=3.0, drive_damping=0.1)
    vary = RandomParameters(model, DomainRandomization(gain_spread=0.5), torch.device("cpu"), actuators=16)
    values = vary(torch.full((1, vary.num_random), 1.0))["parameters"][0]
    layout = ParameterLayout.of(model)
    assert values[layout.drive_stiffness][:16].tolist() == pytest.approx([4.5] * 16)
    assert values[layout.drive_damping][:16].tolist() == pytest.approx([0.15] * 16)


@pytest.mark.parametrize(("task", "control"), [("ant", "joint_f"), ("snu_humanoid", "activation")])
def test_each_actuator_has_a_strength_of_its_own(task, control):
    env = rewarped_sim.make(task, num_envs=256, requires_grad=False, strength_spread=0.2)
    plain = rewarped_sim.make(task, num_envs=256, requires_grad=False)
    action = torch.full((256, env.action_dim), 0.5)
    weak, own = (one.task.control(one.state, action)[control] for one in (env, plain))
    ratio = torch.where(own != 0.0, weak / own, 1.0)
    driven = (own != 0.0).all(dim=0)
    assert int(driven.sum()) == env.action_dim
    assert ratio.min() == pytest.approx(0.8, abs=0.02)
    assert ratio.max() == pytest.approx(1.2, abs=0.02)
    correlation = torch.corrcoef(ratio[:, driven].T)[0, 1:]
    assert correlation.abs().max() < 0.35
    assert torch.equal(env.state["parameters"][0], env.state["parameters"][1])


@pytest.mark.parametrize(
    ("task", "spread"),
    [
        ("cartpole", "friction_spread"),
        ("cartpole", "stiffness_spread"),
        ("ant_run", "damping_spread"),
        ("ant", "gain_spread"),
    ],
)
def test_a_spread_of_what_a_robot_does_not_have_is_refused(task, spread):
    with pytest.raises(ValueError, match=rf"{spread} = 0\.1: this model has none to vary"):
        rewarped_sim.make(task, **{spread: 0.1})


def test_robots_that_touch_nothing_vary_in_the_rest():
    env = rewarped_sim.make("cartpole", num_envs=2, requires_grad=False, mass_spread=0.1, gravity_spread=0.1)
    own = default_parameters(env.model)
    contact = ParameterLayout.of(env.model).contact
    assert (env.state["parameters"][:, contact] == torch.tensor(own)[contact]).all()
    assert not torch.equal(env.state["parameters"][0], env.state["parameters"][1])


def test_a_spread_of_one_is_refused():
    with pytest.raises(ConfigError, match=r"ant: mass_spread must be in \[0, 1\), got 1.0"):
        make(mass_spread=1.0)
