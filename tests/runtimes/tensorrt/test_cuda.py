from __future__ import annotations

import builtins
from typing import Any

import numpy as np
import pytest

from edgeml.errors import InferenceError, MissingDependencyError

pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
pytest.importorskip("cuda.bindings", reason="cuda-bindings is not installed")
from cuda.bindings import runtime as cudart

from edgeml.runtimes.tensorrt import cuda as cuda_module
from edgeml.runtimes.tensorrt.passport import Gpu
from tests.runtimes.tensorrt.cuda_standin import CudaStandin

pytestmark = pytest.mark.runtime


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> CudaStandin:
    made = CudaStandin(name="Stand-in 4090", capability=(8, 9), driver=12040, memory=10_000)
    monkeypatch.setattr(cuda_module, "bindings", lambda: made)
    return made


def test_a_gpu_is_described(cuda: CudaStandin, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_module, "_driver_version", lambda: "550.54.15")
    assert cuda_module.this_gpu() == Gpu(
        name="Stand-in 4090", compute_capability="8.9", driver="550.54.15", cuda="12.4"
    )


def test_numbers_go_to_the_gpu_and_back(cuda: CudaStandin) -> None:
    with (
        cuda_module.stream() as stream,
        cuda_module.pinned_array((2, 3), "float32") as there,
        cuda_module.pinned_array((2, 3), "float32") as back,
        cuda_module.device_memory(24) as address,
    ):
        there[:] = np.arange(6).reshape(2, 3)
        stream.to_device(address, there)
        stream.to_host(back, address)
        assert not np.array_equal(back, there)
        stream.wait()
        np.testing.assert_array_equal(back, there)
    assert cuda.nothing_alive


def test_a_graph_does_again_what_was_recorded(cuda: CudaStandin) -> None:
    with (
        cuda_module.stream() as stream,
        cuda_module.pinned_array((4,), "uint8") as there,
        cuda_module.pinned_array((4,), "uint8") as back,
        cuda_module.device_memory(4) as address,
    ):

        def both() -> None:
            stream.to_device(address, there)
            stream.to_host(back, address)

        with cuda_module.captured(stream, both) as graph:
            for value in (7, 9):
                there[:] = value
                stream.launch(graph)
                stream.wait()
                assert (back == value).all()
    assert cuda.nothing_alive


def test_all_is_freed_when_something_fails(cuda: CudaStandin) -> None:
    with (
        pytest.raises(InferenceError, match=r"for 20,000 bytes on the GPU: cudaErrorMemoryAll"),
        cuda_module.stream(),
        cuda_module.pinned_array((4,), "uint8"),
        cuda_module.device_memory(5_000),
        cuda_module.device_memory(20_000),
    ):
        raise AssertionError("unreachable")
    assert cuda.nothing_alive


@pytest.mark.parametrize("broken", ["cudaFree", "cudaStreamDestroy", "cudaFreeHost"])
def test_a_status_is_checked_even_as_memory_is_given_back(
    broken: str, cuda: CudaStandin, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = (cudart.cudaError_t.cudaErrorLaunchFailure,)
    monkeypatch.setitem(cuda.__dict__, broken, lambda handle: failed)
    with (
        pytest.raises(InferenceError, match="cudaErrorLaunchFailure"),
        cuda_module.stream(),
        cuda_module.pinned_array((4,), "uint8"),
        cuda_module.device_memory(4),
    ):
        pass


def test_no_driver_is_no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda_module, "bindings", lambda: CudaStandin(count=0))
    assert cuda_module.device_count() == 0


def test_counting_the_real_gpus_is_safe() -> None:
    assert cuda_module.device_count() >= 0


def test_without_cuda_bindings_the_line_that_installs_it_is_given(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    real = builtins.__import__

    def gone(name: str, *args: Any, **keywords: Any) -> Any:
        if name.startswith("cuda"):
            raise ModuleNotFoundError(f"No module named {name!r}", name="cuda")
        return real(name, *args, **keywords)

    monkeypatch.setattr(builtins, "__import__", gone)
    with pytest.raises(MissingDependencyError, match=r"pip install 'edgeml\[trt\]'"):
        cuda_module.device_count()
