"""From a source to results: the loop behind `edgeml stream`."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path

from edgeml.errors import EdgemlError, InputError
from edgeml.predict.predictor import Predictor
from edgeml.progress import SILENT, Progress
from edgeml.streaming.capture import Capture
from edgeml.streaming.results import Ended, FrameResult, Latencies, StreamInfo, StreamSummary
from edgeml.streaming.sinks import Sink, open_sinks
from edgeml.streaming.sources import CapturedFrame, Source, find_source

# Longest time to notice a stop while no frame comes.
_POLL_S = 0.1

_SECONDS_BETWEEN_NOTES = 10.0
_ERRORS_NOTED = 5


def run_stream(
    predictor: Predictor,
    source: str | os.PathLike[str] | int | Source,
    *,
    jsonl: Path | None = None,
    video: Path | None = None,
    show: bool = False,
    sinks: Sequence[Sink] = (),
    max_seconds: float | None = None,
    stop: threading.Event | None = None,
    progress: Progress = SILENT,
) -> StreamSummary:
    """Classify the frames of a source, one by one, until it ends.

    A separate thread reads the source. The calling thread runs the model and the sinks, and
    receives errors and Ctrl-C, which ends the stream like `stop`. From a camera or a live stream
    the newest frame is taken, and older ones are dropped and counted; from a file or folder every
    frame is taken. A frame that cannot be read or classified is counted and reported, and the
    stream continues.

    Args:
        predictor: The model; it is not closed.
        source: A camera's number, a video, a folder of images, an http(s) or rtsp(s) URL, or an
            object with the members of `edgeml.streaming.Source`.
        jsonl: Write a log here: a JSON line for the stream, then one for each frame.
        video: Write the frames with their labels here, .mp4 or .avi.
        show: Open a window; without a display the stream continues without one.
        sinks: More receivers of results.
        max_seconds: Stop after this many seconds from opening the source.
        stop: Stop soon after this is set, by another thread or a signal handler.
        progress: Shows the progress of a file or folder, errors, and the speed of a live stream.

    Raises:
        InputError: There is no such source, a camera or stream does not answer, or an output
            cannot be written.
        DataError: A folder has no images, or a file is not a video.

    Example:
        >>> with Predictor("model.onnx") as predictor:
        ...     summary = run_stream(predictor, "photos", jsonl=Path("labels.jsonl"))
        >>> summary.frames_done, summary.ended
        (3, 'eof')
    """
    if max_seconds is not None and not max_seconds > 0:
        raise InputError(f"max_seconds is {max_seconds}; it must be above 0.")
    if isinstance(source, (str, os.PathLike, int)):
        source = find_source(source)
    with open_sinks(jsonl=jsonl, video=video, show=show, progress=progress) as opened:
        limit = math.inf if max_seconds is None else max_seconds
        stop = stop or threading.Event()
        return _Loop(predictor, source, [*opened, *sinks], limit, stop, progress).run()


@dataclass(eq=False)
class _Loop:
    """One run of a stream: its clock, its counts, and its sinks."""

    predictor: Predictor
    source: Source
    sinks: Sequence[Sink]
    max_seconds: float
    stop: threading.Event
    progress: Progress
    start: float = field(default_factory=time.perf_counter)
    done: int = 0
    errors: int = 0
    next_id: int = 0
    latencies: Latencies = field(default_factory=Latencies)
    last_note: float = 0.0

    def run(self) -> StreamSummary:
        with Capture(self.source) as capture:
            try:
                ended = self._follow(capture)
            except KeyboardInterrupt:
                ended = "stopped"
            seconds = time.perf_counter() - self.start
        if ended == "lost":
            self.progress.note(f"{self.source.name} broke off after {capture.taken} frames.")
        return StreamSummary(
            source=self.source.name,
            kind=self.source.kind,
            frames_in=capture.taken,
            frames_done=self.done,
            # Every frame without a result, also the one in progress when Ctrl-C was pressed.
            dropped=capture.taken - self.done - self.errors,
            errors=self.errors,
            seconds=seconds,
            p50_ms=self.latencies.percentile(0.50),
            p95_ms=self.latencies.percentile(0.95),
            p99_ms=self.latencies.percentile(0.99),
            ended=ended,
        )

    def _follow(self, capture: Capture) -> Ended:
        """Take frames until the stream ends; return why it ended."""
        while (info := capture.wait_open(_POLL_S)) is None:
            if self.stop.is_set():
                return "stopped"
        self.start = time.perf_counter()
        stream_info = StreamInfo(
            source=self.source.name,
            kind=self.source.kind,
            live=info.live,
            fps=info.fps,
            started=datetime.now().astimezone().isoformat(timespec="milliseconds"),
            labels=self.predictor.spec.labels,
            runtime=self.predictor.runtime.name,
        )
        for sink in self.sinks:
            sink.start(stream_info)
        shown = SILENT if info.count is None else self.progress
        with shown.task(f"stream {self.source.name}", info.count or 0, "frames") as advance:
            while True:
                remaining = self.max_seconds - (time.perf_counter() - self.start)
                if self.stop.is_set():
                    return "stopped"
                if remaining <= 0:
                    return "max_seconds"
                item = capture.take(min(_POLL_S, remaining))
                if item is None:
                    if capture.ended:
                        return capture.ended
                    continue
                if not self._handle(*item):
                    return "stopped"
                advance(1)
                if info.live:
                    self._note_speed(capture)

    def _handle(self, number: int, captured: CapturedFrame) -> bool:
        """Classify a frame and pass it to the sinks; return False when one ends the stream."""
        prediction, error = None, captured.error
        if captured.frame is not None:
            try:
                prediction = self.predictor.predict(captured.frame)
            except EdgemlError as err:
                error = str(err)
        latency_ms = (time.perf_counter() - captured.t) * 1000
        if prediction is not None:
            self.done += 1
            self.latencies.add(latency_ms)
        else:
            self.errors += 1
            if self.errors <= _ERRORS_NOTED:
                self.progress.note(f"frame {number}: {error or 'no prediction'}")
            if self.errors == _ERRORS_NOTED:
                self.progress.note(
                    "Further errors are only counted; the log of --out has them all."
                )
        result = FrameResult(
            frame_id=number,
            t_capture=max(captured.t - self.start, 0.0),
            latency_ms=latency_ms,
            dropped=number - self.next_id,
            frame=captured.frame,
            prediction=prediction,
            error=error,
            name=captured.name,
            t_media=captured.t_media,
        )
        self.next_id = number + 1
        continues = [sink.write(result) for sink in self.sinks]  # all sinks get the result
        return all(continues)

    def _note_speed(self, capture: Capture) -> None:
        now = time.perf_counter() - self.start
        if now - self.last_note < _SECONDS_BETWEEN_NOTES:
            return
        self.last_note = now
        p95 = self.latencies.percentile(0.95) or math.nan
        self.progress.note(
            f"{now:.0f} s: {self.done} frames, {self.done / now:.1f}/s, "
            f"{capture.dropped} dropped, {self.errors} errors, p95 {p95:.1f} ms"
        )
