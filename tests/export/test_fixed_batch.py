"""A network with a fixed batch size is exported like its twin that takes any batch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from edgeml import Predictor
from edgeml.data import Dataset
from edgeml.runtimes.onnx_file import read_onnx, spec_of_onnx, write_onnx
from edgeml_export import export
from edgeml_export.verify import verify

pytestmark = [pytest.mark.train, pytest.mark.runtime]


def with_batch(source: Path, target: Path, size: int) -> Path:
    """Write a copy of a network whose batch size is fixed."""
    model = read_onnx(source)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = size
    del model.graph.value_info[:]
    target.parent.mkdir()
    write_onnx(model, target, spec_of_onnx(model, source))
    return target


def scores(path: Path, data: Dataset) -> np.ndarray:
    with Predictor(path) as predictor:
        frames = [predictor.read(image) for image in data.paths[:9]]
        return predictor.probabilities(predictor.logits(frames))


@pytest.mark.parametrize(("fmt", "size"), [("onnx", 1), ("openvino", 3)])
def test_int8_is_that_of_the_twin_with_any_batch(
    fmt: str, size: int, network: Path, data: Dataset, test_part: Dataset, tmp_path: Path
) -> None:
    fixed = with_batch(network, tmp_path / "fixed" / "model.onnx", size)
    wide = {"max_drop": 10.0, "max_label_drop": 100.0}
    exported = []
    for source, folder in ((network, "any"), (fixed, "one")):
        out = tmp_path / folder / ("model.onnx" if fmt == "onnx" else "model.xml")
        done = export(source, fmt, precision="int8", calib=data, check=data, out=out, **wide)
        exported.append(done.path)
        assert done.checks is not None
        assert done.checks.passed
    apart_fp32 = np.abs(scores(network, data) - scores(fixed, data)).max()
    apart_int8 = np.abs(scores(exported[0], data) - scores(exported[1], data)).max()
    assert apart_int8 == pytest.approx(apart_fp32, abs=1e-6)
    assert verify(exported[1], against=fixed, data=test_part, **wide).passed
