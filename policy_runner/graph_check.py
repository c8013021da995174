"""What the graph of a model may be made of: plain tensors and operators that do the same thing every time.

A policy is a feed-forward network. Loops and branches, functions, random numbers, operators of other domains
and weights outside the file are not needed for one, and each is a way to take more than was measured, or to
do other than was checked.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx

from policy_runner.bundle import BundleError

DEFAULT_DOMAINS = ("", "ai.onnx")

RANDOM_OPERATORS = frozenset(
    {
        "Bernoulli",
        "Dropout",
        "Multinomial",
        "RandomNormal",
        "RandomNormalLike",
        "RandomUniform",
        "RandomUniformLike",
    }
)

MAX_NODES = 10_000

_GRAPHS = (onnx.AttributeProto.GRAPH, onnx.AttributeProto.GRAPHS)
_SPARSE = (onnx.AttributeProto.SPARSE_TENSOR, onnx.AttributeProto.SPARSE_TENSORS)


def check_graph(name: str, model: onnx.ModelProto) -> None:
    """Check every node and every tensor of a model.

    name: of the file, for messages.

    Raises:
        BundleError: naming the operator or the tensor.
    """
    if model.functions:
        raise BundleError(f"{name}: functions: expected none, found {model.functions[0].name!r}")
    if model.training_info:
        raise BundleError(f"{name}: training_info: expected none, found {len(model.training_info)}")
    graph = model.graph
    if len(graph.node) > MAX_NODES:
        raise BundleError(f"{name}: expected at most {MAX_NODES} nodes, found {len(graph.node)}")
    for node in graph.node:
        _check_node(name, node)
    if graph.sparse_initializer:
        found = graph.sparse_initializer[0].values.name
        raise BundleError(f"{name}: tensor {found!r}: expected a dense one, found a sparse one")
    for tensor in _tensors(graph):
        if tensor.data_location == onnx.TensorProto.EXTERNAL or tensor.external_data:
            raise BundleError(
                f"{name}: tensor {tensor.name!r}: expected its data inside the file, found external data"
            )


def _check_node(name: str, node: onnx.NodeProto) -> None:
    where = f"{name}: operator {node.op_type!r}"
    if node.domain not in DEFAULT_DOMAINS:
        raise BundleError(f"{where}: expected the default domain, found {node.domain!r}")
    if node.op_type in RANDOM_OPERATORS:
        raise BundleError(f"{where}: expected one that gives the same every time, found a random one")
    for attribute in node.attribute:
        if attribute.type in _GRAPHS or attribute.HasField("g") or attribute.graphs:
            raise BundleError(f"{where}: expected no control flow, found a graph in {attribute.name!r}")
        if attribute.type in _SPARSE or attribute.HasField("sparse_tensor") or attribute.sparse_tensors:
            raise BundleError(f"{where}: expected dense tensors, found a sparse one in {attribute.name!r}")
        if attribute.ref_attr_name:
            raise BundleError(f"{where}: expected a value for {attribute.name!r}, found a reference")


def _tensors(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    for node in graph.node:
        for attribute in node.attribute:
            yield from (attribute.t, *attribute.tensors)
