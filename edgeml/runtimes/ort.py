"""DOOR onnxruntime: runs .onnx files."""

from __future__ import annotations

import logging
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import cast

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from edgeml.errors import InferenceError, InputError, ModelLoadError
from edgeml.runtimes._base import FP16_ON_X86
from edgeml.spec import METADATA_KEY

logger = logging.getLogger(__name__)

_CPUINFO = Path("/proc/cpuinfo")
_PROVIDERS = {"auto": "CPUExecutionProvider", "cpu": "CPUExecutionProvider"}

# Only Arm has FP16 kernels. On x86 the provider casts weights up once and computes in FP32.
_ON_ARM = platform.machine().lower() in ("aarch64", "arm64")


class OrtRuntime:
    """An ONNX Runtime session. `run` may be called from several threads at once."""

    def __init__(self, path: Path, *, device: str = "auto", threads: int | None = None) -> None:
        """Load `path`.

        Raises:
            InputError: The device is not one that this runtime serves.
            ModelLoadError: ONNX Runtime refuses the file.
        """
        provider = _PROVIDERS.get(device.lower())
        if provider is None:
            raise InputError(f"ONNX Runtime has no device {device!r} here; known are auto and cpu.")
        options = ort.SessionOptions()
        options.log_severity_level = 3
        if threads:
            options.intra_op_num_threads = threads
        # Spinning threads take four times the CPU time as soon as anything else wants the cores.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if _saturates(_read(_CPUINFO)):
            # Products of uint8 and uint8 instead: slower, and right. ONNX Runtime would do so with
            # VNNI too, where it halves the speed of INT8 and changes no bit.
            options.add_session_config_entry("session.x64quantprecision", "1")
        session = _open(path, options, provider)
        if _is_for_another_runtime(session.get_modelmeta().custom_metadata_map):
            # It would quantise what was left in float, and spoil FP16 biases (1.32).
            options.add_session_config_entry(
                "optimization.disable_specified_optimizers", "WeightBiasQuantization"
            )
            session = _open(path, options, provider)
        self._session: ort.InferenceSession | None = session
        self._input = session.get_inputs()[0]
        meta = dict(session.get_modelmeta().custom_metadata_map)
        self._metadata = {**meta, "precision": _precision(meta)}
        if _is_fp16(meta) and not _ON_ARM:
            logger.warning("%s: %s", path.name, FP16_ON_X86)

    @property
    def name(self) -> str:
        """The library, its version and the device."""
        return f"onnxruntime {ort.__version__} CPU"

    @property
    def input_shape(self) -> tuple[int | None, int, int, int]:
        """The declared shape; a symbolic dimension is None."""
        shape = [side if isinstance(side, int) else None for side in self._input.shape]
        return cast("tuple[int | None, int, int, int]", tuple(shape))

    @property
    def metadata(self) -> Mapping[str, str]:
        """The file's metadata_props, and the precision."""
        return self._metadata

    def run(self, batch: NDArray[np.float32] | NDArray[np.uint8], /) -> NDArray[np.float32]:
        """Map a batch to logits (N, labels) float32.

        Raises:
            InferenceError: The runtime is closed, or the session fails.
        """
        session = self._session
        if session is None:
            raise InferenceError("This model is closed; open it again.")
        try:
            (logits,) = session.run(None, {self._input.name: batch})
        except Exception as err:
            raise InferenceError(f"ONNX Runtime failed: {_line(err)}") from err
        return np.asarray(logits, np.float32)

    def close(self) -> None:
        """Free the session."""
        self._session = None


def _open(path: Path, options: ort.SessionOptions, provider: str) -> ort.InferenceSession:
    """Load a file.

    Raises:
        ModelLoadError: ONNX Runtime refuses it.
    """
    try:
        # Without enable_fallback=0 a failing device is silently replaced by the CPU.
        return ort.InferenceSession(str(path), options, providers=[provider], enable_fallback=0)
    except Exception as err:  # ONNX Runtime's own errors share no public base class
        raise ModelLoadError(f"ONNX Runtime refuses {path.name!r}: {_line(err)}") from err


def _is_for_another_runtime(metadata: Mapping[str, str]) -> bool:
    """Say whether edgeml laid an INT8 file out for OpenVINO or TensorRT."""
    spec = metadata.get(METADATA_KEY, "")
    return any(f'"quantizer": "edgeml, {name}' in spec for name in ("openvino", "tensorrt"))


def _precision(metadata: Mapping[str, str]) -> str:
    """Say what the CPU provider computes in, which is not always what the file was written in."""
    spec = metadata.get(METADATA_KEY, "")
    if '"precision": "int8"' in spec:
        return "int8"
    return "f16" if '"precision": "fp16"' in spec and _ON_ARM else "f32"


def _is_fp16(metadata: Mapping[str, str]) -> bool:
    """Say whether what is not INT8 in the file is FP16."""
    spec = metadata.get(METADATA_KEY, "")
    return '"precision": "fp16"' in spec or '"arithmetic": "fp16"' in spec


def _saturates(cpuinfo: str) -> bool:
    """Say whether pairs of uint8 x int8 products are added up in 16 bits: x86 without VNNI.

    Where the processor's flags cannot be read, it may be one.
    """
    if platform.machine().lower() not in ("x86_64", "amd64"):
        return False
    return not {"avx512_vnni", "avx_vnni"} & set(cpuinfo.split())


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def _line(err: Exception) -> str:
    """Give an error's message as one line."""
    return " ".join(str(err).split())
