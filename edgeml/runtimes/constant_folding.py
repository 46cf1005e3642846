"""Weights behind operators that only move or convert them, computed once when a file is read."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from edgeml.runtimes.onnx_tidy import names_read

if TYPE_CHECKING:
    import onnx

# Their result is no larger than their inputs together. Q/DQ nodes are left: they are what makes a
# layer INT8.
_FOLDED = frozenset(
    {"Abs", "BatchNormalization", "Cast", "Clip", "Concat", "Exp", "Flatten", "Identity", "Log",
     "Neg", "Reciprocal", "ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin",
     "ReduceSum", "ReduceSumSquare", "Relu", "Reshape", "Sigmoid", "Sign", "Slice", "Softmax",
     "Softplus", "Sqrt", "Squeeze", "Tanh", "Transpose", "Unsqueeze"}
)  # fmt: skip

# Their result has the shape that their inputs are broadcast to.
_ELEMENTWISE = frozenset({"Add", "Div", "Max", "Min", "Mul", "Pow", "Sub"})


def fold_constants(model: onnx.ModelProto) -> None:
    """Put initializers in place of nodes whose inputs are all constants, in `model` itself.

    Layers with such weights are quantised like others. Nodes that make an output stay, and those
    that onnx cannot compute.
    """
    graph, outputs = model.graph, {value.name for value in model.graph.output}
    constants = {tensor.name: tensor for tensor in graph.initializer}
    folded: set[str] = set()
    for node in graph.node:
        if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
            tensor = _tensor_of(model, node)
        elif outputs.isdisjoint(node.output) and _is_folded(node) and node.input:
            inputs = [constants.get(name) for name in node.input]
            tensor = None if None in inputs else _computed(model, node, inputs)
            if tensor is not None:
                folded.add(node.output[0])
                graph.initializer.append(tensor)
                tensor = graph.initializer[-1]
        else:
            continue
        if tensor is not None:
            constants[node.output[0]] = tensor
    if folded:
        for index, node in reversed(list(enumerate(graph.node))):
            if not folded.isdisjoint(node.output):
                del graph.node[index]
        drop_unread(graph)


def _is_folded(node: onnx.NodeProto) -> bool:
    known = node.op_type in _FOLDED or node.op_type in _ELEMENTWISE
    return known and node.domain in ("", "ai.onnx") and len(node.output) == 1


def _tensor_of(model: onnx.ModelProto, node: onnx.NodeProto) -> onnx.TensorProto | None:
    """Return the value of a Constant node, which itself stays."""
    if [attribute.name for attribute in node.attribute] == ["value"]:
        tensor: onnx.TensorProto = node.attribute[0].t
        return tensor
    return _computed(model, node, [])


def _computed(
    model: onnx.ModelProto, node: onnx.NodeProto, inputs: list[Any]
) -> onnx.TensorProto | None:
    """Compute a node; return None if onnx cannot, or the result would be larger than its inputs."""
    import numpy as np
    from onnx import ValueInfoProto, helper, numpy_helper
    from onnx.reference import ReferenceEvaluator

    try:
        values = [numpy_helper.to_array(tensor) for tensor in inputs]
        if node.op_type in _ELEMENTWISE:
            shape = np.broadcast_shapes(*(value.shape for value in values))
            if math.prod(shape) > sum(value.size for value in values):
                return None
        names = list(dict.fromkeys(node.input))
        graph = helper.make_graph(
            [node],
            "constant",
            [ValueInfoProto(name=name) for name in names],
            [ValueInfoProto(name=node.output[0])],
        )
        one = helper.make_model(graph, opset_imports=model.opset_import)
        feed = dict(zip(node.input, values, strict=True))
        (result,) = ReferenceEvaluator(one).run(None, feed)
        return numpy_helper.from_array(np.asarray(result), node.output[0])
    except Exception:  # of any of onnx's operators, on any values: the node stays
        return None


def drop_unread(graph: onnx.GraphProto) -> None:
    """Remove nodes, constants and inputs that no output depends on."""
    read = {value.name for value in graph.output}
    for index, node in reversed(list(enumerate(graph.node))):
        if read.isdisjoint(node.output):
            del graph.node[index]
        else:
            read |= names_read(node)
    for values in (graph.initializer, graph.input):
        for index, value in reversed(list(enumerate(values))):
            if value.name not in read:
                del values[index]
