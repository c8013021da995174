import copy
import io

import pytest
import torch

from sapo_learner.state_digest import state_sha256

STATE = {
    "weights": torch.arange(6.0).view(2, 3),
    "scalar": torch.tensor(1.0),
    "empty": torch.zeros(0, 4),
    "flags": torch.tensor([True, False]),
    "returns": [1.5, float("nan")],
    "groups": ({"lr": 1e-3}, None),
    "count": 3,
}


def changed(path, value):
    state = copy.deepcopy(STATE)
    state[path] = value
    return state


def test_equal_states_agree_whatever_the_order_and_the_layout_in_memory():
    other = dict(reversed(STATE.items()))
    other["weights"] = torch.arange(6.0).view(2, 3).T.contiguous().T
    assert state_sha256(other) == state_sha256(STATE)


def test_a_state_agrees_with_what_torch_saves_and_loads():
    file = io.BytesIO()
    torch.save(STATE, file)
    file.seek(0)
    assert state_sha256(torch.load(file, weights_only=True)) == state_sha256(STATE)


@pytest.mark.parametrize(
    "other",
    [
        changed("weights", torch.arange(6.0).view(3, 2)),
        changed("weights", torch.arange(6.0).double().view(2, 3)),
        changed("weights", torch.nextafter(torch.arange(6.0), torch.tensor(9.0)).view(2, 3)),
        changed("scalar", torch.tensor(-1.0)),
        changed("flags", torch.tensor([True, True])),
        changed("returns", [1.5, 0.0]),
        changed("returns", [1.5]),
        changed("groups", ({"lr": 2e-3}, None)),
        changed("count", 3.0),
        changed("more", 1),
        {name: value for name, value in STATE.items() if name != "empty"},
    ],
)
def test_one_difference_anywhere_is_seen(other):
    assert state_sha256(other) != state_sha256(STATE)


def test_the_sign_of_zero_counts():
    assert state_sha256(torch.tensor(0.0)) != state_sha256(torch.tensor(-0.0))
