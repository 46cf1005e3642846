"""Measure models side by side: a fresh process for each, turns in blocks, pauses between them."""

from __future__ import annotations

import os
import tempfile
import time
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from datetime import datetime, timezone
from pathlib import Path

import numpy as np

from edgeml.benchmark.corpus import gather
from edgeml.benchmark.environment import capture_host, capture_software
from edgeml.benchmark.flags import flags_of
from edgeml.benchmark.plan import BenchPlan
from edgeml.benchmark.process import Worker
from edgeml.benchmark.report import BenchReport, Disturbance, ModelResult
from edgeml.benchmark.stages import STAGES, WarmUp
from edgeml.benchmark.statistics import per_second, summarize
from edgeml.benchmark.worker import Block, LoadedModel
from edgeml.errors import InputError, ModelLoadError
from edgeml.files import sha256_of_file, write_text
from edgeml.progress import SILENT, Progress
from edgeml.report.check import check_report


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
        models: Model files or run folders; the same one twice shows the noise.
        images: Image files, of which up to 100 are used; without any, a synthetic JPEG is used.
        plan: How long, how often; None: `BenchPlan()`.
        out: A folder for bench.json and report.html; None writes neither.
        progress: Shows the work.

    Raises:
        InputError: No models.
        ModelLoadError: A model is missing or cannot be loaded; before anything is measured.
        ImageError: An image cannot be read or decoded.
        InferenceError: A model failed, or its process ended.
    """
    if not models:
        raise InputError("There is no model to measure; pass one or more.")
    for model in models:
        if not os.path.exists(model):
            raise ModelLoadError(f"There is no model {str(model)!r}.")
    plan = plan or BenchPlan()
    if out:
        check_report(out / "report.html")
    host = capture_host()
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgeml-bench-")))
        corpus = gather(images, scratch)
        with progress.task("load and warm up", total=len(models), unit="model") as advance:
            runs = []
            for number, model in enumerate(models):
                log = scratch / f"worker-{number}.log"
                worker = stack.enter_context(Worker(Path(model), corpus.paths, plan, log=log))
                # Loaded and warmed up while no other model runs.
                runs.append(_Run(Path(model), worker, worker.load(), worker.warm_up()))
                advance(1)
        _take_turns(runs, plan, progress)
        results = [_result(run) for run in runs]
    report = BenchReport(
        results=tuple(replace(one, flags=flags_of(one, results, plan)) for one in results),
        host=host,
        software=capture_software(),
        plan=plan,
        corpus=corpus,
        id=uuid.uuid4().hex,
        created=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )
    if out:
        from edgeml.benchmark.page import bench_report

        write_text(out / "bench.json", report.to_json())
        bench_report(report, out / "report.html")
    return report


@dataclass
class _Run:
    """The process of a model, and its results so far."""

    model: Path
    worker: Worker
    loaded: LoadedModel
    warm_up: WarmUp
    blocks: list[Block] = field(default_factory=list)
    seconds: float = 0.0
    calls: int = 0

    def done(self, plan: BenchPlan) -> float:
        """Return the share that is done: of both minima, or of the longest time if larger."""
        in_time = self.seconds / plan.min_s if plan.min_s else 1.0
        in_calls = self.calls / plan.min_calls
        in_longest = self.seconds / plan.longest_s if plan.longest_s else 1.0
        return min(max(min(in_time, in_calls), in_longest), 1.0)


def _take_turns(runs: Sequence[_Run], plan: BenchPlan, progress: Progress) -> None:
    """Run the models in turns until each has its time and its calls."""
    with progress.task("benchmark", total=len(runs) * plan.min_calls, unit="call") as advance:
        while waiting := [run for run in runs if run.done(plan) < 1]:
            for run in waiting:
                time.sleep(plan.pause_s)
                before = int(run.done(plan) * plan.min_calls)
                block = run.worker.block()
                run.blocks.append(block)
                run.seconds += block.seconds
                run.calls += min(len(block.samples_ns[stage]) for stage in ("infer", "total"))
                advance(int(run.done(plan) * plan.min_calls) - before)


def _result(run: _Run) -> ModelResult:
    """End the process and summarize its samples."""
    samples = {
        stage: np.concatenate(
            [np.asarray(block.samples_ns[stage], np.int64) for block in run.blocks]
        )
        for stage in STAGES
    }
    return ModelResult(
        model=str(run.model),
        sha256=sha256_of_file(run.model) if run.model.is_file() else None,
        spec=run.loaded.spec,
        runtime=run.loaded.runtime,
        precision_actual=run.loaded.precision_actual,
        stages={stage: summarize(ns) for stage, ns in samples.items()},
        throughput_per_s=per_second(samples["total"]),
        load_ms=run.loaded.load_ms,
        first_ms=run.loaded.first_ms,
        peak_rss_mb=run.worker.finish(),
        opencv_threads=run.loaded.opencv_threads,
        warm_up=run.warm_up,
        samples_ns=samples,
        disturbance=_disturbance(run),
    )


def _disturbance(run: _Run) -> Disturbance:
    """Add up the counters of all blocks; None if one of them is unknown."""
    counters = [block.counters for block in run.blocks]
    pressure = [c.pressure_us for c in counters if c.pressure_us is not None]
    ticks = [(c.stolen, c.ticks) for c in counters if c.stolen is not None and c.ticks]
    switches = [c.switches for c in counters if c.switches is not None]
    return Disturbance(
        pressure=sum(pressure) / 1e6 / run.seconds if pressure else None,
        stolen=sum(s for s, _ in ticks) / sum(t for _, t in ticks) if ticks else None,
        switches_per_call=sum(switches) / (2 * run.calls) if switches else None,
    )
