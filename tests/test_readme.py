"""Every block of code in the README is run, in order."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.command import Command
from tests.conftest import ROOT

BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", (ROOT / "README.md").read_text("utf-8"), re.M | re.S)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with what the README takes for granted: photos/, new.jpg and clip.mp4."""
    from edgeml.data.synth.draw import synthesize

    folder = tmp_path_factory.mktemp("readme")
    synthesize(folder / "photos", images=288, size=64, seed=5)
    shutil.copy(next((folder / "photos").glob("red_shirt/*.jpg")), folder / "new.jpg")
    frame = cv2.resize(cv2.imread(str(folder / "new.jpg")), (160, 120))
    video = cv2.VideoWriter(
        str(folder / "clip.mp4"), cv2.VideoWriter.fourcc(*"mp4v"), 10, (160, 120)
    )
    for shift in range(10):
        video.write(np.roll(frame, 5 * shift, axis=1))
    video.release()
    return folder


def commands(block: str) -> Iterator[str]:
    for line in block.splitlines():
        if command := line.split("  #")[0].strip():
            yield command


def run(command: str, folder: Path, **extra: str) -> subprocess.CompletedProcess[str]:
    env = os.environ | extra | {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}
    return subprocess.run(
        command, shell=True, cwd=folder, env=env, capture_output=True, text=True, timeout=600
    )


def check(done: subprocess.CompletedProcess[str]) -> None:
    assert done.returncode == 0, f"{done.args}\n{done.stdout[-2000:]}\n{done.stderr[-3000:]}"


def test_the_first_screen_shows_the_two_commands() -> None:
    first_screen = "\n".join((ROOT / "README.md").read_text("utf-8").splitlines()[:24])
    assert "make demo" in first_screen
    assert "make test" in first_screen


def test_every_block_is_of_a_kind_that_this_test_runs() -> None:
    assert {kind for kind, _ in BLOCKS} == {"sh", "python"}


@pytest.mark.nightly
@pytest.mark.train
@pytest.mark.runtime
def test_make_demo_runs(tmp_path: Path) -> None:
    """The same target with less data."""
    check(run("make demo", ROOT, ARGS="--images 300 --epochs 1", OUT=str(tmp_path / "demo")))


def test_make_test_runs_the_tests() -> None:
    done = run("make --dry-run test", ROOT)
    check(done)
    assert "-m pytest" in done.stdout


@pytest.mark.train
@pytest.mark.runtime
def test_every_other_block_runs(
    place: Path, edgeml: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Commands of edgeml run in this process, because starting torch 30 times takes minutes."""
    monkeypatch.chdir(place)
    monkeypatch.setattr("edgeml_export.check.SPEED_SECONDS", 0.5)
    for kind, block in BLOCKS:
        if kind == "python":
            check(subprocess.run([sys.executable, "-c", block], capture_output=True, text=True))
            continue
        for command in commands(block):
            match shlex.split(command):
                case ["make", *_]:
                    pass
                case ["edgeml", *words] if "|" not in words:
                    less = ["--epochs", "2", "--size", "32"] if words[0] == "train" else []
                    done = edgeml(*words, *less)
                    assert done.status == 0, f"{command}\n{done.out[-2000:]}\n{done.err[-3000:]}"
                case _:
                    check(run(command, place))
