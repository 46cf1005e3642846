"""Which runtime opens which file."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

from edgeml.errors import InputError, ModelLoadError, needs
from edgeml.runtimes.protocol import Exactness, Mode, Runtime

if TYPE_CHECKING:
    from edgeml.runtimes.tensorrt.passport import Library


_RUNTIMES = ("onnxruntime", "openvino", "tensorrt", "tensorrt_rtx", "torch")


def open_runtime(
    path: Path,
    *,
    runtime: str = "auto",
    device: str = "auto",
    threads: int | None = None,
    precision: Exactness = "exact",
    mode: Mode = "latency",
    spinning: bool = False,
    timeout: float | None = None,
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
        mode: `latency` gives one run all threads; `throughput` gives each of several runs at once
            a thread. ONNX Runtime and OpenVINO know the difference.
        spinning: Let ONNX Runtime's threads spin while they wait for work.
        timeout: Seconds after which ONNX Runtime or OpenVINO stops a run, at the next layer.

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
    if timeout is not None and not 0 < timeout < math.inf:
        raise InputError(f"timeout is {timeout}; it must be a number of seconds above 0.")
    match (".run" if path.is_dir() else path.suffix.lower()), runtime:
        case ".onnx", "auto" | "onnxruntime":
            with needs("onnxruntime", extra="onnx", to="run .onnx models"):
                from edgeml.runtimes.ort import OrtRuntime
            return OrtRuntime(
                path,
                device=device,
                threads=threads,
                precision=precision,
                mode=mode,
                spinning=spinning,
                timeout=timeout,
            )
        case ((".onnx" | ".xml"), "auto" | "openvino"):
            with needs("openvino", extra="openvino", to="run models with OpenVINO"):
                from edgeml.runtimes.ov import OpenVinoRuntime
            return OpenVinoRuntime(
                path,
                device=device,
                threads=threads,
                precision=precision,
                mode=mode,
                timeout=timeout,
            )
        case _ if timeout is not None:
            raise InputError(
                f"A run of {path.name!r} cannot be stopped: timeout is for .onnx and .xml files, "
                "with ONNX Runtime or OpenVINO."
            )
        case ((".run" | ".safetensors"), "auto" | "torch"):
            with needs("torch", extra="train", to="run a training checkpoint"):
                from edgeml.runtimes.torch_ import TorchRuntime
            return TorchRuntime(path, device=device, threads=threads)
        case ".engine", "auto" | "tensorrt" | "tensorrt_rtx":
            from edgeml.runtimes.tensorrt.runtime import TensorRtRuntime

            library: Library | None = None if runtime == "auto" else runtime
            return TensorRtRuntime(path, library=library, device=device)
        case ".onnx", "tensorrt" | "tensorrt_rtx":
            from edgeml.runtimes.tensorrt.engine_cache import open_onnx

            return open_onnx(path, library=runtime, device=device)
        case kind, _:
            what = "a folder" if kind == ".run" else f"{path.name!r}"
            raise ModelLoadError(
                f"The runtime {runtime!r} does not read {what}: "
                "expected .onnx, .xml, .engine, .safetensors or a run folder."
            )
