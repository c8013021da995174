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


def test_a_restored_buffer_goes_on_as_the_first_one_would():
    def go_on(replay: Replay) -> Tensor:
        replay.extend(transitions(7.0, 8.0))
        return replay.sample(20, torch.Generator().manual_seed(3)).reward

    first, second = Replay(5), Replay(5)
    first.extend(transitions(1.0, 2.0, 3.0))
    first.extend(transitions(4.0, 5.0, 6.0))
    second.load_state_dict(first.state_dict(), torch.device("cpu"))
    assert torch.equal(go_on(first), go_on(second))


def test_a_saved_state_does_not_change_later():
    replay = Replay(2)
    replay.extend(transitions(1.0, 2.0))
    state = replay.state_dict()
    replay.extend(transitions(3.0, 4.0))
    assert state["columns"]["reward"].tolist() == [1.0, 2.0]
