"""Execution slots: what a thread needs to run an engine, and a pool of them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import InferenceError
from edgeml.runtimes.tensorrt import cuda
from edgeml.runtimes.tensorrt.bindings import captured_log
from edgeml.runtimes.tensorrt.passport import Tensor

logger = logging.getLogger(__name__)

MAX_CONCURRENT = 4
"""Threads that compute at once. Each has its own memory; more would only wait for the GPU."""

MAX_GRAPHS = 4
"""Batch sizes that a slot replays as CUDA graphs: the first that occur twice."""

Batch = NDArray[np.float32] | NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Model:
    """A loaded engine and its properties.

    Attributes:
        trt: The module.
        runtime: Must live as long as the engine.
        engine: Creates execution contexts.
        input: Its input.
        output: Its output.
        profile: Smallest, usual and largest batch.
        records_itself: TensorRT-RTX records its own graphs, once its kernels are specialised for a
            shape, and only it knows when that is.
    """

    trt: Any
    runtime: Any
    engine: Any
    input: Tensor
    output: Tensor
    profile: tuple[int, int, int]
    records_itself: bool


class ExecutionSlot:
    """Runs the engine for one thread at a time: a stream, buffers, contexts and graphs."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._smallest, _, largest = model.profile
        with ExitStack() as stack:
            self._stream = stack.enter_context(cuda.stream())
            self._host_in, self._device_in = _buffers(stack, model.input, largest)
            self._host_out, self._device_out = _buffers(stack, model.output, largest)
            self._context: Any = self._new_context()
            self._resources = stack.pop_all()
        self._seen: set[int] = set()
        self._graphs: dict[int, Any] = {}
        self._captured_contexts: list[Any] = []

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Map a batch, at most the profile's largest, to logits.

        The first run of a batch size enqueues its work call by call; from the second run on, the
        work is replayed as a graph if it can be recorded.

        Raises:
            InferenceError: The GPU or TensorRT fails.
        """
        count, size = len(batch), max(len(batch), self._smallest)
        self._host_in[:count] = batch  # the rest, up to `size`, does not matter: it is cut off
        try:
            if self._wants_graph(size):
                self._graphs[size] = self._capture(size)
            if graph := self._graphs.get(size):
                self._stream.launch(graph)
            else:
                self._enqueue(size)
            self._stream.wait()
        except InferenceError:
            with suppress(InferenceError):
                self._stream.wait()  # enqueued work must not touch the buffers any more
            raise
        self._seen.add(size)
        return np.array(self._host_out[:count], np.float32)

    def close(self) -> None:
        """Free the memory, the stream and the graphs."""
        try:
            self._resources.close()
        finally:
            self._graphs, self._captured_contexts, self._context = {}, [], None

    def _wants_graph(self, size: int) -> bool:
        return (
            not self._model.records_itself
            and size in self._seen
            and size not in self._graphs
            and len(self._graphs) < MAX_GRAPHS
        )

    def _capture(self, size: int) -> Any:
        """Record a run of `size`; return None if the network or the driver does not allow it.

        The recorded context must not be used again: it stays with its graph, and other sizes get
        a new one.
        """
        try:
            self._enqueue(size)
            self._stream.wait()
            graph = cuda.captured(self._stream, lambda: self._enqueue(size))
            handle = self._resources.enter_context(graph)
        except InferenceError as err:
            logger.info("Batches of %d run without a CUDA graph: %s", size, err)
            return None
        self._captured_contexts.append(self._context)
        self._context = None
        return handle

    def _enqueue(self, size: int) -> None:
        if self._context is None:
            self._context = self._new_context()
        context, model = self._context, self._model
        with captured_log(model.trt) as log:
            if not context.set_input_shape(model.input.name, (size, *model.input.shape[1:])):
                raise InferenceError(f"TensorRT refuses a batch of {size}: {log.reason()}")
            self._stream.to_device(self._device_in, self._host_in[:size])
            if not context.execute_async_v3(int(self._stream.handle)):
                raise InferenceError(f"TensorRT failed: {log.reason()}")
            self._stream.to_host(self._host_out[:size], self._device_out)

    def _new_context(self) -> Any:
        model = self._model
        with captured_log(model.trt) as log:
            context = _new_context(model)
            if context is None:
                raise InferenceError(f"TensorRT creates no execution context: {log.reason()}")
            context.set_tensor_address(model.input.name, self._device_in)
            context.set_tensor_address(model.output.name, self._device_out)
        return context


class Pool:
    """Execution slots for threads: created when needed, up to a limit, then waited for."""

    def __init__(self, create: Callable[[], ExecutionSlot], limit: int) -> None:
        self._create: Callable[[], ExecutionSlot] | None = create
        self._limit = limit
        self._created = 0
        self._idle: list[ExecutionSlot] = []
        self._changed = threading.Condition()

    @contextmanager
    def acquire(self) -> Iterator[ExecutionSlot]:
        """Lend a slot for this block.

        Raises:
            InferenceError: The pool is closed, or there is no memory for a first slot.
        """
        slot = self._take()
        try:
            yield slot
        finally:
            with self._changed:
                self._idle.append(slot)
                self._changed.notify_all()

    def close(self) -> None:
        """Wait for the slots that are lent, then free all."""
        with self._changed:
            self._create = None
            self._changed.notify_all()
            self._changed.wait_for(lambda: len(self._idle) == self._created)
            idle, self._idle, self._created = self._idle, [], 0
            with ExitStack() as stack:
                for slot in idle:
                    stack.callback(slot.close)

    def _take(self) -> ExecutionSlot:
        with self._changed:
            while self._create is not None:
                if self._idle:
                    return self._idle.pop()
                if self._created < self._limit:
                    try:
                        slot = self._create()
                    except InferenceError as err:
                        if not self._created:
                            raise
                        self._limit = self._created
                        logger.info("Threads share %d slots: %s", self._created, err)
                        continue
                    self._created += 1
                    return slot
                self._changed.wait()
        raise InferenceError("This model is closed; open it again.")


def _new_context(model: Model) -> Any:
    if not model.records_itself:
        return model.engine.create_execution_context()
    config = model.engine.create_runtime_config()
    config.cuda_graph_strategy = model.trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    return model.engine.create_execution_context(config)


def _buffers(stack: ExitStack, tensor: Tensor, largest: int) -> tuple[NDArray[Any], int]:
    """Return a pinned array for the largest batch, and the address of as much GPU memory."""
    shape = cast("tuple[int, ...]", (largest, *tensor.shape[1:]))
    host = stack.enter_context(cuda.pinned_array(shape, tensor.dtype))
    return host, stack.enter_context(cuda.device_memory(host.nbytes))
