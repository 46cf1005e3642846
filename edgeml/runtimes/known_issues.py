"""Known problems with NVIDIA GPUs: how to recognise and fix them, with a link."""

from __future__ import annotations

import re
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class KnownIssue:
    """A problem that others have reported.

    Attributes:
        name: Short, and never changed: findings refer to it.
        what: What happens, and why.
        fix: The command that fixes it, or what to do.
        link: Where it is reported or documented.
        pattern: A pattern in the error message of a library; None if there is no message.
    """

    name: str
    what: str
    fix: str
    link: str
    pattern: str | None = None

    def to_dict(self) -> dict[str, str]:
        """Return what `edgeml doctor --known-issues --json` prints."""
        return {"name": self.name, "what": self.what, "mend": self.fix, "link": self.link}


_ORT = "https://github.com/microsoft/onnxruntime/issues"
_TRT = "https://github.com/NVIDIA/TensorRT/issues"
_TRT_DOCS = "https://docs.nvidia.com/deeplearning/tensorrt"

KNOWN_ISSUES: tuple[KnownIssue, ...] = (
    KnownIssue(
        name="onnxruntime-twice",
        what="onnxruntime and onnxruntime-gpu share a folder; the one installed last wins, and "
        "CUDA is gone",
        fix="pip uninstall -y onnxruntime onnxruntime-gpu && pip install onnxruntime-gpu",
        link=f"{_ORT}/26996",
    ),
    KnownIssue(
        name="onnxruntime-silent-cpu",
        what="ONNX Runtime continues on the CPU, with only a log line, if CUDA cannot be started; "
        "edgeml raises an error instead",
        fix="edgeml doctor names the missing library",
        link=f"{_ORT}/23372",
    ),
    KnownIssue(
        name="cuda-libraries",
        what="ONNX Runtime's CUDA provider finds no CUDA libraries of the major version that it "
        "was built for",
        fix="pip install 'onnxruntime-gpu[cuda,cudnn]'",
        link=f"{_ORT}/21684",
        pattern=r"lib(cublas|cublasLt|cudart|cudnn|cufft|curand|nvrtc)\w*\.so\.\d+",
    ),
    KnownIssue(
        name="driver-too-old",
        what="CUDA 13 needs driver 580 or newer, CUDA 12 needs 525 or newer",
        fix="install a newer NVIDIA driver, then restart",
        link="https://docs.nvidia.com/deploy/cuda-compatibility/minor-version-compatibility.html",
        pattern=r"insufficient for CUDA runtime|cudaErrorInsufficientDriver|"
        r"CUDA initialization failure with error: 35",
    ),
    KnownIssue(
        name="tensorrt-provider",
        what="ONNX Runtime's own TensorRT provider, as in onnxruntime-gpu 1.31, is linked "
        "to TensorRT 10 and cannot load 11; edgeml's engines do not go through it",
        fix="run .engine files, or the CUDA provider, or install TensorRT 10",
        link="https://onnxruntime.ai/docs/execution-providers/TensorRT-ExecutionProvider.html",
        pattern=r"libnvinfer(_plugin)?\.so\.10|libnvonnxparser\.so\.10",
    ),
    KnownIssue(
        name="tensorrt-11-flags",
        what="TensorRT 11 has no FP16 and INT8 flags and no calibrators; the ONNX "
        "determines the precision",
        fix="edgeml export RUN --fmt trt --precision fp16 (or int8) writes it into the ONNX",
        link=f"{_TRT_DOCS}/11.4.0/api/migration/tensorrt-10x-to-11x.html",
        pattern=r"BuilderFlag.* has no attribute|IInt8\w*Calibrator",
    ),
    KnownIssue(
        name="tensorrt-jetpack",
        what="JetPack 6 has TensorRT 10.3 and stays on 10.x; TensorRT 11.0 to 11.4.0 run on no "
        "JetPack",
        fix="use the TensorRT of JetPack; build the engine on the Jetson",
        link=f"{_TRT_DOCS}/11.4.0/api/migration/tensorrt-10x-to-11x.html",
    ),
    KnownIssue(
        name="engine-of-another-gpu",
        what="an engine runs on the kind of GPU that it was built on",
        fix="build it on the device that runs it: edgeml export MODEL.onnx --fmt trt",
        link=f"{_TRT}/2176",
        pattern=r"generated on an incompatible device",
    ),
    KnownIssue(
        name="engine-of-another-version",
        what="an engine runs with the TensorRT that it was built with",
        fix="build it again: edgeml export MODEL.onnx --fmt trt",
        link=f"{_TRT}/2195",
        pattern=r"Version tag does not match|Serialization assertion",
    ),
    KnownIssue(
        name="tensorrt-without-gpu",
        what="without a usable driver TensorRT returns objects that end the process when they are "
        "used; edgeml checks CUDA first",
        fix="install the driver, or start the container with --gpus all",
        link=f"{_TRT}/2879",
        pattern=r"CUDA initialization failure with error",
    ),
    KnownIssue(
        name="tensorrt-rtx-gpus",
        what="TensorRT-RTX lists RTX GPUs of compute capability 7.5, 8.6, 8.9 and 12; data centre "
        "GPUs such as the H100 (9.0) are not on its list",
        fix="use TensorRT there: edgeml export MODEL.onnx --fmt trt",
        link=f"{_TRT_DOCS}-rtx/latest/getting-started/support-matrix.html",
    ),
    KnownIssue(
        name="cuda-int8",
        what="ONNX Runtime's CUDA provider is not made for INT8 files",
        fix="run FP16 or FP32 there, and INT8 with TensorRT",
        link="https://huggingface.co/docs/optimum/onnxruntime/usage_guides/gpu",
    ),
)


def known_issue(name: str) -> KnownIssue:
    """Return an issue by its name."""
    return next(issue for issue in KNOWN_ISSUES if issue.name == name)


def recognise(message: str) -> KnownIssue | None:
    """Return the first issue in the table whose pattern is in a library's error message."""
    return next(
        (one for one in KNOWN_ISSUES if one.pattern and re.search(one.pattern, message)), None
    )


def see(message: str) -> str:
    """Return a sentence that explains a library's message; nothing if the issue is unknown."""
    issue = recognise(message)
    return f" Known: {issue.what}. {issue.fix} ({issue.link})." if issue else ""
