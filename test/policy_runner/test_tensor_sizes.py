"""Row 18 of the fault table: what a model will need is known, and bounded, before it runs."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from policy_runner import tensor_sizes
from policy_runner.bundle import BundleError
from policy_runner.tensor_sizes import check_sizes


def model(nodes, weights=(), shape=(1, 6)):
    """A model of these nodes from `obs` to `out`, of which nothing is said."""
    inputs = [helper.make_tensor_value_info("obs", TensorProto.FLOAT, shape)]
    outputs = [onnx.ValueInfoProto(name="out")]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in weights]
    graph = helper.make_graph(
        [helper.make_node(*node[:3], **node[3]) for node in nodes], "g", inputs, outputs
    )
    graph.initializer.extend(tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)


def bytes_of(*arguments, **options):
    """How much the check finds a model to need: the largest limit that refuses it, plus one."""
    low, high = 0, 1 << 60
    while high - low > 1:
        middle = (low + high) // 2
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(tensor_sizes, "MAX_TENSOR_BYTES", middle)
            try:
                check_sizes("m.onnx", model(*arguments, **options))
                high = middle
            except BundleError as error:
                assert "bytes in all" in str(error)
                low = middle
    return high


def test_what_a_model_needs_is_the_sum_of_its_weights_inputs_and_values():
    w = np.zeros((6, 5), np.float32)
    nodes = [("MatMul", ["obs", "W"], ["z"], {}), ("Tanh", ["z"], ["out"], {})]
    assert bytes_of(nodes, [("W", w)]) == 4 * (6 + 6 * 5 + 5 + 5)
    nodes = [("Cast", ["obs"], ["z"], {"to": TensorProto.DOUBLE}), ("Cast", ["z"], ["out"], {"to": 9})]
    assert bytes_of(nodes) == (4 + 8 + 1) * 6  # float, double, bool


@pytest.mark.parametrize(
    ("node", "weights"),
    [
        (("Expand", ["obs", "sizes"], ["big"], {}), [("sizes", np.array([20_000, 20_000, 1, 6]))]),
        (("Tile", ["obs", "times"], ["big"], {}), [("times", np.array([50_000, 50_000]))]),
        (("ConstantOfShape", ["sizes"], ["big"], {}), [("sizes", np.array([1 << 15, 1 << 15]))]),
        (("Pad", ["obs", "pads"], ["big"], {}), [("pads", np.array([0, 0, 1 << 15, 1 << 15]))]),
        (("OneHot", ["index", "depth", "values"], ["big"], {}), None),
        (("Resize", ["image", "", "", "sizes"], ["big"], {}), None),
    ],
    ids=lambda value: value[0] if isinstance(value, tuple) else "",
)
def test_row_18_small_files_that_become_large_tensors_are_refused_before_they_run(node, weights):
    before = []
    if node[0] == "OneHot":
        weights = [
            ("index", np.zeros((1 << 15,), np.int64)),
            ("depth", np.array(1 << 15)),
            ("values", np.zeros(2, np.float32)),
        ]
    if node[0] == "Resize":
        weights = [("shape", np.array([1, 1, 2, 3])), ("sizes", np.array([1, 1, 1 << 15, 1 << 15]))]
        before = [("Reshape", ["obs", "shape"], ["image"], {})]
    bomb = model([*before, node, ("Identity", ["obs"], ["out"], {})], weights)
    with pytest.raises(BundleError, match=rf"operator '{node[0]}': output 'big': expected"):
        check_sizes("m.onnx", bomb)


def test_row_18_many_modest_tensors_are_refused_by_their_sum():
    weights = [("sizes", np.array([1 << 10, 1 << 10]))]  # 4 MiB each
    nodes = [("ConstantOfShape", ["sizes"], [f"v{index}"], {}) for index in range(100)]
    with pytest.raises(BundleError, match=r"output 'v6\d': expected at most 268435456 bytes in all"):
        check_sizes("m.onnx", model([*nodes, ("Identity", ["obs"], ["out"], {})], weights))


def test_weights_that_claim_to_be_huge_are_refused():
    lying = model([("Identity", ["obs"], ["out"], {})])
    lying.graph.initializer.add(name="W", data_type=TensorProto.FLOAT, dims=[1 << 40, 1 << 40])
    with pytest.raises(BundleError, match=r"expected at most 268435456 bytes in all|contradictory"):
        check_sizes("m.onnx", lying)
    negative = model([("Identity", ["obs"], ["out"], {})])
    negative.graph.initializer.add(name="W", data_type=TensorProto.FLOAT, dims=[-1, 3])
    with pytest.raises(BundleError, match=r"tensor 'W': expected sizes >= 0, found \[-1, 3\]|contradictory"):
        check_sizes("m.onnx", negative)


@pytest.mark.parametrize(
    "nodes",
    [
        [("NonZero", ["obs"], ["n"], {}), ("Identity", ["n"], ["out"], {})],
        [("Unique", ["obs"], ["out"], {})],
        [
            ("Cast", ["obs"], ["sizes"], {"to": TensorProto.INT64}),
            ("Squeeze", ["sizes"], ["flat"], {}),
            ("ConstantOfShape", ["flat"], ["out"], {}),
        ],
    ],
    ids=["NonZero", "Unique", "shape from data"],
)
def test_row_18_sizes_that_depend_on_what_the_robot_sees_are_refused(nodes):
    with pytest.raises(BundleError, match="expected a fixed shape, found one that depends on data"):
        check_sizes("m.onnx", model(nodes))


def test_what_a_model_says_of_its_own_sizes_is_not_believed():
    bomb = model([("NonZero", ["obs"], ["n"], {}), ("Cast", ["n"], ["out"], {"to": TensorProto.FLOAT})])
    bomb.graph.value_info.append(helper.make_tensor_value_info("n", TensorProto.INT64, [2, 1]))
    bomb.graph.output[0].CopyFrom(helper.make_tensor_value_info("out", TensorProto.FLOAT, [2, 1]))
    with pytest.raises(BundleError, match="operator 'NonZero': output 'n': expected a fixed shape"):
        check_sizes("m.onnx", bomb)


def test_only_tensors_of_numbers_pass():
    sequence = model([("SequenceConstruct", ["obs"], ["s"], {}), ("SequenceLength", ["s"], ["out"], {})])
    with pytest.raises(BundleError, match="output 's': expected a tensor, found something else"):
        check_sizes("m.onnx", sequence)
    text = model([("Cast", ["obs"], ["out"], {"to": TensorProto.STRING})])
    with pytest.raises(BundleError, match=r"output 'out': expected one of .*'FLOAT'.*, found STRING"):
        check_sizes("m.onnx", text)
