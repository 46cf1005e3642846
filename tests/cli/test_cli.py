"""The command as a user runs it: each command on a small set, then every kind of bad input."""

from __future__ import annotations

import csv
import json
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from tests.command import Command, colour_folders, colour_pictures
from tests.data.dirty import make_dirty
from tests.report.pages import check_page
from tests.tiny import LABELS, make_tiny_onnx, tiny_spec


class TestWithAModel:
    """Commands that need a model file, but no training."""

    @pytest.fixture
    def data(self, tmp_path: Path) -> Path:
        return colour_folders(tmp_path / "photos")

    def test_eval_prints_the_contracts_json(
        self, edgeml: Command, tiny_onnx: Path, data: Path
    ) -> None:
        result = edgeml("eval", tiny_onnx, data, "--json")
        assert result.status == 0, result.err
        document = result.json
        assert document["images"] == 12
        assert set(document["metrics"]) >= {"mAP", "CF1", "OF1", "exact_match"}
        assert document["metrics"]["mAP"] == 1.0
        assert set(document["labels"]["red"]) == {"AP", "F1", "threshold", "positives"}
        assert "all 12 images" in result.err  # no split is known

    def test_eval_of_a_split_that_is_not_known_is_refused(
        self, edgeml: Command, tiny_onnx: Path, data: Path
    ) -> None:
        assert "--split all" in edgeml.refused("eval", tiny_onnx, data, "--split", "test")

    def test_predict_prints_one_object_per_image(
        self, edgeml: Command, tiny_onnx: Path, data: Path
    ) -> None:
        document = edgeml("predict", tiny_onnx, data / "red" / "0.png", "--json").json
        (entry,) = document
        assert set(entry) == {"source", "labels", "scores", "error"}
        assert entry["labels"] == ["red"]
        assert set(entry["scores"]) == set(LABELS)
        assert entry["error"] is None

    def test_predict_writes_a_table_and_images(
        self, edgeml: Command, tiny_onnx: Path, data: Path, tmp_path: Path
    ) -> None:
        table, folder = tmp_path / "o" / "table.csv", tmp_path / "images"
        result = edgeml("predict", tiny_onnx, data, "--csv", table, "--overlay", folder)
        assert result.status == 0, result.err
        with open(table, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        assert len(rows) == len(list(folder.iterdir())) == 12
        assert {row["labels"] for row in rows} == set(LABELS)

    def test_predict_reports_an_unreadable_image_and_does_the_others(
        self, edgeml: Command, tiny_onnx: Path, data: Path
    ) -> None:
        (data / "red" / "0.png").write_bytes(b"no picture")
        result = edgeml("predict", tiny_onnx, data, "--json")
        assert result.status == 2
        broken = [entry for entry in result.json if entry["error"]]
        assert len(result.json) == 12
        assert len(broken) == 1
        assert "0.png" in result.err

    def test_compare_of_a_model_with_itself_finds_nothing(
        self, edgeml: Command, tiny_onnx: Path, data: Path
    ) -> None:
        document = edgeml("compare", tiny_onnx, tiny_onnx, "--data", data, "--json").json
        assert document["max_abs"] == 0
        assert document["label_flips_per_1000"] == 0
        assert document["inputs_equal"] == document["images"] == 12
        assert set(document["quantiles"].values()) == {0}
        assert document["drops"]["mAP"] == {"points": 0, "low": 0, "high": 0}

    def test_compare_shows_four_levels_and_a_page(
        self, edgeml: Command, tiny_onnx: Path, data: Path, tmp_path: Path
    ) -> None:
        spec = tiny_spec()
        turned = replace(spec, preprocess=replace(spec.preprocess, channels="bgr"))
        other = make_tiny_onnx(tmp_path / "other.onnx", spec=turned)
        page = tmp_path / "pages" / "page.html"
        result = edgeml("compare", tiny_onnx, other, "--data", data, "--html", page)
        assert result.status == 0, result.err
        levels = [line.split()[0] for line in result.out.splitlines()[:4]]
        assert levels == ["preprocessing", "tensor", "decision", "metric"]
        assert "0 of 12 inputs are equal" in result.out
        assert "Labels that surely lost AP" in result.out
        assert "other.onnx" in check_page(page).text

    def test_compare_uses_the_other_spec_for_a_model_without_one(
        self, edgeml: Command, tiny_onnx: Path, data: Path, tmp_path: Path
    ) -> None:
        import onnx

        model = onnx.load(tiny_onnx)
        model.ClearField("metadata_props")
        onnx.save(model, tmp_path / "bare.onnx")
        result = edgeml("compare", tiny_onnx, tmp_path / "bare.onnx", "--data", data, "--json")
        assert result.json["max_abs"] == 0
        assert "bare.onnx does not state its labels" in result.err
        assert edgeml("verify", tmp_path / "bare.onnx").status == 1

    def test_verify_reports_in_one_line_that_a_model_is_sound(
        self, edgeml: Command, tiny_onnx: Path
    ) -> None:
        result = edgeml("verify", tiny_onnx)
        assert (result.status, result.err) == (0, "")
        assert "is sound" in result.out
        document = edgeml("verify", tiny_onnx, "--json").json
        assert set(document) == {
            "path", "sha256", "precision", "passed", "findings", "checks", "not_run"
        }  # fmt: skip
        assert (document["passed"], document["findings"], document["checks"]) == (True, [], None)
        assert document["not_run"] is None

    def test_inspect_shows_labels_digest_and_runtime(
        self, edgeml: Command, tiny_onnx: Path
    ) -> None:
        document = edgeml("inspect", tiny_onnx, "--json").json
        assert document["labels"] == list(LABELS)
        assert len(document["sha256"]) == 64
        assert document["runtime"].startswith("onnxruntime")
        assert "red" in edgeml("inspect", tiny_onnx).out

    def test_bench_prints_the_contracts_json_and_writes_its_report(
        self, edgeml: Command, tiny_onnx: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "bench"
        document = edgeml("bench", tiny_onnx, "--seconds", 0.2, "--out", out, "--json").json
        assert sorted(path.name for path in out.iterdir()) == ["bench.json", "report.html"]
        assert document["schema"] == "edgeml.bench/1"
        (result,) = document["results"]
        assert set(result) >= {
            "model", "runtime", "precision_actual", "stages", "throughput_per_s", "load_ms",
            "first_ms", "peak_rss_mb", "flags",
        }  # fmt: skip
        assert set(result["stages"]) == {"decode", "preprocess", "infer", "postprocess", "total"}
        assert set(result["stages"]["total"]) >= {"n", "p50_ms", "p95_ms", "p99_ms"}

    def test_stream_of_a_folder_writes_a_line_for_each_picture(
        self, edgeml: Command, tiny_onnx: Path, data: Path, tmp_path: Path
    ) -> None:
        lines = tmp_path / "labels.jsonl"
        result = edgeml("stream", tiny_onnx, data / "red", "--out", lines, "--json")
        assert result.status == 0, result.err
        assert result.json["frames_done"] == 4
        records = [json.loads(line) for line in lines.read_text(encoding="utf-8").splitlines()]
        assert sum("frame_id" in record for record in records) == 4

    def test_a_label_that_the_model_does_not_know_is_named(
        self, edgeml: Command, tiny_onnx: Path, data: Path
    ) -> None:
        shutil.copytree(data / "red", data / "purple")
        assert "'purple'" in edgeml.refused("eval", tiny_onnx, data)

    @pytest.mark.train
    def test_int8_without_calibration_images_is_refused(
        self, edgeml: Command, tmp_path: Path
    ) -> None:
        model = make_tiny_onnx(tmp_path / "model.onnx")
        line = edgeml.refused("export", model, "--fmt", "openvino", "--precision", "int8")
        assert "--calib" in line
        assert list(tmp_path.iterdir()) == [model]

    @pytest.mark.train
    def test_trt_without_tensorrt_names_the_extra(self, edgeml: Command, tmp_path: Path) -> None:
        model = make_tiny_onnx(tmp_path / "model.onnx")
        assert "edgeml[trt]" in edgeml.refused("export", model, "--fmt", "trt")
        assert list(tmp_path.iterdir()) == [model]


class TestBadInput:
    @pytest.mark.parametrize(
        "words",
        [
            pytest.param(("train", "absent"), marks=pytest.mark.train),
            ("eval", "TINY", "absent"),
            ("data", "split", "absent", "--out", "split.csv"),
            ("compare", "TINY", "TINY", "--data", "absent"),
            ("predict", "TINY", "absent"),
            ("predict", "absent", "absent"),
            ("export", "absent", "--fmt", "onnx"),
            ("inspect", "absent"),
            ("verify", "absent"),
            ("verify", "TINY", "--against", "TINY", "--data", "absent"),
            ("bench", "absent"),
            ("bench", "TINY", "--data", "absent"),
            ("stream", "TINY", "absent"),
        ],
    )
    def test_a_missing_file_is_named(
        self, edgeml: Command, words: tuple[str, ...], tiny_onnx: Path,
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    ) -> None:  # fmt: skip
        monkeypatch.chdir(tmp_path)
        line = edgeml.refused(*(tiny_onnx if word == "TINY" else word for word in words))
        assert "absent" in line
        assert list(tmp_path.iterdir()) == []

    @pytest.mark.parametrize(
        "words",
        [("--batch", "4"), ("--portable", "ampere+"), ("--capability", "8.6"), ("--workspace", 9)],
    )
    def test_engine_options_are_refused_where_no_engine_is_built(
        self, edgeml: Command, words: tuple[object, ...], tiny_onnx: Path, tmp_path: Path
    ) -> None:
        out = tmp_path / "m.xml"
        line = edgeml.refused("export", tiny_onnx, "--fmt", "openvino", "--out", out, *words)
        assert "openvino is not an engine" in line
        assert not out.exists()

    @pytest.mark.train
    def test_an_empty_folder_is_refused(self, edgeml: Command, tmp_path: Path) -> None:
        (tmp_path / "empty").mkdir()
        assert "empty" in edgeml.refused("train", tmp_path / "empty", "--out", tmp_path / "run")
        assert not (tmp_path / "run").exists()

    @pytest.mark.train
    def test_one_label_only_is_refused(self, edgeml: Command, tmp_path: Path) -> None:
        data = colour_folders(tmp_path / "photos")
        shutil.rmtree(data / "red")
        shutil.rmtree(data / "blue")
        assert "green" in edgeml.refused("train", data, "--out", tmp_path / "run")
        assert not (tmp_path / "run").exists()

    @pytest.mark.train
    def test_an_unreadable_image_is_named(self, edgeml: Command, tmp_path: Path) -> None:
        data = colour_folders(tmp_path / "photos", each=8)
        (data / "red" / "3.png").write_bytes(b"no picture")
        line = edgeml("train", data, "--out", tmp_path / "run", "--epochs", 1, "--size", 32)
        assert line.status == 2
        assert "3.png" in line.err.splitlines()[-1]
        assert not (tmp_path / "run").exists()

    @pytest.mark.train
    def test_an_unknown_model_is_refused_with_similar_ones(
        self, edgeml: Command, tmp_path: Path
    ) -> None:
        data = colour_folders(tmp_path / "photos", each=8)
        line = edgeml.refused("train", data, "--model", "resnet81", "--out", tmp_path / "run")
        assert "resnet18" in line
        assert not (tmp_path / "run").exists()

    def test_an_unknown_format_is_refused_with_the_known_ones(
        self, edgeml: Command, tiny_onnx: Path
    ) -> None:
        line = edgeml.refused("export", tiny_onnx, "--fmt", "tflite")
        assert "openvino" in line

    def test_an_unknown_option_is_refused_with_a_similar_one(
        self, edgeml: Command, tiny_onnx: Path
    ) -> None:
        assert "--fmt" in edgeml.refused("export", tiny_onnx, "--fmtt", "onnx")

    @pytest.mark.parametrize("command", ["train", "synth", "split", "predict", "bench"])
    def test_an_output_that_cannot_be_written_is_named(
        self, edgeml: Command, tiny_onnx: Path, tmp_path: Path, command: str
    ) -> None:
        # A file where a folder should be: root ignores permissions, but not this.
        (tmp_path / "file").write_text("in the way")
        data, out = colour_folders(tmp_path / "photos", each=8), tmp_path / "file" / "out"
        words: dict[str, tuple[object, ...]] = {
            "train": ("train", data, "--out", out, "--epochs", 1, "--size", 32),
            "synth": ("data", "synth", out, "--images", 10),
            "split": ("data", "split", data, "--out", out),
            "predict": ("predict", tiny_onnx, data, "--csv", out),
            "bench": ("bench", tiny_onnx, "--seconds", 0.1, "--out", out),
        }
        assert "file" in edgeml.refused(*words[command])
        assert (tmp_path / "file").read_text() == "in the way"

    @pytest.mark.parametrize("pair", ["pad_type", "=same", "a b=1"])
    def test_model_args_must_be_pairs(self, edgeml: Command, tmp_path: Path, pair: str) -> None:
        data = colour_folders(tmp_path / "photos")
        assert "key=value" in edgeml.refused("train", data, "--model-args", pair)

    def test_no_command_shows_the_help(self, edgeml: Command) -> None:
        result = edgeml()
        assert "Commands" in result.out + result.err


def test_a_file_name_with_spaces_and_umlauts_works(
    edgeml: Command, tiny_onnx: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "Fotos für später"
    data = colour_folders(folder / "alle Bilder")
    model = shutil.copy(tiny_onnx, folder / "mein Modell.onnx")
    assert edgeml("eval", model, data, "--json").json["metrics"]["mAP"] == 1.0


def test_synth_and_split_write_data_that_can_be_read(edgeml: Command, tmp_path: Path) -> None:
    data = tmp_path / "apparel"
    assert edgeml("data", "synth", data, "--images", 144, "--size", 48).status == 0
    assert len(list(data.glob("*_*/*.jpg"))) == 144
    result = edgeml("data", "split", data, "--out", tmp_path / "split.csv", "--seed", 3)
    assert result.status == 0, result.err
    with open(tmp_path / "split.csv", newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    counts = [sum(row["split"] == part for row in rows) for part in ("train", "val", "test")]
    assert sum(counts) == 144
    assert 0.1 < counts[1] / 144 < 0.2
    assert 0.1 < counts[2] / 144 < 0.2


def test_split_holds_out_a_combination(edgeml: Command, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for name in ("red_shirt", "red_dress", "black_shirt", "black_dress"):
        colour_pictures(data / name)
    out = tmp_path / "split.csv"
    result = edgeml("data", "split", data, "--out", out, "--hold-out", "black+dress", "--no-near")
    assert result.status == 0, result.err
    assert "8 images with black and dress are held out for the test" in result.err
    with open(out, newline="") as file:
        rows = list(csv.DictReader(file))
    splits = [row["split"] for row in rows if set(row["labels"].split(";")) == {"black", "dress"}]
    assert splits == ["test"] * 8
    assert "'black' does not name two labels" in edgeml.refused(
        "data", "split", data, "--out", out, "--hold-out", "black"
    )


@pytest.mark.slow
def test_an_audit_is_shown_as_text_as_json_and_as_a_page(edgeml: Command, tmp_path: Path) -> None:
    table = make_dirty(tmp_path / "data")
    page = tmp_path / "audit.html"
    result = edgeml("data", "audit", table, "--html", page)
    assert result.status == 0, result.err
    assert "Odd images                           1 cmyk, 1 rgba" in result.out
    assert str(page) in result.out
    assert "no-row.jpg" in page.read_text(encoding="utf-8")
    document = edgeml("data", "audit", table, "--json", "--skip-bad").json
    assert isinstance(document, dict)
    assert document["schema"] == "edgeml.audit/1"
    assert len(document["skipped"]) == 2
    assert "absent" in edgeml.refused("data", "audit", tmp_path / "absent")


def test_the_cache_is_shown_and_cleared(
    edgeml: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("EDGEML_CACHE", str(tmp_path))
    (tmp_path / "frames").mkdir()
    (tmp_path / "frames" / "x.frames").write_bytes(bytes(1_500_000))
    assert edgeml("data", "cache").out == f"{tmp_path / 'frames'}  1.5 MB\n"
    assert edgeml("data", "cache", "--clear").out == f"{tmp_path / 'frames'}  1.5 MB removed\n"
    assert edgeml("data", "cache").out == f"{tmp_path / 'frames'}  0.0 MB\n"


@pytest.mark.train
def test_ctrl_c_ends_training_in_one_line(tmp_path: Path) -> None:
    data = colour_folders(tmp_path / "photos", each=12)
    words = ["train", data, "--out", tmp_path / "run", "--epochs", 100_000, "--size", 32]
    child = subprocess.Popen(
        [sys.executable, "-c", "from edgeml.cli import main; main()", *map(str, words)],
        stderr=subprocess.PIPE,
        text=True,
    )
    with child:
        assert child.stderr is not None
        for line in child.stderr:
            if line.startswith("epoch 2/"):
                break
        child.send_signal(signal.SIGINT)
        rest = child.stderr.read()
    assert child.returncode == 130
    assert "Traceback" not in rest
    assert rest.splitlines()[-1] == "edgeml: Stopped."
    assert (tmp_path / "run" / "model.safetensors").exists()  # the best so far
