"""Receivers of results: a JSON-lines log, a video, a window."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Protocol

import cv2

from edgeml.errors import InputError
from edgeml.files import staged, staging
from edgeml.image.frame import Frame
from edgeml.image.preprocess import Preprocess
from edgeml.image.quiet import quiet_opencv
from edgeml.predict.overlay import draw
from edgeml.progress import SILENT, Progress
from edgeml.streaming.results import FrameResult, StreamInfo

_CODECS = {".mp4": "mp4v", ".avi": "MJPG"}
_LONGEST_SIDE = 1920
_DEFAULT_FPS = 25.0


class Sink(Protocol):
    """Receives results, in the thread that called `run_stream`."""

    def start(self, info: StreamInfo) -> None:
        """Receive what is the same for all frames. Called once, before the first result."""
        ...

    def write(self, result: FrameResult) -> bool:
        """Receive a result; return False to end the stream."""
        ...


@contextmanager
def open_sinks(
    *,
    jsonl: Path | None = None,
    video: Path | None = None,
    show: bool = False,
    progress: Progress = SILENT,
) -> Iterator[list[Sink]]:
    """Open the sinks that the arguments name; close them at the end of the block."""
    with ExitStack() as stack:
        sinks: list[Sink] = []
        if jsonl is not None:
            sinks.append(stack.enter_context(jsonl_sink(jsonl)))
        if video is not None:
            sinks.append(stack.enter_context(video_sink(video)))
        if show and (reason := window_problem()):
            progress.note(f"No window: {reason}. The stream continues without one.")
        elif show:
            sinks.append(stack.enter_context(window_sink("edgeml")))
        yield sinks


class JsonlSink:
    """Writes a line for the stream, then one for each frame."""

    def __init__(self, file: IO[str]) -> None:
        self._file = file

    def start(self, info: StreamInfo) -> None:
        self._line(info.to_dict())

    def write(self, result: FrameResult) -> bool:
        """Write a line, and flush it before the next frame."""
        self._line(result.to_dict())
        return True

    def _line(self, data: dict[str, object]) -> None:
        try:
            self._file.write(json.dumps(data, ensure_ascii=False) + "\n")
            self._file.flush()
        except OSError as err:
            raise InputError(f"Cannot write {self._file.name!r}: {err.strerror}.") from err


@contextmanager
def jsonl_sink(path: Path) -> Iterator[JsonlSink]:
    """Open a JSON-lines log, replacing an older one.

    Unlike all other files it has its final name from the beginning: a log is read while it grows,
    is complete after each line, and matters most when its writer was killed.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open(path, "w", encoding="utf-8", newline="\n")  # noqa: SIM115 - closed below
    except OSError as err:
        raise InputError(f"Cannot write {str(path)!r}: {err.strerror}.") from err
    with file:
        yield JsonlSink(file)


class VideoSink:
    """Writes frames with their labels drawn on."""

    def __init__(self, path: Path) -> None:
        self.written = 0
        self._path = path
        self._writer: cv2.VideoWriter | None = None
        self._fit = Preprocess(size=(2, 2))
        self._fps = _DEFAULT_FPS
        self._live = False

    def start(self, info: StreamInfo) -> None:
        self._fps = info.fps or _DEFAULT_FPS
        self._live = info.live

    def write(self, result: FrameResult) -> bool:
        """Write a frame; for a live source, repeat it until its time is reached.

        A live source drops frames, and without them the video would run too fast.
        """
        if result.frame is None:
            return True
        frame = draw(result.frame, result.prediction) if result.prediction else result.frame
        if self._writer is None:
            self._writer = self._open(frame)
        if frame.shape[:2] != self._fit.size:  # images of a folder differ, and sides may be odd
            frame = self._fit.fit(frame)
        due = int(result.t_capture * self._fps) + 1 if self._live else self.written + 1
        while self.written < due:
            self._writer.write(frame)
            self.written += 1
        return True

    def release(self) -> None:
        if self._writer is not None:
            self._writer.release()
            self._writer = None

    def _open(self, frame: Frame) -> cv2.VideoWriter:
        # Even sides, at most 1920: every codec accepts these.
        scale = min(1.0, _LONGEST_SIDE / max(frame.shape[:2]))
        height, width = (max(int(side * scale) // 2 * 2, 2) for side in frame.shape[:2])
        self._fit = Preprocess(size=(height, width), resize="letterbox", pad=0)
        codec = cv2.VideoWriter.fourcc(*_CODECS[self._path.suffix.lower()])
        with quiet_opencv():
            writer = cv2.VideoWriter(str(self._path), codec, self._fps, (width, height))
        if not writer.isOpened():
            raise InputError(
                f"OpenCV has no encoder here for {self._path.suffix} videos of {width} x {height}."
            )
        return writer


@contextmanager
def video_sink(path: Path) -> Iterator[VideoSink]:
    """Open a video, .mp4 (MPEG-4) or .avi (motion JPEG); its file appears when the block ends.

    Without any frame no file is written.
    """
    if path.suffix.lower() not in _CODECS:
        raise InputError(f"Cannot write a video as {path.name!r}: name it .mp4 or .avi.")
    with staging(path) as folder:
        sink = VideoSink(folder / f"video{path.suffix}")
        try:
            yield sink
            sink.release()
            if sink.written:
                with staged(path) as temporary:
                    os.replace(folder / f"video{path.suffix}", temporary)
        finally:
            sink.release()


class WindowSink:
    """Shows frames with their labels; q, Esc or closing the window ends the stream."""

    def __init__(self, title: str) -> None:
        self._title = title

    def start(self, info: StreamInfo) -> None:
        """Open the window; small frames are shown larger."""
        cv2.namedWindow(self._title, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO)

    def write(self, result: FrameResult) -> bool:
        if result.frame is None:
            return True
        try:
            if cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) < 1:
                return False
            frame = draw(result.frame, result.prediction) if result.prediction else result.frame
            cv2.imshow(self._title, frame)
            return cv2.waitKey(1) & 0xFF not in (ord("q"), 27)
        except cv2.error:
            return False  # the window is gone


@contextmanager
def window_sink(title: str) -> Iterator[WindowSink]:
    """Open a window, in the main thread; check `window_problem` first."""
    try:
        yield WindowSink(title)
    finally:
        with quiet_opencv():
            cv2.destroyAllWindows()


def window_problem() -> str | None:
    """Return why no window can be opened here; None if one can.

    Qt, which OpenCV's wheels use, ends the process when there is no display, or one that does not
    answer. So a child process tries first.
    """
    display = os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if sys.platform.startswith("linux") and not display:
        return "there is no display (DISPLAY is not set)"
    code = "import cv2, numpy; cv2.imshow('edgeml', numpy.zeros((9, 9, 3), 'u1')); cv2.waitKey(1)"
    try:
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return "the display does not answer"
    return None if done.returncode == 0 else "OpenCV cannot open one on this display"
