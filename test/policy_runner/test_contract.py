"""A contract survives its own JSON exactly, and any wrong field is named."""

from __future__ import annotations

import json
from dataclasses import fields, replace

import pytest

from policy_runner.bundle import contract_difference
from policy_runner.contract import ActionSpec, ContractError, ObsTerm, PointCloudSpec, PolicyContract


def changed(contract, path, value):
    """The contract's JSON with the value at `path` replaced, or removed where value is `KeyError`."""
    raw = json.loads(contract.to_json())
    place = raw
    for key in path[:-1]:
        place = place[key]
    if value is KeyError:
        del place[path[-1]]
    else:
        place[path[-1]] = value
    return json.dumps(raw)


def test_a_contract_survives_json_to_the_last_bit(bundles):
    contract = bundles.contract(control_dt_s=1.0 / 60.0, default_joint_pos=(0.1 + 0.2, 1e-300, -0.0))
    again = PolicyContract.from_json(contract.to_json())
    assert again == contract
    assert again.to_json() == contract.to_json()
    assert contract_difference(contract, again) is None


def test_a_difference_is_named_by_its_field(bundles):
    contract = bundles.contract()
    other = replace(contract, action=replace(contract.action, upper=(0.9, 0.5, 2.0)))
    assert contract_difference(contract, other) == "action.upper[1]: expected 0.4, found 0.5"
    other = replace(
        contract, obs_terms=contract.obs_terms[:2] + contract.obs_terms[2:] * 1, task="fluid_move"
    )
    assert contract_difference(contract, other) == "task: expected 'rolling_flat', found 'fluid_move'"


@pytest.mark.parametrize("kind", [ObsTerm, ActionSpec, PointCloudSpec, PolicyContract])
def test_every_required_field_that_is_missing_is_named(bundles, kind):
    contract = bundles.contract()
    places = {
        ObsTerm: ("obs_terms", 0),
        ActionSpec: ("action",),
        PointCloudSpec: ("point_cloud",),
        PolicyContract: (),
    }
    required = [f.name for f in fields(kind) if f.default is f.default_factory]
    assert required
    for name in required:
        with pytest.raises(ContractError, match=name):
            PolicyContract.from_json(changed(contract, (*places[kind], name), KeyError))


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (("schema_version",), 2, "schema_version: this build reads 1, the model carries 2"),
        (("schema_version",), KeyError, "schema_version: this build reads 1, the model carries None"),
        (("control_dt_s",), 0.0, "control_dt_s: must be > 0, got 0.0"),
        (("control_dt_s",), float("nan"), "control_dt_s: must be finite, got nan"),
        (("control_dt_s",), "fast", "control_dt_s: expected a number, got 'fast'"),
        (("control_dt_s",), True, "control_dt_s: expected a number, got True"),
        (("control_dt_s",), 10**400, "control_dt_s: must be finite, got inf"),
        (("control_dt_s",), 1e-9, r"control_dt_s: must be in \[0.001, 10.0\], got 1e-09"),
        (("policy_name",), ["roller"], "policy_name: expected text, got list"),
        (("policy_name",), "a\x1b[2Jb", r"policy_name: must be printable, got 'a\\x1b\[2Jb'"),
        (("task",), "x" * 201, "task: at most 200 characters, got 201"),
        (("train",), {"a": [{"b": float("nan")}]}, r"train.a\[0\].b: must be finite, got nan"),
        (("train",), [[[[[[[[[[]]]]]]]]]], "train: nested more than 8 deep"),
        (("train",), {"a\nb": 1}, "train: key: must be printable"),
        (("speed",), 1, "contract: unknown field 'speed'"),
        (("action",), [], "action: expected an object, got list"),
        (("action", "joint_names"), [], "action.joint_names: must not be empty"),
        (("action", "joint_names"), "abc", "action.joint_names: expected a list, got str"),
        (("action", "joint_names", 1), 7, r"action.joint_names\[1\]: expected text, got int"),
        (("action", "joint_names"), ["j"] * 1025, "action.joint_names: at most 1024, got 1025"),
        (("action", "upper", 2), 1e9, r"action.upper: at most 1e\+06 in size, got \[1000000000.0\]"),
        (("action", "joint_names"), ["a", "a", "b"], "action.joint_names: repeated names"),
        (("action", "mode"), "torque", "action.mode: got 'torque'; known"),
        (("action", "scale"), [0.1], "action.scale: expected 3 numbers, got 1"),
        (("action", "lower"), [0, float("nan"), 0], "action.lower: must be finite"),
        (("action", "upper", 1), 0.05, "action.upper: joint 'pin_y': lower 0.1 is not below upper 0.05"),
        (("action", "max_velocity", 0), 0.0, "action.max_velocity: joint 'pin_x': must be > 0"),
        (("action", "gain"), 1, "action: unknown field 'gain'"),
        (("default_joint_pos",), [0.0], "default_joint_pos: expected 3 numbers, got 1"),
        (("obs_terms",), [], "obs_terms: must not be empty"),
        (("obs_terms",), "abc", "obs_terms: expected a list, got str"),
        (("obs_terms", 0, "shape"), [1 << 17], r"obs_terms\[joint_q\].shape: at most 65536 in a row"),
        (("obs_terms", 0, "shape"), [3.5], r"obs_terms\[joint_q\].shape: expected a whole number, got 3.5"),
        (("obs_terms", 0, "kind"), "colour", r"obs_terms\[joint_q\].kind: got 'colour'; known"),
        (("obs_terms", 0, "shape"), [0], r"obs_terms\[joint_q\].shape: sizes must be > 0"),
        (
            ("obs_terms", 2, "shape"),
            [8, 2],
            r"obs_terms\[particle_q\].shape: kind 'cloud' takes \(points, 3\)",
        ),
        (("obs_terms", 1, "name"), "joint_q", "obs_terms: repeated names"),
        (("obs_terms", 0, "scale"), float("inf"), r"obs_terms\[joint_q\].scale: must be finite"),
        (("obs_terms", 0), "joint_q", r"obs_terms\[0\]: expected an object, got str"),
        (("point_cloud",), None, "point_cloud: must be given exactly when"),
        (("point_cloud", "num_points"), 9, "point_cloud.num_points: is 9, but 'particle_q' has shape"),
        (("point_cloud", "crop_max", 2), 0.0, "point_cloud.crop_max: must exceed crop_min"),
        (("point_cloud", "voxel_m"), -0.1, "point_cloud.voxel_m: must be 0 or"),
        (("point_cloud", "voxel_m"), 1e-9, "point_cloud.voxel_m: must be 0 or"),
        (("point_cloud", "sampler"), "every", "point_cloud.sampler: got 'every'; known"),
        (("point_cloud", "min_points"), 0, "point_cloud.min_points: must be >= 1"),
        (("point_cloud", "frame"), "", "point_cloud.frame: must not be empty"),
    ],
)
def test_a_wrong_field_is_named(bundles, path, value, message):
    with pytest.raises(ContractError, match=message):
        PolicyContract.from_json(changed(bundles.contract(), path, value))


@pytest.mark.parametrize("text", ["", "[]", "3", "{", '"contract"'])
def test_what_is_no_object_is_refused(text):
    with pytest.raises(ContractError, match="contract: "):
        PolicyContract.from_json(text)


def test_state_terms_keep_their_order_and_clouds_stand_apart(bundles):
    contract = bundles.contract()
    assert [term.name for term in contract.state_terms] == ["joint_q", "com_q"]
    assert [term.name for term in contract.cloud_terms] == ["particle_q"]
    assert contract.state_size == 6 and contract.action.size == 3
