"""DOOR tensorrt: runs .engine files on an NVIDIA GPU, with TensorRT or TensorRT-RTX."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import (
    EngineMismatchError,
    InferenceError,
    InputError,
    MissingDependencyError,
    ModelLoadError,
)
from edgeml.runtimes.protocol import check_batch, check_process
from edgeml.runtimes.tensorrt import bindings, cuda
from edgeml.runtimes.tensorrt.bindings import captured_log, tensor_of
from edgeml.runtimes.tensorrt.passport import (
    NAMES,
    Library,
    Passport,
    Tensor,
    check,
    check_library,
    read_engine,
)
from edgeml.runtimes.tensorrt.slots import MAX_CONCURRENT, Batch, ExecutionSlot, Model, Pool
from edgeml.spec.storage import spec_metadata

_PRECISIONS = {"fp32": "f32", "fp16": "f16", "int8": "int8"}


class TensorRtRuntime:
    """A TensorRT engine. `run` may be called from several threads at once.

    Its memory is freed even without `close`, because context managers own it. A batch larger than
    the engine's largest runs in parts; one smaller than its smallest is filled up.

    Attributes:
        name: The library, its version and the GPU.
        input_shape: Any batch of the size that the engine was built for.
        metadata: The spec in the passport, and the precision.
    """

    def __init__(
        self,
        path: Path,
        *,
        library: Library | None = None,
        device: str = "auto",
        trusted: bool = False,
    ) -> None:
        """Load an engine that was built for this machine.

        An engine is native code. Its sha256 is compared with its passport's, and the passport with
        this machine, before TensorRT sees it; both protect from mistakes, not from an attacker who
        writes both files.

        Args:
            path: An .engine with its passport next to it.
            library: The one that must run it; None takes the one that built it.
            device: `auto`, `cuda`, or `cuda:N` for one of several GPUs.
            trusted: Allow a version-compatible engine to run the host code that it carries.

        Raises:
            InputError: The device is not one that this runtime serves.
            EngineMismatchError: The engine has no passport that fits it, or it was built for
                another machine.
            ModelLoadError: There is no GPU, or TensorRT refuses the engine.
            MissingDependencyError: TensorRT or cuda-bindings is not installed.
        """
        self._index = gpu_index(device)
        passport, plan = read_engine(path)
        library = library or passport.library
        check_library(passport, library)
        trt: Any = bindings.load(library)
        try:
            # Before any TensorRT object exists: without a GPU some versions end the process.
            gpu = cuda.this_gpu(self._index)
            check(passport, library=library, version=trt.__version__, gpu=gpu)
            if passport.portable == "version" and not trusted:
                raise ModelLoadError(
                    f"{path.name} is version-compatible: it carries host code that would run in "
                    "this process. If you trust who built it, open it with "
                    f"Predictor(TensorRtRuntime(Path({str(path)!r}), trusted=True))."
                )
            with cuda.use(self._index):
                model = _deserialised(trt, path, plan, passport)
                pool = Pool(lambda: ExecutionSlot(model), MAX_CONCURRENT)
                with pool.acquire():
                    pass  # a lack of memory is an error now, not at the first run
        except InferenceError as err:
            raise ModelLoadError(f"{path.name} cannot be loaded: {err}") from err
        self._process = os.getpid()
        self._pool = pool
        self._dtype, self._largest = model.input.dtype, model.profile[2]
        self.name = f"{library} {trt.__version__} {gpu.name}"
        shape = (None, *model.input.shape[1:])
        self.input_shape = cast("tuple[int | None, int, int, int]", shape)
        precision = _PRECISIONS[passport.precision]
        self.metadata = {**spec_metadata(passport.spec), "precision": precision}

    def run(self, batch: Batch, /) -> NDArray[np.float32]:
        """Map a batch to logits (N, labels) float32.

        Raises:
            InputError: The batch does not fit the engine.
            InferenceError: The runtime is closed, was opened before a fork, or the GPU fails.
        """
        check_process(self._process, "a GPU")
        check_batch(batch, self.input_shape, self._dtype)
        largest = self._largest
        with cuda.use(self._index), self._pool.acquire() as slot:
            parts = [slot.run(batch[i : i + largest]) for i in range(0, len(batch), largest)]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def close(self) -> None:
        """Free all memory after the threads that are running. May be called again."""
        self._pool.close()


def incompatibility(passport: Passport) -> str | None:
    """Return why edgeml cannot run an engine on this machine; None if it can."""
    if passport.portable == "version":
        return "it is version-compatible: it carries code that edgeml does not run without trust"
    try:
        gpu = cuda.this_gpu()
        version = str(bindings.load(passport.library).__version__)
        check(passport, library=passport.library, version=version, gpu=gpu)
    except (MissingDependencyError, ModelLoadError, InferenceError) as err:
        return str(err)
    return None


def _deserialised(trt: Any, path: Path, plan: bytes, passport: Passport) -> Model:
    """Load a plan with TensorRT, and check that its tensors are those of the passport.

    Raises:
        ModelLoadError: TensorRT refuses it.
        EngineMismatchError: It is another network than the passport states.
    """
    with captured_log(trt) as log:
        runtime = trt.Runtime(bindings.logger(trt))
        if passport.portable == "version":
            runtime.engine_host_code_allowed = True
        engine = runtime.deserialize_cuda_engine(plan)
    if engine is None:
        name = NAMES[passport.library]
        raise ModelLoadError(f"{name} {trt.__version__} refuses {path.name}: {log.reason()}")
    inputs = _tensors(trt, engine, trt.TensorIOMode.INPUT)
    outputs = _tensors(trt, engine, trt.TensorIOMode.OUTPUT)
    profile = _profile(engine, inputs[0])
    for what, actual, stated in (
        ("inputs", inputs, passport.inputs),
        ("outputs", outputs, passport.outputs),
        ("batch sizes", profile, passport.profile),
    ):
        if actual != stated:
            raise EngineMismatchError(
                f"{path.name} is not what its passport states: its {what} are {actual}, the "
                f"passport has {stated}. Build it again.",
                reason="other-network",
            )
    labels = len(passport.spec.labels)
    if len(inputs) != 1 or len(outputs) != 1 or outputs[0].shape[1:] != (labels,):
        raise ModelLoadError(
            f"{path.name} has the inputs {inputs} and the outputs {outputs}; edgeml runs networks "
            f"with one input and one output (N, {labels})."
        )
    return Model(
        trt=trt,
        runtime=runtime,
        engine=engine,
        input=inputs[0],
        output=outputs[0],
        profile=profile,
        records_itself=hasattr(trt, "CudaGraphStrategy"),
    )


def _tensors(trt: Any, engine: Any, mode: Any) -> tuple[Tensor, ...]:
    names = [engine.get_tensor_name(i) for i in range(engine.num_io_tensors)]
    return tuple(
        tensor_of(name, engine.get_tensor_dtype(name), engine.get_tensor_shape(name))
        for name in names
        if engine.get_tensor_mode(name) == mode
    )


def _profile(engine: Any, tensor: Tensor) -> tuple[int, int, int]:
    if tensor.shape[0] is not None:
        return (tensor.shape[0],) * 3
    least, usual, greatest = (shape[0] for shape in engine.get_tensor_profile_shape(tensor.name, 0))
    return least, usual, greatest


def gpu_index(device: str) -> int:
    """Read `auto`, `cuda` or `cuda:N`.

    Raises:
        InputError: It is none of them.
    """
    name, _, index = device.lower().partition(":")
    if name in ("auto", "cuda", "gpu") and (index.isdecimal() or (not index and ":" not in device)):
        return int(index or 0)
    raise InputError(f"TensorRT has no device {device!r}; known are auto, cuda and cuda:N.")
