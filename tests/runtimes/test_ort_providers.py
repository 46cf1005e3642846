"""Devices of ONNX Runtime. No GPU is needed: the CPU wheel falls to the CPU silently by itself.

Its AzureExecutionProvider takes no node, and a session with it opens without a warning.
"""

from __future__ import annotations

import sys
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from edgeml import Predictor
from edgeml.errors import InputError, ModelLoadError
from edgeml.runtimes import RuntimeOptions
from tests.runtimes.nets import every_layer_onnx, noise

ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
from edgeml.runtimes import ort_providers  # noqa: E402
from edgeml.runtimes.ort import OrtRuntime  # noqa: E402
from edgeml.runtimes.ort_providers import (  # noqa: E402
    CPU,
    CUDA,
    Provider,
    check_served,
    open_session,
    placement,
    provider_for,
)

pytestmark = pytest.mark.runtime

AZURE = "AzureExecutionProvider"
MADE_UP = "MadeUpExecutionProvider"

if AZURE not in ort.get_available_providers():
    pytest.skip("this build has no provider that does nothing", allow_module_level=True)


@pytest.fixture(scope="module")
def net(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return every_layer_onnx(tmp_path_factory.mktemp("net") / "net.onnx")


def provider(name: str = CUDA, **more: Any) -> Provider:
    return Provider(name=name, label="there", options={}, **more)


def test_onnx_runtime_itself_silently_uses_the_cpu(net: Path) -> None:
    """What the check is for: if this fails, ONNX Runtime has learnt to refuse."""
    session = ort.InferenceSession(str(net), providers=[AZURE], enable_fallback=0)
    assert session.get_providers()[0] == AZURE


def test_a_silent_fall_to_the_cpu_is_an_error_that_counts_the_layers(net: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"the CPU would run 1 Conv, 1 Gemm") as caught:
        Predictor(net, device=AZURE)
    assert "\n" not in str(caught.value)


def test_a_provider_that_came_as_devices_is_opened_as_well(net: Path) -> None:
    """The way of plugins, walked with the one whose devices are here: the CPU's own."""
    devices = tuple(d for d in ort.get_ep_devices() if d.ep_name == CPU)
    session = open_session(net, ort.SessionOptions(), provider(CPU, devices=devices))
    (logits,) = session.run(None, {"images": noise(2)})
    np.testing.assert_array_equal(logits, OrtRuntime(net).run(noise(2)))


def test_the_cpu_can_be_chosen_by_the_name_of_its_provider(net: Path) -> None:
    runtime = OrtRuntime(net, RuntimeOptions(device=CPU))
    assert runtime.name == f"onnxruntime {ort.__version__} CPU"
    assert runtime.metadata["precision"] == "f32"


@pytest.mark.parametrize("device", ["cuda", "CUDA:1"])
def test_cuda_without_a_build_for_it_is_refused_with_an_install_command(
    device: str, net: Path
) -> None:
    with pytest.raises(InputError, match=r"known are auto, cpu and Azure.*edgeml\[gpu\]") as caught:
        Predictor(net, device=device)
    assert ort.__version__ in str(caught.value)


@pytest.mark.parametrize("device", ["cuda:x", "cuda:-1", "cpu:0", "gpu", "", MADE_UP])
def test_a_device_that_does_not_exist_is_refused(device: str, net: Path) -> None:
    with pytest.raises(InputError, match="has no device"):
        Predictor(net, device=device)


@pytest.mark.parametrize(
    ("present", "placed", "message"),
    [
        ([CUDA, CPU], {CUDA: {"Conv": 3}, CPU: {"Shape": 1, "Gather": 2}}, None),
        ([CUDA, CPU], {CUDA: {"Conv": 3}}, None),
        ([CUDA, CPU], None, None),
        ([CPU], None, "could not be started"),
        ([CPU], {CPU: {"Conv": 3}}, "could not be started"),
        ([CUDA, CPU], {CPU: {"Relu": 3}}, "would run everything"),
        ([CUDA, CPU], {}, "would run everything"),
        ([CUDA, CPU], {CUDA: {"Conv": 9}, CPU: {"QLinearConv": 1}}, "would run 1 QLinearConv"),
        ([CUDA, CPU], {CUDA: {"Relu": 9}, CPU: {"FusedMatMul": 2}}, "would run 2 FusedMatMul"),
    ],
)
def test_the_provider_that_computes_must_be_the_requested_one(
    present: list[str], placed: dict[str, dict[str, int]] | None, message: str | None
) -> None:
    counted = None if placed is None else {name: Counter(ops) for name, ops in placed.items()}
    if message is None:
        check_served(Path("a.onnx"), provider(), present, counted)
        return
    with pytest.raises(ModelLoadError, match=message):
        check_served(Path("a.onnx"), provider(), present, counted)


class CudaOnTheCpu(ort.InferenceSession):  # type: ignore[misc]  # it has no types
    """A test double: a real session on the CPU that says it runs on CUDA, and keeps what it got."""

    arguments: Any = None
    present = (CUDA, CPU)

    def __init__(self, path: str, options: Any, *, providers: Any, enable_fallback: int) -> None:
        type(self).arguments = (providers, enable_fallback)
        super().__init__(path, options, providers=[CPU], enable_fallback=enable_fallback)

    def get_providers(self) -> list[str]:
        return list(self.present)

    def get_provider_graph_assignment_info(self) -> Any:
        return [
            SimpleNamespace(ep_name=self.present[0], get_nodes=part.get_nodes)
            for part in super().get_provider_graph_assignment_info()
        ]


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> type[CudaOnTheCpu]:
    ort_providers._preload.cache_clear()
    monkeypatch.setattr(ort, "get_available_providers", lambda: [CUDA, CPU])
    monkeypatch.setattr(ort, "InferenceSession", CudaOnTheCpu)
    return CudaOnTheCpu


@pytest.mark.parametrize(
    ("more", "options", "name", "precision"),
    [
        ({"device": "cuda"}, {"device_id": "0", "use_tf32": "0"}, "CUDA", "f32"),
        ({"device": "cuda:1"}, {"device_id": "1", "use_tf32": "0"}, "CUDA:1", "f32"),
        (
            {"device": "cuda", "precision": "fast"},
            {"device_id": "0", "use_tf32": "1"},
            "CUDA",
            "tf32",
        ),
    ],
)
def test_cuda_is_opened_without_fallback_and_without_tf32_unless_fast(
    more: Any, options: Any, name: str, precision: str, net: Path, cuda: type[CudaOnTheCpu]
) -> None:
    with Predictor(net, **more) as predictor:
        assert predictor.runtime.name.endswith(f" {name}")
        assert predictor.runtime.metadata["precision"] == precision
        assert predictor.runtime.run(noise(3)).shape == (3, 3)
    assert cuda.arguments == ([(CUDA, options)], 0)


def test_graphs_are_enabled_only_on_request(net: Path, cuda: type[CudaOnTheCpu]) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("edgeml.runtimes.ort.ReplayedSession", lambda *_: None)
        OrtRuntime(net, RuntimeOptions(device="cuda"), graphs=True)
    ((_, options),), _ = cuda.arguments
    assert options == {"device_id": "0", "use_tf32": "0", "enable_cuda_graph": "1"}


def test_the_report_on_missing_libraries_is_in_the_error_and_not_on_stdout(
    net: Path,
    cuda: type[CudaOnTheCpu],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    report = "Failed to load libcublasLt.so.13: cannot open shared object file"
    monkeypatch.setattr(ort, "preload_dlls", lambda: print(report))
    monkeypatch.setattr(cuda, "present", (CPU,))
    with pytest.raises(ModelLoadError, match=r"could not be started.*libcublasLt") as caught:
        OrtRuntime(net, RuntimeOptions(device="cuda"))
    assert "pip install 'onnxruntime-gpu[cuda,cudnn]'" in str(caught.value)
    assert capsys.readouterr().out == ""
    ort_providers._preload.cache_clear()


@pytest.fixture
def plugin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installed package with a provider, whose library is not valid."""
    package = tmp_path / "onnxruntime_ep_made_up"
    info = tmp_path / "onnxruntime_ep_made_up-1.2.dist-info"
    package.mkdir()
    info.mkdir()
    (package / "__init__.py").write_text(
        f"def get_ep_name(): return {MADE_UP!r}\n"
        f"def get_library_path(): return {str(package / 'made_up.so')!r}\n"
    )
    (package / "made_up.so").write_text("no library")
    (info / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: onnxruntime-ep-made-up\nVersion: 1.2\n"
    )
    (info / "RECORD").write_text("onnxruntime_ep_made_up/__init__.py,,\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield package
    sys.modules.pop("onnxruntime_ep_made_up", None)


def test_a_plugin_that_cannot_be_loaded_is_an_error(plugin: Path, net: Path) -> None:
    with pytest.raises(ModelLoadError, match=r"onnxruntime-ep-made-up 1\.2: .*made_up\.so"):
        Predictor(net, device=MADE_UP)


def test_a_plugin_that_cannot_be_imported_is_an_error(plugin: Path, net: Path) -> None:
    (plugin / "__init__.py").write_text("raise OSError('libmade_up.so: no such file')")
    with pytest.raises(ModelLoadError, match=r"onnxruntime-ep-made-up .*: libmade_up\.so: no such"):
        Predictor(net, device=MADE_UP)


def test_what_pip_left_of_a_removed_package_is_passed_over(plugin: Path, net: Path) -> None:
    (plugin.parent / "~nnxruntime-1.0.dist-info").mkdir()
    with pytest.raises(ModelLoadError, match=r"onnxruntime-ep-made-up 1\.2"):
        Predictor(net, device=MADE_UP)


def test_a_plugin_is_registered_once_and_serves_by_its_first_device(
    plugin: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registered: list[tuple[str, str]] = []
    devices = [SimpleNamespace(ep_name=MADE_UP, number=number) for number in range(2)]
    monkeypatch.setattr(ort, "get_ep_devices", lambda: devices if registered else [])
    monkeypatch.setattr(
        ort, "register_execution_provider_library", lambda *given: registered.append(given)
    )
    first, second = provider_for(MADE_UP), provider_for(MADE_UP)
    assert first == second
    assert (first.label, first.devices) == ("MadeUp", (devices[0],))
    assert registered == [("onnxruntime-ep-made-up", str(plugin / "made_up.so"))]


def test_a_plugin_that_is_not_requested_is_not_imported(plugin: Path, net: Path) -> None:
    Predictor(net).close()
    assert "onnxruntime_ep_made_up" not in sys.modules


def test_placement_is_unknown_of_an_onnx_runtime_that_does_not_tell() -> None:
    assert placement(SimpleNamespace()) is None
