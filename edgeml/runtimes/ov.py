"""DOOR openvino: runs .xml and .onnx files."""

from __future__ import annotations

import math
import os
import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import InferenceError, InputError, ModelLoadError, SpecError
from edgeml.runtimes.protocol import Exactness, Mode, check_batch, check_process, too_late
from edgeml.runtimes.telemetry import without_telemetry
from edgeml.spec.storage import METADATA_KEY

with without_telemetry():
    import openvino as ov

# The layers that do the arithmetic, under the names that the CPU plugin gives them.
_WEIGHTED = frozenset({"Convolution", "Deconvolution", "FullyConnected", "MatMul"})


class OpenVinoRuntime:
    """A compiled model. Each thread that calls `run` gets an inference request of its own."""

    def __init__(
        self,
        path: Path,
        *,
        device: str = "auto",
        threads: int | None = None,
        precision: Exactness = "exact",
        mode: Mode = "latency",
        timeout: float | None = None,
    ) -> None:
        """Read and compile `path`.

        Args:
            path: An .onnx or .xml file.
            device: `auto` is the CPU; or what OpenVINO calls its devices.
            threads: CPU threads; None leaves the choice to OpenVINO.
            precision: `exact` computes an FP32 file in FP32, not in bfloat16.
            mode: `throughput` computes several runs at once, each on fewer threads.
            timeout: Seconds after which a run is stopped, at the next layer. A layer that has no
                end, such as a loop, goes on after the error, as long as the process does.

        Raises:
            InputError: OpenVINO has no such device here.
            ModelLoadError: OpenVINO refuses the file.
        """
        core = ov.Core()
        self._device = "CPU" if device == "auto" else device.upper()
        devices = core.available_devices
        if self._device.split(".")[0] not in {name.split(".")[0] for name in devices}:
            known = ", ".join(devices)
            raise InputError(f"OpenVINO has no device {device!r} here; known are {known}.")
        config: dict[str, Any] = {"PERFORMANCE_HINT": mode.upper()}
        if precision == "exact":
            # On a CPU with AVX512-BF16 or AMX the default is bfloat16, whatever the file says.
            config["INFERENCE_PRECISION_HINT"] = "f32"
        if threads:
            config["INFERENCE_NUM_THREADS"] = threads
        try:
            model = core.read_model(path)
            self._compiled: ov.CompiledModel | None = core.compile_model(
                model, self._device, config
            )
        except RuntimeError as err:
            message = " ".join(str(err).split())[-300:]
            raise ModelLoadError(f"OpenVINO refuses {path.name!r}: {message}") from err
        self._shape = _shape(model)
        self._dtype = model.inputs[0].element_type.to_dtype().name
        self._timeout = timeout
        self._left: list[tuple[Any, object]] = []
        self._process = None if self._runs_in_the_caller() else os.getpid()
        self._names = [port.get_names() for port in model.outputs]
        self._output = 0
        self._metadata = {**_metadata(model), "precision": self._actual_precision()}
        self._local = threading.local()

    @property
    def name(self) -> str:
        """The library, its version and the device."""
        return f"openvino {ov.__version__.split('-')[0]} {self._device}"

    @property
    def input_shape(self) -> tuple[int | None, int, int, int]:
        """The declared shape; a dynamic dimension is None."""
        return self._shape

    @property
    def metadata(self) -> Mapping[str, str]:
        """The file's rt_info or metadata_props, and the precision."""
        return self._metadata

    def run(self, batch: NDArray[np.float32] | NDArray[np.uint8], /) -> NDArray[np.float32]:
        """Map a batch to logits (N, labels) float32.

        Raises:
            InputError: The batch is not what the model takes, or not finite.
            InferenceError: The runtime is closed, the request fails, or it took too long.
        """
        return self._run(batch)

    def run_prepared(
        self, batch: NDArray[np.float32] | NDArray[np.uint8], /
    ) -> NDArray[np.float32]:
        """Do the same for a batch that `Predictor.prepare` made, without a look for NaN."""
        return self._run(batch, prepared=True)

    def _run(
        self, batch: NDArray[np.float32] | NDArray[np.uint8], *, prepared: bool = False
    ) -> NDArray[np.float32]:
        compiled, local = self._compiled, self._local
        if compiled is None:
            raise InferenceError("This model is closed; open it again.")
        if self._process is not None:
            check_process(self._process, "OpenVINO in this mode")
        check_batch(batch, self._shape, self._dtype, prepared=prepared)
        request = getattr(local, "request", None)
        if request is None:
            request = local.request = compiled.create_infer_request()
        # Handing the array over in this way takes half the time of `infer([batch], ...)`.
        lent = batch if batch.flags.carray else np.array(batch, order="C")
        tensor = ov.Tensor(lent, shared_memory=True)
        try:
            request.set_input_tensor(0, tensor)
            if self._timeout is None:
                request.infer(share_outputs=True)
            else:
                request.start_async()
                if not request.wait_for(math.ceil(1e3 * self._timeout)):
                    request.cancel()
                    # It is busy until its layer is done. Freeing it would wait for that.
                    self._left = [left for left in self._left if _is_busy(left[0])]
                    self._left.append((request, lent))
                    local.request = None
                    raise too_late(self._timeout)
        except RuntimeError as err:
            raise InferenceError(f"OpenVINO failed: {' '.join(str(err).split())[-300:]}") from err
        # A copy: the request writes its next result over this one.
        return np.array(request.get_output_tensor(self._output).data, np.float32)

    def take_output(self, name: str) -> None:
        """Give this output, of several, from now on.

        Raises:
            SpecError: There is none of this name.
        """
        found = [number for number, names in enumerate(self._names) if name in names]
        if not found:
            told = ", ".join("/".join(sorted(names)) for names in self._names)
            raise SpecError(f"The model has no output {name!r}, but {told}.")
        self._output = found[0]

    def close(self) -> None:
        """Free the compiled model."""
        self._compiled = None
        self._local = threading.local()

    def _runs_in_the_caller(self) -> bool:
        """Say whether a run needs no thread but its caller's: on a CPU with one stream."""
        assert self._compiled is not None
        try:
            return self._device == "CPU" and self._compiled.get_property("NUM_STREAMS") == 1
        except RuntimeError:
            return False

    def _actual_precision(self) -> str:
        """Ask the executed graph what most of its weighted layers compute in.

        The name of the kernel tells, as `brgconv_avx512_I8`. What is called `runtimePrecision`
        says f16 of weights that are only stored so.
        """
        assert self._compiled is not None
        try:
            layers = [op.get_rt_info() for op in self._compiled.get_runtime_model().get_ops()]
            kernels = Counter(
                str(layer["primitiveType"].astype(str)).rpartition("_")[2].lower()
                for layer in layers
                if layer["layerType"].astype(str) in _WEIGHTED
            )
            if not kernels:
                return str(self._compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name())
        except (RuntimeError, KeyError, AttributeError):  # a device that does not tell
            return "unknown"
        name = kernels.most_common(1)[0][0]
        return "int8" if name in ("i8", "u8") else name


def _is_busy(request: Any) -> bool:
    try:
        return not request.wait_for(0)
    except RuntimeError:  # that it was cancelled
        return False


def _shape(model: ov.Model) -> tuple[int | None, int, int, int]:
    shape = model.inputs[0].partial_shape
    sides = [None if side.is_dynamic else side.get_length() for side in shape]
    return cast("tuple[int | None, int, int, int]", tuple(sides))


def _metadata(model: ov.Model) -> dict[str, str]:
    """Read the spec from rt_info: of an .xml at the top, of an .onnx under `framework`."""
    for path in ([METADATA_KEY], ["framework", METADATA_KEY]):
        if model.has_rt_info(path):
            return {METADATA_KEY: str(model.get_rt_info(path).astype(str))}
    return {}
