from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from edgeml import Predictor
from edgeml.errors import ModelLoadError
from edgeml.runtimes import RuntimeOptions, open_runtime
from tests.runtimes.nets import every_layer_onnx, noise
from tests.tiny import make_tiny_onnx, tiny_spec

ov = pytest.importorskip("openvino", reason="openvino is not installed")
from edgeml.runtimes.ov import OpenVinoRuntime  # noqa: E402

pytestmark = pytest.mark.runtime


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return every_layer_onnx(tmp_path_factory.mktemp("net") / "net.onnx")


@pytest.fixture
def runtime(net: Path) -> Iterator[OpenVinoRuntime]:
    opened = OpenVinoRuntime(net)
    yield opened
    opened.close()


def test_an_onnx_file_gives_the_logits_of_onnx_runtime(net: Path, runtime: OpenVinoRuntime) -> None:
    for count in (1, 3):
        batch = noise(count)
        expected = open_runtime(net).run(batch)
        np.testing.assert_allclose(runtime.run(batch), expected, atol=1e-4)


def test_the_name_has_the_version_and_the_device(net: Path, runtime: OpenVinoRuntime) -> None:
    assert runtime.name == f"openvino {ov.__version__.split('-')[0]} CPU"
    assert runtime.input_shape == (None, 3, 32, 32)


def test_exact_is_f32_and_fast_is_the_devices_default(net: Path) -> None:
    default = ov.Core().get_property("CPU", "INFERENCE_PRECISION_HINT").get_type_name()
    assert OpenVinoRuntime(net).metadata["precision"] == "f32"
    assert OpenVinoRuntime(net, RuntimeOptions(precision="fast")).metadata["precision"] == default


def test_the_precision_of_a_network_without_weighted_layers_is_the_hint(tmp_path: Path) -> None:
    import onnx
    from onnx import TensorProto, helper

    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["images"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["logits"]),
        ],
        "mean",
        [value("images", TensorProto.FLOAT, ["N", 3, 8, 8])],
        [value("logits", TensorProto.FLOAT, ["N", 3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, tmp_path / "mean.onnx")
    assert OpenVinoRuntime(tmp_path / "mean.onnx").metadata["precision"] == "f32"


def test_the_spec_is_found_in_an_xml(tmp_path: Path) -> None:
    spec = tiny_spec(["rotes Kleid", "grüner Rock", 'a "b" <c>'])
    source = make_tiny_onnx(tmp_path / "model.onnx", spec=spec)
    model = ov.Core().read_model(source)
    model.set_rt_info(spec.to_json(), ["edgeml"])
    ov.save_model(model, tmp_path / "model.xml")
    with Predictor(tmp_path / "model.xml") as predictor:
        assert predictor.spec == spec


def test_an_xml_without_its_weights_is_an_error(net: Path, tmp_path: Path) -> None:
    ov.save_model(ov.Core().read_model(net), tmp_path / "model.xml")
    (tmp_path / "model.bin").unlink()
    with pytest.raises(ModelLoadError):
        OpenVinoRuntime(tmp_path / "model.xml")


_INTERRUPTED = """
import os, signal, sys
from edgeml import Predictor
first, second = (Predictor(sys.argv[1], runtime="openvino") for _ in range(2))
first.close()
del first
second.close()
del second
try:
    os.kill(os.getpid(), signal.SIGINT)
except KeyboardInterrupt:
    print("interrupted")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="OpenVINO sets signal stacks on Linux only")
def test_ctrl_c_after_two_models_are_closed_in_the_order_of_opening(tmp_path: Path) -> None:
    model = make_tiny_onnx(tmp_path / "model.onnx", spec=tiny_spec(["a", "b"]))
    child = [sys.executable, "-c", _INTERRUPTED, str(model)]
    ended = subprocess.run(child, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (0, "interrupted\n"), ended.stderr
