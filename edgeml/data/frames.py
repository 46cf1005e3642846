"""Pictures decoded once: uint8 frames of one size, mapped to memory, kept for the next run."""

from __future__ import annotations

import hashlib
import math
import os
import random
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeml.data.framestore import FrameStore, check_room
from edgeml.errors import DataError, ImageError
from edgeml.image.frame import Frame
from edgeml.image.preprocess import Preprocess
from edgeml.image.reading import decode_image, read_file, read_image
from edgeml.progress import Advance

Pictures = tuple[Sequence[Path], Preprocess]
"""Paths, and how these become frames."""

# What is decoded between two commits to a store: so much is lost at most when a run is killed.
_CHUNK_BYTES = 1 << 25
_CHUNK_PICTURES = 256


@dataclass(frozen=True, eq=False)
class Frames:
    """Frames of pictures in their order, read when they are asked for.

    Attributes:
        stored: (M, H, W, 3) uint8 BGR, mapped to memory; others' frames may be among them.
        rows: (N,) where each picture's frame is in `stored`; -1 if it could not be read.
    """

    stored: NDArray[np.uint8]
    rows: NDArray[np.intp]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, indices: slice | NDArray[np.integer]) -> NDArray[np.uint8]:
        """Copy some frames to memory: (n, H, W, 3) uint8 BGR."""
        frames: NDArray[np.uint8] = self.stored[self.rows[indices]]
        return frames


@contextmanager
def decoded_frames(
    sides: Sequence[Pictures],
    *,
    threads: int | None,
    advance: Advance,
    cache: Path | None = None,
    hashes: Sequence[Sequence[str]] | None = None,
) -> Iterator[list[Frames]]:
    """Decode and fit pictures once, on several threads; give the frames of each side.

    The frames are what `preprocess.fit` makes of the pictures as `Predictor` reads them.

    Args:
        sides: Paths of pictures, and how these become frames.
        threads: How many; None takes as many as there are cores.
        advance: Called with numbers of pictures that are done.
        cache: A folder whose frames are used, and which gets what it lacks. None keeps frames
            in a temporary file.
        hashes: The SHA-256 of each picture's file, as `Dataset.hashes` gives them; for the
            cache, which reads every file once more without.

    Raises:
        DataError: Pictures cannot be read; says how many, and names some.
        InputError: There is no room for the frames.
    """
    with frames_and_faults(sides, threads=threads, advance=advance, cache=cache, hashes=hashes) as (
        frames,
        faults,
    ):
        if faults:
            total = sum(len(paths) for paths, _ in sides)
            others = ", ".join(repr(str(path)) for path in list(faults)[1:4])
            raise DataError(
                f"{len(faults)} of {total} pictures cannot be used. {next(iter(faults.values()))}"
                + (f" Also: {others}." if others else "")
                + " Mend or remove what cannot be read."
            )
        yield frames


@contextmanager
def frames_and_faults(
    sides: Sequence[Pictures],
    *,
    threads: int | None,
    advance: Advance,
    cache: Path | None = None,
    hashes: Sequence[Sequence[str]] | None = None,
) -> Iterator[tuple[list[Frames], dict[Path, str]]]:
    """Decode as `decoded_frames` does, but give what cannot be read with the reason for it."""
    with ExitStack() as stack, ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        if cache is None:
            made = _temporary(sides, pool, advance, stack)
        else:
            made = _cached(sides, pool, advance, cache, hashes)
        yield made


def content_hashes(paths: Sequence[Path], threads: int | None = None) -> list[str]:
    """Give the SHA-256 of each file's bytes; of one that cannot be read, an empty text."""
    with ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        return _contents(paths, pool)


def _temporary(
    sides: Sequence[Pictures], pool: Executor, advance: Advance, stack: ExitStack
) -> tuple[list[Frames], dict[Path, str]]:
    """Decode into temporary files, which the system keeps in memory as far as there is room."""
    shapes = [(len(paths), *preprocess.size, 3) for paths, preprocess in sides]
    # Writing to a mapped file on a full disk kills the process.
    check_room(
        Path(tempfile.gettempdir()),
        sum(map(math.prod, shapes)),
        "Set TMPDIR to a larger disk, or train with a smaller --size.",
    )
    frames, faults = [], {}
    for (paths, preprocess), shape in zip(sides, shapes, strict=True):
        store = stack.enter_context(_mapped(shape))
        rows = np.arange(len(paths))
        for row, fault in enumerate(pool.map(partial(_decode, preprocess), paths, store)):
            advance(1)
            if fault:
                faults[paths[row]] = fault
                rows[row] = -1
        frames.append(Frames(store, rows))
    return frames, faults


def _cached(
    sides: Sequence[Pictures],
    pool: Executor,
    advance: Advance,
    cache: Path,
    hashes: Sequence[Sequence[str]] | None,
) -> tuple[list[Frames], dict[Path, str]]:
    """Take frames from their stores, which first get what they lack."""
    stores = [FrameStore(cache, preprocess) for _, preprocess in sides]
    if hashes is None:
        hashes = [_contents(paths, pool) for paths, _ in sides]
    lacks = []
    for (paths, _), store, contents in zip(sides, stores, hashes, strict=True):
        there = store.rows(contents, store.mapped(), pool)
        lacks.append({c: p for p, c in zip(paths, contents, strict=True) if c and c not in there})
        advance(len(paths) - len(lacks[-1]))
    check_room(
        cache,
        sum(
            len(lack) * math.prod(pre.size) * 3 for lack, (_, pre) in zip(lacks, sides, strict=True)
        ),
        "Make room there (edgeml data cache --clear), or train with a smaller --size.",
    )
    frames: list[Frames] = []
    faults: dict[Path, str] = {}
    for (paths, preprocess), store, contents, lack in zip(
        sides, stores, hashes, lacks, strict=True
    ):
        _fill(store, lack, preprocess, pool, advance)
        stored = store.mapped()
        row_of = store.rows(contents, stored, pool)
        rows = np.array([row_of.get(content, -1) for content in contents], np.intp)
        bad = dict.fromkeys(path for path, row in zip(paths, rows, strict=True) if row < 0)
        faults |= {path: _why(path, preprocess) for path in bad}
        frames.append(Frames(stored, rows))
    return frames, faults


def _fill(
    store: FrameStore,
    lack: dict[str, Path],
    preprocess: Preprocess,
    pool: Executor,
    advance: Advance,
) -> None:
    """Decode what a store lacks, and store it chunk by chunk."""
    size = max(1, min(_CHUNK_PICTURES, _CHUNK_BYTES // (math.prod(preprocess.size) * 3)))
    items = list(lack.items())
    chunks = [items[first : first + size] for first in range(0, len(items), size)]
    # Processes that fill one store at once then share the work, instead of all doing the same.
    random.SystemRandom().shuffle(chunks)
    for chunk in chunks:
        made = {}
        for (content, _), frame in zip(
            chunk, pool.map(partial(_frame_of, preprocess), chunk), strict=True
        ):
            advance(1)
            if frame is not None:
                made[content] = frame
        store.append(made)


def _decode(preprocess: Preprocess, path: Path, into: Frame) -> str | None:
    try:
        into[:] = preprocess.fit(read_image(path, at_least=preprocess.whole))
    except ImageError as err:
        return str(err)
    return None


def _frame_of(preprocess: Preprocess, picture: tuple[str, Path]) -> Frame | None:
    """Make the frame of a file, if it can be read and still has the content it had."""
    content, path = picture
    try:
        data = read_file(path)
        if hashlib.sha256(data).hexdigest() != content:
            return None
        return preprocess.fit(decode_image(data, str(path), at_least=preprocess.whole))
    except ImageError:
        return None


def _contents(paths: Sequence[Path], pool: Executor) -> list[str]:
    return list(pool.map(_content, paths))


def _content(path: Path) -> str:
    try:
        return hashlib.sha256(read_file(path)).hexdigest()
    except ImageError:
        return ""


def _why(path: Path, preprocess: Preprocess) -> str:
    """Say why a store has no frame of a file."""
    try:
        read_image(path, at_least=preprocess.whole)
    except ImageError as err:
        return str(err)
    return f"The image {str(path)!r} changed while it was read. Start again."


@contextmanager
def _mapped(shape: tuple[int, ...]) -> Iterator[NDArray[np.uint8]]:
    if not shape[0]:
        yield np.empty(shape, np.uint8)  # an empty file cannot be mapped
        return
    with tempfile.TemporaryFile(prefix="edgeml-frames-") as file:
        yield np.memmap(file, np.uint8, "w+", shape=shape).view(np.ndarray)
