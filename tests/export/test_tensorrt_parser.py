"""NVIDIA's own parser and builder on our INT8 files, where TensorRT-RTX is installed.

It builds without a GPU: pip install tensorrt_rtx_cu13_libs tensorrt_rtx_cu13_bindings, 96 MB.
Nothing is run here, and the kernels it chooses are not those of TensorRT.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from edgeml.data import Dataset
from edgeml_export.artifact import read_onnx
from edgeml_export.calibration import choose_calibration
from edgeml_export.legality import violations
from edgeml_export.ranges import Ranges
from edgeml_export.targets import TARGETS
from edgeml_export.to_fp16 import fp16_from_onnx
from edgeml_export.to_int8 import int8_from_onnx, measure_ranges

trt = pytest.importorskip("tensorrt_rtx_bindings")

pytestmark = [pytest.mark.train, pytest.mark.runtime]


class Log(trt.ILogger):  # type: ignore[misc]  # it has no types
    """Keeps warnings and errors: TensorRT tells in no other way."""

    def __init__(self) -> None:
        trt.ILogger.__init__(self)
        self.warnings: list[str] = []
        self.errors: list[str] = []

    def log(self, severity: Any, message: str) -> None:
        if severity == trt.ILogger.Severity.WARNING:
            self.warnings.append(message)
        elif severity < trt.ILogger.Severity.WARNING:
            self.errors.append(message)


LOG = Log()
"""One for the process: the parser goes on with the first that it saw."""


def builds(path: Path) -> bool:
    """Parse a file and build a plan for one to four images; what was said is in LOG."""
    LOG.warnings.clear()
    LOG.errors.clear()
    builder = trt.Builder(LOG)
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, LOG)
    if not parser.parse_from_file(str(path)):
        return False
    config, profile = builder.create_builder_config(), builder.create_optimization_profile()
    given = network.get_input(0)
    one, four = ((count, *tuple(given.shape)[1:]) for count in (1, 4))
    profile.set_shape(given.name, one, one, four)
    config.add_optimization_profile(profile)
    config.num_compute_capabilities = 1
    config.set_compute_capability(trt.ComputeCapability.SM86, 0)
    return builder.build_serialized_network(network, config) is not None


@pytest.mark.parametrize("name", ["network", "resnet", "vit"])
def test_files_for_tensorrt_are_taken_and_others_are_not_as_our_rules_say(
    name: str, data: Dataset, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source: Path = request.getfixturevalue(name)
    ranges: Ranges = measure_ranges(source, choose_calibration(data, data.labels, limit=4))
    for layout in TARGETS:
        path = int8_from_onnx(source, tmp_path / f"{layout}.onnx", ranges, layout=layout)
        legal = not violations(read_onnx(path), "tensorrt")
        assert legal == (layout == "tensorrt")
        assert builds(path) == legal
        if legal:
            assert (LOG.warnings, LOG.errors) == ([], [])
            assert builds(fp16_from_onnx(path, tmp_path / "half.onnx"))
            assert LOG.errors == []
