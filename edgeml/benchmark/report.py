"""The result of a benchmark: numbers, their raw samples, and what they depend on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, ClassVar

from edgeml.benchmark.corpus import Corpus
from edgeml.benchmark.environment import Host
from edgeml.benchmark.plan import BenchPlan
from edgeml.benchmark.stages import WarmUp
from edgeml.benchmark.statistics import Samples, Summary
from edgeml.spec.model_spec import ModelSpec

SCHEMA = "edgeml.bench/1"


@dataclass(frozen=True, kw_only=True)
class Disturbance:
    """What else the machine did while a model was measured; None where that is unknown."""

    pressure: float | None  # share of the time in which something waited for a processor (PSI)
    stolen: float | None  # share of processor time that the hypervisor gave to others
    switches_per_call: float | None  # involuntary context switches


@dataclass(frozen=True, kw_only=True, eq=False)
class ModelResult:
    """One model.

    Attributes:
        model: The path that the caller passed.
        sha256: Digest of the file; None for a folder.
        spec: The spec of the model.
        runtime: The library, its version and the device.
        precision_actual: What the runtime computes in: `f32`, `f16`, `bf16`, `int8` ...
        stages: Percentiles by stage: decode, preprocess, infer, postprocess, total.
        throughput_per_s: Images per second, one after the other.
        load_ms: From no runtime loaded to a model ready, in a fresh process.
        first_ms: The first call, which happens only once.
        peak_rss_mb: Peak memory of its process; None where the system does not report it.
        opencv_threads: Threads with which OpenCV decoded and resized.
        warm_up: The calls that were not counted.
        samples_ns: All latencies by stage, in the order of the calls.
        disturbance: What else the machine did.
        flags: Reasons to doubt the numbers, each `code: explanation`.
    """

    model: str
    sha256: str | None
    spec: ModelSpec
    runtime: str
    precision_actual: str
    stages: Mapping[str, Summary]
    throughput_per_s: float
    load_ms: float
    first_ms: float
    peak_rss_mb: float | None
    opencv_threads: int
    warm_up: WarmUp
    samples_ns: Mapping[str, Samples]
    disturbance: Disturbance
    flags: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Return what `edgeml bench --json` prints for a model."""
        return {
            "model": self.model,
            "runtime": self.runtime,
            "precision_actual": self.precision_actual,
            "stages": {stage: asdict(summary) for stage, summary in self.stages.items()},
            "throughput_per_s": self.throughput_per_s,
            "load_ms": self.load_ms,
            "first_ms": self.first_ms,
            "peak_rss_mb": self.peak_rss_mb,
            "flags": list(self.flags),
        }

    def raw(self) -> dict[str, Any]:
        """Return the raw samples and what they depend on."""
        return {
            "model": self.model,
            "sha256": self.sha256,
            "precision_declared": self.spec.precision,
            "opencv_threads": self.opencv_threads,
            "warm_up": asdict(self.warm_up),
            "disturbance": asdict(self.disturbance),
            "samples_ns": {stage: ns.tolist() for stage, ns in self.samples_ns.items()},
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class BenchReport:
    """One run of the benchmark, always with its machine, versions and plan."""

    results: tuple[ModelResult, ...]
    host: Host
    software: Mapping[str, str | None]
    plan: BenchPlan
    corpus: Corpus
    id: str
    created: str

    COLUMNS: ClassVar[tuple[str, ...]] = (
        "model", "runtime", "computes in", "p50 ms", "p95 ms", "p99 ms", "infer p50 ms",
        "images/s", "load ms", "first ms", "peak MB",
    )  # fmt: skip

    def table(self) -> list[tuple[object, ...]]:
        """Return one row per model, under `COLUMNS`."""
        return [
            (
                one.model, one.runtime, one.precision_actual,
                one.stages["total"].p50_ms, one.stages["total"].p95_ms, one.stages["total"].p99_ms,
                one.stages["infer"].p50_ms, f"{one.throughput_per_s:.0f}", f"{one.load_ms:.0f}",
                f"{one.first_ms:.1f}", one.peak_rss_mb and f"{one.peak_rss_mb:.0f}",
            )
            for one in self.results
        ]  # fmt: skip

    def to_dict(self, *, samples: bool = False) -> dict[str, Any]:
        """Return the report as `edgeml bench --json` prints it.

        With `samples`, a key `processes` holds what only the file of `--out` contains: the raw
        latencies of each model, its digest, its warm-up, and what disturbed it.
        """
        config = {
            **asdict(self.plan),
            "images": self.corpus.source,
            "images_count": len(self.corpus.paths),
            "images_mean_bytes": self.corpus.mean_bytes,
            "images_sha256": self.corpus.sha256,
        }
        report = {
            "schema": SCHEMA,
            "id": self.id,
            "created": self.created,
            "host": asdict(self.host),
            "software": dict(self.software),
            "config": config,
            "results": [result.to_dict() for result in self.results],
        }
        if samples:
            report["processes"] = [result.raw() for result in self.results]
        return report

    def to_json(self) -> str:
        """Return the report with its raw samples, as it is written to a file."""
        return json.dumps(_without_nan(self.to_dict(samples=True))) + "\n"


def _without_nan(value: Any) -> Any:
    """Replace NaN, which JSON does not have, with None."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and value != value else value
