"""The TensorRT side of `edgeml doctor`: both libraries, and the engines in the cache.

Neither library is imported: without a GPU, TensorRT can end the process.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib import util

from edgeml.doctor import probes
from edgeml.doctor.gpu import Driver, jetson_linux, old_driver
from edgeml.doctor.probes import Finding, absent, problem
from edgeml.errors import InputError, MissingDependencyError
from edgeml.files import user_cache
from edgeml.runtimes.known_issues import known_issue
from edgeml.runtimes.tensorrt.engine_options import RTX_CAPABILITIES

_MIN_VERSION = (10, 3)
"""The TensorRT of JetPack 6."""


def examine(driver: Driver) -> Iterator[Finding]:
    """Check TensorRT, TensorRT-RTX and the cache of engines."""
    yield _tensorrt(driver)
    yield _tensorrt_rtx(driver)
    yield from _cached_engines()


def _tensorrt(driver: Driver) -> Finding:
    name = "tensorrt"
    version = _newest(("tensorrt", "tensorrt_cu13", "tensorrt_cu12"))
    if not version and not util.find_spec(name):
        detail = "not installed; only .engine files and NVIDIA GPUs need it"
        return absent(name, "pip install 'edgeml[trt]'", detail)
    detail = version or "installed, not by pip (JetPack installs it so)"
    if not driver.present:
        detail = f"{detail}; but there is no CUDA driver for it to run on"
        fix = "install the NVIDIA driver, or: pip uninstall -y tensorrt"
        return problem(name, "no-driver", detail, fix, known_issue("tensorrt-without-gpu").link)
    numbers = tuple(int(part) for part in re.findall(r"\d+", version or "")[:2])
    if numbers and numbers < _MIN_VERSION:
        fix = "pip install --upgrade 'edgeml[trt]'; on a Jetson, update to JetPack 6"
        return problem(name, "too-old", f"{detail}; edgeml needs 10.3 or newer", fix)
    if numbers >= (11,) and jetson_linux() in ("35", "36"):
        issue = known_issue("tensorrt-jetpack")
        fix = "pip uninstall -y tensorrt; python3 -m venv --system-site-packages sees JetPack's"
        return problem(name, issue.name, f"{detail}; {issue.what}", fix, issue.link)
    needed = next((n for n in (12, 13) if probes.version_of(f"tensorrt_cu{n}_libs")), None)
    if needed and driver.cuda and driver.cuda[0] < needed:
        return old_driver(name, f"{detail}; it is for CUDA {needed}", driver, needed)
    if numbers >= (11,) and probes.version_of("onnxruntime-gpu"):
        issue = known_issue("tensorrt-provider")
        detail = f"{detail}; {issue.what}"
        return Finding(name=name, ok=True, code=issue.name, detail=detail, see=issue.link)
    return Finding(name=name, ok=True, detail=detail)


def _tensorrt_rtx(driver: Driver) -> Finding:
    name = "tensorrt-rtx"
    newest = {
        kind: _newest(f"tensorrt_rtx_cu{n}_{kind}" for n in (13, 12))
        for kind in ("bindings", "libs")
    }
    versions = {kind: version for kind, version in newest.items() if version}
    install = "pip install 'edgeml[trt-rtx]'"
    if not versions:
        detail = "not installed; engines for RTX GPUs need it, and can be built without a GPU"
        return absent(name, install, detail)
    if len(versions) < 2 or len(set(versions.values())) > 1:
        installed = ", ".join(f"{kind} {version}" for kind, version in versions.items())
        detail = f"{installed} only; bindings and libs of one version belong together"
        return problem(name, "mismatch", detail, f"{install} --force-reinstall")
    detail = f"{versions['libs']}: builds engines for RTX GPUs here"
    if unlisted := sorted({g.capability for g in driver.gpus} - set(RTX_CAPABILITIES)):
        issue = known_issue("tensorrt-rtx-gpus")
        detail += f"; compute capability {', '.join(unlisted)} of this GPU is not on NVIDIA's list"
        return Finding(name=name, ok=True, code=issue.name, detail=detail, see=issue.link)
    return Finding(name=name, ok=True, detail=detail)


def _cached_engines() -> Iterator[Finding]:
    """Report the cache of engines that were built from .onnx files, if there is one."""
    with suppress(MissingDependencyError, InputError, OSError):
        folder = user_cache("engines", extra="trt")
        sizes = {path: path.stat().st_size for path in folder.iterdir()}
        count = sum(path.suffix == ".engine" for path in sizes)
        megabytes = sum(sizes.values()) / 1e6
        detail = (
            f"{count} with {megabytes:.1f} MB in {folder}; an engine is built again when needed, "
            "so the folder may be removed"
        )
        yield Finding(name="kept engines", ok=True, detail=detail)


def _newest(packages: Iterable[str]) -> str | None:
    return next((version for p in packages if (version := probes.version_of(p))), None)
