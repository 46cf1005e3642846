"""What TensorRT does not build."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from edgeml.errors import needs
from edgeml.runtimes.onnx_graph import QUANTIZERS, Graph, label, opset

if TYPE_CHECKING:
    import onnx


# Operators on integers, where TensorRT expects Q/DQ nodes around operators on floats.
_ON_INTEGERS = re.compile(r"QLinear\w+|QGemm|\w+Integer|DynamicQuantize\w+")


_OPSETS = range(9, 26)
"""What TensorRT 11 reads (its ONNX Opset Guide); 10.15 ends at 24. The parser takes a newer file
without a warning, and reads its operators as the old ones."""


@dataclass(frozen=True)
class Violation:
    """What a target cannot run in a file.

    Attributes:
        code: A short name that stays the same, for example `qdq-uint8`.
        node: The node's name; empty if the file itself is at fault.
        message: What is wrong, as a sentence.
    """

    code: str
    node: str
    message: str

    def __str__(self) -> str:
        return f"{self.node}: {self.message}" if self.node else self.message


def refused_by_tensorrt(model: onnx.ModelProto) -> list[Violation]:
    """Return what TensorRT refuses in a file, crashes on, or silently misreads.

    A second input, for which an optimisation profile would have no shape, ends TensorRT-RTX 1.7's
    process; uint8 Q/DQ nodes without a zero point are read as int8 without even a warning.
    """
    with needs("onnx", extra="export", to="check an ONNX model"):
        import onnx
    if violations := [*_opset(model), *_shape(model)]:
        return violations
    try:
        onnx.checker.check_model(model)  # from here on nodes have the inputs and outputs they need
    except onnx.checker.ValidationError as err:
        if "No Op registered" not in str(err):  # TensorRT's plugins are such, or its parser says so
            return [Violation("onnx", "", f"It is not valid ONNX: {' '.join(str(err).split())}.")]
    return [*_raw_input(model), *_on_integers(model), *_quantizers(model)]


def _quantizers(model: onnx.ModelProto) -> Iterator[Violation]:
    """Check the Q/DQ nodes. TensorRT 10 and 11: working with quantized types."""
    graph = Graph.of(model)
    for node in model.graph.node:
        if node.op_type not in QUANTIZERS:
            continue
        name, dtype = label(node), graph.dtype(node)
        if dtype == np.int32:
            message = "TensorRT refuses an int32 bias; leave biases in floating point."
            yield Violation("qdq-int32", name, message)
            continue
        if dtype == np.uint8:
            message = "TensorRT reads uint8 as int8, with a warning and wrong results."
            yield Violation("qdq-uint8", name, message)
        elif dtype != np.int8:
            message = f"{dtype}; edgeml builds engines of int8 and floats only."
            yield Violation("qdq-type", name, message)
        if graph.value(node.input[1]) is None:
            message = "its scale is computed; TensorRT needs a constant."
            yield Violation("qdq-computed-scale", name, message)
        zero = graph.value(node.input[2]) if len(node.input) > 2 else None
        if zero is not None and np.any(zero):
            message = "the zero point is not 0; TensorRT takes symmetric ranges only."
            yield Violation("qdq-zero-point", name, message)
        if not graph.is_weight(node) and graph.scale_size(node) > 1:
            message = "an activation with a scale for each channel; TensorRT takes one."
            yield Violation("qdq-activation-scales", name, message)


def _opset(model: onnx.ModelProto) -> Iterator[Violation]:
    version = opset(model)
    if version not in _OPSETS:
        message = (
            f"The opset is {version}; TensorRT reads {_OPSETS[0]} to {_OPSETS[-1]}: "
            "export the file again with one of these, 18 if in doubt."
        )
        yield Violation("opset", "", message)


def _shape(model: onnx.ModelProto) -> Iterator[Violation]:
    """Check for one image input, of which only the batch varies: what a profile describes."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) != 1:
        names = ", ".join(value.name for value in inputs) or "none"
        message = f"A network of one input is expected; this one has {len(inputs)}: {names}."
        yield Violation("inputs", "", message)
        return
    shape = inputs[0].type.tensor_type.shape.dim
    if len(shape) != 4 or not all(dim.dim_value > 0 for dim in shape[1:]):
        dims = ", ".join(str(dim.dim_value or dim.dim_param or "?") for dim in shape)
        message = f"The input {inputs[0].name!r} is ({dims}); only the first of four dimensions, "
        yield Violation("input-shape", "", f"{message}the batch, may be open.")


def _on_integers(model: onnx.ModelProto) -> Iterator[Violation]:
    for node in model.graph.node:
        if _ON_INTEGERS.fullmatch(node.op_type):
            message = (
                f"TensorRT has no {node.op_type}; "
                "quantise with Q/DQ nodes around layers in floating point."
            )
            yield Violation("integer-operator", label(node), message)


def _raw_input(model: onnx.ModelProto) -> Iterator[Violation]:
    from onnx import TensorProto

    for value in model.graph.input:
        if value.type.tensor_type.elem_type == TensorProto.UINT8:
            for node in model.graph.node:
                if value.name in node.input and node.op_type != "Cast":
                    message = "TensorRT takes a uint8 input only into a Cast."
                    yield Violation("uint8-input", label(node), message)
