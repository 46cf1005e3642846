"""NVIDIA's own parser and builder on our INT8 files, where TensorRT-RTX is installed.

It builds without a GPU: pip install tensorrt_rtx_cu13_libs tensorrt_rtx_cu13_bindings, 96 MB.
Nothing is run here, and the kernels it chooses are not those of TensorRT.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from edgeml.data import Dataset
from edgeml.runtimes.onnx_file import read_onnx
from edgeml.runtimes.tensorrt import bindings
from edgeml.runtimes.tensorrt.bindings import LogLines
from edgeml_export.int8.calibration import choose_calibration
from edgeml_export.int8.legality import violations
from edgeml_export.int8.ranges import Ranges, measure_ranges
from edgeml_export.int8.targets import TARGETS
from edgeml_export.int8.to_int8 import int8_from_onnx
from edgeml_export.to_fp16 import fp16_from_onnx

trt = pytest.importorskip("tensorrt_rtx_bindings")

pytestmark = [pytest.mark.train, pytest.mark.runtime]


def builds(path: Path) -> tuple[bool, LogLines]:
    """Parse a file that was not checked before, and build a plan; return also the log."""
    # TensorRT goes on with the first logger of the process: it is edgeml's here too.
    logger = bindings.logger(trt)
    with bindings.captured_log(trt) as log:
        builder = trt.Builder(logger)
        network = builder.create_network(0)
        parser = trt.OnnxParser(network, logger)
        if not parser.parse_from_file(str(path)):
            return False, log
        config, profile = builder.create_builder_config(), builder.create_optimization_profile()
        images = network.get_input(0)
        one, four = ((count, *tuple(images.shape)[1:]) for count in (1, 4))
        profile.set_shape(images.name, one, one, four)
        config.add_optimization_profile(profile)
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.SM86, 0)
        return builder.build_serialized_network(network, config) is not None, log


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
        built, log = builds(path)
        assert built == legal
        if legal:
            assert log == []
            half, log = builds(fp16_from_onnx(path, tmp_path / "half.onnx"))
            assert half
            assert log.errors == []
