import pytest
import torch
from counter import Counter
from point_mass import PointMass
from torch import nn

from sapo_learner.sac import Sac, SacConfig

CONFIG = SacConfig(horizon=17, actor_hidden=(16,), critic_hidden=(16,), warmup_steps=17)


def changed(**values) -> SacConfig:
    return SacConfig(**(CONFIG.__dict__ | values))


class KnownValues(nn.Module):
    """Two critics of the value of a `Counter`, whose count is the first feature; the second one overestimates."""

    def __init__(self, too_much: float = 0.0):
        super().__init__()
        self.errors = nn.Parameter(torch.tensor([[0.0], [too_much]]))

    def forward(self, features):
        return features[:, 0] + 10.0 + self.errors


class AsItIs(nn.Module):
    """Normalises nothing, so that the count stays readable."""

    def forward(self, state):
        return state

    def update(self, batches):
        pass


@pytest.mark.parametrize("n_step", [1, 3, 5])
@pytest.mark.parametrize("too_much", [0.0, 4.0])
def test_targets_are_exact_for_exact_values_at_time_limits_failures_and_the_windows_end(n_step, too_much):
    """Without entropy, and with the least of the critics, every target is the value of its own step."""
    sac = Sac(
        Counter(CONFIG.gamma),
        changed(n_step=n_step, initial_temperature=1e-30, updates=1, batch_size=500),
        seed=0,
        planned_epochs=10,
    )
    sac.policy.normalizer = AsItIs()
    sac.critics, sac.target_critics = KnownValues(), KnownValues(too_much)
    sac.update()
    assert sac.update()["critic/loss"] == pytest.approx(0.0, abs=1e-8)


def test_the_entropy_enters_the_targets():
    def loss(temperature: float) -> float:
        sac = Sac(
            Counter(CONFIG.gamma),
            changed(initial_temperature=temperature, updates=1, batch_size=500),
            seed=0,
            planned_epochs=10,
        )
        sac.policy.normalizer = AsItIs()
        sac.critics, sac.target_critics = KnownValues(), KnownValues()
        sac.update()
        return sac.update()["critic/loss"]

    assert loss(1.0) > 1e-3


def test_an_observation_after_a_failure_may_be_anything():
    class FailsBadly(PointMass):
        def step(self, action):
            result = super().step(action)
            failed = result.terminated[:, None]
            result.terminal_obs["x"] = torch.where(failed, float("nan"), result.terminal_obs["x"])
            return result

    env = FailsBadly(start=torch.tensor([1.9, -1.9]), max_episode_steps=1000)
    sac = Sac(env, changed(warmup_steps=34), seed=0, planned_epochs=10)
    for _ in range(4):
        report = sac.update()
    assert report["episodes"] > 0 and report["actor/skipped"] == report["critic/skipped"] == 0.0
    assert report["critic/loss"] < 1e3  # finite, so nothing of it came into a target


def test_warming_up_acts_at_random_and_learns_nothing():
    actions = []

    class Watched(PointMass):
        def step(self, action):
            actions.append(action)
            return super().step(action)

    sac = Sac(Watched(num_envs=50, max_episode_steps=100), CONFIG, seed=0, planned_epochs=10)
    before = [parameter.clone() for parameter in sac.policy.parameters()]
    sac.update()
    drawn = torch.stack(actions)
    assert drawn.abs().max() <= 1.0 and abs(drawn.std().item() - 1 / 3**0.5) < 0.02
    assert all(torch.equal(a, b) for a, b in zip(before, sac.policy.parameters(), strict=True))
    sac.update()
    assert not all(torch.equal(a, b) for a, b in zip(before, sac.policy.parameters(), strict=True))


def test_the_simulator_is_not_differentiated():
    class Watched(PointMass):
        def step(self, action):
            assert not action.requires_grad and not torch.is_grad_enabled()
            return super().step(action)

    sac = Sac(Watched(), CONFIG, seed=0, planned_epochs=10)
    sac.update()
    sac.update()


def test_the_temperature_falls_while_the_entropy_is_above_its_target():
    sac = Sac(PointMass(num_envs=4), CONFIG, seed=0, planned_epochs=10)
    temperatures = [sac.update()["temperature"] for _ in range(4)]
    assert temperatures[0] == 1.0 and temperatures[1] > temperatures[2] > temperatures[3]


def test_the_slow_critics_trail_behind_the_others():
    sac = Sac(PointMass(num_envs=4), changed(target_keep=0.9, updates=1), seed=0, planned_epochs=10)
    sac.update()
    before = [parameter.clone() for parameter in sac.target_critics.parameters()]
    sac.update()
    for slow, old, online in zip(
        sac.target_critics.parameters(), before, sac.critics.parameters(), strict=True
    ):
        torch.testing.assert_close(slow, 0.9 * old + 0.1 * online, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("n_step", 0, "n_step must be > 0, got 0"),
        ("updates", -1, "updates must be > 0, got -1"),
        ("replay_capacity", 0, "replay_capacity must be > 0, got 0"),
        ("warmup_steps", -1, "warmup_steps must be >= 0, got -1"),
        ("target_keep", 1.1, "target_keep must be between 0 and 1, got 1.1"),
        ("target_entropy_per_dim", 0.5, "target_entropy_per_dim must be < 0, got 0.5"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(name, value, message):
    with pytest.raises(ValueError, match=message):
        changed(**{name: value})


def test_a_state_with_another_capacity_of_the_replay_is_refused_and_changes_nothing():
    first, second = (
        Sac(PointMass(), changed(replay_capacity=capacity), seed=capacity, planned_epochs=10)
        for capacity in (50, 60)
    )
    first.update()
    second.update()
    before = second.state_dict()
    with pytest.raises(ValueError, match="go on with replay_capacity: 50"):
        second.load_state_dict(first.state_dict())
    torch.testing.assert_close(second.state_dict(), before, rtol=0.0, atol=0.0, equal_nan=True)


def test_steps_that_are_skipped_are_counted_one_by_one():
    sac = Sac(PointMass(), changed(updates=5), seed=0, planned_epochs=10)
    sac.update()
    calls = iter(range(100))
    sac.critics.layers[-1].bias.register_hook(lambda bar: bar * (float("nan") if next(calls) < 3 else 1.0))
    report = sac.update()
    assert (report["critic/skipped"], report["actor/skipped"]) == (3.0, 0.0)
