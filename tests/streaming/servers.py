"""An MJPEG server on the loopback interface, in pure Python: a camera that tests control."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType

import cv2
import numpy as np

from edgeml.image.frame import Frame


def stamped(number: int, size: tuple[int, int] = (120, 160)) -> Frame:
    """Draw a number into a frame as 16 white or black stripes, which survive JPEG."""
    frame = np.zeros((*size, 3), np.uint8)
    width = size[1] // 16
    for bit in range(16):
        frame[:, bit * width : (bit + 1) * width] = 255 * (number >> bit & 1)
    return frame


def number_in(frame: Frame) -> int:
    """Read back what `stamped` drew."""
    width = frame.shape[1] // 16
    middle = frame[len(frame) // 2, width // 2 :: width, 0][:16]
    return sum(1 << bit for bit, level in enumerate(middle) if level > 127)


class MjpegServer:
    """Sends frames at a fixed rate to every client.

    Args:
        fps: Frames per second.
        frames: Number of frames before the connection is closed.
        stall_after: Number of frames after which nothing follows, with the connection open.
        authorization: The required header, else 401.
    """

    def __init__(
        self,
        *,
        fps: float = 30.0,
        frames: int = 1000,
        stall_after: int | None = None,
        authorization: str | None = None,
    ) -> None:
        self.sent_at: dict[int, float] = {}
        self._over = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                if authorization and self.headers.get("Authorization") != authorization:
                    self.send_response(401)
                    self.send_header("WWW-Authenticate", 'Basic realm="camera"')
                    self.end_headers()
                    return
                self.send_response(200)
                self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
                self.end_headers()
                outer._send(self.wfile.write, fps, frames, stall_after)

            def log_message(self, *args: object) -> None:
                """Print nothing."""

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def url(self, credentials: str = "") -> str:
        host = f"127.0.0.1:{self._server.server_address[1]}"
        return f"http://{credentials}{host}/stream.mjpg"

    def _send(
        self, write: Callable[[bytes], object], fps: float, frames: int, stall_after: int | None
    ) -> None:
        start = time.perf_counter()
        try:
            for number in range(frames):
                if number == stall_after:
                    self._over.wait(60)
                    return
                if self._over.wait(max(start + number / fps - time.perf_counter(), 0)):
                    return
                jpeg = cv2.imencode(".jpg", stamped(number))[1].tobytes()
                self.sent_at[number] = time.perf_counter()
                head = f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(jpeg)}\r\n\r\n"
                write(head.encode() + jpeg + b"\r\n")
        except OSError:
            return  # the client disconnected

    def __enter__(self) -> MjpegServer:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._over.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
