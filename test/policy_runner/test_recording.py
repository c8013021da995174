"""What a controller was told and answered comes back from a bag bit for bit, and makes it do the same again."""

from __future__ import annotations

import inspect
from dataclasses import replace

import numpy as np
import pytest
from recorded_run import WildNetwork, altered, record, wild_networks

from policy_runner.bag import BagError
from policy_runner.controller import Controller
from policy_runner.journal import read_journal
from policy_runner.recording import RecordedController
from policy_runner.repeat import RepeatError, repeat

ONLY_TELLING = {"ages_s", "detail", "fault"}
"""Methods of a controller that change no command."""


@pytest.fixture(scope="module")
def networks(bundles):
    return wild_networks(bundles)


@pytest.fixture(scope="module")
def run(networks, tmp_path_factory):
    """Bag and commands of one run."""
    path = tmp_path_factory.mktemp("run") / "bag"
    return path, record(path, networks)


def by_digest(networks):
    return {network.digest: network for network in networks}


@pytest.mark.parametrize("seed", range(6))
def test_a_run_of_random_inputs_and_faults_is_repeated_to_the_bit(networks, tmp_path, seed):
    commands = record(tmp_path / "bag", networks, seed=seed)
    outcome = repeat(read_journal(tmp_path / "bag"), by_digest(networks))
    assert outcome.first is None and outcome.differences == 0, outcome.first
    assert outcome.complete and outcome.missing == 0
    assert len(outcome.replayed) == len(commands)
    assert sum(command is not None for command in commands) > 100  # else there was nothing to compare
    for command, recorded, replayed in zip(commands, outcome.recorded, outcome.replayed, strict=True):
        if command is None:
            assert np.isnan(replayed).all()
        else:
            assert command.tobytes() == recorded.tobytes() == replayed.tobytes()


def test_every_call_that_can_change_a_command_is_recorded(run):
    """A method that is added to the controller belongs into the recording, or among those that only tell."""
    public = {
        name
        for name, _ in inspect.getmembers(Controller, inspect.isfunction)
        if not name.startswith("_") and name not in ONLY_TELLING
    }
    assert public <= set(vars(RecordedController))
    kinds = {event.kind for event in read_journal(run[0])}
    names = {"set_joints": "joints", "set_cloud": "cloud", "set_goal": "goal", "set_topic": "topic"}
    assert kinds == {names.get(name, name) for name in public} | {"begin", "end"}


def test_the_beginning_says_what_ran_and_how_it_was_set(run, networks):
    begin = next(read_journal(run[0]))
    assert begin.values["digest"] == "first"
    assert begin.values["contract"]["policy_name"] == networks[0].contract.policy_name
    assert begin.values["settings"]["ramp_in_s"] == 0.5
    assert begin.values["user_limits"]["pin_x"]["max_velocity"] == 0.3


def test_a_command_that_was_changed_by_one_bit_is_found_with_its_time_and_joint(run, networks, tmp_path):
    path, commands = run
    row = [index for index, command in enumerate(commands) if command is not None][50]
    ticks = iter(range(len(commands)))

    def change(kind, values):
        if kind == "tick" and next(ticks) == row:
            values["command"][1] = float(np.nextafter(values["command"][1], 9.0))
        return values

    outcome = repeat(read_journal(altered(path, tmp_path / "changed", change)), by_digest(networks))
    assert outcome.differences == 1
    assert outcome.first.what == "joint 'pin_y'" and outcome.first.time_s == outcome.times_s[row]
    assert outcome.first.replayed == commands[row][1] != outcome.first.recorded


def test_an_input_that_was_changed_is_found(run, networks, tmp_path):
    def change(kind, values):
        if kind == "joints":
            values["position"][0] += 1e-9
        return values

    changed = altered(run[0], tmp_path / "changed", change)
    assert repeat(read_journal(changed), by_digest(networks)).differences > 0


def test_the_replay_ends_where_events_are_missing(run, networks, tmp_path):
    path, _ = run
    shorter = altered(
        path, tmp_path / "shorter", lambda _, values: None if values["seq"] in (500, 501) else values
    )
    outcome = repeat(read_journal(shorter), by_digest(networks))
    assert outcome.missing == 2 and not outcome.complete and outcome.differences == 0
    assert sum(outcome.events.values()) == 499  # without `begin`


def test_a_bag_that_was_cut_is_repeated_up_to_the_cut(run, networks, tmp_path):
    path, _ = run
    whole = next(path.glob("*.mcap")).read_bytes()
    cut = tmp_path / "cut.mcap"
    ticks = []
    for share in (0.2, 0.5, 0.8):
        cut.write_bytes(whole[: int(share * len(whole))])
        outcome = repeat(read_journal(cut), by_digest(networks))
        assert outcome.differences == 0 and outcome.missing == 0 and not outcome.complete
        ticks.append(len(outcome.times_s))
    assert ticks == sorted(ticks) and ticks[0] > 20


def test_another_policy_shows_what_it_would_have_commanded(run, networks):
    other = WildNetwork(replace(networks[0].contract, policy_name="third"), "third", gain=0.5)
    outcome = repeat(read_journal(run[0]), {}, other=other)
    assert outcome.differences > 0 and outcome.complete
    recorded, replayed = np.array(outcome.recorded), np.array(outcome.replayed)
    for column, joint in enumerate(networks[0].contract.action.joint_names):
        distance, time_s = outcome.largest()[joint]
        assert distance == np.nanmax(np.abs(recorded - replayed)[:, column]) > 0.0
        row = outcome.times_s.index(time_s)
        assert abs(recorded - replayed)[row, column] == distance


def test_a_policy_that_is_not_given_or_does_not_fit_is_refused(run, networks):
    first, second = networks
    with pytest.raises(
        RepeatError, match=r"at 0\.000 s the run took the bundle with digest first, which is not"
    ):
        repeat(read_journal(run[0]), {"second": second})
    with pytest.raises(RepeatError, match=r"^at [1-9.]+ s the run took the bundle with digest second"):
        repeat(read_journal(run[0]), {"first": first})
    action = replace(first.contract.action, joint_names=("a", "b", "c"))
    with pytest.raises(RepeatError, match=r"action.joint_names\[0\]: expected 'pin_x', found 'a'"):
        repeat(read_journal(run[0]), {}, other=WildNetwork(replace(first.contract, action=action)))


def test_a_policy_that_the_run_did_not_take_is_not_needed_to_repeat_it(networks, tmp_path):
    first = networks[0]
    foreign = WildNetwork(replace(first.contract, control_dt_s=0.5), "foreign")
    record(tmp_path / "bag", [first, foreign])
    refused = [event for event in read_journal(tmp_path / "bag") if "refused" in event.values]
    assert any(event.kind == "swap" and event.values["digest"] == "foreign" for event in refused)
    for given in ([first], [first, foreign]):
        outcome = repeat(read_journal(tmp_path / "bag"), by_digest(given))
        assert outcome.complete and outcome.differences == 0, outcome.first
    other = repeat(read_journal(tmp_path / "bag"), {}, other=WildNetwork(first.contract, "other"))
    assert other.first is None  # it is the same network


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            lambda k, v: None if k == "begin" else v,
            BagError,
            "does not start at its beginning, but with 'goal'",
        ),
        (lambda k, v: v | {"format": 2} if k == "begin" else v, BagError, "reads format 1, the bag has 2"),
        (lambda k, v: {"seq": v["seq"]} if k == "joints" else v, RepeatError, "event 'joints' is not as it"),
        (lambda k, v: v | {"position": "here"} if k == "goal" else v, RepeatError, "event 'goal' is not as"),
        (
            lambda k, v: v | {"settings": {"polcy": ""}} if k == "begin" else v,
            RepeatError,
            "did you mean 'policy'",
        ),
        (lambda k, v: ["no", "object"] if k == "goal" else v, BagError, "is damaged"),
        (lambda _k, _v: None, BagError, "no journal of a policy runner"),
    ],
)
def test_a_journal_that_is_not_as_it_should_be_is_refused_with_the_place(
    run, networks, tmp_path, change, error, message
):
    with pytest.raises(error, match=message):
        repeat(read_journal(altered(run[0], tmp_path / "changed", change)), by_digest(networks))
