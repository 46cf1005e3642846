"""What reports are about: plain values, handed in by those who measured them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from edgeml.bench.environment import Host
from edgeml.metrics import Metrics
from edgeml.preprocess import Frame


class EpochRow(Protocol):
    """One epoch of training; the rows of `edgeml.train`'s history are such."""

    @property
    def epoch(self) -> int: ...

    @property
    def train_loss(self) -> float: ...

    @property
    def val_loss(self) -> float: ...

    @property
    def mAP(self) -> float:
        """On the validation side, a share of 1."""
        ...


@dataclass(frozen=True, kw_only=True)
class DemoRow:
    """One exported model. Shares of 1; None and NaN are shown as unknown.

    Attributes:
        format: For example `onnx`, `openvino`, or `torch` for the source of the others.
        precision: For example `fp32`.
        mAP, exact_match: On the test split.
        label_flips_per_1000: Decisions that differ from the source's, of a thousand.
        p50_ms, p99_ms: Latency of a whole `predict`.
        size_mb: Of all files of the model, in units of 10^6 bytes.
        path: Where it lies.
    """

    format: str
    precision: str
    mAP: float
    exact_match: float
    label_flips_per_1000: float | None
    p50_ms: float | None
    p99_ms: float | None
    size_mb: float
    path: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Sample:
    """One picture with what is on it and what a model says is.

    Attributes:
        frame: (H, W, 3) uint8 BGR.
        truth: Names of the labels that are on it.
        labels: Names of the labels that were predicted.
    """

    frame: Frame
    truth: tuple[str, ...]
    labels: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Command:
    """A command to go on with, and what it does."""

    purpose: str
    line: str


@dataclass(frozen=True, kw_only=True, eq=False)
class Demo:
    """All that the report of `edgeml demo` shows.

    Attributes:
        title: The headline.
        steps: What was done, in order, a sentence each.
        rows: The models, in the order of the table.
        history: The epochs of training.
        metrics: Of one model on the test split, label by label.
        metrics_of: Which model that is, and the split, for example `ONNX FP32, test split`.
        samples: Pictures of the test split.
        flags: What makes the latencies doubtful, as the benchmark says it.
        commands: What to do next.
        host, software: As the benchmark captured them.
    """

    title: str
    steps: tuple[str, ...]
    rows: tuple[DemoRow, ...]
    history: Sequence[EpochRow]
    metrics: Metrics
    metrics_of: str
    samples: tuple[Sample, ...]
    flags: tuple[str, ...]
    commands: tuple[Command, ...]
    host: Host
    software: Mapping[str, str | None]
