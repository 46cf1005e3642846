"""The GPU side of `edgeml doctor`: driver, GPUs, CUDA's libraries, TensorRT, and how they fit.

Nothing is imported here: TensorRT can end the process where no GPU is, and a driver can hang.
"""

from __future__ import annotations

import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib import util
from pathlib import Path

from edgeml.doctor import probes
from edgeml.doctor.probes import Finding
from edgeml.errors import MissingDependencyError
from edgeml.files import user_cache
from edgeml.runtimes.known_issues import known_issue, recognise

_OLDEST = (10, 3)
"""Of TensorRT: the one of JetPack 6."""

_LEAST_DRIVER = {11: 450, 12: 525, 13: 580}
"""By CUDA's major version, see the known issue `driver-too-old`."""

_RTX = frozenset({"7.5", "8.0", "8.6", "8.9", "12.0", "12.1"})
"""Compute capabilities that TensorRT-RTX lists, see the known issue `tensorrt-rtx-gpus`."""

_LINKED = {"cublasLt": None, "cublas": None, "cudart": None, "curand": "10"}
"""What onnxruntime-gpu 1.31 is linked to, by number, None for CUDA's own. cuDNN is not needed."""

_LIBRARY = re.compile(r"lib(cudart|cublas|cublasLt|cudnn|cufft|curand|nvrtc)\.so\.(\d+)")

_JETPACKS = {"35": "5", "36": "6", "38": "7"}
"""JetPack's major version by that of Jetson Linux."""

_CUINIT = {
    100: ("finds no GPU", "nvidia-smi should list it; on a rented machine ask for one"),
    803: ("and the driver in the kernel are of two versions", "restart the machine"),
    804: ("is a compatibility package that this GPU does not allow", "remove cuda-compat"),
    999: ("cannot reach the driver", "sudo modprobe nvidia_uvm, or restart the machine"),
}
"""What `cuInit` says, with what mends it: CUDA driver API, CUresult."""

_ASK_DRIVER = """import ctypes
cuda = ctypes.CDLL({library!r})
number, text = ctypes.c_int(), ctypes.create_string_buffer(256)
cuda.cuDriverGetVersion(ctypes.byref(number))
told = {{"cuda": number.value, "status": cuda.cuInit(0), "gpus": []}}
if told["status"] == 0:
    cuda.cuDeviceGetCount(ctypes.byref(number))
    for index in range(number.value):
        device, size, sides = ctypes.c_int(), ctypes.c_size_t(), []
        cuda.cuDeviceGet(ctypes.byref(device), index)
        cuda.cuDeviceGetName(text, 256, device)
        cuda.cuDeviceTotalMem_v2(ctypes.byref(size), device)
        for attribute in (75, 76):  # the two parts of the compute capability
            cuda.cuDeviceGetAttribute(ctypes.byref(number), attribute, device)
            sides.append(number.value)
        told["gpus"].append([text.value.decode(), "%d.%d" % tuple(sides), size.value // 2**20])
print(json.dumps(told))
"""

_RELU = "CAg6MwoMCgF4EgF5IgRSZWx1EgFnWg8KAXgSCgoICAESBAoCCAFiDwoBeRIKCggIARIECgIIAUIECgAQDQ=="
"""The smallest ONNX file there is: y = Relu(x), one number."""

_ASK_CUDA = f"""import base64, os, tempfile
said, out = tempfile.TemporaryFile(), os.dup(1)
os.dup2(said.fileno(), 1), os.dup2(said.fileno(), 2)  # C++ writes past sys.stdout and sys.stderr
import onnxruntime as ort
if hasattr(ort, "preload_dlls"): ort.preload_dlls()
providers, relu = [], base64.b64decode({_RELU!r})
try:
    asked = ["CUDAExecutionProvider"]
    providers = ort.InferenceSession(relu, providers=asked, enable_fallback=0).get_providers()
except Exception as err:
    print(err)
sys.stdout.flush()
os.dup2(out, 1)
said.seek(0)
print(json.dumps([providers, said.read().decode(errors="replace")]))
"""


@dataclass(frozen=True)
class Gpu:
    """A GPU, as the driver tells of it.

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
    """What is known of NVIDIA's driver.

    Attributes:
        file: Its library, where it was found.
        kernel: Version of the kernel module.
        cuda: The newest CUDA that it serves, as major and minor.
        status: What `cuInit` returned.
        error: Why the library could not be asked.
        gpus: What it finds.
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


def ask_driver() -> Driver:
    """Ask the driver, in a process of its own, through its C interface: no package is needed."""
    file = probes.driver_file()
    kernel = re.search(
        r"Kernel Module\D*([\d.]+)", probes.read(Path("/proc/driver/nvidia/version"))
    )
    name = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
    told, error = probes.ask(_ASK_DRIVER.format(library=name))
    if not isinstance(told, dict):
        return Driver(file=file, kernel=kernel and kernel[1], error=error)
    return Driver(
        file=file or name,
        kernel=kernel and kernel[1],
        cuda=(told["cuda"] // 1000, told["cuda"] % 1000 // 10),
        status=told["status"],
        gpus=tuple(Gpu(*gpu) for gpu in told["gpus"]),
    )


def examine(driver: Driver) -> Iterator[Finding]:
    """Look at everything that a GPU needs, from the driver up."""
    yield _driver(driver)
    if driver.gpus:
        listed = (
            f"{g.name} (compute capability {g.capability}, {g.memory_mb} MiB)" for g in driver.gpus
        )
        yield Finding(name="gpu", ok=True, detail="; ".join(listed))
    yield from _jetson()
    yield _cuda_libraries(driver, find_libraries())
    yield _cuda_bindings()
    yield from _cuda_provider(driver)
    yield _tensorrt(driver)
    yield _tensorrt_rtx(driver)
    yield from _kept_engines()


def _driver(driver: Driver) -> Finding:
    name = "cuda driver"
    if not driver.present:
        if not driver.kernel:
            return Finding(name=name, ok=None, detail="none: no NVIDIA GPU can be used")
        return Finding(
            name=name,
            ok=False,
            detail=f"the kernel has driver {driver.kernel}, but libcuda.so.1 is not here, as in a "
            "container that was not given the GPU",
            mend="start the container with --gpus all (it needs the NVIDIA Container Toolkit)",
        )
    told = f"{driver.kernel or 'present'} ({driver.file})"
    if driver.cuda is None:
        if driver.error is None:
            return Finding(name=name, ok=True, detail=told)
        mend = "install the NVIDIA driver anew, then restart the machine"
        return Finding(name=name, ok=False, detail=f"{told}: {driver.error}", mend=mend)
    told = f"{told}, for CUDA up to {driver.cuda[0]}.{driver.cuda[1]}"
    hidden = os.environ.get("CUDA_VISIBLE_DEVICES")
    if driver.status == 100 and hidden is not None:
        detail = f"{told}; CUDA_VISIBLE_DEVICES is {hidden!r}, which shows no GPU"
        return Finding(name=name, ok=False, detail=detail, mend="unset CUDA_VISIBLE_DEVICES")
    if driver.status:
        what, mend = _CUINIT.get(driver.status, ("does not start", "restart the machine"))
        detail = f"{told}; it {what} (cuInit gives {driver.status})"
        return Finding(name=name, ok=False, detail=detail, mend=mend)
    return Finding(name=name, ok=True, detail=told)


def _jetson() -> Iterator[Finding]:
    """Say which JetPack a Jetson has, of its Jetson Linux: `# R36 (release), REVISION: 4.3`."""
    if linux := _jetson_linux():
        pack = _JETPACKS.get(linux)
        yield Finding(
            name="jetson",
            ok=linux != "35",
            detail=f"Jetson Linux {linux}" + (f", JetPack {pack}" if pack else ""),
            mend="update to JetPack 6: TensorRT there is 10.3" if linux == "35" else None,
        )


def _jetson_linux() -> str | None:
    found = re.match(r"#\s*R(\d+)", probes.read(Path("/etc/nv_tegra_release")))
    return found[1] if found else None


def find_libraries() -> dict[tuple[str, str], str]:
    """Find CUDA's libraries: by name and number, such as ("cublas", "13"), the folder.

    NVIDIA's packages and PyTorch come before the system, as ONNX Runtime looks there first.
    """
    found: dict[tuple[str, str], str] = {}
    for folder in _library_folders():
        try:
            files = os.listdir(folder)
        except OSError:
            continue
        for file in files:
            if match := _LIBRARY.fullmatch(file):
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
    """Compare what is there with what onnxruntime-gpu is linked to and with the driver."""
    name = "cuda libraries"
    wanted = _cuda_of_onnxruntime()
    bring = "pip install 'onnxruntime-gpu[cuda,cudnn]'"
    told = _told(found)
    if wanted is None:
        return Finding(name=name, ok=True if found else None, detail=told)
    missing = [
        f"lib{library}.so.{number or wanted}"
        for library, number in _LINKED.items()
        if (library, number or str(wanted)) not in found
    ]
    if missing:
        return Finding(
            name=name,
            ok=False,
            detail=f"{told}; onnxruntime-gpu is for CUDA {wanted} and lacks {', '.join(missing)}",
            mend=bring,
            see=known_issue("cuda-libraries").link,
        )
    if driver.cuda and driver.cuda[0] < wanted:
        return _too_old(name, f"{told}; onnxruntime-gpu is for CUDA {wanted}", driver, wanted)
    return Finding(name=name, ok=True, detail=told)


def _told(found: Mapping[tuple[str, str], str]) -> str:
    """List libraries by folder: `/usr/lib64: cublas 13, cudart 13`."""
    folders: dict[str, list[str]] = {}
    for (library, number), folder in sorted(found.items()):
        folders.setdefault(folder, []).append(f"{library} {number}")
    return "; ".join(f"{folder}: {', '.join(names)}" for folder, names in folders.items()) or "none"


def _cuda_of_onnxruntime() -> int | None:
    """Give the CUDA that onnxruntime-gpu was built for, as its package says; None without it."""
    if not probes.version_of("onnxruntime-gpu"):
        return None
    spec = util.find_spec("onnxruntime")
    text = (
        probes.read(Path(spec.origin).parent / "capi/build_and_package_info.py")
        if spec and spec.origin
        else ""
    )
    told = re.search(r"^cuda_version\s*=\s*['\"](\d+)", text, re.MULTILINE)
    return int(told[1]) if told else None


def _too_old(name: str, told: str, driver: Driver, wanted: int) -> Finding:
    assert driver.cuda is not None
    return Finding(
        name=name,
        ok=False,
        detail=f"{told}, and the driver serves CUDA {driver.cuda[0]}.{driver.cuda[1]}",
        mend=f"install NVIDIA driver {_LEAST_DRIVER.get(wanted, 'of a newer branch')} or newer, "
        "then restart the machine",
        see=known_issue("driver-too-old").link,
    )


def _cuda_bindings() -> Finding:
    version = probes.version_of("cuda-bindings")
    if version:
        return Finding(name="cuda-bindings", ok=True, detail=version)
    detail = "not installed; .engine files need it"
    return Finding(name="cuda-bindings", ok=None, detail=detail, mend="pip install 'edgeml[trt]'")


def _cuda_provider(driver: Driver) -> Iterator[Finding]:
    """Open a session on CUDA, which alone shows whether ONNX Runtime would stay on the CPU."""
    if not probes.version_of("onnxruntime-gpu") or not driver.gpus:
        return
    name = "onnxruntime, CUDA"
    answer, error = probes.ask(_ASK_CUDA)
    providers, said = answer or ([], error or "")
    if "CUDAExecutionProvider" in providers:
        yield Finding(name=name, ok=True, detail="a session starts on the GPU")
        return
    lines = [line for line in re.sub(r"\x1b\[[\d;]*m", "", said).splitlines() if line.strip()]
    issue = recognise(said) or known_issue("cuda-libraries")
    yield Finding(
        name=name,
        ok=False,
        detail=f"a session does not start on the GPU: {lines[-1].strip() if lines else said!r}",
        mend=issue.mend,
        see=issue.link,
    )


def _tensorrt(driver: Driver) -> Finding:
    name = "tensorrt"
    packages = [p for p in ("tensorrt", "tensorrt_cu13", "tensorrt_cu12") if probes.version_of(p)]
    version = probes.version_of(packages[0]) if packages else None
    if not version and not util.find_spec("tensorrt"):
        return Finding(
            name=name,
            ok=None,
            detail="not installed; .engine files and NVIDIA GPUs alone need it",
            mend="pip install 'edgeml[trt]'",
        )
    detail = version or "found, not from pip (JetPack brings it so)"
    if not driver.present:
        return Finding(
            name=name,
            ok=False,
            detail=f"{detail}; but there is no CUDA driver for it to run on",
            mend="install the NVIDIA driver, or: pip uninstall -y tensorrt",
            see=known_issue("tensorrt-without-gpu").link,
        )
    return _tensorrt_version(name, detail, version, driver)


def _tensorrt_version(name: str, detail: str, version: str | None, driver: Driver) -> Finding:
    """Judge a version: is it new enough, is it the Jetson's, does the driver serve its CUDA."""
    numbers = tuple(int(part) for part in re.findall(r"\d+", version or "")[:2])
    if numbers and numbers < _OLDEST:
        return Finding(
            name=name,
            ok=False,
            detail=f"{detail}; edgeml needs 10.3 or newer",
            mend="pip install --upgrade 'edgeml[trt]'; on a Jetson, update to JetPack 6",
        )
    if numbers >= (11,) and _jetson_linux() in ("35", "36"):
        issue = known_issue("tensorrt-jetpack")
        mend = "pip uninstall -y tensorrt; python3 -m venv --system-site-packages sees JetPack's"
        return Finding(
            name=name, ok=False, detail=f"{detail}; {issue.what}", mend=mend, see=issue.link
        )
    wanted = next((n for n in (12, 13) if probes.version_of(f"tensorrt_cu{n}_libs")), None)
    if wanted and driver.cuda and driver.cuda[0] < wanted:
        return _too_old(name, f"{detail}; it is for CUDA {wanted}", driver, wanted)
    if numbers >= (11,) and probes.version_of("onnxruntime-gpu"):
        issue = known_issue("tensorrt-provider")
        return Finding(name=name, ok=True, detail=f"{detail}; {issue.what}", see=issue.link)
    return Finding(name=name, ok=True, detail=detail)


def _tensorrt_rtx(driver: Driver) -> Finding:
    name = "tensorrt-rtx"
    versions = {
        kind: version
        for kind in ("bindings", "libs")
        for version in [_newest(f"tensorrt_rtx_cu{n}_{kind}" for n in (13, 12))]
        if version
    }
    bring = "pip install 'edgeml[trt-rtx]'"
    if not versions:
        detail = "not installed; engines for RTX GPUs need it, and can be built without a GPU"
        return Finding(name=name, ok=None, detail=detail, mend=bring)
    if len(versions) < 2 or len(set(versions.values())) > 1:
        told = ", ".join(f"{kind} {version}" for kind, version in versions.items())
        detail = f"{told} alone; bindings and libs of one version belong together"
        return Finding(name=name, ok=False, detail=detail, mend=f"{bring} --force-reinstall")
    detail = f"{versions['libs']}: builds engines for RTX GPUs here"
    if unlisted := sorted({g.capability for g in driver.gpus} - _RTX):
        issue = known_issue("tensorrt-rtx-gpus")
        detail += f"; compute capability {', '.join(unlisted)} of this GPU is not on NVIDIA's list"
        return Finding(name=name, ok=True, detail=detail, see=issue.link)
    return Finding(name=name, ok=True, detail=detail)


def _kept_engines() -> Iterator[Finding]:
    """Say where engines of .onnx files are kept for this machine, if any are."""
    with suppress(MissingDependencyError, OSError):
        folder = user_cache("engines", extra="trt")
        sizes = {path: path.stat().st_size for path in folder.iterdir()}
        count = sum(path.suffix == ".engine" for path in sizes)
        megabytes = sum(sizes.values()) / 1e6
        yield Finding(
            name="kept engines",
            ok=True,
            detail=f"{count} with {megabytes:.1f} MB in {folder}; what is needed is built again, "
            "so the folder may be removed",
        )


def _newest(packages: Iterable[str]) -> str | None:
    return next((version for p in packages if (version := probes.version_of(p))), None)
