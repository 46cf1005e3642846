from __future__ import annotations

import importlib.metadata
import importlib.util
import json
import string
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import openvino as ov
import pytest
from google.protobuf import text_format
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeml import ModelSpec, Predictor
from edgeml.errors import InputError, ModelLoadError, SpecError
from edgeml.files import sha256_of_file
from edgeml.runtimes.onnx_file import read_onnx, write_onnx
from edgeml_export.serving import safe_name, write_repository
from edgeml_export.to_onnx import onnx_from_checkpoint
from edgeml_export.to_openvino import openvino_from_onnx
from tests.tiny import make_tiny_onnx, tiny_spec

pytestmark = [pytest.mark.train, pytest.mark.runtime]


@pytest.fixture(scope="session")
def triton() -> ModuleType:
    """Triton's own model_config.proto, compiled: a file of tritonclient, whose rest needs gRPC."""
    files = importlib.metadata.files("tritonclient") or []
    (found,) = (file for file in files if file.match("tritonclient/grpc/model_config_pb2.py"))
    spec = importlib.util.spec_from_file_location("model_config_pb2", found.locate())
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="session")
def ir(network: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return openvino_from_onnx(network, tmp_path_factory.mktemp("ir") / "model.xml")


def spec_of(model: Path) -> ModelSpec:
    with Predictor(model) as predictor:
        return predictor.spec


def config_of(repository: Path, triton: ModuleType) -> Any:
    (config,) = repository.glob("*/config.pbtxt")
    return text_format.Parse(config.read_text(encoding="utf-8"), triton.ModelConfig())


def files_in(folder: Path) -> set[str]:
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def test_triton_reads_the_configuration_of_an_onnx(
    network: Path, triton: ModuleType, tmp_path: Path
) -> None:
    spec = spec_of(network)
    out = write_repository(network, spec, "triton", tmp_path / "shop")
    assert files_in(out) == {
        "shop/config.pbtxt", "shop/labels.txt", "shop/edgeml.json", "shop/1/model.onnx"
    }  # fmt: skip
    config = config_of(out, triton)
    assert (config.name, config.backend, config.max_batch_size) == ("shop", "onnxruntime", 16)
    assert (out / config.name / "1" / config.default_model_filename).read_bytes() == (
        network.read_bytes()
    )
    (images,), (logits,) = config.input, config.output
    assert (images.name, list(images.dims)) == ("images", [3, 40, 40])
    assert (images.data_type, images.format) == (triton.TYPE_FP32, triton.ModelInput.FORMAT_NCHW)
    assert (logits.name, list(logits.dims)) == ("logits", [5])
    assert logits.data_type == triton.TYPE_FP32
    labels = (out / config.name / logits.label_filename).read_text(encoding="utf-8")
    assert labels.splitlines() == list(spec.labels)
    assert config.HasField("dynamic_batching")
    assert config.dynamic_batching.max_queue_delay_microseconds == 0
    (group,) = config.instance_group
    assert (group.kind, group.count) == (triton.ModelInstanceGroup.KIND_CPU, 1)
    assert ModelSpec.from_json(config.parameters["edgeml"].string_value) == spec
    assert ModelSpec.from_json((out / "shop" / "edgeml.json").read_text(encoding="utf-8")) == spec


def test_triton_reads_that_frames_are_raw(run: Path, triton: ModuleType, tmp_path: Path) -> None:
    model = onnx_from_checkpoint(run, tmp_path / "raw.onnx", input="uint8")
    out = write_repository(model, spec_of(model), "triton", tmp_path / "raw", device="gpu")
    config = config_of(out, triton)
    (images,) = config.input
    assert (images.data_type, images.format) == (triton.TYPE_UINT8, triton.ModelInput.FORMAT_NHWC)
    assert list(images.dims) == [40, 40, 3]
    assert config.instance_group[0].kind == triton.ModelInstanceGroup.KIND_GPU


def test_for_openvino_in_triton_the_batch_is_dynamic(
    ir: Path, triton: ModuleType, tmp_path: Path
) -> None:
    out = write_repository(ir, spec_of(ir), "triton", tmp_path / "shop")
    assert {"shop/1/model.xml", "shop/1/model.bin"} < files_in(out)
    config = config_of(out, triton)
    assert (config.backend, config.max_batch_size) == ("openvino", 0)
    assert list(config.input[0].dims) == [-1, 3, 40, 40]
    assert config.input[0].format == triton.ModelInput.FORMAT_NONE
    assert list(config.output[0].dims) == [-1, 5]
    assert not config.HasField("dynamic_batching")


def test_names_come_from_the_file(triton: ModuleType, tmp_path: Path) -> None:
    model = read_onnx(make_tiny_onnx(tmp_path / "tiny.onnx"))
    for node in model.graph.node:
        node.input[:] = ['in "put' if name == "input" else name for name in node.input]
        node.output[:] = ["out\\put" if name == "logits" else name for name in node.output]
    model.graph.input[0].name, model.graph.output[0].name = 'in "put', "out\\put"
    write_onnx(model, tmp_path / "named.onnx", tiny_spec())
    out = write_repository(tmp_path / "named.onnx", tiny_spec(), "triton", tmp_path / "out")
    config = config_of(out, triton)
    assert (config.input[0].name, config.output[0].name) == ('in "put', "out\\put")


def test_a_file_with_a_fixed_batch_is_served_as_it_is(triton: ModuleType, tmp_path: Path) -> None:
    model = read_onnx(make_tiny_onnx(tmp_path / "tiny.onnx"))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 4
    write_onnx(model, tmp_path / "four.onnx", tiny_spec())
    out = write_repository(tmp_path / "four.onnx", tiny_spec(), "triton", tmp_path / "out")
    config = config_of(out, triton)
    assert (config.max_batch_size, list(config.input[0].dims)) == (0, [4, 3, 32, 32])


OVMS_KEYS: dict[str, tuple[type, ...]] = {
    "name": (str,), "base_path": (str,), "batch_size": (int, str), "graph_path": (str,),
    "subconfig": (str,), "model_version_policy": (dict,), "shape": (dict, str),
    "layout": (dict, str), "nireq": (int,), "target_device": (str,), "allow_cache": (bool,),
    "plugin_config": (dict,), "custom_loader_options": (dict,),
}  # fmt: skip
"""The keys of a model that the OpenVINO Model Server accepts: openvinotoolkit/model_server,
src/schema.cpp, `model_config`, as of August 2026."""


@pytest.mark.parametrize("kind", ["onnx", "xml"])
def test_ovms_reads_the_configuration(kind: str, network: Path, ir: Path, tmp_path: Path) -> None:
    model = network if kind == "onnx" else ir
    spec = spec_of(model)
    out = write_repository(model, spec, "ovms", tmp_path / "shop")
    files = {"config.json", "shop/labels.txt", "shop/edgeml.json", f"shop/1/model.{kind}"}
    assert files_in(out) == (files if kind == "onnx" else files | {"shop/1/model.bin"})
    config = json.loads((out / "config.json").read_text(encoding="utf-8"))
    assert list(config) == ["model_config_list"]
    (entry,) = config["model_config_list"]
    assert list(entry) == ["config"]
    config = entry["config"]
    for key, value in config.items():
        assert isinstance(value, OVMS_KEYS[key])
    assert all(isinstance(value, str | bool | int) for value in config["plugin_config"].values())
    assert config["plugin_config"] == {"INFERENCE_PRECISION_HINT": "f32"}
    assert config["target_device"] == "CPU"
    served = out / config["base_path"] / "1" / f"model.{kind}"
    frame = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    with Predictor(served, runtime="openvino") as there, Predictor(network) as here:
        np.testing.assert_allclose(there.logits([frame]), here.logits([frame]), atol=1e-4)


def test_openvino_accepts_the_options_that_ovms_passes(ir: Path, tmp_path: Path) -> None:
    out = write_repository(ir, spec_of(ir), "ovms", tmp_path / "shop")
    config = json.loads((out / "config.json").read_text())["model_config_list"][0]["config"]
    model = out / config["base_path"] / "1" / "model.xml"
    compiled = ov.Core().compile_model(model, config["target_device"], config["plugin_config"])
    assert compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name() == "f32"


def test_a_gpu_may_choose_its_precision(ir: Path, tmp_path: Path) -> None:
    out = write_repository(ir, spec_of(ir), "ovms", tmp_path / "shop", device="gpu")
    config = json.loads((out / "config.json").read_text())["model_config_list"][0]["config"]
    assert config == {"name": "shop", "base_path": "shop", "target_device": "GPU"}


WORDS = st.text(min_size=1, max_size=12) | st.text(
    "\"\\\n\r\t äß 靴<&{}[]#'", min_size=1, max_size=8
)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(labels=st.lists(WORDS, min_size=3, max_size=3, unique=True), name=WORDS)
def test_any_label_and_any_name_survive_writing_and_reading(
    labels: list[str],
    name: str,
    tiny_onnx: Path,
    triton: ModuleType,
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    spec = tiny_spec(labels)
    out = write_repository(
        tiny_onnx, spec, "triton", tmp_path_factory.mktemp("any") / "out", name=name
    )
    config = config_of(out, triton)
    assert ModelSpec.from_json(config.parameters["edgeml"].string_value) == spec
    assert set(config.name) <= set(string.ascii_letters + string.digits + "_.-")
    assert (out / config.name / "1" / "model.onnx").is_file()
    # As Triton's label_provider.cc reads them: lines end with \\n and with nothing else.
    written = (out / config.name / "labels.txt").read_bytes().decode()
    assert written.endswith("\n")
    lines = written[:-1].split("\n")
    assert len(lines) == 3
    for line, label in zip(lines, labels, strict=True):
        assert line == label or "\n" in label or "\r" in label


@pytest.mark.parametrize(
    ("name", "safe"),
    [
        ("shop", "shop"),
        ("shop v2.1", "shop_v2.1"),
        ("Schuhgröße", "Schuhgr__e"),
        ("a/b", "a_b"),
        ("..", "model"),
        (".hidden", "hidden"),
        ("--flag", "flag"),
        ("靴", "_"),
        ("", "model"),
    ],
)
def test_a_name_is_safe_in_a_path_and_in_an_address(name: str, safe: str) -> None:
    assert safe_name(name) == safe


def test_an_older_repository_is_replaced_completely(
    network: Path, ir: Path, tmp_path: Path
) -> None:
    out = tmp_path / "shop"
    write_repository(network, spec_of(network), "triton", out, name="first")
    write_repository(ir, spec_of(ir), "ovms", out, name="second")
    assert {path.name for path in out.iterdir()} == {"second", "config.json"}
    write_repository(network, spec_of(network), "triton", out, name="third")
    assert {path.name for path in out.iterdir()} == {"third"}
    assert {path.name for path in tmp_path.iterdir()} == {"shop"}


def test_an_empty_folder_is_used(tiny_onnx: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    write_repository(tiny_onnx, tiny_spec(), "triton", tmp_path / "out")
    assert (tmp_path / "out" / "out" / "config.pbtxt").is_file()


def test_what_edgeml_did_not_write_is_not_replaced(tiny_onnx: Path, tmp_path: Path) -> None:
    for number, entries in enumerate((["other/config.pbtxt"], ["config.json", "a/1/b"], ["f"])):
        out = tmp_path / str(number)
        for entry in entries:
            (out / entry).parent.mkdir(parents=True, exist_ok=True)
            (out / entry).write_text("theirs")
        with pytest.raises(InputError, match="contains something other"):
            write_repository(tiny_onnx, tiny_spec(), "triton", out)
        assert {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()} == {
            *entries
        }
    (tmp_path / "file").write_text("theirs")
    with pytest.raises(InputError, match="contains something other"):
        write_repository(tiny_onnx, tiny_spec(), "ovms", tmp_path / "file")


def test_a_failure_leaves_the_older_repository(
    tiny_onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = write_repository(tiny_onnx, tiny_spec(), "triton", tmp_path / "out")
    before = {name: sha256_of_file(out / name) for name in files_in(out)}

    def full(path: Path, text: str, **options: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "write_text", full)
    with pytest.raises(InputError, match="No space"):
        write_repository(tiny_onnx, tiny_spec(), "ovms", out)
    assert {name: sha256_of_file(out / name) for name in files_in(out)} == before
    assert {path.name for path in tmp_path.iterdir()} == {"out"}


def test_a_spec_of_another_model_is_refused(tiny_onnx: Path, tmp_path: Path) -> None:
    for other in (
        tiny_spec(("a", "b")),
        tiny_spec(size=(32, 16)),
        replace(tiny_spec(), input="uint8"),
    ):
        with pytest.raises(SpecError):
            write_repository(tiny_onnx, other, "triton", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_a_model_that_no_server_reads_is_refused_in_one_line(
    tiny_onnx: Path, tmp_path: Path
) -> None:
    (tmp_path / "model.engine").write_bytes(b"plan")
    (tmp_path / "broken.xml").write_text("<net")
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    doubles = read_onnx(tiny_onnx)
    doubles.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.DOUBLE
    onnx.save(doubles, tmp_path / "doubles.onnx")
    two = read_onnx(tiny_onnx)
    two.graph.output.append(onnx.helper.make_tensor_value_info("pooled", 1, ["N", 3, 1, 1]))
    onnx.save(two, tmp_path / "two.onnx")
    for name, error, match in (
        ("model.engine", InputError, r"not 'model\.engine'"),
        ("broken.xml", ModelLoadError, r"broken\.xml"),
        ("broken.onnx", ModelLoadError, r"broken\.onnx"),
        ("doubles.onnx", InputError, "neither FP32 nor UINT8"),
        ("two.onnx", InputError, "1 inputs and 2 outputs"),
    ):
        with pytest.raises(error, match=match) as caught:
            write_repository(tmp_path / name, tiny_spec(), "triton", tmp_path / "out")
        assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_onnx_runtime_returns_the_output_in_the_configuration_of_triton(
    network: Path, triton: ModuleType, tmp_path: Path
) -> None:
    config = config_of(
        write_repository(network, spec_of(network), "triton", tmp_path / "shop"), triton
    )
    session = ort.InferenceSession(network, providers=["CPUExecutionProvider"])
    batch = np.zeros((config.max_batch_size, *config.input[0].dims), np.float32)
    (logits,) = session.run([config.output[0].name], {config.input[0].name: batch})
    assert logits.shape == (config.max_batch_size, *config.output[0].dims)
