"""edgeml's INT8 files, as `edgeml export` writes them; the only place that calls its quantiser."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Literal

from common import calibration, photos

from edgeml_export.int8.histogram import Method
from edgeml_export.int8.ranges import Ranges, measure_ranges
from edgeml_export.int8.search import Candidates, choose_method
from edgeml_export.int8.targets import Target
from edgeml_export.int8.to_int8 import int8_from_onnx
from edgeml_export.to_openvino import openvino_from_onnx


@cache
def ranges_of(source: Path) -> Ranges:
    """Measure the calibration photos once for all targets."""
    return measure_ranges(source, calibration())


@cache
def method_of(source: Path, layout: Target) -> Method:
    """Choose on the validation side how ranges are taken."""
    candidates = Candidates(source, ranges_of(source), layout, photos().part("val"))
    return choose_method(candidates).method


def int8(source: Path, target: Path, runtime: Literal["onnxruntime", "openvino"]) -> Path:
    """Quantise an FP32 .onnx for a runtime: .onnx with Q/DQ nodes, or OpenVINO's .xml."""
    if runtime == "onnxruntime":
        method = method_of(source, "x86")
        return int8_from_onnx(source, target, ranges_of(source), layout="x86", method=method)
    with TemporaryDirectory() as folder:
        integers = Path(folder) / "int8.onnx"
        method = method_of(source, "openvino")
        int8_from_onnx(source, integers, ranges_of(source), layout="openvino", method=method)
        return openvino_from_onnx(integers, target)
