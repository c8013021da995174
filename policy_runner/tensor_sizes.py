"""How much memory a model takes at most, known before it runs.

Every tensor in it must have a type and a shape that follow from the operators and the fixed shapes of its inputs
alone. Then nothing that a robot sees can change what the model needs: what the check has measured holds for ever.
"""

from __future__ import annotations

import math

import onnx
from onnx import TensorProto, shape_inference

from policy_runner.bundle import BundleError

MAX_TENSOR_BYTES = 256 << 20
"""Of all tensors of a model together, weights and all that it computes. The runtime reuses memory, and needs less."""

ITEM_BYTES: dict[int, int] = {
    TensorProto.BOOL: 1,
    TensorProto.INT8: 1,
    TensorProto.UINT8: 1,
    TensorProto.INT16: 2,
    TensorProto.UINT16: 2,
    TensorProto.FLOAT16: 2,
    TensorProto.BFLOAT16: 2,
    TensorProto.INT32: 4,
    TensorProto.UINT32: 4,
    TensorProto.FLOAT: 4,
    TensorProto.INT64: 8,
    TensorProto.UINT64: 8,
    TensorProto.DOUBLE: 8,
}
"""Types of tensors that a model may have."""


def check_sizes(name: str, model: onnx.ModelProto) -> None:
    """Check that every tensor has a fixed size, and that all of them fit into `MAX_TENSOR_BYTES`.

    name: of the file, for messages.

    Raises:
        BundleError: naming the tensor and the operator that it comes from.
    """
    graph = _inferred(name, model).graph
    types = {value.name: value.type for value in (*graph.input, *graph.value_info, *graph.output)}
    total = 0
    for tensor in graph.initializer:
        total += _bytes(f"{name}: tensor {tensor.name!r}", tensor.data_type, list(tensor.dims))
    for value in graph.input:
        total += _type_bytes(f"{name}: input {value.name!r}", value.type)
    for node in graph.node:
        for output in filter(None, node.output):
            where = f"{name}: operator {node.op_type!r}: output {output!r}"
            total += _type_bytes(where, types.get(output))
            if total > MAX_TENSOR_BYTES:
                raise BundleError(f"{where}: expected at most {MAX_TENSOR_BYTES} bytes in all, found {total}")
    if total > MAX_TENSOR_BYTES:
        raise BundleError(f"{name}: tensors: expected at most {MAX_TENSOR_BYTES} bytes in all, found {total}")


def _inferred(name: str, model: onnx.ModelProto) -> onnx.ModelProto:
    """Infer all shapes, believing nothing that the model says of them beyond those of its inputs."""
    bare = onnx.ModelProto()
    bare.CopyFrom(model)
    del bare.graph.value_info[:]
    for output in bare.graph.output:
        output.ClearField("type")
    try:
        return shape_inference.infer_shapes(bare, check_type=True, strict_mode=True, data_prop=True)
    except Exception as error:  # beside InferenceError, whatever its C++ raises
        raise BundleError(f"{name}: its shapes are contradictory: {error}") from error


def _type_bytes(where: str, kind: onnx.TypeProto | None) -> int:
    if kind is None or not kind.HasField("tensor_type"):
        raise BundleError(f"{where}: expected a tensor, found something else")
    tensor = kind.tensor_type
    dims = [dim.dim_value if dim.HasField("dim_value") else -1 for dim in tensor.shape.dim]
    if not tensor.HasField("shape") or min(dims, default=0) < 0:
        raise BundleError(f"{where}: expected a fixed shape, found one that depends on data")
    return _bytes(where, tensor.elem_type, dims)


def _bytes(where: str, elem_type: int, dims: list[int]) -> int:
    if elem_type not in ITEM_BYTES:
        known = [type_name(known) for known in ITEM_BYTES]
        raise BundleError(f"{where}: expected one of {known}, found {type_name(elem_type)}")
    if min(dims, default=0) < 0:
        raise BundleError(f"{where}: expected sizes >= 0, found {dims}")
    return math.prod(dims) * ITEM_BYTES[elem_type]


def type_name(elem_type: int) -> str:
    """Return the name of an element type, or its number where it has none."""
    known = onnx.TensorProto.DataType
    return known.Name(elem_type) if elem_type in known.values() else str(elem_type)
