"""Reasons to doubt a number. A flag is `code: the observation, with its values`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

from edgeml.benchmark.plan import BenchPlan
from edgeml.benchmark.report import ModelResult
from edgeml.benchmark.statistics import drift, spread

MEANING = {
    "noisy": "The times of inference vary a lot; look at p95, not p50.",
    "drift": "It became slower or faster while it was measured: heat, clocks, or other work.",
    "contaminated": "Other work used the processor at the same time; measure on an idle machine.",
    "warm-up": "The speed had not settled at the end of the plan's time to warm up.",
    "few-calls": "It is too slow for this many calls in the plan's time; allow more time.",
    "fp16-slow": "ONNX Runtime has few FP16 kernels for CPUs: it converts to FP32 and back.",
    "int8-not-faster": "INT8 gains nothing here; the FP32 file is the better one on this machine.",
}
"""The meaning of each code, and what to do; for reports."""

_NOISY = 0.10  # torch.utils.benchmark warns above the same share
_DRIFT = 0.03
_PRESSURE = 0.05
_STOLEN = 0.01
_SLOW_FP16 = 0.95


def flags_of(
    result: ModelResult, results: Sequence[ModelResult], plan: BenchPlan
) -> tuple[str, ...]:
    """Return the flags of one of `results`."""
    return (*_doubts(result, plan), *_slow_precision(result, results))


def _doubts(result: ModelResult, plan: BenchPlan) -> Iterator[str]:
    samples = result.samples_ns["infer"]  # the times of the other stages depend on the image
    if (share := spread(samples)) > _NOISY:
        yield f"noisy: the middle half of infer spans {share:.0%} of its median"
    if abs(change := drift(samples)) > _DRIFT:
        yield f"drift: infer changed by {change:+.1%} from the first third to the last"
    pressure, stolen = result.disturbance.pressure, result.disturbance.stolen
    if pressure is not None and pressure > _PRESSURE:
        yield f"contaminated: work waited for a processor in {pressure:.0%} of the time"
    if stolen is not None and stolen > _STOLEN:
        yield f"contaminated: the hypervisor took {stolen:.0%} of the processor"
    warm_up, limit = result.warm_up, f"{plan.warmup_max_s:g} s"
    if math.isnan(warm_up.change) and not warm_up.settled:
        yield f"warm-up: only {warm_up.calls} calls in {limit}, too few to judge"
    elif not warm_up.settled:
        yield f"warm-up: medians still differed by {warm_up.change:.0%} after {limit}"
    calls = min(summary.n for summary in result.stages.values())
    if calls < plan.min_calls:
        yield f"few-calls: {calls} of {plan.min_calls} calls in {plan.longest_s:g} s"


def _slow_precision(result: ModelResult, results: Sequence[ModelResult]) -> Iterator[str]:
    library, _, device = result.runtime.partition(" ")
    precision, ratio = result.spec.precision, _gain_over_fp32(result, results)
    if precision == "fp16" and library == "onnxruntime" and "CPU" in device:
        slow = "fp16-slow: fp16 on ONNX Runtime CPU is slow"
        if ratio is None:
            yield f"{slow}; use FP32 or INT8 here"
        elif ratio < _SLOW_FP16:
            yield f"{slow}, {ratio:.2f} times the speed of FP32"
    if precision == "int8" and ratio is not None and ratio <= 1:
        yield f"int8-not-faster: int8 has {ratio:.2f} times the speed of its fp32 in this run"


def _gain_over_fp32(result: ModelResult, results: Sequence[ModelResult]) -> float | None:
    """Return the ratio of median inference times, FP32 over this; None without FP32 results."""
    for other in results:
        if _is_fp32_of(other, result):
            ours, theirs = result.stages["infer"].p50_ms, other.stages["infer"].p50_ms
            return theirs / ours if ours and theirs else None
    return None


def _is_fp32_of(other: ModelResult, result: ModelResult) -> bool:
    """Return whether both are the same model: labels, input, weights and runtime."""
    ours, theirs = result.spec, other.spec
    weights = {spec.provenance.weights_sha256 for spec in (ours, theirs)} - {None}
    return (
        theirs.precision == "fp32"
        and other.runtime == result.runtime
        and theirs.labels == ours.labels
        and theirs.preprocess == ours.preprocess
        and len(weights) <= 1
    )
