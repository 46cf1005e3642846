"""Read and write an ONNX file with its spec inside."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from edgeml.errors import ExportError, ModelLoadError, SpecError, needs
from edgeml.files import staged
from edgeml.runtimes.external_weights import load_external_weights
from edgeml.runtimes.onnx_normal import normalized
from edgeml.spec.foreign.model_api import model_info
from edgeml.spec.model_spec import ModelSpec
from edgeml.spec.storage import spec_in, spec_metadata

if TYPE_CHECKING:
    import onnx


def read_onnx(path: Path) -> onnx.ModelProto:
    """Read an ONNX file, and the files with its weights, in the form of `onnx_normal`.

    Raises:
        ModelLoadError: There is no such file, it is not ONNX, or its weights cannot be read.
    """
    with needs("onnx", extra="export", to="export an ONNX model"):
        import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # no stubs

    try:
        model = onnx.load(path, load_external_data=False)
    except OSError as err:
        raise ModelLoadError(f"Cannot read the model {str(path)!r}: {err.strerror}.") from err
    except DecodeError as err:
        raise ModelLoadError(f"{path.name!r} is not an ONNX model, or is damaged.") from err
    load_external_weights(model, path)
    return normalized(model, path.name)


def spec_of_onnx(model: onnx.ModelProto, path: Path) -> ModelSpec:
    """Read the spec inside an ONNX model.

    Raises:
        SpecError: There is none, or it is malformed.
    """
    spec = spec_in({entry.key: entry.value for entry in model.metadata_props})
    if spec is None:
        raise SpecError(f"{path.name!r} has no edgeml spec inside. Export it with edgeml.")
    return spec


def write_onnx(model: onnx.ModelProto, target: Path, spec: ModelSpec) -> None:
    """Write an ONNX file with `spec` as its only metadata, always in the same bytes.

    Raises:
        ExportError: The model breaks a rule of ONNX.
        InputError: The folder of `target` cannot be written to.
    """
    with needs("onnx", extra="export", to="export an ONNX model"):
        import onnx
    metadata = {f"model_info {key}": value for key, value in model_info(spec).items()}
    onnx.helper.set_model_props(model, {**spec_metadata(spec), **metadata})
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as err:
        raise ExportError(f"The resulting network is not valid ONNX: {err}") from err
    with staged(target) as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))
