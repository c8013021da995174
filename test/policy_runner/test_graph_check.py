"""Rows 17 to 19 of the fault table: what no graph may hold, each refused by name."""

from __future__ import annotations

import os
import struct

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from policy_runner.bundle import BundleError, load_bundle
from policy_runner.inference import open_session
from policy_runner.vet import VetLimits, load_vetted

PATIENT = VetLimits(wall_s=120.0, cpu_s=60)


@pytest.fixture
def refusal(bundles, tmp_path):
    """Why a bundle is refused whose fused model was changed so, hashes made anew."""

    def refusal(change) -> str:
        folder = bundles.write(tmp_path / "b", change_models=lambda n, m: n == "policy.onnx" and change(m))
        with pytest.raises(BundleError) as caught:
            load_bundle(folder)
        return str(caught.value)

    return refusal


def prepend(model, *nodes):
    for node in reversed(nodes):
        model.graph.node.insert(0, node)


def constant(name, values):
    return numpy_helper.from_array(np.asarray(values), name)


def branch(name):
    out = helper.make_tensor_value_info(name, TensorProto.FLOAT, [1])
    value = helper.make_node("Constant", [], [name], value=constant("c", np.zeros(1, np.float32)))
    return helper.make_graph([value], name, [], [out])


def _if(model):
    model.graph.initializer.append(constant("yes", np.array(True)))
    branches = {"then_branch": branch("a"), "else_branch": branch("b")}
    prepend(model, helper.make_node("If", ["yes"], ["unused"], **branches))


def _loop(model):
    """A loop that goes on for ever."""
    kinds = (("i", TensorProto.INT64), ("go", TensorProto.BOOL))
    inputs = [helper.make_tensor_value_info(name, kind, []) for name, kind in kinds]
    outputs = [helper.make_tensor_value_info("go_on", TensorProto.BOOL, [])]
    body = helper.make_graph([helper.make_node("Identity", ["go"], ["go_on"])], "body", inputs, outputs)
    model.graph.initializer.append(constant("for_ever", np.array(True)))
    prepend(model, helper.make_node("Loop", ["", "for_ever"], [], body=body))


def _hidden_graph(model):
    """A graph in an attribute that claims to hold a number."""
    node = helper.make_node("Identity", ["obs"], ["unused"])
    attribute = node.attribute.add(name="quiet", type=onnx.AttributeProto.INT)
    attribute.g.CopyFrom(branch("a"))
    prepend(model, node)


def _random(model):
    prepend(model, helper.make_node("RandomNormal", [], ["unused"], shape=[3]))


def _sparse_weights(model):
    values, indices = constant("thin", np.ones(1, np.float32)), constant("", np.zeros(1, np.int64))
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [1 << 40]))


def _sparse_attribute(model):
    values, indices = constant("thin", np.ones(1, np.float32)), constant("", np.zeros(1, np.int64))
    tensor = helper.make_sparse_tensor(values, indices, [1 << 40])
    prepend(model, helper.make_node("Constant", [], ["unused"], sparse_value=tensor))


def _reference(model):
    node = helper.make_node("Softmax", ["obs"], ["unused"])
    node.attribute.add(name="axis", type=onnx.AttributeProto.INT, ref_attr_name="outer")
    prepend(model, node)


def _training_info(model):
    model.training_info.add().algorithm.CopyFrom(branch("a"))


def _many_nodes(model):
    chain = [helper.make_node("Identity", ["obs"], [f"n{i}"]) for i in range(10_001)]
    model.graph.node.extend(chain)


def _foreign_opset(model):
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def _old_opset(model):
    model.opset_import[0].version = 9


def _newer_ir(model):
    model.ir_version = 99


def _runtime_options(model):
    model.metadata_props.add(key="ort_config", value='{"session_options": {"intra_op_num_threads": 64}}')


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (_if, "operator 'If': expected no control flow, found a graph in"),
        (_loop, "operator 'Loop': expected no control flow, found a graph in 'body'"),
        (_hidden_graph, "operator 'Identity': expected no control flow, found a graph in 'quiet'"),
        (_random, "operator 'RandomNormal': expected one that gives the same every time"),
        (_sparse_weights, "tensor 'thin': expected a dense one, found a sparse one"),
        (_sparse_attribute, "operator 'Constant': expected dense tensors, found a sparse one"),
        (_reference, "operator 'Softmax': expected a value for 'axis', found a reference"),
        (_training_info, "training_info: expected none, found 1"),
        (_many_nodes, "expected at most 10000 nodes, found 1000"),
        (_foreign_opset, "opset: expected the default domain alone, found 'com.microsoft'"),
        (_old_opset, "opset: expected 18, found [9]"),
        (_newer_ir, "IR version: expected one of [8, 9, 10], found 99"),
        (_runtime_options, "metadata: expected 'contract' alone, found 'ort_config' too"),
    ],
    ids=lambda value: value.__name__.strip("_") if callable(value) else "",
)
def test_rows_18_and_19_what_a_policy_does_not_need_is_refused_by_name(refusal, change, message):
    found = refusal(change)
    assert found.startswith("policy.onnx: ") and message in found


def test_fields_that_this_onnx_does_not_know_are_refused(refusal, bundles, tmp_path):
    """onnxruntime has its own idea of the format, maybe a newer one."""
    folder = bundles.write(tmp_path / "c")
    path = folder / "policy.onnx"
    path.write_bytes(path.read_bytes() + b"\xca\x3e\x05hello")  # field 1001, of five bytes
    bundles.sign(folder)
    with pytest.raises(BundleError, match=r"policy.onnx: expected only fields that onnx .* knows"):
        load_bundle(folder)


def test_bytes_that_are_two_formats_at_once_are_opened_as_the_one_that_was_checked():
    """onnxruntime takes what has its own format's mark at byte 4 for that, which may hold anything."""
    ort = struct.pack("<I", 8) + b"ORTM" + bytes(64)
    with pytest.raises(Exception, match=r"(?i)protobuf"):
        open_session(ort)


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret.bin"
    path.write_bytes(np.ones(18, np.float32).tobytes())
    return path


@pytest.mark.parametrize("way", ["up", "absolute", "symlink", "hard link", "same name", "memory"])
@pytest.mark.parametrize("name", ["policy.onnx", "actor.onnx", "encoder.onnx"])
def test_row_17_weights_outside_the_file_are_refused_whatever_the_way_to_them(
    bundles, tmp_path, secret, way, name
):
    folder = tmp_path / "b"
    folder.mkdir()
    beside = folder / "weights.bin"
    if way == "symlink":
        beside.symlink_to(secret)
    elif way == "hard link":
        os.link(secret, beside)
    elif way == "same name":
        beside.write_bytes(secret.read_bytes())
    locations = {"up": "../secret.bin", "absolute": str(secret), "memory": "*/_ORT_MEM_ADDR_/*"}

    def change(file, model):
        if file == name:
            tensor = model.graph.initializer[0]
            tensor.ClearField("raw_data")
            tensor.data_location = TensorProto.EXTERNAL
            tensor.external_data.add(key="location", value=locations.get(way, "weights.bin"))

    bundles.write(folder, change_models=change)
    message = f"{name}: tensor 'W': expected its data inside the file, found external data"
    with pytest.raises(BundleError, match=message):
        load_bundle(folder)


def test_row_17_onnxruntime_given_bytes_would_not_read_the_file_either(
    bundles, tmp_path, secret, monkeypatch
):
    """The second line of defence: no path of a model is ever interpreted."""
    contract = bundles.contract()
    model = bundles.model(contract, bundles.weights(contract))
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=str(secret))
    monkeypatch.chdir(tmp_path)
    with pytest.raises(Exception, match=r"(?i)external"):
        open_session(model.SerializeToString())


def _zero_stride(model):
    model.graph.initializer.append(constant("kernel", np.ones((1, 1, 1), np.float32)))
    model.graph.initializer.append(constant("image_shape", np.array([1, 1, 6])))
    prepend(
        model,
        helper.make_node("Reshape", ["obs", "image_shape"], ["image"]),
        helper.make_node("Conv", ["image", "kernel"], ["unused"], strides=[0], kernel_shape=[1]),
    )


def _zero_step(model):
    for name, value in (("from", 0), ("to", 6), ("axis", 1), ("step", 0)):
        model.graph.initializer.append(constant(name, np.array([value])))
    prepend(model, helper.make_node("Slice", ["obs", "from", "to", "axis", "step"], ["unused"]))


def _integer_division_by_zero(model):
    model.graph.initializer.extend([constant("one", np.array([1])), constant("none", np.array([0]))])
    prepend(model, helper.make_node("Div", ["one", "none"], ["unused"]))


@pytest.mark.parametrize("change", [_zero_stride, _zero_step, _integer_division_by_zero])
def test_row_18_zeros_where_none_may_be_end_the_child_at_most(bundles, tmp_path, change):
    folder = bundles.write(tmp_path / "b", change_models=lambda n, m: n == "policy.onnx" and change(m))
    with pytest.raises(BundleError):
        load_vetted(folder, PATIENT)


def test_row_18_deep_nesting_in_any_file_is_refused(bundles, tmp_path):
    graph = onnx.GraphProto(name="inner")
    for _ in range(60):
        outer = onnx.GraphProto(name="outer")
        outer.node.add(op_type="If").attribute.add(name="then_branch").g.CopyFrom(graph)
        graph = outer
    folder = bundles.write(
        tmp_path / "b", change_models=lambda n, m: n == "policy.onnx" and m.graph.CopyFrom(graph)
    )
    with pytest.raises(
        BundleError, match=r"policy.onnx: (not an ONNX model|operator 'If': expected no control)"
    ):
        load_bundle(folder)
    (folder / "bundle.json").write_text('{"contract": {"train": ' + "[" * 200_000)
    with pytest.raises(BundleError, match=r"bundle.json: not valid JSON"):
        load_bundle(folder)
