"""DOOR onnxruntime: the execution provider for a device, and whether it really computes."""

from __future__ import annotations

import contextlib
import importlib
import io
import threading
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

from edgeml.errors import InputError, ModelLoadError
from edgeml.runtimes.known_issues import see
from edgeml.runtimes.protocol import one_line
from edgeml.runtimes.telemetry import without_telemetry

with without_telemetry():
    import onnxruntime as ort

CPU, CUDA = "CPUExecutionProvider", "CUDAExecutionProvider"

_SUFFIX = "ExecutionProvider"

_PLUGINS = "onnxruntime-ep-"
"""The prefix of packages with a provider: onnxruntime.ai, Plugin EP libraries, packaging."""

_WEIGHTED = ("Conv", "Gemm", "MatMul", "Attention")
"""Parts of the names of the operators that do the arithmetic, also fused or quantised ones."""

_registering = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class Provider:
    """An execution provider, with its options.

    Attributes:
        name: ONNX Runtime's name, for example `CUDAExecutionProvider`.
        label: The usual name: CPU, CUDA, CUDA:1.
        options: Options of the provider; keys and values are text.
        devices: The devices of a provider that is a plugin; empty for built-in ones.
    """

    name: str
    label: str
    options: Mapping[str, str]
    devices: tuple[ort.OrtEpDevice, ...] = ()


def provider_for(device: str, *, tf32: bool = False, graphs: bool = False) -> Provider:
    """Choose a provider for `auto`, `cpu`, `cuda`, `cuda:1`, or a provider's own name.

    A name is searched among the built-in providers, then among plugins that are registered, then
    in installed packages `onnxruntime-ep-*`, which are imported for it.

    Args:
        device: The device's name.
        tf32: Let CUDA round the factors of products to 10 bits, as it does by default.
        graphs: Let CUDA record graphs.

    Raises:
        InputError: This ONNX Runtime has no such device.
        ModelLoadError: A plugin cannot be loaded.
    """
    kind, _, index = device.partition(":")
    match kind.lower():
        case "auto" | "cpu" if not index:
            return Provider(name=CPU, label="CPU", options={})
        case "cuda" if not index or index.isdecimal():
            options = {"use_tf32": f"{tf32:d}", **({"enable_cuda_graph": "1"} if graphs else {})}
            return _cuda(int(index or 0), options, device)
        case _ if device.endswith(_SUFFIX):
            return _by_name(device)
    raise InputError(_unknown(device))


def open_session(
    path: Path, options: ort.SessionOptions, provider: Provider
) -> ort.InferenceSession:
    """Load a file with a provider, and make sure that it is the one that computes.

    Raises:
        ModelLoadError: ONNX Runtime refuses the file, or would run it somewhere else.
    """
    # Without this, Python gets no placement; ONNX Runtime before 1.24 ignores it.
    options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    complaints = _preload() if provider.name == CUDA else ""
    try:
        builtin = None
        if provider.devices:
            options.add_provider_for_devices(provider.devices, dict(provider.options))
        else:
            builtin = [(provider.name, dict(provider.options))]
        # Without enable_fallback=0 a failing device is silently replaced by the CPU.
        session = ort.InferenceSession(str(path), options, providers=builtin, enable_fallback=0)
    except Exception as err:  # ONNX Runtime's own errors share no public base class
        message = f"{one_line(err)} {complaints}".strip()
        raise ModelLoadError(
            f"ONNX Runtime refuses {path.name!r}: {message}{see(message)}"
        ) from err
    check_served(path, provider, session.get_providers(), placement(session), complaints)
    return session


def placement(session: ort.InferenceSession) -> dict[str, Counter[str]] | None:
    """Count the operators that each provider runs; None if ONNX Runtime does not report it."""
    assignment = getattr(session, "get_provider_graph_assignment_info", None)
    if assignment is None:
        return None
    placed: dict[str, Counter[str]] = {}
    for part in assignment():
        placed.setdefault(part.ep_name, Counter()).update(n.op_type for n in part.get_nodes())
    return placed


def check_served(
    path: Path,
    provider: Provider,
    present: Sequence[str],
    placed: Mapping[str, Counter[str]] | None,
    complaints: str = "",
) -> None:
    """Refuse a session that computes elsewhere than requested.

    ONNX Runtime runs on the CPU what a provider does not support, and continues without a provider
    that cannot be loaded: github.com/microsoft/onnxruntime issues 17801 and 23372. Shapes are
    computed on the CPU on purpose, which is fine; layers with weights on the CPU are not.

    Raises:
        ModelLoadError: Another provider would compute.
    """
    if provider.name not in present:
        raise ModelLoadError(
            f"ONNX Runtime would run {path.name!r} on {', '.join(present)}: {provider.name} could "
            f"not be started. {complaints}{see(complaints) or ' See edgeml doctor.'}".strip()
        )
    if provider.name == CPU or placed is None:
        return
    elsewhere: Counter[str] = Counter()
    for operators in (placed[name] for name in placed if name != provider.name):
        elsewhere.update({op: operators[op] for op in operators if any(w in op for w in _WEIGHTED)})
    if elsewhere or provider.name not in placed:
        moved = ", ".join(f"{n} {op}" for op, n in elsewhere.most_common()) or "everything"
        raise ModelLoadError(
            f"{provider.name} does not support all of {path.name!r}: the CPU would run {moved}. "
            "Export it in another precision, or run it with device='cpu'."
        )


def _cuda(index: int, options: Mapping[str, str], device: str) -> Provider:
    """Choose CUDA, which is built in or, from ONNX Runtime 1.32 on, possibly a plugin."""
    label = f"CUDA:{index}" if index else "CUDA"
    if CUDA in ort.get_available_providers():
        return Provider(name=CUDA, label=label, options={"device_id": str(index), **options})
    devices = _devices_of(CUDA)
    if index < len(devices):
        return Provider(name=CUDA, label=label, options=options, devices=(devices[index],))
    package = getattr(ort, "package_name", None) or "onnxruntime"
    raise InputError(
        f"{_unknown(device)} This is {package} {ort.__version__}: for NVIDIA GPUs run "
        "pip uninstall -y onnxruntime && pip install 'edgeml[gpu]'."
    )


def _by_name(name: str) -> Provider:
    label = name.removesuffix(_SUFFIX)
    if name in ort.get_available_providers():
        return Provider(name=name, label=label, options={})
    if not _devices_of(name):
        _register_plugin(name)
    if devices := _devices_of(name):
        # Not all providers take several devices at once; all take one.
        return Provider(name=name, label=label, options={}, devices=devices[:1])
    raise InputError(_unknown(name))


def _devices_of(name: str) -> tuple[ort.OrtEpDevice, ...]:
    return tuple(device for device in _all_devices() if device.ep_name == name)


def _register_plugin(name: str) -> None:
    """Load the plugin with a provider, if one is installed.

    Raises:
        ModelLoadError: It is installed but cannot be loaded.
    """
    from importlib.metadata import version  # its import takes as long as OpenCV's

    for package, module in _plugins():
        names = module.get_ep_names() if hasattr(module, "get_ep_names") else None
        if name not in (names or [module.get_ep_name()]):
            continue
        with _registering:
            if _devices_of(name):
                return  # another thread has registered it
            try:
                ort.register_execution_provider_library(package, str(module.get_library_path()))
            except Exception as err:  # as above
                raise ModelLoadError(
                    f"ONNX Runtime cannot load {package} {version(package)}: "
                    f"{one_line(err)}{see(one_line(err))}"
                ) from err


def _plugins() -> Iterator[tuple[str, ModuleType]]:
    """Import the packages that contain providers; yield each with its name.

    Raises:
        ModelLoadError: One cannot be imported.
    """
    from importlib.metadata import distributions

    for distribution in distributions():
        package = distribution.metadata["Name"] or ""  # None for the remains of a removed package
        if not package.lower().replace("_", "-").startswith(_PLUGINS):
            continue
        tops = {file.parts[0] for file in distribution.files or [] if file.name == "__init__.py"}
        for top in sorted(tops):
            try:
                module = importlib.import_module(top)
            except Exception as err:  # it is third-party code
                raise ModelLoadError(
                    f"{package} contains a provider, but cannot be imported: {one_line(err)}. "
                    f"pip uninstall {package}, or install it again."
                ) from err
            if hasattr(module, "get_library_path"):
                yield package, module


@cache
def _preload() -> str:
    """Load CUDA's libraries from NVIDIA's packages, once; return the report about missing ones.

    ONNX Runtime itself finds only libraries of the system or of PyTorch. It prints its report on
    stdout, where edgeml writes results.
    """
    with contextlib.redirect_stdout(io.StringIO()) as output:
        if hasattr(ort, "preload_dlls"):
            ort.preload_dlls()
    return " ".join(output.getvalue().split())


def _unknown(device: str) -> str:
    """Return a message with all devices: the common ones, then providers by their names."""
    named = {*ort.get_available_providers(), *(d.ep_name for d in _all_devices())} - {CPU}
    known = ["auto", "cpu", *(["cuda"] if CUDA in named else []), *sorted(named - {CUDA})]
    listed = f"{', '.join(known[:-1])} and {known[-1]}"
    return f"ONNX Runtime has no device {device!r} here; known are {listed}."


def _all_devices() -> Sequence[ort.OrtEpDevice]:
    return list(getattr(ort, "get_ep_devices", list)())  # absent before 1.23
