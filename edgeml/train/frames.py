"""Pictures decoded once: uint8 frames of one size, in a temporary file that is mapped to memory."""

from __future__ import annotations

import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import DataError, ImageError, InputError
from edgeml.images import read_image
from edgeml.preprocess import Preprocess
from edgeml.progress import Advance

Frames = NDArray[np.uint8]
"""(N, H, W, 3) uint8, BGR."""


@contextmanager
def decoded_frames(
    sides: Sequence[tuple[Sequence[Path], Preprocess]],
    *,
    threads: int | None,
    advance: Advance,
) -> Iterator[list[Frames]]:
    """Decode and fit pictures once, on several threads; give (N, H, W, 3) uint8 BGR for each side.

    The frames are what `preprocess.fit` makes of the pictures as `Predictor` reads them. They
    lie in temporary files, which the system keeps in memory as far as there is room.

    Args:
        sides: Paths of pictures, and how these become frames.
        threads: How many; None takes as many as there are cores.
        advance: Called with 1 for each picture.

    Raises:
        DataError: Pictures cannot be read; says how many, and names some.
        InputError: There is no room for the frames.
    """
    shapes = [(len(paths), *preprocess.size, 3) for paths, preprocess in sides]
    _check_room(sum(math.prod(shape) for shape in shapes))
    with ExitStack() as stack, ThreadPoolExecutor(threads or os.cpu_count()) as pool:
        frames, faults = [stack.enter_context(_mapped(shape)) for shape in shapes], []
        for (paths, preprocess), store in zip(sides, frames, strict=True):
            for fault in pool.map(partial(_decode, preprocess=preprocess), paths, store):
                advance(1)
                if fault:
                    faults.append(fault)
        if faults:
            total = sum(len(paths) for paths, _ in sides)
            others = ", ".join(repr(str(path)) for path, _ in faults[1:4])
            raise DataError(
                f"{len(faults)} of {total} pictures cannot be used. {faults[0][1]}"
                + (f" Also: {others}." if others else "")
                + " Mend or remove what cannot be read."
            )
        yield frames


def _decode(path: Path, into: Frames, preprocess: Preprocess) -> tuple[Path, str] | None:
    try:
        into[:] = preprocess.fit(read_image(path, at_least=preprocess.whole))
    except ImageError as err:
        return path, str(err)
    return None


@contextmanager
def _mapped(shape: tuple[int, ...]) -> Iterator[Frames]:
    if not shape[0]:
        yield np.empty(shape, np.uint8)  # an empty file cannot be mapped
        return
    with tempfile.TemporaryFile(prefix="edgeml-frames-") as file:
        yield np.memmap(file, np.uint8, "w+", shape=shape)


def _check_room(size: int) -> None:
    """Refuse what does not fit: writing to a mapped file on a full disk kills the process."""
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if size > free:
        raise InputError(
            f"The decoded pictures take {size / 1e9:.1f} GB; {folder!r} has {free / 1e9:.1f} GB "
            "free. Set TMPDIR to a larger disk, or train with a smaller --size."
        )
