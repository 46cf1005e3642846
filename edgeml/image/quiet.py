"""Keep OpenCV's own lines off stderr while edgeml reports the same as an error."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from cv2.utils import logging as opencv_log

_lock = threading.Lock()
_depth = 0
_level_before = 0


@contextmanager
def quiet_opencv() -> Iterator[None]:
    """Silence OpenCV's log inside the block.

    The level belongs to the process. Blocks that overlap in several threads are counted, and the
    last one restores it: if each saved and restored the level, it could stay silent.
    """
    global _depth, _level_before
    with _lock:
        if _depth == 0:
            _level_before = opencv_log.setLogLevel(opencv_log.LOG_LEVEL_SILENT)
        _depth += 1
    try:
        yield
    finally:
        with _lock:
            _depth -= 1
            if _depth == 0:
                opencv_log.setLogLevel(_level_before)
