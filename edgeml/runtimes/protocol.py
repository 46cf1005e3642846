"""What a runtime is, and which one opens which file."""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import InferenceError, InputError

Exactness = Literal["exact", "fast"]
Mode = Literal["latency", "throughput"]

Run = Callable[["NDArray[np.float32] | NDArray[np.uint8]"], NDArray[np.float32]]


FP16_ON_X86 = (
    "ONNX Runtime computes FP16 files in FP32 on x86: as fast as the FP32 file or up to 1.3 times "
    "slower, and INT8 files whose rest is FP16 ten times slower or more than plain INT8 ones. They "
    "are meant for GPUs; for this CPU export FP32 or INT8."
)
"""As measured with onnxruntime 1.32 on one thread of a Zen 4: ResNet-18 1.08, ViT-Tiny 0.97,
MobileNetV4-S 1.18, MobileNetV2 1.24; MobileNetV2 in INT8 12 (x86 layout) and 25 (OpenVINO's)."""


class Runtime(Protocol):
    """Runs one model on one device; safe to share between threads.

    Any object with these five members can be handed to `Predictor`. If you want to add one,
    pause: can the caller do it with the five there are?
    """

    @property
    def name(self) -> str:
        """The library, its version and the device, for example `onnxruntime 1.32.0 CPU`."""
        ...

    @property
    def input_shape(self) -> tuple[int | None, int, int, int]:
        """(N, 3, H, W), or (N, H, W, 3) for uint8 input; N is None where any batch goes."""
        ...

    @property
    def metadata(self) -> Mapping[str, str]:
        """What the file says of itself, `edgeml` among it if edgeml wrote it.

        `precision` is what the runtime really computes in: `f32`, `bf16`, `int8` ...
        """
        ...

    def run(self, batch: NDArray[np.float32] | NDArray[np.uint8], /) -> NDArray[np.float32]:
        """Map a batch to logits (N, labels)."""
        ...

    def close(self) -> None:
        """Free what the runtime holds."""
        ...


def run_prepared(
    runtime: Runtime, batch: NDArray[np.float32] | NDArray[np.uint8]
) -> NDArray[np.float32]:
    """Run a batch that `Predictor.prepare` made, which holds no NaN.

    A runtime may have a method of this name that does not look for one: right after a network
    has run that takes 50 us.
    """
    run: Run = getattr(runtime, "run_prepared", runtime.run)
    return run(batch)


def check_batch(
    batch: object, shape: Sequence[int | None], dtype: str, *, prepared: bool = False
) -> NDArray[np.float32] | NDArray[np.uint8]:
    """Refuse an array that the runtimes would each take in a way of their own.

    OpenVINO casts any type silently, ONNX Runtime misreads the other byte order, and what comes
    of NaN depends on the kernels: a ReLU may swallow it.

    Args:
        batch: What was handed to `run`.
        shape: What the model takes, with its batch, which is not looked at.
        dtype: The type of its elements.
        prepared: It is known to hold no NaN or Inf.

    Raises:
        InputError: It is another shape or type, empty, or holds NaN or Inf.
    """
    if not isinstance(batch, np.ndarray):
        raise InputError(f"A batch is a numpy array, not {type(batch).__name__}.")
    sides, expected = batch.shape[1:], tuple(shape[1:])
    fits = sides == expected or (
        len(sides) == len(expected)
        and all(wanted in (None, side) for side, wanted in zip(sides, expected, strict=True))
    )
    if not fits or batch.dtype != dtype or not len(batch):
        wanted = ", ".join("any" if side is None else str(side) for side in expected)
        raise InputError(
            f"The model takes (N, {wanted}) {dtype}; the batch is {batch.shape} {batch.dtype}. "
            "Predictor.prepare makes one of frames."
        )
    if not prepared and batch.dtype.kind == "f" and not _all_finite(batch):
        raise InputError("The batch holds numbers that are not finite.")
    return batch


def _all_finite(numbers: NDArray[Any]) -> bool:
    # One that is not finite makes the sum so, which takes half the time of asking each.
    return math.isfinite(np.einsum("i->", numbers.ravel())) or bool(np.isfinite(numbers).all())


def check_process(opened_in: int, library: str) -> None:
    """Refuse to run in a forked process what waits there for threads that did not come along.

    Raises:
        InferenceError: The model was opened by another process.
    """
    if os.getpid() != opened_in:
        raise InferenceError(
            f"The model was opened in process {opened_in} and is used in {os.getpid()}, which was "
            f"forked from it; {library} does not survive that. Open a Predictor in each process, "
            "or start processes by multiprocessing's 'spawn'."
        )


def too_late(seconds: float) -> InferenceError:
    """Say that a run was stopped."""
    return InferenceError(f"The model was stopped: it took longer than timeout={seconds:g} s.")
