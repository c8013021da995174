"""Row 23 of the fault table: policies exchanged between two ticks, in any mode, and no command jumps.

`python -m bench hot_swaps` measures what that costs a loop in real time.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from controller_bench import DT, Bench, FakePolicy

from policy_runner.bundle import read_bundle
from policy_runner.contract import ContractError
from policy_runner.inference import InferenceThread, Policy
from policy_runner.safety import HoldReason, Mode

EXTREMES = ((1.0, 1.0, 1.0), (-1.0, -1.0, -1.0))


def steps(bench):
    positions = np.array([command.values for command in bench.commands if command is not None])
    return np.abs(np.diff(positions, axis=0))


def assert_safe(bench):
    """Every command is finite, inside the limits, and no further from the last one than the top speed allows."""
    action = bench.contract.action
    positions = np.array([command.values for command in bench.commands if command is not None])
    assert np.isfinite(positions).all()
    assert ((positions >= action.lower) & (positions <= action.upper)).all()
    assert (steps(bench) <= np.array(action.max_velocity) * DT + 1e-9).all()


def test_row_23_a_thousand_swaps_between_opposite_policies_never_jump_and_cost_no_tick(bundles):
    contract = bundles.contract()
    fast = replace(contract.action, scale=(1.0, 1.0, 1.0))  # wants to leap across the whole range
    contract = replace(contract, action=fast)
    bench = Bench(bundles, contract=contract, settings={"stop_time_s": 0.2}).armed()
    for number in range(1000):
        bench.controller.swap(FakePolicy(contract, EXTREMES[number % 2]))
        bench.run(1 + number % 3)
    assert bench.controller.mode is Mode.RUNNING and not bench.controller.holds
    assert (
        len([command for command in bench.commands if command is not None]) == bench.controller.loop.ticks - 1
    )
    assert_safe(bench)
    assert steps(bench).max() > 0.5 * max(contract.action.max_velocity) * DT  # there was something to limit


def test_row_23_hundreds_of_networks_come_and_go_and_none_stays(bundles, tmp_path):
    """Sessions, threads and descriptors of networks that were exchanged are gone, and so is their memory."""
    loaded = [
        read_bundle(bundles.write(tmp_path / name, w=bundles.weights(bundles.contract(), seed=seed)))
        for seed, name in enumerate("ab")
    ]
    network = InferenceThread(Policy(loaded[0]), budget_s=60.0)
    bench = Bench(bundles, policy=network).armed()
    policies: weakref.WeakSet[Policy] = weakref.WeakSet()
    threads, before = threading.active_count(), (0, 0)
    for number in range(300):
        policy = Policy(loaded[number % 2])
        policies.add(policy)
        replacement = InferenceThread(policy, budget_s=60.0)
        bench.controller.swap(replacement)
        network.close()
        network = replacement
        del policy, replacement
        bench.run(1)
        if number == 100:
            before = resources()
    assert_safe(bench)
    network.close()
    give_up_s = time.monotonic() + 60.0
    while threading.active_count() > threads - 1:
        assert time.monotonic() < give_up_s
        time.sleep(0.01)
    assert len(policies) <= 1
    resident, descriptors = resources()
    assert resident - before[0] < 8 << 20 and descriptors == before[1]


def resources() -> tuple[int, int]:
    """Resident memory [bytes] and open descriptors of this process."""
    resident = int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    return resident, len(os.listdir("/proc/self/fd"))


def test_a_swap_during_a_hold_changes_nothing_until_the_operator_arms(bundles):
    bench = Bench(bundles).armed()
    bench.run(20)
    bench.cloud = False
    bench.run(60)
    assert bench.controller.reason is HoldReason.CLOUD_STALE and bench.controller.at_rest
    held = bench.commands[-1].values
    other = FakePolicy(bench.contract, EXTREMES[1])
    bench.controller.swap(other)
    bench.cloud = True
    bench.run(60)
    np.testing.assert_array_equal(bench.commands[-1].values, held)
    assert not other.seen
    bench.controller.arm()
    bench.run(20)
    assert other.seen and bench.controller.mode is Mode.RUNNING
    assert_safe(bench)


def test_a_swap_while_the_robot_decelerates_does_not_disturb_that(bundles):
    bench, undisturbed = Bench(bundles).armed(), Bench(bundles).armed()
    for each in (bench, undisturbed):
        each.run(20)
        each.controller.disarm()
        each.run(2)
        assert not each.controller.at_rest
    bench.controller.swap(FakePolicy(bench.contract, EXTREMES[0]))
    for each in (bench, undisturbed):
        each.run(30)
    for found, expected in zip(bench.commands[1:], undisturbed.commands[1:], strict=True):
        np.testing.assert_array_equal(found.values, expected.values)


def test_a_swap_while_stopped_leaves_the_stop_latched(bundles):
    bench = Bench(bundles).armed()
    bench.run(20)
    bench.controller.stop()
    bench.run(30)
    other = FakePolicy(bench.contract, EXTREMES[0])
    bench.controller.swap(other)
    bench.run(30)
    assert bench.controller.mode is Mode.STOPPED and not other.seen
    bench.controller.reset_stop()
    bench.controller.arm()
    bench.run(5)
    assert other.seen
    assert_safe(bench)


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"control_dt_s": 0.1}, "control_dt_s: expected 0.016"),
        ({"task": "another"}, "task: expected 'rolling_flat', found 'another'"),
        ({"default_joint_pos": (0.5, 0.3, 0.1)}, r"default_joint_pos\[2\]: expected 0.0, found 0.1"),
    ],
)
def test_a_policy_that_differs_in_what_was_configured_is_refused_by_field_and_the_old_one_stays(
    bundles, change, field
):
    bench = Bench(bundles).armed()
    bench.run(10)
    other = FakePolicy(replace(bench.contract, **change))
    with pytest.raises(ContractError, match=field):
        bench.controller.swap(other)
    bench.run(10)
    assert bench.controller.mode is Mode.RUNNING and not other.seen and len(bench.policy.seen) == 20


def test_every_single_field_that_was_configured_can_refuse_a_swap(bundles):
    """Names and provenance alone may differ."""
    bench = Bench(bundles)
    contract = bench.contract
    bench.controller.swap(FakePolicy(replace(contract, policy_name="other", train={"seed": 7})))
    cloud, action = contract.point_cloud, contract.action
    for changed in (
        replace(contract, point_cloud=replace(cloud, voxel_m=0.01)),
        replace(contract, point_cloud=replace(cloud, sampler="farthest")),
        replace(contract, point_cloud=replace(cloud, crop_max=(1.0, 1.0, 2.0))),
        replace(contract, action=replace(action, mode="position")),
        replace(contract, action=replace(action, upper=(0.9, 0.5, 2.0))),
        replace(contract, action=replace(action, max_velocity=(0.7, 0.6, 3.0))),
        replace(contract, action=replace(action, scale=(0.02, 0.01, 0.05))),
        replace(contract, obs_terms=(replace(contract.obs_terms[0], scale=2.0), *contract.obs_terms[1:])),
    ):
        with pytest.raises(ContractError, match="cannot be exchanged while configured: "):
            bench.controller.swap(FakePolicy(changed))
