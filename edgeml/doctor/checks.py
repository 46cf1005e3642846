"""What works on this machine, what does not, why, and the command that fixes it.

Nothing is installed, and nothing heavy is imported: versions come from the packages' metadata, and
a library that has to be loaded is loaded in another process, which may crash.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata, util
from pathlib import Path

from edgeml.doctor import gpu, probes, tensorrt
from edgeml.doctor.gpu import Driver
from edgeml.doctor.probes import Finding, absent, problem
from edgeml.runtimes.known_issues import known_issue

_OPENCV = (
    "opencv-python",
    "opencv-contrib-python",
    "opencv-python-headless",
    "opencv-contrib-python-headless",
)
_ONNXRUNTIME = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml")


def examine() -> list[Finding]:
    """Check everything that edgeml may use, which takes some seconds."""
    driver = gpu.query_driver()
    return [
        _python(),
        _installed("numpy", "pip install 'numpy>=2.0'", needed=True),
        _opencv(),
        _onnxruntime(driver),
        _openvino(),
        *gpu.examine(driver),
        *tensorrt.examine(driver),
        _torch(),
        _installed("timm", "pip install 'edgeml[train]'"),
        _installed("onnx", "pip install 'edgeml[export]'"),
        *_processor(),
        _camera(),
        _display(),
    ]


def _python() -> Finding:
    bits = "64 bit" if sys.maxsize > 2**32 else "32 bit"
    detail = f"{platform.python_version()}, {bits}, {platform.platform()}"
    fix = "install Python 3.10 or newer, then edgeml with its pip"
    ok = sys.version_info >= (3, 10)
    finding = Finding(name="python", ok=True, detail=detail)
    return finding if ok else problem("python", "too-old", detail, fix)


def _installed(name: str, fix: str, *, needed: bool = False) -> Finding:
    """Report a package's version, without an attempt to import it."""
    version = probes.version_of(name)
    if not version:
        return absent(name, fix, needed=needed)
    return Finding(name=name, ok=True, detail=version)


def _opencv() -> Finding:
    found = [name for name in _OPENCV if probes.version_of(name)]
    if len(found) > 1:
        return _conflict("opencv", found, keep=found[0])
    if not found and not util.find_spec("cv2"):
        return absent("opencv", "pip install opencv-python", needed=True)
    version, error = probes.run_python("import cv2; print(json.dumps(cv2.__version__))")
    package = found[0] if found else "not from pip"
    if error:
        fix = f"pip install --force-reinstall {package if found else 'opencv-python-headless'}"
        if "libGL" in error or "libgthread" in error:
            fix = f"pip uninstall -y {package} && pip install opencv-python-headless"
        return problem("opencv", "broken", f"{package}: {error}", fix)
    windows = "; it cannot open windows" if "headless" in package else ""
    return Finding(name="opencv", ok=True, detail=f"{version} ({package}){windows}")


def _onnxruntime(driver: Driver) -> Finding:
    name = "onnxruntime"
    found = [package for package in _ONNXRUNTIME if probes.version_of(package)]
    if len(found) > 1:
        keep = "onnxruntime-gpu" if "onnxruntime-gpu" in found and driver.present else found[0]
        return _conflict(name, found, keep=keep, see=known_issue("onnxruntime-twice").link)
    if not found and not util.find_spec(name):
        return absent(name, "pip install 'edgeml[onnx]'")
    package = found[0] if found else "not from pip"
    answer, error = probes.run_python(
        "import onnxruntime as ort; print(json.dumps([ort.__version__, "
        "*(p.removesuffix('ExecutionProvider') for p in ort.get_available_providers())]))"
    )
    if error:
        fix = f"pip install --force-reinstall {found[0] if found else name}"
        return problem(name, "broken", f"{package}: {error}", fix)
    version, *providers = answer
    detail = f"{version} ({package}): {', '.join(providers)}"
    if package == "onnxruntime-gpu" and not driver.present:
        detail = f"{detail}; but there is no CUDA driver, so it would run on the CPU"
        fix = "pip uninstall -y onnxruntime-gpu && pip install onnxruntime"
        return problem(name, "no-driver", detail, fix)
    return Finding(name=name, ok=True, detail=detail)


def _openvino() -> Finding:
    version = probes.version_of("openvino")
    if not version:
        return absent("openvino", "pip install 'edgeml[openvino]'")
    devices, error = probes.run_python(
        "import openvino as ov; core = ov.Core(); print(json.dumps("
        "[f'{d} ({core.get_property(d, \"FULL_DEVICE_NAME\")})' for d in core.available_devices]))"
    )
    if error:
        fix = "pip install --force-reinstall openvino"
        return problem("openvino", "broken", f"{version}: {error}", fix)
    return Finding(name="openvino", ok=True, detail=f"{version}: {', '.join(devices)}")


def _torch() -> Finding:
    """Check torch and torchvision as a pair, from their files: importing takes seconds."""
    torch, vision = probes.full_version("torch"), probes.full_version("torchvision")
    reinstall = "pip uninstall -y torch torchvision && pip install torch torchvision"
    if not torch:
        return absent("torch", "pip install 'edgeml[train]'")
    pair = f"torch {torch}, torchvision {vision or 'not installed'}"
    if not vision:
        fix = "pip install torchvision"
        return problem("torch", "no-torchvision", f"{pair}; timm needs it", fix)
    needed = _torch_needed_by_torchvision()
    if needed and not _satisfies(torch, *needed):
        detail = f"{pair}; this torchvision needs torch {''.join(needed)}"
        return problem("torch", "mismatch", detail, reinstall)
    ours, theirs = torch.partition("+")[2], vision.partition("+")[2]
    if ours != theirs:
        builds = f"built for {ours or 'no CUDA'} and {theirs or 'no CUDA'}"
        detail = f"{pair}; {builds}: install both from one index"
        return problem("torch", "other-builds", detail, reinstall)
    return Finding(name="torch", ok=True, detail=pair)


def _processor() -> Iterator[Finding]:
    """Report what the processor's instructions mean for INT8 and for FP32."""
    text = probes.read(Path("/proc/cpuinfo"))
    listed = re.search(r"^(?:flags|Features)\s*:\s*(.*)$", text, re.MULTILINE)
    if not listed:
        yield Finding(name="processor", ok=None, detail=f"{platform.machine()}: unknown")
        return
    flags = set(listed[1].split())
    wide = "avx2" if "avx2" in flags else "no avx2"
    detail = f"{wide}, no 8-bit dot product: INT8 may be slower than FP32; measure it"
    if int8 := flags & {"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"}:
        detail = f"{', '.join(sorted(int8))}: INT8 models can be faster than FP32"
    yield Finding(name="processor, INT8", ok=bool(int8) or None, detail=detail)
    detail = "none: FP32 files run in FP32"
    if bf16 := flags & {"avx512_bf16", "amx_bf16", "bf16"}:
        detail = (
            f"{', '.join(sorted(bf16))}: by default OpenVINO runs FP32 files in bfloat16 here; "
            "edgeml's precision='exact' keeps FP32, 'fast' allows bfloat16"
        )
    yield Finding(name="processor, BF16", ok=bool(bf16) or None, detail=detail)


def _camera() -> Finding:
    nodes = sorted(str(path) for path in Path("/dev").glob("video*"))
    if not nodes:
        return Finding(name="camera", ok=None, detail="none found (no /dev/video*)")
    closed = [node for node in nodes if not os.access(node, os.R_OK | os.W_OK)]
    if closed:
        fix = "sudo usermod -aG video $USER, then log in again"
        return problem("camera", "permission", f"no permission to open {', '.join(closed)}", fix)
    return Finding(name="camera", ok=True, detail=", ".join(nodes))


def _display() -> Finding:
    display = os.environ.get("WAYLAND_DISPLAY") or os.environ.get("DISPLAY")
    if sys.platform in ("win32", "darwin"):
        display = "the desktop"
    detail = display or "none: --show is not possible, --video is"
    return Finding(name="display", ok=True if display else None, detail=detail)


def _conflict(name: str, found: Sequence[str], *, keep: str, see: str | None = None) -> Finding:
    """Report packages that overwrite each other's files."""
    detail = f"{' and '.join(found)} are all installed, in the same folder: keep one"
    fix = f"pip uninstall -y {' '.join(found)} && pip install {keep}"
    return problem(name, "conflict", detail, fix, see)


def _torch_needed_by_torchvision() -> tuple[str, str] | None:
    """Return the torch that torchvision's metadata requires, such as ("==", "2.13.0")."""
    for line in metadata.requires("torchvision") or []:
        if match := re.match(r"torch\s*\(?\s*(==|>=)\s*([\d.]+)", line):
            return match[1], match[2]
    return None


def _satisfies(version: str, comparison: str, needed: str) -> bool:
    """Compare releases, without the local version behind a +."""
    ours, theirs = (
        [int(part) for part in re.findall(r"\d+", text.partition("+")[0])[:3]]
        for text in (version, needed)
    )
    return ours == theirs if comparison == "==" else ours >= theirs
