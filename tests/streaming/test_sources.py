from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import cv2
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeml.errors import DataError, EdgemlError, InputError
from edgeml.streaming.sources import (
    FolderSource,
    Source,
    VideoSource,
    find_source,
    without_credentials,
)
from tests.streaming.clips import make_clip, plain
from tests.streaming.servers import MjpegServer, number_in, stamped


def read_all(source: Source) -> list[int]:
    """Read a source of stamped frames to its end."""
    source.open()
    numbers = []
    while (frame := source.read()) is not None:
        assert frame.frame is not None
        numbers.append(number_in(frame.frame))
    source.close()
    return numbers


@pytest.mark.parametrize(
    ("source", "kind"),
    [
        ("0", "camera"),
        (3, "camera"),
        ("http://host/x.mjpg", "url"),
        ("RTSP://host:554/live", "url"),
        ("https://host/a.mp4", "url"),
    ],
)
def test_digits_are_a_camera_and_addresses_a_stream(source: str | int, kind: str) -> None:
    assert find_source(source).kind == kind


def test_paths_are_distinguished_by_their_content(tmp_path: Path) -> None:
    clip = make_clip(tmp_path / "grüner Clip.avi", [plain("red")] * 3)
    cv2.imwrite(str(tmp_path / "one.png"), plain("red"))
    assert find_source(clip).kind == "video"
    assert find_source(str(clip)).kind == "video"
    assert find_source(tmp_path).kind == "folder"
    assert find_source(tmp_path / "one.png").kind == "folder"


@pytest.mark.parametrize("source", ["no such file.mp4", "a\0b", "x" * 5000, "", "-1"])
def test_a_missing_source_is_refused(
    source: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EdgemlError, match=r"no source|no images") as caught:
        find_source(source)
    assert "\n" not in str(caught.value)


def test_an_unsupported_scheme_is_named() -> None:
    with pytest.raises(InputError, match="'ftp'"):
        find_source("ftp://host/x.mp4")


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("not an image")
    with pytest.raises(DataError, match=r"no images"):
        find_source(tmp_path)


@pytest.mark.parametrize("name", ["text.mp4", "empty.avi", "half.mp4"])
def test_a_file_that_is_not_a_video_is_refused(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    if name.startswith("half"):  # an .mp4 has its table of frames at the end
        complete = make_clip(tmp_path / "complete.mp4", [plain("red")] * 9).read_bytes()
        path.write_bytes(complete[: len(complete) // 2])
    else:
        path.write_text("no video" if name.startswith("text") else "")
    with pytest.raises(DataError, match=name):
        find_source(path).open()
    # In a new process, as FFmpeg's log level is read once: only our own line is printed.
    code = f"from edgeml.streaming.sources import find_source as f; f({str(path)!r}).open()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    lines = [line for line in done.stderr.splitlines() if not line.startswith((" ", "Traceback"))]
    assert len(lines) == 1
    assert "DataError" in lines[0]


def test_a_missing_camera_is_refused(capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="camera 63"):
        find_source("63").open()
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("suffix", [".mp4", ".avi"])
def test_a_video_yields_each_frame_once_with_its_time(suffix: str, tmp_path: Path) -> None:
    path = make_clip(tmp_path / f"clip{suffix}", [stamped(i) for i in range(20)], fps=10)
    assert read_all(find_source(path)) == list(range(20))
    source = find_source(path)
    opened = source.open()
    assert (opened.live, opened.fps, opened.count) == (False, 10, 20)
    before = time.perf_counter()
    frames = [source.read() for _ in range(20)]
    after = time.perf_counter()
    assert [frame.t_media for frame in frames if frame] == pytest.approx(
        [i / 10 for i in range(20)]
    )
    stamps = [frame.t for frame in frames if frame]
    assert before <= stamps[0]
    assert stamps == sorted(stamps)
    assert stamps[-1] <= after
    assert source.read() is None
    assert not source.lost
    source.close()
    source.close()


def test_a_truncated_video_is_lost(tmp_path: Path) -> None:
    complete = make_clip(tmp_path / "complete.avi", [stamped(i) for i in range(40)])
    half = tmp_path / "half.avi"
    half.write_bytes(complete.read_bytes()[: complete.stat().st_size // 2])
    source = find_source(half)
    numbers = read_all(source)
    assert 0 < len(numbers) < 30
    assert source.lost


def test_a_folder_yields_its_images_in_order_and_names_unreadable_ones(
    tmp_path: Path,
) -> None:
    for name, number in (("b.png", 2), ("a.png", 1), ("sub/ä c.bmp", 3)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(cv2.imencode(Path(name).suffix, stamped(number))[1])
    (tmp_path / "aa damaged.jpg").write_bytes(b"\xff\xd8 not an image")
    (tmp_path / "notes.txt").write_text("not looked at")
    source = FolderSource(tmp_path)
    assert source.open().count == 4
    frames = [source.read() for _ in range(4)]
    assert [frame.name for frame in frames if frame] == [
        "a.png",
        "aa damaged.jpg",
        "b.png",
        "sub/ä c.bmp",
    ]
    numbers = [number_in(frame.frame) for frame in frames if frame and frame.frame is not None]
    assert numbers == [1, 2, 3]
    assert frames[1] is not None
    assert frames[1].error is not None
    assert "aa damaged.jpg" in frames[1].error
    assert source.read() is None


def test_a_network_stream_is_live_and_ends_as_lost() -> None:
    with MjpegServer(fps=200, frames=30) as server:
        source = find_source(server.url())
        opened = source.open()
        assert opened.live
        assert opened.count is None
        frames = []
        while (frame := source.read()) is not None:
            frames.append(frame)
        numbers = [number_in(frame.frame) for frame in frames if frame.frame is not None]
        assert numbers == sorted(numbers)
        assert len(numbers) >= 25
        assert source.lost
        source.close()


def test_a_stream_that_stalls_is_abandoned_after_the_read_timeout() -> None:
    with MjpegServer(fps=100, stall_after=10) as server:
        source = VideoSource(server.url(), kind="url", name="stream", read_timeout_s=0.5)
        source.open()
        while source.read() is not None:
            start = time.perf_counter()
        assert time.perf_counter() - start < 2
        source.close()


def test_a_server_that_never_answers_is_abandoned_after_the_open_timeout() -> None:
    with MjpegServer(stall_after=0) as server:
        source = VideoSource(
            server.url(), kind="url", name="stream", open_timeout_s=0.5, read_timeout_s=0.5
        )
        start = time.perf_counter()
        with pytest.raises(InputError, match="Cannot open stream"):
            source.open()
        assert time.perf_counter() - start < 3


def test_credentials_are_used_but_never_shown(capfd: pytest.CaptureFixture[str]) -> None:
    # base64 of "anna:geheim"
    with MjpegServer(fps=200, frames=20, authorization="Basic YW5uYTpnZWhlaW0=") as server:
        source = find_source(server.url("anna:geheim@"))
        source.open()
        assert source.read() is not None
        source.close()
        with pytest.raises(InputError) as caught:
            find_source(server.url("anna:falsch@")).open()
    text = f"{caught.value} {source.name} {capfd.readouterr().err}"
    for secret in ("anna", "geheim", "falsch"):
        assert secret not in text


_SECRET = st.text(
    st.characters(codec="utf-8", exclude_characters="*", exclude_categories=["Cs"]),
    min_size=1,
    max_size=20,
).map(lambda text: f"«{text}»")


@given(user=_SECRET, password=_SECRET, token=_SECRET)
def test_no_part_of_the_credentials_is_left(user: str, password: str, token: str) -> None:
    url = f"rtsp://{user}:{password}@cam.local:554/live/1?user={user}&pwd={token}#{token}"
    shown = without_credentials(url)
    assert "«" not in shown
    assert shown.startswith("rtsp://***")


def test_an_address_without_secrets_is_shown_as_it_is() -> None:
    assert without_credentials("http://cam.local/a.mjpg") == "http://cam.local/a.mjpg"
    assert without_credentials("http://a:b@cam.local/a?key=c") == "http://***@cam.local/a?***"
    assert without_credentials("http://cam.local/a?mail=a@b.c&pwd=d@e") == "http://***"
