"""Identification of material constants: exact data leads back to the constants that made them."""

import pytest
import torch

import rewarped_sim
from examples.identify_dough import identify, motion, press_and_release, with_constants
from rewarped_sim.engine.mpm.material_table import MATERIAL_FIELDS


@pytest.fixture(scope="module")
def env():
    return rewarped_sim.make(
        "spring_press", horizon=16, material_gradient=True, randomize=False, num_threads=1
    )


def test_constants_take_their_columns_and_leave_the_others(env):
    table = with_constants(env, torch.tensor(2400.0), torch.tensor(70.0))[0, 0]
    entries = dict(zip(MATERIAL_FIELDS, table.tolist(), strict=True))
    assert entries["mu"] == pytest.approx(1000.0)
    assert entries["lam"] == pytest.approx(2400.0 * 0.2 / (1.2 * 0.6))
    assert entries["yield_stress"] == pytest.approx(70.0)
    assert entries["mass"] == pytest.approx(env.model.material_table[0, -1])


def test_gradient_descent_closes_in_on_the_hidden_constants(env):
    actions = press_and_release(16)
    with torch.no_grad():
        recording = motion(env, with_constants(env, torch.tensor(10000.0), torch.tensor(200.0)), actions)
    history = identify(env, recording, actions, (7000.0, 300.0), iterations=15, learning_rate=0.1)
    assert history[0]["young"] == pytest.approx(7000.0)
    assert history[-1]["rms_m"] < 0.5 * history[0]["rms_m"]
    assert abs(history[-1]["yield_stress"] - 200.0) < 60.0
