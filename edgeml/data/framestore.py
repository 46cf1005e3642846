"""Frames stored in files for the next run, and found by the bytes of their images."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import shutil
import struct
import zlib
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeml.errors import InputError, MissingDependencyError
from edgeml.files import locked, user_cache
from edgeml.image.frame import Frame
from edgeml.image.preprocess import Preprocess
from edgeml.ordered import ordered_map

logger = logging.getLogger(__name__)

_VERSION = 2
"""To be raised whenever `read_image` or `Preprocess.fit` return other pixels than before."""

_RECORD = struct.Struct("<32sQI")
"""The SHA-256 of an image file, the row of its frame, the frame's CRC-32; then their CRC-32."""

_RECORD_BYTES = _RECORD.size + 4
_SUFFIXES = (".frames", ".index", ".lock")


class _Entry(NamedTuple):
    row: int
    checksum: int


class FrameStore:
    """Frames of one shape in a folder, by the SHA-256 of their image files.

    Two files only grow: `.frames` contains the frames one after the other, `.index` a record for
    each. The order of writes does not matter: a record is valid only if its own checksum and that
    of its frame are right. So entries damaged by a killed process, a full disk or a lost disk cache
    are ignored, and the frames are decoded again. Several processes may add to one store; each
    locks it only while it appends. The settings of `preprocess` that affect the pixels identify
    the store; its folder is created when a frame is stored.
    """

    def __init__(self, folder: Path, preprocess: Preprocess) -> None:
        height, width = preprocess.size
        stem = f"{height}x{width}-{_digest(preprocess)}"
        self._pack, self._index, self._lock = (folder / f"{stem}{end}" for end in _SUFFIXES)
        self._shape = (height, width, 3)
        self._bytes = height * width * 3
        self._entries: dict[str, _Entry] = {}
        self._read_until = 0

    def mapped(self) -> NDArray[np.uint8]:
        """Map all frames to memory: (M, H, W, 3) uint8 BGR, read-only.

        The mapping does not change when the store grows or is cleared.
        """
        try:
            count = self._pack.stat().st_size // self._bytes
        except OSError:
            count = 0
        if count:  # an empty file cannot be mapped
            shape = (count, *self._shape)
            with suppress(OSError):  # another user's, which this one must not read
                return np.memmap(self._pack, np.uint8, "r", shape=shape).view(np.ndarray)
        return np.empty((0, *self._shape), np.uint8)

    def rows(
        self, contents: Collection[str], frames: NDArray[np.uint8], workers: int
    ) -> dict[str, int]:
        """Return the rows of the stored images in `frames`, which `mapped` returned."""
        self._refresh()
        stored = [content for content in dict.fromkeys(contents) if content in self._entries]
        entries = [self._entries[content] for content in stored]
        valid = ordered_map(lambda entry: _is_valid(entry, frames), entries, workers=workers)
        checked = zip(stored, entries, valid, strict=True)
        return {content: entry.row for content, entry, good in checked if good}

    def append(self, frames: Mapping[str, Frame]) -> None:
        """Store frames by content, except those that another process stored in the meantime.

        With no frames at all it only checks that some could be stored.

        Raises:
            InputError: The folder cannot be written to, or is full.
        """
        try:
            with locked(self._lock):
                self._append(frames)
        except OSError as err:
            raise InputError(f"Cannot write {str(self._pack)!r}: {err.strerror}.") from err

    def _append(self, frames: Mapping[str, Frame]) -> None:
        self._refresh()
        stored = self.mapped()
        new = {
            content: np.ascontiguousarray(frame)
            for content, frame in frames.items()
            if content not in self._entries or not _is_valid(self._entries[content], stored)
        }
        with open(self._pack, "ab") as pack, open(self._index, "ab") as index:
            first = _align(pack, self._bytes) // self._bytes
            for frame in new.values():
                pack.write(frame.data)
            pack.flush()
            _align(index, _RECORD_BYTES)
            for row, (content, frame) in enumerate(new.items(), start=first):
                record = _RECORD.pack(bytes.fromhex(content), row, zlib.crc32(frame.data))
                index.write(record + struct.pack("<I", zlib.crc32(record)))

    def _refresh(self) -> None:
        """Read the records added since the last call; the last record of a content counts."""
        try:
            with open(self._index, "rb") as file:
                if file.seek(0, os.SEEK_END) < self._read_until:  # the folder was cleared
                    self._read_until, self._entries = 0, {}
                file.seek(self._read_until)
                data = file.read()
        except OSError:
            self._read_until, self._entries = 0, {}
            return
        complete = len(data) // _RECORD_BYTES * _RECORD_BYTES
        for start in range(0, complete, _RECORD_BYTES):
            record = data[start : start + _RECORD.size]
            (checksum,) = struct.unpack_from("<I", data, start + _RECORD.size)
            if zlib.crc32(record) == checksum:
                content, row, frame_checksum = _RECORD.unpack(record)
                self._entries[content.hex()] = _Entry(row, frame_checksum)
        self._read_until += complete


def default_cache() -> Path:
    """Return the folder for frames in the system's cache folder, which platformdirs finds."""
    return user_cache("frames", extra="train")


def cache_or_none() -> Path | None:
    """Return `default_cache()`; None without platformdirs, or without a home."""
    try:
        return default_cache()
    except MissingDependencyError:
        return None
    except InputError as err:
        report_no_cache(None, err)
        return None


_reported: set[Path | None] = set()


def report_no_cache(folder: Path | None, why: object) -> None:
    """State on stderr that there is no cache; once for each folder, since all steps need it."""
    if folder not in _reported:
        _reported.add(folder)
        logger.warning("Decoded images are not stored for the next run: %s", why)


def cache_size(folder: Path) -> int:
    """Return the size in bytes of the stores in a folder, which need not exist.

    Raises:
        InputError: The folder cannot be read.
    """
    try:
        return sum(path.stat().st_size for path in _files(folder))
    except OSError as err:
        raise InputError(f"Cannot read {str(folder)!r}: {err.strerror}.") from err


def clear_cache(folder: Path) -> int:
    """Remove the stores of frames from a folder, and nothing else; return their size in bytes."""
    freed = cache_size(folder)
    try:
        for path in _files(folder):
            path.unlink(missing_ok=True)
    except OSError as err:
        raise InputError(f"Cannot clear {str(folder)!r}: {err.strerror}.") from err
    return freed


def free_bytes(folder: Path) -> int:
    """Return how many bytes are free where `folder` is or will be."""
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(existing).free


def _digest(preprocess: Preprocess) -> str:
    """Return a digest of what affects the pixels; OpenCV's decoders differ between versions."""
    fit = asdict(preprocess)
    for unused in ("mean", "std", "channels"):
        del fit[unused]
    if preprocess.resize != "crop":
        del fit["crop"]
    if preprocess.resize != "letterbox":
        del fit["pad"]
    text = json.dumps([_VERSION, cv2.__version__, fit], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _is_valid(entry: _Entry, frames: NDArray[np.uint8]) -> bool:
    return entry.row < len(frames) and zlib.crc32(frames[entry.row].data) == entry.checksum


def _align(file: BinaryIO, step: int) -> int:
    """Pad a file whose end was cut, and return its end, a multiple of `step`."""
    end = file.seek(0, os.SEEK_END)
    file.write(b"\0" * (-end % step))
    return end + -end % step


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*") if path.suffix in _SUFFIXES and path.is_file()]
