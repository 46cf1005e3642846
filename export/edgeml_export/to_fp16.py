"""DOOR onnx, onnxconverter-common: FP32 ONNX to FP16 ONNX."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

from onnx import NodeProto, TensorProto, helper
from onnxconverter_common import float16

from edgeml.errors import ExportError
from edgeml_export.artifact import read_onnx, spec_of_onnx, write_onnx

# Sums over many values, and exponentials: what overflows, or loses most, in 11 bits of mantissa.
_KEPT_IN_FP32 = (
    "GlobalAveragePool",
    "GroupNormalization",
    "InstanceNormalization",
    "LayerNormalization",
    "LpNormalization",
    "ReduceL2",
    "ReduceMean",
    "ReduceSum",
    "Softmax",
)

_SMALLEST, _LARGEST = 5.96e-8, 65504.0
"""FP16's own limits; the converter's defaults would clip weights above 10,000."""


def fp16_from_onnx(source: Path, target: Path) -> Path:
    """Write FP16 weights and arithmetic; inputs, outputs, norms, means and softmax stay FP32.

    The types stand in the graph itself, which is where TensorRT 11 looks for them.

    Raises:
        ModelLoadError: The source is not ONNX.
        SpecError: It has no spec inside.
        ExportError: It cannot be converted.
    """
    model = read_onnx(source)
    spec = spec_of_onnx(model, source)
    cast_to_float = {node.output[0] for node in model.graph.node if _casts_to_float(node)}
    try:
        with warnings.catch_warnings():
            # One for each weight below 6e-8, which becomes that: nothing that a logit shows.
            warnings.filterwarnings("ignore", "the float32 number", UserWarning)
            converted = float16.convert_float_to_float16(
                model,
                keep_io_types=True,
                min_positive_val=_SMALLEST,
                max_finite_val=_LARGEST,
                op_block_list=[*float16.DEFAULT_OP_BLOCK_LIST, *_KEPT_IN_FP32],
            )
    except ValueError as err:
        raise ExportError(f"{source.name!r} cannot be converted to FP16: {err}") from err
    # The converter takes what such a node gives for FP16, but leaves the node as it was.
    for node in converted.graph.node:
        if node.output[0] in cast_to_float:
            node.CopyFrom(helper.make_node("Cast", node.input, node.output, to=TensorProto.FLOAT16))
    write_onnx(converted, target, replace(spec, precision="fp16", metrics={}))
    return target


def _casts_to_float(node: NodeProto) -> bool:
    return node.op_type == "Cast" and any(
        a.name == "to" and a.i == TensorProto.FLOAT for a in node.attribute
    )
