"""`edgeml predict`, `edgeml bench` and `edgeml stream`."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated, Any, Literal

import typer

from edgeml.cli._shared import (
    Device,
    Json,
    Model,
    RuntimeName,
    json_list,
    print_json,
    print_table,
    progress,
)
from edgeml.errors import EdgemlError, needs


def predict(
    model: Model,
    sources: Annotated[
        list[Path],
        typer.Argument(help="Images, folders, a .txt with a path on each line, or - for stdin."),
    ],
    jsonl: Annotated[Path | None, typer.Option(help="Write a line for each image.")] = None,
    csv: Annotated[Path | None, typer.Option(help="Write a table: source, labels, scores.")] = None,
    parquet: Annotated[Path | None, typer.Option(help="Write the same table as Parquet.")] = None,
    overlay: Annotated[Path | None, typer.Option(help="Write the images with labels here.")] = None,
    runtime: RuntimeName = "auto",
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Classify images. Stopped or killed, the same command goes on where it was."""
    from edgeml.predict.many_files import Outputs, classify, list_files, origin_of
    from edgeml.predict.predictor import Predictor

    outputs = Outputs(jsonl=jsonl, csv=csv, parquet=parquet, overlay=overlay)
    files = list_files(sources)
    mode: Literal["latency", "throughput"] = "latency" if len(files) == 1 else "throughput"
    with Predictor(model, runtime=runtime, device=device, mode=mode) as predictor:
        outputs.check(sources)
        origin = origin_of(predictor, model)
        # Lines go to stdout unless a file takes them; JSON that is asked for, always.
        with json_list() if json else nullcontext(_say if not outputs.files else None) as told:
            done = classify(
                predictor, files, outputs, origin=origin, told=told, progress=progress()
            )
    if outputs.files and not json:
        where = ", ".join(map(str, outputs.files))
        typer.echo(f"{done.images} images, {done.failed} failed: {where}")
    if done.failed:
        raise EdgemlError(f"{done.failed} of {done.images} images failed: {done.first_error}")


def _say(entry: dict[str, Any]) -> None:
    line = f"{entry['source']}: {entry['error'] or ', '.join(entry['labels']) or '(none)'}"
    typer.echo(line.encode("utf-8", "backslashreplace").decode())


def bench(
    models: Annotated[list[Path], typer.Argument(help="Models to time side by side.")],
    data: Annotated[Path | None, typer.Option(help="Images; default: one that is drawn.")] = None,
    scenario: Annotated[Literal["single"], typer.Option(help="One image at a time.")] = "single",
    seconds: Annotated[float, typer.Option(min=0.1, help="At least so long a model.")] = 5.0,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads.")] = None,
    out: Annotated[Path | None, typer.Option(help="Folder for bench.json and report.html.")] = None,
    json: Json = False,
) -> None:
    """Time models: each in a process of its own, in turns, every stage."""
    from edgeml.benchmark import BenchPlan, run_benchmark
    from edgeml.data import find_images
    from edgeml.files import check_writable, write_text

    if out:
        check_writable(out / "bench.json")
    plan = BenchPlan(scenario=scenario, min_s=seconds, threads=threads)
    images = find_images(data) if data else []
    report = run_benchmark(models, images=images, plan=plan, progress=progress())
    if out:
        with (
            needs("jinja2", extra="report", to="write an HTML report"),
            needs("matplotlib", extra="report", to="write an HTML report"),
        ):
            from edgeml.benchmark.page import bench_report
        write_text(out / "bench.json", report.to_json())
        bench_report(report, out / "report.html")
    document = report.to_dict()
    if json:
        print_json(document)
        return
    print_table("Latency of one image", _BENCH_COLUMNS, [_row(r) for r in document["results"]])
    for result in document["results"]:
        for flag in result["flags"]:
            typer.echo(f"{result['model']}: {flag}")


_BENCH_COLUMNS = (
    "model", "runtime", "computes in", "p50 ms", "p95 ms", "p99 ms", "infer p50 ms",
    "images/s", "load ms", "first ms", "peak MB",
)  # fmt: skip


def _row(result: dict[str, Any]) -> tuple[object, ...]:
    total, infer = result["stages"]["total"], result["stages"]["infer"]
    memory = result["peak_rss_mb"]  # not every system tells
    return (
        result["model"], result["runtime"], result["precision_actual"],
        total["p50_ms"], total["p95_ms"], total["p99_ms"], infer["p50_ms"],
        f"{result['throughput_per_s']:.0f}", f"{result['load_ms']:.0f}",
        f"{result['first_ms']:.1f}", memory and f"{memory:.0f}",
    )  # fmt: skip


def stream(
    model: Model,
    source: Annotated[str, typer.Argument(help="Camera index, video file, folder, or URL.")],
    out: Annotated[Path | None, typer.Option(help="Write a JSON line for each frame.")] = None,
    video: Annotated[Path | None, typer.Option(help="Write a video with the labels on it.")] = None,
    show: Annotated[bool, typer.Option(help="Open a window.")] = False,
    max_seconds: Annotated[float | None, typer.Option(min=0.1, help="Stop after so long.")] = None,
    runtime: RuntimeName = "auto",
    device: Device = "auto",
    json: Json = False,
) -> None:
    """Classify a camera or a video, frame by frame; frames that were dropped are counted."""
    from edgeml.predict.predictor import Predictor
    from edgeml.streaming import run_stream

    with Predictor(model, runtime=runtime, device=device) as predictor:
        summary = run_stream(
            predictor,
            source,
            jsonl=out,
            video=video,
            show=show,
            max_seconds=max_seconds,
            progress=progress(),
        )
    if json:
        print_json(summary.to_dict())
    else:
        typer.echo(summary.line())
    if summary.ended == "lost":
        raise typer.Exit(1)
