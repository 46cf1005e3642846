"""What a graph begins and ends with."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from edgeml.spec.model_spec import Precision

End = Literal["softmax", "log_softmax", "sigmoid", "linear", "unknown"]


_DEEPEST = 100


@dataclass(frozen=True, kw_only=True)
class Port:
    """An input or output.

    Attributes:
        name: As a runtime calls it.
        dtype: In numpy's words, or `unknown`.
        shape: None where any size goes, and the whole of it None where the file does not tell.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True, kw_only=True)
class Graph:
    """What a graph says of itself.

    Attributes:
        inputs, outputs: Those that a caller gives and gets.
        ends: For each output what its values are, and the operation that tells so: `linear` are
            sums of products, which are logits.
        metadata: ONNX metadata_props, or OpenVINO's rt_info with the path's words as key.
        precision: What most weights are stored in, `int8` as soon as anything is quantised.
        producer: What wrote the file, if it says so.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    ends: Mapping[str, tuple[End, str]]
    metadata: Mapping[str, str]
    precision: Precision
    producer: str = ""


class _DamagedError(Exception):
    """Says only what is wrong, not in which file."""


@dataclass
class _Node:
    """An operation: its type, the names it takes and gives, and its attribute `axis`."""

    op: str = ""
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    axis: int | None = None


# ONNX's names and OpenVINO's.
_SAME_VALUES = frozenset(
    {"Identity", "Cast", "CastLike", "Flatten", "Reshape", "Squeeze", "Unsqueeze", "Dropout",
     "QuantizeLinear", "DequantizeLinear", "Convert", "ConvertLike", "FakeQuantize"}
)  # fmt: skip


_LINEAR = frozenset(
    {"Gemm", "MatMul", "Conv", "FusedGemm", "FusedMatMul", "MatMulInteger", "ConvInteger",
     "QLinearConv", "QLinearMatMul", "QGemm", "BatchNormalization", "GlobalAveragePool",
     "AveragePool", "ReduceMean", "ReduceSum", "Convolution", "GroupConvolution", "AvgPool",
     "Einsum", "MatMulNBits", "FullyConnected"}
)  # fmt: skip


_SUMS = frozenset({"Add", "Sub", "Sum", "Mean", "Subtract", "Concat"})


_SCALED = frozenset({"Mul", "Div", "Multiply", "Divide"})


_ACTIVATIONS: Mapping[str, End] = {
    "Softmax": "softmax",
    "SoftMax": "softmax",
    "LogSoftmax": "log_softmax",
    "Sigmoid": "sigmoid",
    "HardSigmoid": "sigmoid",
}


def _end(
    name: str, made_by: Callable[[str], _Node | None], constants: set[str], depth: int = 0
) -> tuple[End, str]:
    """Say what an output's values are: look through what does not change them, then at the last."""
    node = made_by(name)
    if node is None or depth > _DEEPEST:
        return "unknown", "nothing" if node is None else node.op
    if node.op in _SAME_VALUES and node.inputs:
        return _end(node.inputs[0], made_by, constants, depth + 1)
    if node.op in _ACTIVATIONS:
        # Over the labels, or over something else: (N, labels) has them last.
        over_labels = "oft" not in node.op or node.axis in (None, 1, -1)
        return (_ACTIVATIONS[node.op] if over_labels else "unknown"), node.op
    if node.op in _LINEAR:
        return "linear", node.op
    varying = [one for one in node.inputs if one and one not in constants]
    if node.op in _SUMS or (node.op in _SCALED and len(varying) == 1):
        # Any number of names on any number of paths would be walked; a classifier has few.
        for one in varying[:4]:
            if _end(one, made_by, constants, depth + 25)[0] != "linear":
                return "unknown", node.op
        return "linear", node.op
    return "unknown", node.op


def _precision(quantised: bool, stored: Counter[str]) -> Precision:
    if quantised:
        return "int8"
    half, single = stored["float16"], stored["float32"]
    return "fp16" if half > single else "fp32"
