"""A cache of decoded images that cannot be used is reported once, and stops nothing."""

from __future__ import annotations

import os
import resource
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from edgeml.data import framestore
from edgeml.data.frames import decoded_frames
from edgeml.image.preprocess import Preprocess
from tests.command import Command, colour_pictures

ROOT = Path(__file__).parents[2]
SMALL = Preprocess(size=(24, 28))


@pytest.fixture
def folders(tmp_path: Path) -> Path:
    """Images of two labels."""
    for label in ("red", "blue"):
        colour_pictures(tmp_path / "data" / label, 8)
    return tmp_path / "data"


@pytest.fixture(autouse=True)
def unreported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(framestore, "_reported", set())


def file_in_the_way(folder: Path) -> Path:
    folder.write_text("a file")
    return folder


def link_to_itself(folder: Path) -> Path:
    folder.symlink_to(folder)
    return folder


PLACES: dict[str, Callable[[Path], Path | str]] = {
    "file": file_in_the_way,
    "below a file": lambda folder: file_in_the_way(folder) / "cache",
    "of the kernel": lambda folder: "/proc/edgeml",
    "too long": lambda folder: folder / ("x" * 300),
    "loop": link_to_itself,
    "device": lambda folder: "/dev/full",
}


@pytest.mark.parametrize("place", PLACES)
def test_audit_and_split_do_without_a_cache_that_cannot_be_written(
    place: str,
    folders: Path,
    edgeml: Command,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("EDGEML_CACHE", str(PLACES[place](tmp_path / "here")))
    assert edgeml("data", "audit", folders, "--json").json["images"] == 16
    assert caplog.text.count("not stored") == 1
    out = tmp_path / "split.csv"
    assert edgeml("data", "split", folders, "--out", out).status == 0
    assert len(out.read_text().splitlines()) == 17
    assert caplog.text.count("not stored") == 1


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that every user may read; those of pytest are only for their owner."""
    folder = Path(tempfile.mkdtemp(prefix="edgeml-read-only-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.fixture
def no_root() -> Iterator[None]:
    """Be another user than root, who may write to every folder."""
    before = os.geteuid()
    if not before:
        os.seteuid(65534)
    yield
    os.seteuid(before)


def test_audit_does_without_a_cache_in_a_folder_that_is_read_only(
    open_folder: Path,
    folders: Path,
    edgeml: Command,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    request: pytest.FixtureRequest,
) -> None:
    shutil.copytree(folders, open_folder / "data")
    for part in (open_folder, open_folder / "data"):
        part.chmod(0o555)
    request.getfixturevalue("no_root")
    for cache in (open_folder, open_folder / "data" / "new"):
        monkeypatch.setenv("EDGEML_CACHE", str(cache))
        assert edgeml("data", "audit", open_folder / "data", "--json").json["images"] == 16
    assert caplog.text.count("not stored") == 2


def test_without_a_home_nothing_is_stored_and_no_folder_is_created(
    folders: Path, tmp_path: Path
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    # A user number without an entry in the list of users, and no HOME, as in a container.
    code = (
        "import os, sys, pwd\n"
        "def unknown(number): raise KeyError(number)\n"
        "pwd.getpwuid = unknown\n"
        "from edgeml.cli import main\n"
        "main()\n"
    )
    left_out = ("HOME", "XDG_CACHE_HOME", "EDGEML_CACHE", "USERPROFILE")
    known = {name: value for name, value in os.environ.items() if name not in left_out}
    done = subprocess.run(
        [sys.executable, "-c", code, "data", "audit", str(folders), "--json"],
        cwd=work, env={**known, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("home") == 1
    assert not list(work.iterdir())


@pytest.fixture
def quota() -> Iterator[None]:
    """Let no file grow beyond two frames, as a disk that becomes full while it is written to."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * 24 * 28 * 3, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_disk_that_becomes_full_costs_the_cache_and_nothing_else(
    folders: Path, tmp_path: Path, quota: None, caplog: pytest.LogCaptureFixture
) -> None:
    paths = sorted(folders.rglob("*.png"))
    for cache in (tmp_path / "cache", None):
        sides = [(paths, SMALL)]
        with decoded_frames(sides, threads=1, advance=lambda n: None, cache=cache) as (frames,):
            assert len(np.unique(frames[:].reshape(16, -1), axis=0)) == 16
    assert caplog.text.count("not stored") == 1


def test_without_any_folder_for_temporary_files_frames_are_held_in_memory(
    folders: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nowhere(*_: object, **__: object) -> str:
        raise FileNotFoundError(2, "No usable temporary directory found")

    monkeypatch.setattr("tempfile.gettempdir", nowhere)
    monkeypatch.setattr("tempfile.TemporaryFile", nowhere)
    paths = sorted(folders.rglob("*.png"))
    sides = [(paths, SMALL)]
    with decoded_frames(sides, threads=1, advance=lambda n: None) as (frames,):
        assert frames[:].any(axis=(1, 2, 3)).all()


def test_the_cache_command_names_a_folder_that_cannot_be_read(
    edgeml: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for place in ("x" * 300, str(link_to_itself(tmp_path / "loop"))):
        monkeypatch.setenv("EDGEML_CACHE", place)
        for flags in ([], ["--clear"]):
            result = edgeml("data", "cache", *flags)
            assert result.status in (0, 2)
            assert "Traceback" not in result.err
