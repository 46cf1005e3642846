"""The steps of gpu_check.py. Each notes figures and what must hold; what it lacks, it says.

Nothing is imported at the top but the standard library, here and in the modules of the steps, so
that a machine without numpy or pydantic still says what it is.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from importlib import metadata
from pathlib import Path

from benchmarks import gpu_cuda, gpu_engines, gpu_networks
from benchmarks.gpu_common import Notes, SkippedError, line

PACKAGES = (
    "cuda-bindings", "cuda-toolkit", "numpy", "nvidia-cublas", "nvidia-cuda-runtime", "onnx",
    "nvidia-cudnn-cu13", "onnxruntime", "onnxruntime-ep-nv-tensorrt-rtx-cu13", "onnxruntime-gpu",
    "onnxscript", "opencv-python", "opencv-python-headless", "platformdirs", "pydantic",
    "safetensors", "tensorrt", "tensorrt_cu12", "tensorrt_cu13", "tensorrt_rtx_cu13_bindings",
    "tensorrt_rtx_cu13_libs", "timm", "torch", "torchvision", "triton", "typer",
)  # fmt: skip


def run(step: str, work: Path) -> None:
    """Run a step, and note how it ended."""
    notes = Notes(work / f"{step}.notes.json")
    os.environ["EDGEML_CACHE"] = str(work / "cache")
    try:
        _FUNCTIONS[step](notes, work)
    except SkippedError as err:
        notes.end("skipped", str(err))
    except ModuleNotFoundError as err:
        if (err.name or "").startswith(("edgeml", "benchmarks")):
            raise
        notes.end("skipped", f"{err.name} is not installed")
    except ImportError as err:  # edgeml's own word for what is not installed, or a broken install
        notes.end("skipped" if _is_missing(err) else "failed", line(err))
    except Exception as err:
        notes.end("failed", f"{type(err).__name__}: {line(err)}")
        raise
    else:
        notes.end("passed")


def machine(notes: Notes, work: Path) -> None:
    """Say what is here: before all else, since it needs least."""
    notes.figure("python", platform.python_version())
    notes.figure("platform", platform.platform())
    notes.figure("packages", {name: version for name in PACKAGES if (version := _version(name))})
    if shutil.which("nvidia-smi"):
        fields = "name,driver_version,memory.total,clocks.max.sm,power.limit,pstate"
        command = ["nvidia-smi", f"--query-gpu={fields}", "--format=csv,noheader"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        notes.figure("nvidia_smi", done.stdout.strip().splitlines())
    from edgeml.doctor import gpu, tensorrt

    driver = gpu.query_driver()
    notes.figure("driver", {"kernel": driver.kernel, "cuda": driver.cuda, "error": driver.error})
    notes.figure("gpus", [asdict(one) for one in driver.gpus])
    findings = [*gpu.examine(driver), *tensorrt.examine(driver)]
    notes.figure("doctor", [finding.to_dict() for finding in findings])


def _version(name: str) -> str | None:
    with suppress(metadata.PackageNotFoundError):
        return metadata.version(name)
    return None


def _is_missing(err: ImportError) -> bool:
    return type(err).__name__ == "MissingDependencyError"


_FUNCTIONS: dict[str, Callable[[Notes, Path], None]] = {
    "machine": machine,
    "cuda": gpu_cuda.cuda,
    "torch": gpu_networks.torch_,
    "train": gpu_networks.train,
    "models": gpu_networks.models,
    "ort-cuda": gpu_cuda.ort_cuda,
    "ort-graphs": gpu_cuda.ort_graphs,
    "ort-plugins": gpu_cuda.ort_plugins,
    "trt-rtx-build": gpu_engines.build("tensorrt_rtx"),
    "trt-rtx-current": gpu_engines.build_for_this_gpu,
    "trt-rtx-run": gpu_engines.run_engines("tensorrt_rtx"),
    "trt-build": gpu_engines.build("tensorrt"),
    "trt-run": gpu_engines.run_engines("tensorrt"),
    "trt-cache": gpu_engines.trt_cache,
}
