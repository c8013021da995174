"""Look into the models of a bundle: are they of this format, of this contract, and of bounded size."""

from __future__ import annotations

import onnx

from policy_runner.bundle import (
    ACTIONS_OUTPUT,
    METADATA_KEY,
    OPSET,
    POLICY,
    Bundle,
    BundleError,
    contract_difference,
    input_shapes,
)
from policy_runner.contract import ContractError, PolicyContract
from policy_runner.graph_check import DEFAULT_DOMAINS, check_graph
from policy_runner.tensor_sizes import check_sizes, type_name

IR_VERSIONS = (8, 9, 10)
"""From the one that came with opset 18 to the one that exporters write."""


def check_models(bundle: Bundle) -> None:
    """Check that every model is self-contained, standard, bounded and of this contract; and the fused one's signature.

    Raises:
        BundleError: naming the model and what is wrong with it.
    """
    for name in sorted(bundle.files):
        if name.endswith(".onnx"):
            model = _parse(name, bundle.files[name])
            check_graph(name, model)
            _check_versions(name, model)
            _check_metadata(name, model, bundle.contract)
            _check_validity(name, model)
            if name == POLICY:
                _check_signature(name, model, bundle.contract)
            check_sizes(name, model)


def _parse(name: str, data: bytes) -> onnx.ModelProto:
    try:
        model = onnx.load_model_from_string(data)
    except Exception as error:  # protobuf's DecodeError; its module moved between versions
        raise BundleError(f"{name}: not an ONNX model: {error}") from error
    size = model.ByteSize()
    model.DiscardUnknownFields()
    if model.ByteSize() != size:  # onnxruntime may know them, and act on them
        raise BundleError(f"{name}: expected only fields that onnx {onnx.__version__} knows, found others")
    return model


def _check_versions(name: str, model: onnx.ModelProto) -> None:
    if model.ir_version not in IR_VERSIONS:
        raise BundleError(
            f"{name}: IR version: expected one of {list(IR_VERSIONS)}, found {model.ir_version}"
        )
    for entry in model.opset_import:
        if entry.domain not in DEFAULT_DOMAINS:
            raise BundleError(f"{name}: opset: expected the default domain alone, found {entry.domain!r}")
    versions = [entry.version for entry in model.opset_import]
    if versions != [OPSET]:
        raise BundleError(f"{name}: opset: expected {OPSET}, found {versions}")


def _check_metadata(name: str, model: onnx.ModelProto, contract: PolicyContract) -> None:
    texts = [entry.value for entry in model.metadata_props if entry.key == METADATA_KEY]
    if len(texts) != 1:
        raise BundleError(f"{name}: metadata {METADATA_KEY!r}: expected one entry, found {len(texts)}")
    others = [entry.key for entry in model.metadata_props if entry.key != METADATA_KEY]
    if others:  # onnxruntime reads some of its own
        raise BundleError(f"{name}: metadata: expected {METADATA_KEY!r} alone, found {others[0]!r} too")
    try:
        found = PolicyContract.from_json(texts[0])
    except ContractError as error:
        raise BundleError(f"{name}: metadata {METADATA_KEY!r}: {error}") from error
    if difference := contract_difference(contract, found):
        raise BundleError(f"{name}: metadata {METADATA_KEY!r} and bundle.json: {difference}")


def _check_validity(name: str, model: onnx.ModelProto) -> None:
    try:
        onnx.checker.check_model(model)
    except Exception as error:  # beside ValidationError, whatever its C++ raises
        raise BundleError(f"{name}: not a valid model: {error}") from error


def _check_signature(name: str, model: onnx.ModelProto, contract: PolicyContract) -> None:
    inputs, outputs = list(model.graph.input), list(model.graph.output)
    _check_values(name, "inputs", inputs, input_shapes(contract))
    _check_values(name, "outputs", outputs, {ACTIONS_OUTPUT: (contract.action.size,)})


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
            raise BundleError(
                f"{name}: {what}: {value.name!r}: expected FLOAT, found {type_name(tensor.elem_type)}"
            )
        expected = [1, *shapes[value.name]]
        # a dimension without a number is a name, or nothing: the model is not of fixed shape
        dims = [
            dim.dim_value if dim.HasField("dim_value") else dim.dim_param or "?" for dim in tensor.shape.dim
        ]
        if dims != expected:
            raise BundleError(f"{name}: {what}: {value.name!r}: expected shape {expected}, found {dims}")
