"""Reasons to doubt a number. A flag is `code: the observation, with its values`."""

from __future__ import annotations

import math
from collections.abc import Sequence

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
    flags = [
        *_unsteady(result),
        *_disturbed(result),
        *_unsettled(result, plan),
        *_too_few(result, plan),
        *_slow_fp16(result, results),
        *_slow_int8(result, results),
    ]
    return tuple(flags)


def _unsteady(result: ModelResult) -> list[str]:
    """Check only `infer`: the times of the other stages depend on the image."""
    samples, flags = result.samples_ns["infer"], []
    if (share := spread(samples)) > _NOISY:
        flags.append(f"noisy: the middle half of infer spans {share:.0%} of its median")
    if abs(change := drift(samples)) > _DRIFT:
        flags.append(f"drift: infer changed by {change:+.1%} from the first third to the last")
    return flags


def _disturbed(result: ModelResult) -> list[str]:
    pressure, stolen = result.disturbance.pressure, result.disturbance.stolen
    flags = []
    if pressure is not None and pressure > _PRESSURE:
        flags.append(f"contaminated: work waited for a processor in {pressure:.0%} of the time")
    if stolen is not None and stolen > _STOLEN:
        flags.append(f"contaminated: the hypervisor took {stolen:.0%} of the processor")
    return flags


def _unsettled(result: ModelResult, plan: BenchPlan) -> list[str]:
    warm_up = result.warm_up
    if warm_up.settled:
        return []
    if math.isnan(warm_up.change):
        return [f"warm-up: only {warm_up.calls} calls in {plan.warmup_max_s:g} s, too few to judge"]
    return [
        f"warm-up: medians still differed by {warm_up.change:.0%} after {plan.warmup_max_s:g} s"
    ]


def _too_few(result: ModelResult, plan: BenchPlan) -> list[str]:
    calls = min(summary.n for summary in result.stages.values())
    if calls >= plan.min_calls:
        return []
    return [f"few-calls: {calls} of {plan.min_calls} calls in {plan.longest_s:g} s"]


def _slow_fp16(result: ModelResult, results: Sequence[ModelResult]) -> list[str]:
    library, _, device = result.runtime.partition(" ")
    if result.spec.precision != "fp16" or library != "onnxruntime" or "CPU" not in device:
        return []
    ratio = _gain_over_fp32(result, results)
    if ratio is None:
        return ["fp16-slow: fp16 on ONNX Runtime CPU is slow; use FP32 or INT8 here"]
    if ratio >= _SLOW_FP16:
        return []
    return [f"fp16-slow: fp16 on ONNX Runtime CPU is slow, {ratio:.2f} times the speed of FP32"]


def _slow_int8(result: ModelResult, results: Sequence[ModelResult]) -> list[str]:
    if result.spec.precision != "int8":
        return []
    ratio = _gain_over_fp32(result, results)
    if ratio is None or ratio > 1:
        return []
    return [f"int8-not-faster: int8 has {ratio:.2f} times the speed of its fp32 in this run"]


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
