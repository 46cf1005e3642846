"""The GPU side of `edgeml doctor`: driver, GPUs, CUDA's libraries, and how they fit together.

No library is imported: a driver can hang, so it is queried in another process.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import util
from pathlib import Path

from edgeml.doctor import probes
from edgeml.doctor.probes import Finding, absent, problem
from edgeml.runtimes.known_issues import known_issue, recognise

_MIN_DRIVER = {11: 450, 12: 525, 13: 580}
"""By CUDA's major version, see the known issue `driver-too-old`."""

_LINKED = {"cublasLt": None, "cublas": None, "cudart": None, "curand": "10"}
"""Libraries that onnxruntime-gpu 1.31 links to, with their version, None for CUDA's. It runs
without cuDNN."""

_LIBRARY = re.compile(r"lib(cudart|cublas|cublasLt|cudnn|cufft|curand|nvrtc)\.so\.(\d+)")

_JETPACKS = {"35": "5", "36": "6", "38": "7"}
"""JetPack's major version by that of Jetson Linux."""

_CUINIT = {
    100: ("finds no GPU", "nvidia-smi should list it; on a rented machine ask for one"),
    803: ("and the driver in the kernel are of two versions", "restart the machine"),
    804: ("is a compatibility package that this GPU does not allow", "remove cuda-compat"),
    999: ("cannot reach the driver", "sudo modprobe nvidia_uvm, or restart the machine"),
}
"""What a status of `cuInit` means, and how to fix it: CUDA driver API, CUresult."""

_QUERY_DRIVER = """import ctypes
cuda = ctypes.CDLL({library!r})
number, text = ctypes.c_int(), ctypes.create_string_buffer(256)
cuda.cuDriverGetVersion(ctypes.byref(number))
found = {{"cuda": number.value, "status": cuda.cuInit(0), "gpus": []}}
if found["status"] == 0:
    cuda.cuDeviceGetCount(ctypes.byref(number))
    for index in range(number.value):
        device, size, sides = ctypes.c_int(), ctypes.c_size_t(), []
        cuda.cuDeviceGet(ctypes.byref(device), index)
        cuda.cuDeviceGetName(text, 256, device)
        cuda.cuDeviceTotalMem_v2(ctypes.byref(size), device)
        for attribute in (75, 76):  # the two parts of the compute capability
            cuda.cuDeviceGetAttribute(ctypes.byref(number), attribute, device)
            sides.append(number.value)
        found["gpus"].append([text.value.decode(), "%d.%d" % tuple(sides), size.value // 2**20])
print(json.dumps(found))
"""

_RELU = "CAg6MwoMCgF4EgF5IgRSZWx1EgFnWg8KAXgSCgoICAESBAoCCAFiDwoBeRIKCggIARIECgIIAUIECgAQDQ=="
"""The smallest possible ONNX file: y = Relu(x), one number."""

_START_CUDA = f"""import base64, os, tempfile
log, out = tempfile.TemporaryFile(), os.dup(1)
os.dup2(log.fileno(), 1), os.dup2(log.fileno(), 2)  # C++ writes past sys.stdout and sys.stderr
import onnxruntime as ort
if hasattr(ort, "preload_dlls"): ort.preload_dlls()
providers, relu = [], base64.b64decode({_RELU!r})
try:
    cuda = ["CUDAExecutionProvider"]
    providers = ort.InferenceSession(relu, providers=cuda, enable_fallback=0).get_providers()
except Exception as err:
    print(err)
sys.stdout.flush()
os.dup2(out, 1)
log.seek(0)
print(json.dumps([providers, log.read().decode(errors="replace")]))
"""


@dataclass(frozen=True)
class Gpu:
    """A GPU, as the driver describes it.

    Attributes:
        name: For example `NVIDIA H100 80GB HBM3`.
        capability: Its compute capability, `9.0`.
        memory_mb: In units of 2^20 bytes.
    """

    name: str
    capability: str
    memory_mb: int


@dataclass(frozen=True, kw_only=True)
class Driver:
    """The state of NVIDIA's driver.

    Attributes:
        file: The path of its library.
        kernel: The version of the kernel module.
        cuda: The newest CUDA that it supports, as major and minor version.
        status: The result of `cuInit`.
        error: Why the library could not be queried.
        gpus: The GPUs that it finds.
    """

    file: str | None = None
    kernel: str | None = None
    cuda: tuple[int, int] | None = None
    status: int | None = None
    error: str | None = None
    gpus: tuple[Gpu, ...] = ()

    @property
    def present(self) -> bool:
        """Whether there is a driver library."""
        return self.file is not None or self.cuda is not None


def query_driver() -> Driver:
    """Query the driver in another process, through its C interface, which needs no package."""
    file = probes.driver_file()
    version = probes.read(Path("/proc/driver/nvidia/version"))
    kernel = re.search(r"Kernel Module\D*([\d.]+)", version)
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    found, error = probes.run_python(_QUERY_DRIVER.format(library=name))
    if not isinstance(found, dict):
        return Driver(file=file, kernel=kernel and kernel[1], error=error)
    return Driver(
        file=file or name,
        kernel=kernel and kernel[1],
        cuda=(found["cuda"] // 1000, found["cuda"] % 1000 // 10),
        status=found["status"],
        gpus=tuple(Gpu(*gpu) for gpu in found["gpus"]),
    )


def examine(driver: Driver) -> Iterator[Finding]:
    """Check everything that a GPU needs, from the driver up."""
    yield _driver(driver)
    if driver.gpus:
        gpus = (
            f"{g.name} (compute capability {g.capability}, {g.memory_mb} MiB)" for g in driver.gpus
        )
        yield Finding(name="gpu", ok=True, detail="; ".join(gpus))
    yield from _jetson()
    yield _cuda_libraries(driver, find_libraries())
    yield _cuda_bindings()
    yield from _cuda_provider(driver)


def _driver(driver: Driver) -> Finding:
    name = "cuda driver"
    if not driver.present:
        if not driver.kernel:
            detail = "none: no NVIDIA GPU can be used"
            return Finding(name=name, ok=None, code="absent", detail=detail)
        detail = (
            f"the kernel has driver {driver.kernel}, but libcuda.so.1 is missing, as in a "
            "container without access to the GPU"
        )
        fix = "start the container with --gpus all (it needs the NVIDIA Container Toolkit)"
        return problem(name, "no-library", detail, fix)
    detail = f"{driver.kernel or 'present'} ({driver.file})"
    if driver.cuda is None:
        if driver.error is None:
            return Finding(name=name, ok=True, detail=detail)
        fix = "install the NVIDIA driver again, then restart the machine"
        return problem(name, "broken", f"{detail}: {driver.error}", fix)
    detail = f"{detail}, for CUDA up to {driver.cuda[0]}.{driver.cuda[1]}"
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if driver.status == 100 and hidden is not None:
        detail = f"{detail}; CUDA_VISIBLE_DEVICES is {hidden!r}, which hides all GPUs"
        return problem(name, "hidden", detail, "unset CUDA_VISIBLE_DEVICES")
    if driver.status:
        reason, fix = _CUINIT.get(driver.status, ("does not start", "restart the machine"))
        detail = f"{detail}; it {reason} (cuInit returns {driver.status})"
        return problem(name, "not-started", detail, fix)
    return Finding(name=name, ok=True, detail=detail)


def _jetson() -> Iterator[Finding]:
    """Report a Jetson's JetPack, by its Jetson Linux: `# R36 (release), REVISION: 4.3`."""
    linux = jetson_linux()
    detail = f"Jetson Linux {linux}"
    if pack := _JETPACKS.get(linux or ""):
        detail = f"{detail}, JetPack {pack}"
    if linux == "35":
        yield problem("jetson", "too-old", detail, "update to JetPack 6, which has TensorRT 10.3")
    elif linux:
        yield Finding(name="jetson", ok=True, detail=detail)


def jetson_linux() -> str | None:
    """Return the major version of Jetson Linux; None on other machines."""
    found = re.match(r"#\s*R(\d+)", probes.read(Path("/etc/nv_tegra_release")))
    return found[1] if found else None


def find_libraries() -> dict[tuple[str, str], str]:
    """Return the folders of CUDA's libraries, by name and version, such as ("cublas", "13").

    NVIDIA's packages and PyTorch come before the system, in ONNX Runtime's order.
    """
    found: dict[tuple[str, str], str] = {}
    for folder in _library_folders():
        with suppress(OSError):
            for match in filter(None, map(_LIBRARY.fullmatch, os.listdir(folder))):
                found.setdefault((match[1], match[2]), str(folder))
    return found


def _library_folders() -> Iterator[Path]:
    for site in map(Path, sys.path):
        yield from sorted(site.glob("nvidia/*/lib"), reverse=True)
        yield site / "torch/lib"
    yield from map(Path, filter(None, os.environ.get("LD_LIBRARY_PATH", "").split(":")))
    for home in sorted(Path("/usr/local").glob("cuda*"), reverse=True):
        yield from (home / "lib64", *sorted(home.glob("targets/*/lib")))
    for system in ("lib/x86_64-linux-gnu", "lib/aarch64-linux-gnu", "lib64"):
        yield Path("/usr") / system


def _cuda_libraries(driver: Driver, found: Mapping[tuple[str, str], str]) -> Finding:
    """Compare the libraries with those that onnxruntime-gpu links to, and with the driver."""
    name = "cuda libraries"
    needed = _cuda_of_onnxruntime()
    detail = _by_folder(found)
    if needed is None:
        return Finding(name=name, ok=True if found else None, detail=detail)
    missing = [
        f"lib{library}.so.{number or needed}"
        for library, number in _LINKED.items()
        if (library, number or str(needed)) not in found
    ]
    if missing:
        detail = f"{detail}; onnxruntime-gpu is for CUDA {needed} and lacks {', '.join(missing)}"
        issue = known_issue("cuda-libraries")
        return problem(name, issue.name, detail, issue.fix, issue.link)
    if driver.cuda and driver.cuda[0] < needed:
        detail = f"{detail}; onnxruntime-gpu is for CUDA {needed}"
        return old_driver(name, detail, driver, needed)
    return Finding(name=name, ok=True, detail=detail)


def _by_folder(found: Mapping[tuple[str, str], str]) -> str:
    """List libraries by folder: `/usr/lib64: cublas 13, cudart 13`."""
    folders: dict[str, list[str]] = {}
    for (library, number), folder in sorted(found.items()):
        folders.setdefault(folder, []).append(f"{library} {number}")
    return "; ".join(f"{folder}: {', '.join(names)}" for folder, names in folders.items()) or "none"


def _cuda_of_onnxruntime() -> int | None:
    """Return the CUDA that onnxruntime-gpu was built for, from its package; None without it."""
    spec = util.find_spec("onnxruntime") if probes.version_of("onnxruntime-gpu") else None
    if spec is None or not spec.origin:
        return None
    text = probes.read(Path(spec.origin).parent / "capi/build_and_package_info.py")
    match = re.search(r"^cuda_version\s*=\s*['\"](\d+)", text, re.MULTILINE)
    return int(match[1]) if match else None


def old_driver(name: str, detail: str, driver: Driver, needed: int) -> Finding:
    """Return the finding of a library that is for a newer CUDA than the driver supports."""
    assert driver.cuda is not None
    detail = f"{detail}, and the driver supports CUDA {driver.cuda[0]}.{driver.cuda[1]}"
    newest = _MIN_DRIVER.get(needed, "of a newer branch")
    fix = f"install NVIDIA driver {newest} or newer, then restart the machine"
    return problem(name, "driver-too-old", detail, fix, known_issue("driver-too-old").link)


def _cuda_bindings() -> Finding:
    version = probes.version_of("cuda-bindings")
    if not version:
        detail = "not installed; .engine files need it"
        return absent("cuda-bindings", "pip install 'edgeml[trt]'", detail)
    return Finding(name="cuda-bindings", ok=True, detail=version)


def _cuda_provider(driver: Driver) -> Iterator[Finding]:
    """Open a session on CUDA: only that shows whether ONNX Runtime would use the CPU instead."""
    if not probes.version_of("onnxruntime-gpu") or not driver.gpus:
        return
    name = "onnxruntime, CUDA"
    answer, error = probes.run_python(_START_CUDA)
    providers, log = answer or ([], error or "")
    if "CUDAExecutionProvider" in providers:
        yield Finding(name=name, ok=True, detail="a session starts on the GPU")
        return
    lines = [line for line in re.sub(r"\x1b\[[\d;]*m", "", log).splitlines() if line.strip()]
    issue = recognise(log) or known_issue("cuda-libraries")
    detail = f"a session does not start on the GPU: {lines[-1].strip() if lines else log!r}"
    yield problem(name, "not-started", detail, issue.fix, issue.link)
