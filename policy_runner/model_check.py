"""Look into the models of a bundle: what the contract says, and what the golden pairs say."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Iterator

import numpy as np
import onnx
from numpy.typing import NDArray

from policy_runner.bundle import (
    ACTIONS_OUTPUT,
    GOLDEN,
    GOLDEN_TOLERANCE,
    METADATA_KEY,
    OPSET,
    POLICY,
    Bundle,
    BundleError,
    contract_difference,
    input_shapes,
)
from policy_runner.contract import ContractError, PolicyContract
from policy_runner.inference import open_session

DEFAULT_DOMAINS = ("", "ai.onnx")


def check_models(bundle: Bundle) -> None:
    """Check that every model is self-contained, standard and of this contract; and the fused one's signature.

    Raises:
        BundleError: naming the model and what is wrong with it.
    """
    for name in sorted(bundle.files):
        if name.endswith(".onnx"):
            model = _parse(name, bundle.files[name])
            _check_operators(name, model)
            _check_weights(name, model)
            _check_metadata(name, model, bundle.contract)
            _check_validity(name, model)
            if name == POLICY:
                _check_signature(name, model, bundle.contract)


def check_golden(bundle: Bundle) -> None:
    """Run the fused model on the golden observations and compare with the golden actions.

    Raises:
        BundleError: the pairs are malformed or not finite, the model does not run, or an action differs by
            more than `GOLDEN_TOLERANCE`.
    """
    pairs = _read_golden(bundle)
    try:
        session = open_session(bundle.policy)
        names = list(input_shapes(bundle.contract))
        for index, expected in enumerate(pairs[ACTIONS_OUTPUT]):
            inputs = {name: pairs[name][index : index + 1] for name in names}
            (found,) = session.run([ACTIONS_OUTPUT], inputs)
            error = np.abs(np.asarray(found)[0] - expected).max()
            if not error <= GOLDEN_TOLERANCE:  # so that NaN fails
                raise BundleError(
                    f"{GOLDEN}: pair {index}: {POLICY} differs by {error:.3g}, allowed {GOLDEN_TOLERANCE:g}"
                )
    except BundleError:
        raise
    except Exception as error:  # onnxruntime's errors share no base class
        raise BundleError(f"{POLICY}: onnxruntime cannot run it: {error}") from error


def _read_golden(bundle: Bundle) -> dict[str, NDArray[np.float32]]:
    shapes = input_shapes(bundle.contract) | {ACTIONS_OUTPUT: (bundle.contract.action.size,)}
    try:
        with np.load(io.BytesIO(bundle.files[GOLDEN]), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except (
        ValueError,
        OSError,
        EOFError,
        KeyError,
        MemoryError,
        AttributeError,
        zipfile.BadZipFile,
    ) as error:
        raise BundleError(f"{GOLDEN}: not an archive of plain arrays: {error}") from error
    if sorted(arrays) != sorted(shapes):
        raise BundleError(f"{GOLDEN}: expected arrays {sorted(shapes)}, found {sorted(arrays)}")
    count = arrays[ACTIONS_OUTPUT].shape[0] if arrays[ACTIONS_OUTPUT].ndim else 0
    if count == 0:
        raise BundleError(f"{GOLDEN}: expected at least one pair, found none")
    for name, shape in shapes.items():
        values = arrays[name]
        if values.dtype != np.float32 or values.shape != (count, *shape):
            raise BundleError(
                f"{GOLDEN}: {name}: expected float32 {(count, *shape)}, found {values.dtype} {values.shape}"
            )
        if not np.isfinite(values).all():
            raise BundleError(f"{GOLDEN}: {name}: expected finite values, found NaN or infinity")
    return arrays


def _parse(name: str, data: bytes) -> onnx.ModelProto:
    try:
        return onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's DecodeError; its module moved between versions
        raise BundleError(f"{name}: not an ONNX model: {error}") from error


def _check_operators(name: str, model: onnx.ModelProto) -> None:
    if model.functions:
        raise BundleError(f"{name}: functions: expected none, found {model.functions[0].name!r}")
    for node in _nodes(model.graph):
        if node.domain not in DEFAULT_DOMAINS:
            raise BundleError(
                f"{name}: operator {node.op_type!r}: expected the default domain, found {node.domain!r}"
            )
    versions = [entry.version for entry in model.opset_import if entry.domain in DEFAULT_DOMAINS]
    if versions != [OPSET]:
        raise BundleError(f"{name}: opset: expected {OPSET}, found {versions}")


def _check_weights(name: str, model: onnx.ModelProto) -> None:
    for tensor in _tensors(model.graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise BundleError(
                f"{name}: tensor {tensor.name!r}: expected its data inside the file, found external data"
            )


def _check_metadata(name: str, model: onnx.ModelProto, contract: PolicyContract) -> None:
    texts = [entry.value for entry in model.metadata_props if entry.key == METADATA_KEY]
    if len(texts) != 1:
        raise BundleError(f"{name}: metadata {METADATA_KEY!r}: expected one entry, found {len(texts)}")
    try:
        found = PolicyContract.from_json(texts[0])
    except ContractError as error:
        raise BundleError(f"{name}: metadata {METADATA_KEY!r}: {error}") from error
    if difference := contract_difference(contract, found):
        raise BundleError(f"{name}: metadata {METADATA_KEY!r} and bundle.json: {difference}")


def _check_validity(name: str, model: onnx.ModelProto) -> None:
    try:
        onnx.checker.check_model(model)
    except onnx.checker.ValidationError as error:
        raise BundleError(f"{name}: not a valid model: {error}") from error


def _check_signature(name: str, model: onnx.ModelProto, contract: PolicyContract) -> None:
    weights = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in weights]
    _check_values(name, "inputs", inputs, input_shapes(contract))
    _check_values(name, "outputs", list(model.graph.output), {ACTIONS_OUTPUT: (contract.action.size,)})


def _check_values(
    name: str, what: str, values: list[onnx.ValueInfoProto], shapes: dict[str, tuple[int, ...]]
) -> None:
    if sorted(value.name for value in values) != sorted(shapes):
        raise BundleError(
            f"{name}: {what}: expected {sorted(shapes)}, found {sorted(v.name for v in values)}"
        )
    for value in values:
        tensor = value.type.tensor_type
        if tensor.elem_type != onnx.TensorProto.FLOAT:
            found = onnx.TensorProto.DataType.Name(tensor.elem_type)
            raise BundleError(f"{name}: {what}: {value.name!r}: expected FLOAT, found {found}")
        expected = [1, *shapes[value.name]]
        # a dimension without a number is a name, or nothing: the model is not of fixed shape
        dims = [
            dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in tensor.shape.dim
        ]
        if dims != expected:
            raise BundleError(f"{name}: {what}: {value.name!r}: expected shape {expected}, found {dims}")


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            for inner in (attribute.g, *attribute.graphs):
                yield from _nodes(inner)


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for sparse in graph.sparse_initializer:
        yield from (sparse.values, sparse.indices)
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
            for sparse in (attribute.sparse_tensor, *attribute.sparse_tensors):
                yield from (sparse.values, sparse.indices)
            for inner in (attribute.g, *attribute.graphs):
                yield from _tensors(inner)
