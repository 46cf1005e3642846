"""Frames that outlive a run: kept in files, found again by the bytes that they were made from."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import struct
import sys
import zlib
from collections.abc import Collection, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import BinaryIO, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from edgeml.errors import InputError, MissingDependencyError
from edgeml.files import user_cache
from edgeml.image.frame import Frame
from edgeml.image.preprocess import Preprocess

_VERSION = 1
"""Raise it whenever `read_image` or `Preprocess.fit` give other pixels than before."""

_RECORD = struct.Struct("<32sQI")
"""The SHA-256 of a picture's file, the row of its frame, the frame's CRC-32; then their CRC-32."""

_RECORD_BYTES = _RECORD.size + 4

_SUFFIXES = (".frames", ".index", ".lock")


class _Entry(NamedTuple):
    row: int
    checksum: int


class FrameStore:
    """Frames of one shape in a folder, by the SHA-256 of the files they were made from.

    Two files only ever grow: `.frames` holds frame after frame, `.index` a record for each. No
    order of writing is relied on: a record is believed only if its own checksum and that of its
    frame are right. What a killed process, a full disk or a lost cache of the disk left behind is
    then passed over and made anew. Processes may fill one store at once; each locks it only while
    it appends.

    Args:
        folder: Made when something is stored.
        preprocess: What decides about the pixels has a store of its own.
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

        It stays as it is when the store grows or is cleared.
        """
        try:
            count = self._pack.stat().st_size // self._bytes
        except OSError:
            count = 0
        if not count:
            return np.empty((0, *self._shape), np.uint8)  # an empty file cannot be mapped
        return np.memmap(self._pack, np.uint8, "r", shape=(count, *self._shape)).view(np.ndarray)

    def rows(
        self, contents: Collection[str], frames: NDArray[np.uint8], pool: Executor
    ) -> dict[str, int]:
        """Find the rows in `frames`, as `mapped` gave them, of those pictures that are there."""
        self._refresh()
        found = {
            content: self._entries[content]
            for content in dict.fromkeys(contents)
            if content in self._entries
        }
        right = pool.map(lambda entry: _is_right(entry, frames), found.values())
        return {
            content: entry.row
            for (content, entry), good in zip(found.items(), right, strict=True)
            if good
        }

    def append(self, made: Mapping[str, Frame]) -> None:
        """Store frames by content; what another process stored meanwhile is left out.

        Raises:
            InputError: The folder cannot be written to, or is full.
        """
        try:
            with _locked(self._lock):
                self._append(made)
        except OSError as err:
            raise InputError(
                f"Cannot keep pictures in {str(self._pack.parent)!r}: {err.strerror}. Make room "
                "there (edgeml data cache --clear), or choose another folder."
            ) from err

    def _append(self, made: Mapping[str, Frame]) -> None:
        self._refresh()
        there = self.mapped()
        new = {
            content: np.ascontiguousarray(frame)
            for content, frame in made.items()
            if content not in self._entries or not _is_right(self._entries[content], there)
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
        """Read the records that were added since the last time; a later one wins."""
        try:
            with open(self._index, "rb") as file:
                if file.seek(0, os.SEEK_END) < self._read_until:  # somebody cleared the folder
                    self._read_until, self._entries = 0, {}
                file.seek(self._read_until)
                data = file.read()
        except OSError:
            self._read_until, self._entries = 0, {}
            return
        whole = len(data) // _RECORD_BYTES * _RECORD_BYTES
        for start in range(0, whole, _RECORD_BYTES):
            record = data[start : start + _RECORD.size]
            (checksum,) = struct.unpack_from("<I", data, start + _RECORD.size)
            if zlib.crc32(record) == checksum:
                content, row, of_frame = _RECORD.unpack(record)
                self._entries[content.hex()] = _Entry(row, of_frame)
        self._read_until += whole


def default_cache() -> Path:
    """Give the folder for frames where this system keeps what can be made anew.

    Raises:
        MissingDependencyError: platformdirs, which knows it, is not installed.
    """
    return user_cache("frames", extra="train")


def usual_cache() -> Path | None:
    """Give the folder that `default_cache` gives; None where platformdirs is not installed."""
    with suppress(MissingDependencyError):
        return default_cache()
    return None


def cache_size(folder: Path) -> int:
    """Give the bytes that stores of frames take in a folder, which need not exist."""
    return sum(path.stat().st_size for path in _files(folder))


def clear_cache(folder: Path) -> int:
    """Remove the stores of frames from a folder, and nothing else; give the bytes it was.

    Raises:
        InputError: A file cannot be removed.
    """
    freed = cache_size(folder)
    try:
        for path in _files(folder):
            path.unlink(missing_ok=True)
    except OSError as err:
        raise InputError(f"Cannot clear {str(folder)!r}: {err.strerror}.") from err
    return freed


def check_room(folder: Path, size: int, advice: str) -> None:
    """Refuse what does not fit on a disk before anything is written.

    Args:
        folder: Where to; it, or one above it, exists.
        size: Bytes.
        advice: What to do about it.

    Raises:
        InputError: There are fewer than `size` bytes free.
    """
    existing = next(path for path in (folder, *folder.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    if size > free:
        raise InputError(
            f"The decoded pictures take {size / 1e9:.1f} GB; {str(folder)!r} has "
            f"{free / 1e9:.1f} GB free. {advice}"
        )


def _digest(preprocess: Preprocess) -> str:
    """Name what decides about a frame's pixels; OpenCV's decoders differ between versions."""
    fit = asdict(preprocess)
    for later in ("mean", "std", "channels"):
        del fit[later]
    if preprocess.resize != "crop":
        del fit["crop"]
    if preprocess.resize != "letterbox":
        del fit["pad"]
    text = json.dumps([_VERSION, cv2.__version__, fit], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _is_right(entry: _Entry, frames: NDArray[np.uint8]) -> bool:
    return entry.row < len(frames) and zlib.crc32(frames[entry.row].data) == entry.checksum


def _align(file: BinaryIO, step: int) -> int:
    """Fill up what was cut short, so that the next thing starts at a multiple of `step`."""
    end = file.seek(0, os.SEEK_END)
    file.write(b"\0" * (-end % step))
    return end + -end % step


def _files(folder: Path) -> list[Path]:
    return [path for path in folder.glob("*") if path.suffix in _SUFFIXES and path.is_file()]


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Keep other processes out for as long as the block takes; the system undoes it at a kill."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "ab") as file:
        if sys.platform == "win32":
            import msvcrt

            file.seek(0)
            msvcrt.locking(file.fileno(), msvcrt.LK_LOCK, 1)
            try:
                yield
            finally:
                file.seek(0)
                msvcrt.locking(file.fileno(), msvcrt.LK_UNLCK, 1)
        else:
            import fcntl

            fcntl.flock(file, fcntl.LOCK_EX)
            yield
