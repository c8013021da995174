"""What holds for every algorithm: it learns, resumes to the bit, leaves no trace of what went wrong."""

import copy
import io

import pytest
import torch
from point_mass import PointMass

from sapo_learner.algorithms import ALGORITHMS, NAMES, PRESETS, split_name
from sapo_learner.evaluate import Zero, evaluate
from sapo_learner.learner import Interrupted, Learner, TrainingDiverged
from sapo_learner.sac import Sac
from sapo_learner.vec_env import StepResult

SMALL = {
    "horizon": 8,
    "actor_hidden": (16,),
    "critic_hidden": (16,),
    "critic_passes": 2,
    "num_minibatches": 2,
    "warmup_steps": 8,
    "replay_capacity": 40,  # two windows of 16 do not fill it, three overwrite the first
}


def make(name: str, env=None, seed: int = 0, planned_epochs: int = 50, **settings) -> Learner:
    family, variation = split_name(name)
    algorithm = ALGORITHMS[family]
    known = algorithm.config.__dataclass_fields__
    chosen = {key: value for key, value in SMALL.items() if key in known} | dict(variation) | settings
    env = env or PointMass(max_episode_steps=5)
    return algorithm.learner(env, algorithm.config(**chosen), seed=seed, planned_epochs=planned_epochs)


def assert_identical(first, second):
    torch.testing.assert_close(first, second, rtol=0.0, atol=0.0, equal_nan=True)


every_algorithm = pytest.mark.parametrize("name", list(ALGORITHMS))
every_name = pytest.mark.parametrize("name", NAMES)


SETTINGS_TO_LEARN_QUICKLY = {
    "trajopt": {"learning_rate": 0.05},
    "ppo": {"passes": 10},
    "sac": {"updates": 16, "replay_capacity": 100_000},
}


@every_algorithm
def test_it_solves_a_small_task_clearly_better_than_doing_nothing(name):
    # an open loop cannot know where it starts: it gets one start, the others many
    start = torch.full((16,), 1.5) if name == "trajopt" else None
    env = PointMass(num_envs=16, max_episode_steps=40, start=start)
    settings = {"horizon": 16, "actor_hidden": (32, 32), "critic_hidden": (32, 32)}
    known = ALGORITHMS[name].config.__dataclass_fields__
    settings = {key: value for key, value in settings.items() if key in known}
    learner = make(name, env, planned_epochs=80, **settings, **SETTINGS_TO_LEARN_QUICKLY.get(name, {}))
    do_nothing = evaluate(env, Zero(1), episodes_per_env=2)
    for _ in range(80):
        learner.update()
    trained = evaluate(env, learner.policy, episodes_per_env=2)
    assert trained.mean > 0.5 * do_nothing.mean  # costs: closer to zero is better


@every_name
def test_a_restored_learner_continues_bit_for_bit(name):
    first = make(name)
    for _ in range(4):
        first.update()
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = make(name, seed=99)
    second.load_state_dict(torch.load(file, weights_only=True))
    for _ in range(3):
        assert_identical(second.update(), first.update())
    assert_identical(second.state_dict(), first.state_dict())


@every_algorithm
def test_clouds_are_learned_from_and_restored(name):
    first, second = (make(name, PointMass(max_episode_steps=5, with_cloud=True)) for _ in range(2))
    for _ in range(3):
        first.update()
    second.load_state_dict(first.state_dict())
    assert_identical(second.update(), first.update())


@every_algorithm
def test_a_state_that_lacks_something_is_refused_and_changes_nothing(name):
    learner = make(name)
    before = learner.state_dict()
    for missing in before:
        state = {key: value for key, value in make(name, seed=99).state_dict().items() if key != missing}
        with pytest.raises(ValueError, match=f"{missing!r} is missing"):
            learner.load_state_dict(state)
    assert_identical(learner.state_dict(), before)


@every_algorithm
def test_networks_of_other_sizes_are_refused_by_name_and_change_nothing(name):
    learner = make(name)
    before = learner.state_dict()
    if name == "trajopt":
        other, named = (
            make(name, PointMass(max_episode_steps=6)),
            r"policy: actions: expected \(5, 1\), got \(6, 1\)",
        )
    else:
        other, named = (
            make(name, actor_hidden=(24,)),
            r"policy: head\.trunk\.0\.weight: expected \(16, 2\), got \(24, 2\)",
        )
    other.update()
    with pytest.raises(ValueError, match=named):
        learner.load_state_dict(other.state_dict())
    assert_identical(learner.state_dict(), before)


def test_networks_of_another_kind_are_refused_by_name():
    with pytest.raises(ValueError, match=r"policy: head\.log_std\.weight: expected \(1, 16\), got none"):
        make("sapo").load_state_dict(make("sapo/free_std").state_dict())


OF_OPTIMISERS = {
    "betas": (0.5, 0.6),
    "weight_decay": 0.07,
    "learning_rate": 3e-3,
    "actor_learning_rate": 3e-3,
    "critic_learning_rate": 4e-3,
    "temperature_learning_rate": 6e-3,
}


@every_algorithm
def test_a_restored_learner_has_the_optimisers_settings_that_it_was_given(name):
    known = ALGORITHMS[name].config.__dataclass_fields__
    settings = {key: value for key, value in OF_OPTIMISERS.items() if key in known}
    if name == "ppo":
        del settings["learning_rate"]  # only where its own begins, which then follows the divergence
    undisturbed, changed = make(name), make(name, **settings)
    undisturbed.update()
    changed.load_state_dict(undisturbed.state_dict())
    undisturbed.update()
    changed.update()
    given = make(name, **settings)
    for _ in range(2):
        given.update()
    for key, part in changed._parts().items():
        if not isinstance(part, torch.optim.Optimizer):
            continue
        for group, expected in zip(part.param_groups, given._parts()[key].param_groups, strict=True):
            for option in ("betas", "weight_decay", *(["lr"] if name != "ppo" else [])):
                assert group[option] == expected[option], (key, option)


@every_algorithm
@pytest.mark.parametrize("after_steps", [0, 7])
def test_an_interrupted_update_leaves_no_trace(name, after_steps):
    learner, undisturbed = make(name), make(name)
    for one in (learner, undisturbed):
        for _ in range(3):
            one.update()
    before = learner.state_dict()
    answers = iter([False] * after_steps + [True])
    with pytest.raises(Interrupted):
        learner.update(should_stop=lambda: next(answers))
    assert_identical(learner.state_dict(), before)
    assert_identical(learner.update(), undisturbed.update())


@every_algorithm
def test_an_error_after_the_last_step_leaves_no_trace_either(name, monkeypatch):
    learner, undisturbed = make(name), make(name)
    for one in (learner, undisturbed):
        for _ in range(3):
            one.update()
    before = learner.state_dict()
    step_of_adamw = torch.optim.AdamW.step
    steps = []

    def fails(self, *args):
        step_of_adamw(self, *args)
        steps.append(self)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(torch.optim.AdamW, "step", fails)
        with pytest.raises(KeyboardInterrupt):
            learner.update()
    assert steps  # so something had changed
    assert_identical(learner.state_dict(), before)
    assert_identical(learner.update(), undisturbed.update())


@every_algorithm
def test_the_state_before_an_update_repeats_it(name):
    learner = make(name)
    learner.update()
    if (
        name == "sac"
    ):  # its replay is too large to keep a copy of: the window is repeated, the lessons are not
        learner.update()
        assert learner.before_update["replay_written"] == 16
        return
    report = learner.update()
    other = make(name, seed=7)
    other.load_state_dict(learner.before_update)
    assert_identical(other.update(), report)


@every_algorithm
def test_the_same_seed_gives_the_same_training_and_another_seed_another(name):
    def trained(seed):
        learner = make(name, PointMass(max_episode_steps=5, seed=seed), seed=seed)
        for _ in range(3):
            report = learner.update()
        return report

    assert_identical(trained(5), trained(5))
    assert trained(5) != trained(6)


@every_algorithm
def test_training_leaves_the_global_generator_alone(name):
    before = torch.random.get_rng_state()
    learner = make(name)
    for _ in range(2):
        learner.update()
    assert torch.equal(before, torch.random.get_rng_state())


class Broken(PointMass):
    """Its rewards and their gradients are NaN while `broken`."""

    broken = False

    def step(self, action):
        result = super().step(action)
        if self.broken:
            result = StepResult(**{**result.__dict__, "reward": result.reward * float("nan")})
        return result


def break_(learner: Learner, broken: bool = True) -> None:
    """Make the next gradients NaN. What SAC keeps in its replay is checked before, so its temperature breaks."""
    if isinstance(learner, Sac):
        learner.temperature.log.data.fill_(float("nan") if broken else 0.0)
    learner.env.broken = broken


@every_algorithm
def test_gradients_that_are_not_finite_are_skipped_counted_and_end_the_training_loudly(name):
    learner = make(name, Broken(max_episode_steps=5), max_skipped_updates=3)
    for _ in range(2):
        learner.update()
    break_(learner)
    modules = {key: part for key, part in learner._parts().items() if isinstance(part, torch.nn.Module)}
    modules.pop("temperature", None)
    assert learner.update()["actor/skipped"] > 0.0
    for part in modules.values():
        assert all(value.isfinite().all() for value in part.state_dict().values())
    learner.update()
    with pytest.raises(TrainingDiverged, match="3 times in a row"):
        learner.update()
    assert learner.epoch == 5
    make(name).load_state_dict(learner.state_dict())  # it can still be saved


@every_algorithm
def test_single_skipped_updates_do_not_end_the_training(name):
    learner = make(name, Broken(max_episode_steps=5), max_skipped_updates=2)
    learner.update()
    for broken in (True, False, True, False):
        break_(learner, broken)
        assert (learner.update()["actor/skipped"] > 0.0) == broken


def test_a_reward_that_is_not_finite_does_not_enter_the_replay():
    learner = make("sac", Broken(max_episode_steps=5))
    learner.update()
    learner.env.broken = True
    report = learner.update()
    assert report["replay/dropped"] == 16.0
    assert report["actor/skipped"] == 1.0  # so a dead simulator ends the run
    learner.env.broken = False
    assert learner.update()["replay/dropped"] == 0.0


@every_algorithm
def test_a_state_dict_does_not_change_when_training_goes_on(name):
    learner = make(name)
    learner.update()
    state = learner.state_dict()
    snapshot = copy.deepcopy(state)
    learner.update()
    assert_identical(state, snapshot)


@every_algorithm
def test_a_state_that_was_restored_can_be_restored_again(name):
    learner, trained = make(name), make(name)
    for _ in range(3):
        trained.update()
    state = trained.state_dict()
    learner.load_state_dict(state)
    report = learner.update()
    learner.load_state_dict(state)
    assert_identical(learner.update(), report)


@every_algorithm
def test_a_setting_out_of_range_is_refused_by_name(name):
    for setting, value, expected in (
        ("horizon", 0, "> 0"),
        ("max_grad_norm", float("nan"), "> 0 and finite"),
        ("max_grad_norm", float("inf"), "> 0 and finite"),
        ("max_skipped_updates", 0, "> 0"),
    ):
        with pytest.raises(ValueError, match=f"{setting} must be {expected}, got {value}"):
            ALGORITHMS[name].config(**{setting: value})


def test_every_variation_differs_from_its_algorithm():
    for name, variation in PRESETS.items():
        family, settings = split_name(name)
        config = ALGORITHMS[family].config
        assert settings == variation and config(**variation) != config()
