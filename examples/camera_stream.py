"""Classify the frames of a camera, and print the speed every second.

    python examples/camera_stream.py demo/run/model.onnx               # camera 0
    python examples/camera_stream.py demo/run/model.onnx clip.mp4      # a video, a folder, a URL
    python examples/camera_stream.py demo/run/model.onnx --make-video  # without a camera

A window shows the frames with their labels; q closes it. Without a display there is no window.
No model yet? `edgeml demo` trains one and writes it to demo/run.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

import cv2

from edgeml import EdgemlError, Predictor
from edgeml.data.synth.draw import synthesize
from edgeml.image.reading import read_image
from edgeml.progress import TerminalProgress
from edgeml.streaming import FrameResult, StreamInfo, run_stream


class EverySecond:
    """A sink: `run_stream` passes every result to each of its sinks. Yours could ring a bell."""

    def start(self, info: StreamInfo) -> None:
        self.second, self.frames, self.dropped = 0, 0, 0
        print(f"{info.source} ({info.kind}) with {info.runtime}")

    def write(self, result: FrameResult) -> bool:
        self.frames += 1
        self.dropped += result.dropped
        if result.t_capture >= self.second + 1:
            self.second = int(result.t_capture)
            # An error concerns one frame, for example a damaged one. The stream continues.
            text = result.error or " ".join(result.prediction.labels if result.prediction else ())
            print(
                f"{self.second:4} s  {self.frames:4} frames, {self.dropped} dropped, "
                f"{result.latency_ms:.1f} ms: {text or '(nothing)'}"
            )
            self.frames = self.dropped = 0
        return True  # False would end the stream


def make_video(path: Path, *, images: int = 12, size: int = 240, fps: int = 25) -> None:
    """Draw apparel and film it: each image for half a second, zooming in slowly."""
    with tempfile.TemporaryDirectory() as folder:
        drawn = Path(folder) / "drawn"
        synthesize(drawn, images=images, size=size, seed=1)
        writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"MJPG"), fps, (size, size))
        for file in sorted(drawn.rglob("*.jpg")):
            image = read_image(file)
            for border in range(1, fps // 2 + 1):
                zoomed = image[border:-border, border:-border]
                writer.write(cv2.resize(zoomed, (size, size)))
        writer.release()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="an .onnx or .xml file, or a run folder")
    parser.add_argument("source", nargs="?", default="0", help="camera, video, folder or URL")
    parser.add_argument("--make-video", action="store_true", help="draw clip.avi and stream it")
    parser.add_argument("--no-window", action="store_true", help="do not open a window")
    parser.add_argument("--max-seconds", type=float, help="stop after this many seconds")
    parser.add_argument("--out", type=Path, help="write a JSON line for each frame here")
    options = parser.parse_args()
    if options.make_video:
        options.source = "clip.avi"
        make_video(Path(options.source))
    try:
        with Predictor(options.model) as predictor:
            summary = run_stream(
                predictor,
                options.source,
                jsonl=options.out,
                show=not options.no_window,
                sinks=[EverySecond()],
                max_seconds=options.max_seconds,
                progress=TerminalProgress(),
            )
    except EdgemlError as err:
        print(err, file=sys.stderr)
        return 2
    print(summary.line())  # also after Ctrl-C
    return 0


if __name__ == "__main__":
    sys.exit(main())
