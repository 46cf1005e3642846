"""The output of a stream: a result for each frame, and a summary."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass
from typing import Any, Literal

from edgeml.image.frame import Frame
from edgeml.predict.predictor import Prediction
from edgeml.streaming.sources import Kind

Ended = Literal["eof", "max_seconds", "stopped", "lost"]

FORMAT = "edgeml.stream/1"


@dataclass(frozen=True, kw_only=True)
class StreamInfo:
    """What is the same for all frames of a stream.

    Attributes:
        source: The source's name, without credentials.
        kind: The kind of source.
        live: Whether frames may be dropped.
        fps: Frames per second, as the source reports.
        started: Local wall-clock time with its offset from UTC, ISO 8601: second 0 of `t_capture`.
        labels: The model's labels.
        runtime: The runtime of the model.
    """

    source: str
    kind: Kind
    live: bool
    fps: float | None
    started: str
    labels: tuple[str, ...]
    runtime: str

    def to_dict(self) -> dict[str, Any]:
        """Return the first line of a JSON-lines log."""
        return {
            "format": FORMAT,
            "source": self.source,
            "kind": self.kind,
            "fps": self.fps,
            "started": self.started,
            "runtime": self.runtime,
            "labels": list(self.labels),
        }


@dataclass(frozen=True, eq=False, kw_only=True)
class FrameResult:
    """The prediction for one frame, or why there is none.

    Attributes:
        frame_id: The number of the frame in the source, from 0; gaps are dropped frames.
        t_capture: Seconds from the stream's start to the capture of the frame (monotonic).
        latency_ms: From the capture to the prediction.
        dropped: Frames dropped since the previous result.
        frame: (H, W, 3) uint8 BGR.
        prediction: None if there is an error.
        error: Why there is no prediction.
        name: The image file, for a folder.
        t_media: Seconds from the beginning of a video file.
    """

    frame_id: int
    t_capture: float
    latency_ms: float
    dropped: int
    frame: Frame | None
    prediction: Prediction | None
    error: str | None
    name: str | None
    t_media: float | None

    def to_dict(self) -> dict[str, Any]:
        """Return a line of a JSON-lines log."""
        fields = self.prediction.to_dict() if self.prediction else {"labels": [], "scores": {}}
        line: dict[str, Any] = {
            "frame_id": self.frame_id,
            "t_capture": round(self.t_capture, 6),
            "latency_ms": round(self.latency_ms, 3),
            "dropped": self.dropped,
            "labels": fields["labels"],
            "scores": {name: round(score, 6) for name, score in fields["scores"].items()},
            "error": self.error,
        }
        if self.name is not None:
            line["source"] = self.name
        if self.t_media is not None:
            line["t_media"] = round(self.t_media, 3)
        return line


class Latencies:
    """Percentiles of any number of latencies in bounded memory, each within 1 %.

    Counts per bucket, with bounds that grow by 2 %, as in HdrHistogram: a stream of a month needs
    no more memory than one of a minute, and every slow frame counts.
    """

    _GROWTH = math.log(1.02)
    _MIN_MS = 1e-3

    def __init__(self) -> None:
        self._counts: Counter[int] = Counter()

    def add(self, milliseconds: float) -> None:
        """Count one latency."""
        ratio = max(milliseconds, self._MIN_MS) / self._MIN_MS
        self._counts[int(math.log(ratio) / self._GROWTH)] += 1

    def percentile(self, share: float) -> float | None:
        """Return the smallest latency, in ms, that `share` (0 to 1) do not exceed, if any."""
        target = math.ceil(share * self._counts.total())
        total = 0
        for bucket, count in sorted(self._counts.items()):
            total += count
            if total >= target:
                return self._MIN_MS * math.exp((bucket + 0.5) * self._GROWTH)
        return None


@dataclass(frozen=True, kw_only=True)
class StreamSummary:
    """The counts and latencies of a stream.

    Attributes:
        source: The source's name, without credentials.
        kind: The kind of source.
        frames_in: Frames from the source: done, dropped and errors together.
        frames_done: Frames with a prediction.
        dropped: Frames that were too old when the model was free, or still waiting at the end.
        errors: Frames that could not be read or classified.
        seconds: From opening the source to the end.
        p50_ms, p95_ms, p99_ms: Latency, from a frame's capture to its prediction.
        ended: `eof`: no more frames; `max_seconds`: the time was over; `stopped`: by the caller,
            Ctrl-C or the window; `lost`: the source broke off.
    """

    source: str
    kind: Kind
    frames_in: int
    frames_done: int
    dropped: int
    errors: int
    seconds: float
    p50_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    ended: Ended

    @property
    def fps(self) -> float:
        """Predictions per second."""
        return self.frames_done / self.seconds if self.seconds > 0 else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Return what `edgeml stream --json` prints."""
        latencies = {"p50": self.p50_ms, "p95": self.p95_ms, "p99": self.p99_ms}
        return {
            "source": self.source,
            "kind": self.kind,
            "frames_in": self.frames_in,
            "frames_done": self.frames_done,
            "dropped": self.dropped,
            "errors": self.errors,
            "seconds": round(self.seconds, 3),
            "fps": round(self.fps, 2),
            "latency_ms": {k: None if v is None else round(v, 3) for k, v in latencies.items()},
            "ended": self.ended,
        }

    def line(self) -> str:
        """Return the summary as one line."""
        text = f"{self.source}: {self.frames_done} frames in {self.seconds:.1f} s"
        text += f" ({self.fps:.1f}/s), {self.dropped} dropped, {self.errors} errors"
        if self.p50_ms is not None:
            text += f"; latency p50 {self.p50_ms:.1f}, p95 {self.p95_ms:.1f}, "
            text += f"p99 {self.p99_ms:.1f} ms"
        return f"{text}; ended: {self.ended}"
