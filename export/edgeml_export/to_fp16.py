"""DOOR onnx: FP32 ONNX, with or without Q/DQ nodes, to FP16 ONNX."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edgeml.errors import ExportError
from edgeml.runtimes.onnx_file import read_onnx, spec_of_onnx, write_onnx
from edgeml.runtimes.onnx_graph import QUANTIZERS, opset
from edgeml_export.onnx_editor import GraphEditor, name_nodes
from edgeml_export.probe import Probe

FLOAT, FLOAT16 = TensorProto.FLOAT, TensorProto.FLOAT16

# Sums over many values, and exponentials: they overflow, or lose most, in 11 bits of mantissa.
_KEPT_IN_FP32 = frozenset(
    {
        "BatchNormalization",
        "CumSum",
        "Exp",
        "GlobalAveragePool",
        "GroupNormalization",
        "InstanceNormalization",
        "LayerNormalization",
        "LogSoftmax",
        "LpNormalization",
        "MeanVarianceNormalization",
        "RMSNormalization",
        "ReduceL1",
        "ReduceL2",
        "ReduceLogSumExp",
        "ReduceMean",
        "ReduceProd",
        "ReduceSum",
        "ReduceSumSquare",
        "Softmax",
    }
)

# Their output has the type of an attribute: a tensor, or else a type that stays.
_MAKERS = ("Constant", "ConstantOfShape")

_LARGEST, _SMALLEST_NORMAL = 65504.0, 2.0**-14
"""FP16's own limits (IEEE 754 binary16)."""

_OPSET_OF_FP16_SCALES = 19
"""Up to 18 Q/DQ nodes have FP32 scales only."""


def fp16_from_onnx(source: Path, target: Path, *, keep: Collection[str] = ()) -> Path:
    """Write FP16 weights and arithmetic; inputs, outputs, norms, means and softmax stay FP32.

    The types are in the graph itself, where TensorRT looks for them. Nodes also stay FP32 if FP16
    cannot hold their constants, or if ONNX has no FP16 for them.

    Q/DQ nodes get FP16 scales, for which the file is raised to opset 19. The other way, casts
    around FP32 scales, puts a node between DequantizeLinear and its layer, where TensorRT expects
    the layer itself.

    Args:
        source: An FP32 or INT8 .onnx.
        target: The .onnx to write.
        keep: Names of nodes that stay FP32.

    Raises:
        ModelLoadError: The source is not ONNX.
        SpecError: It has no spec inside.
        ExportError: It cannot be converted.
    """
    model = read_onnx(source)
    spec = spec_of_onnx(model, source)
    if any(node.op_type in QUANTIZERS for node in model.graph.node):
        model = _at_opset(model, _OPSET_OF_FP16_SCALES)
        spec = replace(spec, provenance=replace(spec.provenance, arithmetic="fp16"))
    else:
        spec = replace(spec, precision="fp16")
    name_nodes(model.graph)
    _to_fp16(model, keep)
    write_onnx(model, target, replace(spec, metrics={}))
    return target


def fp16_emulation_from_onnx(source: Path, target: Path) -> Path:
    """Write an FP32 file that rounds each value to FP16, and so computes what an FP16 file does.

    On x86, ONNX Runtime computes an FP16 file in FP32 throughout: a value that overflows on a GPU
    is right there. The emulation overflows on any machine. Sums inside a layer are FP32, as in
    Tensor Cores.

    Args:
        source: An .onnx of `fp16_from_onnx`.
        target: The .onnx to write; its spec says FP32.

    Raises:
        ModelLoadError: The source is not ONNX.
        SpecError: It has no spec inside.
        ExportError: Its types are not known.
    """
    model = read_onnx(source)
    spec = spec_of_onnx(model, source)
    types, editor = _types(model), GraphEditor(model)
    for tensor in model.graph.initializer:
        if tensor.data_type == FLOAT16:
            tensor.CopyFrom(_typed(tensor, FLOAT))
    for node in model.graph.node:
        editor.nodes.append(node)
        _set_type(node, FLOAT16, FLOAT)
        for position, name in enumerate(node.output):
            if types.get(name) == FLOAT16:
                exact, half = editor.new_name(f"{name}_exact"), editor.new_name(f"{name}_half")
                node.output[position] = exact
                editor.add_node("Cast", [exact], half, f"{half}_cast", to=FLOAT16)
                editor.add_node("Cast", [half], name, f"{name}_rounded", to=FLOAT)
    editor.finish()
    provenance = replace(spec.provenance, arithmetic=None)
    write_onnx(model, target, replace(spec, precision="fp32", provenance=provenance))
    return target


def overflows(source: Path, batches: Iterable[NDArray[Any]]) -> dict[str, float]:
    """Return the nodes that make or read values beyond FP16, with the largest magnitude.

    Half of its range counts as all of it: other inputs may have larger values. With these as
    `keep`, `fp16_from_onnx` writes a file that does not overflow on such inputs.

    Args:
        source: An FP32 .onnx.
        batches: Inputs of the network, as `Predictor.prepare` returns them.

    Raises:
        ModelLoadError: The source is not ONNX.
        ExportError: Its types are not known.
    """
    model = read_onnx(source)
    name_nodes(model.graph)
    types, nodes = _types(model), model.graph.node
    names = [name for node in nodes for name in node.output if types.get(name) == FLOAT]
    probe, peaks = Probe(model, names), dict.fromkeys(names, 0.0)
    for batch in batches:
        tensors = probe.run(batch)
        for name in names:
            peaks[name] = float(np.maximum(peaks[name], np.abs(tensors[name]).max(initial=0)))
    large = {name: peak for name, peak in peaks.items() if not peak <= _LARGEST / 2}  # or NaN
    found = {}
    for node in nodes:
        touched = [large[name] for name in (*node.input, *node.output) if name in large]
        if touched and node.op_type not in _KEPT_IN_FP32:
            found[node.name] = max(touched)
    return found


def _at_opset(model: ModelProto, version: int) -> ModelProto:
    """Raise the version of ONNX's own operators, if it is lower.

    Raises:
        ExportError: onnx cannot convert one of the operators.
    """
    if opset(model) >= version:
        return model
    try:
        return onnx.version_converter.convert_version(model, version)
    except RuntimeError as err:  # ConvertError has no public name
        raise ExportError(f"The model cannot be raised to opset {version}: {err}") from err


def _to_fp16(model: ModelProto, keep: Collection[str]) -> None:
    """Turn nodes to FP16 where that is legal and safe, with casts at the borders.

    Each node keeps its place, and a cast comes before the first node that reads it, so the graph
    stays sorted.
    """
    kinds, version, editor = _types(model), opset(model), _TypedEditor(model)
    is_fp16 = [
        node.name not in keep and _can_be_fp16(node, version) and editor.holds(node)
        for node in model.graph.node
    ]
    editor.convert_constants(is_fp16, kinds)
    outputs = {value.name for value in model.graph.output}
    for node, fp16 in zip(model.graph.node, is_fp16, strict=True):
        node.input[:] = [editor.as_type(name, FLOAT16 if fp16 else FLOAT) for name in node.input]
        editor.nodes.append(node)
        if not fp16:
            continue
        _set_type(node, FLOAT, FLOAT16)
        for position, name in enumerate(node.output):
            if kinds.get(name) != FLOAT:
                continue
            if name in outputs:
                node.output[position] = editor.new_name(f"{name}_fp16")
                editor.add_cast(node.output[position], name, FLOAT)
            else:
                editor.types[name] = FLOAT16
    editor.finish()


class _TypedEditor(GraphEditor):
    """An editor that knows which values are FP32 or FP16.

    Attributes:
        types: By name, of the values that are floats.
    """

    def __init__(self, model: ModelProto) -> None:
        super().__init__(model)
        self._initializers = {tensor.name: tensor for tensor in model.graph.initializer}
        self.types: dict[str, int] = {}
        self._casts: dict[tuple[str, int], str] = {}

    def holds(self, node: NodeProto) -> bool:
        """Whether FP16 holds the node's constants: none too large, no scale too small."""
        tensors = [self._initializers[name] for name in node.input if name in self._initializers]
        tensors += [entry.t for entry in node.attribute if entry.HasField("t")]
        for tensor in tensors:
            if tensor.data_type != FLOAT:
                continue
            sizes = np.abs(numpy_helper.to_array(tensor))
            if (sizes[np.isfinite(sizes)] > _LARGEST).any():
                return False
            is_scale = node.op_type in QUANTIZERS and tensor.name == node.input[1]
            if is_scale and sizes.min() < _SMALLEST_NORMAL:
                return False
        return True

    def convert_constants(self, is_fp16: list[bool], kinds: dict[str, int]) -> None:
        """Turn the constants to FP16 that only FP16 nodes read."""
        self.types = {name: FLOAT for name, kind in kinds.items() if kind == FLOAT}
        readers: dict[str, set[bool]] = {}
        for node, fp16 in zip(self.proto.node, is_fp16, strict=True):
            for name in node.input:
                readers.setdefault(name, set()).add(fp16)
        for name, tensor in self._initializers.items():
            if self.types.get(name) == FLOAT and readers.get(name) == {True}:
                tensor.CopyFrom(_typed(tensor, FLOAT16))
                self.types[name] = FLOAT16

    def as_type(self, name: str, kind: int) -> str:
        """Return the name of a value in this type, and add a cast, or a constant, if needed."""
        if name not in self.types or self.types[name] == kind:
            return name
        if (name, kind) not in self._casts:
            suffix = "fp16" if kind == FLOAT16 else "fp32"
            if name in self._initializers:
                values = numpy_helper.to_array(_typed(self._initializers[name], kind))
                self._casts[name, kind] = self.add_constant(f"{name}_{suffix}", values)
            else:
                self._casts[name, kind] = self.new_name(f"{name}_{suffix}")
                self.add_cast(name, self._casts[name, kind], kind)
        return self._casts[name, kind]

    def add_cast(self, name: str, output: str, kind: int) -> None:
        self.add_node("Cast", [name], output, f"{output}_cast", to=kind)


def _types(model: ModelProto) -> dict[str, int]:
    """Return the type of every value of the graph.

    Raises:
        ExportError: onnx cannot infer them, or the network branches.
    """
    graph = model.graph
    for node in graph.node:
        if any(entry.HasField("g") for entry in node.attribute):
            raise ExportError(f"The network has control flow ({node.op_type}), which stays FP32.")
    try:
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    except onnx.shape_inference.InferenceError as err:
        raise ExportError(f"The types inside the network cannot be inferred: {err}") from err
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    unknown = [name for node in graph.node for name in node.output if name and name not in types]
    if unknown:
        raise ExportError(
            f"The type of {unknown[0]!r} cannot be inferred; is its operator ONNX's own?"
        )
    return types


def _can_be_fp16(node: NodeProto, version: int) -> bool:
    """Whether, by ONNX's own schema, the operator takes FP16 wherever it takes FP32."""
    if node.op_type in _KEPT_IN_FP32 or node.domain not in ("", "ai.onnx"):
        return False
    if node.op_type in _MAKERS and not any(entry.HasField("t") for entry in node.attribute):
        return False
    schema = onnx.defs.get_schema(node.op_type, version)
    allowed = {entry.type_param_str: entry.allowed_type_strs for entry in schema.type_constraints}
    for parameter in (*schema.inputs, *schema.outputs):
        types = allowed.get(parameter.type_str, [parameter.type_str])
        if "tensor(float)" in types and "tensor(float16)" not in types:
            return False
    return True


def _typed(tensor: TensorProto, kind: int) -> TensorProto:
    values = numpy_helper.to_array(tensor)
    return numpy_helper.from_array(
        values.astype(helper.tensor_dtype_to_np_dtype(kind)), tensor.name
    )


def _set_type(node: NodeProto, before: int, after: int) -> None:
    """Let a node that makes values of a type by itself make another one."""
    for entry in node.attribute:
        if node.op_type == "Cast" and entry.name == "to" and entry.i == before:
            entry.i = after
        elif entry.HasField("t") and entry.t.data_type == before:
            entry.t.CopyFrom(_typed(entry.t, after))
