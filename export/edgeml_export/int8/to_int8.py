"""DOOR onnx: FP32 ONNX to INT8 ONNX with explicit Q/DQ nodes, laid out for a target."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from edgeml.errors import ExportError
from edgeml.progress import SILENT, Progress
from edgeml.runtimes.onnx_file import has_attention, read_onnx, spec_of_onnx, write_onnx
from edgeml.spec.provenance import Quantizer
from edgeml_export.int8.calibration import Calibration
from edgeml_export.int8.layers import (
    CUTTING,
    is_layer,
    only_moves,
    origin_of,
    quantizable,
    varying_inputs,
)
from edgeml_export.int8.ranges import Channels, Method, Range, Ranges, ranges_for
from edgeml_export.int8.rounding import by_channel
from edgeml_export.int8.targets import RECIPES, Recipe, Target


def int8_from_onnx(
    source: Path,
    target: Path,
    ranges: Ranges,
    *,
    layout: Target = "x86",
    method: Method = "minmax",
    keep: Collection[str] = (),
) -> Path:
    """Write INT8 weights and activations, by ranges that were measured before.

    Weights are signed and symmetric with a scale for each output channel; activations have one
    scale a tensor. Biases stay FP32: TensorRT takes no others, ONNX Runtime makes them integers by
    itself, and OpenVINO 2026.4 dies on a quantised one. The last layer stays FP32: it costs
    nothing, and 256 steps of a logit would tie scores that the ranking of images needs.

    Args:
        source: An FP32 .onnx.
        target: The .onnx to write.
        ranges: By `measure_ranges`.
        layout: Where Q/DQ nodes go, see `edgeml_export.int8.targets`.
        method: Which of the ranges to take.
        keep: Names of nodes to leave in floating point.

    Raises:
        ModelLoadError: The source is not ONNX.
        SpecError: It has no spec inside.
        ExportError: There is nothing to quantise, or a range is missing.
    """
    model = read_onnx(source)
    spec = spec_of_onnx(model, source)
    quantize(model, ranges, layout, method, keep)
    provenance = replace(
        spec.provenance,
        calibration_sha256=ranges.calibration_sha256,
        quantizer=Quantizer(layout=layout, method=method, images=ranges.images),
    )
    spec = replace(spec, precision="int8", metrics={}, provenance=provenance)
    write_onnx(model, target, spec)
    return target


def measure_ranges(
    source: Path,
    calibration: Calibration | None,
    *,
    kept: Path | None = None,
    progress: Progress = SILENT,
) -> Ranges:
    """Measure what `int8_from_onnx` needs, for every target at once.

    Args:
        source: An FP32 .onnx.
        calibration: Images like those that will come; None takes what is kept, of any images.
        kept: A .json from which they are taken if it fits, and where they are kept.
        progress: Where the work shows itself.

    Raises:
        ModelLoadError: The source is not ONNX.
        SpecError: It has no spec inside.
        CalibrationError: There are no images and nothing that fits is kept, an image cannot be
            read, or the model is not finite on one.
        ExportError: ONNX Runtime cannot run the network.
    """
    model = read_onnx(source)
    spec = spec_of_onnx(model, source)
    chosen = set(quantizable(model, "x86")) | set(quantizable(model, "openvino"))
    constants = {tensor.name: tensor for tensor in model.graph.initializer}
    nodes = [node for node in model.graph.node if node.name in chosen]
    made = {node.output[0] for node in nodes}
    cut = {n.output[0] for n in model.graph.node if n.op_type in CUTTING and n.input[0] in made}
    entering = {name for node in nodes for name in varying_inputs(node, constants)}
    maker = {output: node for node in model.graph.node for output in node.output}
    return ranges_for(
        model,
        entering | {origin_of(name, maker, constants) for name in entering} | made | cut,
        {_channels(node) for node in nodes if is_layer(node, constants)},
        spec,
        calibration,
        kept=kept,
        progress=progress,
    )


def quantize(
    model: onnx.ModelProto,
    ranges: Ranges,
    layout: Target = "x86",
    method: Method = "minmax",
    keep: Collection[str] = (),
) -> None:
    """Put Q/DQ nodes into `model`; the arguments are those of `int8_from_onnx`.

    Raises:
        ExportError: There is nothing to quantise, or a range is missing.
    """
    chosen = [name for name in quantizable(model, layout) if name not in keep]
    if not chosen:
        raise ExportError("The network has no layer to quantise besides its last one.")
    writer = _Writer(model.graph, RECIPES[layout], ranges.by(method), ranges.means, set(chosen))
    writer.drop_cutting_nodes()
    writer.place()


@dataclass(frozen=True)
class _Grid:
    """The 256 values that a tensor may take: scale times (q - zero)."""

    scale: np.float32
    zero: int
    dtype: type[np.uint8] | type[np.int8]


class _Writer:
    """Rewrites one graph."""

    def __init__(
        self,
        graph: onnx.GraphProto,
        recipe: Recipe,
        ranges: Mapping[str, Range],
        means: Mapping[Channels, NDArray[np.float32]],
        chosen: set[str],
    ) -> None:
        self._graph, self._recipe, self._chosen = graph, recipe, chosen
        self._ranges, self._means = ranges, means
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._ends = {output.name for output in graph.output}
        self._attention = has_attention(graph)
        self._names = {*self._constants, *(value.name for value in graph.input)}
        self._names |= {name for node in graph.node for name in (node.name, *node.output)}
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        self._nodes: list[onnx.NodeProto] = []
        self._quantized: dict[str, str] = {}  # a tensor, and what it is after Q and DQ
        self._weights: dict[tuple[str, int, bytes], str] = {}  # by name, axis and scales
        self._grids: dict[str, _Grid] = {}

    def drop_cutting_nodes(self) -> None:
        """Take out ReLUs behind a quantised layer: its Q, whose range ends there, cuts as they do.

        It must be the layer's only reader, and 0, which is in every range, in what it gives.
        """
        if not self._recipe.outputs:
            return
        readers = Counter(name for node in self._graph.node for name in node.input)
        maker = {node.output[0]: node for node in self._graph.node}
        for node in [n for n in self._graph.node if n.op_type in CUTTING]:
            layer = maker.get(node.input[0])
            if (
                layer is not None
                and layer.name in self._chosen
                and self._has_quantized_output(layer)
                and self._gives_zero(node)
                and readers[node.input[0]] == 1
                and node.input[0] not in self._ends
            ):
                layer.output[0] = node.output[0]
                self._graph.node.remove(node)

    def _gives_zero(self, node: onnx.NodeProto) -> bool:
        """Say whether 0 lies between the ends of a Clip; between those of a ReLU it does."""
        for name, side in zip(node.input[1:], (-1, 1), strict=False):
            if name and name not in self._constants:
                return False
            if name and side * numpy_helper.to_array(self._constants[name]) < 0:
                return False
        return True

    def place(self) -> None:
        """Walk through the graph and write it anew, with Q/DQ nodes."""
        for node in self._graph.node:
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
        order = {out: index for index, node in enumerate(self._graph.node) for out in node.output}
        weighted = {
            output
            for node in self._graph.node
            if is_layer(node, self._constants) and node.name in self._chosen
            for output in node.output
        }
        early = self._quantized_early() if self._recipe.attention else ()
        for node in self._graph.node:
            source = node.input[0] if node.input else ""
            if node.name in self._chosen:
                inputs = self._quantized_inputs(node, order, weighted)
                if is_layer(node, self._constants):
                    scale = self._quantize_weight(node)
                    if self._recipe.outputs:
                        self._quantize_bias(node, scale * self._grid(source).scale)
                for index, name in inputs.items():
                    node.input[index] = name
            elif is_layer(node, self._constants) and self._recipe.outputs:
                self._guard_kept(node)
            self._nodes.append(node)
            if node.name in self._chosen and self._has_quantized_output(node):
                # The greatest of some values is one of them: the same grid, or they would move.
                self._quantize_output(node, source if node.op_type == "MaxPool" else node.output[0])
            elif node.output[0] in early:
                self._quantize_output(node, node.output[0])
        del self._graph.node[:]
        self._graph.node.extend(self._nodes)
        used = {name for node in self._graph.node for name in node.input}
        left = [tensor for tensor in self._graph.initializer if tensor.name in used]
        del self._graph.initializer[:]
        self._graph.initializer.extend(left)
        del self._graph.value_info[:]  # of tensors that are no more

    def _quantized_early(self) -> set[str]:
        """Name tensors to quantise as they are made, though layers read them moved about.

        So queries, keys and values leave their layer as integers, with one scale, and integers are
        what is moved. In ViT-tiny OpenVINO has 48 nodes less to run then, and takes 5 % less time.
        It is possible where everything that reads such a tensor is quantised.
        """
        maker = {output: node for node in self._graph.node for output in node.output}
        names: set[str] = set()
        for node in self._graph.node:
            moved = varying_inputs(node, self._constants) if node.name in self._chosen else []
            origins = {origin_of(name, maker, self._constants) for name in moved}
            for name in (origins - set(moved)) & maker.keys():
                ends = [
                    end for reader in self._readers[name] for end in self._followed(reader, name)
                ]
                readers = [reader for reader, _ in ends]
                if not all(reader.name in self._chosen for reader in readers):
                    continue
                names.add(name)
                self._quantized.update({end: end for _, end in ends})
                products = any(len(varying_inputs(one, self._constants)) == 2 for one in readers)
                self._grids[name] = self._grid(name, symmetric=products)
        return names

    def _followed(self, reader: onnx.NodeProto, name: str) -> Iterator[tuple[onnx.NodeProto, str]]:
        """Follow a tensor to the nodes that do more than move it; give each with what it reads."""
        if not only_moves(reader, self._constants):
            if reader.op_type != "Shape":
                yield reader, name
            return
        for output in reader.output:
            if output in self._ends:
                yield reader, name
            for one in self._readers.get(output, []):
                yield from self._followed(one, output)

    def _has_quantized_output(self, node: onnx.NodeProto) -> bool:
        # Behind a product ONNX Runtime goes on in float by itself, and more exactly.
        return self._recipe.outputs and not (self._attention and node.op_type in ("MatMul", "Gemm"))

    def _quantized_inputs(
        self, node: onnx.NodeProto, order: Mapping[str, int], weighted: Collection[str]
    ) -> dict[int, str]:
        """Put Q and DQ on the inputs of a node; give their names by position."""
        varying = set(varying_inputs(node, self._constants))
        if node.op_type == "Add" and self._recipe.sums == "shortcut":
            # The branch that ends in a layer, the later one of two, takes the sum into that layer.
            fused = max(node.input, key=lambda name: (name in weighted, order.get(name, -1)))
            varying.discard(fused)
        for name in sorted(varying - self._quantized.keys()):
            if len(varying) == 2 and node.op_type == "MatMul":
                self._grids[name] = self._grid(name, symmetric=True)
            self._quantized[name] = self._fresh(f"{name}_dequantized")
            self._add_pair(name, self._quantized[name], self._grid(name))
        return {i: self._quantized[name] for i, name in enumerate(node.input) if name in varying}

    def _quantize_output(self, node: onnx.NodeProto, like: str) -> None:
        """Give the name of an output to what it is after Q and DQ, for all who read it."""
        name = node.output[0]
        node.output[0] = self._fresh(f"{name}_float")
        self._quantized[name] = name
        self._grids[name] = self._grid(like)
        self._add_pair(node.output[0], name, self._grids[name])

    def _add_pair(self, source: str, target: str, grid: _Grid) -> None:
        scale = self._constant(f"{target}_scale", np.asarray(grid.scale))
        zero = self._constant(f"{target}_zero", np.asarray(grid.zero, grid.dtype))
        between = self._fresh(f"{target}_quantized")
        to, back = self._fresh(f"{target}_Q"), self._fresh(f"{target}_DQ")
        self._nodes += [
            helper.make_node("QuantizeLinear", [source, scale, zero], [between], to),
            helper.make_node("DequantizeLinear", [between, scale, zero], [target], back),
        ]

    def _grid(self, name: str, *, symmetric: bool = False) -> _Grid:
        if name in self._grids:
            return self._grids[name]
        if name not in self._ranges:
            raise ExportError(f"The range of {name!r} was not measured: calibrate anew.")
        low, high = self._ranges[name]
        signed = self._recipe.signed
        if (symmetric or self._recipe.symmetric) and (low < 0 or signed):
            return _Grid(_scale(max(-low, high) / 127), 0, np.int8)
        dtype = np.int8 if signed else np.uint8
        scale = _scale((high - low) / 255)
        zero = int(np.clip(np.rint(-low / scale), 0, 255))
        return _Grid(scale, zero - 128 if signed else zero, dtype)

    def _quantize_weight(self, node: onnx.NodeProto) -> NDArray[np.float32]:
        """Put integers in place of a layer's weight, and the error's mean into its bias.

        Give the scales by output channel.
        """
        name = node.input[1]
        weight = numpy_helper.to_array(self._constants[name])
        axis = _output_axis(node, weight.ndim)
        scale, integers = by_channel(weight, axis, self._least_scale(node))
        shape = [-1 if index == axis else 1 for index in range(weight.ndim)]
        error = integers * scale.reshape(shape) - weight
        self._correct_bias(node, np.moveaxis(error, axis, 0))
        known = name, axis, scale.tobytes()
        if known not in self._weights:  # two layers may share a weight
            self._weights[known] = self._fresh(f"{name}_dequantized")
            parts: dict[str, NDArray[Any]] = {
                f"{name}_quantized": integers,
                f"{name}_scale": scale,
                f"{name}_zero": np.zeros(len(scale), np.int8),
            }
            names = [self._constant(part, values) for part, values in parts.items()]
            self._add_dequantize(names, self._weights[known], f"{name}_DQ", axis)
        node.input[1] = self._weights[known]
        return scale

    def _least_scale(self, node: onnx.NodeProto) -> NDArray[np.float64] | float:
        """Say how small a layer's scales may be: its bias is to fit 32 bits with one to spare.

        It matters to channels that are dead but for their bias, which batch norms leave behind.
        """
        bias = self._constants.get(node.input[2]) if len(node.input) > 2 else None
        if bias is None or not self._recipe.outputs:
            return 0.0
        values = np.abs(numpy_helper.to_array(bias).astype(np.float64)).reshape(-1)
        channels = self._constants[node.input[1]].dims
        if len(values) != channels[_output_axis(node, len(channels))]:
            return float(values.max(initial=0)) / (2**30 * float(self._grid(node.input[0]).scale))
        return values / (2**30 * float(self._grid(node.input[0]).scale))

    def _quantize_bias(self, node: onnx.NodeProto, scale: NDArray[np.float32]) -> None:
        """Put a layer's bias in the integers that its products are summed up in.

        ONNX Runtime 1.32 would do so by itself; others do not, and compute the layer in FP32.

        Args:
            node: A convolution or Gemm; any other has no bias of its own.
            scale: (channels,) or (1,), of the integers.
        """
        if len(node.input) < 3 or node.input[2] not in self._constants:
            return
        bias = numpy_helper.to_array(self._constants[node.input[2]]).astype(np.float64)
        if bias.ndim != 1 or len(scale) not in (1, len(bias)):  # groups of a ConvTranspose
            return
        integers = np.rint(bias / scale)
        if np.abs(integers).max(initial=0) >= 2**31 - 1:
            return
        name = f"{node.name}_bias"
        names = [
            self._constant(f"{name}_quantized", integers.astype(np.int32)),
            self._constant(f"{name}_scale", scale.reshape(() if len(scale) == 1 else -1)),
        ]
        node.input[2] = self._fresh(f"{name}_dequantized")
        self._add_dequantize(names, node.input[2], f"{name}_DQ", axis=0)

    def _guard_kept(self, node: onnx.NodeProto) -> None:
        """Keep ONNX Runtime from quantising a layer that was to stay in floating point.

        Where Q/DQ nodes lie around one, its WeightBiasQuantization makes the weights int8, with
        one scale for all channels, unless the bias comes out of another node: this one does, in
        steps far below those of a float.
        """
        if node.op_type == "MatMul" or node.output[0] in self._ends:
            return
        if len(node.input) < 3:
            weight = self._constants[node.input[1]]
            channels = weight.dims[_output_axis(node, len(weight.dims))]
            zeros = np.zeros(channels, np.float32)
            node.input.append(self._constant(f"{node.name}_no_bias", zeros))
        if node.input[2] in self._constants:
            largest = np.abs(numpy_helper.to_array(self._constants[node.input[2]])).max()
            self._quantize_bias(node, np.array([_scale(float(largest) / 2**30)], np.float32))

    def _correct_bias(self, node: onnx.NodeProto, error: NDArray[np.float32]) -> None:
        """Take from the bias what the error of the weights adds to each output on average.

        Nagel et al., Data-Free Quantization through Weight Equalization and Bias Correction, 2019,
        with means that were measured. On MobileNetV2 the divergence that rounded weights cause in
        the decisions falls to a tenth.

        Args:
            node: The layer.
            error: Of the weight, its output channels first.
        """
        means, place = self._means.get(_channels(node)), self._bias_of(node)
        if means is None or place is None:
            return
        holder, index = place
        shift = _mean_output(node, error, means)
        if index < len(holder.input):
            bias = numpy_helper.to_array(self._constants[holder.input[index]])
            shift = shift - bias.reshape(-1)
            del holder.input[index]
        name = self._constant(f"{node.name}_bias", (-shift).astype(np.float32))
        holder.input.insert(index, name)

    def _bias_of(self, node: onnx.NodeProto) -> tuple[onnx.NodeProto, int] | None:
        """Say where a layer's bias stands, or may be put; None if there is no such place.

        A MatMul has it in the sum that follows, if nothing else reads the product.
        """
        match node.op_type:
            case "Conv":
                holder, index = node, 2
            case "Gemm" if _is_plain(node):
                holder, index = node, 2
            case "MatMul" if len(readers := self._readers[node.output[0]]) == 1:
                holder = readers[0]
                if holder.op_type != "Add":
                    return None
                index = 1 - list(holder.input).index(node.output[0])
            case _:
                return None
        if index == len(holder.input):
            return holder, index
        bias = self._constants.get(holder.input[index])
        channels = self._constants[node.input[1]].dims[_output_axis(node, 2)]
        shapes = ([channels], [1, channels]) if node.op_type == "Gemm" else ([channels],)
        return (holder, index) if bias is not None and list(bias.dims) in shapes else None

    def _add_dequantize(self, names: list[str], target: str, name: str, axis: int) -> None:
        name = self._fresh(name)
        node = helper.make_node("DequantizeLinear", names, [target], name, axis=axis)
        self._nodes.append(node)

    def _constant(self, name: str, values: NDArray[Any]) -> str:
        """Add a constant; give the name it got."""
        name = self._fresh(name)
        tensor = numpy_helper.from_array(values, name)
        self._graph.initializer.append(tensor)
        self._constants[name] = tensor
        return name

    def _fresh(self, name: str) -> str:
        """Give a name that nothing in the graph has yet: this one, or one with `_` behind."""
        while name in self._names:
            name += "_"
        self._names.add(name)
        return name


def _mean_output(
    node: onnx.NodeProto, error: NDArray[np.float32], means: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Give what an error of the weights (O, I or I / groups, ...) adds to each output's mean: (O,).

    The edges of a picture, where a kernel reaches beyond it, are taken for the rest.
    """
    summed = error.reshape(*error.shape[:2], -1).sum(axis=-1, dtype=np.float64)
    groups = next((a.i for a in node.attribute if a.name == "group"), 1)
    by_group = summed.reshape(groups, -1, summed.shape[1])
    entering = means.astype(np.float64).reshape(groups, -1)
    added: NDArray[np.float64] = np.einsum("goi,gi->go", by_group, entering)
    return added.reshape(-1)


def _scale(step: float) -> np.float32:
    # A tensor that is always 0 has no step; any will do.
    return np.float32(step) if step > np.finfo(np.float32).tiny else np.float32(1)


def _output_axis(node: onnx.NodeProto, dimensions: int) -> int:
    match node.op_type:
        case "Conv":
            return 0
        case "ConvTranspose":
            return 1
        case "Gemm":
            return 0 if any(a.name == "transB" and a.i for a in node.attribute) else 1
        case _:
            return dimensions - 1


def _channels(node: onnx.NodeProto) -> Channels:
    """Say which axis of a layer's input counts its channels."""
    return node.input[0], 1 if node.op_type in ("Conv", "ConvTranspose") else -1


def _is_plain(node: onnx.NodeProto) -> bool:
    """Say whether a Gemm is a product and a bias, without factors; its weight may lie on its side.

    Some exporters write attributes down that say nothing new.
    """
    told = {a.name: helper.get_attribute_value(a) for a in node.attribute}
    return told.get("alpha", 1.0) == told.get("beta", 1.0) == 1.0 and not told.get("transA", 0)
