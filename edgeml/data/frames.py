"""Images decoded once: uint8 frames of one size, memory-mapped, and stored for the next run."""

from __future__ import annotations

import hashlib
import math
import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeml.data.framestore import FrameStore, free_bytes, report_no_cache
from edgeml.errors import DataError, ImageError, InputError
from edgeml.image.frame import Frame
from edgeml.image.preprocess import Preprocess
from edgeml.image.reading import decode_image, read_file, read_image
from edgeml.ordered import ordered_map, usable_cpus
from edgeml.progress import Advance

ImagesOfSide = tuple[Sequence[Path], Preprocess]
"""Paths of images, and how these become frames."""

# The frames decoded between two writes to a store: the most that a killed run loses.
_CHUNK_BYTES = 1 << 25
_CHUNK_IMAGES = 256


@dataclass(frozen=True, eq=False)
class Frames:
    """Frames of images in their order, read from disk when they are indexed."""

    stored: NDArray[np.uint8]  # (M, H, W, 3) BGR, memory-mapped; may contain other images
    rows: NDArray[np.intp]  # (N,) the row of each image's frame in `stored`; -1: unreadable

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, indices: slice | NDArray[np.integer]) -> NDArray[np.uint8]:
        """Copy some frames to memory: (n, H, W, 3) uint8 BGR."""
        frames: NDArray[np.uint8] = self.stored[self.rows[indices]]
        return frames


@contextmanager
def decoded_frames(
    sides: Sequence[ImagesOfSide],
    *,
    threads: int | None,
    advance: Advance,
    cache: Path | None = None,
    hashes: Sequence[Sequence[str]] | None = None,
) -> Iterator[list[Frames]]:
    """Decode and fit images once, on several threads; yield the frames of each side.

    The frames are the result of `preprocess.fit` for images read as `Predictor` reads them.

    Args:
        sides: The images of each side.
        threads: None uses as many as there are processors.
        advance: Called with the number of images that are done.
        cache: A folder that stores frames: those it has are used, and those it lacks are added.
            If it cannot be used, that is reported once, and all images are decoded. None uses
            temporary files, or memory where these have no room.
        hashes: The SHA-256 of each image file, as returned by `Dataset.hashes`. Only used with a
            cache; None reads every file once more.

    Raises:
        DataError: Images cannot be read; says how many, and names some.
        InputError: There is no room for the frames.
    """
    decoded = frames_and_faults(sides, threads=threads, advance=advance, cache=cache, hashes=hashes)
    with decoded as (frames, faults):
        if faults:
            total = sum(len(paths) for paths, _ in sides)
            others = ", ".join(repr(str(path)) for path in list(faults)[1:4])
            also = f" Also: {others}." if others else ""
            first = next(iter(faults.values()))
            raise DataError(
                f"{len(faults)} of {total} images cannot be used. {first}{also} Fix or remove them."
            )
        yield frames


@contextmanager
def frames_and_faults(
    sides: Sequence[ImagesOfSide],
    *,
    threads: int | None,
    advance: Advance,
    cache: Path | None = None,
    hashes: Sequence[Sequence[str]] | None = None,
) -> Iterator[tuple[list[Frames], dict[Path, str]]]:
    """Decode like `decoded_frames`, but yield the reason for each image that cannot be read."""
    workers = threads or usable_cpus()
    with ExitStack() as stack:
        found = None
        if cache is not None:
            hashes = hashes or [content_hashes(paths, workers) for paths, _ in sides]
            try:
                found = _cached(sides, hashes, cache, workers, advance)
            except (InputError, OSError) as err:
                report_no_cache(cache, err)
        yield found or _temporary(sides, workers, advance, stack)


def content_hashes(paths: Sequence[Path], threads: int | None = None) -> list[str]:
    """Return the SHA-256 of each file's bytes; an empty text if the file cannot be read."""
    return list(ordered_map(_content_hash, paths, workers=threads or usable_cpus()))


def _temporary(
    sides: Sequence[ImagesOfSide], workers: int, advance: Advance, stack: ExitStack
) -> tuple[list[Frames], dict[Path, str]]:
    """Decode into temporary files, which the system keeps in memory while there is room."""
    shapes = [(len(paths), *preprocess.size, 3) for paths, preprocess in sides]
    on_disk = _fit_on_disk(sum(map(math.prod, shapes)))
    frames, faults = [], {}
    for (paths, preprocess), shape in zip(sides, shapes, strict=True):
        stored = stack.enter_context(_mapped(shape)) if on_disk else np.empty(shape, np.uint8)
        rows = np.arange(len(paths))
        targets = zip(paths, stored, strict=True)
        results = ordered_map(partial(_decode_into, preprocess), targets, workers=workers)
        for row, fault in enumerate(results):
            advance(1)
            if fault:
                faults[paths[row]] = fault
                rows[row] = -1
        frames.append(Frames(stored, rows))
    return frames, faults


def _cached(
    sides: Sequence[ImagesOfSide],
    hashes: Sequence[Sequence[str]],
    cache: Path,
    workers: int,
    advance: Advance,
) -> tuple[list[Frames], dict[Path, str]]:
    """Read frames from their stores, after adding those that are missing.

    Raises InputError or OSError if the folder cannot be used.
    """
    stores = [FrameStore(cache, preprocess) for _, preprocess in sides]
    missing: list[dict[str, Path]] = []
    needed = 0
    for (paths, preprocess), store, contents in zip(sides, stores, hashes, strict=True):
        stored = store.rows(contents, store.mapped(), workers)
        pairs = zip(contents, paths, strict=True)
        images = {content: path for content, path in pairs if content and content not in stored}
        missing.append(images)
        needed += len(images) * math.prod(preprocess.size) * 3
    if needed and needed > (free := free_bytes(cache)):
        raise InputError(
            f"{str(cache)!r} has {free / 1e6:.0f} MB free, and they take {needed / 1e6:.0f} MB. "
            "Make room (edgeml data cache --clear), or set EDGEML_CACHE to a larger disk."
        )
    for store, images in zip(stores, missing, strict=True):
        if images:
            store.append({})  # before the work, to learn whether it can be kept
    for (paths, _), images in zip(sides, missing, strict=True):
        advance(len(paths) - len(images))
    frames: list[Frames] = []
    faults: dict[Path, str] = {}
    work = zip(sides, stores, hashes, missing, strict=True)
    for (paths, preprocess), store, contents, images in work:
        _add_to(store, images, preprocess, workers, advance)
        mapped = store.mapped()
        row_of = store.rows(contents, mapped, workers)
        rows = np.array([row_of.get(content, -1) for content in contents], np.intp)
        bad = dict.fromkeys(path for path, row in zip(paths, rows, strict=True) if row < 0)
        faults |= {path: _fault_of(path, preprocess) for path in bad}
        frames.append(Frames(mapped, rows))
    return frames, faults


def _add_to(
    store: FrameStore,
    images: dict[str, Path],
    preprocess: Preprocess,
    workers: int,
    advance: Advance,
) -> None:
    """Decode images, and write their frames to a store in chunks."""
    size = max(1, min(_CHUNK_IMAGES, _CHUNK_BYTES // (math.prod(preprocess.size) * 3)))
    chunk: dict[str, Frame] = {}
    results = ordered_map(partial(_frame_of, preprocess), images.items(), workers=workers)
    for content, frame in zip(images, results, strict=True):
        advance(1)
        if frame is not None:
            chunk[content] = frame
        if len(chunk) == size:
            store.append(chunk)
            chunk = {}
    if chunk:
        store.append(chunk)


def _decode_into(preprocess: Preprocess, target: tuple[Path, Frame]) -> str | None:
    path, frame = target
    try:
        frame[:] = preprocess.fit(read_image(path, at_least=preprocess.min_decode_size))
    except ImageError as err:
        return str(err)
    return None


def _frame_of(preprocess: Preprocess, image: tuple[str, Path]) -> Frame | None:
    """Return the frame of a file; None if it cannot be read or its content changed."""
    content, path = image
    try:
        data = read_file(path)
        if hashlib.sha256(data).hexdigest() != content:
            return None
        return preprocess.fit(decode_image(data, str(path), at_least=preprocess.min_decode_size))
    except ImageError:
        return None


def _content_hash(path: Path) -> str:
    try:
        return hashlib.sha256(read_file(path)).hexdigest()
    except ImageError:
        return ""


def _fault_of(path: Path, preprocess: Preprocess) -> str:
    """Return why a store has no frame of a file."""
    try:
        read_image(path, at_least=preprocess.min_decode_size)
    except ImageError as err:
        return str(err)
    return f"The image {str(path)!r} changed while it was read. Start again."


def _fit_on_disk(size: int) -> bool:
    """Return whether temporary files have room; if not, memory must.

    Writing to a mapped file on a full disk kills the process.

    Raises InputError if neither has.
    """
    where, free = "no folder for temporary files", 0
    with suppress(OSError):
        folder = tempfile.gettempdir()  # none, if nothing on this machine can be written to
        where, free = repr(folder), free_bytes(Path(folder))
    if size <= free:
        return True
    memory = 0
    with suppress(AttributeError, ValueError, OSError):  # Windows has no sysconf
        memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    if size <= memory // 2:
        return False
    raise InputError(
        f"The decoded images take {size / 1e6:.0f} MB; {where} has {free / 1e6:.0f} MB free. "
        "Set TMPDIR to a larger disk, or train with a smaller --size."
    )


@contextmanager
def _mapped(shape: tuple[int, ...]) -> Iterator[NDArray[np.uint8]]:
    """Yield an array of a temporary file; in memory if there cannot be one."""
    with ExitStack() as stack:
        frames = np.empty((0, *shape[1:]), np.uint8)
        if shape[0]:  # an empty file cannot be mapped
            with suppress(OSError):
                # Unbuffered: what a full disk refuses would be written again on closing.
                file = stack.enter_context(
                    tempfile.TemporaryFile(buffering=0, prefix="edgeml-frames-")
                )
                frames = np.memmap(file, np.uint8, "w+", shape=shape).view(np.ndarray)
        yield frames if len(frames) == shape[0] else np.empty(shape, np.uint8)
