"""DOOR onnxruntime.quantization: FP32 ONNX to INT8 ONNX with explicit Q/DQ nodes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

import onnx
import onnxruntime as ort
from numpy.typing import NDArray
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from edgeml.errors import ExportError
from edgeml.progress import SILENT, Progress
from edgeml_export.artifact import has_attention, read_onnx, spec_of_onnx, write_onnx
from edgeml_export.calibration import Calibration

Layout = Literal["x86", "openvino"]

_WEIGHTED = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})

# Their ranges are what a convolution is worth after it. Without them its output would be measured
# before a ReLU6 cuts it: on MobileNetV2 the RMS error of the logits is then 0.48 instead of 0.08.
_ACTIVATIONS = frozenset({"Relu", "Clip"})

# Cheap in integers, and between quantised layers a step to float and back would cost more.
_CARRIED = frozenset({"Concat", "MaxPool"})

# Ranges are merged over batches, so this changes time only: less overhead a picture than with 1.
_BATCH = 4


def int8_from_onnx(
    source: Path,
    target: Path,
    calibration: Calibration,
    *,
    layout: Layout = "x86",
    progress: Progress = SILENT,
) -> Path:
    """Write INT8 weights and activations, with ranges measured on `calibration`.

    Weights are signed and symmetric with a scale for each output channel; activations unsigned
    with one scale a tensor, from the least and greatest value seen. The last layer stays FP32: it
    costs nothing, and 256 steps of a logit would tie scores that the ranking of images needs.

    Args:
        source: An FP32 .onnx.
        target: The .onnx to write.
        calibration: Images like those that will come.
        layout: `x86` quantises what leaves a layer too, without which ONNX Runtime computes it in
            FP32; `openvino` only what enters a layer, which OpenVINO fuses best.
        progress: Where the work shows itself.

    Raises:
        ModelLoadError: The source is not ONNX.
        SpecError: It has no spec inside.
        CalibrationError: An image cannot be read.
        ExportError: There is nothing to quantise, or ONNX Runtime cannot do it.
    """
    model = read_onnx(source)
    spec = spec_of_onnx(model, source)
    for number, node in enumerate(model.graph.node):
        node.name = node.name or f"node_{number}"  # the choice below is by name
    chosen = _nodes_to_quantize(model.graph, layout)
    if not chosen:
        raise ExportError(f"{source.name!r} has no layer to quantise besides its last one.")
    # Tells quantize_static that constants are folded, which the exporter did; else it logs advice.
    onnx.helper.set_model_props(model, {"onnx.quant.pre_process": "onnxruntime.quant"})
    with progress.task("calibrate INT8", total=len(calibration.paths)) as advance:
        batches = calibration.batches(spec, size=_BATCH, advance=advance)
        quantized = _quantize(model, chosen, layout, batches)
    count = len(calibration.paths)
    told = {
        "calibration_sha256": calibration.digest,
        "quantizer": f"onnxruntime {ort.__version__}, {layout}, min-max of {count} images",
    }
    spec = replace(spec, precision="int8", metrics={}, origin={**spec.origin, **told})
    write_onnx(quantized, target, spec)
    return target


def _quantize(
    model: onnx.ModelProto, chosen: set[str], layout: Layout, batches: Iterator[NDArray[Any]]
) -> onnx.ModelProto:
    options: dict[str, Any] = {}
    if layout == "openvino":
        options["OpTypesToExcludeOutputQuantization"] = sorted(_WEIGHTED | {"Add"})
    with TemporaryDirectory() as folder:
        written = Path(folder) / "model.onnx"
        try:
            quantize_static(
                model,
                written,
                _Reader(model.graph.input[0].name, batches),
                quant_format=QuantFormat.QDQ,
                op_types_to_quantize=sorted(
                    {node.op_type for node in model.graph.node if node.name in chosen}
                ),
                nodes_to_quantize=sorted(chosen),
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                extra_options=options,
            )
        except (RuntimeError, ValueError) as err:
            raise ExportError(f"ONNX Runtime cannot quantise the model: {err}") from err
        return onnx.load(written)


class _Reader(CalibrationDataReader):  # type: ignore[misc]  # the library has no types
    """Hands batches to the calibrator one by one, so that memory does not grow with them."""

    def __init__(self, name: str, batches: Iterator[NDArray[Any]]) -> None:
        self._name, self._batches = name, batches

    def get_next(self) -> dict[str, Any] | None:
        batch = next(self._batches, None)
        return None if batch is None else {self._name: batch}


def _nodes_to_quantize(graph: onnx.GraphProto, layout: Layout) -> set[str]:
    """Name the layers with constant weights and, in a CNN, what lies between them.

    Left out are products of two activations (attention loses accuracy and gains no time) and sums
    with a constant: OpenVINO 2026.4 dies on a quantised bias.
    """
    constants = {tensor.name for tensor in graph.initializer}
    maker = {output: node.name for node in graph.node for output in node.output}
    attention = has_attention(graph)
    chosen: set[str] = set()
    for node in graph.node:
        varying = [name for name in node.input if name and name not in constants]
        if node.op_type in _WEIGHTED:
            wanted = len(varying) == 1
        elif attention:
            wanted = False
        elif node.op_type == "Add":
            wanted = len(varying) == 2
        elif layout == "openvino":
            wanted = False  # it finds these for itself
        elif node.op_type in _CARRIED:
            wanted = all(maker.get(name) in chosen for name in varying)
        else:
            wanted = node.op_type in _ACTIVATIONS
        if wanted:
            chosen.add(node.name)
    return chosen - {_last_weighted(graph)}


def _last_weighted(graph: onnx.GraphProto) -> str | None:
    """Name the layer that gives the logits: the first with weights on the way back from them."""
    maker = {output: node for node in graph.node for output in node.output}
    name = graph.output[0].name
    while name in maker:
        node = maker[name]
        if node.op_type in _WEIGHTED:
            return str(node.name)
        name = node.input[0]
    return None
