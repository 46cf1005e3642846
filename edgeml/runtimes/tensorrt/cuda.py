"""CUDA through cuda-bindings: device memory, pinned buffers, streams, graphs. No torch, no pycuda.

Every status is checked. Nothing is imported before a GPU is needed.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import InferenceError, MissingDependencyError, ModelLoadError
from edgeml.runtimes.tensorrt.passport import Gpu

_DRIVER_VERSION = Path("/proc/driver/nvidia/version")


def bindings() -> Any:
    """Import `cuda.bindings.runtime`, which is safe without a driver. Tests replace this.

    Raises:
        MissingDependencyError: cuda-bindings is not installed.
    """
    try:
        from cuda.bindings import runtime
    except ModuleNotFoundError as err:
        if err.name not in ("cuda", "cuda.bindings"):  # other packages are in `cuda` too
            raise
        raise MissingDependencyError(
            "To run on an NVIDIA GPU, edgeml needs cuda-bindings: pip install 'edgeml[trt]'",
            name="cuda.bindings",
        ) from err
    return runtime


def device_count() -> int:
    """Return the number of GPUs that CUDA can use: 0 without a driver, or with one too old.

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
        ModelLoadError: There is no such GPU; states CUDA's reason.
        InferenceError: CUDA cannot describe it.
    """
    cudart = bindings()
    status, count = cudart.cudaGetDeviceCount()
    if status != cudart.cudaError_t.cudaSuccess:
        raise ModelLoadError(
            f"No NVIDIA GPU can be used here: {describe_status(cudart, status)}. "
            "`edgeml doctor` names what is missing."
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
    """Let this thread use a GPU in this block, and afterwards the previous one.

    The choice belongs to the thread, so PyTorch in the same thread would otherwise use our GPU.
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
    """Allocate memory on the GPU, and return its address."""
    cudart = bindings()
    address = int(checked(cudart, cudart.cudaMalloc(nbytes), f"for {nbytes:,} bytes on the GPU"))
    try:
        yield address
    finally:
        checked(cudart, cudart.cudaFree(address))


@contextmanager
def pinned_array(shape: tuple[int, ...], dtype: str) -> Iterator[NDArray[Any]]:
    """Allocate an array in host memory that the GPU reads and writes directly.

    A copy from other memory would wait for the GPU, and could not be captured in a graph.
    """
    cudart = bindings()
    nbytes = int(np.prod(shape)) * np.dtype(dtype).itemsize
    result = cudart.cudaHostAlloc(nbytes, cudart.cudaHostAllocDefault)
    address = int(checked(cudart, result, f"for {nbytes:,} bytes of pinned memory"))
    try:
        raw = (ctypes.c_uint8 * nbytes).from_address(address)
        yield np.frombuffer(memoryview(raw), np.dtype(dtype)).reshape(shape)
    finally:
        checked(cudart, cudart.cudaFreeHost(address))


@dataclass(frozen=True)
class Stream:
    """A queue of work for the GPU, which is done in order and asynchronously."""

    cudart: Any
    handle: Any

    def to_device(self, address: int, host: NDArray[Any]) -> None:
        """Copy a pinned array to the GPU."""
        self._copy(address, host.ctypes.data, host.nbytes, "cudaMemcpyHostToDevice")

    def to_host(self, host: NDArray[Any], address: int) -> None:
        """Fill a pinned array from the GPU; it is complete after `wait`."""
        self._copy(host.ctypes.data, address, host.nbytes, "cudaMemcpyDeviceToHost")

    def launch(self, graph: Any) -> None:
        """Replay a graph that `captured` recorded."""
        checked(self.cudart, self.cudart.cudaGraphLaunch(graph, self.handle))

    def wait(self) -> None:
        """Wait until all work is done, and raise the errors of earlier work."""
        checked(self.cudart, self.cudart.cudaStreamSynchronize(self.handle))

    def _copy(self, to: int, source: int, nbytes: int, kind: str) -> None:
        kinds = self.cudart.cudaMemcpyKind
        result = self.cudart.cudaMemcpyAsync(to, source, nbytes, getattr(kinds, kind), self.handle)
        checked(self.cudart, result)


@contextmanager
def stream() -> Iterator[Stream]:
    """Create a stream that, unlike the default one, waits for no other."""
    cudart = bindings()
    handle = checked(cudart, cudart.cudaStreamCreateWithFlags(cudart.cudaStreamNonBlocking))
    try:
        yield Stream(cudart, handle)
    finally:
        checked(cudart, cudart.cudaStreamDestroy(handle))


@contextmanager
def captured(stream: Stream, enqueue: Callable[[], None]) -> Iterator[Any]:
    """Record the work that `enqueue` puts on a stream, as a graph that `Stream.launch` replays.

    The work is not done while it is recorded. The addresses are recorded too.

    Raises:
        InferenceError: CUDA cannot record it; the stream can still be used.
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
    # Only this thread: an allocation by another one would spoil a global capture.
    mode = cudart.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
    checked(cudart, cudart.cudaStreamBeginCapture(stream.handle, mode))
    try:
        enqueue()
    except BaseException:
        status, partial = cudart.cudaStreamEndCapture(stream.handle)
        if status == cudart.cudaError_t.cudaSuccess:
            cudart.cudaGraphDestroy(partial)
        raise
    return checked(cudart, cudart.cudaStreamEndCapture(stream.handle))


def checked(cudart: Any, result: tuple[Any, ...], purpose: str = "") -> Any:
    """Return the value of a CUDA call whose status is success.

    Raises:
        InferenceError: The status is another one; names it, and the `purpose`.
    """
    status, *values = result
    if status != cudart.cudaError_t.cudaSuccess:
        failed = f"CUDA failed {purpose}".rstrip()
        raise InferenceError(f"{failed}: {describe_status(cudart, status)}.")
    return values[0] if len(values) == 1 else None


def describe_status(cudart: Any, status: Any) -> str:
    """Return CUDA's name of a status and its text: `cudaErrorNoDevice (no CUDA-capable ...)`."""
    texts = (cudart.cudaGetErrorName(status)[1], cudart.cudaGetErrorString(status)[1])
    name, text = (t.decode("utf-8", "replace") if isinstance(t, bytes) else t for t in texts)
    return f"{name} ({text})"


def _driver_version() -> str | None:
    with suppress(OSError):
        text = _DRIVER_VERSION.read_text(encoding="utf-8", errors="replace")
        if match := re.search(r"Kernel Module\D*([\d.]+)", text):
            return match[1]
    return None
