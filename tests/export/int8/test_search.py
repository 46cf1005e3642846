"""The choices of an INT8 export on fitting images, as its file and its report show them."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgeml import Predictor
from edgeml.data import Dataset, SplitPlan, split_dataset
from edgeml.measure.compare import FidelityError
from edgeml.runtimes.onnx_file import read_onnx, spec_of_onnx
from edgeml.spec.model_spec import ModelSpec
from edgeml_export import Exported, export
from edgeml_export.int8.budget import divergence
from edgeml_export.int8.histogram import METHODS
from edgeml_export.int8.layers import quantizable
from edgeml_export.int8.legality import violations
from edgeml_export.int8.search import Candidates, choose_layers, choose_method
from edgeml_export.limits import LIMITS
from tests.command import Command
from tests.export.int8.outlier import Planted
from tests.notes import Notes

pytestmark = [pytest.mark.train, pytest.mark.runtime]

WIDE = {"max_drop": 100.0, "max_label_drop": 100.0}


@pytest.fixture
def broken(planted: Planted, tmp_path: Path) -> Path:
    """The planted network in a folder of its own, next to its ranges, as a user has it."""
    source = tmp_path / "net.onnx"
    shutil.copy(planted.path, source)
    (tmp_path / "net.ranges.json").write_text(planted.ranges.to_json(), encoding="utf-8")
    return source


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def check_choice(done: Exported, planted: Planted, layout: str) -> ModelSpec:
    """Check what all targets have in common: few layers in float, the reader among them."""
    choice = done.choice
    assert choice is not None
    assert choice.mixed is not None
    assert planted.takes in choice.keep
    assert len(choice.keep) <= 0.1 * choice.mixed.quantizable
    assert choice.mixed.quantizable == len(quantizable(read_onnx(planted.path), layout))
    assert {node.name for node in choice.mixed.nodes if node.in_float} == choice.keep
    assert dict(choice.mixed.steps)[0] > 20, "plain INT8 on the fitting images"
    assert dict(choice.mixed.steps)[len(choice.keep)] <= 2
    assert done.checks is not None
    assert done.checks.passed
    assert done.checks.drops.mAP.points <= 2
    document = done.to_dict()["int8"]
    assert document["kept_in_float"] == sorted(choice.keep)
    assert document["quantizable"] == choice.mixed.quantizable
    assert set(document["divergence"]) == set(METHODS)
    with Predictor(done.path) as predictor:
        spec = predictor.spec
    assert spec.provenance.kept_in_float == tuple(sorted(choice.keep))
    quantizer = spec.provenance.quantizer
    assert quantizer is not None
    assert (quantizer.layout, quantizer.method) == (layout, choice.method)
    assert done.report is not None
    page = done.report.read_text(encoding="utf-8")
    assert all(name in page for name in choice.keep)
    return spec


def quantized_inputs(path: Path) -> dict[str, bool]:
    """Return for each layer whether it reads the output of a DequantizeLinear."""
    graph = read_onnx(path).graph
    makers = {name: node.op_type for node in graph.node for name in node.output}
    layers = (node for node in graph.node if node.op_type in ("Conv", "Gemm"))
    return {node.name: makers.get(node.input[0]) == "DequantizeLinear" for node in layers}


def test_a_network_that_int8_breaks_is_exported_with_the_guilty_layers_in_float(
    broken: Path, planted: Planted, data: Dataset
) -> None:
    notes = Notes()
    done = export(broken, "onnx", precision="int8", calib=data, check=data, progress=notes)
    check_choice(done, planted, "x86")
    assert done.choice is not None
    assert done.choice.keep == {planted.makes, planted.takes}
    quantized = quantized_inputs(done.path)
    assert not quantized[planted.takes]
    assert sum(quantized.values()) > 0.8 * len(quantized)
    assert violations(read_onnx(done.path), "x86") == []
    (plain,) = (line for line in notes.lines if line.startswith("Plain INT8 is outside"))
    assert "mAP fell by" in plain
    (mixed,) = (line for line in notes.lines if line.startswith("Mixed precision:"))
    assert f"2 of {done.choice.mixed and done.choice.mixed.quantizable} layers" in mixed
    assert names_in(broken.parent) == {
        "net.onnx", "net.ranges.json", "net.int8.onnx", "net.int8.onnx.report.html",
    }  # fmt: skip


def test_for_tensorrt_the_rest_is_fp16_and_opset_19(
    broken: Path, planted: Planted, data: Dataset
) -> None:
    done = export(broken, "onnx", precision="int8", target="tensorrt", calib=data, check=data)
    spec = check_choice(done, planted, "tensorrt")
    assert spec.provenance.arithmetic == "fp16"
    model = read_onnx(done.path)
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [19]
    assert violations(model, "tensorrt") == []
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    (layer,) = (node for node in model.graph.node if node.name == planted.takes)
    assert kinds[layer.input[1]] == onnx.TensorProto.FLOAT16
    assert not quantized_inputs(done.path)[planted.takes]


def test_for_openvino_the_same_layer_is_found(
    broken: Path, planted: Planted, data: Dataset
) -> None:
    done = export(broken, "openvino", precision="int8", calib=data, check=data)
    check_choice(done, planted, "openvino")


def test_the_page_of_a_search_that_failed_shows_the_ranges_that_were_tried(
    broken: Path, data: Dataset
) -> None:
    with pytest.raises(FidelityError) as caught:
        export(broken, "onnx", precision="int8", calib=data, check=data, minutes=1e-9)
    assert caught.value.report is not None
    page = caught.value.report.read_text(encoding="utf-8")
    assert all(method in page for method in METHODS)


@pytest.mark.parametrize(
    ("fmt", "suffix", "existing"), [("onnx", ".onnx", False), ("openvino", ".xml", True)]
)
def test_a_budget_that_no_time_is_left_for_is_refused_and_writes_a_page_only(
    fmt: str, suffix: str, existing: bool, broken: Path, data: Dataset
) -> None:
    out = broken.parent / f"out{suffix}"
    if existing:
        out.write_text("older")
        out.with_suffix(".bin").write_text("older")
    before = {path.name: path.read_bytes() for path in broken.parent.iterdir()}
    options = {"calib": data, "check": data, "method": "minmax", "minutes": 1e-9, "out": out}
    with pytest.raises(FidelityError, match="exceeds its budget on 36 fitting") as caught:
        export(broken, fmt, precision="int8", **options)
    assert "--max-drop" in str(caught.value)
    assert caught.value.fidelity.passed is False
    page = out.with_name(f"out{suffix}.report.html")
    assert caught.value.report == page
    assert "Refused" in page.read_text(encoding="utf-8")
    page.unlink()
    (broken.parent / "out.ranges.json").unlink(missing_ok=True)
    after = {path.name: path.read_bytes() for path in broken.parent.iterdir()}
    assert after.pop("net.ranges.json") is not None
    assert before.pop("net.ranges.json") is not None
    assert after == before


def test_the_command_exits_1_and_prints_a_document_that_did_not_pass(
    edgeml: Command, broken: Path, pictures: Path
) -> None:
    out = broken.parent / "out.onnx"
    words = ["export", broken, "--fmt", "onnx", "--precision", "int8", "--out", out]
    words += ["--calib", pictures, "--check", pictures, "--calib-method", "minmax"]
    result = edgeml(*words, "--search-minutes", "1e-9", "--json")
    assert result.status == 1
    document = result.json
    assert document["path"] is None
    assert document["sha256"] is None
    assert document["checks"]["passed"] is False
    assert document["checks"]["drops"]["mAP"]["points"] > 20
    assert Path(document["report"]).is_file()
    assert "edgeml: INT8 exceeds its budget" in result.err
    result = edgeml(*words, "--search-minutes", "1e-9")
    assert (result.status, result.out) == (1, "")
    assert f"Report: {out}.report.html" in result.err
    assert not out.exists()


@pytest.fixture(scope="module")
def parts(data: Dataset) -> Dataset:
    return split_dataset(data, SplitPlan())


@pytest.fixture(scope="module")
def candidates(
    network: Path, ranges: object, parts: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> Candidates:
    path = tmp_path_factory.mktemp("candidates") / "fp32.onnx"
    shutil.copy(network, path)
    return Candidates(path, ranges, "x86", parts.part("val"))


def test_auto_uses_the_method_that_moves_decisions_least(candidates: Candidates) -> None:
    moved = {
        method: divergence(candidates.reference, candidates.scores(method), candidates.spec)
        for method in METHODS
    }
    assert len(set(moved.values())) == len(METHODS)
    choice = choose_method(candidates)
    loose = replace(LIMITS["int8"], drop=100, label_drop=100)
    assert choose_layers(candidates, loose, choice) is choice
    assert choice.divergences == moved
    assert choice.method == min(moved, key=lambda method: moved[method])
    assert choice.keep == frozenset()
    assert choice.mixed is None


@pytest.mark.parametrize("method", METHODS)
def test_a_requested_method_is_used_without_a_trial(
    method: str, network: Path, data: Dataset, tmp_path: Path
) -> None:
    done = export(
        network, "onnx", precision="int8", calib=data, method=method, out=tmp_path / "m.onnx",
        **WIDE,
    )  # fmt: skip
    assert done.choice is not None
    assert (done.choice.method, done.choice.divergences) == (method, {})
    spec = spec_of_onnx(read_onnx(done.path), done.path)
    assert f"x86, {method} of " in str(spec.provenance.quantizer)


def test_without_fitting_images_ranges_are_minmax_and_a_note_says_so(
    network: Path, parts: Dataset, tmp_path: Path
) -> None:
    notes, few = Notes(), replace(parts.part("train").select(np.arange(40)), split=None)
    done = export(
        network, "onnx", precision="int8", calib=few, check=parts, out=tmp_path / "m.onnx",
        progress=notes, max_drop=100, max_label_drop=100,
    )  # fmt: skip
    assert done.choice is not None
    assert done.choice.method in METHODS  # the validation side of the check fits
    assert done.choice.divergences
    alone = export(
        network, "onnx", precision="int8", calib=few, out=tmp_path / "n.onnx", progress=notes
    )
    assert alone.choice is not None
    assert (alone.choice.method, alone.choice.divergences, alone.checks) == ("minmax", {}, None)
    assert any("no images to fit with: INT8 uses minmax ranges" in line for line in notes.lines)
    assert any("was not compared with its source" in line for line in notes.lines)
