"""What a written model carries besides its network, and how it comes to its place."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Literal

from edgeml.errors import ExportError, ModelLoadError, SpecError, needs
from edgeml.files import staged
from edgeml.passport import passport_path, read_passport, write_passport
from edgeml.spec.model_spec import METADATA_KEY, ModelSpec, Precision

if TYPE_CHECKING:
    import onnx


Input = Literal["float32", "uint8"]

Format = Literal["onnx", "openvino", "trt", "trt-rtx", "triton", "ovms"]

SUFFIXES: dict[Format, str] = {
    "onnx": ".onnx",
    "openvino": ".xml",
    "trt": ".engine",
    "trt-rtx": ".engine",
}
"""Of files; what a server takes is a folder of any name."""


def default_path(source: Path, fmt: Format, precision: Precision) -> Path:
    """Name the result: in a run folder `model.int8.onnx`, of `a.onnx` it is `a.int8.onnx`.

    INT8 that is rewritten, or built, is not named twice: `a.int8.engine` of `a.int8.onnx`.
    """
    stem = source / "model" if source.is_dir() else source.with_suffix("")
    infix = "" if precision == "fp32" or stem.suffix == f".{precision}" else f".{precision}"
    if fmt == "trt-rtx":
        infix += ".rtx"
    return stem.with_name(stem.name + infix + SUFFIXES.get(fmt, f".{fmt}"))


def ranges_path(source: Path, out: Path, input: Input) -> Path:
    """Name the file that keeps INT8 ranges: one a source and input, beside what is made of it."""
    stem = "model" if source.is_dir() else source.stem
    return out.with_name(f"{stem}{'.uint8' if input == 'uint8' else ''}.ranges.json")


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
    if spec.choices() or spec.raw_channels != "bgr" or preprocess.resize not in resize:
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
    for entry in model.metadata_props:
        if entry.key == METADATA_KEY:
            return ModelSpec.from_json(entry.value)
    raise SpecError(f"{path.name!r} has no edgeml spec inside. Export it with edgeml.")


def has_attention(graph: onnx.GraphProto) -> bool:
    """Say whether the network has attention: nothing else in a classifier has a softmax inside."""
    return any(node.op_type == "Softmax" for node in graph.node)


def write_onnx(model: onnx.ModelProto, target: Path, spec: ModelSpec) -> None:
    """Write an ONNX file with `spec` as its only metadata: whole or not at all, in equal bytes.

    Raises:
        ExportError: The model breaks a rule of ONNX.
        InputError: The folder of `target` cannot be written to.
    """
    with needs("onnx", extra="export", to="export an ONNX model"):
        import onnx
    metadata = {f"model_info {key}": value for key, value in model_info(spec).items()}
    onnx.helper.set_model_props(model, {METADATA_KEY: spec.to_json(), **metadata})
    try:
        onnx.checker.check_model(model, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as err:
        raise ExportError(f"The network that came out is not valid ONNX: {err}") from err
    with staged(target) as temporary:
        temporary.write_bytes(model.SerializeToString(deterministic=True))


def rewrite_spec(path: Path, spec: ModelSpec) -> None:
    """Replace the spec of a written .onnx, .xml or .engine and leave its network alone.

    Raises:
        ModelLoadError: The file cannot be read.
        InputError: It cannot be written.
    """
    if path.suffix == ".onnx":
        write_onnx(read_onnx(path), path, spec)
        return
    if path.suffix == ".engine":
        write_passport(replace(read_passport(path), spec=spec), path)
        return
    from xml.etree import ElementTree

    # As text, because to save the network anew would write its weights a second time.
    tree = ElementTree.parse(path)
    entry = tree.find(f"rt_info/{METADATA_KEY}")
    if entry is None:
        raise SpecError(f"{path.name!r} has no edgeml spec inside. Export it with edgeml.")
    entry.set("value", spec.to_json())
    with staged(path) as temporary:
        tree.write(temporary, encoding="utf-8", xml_declaration=True)
