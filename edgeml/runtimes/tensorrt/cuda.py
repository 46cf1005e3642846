"""CUDA through cuda-bindings: device memory, pinned buffers, streams, graphs. No torch, no pycuda.

Every status is checked. Nothing here is imported until a GPU is asked for.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import InferenceError, MissingDependencyError, ModelLoadError
from edgeml.runtimes.tensorrt.passport import Gpu

_DRIVER_VERSION = Path("/proc/driver/nvidia/version")


def bindings() -> Any:
    """Import `cuda.bindings.runtime`. Safe without a driver. Tests replace it.

    Raises:
        MissingDependencyError: cuda-bindings is not installed.
    """
    try:
        from cuda.bindings import runtime
    except ModuleNotFoundError as err:
        if err.name not in ("cuda", "cuda.bindings"):  # other packages live in `cuda` too
            raise
        raise MissingDependencyError(
            "To run on an NVIDIA GPU, edgeml needs cuda-bindings: pip install 'edgeml[trt]'",
            name="cuda.bindings",
        ) from err
    return runtime


def device_count() -> int:
    """Count the GPUs that CUDA can use: 0 where there is no driver, or one that is too old.

    Raises:
        MissingDependencyError: cuda-bindings is not installed.
    """
    cudart = bindings()
    status, count = cudart.cudaGetDeviceCount()
    return int(count) if status == cudart.cudaError_t.cudaSuccess else 0


def this_gpu(index: int = 0) -> Gpu:
    """Describe a GPU of this machine.

    Raises:
        MissingDependencyError: cuda-bindings is not installed.
        ModelLoadError: There is no such GPU; says CUDA's reason.
        InferenceError: CUDA cannot describe it.
    """
    cudart = bindings()
    status, count = cudart.cudaGetDeviceCount()
    if status != cudart.cudaError_t.cudaSuccess:
        raise ModelLoadError(
            f"No NVIDIA GPU can be used here: {told(cudart, status)}. "
            "`edgeml doctor` says what is missing."
        )
    if not 0 <= index < count:
        raise ModelLoadError(f"There is no GPU {index}; CUDA finds {count}, counted from 0.")
    properties = checked(cudart, cudart.cudaGetDeviceProperties(index))
    newest = int(checked(cudart, cudart.cudaDriverGetVersion()))
    cuda = f"{newest // 1000}.{newest % 1000 // 10}"
    return Gpu(
        name=bytes(properties.name).split(b"\0")[0].decode("utf-8", "replace"),
        compute_capability=f"{properties.major}.{properties.minor}",
        driver=_driver_version() or f"CUDA {cuda}",
        cuda=cuda,
    )


@contextmanager
def use(index: int) -> Iterator[None]:
    """Let this thread work with a GPU in this block, and afterwards with the one of before.

    Which one that is belongs to the whole thread: PyTorch beside us would go on with ours.
    """
    cudart = bindings()
    before = int(checked(cudart, cudart.cudaGetDevice()))
    if before == index:
        yield
        return
    checked(cudart, cudart.cudaSetDevice(index))
    try:
        yield
    finally:
        checked(cudart, cudart.cudaSetDevice(before))


@contextmanager
def device_memory(nbytes: int) -> Iterator[int]:
    """Allocate memory on the GPU; give its address."""
    cudart = bindings()
    address = int(checked(cudart, cudart.cudaMalloc(nbytes), f"for {nbytes:,} bytes on the GPU"))
    try:
        yield address
    finally:
        checked(cudart, cudart.cudaFree(address))


@contextmanager
def pinned_array(shape: tuple[int, ...], dtype: str) -> Iterator[NDArray[Any]]:
    """Allocate an array in host memory that the GPU reads and writes by itself.

    From other memory a copy would wait for the GPU and could not be captured in a graph.
    """
    cudart = bindings()
    nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    answer = cudart.cudaHostAlloc(nbytes, cudart.cudaHostAllocDefault)
    address = int(checked(cudart, answer, f"for {nbytes:,} bytes of pinned memory"))
    try:
        raw = (ctypes.c_uint8 * nbytes).from_address(address)
        yield np.frombuffer(memoryview(raw), np.dtype(dtype)).reshape(shape)
    finally:
        checked(cudart, cudart.cudaFreeHost(address))


@dataclass(frozen=True)
class Stream:
    """A queue of work for the GPU. What is put on it is done in order, and not waited for."""

    cudart: Any
    handle: Any

    def to_device(self, address: int, host: NDArray[Any]) -> None:
        """Copy a pinned array to the GPU."""
        self._copy(address, host.ctypes.data, host.nbytes, "cudaMemcpyHostToDevice")

    def to_host(self, host: NDArray[Any], address: int) -> None:
        """Fill a pinned array from the GPU; it is full after `wait`."""
        self._copy(host.ctypes.data, address, host.nbytes, "cudaMemcpyDeviceToHost")

    def launch(self, graph: Any) -> None:
        """Replay what `captured` recorded."""
        checked(self.cudart, self.cudart.cudaGraphLaunch(graph, self.handle))

    def wait(self) -> None:
        """Wait until all is done. An error of earlier work shows here."""
        checked(self.cudart, self.cudart.cudaStreamSynchronize(self.handle))

    def _copy(self, to: int, source: int, nbytes: int, kind: str) -> None:
        kinds = self.cudart.cudaMemcpyKind
        answer = self.cudart.cudaMemcpyAsync(to, source, nbytes, getattr(kinds, kind), self.handle)
        checked(self.cudart, answer)


@contextmanager
def stream() -> Iterator[Stream]:
    """Make a stream that waits for no other, which the default one does."""
    cudart = bindings()
    answer = cudart.cudaStreamCreateWithFlags(cudart.cudaStreamNonBlocking)
    handle = checked(cudart, answer)
    try:
        yield Stream(cudart, handle)
    finally:
        checked(cudart, cudart.cudaStreamDestroy(handle))


@contextmanager
def captured(stream: Stream, enqueue: Callable[[], None]) -> Iterator[Any]:
    """Record what `enqueue` puts on a stream as a graph that `Stream.launch` replays.

    Nothing is done while it is recorded. The addresses are recorded too.

    Raises:
        InferenceError: CUDA cannot record it; the stream can be used as before.
    """
    cudart = stream.cudart
    graph = _record(stream, enqueue)
    try:
        replayable = checked(cudart, cudart.cudaGraphInstantiate(graph, 0))
    finally:
        checked(cudart, cudart.cudaGraphDestroy(graph))
    try:
        yield replayable
    finally:
        checked(cudart, cudart.cudaGraphExecDestroy(replayable))


def _record(stream: Stream, enqueue: Callable[[], None]) -> Any:
    cudart = stream.cudart
    # Of this thread only: others may allocate meanwhile, which would spoil a global capture.
    mode = cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
    checked(cudart, cudart.cudaStreamBeginCapture(stream.handle, mode))
    try:
        enqueue()
    except BaseException:
        status, half = cudart.cudaStreamEndCapture(stream.handle)
        if status == cudart.cudaError_t.cudaSuccess:
            cudart.cudaGraphDestroy(half)
        raise
    return checked(cudart, cudart.cudaStreamEndCapture(stream.handle))


def checked(cudart: Any, answer: tuple[Any, ...], wanted: str = "") -> Any:
    """Give what a CUDA call returned besides its status, which must be success.

    Raises:
        InferenceError: It is not; names the status, and what was `wanted`.
    """
    status, *values = answer
    if status != cudart.cudaError_t.cudaSuccess:
        raise InferenceError(f"CUDA failed{wanted and f' {wanted}'}: {told(cudart, status)}.")
    return values[0] if len(values) == 1 else None


def told(cudart: Any, status: Any) -> str:
    """Give CUDA's name of a status and its text: `cudaErrorNoDevice (no CUDA-capable ...)`."""
    name, text = cudart.cudaGetErrorName(status)[1], cudart.cudaGetErrorString(status)[1]
    return f"{_text(name)} ({_text(text)})"


def _text(value: Any) -> str:
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def _driver_version() -> str | None:
    try:
        text = _DRIVER_VERSION.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    found = re.search(r"Kernel Module\D*([\d.]+)", text)
    return found[1] if found else None
