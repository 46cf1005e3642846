"""Which runtime opens which file."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeml.errors import MissingDependencyError, MissingSpecError, ModelLoadError, needs
from edgeml.runtimes.fixed_batch import with_any_batch_size
from edgeml.runtimes.protocol import DEFAULT_OPTIONS, Runtime, RuntimeOptions
from edgeml.spec.model_spec import ModelSpec
from edgeml.spec.storage import find_spec, sidecar_path

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from numpy.typing import NDArray

    from edgeml.runtimes.ort import OrtRuntime
    from edgeml.runtimes.ov import OpenVinoRuntime
    from edgeml.runtimes.tensorrt.passport import Library
    from edgeml.spec.foreign.ending import Run


def open_runtime(
    path: Path, options: RuntimeOptions = DEFAULT_OPTIONS, *, spec: ModelSpec | None = None
) -> Runtime:
    """Open a model file, or a run folder, with the runtime that its suffix asks for.

    The runtime takes any number of images and returns the output that the spec names.

    Args:
        path: An .onnx, .xml or .engine file, a run folder of `edgeml train`, or its .safetensors.
        options: How to open it.
        spec: Instead of the one in or next to the file; a file may have none.

    Raises:
        ModelLoadError: There is no such file, or no runtime reads it.
        EngineMismatchError: An engine was built for another machine, or its passport is wrong.
        MissingDependencyError: The runtime's library is not installed.
        InputError: There is no such device, or an option does not apply to this file.
        ExportError: TensorRT cannot build an engine from this .onnx file.
        SpecError: The spec is malformed, or names an output that the model does not have.
    """
    opened, _ = _open(path, options, spec)
    return with_any_batch_size(opened)


def open_model(
    path: Path, options: RuntimeOptions = DEFAULT_OPTIONS, *, spec: ModelSpec | None = None
) -> tuple[Runtime, ModelSpec]:
    """Open a model as `open_runtime` does; return its spec too, which it must have.

    Raises:
        MissingSpecError: There is no spec in or next to the file.
    """
    opened, known = _open(path, options, spec)
    return with_any_batch_size(opened), known or required_spec(path, opened.metadata)


def required_spec(path: Path | None, metadata: Mapping[str, str]) -> ModelSpec:
    """Return the spec that is stored with a model, or one made from another tool's files.

    Without a path, the model is an object that runs, and only its metadata is read.

    Raises:
        MissingSpecError: There is none.
        SpecError: It is malformed.
    """
    if stored := find_spec(path, metadata):
        spec, source = stored
        if spec.activation == "none" and path is not None and sidecar_path(path).is_file():
            _check_probabilities(path, spec, source)
        return spec
    if path is not None and path.suffix.lower() in (".onnx", ".xml"):
        from edgeml.spec.foreign.merge import spec_for

        return spec_for(path, run=runner_of(path)).spec
    sidecar = f" nor next to it as {sidecar_path(path).name}" if path else ""
    raise MissingSpecError(
        f"The model's labels and preprocessing are unknown: no spec inside it{sidecar}. "
        "Export it with edgeml, or pass spec=ModelSpec(...)."
    )


def _check_probabilities(path: Path, spec: ModelSpec, source: str) -> None:
    """Refuse a spec next to a file that takes its logits for probabilities, as edgeml once wrote.

    Raises:
        SpecError: The graph ends in logits.
    """
    if path.suffix.lower() in (".onnx", ".xml"):
        from edgeml.spec.foreign.merge import check_stored
        from edgeml.spec.foreign.read_graph import read_graph

        with suppress(ModelLoadError):  # which the runtime opened, and this reader does not know
            check_stored(spec, source, read_graph(path))


def runner_of(path: Path) -> Run:
    """Return a function that runs a file on one input, as far as a runtime here can."""

    def run(spec: ModelSpec, batch: NDArray[Any]) -> NDArray[np.float32] | None:
        try:
            runtime = open_runtime(path, spec=spec)
        except MissingDependencyError:
            return None
        try:
            return runtime.run(batch)
        finally:
            runtime.close()

    return run


def _open(
    path: Path, options: RuntimeOptions, spec: ModelSpec | None
) -> tuple[Runtime, ModelSpec | None]:
    """Open a file; return its spec too, if it had to be read."""
    if not path.exists():
        raise ModelLoadError(f"There is no model {str(path)!r}.")
    match (".run" if path.is_dir() else path.suffix.lower()), options.runtime:
        case ".onnx", "auto" | "onnxruntime":
            with needs("onnxruntime", extra="onnx", to="run .onnx models"):
                from edgeml.runtimes.ort import OrtRuntime
            return _with_output(OrtRuntime(path, options), path, spec)
        case ((".onnx" | ".xml"), "auto" | "openvino"):
            options.refuse("spinning", subject=f"{path.name!r} with OpenVINO")
            with needs("openvino", extra="openvino", to="run models with OpenVINO"):
                from edgeml.runtimes.ov import OpenVinoRuntime
            return _with_output(OpenVinoRuntime(path, options), path, spec)
        case ((".run" | ".safetensors"), "auto" | "torch"):
            options.refuse("precision", "spinning", "timeout", subject=f"the run {path.name!r}")
            with needs("torch", extra="train", to="run a training checkpoint"):
                from edgeml.runtimes.torch_ import TorchRuntime
            return TorchRuntime(path, device=options.device, threads=options.threads), spec
        case ((".engine" | ".onnx"), "auto" | "tensorrt" | "tensorrt_rtx"):
            options.refuse(
                "precision", "spinning", "timeout", subject=f"{path.name!r} with TensorRT"
            )
            return _open_tensorrt(path, options, spec)
        case kind, _:
            what = "a folder" if kind == ".run" else f"{path.name!r}"
            raise ModelLoadError(
                f"The runtime {options.runtime!r} does not read {what}: "
                "expected .onnx, .xml, .engine, .safetensors or a run folder."
            )


def _open_tensorrt(
    path: Path, options: RuntimeOptions, spec: ModelSpec | None
) -> tuple[Runtime, ModelSpec | None]:
    library: Library | None = None if options.runtime == "auto" else options.runtime  # type: ignore[assignment]
    if library is None or path.suffix.lower() == ".engine":
        from edgeml.runtimes.tensorrt.runtime import TensorRtRuntime

        return TensorRtRuntime(path, library=library, device=options.device), spec
    from edgeml.runtimes.tensorrt.engine_cache import open_onnx

    spec = spec or required_spec(path, {})
    return open_onnx(path, spec, library=library, device=options.device), spec


def _with_output(
    opened: OrtRuntime | OpenVinoRuntime, path: Path, spec: ModelSpec | None
) -> tuple[Runtime, ModelSpec | None]:
    """Let a runtime return the output that the spec names."""
    if spec is None:
        with suppress(MissingSpecError):
            spec = required_spec(path, opened.metadata)
    if spec is not None:
        opened.select_output(spec.output)
    return opened, spec
