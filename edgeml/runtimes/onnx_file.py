"""What an ONNX file is: read, written, with its spec inside."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from edgeml.errors import ExportError, ModelLoadError, SpecError, needs
from edgeml.files import staged
from edgeml.runtimes.tensorrt.passport import passport_path
from edgeml.spec.model_spec import ModelSpec
from edgeml.spec.storage import spec_in, spec_metadata

if TYPE_CHECKING:
    import onnx


@contextmanager
def staged_model(target: Path) -> Iterator[Path]:
    """Do what `staged` does, and move an .xml with its .bin, an .engine with its passport.

    Raises:
        InputError: The folder of `target` cannot be written to.
    """
    with staged(target) as temporary:
        yield temporary
        beside = {".xml": lambda path: path.with_suffix(".bin"), ".engine": passport_path}
        if other := beside.get(target.suffix):
            # In this order no moment exists in which an .xml stands beside another's weights.
            target.unlink(missing_ok=True)
            with staged(other(target)) as second:
                os.replace(other(temporary), second)


def model_info(spec: ModelSpec) -> dict[str, str]:
    """Write the spec in the keys that OpenVINO's model_api reads, as far as these can say it.

    One threshold stands for all labels, groups are lost, a space in a name becomes `_`: see
    model_api, docs/source/guides/model-configuration.md. Its own labels are split at spaces.
    openvino-model-api 0.4.7 was run on files of ours in float32 and uint8, RGB and BGR, .xml and
    .onnx: the same scores, up to the bfloat16 that it lets a CPU take. It tells NHWC from the
    shape; `layout` is for older versions.
    Nothing is written of a model whose groups are choices: it knows no softmax over some labels,
    and would give a sigmoid of their logits for a probability. Nor of one that it cannot feed.
    """
    resize = {"squash": "standard", "crop": "crop", "letterbox": "fit_to_window_letterbox"}
    preprocess = spec.preprocess
    if spec.softmax_groups() or spec.raw_channels != "bgr" or preprocess.resize not in resize:
        return {}
    info = {
        "model_type": "Classification",
        "task_type": "classification",
        "labels": " ".join("_".join(label.split()) for label in spec.labels),
        "multilabel": str(spec.task == "multilabel"),
        "confidence_threshold": f"{median(spec.thresholds):.4f}",
        "resize_type": resize[preprocess.resize],
        "pad_value": str(preprocess.pad),
    }
    if spec.input == "uint8":
        return {**info, "layout": "NHWC"}
    return {
        **info,
        "mean_values": " ".join(f"{255 * value:.6g}" for value in preprocess.mean),
        "scale_values": " ".join(f"{255 * value:.6g}" for value in preprocess.std),
        "reverse_input_channels": str(preprocess.channels == "rgb"),
    }


def read_onnx(path: Path) -> onnx.ModelProto:
    """Read an ONNX file that is whole in itself.

    Raises:
        ModelLoadError: There is no such file, it is not ONNX, or its weights lie elsewhere.
    """
    with needs("onnx", extra="export", to="export an ONNX model"):
        import onnx
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # it has none

    try:
        model = onnx.load(path, load_external_data=False)
    except OSError as err:
        raise ModelLoadError(f"Cannot read the model {str(path)!r}: {err.strerror}.") from err
    except DecodeError as err:
        raise ModelLoadError(f"{path.name!r} is not an ONNX model, or is damaged.") from err
    if any(tensor.external_data for tensor in model.graph.initializer):
        raise ModelLoadError(
            f"The weights of {path.name!r} lie in another file; save it as one file first."
        )
    return model


def spec_of_onnx(model: onnx.ModelProto, path: Path) -> ModelSpec:
    """Read the spec that stands inside an ONNX model.

    Raises:
        SpecError: There is none, or it is malformed.
    """
    spec = spec_in({entry.key: entry.value for entry in model.metadata_props})
    if spec is None:
        raise SpecError(f"{path.name!r} has no edgeml spec inside. Export it with edgeml.")
    return spec


def write_onnx(model: onnx.ModelProto, target: Path, spec: ModelSpec) -> None:
    """Write an ONNX file with `spec` as its only metadata: whole or not at all, in equal bytes.

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
        raise ExportError(f"The network that came out is not valid ONNX: {err}") from err
    with staged(target) as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))
