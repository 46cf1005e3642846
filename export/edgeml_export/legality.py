"""Whether the Q/DQ nodes of an ONNX file are what a target can run, ours or anybody's."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeml.errors import needs
from edgeml_export.targets import Target

if TYPE_CHECKING:
    import onnx

QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_BESIDE_A_SUM = ("Add", "Sub")

# Operators on integers, where TensorRT looks for Q/DQ nodes around operators on floats.
_ON_INTEGERS = re.compile(r"QLinear\w+|QGemm|\w+Integer|DynamicQuantize\w+")

_OPSETS = range(9, 26)
"""Of TensorRT 11 (its ONNX Opset Guide); 10.15 ends at 24. The parser takes a newer file without
a word, and reads its operators as the old ones."""


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


@dataclass(frozen=True)
class Graph:
    """What is asked of a graph again and again."""

    constants: dict[str, onnx.TensorProto]
    maker: dict[str, onnx.NodeProto]
    readers: dict[str, list[onnx.NodeProto]]

    @classmethod
    def of(cls, model: onnx.ModelProto) -> Graph:
        readers: dict[str, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            for name in node.input:
                readers.setdefault(name, []).append(node)
        return cls(
            constants={
                **{tensor.name: tensor for tensor in model.graph.initializer},
                **{
                    node.output[0]: told.t
                    for node in model.graph.node
                    for told in node.attribute
                    if node.op_type == "Constant" and told.name == "value"
                },
            },
            maker={name: node for node in model.graph.node for name in node.output},
            readers=readers,
        )

    def value(self, name: str) -> Any:
        """Give a constant as an array; None of what is computed."""
        from onnx import numpy_helper

        tensor = self.constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def stored(self, node: onnx.NodeProto) -> Any:
        """Give the constant that a Q/DQ node, or a chain of them, works on; None if there is none.

        A weight may be stored in integers, or in floating point with Q and DQ behind it.
        """
        name = node.input[0]
        while (maker := self.maker.get(name)) is not None and maker.op_type in QUANTIZERS:
            name = maker.input[0]
        return self.value(name)

    def is_weight(self, node: onnx.NodeProto) -> bool:
        """Say whether a Q/DQ node works on a constant."""
        return self.stored(node) is not None

    def dtype(self, node: onnx.NodeProto) -> np.dtype[Any]:
        """Give the type of the integers of a Q/DQ node; without a zero point it is uint8."""
        if len(node.input) > 2 and node.input[2]:
            zero = self.value(node.input[2])
            if zero is not None:
                return np.asarray(zero).dtype
        for told in node.attribute:
            if told.name == "output_dtype" and told.i:
                from onnx.helper import tensor_dtype_to_np_dtype

                return np.dtype(tensor_dtype_to_np_dtype(told.i))
        stored = self.value(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if stored is not None:
            return np.asarray(stored).dtype
        maker = self.maker.get(node.input[0])
        behind = maker is not None and maker.op_type == "QuantizeLinear"
        return self.dtype(maker) if maker is not None and behind else np.dtype(np.uint8)


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


def output_axis(layer: onnx.NodeProto, dimensions: int) -> int:
    """Say which axis of weights counts output channels, of one group where there are several."""
    match layer.op_type:
        case "Conv":
            return 0
        case "Gemm" if any(a.name == "transB" and a.i for a in layer.attribute):
            return 0
        case "ConvTranspose":
            return 1
        case _:
            return dimensions - 1


def named(node: onnx.NodeProto) -> str:
    """Name a node, if it has no name by what it makes."""
    return str(node.name or node.output[0])


def _size(graph: Graph, node: onnx.NodeProto) -> int:
    scale = graph.value(node.input[1])
    return 1 if scale is None else int(np.asarray(scale).size)
