"""Puts the weights and biases of layers in integers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeml.runtimes.onnx_graph import attribute, output_axis
from edgeml_export.int8.grid import along, nonzero
from edgeml_export.int8.ranges import Channels, input_channels
from edgeml_export.int8.rounding import by_channel
from edgeml_export.onnx_editor import GraphEditor

if TYPE_CHECKING:
    import onnx

# A bias in 32 bits stays below this many steps, with one bit to spare.
_BIAS_STEPS = 2**30


class WeightQuantizer:
    """Rewrites the weights and biases of layers, one layer at a time."""

    def __init__(self, editor: GraphEditor, means: Mapping[Channels, NDArray[np.float32]]) -> None:
        self._editor, self._means = editor, means
        self._outputs = {output.name for output in editor.proto.output}
        self._known: dict[tuple[str, int, bytes], str] = {}  # by name, axis and scales

    def quantize(self, node: onnx.NodeProto, input_scale: NDArray[np.float32] | None) -> None:
        """Put integers in place of a layer's weight, and the mean of the error into its bias.

        Args:
            node: The layer.
            input_scale: Of what enters it, for the bias in integers; None keeps the bias in
                floating point.
        """
        name = node.input[1]
        weight = self._editor.graph.value(name)
        axis = output_axis(node, weight.ndim)
        min_scale = 0.0 if input_scale is None else self._min_scale(node, float(input_scale))
        scale, integers = by_channel(weight, axis, min_scale)
        error = integers * along(scale, axis, weight.ndim) - weight
        self._correct_bias(node, np.moveaxis(error, axis, 0))
        key = name, axis, scale.tobytes()
        if key not in self._known:  # two layers may share a weight
            self._known[key] = self._editor.new_name(f"{name}_dequantized")
            parts: dict[str, NDArray[Any]] = {
                f"{name}_quantized": integers,
                f"{name}_scale": scale,
                f"{name}_zero": np.zeros(len(scale), np.int8),
            }
            names = [self._editor.add_constant(part, values) for part, values in parts.items()]
            self._add_dequantize(names, self._known[key], f"{name}_DQ", axis)
        node.input[1] = self._known[key]
        if input_scale is not None:
            self._quantize_bias(node, scale * input_scale)

    def guard(self, node: onnx.NodeProto) -> None:
        """Prevent ONNX Runtime from quantising a layer that stays in floating point.

        Where a layer has Q/DQ nodes around it, its WeightBiasQuantization makes the weights int8,
        with one scale for all channels, unless the bias comes out of another node. This one does,
        in steps far below those of a float.
        """
        graph = self._editor.graph
        if node.op_type == "MatMul" or node.output[0] in self._outputs:
            return
        if len(node.input) < 3:
            zeros = np.zeros(graph.output_channels(node), np.float32)
            node.input.append(self._editor.add_constant(f"{node.name}_no_bias", zeros))
        bias = graph.value(node.input[2])
        if bias is not None:
            step = np.asarray(float(np.abs(bias).max()) / _BIAS_STEPS)
            self._quantize_bias(node, nonzero(step).astype(np.float32).reshape(1))

    def _min_scale(self, node: onnx.NodeProto, input_scale: float) -> NDArray[np.float64] | float:
        """Return the least scale of a layer's weights with which 32 bits hold its bias.

        It matters to channels that are dead except for their bias, which batch norms leave behind.
        """
        bias = self._editor.graph.value(node.input[2]) if len(node.input) > 2 else None
        if bias is None:
            return 0.0
        values = np.abs(bias.astype(np.float64)).reshape(-1)
        if len(values) != self._editor.graph.output_channels(node):
            return float(values.max(initial=0)) / (_BIAS_STEPS * input_scale)
        least: NDArray[np.float64] = values / (_BIAS_STEPS * input_scale)
        return least

    def _quantize_bias(self, node: onnx.NodeProto, scale: NDArray[np.float32]) -> None:
        """Put a layer's bias in the integers that its products are added up in.

        ONNX Runtime 1.32 would do so by itself; others do not, and compute the layer in FP32.

        Args:
            node: A convolution or Gemm; other layers have no bias of their own.
            scale: (channels,) or (1,), of the integers.
        """
        bias = self._editor.graph.value(node.input[2]) if len(node.input) > 2 else None
        if bias is None:
            return
        if bias.ndim != 1 or len(scale) not in (1, len(bias)):  # groups of a ConvTranspose
            return
        integers = np.rint(bias.astype(np.float64) / scale)
        if np.abs(integers).max(initial=0) >= 2**31 - 1:
            return
        name = f"{node.name}_bias"
        parts = {
            f"{name}_quantized": integers.astype(np.int32),
            f"{name}_scale": scale.reshape(() if len(scale) == 1 else -1),
        }
        names = [self._editor.add_constant(part, values) for part, values in parts.items()]
        node.input[2] = self._editor.new_name(f"{name}_dequantized")
        self._add_dequantize(names, node.input[2], f"{name}_DQ", axis=0)

    def _correct_bias(self, node: onnx.NodeProto, error: NDArray[np.float32]) -> None:
        """Subtract from the bias what the error of the weights adds to each output on average.

        Nagel et al., Data-Free Quantization through Weight Equalization and Bias Correction, 2019,
        with measured means. On MobileNetV2 the divergence that rounded weights cause in the
        decisions falls to a tenth.

        Args:
            node: The layer.
            error: Of the weight, its output channels first.
        """
        means, place = self._means.get(input_channels(node)), self._bias_of(node)
        if means is None or place is None:
            return
        holder, index = place
        shift = _mean_output(node, error, means)
        if index < len(holder.input):
            bias = self._editor.graph.value(holder.input[index])
            shift = shift - bias.reshape(-1)
            del holder.input[index]
        name = self._editor.add_constant(f"{node.name}_bias", (-shift).astype(np.float32))
        holder.input.insert(index, name)

    def _bias_of(self, node: onnx.NodeProto) -> tuple[onnx.NodeProto, int] | None:
        """Return the node and input where a layer's bias is, or can be put; None without one.

        A MatMul has it in the sum that follows, if nothing else reads the product.
        """
        graph = self._editor.graph
        match node.op_type:
            case "Conv":
                holder, index = node, 2
            case "Gemm" if _is_plain(node):
                holder, index = node, 2
            case "MatMul" if len(readers := graph.readers[node.output[0]]) == 1:
                holder = readers[0]
                if holder.op_type != "Add":
                    return None
                index = 1 - list(holder.input).index(node.output[0])
            case _:
                return None
        if index == len(holder.input):
            return holder, index
        bias = graph.constants.get(holder.input[index])
        channels = graph.output_channels(node)
        shapes = ([channels], [1, channels]) if node.op_type == "Gemm" else ([channels],)
        return (holder, index) if bias is not None and list(bias.dims) in shapes else None

    def _add_dequantize(self, names: list[str], output: str, name: str, axis: int) -> None:
        self._editor.add_node("DequantizeLinear", names, output, name, axis=axis)


def _mean_output(
    node: onnx.NodeProto, error: NDArray[np.float32], means: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Return what an error of the weights (O, I or I / groups, ...) adds to the mean outputs (O,).

    The edges of an image, where a kernel reaches beyond it, are treated like the rest.
    """
    summed = error.reshape(*error.shape[:2], -1).sum(axis=-1, dtype=np.float64)
    groups = attribute(node, "group", 1)
    by_group = summed.reshape(groups, -1, summed.shape[1])
    entering = means.astype(np.float64).reshape(groups, -1)
    added: NDArray[np.float64] = np.einsum("goi,gi->go", by_group, entering)
    return added.reshape(-1)


def _is_plain(node: onnx.NodeProto) -> bool:
    """Whether a Gemm is a product and a bias, without factors; its weight may be transposed."""
    factors = attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0)
    return factors == (1.0, 1.0) and not attribute(node, "transA", 0)
