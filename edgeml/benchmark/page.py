"""The report of `edgeml bench`."""

from __future__ import annotations

from pathlib import Path

from edgeml.benchmark.environment import facts_of
from edgeml.benchmark.flags import MEANING
from edgeml.benchmark.plots import box_plot, ecdf_plot, stages_plot
from edgeml.benchmark.report import BenchReport, ModelResult
from edgeml.benchmark.stages import STAGES
from edgeml.benchmark.statistics import fewest_calls
from edgeml.report.page import Tile, figure, ms, write_page


def bench_report(report: BenchReport, out: Path) -> None:
    """Write the page to `out`."""
    models = _named(report)
    by_stage = {
        stage: {name: result.samples_ns[stage] for name, result in models.items()}
        for stage in STAGES
    }
    medians = {
        name: {stage: result.stages[stage].p50_ms or 0.0 for stage in STAGES[:-1]}
        for name, result in models.items()
    }
    write_page(
        out,
        "bench.html",
        {
            "kind": "benchmark",
            "title": f"Latency on {report.host.cpu or 'this machine'}",
            "lead": _lead(report),
            "tiles": _tiles(models),
            "models": models,
            "rule": (
                f"A percentile needs enough calls: p50 at least {fewest_calls(50)}, "
                f"p95 {fewest_calls(95)}, p99 {fewest_calls(99)} (LoadGen's rule at 95 %)."
            ),
            "flagged": _flagged(models),
            "stages": stages_plot(medians),
            "ecdf": ecdf_plot(by_stage["total"], "total"),
            "boxes": [(stage.title(), box_plot(by_stage[stage], stage)) for stage in STAGES[:-1]],
            "facts": [
                *facts_of(report.host, report.software),
                ("Threads", f"{report.plan.threads or 'chosen by each runtime'}"),
                ("Run", report.id),
            ],
        },
    )


def _named(report: BenchReport) -> dict[str, ModelResult]:
    """Name each model by the shortest end of its path that is unique."""
    paths = [Path(result.model) for result in report.results]
    depth, deepest = 1, max(len(path.parts) for path in paths)
    while depth < deepest and len({path.parts[-depth:] for path in paths}) < len(set(paths)):
        depth += 1
    models: dict[str, ModelResult] = {}
    for path, result in zip(paths, report.results, strict=True):
        name = "/".join(path.parts[-depth:])
        count = sum(other.partition(" · ")[0] == name for other in models) + 1
        models[name if count == 1 else f"{name} · {count}"] = result
    return models


def _flagged(models: dict[str, ModelResult]) -> list[tuple[str, str, list[tuple[str, str]]]]:
    """Return each code with its meaning and the models it applies to: (model, observation)."""
    observations: dict[str, list[tuple[str, str]]] = {}
    for name, result in models.items():
        for flag in result.flags:
            code, _, detail = flag.partition(": ")
            observations.setdefault(code, []).append((name, detail))
    return [(code, MEANING.get(code, ""), models) for code, models in observations.items()]


def _lead(report: BenchReport) -> str:
    plan, corpus = report.plan, report.corpus
    images = (
        "one synthetic JPEG of 1280 x 960 pixels, as there were no images"
        if corpus.source == "synthetic"
        else f"{len(corpus.paths)} image files of {corpus.mean_bytes / 1e3:.0f} kB on average"
    )
    return (
        f"One image after the other for at least {plan.min_s:g} s and {plan.min_calls} calls "
        f"per model, on {images}. {report.created.replace('T', ' ')}."
    )


def _tiles(models: dict[str, ModelResult]) -> list[Tile]:
    tiles = []
    medians = {name: p50 for name, r in models.items() if (p50 := r.stages["total"].p50_ms)}
    if medians:
        name = min(medians, key=lambda one: medians[one])
        best = models[name]
        rate = figure(best.throughput_per_s, 0 if best.throughput_per_s >= 100 else 1)
        tiles = [
            Tile(name="Fastest, p50", value=ms(medians[name]), unit="ms", of=name),
            Tile(name="Its throughput", value=rate, unit="img/s", of=name),
        ]
    loading = min(models, key=lambda one: models[one].load_ms + models[one].first_ms)
    ready = models[loading].load_ms + models[loading].first_ms
    tiles.append(Tile(name="Soonest ready", value=figure(ready, 0), unit="ms", of=loading))
    memory = {name: r.peak_rss_mb for name, r in models.items() if r.peak_rss_mb is not None}
    if memory:
        name = min(memory, key=lambda one: memory[one])
        tiles.append(Tile(name="Least memory", value=figure(memory[name], 0), unit="MB", of=name))
    return tiles
