"""Bundles with something wrong in them: bits, numbers, names, operators, arrays; the hashes made to fit.

Every mutation is a function of a good bundle's files and of a random generator alone, so that a finding can be had
again from its number.
"""

import hashlib
import io
import json
import math
import random
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import numpy as np
import onnx
from onnx import defs, helper, numpy_helper

from policy_runner.bundle import ACTOR, ENCODER, GOLDEN, MANIFEST, METADATA_KEY, OPSET, POLICY

Files = dict[str, bytes]

STALE_HASHES = 0.02
"""Share of the bundles whose hashes are left as they were."""
ODD_VALUES: tuple[Any, ...] = (
    None,
    True,
    False,
    0,
    -1,
    1,
    2**31,
    -(2**63),
    2**64,
    10**400,
    0.0,
    -0.0,
    1e-320,
    1e308,
    -1e308,
    math.nan,
    math.inf,
    "",
    "\x00",
    "\x1b[2J",
    "é" * 300,
    "../../etc/passwd",
    "obs",
    [],
    {},
    [[]],
    [0, 0],
    [1e9] * 3,
    {"a": {"b": []}},
    [[[[[[[[[[[[]]]]]]]]]]]],
)
ODD_SIZES = (-1, 0, 1, 2, 3, 7, 255, 1 << 16, 1 << 31, 1 << 40, (1 << 63) - 1, -(1 << 63))
ATTRIBUTE_TYPES: tuple[Any, ...] = tuple(onnx.AttributeProto.AttributeType.values())
OPERATORS = sorted(schema.name for schema in defs.get_all_schemas() if schema.domain == "")


def mutated(files: Files, number: int, seed: int = 0) -> tuple[str, Files]:
    """Return the kind of mutation number `number`, and the bundle that it makes of a good one."""
    chance = random.Random(f"{seed} {number}")
    kind = chance.choice(list(MUTATIONS))
    changed = dict(files)
    for _ in range(chance.choice((1, 1, 1, 2, 3))):
        with suppress(Exception):  # an earlier mutation has left nothing that this one could change
            MUTATIONS[kind](changed, chance)
    if chance.random() >= STALE_HASHES:
        _sign(changed)
    return kind, changed


def _sign(files: Files) -> None:
    """Put the hashes of the files as they are into the manifest, where it can still be read."""
    with suppress(Exception):  # it stays as it is
        manifest = json.loads(files[MANIFEST])
        hashes = {name: hashlib.sha256(data).hexdigest() for name, data in files.items() if name != MANIFEST}
        manifest["files"] = {name: hashes.get(name, digest) for name, digest in manifest["files"].items()}
        files[MANIFEST] = json.dumps(manifest).encode()


# ---- bytes ---------------------------------------------------------------------------------------------------


def _bits(files: Files, chance: random.Random) -> None:
    name = chance.choice(list(files))
    data = bytearray(files[name])
    for _ in range(chance.choice((1, 1, 2, 8))):
        if data:
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    files[name] = bytes(data)


def _spans(files: Files, chance: random.Random) -> None:
    """Cut, repeat, zero or invent a stretch of bytes, or take one from another file."""
    name = chance.choice(list(files))
    data = files[name]
    begin = chance.randrange(len(data) + 1)
    end = min(len(data), begin + chance.choice((1, 2, 4, 16, 256, len(data))))
    span = data[begin:end]
    other = files[chance.choice(list(files))]
    new = chance.choice(
        (
            b"",
            span * 2,
            bytes(len(span)),
            chance.randbytes(chance.choice((1, 8, 64))),
            b"\xff" * 10,
            other[begin:end],
        )
    )
    files[name] = data[:begin] + new + data[end:]


def _swap(files: Files, chance: random.Random) -> None:
    """Put one file in place of another, or nothing."""
    name, other = chance.choice(list(files)), chance.choice([*files, ""])
    files[name] = files.get(other, b"")


# ---- contract ------------------------------------------------------------------------------------------------


def _contract(files: Files, chance: random.Random) -> None:
    """Change a value of the contract; in the models too, most of the time, so that the copies agree."""
    manifest = json.loads(files[MANIFEST])
    _change_json(manifest["contract"], chance)
    files[MANIFEST] = json.dumps(manifest).encode()
    if chance.random() < 0.8:
        text = json.dumps(manifest["contract"])
        for name in (POLICY, ACTOR, ENCODER):
            if name in files:
                model = onnx.load_model_from_string(files[name])
                del model.metadata_props[:]
                helper.set_model_props(model, {METADATA_KEY: text})
                files[name] = model.SerializeToString()


def _manifest_shape(files: Files, chance: random.Random) -> None:
    manifest = json.loads(files[MANIFEST])
    _change_json(manifest, chance)
    files[MANIFEST] = json.dumps(manifest).encode()


def _change_json(value: Any, chance: random.Random) -> None:
    """Change something, anywhere inside a list or an object."""
    places: list[tuple[Any, Any]] = []

    def walk(inner: Any) -> None:
        items = inner.items() if isinstance(inner, dict) else enumerate(inner)
        for key, below in items:
            places.append((inner, key))
            if isinstance(below, dict | list):
                walk(below)

    walk(value)
    parent, key = chance.choice(places)
    what = chance.choice(("replace", "replace", "replace", "scale", "delete", "add"))
    if what == "delete":
        del parent[key]
    elif what == "add":
        if isinstance(parent, dict):
            parent[chance.choice(("extra", "", "name", "kind", "shape"))] = chance.choice(ODD_VALUES)
        else:
            parent.append(chance.choice(ODD_VALUES))
    elif what == "scale" and isinstance(parent[key], float):
        parent[key] = parent[key] * chance.choice((-1, 2, 0.5, 1e12))
    else:
        parent[key] = chance.choice(ODD_VALUES)


# ---- models --------------------------------------------------------------------------------------------------


def _graph(files: Files, chance: random.Random) -> None:
    """Change something in the graph of a model, which is a model still."""
    name = chance.choice([name for name in (POLICY, POLICY, POLICY, ACTOR, ENCODER) if name in files])
    model = onnx.load_model_from_string(files[name])
    chance.choice(GRAPH_CHANGES)(model, chance)
    files[name] = model.SerializeToString()


def _value_names(model: onnx.ModelProto) -> list[str]:
    graph = model.graph
    names = [value.name for value in (*graph.input, *graph.initializer)]
    return [*names, *(output for node in graph.node for output in node.output), "nothing", ""]


def _other_operator(model: onnx.ModelProto, chance: random.Random) -> None:
    chance.choice(model.graph.node).op_type = chance.choice(OPERATORS)


def _other_input(model: onnx.ModelProto, chance: random.Random) -> None:
    node = chance.choice(model.graph.node)
    if node.input:
        node.input[chance.randrange(len(node.input))] = chance.choice(_value_names(model))


def _new_node(model: onnx.ModelProto, chance: random.Random) -> None:
    """Any operator there is, with as many inputs as it takes, whatever they are."""
    schema = defs.get_schema(chance.choice(OPERATORS), max_inclusive_version=99)
    count = chance.randint(schema.min_input, max(schema.min_input, min(schema.max_input, 5)))
    inputs = [chance.choice(_value_names(model)) for _ in range(count)]
    outputs = [f"new_{chance.randrange(1000)}" for _ in range(max(schema.min_output, 1))]
    node = helper.make_node(schema.name, inputs, outputs)
    for attribute in schema.attributes:
        if chance.random() < 0.5:
            _set_attribute(node, attribute, chance)
    model.graph.node.insert(chance.randrange(len(model.graph.node) + 1), node)


def _set_attribute(node: onnx.NodeProto, name: str, chance: random.Random) -> None:
    value = chance.choice(
        (0, 1, -1, 1 << 40, 0.0, 1e30, math.nan, "x", "", [0], [1, 1], [-1, 1 << 40], [0.5], ["SAME_UPPER"])
    )
    node.attribute.append(helper.make_attribute(name, value))


def _other_attribute(model: onnx.ModelProto, chance: random.Random) -> None:
    node = chance.choice(model.graph.node)
    if node.attribute and chance.random() < 0.7:
        attribute = chance.choice(node.attribute)
        attribute.i = chance.choice(ODD_SIZES)
        attribute.type = chance.choice(ATTRIBUTE_TYPES)
    else:
        _set_attribute(node, chance.choice(("axis", "to", "perm", "keepdims", "strides", "value")), chance)


def _other_weights(model: onnx.ModelProto, chance: random.Random) -> None:
    if not model.graph.initializer:
        return
    tensor = chance.choice(model.graph.initializer)
    what = chance.randrange(6)
    if what == 0 and tensor.dims:
        tensor.dims[chance.randrange(len(tensor.dims))] = chance.choice(ODD_SIZES)
    elif what == 1:
        tensor.data_type = chance.choice(onnx.TensorProto.DataType.values())
    elif what == 2:
        tensor.raw_data = tensor.raw_data[: chance.randrange(len(tensor.raw_data) + 1)]
    elif what == 3:
        tensor.data_location = onnx.TensorProto.EXTERNAL
        tensor.external_data.add(
            key="location", value=chance.choice(("/etc/passwd", "../x", "bundle.json", ""))
        )
    elif what == 4:
        tensor.name = chance.choice(_value_names(model))
    elif len(tensor.raw_data) >= 4:
        position = chance.randrange(len(tensor.raw_data) // 4) * 4
        odd = np.float32(chance.choice((0.0, math.nan, math.inf, 1e38))).tobytes()
        tensor.raw_data = tensor.raw_data[:position] + odd + tensor.raw_data[position + 4 :]


def _other_shape(model: onnx.ModelProto, chance: random.Random) -> None:
    value = chance.choice((*model.graph.input, *model.graph.output))
    tensor = value.type.tensor_type
    what = chance.randrange(5)
    if what == 0 and tensor.shape.dim:
        chance.choice(tensor.shape.dim).dim_value = chance.choice(ODD_SIZES)
    elif what == 1 and tensor.shape.dim:
        chance.choice(tensor.shape.dim).dim_param = chance.choice(("batch", ""))
    elif what == 2:
        tensor.elem_type = chance.choice(onnx.TensorProto.DataType.values())
    elif what == 3:
        tensor.shape.dim.add().dim_value = chance.choice(ODD_SIZES)
    else:
        value.name = chance.choice(_value_names(model))


def _other_order(model: onnx.ModelProto, chance: random.Random) -> None:
    nodes = model.graph.node
    position = chance.randrange(len(nodes))
    if chance.random() < 0.5:
        del nodes[position]
    else:
        nodes.append(nodes[position])


def _other_header(model: onnx.ModelProto, chance: random.Random) -> None:
    what = chance.randrange(4)
    if what == 0:
        model.ir_version = chance.choice((0, 3, 8, 9, 10, 11, 99, 1 << 40))
    elif what == 1:
        model.opset_import[0].version = chance.choice((-1, 0, 1, 7, OPSET - 1, OPSET + 1, 99, 1 << 40))
    elif what == 2:
        model.opset_import.add(
            domain=chance.choice(("", "ai.onnx", "ai.onnx.ml", "com.microsoft")), version=1
        )
    else:
        model.metadata_props.add(key=chance.choice((METADATA_KEY, "ort_config", "")), value="{}")


def _bomb(model: onnx.ModelProto, chance: random.Random) -> None:
    """Something small that becomes large: the operators that are made for it, with all kinds of sizes."""
    sizes = [chance.choice((0, 1, 3, 1 << 10, 1 << 20, 1 << 40, -1)) for _ in range(chance.randint(1, 4))]
    name = f"sizes_{chance.randrange(1000)}"
    model.graph.initializer.append(numpy_helper.from_array(np.array(sizes, np.int64), name))
    operator = chance.choice(("Expand", "Tile", "ConstantOfShape", "Reshape", "Pad"))
    inputs = [name] if operator == "ConstantOfShape" else [chance.choice(_value_names(model)), name]
    model.graph.node.insert(0, helper.make_node(operator, inputs, [f"big_{chance.randrange(1000)}"]))


GRAPH_CHANGES = (
    _other_operator,
    _other_input,
    _new_node,
    _other_attribute,
    _other_weights,
    _other_shape,
    _other_order,
    _other_header,
    _bomb,
)


# ---- golden pairs --------------------------------------------------------------------------------------------


def _golden(files: Files, chance: random.Random) -> None:
    with np.load(io.BytesIO(files[GOLDEN]), allow_pickle=False) as archive:
        arrays: dict[str, Any] = {name: archive[name] for name in archive.files}
    name = chance.choice(list(arrays))
    values = np.atleast_1d(arrays[name])
    odd = values.copy()
    if odd.size:
        odd.flat[chance.randrange(odd.size)] = chance.choice((0.0, math.nan, math.inf, 1e38))
    arrays[name] = chance.choice(
        (
            odd,
            values[:0],
            values[:-1],
            values.astype(chance.choice(("f2", "f8", "i8", "c8", "U4", "V8"))),
            np.zeros((2, 3, 4), np.float32),
            np.float32(1.0),
            np.array([{"a": 1}], object),
            np.zeros(values.shape, [("x", "f4")]),
        )
    )
    if chance.random() < 0.2:
        arrays[chance.choice(("extra", "obs ", "../obs"))] = arrays.pop(name)
    buffer = io.BytesIO()
    (np.savez_compressed if chance.random() < 0.3 else np.savez)(buffer, **arrays)
    files[GOLDEN] = buffer.getvalue()


def _golden_header(files: Files, chance: random.Random) -> None:
    """Bits inside the headers of arrays and of the archive, which random flips rarely meet."""
    data = bytearray(files[GOLDEN])
    marks = [position for mark in (b"PK", b"NUMPY") for position in _positions(bytes(data), mark)]
    if marks:
        begin = chance.choice(marks)
        for _ in range(chance.randint(1, 3)):
            data[min(begin + chance.randrange(100), len(data) - 1)] ^= 1 << chance.randrange(8)
    files[GOLDEN] = bytes(data)


def _positions(data: bytes, mark: bytes) -> list[int]:
    found, position = [], data.find(mark)
    while position >= 0:
        found.append(position)
        position = data.find(mark, position + 1)
    return found


MUTATIONS: dict[str, Callable[[Files, random.Random], None]] = {
    "bits": _bits,
    "spans of bytes": _spans,
    "files exchanged": _swap,
    "contract": _contract,
    "manifest": _manifest_shape,
    "graph": _graph,
    "golden pairs": _golden,
    "headers of golden pairs": _golden_header,
}
"""What is done to a bundle, by name."""
