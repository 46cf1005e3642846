"""What a runtime is, how one is opened, and the checks that all runtimes share."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, fields
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import InferenceError, InputError, SpecError
from edgeml.spec.model_spec import ModelSpec
from edgeml.spec.storage import spec_in

Exactness = Literal["exact", "fast"]
Mode = Literal["latency", "throughput"]

RUNTIMES = ("onnxruntime", "openvino", "tensorrt", "tensorrt_rtx", "torch")

FP16_ON_X86 = (
    "ONNX Runtime computes FP16 files in FP32 on x86: as fast as the FP32 file or up to 1.3 times "
    "slower, and INT8 files whose rest is FP16 ten times slower or more than plain INT8 ones. They "
    "are meant for GPUs; for this CPU export FP32 or INT8."
)
"""As measured with onnxruntime 1.32 on one thread of a Zen 4: ResNet-18 1.08, ViT-Tiny 0.97,
MobileNetV4-S 1.18, MobileNetV2 1.24; MobileNetV2 in INT8 12 (x86 layout) and 25 (OpenVINO's)."""

_NOISE = re.compile(
    r"\[ONNXRuntimeError\] : \d+ : [A-Z_]+ : |Load model from .*? failed:\s*|"
    r"/onnxruntime_src/\S+ (?:[\w:<>~&*, ]+\(.*?\)(?: const)? )?"
)
"""What ONNX Runtime puts before a message: codes, its own functions, and the path of the file."""

_LIMITED = {
    "runtime": "it chooses the library for a model file",
    "device": "it chooses the device for a model file",
    "precision": "only ONNX Runtime and OpenVINO can choose how to compute",
    "mode": "it configures a runtime that is opened for a model file",
    "spinning": "only ONNX Runtime can let its threads spin",
    "timeout": "only ONNX Runtime and OpenVINO can stop a run, of .onnx and .xml files",
}


class RunError(InferenceError):
    """The network failed on a batch that fits its declared input."""


class Runtime(Protocol):
    """Runs one model on one device; safe to share between threads.

    Any object with these five members can be passed to `Predictor`. Before you add one, consider
    whether the caller can manage with the five that exist.
    """

    @property
    def name(self) -> str:
        """The library, its version and the device, for example `onnxruntime 1.32.0 CPU`."""
        ...

    @property
    def input_shape(self) -> tuple[int | None, int, int, int]:
        """(N, 3, H, W), or (N, H, W, 3) for uint8 input; N is None if any batch size works."""
        ...

    @property
    def metadata(self) -> Mapping[str, str]:
        """The metadata in the file, including `edgeml` if edgeml wrote it.

        The runtime adds `precision`, what it really computes in: `f32`, `bf16`, `int8` ...;
        `output`, the output that it returns, if the file names its outputs; and `batch`, if the
        network itself takes one batch size only.
        """
        ...

    def run(self, batch: NDArray[np.float32] | NDArray[np.uint8], /) -> NDArray[np.float32]:
        """Map a batch of finite numbers to logits (N, labels)."""
        ...

    def close(self) -> None:
        """Free what the runtime holds."""
        ...


@dataclass(frozen=True, kw_only=True)
class RuntimeOptions:
    """How a model is opened.

    Attributes:
        runtime: `auto`, or `onnxruntime`, `openvino`, `tensorrt`, `tensorrt_rtx`, `torch`. An
            .onnx file runs on all but the last; the two TensorRTs build an engine from it when it
            is first used on this machine.
        device: `auto`, or the runtime's own name of a device.
        threads: CPU threads; None leaves the choice to the runtime.
        precision: `exact` computes an FP32 file in FP32; `fast` lets the device choose.
        mode: `latency` gives one run all threads; `throughput` gives each of several concurrent
            runs one thread. It makes a difference in ONNX Runtime and OpenVINO.
        spinning: Let ONNX Runtime's threads spin while they wait for work.
        timeout: Seconds after which ONNX Runtime or OpenVINO stops a run, at the next layer.

    Raises:
        InputError: An unknown runtime, or a number out of range.
    """

    runtime: str = "auto"
    device: str = "auto"
    threads: int | None = None
    precision: Exactness = "exact"
    mode: Mode = "latency"
    spinning: bool = False
    timeout: float | None = None

    def __post_init__(self) -> None:
        if self.runtime not in ("auto", *RUNTIMES):
            raise InputError(f"No runtime {self.runtime!r}; known are {', '.join(RUNTIMES)}, auto.")
        if self.threads is not None and self.threads < 1:
            raise InputError(f"threads is {self.threads}; it must be 1 or more.")
        if self.timeout is not None and not 0 < self.timeout < math.inf:
            raise InputError(f"timeout is {self.timeout}; it must be a number of seconds above 0.")

    def refuse(self, *names: str, subject: str) -> None:
        """Refuse options that have no effect on what is opened, the `subject`.

        Raises:
            InputError: One of them does not have its default value.
        """
        for option in fields(self):
            value = getattr(self, option.name)
            if option.name in names and value != option.default:
                raise InputError(
                    f"{option.name}={value!r} does not apply to {subject}: "
                    f"{_LIMITED[option.name]}. Omit it."
                )


DEFAULT_OPTIONS = RuntimeOptions()


class WrappedRuntime:
    """A runtime that passes everything on to another; subclasses change what they need."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self.name, self.input_shape = runtime.name, runtime.input_shape
        self.metadata: Mapping[str, str] = runtime.metadata

    def run(self, batch: NDArray[np.float32] | NDArray[np.uint8], /) -> NDArray[np.float32]:
        return self._runtime.run(batch)

    def close(self) -> None:
        self._runtime.close()


class FiniteInputs(WrappedRuntime):
    """A runtime that refuses NaN and infinity, for batches that edgeml did not prepare.

    What NaN becomes depends on the kernels: a ReLU may swallow it. The search is not part of the
    runtimes themselves because it takes 50 us right after a network has run.
    """

    def run(self, batch: NDArray[np.float32] | NDArray[np.uint8], /) -> NDArray[np.float32]:
        """Map a batch to logits (N, labels).

        Raises:
            InputError: The batch contains NaN or infinity, or does not fit the model.
        """
        if isinstance(batch, np.ndarray) and batch.dtype.kind == "f" and not _all_finite(batch):
            raise InputError("The batch holds numbers that are not finite.")
        return self._runtime.run(batch)


def check_batch(
    batch: object, shape: Sequence[int | None], dtype: str
) -> NDArray[np.float32] | NDArray[np.uint8]:
    """Refuse an array that each runtime would treat in its own way.

    OpenVINO casts any type silently, and ONNX Runtime misreads the other byte order.

    Raises:
        InputError: It has another dtype or shape, apart from the number of images, or is empty.
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
    return batch


def as_rows(output: NDArray[Any], count: int) -> NDArray[np.float32]:
    """Return an output for `count` images as (N, labels) float32: axes of length 1 are removed.

    Scores of other shapes are returned as they are, for the Predictor to refuse.
    """
    wide = sum(side > 1 for side in output.shape[1:])
    if output.ndim != 2 and count == 1 and sum(side > 1 for side in output.shape) <= 1:
        output = output.reshape(1, -1)
    elif output.ndim != 2 and output.shape[:1] == (count,) and wide <= 1:
        output = output.reshape(count, -1)
    return np.asarray(output, np.float32)


def _all_finite(numbers: NDArray[Any]) -> bool:
    # NaN or infinity makes the sum so too, which takes half the time of testing each number.
    return math.isfinite(np.einsum("i->", numbers.ravel())) or bool(np.isfinite(numbers).all())


def output_index(outputs: Sequence[Sequence[str]], name: str | None) -> int:
    """Return which output of a model has the scores; OpenVINO may give an output several names.

    Raises:
        SpecError: There is no output of this name, or there are several and none is named.
    """
    if name is None and len(outputs) == 1:
        return 0
    for index, names in enumerate(outputs):
        if name in names:
            return index
    listed = ", ".join("/".join(sorted(names)) for names in outputs)
    if name is None:
        raise SpecError(f"The model has several outputs: {listed}. The spec must name one: output.")
    raise SpecError(f"The model has no output {name!r}, but {listed}.")


def spec_inside(metadata: Mapping[str, str]) -> ModelSpec | None:
    """Return the spec that edgeml wrote into a file; None if there is none that can be read."""
    with suppress(SpecError):
        return spec_in(metadata)
    return None


def check_process(opened_in: int, library: str) -> None:
    """Refuse to run a model in a forked process, which lacks the threads that it waits for.

    Raises:
        InferenceError: The model was opened by another process.
    """
    if os.getpid() != opened_in:
        raise InferenceError(
            f"The model was opened in process {opened_in} and is used in {os.getpid()}, which was "
            f"forked from it; {library} does not survive that. Open a Predictor in each process, "
            "or start processes by multiprocessing's 'spawn'."
        )


def one_line(err: Exception) -> str:
    """Return an error's message as one line, without places in a library's own source."""
    return " ".join(_NOISE.sub("", str(err)).split())


def timeout_error(seconds: float) -> InferenceError:
    """Return the error of a run that was stopped."""
    return InferenceError(f"The model was stopped: it took longer than timeout={seconds:g} s.")
