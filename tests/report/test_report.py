"""The pages: what is on them, and that they ask nothing of the network."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
import pytest

from edgeml.benchmark.corpus import Corpus
from edgeml.benchmark.environment import capture_host, capture_software
from edgeml.benchmark.page import bench_report
from edgeml.benchmark.plan import BenchPlan
from edgeml.benchmark.report import BenchReport, Disturbance, ModelResult
from edgeml.benchmark.stages import STAGES, WarmUp
from edgeml.benchmark.statistics import summarize
from edgeml.demo.page import Demo, DemoRow, Sample, demo_report
from edgeml.errors import InputError
from edgeml.measure.metrics import LabelMetrics, Metrics
from edgeml.training.history import Epoch
from tests.report.pages import EVIL, check_page
from tests.tiny import tiny_spec


def epoch(number: int, loss: float = 0.3, mAP: float = 0.5) -> Epoch:
    return Epoch(
        epoch=number, lr=1e-3, train_loss=loss, val_loss=loss, mAP=mAP, weighted_mAP=mAP,
        CP=0.0, CR=0.0, CF1=0.0, macro_F1=0.0, OP=0.0, OR=0.0, OF1=0.0, exact_match=0.0,
        seconds=1.0, images_per_s=1.0, wait=0.0,
    )  # fmt: skip


def metrics(labels: dict[str, float]) -> Metrics:
    return Metrics(
        mAP=0.9341, CP=0.9, CR=0.9, CF1=0.9, macro_F1=0.9, OP=0.9, OR=0.9, OF1=0.9,
        exact_match=0.8, images=1234,
        labels={
            name: LabelMetrics(AP=AP, F1=0.75, threshold=0.5, positives=20)
            for name, AP in labels.items()
        },
    )  # fmt: skip


def row(format: str, precision: str, **changes: Any) -> DemoRow:
    made = DemoRow(
        format=format, precision=precision, mAP=0.9, exact_match=0.8, label_flips_per_1000=0.0,
        p50_ms=4.0, p99_ms=8.0, size_mb=3.0, path=f"demo/{format}.{precision}",
    )  # fmt: skip
    return replace(made, **changes)


def demo(**changes: Any) -> Demo:
    made = Demo(
        title="A demo",
        steps=("Drew pictures.", "Trained."),
        rows=(
            row("onnx", "fp32"),
            row("onnx", "int8", p50_ms=2.5, mAP=0.885, size_mb=0.8, label_flips_per_1000=6.3),
        ),
        history=[epoch(i, loss=0.6 / i, mAP=1 - 0.6 / i) for i in range(1, 6)],
        metrics=metrics({"red": 0.91, "shirt": 0.82}),
        metrics_of="onnx fp32, test split",
        samples=(sample(("red", "shirt"), ("red", "dress")),),
        flags=("noisy: much",),
        commands=(("Go on", "edgeml predict a.onnx b.jpg"),),
        host=capture_host(),
        software=capture_software(),
    )
    return replace(made, **changes)


def sample(truth: tuple[str, ...], labels: tuple[str, ...]) -> Sample:
    return Sample(frame=np.zeros((40, 60, 3), np.uint8), truth=truth, labels=labels)


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "report.html"


def test_the_demo_shows_every_number_of_its_table(out: Path) -> None:
    demo_report(demo(), out)
    text = check_page(out).text
    for shown in ("90.0", "88.5", "80.0", "6.3", "4.00", "2.50", "8.00", "3.00", "0.80", "1.60×"):
        assert shown in text
    for shown in ("A demo", "Drew pictures.", "edgeml predict a.onnx b.jpg", "noisy: much"):
        assert shown in text
    assert "demo/onnx.int8" in text
    assert capture_host().os in text


def test_a_prediction_states_right_wrong_and_missed(out: Path) -> None:
    demo_report(demo(), out)
    text = " ".join(check_page(out).text.split())
    for shown in ("right: ✓ red", "wrong: ✗ dress", "missed: ? shirt"):
        assert shown in text


@pytest.mark.parametrize("place", ["label", "title", "path", "command"])
def test_markup_in_a_name_is_escaped(out: Path, place: str) -> None:
    changes: dict[str, dict[str, Any]] = {
        "label": {"metrics": metrics({EVIL: 0.5}), "samples": (sample((EVIL,), (EVIL,)),)},
        "title": {"title": EVIL},
        "path": {"rows": (row(EVIL, EVIL, path=EVIL),)},
        "command": {"commands": ((EVIL, EVIL),), "flags": (EVIL,)},
    }
    demo_report(demo(**changes[place]), out)
    assert EVIL in check_page(out).text


def test_names_of_any_script_are_shown(out: Path) -> None:
    changes = {"rows": (row("模型", "fp32"),), "metrics": metrics({"красный": 0.5, "🧥": 0.5})}
    demo_report(demo(**changes), out)
    text = check_page(out).text
    assert all(name in text for name in ("模型", "красный", "🧥"))


@pytest.mark.parametrize(
    "changes",
    [
        {"history": [epoch(1)]},
        {"history": []},
        {"history": [epoch(1, mAP=math.nan), epoch(2, loss=math.nan, mAP=math.nan)]},
        {"metrics": metrics({"one": 0.5})},
        {"metrics": metrics({"one": math.nan, "two": 1.0})},
        {"metrics": replace(metrics({"one": math.nan}), mAP=math.nan)},
        {"rows": (row("onnx", "fp32", p50_ms=None, p99_ms=None, label_flips_per_1000=None),)},
        {"rows": (row("onnx", "fp32", mAP=math.nan), row("onnx", "int8", mAP=math.nan))},
        {"rows": ()},
        {"samples": (), "commands": (), "flags": (), "steps": ()},
        {"samples": (sample((), ()),)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_missing_values_are_omitted_or_shown_as_unknown(out: Path, changes: dict[str, Any]) -> None:
    demo_report(demo(**changes), out)
    check_page(out)


def test_speed_is_against_the_fp32_of_the_same_format(out: Path) -> None:
    rows = (
        row("onnx", "fp32", p50_ms=10.0),
        row("openvino", "fp32", p50_ms=3.0),
        row("openvino", "fp16", p50_ms=3.1),
        row("openvino", "int8", p50_ms=6.0),
        row("other", "int8", p50_ms=1.0),
    )
    demo_report(demo(rows=rows), out)
    text = check_page(out).text
    assert re.findall(r"(\S) (\d\.\d\d)×", text) == [("≈", "0.97"), ("▼", "0.50")]


def test_the_lead_states_the_cost_of_the_fastest_model(out: Path) -> None:
    demo_report(demo(), out)
    lead = "onnx int8 is the fastest of 2 models: 2.50 ms per image, 1.60 times the speed of its"
    text = " ".join(check_page(out).text.split())
    assert f"{lead} FP32 file; the most accurate has 1.5 points of mAP more." in text


def test_a_demo_with_many_pictures_stays_under_a_megabyte_and_a_half(out: Path) -> None:
    random = np.random.default_rng(0)
    frames = random.integers(0, 256, (36, 480, 640, 3), np.uint8)  # noise: the worst for JPEG
    samples = tuple(Sample(frame=frame, truth=("red",), labels=("red",)) for frame in frames)
    demo_report(demo(samples=samples), out)
    check_page(out)
    assert out.stat().st_size < 1_500_000


def test_the_same_demo_gives_the_same_bytes(out: Path, tmp_path: Path) -> None:
    values = demo()
    demo_report(values, out)
    demo_report(values, tmp_path / "again.html")
    assert out.read_bytes() == (tmp_path / "again.html").read_bytes()


def test_matplotlibs_settings_are_left_as_they_were(out: Path) -> None:
    before = dict(mpl.rcParams)
    demo_report(demo(), out)
    assert dict(mpl.rcParams) == before


def test_a_folder_that_cannot_be_written_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="Cannot write"):
        demo_report(demo(), tmp_path / "file" / "report.html")


def bench(*models: ModelResult) -> BenchReport:
    return BenchReport(
        results=models,
        host=capture_host(),
        software=capture_software(),
        plan=BenchPlan(),
        corpus=Corpus(paths=(Path("a.jpg"),), source="synthetic", sha256="0" * 64, mean_bytes=9),
        id="1234",
        created="2026-01-01T00:00:00+00:00",
    )


def timed(model: str, calls: int = 500, **changes: Any) -> ModelResult:
    random = np.random.default_rng(len(model))
    samples = {stage: random.integers(1_000_000, 9_000_000, calls) for stage in STAGES}
    made = ModelResult(
        model=model,
        sha256=None,
        spec=tiny_spec(),
        runtime="onnxruntime 1.32.0 CPU",
        precision_actual="f32",
        stages={stage: summarize(ns) for stage, ns in samples.items()},
        throughput_per_s=123.4,
        load_ms=56.0,
        first_ms=7.8,
        peak_rss_mb=91.0,
        opencv_threads=2,
        warm_up=WarmUp(calls=20, seconds=0.1, change=0.01, settled=True),
        samples_ns=samples,
        disturbance=Disturbance(pressure=None, stolen=None, switches_per_call=None),
    )
    return replace(made, **changes)


def test_the_bench_report_shows_models_and_explains_their_flags(out: Path) -> None:
    flags = ("noisy: infer spreads over 12% of its median", "int8-not-faster: 0.90 times")
    bench_report(bench(timed("one.onnx"), timed("two.onnx", flags=flags)), out)
    page = check_page(out)
    for shown in ("one.onnx", "123.4", "91", "7.8", "infer spreads over 12%", "INT8 gains nothing"):
        assert shown in page.text
    assert sum(one.get("class") == "plot" for one in page.all("svg")) == 6
    assert "one synthetic JPEG" in page.text


def test_models_of_one_file_name_are_named_by_their_folders(out: Path) -> None:
    models = [timed(f"{folder}/model.onnx") for folder in ("runs/a", "runs/b", "runs/a")]
    bench_report(bench(*models), out)
    text = check_page(out).text
    for name in ("a/model.onnx", "b/model.onnx", "a/model.onnx · 2"):
        assert name in text


@pytest.mark.parametrize("calls", [1, 3, 60])
def test_a_benchmark_of_few_calls_shows_no_percentile_it_cannot_support(
    out: Path, calls: int
) -> None:
    bench_report(bench(timed("one.onnx", calls=calls, peak_rss_mb=None)), out)
    assert "–" in check_page(out).text


def test_a_benchmark_of_a_model_with_an_evil_name_is_harmless(out: Path) -> None:
    bench_report(bench(timed(EVIL.replace("/", "")), timed("$a$ _b_ ^c^")), out)
    assert "$a$ _b_ ^c^" in check_page(out).text
