from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest

from edgeml import LabelGroup, Predictor
from edgeml.data import Dataset
from edgeml.errors import ExportError
from edgeml.runtimes.onnx_file import read_onnx, spec_of_onnx, write_onnx
from edgeml_export import to_openvino
from edgeml_export.int8.calibration import choose_calibration
from edgeml_export.int8.ranges import Ranges, measure_ranges
from edgeml_export.int8.to_int8 import int8_from_onnx
from edgeml_export.to_onnx import onnx_from_checkpoint
from edgeml_export.to_openvino import openvino_from_onnx
from edgeml_export.write import rewrite_spec

pytestmark = [pytest.mark.train, pytest.mark.runtime]


def info_of(path: Path) -> dict[str, str]:
    found = ElementTree.parse(path).findall("rt_info/model_info/*")
    return {entry.tag: entry.attrib["value"] for entry in found}


def test_fp32_gives_the_logits_of_the_source(
    network: Path, test_part: Dataset, tmp_path: Path
) -> None:
    path = openvino_from_onnx(network, tmp_path / "model.xml")
    with Predictor(network) as first, Predictor(path) as second:
        assert second.runtime.metadata["precision"] == "f32"
        assert second.spec == first.spec
        frames = [first.read(image) for image in test_part.paths]
        np.testing.assert_allclose(second.logits(frames), first.logits(frames), atol=1e-3)


def test_fp16_halves_the_weights_and_computes_in_fp32(
    network: Path, test_part: Dataset, tmp_path: Path
) -> None:
    full = openvino_from_onnx(network, tmp_path / "model.xml")
    half = openvino_from_onnx(network, tmp_path / "model.fp16.xml", fp16=True)
    assert half.with_suffix(".bin").stat().st_size < 0.51 * full.with_suffix(".bin").stat().st_size
    with Predictor(full) as first, Predictor(half) as second:
        assert (second.runtime.metadata["precision"], second.spec.precision) == ("f32", "fp16")
        frames = [first.read(image) for image in test_part.paths]
        expected, got = first.logits(frames), second.logits(frames)
    assert 0 < np.abs(got - expected).max() < 0.01 * expected.std()


def test_int8_stays_in_integers_on_the_disk_and_in_the_run(
    network: Path, ranges: Ranges, test_part: Dataset, tmp_path: Path
) -> None:
    integers = int8_from_onnx(network, tmp_path / "int8.onnx", ranges, layout="openvino")
    path = openvino_from_onnx(integers, tmp_path / "model.xml")
    fp32 = openvino_from_onnx(network, tmp_path / "fp32.xml").with_suffix(".bin").stat().st_size
    assert path.with_suffix(".bin").stat().st_size < 0.3 * fp32
    with Predictor(network) as first, Predictor(path) as second:
        assert second.runtime.metadata["precision"] == "int8"
        assert second.spec == spec_of_onnx(read_onnx(integers), integers)
        frames = [first.read(image) for image in test_part.paths]
        expected, got = first.logits(frames), second.logits(frames)
    assert np.sqrt(np.mean((got - expected) ** 2)) < 0.03 * expected.std()


def test_a_transformer_is_executed_in_integers_too(
    vit: Path, data: Dataset, test_part: Dataset, tmp_path: Path
) -> None:
    ranges = measure_ranges(vit, choose_calibration(data, data.labels, limit=8))
    integers = int8_from_onnx(vit, tmp_path / "int8.onnx", ranges, layout="openvino")
    path = openvino_from_onnx(integers, tmp_path / "vit.xml")
    with Predictor(vit) as first, Predictor(path) as second:
        assert second.runtime.metadata["precision"] == "int8"
        frames = [first.read(image) for image in test_part.paths[:8]]
        assert np.abs(second.logits(frames) - first.logits(frames)).max() < 0.1


def test_the_keys_of_model_api_are_there_and_true(network: Path, tmp_path: Path) -> None:
    info = info_of(openvino_from_onnx(network, tmp_path / "model.xml"))
    assert info["model_type"] == "Classification"
    assert info["multilabel"] == "True"
    assert info["labels"] == "ball blue box green red"
    assert info["resize_type"] == "standard"
    assert info["reverse_input_channels"] == "True"
    # ImageNet's mean and deviation on the scale of 0 to 255, as everyone writes them.
    assert info["mean_values"] == "123.675 116.28 103.53"
    assert info["scale_values"] == "58.395 57.12 57.375"
    onnx_info = {
        entry.key.removeprefix("model_info "): entry.value
        for entry in read_onnx(network).metadata_props
        if entry.key.startswith("model_info ")
    }
    assert onnx_info == info


def test_raw_frames_have_no_normalisation_in_the_keys_of_model_api(
    run: Path, tmp_path: Path
) -> None:
    source = onnx_from_checkpoint(run, tmp_path / "raw.onnx", input="uint8")
    info = info_of(openvino_from_onnx(source, tmp_path / "raw.xml"))
    # model_api parses "NHWC" as the layout of every input, whatever their names.
    assert info["layout"] == "NHWC"
    assert info["labels"] == "ball blue box green red"
    assert not {"mean_values", "scale_values", "reverse_input_channels"} & set(info)


def test_group_softmax_has_no_keys_of_model_api(network: Path, tmp_path: Path) -> None:
    model = read_onnx(network)
    spec = spec_of_onnx(model, network)
    group = LabelGroup(name="colour", labels=spec.labels[:2], rule="one")
    chosen = replace(spec, groups=(group,), activation="group_softmax")
    write_onnx(model, tmp_path / "source.onnx", chosen)
    path = openvino_from_onnx(tmp_path / "source.onnx", tmp_path / "model.xml")
    assert info_of(path) == {}
    with Predictor(path) as predictor, Predictor(tmp_path / "source.onnx") as source:
        assert predictor.spec == chosen
        frame = np.full((40, 40, 3), 90, np.uint8)
        scores = predictor.predict(frame).scores
        np.testing.assert_allclose(scores, source.predict(frame).scores, atol=1e-5)
    assert scores[:2].sum() == pytest.approx(1, abs=1e-6)


def test_names_with_spaces_and_umlauts_come_back(network: Path, tmp_path: Path) -> None:
    model = read_onnx(network)
    names = ("rotes Kleid", "grüner Rock", '靴 "a" <b> & c', "d\te", "f")
    spec = replace(spec_of_onnx(model, network), labels=names, groups=())
    write_onnx(model, tmp_path / "source.onnx", spec)
    path = openvino_from_onnx(tmp_path / "source.onnx", tmp_path / "model.xml")
    with Predictor(path) as predictor:
        assert predictor.spec == spec
    rewrite_spec(path, replace(spec, metrics={"mAP": 0.5}))
    with Predictor(path) as predictor:
        assert predictor.spec.labels == names
        assert predictor.spec.metrics == {"mAP": 0.5}
    assert info_of(path)["labels"].split(" ")[:2] == ["rotes_Kleid", "grüner_Rock"]


def test_an_older_spec_does_not_linger_in_the_file(network: Path, tmp_path: Path) -> None:
    path = openvino_from_onnx(network, tmp_path / "model.xml")
    assert path.read_text(encoding="utf-8").count("checkpoint_sha256") == 1


@pytest.mark.parametrize("existing", [False, True])
def test_a_failed_step_leaves_what_was_there(
    existing: bool, network: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "model.xml"
    if existing:
        openvino_from_onnx(network, target)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def fails(model: object, path: Path, compress_to_fp16: bool) -> None:
        path.write_text("half of it")
        raise RuntimeError("no space\nleft")

    monkeypatch.setattr(to_openvino.ov, "save_model", fails)
    with pytest.raises(ExportError, match=r"no space"):
        openvino_from_onnx(network, target)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


# openvino_telemetry sends from a child process, for which it needs one of these.
WATCH = """
import multiprocessing.process, socket, sys
def refuse(*args, **kwargs):
    raise SystemExit("something tried to leave")
socket.socket.connect = refuse
multiprocessing.process.BaseProcess.start = refuse
"""


def test_no_telemetry_is_sent(network: Path, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    code = f"""{WATCH}
from pathlib import Path
from edgeml import LabelGroup, Predictor
Predictor({str(network)!r}, runtime="openvino").close()
from edgeml_export.to_openvino import openvino_from_onnx
openvino_from_onnx(Path({str(network)!r}), Path({str(tmp_path / "model.xml")!r}))
print(sorted(name for name in sys.modules if name.startswith("openvino_telemetry")))
print(type(sys.modules["openvino.tools.ovc"].telemetry).__module__)
"""
    kept = {key: value for key, value in os.environ.items() if key != "CI"}
    env = kept | {"PYTHONPATH": os.pathsep.join(sys.path), "HOME": str(home)}
    done = subprocess.run(
        [sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "[]",
        "openvino.tools.ovc.telemetry_stub",
    ]
    assert not (home / "intel").exists()
