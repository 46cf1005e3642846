"""What makes a number doubtful, said aloud. A flag is `code: what was seen, with the values`."""

from __future__ import annotations

import math
from collections.abc import Sequence

from edgeml.benchmark.plan import BenchPlan
from edgeml.benchmark.report import ModelResult
from edgeml.benchmark.statistics import drift, spread

MEANING = {
    "noisy": "Inference of the same input took times that differ much; look at p95, not p50.",
    "drift": "It became slower or faster while it was measured: heat, clocks, or other work.",
    "contaminated": "Other work wanted the processor meanwhile; measure on an idle machine.",
    "warm-up": "Speed had not settled when the plan's time for warming up was over.",
    "few-calls": "It is too slow for so many calls in the plan's time; give it more.",
    "fp16-slow": "ONNX Runtime has few FP16 kernels for CPUs: it converts to FP32 and back.",
    "int8-not-faster": "INT8 gains nothing here; the FP32 file is the better one on this machine.",
}
"""What each code means, and what to do; for reports."""

_NOISY = 0.10  # torch.utils.benchmark warns above the same share
_DRIFT = 0.03
_PRESSURE = 0.05
_STOLEN = 0.01
_SLOW_FP16 = 0.95


def flags_of(
    result: ModelResult, results: Sequence[ModelResult], plan: BenchPlan
) -> tuple[str, ...]:
    """Give the flags of one of `results`."""
    found = [
        *_unsteady(result),
        *_disturbed(result),
        *_unsettled(result, plan),
        *_too_few(result, plan),
        *_slow_fp16(result, results),
        *_slow_int8(result, results),
    ]
    return tuple(found)


def _unsteady(result: ModelResult) -> list[str]:
    """Judge `infer` alone: the other stages depend on which picture it is."""
    samples, flags = result.samples_ns["infer"], []
    if (share := spread(samples)) > _NOISY:
        flags.append(f"noisy: the middle half of infer spreads over {share:.0%} of its median")
    if abs(change := drift(samples)) > _DRIFT:
        flags.append(f"drift: infer was {change:+.1%} in the last third, against the first")
    return flags


def _disturbed(result: ModelResult) -> list[str]:
    pressure, stolen = result.disturbance.pressure, result.disturbance.stolen
    flags = []
    if pressure is not None and pressure > _PRESSURE:
        flags.append(f"contaminated: {pressure:.0%} of the time something waited for a processor")
    if stolen is not None and stolen > _STOLEN:
        flags.append(f"contaminated: the hypervisor gave {stolen:.0%} of the processor to others")
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
    return [f"few-calls: {calls} of {plan.min_calls} calls when {plan.longest_s:g} s were over"]


def _slow_fp16(result: ModelResult, results: Sequence[ModelResult]) -> list[str]:
    library, _, device = result.runtime.partition(" ")
    if result.spec.precision != "fp16" or library != "onnxruntime" or "CPU" not in device:
        return []
    ratio = _gain_over_fp32(result, results)
    if ratio is None:
        return ["fp16-slow: fp16 on ONNX Runtime CPU is slow; take FP32 or INT8 here"]
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
    """Give the ratio of median inference times, FP32 over this; None without its FP32."""
    for other in results:
        if _is_fp32_of(other, result):
            ours, theirs = result.stages["infer"].p50_ms, other.stages["infer"].p50_ms
            return theirs / ours if ours and theirs else None
    return None


def _is_fp32_of(other: ModelResult, result: ModelResult) -> bool:
    """Tell whether both are one model: same labels, input and weights, on the same runtime."""
    ours, theirs = result.spec, other.spec
    weights = {spec.provenance.weights_sha256 for spec in (ours, theirs)} - {None}
    return (
        theirs.precision == "fp32"
        and other.runtime == result.runtime
        and theirs.labels == ours.labels
        and theirs.preprocess == ours.preprocess
        and len(weights) <= 1
    )
