"""Run the examples as a reader would: as programs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import cv2
import pytest

from tests.conftest import ROOT
from tests.streaming.clips import frames_of, make_clip, plain
from tests.streaming.servers import MjpegServer

pytestmark = pytest.mark.runtime
pytest.importorskip("onnxruntime")


def run(
    example: str, *arguments: object, folder: Path, display: str | None = None
) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k not in ("DISPLAY", "WAYLAND_DISPLAY")}
    environment["PYTHONPATH"] = str(ROOT)
    environment["PYTHONUTF8"] = "1"
    if display:
        environment["DISPLAY"] = display
    command = [sys.executable, str(ROOT / "examples" / example), *map(str, arguments)]
    return subprocess.run(
        command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120
    )


def test_quickstart_prints_the_labels_of_images(tiny_onnx: Path, tmp_path: Path) -> None:
    for colour in ("red", "blue"):
        cv2.imwrite(str(tmp_path / f"{colour} thing.png"), plain(colour))
    done = run("quickstart.py", tiny_onnx, "red thing.png", "blue thing.png", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    first, second = done.stdout.splitlines()
    assert first.startswith("red thing.png: red ")
    assert second.startswith("blue thing.png: blue ")
    assert done.stderr == ""


def test_quickstart_without_a_model_points_to_the_demo(tmp_path: Path) -> None:
    done = run("quickstart.py", folder=tmp_path)
    assert done.returncode == 2
    assert "edgeml demo" in done.stdout


@pytest.mark.parametrize("arguments", [["gone.onnx", "a.png"], ["{model}", "gone.png"]])
def test_quickstart_names_a_missing_file_in_one_line(
    arguments: list[str], tiny_onnx: Path, tmp_path: Path
) -> None:
    filled = [argument.format(model=tiny_onnx) for argument in arguments]
    done = run("quickstart.py", *filled, folder=tmp_path)
    assert done.returncode == 2
    assert "gone" in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_quickstart_is_short(tmp_path: Path) -> None:
    assert len((ROOT / "examples" / "quickstart.py").read_text().splitlines()) < 40


def test_camera_stream_makes_its_own_video_and_continues_without_a_display(
    tiny_onnx: Path, tmp_path: Path
) -> None:
    done = run("camera_stream.py", tiny_onnx, "--make-video", "--out", "o.jsonl", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "clip.avi (video) with onnxruntime" in done.stdout
    assert "ended: eof" in done.stdout.splitlines()[-1]
    assert "0 errors" in done.stdout
    assert "No window" in done.stderr
    frames = frames_of(tmp_path / "clip.avi")
    assert len(frames) == 144
    lines = (tmp_path / "o.jsonl").read_text().splitlines()
    assert len(lines) == 1 + len(frames)
    # Drawn apparel of many colours: the model must not predict the same for every frame.
    assert len({tuple(json.loads(line)["labels"]) for line in lines[1:]}) > 1


def test_camera_stream_takes_a_video_and_survives_a_missing_display(
    tiny_onnx: Path, tmp_path: Path
) -> None:
    make_clip(tmp_path / "mein Clip.mp4", [plain("green")] * 30)
    done = run("camera_stream.py", tiny_onnx, "mein Clip.mp4", folder=tmp_path, display=":4711")
    assert done.returncode == 0, done.stderr
    assert "30 frames" in done.stdout.splitlines()[-1]
    assert "No window" in done.stderr


def test_camera_stream_without_a_camera_prints_one_line(tiny_onnx: Path, tmp_path: Path) -> None:
    done = run("camera_stream.py", tiny_onnx, "63", "--no-window", folder=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("Cannot open camera 63")
    assert len(done.stderr.splitlines()) == 1


def test_camera_stream_reports_each_second(tiny_onnx: Path, tmp_path: Path) -> None:
    with MjpegServer(fps=20, frames=50) as server:
        done = run("camera_stream.py", tiny_onnx, server.url(), "--no-window", folder=tmp_path)
    assert done.returncode == 0, done.stderr
    first, *seconds, last = done.stdout.splitlines()
    assert "(url)" in first
    assert [line.split()[:2] for line in seconds] == [["1", "s"], ["2", "s"]]
    assert "ended: lost" in last
    assert "broke off" in done.stderr
