"""Have the C library keep freed memory for the next image or training step.

glibc returns freed blocks of 128 kB and more to the system and requests them again page by page.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np

# Options of mallopt(3) in glibc, and their defaults.
_M_TRIM_THRESHOLD, _TRIM_THRESHOLD = -1, 128 * 1024
_M_MMAP_MAX, _MMAP_MAX = -4, 65536
_NEVER = 2**31 - 1


def raise_mmap_threshold() -> None:
    """Keep the memory of an image for the next one.

    Of 7 ms for a JPEG of 1080p, 2 ms were page faults. glibc keeps blocks as large as the largest
    that it has freed, up to 32 MB (mallopt(3), M_MMAP_THRESHOLD), so one is allocated and freed,
    untouched. Predictors call this when they open.
    """
    np.empty(31 << 20, np.uint8)


@contextmanager
def kept_memory() -> Iterator[None]:
    """Keep freed memory in the process inside this block; has an effect with glibc only.

    On a CPU, page faults are a quarter of the time of training a MobileNetV2 (benchmarks/training).
    """
    library = ctypes.CDLL(None) if sys.platform.startswith("linux") else None
    # musl has no mallopt, or one that does nothing.
    if library is None or not hasattr(library, "gnu_get_libc_version"):
        yield
        return
    mallopt = library.mallopt
    mallopt(_M_MMAP_MAX, 0)
    mallopt(_M_TRIM_THRESHOLD, _NEVER)
    try:
        yield
    finally:
        mallopt(_M_MMAP_MAX, _MMAP_MAX)
        mallopt(_M_TRIM_THRESHOLD, _TRIM_THRESHOLD)
