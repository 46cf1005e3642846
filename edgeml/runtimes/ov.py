"""DOOR openvino: runs .xml and .onnx files."""

from __future__ import annotations

import io
import math
import os
import threading
from collections import Counter
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import InferenceError, InputError, MissingDependencyError, ModelLoadError
from edgeml.runtimes.onnx_file import read_onnx
from edgeml.runtimes.protocol import (
    DEFAULT_OPTIONS,
    RunError,
    RuntimeOptions,
    as_rows,
    check_batch,
    check_process,
    one_line,
    output_index,
    spec_inside,
    timeout_error,
)
from edgeml.runtimes.telemetry import without_telemetry
from edgeml.spec.storage import METADATA_KEY

with without_telemetry():
    import openvino as ov

# The layers that do the arithmetic, under the names that the CPU plugin gives them.
_WEIGHTED = frozenset({"Convolution", "Deconvolution", "FullyConnected", "MatMul"})


@cache
def _core() -> ov.Core:
    """Return OpenVINO's entry point, one for as long as the process lives.

    The CPU plugin of each Core gives its thread a stack for signal handlers, and restores the one
    before when it is freed. Two of them, freed in the order of their creation, leave a stack that
    no longer exists, and the next signal, such as Ctrl-C, ends in a segmentation fault.
    """
    return ov.Core()


class OpenVinoRuntime:
    """A compiled model. Each thread that calls `run` gets its own inference request.

    Attributes:
        name: The library, its version and the device.
        input_shape: The declared shape; a dynamic dimension is None.
        metadata: The file's rt_info or metadata_props, the precision and the output.
    """

    def __init__(self, path: Path, options: RuntimeOptions = DEFAULT_OPTIONS) -> None:
        """Read and compile `path`.

        Args:
            path: An .onnx or .xml file.
            options: `device` `auto` is the CPU; or OpenVINO's name of a device. `precision`
                `exact` computes an FP32 file in FP32, not in bfloat16. `mode` `throughput`
                computes several runs at once, each on fewer threads. After `timeout`, a layer
                that has no end, such as a loop, goes on as long as the process does.

        Raises:
            InputError: OpenVINO has no such device here.
            ModelLoadError: OpenVINO refuses the file.
        """
        core = _core()
        self._device = "CPU" if options.device == "auto" else options.device.upper()
        devices = core.available_devices
        if self._device.split(".")[0] not in {name.split(".")[0] for name in devices}:
            known = ", ".join(devices)
            raise InputError(f"OpenVINO has no device {options.device!r} here; known are {known}.")
        config: dict[str, Any] = {"PERFORMANCE_HINT": options.mode.upper()}
        if options.precision == "exact":
            # On a CPU with AVX512-BF16 or AMX the default is bfloat16, whatever the file says.
            config["INFERENCE_PRECISION_HINT"] = "f32"
        if options.threads:
            config["INFERENCE_NUM_THREADS"] = options.threads
        try:
            model = _read(path)
            self._compiled: ov.CompiledModel | None = core.compile_model(
                model, self._device, config
            )
        except RuntimeError as err:
            raise ModelLoadError(f"OpenVINO refuses {path.name!r}: {one_line(err)[-300:]}") from err
        self.name = f"openvino {ov.__version__.split('-')[0]} {self._device}"
        sides = (
            None if one.is_dynamic else one.get_length() or None
            for one in model.inputs[0].partial_shape
        )
        self.input_shape = cast("tuple[int | None, int, int, int]", tuple(sides))
        self._dtype = model.inputs[0].element_type.to_dtype().name
        self._timeout = options.timeout
        self._abandoned: list[tuple[Any, object]] = []
        self._process = None if self._runs_in_the_caller() else os.getpid()
        self._outputs = [sorted(port.get_names()) for port in model.outputs]
        self._output = 0
        self.metadata = {**_metadata(model), "precision": self._actual_precision()}
        self._local = threading.local()
        spec = spec_inside(self.metadata)
        if spec is not None and spec.output is not None:
            self.select_output(spec.output)

    def run(self, batch: NDArray[np.float32] | NDArray[np.uint8], /) -> NDArray[np.float32]:
        """Map a batch to logits (N, labels) float32.

        Raises:
            InputError: The batch does not fit the model.
            InferenceError: The runtime is closed, the request fails, or it took too long.
        """
        compiled, local = self._compiled, self._local
        if compiled is None:
            raise InferenceError("This model is closed; open it again.")
        if self._process is not None:
            check_process(self._process, "OpenVINO in this mode")
        check_batch(batch, self.input_shape, self._dtype)
        request = getattr(local, "request", None)
        if request is None:
            request = local.request = compiled.create_infer_request()
        # Passing the array in this way takes half the time of `infer([batch], ...)`.
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
                    self._abandoned = [one for one in self._abandoned if _is_busy(one[0])]
                    self._abandoned.append((request, lent))
                    local.request = None
                    raise timeout_error(self._timeout)
        except RuntimeError as err:
            raise RunError(f"OpenVINO failed: {one_line(err)[-300:]}") from err
        # A copy: the request writes its next result over this one.
        scores = np.array(request.get_output_tensor(self._output).data, np.float32)
        return as_rows(scores, len(batch))

    def select_output(self, name: str | None) -> None:
        """Return this output from now on; None if the model has only one.

        Raises:
            SpecError: There is no output of this name, or there are several and none is named.
        """
        self._output = output_index(self._outputs, name)
        self.metadata["output"] = name or "/".join(self._outputs[self._output])

    def close(self) -> None:
        """Free the compiled model."""
        self._compiled = None
        self._local = threading.local()

    def _runs_in_the_caller(self) -> bool:
        """Return whether a run needs no thread but its caller's: on a CPU with one stream."""
        assert self._compiled is not None
        try:
            return self._device == "CPU" and self._compiled.get_property("NUM_STREAMS") == 1
        except RuntimeError:
            return False

    def _actual_precision(self) -> str:
        """Return what most of the weighted layers compute in, from the executed graph.

        It is part of a kernel's name, such as `brgconv_avx512_I8`. The field `runtimePrecision`
        is no evidence: it is f16 for weights that are only stored so.
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
        except (RuntimeError, KeyError, AttributeError):  # not every device reports it
            return "unknown"
        name = kernels.most_common(1)[0][0]
        return "int8" if name in ("i8", "u8") else name


def _read(path: Path) -> ov.Model:
    """Read a file; an .onnx that OpenVINO refuses is read in the form of `onnx_normal`."""
    try:
        return _core().read_model(path)
    except RuntimeError:
        if path.suffix.lower() != ".onnx":
            raise
        # As functions of the file's own, which OpenVINO 2026.4 does not know.
        with suppress(MissingDependencyError, ModelLoadError):
            network = read_onnx(path).SerializeToString()
            return _core().read_model(io.BytesIO(network))
        raise


def _is_busy(request: Any) -> bool:
    try:
        return not request.wait_for(0)
    except RuntimeError:  # it was cancelled
        return False


def _metadata(model: ov.Model) -> dict[str, str]:
    """Read the spec from rt_info: at the top for an .xml, under `framework` for an .onnx."""
    for path in ([METADATA_KEY], ["framework", METADATA_KEY]):
        if model.has_rt_info(path):
            return {METADATA_KEY: str(model.get_rt_info(path).astype(str))}
    return {}
