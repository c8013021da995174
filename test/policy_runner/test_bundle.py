"""A bundle is taken only if every file, hash, shape and number in it is what the format says."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from policy_runner.bundle import BundleError, load_bundle, read_bundle
from policy_runner.contract import ActionSpec

FILES = ("bundle.json", "policy.onnx", "actor.onnx", "encoder.onnx", "golden.npz")


@pytest.fixture(scope="session")
def whole(bundles, tmp_path_factory):
    return bundles.write(tmp_path_factory.mktemp("bundle"))


@pytest.fixture
def copy(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "copy")


def refusal(folder) -> str:
    with pytest.raises(BundleError) as caught:
        load_bundle(folder)
    return str(caught.value)


def test_a_whole_bundle_is_taken_with_its_contract(whole, bundles):
    bundle = load_bundle(whole)
    assert bundle.contract == bundles.contract()
    assert bundle.policy == (whole / "policy.onnx").read_bytes()


def test_a_task_without_a_cloud_needs_no_encoder(bundles, tmp_path):
    contract = bundles.contract()
    contract = replace(contract, obs_terms=contract.obs_terms[:1], point_cloud=None)
    folder = bundles.write(tmp_path / "state", contract)
    assert not (folder / "encoder.onnx").exists()
    assert load_bundle(folder).contract == contract


@pytest.mark.parametrize("name", FILES[1:])
@pytest.mark.parametrize("where", [0.0, 0.31, 0.77, 1.0])
def test_one_flipped_bit_is_refused_by_the_name_of_its_file(copy, name, where):
    data = bytearray((copy / name).read_bytes())
    data[int(where * (len(data) - 1))] ^= 1
    (copy / name).write_bytes(data)
    assert f"{name}: sha256: expected" in refusal(copy)


def test_every_flipped_byte_of_the_manifest_is_refused_or_harmless(whole, tmp_path, bundles):
    """White space and free text may change; what is then loaded must still agree with the models."""
    text = (whole / "bundle.json").read_bytes()
    folder = shutil.copytree(whole, tmp_path / "flipped")
    refused = 0
    for position in range(0, len(text), 7):
        data = bytearray(text)
        data[position] ^= 1
        (folder / "bundle.json").write_bytes(data)
        try:
            assert load_bundle(folder).contract == bundles.contract()
        except BundleError:
            refused += 1
    assert refused > 0.9 * len(range(0, len(text), 7))


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(copy, name):
    (copy / name).unlink()
    assert refusal(copy).startswith(f"{name}: cannot be read")


def test_what_is_no_folder_is_refused(tmp_path):
    assert "found nothing" in refusal(tmp_path / "nowhere")
    (tmp_path / "file").write_bytes(b"")
    assert "found a file" in refusal(tmp_path / "file")


@pytest.mark.parametrize("kind", ["pipe", "link", "folder"])
def test_what_stands_in_place_of_a_plain_file_is_refused(copy, whole, kind):
    path = copy / "policy.onnx"
    path.unlink()
    make = {"pipe": os.mkfifo, "link": lambda p: p.symlink_to(whole / "policy.onnx"), "folder": os.mkdir}
    make[kind](path)
    assert refusal(copy).startswith("policy.onnx: ")


@pytest.mark.parametrize("text", ["", "[", "[" * 100_000, "3", "{}", '{"contract": {}}', "\x00\xff", "null"])
def test_a_manifest_that_is_no_manifest_is_refused(copy, text):
    (copy / "bundle.json").write_bytes(text.encode("latin1"))
    assert refusal(copy).startswith("bundle.json: ")


@pytest.mark.parametrize("depth", [5, 9, 300, 900, 990, 999, 1100, 5000, 100_000])
def test_a_contract_nested_to_any_depth_is_refused_or_taken_and_nothing_else(whole, copy, depth):
    text = (whole / "bundle.json").read_text()
    deep = text.replace('"seed": 1', '"seed": ' + "[" * depth + "]" * depth)
    assert deep != text
    (copy / "bundle.json").write_text(deep)
    assert refusal(copy).startswith("bundle.json: " if depth > 5 else "actor.onnx: metadata")


@pytest.mark.parametrize("files", [{}, [], {"policy.onnx": "0"}, None])
def test_a_manifest_must_list_exactly_the_files_of_its_contract(copy, files):
    manifest = json.loads((copy / "bundle.json").read_text())
    manifest["files"] = files
    (copy / "bundle.json").write_text(json.dumps(manifest))
    assert "bundle.json: files: expected ['actor.onnx', 'encoder.onnx', 'golden.npz'" in refusal(copy)


@pytest.mark.parametrize(
    "field",
    ["control_dt_s", "action", "obs_terms", "default_joint_pos", "policy_name", "schema_version", "task"],
)
def test_a_missing_field_of_the_contract_is_named(copy, field):
    manifest = json.loads((copy / "bundle.json").read_text())
    del manifest["contract"][field]
    (copy / "bundle.json").write_text(json.dumps(manifest))
    message = refusal(copy)
    assert message.startswith("bundle.json: contract") and field in message


def test_another_tasks_joints_are_named(bundles, tmp_path):
    ours = bundles.contract()
    action = replace(ours.action, joint_names=("pin_x", "elbow", "pin_yaw"))
    folder = bundles.write(tmp_path / "mixed", ours, manifest_contract=replace(ours, action=action))
    message = refusal(folder)
    assert "action.joint_names[1]: expected 'elbow', found 'pin_y'" in message
    assert "actor.onnx: metadata 'contract'" in message


def test_a_model_with_another_number_of_joints_is_refused(bundles, tmp_path):
    contract = bundles.contract()
    action = ActionSpec(
        joint_names=("a",), mode="position", scale=(1,), lower=(-1,), upper=(1,), max_velocity=(1,)
    )

    def claim(name, model):
        helper.set_model_props(model, {"contract": smaller.to_json()})

    smaller = replace(contract, action=action, default_joint_pos=(0.0,))
    folder = bundles.write(tmp_path / "b", contract, change_models=claim, manifest_contract=smaller)
    assert "policy.onnx: outputs: 'actions': expected shape [1, 1], found [1, 3]" in refusal(folder)


def _extra_input(model):
    model.graph.input.append(helper.make_tensor_value_info("goal", TensorProto.FLOAT, [1, 3]))


def _renamed_output(model):
    model.graph.output[0].name = "action"
    model.graph.node[-1].output[0] = "action"


def _half_precision(model):
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.FLOAT16


def _dynamic_batch(model):
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"


def _batch_of_two(model):
    model.graph.input[1].type.tensor_type.shape.dim[0].dim_value = 2


def _another_state_size(model):
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 7


def _external_data(model):
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../../../etc/passwd")


def _external_data_in_a_constant(model):
    value = onnx.numpy_helper.from_array(np.zeros(2, np.float32), "hidden")
    value.data_location = TensorProto.EXTERNAL
    value.external_data.add(key="location", value="/etc/passwd")
    model.graph.node.insert(0, helper.make_node("Constant", [], ["unused"], value=value))


def _custom_domain(model):
    model.graph.node.insert(0, helper.make_node("Run", ["obs"], ["unused"], domain="com.example"))
    model.opset_import.append(helper.make_opsetid("com.example", 1))


def _local_function(model):
    node = helper.make_node("Identity", ["a"], ["b"])
    opset = [helper.make_opsetid("", 18)]
    model.functions.append(helper.make_function("local", "Wrap", ["a"], ["b"], [node], opset))


def _newer_opset(model):
    model.opset_import[0].version = 21


def _no_metadata(model):
    del model.metadata_props[:]


def _metadata_twice(model):
    model.metadata_props.append(model.metadata_props[0])


def _unknown_operator(model):
    model.graph.node[-1].op_type = "Tanhh"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_extra_input, "inputs: expected ['obs', 'particle_q'], found ['goal', 'obs', 'particle_q']"),
        (_renamed_output, "outputs: expected ['actions'], found ['action']"),
        (_half_precision, "inputs: 'obs': expected FLOAT, found FLOAT16"),
        (_dynamic_batch, "inputs: 'obs': expected shape [1, 6], found ['batch', 6]"),
        (_batch_of_two, "inputs: 'particle_q': expected shape [1, 8, 3], found [2, 8, 3]"),
        (_another_state_size, "inputs: 'obs': expected shape [1, 6], found [1, 7]"),
        (_external_data, "tensor 'W': expected its data inside the file, found external data"),
        (_external_data_in_a_constant, "tensor 'hidden': expected its data inside the file"),
        (_custom_domain, "operator 'Run': expected the default domain, found 'com.example'"),
        (_local_function, "functions: expected none, found 'Wrap'"),
        (_newer_opset, "opset: expected 18, found [21]"),
        (_no_metadata, "metadata 'contract': expected one entry, found 0"),
        (_metadata_twice, "metadata 'contract': expected one entry, found 2"),
        (_unknown_operator, "not a valid model"),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else "",
)
def test_a_model_that_is_not_as_the_format_says_is_refused(bundles, tmp_path, change, message):
    def change_policy(name, model):
        if name == "policy.onnx":
            change(model)

    folder = bundles.write(tmp_path / "b", change_models=change_policy)
    found = refusal(folder)
    assert found.startswith("policy.onnx: ") and message in found


@pytest.mark.parametrize("name", ["actor.onnx", "encoder.onnx"])
def test_the_parts_are_held_to_the_same_rules_as_the_fused_model(bundles, tmp_path, name):
    folder = bundles.write(
        tmp_path / "b", change_models=lambda n, m: _custom_domain(m) if n == name else None
    )
    assert refusal(folder).startswith(f"{name}: operator 'Run'")


@pytest.mark.parametrize("data", [b"", b"\x08", b"not a model", bytes(range(256)) * 8])
def test_bytes_that_are_no_model_are_refused(bundles, copy, data):
    (copy / "policy.onnx").write_bytes(data)
    bundles.sign(copy)
    assert refusal(copy).startswith("policy.onnx: ")


def _golden_change(name, change):
    def apply(golden):
        golden[name] = change(golden[name])

    return apply


def _nan(values):
    values = values.copy()
    values.flat[0] = np.nan
    return values


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_golden_change("actions", lambda v: v + np.float32(2e-5)), "pair 0: policy.onnx differs by"),
        (_golden_change("actions", _nan), "actions: expected finite values"),
        (_golden_change("obs", _nan), "obs: expected finite values"),
        (_golden_change("obs", lambda v: v.astype(np.float64)), "obs: expected float32"),
        (_golden_change("particle_q", lambda v: v[:, :-1]), "particle_q: expected float32 (4, 8, 3)"),
        (_golden_change("actions", lambda v: v[:0]), "expected at least one pair"),
        (_golden_change("actions", lambda v: np.array(None, object)), "not an archive of plain arrays"),
        (lambda golden: golden.pop("obs"), "expected arrays ['actions', 'obs', 'particle_q']"),
    ],
)
def test_golden_pairs_must_be_plain_finite_and_reproduced(bundles, tmp_path, change, message):
    contract = bundles.contract()
    golden = bundles.golden(contract, bundles.weights(contract))
    change(golden)
    folder = bundles.write(tmp_path / "b", contract, golden=golden)
    found = refusal(folder)
    assert found.startswith("golden.npz: ") and message in found


def test_reading_alone_opens_no_model(bundles, tmp_path):
    folder = bundles.write(tmp_path / "b", change_models=lambda n, m: m.graph.Clear())
    assert read_bundle(folder).contract == bundles.contract()
    assert refusal(folder)
