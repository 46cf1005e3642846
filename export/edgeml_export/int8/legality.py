"""Whether the Q/DQ nodes of an ONNX file are what a target can run, ours or anybody's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeml.errors import needs
from edgeml.runtimes.onnx_file import LAYERS, QUANTIZERS, Graph, _size, named, output_axis
from edgeml.runtimes.tensorrt.legality import refused_by_tensorrt
from edgeml_export.int8.targets import Target

if TYPE_CHECKING:
    import onnx


_BESIDE_A_SUM = ("Add", "Sub")


def violations(model: onnx.ModelProto, target: Target) -> list[str]:
    """Say what in a file the target refuses, dies of, silently misreads, or runs in FP32.

    Args:
        model: An ONNX network, with Q/DQ nodes or without.
        target: Where it is to run.

    Returns:
        A sentence each, with the node's name; but for TensorRT none without Q/DQ nodes.
    """
    with needs("onnx", extra="export", to="check an ONNX model"):
        import onnx  # noqa: F401
    graph = Graph.of(model)
    pairs = [node for node in model.graph.node if node.op_type in QUANTIZERS]
    if target == "tensorrt":
        return [*refused_by_tensorrt(model), *_by_tensor(graph, pairs)]
    if not pairs:
        return []
    match target:
        case "openvino":
            found = list(_for_openvino(graph, pairs))
        case "x86":
            found = list(_for_onnxruntime(graph, pairs, np.dtype(np.uint8)))
        case "arm":
            found = list(_for_onnxruntime(graph, pairs, np.dtype(np.int8)))
    return [*found, *_by_tensor(graph, pairs)]


def _for_openvino(graph: Graph, pairs: list[onnx.NodeProto]) -> Iterator[str]:
    for node in pairs:
        readers = graph.readers.get(node.output[0], [])
        if graph.is_weight(node) and any(one.op_type in _BESIDE_A_SUM for one in readers):
            yield f"{named(node)}: a quantised bias behind a sum; OpenVINO 2026.4 dies of it."
        if not graph.is_weight(node) and _size(graph, node) > 1:
            yield f"{named(node)}: an activation with a scale for each channel runs in FP32."


def _for_onnxruntime(
    graph: Graph, pairs: list[onnx.NodeProto], wanted: np.dtype[Any]
) -> Iterator[str]:
    for node in pairs:
        if graph.is_weight(node):
            continue
        dtype = graph.dtype(node)
        if dtype != wanted:
            yield (
                f"{named(node)}: activations are {dtype}; ONNX Runtime is fast with {wanted} here."
            )
        for reader in graph.readers.get(node.output[0], []):
            if _runs_in_float(graph, reader):
                yield f"{named(reader)}: no Q behind it, so ONNX Runtime computes it in FP32."


def _runs_in_float(graph: Graph, node: onnx.NodeProto) -> bool:
    """Say whether a convolution between integers gives none."""
    if node.op_type not in ("Conv", "ConvTranspose"):
        return False
    weight = graph.maker.get(node.input[1])
    if weight is None or weight.op_type != "DequantizeLinear":
        return False  # one that was meant to be in floating point
    after = graph.readers.get(node.output[0], [])
    if len(after) == 1 and after[0].op_type in ("Relu", "Clip"):
        after = graph.readers.get(after[0].output[0], [])
    return not any(one.op_type == "QuantizeLinear" for one in after)


def _by_tensor(graph: Graph, pairs: list[onnx.NodeProto]) -> Iterator[str]:
    """Every runtime takes such weights; what they do to MobileNetV2 is 90 % becoming 7.6 %."""
    for node in pairs:
        if node.op_type != "DequantizeLinear" or not graph.is_weight(node):
            continue
        shape = np.shape(graph.stored(node))
        layers = [
            one
            for one in graph.readers.get(node.output[0], [])
            if one.op_type in LAYERS and len(shape) > 1 and shape[output_axis(one, len(shape))] > 1
        ]
        if layers and _size(graph, node) == 1:
            yield f"{named(node)}: one scale for all channels of the weights of {named(layers[0])}."
