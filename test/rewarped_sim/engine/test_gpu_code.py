"""Every kernel compiles for an H200 (sm_90) on a machine without one, and takes no more of it than when last measured.

A change that makes a kernel dearer shows here, without a GPU. If it is worth it, `python -m bench gpu_code` writes the
new figures.
"""

import json

import pytest

from bench.gpu_code import measure_all
from bench.report import RESULTS

REGISTER_STEP = 8
"""Registers are given out in such steps; within one, compilers differ."""
STACKS = {
    "kinematics.pose": 64,  # sin and cos of a large double reduce their argument in an array
    "articulation.place": 64,  # those of a hinge's angle, too; its adjoint holds all kinds of joints at once
    "articulation.place, adjoint": 256,
    # The adjoint of Hencky elasticity takes all 255 registers, and a little more.
    "transfers.strain_adj of Dough": 64,
    "transfers.strain_adj of Sand": 64,
    "transfers.strain_adj with material gradient": 128,
}
"""Most bytes of local memory per thread, of the few kernels that have any."""


@pytest.fixture(scope="module")
def measured():
    return {row["kernel"]: row for row in measure_all()}


@pytest.fixture(scope="module")
def recorded():
    return {row["kernel"]: row for row in json.loads((RESULTS / "gpu_code.json").read_text())["rows"]}


def test_every_kernel_compiles_and_has_recorded_figures(measured, recorded):
    assert {
        "transfers.gather",
        "grid.update_adj",
        "bodies.advance, adjoint",
        "articulation.place, adjoint",
        "fem.pull_adj",
    } <= set(measured)
    assert set(measured) == set(recorded), "kernels came or went: run `python -m bench gpu_code`"


def test_no_kernel_takes_more_registers_than_recorded(measured, recorded):
    grown = {
        name: (recorded[name]["registers"], row["registers"])
        for name, row in measured.items()
        if name in recorded and row["registers"] > recorded[name]["registers"] + REGISTER_STEP
    }
    assert not grown, f"registers (recorded, now): {grown}"
    assert all(16 <= row["registers"] <= 255 for row in measured.values())


def test_registers_do_not_spill(measured):
    spilled = {name: row["stack_bytes"] for name, row in measured.items() if row["stack_bytes"]}
    grown = {name: size for name, size in spilled.items() if size > STACKS.get(name, 0)}
    assert not grown, f"bytes of local memory per thread: {grown}"
    assert set(spilled) == set(STACKS), "a kernel became leaner: take it off the list"


def test_particles_reach_each_of_their_27_nodes_with_one_atomic_operation(measured):
    users = {name: row["vector_atomics"] for name, row in measured.items() if row["vector_atomics"]}
    assert "transfers.gather_adj" in users and "transfers.scatter of Dough" in users
    assert all(count % 27 == 0 for count in users.values())
    assert measured["transfers.gather_adj"]["atomics"] == 0
