"""Every command answers a path that cannot be used with one line and exit status 2."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from edgeml.errors import InputError
from edgeml.files import check_writable
from tests.command import Command, colour_folders

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
HERE = "@"

# Each has one place for a bad path. DATA, IMAGE and MODEL stand for good ones.
READ = [
    "train @", "train DATA --config @", "train DATA --weights @", "train DATA --teacher @",
    "train DATA --resume --out @",
    "eval @ DATA", "eval MODEL @",
    "export @ --fmt onnx", "export MODEL --fmt openvino --check @",
    "export MODEL --fmt onnx --precision int8 --calib @",
    "predict @ IMAGE", "predict MODEL @", "predict MODEL IMAGE @",
    "inspect @", "inspect MODEL --labels @",
    "verify @", "verify MODEL --against @ --data DATA", "verify MODEL --against MODEL --data @",
    "bench @", "bench MODEL @", "bench MODEL --data @",
    "compare @ MODEL --data DATA", "compare MODEL @ --data DATA", "compare MODEL MODEL --data @",
    "stream @ IMAGE", "stream MODEL @",
    "data audit @", "data split @ --out OUT",
]  # fmt: skip
WRITTEN = [
    "train DATA --out @", "train DATA --find lr --out @",
    "export MODEL --fmt openvino --out @.xml",
    "export MODEL --fmt triton --out @",
    "predict MODEL IMAGE --csv @", "predict MODEL IMAGE --jsonl @",
    "predict MODEL IMAGE --overlay @", "predict MODEL IMAGE --parquet @",
    "verify MODEL --against MODEL --data DATA --html @",
    "compare MODEL MODEL --data DATA --html @",
    "bench MODEL --out @",
    "stream MODEL IMAGE --out @", "stream MODEL IMAGE --video @.mp4",
    "data audit DATA --html @", "data split DATA --out @", "data synth @ --images 2",
    "demo --out @",
]  # fmt: skip


def _loop(folder: Path) -> str:
    for suffix in ("", ".xml", ".mp4"):  # those that commands add
        (folder / f"loop{suffix}").symlink_to(folder / f"loop{suffix}")
    return str(folder / "loop")


def _socket(folder: Path) -> str:
    short = Path(os.path.relpath(folder / "s"))  # a socket's name has 108 bytes at most
    with socket.socket(socket.AF_UNIX) as one:
        before = os.getcwd()
        os.chdir(folder)
        one.bind("s")
        os.chdir(before)
    return str(short.absolute())


def _text(folder: Path) -> str:
    (folder / "text").write_text("This is a text.\n")
    return str(folder / "text")


NOWHERE: dict[str, Callable[[Path], str]] = {
    "name of 300 bytes": lambda folder: str(folder / ("x" * 300)),
    "name of 300 bytes, relative": lambda folder: "x" * 300 + ".jpg",
    "name of 260 bytes in 130 letters": lambda folder: "é" * 130,
    "path of 6000 bytes": lambda folder: "x/" * 3000 + "y.png",
    "data URI": lambda folder: "data:image/png;base64," + "iVBORw0KGgo" * 2000,
    "short data URI": lambda folder: "data:image/jpeg;base64,/9j/4AAQ",
    "NUL": lambda folder: "a\0b.jpg",
    "loop": _loop,
    "below a file": lambda folder: _text(folder) + "/below.jpg",
    "below a loop": lambda folder: _loop(folder) + "/below.jpg",
}
UNREADABLE: dict[str, Callable[[Path], str]] = {
    "http": lambda folder: "http://localhost:9/a.jpg",
    "s3": lambda folder: "s3://bucket/a.onnx",
    "missing": lambda folder: str(folder / "missing"),
    "not UTF-8": lambda folder: os.fsdecode(bytes(folder) + b"/caf\xe9.jpg"),
    "folder": lambda folder: str(folder),
    "empty": lambda folder: "",
    "text": _text,
    "socket": _socket,
    "device": lambda folder: "/dev/null",
    "memory": lambda folder: "/proc/self/mem",
}
UNWRITABLE: dict[str, Callable[[Path], str]] = {
    "of the kernel": lambda folder: "/proc/edgeml/a",
}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, tiny_onnx: Path) -> dict[str, str]:
    folder = tmp_path_factory.mktemp("good")
    data = colour_folders(folder / "data")
    shutil.copy(tiny_onnx, folder / "tiny.onnx")
    return {
        "DATA": str(data),
        "IMAGE": str(next(data.rglob("*.png"))),
        "MODEL": str(folder / "tiny.onnx"),
    }


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let what a command writes despite all lie in a folder of its own."""
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")


def is_usable(command: str, kind: str) -> bool:
    """Whether this is no bad path for this command."""
    return (command, kind) in {
        ("train DATA --config @", "device"),  # as an empty file
        ("inspect MODEL --labels @", "text"),
        ("inspect MODEL --labels @", "device"),
    }


ALL = [
    *((command, kind) for command in READ for kind in [*NOWHERE, *UNREADABLE]),
    *((command, kind) for command in WRITTEN for kind in [*NOWHERE, *UNWRITABLE]),
]  # fmt: skip
# A quarter of the kinds for each command; `bench` starts a process for each model.
SOME = [one for number, one in enumerate(ALL) if number % 4 == 0 and "bench" not in one[0]]


def check(
    cases: Sequence[tuple[str, str]], places: dict[str, str], edgeml: Command, tmp_path: Path
) -> None:
    faults = []
    for number, (command, kind) in enumerate(cases):
        if is_usable(command, kind):
            continue
        folder = tmp_path / str(number)
        folder.mkdir()
        path = (NOWHERE | UNREADABLE | UNWRITABLE)[kind](folder)
        words = [places.get(word, word.replace(HERE, path)) for word in command.split()]
        result = edgeml(*words)
        lines = [line for line in result.err.splitlines() if line.strip()]
        # What `verify` cannot read does not hold.
        expected = (1, 2) if command.startswith("verify") else (2,)
        if result.status not in expected or not lines[-1].startswith("edgeml: "):
            faults.append(f"{command}, {kind}: {result.status} {result.out} {result.err}"[-900:])
        elif len(lines[-1]) > 1000 or "Traceback" in result.err:
            faults.append(f"{command}, {kind}: {result.err[:900]}")
    assert not faults, "\n".join(faults)


@pytest.mark.runtime
@pytest.mark.slow
@pytest.mark.parametrize("name", sorted({command.split()[0] for command, _ in SOME}))
def test_a_path_that_cannot_be_used_is_refused_in_one_line(
    name: str, places: dict[str, str], edgeml: Command, tmp_path: Path
) -> None:
    check([one for one in SOME if one[0].split()[0] == name], places, edgeml, tmp_path)


@pytest.mark.nightly
@pytest.mark.parametrize("command", [*READ, *WRITTEN])
def test_no_command_takes_any_path_that_cannot_be_used(
    command: str, places: dict[str, str], edgeml: Command, tmp_path: Path
) -> None:
    check([one for one in ALL if one[0] == command], places, edgeml, tmp_path)


def run(*words: object, **options: Any) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    code = "from edgeml.cli import main; main()"
    command = [sys.executable, "-c", code, *map(os.fspath, words)]  # type: ignore[call-overload]
    return subprocess.run(command, env=environment, text=True, timeout=60, **options)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="there is no /dev/full here")
def test_a_full_or_closed_stdout_ends_in_one_line_or_quietly(tmp_path: Path) -> None:
    colour_folders(tmp_path / "data")
    audit = ("data", "audit", tmp_path / "data", "--json")
    with open("/dev/full", "w") as full:
        done = run(*audit, stdout=full, stderr=subprocess.PIPE)
    assert done.returncode == 2
    assert "No space left" in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr
    ours, theirs = os.pipe()
    os.close(ours)  # as `| head` does when it has read enough
    done = run(*audit, stdout=theirs, stderr=subprocess.PIPE)
    os.close(theirs)
    assert done.returncode == 0
    assert "Error" not in done.stderr
    done = run(*audit, stderr=subprocess.PIPE, preexec_fn=lambda: os.close(1))
    assert done.returncode == 0, done.stderr
    assert "Error" not in done.stderr
    done = run(*audit, stdout=subprocess.PIPE, preexec_fn=lambda: os.close(2))
    assert done.returncode == 0
    assert json.loads(done.stdout)["images"] == 12


@pytest.mark.parametrize("device", ["/dev/full", "/dev/null"])
def test_a_device_is_not_replaced_by_a_file(device: str, edgeml: Command, tmp_path: Path) -> None:
    if not os.path.exists(device):
        pytest.skip("there is no such device here")
    before = os.lstat(device)
    data = colour_folders(tmp_path / "data")
    target = tmp_path / "out.csv"
    target.symlink_to(device)  # so that a failure of this test costs nobody a device
    for words in (("split", data, "--out", target), ("audit", data, "--html", target)):
        edgeml.refused("data", *words)
    assert os.path.samestat(os.lstat(device), before)
    assert target.is_symlink()
    with pytest.raises(InputError):  # in its folder even a link to a file may be a device
        check_writable(Path(device).with_name("edgeml-test"))


def test_a_folder_where_a_file_is_to_be_written_is_refused_before_the_work(
    edgeml: Command, tmp_path: Path
) -> None:
    data = colour_folders(tmp_path / "data")
    for words in (("split", data, "--out", data), ("audit", data, "--html", data)):
        assert "folder" in edgeml.refused("data", *words)


def test_a_name_that_is_no_text_is_printed_as_its_bytes(tmp_path: Path) -> None:
    name = bytes(tmp_path) + b"/caf\xe9"
    try:
        os.mkdir(name)
    except OSError:
        pytest.skip("names are text on this system")
    done = subprocess.run(
        [sys.executable, "-c", "from edgeml.cli import main; main()", "data", "synth", name,
         "--images", "2"],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == name
