"""What reports are about: plain values, handed in by those who measured them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from edgeml.benchmark.speedup import Speedup
from edgeml.measure.compare import Fidelity
from edgeml.measure.metrics import Metrics
from edgeml.spec.labels import Scores


class RankedNode(Protocol):
    """A node that could be quantised, as the page reads it.

    `edgeml_export.int8.budget` owns the values, and says what they mean.
    """

    @property
    def name(self) -> str: ...
    @property
    def kind(self) -> str: ...
    @property
    def damage(self) -> float: ...
    @property
    def measured(self) -> bool: ...
    @property
    def in_float(self) -> bool: ...


class MixedPrecision(Protocol):
    """The search for the nodes that stay in floating point, as the page reads it."""

    @property
    def nodes(self) -> Sequence[RankedNode]: ...
    @property
    def quantizable(self) -> int: ...
    @property
    def unit(self) -> str: ...
    @property
    def steps(self) -> Sequence[tuple[int, float]]: ...
    @property
    def seconds(self) -> float | None: ...


class CalibrationImages(Protocol):
    """The images that INT8 ranges were measured on, as the page reads them."""

    @property
    def paths(self) -> Sequence[Path]: ...
    @property
    def without(self) -> Sequence[str]: ...
    @property
    def digest(self) -> str: ...


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """What fitting the thresholds again recovers, on the reporting images.

    Attributes:
        before: The reference with its own thresholds.
        unfitted: The exported model with the reference's thresholds.
        fitted: The exported model with thresholds fitted again on the fitting images.
        images: How many images the thresholds were fitted on.
        objective: What they were fitted for, for example `macro_f1`.
    """

    before: Metrics
    unfitted: Metrics
    fitted: Metrics
    images: int
    objective: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """All that the report of an export, or of a comparison, shows. What is None is left out.

    Attributes:
        kind: What stands above the headline: `export`, `comparison`, or `check`.
        title: The headline, for example `model.int8.onnx`.
        reference, candidate: What the two are called, for example `FP32` and `INT8`.
        fidelity: The four levels. `passed` is the verdict; None if nothing was promised.
        findings: Why it was refused, a sentence each.
        max_drop: Points of mAP that may be lost; None or infinite without a limit.
        max_label_drop: Points of AP that any one label may lose.
        scores: (N, labels) float32 probabilities of both, for the plots of how they differ.
        recovery: What thresholds recover.
        methods: The calibration methods that were tried, in any order, with how far the outputs of
            each lie from the reference's on the fitting images; NaN or infinite if that could not
            be measured.
        method: The one that was taken.
        mixed: Mixed precision.
        speed: How the candidate's speed compares with the reference's on this machine.
        calibration: The images for INT8.
        overlap: How many of them also serve the fitting or the reporting.
        notes: What else should be known, a sentence each.
        facts: What stands at the foot: files, digests, versions, target, seconds.
    """

    kind: str = "comparison"
    title: str
    reference: str
    candidate: str
    fidelity: Fidelity
    findings: Sequence[str] = ()
    max_drop: float | None = None
    max_label_drop: float | None = None
    scores: tuple[Scores, Scores] | None = None
    recovery: Recovery | None = None
    methods: Mapping[str, float] = field(default_factory=dict)
    method: str = ""
    mixed: MixedPrecision | None = None
    speed: Speedup | None = None
    calibration: CalibrationImages | None = None
    overlap: int = 0
    notes: Sequence[str] = ()
    facts: Mapping[str, str]
