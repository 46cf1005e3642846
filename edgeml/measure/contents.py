"""What reports are about: plain values, handed in by those who measured them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgeml.benchmark.speedup import Speedup
from edgeml.measure.compare import Fidelity
from edgeml.measure.metrics import Metrics
from edgeml.spec.labels import Scores


@dataclass(frozen=True, kw_only=True)
class TriedMethod:
    """A way to take INT8 ranges from what was seen.

    Attributes:
        name: For example `minmax`.
        divergence: How far its outputs lie from the reference's on the fitting images; less is
            better, 0 is equal. NaN or infinite if it could not be measured.
        kept: Whether it is the one that was taken.
    """

    name: str
    divergence: float
    kept: bool


@dataclass(frozen=True, kw_only=True)
class RankedNode:
    """A node of the network that could be quantised, and what that costs.

    Attributes:
        name: In the ONNX graph.
        kind: Its operator, for example `Conv`.
        damage: How much it hurts to quantise it, in the unit of `MixedPrecision`; 0 or less is
            no damage.
        in_float: Whether it was given back to floating point.
        measured: Whether it was tried alone; else the damage is a share of its neighbours'.
    """

    name: str
    kind: str = ""
    damage: float
    in_float: bool
    measured: bool = True


@dataclass(frozen=True, kw_only=True)
class MixedPrecision:
    """The search for the fewest nodes that must stay in floating point.

    Attributes:
        nodes: Those that were ranked, the most damaging first; those that were not are left out.
        quantizable: How many nodes could be quantised in all.
        unit: What `damage` counts, for example `nats a decision`.
        steps: (nodes in float, points of mAP lost on the fitting images) as the search went.
        seconds: What it took, the ranking included.
    """

    nodes: Sequence[RankedNode]
    quantizable: int
    unit: str
    steps: Sequence[tuple[int, float]] = ()
    seconds: float | None = None


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


@dataclass(frozen=True, kw_only=True)
class CalibrationImages:
    """The images that INT8 ranges were measured on.

    Attributes:
        images: How many.
        without: Labels that none of them shows.
        overlap: Images that also serve the fitting or the reporting.
        sha256: Digest of the images.
    """

    images: int
    without: Sequence[str] = ()
    overlap: int = 0
    sha256: str = ""


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
        methods: The calibration methods that were tried, in any order.
        mixed: Mixed precision.
        speed: How the candidate's speed compares with the reference's on this machine.
        calibration: The images for INT8.
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
    methods: Sequence[TriedMethod] = ()
    mixed: MixedPrecision | None = None
    speed: Speedup | None = None
    calibration: CalibrationImages | None = None
    notes: Sequence[str] = ()
    facts: Mapping[str, str]
