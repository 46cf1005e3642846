from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from edgeml.benchmark.flags import MEANING, flags_of
from edgeml.benchmark.plan import BenchPlan
from edgeml.benchmark.report import Disturbance, ModelResult
from edgeml.benchmark.stages import STAGES, WarmUp
from edgeml.benchmark.statistics import summarize
from edgeml.spec.model_spec import Precision
from edgeml.spec.provenance import Provenance
from tests.tiny import tiny_spec

QUIET = Disturbance(pressure=0.0, stolen=0.0, switches_per_call=0.0)
SETTLED = WarmUp(calls=20, seconds=0.1, change=0.001, settled=True)


def result(
    infer: Any = 1_000_000,
    *,
    runtime: str = "onnxruntime 1.32.0 CPU",
    actual: str = "f32",
    precision: Precision = "fp32",
    weights_sha256: str | None = None,
    **changes: Any,
) -> ModelResult:
    samples = np.full(90, infer) if np.isscalar(infer) else np.asarray(infer)
    base = ModelResult(
        model=f"{precision}.onnx",
        sha256=None,
        spec=replace(
            tiny_spec(), precision=precision, provenance=Provenance(weights_sha256=weights_sha256)
        ),
        runtime=runtime,
        precision_actual=actual,
        stages={stage: summarize(samples) for stage in STAGES},
        throughput_per_s=1.0,
        load_ms=1.0,
        first_ms=1.0,
        peak_rss_mb=None,
        opencv_threads=1,
        warm_up=SETTLED,
        samples_ns=dict.fromkeys(STAGES, samples),
        disturbance=QUIET,
    )
    return replace(base, **changes)


def flags(one: ModelResult, *others: ModelResult) -> list[str]:
    result_flags = flags_of(one, [one, *others], BenchPlan(min_calls=90))
    assert all(flag.partition(": ")[0] in MEANING for flag in result_flags)
    assert all("\n" not in flag for flag in result_flags)
    return [flag.partition(": ")[0] for flag in result_flags]


def test_a_steady_model_has_no_flags() -> None:
    assert flags(result()) == []


def test_a_wide_spread_of_inference_is_noisy() -> None:
    assert flags(result([900_000, 1_000_000, 1_120_000] * 30)) == ["noisy"]
    assert flags(result([960_000, 1_000_000, 1_040_000] * 30)) == []


def test_different_images_do_not_make_a_model_noisy() -> None:
    decode = np.asarray([1_000_000, 30_000_000] * 45)
    one = result()
    assert flags(replace(one, samples_ns={**one.samples_ns, "decode": decode})) == []


@pytest.mark.parametrize("factor", [0.95, 1.05])
def test_inference_that_becomes_slower_or_faster_drifts(factor: float) -> None:
    samples = np.repeat([1_000_000, 1_000_000, int(1_000_000 * factor)], 30)
    assert flags(result(samples)) == ["drift"]


def test_a_drift_within_3_percent_is_not_flagged() -> None:
    assert flags(result(np.repeat([1_000_000, 1_000_000, 1_020_000], 30))) == []


def test_waiting_for_a_processor_and_stolen_time_are_contamination() -> None:
    waiting = Disturbance(pressure=0.06, stolen=0.0, switches_per_call=None)
    assert flags(result(disturbance=waiting)) == ["contaminated"]
    stolen = Disturbance(pressure=0.0, stolen=0.02, switches_per_call=None)
    assert flags(result(disturbance=stolen)) == ["contaminated"]


def test_unknown_counters_are_not_flagged() -> None:
    unknown = Disturbance(pressure=None, stolen=None, switches_per_call=None)
    assert flags(result(disturbance=unknown)) == []


@pytest.mark.parametrize("change", [0.3, math.nan])
def test_a_warm_up_that_did_not_settle_is_flagged(change: float) -> None:
    unsettled = WarmUp(calls=9, seconds=5.0, change=change, settled=False)
    assert flags(result(warm_up=unsettled)) == ["warm-up"]


def test_fewer_calls_than_planned_are_flagged() -> None:
    assert flags(result([1_000_000] * 89)) == ["few-calls"]


def test_fp16_on_onnx_runtimes_cpu_is_slow_unless_it_was_measured_not_to_be() -> None:
    half = result(1_000_000, precision="fp16")
    assert flags(half) == ["fp16-slow"]
    assert flags(half, result(900_000)) == ["fp16-slow"]
    assert flags(half, result(980_000)) == []
    assert flags(result(precision="fp16", runtime="openvino 2026 CPU")) == []
    assert flags(result(precision="fp16", runtime="onnxruntime 1.32 CUDA")) == []


def test_int8_that_is_not_faster_than_its_fp32_is_flagged() -> None:
    slow = result(1_000_000, actual="int8", precision="int8")
    assert flags(slow, result(900_000)) == ["int8-not-faster"]
    assert flags(slow, result(1_000_000)) == ["int8-not-faster"]
    assert flags(slow, result(1_100_000)) == []
    assert flags(slow) == []


def test_int8_is_compared_with_its_own_fp32_alone() -> None:
    slow = result(1_000_000, actual="int8", precision="int8", weights_sha256="a")
    other_runtime = result(500_000, runtime="openvino 2026.4.1 CPU")
    other_labels = replace(result(500_000), spec=tiny_spec(labels=("one", "two")))
    other_size = replace(result(500_000), spec=tiny_spec(size=64))
    other_weights = result(500_000, weights_sha256="b")
    assert flags(slow, other_runtime, other_labels, other_size, other_weights) == []
    assert flags(slow, result(500_000, weights_sha256="a")) == ["int8-not-faster"]
