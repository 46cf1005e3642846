"""Which nodes of a network are quantised."""

from __future__ import annotations

from typing import TYPE_CHECKING

from edgeml.runtimes.onnx_graph import LAYERS, Graph, has_attention
from edgeml_export.int8.targets import RECIPES, Target
from edgeml_export.onnx_editor import constants_to_initializers, name_nodes

if TYPE_CHECKING:
    import onnx

# The ends of an uint8 or int8 range clamp as they do, if the range was measured behind them.
CLAMP_OPS = frozenset({"Clip", "Relu"})

# Cheap in integers; between quantised layers a step to float and back would cost more.
_CARRIED = frozenset({"Concat", "MaxPool"})


def quantizable(model: onnx.ModelProto, layout: Target) -> list[str]:
    """Name the nodes to quantise, in the order of the graph.

    These are the layers with constant weights except the last of each head, and in a CNN the nodes
    between them. Products of two activations are left out, except those of attention where a
    target gains by them, and so are sums with a constant: OpenVINO 2026.4 crashes on a quantised
    bias. Nodes get distinct names, and Constant nodes become initializers.
    """
    name_nodes(model.graph)
    constants_to_initializers(model.graph)
    graph, attention, recipe = Graph.of(model), has_attention(model), RECIPES[layout]
    products = _products_of_attention(model, graph) if recipe.attention else ()
    heads = _nodes_of_heads(model, graph)
    chosen: dict[str, None] = {}
    for node in model.graph.node:
        computed = graph.computed_inputs(node)
        if node.op_type in LAYERS:
            layer = graph.is_layer(node) and len(computed) == 1 and node.name not in heads
            wanted = layer or node.name in products
        elif attention or node.name in heads:
            wanted = False
        elif node.op_type == "Add":
            wanted = len(computed) == 2
        elif not recipe.outputs:
            wanted = False  # these runtimes decide by themselves what else runs in integers
        else:
            wanted = node.op_type in _CARRIED and all(
                _maker_before_clamp(name, graph) in chosen for name in computed
            )
        if wanted:
            chosen[node.name] = None
    return list(chosen)


def _products_of_attention(model: onnx.ModelProto, graph: Graph) -> set[str]:
    """Name the two products of activations around each softmax.

    One multiplies queries and keys, the other the probabilities and values.
    """
    names = set()
    for node in model.graph.node:
        softmax = graph.maker.get(node.input[0]) if node.op_type == "MatMul" else None
        if softmax is None or softmax.op_type != "Softmax":
            continue
        scores = graph.maker.get(softmax.input[0])
        while scores is not None and scores.op_type in ("Add", "Div", "Mul"):  # a mask, or a scale
            scores = graph.maker.get(scores.input[0])
        both = (each for each in (scores, node) if each is not None and each.op_type == "MatMul")
        names |= {str(each.name) for each in both if len(graph.computed_inputs(each)) == 2}
    return names


def _maker_before_clamp(name: str, graph: Graph) -> str | None:
    """Name the node that makes a tensor, or that makes what a ReLU then clamps."""
    node = graph.maker.get(name)
    if node is not None and node.op_type in CLAMP_OPS:
        node = graph.maker.get(node.input[0])
    return None if node is None else str(node.name)


def _nodes_of_heads(model: onnx.ModelProto, graph: Graph) -> set[str]:
    """Name the nodes that make the logits: the last layer of each head, and what follows them."""
    tensors, names = [model.graph.output[0].name], set()
    while tensors:
        node = graph.maker.get(tensors.pop())
        if node is not None and node.name not in names:
            names.add(str(node.name))
            if node.op_type not in LAYERS:
                tensors += node.input
    return names
