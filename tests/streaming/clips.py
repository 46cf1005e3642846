"""Sources for the tests: short videos, and a camera made from a list of frames."""

from __future__ import annotations

import threading
import time
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from edgeml.image.frame import Frame
from edgeml.streaming.sources import CapturedFrame, Kind, SourceInfo

COLOURS = {"red": (0, 0, 220), "green": (0, 220, 0), "blue": (220, 0, 0)}


def plain(colour: str, size: tuple[int, int] = (48, 64)) -> Frame:
    frame: Frame = np.empty((*size, 3), np.uint8)
    frame[:] = COLOURS[colour]
    return frame


def make_clip(path: Path, frames: Sequence[Frame], fps: float = 25.0) -> Path:
    """Write a video, .mp4 or .avi."""
    codec = {".mp4": "mp4v", ".avi": "MJPG"}[path.suffix]
    height, width = frames[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*codec), fps, (width, height))
    assert writer.isOpened()
    for frame in frames:
        writer.write(frame)
    writer.release()
    return path


def frames_of(path: Path) -> list[Frame]:
    capture = cv2.VideoCapture(str(path))
    frames = []
    while True:
        ok, frame = capture.read()
        if not ok:
            capture.release()
            return frames
        frames.append(frame)


class FakeCamera:
    """A live source that yields frames at a rate and then breaks off.

    Args:
        frames: The frames.
        period_s: Time between two frames.
        live: Whether frames may be dropped.
        hang: After the frames, block in `read` until `released` is set.
        failure: Raised by `read` after the frames.
    """

    kind: Kind = "camera"
    name = "fake camera"

    def __init__(
        self,
        frames: Sequence[Frame],
        *,
        period_s: float = 0.01,
        live: bool = True,
        hang: bool = False,
        failure: Exception | None = None,
    ) -> None:
        self.timeout_s = 0.3
        self.threads: set[str] = set()
        self.closed = 0
        self.released = threading.Event()
        self._frames = list(frames)
        self._period_s = period_s
        self._live = live
        self._hang = hang
        self._failure = failure
        self._count = 0

    def open(self) -> SourceInfo:
        self.threads.add(threading.current_thread().name)
        return SourceInfo(live=self._live, fps=1 / self._period_s)

    def read(self) -> CapturedFrame | None:
        self.threads.add(threading.current_thread().name)
        time.sleep(self._period_s)
        if self._count == len(self._frames):
            if self._hang:
                self.released.wait(30)
            if self._failure:
                raise self._failure
            return None
        self._count += 1
        return CapturedFrame(t=time.perf_counter(), frame=self._frames[self._count - 1])

    @property
    def lost(self) -> bool:
        return self._live

    def close(self) -> None:
        self.closed += 1
