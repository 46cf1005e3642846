"""DOOR openvino: runs .xml and .onnx files."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import InferenceError, InputError, ModelLoadError
from edgeml.runtimes._base import Exactness
from edgeml.runtimes._telemetry import without_telemetry
from edgeml.spec import METADATA_KEY

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
    ) -> None:
        """Read and compile `path`.

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
        config: dict[str, Any] = {"PERFORMANCE_HINT": "LATENCY"}
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
            InferenceError: The runtime is closed, or the request fails.
        """
        compiled = self._compiled
        if compiled is None:
            raise InferenceError("This model is closed; open it again.")
        request = getattr(self._local, "request", None)
        if request is None:
            request = self._local.request = compiled.create_infer_request()
        try:
            outputs = request.infer([batch], share_inputs=True, share_outputs=True)
        except RuntimeError as err:
            raise InferenceError(f"OpenVINO failed: {' '.join(str(err).split())[-300:]}") from err
        # A copy: the request writes its next result over this one.
        return np.array(outputs[0], np.float32)

    def close(self) -> None:
        """Free the compiled model."""
        self._compiled = None
        self._local = threading.local()

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
