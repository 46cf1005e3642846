"""Every step in one file: draw, train, export, verify, time, report."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from edgeml.benchmark import BenchPlan, BenchReport, run_benchmark
from edgeml.data import Dataset, SplitPlan, read_dataset, split_dataset
from edgeml.data.synth.apparel import GROUP_NAMES
from edgeml.data.synth.draw import synthesize
from edgeml.errors import InputError, needs
from edgeml.files import write_text
from edgeml.image.reading import read_image
from edgeml.predict.inspection import model_files
from edgeml.predict.predictor import Predictor
from edgeml.progress import SILENT, Progress
from edgeml.report.check import check_report_libraries
from edgeml.spec.model_spec import Precision
from edgeml_export import Exported, export

if TYPE_CHECKING:
    from edgeml.demo.page import DemoRow, Sample
    from edgeml.training.finish import TrainResult

IMAGE_SIZE = 128
INPUT_SIZE = 96
EXPORTS: tuple[tuple[Literal["onnx", "openvino"], Precision], ...] = (
    ("onnx", "fp32"),
    ("onnx", "fp16"),
    ("onnx", "int8"),
    ("openvino", "fp32"),
    ("openvino", "fp16"),
    ("openvino", "int8"),
)
COLUMNS = (
    "model", "precision", "mAP", "exact match", "flips/1000", "p50 ms", "p99 ms", "MB",
)  # fmt: skip

# Written first, so that a later demo recognizes the folder and may replace it.
_MARK = ".edgeml-demo"


@dataclass(frozen=True, kw_only=True)
class DemoResult:
    """The result of a demo: one row per model, and the path of the report."""

    rows: tuple[DemoRow, ...]
    report: Path

    def table(self) -> list[tuple[object, ...]]:
        """Return the rows as the terminal shows them, under `COLUMNS`."""
        return [
            (
                row.format, row.precision, row.mAP, row.exact_match, row.label_flips_per_1000,
                row.p50_ms, row.p99_ms, row.size_mb,
            )
            for row in self.rows
        ]  # fmt: skip

    def to_dict(self) -> dict[str, Any]:
        """Return what `edgeml demo --json` prints."""
        return {"report": str(self.report), "models": [asdict(row) for row in self.rows]}


def run_demo(
    out: Path, *, images: int, epochs: int, seed: int, progress: Progress = SILENT
) -> DemoResult:
    """Draw apparel, train on it, export six models, verify and time each, write report.html.

    Args:
        out: A new or empty folder, or one of an earlier demo, which is replaced.
        images: Number of images to draw.
        epochs: Number of epochs to train.
        seed: The same seed draws the same images and trains the same weights.
        progress: Shows the work.

    Raises:
        InputError: `out` contains something else, or cannot be written to.
        FidelityError: An exported model disagrees with its source.
        MissingDependencyError: A library of `edgeml[all]` is not installed.
    """
    with (
        needs("torch", extra="all", to="run the demo"),
        needs("timm", extra="all", to="run the demo"),
    ):
        from edgeml.training.config import TrainConfig
        from edgeml.training.loop import train

    check_report_libraries("all")
    _prepare_folder(out)
    synthesize(out / "data", images=images, size=IMAGE_SIZE, seed=seed, progress=progress)
    plan = SplitPlan(seed=seed)
    data = split_dataset(read_dataset(out / "data", group_names=GROUP_NAMES), plan)
    config = TrainConfig(model="cnn", size=INPUT_SIZE, epochs=epochs, seed=seed)
    trained = train(data, config, out / "run", progress=progress)
    exported = []
    for fmt, precision in EXPORTS:
        progress.note(f"export {fmt} {precision}")
        exported.append(
            export(out / "run", fmt, precision=precision, calib=data, check=data, progress=progress)
        )
    timed = run_benchmark(
        [one.path for one in exported],
        images=data.part("test").paths,
        plan=BenchPlan(min_s=2.0, max_s=20.0),
        progress=progress,
    )
    rows = _rows(exported, timed)
    _write_report(out, trained, data, rows, timed)
    return DemoResult(rows=rows, report=out / "report.html")


def _prepare_folder(out: Path) -> None:
    """Empty the folder of an earlier demo; refuse any other that is not empty."""
    if (out / _MARK).exists():
        for path in (out / "data", out / "run"):
            shutil.rmtree(path, ignore_errors=True)
        (out / "report.html").unlink(missing_ok=True)
    elif out.is_dir() and any(out.iterdir()):
        raise InputError(f"{str(out)!r} is not empty and not from a demo; choose another --out.")
    write_text(out / _MARK, "`edgeml demo` wrote this folder and replaces it at its next run.\n")


def _rows(exported: Sequence[Exported], timed: BenchReport) -> tuple[DemoRow, ...]:
    from edgeml.demo.page import DemoRow

    return tuple(
        DemoRow(
            format=one.format,
            precision=one.precision,
            mAP=one.checks.exported.mAP,
            exact_match=one.checks.exported.exact_match,
            label_flips_per_1000=one.checks.label_flips_per_1000,
            p50_ms=result.stages["total"].p50_ms,
            p99_ms=result.stages["total"].p99_ms,
            size_mb=sum(file.stat().st_size for file in model_files(one.path)) / 1e6,
            path=str(one.path),
        )
        for one, result in zip(exported, timed.results, strict=True)
        if one.checks  # always: the demo exports with images to check on
    )


def _write_report(
    out: Path, trained: TrainResult, data: Dataset, rows: Sequence[DemoRow], timed: BenchReport
) -> None:
    from edgeml.demo.page import Demo, demo_report

    model = out / "run" / "model.int8.onnx"
    test = data.part("test")
    flags = [f"{Path(one.model).name}: {flag}" for one in timed.results for flag in one.flags]
    demo_report(
        Demo(
            title="Apparel: nine colours, eight garments",
            steps=_steps(data, trained, rows),
            rows=tuple(rows),
            history=trained.history,
            metrics=trained.metrics,
            metrics_of="PyTorch FP32, test split",
            samples=_samples(model, test),
            flags=tuple(flags),
            commands=(
                ("Classify an image", f"edgeml predict {model} photo.jpg"),
                ("Watch a camera", f"edgeml stream {model} 0 --show"),
                ("Train on your own images", "edgeml train photos --out run"),
                ("Time it again", f"edgeml bench {out}/run/*.onnx"),
            ),
            host=timed.host,
            software=timed.software,
        ),
        out / "report.html",
    )


def _steps(data: Dataset, trained: TrainResult, rows: Sequence[DemoRow]) -> tuple[str, ...]:
    parts = {name: len(data.part(name)) for name in ("train", "val", "test")}
    return (
        f"Drew {len(data)} images of {IMAGE_SIZE} pixels and split them: {parts['train']} to "
        f"train, {parts['val']} to choose thresholds, {parts['test']} to test.",
        f"Trained a small CNN from scratch for {len(trained.history)} epochs at {INPUT_SIZE} "
        f"pixels: test mAP {trained.metrics.mAP:.3f}.",
        f"Exported it {len(rows)} times, each file compared with the PyTorch model on the "
        f"{parts['test']} test images before it got its name.",
        "Timed all files on test images: a fresh process each, in turns, from the encoded image "
        "to the labels.",
    )


def _samples(model: Path, test: Dataset, count: int = 24) -> tuple[Sample, ...]:
    """Predict some images, evenly spread over the test split."""
    from edgeml.demo.page import Sample

    chosen = np.linspace(0, len(test) - 1, min(count, len(test))).astype(int)
    samples = []
    with Predictor(model) as predictor:
        for index in chosen:
            frame = read_image(test.paths[index])
            truth = tuple(np.asarray(test.labels)[test.present[index]])
            predicted = predictor.predict(frame).labels
            samples.append(Sample(frame=frame, truth=truth, labels=predicted))
    return tuple(samples)
