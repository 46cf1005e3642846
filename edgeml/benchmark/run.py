"""Measure models against each other: a fresh process for each, turns in blocks, a pause between."""

from __future__ import annotations

import tempfile
import time
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from edgeml.benchmark.corpus import gather
from edgeml.benchmark.environment import Counters, capture_host, capture_software
from edgeml.benchmark.flags import flags_of
from edgeml.benchmark.plan import BenchPlan
from edgeml.benchmark.process import Message, Worker
from edgeml.benchmark.report import BenchReport, Disturbance, ModelResult
from edgeml.benchmark.stages import STAGES, WarmUp
from edgeml.benchmark.statistics import per_second, summarize
from edgeml.errors import InputError
from edgeml.files import sha256_of_file, write_text
from edgeml.progress import SILENT, Advance, Progress
from edgeml.report.check import check_report
from edgeml.spec.model_spec import ModelSpec


def run_benchmark(
    models: Sequence[Path],
    *,
    images: Sequence[Path] = (),
    plan: BenchPlan | None = None,
    out: Path | None = None,
    progress: Progress = SILENT,
) -> BenchReport:
    """Time every model on the same images, from the encoded file to the labels.

    Args:
        models: Model files or run folders; one may be named twice, which shows the noise.
        images: Image files, of which up to 100 are used; of none, a photo-like JPEG is drawn.
        plan: How long, how often; None: `BenchPlan()`.
        out: A folder for bench.json and report.html; None writes neither.
        progress: Shows the work.

    Raises:
        InputError: No models.
        ModelLoadError: A model is missing or cannot be loaded; before anything is measured.
        ImageError: An image cannot be read or decoded.
        InferenceError: A model failed, or its process died.
    """
    if not models:
        raise InputError("There is no model to measure; name one or more.")
    plan = plan or BenchPlan()
    if out:
        check_report(out / "report.html")
    host = capture_host()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgeml-bench-")))
        corpus = gather(images, scratch)
        with progress.task("load and warm up", total=len(models), unit="model") as advance:
            runs = [_open(Path(model), corpus.paths, plan, stack, advance) for model in models]
        _take_turns(runs, plan, progress)
        results = [_result(run) for run in runs]
    report = BenchReport(
        results=tuple(replace(one, flags=flags_of(one, results, plan)) for one in results),
        host=host,
        software=capture_software(),
        plan=plan,
        corpus=corpus,
        id=uuid.uuid4().hex,
        created=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    if out:
        from edgeml.benchmark.page import bench_report

        write_text(out / "bench.json", report.to_json())
        bench_report(report, out / "report.html")
    return report


@dataclass
class _Run:
    """A model's process, and what it has said so far."""

    model: Path
    worker: Worker
    opened: Message
    warm_up: WarmUp
    blocks: list[Message] = field(default_factory=list)
    seconds: float = 0.0
    calls: int = 0

    def done(self, plan: BenchPlan) -> float:
        """Give the share that is done: of both minima, or of the longest time if that is more."""
        in_time = self.seconds / plan.min_s if plan.min_s else 1.0
        in_calls = self.calls / plan.min_calls
        in_longest = self.seconds / plan.longest_s if plan.longest_s else 1.0
        return min(max(min(in_time, in_calls), in_longest), 1.0)


def _open(
    model: Path, images: Sequence[Path], plan: BenchPlan, stack: ExitStack, advance: Advance
) -> _Run:
    """Start a process and load the model there, while no other one does anything."""
    worker = stack.enter_context(Worker(model))
    opened = worker.ask(
        {
            "do": "open",
            "model": str(model),
            "images": [str(image) for image in images],
            "plan": asdict(plan),
        }
    )
    warm_up = WarmUp(**worker.ask({"do": "warm_up"}))
    advance(1)
    return _Run(model, worker, opened, warm_up)


def _take_turns(runs: Sequence[_Run], plan: BenchPlan, progress: Progress) -> None:
    """Let the models run in turn, until each has its time and its calls."""
    with progress.task("benchmark", total=len(runs) * plan.min_calls, unit="call") as advance:
        while waiting := [run for run in runs if run.done(plan) < 1]:
            for run in waiting:
                time.sleep(plan.pause_s)
                before = int(run.done(plan) * plan.min_calls)
                block = run.worker.ask({"do": "block"})
                run.blocks.append(block)
                run.seconds += block["seconds"]
                run.calls += min(len(block["samples_ns"][stage]) for stage in ("infer", "total"))
                advance(int(run.done(plan) * plan.min_calls) - before)


def _result(run: _Run) -> ModelResult:
    """End the process and put together what it said."""
    samples = {
        stage: np.concatenate([np.asarray(b["samples_ns"][stage], np.int64) for b in run.blocks])
        for stage in STAGES
    }
    finished = run.worker.ask({"do": "finish"})
    return ModelResult(
        model=str(run.model),
        sha256=sha256_of_file(run.model) if run.model.is_file() else None,
        spec=ModelSpec.from_json(run.opened["spec"]),
        runtime=run.opened["runtime"],
        precision_actual=run.opened["precision_actual"],
        stages={stage: summarize(ns) for stage, ns in samples.items()},
        throughput_per_s=per_second(samples["total"]),
        load_ms=run.opened["load_ms"],
        first_ms=run.opened["first_ms"],
        peak_rss_mb=finished["peak_rss_mb"],
        opencv_threads=run.opened["opencv_threads"],
        warm_up=run.warm_up,
        samples_ns=samples,
        disturbance=_disturbance(run),
    )


def _disturbance(run: _Run) -> Disturbance:
    """Add up the counters of all blocks; None if one of them is unknown."""
    counters = [Counters(**block["counters"]) for block in run.blocks]
    pressure = [c.pressure_us for c in counters if c.pressure_us is not None]
    ticks = [(c.stolen, c.ticks) for c in counters if c.stolen is not None and c.ticks]
    switches = [c.switches for c in counters if c.switches is not None]
    return Disturbance(
        pressure=sum(pressure) / 1e6 / run.seconds if pressure else None,
        stolen=sum(s for s, _ in ticks) / sum(t for _, t in ticks) if ticks else None,
        switches_per_call=sum(switches) / (2 * run.calls) if switches else None,
    )
