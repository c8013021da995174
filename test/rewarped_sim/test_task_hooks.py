"""What a task may do between steps, on a task of our own: a cart on a rail that runs from goal to goal."""

import numpy as np
import pytest
import torch

from policy_runner.contract import ActionSpec
from rewarped_sim.engine.articulation.model import ArticulationModel, Body, Geom, Joint
from rewarped_sim.env import Env
from rewarped_sim.observation import fill, privileged_term
from rewarped_sim.scene import Scene
from rewarped_sim.task import Task

LONG_WAY = 5.0
"""Beyond this the cart has left its rail [m]."""


class Courier(Task):
    """Actions push the cart and shift the target of its drive; where it reaches its goal it gets another."""

    name = "courier"
    obs_spec = (privileged_term("place", 1, "m"), privileged_term("goal", 1, "m"))
    point_cloud = None
    control_dt_s = 0.02
    max_episode_steps = 50
    default_joint_pos = (0.0, 0.0)
    num_random = 2
    action = ActionSpec(
        joint_names=("push", "drive"),
        mode="effort",
        scale=(10.0, 1.0),
        lower=(-5.0, -5.0),
        upper=(5.0, 5.0),
        max_velocity=(10.0, 10.0),
    )

    def __init__(self, entry="trips"):
        self._entry = entry
        self.draws = []

    def build(self):
        rail = Joint(name="rail", kind="slide", axis=(1.0, 0.0, 0.0), drive_stiffness=20.0, drive_damping=1.0)
        cart = Body(name="cart", joints=(rail,), geoms=(Geom(kind="sphere", size=(0.1,)),))
        return ArticulationModel(bodies=(cart,), control_dt_s=self.control_dt_s, num_substeps=4)

    def initial_state(self, uniform):
        count = len(uniform)
        return {
            "joint_q": uniform[:, :1],
            "joint_qd": torch.zeros(count, 1),
            "goal": 1.0 + uniform[:, 1:],
            self._entry: torch.zeros(count, dtype=torch.int64),
            "moved": torch.zeros(count, dtype=torch.bool),
        }

    def control(self, state, action):
        push, drive = action.split(1, dim=1)
        return {"joint_f": 10.0 * push, "joint_target": drive}

    def observe(self, state, action):
        return fill(self.obs_spec, privileged={"place": state["joint_q"], "goal": state["goal"]})

    def reward(self, state, action):
        return {"near": -(state["joint_q"] - state["goal"])[:, 0].square()}

    def terminated(self, state):
        return state["joint_q"][:, 0].abs() > LONG_WAY

    def after_step(self, state, draw):
        drawn = draw(state["trips"], 3)
        self.draws.append(drawn)
        arrived = ((state["joint_q"] - state["goal"]).abs() < 0.05)[:, 0]
        return state | {
            "goal": torch.where(arrived[:, None], 2.0 + drawn[:, :1], state["goal"]),
            "trips": state["trips"] + arrived,
            "moved": torch.ones_like(state["moved"]),
        }

    def scene(self, state, action, index):
        nothing = np.zeros((0, 3), np.float32)
        return Scene(
            frame="world",
            particles=nothing,
            particle_color=(0.0, 0.0, 0.0),
            particle_radius=0.0,
            shapes=(),
            bounds_min=(0.0, 0.0, 0.0),
            bounds_max=(1.0, 1.0, 1.0),
        )


def make(num_envs=3, **options):
    task = Courier()
    env = Env(task, num_envs=num_envs, device=torch.device("cpu"), horizon=8, **{"seed": 0} | options)
    env.reset()
    return env


def put(env, **changes):
    """Set entries of env 1."""
    state = env.state_dict()
    for name, value in changes.items():
        state[name][1] = value
    env.load_state_dict(state)


def still(env):
    with torch.no_grad():
        return env.step(torch.zeros(env.num_envs, 2))


def test_the_hook_runs_after_the_reward_and_before_the_observation():
    env = make()
    put(env, joint_q=1.5, goal=1.52)
    result = still(env)
    place = result.terminal_obs["place"][1, 0]
    assert result.reward[1].item() == pytest.approx(-((place.item() - 1.52) ** 2), rel=1e-4)
    assert result.terminal_obs["goal"][1] >= 2.0
    assert torch.equal(result.obs["goal"], result.terminal_obs["goal"])
    assert env.state["trips"].tolist() == [0, 1, 0]
    assert (result.obs["goal"][::2] < 2.0).all()


def test_what_the_hook_changed_stays_until_the_reset_and_not_beyond():
    env = make()
    put(env, joint_q=1.5, goal=1.52)
    still(env)
    goal = env.state["goal"][1].clone()
    still(env)
    assert torch.equal(env.state["goal"][1], goal)
    put(env, joint_q=2.0 * LONG_WAY)
    result = still(env)
    assert result.terminated.tolist() == [False, True, False]
    assert env.state["trips"].tolist() == [0, 0, 0]
    assert env.state["moved"].tolist() == [True, False, True]
    assert 1.0 <= env.state["goal"][1].item() < 2.0


def test_draws_depend_on_seed_env_episode_and_counter_and_on_nothing_else():
    env = make()
    start = env.state_dict()

    def draws(**changes):
        env.load_state_dict(start | changes)
        still(env)
        return env.task.draws[-1]

    first = draws()
    assert first.shape == (3, 3) and first.min() >= 0.0 and first.max() < 1.0
    assert len(first.unique()) == 9
    assert torch.equal(draws(), first)
    far = torch.tensor([1.0, 2.0, 3.0])[:, None]
    assert torch.equal(draws(joint_q=far, joint_qd=-far), first)
    others = [
        draws(seed=1),
        draws(trips=start["trips"] + 1),
        draws(episode=start["episode"] + 1),
        draws(episode=start["episode"] + 4096),  # 2^12 episodes of 2^20 draws leave 32 bits
        draws(trips=start["trips"] + 2**19),
    ]
    everything = torch.cat([first, *others]).flatten()
    assert len(everything.unique()) == len(everything)
    alone = make(num_envs=1)
    still(alone)
    assert torch.equal(alone.task.draws[-1][0], first[0])


def test_draws_are_not_those_of_the_start():
    env = make()
    start = torch.cat((env.state["joint_q"], env.state["goal"] - 1.0), dim=1)
    still(env)
    assert (env.task.draws[-1][:, :2] != start).all()


def test_entries_that_count_may_be_large_and_are_no_reason_for_a_reset():
    env = make()
    put(env, trips=2_000_000)
    result = still(env)
    assert not result.info["nonfinite"].any()
    assert env.state["trips"][1] == 2_000_000
    assert env.state["trips"].dtype == torch.int64


@pytest.mark.parametrize("storage", ["store", "recompute"])
def test_forces_and_targets_of_drives_have_gradients_across_an_episodes_end_of_another_env(storage):
    """The rail is a linear system: differences over any distance are exact."""
    env = make(storage=storage)
    put(env, joint_q=LONG_WAY + 1.0)
    start = env.state_dict()
    actions = 0.1 * torch.randn(4, 3, 2, generator=torch.Generator().manual_seed(0))
    weights = torch.tensor([0.3, -1.0, 2.0, 1.0])[:, None]

    def path(actions):
        env.load_state_dict(start)
        results = [env.step(action) for action in actions]
        assert [bool(result.terminated[1]) for result in results] == [True, False, False, False]
        return (weights * torch.stack([result.terminal_obs["place"][:, 0] for result in results])).sum(dim=0)

    given = actions.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(path(given).sum(), given)
    with torch.no_grad():
        for step in range(4):
            for which in range(2):
                away = torch.zeros_like(actions)
                away[step, :, which] = 0.5
                slope = path(actions + away) - path(actions - away)
                torch.testing.assert_close(gradient[step, :, which], slope, rtol=2e-3, atol=2e-6)
    assert (gradient.abs() > 0.0).all()


def test_a_state_entry_cannot_take_a_name_of_the_envs():
    with pytest.raises(ValueError, match="task 'courier': 'clock' cannot be a state entry; taken: "):
        Env(Courier("clock"), num_envs=1, device=torch.device("cpu"), seed=0, horizon=0)
