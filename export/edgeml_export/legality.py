"""Whether the Q/DQ nodes of an ONNX file are what a target can run, ours or anybody's."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from edgeml.errors import needs
from edgeml_export.targets import Target

if TYPE_CHECKING:
    import onnx

_LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_BESIDE_A_SUM = ("Add", "Sub")


def violations(model: onnx.ModelProto, target: Target) -> list[str]:
    """Say what in a file the target refuses, dies of, silently misreads, or runs in FP32.

    Args:
        model: An ONNX network, with Q/DQ nodes or without.
        target: Where it is to run.

    Returns:
        A sentence each, with the node's name; none for a file without Q/DQ nodes.
    """
    with needs("onnx", extra="export", to="check an ONNX model"):
        import onnx  # noqa: F401
    graph = _Graph.of(model)
    pairs = [node for node in model.graph.node if node.op_type in _KINDS]
    if not pairs:
        return []
    match target:
        case "tensorrt":
            found = [*_for_tensorrt(graph, pairs), *_raw_input(model)]
        case "openvino":
            found = list(_for_openvino(graph, pairs))
        case "x86":
            found = list(_for_onnxruntime(graph, pairs, np.dtype(np.uint8)))
        case "arm":
            found = list(_for_onnxruntime(graph, pairs, np.dtype(np.int8)))
    return [*found, *_by_tensor(graph, pairs)]


_KINDS = ("QuantizeLinear", "DequantizeLinear")


@dataclass(frozen=True)
class _Graph:
    """What is asked of a graph again and again."""

    constants: dict[str, onnx.TensorProto]
    maker: dict[str, onnx.NodeProto]
    readers: dict[str, list[onnx.NodeProto]]

    @classmethod
    def of(cls, model: onnx.ModelProto) -> _Graph:
        readers: dict[str, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            for name in node.input:
                readers.setdefault(name, []).append(node)
        return cls(
            constants={
                **{tensor.name: tensor for tensor in model.graph.initializer},
                **{
                    node.output[0]: node.attribute[0].t
                    for node in model.graph.node
                    if node.op_type == "Constant" and node.attribute[0].name == "value"
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
        while (maker := self.maker.get(name)) is not None and maker.op_type in _KINDS:
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


def _for_tensorrt(graph: _Graph, pairs: list[onnx.NodeProto]) -> Iterator[str]:
    """TensorRT 10 and 11: working with quantized types, explicit quantization."""
    for node in pairs:
        dtype = graph.dtype(node)
        if dtype == np.int32:
            yield f"{_name(node)}: TensorRT refuses an int32 bias; leave biases in floating point."
            continue
        if dtype != np.int8:
            yield (
                f"{_name(node)}: TensorRT reads {dtype} as int8, with a warning and wrong results."
            )
        zero = graph.value(node.input[2]) if len(node.input) > 2 else None
        if zero is not None and np.any(zero):
            yield f"{_name(node)}: the zero point is not 0; TensorRT knows symmetric ranges only."
        if not graph.is_weight(node) and _size(graph, node) > 1:
            yield f"{_name(node)}: an activation with a scale for each channel; TensorRT takes one."


def _raw_input(model: onnx.ModelProto) -> Iterator[str]:
    from onnx import TensorProto

    for value in model.graph.input:
        if value.type.tensor_type.elem_type == TensorProto.UINT8:
            for node in model.graph.node:
                if value.name in node.input and node.op_type != "Cast":
                    yield f"{_name(node)}: TensorRT takes a uint8 input only into a Cast."


def _for_openvino(graph: _Graph, pairs: list[onnx.NodeProto]) -> Iterator[str]:
    for node in pairs:
        readers = graph.readers.get(node.output[0], [])
        if graph.is_weight(node) and any(one.op_type in _BESIDE_A_SUM for one in readers):
            yield f"{_name(node)}: a quantised bias behind a sum; OpenVINO 2026.4 dies of it."
        if not graph.is_weight(node) and _size(graph, node) > 1:
            yield f"{_name(node)}: an activation with a scale for each channel runs in FP32."


def _for_onnxruntime(
    graph: _Graph, pairs: list[onnx.NodeProto], wanted: np.dtype[Any]
) -> Iterator[str]:
    for node in pairs:
        if graph.is_weight(node):
            continue
        dtype = graph.dtype(node)
        if dtype != wanted:
            yield (
                f"{_name(node)}: activations are {dtype}; ONNX Runtime is fast with {wanted} here."
            )
        for reader in graph.readers.get(node.output[0], []):
            if _runs_in_float(graph, reader):
                yield f"{_name(reader)}: no Q behind it, so ONNX Runtime computes it in FP32."


def _runs_in_float(graph: _Graph, node: onnx.NodeProto) -> bool:
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


def _by_tensor(graph: _Graph, pairs: list[onnx.NodeProto]) -> Iterator[str]:
    """Every runtime takes such weights; what they do to MobileNetV2 is 90 % becoming 7.6 %."""
    for node in pairs:
        if node.op_type != "DequantizeLinear" or not graph.is_weight(node):
            continue
        shape = np.shape(graph.stored(node))
        layers = [
            one
            for one in graph.readers.get(node.output[0], [])
            if one.op_type in _LAYERS and len(shape) > 1 and _channels(one, shape) > 1
        ]
        if layers and _size(graph, node) == 1:
            yield f"{_name(node)}: one scale for all channels of the weights of {_name(layers[0])}."


def _channels(layer: onnx.NodeProto, shape: tuple[int, ...]) -> int:
    """Count the output channels of a layer, of one group where it has several."""
    match layer.op_type:
        case "Conv":
            return shape[0]
        case "Gemm" if any(a.name == "transB" and a.i for a in layer.attribute):
            return shape[0]
        case "ConvTranspose":
            return shape[1]
        case _:
            return shape[-1]


def _name(node: onnx.NodeProto) -> str:
    """Name a node, if it has no name by what it makes."""
    return str(node.name or node.output[0])


def _size(graph: _Graph, node: onnx.NodeProto) -> int:
    scale = graph.value(node.input[1])
    return 1 if scale is None else int(np.asarray(scale).size)
