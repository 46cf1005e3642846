"""Which nodes of a network are quantised, and what is read off its graph for it."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from edgeml.runtimes.onnx_file import has_attention
from edgeml_export.int8.targets import RECIPES, Target

if TYPE_CHECKING:
    import onnx

WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})

# What uint8 and int8 do by themselves at the ends of their range, if it was measured after them.
CUTTING = frozenset({"Clip", "Relu"})

# They change where values stand, and not the values.
_MOVING = frozenset({"Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze"})

# Cheap in integers, and between quantised layers a step to float and back would cost more.
_CARRIED = frozenset({"Concat", "MaxPool"})


def quantizable(model: onnx.ModelProto, layout: Target) -> list[str]:
    """Name the nodes that would be quantised, in the order of the graph.

    These are the layers with constant weights, but for the last, and in a CNN what lies between
    them. Left out are products of two activations, but for those of attention where a target gains
    by them, and sums with a constant: OpenVINO 2026.4 dies on a quantised bias. Nodes get names
    that differ, and constants become initializers.
    """
    graph = model.graph
    _prepare(graph)
    constants = {tensor.name for tensor in graph.initializer}
    maker = {output: node for node in graph.node for output in node.output}
    attention, recipe = has_attention(graph), RECIPES[layout]
    products = _products_of_attention(graph, constants) if recipe.attention else ()
    last = _last_weighted(graph)
    chosen: dict[str, None] = {}
    for node in graph.node:
        varying = varying_inputs(node, constants)
        if node.op_type in WEIGHTED:
            layer = is_layer(node, constants) and len(varying) == 1 and node.name != last
            wanted = layer or node.name in products
        elif attention:
            wanted = False
        elif node.op_type == "Add":
            wanted = len(varying) == 2
        elif not recipe.outputs:
            wanted = False  # these runtimes find for themselves what may go on in integers
        else:
            wanted = node.op_type in _CARRIED and all(
                _layer_behind(name, maker) in chosen for name in varying
            )
        if wanted:
            chosen[node.name] = None
    return list(chosen)


def _prepare(graph: onnx.GraphProto) -> None:
    """Give nodes names that differ, and put initializers in place of Constant nodes."""
    taken = {node.name for node in graph.node}
    seen = {""}
    for number, node in enumerate(graph.node):
        if node.name in seen:
            node.name = f"node_{number}"
            while node.name in taken:
                node.name += "_"
            taken.add(node.name)
        seen.add(node.name)
    for node in [node for node in graph.node if node.op_type == "Constant"]:
        if node.attribute[0].name == "value":
            tensor = graph.initializer.add()
            tensor.CopyFrom(node.attribute[0].t)
            tensor.name = node.output[0]
            graph.node.remove(node)


def varying_inputs(node: onnx.NodeProto, constants: Collection[str]) -> list[str]:
    return [name for name in node.input if name and name not in constants]


def is_layer(node: onnx.NodeProto, constants: Collection[str]) -> bool:
    return node.op_type in WEIGHTED and node.input[1] in constants


def _products_of_attention(graph: onnx.GraphProto, constants: Collection[str]) -> set[str]:
    """Name the two products of activations around each softmax.

    They are that of queries and keys, and that of the probabilities and values.
    """
    maker = {output: node for node in graph.node for output in node.output}
    found = set()
    for node in graph.node:
        softmax = maker.get(node.input[0]) if node.op_type == "MatMul" else None
        if softmax is None or softmax.op_type != "Softmax":
            continue
        scores = maker.get(softmax.input[0])
        while scores is not None and scores.op_type in ("Add", "Div", "Mul"):  # a mask, or a scale
            scores = maker.get(scores.input[0])
        both = (one for one in (scores, node) if one is not None and one.op_type == "MatMul")
        found |= {str(one.name) for one in both if len(varying_inputs(one, constants)) == 2}
    return found


def origin_of(
    name: str, maker: Mapping[str, onnx.NodeProto], constants: Mapping[str, onnx.TensorProto]
) -> str:
    """Name the tensor whose values, but for a factor, a tensor holds in other places."""
    while (node := maker.get(name)) is not None and only_moves(node, constants):
        name = node.input[0]
    return name


def only_moves(node: onnx.NodeProto, constants: Mapping[str, onnx.TensorProto]) -> bool:
    """Say whether a node only moves values about, or multiplies them all by one constant."""
    if node.op_type in ("Mul", "Div"):
        factor = constants.get(node.input[1])
        return factor is not None and math.prod(factor.dims) == 1
    return node.op_type in _MOVING


def _layer_behind(name: str, maker: Mapping[str, onnx.NodeProto]) -> str | None:
    """Name the node that makes a tensor, or what a ReLU then cuts to it."""
    node = maker.get(name)
    if node is not None and node.op_type in CUTTING:
        node = maker.get(node.input[0])
    return None if node is None else str(node.name)


def _last_weighted(graph: onnx.GraphProto) -> str | None:
    """Name the layer that gives the logits: the first with weights on the way back from them."""
    maker = {output: node for node in graph.node for output in node.output}
    name: str | None = graph.output[0].name
    while name in maker:
        node = maker[name]
        if node.op_type in WEIGHTED:
            return str(node.name)
        name = next((source for source in node.input if source in maker), None)
    return None
