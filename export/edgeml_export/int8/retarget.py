"""Rewrites the Q/DQ nodes of an INT8 file of any tool into those that TensorRT takes.

Every value keeps its meaning except for one more rounding: unsigned values, and those around a zero
point, get the symmetric range that holds them. Where the old range clamped values, a Relu or Clip
now does: quantisers hide there the ReLU that they removed.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import ExportError
from edgeml.runtimes.onnx_file import read_onnx, spec_of_onnx, write_onnx
from edgeml.runtimes.onnx_graph import LAYERS, QUANTIZERS, Graph, attribute, label, output_axis
from edgeml.runtimes.tensorrt.legality import refused_by_tensorrt
from edgeml.spec.model_spec import ModelSpec
from edgeml_export.int8.grid import Grid, along, nonzero
from edgeml_export.onnx_editor import GraphEditor

if TYPE_CHECKING:
    import onnx

_INTEGERS = (np.uint8, np.int8, np.uint16, np.int16)

# Their outputs are never negative.
_NON_NEGATIVE = ("Relu", "Sigmoid", "HardSigmoid", "Softmax")


def retargeted_from_onnx(source: Path, target: Path, spec: ModelSpec | None = None) -> str:
    """Write an INT8 file so that TensorRT takes it; nodes that are legal already stay as they are.

    Args:
        source: An .onnx with Q/DQ nodes.
        target: The .onnx to write; the notes of its provenance list what was rewritten.
        spec: Instead of the one inside the source.

    Returns:
        What was rewritten, for example `3 weights`; empty if nothing was.

    Raises:
        ModelLoadError: The source is not ONNX.
        SpecError: It has no spec inside.
        ExportError: A node cannot be rewritten; names it.
    """
    model = read_onnx(source)
    spec = spec or spec_of_onnx(model, source)
    changes = retarget(model)
    if changes:
        notes = {**spec.provenance.notes, "retargeted": f"to tensorrt: {changes}"}
        spec = replace(spec, provenance=replace(spec.provenance, notes=notes))
    write_onnx(model, target, replace(spec, metrics={}))
    return changes


def retarget(model: onnx.ModelProto) -> str:
    """Rewrite a network in place. Returns and raises what `retargeted_from_onnx` does."""
    if not refused_by_tensorrt(model):
        return ""
    changes = _Rewriter(model).rewrite()
    violations = refused_by_tensorrt(model)
    if violations:
        reasons = " ".join(map(str, violations[:3]))
        raise ExportError(f"This cannot be rewritten for TensorRT: {reasons}")
    return ", ".join(f"{count} {what}" for what, count in sorted(changes.items()) if count)


class _Rewriter:
    """Rewrites one graph."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._editor = GraphEditor(model)
        self._graph = Graph.of(model)  # without the constants that are added
        # As they were before anything is rewritten, by the output of their node.
        self._grids = {
            node.output[0]: self._grid(node)
            for node in model.graph.node
            if node.op_type in QUANTIZERS
        }

    def rewrite(self) -> Counter[str]:
        """Write the nodes of the graph again; count the changes."""
        changes = Counter(inputs=self._cast_raw_input())
        for node in self._editor.proto.node:
            grid = self._grids.get(node.output[0]) if node.op_type in QUANTIZERS else None
            if grid is not None and grid.dtype == np.int32 and self._put_bias_in_float(node, grid):
                changes["biases"] += 1
                continue
            if grid is not None and grid.dtype.type in _INTEGERS:
                changes.update(self._rewrite_quantizer(node, grid))
            self._editor.nodes.append(node)
        self._editor.finish()
        self._drop_unread_quantizers()
        self._editor.drop_unread_constants()
        return changes

    def _rewrite_quantizer(self, node: onnx.NodeProto, grid: Grid) -> dict[str, int]:
        if self._graph.is_weight(node):
            # The Q before the DQ of a weight goes when the DQ gets integers.
            rewrite = node.op_type == "DequantizeLinear"
            return {"weights": int(rewrite and self._requantize(node, grid))}
        self._check_same(node, grid)
        has_zero = len(node.input) > 2 and node.input[2]
        if grid.is_symmetric_int8 and grid.scale.size == 1 and has_zero:
            return {}
        low, high = grid.limits
        scale = max(low / -128, high / 127)
        first = node.op_type == "QuantizeLinear"
        if first:
            self._clamp(node, low, high, scale)
        self._set_grid(node, np.asarray(scale), np.zeros((), np.int8))
        return {"activations": int(first)}

    def _grid(self, node: onnx.NodeProto) -> Grid:
        scale = self._graph.value(node.input[1])
        if scale is None or attribute(node, "block_size", 0):
            raise ExportError(
                f"{label(node)}: scales that are computed, or one for each block of values, "
                "cannot be rewritten for TensorRT."
            )
        zero = self._graph.value(node.input[2]) if len(node.input) > 2 else None
        zero = np.zeros(np.shape(scale), np.int64) if zero is None else zero.astype(np.int64)
        return Grid(np.asarray(scale, np.float64), zero, self._graph.dtype(node))

    def _check_same(self, node: onnx.NodeProto, grid: Grid) -> None:
        """Refuse a DQ that reads integers otherwise than its Q writes them.

        Raises:
            ExportError: It does, and rewriting each alone would change values.
        """
        maker = self._graph.maker.get(node.input[0])
        if maker is None or node.op_type != "DequantizeLinear" or maker.op_type not in QUANTIZERS:
            return
        written = self._grids[maker.output[0]]
        if not np.array_equal(written.zero, grid.zero) or written.dtype != grid.dtype:
            raise ExportError(
                f"{label(node)} reads integers otherwise than {label(maker)} writes them; "
                "that cannot be rewritten for TensorRT."
            )

    def _clamp(self, node: onnx.NodeProto, low: float, high: float, scale: float) -> None:
        """Clamp values that the old range clamped and the symmetric one does not."""
        half = scale / 2
        if low <= -128 * scale + half and high >= 127 * scale - half:
            return
        maker = self._graph.maker.get(node.input[0])
        if low == 0 and maker is not None and maker.op_type in _NON_NEGATIVE:
            return
        source, name = node.input[0], self._editor.new_name(f"{node.input[0]}_cut")
        if low == 0:
            self._editor.add_node("Relu", [source], name, f"{name}_node")
        else:
            # As floats of the scale's type, which is that of the clamped values.
            dtype = self._graph.value(node.input[1]).dtype
            limits = [
                self._editor.add_constant(f"{name}_end", np.asarray(limit, dtype))
                for limit in (low, high)
            ]
            self._editor.add_node("Clip", [source, *limits], name, f"{name}_node")
        node.input[0] = name

    def _requantize(self, node: onnx.NodeProto, grid: Grid) -> bool:
        """Put a weight in symmetric integers, with a scale for each output channel if it had one.

        uint8 around 128 is shifted int8: it keeps its integers and its scales.
        """
        if grid.is_symmetric_int8:
            return False
        weight, axis = self._real_weight(node, grid)
        if grid.dtype == np.uint8 and (grid.zero == 128).all():
            scale = grid.scale
        else:
            axis = axis if grid.scale.size > 1 else self._output_axis(node, weight.ndim)
            others = None if axis is None else tuple(set(range(weight.ndim)) - {axis})
            scale = nonzero(np.asarray(np.abs(weight).max(axis=others) / 127))
        integers = np.clip(np.rint(weight / along(scale, axis, weight.ndim)), -128, 127)
        stored = self._editor.add_constant(f"{node.output[0]}_int8", integers.astype(np.int8))
        node.input[0] = stored
        self._set_grid(node, scale, np.zeros(scale.shape, np.int8))
        if scale.size > 1 and axis is not None:
            _set_axis(node, axis)
        return True

    def _real_weight(
        self, node: onnx.NodeProto, grid: Grid
    ) -> tuple[NDArray[np.float64], int | None]:
        """Return the values that a DQ node makes of a constant, and the axis of its scales."""
        axis = attribute(node, "axis", 1) if grid.scale.size > 1 else None
        stored = np.asarray(self._graph.stored(node))
        scale, zero = (along(part, axis, stored.ndim) for part in (grid.scale, grid.zero))
        if stored.dtype.kind == "f":  # Q and DQ behind a float
            info = np.iinfo(grid.dtype)
            stored = np.clip(np.rint(stored / scale) + zero, info.min, info.max)
        return (stored.astype(np.float64) - zero) * scale, axis

    def _output_axis(self, node: onnx.NodeProto, dimensions: int) -> int | None:
        """Return the axis of output channels of the layers that read a weight, if they agree."""
        readers = self._graph.readers.get(node.output[0], [])
        axes = {output_axis(reader, dimensions) for reader in readers if reader.op_type in LAYERS}
        others = any(reader.op_type not in LAYERS for reader in readers)
        return axes.pop() if len(axes) == 1 and dimensions > 1 and not others else None

    def _put_bias_in_float(self, node: onnx.NodeProto, grid: Grid) -> bool:
        """Put a constant in place of a DQ node on int32, under the same name."""
        if node.op_type != "DequantizeLinear" or self._graph.value(node.input[0]) is None:
            return False
        from onnx import numpy_helper

        values, _ = self._real_weight(node, grid)
        dtype = self._graph.value(node.input[1]).dtype
        self._editor.proto.initializer.append(
            numpy_helper.from_array(values.astype(dtype), node.output[0])
        )
        return True

    def _cast_raw_input(self) -> int:
        """Put a Cast between a uint8 input and its readers."""
        from onnx import TensorProto

        constants = {tensor.name for tensor in self._editor.proto.initializer}
        casts = 0
        for value in self._editor.proto.input:
            readers = [
                node
                for node in self._graph.readers.get(value.name, [])
                if node.op_type != "Cast" and node.op_type not in QUANTIZERS
            ]
            raw = value.type.tensor_type.elem_type == TensorProto.UINT8
            if not raw or not readers or value.name in constants:
                continue
            name = self._editor.new_name(f"{value.name}_float")
            self._editor.add_node("Cast", [value.name], name, f"{name}_node", to=TensorProto.FLOAT)
            for node in readers:
                node.input[:] = [name if each == value.name else each for each in node.input]
            casts += 1
        return casts

    def _drop_unread_quantizers(self) -> None:
        """Remove the Q nodes of weights that became integers."""
        proto = self._editor.proto
        read = {name for node in proto.node for name in node.input}
        read |= {value.name for value in proto.output}
        for node in [node for node in proto.node if node.op_type == "QuantizeLinear"]:
            if node.output[0] not in read:
                proto.node.remove(node)

    def _set_grid(
        self, node: onnx.NodeProto, scale: NDArray[np.float64], zero: NDArray[np.int8]
    ) -> None:
        """Give a node a scale of the type that it had, and a zero point."""
        dtype = self._graph.value(node.input[1]).dtype
        parts = (("scale", scale.astype(dtype)), ("zero", zero))
        names = [
            self._editor.add_constant(f"{node.output[0]}_{part}", values) for part, values in parts
        ]
        node.input[:] = [node.input[0], *names]
        _drop_attribute(node, "output_dtype")


def _set_axis(node: onnx.NodeProto, axis: int) -> None:
    from onnx import helper

    _drop_attribute(node, "axis")
    node.attribute.append(helper.make_attribute("axis", axis))


def _drop_attribute(node: onnx.NodeProto, name: str) -> None:
    for entry in [entry for entry in node.attribute if entry.name == name]:
        node.attribute.remove(entry)
