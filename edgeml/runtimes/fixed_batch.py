"""What other tools' networks differ in, evened out: a fixed batch, several outputs."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import SpecError
from edgeml.runtimes.protocol import Run, Runtime, run_prepared


def of_any_batch(runtime: Runtime) -> Runtime:
    """Let a runtime whose batch is fixed take any number of images."""
    return runtime if runtime.input_shape[0] is None else _FixedBatch(runtime)


def take_output(runtime: Runtime, name: str) -> None:
    """Make a runtime give the output of this name, of several.

    Raises:
        SpecError: It cannot choose, or has no such output.
    """
    choose = getattr(runtime, "take_output", None)
    if choose is None:
        raise SpecError(f"The spec names the output {name!r}; {runtime.name} cannot choose one.")
    choose(name)


class _FixedBatch:
    """Runs as many images as were given in rounds of the one size that the network takes."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime

    @property
    def name(self) -> str:
        return self._runtime.name

    @property
    def input_shape(self) -> tuple[int | None, int, int, int]:
        return (None, *self._runtime.input_shape[1:])

    @property
    def own_shape(self) -> tuple[int | None, int, int, int]:
        """What the network itself takes."""
        return self._runtime.input_shape

    @property
    def metadata(self) -> Mapping[str, str]:
        return self._runtime.metadata

    def run(self, batch: NDArray[np.float32] | NDArray[np.uint8], /) -> NDArray[np.float32]:
        return self._in_rounds(self._runtime.run, batch)

    def run_prepared(
        self, batch: NDArray[np.float32] | NDArray[np.uint8], /
    ) -> NDArray[np.float32]:
        return self._in_rounds(partial(run_prepared, self._runtime), batch)

    def _in_rounds(
        self, run: Run, batch: NDArray[np.float32] | NDArray[np.uint8]
    ) -> NDArray[np.float32]:
        size = self._runtime.input_shape[0] or len(batch)
        if len(batch) == size:
            return run(batch)
        # What is missing from the last round is the last image again.
        rows = np.arange(-(-len(batch) // size) * size).clip(max=len(batch) - 1)
        parts = [run(batch[part]) for part in rows.reshape(-1, size)]
        return np.concatenate(parts)[: len(batch)]

    def close(self) -> None:
        self._runtime.close()
