from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgeml import Predictor
from edgeml.errors import DataError, InputError
from edgeml.streaming import FrameResult, StreamInfo, StreamSummary, run_stream
from edgeml.streaming.capture import Capture
from edgeml.streaming.sources import VideoSource
from tests.notes import Notes
from tests.streaming.clips import FakeCamera, frames_of, make_clip, plain
from tests.streaming.servers import MjpegServer, number_in, stamped
from tests.tiny import TinyRuntime


class Collect:
    """A sink that collects results, and calls a function of the test for each."""

    def __init__(self, then: Callable[[FrameResult], bool] = lambda result: True) -> None:
        self.info: StreamInfo | None = None
        self.results: list[FrameResult] = []
        self._then = then

    def start(self, info: StreamInfo) -> None:
        self.info = info

    def write(self, result: FrameResult) -> bool:
        self.results.append(result)
        return self._then(result)


def predictor(**options: Any) -> Predictor:
    return Predictor(TinyRuntime(**options))


def consistent(summary: StreamSummary) -> bool:
    return summary.frames_in == summary.frames_done + summary.dropped + summary.errors


def no_capture_threads() -> bool:
    return not any(thread.name == "edgeml-capture" for thread in threading.enumerate())


def lines_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_frame_of_a_video_is_classified_in_order(tmp_path: Path) -> None:
    frames = [plain(colour) for colour in ("red", "green", "blue") for _ in range(10)]
    clip = make_clip(tmp_path / "clip.avi", frames)
    sink = Collect()
    summary = run_stream(predictor(), clip, sinks=[sink])
    assert (summary.frames_in, summary.frames_done, summary.dropped, summary.errors) == (
        30, 30, 0, 0,
    )  # fmt: skip
    assert summary.ended == "eof"
    assert summary.kind == "video"
    assert [result.frame_id for result in sink.results] == list(range(30))
    labels = [result.prediction.labels for result in sink.results if result.prediction]
    assert labels == [("red",)] * 10 + [("green",)] * 10 + [("blue",)] * 10
    assert no_capture_threads()


def test_the_log_has_a_header_and_a_line_for_each_frame(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.mp4", [plain("red")] * 6)
    out = tmp_path / "new folder" / "log.jsonl"
    run_stream(predictor(), str(clip), jsonl=out)
    header, *lines = lines_of(out)
    assert header["format"] == "edgeml.stream/1"
    assert header["labels"] == ["red", "green", "blue"]
    assert header["kind"] == "video"
    assert header["started"][4] == "-"
    assert header["started"][-6] in "+-"  # with the offset from UTC
    assert [line["frame_id"] for line in lines] == list(range(6))
    for line in lines:
        assert line["labels"] == ["red"]
        assert line["error"] is None
        assert set(line["scores"]) == {"red", "green", "blue"}
        assert line["t_capture"] >= 0
        assert line["latency_ms"] > 0
    times = [line["t_capture"] for line in lines]
    assert times == sorted(times)


def test_the_log_is_readable_while_it_grows(tmp_path: Path) -> None:
    out = tmp_path / "log.jsonl"
    counts = []

    def look(result: FrameResult) -> bool:
        counts.append(len(lines_of(out)))
        return True

    clip = make_clip(tmp_path / "clip.avi", [plain("red")] * 4)
    run_stream(predictor(), clip, jsonl=out, sinks=[Collect(look)])
    assert counts == [2, 3, 4, 5]


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_the_video_has_every_frame_with_its_labels_and_appears_when_complete(
    suffix: str, tmp_path: Path
) -> None:
    clip = make_clip(tmp_path / "clip.avi", [plain("red", (96, 128))] * 12, fps=10)
    out = tmp_path / f"out{suffix}"
    exists = []

    def look(result: FrameResult) -> bool:
        exists.append(out.exists())
        return True

    run_stream(predictor(), clip, video=out, sinks=[Collect(look)])
    assert not any(exists)
    written = frames_of(out)
    assert len(written) == 12
    assert written[0].shape == (96, 128, 3)
    assert np.abs(written[3][-20:].astype(int) - plain("red", (96, 128))[-20:]).mean() < 10
    assert np.abs(written[3][:14].astype(int) - plain("red", (96, 128))[:14]).mean() > 10
    capture = cv2.VideoCapture(str(out))
    assert capture.get(cv2.CAP_PROP_FPS) == 10
    capture.release()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["clip.avi", out.name]


def test_the_video_of_a_folder_takes_images_of_all_sizes(tmp_path: Path) -> None:
    for i, size in enumerate(((61, 81), (200, 100), (10, 300))):
        cv2.imwrite(str(tmp_path / f"{i}.png"), plain("green", size))
    run_stream(predictor(), tmp_path, video=tmp_path / "out" / "v.mp4")
    written = frames_of(tmp_path / "out" / "v.mp4")
    assert [frame.shape for frame in written] == [(60, 80, 3)] * 3


def test_a_stream_that_fails_leaves_no_half_video(tmp_path: Path) -> None:
    def fail(result: FrameResult) -> bool:
        raise RuntimeError("intended by the test")

    clip = make_clip(tmp_path / "clip.avi", [plain("red")] * 5)
    with pytest.raises(RuntimeError, match="intended"):
        run_stream(predictor(), clip, video=tmp_path / "out.mp4", sinks=[Collect(fail)])
    assert [path.name for path in tmp_path.iterdir()] == ["clip.avi"]
    assert no_capture_threads()


def test_outputs_that_cannot_be_written_are_refused_before_anything_runs(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.avi", [plain("red")] * 5)
    (tmp_path / "file").write_text("in the way")
    for options in (
        {"video": tmp_path / "out.gif"},
        {"video": tmp_path / "file" / "out.mp4"},
        {"jsonl": tmp_path / "file" / "out.jsonl"},
        {"jsonl": tmp_path},
    ):
        with pytest.raises(InputError, match="Cannot write"):
            run_stream(predictor(), clip, **options)  # type: ignore[arg-type]


def test_a_frame_the_model_fails_on_is_counted_and_the_stream_continues(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.avi", [plain("red")] * 10)
    notes, out = Notes(), tmp_path / "log.jsonl"
    summary = run_stream(predictor(failing={2, 5}), clip, jsonl=out, progress=notes)
    assert (summary.frames_done, summary.errors, summary.ended) == (8, 2, "eof")
    lines = lines_of(out)[1:]
    assert [line["frame_id"] for line in lines if line["error"]] == [2, 5]
    assert lines[2]["labels"] == []
    assert [note for note in notes.lines if note.startswith("frame 2")]


def test_an_unreadable_image_is_counted_with_its_name(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    cv2.imwrite(str(images / "a.png"), plain("red"))
    (images / "b.png").write_bytes(b"not an image")
    cv2.imwrite(str(images / "c.png"), plain("blue"))
    out = tmp_path / "log.jsonl"
    summary = run_stream(predictor(), images, jsonl=out)
    assert (summary.frames_in, summary.frames_done, summary.errors) == (3, 2, 1)
    lines = lines_of(out)[1:]
    assert [line["source"] for line in lines] == ["a.png", "b.png", "c.png"]
    assert "b.png" in lines[1]["error"]


def test_errors_beyond_the_fifth_are_counted_but_not_noted(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.avi", [plain("red")] * 20)
    notes = Notes()
    summary = run_stream(predictor(failing=range(20)), clip, progress=notes)
    assert summary.errors == 20
    assert summary.p50_ms is None
    assert len(notes.lines) == 6


def test_the_newest_frame_of_a_camera_is_taken_and_drops_are_counted() -> None:
    camera = FakeCamera([stamped(i) for i in range(60)], period_s=0.01)
    sink = Collect()
    summary = run_stream(predictor(seconds=0.05), camera, sinks=[sink])
    assert summary.ended == "lost"
    assert summary.frames_in == 60
    assert summary.dropped > 20
    assert consistent(summary)
    ids = [result.frame_id for result in sink.results]
    assert ids == sorted(ids)
    assert [number_in(result.frame) for result in sink.results if result.frame is not None] == ids
    gaps = [b - a - 1 for a, b in zip([-1, *ids], ids, strict=False)]
    assert [result.dropped for result in sink.results] == gaps
    assert ids[-1] == 59  # the last is not lost
    # None waits longer than the frame in the model and its own turn, with room for a slow machine.
    assert summary.p95_ms is not None
    assert summary.p95_ms < 1000 * (0.05 * 2 + 0.01) + 60
    assert camera.threads == {"edgeml-capture"}
    assert camera.closed >= 1


def test_no_frame_of_a_file_is_dropped_with_a_slow_model(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "clip.avi", [plain("red")] * 15)
    summary = run_stream(predictor(seconds=0.02), clip)
    assert (summary.frames_done, summary.dropped) == (15, 0)


def test_max_seconds_ends_a_stream_in_time() -> None:
    camera = FakeCamera([plain("red")] * 10_000)
    start = time.perf_counter()
    summary = run_stream(predictor(), camera, max_seconds=0.4)
    assert summary.ended == "max_seconds"
    assert 0.4 <= summary.seconds < 0.9
    assert time.perf_counter() - start < 1.5
    assert consistent(summary)
    assert no_capture_threads()


@pytest.mark.parametrize("seconds", [0, -1, float("nan")])
def test_a_time_that_is_not_positive_is_refused(seconds: float) -> None:
    with pytest.raises(InputError, match="max_seconds"):
        run_stream(predictor(), FakeCamera([]), max_seconds=seconds)


def test_a_stop_from_another_thread_ends_a_stream_without_frames() -> None:
    camera, stop = FakeCamera([plain("red")] * 3, hang=True), threading.Event()
    timer = threading.Timer(0.3, stop.set)
    timer.start()
    start = time.perf_counter()
    summary = run_stream(predictor(), camera, stop=stop)
    elapsed = time.perf_counter() - start
    assert summary.ended == "stopped"
    assert summary.frames_done == 3
    assert elapsed < 0.3 + camera.timeout_s + 0.5 + 0.5
    camera.released.set()
    timer.join()
    for thread in threading.enumerate():
        if thread.name == "edgeml-capture":
            thread.join(2)


def test_a_stop_before_the_start_ends_at_once() -> None:
    stop = threading.Event()
    stop.set()
    summary = run_stream(predictor(), FakeCamera([plain("red")] * 100), stop=stop)
    assert summary.ended == "stopped"
    assert consistent(summary)


def test_a_sink_can_stop_the_stream() -> None:
    enough = Collect(lambda result: result.frame_id < 4)
    other = Collect()
    summary = run_stream(
        predictor(), FakeCamera([plain("red")] * 99, live=False), sinks=[enough, other]
    )
    assert summary.ended == "stopped"
    assert len(enough.results) == len(other.results) == 5


def test_ctrl_c_in_the_middle_returns_the_summary_and_a_complete_video(tmp_path: Path) -> None:
    def interrupt(result: FrameResult) -> bool:
        if result.frame_id == 5:
            raise KeyboardInterrupt
        return True

    clip = make_clip(tmp_path / "clip.avi", [plain("red")] * 30)
    out = tmp_path / "out.mp4"
    summary = run_stream(predictor(), clip, video=out, sinks=[Collect(interrupt)])
    assert summary.ended == "stopped"
    assert summary.frames_done == 6
    assert consistent(summary)
    assert len(frames_of(out)) == 6


@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGINT between processes")
def test_a_real_sigint_returns_the_summary(tmp_path: Path) -> None:
    code = (
        "import sys; from edgeml import Predictor; from edgeml.streaming import run_stream\n"
        "from tests.streaming.clips import FakeCamera, plain; from tests.tiny import TinyRuntime\n"
        "print('ready', flush=True)\n"
        "s = run_stream(Predictor(TinyRuntime()), FakeCamera([plain('red')] * 3000))\n"
        "print(s.ended, s.frames_done > 0)\n"
    )
    child = subprocess.Popen(
        [sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert child.stdout is not None
    assert child.stdout.readline() == "ready\n"
    time.sleep(0.5)
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=20)
    assert out == "stopped True\n", err
    assert child.returncode == 0


def test_a_source_that_fails_raises_its_error_here() -> None:
    camera = FakeCamera([plain("red")] * 3, failure=RuntimeError("driver failed"))
    with pytest.raises(RuntimeError, match="driver failed"):
        run_stream(predictor(), camera)
    assert camera.closed == 1
    assert no_capture_threads()


def test_a_source_that_cannot_be_opened_raises_its_error_here(tmp_path: Path) -> None:
    (tmp_path / "no.mp4").write_text("no video")
    with pytest.raises(DataError, match=r"no\.mp4"):
        run_stream(predictor(), tmp_path / "no.mp4", jsonl=tmp_path / "log.jsonl")
    with pytest.raises(InputError, match="camera 63"):
        run_stream(predictor(), 63)
    assert no_capture_threads()


def test_a_network_stream_ends_as_lost_with_a_note_and_no_repeated_frames() -> None:
    notes, sink = Notes(), Collect()
    with MjpegServer(fps=60, frames=40) as server:
        url = server.url("anna:geheim@")
        summary = run_stream(predictor(), url, sinks=[sink], progress=notes)
    assert summary.ended == "lost"
    assert consistent(summary)
    assert sink.info is not None
    assert sink.info.live
    numbers = [number_in(result.frame) for result in sink.results if result.frame is not None]
    assert numbers == sorted(set(numbers))
    assert max(numbers) < 40
    assert "geheim" not in str(notes.lines) + str(summary.to_dict())
    assert "broke off" in notes.lines[-1]


@pytest.mark.slow
def test_latency_of_a_network_stream_does_not_grow_with_a_slow_model() -> None:
    # A naive read loop falls behind here by 20 ms a frame: 600 ms at the end.
    sink, ages = Collect(), []

    with MjpegServer(fps=30, frames=60) as server:

        def age(result: FrameResult) -> bool:
            assert result.frame is not None
            ages.append(time.perf_counter() - server.sent_at[number_in(result.frame)])
            return True

        sink = Collect(age)
        summary = run_stream(predictor(seconds=0.05), server.url(), sinks=[sink])
    assert summary.dropped > 0
    late = sorted(ages[len(ages) // 2 :])
    # The model's own time, two frame periods, and room for a busy machine.
    assert late[len(late) // 2] < 0.05 + 2 / 30 + 0.1


def test_a_stalled_network_stream_is_abandoned_within_its_read_timeout() -> None:
    with MjpegServer(fps=100, stall_after=10) as server:
        source = VideoSource(server.url(), kind="url", name="stream", read_timeout_s=1.0)
        source.timeout_s = 1.0
        start = time.perf_counter()
        summary = run_stream(predictor(), source, max_seconds=0.5)
        elapsed = time.perf_counter() - start
    assert summary.ended == "max_seconds"
    assert summary.frames_in >= 5
    assert elapsed < 0.5 + 1.0 + 0.5 + 0.5  # and half a second to connect
    assert no_capture_threads()


def test_without_a_display_the_stream_continues_with_one_note(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not sys.platform.startswith("linux"):
        pytest.skip("displays are named by the environment on Linux only")
    clip = make_clip(tmp_path / "clip.avi", [plain("red")] * 3)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    # No display, and one that does not exist: Qt would end this process.
    for display in ("", ":4711"):
        monkeypatch.setenv("DISPLAY", display)
        notes = Notes()
        summary = run_stream(predictor(), clip, show=True, progress=notes)
        assert summary.frames_done == 3
        assert len(notes.lines) == 1
        assert "without" in notes.lines[0]


def test_capture_can_be_closed_twice_and_before_it_is_read() -> None:
    camera = FakeCamera([plain("red")] * 50, live=False)
    with Capture(camera) as capture:
        assert capture.wait_open(2) is not None
        time.sleep(0.05)
        capture.close()
        assert capture.take(0) is None
    assert capture.taken == capture.dropped
    assert no_capture_threads()
