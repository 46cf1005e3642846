"""The capture thread, and the slot through which it passes frames on."""

from __future__ import annotations

import logging
import threading
from typing import Literal

from edgeml.streaming.sources import CapturedFrame, Source, SourceInfo

logger = logging.getLogger(__name__)

_GRACE_S = 0.5


class Capture:
    """Runs a source in its own thread, the only one that uses it; a context manager.

    For a live source, only the newest frame waits: if it is not taken before the next one, it is
    dropped and counted. For a file or folder, no frame is dropped: the thread waits. In both cases
    one frame waits here while one is being read, so memory is bounded, and reading and inference
    overlap.
    """

    def __init__(self, source: Source) -> None:
        self.source = source
        self.taken = 0
        self.dropped = 0
        self._changed = threading.Condition()
        self._info: SourceInfo | None = None
        self._slot: tuple[int, CapturedFrame] | None = None
        self._ended: Literal["eof", "lost"] | None = None
        self._failure: BaseException | None = None
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="edgeml-capture", daemon=True)

    def __enter__(self) -> Capture:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop the thread: at once if it waits for us, else when its source returns.

        Frames that were not taken count as dropped. May be called twice.
        """
        with self._changed:
            self._closing = True
            self.dropped += self._slot is not None
            self._slot = None
            self._changed.notify_all()
        self._thread.join(self.source.timeout_s + _GRACE_S)
        if self._thread.is_alive():
            logger.warning("%s does not return; its thread keeps running.", self.source.name)

    def wait_open(self, timeout_s: float) -> SourceInfo | None:
        """Wait until the source is open; return None if it is not, raise if it cannot be."""
        with self._changed:
            self._changed.wait_for(lambda: self._info or self._ended, timeout_s)
            self._raise_failure()
            return self._info

    def take(self, timeout_s: float) -> tuple[int, CapturedFrame] | None:
        """Take the next frame with its number, counted from 0 in the order of the source.

        Returns None if there is none yet, or no more: see `ended`. What the source raised is raised
        here, after all frames before that are taken.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._slot or self._ended, timeout_s)
            if self._slot is None:
                self._raise_failure()
            item, self._slot = self._slot, None
            self._changed.notify_all()
            return item

    @property
    def ended(self) -> Literal["eof", "lost"] | None:
        """How the source ended; None until all of its frames are taken."""
        with self._changed:
            return None if self._slot else self._ended

    def _raise_failure(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _run(self) -> None:
        failure: BaseException | None = None
        try:
            try:
                self._read()
            finally:
                self.source.close()
        except BaseException as err:  # raised again by `take`
            failure = err
        with self._changed:
            self._failure = failure
            self._ended = "lost" if failure or self.source.lost else "eof"
            self._changed.notify_all()

    def _read(self) -> None:
        info = self.source.open()
        with self._changed:
            self._info = info
            self._changed.notify_all()
        while (frame := self.source.read()) is not None:
            if not self._put(frame, live=info.live):
                return

    def _put(self, frame: CapturedFrame, *, live: bool) -> bool:
        """Put a frame into the slot; return False once the capture is closing."""
        with self._changed:
            number, self.taken = self.taken, self.taken + 1
            if live and self._slot:
                self._slot = None
                self.dropped += 1
            self._changed.wait_for(lambda: self._slot is None or self._closing)
            if self._closing:
                self.dropped += 1
                return False
            self._slot = number, frame
            self._changed.notify_all()
            return True
