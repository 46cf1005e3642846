"""DOOR openvino: ONNX to OpenVINO IR, an .xml with its .bin."""

from __future__ import annotations

import io
from dataclasses import replace
from pathlib import Path

from edgeml.errors import ExportError
from edgeml.runtimes.model_files import staged_model
from edgeml.runtimes.onnx_file import read_onnx, spec_of_onnx
from edgeml.runtimes.protocol import one_line
from edgeml.runtimes.telemetry import without_telemetry
from edgeml.spec.foreign.model_api import model_info
from edgeml.spec.storage import spec_metadata

with without_telemetry():
    import openvino as ov


def openvino_from_onnx(source: Path, target: Path, *, fp16: bool = False) -> Path:
    """Write an .xml and, next to it, its weights as .bin, from FP32 or INT8 ONNX; both or none.

    INT8 comes with the source, as Q/DQ nodes laid out for OpenVINO. NNCF would quantise OpenVINO's
    own graph; on a trained MobileNetV2 that moved decisions five times as far, and was no faster
    (benchmarks/quantization). `fp16` stores weights as FP16, and the spec states it: the precision
    of the arithmetic is chosen when the file is opened.

    Raises:
        ModelLoadError: The source is not ONNX.
        SpecError: It has no spec inside.
        ExportError: OpenVINO cannot convert it.
    """
    network = read_onnx(source)
    spec = spec_of_onnx(network, source)
    if fp16:
        spec = replace(spec, precision="fp16", metrics={})
    # OpenVINO would store the source's metadata under `framework`, with a spec that soon is stale.
    network.ClearField("metadata_props")
    try:
        model = ov.Core().read_model(io.BytesIO(network.SerializeToString()))
        for key, text in spec_metadata(spec).items():
            model.set_rt_info(text, [key])
        for key, value in model_info(spec).items():
            model.set_rt_info(value, ["model_info", key])
        with staged_model(target) as temporary:
            ov.save_model(model, temporary, compress_to_fp16=fp16)
    except RuntimeError as err:
        reason = one_line(err)[-300:]
        raise ExportError(f"OpenVINO cannot convert {source.name!r}: {reason}") from err
    return target
