"""Networks with a fixed batch size, declared or not, run on any number of images."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml.runtimes.protocol import RunError, Runtime, WrappedRuntime

_Batch = NDArray[np.float32] | NDArray[np.uint8]


def with_any_batch_size(runtime: Runtime) -> Runtime:
    """Return a runtime that takes any number of images, which `runtime` itself may not."""
    size = runtime.input_shape[0]
    return _OpenBatch(runtime) if size is None else _FixedBatch(runtime, size)


class _OpenBatch(WrappedRuntime):
    """Runs a network that declares any number of images, and may yet take only one.

    A Reshape that was traced with one image fails on more of them, or mixes them up.
    """

    _one_by_one = False

    def run(self, batch: _Batch, /) -> NDArray[np.float32]:
        if not self._one_by_one:
            try:
                logits = self._runtime.run(batch)
            except RunError:
                if len(batch) == 1:
                    raise
            else:
                if len(logits) == len(batch) or len(batch) == 1:
                    return logits
        logits = np.concatenate([self._runtime.run(part) for part in rounds(batch, 1)])
        self._one_by_one = True
        return logits


class _FixedBatch(WrappedRuntime):
    """Runs any number of images in rounds of the one size that the network takes."""

    def __init__(self, runtime: Runtime, size: int) -> None:
        super().__init__(runtime)
        self._size = size
        self.input_shape = (None, *runtime.input_shape[1:])
        self.metadata = {**runtime.metadata, "batch": str(size)}

    def run(self, batch: _Batch, /) -> NDArray[np.float32]:
        if not isinstance(batch, np.ndarray) or batch.shape[:1] in ((), (0,), (self._size,)):
            return self._runtime.run(batch)  # it refuses what is not a batch
        logits = [self._runtime.run(part) for part in rounds(batch, self._size)]
        return np.concatenate(logits)[: len(batch)]


def rounds(batch: NDArray[Any], size: int) -> Iterator[NDArray[Any]]:
    """Cut a batch into parts of `size`; copies of the last image fill the last part."""
    rows = np.arange(-(-len(batch) // size) * size).clip(max=len(batch) - 1)
    return (batch[part] for part in rows.reshape(-1, size))
