"""From model files to a report, with real workers."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeml.benchmark import BenchPlan, BenchReport, run_benchmark
from edgeml.benchmark.corpus import MAX_IMAGES, draw_photo, gather
from edgeml.errors import ImageError, InputError, ModelLoadError
from edgeml.image.jpeg import encode_jpeg
from edgeml.progress import Progress
from edgeml.spec.model_spec import ModelSpec
from tests.tiny import make_tiny_onnx, tiny_spec

QUICK = BenchPlan(min_s=0.2, min_calls=20, block_s=0.05, warmup_max_s=0.3)

# design.md 4: what outside checks call. Written out here, so that a change of ours shows.
REPORT_KEYS = {"schema", "results", "host", "software", "config", "id", "created"}
RESULT_KEYS = {
    "model",
    "runtime",
    "precision_actual",
    "stages",
    "throughput_per_s",
    "load_ms",
    "first_ms",
    "peak_rss_mb",
    "flags",
}
STAGE_KEYS = {"n", "p50_ms", "p95_ms", "p99_ms"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_tiny_onnx(tmp_path_factory.mktemp("model") / "tiny.onnx")


@pytest.fixture(scope="module")
def report(model: Path) -> BenchReport:
    return run_benchmark([model, model], plan=QUICK)


@pytest.mark.runtime
def test_the_json_has_the_keys_of_the_contract_and_no_other(report: BenchReport) -> None:
    document = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert set(document) == REPORT_KEYS
    assert document["schema"] == "edgeml.bench/1"
    assert len(document["results"]) == 2
    for result in document["results"]:
        assert set(result) == RESULT_KEYS
        assert list(result["stages"]) == ["decode", "preprocess", "infer", "postprocess", "total"]
        assert all(set(stage) == STAGE_KEYS for stage in result["stages"].values())


@pytest.mark.runtime
def test_both_minima_are_met_and_percentiles_gated(report: BenchReport) -> None:
    for result in report.results:
        for stage, summary in result.stages.items():
            assert summary.n >= QUICK.min_calls
            assert summary.n == len(result.samples_ns[stage])
            assert summary.p50_ms is not None
            assert (summary.p95_ms is None) == (summary.n < 93)
            assert (summary.p99_ms is None) == (summary.n < 473)


@pytest.mark.runtime
def test_the_minimal_duration_is_met_too(model: Path) -> None:
    start = time.perf_counter()
    report = run_benchmark([model], plan=replace(QUICK, min_s=1.0, min_calls=1))
    assert time.perf_counter() - start >= 1.0
    assert report.results[0].stages["total"].n > 1


@pytest.mark.runtime
def test_the_longest_duration_ends_it_with_a_flag_and_without_percentiles(model: Path) -> None:
    start = time.perf_counter()
    plan = replace(QUICK, min_s=0, min_calls=10**6, max_s=0.2, block_s=0.01)
    (result,) = run_benchmark([model], plan=plan).results
    assert time.perf_counter() - start < 30
    assert 0 < result.stages["total"].n < 473
    assert result.stages["total"].p99_ms is None
    assert any(flag.startswith("few-calls: ") for flag in result.flags)


@pytest.mark.runtime
def test_the_numbers_are_consistent(report: BenchReport) -> None:
    for result in report.results:
        mean = float(np.mean(result.samples_ns["total"])) / 1e6
        assert result.throughput_per_s == pytest.approx(1000 / mean)
        assert result.load_ms > 1
        assert result.first_ms > 0
        assert result.peak_rss_mb is None or 20 < result.peak_rss_mb < 1000
        assert result.runtime.startswith("onnxruntime ")
        assert result.precision_actual == "f32"


@pytest.mark.runtime
def test_without_images_one_is_drawn_and_reported(report: BenchReport) -> None:
    config = report.to_dict()["config"]
    assert config["images"] == "synthetic"
    assert config["images_count"] == 1
    assert config["min_calls"] == QUICK.min_calls


@pytest.mark.runtime
def test_with_images_they_are_used_and_named_as_files(model: Path, tmp_path: Path) -> None:
    images = []
    for i in range(3):
        images.append(tmp_path / f"{i}.jpg")
        images[-1].write_bytes(encode_jpeg(draw_photo(60 + i, 80)))
    config = run_benchmark([model], images=images, plan=QUICK).to_dict()["config"]
    assert (config["images"], config["images_count"]) == ("files", 3)


@pytest.mark.runtime
def test_the_written_report_keeps_every_raw_sample(report: BenchReport) -> None:
    document = json.loads(report.to_json())
    assert set(document) == REPORT_KEYS | {"processes"}
    for result, raw in zip(document["results"], document["processes"], strict=True):
        for stage, summary in result["stages"].items():
            samples = raw["samples_ns"][stage]
            assert len(samples) == summary["n"]
            by_hand = sorted(samples)[math.ceil(len(samples) / 2) - 1] / 1e6
            assert summary["p50_ms"] == by_hand
        assert len(raw["sha256"]) == 64


@pytest.mark.runtime
def test_labels_that_are_not_ascii_are_preserved(tmp_path: Path) -> None:
    model = make_tiny_onnx(tmp_path / "modèle.onnx", labels=("робe", "<b>", "青"))
    result = run_benchmark([model], plan=replace(QUICK, min_s=0, min_calls=1)).results[0]
    assert result.spec.labels == ("робe", "<b>", "青")
    assert result.model == str(model)


@pytest.mark.runtime
def test_the_plan_can_choose_openvino(model: Path) -> None:
    pytest.importorskip("openvino", reason="needs openvino")
    plan = replace(QUICK, runtime="openvino", min_s=0, min_calls=1)
    assert run_benchmark([model], plan=plan).results[0].runtime.startswith("openvino")


@pytest.mark.runtime
def test_one_bad_model_among_good_ones_stops_the_run_before_it_measures(
    model: Path, tmp_path: Path
) -> None:
    start = time.perf_counter()
    with pytest.raises(ModelLoadError, match=r"gone\.onnx"):
        run_benchmark([model, tmp_path / "gone.onnx"], plan=BenchPlan(min_s=60, warmup_max_s=0.1))
    assert time.perf_counter() - start < 30


def test_no_models_are_refused() -> None:
    with pytest.raises(InputError, match="no model"):
        run_benchmark([])


@pytest.mark.runtime
def test_progress_ends_at_its_total(model: Path) -> None:
    seen: dict[str, tuple[int, int]] = {}

    class Recording(Progress):
        def task(self, name: str, total: int, unit: str = "img"):  # type: ignore[no-untyped-def]
            from contextlib import nullcontext

            seen[name] = (0, total)

            def advance(count: int) -> None:
                assert count >= 0
                seen[name] = (seen[name][0] + count, total)

            return nullcontext(advance)

    run_benchmark([model, model], plan=QUICK, progress=Recording())
    assert seen == {"load and warm up": (2, 2), "benchmark": (40, 40)}


def test_of_many_images_an_even_selection_is_used(tmp_path: Path) -> None:
    path = tmp_path / "one.jpg"
    path.write_bytes(encode_jpeg(draw_photo(20, 30)))
    for count in (1, MAX_IMAGES, MAX_IMAGES + 1, 1234):
        images = [tmp_path / f"{i:04}.jpg" for i in range(count)]
        for image in images:
            if not image.exists():
                image.hardlink_to(path)
        chosen = gather(images, tmp_path).paths
        assert len(chosen) == len(set(chosen)) == min(count, MAX_IMAGES)
        places = [images.index(image) for image in chosen]
        gaps = np.diff([*places, count])
        assert gaps.max() - gaps.min() <= 1


def test_an_image_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"gone\.jpg"):
        gather([tmp_path / "gone.jpg"], tmp_path)


def test_the_synthetic_photo_compresses_like_a_photo(tmp_path: Path) -> None:
    corpus = gather([], tmp_path)
    frame = cv2.imread(str(corpus.paths[0]))
    assert frame is not None
    assert frame.shape == (960, 1280, 3)
    assert 1.2 < corpus.mean_bytes * 8 / (960 * 1280) < 2.5  # bits a pixel; photos have 1 to 3
    assert gather([], tmp_path).sha256 == corpus.sha256


@pytest.mark.runtime
def test_the_spec_of_a_model_is_read_as_it_was_written(report: BenchReport) -> None:
    assert report.results[0].spec == ModelSpec.from_json(tiny_spec().to_json())
    assert asdict(report.plan) == asdict(QUICK)
