"""The photos are downloaded through kagglehub completely, or one line says what to do."""

from __future__ import annotations

import io
import json
import shutil
import socket
import sys
import time
import zipfile
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from types import ModuleType

import pytest

from edgeml.data import fetch
from edgeml.data.fetch import APPAREL, differences_from_apparel, fetch_apparel
from edgeml.data.synth.apparel import COLOURS, GARMENTS
from edgeml.errors import DataError, InputError
from tests.data.readers.sets import run_command

LABELS = {*COLOURS, *GARMENTS}


def photos(root: Path, each: int = 1) -> Path:
    """Create the 72 folders of the apparel; a reader does not open images."""
    for colour in COLOURS:
        for garment in GARMENTS:
            folder = root / f"{colour}_{garment}"
            folder.mkdir(parents=True)
            for number in range(each):
                (folder / f"{number}.jpg").write_bytes(f"{folder.name}{number}".encode())
    return root


class Kaggle(BaseHTTPRequestHandler):
    """Answers as Kaggle's API does, as far as kagglehub 1.0 asks it."""

    archive = b""
    status = 200

    def do_GET(self) -> None:
        self.send_error(404)

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        download = self.path.endswith("DownloadDataset")
        body = self.archive if download else json.dumps({"currentVersionNumber": 3}).encode()
        self.send_response(self.status)
        self.send_header("Content-Type", "application/zip" if download else "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def host(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Answer requests to Kaggle on this machine."""
    for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.delenv(name, raising=False)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Kaggle)
    Thread(target=server.serve_forever, args=(0.02,), daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    monkeypatch.setattr(fetch, "_HOST", address)
    yield address
    server.shutdown()
    server.server_close()


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch, host: str, tmp_path: Path) -> Path:
    """Replace kagglehub by one that copies a folder; return that folder."""
    module = ModuleType("kagglehub")

    def dataset_download(handle: str) -> str:
        assert handle == APPAREL
        print("kagglehub prints to stdout")
        return str(shutil.copytree(tmp_path / "kaggle", tmp_path / "cache", dirs_exist_ok=True))

    module.dataset_download = dataset_download  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "kagglehub", module)
    return tmp_path / "kaggle"


def test_the_photos_arrive_with_their_labels(fake: Path, tmp_path: Path) -> None:
    photos(fake / "Apparel images dataset")
    (fake / "__MACOSX").mkdir()
    (tmp_path / "out").mkdir()
    dataset = fetch_apparel(tmp_path / "out")
    assert sorted(dataset.labels) == sorted([*COLOURS, *GARMENTS])
    assert [set(group.labels) for group in dataset.label_groups] == [{*COLOURS}, {*GARMENTS}]
    assert len(dataset) == 72
    assert (tmp_path / "out" / "red_shirt" / "0.jpg").is_file()
    assert {path.name for path in tmp_path.iterdir()} == {"kaggle", "cache", "out"}


def test_differences_from_the_expected_data_set_are_listed(
    fake: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    photos(fake)
    for folder in fake.glob("*_suit"):
        folder.rename(folder.with_name(folder.name.replace("suit", "cape")))
    assert differences_from_apparel(fetch_apparel(tmp_path / "out"), labels=LABELS) == [
        "72 images, not 16170",
        "no image has suit",
        "unexpected labels: cape",
    ]
    monkeypatch.setattr(fetch, "APPAREL_IMAGES", 72)
    shutil.rmtree(fake)
    shutil.rmtree(tmp_path / "cache")
    photos(fake)
    assert differences_from_apparel(fetch_apparel(tmp_path / "again"), labels=LABELS) == []


def test_the_command_prints_the_folder_and_exits_1_on_differences(
    fake: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    photos(fake)
    assert run_command(["data", "fetch", "apparel", str(tmp_path / "a")], monkeypatch) == 1
    printed = capsys.readouterr()
    assert printed.out == f"{tmp_path / 'a'}\n"
    assert "Not as expected: 72 images, not 16170" in printed.err
    monkeypatch.setattr(fetch, "APPAREL_IMAGES", 72)
    assert run_command(["data", "fetch", "apparel", str(tmp_path / "b")], monkeypatch) == 0


@pytest.mark.parametrize("name", ["full", "file"])
def test_a_folder_that_is_not_empty_is_left_alone(fake: Path, tmp_path: Path, name: str) -> None:
    photos(fake)
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "mine").touch()
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="exists and is not an empty folder"):
        fetch_apparel(tmp_path / name)
    assert not (tmp_path / "cache").exists()


class KaggleApiHTTPError(OSError):
    """As kagglehub's: an error of requests with the response."""

    def __init__(self, status: int) -> None:
        super().__init__("Client Error.\n\nYou don't have permission")
        self.response = type("Response", (), {"status_code": status})


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (KaggleApiHTTPError(403), "KAGGLE_API_TOKEN"),
        (KaggleApiHTTPError(401), r"https://www\.kaggle\.com/settings/api"),
        (KaggleApiHTTPError(404), "no longer exists"),
        (ConnectionResetError("reset by peer"), "connection was lost.*run the same command again"),
        (TimeoutError(""), "connection was lost"),
        (ValueError("Invalid Kaggle credentials file\nat x"), "credentials file at x"),
        (OSError(28, "No space left on device"), "No space left"),
    ],
    ids=repr,
)
def test_a_failure_prints_one_line_and_leaves_no_files(
    fake: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: Exception,
    words: str,
) -> None:
    def dataset_download(handle: str) -> str:
        raise error

    monkeypatch.setattr(sys.modules["kagglehub"], "dataset_download", dataset_download)
    with pytest.raises(DataError, match=words):
        fetch_apparel(tmp_path / "out")
    assert run_command(["data", "fetch", "apparel", str(tmp_path / "out")], monkeypatch) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert len(printed.err.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


def test_without_kagglehub_the_extra_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "kagglehub", None)
    assert run_command(["data", "fetch", "apparel", str(tmp_path / "out")], monkeypatch) == 2
    printed = capsys.readouterr()
    assert "pip install 'edgeml[kaggle]'" in printed.err
    assert len(printed.err.splitlines()) == 1


class TestWithTheRealKagglehub:
    """No credentials; a server on this machine, or no network at all."""

    @pytest.fixture(autouse=True)
    def kagglehub(
        self, host: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[None]:
        pytest.importorskip("kagglehub")
        from kagglesdk import kaggle_env

        for name in ("KAGGLE_API_TOKEN", "KAGGLE_USERNAME", "KAGGLE_KEY"):
            monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("HOME", str(tmp_path / "home"))
        monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "home"))
        monkeypatch.setenv("KAGGLEHUB_CACHE", str(tmp_path / "cache"))
        monkeypatch.setenv("KAGGLE_API_ENVIRONMENT", "LOCALHOST")
        monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.LOCAL, host)
        return

    def test_the_download_request_is_accepted(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        packed = io.BytesIO()
        with zipfile.ZipFile(packed, "w") as archive:
            for file in photos(tmp_path / "src").rglob("*.jpg"):
                archive.write(file, f"apparel/{file.parent.name}/{file.name}")
        shutil.rmtree(tmp_path / "src")
        monkeypatch.setattr(Kaggle, "archive", packed.getvalue())
        dataset = fetch_apparel(tmp_path / "out")
        assert len(dataset) == 72
        assert len(dataset.labels) == 17
        # Nothing is written but the folder and kagglehub's cache.
        assert {path.name for path in tmp_path.iterdir()} == {"out", "cache"}

    @pytest.mark.parametrize("status", [401, 403])
    def test_required_credentials_are_explained(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
    ) -> None:
        monkeypatch.setattr(Kaggle, "status", status)
        with pytest.raises(DataError, match="requires credentials"):
            fetch_apparel(tmp_path / "out")

    @pytest.mark.parametrize("address", ["http://127.0.0.1:9", "https://kaggle.invalid"])
    def test_a_missing_network_is_reported_at_once(
        self,
        tmp_path: Path,
        monkeypatch: pytest.MonkeyPatch,
        capsys: pytest.CaptureFixture[str],
        address: str,
    ) -> None:
        monkeypatch.setattr(fetch, "_HOST", address)
        start = time.monotonic()
        assert run_command(["data", "fetch", "apparel", str(tmp_path / "o")], monkeypatch) == 2
        assert time.monotonic() - start < 15
        printed = capsys.readouterr()
        assert "Kaggle cannot be reached" in printed.err
        assert len(printed.err.splitlines()) == 1
        assert list(tmp_path.iterdir()) == []

    def test_a_network_that_drops_packets_is_not_waited_for(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with socket.create_server(("127.0.0.1", 0)) as silent:
            monkeypatch.setattr(fetch, "_HOST", f"http://127.0.0.1:{silent.getsockname()[1]}")
            monkeypatch.setattr(fetch, "_TIMEOUT_S", 0.3)
            with pytest.raises(DataError, match="cannot be reached"):
                fetch_apparel(tmp_path / "out")
