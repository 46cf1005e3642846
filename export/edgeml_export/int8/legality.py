"""Whether a target can run the Q/DQ nodes of an ONNX file of any tool."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np

from edgeml.errors import needs
from edgeml.runtimes.onnx_graph import LAYERS, QUANTIZERS, Graph, label, output_axis
from edgeml.runtimes.tensorrt.legality import Violation, refused_by_tensorrt
from edgeml_export.int8.targets import Target

if TYPE_CHECKING:
    import onnx

Nodes = list["onnx.NodeProto"]


def violations(model: onnx.ModelProto, target: Target) -> list[Violation]:
    """Return what a target refuses in a file, crashes on, silently misreads, or runs in FP32.

    Without Q/DQ nodes only TensorRT has violations.

    Args:
        model: An ONNX network, with Q/DQ nodes or without.
        target: Where it runs.
    """
    with needs("onnx", extra="export", to="check an ONNX model"):
        import onnx  # noqa: F401
    graph = Graph.of(model)
    quantizers = [node for node in model.graph.node if node.op_type in QUANTIZERS]
    found: Iterator[Violation]
    match target:
        case "tensorrt":
            found = iter(refused_by_tensorrt(model))
        case "openvino":
            found = _for_openvino(graph, quantizers)
        case "x86" | "arm":
            found = _for_onnxruntime(graph, quantizers, "uint8" if target == "x86" else "int8")
    return [*found, *_one_scale(graph, quantizers)]


def _for_openvino(graph: Graph, quantizers: Nodes) -> Iterator[Violation]:
    for node in quantizers:
        readers = graph.readers.get(node.output[0], [])
        if graph.is_weight(node) and any(reader.op_type in ("Add", "Sub") for reader in readers):
            message = "a quantised bias in a sum; OpenVINO 2026.4 crashes."
            yield Violation("qdq-bias-in-sum", label(node), message)
        if not graph.is_weight(node) and graph.scale_size(node) > 1:
            message = "an activation with a scale for each channel runs in FP32."
            yield Violation("qdq-activation-scales", label(node), message)


def _for_onnxruntime(graph: Graph, quantizers: Nodes, fast: str) -> Iterator[Violation]:
    for node in quantizers:
        if graph.is_weight(node):
            continue
        dtype = graph.dtype(node)
        if dtype != fast:
            message = f"activations are {dtype}; ONNX Runtime is fast with {fast} here."
            yield Violation("qdq-slow-type", label(node), message)
        for reader in graph.readers.get(node.output[0], []):
            if _runs_in_float(graph, reader):
                message = "no Q behind it, so ONNX Runtime computes it in FP32."
                yield Violation("qdq-no-output", label(reader), message)


def _runs_in_float(graph: Graph, node: onnx.NodeProto) -> bool:
    """Whether a convolution of integers makes floats."""
    if node.op_type not in ("Conv", "ConvTranspose"):
        return False
    weight = graph.maker.get(node.input[1])
    if weight is None or weight.op_type != "DequantizeLinear":
        return False  # it stays in floating point on purpose
    after = graph.readers.get(node.output[0], [])
    if len(after) == 1 and after[0].op_type in ("Relu", "Clip"):
        after = graph.readers.get(after[0].output[0], [])
    return not any(reader.op_type == "QuantizeLinear" for reader in after)


def _one_scale(graph: Graph, quantizers: Nodes) -> Iterator[Violation]:
    """Find weights with one scale for all channels: they take MobileNetV2 from 90 % to 7.6 %."""
    for node in quantizers:
        if node.op_type != "DequantizeLinear" or not graph.is_weight(node):
            continue
        shape = np.shape(graph.stored(node))
        layers = [
            reader
            for reader in graph.readers.get(node.output[0], [])
            if reader.op_type in LAYERS
            and len(shape) > 1
            and shape[output_axis(reader, len(shape))] > 1
        ]
        if layers and graph.scale_size(node) == 1:
            message = f"one scale for all channels of the weights of {label(layers[0])}."
            yield Violation("qdq-one-scale", label(node), message)
