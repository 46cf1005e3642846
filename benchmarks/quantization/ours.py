"""edgeml's INT8 files, as `edgeml export` makes them; the only place that calls its quantisers."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from common import calibration

from edgeml_export.to_int8 import int8_from_onnx
from edgeml_export.to_openvino import openvino_from_onnx


def int8(source: Path, target: Path, runtime: Literal["onnxruntime", "openvino"]) -> Path:
    """Quantise an FP32 .onnx for a runtime: .onnx with Q/DQ nodes, or OpenVINO's .xml."""
    if runtime == "openvino":
        return openvino_from_onnx(source, target, precision="int8", calibration=calibration())
    return int8_from_onnx(source, target, calibration(), layout="x86")
