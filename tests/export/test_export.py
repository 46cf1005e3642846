from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import onnx
import pytest

from edgeml import EdgemlError, Predictor
from edgeml.data import Dataset, SplitPlan, read_dataset, split_dataset
from edgeml.errors import (
    CalibrationError,
    DataError,
    InputError,
    MissingDependencyError,
    ModelLoadError,
)
from edgeml.files import sha256_of_file
from edgeml.measure.compare import FidelityError
from edgeml.measure.evaluation import evaluate_model
from edgeml.runtimes.model_files import staged_model
from edgeml.runtimes.onnx_file import read_onnx, spec_of_onnx, write_onnx
from edgeml.runtimes.tensorrt.engine_options import EngineOptions
from edgeml.spec.provenance import Provenance
from edgeml_export import check, export, pipeline
from edgeml_export.int8.calibration import choose_calibration
from edgeml_export.request import SUFFIXES, RequestError
from edgeml_export.to_openvino import openvino_from_onnx
from edgeml_export.write import Job, Written, write_format
from tests.tiny import make_tiny_onnx, tiny_spec

pytestmark = [pytest.mark.train, pytest.mark.runtime]

EVERY_KIND = [(f, p) for f in ("onnx", "openvino") for p in ("fp32", "fp16", "int8")]
# Some seconds of training leave scores near the thresholds and few images: wide limits.
WIDE = {"max_drop": 10.0}


@pytest.fixture
def own_run(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize(("fmt", "precision"), EVERY_KIND)
def test_a_run_becomes_every_kind_of_model_beside_it(
    fmt: str, precision: str, own_run: Path, data: Dataset, test_part: Dataset
) -> None:
    done = export(own_run, fmt, precision=precision, calib=data, check=data, **WIDE)
    infix = "" if precision == "fp32" else f".{precision}"
    suffix = {"onnx": ".onnx", "openvino": ".xml"}[fmt]
    assert done.path == own_run / f"model{infix}{suffix}"
    expected = {"model.safetensors", done.path.name, f"{done.path.name}.report.html"}
    if precision == "int8":
        expected.add("model.ranges.json")
    if fmt == "openvino":
        expected.add(f"model{infix}.bin")
    assert names_in(own_run) == expected
    with Predictor(done.path) as predictor:
        assert predictor.spec.precision == precision
        measured = evaluate_model(predictor, test_part, "all").summary()
    assert predictor.spec.metrics == pytest.approx(measured)
    assert done.checks is not None
    assert done.checks.exported.summary() == pytest.approx(measured)
    assert done.checks.images == len(test_part)


def test_the_result_is_the_json_that_the_design_promises(own_run: Path, data: Dataset) -> None:
    done = export(own_run, "onnx", check=data)
    result = json.loads(json.dumps(done.to_dict(), allow_nan=False))
    assert list(result)[:5] == ["path", "format", "precision", "sha256", "checks"]
    assert result["report"] == str(own_run / "model.onnx.report.html")
    assert (result["thresholds"], result["int8"], result["speed"]) == (None, None, None)
    assert result["path"] == str(own_run / "model.onnx")
    assert (result["format"], result["precision"]) == ("onnx", "fp32")
    assert result["sha256"] == sha256_of_file(done.path)
    assert {"max_abs", "label_flips_per_1000", "metrics", "passed"} < set(result["checks"])
    assert result["checks"]["max_abs"] <= 1e-3
    assert result["checks"]["label_flips_per_1000"] == 0
    assert result["checks"]["passed"] is True
    assert set(result["checks"]["metrics"]) == {"reference", "exported"}
    assert {"mAP", "CF1", "OF1", "exact_match"} <= set(result["checks"]["metrics"]["exported"])


def test_without_images_nothing_is_compared(own_run: Path) -> None:
    done = export(own_run, "onnx", out=own_run.parent / "elsewhere" / "a.onnx")
    assert done.checks is None
    assert done.to_dict()["checks"] is None
    assert names_in(own_run.parent / "elsewhere") == {"a.onnx"}


def test_an_onnx_can_be_exported_without_the_run(
    network: Path, tmp_path: Path, data: Dataset
) -> None:
    source = tmp_path / "shop.v2.onnx"
    shutil.copy(network, source)
    done = export(source, "openvino", precision="fp16", check=data, **WIDE)
    assert done.path.name == "shop.v2.fp16.xml"
    with Predictor(done.path) as last, Predictor(source) as first:
        assert last.spec.provenance == first.spec.provenance


def test_a_spec_next_to_an_onnx_goes_into_the_result(network: Path, tmp_path: Path) -> None:
    model = read_onnx(network)
    spec = replace(spec_of_onnx(model, network), labels=("v", "w", "x", "y", "z"), groups=())
    model.ClearField("metadata_props")
    onnx.save(model, tmp_path / "bare.onnx")
    (tmp_path / "bare.onnx.json").write_text(spec.to_json(), encoding="utf-8")
    done = export(tmp_path / "bare.onnx", "onnx", precision="fp16")
    with Predictor(done.path) as predictor:
        assert predictor.spec.labels == spec.labels


@pytest.mark.parametrize("fmt", ["onnx", "openvino"])
def test_int8_can_take_raw_frames(fmt: str, own_run: Path, data: Dataset) -> None:
    done = export(own_run, fmt, precision="int8", input="uint8", calib=data, check=data, **WIDE)
    with Predictor(done.path) as predictor:
        assert predictor.spec.input == "uint8"
        assert predictor.runtime.metadata["precision"] == "int8"


def test_of_one_data_set_the_train_part_calibrates_and_the_test_part_checks(
    network: Path, data: Dataset, test_part: Dataset, tmp_path: Path
) -> None:
    out = tmp_path / "m.onnx"
    done = export(network, "onnx", precision="int8", calib=data, check=data, out=out, **WIDE)
    spec = spec_of_onnx(read_onnx(done.path), done.path)
    train = split_dataset(data, SplitPlan()).part("train")
    assert spec.provenance.calibration_sha256 == choose_calibration(train, data.labels).digest
    assert done.checks is not None
    assert done.checks.images == len(test_part)


def without_provenance(source: Path, target: Path) -> Path:
    """Make it a model that does not know what it was trained on."""
    model = read_onnx(source)
    write_onnx(model, target, replace(spec_of_onnx(model, source), provenance=Provenance()))
    return target


def test_one_data_set_for_both_is_divided_even_if_the_model_does_not_know_it(
    network: Path, data: Dataset, test_part: Dataset, tmp_path: Path
) -> None:
    source = without_provenance(network, tmp_path / "m.onnx")
    done = export(source, "onnx", precision="int8", calib=data, check=data, **WIDE)
    assert done.checks is not None
    assert done.checks.images == len(test_part)


def test_images_that_calibrate_and_check_are_refused_by_their_bytes(
    network: Path, data: Dataset, pictures: Path, tmp_path: Path
) -> None:
    source = without_provenance(network, tmp_path / "m.onnx")
    copied = read_dataset(Path(shutil.copytree(pictures, tmp_path / "copied")))
    with pytest.raises(CalibrationError, match="also calibrated with"):
        export(source, "onnx", precision="int8", calib=data, check=copied)
    assert names_in(tmp_path) == {"m.onnx", "copied"}


def test_a_check_with_an_empty_test_part_is_refused(own_run: Path, data: Dataset) -> None:
    undivided = replace(data, split=("train",) * len(data))
    with pytest.raises(DataError, match="test part"):
        export(own_run, "onnx", check=undivided)


def damage_onnx(path: Path) -> None:
    model = onnx.load(path)
    for tensor in model.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.ndim == 2 and values.dtype.kind == "f":  # the head, float in every precision
            tensor.CopyFrom(onnx.numpy_helper.from_array(-values, tensor.name))
    onnx.save(model, path)


def damage_openvino(path: Path) -> None:
    weights = path.with_suffix(".bin")
    data = np.frombuffer(weights.read_bytes(), np.uint8).copy()
    for constant in ElementTree.parse(path).iterfind(".//layer[@type='Const']/data"):
        if constant.get("element_type") == "i8":
            start, size = int(constant.attrib["offset"]), int(constant.attrib["size"])
            data[start : start + size] ^= 0xFF  # each weight changes its sign
    weights.write_bytes(data.tobytes())


@pytest.mark.parametrize("existing", [False, True], ids=["new", "over an older one"])
@pytest.mark.parametrize(
    ("fmt", "precision", "damage"),
    [
        ("onnx", "fp32", damage_onnx),
        ("onnx", "fp16", damage_onnx),
        ("onnx", "int8", damage_onnx),
        ("openvino", "int8", damage_openvino),
    ],
)
def test_a_damaged_result_is_refused_and_leaves_no_trace(
    fmt: str,
    precision: str,
    damage: Callable[[Path], None],
    existing: bool,
    network: Path,
    data: Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    source = tmp_path / "m.onnx"
    shutil.copy(network, source)
    target = tmp_path / f"out{SUFFIXES[fmt]}"
    if existing:
        target.write_text("older")
        target.with_suffix(".bin").write_text("older")
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}

    def damaged(job: Job, network: Path) -> Written:
        written = write_format(job, network)
        damage(written.path)
        return written

    monkeypatch.setattr(pipeline, "write_format", damaged)
    # FP32 ONNX from FP32 ONNX is refused otherwise.
    monkeypatch.setattr(pipeline, "check_source", lambda *_: None)
    with pytest.raises(FidelityError, match="disagrees with its source") as caught:
        export(source, fmt, precision=precision, calib=data, check=data, out=target)
    assert caught.value.fidelity.passed is False
    assert caught.value.fidelity.label_flips_per_1000 > 100
    page = caught.value.report
    assert page == target.with_name(f"{target.name}.report.html")
    assert "Refused" in page.read_text(encoding="utf-8")
    page.unlink()
    (tmp_path / "m.ranges.json").unlink(missing_ok=True)
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before


def test_an_interrupted_export_leaves_no_trace(
    own_run: Path, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(check, "run_both", interrupted)
    with pytest.raises(KeyboardInterrupt):
        export(own_run, "openvino", check=data)
    assert names_in(own_run) == {"model.safetensors"}


def write_model(target: Path, text: str) -> None:
    with staged_model(target) as temporary:
        temporary.write_text(text)
        temporary.with_suffix(".bin").write_text(text)


@pytest.mark.parametrize("failing", [0, 1])
def test_an_xml_is_never_next_to_the_weights_of_another(
    failing: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A power failure at any moment, simulated by failing at each rename in turn."""
    target = tmp_path / "m.xml"
    for path in (target, target.with_suffix(".bin")):
        path.write_text("old")
    rename, renamed = os.replace, []

    def fails(source: Path, target: Path) -> None:
        if len(renamed) == failing:
            raise OSError("the power went")
        renamed.append(target)
        rename(source, target)

    monkeypatch.setattr(os, "replace", fails)
    with pytest.raises(InputError, match="the power went"):
        write_model(target, "new")
    assert not target.exists()


def test_an_xml_replaces_an_older_one_with_its_weights(tmp_path: Path) -> None:
    target = tmp_path / "m.xml"
    for text in ("old", "new"):
        write_model(target, text)
    assert target.read_text() == target.with_suffix(".bin").read_text() == "new"
    assert names_in(tmp_path) == {"m.xml", "m.bin"}


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"fmt": "tflite"}, RequestError, "format 'tflite'; expected one of onnx, openvino, "),
        ({"precision": "int4"}, RequestError, "precision 'int4'; expected one of fp32, "),
        ({"target": "riscv"}, RequestError, "target 'riscv'; expected one of auto, x86, arm, "),
        ({"input": "bf16"}, RequestError, "input 'bf16'; expected one of float32, uint8"),
        ({"precision": "int8"}, CalibrationError, "--calib DATA"),
        ({"fmt": "trt"}, MissingDependencyError, r"pip install 'edgeml\[trt\]'"),
        ({"fmt": "trt", "precision": "int8"}, MissingDependencyError, "build TensorRT engines"),
        ({"source": Path("absent")}, ModelLoadError, "absent"),
    ],
)
def test_impossible_exports_are_refused_before_any_work(
    options: dict[str, object],
    error: type[EdgemlError],
    message: str,
    run: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    with pytest.raises(error, match=message) as caught:
        export(**{"source": run, "fmt": "onnx", **options})
    assert "\n" not in str(caught.value)
    assert names_in(run) == {"model.safetensors"}


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"fmt": "openvino", "target": "x86"}, "target"),
        ({"fmt": "trt", "target": "x86"}, "target"),
        ({"retarget": True}, "retarget"),
        ({"minutes": 0.0}, "minutes"),
        ({"engine": EngineOptions(portable="version")}, "engine"),
        ({"out": Path("model.xml")}, "suffix"),
    ],
)
def test_options_that_do_not_fit_are_refused(
    options: dict[str, object], reason: str, run: Path
) -> None:
    with pytest.raises(RequestError) as caught:
        export(**{"source": run, "fmt": "onnx", **options})
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("precision", "options", "reason"),
    [
        ("fp32", {"fmt": "onnx"}, "same"),
        ("int8", {"fmt": "onnx", "precision": "fp16"}, "precision"),
        ("fp32", {"fmt": "onnx", "precision": "fp16", "input": "uint8"}, "input"),
        ("fp32", {"fmt": "onnx", "precision": "fp16", "slim": True}, "slim"),
        ("fp32", {"fmt": "onnx", "precision": "fp16", "out": "m.onnx"}, "replaced"),
    ],
)
def test_steps_that_are_not_possible_from_an_onnx_are_refused(
    precision: str, options: dict[str, str], reason: str, tmp_path: Path
) -> None:
    spec = replace(tiny_spec(), precision=precision)
    source = make_tiny_onnx(tmp_path / "m.onnx", spec=spec)
    if "out" in options:
        options = {**options, "out": tmp_path / options["out"]}
    with pytest.raises(RequestError) as caught:
        export(source, **options)
    assert caught.value.reason == reason
    assert names_in(tmp_path) == {"m.onnx"}


def test_an_xml_cannot_be_exported(network: Path, tmp_path: Path) -> None:
    path = openvino_from_onnx(network, tmp_path / "m.xml")
    with pytest.raises(RequestError) as caught:
        export(path, "onnx")
    assert caught.value.reason == "source"


def test_a_folder_that_is_not_writable_is_refused(own_run: Path) -> None:
    (own_run.parent / "file").write_text("")
    with pytest.raises(InputError, match="Cannot write"):
        export(own_run, "onnx", out=own_run.parent / "file" / "model.onnx")
