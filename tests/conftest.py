"""What several tests share: the light tier, real photos and weights, a tiny model.

The light tier (`make quick`) is every test module that can be imported where the heavy libraries
cannot. It runs in a minute, on every supported Python, and proves that a device needs none of them.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable, Iterator
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Any

import pytest
from hypothesis import settings

from edgeml.doctor.probes import Finding
from tests.command import Command
from tests.doctor.machines import examined
from tests.heavy import REPORTS, RUNTIMES_AND_TORCH
from tests.tiny import make_tiny_onnx

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared"

# Normal tests never assert on time, and a shared machine may take ten times as long as usual.
settings.register_profile("edgeml", deadline=None)
settings.load_profile("edgeml")

HEAVY_MARKERS = ("runtime", "train", "slow")

LIGHT = os.environ.get("EDGEML_TESTS") == "light"


def is_heavy(module: str) -> bool:
    return module.split(".")[0] in (*RUNTIMES_AND_TORCH, *REPORTS)


class Absent(MetaPathFinder):
    """Finds no heavy library, as on a machine that lacks them all."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:
        if is_heavy(fullname):
            raise ModuleNotFoundError(f"No module named {fullname!r}", name=fullname)


if LIGHT:
    sys.meta_path.insert(0, Absent())
    collect_ignore = ["export", "training", "network"]


class LightModule(pytest.Module):
    """A test module that is skipped if it imports a heavy library."""

    def _getobj(self) -> Any:
        try:
            return super()._getobj()
        except self.CollectError as err:
            cause: BaseException | None = err
            while cause := cause.__cause__:
                if isinstance(cause, ImportError) and is_heavy(cause.name or ""):
                    pytest.skip(f"needs {cause.name}", allow_module_level=True)
            raise


def pytest_configure() -> None:
    """Let Ctrl-C tests pass in a background job too: shells start one with SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_pycollect_makemodule(module_path: Path, parent: pytest.Collector) -> pytest.Module:
    kind = LightModule if LIGHT else pytest.Module
    return kind.from_parent(parent, path=module_path)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave what needs a runtime, torch or many seconds out of the light tier.

    The README's commands run first, since one worker takes minutes for them.
    """
    items.sort(key=lambda item: item.path.name != "test_readme.py")
    if LIGHT:
        heavy = [item for item in items if any(map(item.get_closest_marker, HEAVY_MARKERS))]
        config.hook.pytest_deselected(items=heavy)
        items[:] = [item for item in items if item not in set(heavy)]


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
    """A model file of 2 kB that names the prevailing colour: red, green or blue."""
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
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
