"""What threads run an engine with: each a lane of its own, out of a pool."""

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
from edgeml.runtimes.tensorrt.bindings import Heard, listening
from edgeml.runtimes.tensorrt.passport import Tensor

logger = logging.getLogger(__name__)

MOST_LANES = 4
"""Threads that compute at once. Each has memory of its own; more would wait for the GPU anyway."""

MOST_GRAPHS = 4
"""Batch sizes of a lane that are replayed as CUDA graphs; the first that come twice."""

Batch = NDArray[np.float32] | NDArray[np.uint8]


@dataclass(frozen=True, kw_only=True)
class Model:
    """An engine and what is known of it.

    Attributes:
        trt: The module.
        runtime: Must live as long as the engine.
        engine: What contexts are made of.
        input: Its input.
        output: Its output.
        profile: Least, usual and greatest batch.
        records_itself: TensorRT-RTX makes graphs of what it runs, once its kernels are specialised
            for a shape, which no one else knows the moment of.
    """

    trt: Any
    runtime: Any
    engine: Any
    input: Tensor
    output: Tensor
    profile: tuple[int, int, int]
    records_itself: bool


class Lane:
    """What one thread at a time runs the engine with: a stream, buffers, contexts, graphs."""

    def __init__(self, model: Model) -> None:
        self._model = model
        self._least, _, most = model.profile
        with ExitStack() as stack:
            self._stream = stack.enter_context(cuda.stream())
            self._host_in, self._device_in = _buffers(stack, model.input, most)
            self._host_out, self._device_out = _buffers(stack, model.output, most)
            self._plain: Any = self._new_context()
            self._held = stack.pop_all()
        self._ran: set[int] = set()
        self._graphs: dict[int, Any] = {}
        self._captured: list[Any] = []

    def run(self, batch: Batch) -> NDArray[np.float32]:
        """Map a batch of at most the profile's greatest to logits.

        The first time a batch size comes, its work is enqueued one by one; from the second on it
        is replayed as a graph, if it can be recorded.

        Raises:
            InferenceError: The GPU or TensorRT fails.
        """
        count, size = len(batch), max(len(batch), self._least)
        self._host_in[:count] = batch  # the rest, up to `size`, may be anything: it is cut off
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
                self._stream.wait()  # what was enqueued must not touch the buffers any more
            raise
        self._ran.add(size)
        return np.array(self._host_out[:count], np.float32)

    def close(self) -> None:
        """Free what it holds."""
        try:
            self._held.close()
        finally:
            self._graphs, self._captured, self._plain = {}, [], None

    def _wants_graph(self, size: int) -> bool:
        return (
            not self._model.records_itself
            and size in self._ran
            and size not in self._graphs
            and len(self._graphs) < MOST_GRAPHS
        )

    def _capture(self, size: int) -> Any:
        """Record a run of `size`; None if that fails, as it may by the network or the driver.

        The context that was recorded must not be touched again: it stays with its graph, and
        other sizes get another one.
        """
        try:
            self._enqueue(size)
            self._stream.wait()
            graph = cuda.captured(self._stream, lambda: self._enqueue(size))
            handle = self._held.enter_context(graph)
        except InferenceError as err:
            logger.info("Batches of %d run without a CUDA graph: %s", size, err)
            return None
        self._captured.append(self._plain)
        self._plain = None
        return handle

    def _enqueue(self, size: int) -> None:
        if self._plain is None:
            self._plain = self._new_context()
        context, model = self._plain, self._model
        with listening(model.trt) as heard:
            if not context.set_input_shape(model.input.name, (size, *model.input.shape[1:])):
                raise InferenceError(f"TensorRT refuses a batch of {size}: {why(heard)}")
            self._stream.to_device(self._device_in, self._host_in[:size])
            if not context.execute_async_v3(int(self._stream.handle)):
                raise InferenceError(f"TensorRT failed: {why(heard)}")
            self._stream.to_host(self._host_out[:size], self._device_out)

    def _new_context(self) -> Any:
        model = self._model
        with listening(model.trt) as heard:
            context = _new_context(model)
            if context is None:
                raise InferenceError(f"TensorRT gives no execution context: {why(heard)}")
            context.set_tensor_address(model.input.name, self._device_in)
            context.set_tensor_address(model.output.name, self._device_out)
        return context


class Pool:
    """Lanes for threads: made when they are needed, up to a number, then waited for."""

    def __init__(self, make: Callable[[], Lane], most: int) -> None:
        self._make: Callable[[], Lane] | None = make
        self._most = most
        self._made = 0
        self._idle: list[Lane] = []
        self._changed = threading.Condition()

    @contextmanager
    def lane(self) -> Iterator[Lane]:
        """Lend a lane.

        Raises:
            InferenceError: The pool is closed, or there is no memory for a first lane.
        """
        lane = self._take()
        try:
            yield lane
        finally:
            with self._changed:
                self._idle.append(lane)
                self._changed.notify_all()

    def close(self) -> None:
        """Wait for the lanes that are lent, then free all."""
        with self._changed:
            self._make = None
            self._changed.notify_all()
            self._changed.wait_for(lambda: len(self._idle) == self._made)
            idle, self._idle, self._made = self._idle, [], 0
            with ExitStack() as stack:
                for lane in idle:
                    stack.callback(lane.close)

    def _take(self) -> Lane:
        with self._changed:
            while self._make is not None:
                if self._idle:
                    return self._idle.pop()
                if self._made < self._most:
                    try:
                        lane = self._make()
                    except InferenceError as err:
                        if not self._made:
                            raise
                        self._most = self._made
                        logger.info("Threads share %d lanes: %s", self._made, err)
                        continue
                    self._made += 1
                    return lane
                self._changed.wait()
        raise InferenceError("This model is closed; open it again.")


def _new_context(model: Model) -> Any:
    if not model.records_itself:
        return model.engine.create_execution_context()
    config = model.engine.create_runtime_config()
    config.cuda_graph_strategy = model.trt.CudaGraphStrategy.WHOLE_GRAPH_CAPTURE
    return model.engine.create_execution_context(config)


def _buffers(stack: ExitStack, tensor: Tensor, most: int) -> tuple[NDArray[Any], int]:
    """Allocate for the greatest batch: a pinned array, and the address on the GPU."""
    shape = cast("tuple[int, ...]", (most, *tensor.shape[1:]))
    host = stack.enter_context(cuda.pinned_array(shape, tensor.dtype))
    return host, stack.enter_context(cuda.device_memory(host.nbytes))


def why(heard: Heard) -> str:
    """Give what TensorRT logged as one line."""
    return " ".join("; ".join(heard.errors or heard.warnings).split()) or "it does not say why"
