import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from rank_program import NUM_ENVS, SCENARIOS, VARIATIONS, make

from sapo_learner.parallel import SINGLE, joined

ON_LOOPBACK = {"GLOO_SOCKET_IFNAME": "lo", "OMP_NUM_THREADS": "1"}


def torchrun(scenario: str, folder: Path, *, ranks: int) -> tuple[int, str, dict[int, dict]]:
    """Return exit code, what was written to standard error, and the result of each rank that had one."""
    here = Path(__file__).parent
    done = subprocess.run(
        [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", str(ranks)),
            *("--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0", "--local-addr", "127.0.0.1"),
            *(here / "rank_program.py", scenario, folder),
        ],
        env=os.environ | ON_LOOPBACK | {"PYTHONPATH": os.pathsep.join([str(here), *sys.path])},
        capture_output=True,
        text=True,
        timeout=240,
    )
    results = {
        rank: torch.load(folder / f"rank_{rank}.pt", weights_only=True)
        for rank in range(ranks)
        if (folder / f"rank_{rank}.pt").exists()
    }
    return done.returncode, done.stderr, results


@pytest.fixture(scope="module")
def two_ranks(tmp_path_factory):
    """What each of two ranks found in every scenario."""
    code, stderr, results = torchrun("everything", tmp_path_factory.mktemp("ranks"), ranks=2)
    assert code == 0, stderr
    return results


@pytest.fixture(scope="module")
def alone():
    """The training of one process with all envs."""
    return SCENARIOS["train"](SINGLE)


def assert_identical(first, second):
    torch.testing.assert_close(first, second, rtol=0.0, atol=0.0, equal_nan=True)


def test_no_thread_of_the_group_outlives_it(two_ranks):
    """One that does may want the interpreter when that is gone, and the rank then aborts at its end."""
    assert [two_ranks[rank]["threads left"] for rank in (0, 1)] == [[], []]


@pytest.mark.parametrize("name", list(VARIATIONS))
def test_two_ranks_of_n_envs_learn_what_one_process_with_2n_envs_does(two_ranks, alone, name):
    found, expected = two_ranks[0]["train"][name], alone[name]
    torch.testing.assert_close(found["parts"], expected["parts"], rtol=1e-7, atol=1e-9)
    torch.testing.assert_close(found["reports"], expected["reports"], rtol=1e-6, atol=1e-9, equal_nan=True)
    assert torch.equal(found["samples"], expected["samples"])
    assert len(expected["reports"]) == 5 and expected["reports"][-1]["env_steps"] == 5 * 8 * NUM_ENVS
    assert expected["reports"][-1]["episodes"] >= NUM_ENVS


@pytest.mark.parametrize("name", list(VARIATIONS))
def test_all_ranks_hold_the_same_networks_to_the_last_bit(two_ranks, name):
    assert_identical(two_ranks[0]["train"][name]["parts"], two_ranks[1]["train"][name]["parts"])
    assert_identical(two_ranks[0]["train"][name]["reports"], two_ranks[1]["train"][name]["reports"])


def test_each_rank_has_its_share_and_together_they_have_all(two_ranks):
    numbers = torch.arange(4 * NUM_ENVS).view(4, NUM_ENVS)
    for rank in (0, 1):
        found = two_ranks[rank]["share"]
        envs = slice(0, NUM_ENVS // 2) if rank == 0 else slice(NUM_ENVS // 2, NUM_ENVS)
        assert torch.equal(found["own"], numbers[:, envs])
        assert torch.equal(found["gathered"], numbers)
        assert torch.equal(found["gathered_flags"], numbers % 3 == 0)
        samples = torch.randperm(numbers.numel(), generator=torch.Generator().manual_seed(1))
        assert found["own_samples"].tolist() == [i for i in samples.tolist() if i in numbers[:, envs]]
    parts = [two_ranks[rank]["share"]["part_of_mean"] for rank in (0, 1)]
    assert sum(parts) / 2 == numbers.double().mean()


def test_what_ranks_find_together_is_known_to_all(two_ranks):
    for rank in (0, 1):
        found = two_ranks[rank]["share"]
        assert torch.equal(found["means"][0], torch.full((2, 3), 0.5)) and found["means"][1] == 5.0
        assert found["any"] == [False, True, True]
        assert found["on_first"] == "said by rank 0"
        assert two_ranks[rank]["fail_on_first"]["error"].startswith("invalid literal for int()")


def test_a_gradient_that_is_not_finite_on_one_rank_skips_the_step_on_all(two_ranks):
    for rank in (0, 1):
        found = two_ranks[rank]["break_one"]["sapo"]
        assert found["report"]["actor/skipped"] == 1.0
        learned = {name for name in found["before"] if not name.startswith("normalizer")}
        assert_identical(*({name: found[key][name] for name in learned} for key in ("before", "after")))


def test_gradients_of_actions_are_left_out_where_they_are_broken_though_it_be_all_of_a_rank(two_ranks):
    first, second = (two_ranks[rank]["break_one"]["sapo/reuse"] for rank in (0, 1))
    assert first["report"]["actor/skipped"] == 0.0
    assert_identical(first["after"], second["after"])
    assert not torch.equal(first["before"]["head.mean.bias"], first["after"]["head.mean.bias"])


def test_all_ranks_stop_at_the_same_step_where_one_is_told_to(two_ranks):
    for rank in (0, 1):
        found = two_ranks[rank]["interrupt_one"]
        assert found["stopped"] == "stopped before step 3 of 8"
        assert_identical(found["before"], found["after"])
    assert_identical(two_ranks[0]["interrupt_one"]["report"], two_ranks[1]["interrupt_one"]["report"])


@pytest.mark.parametrize("name", ["sapo", "trajopt"])
def test_what_rank_0_saves_restores_all_ranks_bit_for_bit(two_ranks, name):
    for rank in (0, 1):
        found = two_ranks[rank]["resume"][name]
        assert_identical(found["found"], found["expected"])


def test_another_number_of_ranks_is_refused_and_both_numbers_are_named(two_ranks):
    learner = make(SINGLE)
    before = learner.state_dict()
    message = r"saved by 2 rank\(s\), and this run has 1; resume it with torchrun --nproc-per-node 2"
    with pytest.raises(ValueError, match=message):
        learner.load_state_dict(two_ranks[0]["resume"]["sapo"]["saved"])
    assert_identical(learner.state_dict(), before)


def test_a_rank_that_dies_is_named_by_the_others_at_once_and_leaves_them_as_they_were(tmp_path):
    code, stderr, results = torchrun("die", tmp_path, ranks=3)
    assert code != 0 and "exitcode  : -9" in stderr
    assert sorted(results) == [0, 2]
    for found in results.values():
        assert found["error"].startswith("rank 1 of 3 ended or does not answer")
        assert_identical(found["after"], found["before"])


def test_without_torchrun_there_is_one_rank_and_nothing_is_joined():
    with joined() as ranks:
        assert ranks is SINGLE and ranks.is_first
    assert not torch.distributed.is_initialized()
