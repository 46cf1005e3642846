"""What the first and last operations of a graph do: whether it normalises, and what it returns."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping

from edgeml.spec.foreign.graph import End, Node

_MAX_DEPTH = 100

# ONNX's names and OpenVINO's.
_SAME_VALUES = frozenset(
    {"Identity", "Cast", "CastLike", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Dropout",
     "QuantizeLinear", "DequantizeLinear", "Convert", "ConvertLike", "FakeQuantize"}
)  # fmt: skip

_LINEAR = frozenset(
    {"Gemm", "MatMul", "Conv", "FusedGemm", "FusedMatMul", "MatMulInteger", "ConvInteger",
     "QLinearConv", "QLinearMatMul", "QGemm", "Convolution", "GroupConvolution", "Einsum",
     "MatMulNBits", "FullyConnected"}
)  # fmt: skip

_MEANS = frozenset(
    {"GlobalAveragePool", "AveragePool", "ReduceMean", "ReduceSum", "AvgPool",
     "QLinearGlobalAveragePool", "QLinearAveragePool", "BatchNormalization"}
)  # fmt: skip
"""Logits of logits; but the mean of probabilities over an image's places are probabilities."""

_SUMS = frozenset({"Add", "Sub", "Sum", "Mean", "Subtract", "Concat", "QLinearAdd"})
_PRODUCTS = frozenset({"Mul", "Multiply"})
_QUOTIENTS = frozenset({"Div", "Divide"})
_LIMITS = frozenset({"Clip", "Clamp", "Min", "Max", "Minimum", "Maximum"})
_RECTIFIERS = frozenset(
    {"Relu", "LeakyRelu", "PRelu", "Elu", "Selu", "Gelu", "Softplus", "Swish", "HardSwish", "Mish"}
)
"""Without an upper limit, so logits behind them are no probabilities, however small they are."""
_ARITHMETIC = frozenset({"Add", "Sub", "Subtract"}) | _PRODUCTS | _QUOTIENTS

_ACTIVATIONS: Mapping[str, End] = {
    "Softmax": "softmax",
    "SoftMax": "softmax",
    "QLinearSoftmax": "softmax",
    "LogSoftmax": "log_softmax",
    "Sigmoid": "sigmoid",
    "QLinearSigmoid": "sigmoid",
    "HardSigmoid": "sigmoid",
}

_Producer = Callable[[str], Node | None]


def end_of(
    name: str, producer_of: _Producer, constants: Collection[str], depth: int = 0
) -> tuple[End, str]:
    """Return what an output's values are, by the last operation that changes them, and its type."""
    node = producer_of(name)
    if node is None or depth > _MAX_DEPTH:
        return "unknown", "nothing" if node is None else node.op
    if node.op in _SAME_VALUES and node.inputs:
        return end_of(node.inputs[0], producer_of, constants, depth + 1)
    if node.op in _ACTIVATIONS:
        # Over the labels, or over another axis: (N, labels) has them last.
        over_labels = "oft" not in node.op or node.axis in (None, 1, -1)
        return (_ACTIVATIONS[node.op] if over_labels else "unknown"), node.op
    if form := _written_out(node, producer_of, constants):
        return form, f"{node.op} (a {form} in steps)"
    varying = [one for one in node.inputs if one and one not in constants]
    before = [end_of(one, producer_of, constants, depth + 25) for one in varying[:1]]
    if node.op in _LINEAR:
        # A product of probabilities, such as sums over classes, may be probabilities again.
        linear = not before or before[0][0] in ("linear", "unknown")
        return ("linear" if linear else "unknown"), node.op
    if before and node.op in _LIMITS and len(varying) == 1:
        return before[0] if before[0][0] in ("softmax", "sigmoid") else ("unknown", node.op)
    if before and node.op in _RECTIFIERS and before[0][0] == "linear":
        return "linear", node.op
    if before and node.op == "Exp" and before[0][0] == "log_softmax":
        return "softmax", before[0][1]
    scaled = node.op in _PRODUCTS or (node.op in _QUOTIENTS and varying == node.inputs[:1])
    if node.op in _SUMS | _MEANS or (scaled and len(varying) == 1):
        # A hostile graph could make this walk any number of paths; a classifier has few.
        for one in varying[:4]:
            if end_of(one, producer_of, constants, depth + 25)[0] != "linear":
                return "unknown", node.op
        return ("linear" if varying else "unknown"), node.op
    return "unknown", node.op


def _written_out(node: Node, producer_of: _Producer, constants: Collection[str]) -> End | None:
    """Recognise exp(x) / sum(exp(x)) and 1 / (1 + exp(-x))."""

    def source(name: str) -> tuple[str, Node]:
        """Return the last operation that changes a value, and the name of its result."""
        for _ in range(_MAX_DEPTH):
            node = producer_of(name)
            if node is None or node.op not in _SAME_VALUES or not node.inputs:
                break
            name = node.inputs[0]
        return name, producer_of(name) or Node()

    if node.op in _QUOTIENTS and len(node.inputs) == 2:
        (above, numerator), (_, below) = map(source, node.inputs)
        one_above = node.inputs[0] in constants or above in constants
    elif node.op in _PRODUCTS and len(node.inputs) == 2:
        (above, numerator), (_, below) = map(source, node.inputs)
        one_above = False
        if numerator.op == "Reciprocal":
            (above, numerator), below = source(node.inputs[1]), numerator
        if below.op != "Reciprocal" or not below.inputs:
            return None
        _, below = source(below.inputs[0])
    elif node.op == "Reciprocal" and node.inputs:
        (above, numerator), (_, below), one_above = ("", Node()), source(node.inputs[0]), True
    else:
        return None
    if numerator.op == "Exp" and below.op == "ReduceSum" and below.inputs:
        return "softmax" if source(below.inputs[0])[0] == above else None
    if one_above and below.op == "Add" and any(source(one)[1].op == "Exp" for one in below.inputs):
        return "sigmoid" if any(one in constants for one in below.inputs) else None
    return None


def normalising(inputs: Iterable[str], nodes: Iterable[Node], constants: Collection[str]) -> str:
    """Return the operation with a constant that comes first after an input; empty for none.

    A network that begins so takes pixels, and normalises them itself. `nodes` are in any order.
    """
    readers: dict[str, list[Node]] = {}
    for node in nodes:
        for name in node.inputs[:2]:
            readers.setdefault(name, []).append(node)
    for name in inputs:
        for _ in range(_MAX_DEPTH):
            following = readers.get(name, [])
            if len(following) != 1 or not following[0].outputs:
                break
            node = following[0]
            if node.op in _ARITHMETIC and any(one in constants for one in node.inputs):
                return node.op
            if node.op not in _SAME_VALUES | {"Transpose"}:
                break
            name = node.outputs[0]
    return ""
