"""A test double of `cuda.bindings.runtime`: host memory stands in for a GPU's.

Only names that the real module has are answered, with the parameters that it takes. It is as
unforgiving as the real thing in what code gets wrong: device addresses are of no memory of this
process, work on a stream is done no sooner than someone waits for it, and what is not freed, or
freed twice, is counted.
"""

# ruff: noqa: N802  the functions have CUDA's names

from __future__ import annotations

import ctypes
import re
import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from cuda.bindings import runtime as real
from numpy.typing import NDArray

SUCCESS = real.cudaError_t.cudaSuccess

_DEVICE_SPACE = 0x2_0000_0000_0000  # user space of x86-64 and arm64 ends at 0x8000_0000_0000
_APART = 1 << 32

Work = Callable[[], None]


class CudaStandin:
    """Stands where `cuda.bindings.runtime` would be imported.

    Args:
        count: How many GPUs; 0 answers as a machine without a driver does.
        name: Of each.
        names: One for each, where they are of several models.
        capability: Compute capability of each.
        driver: The newest CUDA that the driver serves.
        memory: Bytes of device memory.
        captures: Whether streams can be captured; some networks cannot be.

    Attributes:
        counted: Whether the GPUs were counted.
        allocated: How many pieces of memory were given, of GPU and host.
        freed: How many came back.
        captures_begun: How many times a graph was to be recorded.
        launches: How many graphs were launched.
        fault: The status that the next waits for a stream return, as after a crashed kernel.
        used: The GPUs on which memory was allocated.
    """

    def __init__(
        self,
        *,
        count: int = 1,
        name: str = "Stand-in GPU",
        names: Sequence[str] = (),
        capability: tuple[int, int] = (8, 6),
        driver: int = 13000,
        memory: int = 1 << 34,
        captures: bool = True,
    ) -> None:
        self.counted = False
        self.freed = 0
        self.allocated = 0
        self.captures_begun = 0
        self.launches = 0
        self.fault: Any = None
        self.used: set[int] = set()
        self._local = threading.local()
        self._count, self._capability = count, capability
        self._names = names or (name,) * count
        self._driver, self._memory, self._captures = driver, memory, captures
        self._lock = threading.RLock()
        self._device: dict[int, NDArray[np.uint8]] = {}
        self._pinned: dict[int, NDArray[np.uint8]] = {}
        self._streams: dict[int, list[Work]] = {}
        self._capturing: dict[int, list[Work] | None] = {}
        self._graphs: dict[int, list[Work]] = {}
        self._execs: dict[int, list[Work]] = {}
        self._next = 16

    def __getattr__(self, name: str) -> Any:
        """Refuse what the real module lacks; give its enums and constants."""
        value = getattr(real, name)  # AttributeError, as there
        if callable(value) and not isinstance(value, type):
            done = self.__class__.__dict__.get(f"_{name}")
            if done is None:
                raise NotImplementedError(f"The stand-in does not do {name}.")
            return _strict(name, value, done.__get__(self))
        return value

    @property
    def alive(self) -> dict[str, int]:
        """Count what was created and not yet given back, by kind."""
        return {
            "device": len(self._device),
            "pinned": len(self._pinned),
            "streams": len(self._streams),
            "graphs": len(self._graphs),
            "execs": len(self._execs),
        }

    @property
    def nothing_alive(self) -> bool:
        return not any(self.alive.values())

    @property
    def here(self) -> str | None:
        """Name the GPU that this thread works with; None without one."""
        return self._names[getattr(self._local, "device", 0)] if self._count else None

    def device_view(self, address: int, nbytes: int) -> NDArray[np.uint8]:
        """Give device memory, for a kernel. An address that is not allocated is a fault."""
        with self._lock:
            for start, memory in self._device.items():
                if start <= address < start + memory.size:
                    offset = address - start
                    assert offset + nbytes <= memory.size, "past the end of an allocation"
                    return memory[offset : offset + nbytes]
        raise AssertionError(f"{address:#x} is not device memory")

    def enqueue(self, stream: int, work: Work) -> None:
        """Put a kernel on a stream, or into the graph that it is captured into."""
        with self._lock:
            assert stream in self._streams, f"{stream} is no stream"
            captured = self._capturing.get(stream)
            (self._streams[stream] if captured is None else captured).append(work)

    def is_capturing(self, stream: int) -> bool:
        with self._lock:
            return self._capturing.get(stream) is not None

    def hold(self, nbytes: int) -> Callable[[], None]:
        """Allocate for a library; give what frees it again."""
        status, address = self._cudaMalloc(nbytes)
        if status != SUCCESS:
            raise MemoryError

        def free() -> None:
            self._cudaFree(address)

        return free

    def _handle(self) -> int:
        with self._lock:
            self._next += 16
            return self._next

    def _cudaGetDeviceCount(self) -> Any:
        self.counted = True
        if not self._count:
            return real.cudaError_t.cudaErrorInsufficientDriver, None
        return SUCCESS, self._count

    def _cudaDriverGetVersion(self) -> Any:
        return SUCCESS, self._driver

    def _cudaGetErrorName(self, error: Any) -> Any:
        return real.cudaGetErrorName(error)

    def _cudaGetErrorString(self, error: Any) -> Any:
        return real.cudaGetErrorString(error)

    def _cudaGetDeviceProperties(self, device: int) -> Any:
        if device >= self._count:
            return real.cudaError_t.cudaErrorInvalidDevice, None
        properties = real.cudaDeviceProp()
        properties.name = self._names[device].encode().ljust(256, b"\0")
        properties.major, properties.minor = self._capability
        return SUCCESS, properties

    def _cudaGetDevice(self) -> Any:
        return SUCCESS, getattr(self._local, "device", 0)

    def _cudaSetDevice(self, device: int) -> Any:
        if device >= self._count:
            return (real.cudaError_t.cudaErrorInvalidDevice,)
        self._local.device = device
        return (SUCCESS,)

    def _cudaMalloc(self, size: int) -> Any:
        with self._lock:
            if size + sum(memory.size for memory in self._device.values()) > self._memory:
                return real.cudaError_t.cudaErrorMemoryAllocation, None
            address = _DEVICE_SPACE + self._handle() * _APART
            # Filled, as a real one is full of what was there before.
            self._device[address] = np.full(size, 0xA5, np.uint8)
            self.used.add(getattr(self._local, "device", 0))
            self.allocated += 1
        return SUCCESS, address

    def _cudaFree(self, devPtr: int) -> Any:
        with self._lock:
            assert self._device.pop(int(devPtr), None) is not None, "freed twice, or never ours"
            self.freed += 1
        return (SUCCESS,)

    def _cudaHostAlloc(self, size: int, flags: int) -> Any:
        assert flags in (real.cudaHostAllocDefault, real.cudaHostAllocPortable)
        memory = np.full(size, 0xA5, np.uint8)
        with self._lock:
            self._pinned[memory.ctypes.data] = memory
            self.allocated += 1
        return SUCCESS, memory.ctypes.data

    def _cudaFreeHost(self, ptr: int) -> Any:
        with self._lock:
            assert self._pinned.pop(int(ptr), None) is not None, "freed twice, or never ours"
            self.freed += 1
        return (SUCCESS,)

    def _cudaStreamCreateWithFlags(self, flags: int) -> Any:
        assert flags == real.cudaStreamNonBlocking
        with self._lock:
            handle = self._handle()
            self._streams[handle] = []
        return SUCCESS, real.cudaStream_t(handle)

    def _cudaStreamDestroy(self, stream: Any) -> Any:
        with self._lock:
            assert not self._streams.pop(int(stream)), "destroyed with work that nobody waited for"
        return (SUCCESS,)

    def _cudaStreamSynchronize(self, stream: Any) -> Any:
        if self.is_capturing(int(stream)):
            self._capturing[int(stream)] = []
            return (real.cudaError_t.cudaErrorStreamCaptureUnsupported,)
        with self._lock:
            queue = self._streams[int(stream)]
            work, queue[:] = list(queue), []
        if self.fault is not None:
            return (self.fault,)
        for each in work:
            each()
        return (SUCCESS,)

    def _cudaMemcpyAsync(self, dst: int, src: int, count: int, kind: Any, stream: Any) -> Any:
        kinds = real.cudaMemcpyKind
        dst, src = int(dst), int(src)

        def copy() -> None:
            if kind == kinds.cudaMemcpyHostToDevice:
                self.device_view(dst, count)[:] = self._host(src, count)
            else:
                assert kind == kinds.cudaMemcpyDeviceToHost, kind
                self._host(dst, count)[:] = self.device_view(src, count)

        self.enqueue(int(stream), copy)
        return (SUCCESS,)

    def _host(self, address: int, nbytes: int) -> NDArray[np.uint8]:
        """Give host memory, which must be pinned: a copy from other memory is not asynchronous."""
        for start, memory in self._pinned.items():
            if start <= address and address + nbytes <= start + memory.size:
                raw = (ctypes.c_uint8 * nbytes).from_address(address)
                return np.frombuffer(raw, np.uint8)
        raise AssertionError(f"{address:#x} is not pinned memory")

    def _cudaStreamBeginCapture(self, stream: Any, mode: Any) -> Any:
        assert mode == real.cudaStreamCaptureMode.cudaStreamCaptureModeThreadLocal
        if not self._captures:
            return (real.cudaError_t.cudaErrorStreamCaptureUnsupported,)
        with self._lock:
            assert self._capturing.get(int(stream)) is None
            self._capturing[int(stream)] = []
            self.captures_begun += 1
        return (SUCCESS,)

    def _cudaStreamEndCapture(self, stream: Any) -> Any:
        with self._lock:
            captured = self._capturing.pop(int(stream), None)
            if not captured:
                return real.cudaError_t.cudaErrorStreamCaptureInvalidated, None
            handle = self._handle()
            self._graphs[handle] = captured
        return SUCCESS, real.cudaGraph_t(handle)

    def _cudaGraphInstantiate(self, graph: Any, flags: int) -> Any:
        with self._lock:
            handle = self._handle()
            self._execs[handle] = list(self._graphs[int(graph)])
        return SUCCESS, real.cudaGraphExec_t(handle)

    def _cudaGraphLaunch(self, graphExec: Any, stream: Any) -> Any:
        with self._lock:
            self.launches += 1
            self._streams[int(stream)].extend(self._execs[int(graphExec)])
        return (SUCCESS,)

    def _cudaGraphDestroy(self, graph: Any) -> Any:
        with self._lock:
            del self._graphs[int(graph)]
        return (SUCCESS,)

    def _cudaGraphExecDestroy(self, graphExec: Any) -> Any:
        with self._lock:
            del self._execs[int(graphExec)]
        return (SUCCESS,)


def _strict(name: str, true: Any, done: Callable[..., Any]) -> Callable[..., Any]:
    """Bind arguments as the real function would, by the signature in its docstring."""
    inside = re.match(rf"{name}\((.*)\)", true.__doc__)
    assert inside, name
    parameters = [
        re.split(r"[: ]", part.strip())[0 if ":" in part else -1]
        for part in inside[1].split(",")
        if part.strip()
    ]

    def call(*args: Any, **keywords: Any) -> Any:
        unknown = keywords.keys() - set(parameters)
        if unknown or len(args) + len(keywords) != len(parameters):
            raise TypeError(f"{name}({', '.join(parameters)}) got {args} {keywords}")
        return done(*args, **keywords)

    return call
