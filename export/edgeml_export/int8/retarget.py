"""Rewrites the Q/DQ nodes of an INT8 file, whoever made it, into those that TensorRT takes.

Every value keeps its meaning but for one more rounding: what was unsigned, or lay around a zero
point, gets the symmetric range that holds it. Where the old range cut values off, a Relu or Clip
does so now: quantisers hide there the ReLU that they took out.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import ExportError
from edgeml.runtimes.onnx_file import (
    LAYERS,
    QUANTIZERS,
    Graph,
    named,
    output_axis,
    read_onnx,
    spec_of_onnx,
    write_onnx,
)
from edgeml.runtimes.tensorrt.legality import refused_by_tensorrt
from edgeml.spec.model_spec import ModelSpec

if TYPE_CHECKING:
    import onnx

_INTEGERS = (np.uint8, np.int8, np.uint16, np.int16)

# What they give is never negative.
_ABOVE_ZERO = ("Relu", "Sigmoid", "HardSigmoid", "Softmax")


def retargeted_from_onnx(source: Path, target: Path, spec: ModelSpec | None = None) -> str:
    """Write an INT8 file so that TensorRT takes it; what is legal already stays as it is.

    Args:
        source: An .onnx with Q/DQ nodes.
        target: The .onnx to write; the notes of its provenance say what was rewritten.
        spec: Instead of the one inside the source.

    Returns:
        What was rewritten, in words; empty if nothing had to be.

    Raises:
        ModelLoadError: The source is not ONNX.
        SpecError: It has no spec inside.
        ExportError: It has what cannot be rewritten; names the node.
    """
    model = read_onnx(source)
    spec = spec or spec_of_onnx(model, source)
    told = retarget(model)
    if told:
        notes = {**spec.provenance.notes, "retargeted": f"to tensorrt: {told}"}
        spec = replace(spec, provenance=replace(spec.provenance, notes=notes))
    write_onnx(model, target, replace(spec, metrics={}))
    return told


def retarget(model: onnx.ModelProto) -> str:
    """Rewrite a network in place. Gives and raises what `retargeted_from_onnx` does."""
    if not refused_by_tensorrt(model):
        return ""
    done = _Rewriter(model).rewrite()
    left = refused_by_tensorrt(model)
    if left:
        raise ExportError(f"This cannot be rewritten for TensorRT: {' '.join(left[:3])}")
    return ", ".join(f"{count} {what}" for what, count in sorted(done.items()) if count)


@dataclass(frozen=True)
class _Grid:
    """What integers mean: scale * (q - zero). Scale and zero are () or (channels,)."""

    scale: NDArray[np.float64]
    zero: NDArray[np.int64]
    dtype: np.dtype[Any]

    @property
    def is_right(self) -> bool:
        return self.dtype == np.int8 and not self.zero.any()

    @property
    def ends(self) -> tuple[float, float]:
        """Give the least and the greatest value, of all channels."""
        info = np.iinfo(self.dtype)
        low, high = (self.scale * (end - self.zero) for end in (info.min, info.max))
        return float(low.min()), float(high.max())


class _Rewriter:
    """Rewrites one graph."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._proto, self._graph = model.graph, Graph.of(model)
        self._names = {tensor.name for tensor in model.graph.initializer}
        self._names |= {value.name for value in model.graph.input}
        self._names |= {name for node in model.graph.node for name in (node.name, *node.output)}
        self._nodes: list[onnx.NodeProto] = []
        # As it was before anything is rewritten, by what a node makes.
        self._grids = {
            node.output[0]: self._grid(node)
            for node in model.graph.node
            if node.op_type in QUANTIZERS
        }

    def rewrite(self) -> Counter[str]:
        """Write the graph anew, node by node; count what was changed."""
        from onnx import NodeProto

        done = Counter(inputs=self._cast_raw_input())
        for node in self._proto.node:
            grid = self._grids.get(node.output[0]) if node.op_type in QUANTIZERS else None
            if grid is not None and grid.dtype == np.int32 and self._put_bias_in_float(node, grid):
                done["biases"] += 1
                continue
            if grid is not None and grid.dtype.type in _INTEGERS:
                done.update(self._rewrite_quantizer(node, grid))
            self._nodes.append(node)
        copies = [NodeProto.FromString(node.SerializeToString()) for node in self._nodes]
        del self._proto.node[:]
        self._proto.node.extend(copies)
        self._drop_unread()
        del self._proto.value_info[:]  # of types that are no more
        return done

    def _rewrite_quantizer(self, node: onnx.NodeProto, grid: _Grid) -> dict[str, int]:
        if self._graph.is_weight(node):
            # A Q before the DQ of a weight goes when the DQ gets integers.
            rewrite = node.op_type == "DequantizeLinear"
            return {"weights": int(rewrite and self._requantize(node, grid))}
        self._check_same(node, grid)
        if grid.is_right and grid.scale.size == 1 and len(node.input) > 2 and node.input[2]:
            return {}
        low, high = grid.ends
        scale = max(low / -128, high / 127)
        first = node.op_type == "QuantizeLinear"
        if first:
            self._cut(node, low, high, scale)
        self._set_grid(node, np.asarray(scale), np.zeros((), np.int8))
        return {"activations": int(first)}

    def _grid(self, node: onnx.NodeProto) -> _Grid:
        scale = self._graph.value(node.input[1])
        if scale is None or any(one.name == "block_size" and one.i for one in node.attribute):
            raise ExportError(
                f"{named(node)}: scales that are computed, or one for each block of values, "
                "cannot be rewritten for TensorRT."
            )
        given = self._graph.value(node.input[2]) if len(node.input) > 2 else None
        zero = np.zeros(np.shape(scale), np.int64) if given is None else given.astype(np.int64)
        return _Grid(np.asarray(scale, np.float64), zero, self._graph.dtype(node))

    def _check_same(self, node: onnx.NodeProto, grid: _Grid) -> None:
        """Refuse a DQ that reads integers otherwise than they were written: one is rewritten alone.

        Raises:
            ExportError: It does.
        """
        maker = self._graph.maker.get(node.input[0])
        if maker is None or node.op_type != "DequantizeLinear" or maker.op_type not in QUANTIZERS:
            return
        written = self._grids[maker.output[0]]
        if not np.array_equal(written.zero, grid.zero) or written.dtype != grid.dtype:
            raise ExportError(
                f"{named(node)} reads integers otherwise than {named(maker)} writes them; "
                "that cannot be rewritten for TensorRT."
            )

    def _cut(self, node: onnx.NodeProto, low: float, high: float, scale: float) -> None:
        """Cut off what the old range cut off and the symmetric one does not."""
        half = scale / 2
        if low <= -128 * scale + half and high >= 127 * scale - half:
            return
        maker = self._graph.maker.get(node.input[0])
        if low == 0 and maker is not None and maker.op_type in _ABOVE_ZERO:
            return
        source, name = node.input[0], self._fresh(f"{node.input[0]}_cut")
        if low == 0:
            self._add("Relu", [source], name)
        else:
            # As floats of the type that the scale has, which is the one of what is cut.
            dtype = self._graph.value(node.input[1]).dtype
            ends = [np.asarray(end, dtype) for end in (low, high)]
            self._add("Clip", [source, *(self._constant(f"{name}_end", end) for end in ends)], name)
        node.input[0] = name

    def _requantize(self, node: onnx.NodeProto, grid: _Grid) -> bool:
        """Give a weight symmetric integers, with a scale for each output channel if it had one.

        uint8 around 128 is int8 that was shifted: it keeps its integers and its scales.
        """
        if grid.is_right:
            return False
        weight, axis = self._real_weight(node, grid)
        if grid.dtype == np.uint8 and (grid.zero == 128).all():
            scale = grid.scale
        else:
            axis = axis if grid.scale.size > 1 else self._output_axis(node, weight.ndim)
            others = None if axis is None else tuple(set(range(weight.ndim)) - {axis})
            scale = np.asarray(np.abs(weight).max(axis=others) / 127)
            scale = np.where(scale > np.finfo(np.float32).tiny, scale, 1.0)
        integers = np.clip(np.rint(weight / _spread(scale, axis, weight.ndim)), -128, 127)
        node.input[0] = self._constant(f"{node.output[0]}_int8", integers.astype(np.int8))
        self._set_grid(node, scale, np.zeros(scale.shape, np.int8))
        if scale.size > 1 and axis is not None:
            _set_axis(node, axis)
        return True

    def _real_weight(
        self, node: onnx.NodeProto, grid: _Grid
    ) -> tuple[NDArray[np.float64], int | None]:
        """Give what a DQ node makes of a constant, and the axis that its scales count."""
        axis = _axis(node) if grid.scale.size > 1 else None
        stored = np.asarray(self._graph.stored(node))
        scale, zero = (_spread(part, axis, stored.ndim) for part in (grid.scale, grid.zero))
        if stored.dtype.kind == "f":  # Q and DQ behind a float
            info = np.iinfo(grid.dtype)
            stored = np.clip(np.rint(stored / scale) + zero, info.min, info.max)
        return (stored.astype(np.float64) - zero) * scale, axis

    def _output_axis(self, node: onnx.NodeProto, dimensions: int) -> int | None:
        """Give the axis of output channels of the layers that read a weight, if they agree."""
        readers = self._graph.readers.get(node.output[0], [])
        axes = {output_axis(one, dimensions) for one in readers if one.op_type in LAYERS}
        others = any(one.op_type not in LAYERS for one in readers)
        return axes.pop() if len(axes) == 1 and dimensions > 1 and not others else None

    def _put_bias_in_float(self, node: onnx.NodeProto, grid: _Grid) -> bool:
        """Put a constant in place of a DQ node on int32, under the same name."""
        if node.op_type != "DequantizeLinear" or self._graph.value(node.input[0]) is None:
            return False
        from onnx import numpy_helper

        values, _ = self._real_weight(node, grid)
        dtype = self._graph.value(node.input[1]).dtype
        self._proto.initializer.append(
            numpy_helper.from_array(values.astype(dtype), node.output[0])
        )
        return True

    def _cast_raw_input(self) -> int:
        """Let a uint8 input go into a Cast first, and what read it read that."""
        from onnx import TensorProto

        constants = {tensor.name for tensor in self._proto.initializer}
        cast = 0
        for value in self._proto.input:
            readers = [
                node
                for node in self._graph.readers.get(value.name, [])
                if node.op_type != "Cast" and node.op_type not in QUANTIZERS
            ]
            raw = value.type.tensor_type.elem_type == TensorProto.UINT8
            if not raw or not readers or value.name in constants:
                continue
            name = self._fresh(f"{value.name}_float")
            self._add("Cast", [value.name], name, to=TensorProto.FLOAT)
            for node in readers:
                node.input[:] = [name if one == value.name else one for one in node.input]
            cast += 1
        return cast

    def _drop_unread(self) -> None:
        """Take out the Q nodes of weights that became integers, and constants nobody reads."""
        read = {name for node in self._proto.node for name in node.input}
        read |= {value.name for value in self._proto.output}
        for node in [node for node in self._proto.node if node.op_type == "QuantizeLinear"]:
            if node.output[0] not in read:
                self._proto.node.remove(node)
        read = {name for node in self._proto.node for name in node.input}
        kept = [tensor for tensor in self._proto.initializer if tensor.name in read]
        del self._proto.initializer[:]
        self._proto.initializer.extend(kept)

    def _set_grid(
        self, node: onnx.NodeProto, scale: NDArray[np.float64], zero: NDArray[np.int8]
    ) -> None:
        """Give a node a scale of the type that it had, and a zero point."""
        dtype = self._graph.value(node.input[1]).dtype
        parts = (("scale", scale.astype(dtype)), ("zero", zero))
        names = [self._constant(f"{node.output[0]}_{part}", values) for part, values in parts]
        node.input[:] = [node.input[0], *names]
        for attribute in [one for one in node.attribute if one.name == "output_dtype"]:
            node.attribute.remove(attribute)

    def _add(self, kind: str, inputs: list[str], output: str, **attributes: Any) -> None:
        from onnx import helper

        node = helper.make_node(kind, inputs, [output], self._fresh(f"{output}_node"), **attributes)
        self._nodes.append(node)

    def _constant(self, name: str, values: NDArray[Any]) -> str:
        from onnx import numpy_helper

        name = self._fresh(name)
        self._proto.initializer.append(numpy_helper.from_array(values, name))
        return name

    def _fresh(self, name: str) -> str:
        """Give a name that nothing in the graph has yet: this one, or one with `_` behind."""
        while name in self._names:
            name += "_"
        self._names.add(name)
        return name


def _spread(values: NDArray[Any], axis: int | None, dimensions: int) -> NDArray[Any]:
    """Shape values of channels so that they multiply a tensor of that many dimensions."""
    if axis is None or values.size == 1:
        return values.reshape(())
    return values.reshape([-1 if index == axis else 1 for index in range(dimensions)])


def _axis(node: onnx.NodeProto) -> int:
    return next((int(one.i) for one in node.attribute if one.name == "axis"), 1)


def _set_axis(node: onnx.NodeProto, axis: int) -> None:
    from onnx import helper

    for attribute in [one for one in node.attribute if one.name == "axis"]:
        node.attribute.remove(attribute)
    node.attribute.append(helper.make_attribute("axis", axis))
