import copy

import pytest
import torch
from torch import Tensor

from sapo_learner.network_input import NetworkInput
from sapo_learner.replay import Replay, Transitions


def transitions(*labels: float, cloud: bool = False) -> Transitions:
    """Transitions that carry their label everywhere."""
    label = torch.tensor(labels)
    points = label[:, None, None].expand(-1, 4, 3) if cloud else None
    return Transitions(
        NetworkInput(label[:, None].repeat(1, 2), points),
        label[:, None],
        label,
        0.9 * torch.ones_like(label),
        NetworkInput(label[:, None].repeat(1, 2) + 0.5, points),
    )


def labels(replay: Replay) -> set[float]:
    """What is in it, by a sample large enough to meet all."""
    return set(replay.sample(500, torch.Generator().manual_seed(0)).reward.tolist())


def test_the_newest_transitions_stay():
    replay = Replay(5)
    for first in (0.0, 3.0, 6.0):
        replay.extend(transitions(first, first + 1, first + 2))
    assert len(replay) == 5 and replay.written == 9
    assert labels(replay) == {4.0, 5.0, 6.0, 7.0, 8.0}


def test_of_more_than_it_holds_the_last_ones_stay():
    replay = Replay(3)
    replay.extend(transitions(9.0, 9.5))
    replay.extend(transitions(0.0, 1.0, 2.0, 3.0, 4.0))
    assert labels(replay) == {2.0, 3.0, 4.0}


@pytest.mark.parametrize("cloud", [False, True])
def test_what_belongs_together_stays_together(cloud):
    replay = Replay(100)
    for i in range(7):
        replay.extend(transitions(float(i), i + 20.0, cloud=cloud))
    sample = replay.sample(50, torch.Generator().manual_seed(1))
    for name, value in sample.columns().items():
        if name == "discount":
            continue
        shift = 0.5 if name == "next_state" else 0.0
        expected = (sample.reward + shift).view(-1, *[1] * (value.dim() - 1)).expand(value.shape)
        assert value.dtype == torch.float32
        torch.testing.assert_close(value, expected)
    assert (sample.inputs.cloud is not None) == cloud


def test_samples_are_drawn_evenly():
    replay = Replay(10)
    replay.extend(transitions(*map(float, range(10))))
    counts = torch.bincount(replay.sample(10_000, torch.Generator().manual_seed(2)).reward.long())
    assert counts.min() > 850 and counts.max() < 1150  # 1000 each, five standard deviations


@pytest.mark.parametrize("already", [(), (1.0, 2.0), (1.0, 2.0, 3.0, 4.0, 5.0, 6.0)])
def test_an_extension_can_be_taken_back(already):
    replay = Replay(5)
    if already:
        replay.extend(transitions(*already))
    before, written = copy.deepcopy(replay.state_dict()), replay.written
    replay.extend(transitions(11.0, 12.0, 13.0))
    replay.rewind(written)
    after = replay.state_dict()
    assert after["written"] == before["written"]
    for name, value in before["columns"].items():
        assert torch.equal(after["columns"][name], value)
    replay.rewind(written)  # nothing is left to take back
    replay.extend(transitions(20.0))
    assert 20.0 in labels(replay)


@pytest.mark.parametrize("after_columns", [0, 1, 3])
def test_an_extension_that_broke_off_half_way_can_be_taken_back(after_columns, monkeypatch):
    replay = Replay(5)
    replay.extend(transitions(1.0, 2.0, 3.0, 4.0, 5.0))
    before, written = copy.deepcopy(replay.state_dict()), replay.written
    set_item, calls = Tensor.__setitem__, iter(range(100))

    def break_off(*arguments):
        if next(calls) == after_columns:
            raise KeyboardInterrupt
        set_item(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Tensor, "__setitem__", break_off)
        replay.extend(transitions(11.0, 12.0))
    replay.rewind(written)
    after = replay.state_dict()
    assert after["written"] == before["written"]
    for name, value in before["columns"].items():
        assert torch.equal(after["columns"][name], value)


def test_a_restored_buffer_goes_on_as_the_first_one_would():
    def go_on(replay: Replay) -> Tensor:
        replay.extend(transitions(7.0, 8.0))
        return replay.sample(20, torch.Generator().manual_seed(3)).reward

    first, second = Replay(5), Replay(5)
    first.extend(transitions(1.0, 2.0, 3.0))
    first.extend(transitions(4.0, 5.0, 6.0))
    second.load_state_dict(first.state_dict(), torch.device("cpu"))
    assert torch.equal(go_on(first), go_on(second))


def test_nothing_to_add_changes_nothing():
    replay = Replay(5)
    replay.extend(transitions())
    assert len(replay) == replay.written == 0
    replay.extend(transitions(1.0, 2.0))
    replay.extend(transitions())
    assert labels(replay) == {1.0, 2.0}


def test_a_state_of_another_capacity_is_refused_and_changes_nothing():
    small, large = Replay(2), Replay(3)
    small.extend(transitions(1.0, 2.0, 3.0))
    large.extend(transitions(7.0))
    with pytest.raises(ValueError, match="a capacity of 2, this one has 3; go on with replay_capacity: 2"):
        large.load_state_dict(small.state_dict(), torch.device("cpu"))
    assert labels(large) == {7.0}


def test_clouds_take_half_the_space_and_stay_finite():
    replay = Replay(5)
    replay.extend(transitions(0.3001, 1e6, -1e6, cloud=True))
    assert replay.state_dict()["columns"]["cloud"].dtype == torch.float16
    sample = replay.sample(50, torch.Generator().manual_seed(0))
    near = sample.reward.abs() < 1.0
    assert near.any() and not near.all() and sample.inputs.cloud.isfinite().all()
    torch.testing.assert_close(
        sample.inputs.cloud[near], torch.full_like(sample.inputs.cloud[near], 0.3001), rtol=2**-11, atol=0.0
    )


@pytest.mark.parametrize("broken", ["state", "cloud", "action", "reward", "next_state"])
def test_a_transition_is_finite_when_all_but_what_comes_after_it_is(broken):
    three = transitions(1.0, 2.0, 3.0, cloud=True).map(Tensor.clone)
    three.columns()[broken].view(3, -1)[1, -1] = float("nan")
    assert three.are_finite().tolist() == [True, broken == "next_state", True]


def test_a_saved_state_does_not_change_later():
    replay = Replay(2)
    replay.extend(transitions(1.0, 2.0))
    state = replay.state_dict()
    replay.extend(transitions(3.0, 4.0))
    assert state["columns"]["reward"].tolist() == [1.0, 2.0]
