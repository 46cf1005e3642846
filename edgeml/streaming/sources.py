"""Where frames come from: a camera, a video file, a folder of images, a network stream."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol, cast

import cv2

from edgeml.errors import DataError, ImageError, InputError
from edgeml.image.file_kinds import is_any_image
from edgeml.image.frame import Frame
from edgeml.image.quiet import quiet_opencv
from edgeml.image.reading import read_image
from edgeml.image.unread import FORMATS

Kind = Literal["camera", "video", "folder", "url"]

OPEN_TIMEOUT_S = 5.0
READ_TIMEOUT_S = 5.0
"""OpenCV's own limits are 30 seconds, too long to notice that a stream is dead."""

_SCHEMES = ("http", "https", "rtsp", "rtsps")


@dataclass(frozen=True, eq=False, kw_only=True)
class CapturedFrame:
    """One frame from a source, or the reason why there is none.

    Attributes:
        t: `time.perf_counter()` right after the capture, in seconds.
        frame: (H, W, 3) uint8 BGR.
        name: The image file, for a folder.
        t_media: Seconds from the beginning of the video.
        error: Why `frame` is None.
    """

    t: float
    frame: Frame | None
    name: str | None = None
    t_media: float | None = None
    error: str | None = None


@dataclass(frozen=True, kw_only=True)
class SourceInfo:
    """What is known about a source once it is open.

    Attributes:
        live: Whether it does not wait: a frame that is not taken in time is lost.
        fps: Frames per second, as the source reports.
        count: The number of frames, as the source reports.
    """

    live: bool
    fps: float | None = None
    count: int | None = None


class Source(Protocol):
    """Produces frames, one by one. Only the capture thread uses it, from `open` on."""

    kind: Kind
    name: str
    """For messages: without credentials."""

    timeout_s: float
    """The longest that `open` or `read` may take."""

    def open(self) -> SourceInfo:
        """Open the source, or raise an EdgemlError with the reason."""
        ...

    def read(self) -> CapturedFrame | None:
        """Wait for the next frame; return None at the end."""
        ...

    @property
    def lost(self) -> bool:
        """After the end: whether the source broke off."""
        ...

    def close(self) -> None:
        """Release the source. May be called twice."""
        ...


def find_source(source: str | os.PathLike[str] | int) -> Source:
    """Return the source for digits (a camera), `scheme://` (a stream), or a file or folder."""
    text = os.fspath(source) if not isinstance(source, int) else str(source)
    if text.isascii() and text.isdigit():
        return VideoSource(int(text), kind="camera", name=f"camera {int(text)}")
    if match := re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", text):
        if match[1].lower() not in _SCHEMES:
            known = ", ".join(_SCHEMES)
            raise InputError(f"{match[1]!r} addresses are not supported; known are {known}.")
        return VideoSource(text, kind="url", name=without_credentials(text))
    path = Path(text)
    try:
        path.stat()
    except (OSError, ValueError) as err:  # ValueError: a NUL in the name
        raise InputError(
            f"There is no source {text!r}: pass a camera's number, a video, a folder or a URL."
        ) from err
    if path.is_dir() or is_any_image(path):
        return FolderSource(path)
    return VideoSource(text, kind="video", name=text)


def without_credentials(url: str) -> str:
    """Hide the secrets that a URL may contain: user, password, and its query."""
    scheme, _, rest = url.partition("://")
    # A password may contain "@" or "/", so everything up to the last "@" is hidden.
    before, at, shown = rest.rpartition("@")
    if "?" in before or "#" in before:
        return f"{scheme}://***"  # the end of the secrets is unknown
    return f"{scheme}://{at and '***@'}" + re.sub(r"[?#].*$", "?***", shown, flags=re.DOTALL)


class VideoSource:
    """A camera, a video file or a stream, through cv2.VideoCapture."""

    def __init__(
        self,
        target: int | str,
        *,
        kind: Kind,
        name: str,
        open_timeout_s: float = OPEN_TIMEOUT_S,
        read_timeout_s: float = READ_TIMEOUT_S,
    ) -> None:
        self.kind: Kind = kind
        self.name = name
        self.timeout_s = max(open_timeout_s, read_timeout_s)
        self._target = target
        self._limits = [
            *(cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, round(open_timeout_s * 1000)),
            *(cv2.CAP_PROP_READ_TIMEOUT_MSEC, round(read_timeout_s * 1000)),
        ]
        self._capture: cv2.VideoCapture | None = None
        self._info = SourceInfo(live=True)
        self._taken = 0

    def open(self) -> SourceInfo:
        """Open it. From a URL that announces its length every frame is read, as from a file.

        Raises:
            InputError: The camera or stream does not answer.
            DataError: The file is not a video.
        """
        # FFmpeg's log may quote the URL with its password. OpenCV reads this only once per process,
        # at the first use of FFmpeg.
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
        with quiet_opencv():
            if self.kind == "url":
                capture = cv2.VideoCapture(str(self._target), cv2.CAP_FFMPEG, self._limits)
            else:
                capture = cv2.VideoCapture(self._target)
        if not capture.isOpened():
            capture.release()
            raise self._open_error()
        self._capture = capture
        fps, count = capture.get(cv2.CAP_PROP_FPS), capture.get(cv2.CAP_PROP_FRAME_COUNT)
        known = self.kind != "camera" and 0 < count < 1e9  # a live stream claims -9.2e18
        self._info = SourceInfo(
            live=self.kind == "camera" or (self.kind == "url" and not known),
            fps=fps if 0 < fps <= 1000 else None,
            count=int(count) if known else None,
        )
        return self._info

    def read(self) -> CapturedFrame | None:
        """Wait for the next frame; return None at the end, or if it does not come in time."""
        capture = self._capture
        if capture is None or not capture.grab():
            return None
        t = time.perf_counter()  # before retrieve, which decodes
        self._taken += 1
        seconds = None
        if self.kind == "video":
            seconds = max(capture.get(cv2.CAP_PROP_POS_MSEC), 0.0) / 1000
        ok, image = capture.retrieve()
        error = None if ok else "the frame cannot be decoded"
        frame = cast("Frame", image) if ok else None
        return CapturedFrame(t=t, frame=frame, t_media=seconds, error=error)

    @property
    def lost(self) -> bool:
        """Whether it broke off: a live source ended, or over a tenth of a video is missing.

        The count in a video's header may be wrong by some frames without any being lost.
        """
        if self._info.live:
            return True
        return self._info.count is not None and self._taken < 0.9 * self._info.count

    def close(self) -> None:
        if self._capture is not None:
            self._capture.release()
            self._capture = None

    def _open_error(self) -> InputError | DataError:
        if self.kind == "camera":
            return InputError(
                f"Cannot open {self.name}: it is absent, in use, or not permitted for this user."
            )
        if self.kind == "url":
            return InputError(
                f"Cannot open {self.name}: it sends no video. "
                "Check the address, the credentials and the network."
            )
        return DataError(
            f"Cannot open {self.name!r}: it is damaged, or not a video that OpenCV reads."
        )


class FolderSource:
    """The images of a folder and of its subfolders, in the order of their names.

    Hidden files are ignored. Images of a format that is not read get an error that names it.
    """

    kind: Kind = "folder"
    timeout_s = READ_TIMEOUT_S
    lost = False

    def __init__(self, path: Path) -> None:
        """List the images under `path`, or use `path` itself if it is an image."""
        self.name = str(path)
        self._root = path if path.is_dir() else path.parent
        self._paths = sorted(
            file
            for file in (_visible_files(path) if path.is_dir() else [path])
            if is_any_image(file)
        )
        if not self._paths:
            raise DataError(f"The folder {self.name!r} has no images ({FORMATS}).")
        self._next = 0

    def open(self) -> SourceInfo:
        return SourceInfo(live=False, count=len(self._paths))

    def read(self) -> CapturedFrame | None:
        """Read the next image; if it cannot be read, the result has the reason."""
        if self._next == len(self._paths):
            return None
        path = self._paths[self._next]
        self._next += 1
        name = path.relative_to(self._root).as_posix()
        frame, error = None, None
        try:
            frame = read_image(path)
        except ImageError as err:
            error = str(err)
        return CapturedFrame(t=time.perf_counter(), frame=frame, name=name, error=error)

    def close(self) -> None:
        """Do nothing: no file stays open."""


def _visible_files(folder: Path) -> Iterator[Path]:
    for path in folder.rglob("*"):
        if not any(part.startswith(".") for part in path.relative_to(folder).parts):
            yield path
