"""DOOR onnx: FP32 ONNX, with or without Q/DQ nodes, to FP16 ONNX."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper, numpy_helper

from edgeml.errors import ExportError
from edgeml.runtimes.onnx_file import read_onnx, spec_of_onnx, write_onnx
from edgeml.runtimes.telemetry import without_telemetry

with without_telemetry():
    import onnxruntime as ort

FLOAT, FLOAT16 = TensorProto.FLOAT, TensorProto.FLOAT16

# Sums over many values, and exponentials: what overflows, or loses most, in 11 bits of mantissa.
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

_QUANTIZERS = ("QuantizeLinear", "DequantizeLinear")

# What they make is as they are told, by an attribute that is a tensor or else cannot be FP16.
_MAKERS = ("Constant", "ConstantOfShape")

_LARGEST, _SMALLEST_NORMAL = 65504.0, 2.0**-14
"""FP16's own limits (IEEE 754 binary16)."""

_OPSET_OF_HALF_SCALES = 19
"""Up to 18 Q/DQ nodes have FP32 scales only."""


def fp16_from_onnx(source: Path, target: Path, *, keep: Collection[str] = ()) -> Path:
    """Write FP16 weights and arithmetic; inputs, outputs, norms, means and softmax stay FP32.

    The types stand in the graph itself, which is where TensorRT looks for them. So do nodes stay
    FP32 whose constants FP16 cannot hold, and those for which ONNX knows no FP16.

    Q/DQ nodes get FP16 scales, for which the file is raised to opset 19. The other way, casts
    around FP32 scales, puts a node between DequantizeLinear and its layer, where TensorRT looks
    for nothing but the layer.

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
    if any(node.op_type in _QUANTIZERS for node in model.graph.node):
        model = _at_opset(model, _OPSET_OF_HALF_SCALES)
        spec = replace(spec, provenance=replace(spec.provenance, arithmetic="fp16"))
    else:
        spec = replace(spec, precision="fp16")
    _name_nodes(model)
    _halve(model, frozenset(keep))
    write_onnx(model, target, replace(spec, metrics={}))
    return target


def rounded_from_onnx(source: Path, target: Path) -> Path:
    """Write what an FP16 file computes as one of FP32, in which each value is rounded to FP16.

    On x86, ONNX Runtime computes an FP16 file in FP32 from end to end: what overflows on a GPU is
    right there. This twin shows it on any machine. Sums inside of a layer are FP32, as in Tensor
    Cores.

    Args:
        source: An .onnx of `fp16_from_onnx`.
        target: The .onnx to write; its spec says FP32.

    Raises:
        ModelLoadError: The source is not ONNX.
        SpecError: It has no spec inside.
        ExportError: Its types cannot be told.
    """
    model = read_onnx(source)
    spec = spec_of_onnx(model, source)
    graph, kinds = model.graph, _types(model)
    halves = {name for name, kind in kinds.items() if kind == FLOAT16}
    for tensor in graph.initializer:
        if tensor.data_type == FLOAT16:
            tensor.CopyFrom(_typed(tensor, FLOAT))
    nodes = []
    for node in graph.node:
        nodes.append(node)
        _set_type(node, FLOAT16, FLOAT)
        for position, name in enumerate(node.output):
            if name in halves:
                node.output[position] = f"{name}_exact"
                nodes.append(_cast(f"{name}_exact", f"{name}_half", FLOAT16))
                nodes.append(_cast(f"{name}_half", name, FLOAT))
                nodes[-1].name = f"{name}_rounded"
    _replace_nodes(graph, nodes)
    provenance = replace(spec.provenance, arithmetic=None)
    write_onnx(model, target, replace(spec, precision="fp32", provenance=provenance))
    return target


def overflows(source: Path, batches: Iterable[NDArray[Any]]) -> dict[str, float]:
    """Name the nodes that make or read what FP16 cannot hold, with the largest magnitude of it.

    Half of its range counts as all of it: other inputs may give larger values. With these as
    `keep`, `fp16_from_onnx` gives a file that does not overflow on such inputs.

    Args:
        source: An FP32 .onnx.
        batches: Inputs of the network, as `Predictor.prepare` gives them.

    Raises:
        ModelLoadError: The source is not ONNX.
        ExportError: Its types cannot be told.
    """
    model = read_onnx(source)
    _name_nodes(model)
    graph, kinds = model.graph, _types(model)
    nodes = list(graph.node)
    names = [name for node in nodes for name in node.output if kinds.get(name) == FLOAT]
    del graph.output[:]
    for number, name in enumerate(names):
        peak = f"peak_{number}"
        graph.node.append(helper.make_node("Abs", [name], [f"{peak}_all"]))
        graph.node.append(helper.make_node("ReduceMax", [f"{peak}_all"], [peak], keepdims=0))
        graph.output.append(helper.make_tensor_value_info(peak, FLOAT, []))
    options = ort.SessionOptions()
    options.log_severity_level = 3
    session = ort.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    peaks = np.zeros(len(names))
    for batch in batches:
        peaks = np.maximum(peaks, session.run(None, {graph.input[0].name: batch}))
    large = {n: float(p) for n, p in zip(names, peaks, strict=True) if not p <= _LARGEST / 2}
    found = {}
    for node in nodes:
        touched = [large[name] for name in (*node.input, *node.output) if name in large]
        if touched and node.op_type not in _KEPT_IN_FP32:
            found[node.name] = max(touched)
    return found


def _name_nodes(model: ModelProto) -> None:
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"node_{number}"


def _at_opset(model: ModelProto, version: int) -> ModelProto:
    """Raise the version of ONNX's own operators, if it is lower.

    Raises:
        ExportError: onnx knows no way for one of the operators.
    """
    if _opset(model) >= version:
        return model
    try:
        return onnx.version_converter.convert_version(model, version)
    except RuntimeError as err:  # ConvertError has no public name
        raise ExportError(f"The model cannot be raised to opset {version}: {err}") from err


def _opset(model: ModelProto) -> int:
    return next(
        int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx")
    )


def _halve(model: ModelProto, keep: frozenset[str]) -> None:
    """Turn nodes to FP16 where that is legal and safe, with casts at the borders.

    Each node keeps its place, and a cast comes before the first node that reads it, so the graph
    stays sorted.
    """
    graph, kinds, opset = model.graph, _types(model), _opset(model)
    constants = {tensor.name: tensor for tensor in graph.initializer}
    halved = [
        node.name not in keep and _can_be_half(node, opset) and _holds(node, constants)
        for node in graph.node
    ]
    readers: dict[str, set[bool]] = {}
    for node, half in zip(graph.node, halved, strict=True):
        for name in node.input:
            readers.setdefault(name, set()).add(half)

    given = {value.name for value in graph.output}
    types = {
        name: FLOAT for name, kind in kinds.items() if kind == FLOAT
    }  # of what there is so far
    for name in [name for name in constants if types.get(name) == FLOAT]:
        if readers.get(name) == {True}:
            constants[name].CopyFrom(_typed(constants[name], FLOAT16))
            types[name] = FLOAT16
    nodes: list[NodeProto] = []
    casts: dict[tuple[str, int], str] = {}

    def as_type(name: str, wanted: int) -> str:
        if name not in types or types[name] == wanted:
            return name
        if (name, wanted) not in casts:
            casts[name, wanted] = made = f"{name}_{'fp16' if wanted == FLOAT16 else 'fp32'}"
            if name in constants:
                tensor = graph.initializer.add()
                tensor.CopyFrom(_typed(constants[name], wanted))
                tensor.name = made
            else:
                nodes.append(_cast(name, made, wanted))
        return casts[name, wanted]

    for node, half in zip(graph.node, halved, strict=True):
        node.input[:] = [as_type(name, FLOAT16 if half else FLOAT) for name in node.input]
        nodes.append(node)
        if not half:
            continue
        _set_type(node, FLOAT, FLOAT16)
        for position, name in enumerate(node.output):
            if kinds.get(name) != FLOAT:
                continue
            if name in given:
                node.output[position] = f"{name}_fp16"
                nodes.append(_cast(f"{name}_fp16", name, FLOAT))
            else:
                types[name] = FLOAT16
    _replace_nodes(graph, nodes)


def _types(model: ModelProto) -> dict[str, int]:
    """Tell the type of every value of the graph.

    Raises:
        ExportError: onnx cannot infer them, or the network branches.
    """
    graph = model.graph
    for node in graph.node:
        if any(attribute.HasField("g") for attribute in node.attribute):
            raise ExportError(f"The network has control flow ({node.op_type}), which stays FP32.")
    try:
        inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    except onnx.shape_inference.InferenceError as err:
        raise ExportError(f"The types inside the network cannot be told: {err}") from err
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    types |= {tensor.name: tensor.data_type for tensor in graph.initializer}
    unknown = [name for node in graph.node for name in node.output if name and name not in types]
    if unknown:
        raise ExportError(f"The type of {unknown[0]!r} cannot be told; is its operator ONNX's own?")
    return types


def _can_be_half(node: NodeProto, opset: int) -> bool:
    """Ask ONNX's own schema whether the operator takes FP16 wherever it takes FP32."""
    if node.op_type in _KEPT_IN_FP32 or node.domain not in ("", "ai.onnx"):
        return False
    if node.op_type in _MAKERS and not any(entry.HasField("t") for entry in node.attribute):
        return False
    schema = onnx.defs.get_schema(node.op_type, opset)
    allowed = {entry.type_param_str: entry.allowed_type_strs for entry in schema.type_constraints}
    for parameter in (*schema.inputs, *schema.outputs):
        types = allowed.get(parameter.type_str, [parameter.type_str])
        if "tensor(float)" in types and "tensor(float16)" not in types:
            return False
    return True


def _holds(node: NodeProto, constants: Mapping[str, TensorProto]) -> bool:
    """Say whether FP16 holds the node's constants: none too large, no scale too small."""
    held = [constants[name] for name in node.input if name in constants]
    held += [attribute.t for attribute in node.attribute if attribute.HasField("t")]
    for tensor in held:
        if tensor.data_type != FLOAT:
            continue
        sizes = np.abs(numpy_helper.to_array(tensor))
        if (sizes[np.isfinite(sizes)] > _LARGEST).any():
            return False
        is_scale = node.op_type in _QUANTIZERS and tensor.name == node.input[1]
        if is_scale and sizes.min() < _SMALLEST_NORMAL:
            return False
    return True


def _typed(tensor: TensorProto, kind: int) -> TensorProto:
    values = numpy_helper.to_array(tensor)
    return numpy_helper.from_array(
        values.astype(helper.tensor_dtype_to_np_dtype(kind)), tensor.name
    )


def _set_type(node: NodeProto, before: int, after: int) -> None:
    """Let a node that makes values of a type by itself make another one."""
    for attribute in node.attribute:
        if node.op_type == "Cast" and attribute.name == "to" and attribute.i == before:
            attribute.i = after
        elif attribute.HasField("t") and attribute.t.data_type == before:
            attribute.t.CopyFrom(_typed(attribute.t, after))


def _cast(name: str, output: str, kind: int) -> NodeProto:
    return helper.make_node("Cast", [name], [output], name=f"{output}_cast", to=kind)


def _replace_nodes(graph: GraphProto, nodes: list[NodeProto]) -> None:
    copies = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)
    del graph.value_info[:]  # of types that are no more
