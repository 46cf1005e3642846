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
from edgeml.doctor.probes import Finding
from edgeml.errors import MissingDependencyError
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
    packages = [p for p in ("tensorrt", "tensorrt_cu13", "tensorrt_cu12") if probes.version_of(p)]
    version = probes.version_of(packages[0]) if packages else None
    if not version and not util.find_spec("tensorrt"):
        return Finding(
            name=name,
            ok=None,
            code="absent",
            detail="not installed; only .engine files and NVIDIA GPUs need it",
            fix="pip install 'edgeml[trt]'",
        )
    detail = version or "installed, not by pip (JetPack installs it so)"
    if not driver.present:
        return Finding(
            name=name,
            ok=False,
            code="no-driver",
            detail=f"{detail}; but there is no CUDA driver for it to run on",
            fix="install the NVIDIA driver, or: pip uninstall -y tensorrt",
            see=known_issue("tensorrt-without-gpu").link,
        )
    return _tensorrt_version(name, detail, version, driver)


def _tensorrt_version(name: str, detail: str, version: str | None, driver: Driver) -> Finding:
    """Check that a version is new enough, fits the Jetson, and has a driver for its CUDA."""
    numbers = tuple(int(part) for part in re.findall(r"\d+", version or "")[:2])
    if numbers and numbers < _MIN_VERSION:
        return Finding(
            name=name,
            ok=False,
            code="too-old",
            detail=f"{detail}; edgeml needs 10.3 or newer",
            fix="pip install --upgrade 'edgeml[trt]'; on a Jetson, update to JetPack 6",
        )
    if numbers >= (11,) and jetson_linux() in ("35", "36"):
        issue = known_issue("tensorrt-jetpack")
        return Finding(
            name=name,
            ok=False,
            code=issue.name,
            detail=f"{detail}; {issue.what}",
            fix="pip uninstall -y tensorrt; python3 -m venv --system-site-packages sees JetPack's",
            see=issue.link,
        )
    needed = next((n for n in (12, 13) if probes.version_of(f"tensorrt_cu{n}_libs")), None)
    if needed and driver.cuda and driver.cuda[0] < needed:
        return old_driver(name, f"{detail}; it is for CUDA {needed}", driver, needed)
    if numbers >= (11,) and probes.version_of("onnxruntime-gpu"):
        issue = known_issue("tensorrt-provider")
        return Finding(
            name=name, ok=True, code=issue.name, detail=f"{detail}; {issue.what}", see=issue.link
        )
    return Finding(name=name, ok=True, detail=detail)


def _tensorrt_rtx(driver: Driver) -> Finding:
    name = "tensorrt-rtx"
    versions = {
        kind: version
        for kind in ("bindings", "libs")
        for version in [_newest(f"tensorrt_rtx_cu{n}_{kind}" for n in (13, 12))]
        if version
    }
    install = "pip install 'edgeml[trt-rtx]'"
    if not versions:
        detail = "not installed; engines for RTX GPUs need it, and can be built without a GPU"
        return Finding(name=name, ok=None, code="absent", detail=detail, fix=install)
    if len(versions) < 2 or len(set(versions.values())) > 1:
        installed = ", ".join(f"{kind} {version}" for kind, version in versions.items())
        detail = f"{installed} only; bindings and libs of one version belong together"
        fix = f"{install} --force-reinstall"
        return Finding(name=name, ok=False, code="mismatch", detail=detail, fix=fix)
    detail = f"{versions['libs']}: builds engines for RTX GPUs here"
    if unlisted := sorted({g.capability for g in driver.gpus} - set(RTX_CAPABILITIES)):
        issue = known_issue("tensorrt-rtx-gpus")
        detail += f"; compute capability {', '.join(unlisted)} of this GPU is not on NVIDIA's list"
        return Finding(name=name, ok=True, code=issue.name, detail=detail, see=issue.link)
    return Finding(name=name, ok=True, detail=detail)


def _cached_engines() -> Iterator[Finding]:
    """Report the cache of engines that were built from .onnx files, if there is one."""
    with suppress(MissingDependencyError, OSError):
        folder = user_cache("engines", extra="trt")
        sizes = {path: path.stat().st_size for path in folder.iterdir()}
        count = sum(path.suffix == ".engine" for path in sizes)
        megabytes = sum(sizes.values()) / 1e6
        yield Finding(
            name="kept engines",
            ok=True,
            detail=f"{count} with {megabytes:.1f} MB in {folder}; an engine is built again when "
            "needed, so the folder may be removed",
        )


def _newest(packages: Iterable[str]) -> str | None:
    return next((version for p in packages if (version := probes.version_of(p))), None)
