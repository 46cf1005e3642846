"""What a model's graph states: inputs, outputs, and whether it ends in logits or probabilities."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

from edgeml.spec.model_spec import Precision

End = Literal["softmax", "log_softmax", "sigmoid", "linear", "unknown"]
_MAX_DEPTH = 100


@dataclass(frozen=True, kw_only=True)
class Port:
    """An input or output, as a runtime names it; `dtype` is numpy's name, or `unknown`.

    A side of the shape is None if any size is right, the shape if the file does not state it.
    """

    name: str
    dtype: str
    shape: tuple[int | None, ...] | None


@dataclass(frozen=True, kw_only=True)
class Graph:
    """What a graph states.

    Attributes:
        inputs, outputs: Those of the network, without constants.
        ends: For each output what its values are, and the operation that decides it: `linear` are
            sums of products, which are logits.
        metadata: ONNX metadata_props, or OpenVINO's rt_info by path, joined with spaces.
        precision: What most weights are stored in, `int8` as soon as anything is quantized.
        producer: The tool that wrote the file, if the file states it.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    ends: Mapping[str, tuple[End, str]]
    metadata: Mapping[str, str]
    precision: Precision
    producer: str = ""

    @property
    def image_size(self) -> tuple[int, int] | None:
        """(height, width) of an NCHW input if both are fixed, else None."""
        match self.inputs:
            case [Port(shape=(_, _, int(height), int(width))), *_]:
                return height, width
        return None


class DamagedError(Exception):
    """The bytes are not a model. The message states the fault, but not the file."""


@dataclass
class Node:
    """An operation: its type, the names it reads and writes, and its attribute `axis`."""

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


def end_of(
    name: str, producer_of: Callable[[str], Node | None], constants: set[str], depth: int = 0
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
    if node.op in _LINEAR:
        return "linear", node.op
    varying = [one for one in node.inputs if one and one not in constants]
    if node.op in _SUMS or (node.op in _SCALED and len(varying) == 1):
        # A hostile graph could make this walk any number of paths; a classifier has few.
        for one in varying[:4]:
            if end_of(one, producer_of, constants, depth + 25)[0] != "linear":
                return "unknown", node.op
        return "linear", node.op
    return "unknown", node.op


def precision_of(stored: Counter[str], *, quantized: bool) -> Precision:
    """Return the precision of weights, from the bytes that are stored in each type."""
    if quantized:
        return "int8"
    return "fp16" if stored["float16"] > stored["float32"] else "fp32"
