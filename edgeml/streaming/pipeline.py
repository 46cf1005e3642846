"""From a source to results: the loop behind `edgeml stream`."""

from __future__ import annotations

import math
import os
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from datetime import datetime
from pathlib import Path

from edgeml.errors import EdgemlError, InputError
from edgeml.predict.predictor import Predictor
from edgeml.progress import SILENT, Progress
from edgeml.streaming.capture import Capture
from edgeml.streaming.results import Ended, FrameResult, Latencies, StreamInfo, StreamSummary
from edgeml.streaming.sinks import Sink, open_sinks
from edgeml.streaming.sources import CapturedFrame, Source, SourceInfo, find_source

# How soon a stop is noticed while no frame comes.
_PATIENCE_S = 0.1

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
    """Classify what comes from a source, frame by frame, until it ends.

    A thread of its own reads the source. This one runs the model and the sinks, and is where
    errors and Ctrl-C arrive; Ctrl-C ends the stream as `stop` does. Of a camera or a live stream
    the newest frame is taken and older ones are dropped, and counted; of a file or folder every
    frame is taken. A frame that cannot be read or classified is counted and reported, and the
    stream goes on.

    Args:
        predictor: The model; it is not closed.
        source: A camera's number, a video, a folder of pictures, an http(s) or rtsp(s) URL, or an
            object with the members of `edgeml.streaming.Source`.
        jsonl: Write a log here, a JSON line for each frame after one for the stream.
        video: Write the frames with their labels here, .mp4 or .avi.
        show: Open a window; without a display the stream goes on without one.
        sinks: More takers of results.
        max_seconds: End after so long, counted from when the source is open.
        stop: End soon after this is set, by another thread or a signal handler.
        progress: Shows how far a file or folder is, and notes on errors and a live stream.

    Raises:
        InputError: No such source, a camera or stream that does not answer, an output that
            cannot be written.
        DataError: A folder without pictures, a file that is no video.
    """
    if max_seconds is not None and not max_seconds > 0:
        raise InputError(f"max_seconds is {max_seconds}; it must be above 0.")
    origin = find_source(source) if isinstance(source, (str, os.PathLike, int)) else source
    with open_sinks(jsonl=jsonl, video=video, show=show, progress=progress) as own:
        loop = _Loop(predictor, origin, [*own, *sinks], max_seconds, stop, progress)
        return loop.run()


class _Loop:
    """One run of a stream: its clock, its counts, and where results go."""

    def __init__(
        self,
        predictor: Predictor,
        source: Source,
        sinks: Sequence[Sink],
        max_seconds: float | None,
        stop: threading.Event | None,
        progress: Progress,
    ) -> None:
        self._predictor = predictor
        self._source = source
        self._sinks = sinks
        self._max_seconds = math.inf if max_seconds is None else max_seconds
        self._stop = stop or threading.Event()
        self._progress = progress
        self._start = time.perf_counter()
        self._done = self._errors = self._next_id = 0
        self._latencies = Latencies()
        self._last_note = 0.0

    def run(self) -> StreamSummary:
        with Capture(self._source) as capture:
            try:
                ended = self._follow(capture)
            except KeyboardInterrupt:
                ended = "stopped"
            seconds = time.perf_counter() - self._start
        if ended == "lost":
            self._progress.note(f"{self._source.name} broke off after {capture.taken} frames.")
        return StreamSummary(
            source=self._source.name,
            kind=self._source.kind,
            frames_in=capture.taken,
            frames_done=self._done,
            # Whatever was taken and came to nothing, that in hand when Ctrl-C was pressed too.
            dropped=capture.taken - self._done - self._errors,
            errors=self._errors,
            seconds=seconds,
            p50_ms=self._latencies.percentile(0.50),
            p95_ms=self._latencies.percentile(0.95),
            p99_ms=self._latencies.percentile(0.99),
            ended=ended,
        )

    def _follow(self, capture: Capture) -> Ended:
        """Take frames until there is a reason not to."""
        while (opened := capture.wait_open(_PATIENCE_S)) is None:
            if self._stop.is_set():
                return "stopped"
        self._start = time.perf_counter()
        info = self._info(opened)
        for sink in self._sinks:
            sink.start(info)
        task = nullcontext(_nothing)
        if opened.count is not None:
            task = self._progress.task(f"stream {self._source.name}", opened.count, "frames")  # type: ignore[assignment]
        with task as advance:
            while True:
                left = self._max_seconds - (time.perf_counter() - self._start)
                if self._stop.is_set():
                    return "stopped"
                if left <= 0:
                    return "max_seconds"
                taken = capture.take(min(_PATIENCE_S, left))
                if taken is None:
                    if capture.ended:
                        return capture.ended
                    continue
                if not self._handle(*taken):
                    return "stopped"
                advance(1)
                if opened.live:
                    self._note_speed(capture)

    def _handle(self, number: int, shot: CapturedFrame) -> bool:
        """Classify a frame and hand it on; False when a sink wants no more."""
        prediction, error = None, shot.error
        if shot.frame is not None:
            try:
                prediction = self._predictor.predict(shot.frame)
            except EdgemlError as err:
                error = str(err)
        latency_ms = (time.perf_counter() - shot.t) * 1000
        if prediction is not None:
            self._done += 1
            self._latencies.add(latency_ms)
        else:
            self._count_error(number, error or "no prediction")
        result = FrameResult(
            frame_id=number,
            t_capture=max(shot.t - self._start, 0.0),
            latency_ms=latency_ms,
            dropped=number - self._next_id,
            frame=shot.frame,
            prediction=prediction,
            error=error,
            name=shot.name,
            t_media=shot.t_media,
        )
        self._next_id = number + 1
        wanted = [sink.write(result) for sink in self._sinks]  # each gets it, whatever others say
        return all(wanted)

    def _info(self, opened: SourceInfo) -> StreamInfo:
        return StreamInfo(
            source=self._source.name,
            kind=self._source.kind,
            live=opened.live,
            fps=opened.fps,
            started=datetime.now().astimezone().isoformat(timespec="milliseconds"),
            labels=self._predictor.spec.labels,
            runtime=self._predictor.runtime.name,
        )

    def _count_error(self, number: int, error: str) -> None:
        self._errors += 1
        if self._errors <= _ERRORS_NOTED:
            self._progress.note(f"frame {number}: {error}")
        if self._errors == _ERRORS_NOTED:
            self._progress.note("Further errors are only counted; --out has them all.")

    def _note_speed(self, capture: Capture) -> None:
        now = time.perf_counter() - self._start
        if now - self._last_note < _SECONDS_BETWEEN_NOTES:
            return
        self._last_note = now
        p95 = self._latencies.percentile(0.95) or math.nan
        self._progress.note(
            f"{now:.0f} s: {self._done} frames, {self._done / now:.1f}/s, "
            f"{capture.dropped} dropped, {self._errors} errors, p95 {p95:.1f} ms"
        )


_nothing: Callable[[int], None] = lambda count: None  # noqa: E731
