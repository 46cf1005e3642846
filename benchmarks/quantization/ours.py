"""edgeml's INT8 files, as `edgeml export` makes them; the only place that calls its quantiser."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from common import calibration

from edgeml_export.ranges import Ranges
from edgeml_export.to_int8 import int8_from_onnx, measure_ranges
from edgeml_export.to_openvino import openvino_from_onnx


@cache
def ranges_of(source: Path) -> Ranges:
    """Measure the calibration photos once for all targets."""
    return measure_ranges(source, calibration())


def int8(source: Path, target: Path, runtime: Literal["onnxruntime", "openvino"]) -> Path:
    """Quantise an FP32 .onnx for a runtime: .onnx with Q/DQ nodes, or OpenVINO's .xml."""
    if runtime == "onnxruntime":
        return int8_from_onnx(source, target, ranges_of(source), layout="x86")
    with TemporaryDirectory() as folder:
        integers = Path(folder) / "int8.onnx"
        int8_from_onnx(source, integers, ranges_of(source), layout="openvino")
        return openvino_from_onnx(integers, target)
