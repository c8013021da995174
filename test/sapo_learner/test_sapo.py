import copy
import io
import math

import pytest
import torch
from counter import Counter
from point_mass import PointMass
from torch import nn

from sapo_learner import Interrupted, Sapo, SapoConfig, TrainingDiverged
from sapo_learner.evaluate import Zero, evaluate
from sapo_learner.vec_env import StepResult

SMALL = SapoConfig(horizon=8, actor_hidden=(16,), critic_hidden=(16,), critic_passes=2, num_minibatches=2)


def make(env=None, config: SapoConfig = SMALL, seed: int = 0) -> Sapo:
    return Sapo(env or PointMass(max_episode_steps=5), config, seed=seed, planned_epochs=50)


def changed(config: SapoConfig, **values) -> SapoConfig:
    return SapoConfig(**({name: getattr(config, name) for name in config.__dataclass_fields__} | values))


def assert_identical(first, second):
    torch.testing.assert_close(first, second, rtol=0.0, atol=0.0, equal_nan=True)


# ---- what is computed ----


class KnownValues(nn.Module):
    """Two critics: one knows the value of a `Counter`, the other estimates `too_much` more."""

    def __init__(self, too_much: float = 0.0):
        super().__init__()
        self.errors = nn.Parameter(torch.tensor([[0.0], [too_much]]))

    def forward(self, inputs):
        return inputs.state[:, 0] + 10.0 + self.errors


WITHOUT_ENTROPY = changed(SMALL, horizon=17, entropy_in_actor=False, entropy_in_targets=False)
# Segments of a window of 17 steps: 5 + 5 + 5 + 2 in env 0, and 3 + 3 + 3 + 3 + 3 + 2 in env 1. Each segment's
# discounted sum telescopes to the value of its first observation, which is 10.
EXACT_OBJECTIVE = 10.0 * (4 + 6) / (2 * 17)


def test_values_belong_to_the_observation_after_the_step():
    """With V(s_t), or with the observation after a reset, neither number comes out as it does."""
    sapo = make(Counter(WITHOUT_ENTROPY.gamma), WITHOUT_ENTROPY)
    sapo.critics = KnownValues()
    metrics = sapo.update()
    assert metrics["critic/loss"] == pytest.approx(0.0, abs=1e-9)  # every target is the value of its own step
    assert metrics["actor/objective"] == pytest.approx(EXACT_OBJECTIVE, rel=1e-6)


def test_targets_take_the_least_of_the_critics_and_the_actor_climbs_their_mean():
    gamma = WITHOUT_ENTROPY.gamma
    sapo = make(Counter(gamma), WITHOUT_ENTROPY)
    sapo.critics = KnownValues(too_much=6.0)
    metrics = sapo.update()
    assert metrics["critic/loss"] == pytest.approx((0.0**2 + 6.0**2) / 2, rel=1e-6)
    surplus = 3.0 * (
        3 * gamma**5 + gamma**2 + gamma**2
    )  # at time limits and at the window's end, not at failures
    assert metrics["actor/objective"] == pytest.approx(EXACT_OBJECTIVE + surplus / (2 * 17), rel=1e-6)


def test_states_are_normalised_with_the_statistics_of_the_epochs_start():
    sapo = make(Counter(WITHOUT_ENTROPY.gamma), WITHOUT_ENTROPY)
    normalizer = sapo.policy.normalizer
    counts = [k % 5 for k in range(18)] + [
        k % 3 for k in range(18)
    ]  # with those at start and end of the window
    sapo.critics = KnownValues()
    assert sapo.update()["critic/loss"] == pytest.approx(0.0, abs=1e-9)  # so the counts were seen as they are
    assert normalizer.count.item() == 1 + 2 * 18
    assert normalizer.mean.item() == pytest.approx(sum(counts) / 37)
    sapo.critics = KnownValues()
    assert sapo.update()["critic/loss"] > 0.1  # and now they are not


def test_the_actors_gradient_matches_central_differences_of_the_objective():
    config = changed(
        SMALL, max_grad_norm=1e9, entropy_samples=2
    )  # unclipped, so it can be read off afterwards

    def objective_and_gradient(shift: float) -> tuple[float, float]:
        sapo = make(PointMass(num_envs=4, max_episode_steps=5), config)
        with torch.no_grad():
            sapo.policy.head.mean.bias += shift
        metrics = sapo.update()
        return metrics["actor/objective"], -sapo.policy.head.mean.bias.grad.item()

    _, gradient = objective_and_gradient(0.0)
    difference = (objective_and_gradient(0.01)[0] - objective_and_gradient(-0.01)[0]) / 0.02
    assert gradient == pytest.approx(difference, rel=5e-3)
    assert abs(gradient) > 1e-2


def test_the_entropy_bonus_enters_actor_and_targets_only_where_it_is_asked_for():
    def run(**values):
        return make(config=changed(SMALL, **values)).update()

    both = run()
    without_actor, without_targets = run(entropy_in_actor=False), run(entropy_in_targets=False)
    assert without_actor["actor/objective"] != both["actor/objective"]
    assert without_actor["critic/target_mean"] == both["critic/target_mean"]
    assert without_targets["actor/objective"] == both["actor/objective"]
    assert without_targets["critic/target_mean"] != both["critic/target_mean"]


def test_further_policy_epochs_step_the_actor_again_without_the_env():
    sapo, once = make(config=changed(SMALL, policy_epochs=3)), make()
    metrics, metrics_once = sapo.update(), once.update()
    assert sapo.env_steps == once.env_steps and metrics["actor/objective"] == metrics_once["actor/objective"]
    bias = sapo.policy.head.mean.bias
    assert sapo._actor_optimizer.state[bias]["step"] == 3
    assert metrics["actor/divergence"] > 0.0
    assert metrics["actor/skipped"] == 0.0


def test_further_policy_epochs_stay_as_near_whatever_the_rewards_are_scaled_by():
    """Scaled by a power of two, all of a gradient is, to the bit; the clip then makes the steps the same."""

    def stray(reward_scale: float) -> float:
        values = {"reward_scale": reward_scale, "initial_temperature": reward_scale, "max_grad_norm": 1e-6}
        sapo = make(config=changed(SMALL, policy_epochs=5, actor_learning_rate=0.05, **values))
        for parameter in sapo.critics.parameters():
            nn.init.zeros_(parameter)
        return sapo.update()["actor/divergence"]

    assert stray(0.125) == pytest.approx(stray(1.0), rel=1e-3)
    assert stray(1.0) > 0.01


def test_critics_start_with_the_actors_encoder_and_leave_it():
    sapo = make(PointMass(with_cloud=True))
    assert_identical(sapo.critics.encoder.state_dict(), sapo.policy.encoder.state_dict())
    sapo.update()
    assert not torch.equal(sapo.critics.encoder.points[0].weight, sapo.policy.encoder.points[0].weight)


def test_learning_rates_fall_linearly_to_the_last_planned_epoch():
    sapo = Sapo(PointMass(), SMALL, seed=0, planned_epochs=4)
    rates = [sapo.update()["actor/learning_rate"] for _ in range(6)]
    assert rates == pytest.approx([2e-3, 1.5025e-3, 1.005e-3, 5.075e-4, 1e-5, 1e-5])


def test_it_solves_a_small_task_clearly_better_than_doing_nothing():
    env = PointMass(num_envs=8, max_episode_steps=40)
    config = changed(SMALL, horizon=16, actor_hidden=(32, 32), critic_hidden=(32, 32))
    sapo = Sapo(env, config, seed=0, planned_epochs=60)
    do_nothing = evaluate(env, Zero(1), episodes_per_env=4)
    for _ in range(60):
        metrics = sapo.update()
    trained = evaluate(env, sapo.policy, episodes_per_env=4)
    assert trained.mean > 0.2 * do_nothing.mean  # costs: closer to zero is better
    assert metrics["episodes"] > 0 and metrics["env_steps"] == 60 * 16 * 8
    assert metrics["reward/near"] + metrics["reward/calm"] == pytest.approx(metrics["step_reward"])


# ---- what is kept ----


@pytest.mark.parametrize("with_cloud", [False, True])
def test_a_restored_learner_continues_bit_for_bit(with_cloud):
    def env():
        return PointMass(max_episode_steps=5, with_cloud=with_cloud)

    first = make(env())
    for _ in range(3):
        first.update()
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = make(env(), seed=99)
    second.load_state_dict(torch.load(file, weights_only=True))
    for _ in range(2):
        assert_identical(second.update(), first.update())
    assert_identical(second.state_dict(), first.state_dict())
    obs = first.env.detach()
    assert torch.equal(
        first.policy.act(obs, deterministic=False), second.policy.act(obs, deterministic=False)
    )


def test_a_state_of_another_version_is_refused_and_changes_nothing():
    learner = make()
    before = learner.state_dict()
    state = {name: value for name, value in make(seed=99).state_dict().items() if name != "temperature"}
    with pytest.raises(ValueError, match="'temperature' is missing"):
        learner.load_state_dict(state)
    assert_identical(learner.state_dict(), before)


@pytest.mark.parametrize("after_steps", [0, 1, 7])
def test_an_interrupted_update_leaves_no_trace(after_steps):
    sapo, undisturbed = make(), make()
    for learner in (sapo, undisturbed):
        learner.update()
    before = sapo.state_dict()
    answers = iter([False] * after_steps + [True])
    with pytest.raises(Interrupted):
        sapo.update(should_stop=lambda: next(answers))
    assert_identical(sapo.state_dict(), before)
    assert_identical(sapo.update(), undisturbed.update())


def test_an_interrupt_while_the_host_waits_for_the_figures_leaves_no_trace(monkeypatch):
    sapo, undisturbed = make(), make()
    before = sapo.state_dict()

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(sapo._episodes, "summary", interrupted)
        with pytest.raises(KeyboardInterrupt):
            sapo.update()
    assert_identical(sapo.state_dict(), before)
    assert_identical(sapo.update(), undisturbed.update())


def test_a_state_dict_does_not_change_when_training_goes_on():
    sapo = make()
    sapo.update()
    state = sapo.state_dict()
    snapshot = copy.deepcopy(state)
    sapo.update()
    assert_identical(state, snapshot)


def test_the_same_seed_gives_the_same_training_and_another_seed_another():
    assert_identical(make(seed=5).update(), make(seed=5).update())
    assert make(seed=5).update()["critic/loss"] != make(seed=6).update()["critic/loss"]


def test_evaluating_between_updates_changes_no_update():
    sapo, undisturbed = make(), make()
    for _ in range(2):
        assert_identical(sapo.update(), undisturbed.update())
        evaluate(sapo.env, sapo.policy, deterministic=False)


def test_training_leaves_the_global_generator_alone():
    before = torch.random.get_rng_state()
    make().update()
    assert torch.equal(before, torch.random.get_rng_state())


def test_minibatches_in_the_order_of_time_are_a_choice():
    in_order = changed(SMALL, shuffle_minibatches=False)
    assert make(config=in_order).update()["critic/loss"] != make().update()["critic/loss"]


# ---- what goes wrong ----


class BrokenGradient(PointMass):
    """Its reward is as it was, and the gradient of it NaN, while `broken`."""

    broken = True

    def step(self, action):
        result = super().step(action)
        if self.broken:
            nothing = (0.0 * action).abs().sqrt().squeeze(1)
            result = StepResult(**{**result.__dict__, "reward": result.reward + nothing})
        return result


def test_a_gradient_that_is_not_finite_skips_the_actors_step_and_is_counted():
    sapo = make(BrokenGradient(max_episode_steps=5))
    actor_before = copy.deepcopy((sapo.policy.encoder.state_dict(), sapo.policy.head.state_dict()))
    critics_before = copy.deepcopy(sapo.critics.state_dict())
    metrics = sapo.update()
    assert metrics["actor/skipped"] == 1.0 and not math.isfinite(metrics["actor/grad_norm"])
    assert_identical((sapo.policy.encoder.state_dict(), sapo.policy.head.state_dict()), actor_before)
    assert not torch.equal(sapo.critics.heads.layers[0].weight, critics_before["heads.layers.0.weight"])
    sapo.env.broken = False
    assert sapo.update()["actor/skipped"] == 0.0
    assert all(parameter.isfinite().all() for parameter in sapo.policy.parameters())


def test_a_broken_gradient_skips_all_policy_epochs():
    sapo = make(BrokenGradient(max_episode_steps=5), changed(SMALL, policy_epochs=3))
    before = copy.deepcopy(sapo.policy.head.state_dict())
    assert sapo.update()["actor/skipped"] == 1.0
    assert_identical(sapo.policy.head.state_dict(), before)


def test_too_many_skipped_updates_in_a_row_end_the_training_and_single_ones_do_not():
    sapo = make(BrokenGradient(max_episode_steps=5), changed(SMALL, max_skipped_updates=3))
    sapo.update()
    sapo.update()
    sapo.env.broken = False
    sapo.update()
    sapo.env.broken = True
    sapo.update()
    sapo.update()
    with pytest.raises(TrainingDiverged, match="3 times in a row"):
        sapo.update()
    assert sapo.epoch == 6
    make().load_state_dict(sapo.state_dict())  # it can still be saved


def test_an_error_in_the_env_leaves_the_learner_as_it_was():
    class Fails(PointMass):
        fuse = 100

        def step(self, action):
            self.fuse -= 1
            if self.fuse == 0:
                raise RuntimeError("out of memory")
            return super().step(action)

    sapo = make(Fails(max_episode_steps=5))
    sapo.update()
    before = sapo.state_dict()
    sapo.env.fuse = 4
    with pytest.raises(RuntimeError, match="out of memory"):
        sapo.update()
    assert_identical(sapo.state_dict(), before)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("horizon", 0, "horizon must be > 0, got 0"),
        ("gamma", 1.5, "gamma must be between 0 and 1, got 1.5"),
        ("actor_hidden", (8, 0), r"actor_hidden must hold sizes > 0, got \(8, 0\)"),
        ("betas", (0.9, 1.0), r"betas must be two numbers in \[0, 1\), got \(0.9, 1.0\)"),
        ("pool", "median", r"pool must be one of \['mean', 'max'\], got 'median'"),
        ("weight_decay", -1.0, "weight_decay must be >= 0, got -1.0"),
        ("target_entropy_per_dim", 0.5, "target_entropy_per_dim must be < 0, got 0.5"),
        ("max_grad_norm", float("nan"), "max_grad_norm must be > 0 and finite, got nan"),
    ],
)
def test_a_setting_out_of_range_is_refused_by_name(name, value, message):
    with pytest.raises(ValueError, match=message):
        changed(SMALL, **{name: value})


def test_more_minibatches_than_samples_are_refused():
    with pytest.raises(ValueError, match=r"num_minibatches must be <= horizon \* num_envs = 16, got 17"):
        make(config=changed(SMALL, num_minibatches=17))
