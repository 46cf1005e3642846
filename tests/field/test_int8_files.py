"""How much of a file is INT8, and files that other tools quantised."""

from __future__ import annotations

import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from edgeml import Predictor
from edgeml.data import Dataset
from edgeml.predict.inspection import describe
from edgeml.runtimes.onnx_graph import IntegerLayers
from edgeml.spec.storage import sidecar_path
from edgeml_export import export, pipeline
from tests.export.graphs import SIDE, SPEC
from tests.field.nets import CONSTANTS, NODES, plain_network, stored
from tests.field.test_onnx_files import WIDE

pytestmark = pytest.mark.runtime


def quantized_by_onnxruntime(folder: Path, form: str) -> Path:
    """Quantise the plain network with ONNX Runtime's own tool."""
    from onnxruntime.quantization import (
        CalibrationDataReader,
        QuantFormat,
        QuantType,
        quantize_static,
    )

    class Images(CalibrationDataReader):  # type: ignore[misc]  # no stubs
        def __init__(self) -> None:
            rng = np.random.default_rng(0)
            batches = (rng.normal(0, 1, (1, 3, SIDE, SIDE)).astype(np.float32) for _ in range(3))
            self._feeds = iter([{"input": batch} for batch in batches])

        def get_next(self) -> dict[str, np.ndarray] | None:
            return next(self._feeds, None)

    source, target = folder / "float.onnx", folder / f"{form}.onnx"
    source.write_bytes(plain_network().SerializeToString())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        options = {"quant_format": QuantFormat[form], "activation_type": QuantType.QUInt8}
        quantize_static(source, target, Images(), **options)
    sidecar_path(target).write_text(SPEC.to_json())
    return target


@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
def test_a_file_quantised_by_onnxruntime_is_described_as_int8(form: str, tmp_path: Path) -> None:
    path = quantized_by_onnxruntime(tmp_path, form)
    assert describe(path)["computes_in"] == "int8"
    counted = IntegerLayers.of(onnx.load(path))
    assert counted == IntegerLayers(int8=3, weighted=3)


def test_fp16_of_another_tool_comes_with_the_note_on_x86(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    constants = {name: value.astype(np.float16) for name, value in CONSTANTS.items()}
    path = tmp_path / "half.onnx"
    half = plain_network(NODES, constants, dtype=TensorProto.FLOAT16)
    path.write_bytes(half.SerializeToString())
    sidecar_path(path).write_text(replace(SPEC, input="float16").to_json())
    with Predictor(path) as predictor:
        computes_in = predictor.runtime.metadata["precision"]
    notes = [record for record in caplog.records if "half.onnx" in record.getMessage()]
    assert (computes_in, len(notes)) in (("f32", 1), ("f16", 0))


def test_an_export_states_how_many_layers_are_int8(
    tmp_path: Path, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "measure_speed", lambda *_: None)
    source = stored(plain_network(), tmp_path / "model.onnx")
    done = export(source, "onnx", precision="int8", calib=data, check=data, allow_overlap=True,
                  **WIDE)  # fmt: skip
    stated = done.to_dict()["int8"]
    assert (stated["int8_layers"], stated["weighted_layers"]) == (2, 3)
    assert done.report is not None
    assert "2 of 3 weighted layers are INT8" in done.report.read_text()


def test_float_layers_are_counted_as_such() -> None:
    assert IntegerLayers.of(plain_network()) == IntegerLayers(int8=0, weighted=3)
