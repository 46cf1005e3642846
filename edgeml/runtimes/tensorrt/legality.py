"""What TensorRT does not build."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from edgeml.errors import needs
from edgeml.runtimes.onnx_file import QUANTIZERS, Graph, _size, named

if TYPE_CHECKING:
    import onnx


# Operators on integers, where TensorRT looks for Q/DQ nodes around operators on floats.
_ON_INTEGERS = re.compile(r"QLinear\w+|QGemm|\w+Integer|DynamicQuantize\w+")


_OPSETS = range(9, 26)
"""Of TensorRT 11 (its ONNX Opset Guide); 10.15 ends at 24. The parser takes a newer file without
a word, and reads its operators as the old ones."""


def refused_by_tensorrt(model: onnx.ModelProto) -> list[str]:
    """Say what in a file TensorRT refuses, crashes on, or silently misreads.

    A second input, for which an optimisation profile would have no shape, ends TensorRT-RTX 1.7's
    process; uint8 Q/DQ nodes without a zero point are read as int8 without even a warning.

    Args:
        model: An ONNX network, anybody's.

    Returns:
        A sentence each, with the node's name.
    """
    with needs("onnx", extra="export", to="check an ONNX model"):
        import onnx
    if found := [*_opset(model), *_shape(model)]:
        return found
    try:
        onnx.checker.check_model(model)  # below, nodes have the inputs and outputs that they need
    except onnx.checker.ValidationError as err:
        if "No Op registered" not in str(err):  # TensorRT's plugins are such, or its parser says so
            return [f"It is not valid ONNX: {' '.join(str(err).split())}."]
    graph = Graph.of(model)
    pairs = [node for node in model.graph.node if node.op_type in QUANTIZERS]
    return [
        *_raw_input(model),
        *_on_integers(model),
        *_for_tensorrt(graph, pairs),
    ]


def _for_tensorrt(graph: Graph, pairs: list[onnx.NodeProto]) -> Iterator[str]:
    """TensorRT 10 and 11: working with quantized types, explicit quantization."""
    for node in pairs:
        dtype = graph.dtype(node)
        if dtype == np.int32:
            yield f"{named(node)}: TensorRT refuses an int32 bias; leave biases in floating point."
            continue
        if dtype == np.uint8:
            yield (
                f"{named(node)}: TensorRT reads {dtype} as int8, with a warning and wrong results."
            )
        elif dtype != np.int8:
            yield f"{named(node)}: {dtype}; edgeml builds engines of int8 and floats only."
        if graph.value(node.input[1]) is None:
            yield f"{named(node)}: its scale is computed; TensorRT needs a constant."
        zero = graph.value(node.input[2]) if len(node.input) > 2 else None
        if zero is not None and np.any(zero):
            yield f"{named(node)}: the zero point is not 0; TensorRT knows symmetric ranges only."
        if not graph.is_weight(node) and _size(graph, node) > 1:
            yield f"{named(node)}: an activation with a scale for each channel; TensorRT takes one."


def _opset(model: onnx.ModelProto) -> Iterator[str]:
    version = max(
        (one.version for one in model.opset_import if one.domain in ("", "ai.onnx")), default=0
    )
    if version not in _OPSETS:
        yield (
            f"The opset is {version}; TensorRT reads {_OPSETS[0]} to {_OPSETS[-1]}: "
            "write the file anew with one of these, 18 if in doubt."
        )


def _shape(model: onnx.ModelProto) -> Iterator[str]:
    """One image input, of which only the batch may vary: what a profile of batches describes."""
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    if len(inputs) != 1:
        named = ", ".join(value.name for value in inputs) or "none"
        yield f"A network of one input is expected; this one has {len(inputs)}: {named}."
        return
    shape = inputs[0].type.tensor_type.shape.dim
    if len(shape) != 4 or not all(one.dim_value > 0 for one in shape[1:]):
        told = ", ".join(str(one.dim_value or one.dim_param or "?") for one in shape)
        yield (
            f"The input {inputs[0].name!r} is ({told}); only the first of four dimensions, "
            "the batch, may be open."
        )


def _on_integers(model: onnx.ModelProto) -> Iterator[str]:
    for node in model.graph.node:
        if _ON_INTEGERS.fullmatch(node.op_type):
            yield (
                f"{named(node)}: TensorRT knows no {node.op_type}; "
                "quantise with Q/DQ nodes around layers in floating point."
            )


def _raw_input(model: onnx.ModelProto) -> Iterator[str]:
    from onnx import TensorProto

    for value in model.graph.input:
        if value.type.tensor_type.elem_type == TensorProto.UINT8:
            for node in model.graph.node:
                if value.name in node.input and node.op_type != "Cast":
                    yield f"{named(node)}: TensorRT takes a uint8 input only into a Cast."
