"""What an export promises: thresholds, stored ranges, servers, raw frames, speed, refusals."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgeml import ModelSpec, Predictor
from edgeml.data import Dataset, SplitPlan, split_dataset
from edgeml.errors import CalibrationError, DataError, InputError, NotComparableError
from edgeml.measure.compare import FidelityError
from edgeml.measure.evaluation import score
from edgeml.runtimes.onnx_file import read_onnx, spec_of_onnx, write_onnx
from edgeml_export import check, export, pipeline
from edgeml_export.int8.legality import violations
from edgeml_export.request import RequestError
from edgeml_export.verify import verify
from edgeml_export.write import Job, Written, write_format
from tests.command import Command
from tests.export.int8.outlier import Planted, plant_outlier
from tests.notes import Notes

pytestmark = [pytest.mark.train, pytest.mark.runtime]

WIDE = {"max_drop": 10.0, "max_label_drop": 100.0}


@pytest.fixture
def own_run(run: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(run, tmp_path / "run"))


@pytest.fixture
def own(network: Path, tmp_path: Path) -> Path:
    """A copy of the network in a folder of its own."""
    (tmp_path / "own").mkdir()
    return Path(shutil.copy(network, tmp_path / "own" / "model.onnx"))


@pytest.fixture(scope="module")
def parts(data: Dataset) -> Dataset:
    return split_dataset(data, SplitPlan())


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


class TestThresholds:
    @pytest.fixture(autouse=True)
    def shifted(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let the INT8 network give every logit 0.2 more than it should."""

        def shifting(job: Job, network: Path) -> Written:
            written = write_format(job, network)
            model = onnx.load(written.path)
            (head,) = (n for n in model.graph.node if n.output[0] == model.graph.output[0].name)
            for tensor in model.graph.initializer:
                if tensor.name == head.input[2]:
                    bias = onnx.numpy_helper.to_array(tensor) + np.float32(0.2)
                    tensor.CopyFrom(onnx.numpy_helper.from_array(bias, tensor.name))
            onnx.save(model, written.path)
            return written

        monkeypatch.setattr(pipeline, "write_format", shifting)

    @pytest.fixture
    def ungrouped(self, own: Path) -> Path:
        """The network without its groups: each label is decided by its threshold."""
        model = read_onnx(own)
        write_onnx(model, own, replace(spec_of_onnx(model, own), groups=()))
        return own

    def test_a_shift_of_all_scores_is_followed(
        self, ungrouped: Path, data: Dataset, parts: Dataset
    ) -> None:
        done = export(ungrouped, "onnx", precision="int8", calib=data, check=data, **WIDE)
        self.check_moves(ungrouped, done.path, parts.part("val"))
        assert done.recovery is not None
        assert done.recovery.images == len(parts.part("val"))
        result = done.to_dict()["thresholds"]
        assert result["images"] == len(parts.part("val"))
        assert set(result) == {"images", "reference", "unfitted", "fitted"}

    def test_also_where_nothing_is_checked(
        self, ungrouped: Path, data: Dataset, parts: Dataset
    ) -> None:
        done = export(ungrouped, "onnx", precision="int8", calib=data)
        assert (done.checks, done.recovery, done.report) == (None, None, None)
        self.check_moves(ungrouped, done.path, parts.part("val"))

    def test_labels_of_exclusive_groups_keep_theirs(self, own: Path, data: Dataset) -> None:
        done = export(own, "onnx", precision="int8", calib=data)
        with Predictor(own) as first, Predictor(done.path) as second:
            assert {group.rule for group in first.spec.groups} == {"one"}
            assert second.spec.thresholds == first.spec.thresholds

    @staticmethod
    def check_moves(source: Path, exported: Path, fitting: Dataset) -> None:
        """Check each label by hand: where its threshold moved, more decisions agree than before."""
        with Predictor(source) as first, Predictor(exported) as second:
            old, new = first.spec.thresholds, second.spec.thresholds
            reference, candidate = score(first, fitting), score(second, fitting)
        agreeing = [
            ((candidate >= np.float32(each)) == (reference >= np.float32(old))).sum(axis=0)
            for each in (old, new)
        ]
        moved = np.array(old) != np.array(new)
        assert moved.any()
        assert (agreeing[1] > agreeing[0])[moved].all()


@pytest.mark.parametrize(("fmt", "precision"), [("openvino", "fp32"), ("onnx", "fp16")])
def test_other_precisions_keep_their_thresholds(
    fmt: str, precision: str, own: Path, data: Dataset
) -> None:
    done = export(own, fmt, precision=precision, check=data, **WIDE)
    with Predictor(own) as first, Predictor(done.path) as second:
        assert second.spec.thresholds == first.spec.thresholds


class TestKeptRanges:
    def test_a_second_export_needs_no_images_and_gives_the_same_bytes(
        self, own: Path, data: Dataset
    ) -> None:
        options = {"precision": "int8", "check": data, **WIDE}
        first = export(own, "onnx", calib=data, **options)
        kept = (own.parent / "model.ranges.json").read_bytes()
        first.path.unlink()
        notes = Notes()
        second = export(own, "onnx", progress=notes, **options)
        assert second.sha256 == first.sha256
        assert any("uses the stored ranges of 168 images" in line for line in notes.lines)
        assert (own.parent / "model.ranges.json").read_bytes() == kept

    def test_also_where_nothing_fits_and_nothing_checks(self, own: Path, parts: Dataset) -> None:
        few = replace(parts.part("train").select(np.arange(40)), split=None)
        first = export(own, "onnx", precision="int8", calib=few)
        assert export(own, "onnx", precision="int8").sha256 == first.sha256

    def test_what_was_measured_serves_every_target(self, own: Path, parts: Dataset) -> None:
        few = replace(parts.part("train").select(np.arange(40)), split=None)
        export(own, "onnx", precision="int8", calib=few)
        assert export(own, "openvino", precision="int8").path.suffix == ".xml"
        for target in ("arm", "tensorrt"):
            done = export(own, "onnx", precision="int8", target=target)
            assert violations(read_onnx(done.path), target) == []

    def test_those_of_another_network_are_refused(
        self, own: Path, planted: Planted, data: Dataset
    ) -> None:
        (own.parent / "model.ranges.json").write_text(planted.ranges.to_json(), encoding="utf-8")
        with pytest.raises(CalibrationError, match=r"'model\.ranges\.json' are of another network"):
            export(own, "onnx", precision="int8", check=data)
        assert names_in(own.parent) == {"model.onnx", "model.ranges.json"}

    def test_damaged_ones_are_refused_before_any_work_and_replaced_if_there_are_images(
        self, own: Path, data: Dataset, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        kept = own.parent / "model.ranges.json"
        kept.write_text('{"format": "edgeml.ranges/1"', encoding="utf-8")
        with monkeypatch.context() as patch:
            patch.setattr(pipeline, "Predictor", pytest.fail)
            with pytest.raises(CalibrationError, match="is damaged: give --calib DATA"):
                export(own, "onnx", precision="int8", check=data)
        export(own, "onnx", precision="int8", calib=data, method="minmax")
        assert json.loads(kept.read_text(encoding="utf-8"))["images"] == 168


class TestServers:
    @pytest.mark.parametrize(("server", "model"), [("triton", "model.onnx"), ("ovms", "model.xml")])
    def test_a_repository_holds_a_model_that_passes_verify(
        self, server: str, model: str, own: Path, data: Dataset, tmp_path: Path
    ) -> None:
        out = tmp_path / "Kleider für Jörg"
        options = {"precision": "int8", "calib": data, "check": data, "out": out, **WIDE}
        done = export(own, server, **options)
        assert (done.path, done.format) == (out, server)
        assert done.report == tmp_path / "Kleider für Jörg.report.html"
        (folder,) = (path for path in out.iterdir() if path.is_dir())
        assert folder.name == "Kleider_f_r_J_rg"
        found = verify(folder / "1" / model, against=own, data=data)
        assert found.passed, found.findings
        assert found.fidelity is not None
        assert done.checks is not None
        assert found.fidelity.max_abs == pytest.approx(done.checks.max_abs, rel=1e-3)
        result = ModelSpec.from_json((folder / "edgeml.json").read_text(encoding="utf-8"))
        with Predictor(folder / "1" / model) as predictor:
            assert predictor.spec == result
        config = "config.json" if server == "ovms" else f"{folder.name}/config.pbtxt"
        assert folder.name in (out / config).read_text(encoding="utf-8")

    def test_it_is_replaced_by_the_next(self, own: Path) -> None:
        first = export(own, "triton")
        assert first.path == own.parent / "model.triton"
        (first.path / "model" / "1" / "stale").write_text("")
        assert export(own, "triton").path == first.path
        assert names_in(first.path / "model" / "1") == {"model.onnx"}

    @pytest.mark.parametrize("server", ["triton", "ovms"])
    def test_a_folder_of_somebody_else_is_refused_before_any_work(
        self, server: str, own: Path, data: Dataset, tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        (tmp_path / "thesis").mkdir()
        (tmp_path / "thesis" / "text.txt").write_text("years of work")
        monkeypatch.setattr(pipeline, "Predictor", pytest.fail)
        with pytest.raises(InputError, match="contains something other"):
            export(own, server, check=data, out=tmp_path / "thesis")
        assert names_in(tmp_path / "thesis") == {"text.txt"}


def test_a_slim_network_passes_too(own_run: Path, data: Dataset) -> None:
    done = export(own_run, "onnx", precision="int8", slim=True, calib=data, check=data, **WIDE)
    assert done.checks is not None
    assert done.checks.passed


@pytest.mark.parametrize("fmt", ["onnx", pytest.param("openvino", marks=pytest.mark.nightly)])
def test_raw_frames_are_decided_as_prepared_ones_are(
    fmt: str, own_run: Path, data: Dataset, parts: Dataset
) -> None:
    options = {"precision": "int8", "calib": data, "method": "minmax"}
    scores, thresholds = [], []
    for input in ("float32", "uint8"):
        done = export(own_run, fmt, input=input, **options)
        with Predictor(done.path) as predictor:
            assert predictor.spec.input == input
            scores.append(score(predictor, parts.part("test")))
            thresholds.append(predictor.spec.thresholds)
    assert thresholds[0] == thresholds[1]
    np.testing.assert_array_equal(*(each >= np.float32(thresholds[0]) for each in scores))
    np.testing.assert_allclose(*scores, atol=0.02)


@pytest.mark.parametrize("target", ["auto", "tensorrt"])
def test_int8_is_timed_beside_fp32_where_this_machine_can(
    target: str, own: Path, data: Dataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipeline, "measure_speed", check.measure_speed)
    monkeypatch.setattr(check, "SPEED_SECONDS", 0.5)
    notes = Notes()
    done = export(
        own, "onnx", precision="int8", target=target, calib=data, check=data,
        progress=notes, **WIDE,
    )  # fmt: skip
    result = [line for line in notes.lines if "as FP32 here" in line or "than FP32 here" in line]
    if target == "tensorrt":
        assert (done.speed, result) == (None, [])
        return
    assert done.speed is not None
    assert done.speed.low <= done.speed.ratio <= done.speed.high
    assert min(done.speed.slow_ms, done.speed.fast_ms) > 0
    assert result == [done.speed.sentence("INT8", "FP32")]
    assert done.to_dict()["speed"]["verdict"] == done.speed.verdict
    assert done.report is not None
    assert f"{done.speed.ratio:.2f}" in done.report.read_text(encoding="utf-8")


def test_a_damaged_image_to_check_with_is_found_before_the_search(
    own: Path, parts: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    bad = tmp_path / "cut short.jpg"
    bad.write_bytes(parts.part("test").paths[0].read_bytes()[:400])
    last = len(parts) - 1 - parts.split[::-1].index("test")
    paths = (*parts.paths[:last], bad, *parts.paths[last + 1 :])
    monkeypatch.setattr(pipeline, "write_fp32", lambda _: pytest.fail("work was done"))
    with pytest.raises(DataError, match=r"1 of 36 images cannot be read\..*cut short\.jpg"):
        export(own, "onnx", precision="int8", calib=parts, check=replace(parts, paths=paths))


def test_an_allowed_overlap_is_recorded_in_the_model(
    network: Path, parts: Dataset, tmp_path: Path
) -> None:
    both = parts.part("train")
    calib = replace(both.select(np.arange(50)), split=None)
    check = replace(both.select(np.arange(40, 90)), split=("test",) * 50)
    options = {"precision": "int8", "calib": calib, "check": check, "out": tmp_path / "m.onnx"}
    with pytest.raises(CalibrationError, match="10 of 50 images"):
        export(network, "onnx", **options, **WIDE)
    done = export(network, "onnx", allow_overlap=True, **options, **WIDE)
    assert spec_of_onnx(read_onnx(done.path), done.path).provenance.overlap == 10
    assert done.report is not None
    assert "flatter" in done.report.read_text(encoding="utf-8")


class TestOverflow:
    """A network in which one channel is beyond what FP16 holds, and its weights are not."""

    @pytest.fixture
    def overflowing(self, planted: Planted, tmp_path: Path) -> Path:
        path = tmp_path / "net.onnx"
        plant_outlier(planted.path, path, 64.0)
        return path

    def test_fitting_images_find_it_and_it_stays_fp32(
        self, overflowing: Path, planted: Planted, parts: Dataset
    ) -> None:
        notes = Notes()
        done = export(overflowing, "onnx", precision="fp16", check=parts, progress=notes)
        assert done.checks is not None
        assert done.checks.passed
        (result,) = (line for line in notes.lines if "overflow FP16" in line)
        assert planted.makes in result
        kinds = {t.name: t.data_type for t in read_onnx(done.path).graph.initializer}
        layers = {n.name: n for n in read_onnx(done.path).graph.node if n.op_type == "Conv"}
        float16 = onnx.TensorProto.FLOAT16
        assert kinds[layers[planted.makes].input[1]] == onnx.TensorProto.FLOAT
        assert sum(kinds[layer.input[1]] == float16 for layer in layers.values()) > 5

    def test_without_them_it_is_refused(
        self, edgeml: Command, overflowing: Path, pictures: Path, parts: Dataset
    ) -> None:
        check = replace(parts.part("test"), split=None)
        with pytest.raises(FidelityError, match="NaN or infinity"):
            export(overflowing, "onnx", precision="fp16", check=check)
        words = ["export", overflowing, "--fmt", "onnx", "--precision", "fp16", "--json"]
        result = edgeml(*words, "--check", pictures)
        assert result.status == 1, result.err
        assert result.json["checks"]["passed"] is False
        assert names_in(overflowing.parent) == {"net.onnx", "net.fp16.onnx.report.html"}


class TestRefusedBeforeWork:
    @pytest.fixture(autouse=True)
    def no_work(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(pipeline, "write_fp32", lambda _: pytest.fail("work was done"))

    @pytest.mark.parametrize("role", ["calib", "check"])
    def test_labels_that_the_model_does_not_know(self, role: str, own: Path, data: Dataset) -> None:
        others = replace(data, labels=("ball", "blue", "box", "green", "violet"))
        with pytest.raises(NotComparableError, match="violet"):
            export(own, "onnx", precision="int8", **{"calib": data, role: others})

    @pytest.mark.parametrize("points", [float("nan"), -1.0])
    def test_a_budget_that_is_none(self, points: float, own_run: Path, data: Dataset) -> None:
        with pytest.raises(InputError, match="the points that may be lost"):
            export(own_run, "onnx", check=data, max_drop=points)

    def test_a_budget_without_images_to_hold_it_on(self, own_run: Path) -> None:
        with pytest.raises(RequestError) as caught:
            export(own_run, "onnx", max_label_drop=1.0)
        assert caught.value.reason == "budget"

    def test_a_folder_in_place_of_the_file(self, own_run: Path) -> None:
        (own_run / "model.onnx").mkdir()
        with pytest.raises(RequestError) as caught:
            export(own_run, "onnx")
        assert caught.value.reason == "folder"


def test_the_page_of_a_refusal_goes_when_an_export_without_a_check_succeeds(own_run: Path) -> None:
    page = own_run / "model.onnx.report.html"
    page.write_text("Refused")
    export(own_run, "onnx")
    assert not page.exists()
