"""What several tests share: the real photos and weights, where they are present."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from edgeml.doctor.probes import Finding
from tests.command import Command
from tests.doctor.machines import examined
from tests.tiny import make_tiny_onnx

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"


def _shared(relative: str) -> Path:
    path = SHARED / relative
    if not path.exists():
        pytest.skip(f"{relative} is not beside the checkout, in ../shared")
    return path


@pytest.fixture(scope="session", autouse=True)
def cache_of_the_tests(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Keep decoded pictures of the tests out of the user's cache."""
    folder = tmp_path_factory.mktemp("cache")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEML_CACHE", str(folder))
        yield folder


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep resized pictures out of the user's cache."""
    os.environ["XDG_CACHE_HOME"] = str(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def clothing() -> Path:
    """The folder of 3,211 real photos of clothes, with labels.csv."""
    return _shared("data/clothing_cc0")


@pytest.fixture(scope="session")
def mobilenet_weights() -> Path:
    """Real ImageNet weights of mobilenetv2_100 with pad_type=same."""
    return _shared("models/mobilenetv2_100/mobilenetv2_100_same_in1k.safetensors")


@pytest.fixture(scope="session")
def tiny_onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model file of 2 kB that names the colour that prevails: red, green or blue."""
    return make_tiny_onnx(tmp_path_factory.mktemp("tiny") / "tiny.onnx")


@pytest.fixture
def edgeml(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capsys)


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> Callable[..., dict[str, Finding]]:
    """Give a function that examines a machine with these packages and files, and no others."""

    def made(versions: dict[str, str], **more: Any) -> dict[str, Finding]:
        return examined(monkeypatch, versions, **more)

    return made
