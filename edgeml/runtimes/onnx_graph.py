"""An ONNX graph, read only: its constants, and which node makes and which nodes read a value."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    import onnx

QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")

LAYERS = ("Conv", "ConvTranspose", "Gemm", "MatMul")
"""Operators with weights."""

_INTEGER_LAYERS = {
    "QLinearConv": 3,
    "QLinearMatMul": 3,
    "QGemm": 3,
    "ConvInteger": 1,
    "MatMulInteger": 1,
    "DynamicQuantizeMatMul": 1,
    "MatMulIntegerToFloat": 1,
}
"""Operators on integers, and which of their inputs is the weight."""

_PRODUCTS = ("MatMul", "Einsum")
_FUSED_ATTENTION = ("Attention", "MultiHeadAttention")

_LAYOUT_OPS = ("Identity", "Reshape", "Slice", "Split", "Squeeze", "Transpose", "Unsqueeze")


@dataclass(frozen=True)
class Graph:
    """The values of a graph.

    Attributes:
        constants: Initializers, and the tensors of Constant nodes, by name.
        maker: The node that makes a value, by the value's name.
        readers: The nodes that read a value, by its name; a node that reads it twice is there
            twice.
    """

    constants: dict[str, onnx.TensorProto]
    maker: dict[str, onnx.NodeProto]
    readers: dict[str, list[onnx.NodeProto]]

    @classmethod
    def of(cls, model: onnx.ModelProto) -> Graph:
        readers: dict[str, list[onnx.NodeProto]] = {}
        for node in model.graph.node:
            for name in node.input:
                readers.setdefault(name, []).append(node)
        constants = {tensor.name: tensor for tensor in model.graph.initializer}
        for node in model.graph.node:
            for attribute in node.attribute:
                if node.op_type == "Constant" and attribute.name == "value":
                    constants[node.output[0]] = attribute.t
        return cls(
            constants=constants,
            maker={name: node for node in model.graph.node for name in node.output},
            readers=readers,
        )

    def value(self, name: str) -> Any:
        """Return a constant as an array, None for a value that is computed."""
        from onnx import numpy_helper

        tensor = self.constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def computed_inputs(self, node: onnx.NodeProto) -> list[str]:
        """Name the inputs of a node that are no constants."""
        return [name for name in node.input if name and name not in self.constants]

    def is_layer(self, node: onnx.NodeProto) -> bool:
        """Whether a node is a layer with constant weights."""
        return node.op_type in LAYERS and node.input[1] in self.constants

    def output_channels(self, layer: onnx.NodeProto) -> int:
        """Return the number of a layer's output channels, within a group if it has groups."""
        dims = self.constants[layer.input[1]].dims
        return int(dims[output_axis(layer, len(dims))])

    def is_layout_op(self, node: onnx.NodeProto) -> bool:
        """Whether a node only moves values to other places, or scales all by one constant."""
        if node.op_type in ("Mul", "Div"):
            factor = self.constants.get(node.input[1])
            return factor is not None and math.prod(factor.dims) == 1
        return node.op_type in _LAYOUT_OPS

    def before_layout_ops(self, name: str) -> str:
        """Name the tensor that layout operations make this one from."""
        while (node := self.maker.get(name)) is not None and self.is_layout_op(node):
            name = node.input[0]
        return name

    def stored(self, node: onnx.NodeProto) -> Any:
        """Return the constant that a Q/DQ node, or a chain of them, works on; None without one.

        A weight may be stored in integers, or in floating point with Q and DQ behind it.
        """
        name = node.input[0]
        while (maker := self.maker.get(name)) is not None and maker.op_type in QUANTIZERS:
            name = maker.input[0]
        return self.value(name)

    def is_weight(self, node: onnx.NodeProto) -> bool:
        """Whether a Q/DQ node works on a constant."""
        return self.stored(node) is not None

    def scale_size(self, node: onnx.NodeProto) -> int:
        """Return the number of scales of a Q/DQ node; 1 if they are computed."""
        scale = self.value(node.input[1])
        return 1 if scale is None else int(np.asarray(scale).size)

    def dtype(self, node: onnx.NodeProto) -> np.dtype[Any]:
        """Return the type of the integers of a Q/DQ node; without a zero point it is uint8."""
        if len(node.input) > 2 and node.input[2]:
            zero = self.value(node.input[2])
            if zero is not None:
                return np.asarray(zero).dtype
        if stated := attribute(node, "output_dtype", 0):
            from onnx.helper import tensor_dtype_to_np_dtype

            return np.dtype(tensor_dtype_to_np_dtype(stated))
        stored = self.value(node.input[0]) if node.op_type == "DequantizeLinear" else None
        if stored is not None:
            return np.asarray(stored).dtype
        maker = self.maker.get(node.input[0])
        if maker is not None and maker.op_type == "QuantizeLinear":
            return self.dtype(maker)
        return np.dtype(np.uint8)


def output_axis(layer: onnx.NodeProto, dimensions: int) -> int:
    """Return the axis of weights that counts output channels, of one group if there are groups."""
    match layer.op_type:
        case "Conv":
            return 0
        case "Gemm" if attribute(layer, "transB", 0):
            return 0
        case "ConvTranspose":
            return 1
        case _:
            return dimensions - 1


def attribute(node: onnx.NodeProto, name: str, default: Any) -> Any:
    """Return the value of a node's attribute."""
    from onnx.helper import get_attribute_value

    for entry in node.attribute:
        if entry.name == name:
            return get_attribute_value(entry)
    return default


def label(node: onnx.NodeProto) -> str:
    """Return a node's name; without a name, that of its first output."""
    return str(node.name or node.output[0])


def opset(model: onnx.ModelProto) -> int:
    """Return the version of ONNX's own operators, 0 if the file states none."""
    versions = (each.version for each in model.opset_import if each.domain in ("", "ai.onnx"))
    return max(versions, default=0)


@dataclass(frozen=True)
class IntegerLayers:
    """How many of a network's layers with weights multiply integers."""

    int8: int
    weighted: int

    def sentence(self) -> str:
        """Return both numbers as a sentence."""
        return f"{self.int8} of {self.weighted} weighted layers are INT8."

    @classmethod
    def of(cls, model: onnx.ModelProto) -> IntegerLayers:
        """Count them, in files with Q/DQ nodes and in those with operators on integers."""
        graph, int8, weighted = Graph.of(model), 0, 0
        for node in model.graph.node:
            if (index := _INTEGER_LAYERS.get(node.op_type)) is not None:
                constant = node.input[index] in graph.constants
                int8, weighted = int8 + constant, weighted + constant
            elif node.op_type in LAYERS:
                makers = [graph.maker.get(graph.before_layout_ops(name)) for name in node.input[:2]]
                integers = [one is not None and one.op_type == QUANTIZERS[1] for one in makers]
                if graph.is_layer(node) or (
                    makers[1] is not None and integers[1] and graph.is_weight(makers[1])
                ):
                    int8, weighted = int8 + all(integers), weighted + 1
        return cls(int8, weighted)


def has_attention(model: onnx.ModelProto) -> bool:
    """Whether the network has attention: a product of activations that reads a softmax.

    A softmax alone is none: a CNN may end in one, or weigh its branches by it.
    """
    graph = Graph.of(model)
    names = [name for node in model.graph.node if node.op_type == "Softmax" for name in node.output]
    seen = set(names)
    while names:
        for node in graph.readers.get(names.pop(), ()):
            if node.op_type in _PRODUCTS and len(graph.computed_inputs(node)) > 1:
                return True
            if node.op_type not in LAYERS:
                names += [name for name in node.output if name not in seen]
                seen.update(node.output)
    return any(node.op_type in _FUSED_ATTENTION for node in model.graph.node)
