"""The command says all that an operator wants to know of a bundle, in words or in JSON, and whether it would do."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace

import pytest

from policy_runner import inspect_bundle
from policy_runner.bundle import read_bundle
from policy_runner.contract import ObsTerm

PATIENT = ("--timeout", "120")


@pytest.fixture(scope="module")
def whole(bundles, tmp_path_factory):
    return bundles.write(tmp_path_factory.mktemp("bundle"))


def test_it_prints_the_contract_of_a_good_bundle_and_what_the_check_found(whole, capsys):
    assert inspect_bundle.main([str(whole), *PATIENT]) == 0
    text = capsys.readouterr().out
    for word in (
        "rolling_flat",
        "60 Hz",
        "particle_q [8, 3]",
        "delta_position",
        "pin_yaw",
        "starts at 0.3",
        "8 points by stride",
        read_bundle(whole).digest,
        f"policy.onnx {(whole / 'policy.onnx').stat().st_size:,} B",
        "golden actions within 1e-05",
        "ms of 16.6667 ms",
    ):
        assert word in text


def test_limits_of_positions_are_not_taken_for_limits_of_efforts(bundles):
    contract = bundles.contract()
    assert " * a, in [" in inspect_bundle.describe(contract)
    effort = replace(contract, action=replace(contract.action, mode="effort"))
    assert " * a, joint in [" in inspect_bundle.describe(effort)


def test_in_json_it_says_the_same(whole, capsys, bundles):
    assert inspect_bundle.main([str(whole), "--json", *PATIENT]) == 0
    report = json.loads(capsys.readouterr().out)
    assert report["contract"] == json.loads(bundles.contract().to_json())
    assert report["sha256"] == read_bundle(whole).digest
    assert report["files"] == {path.name: path.stat().st_size for path in whole.iterdir()}
    assert 0.0 <= report["open_s"] < 60.0 and 0.0 < report["step_s"] < 60.0
    assert report["refused"] == ""


def test_it_says_why_a_bundle_is_refused(whole, tmp_path, capsys):
    folder = shutil.copytree(whole, tmp_path / "b")
    (folder / "golden.npz").unlink()
    assert inspect_bundle.main([str(folder), "--json"]) == 1
    captured = capsys.readouterr()
    assert captured.err == "refused: golden.npz: cannot be read: No such file or directory\n"
    assert json.loads(captured.out) == {"refused": "golden.npz: cannot be read: No such file or directory"}


def test_a_sound_bundle_that_no_robot_can_run_is_described_and_refused(bundles, tmp_path, capsys):
    hidden = ObsTerm(name="mass", kind="privileged", shape=(3,), unit="kg")
    terms = bundles.contract().obs_terms
    folder = bundles.write(tmp_path / "b", bundles.contract(obs_terms=(terms[0], hidden, terms[2])))
    assert inspect_bundle.main([str(folder), *PATIENT]) == 1
    captured = capsys.readouterr()
    assert "rolling_flat" in captured.out
    assert captured.err.startswith(
        "refused: obs_terms[mass].kind: 'privileged' is known to the simulator only"
    )


@pytest.mark.parametrize("words", [[], ["a", "b"], ["a", "--jsn"], ["a", "--timeout", "soon"]])
def test_a_mistyped_command_ends_with_2(words, capsys):
    with pytest.raises(SystemExit) as caught:
        inspect_bundle.main(words)
    assert caught.value.code == 2
    assert capsys.readouterr().err.startswith("usage: python -m policy_runner.inspect_bundle")


def test_a_timeout_that_makes_no_sense_is_a_mistyped_command(whole, capsys):
    with pytest.raises(SystemExit) as caught:
        inspect_bundle.main([str(whole), "--timeout", "-1"])
    assert caught.value.code == 2
    assert "wall_s must be > 0, got -1.0" in capsys.readouterr().err


def test_what_a_bundle_says_of_itself_cannot_steer_a_terminal(bundles, tmp_path, capsys):
    def rename(name, model):
        model.graph.node[0].op_type = "\x1b[2JRun\r\n"

    folder = bundles.write(tmp_path / "b", change_models=rename)
    assert inspect_bundle.main([str(folder), *PATIENT]) == 1
    message = capsys.readouterr().err
    assert message.endswith("\n") and message[:-1].isprintable()
