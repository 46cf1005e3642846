"""What a runtime is, and which one opens which file."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Literal, Protocol

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import InputError, ModelLoadError, needs

if TYPE_CHECKING:
    from edgeml.passport import Library

Exactness = Literal["exact", "fast"]

_RUNTIMES = ("onnxruntime", "openvino", "tensorrt", "tensorrt_rtx", "torch")

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


def open_runtime(
    path: Path,
    *,
    runtime: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    precision: Exactness = "exact",
) -> Runtime:
    """Open a model file, or a run folder, with the runtime that its suffix asks for.

    Args:
        path: An .onnx, .xml or .engine file, a run folder of `edgeml train`, or its .safetensors.
        runtime: `auto`, or `onnxruntime`, `openvino`, `tensorrt`, `tensorrt_rtx`, `torch`. An
            .onnx file runs on all but the last; the two TensorRTs build an engine of it, at its
            first use on this machine.
        device: `auto`, or what the runtime calls its device.
        threads: CPU threads; None leaves the choice to the runtime.
        precision: `exact` computes an FP32 file in FP32; `fast` lets the device choose.

    Raises:
        ModelLoadError: There is no such file, or no runtime reads it.
        EngineMismatchError: An engine was built for another machine, or its passport is wrong.
        MissingDependencyError: The runtime's library is not installed.
        InputError: An unknown runtime.
        ExportError: TensorRT cannot build an engine of this .onnx file.
    """
    if runtime not in ("auto", *_RUNTIMES):
        raise InputError(f"No runtime {runtime!r}; known are {', '.join(_RUNTIMES)}, auto.")
    if not path.exists():
        raise ModelLoadError(f"There is no model {str(path)!r}.")
    if threads is not None and threads < 1:
        raise InputError(f"threads is {threads}; it must be 1 or more.")
    match (".run" if path.is_dir() else path.suffix.lower()), runtime:
        case ".onnx", "auto" | "onnxruntime":
            with needs("onnxruntime", extra="onnx", to="run .onnx models"):
                from edgeml.runtimes.ort import OrtRuntime
            return OrtRuntime(path, device=device, threads=threads, precision=precision)
        case ((".onnx" | ".xml"), "auto" | "openvino"):
            with needs("openvino", extra="openvino", to="run models with OpenVINO"):
                from edgeml.runtimes.ov import OpenVinoRuntime
            return OpenVinoRuntime(path, device=device, threads=threads, precision=precision)
        case ((".run" | ".safetensors"), "auto" | "torch"):
            with needs("torch", extra="train", to="run a training checkpoint"):
                from edgeml.runtimes.torch_ import TorchRuntime
            return TorchRuntime(path, device=device, threads=threads)
        case ".engine", "auto" | "tensorrt" | "tensorrt_rtx":
            from edgeml.runtimes.trt import TensorRtRuntime

            library: Library | None = None if runtime == "auto" else runtime
            return TensorRtRuntime(path, library=library, device=device)
        case ".onnx", "tensorrt" | "tensorrt_rtx":
            from edgeml.runtimes._engine_cache import open_onnx

            return open_onnx(path, library=runtime, device=device)
        case kind, _:
            what = "a folder" if kind == ".run" else f"{path.name!r}"
            raise ModelLoadError(
                f"The runtime {runtime!r} does not read {what}: "
                "expected .onnx, .xml, .engine, .safetensors or a run folder."
            )
