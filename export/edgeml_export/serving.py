"""A model as a folder that a model server serves: Triton, or OpenVINO Model Server."""

from __future__ import annotations

import json
import os
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from edgeml.errors import InputError, ModelLoadError, SpecError, needs
from edgeml.files import staged
from edgeml.runtimes.onnx_file import read_onnx
from edgeml.runtimes.telemetry import without_telemetry
from edgeml.spec.model_spec import ModelSpec
from edgeml.spec.storage import spec_metadata

Server = Literal["triton", "ovms"]
Device = Literal["cpu", "gpu"]
Kind = Literal["FP32", "UINT8"]
LABELS_FILE = "labels.txt"
SPEC_FILE = "edgeml.json"
"""The ModelSpec, for clients; also the mark of a folder that edgeml wrote."""
MAX_BATCH = 16
"""How many requests Triton may run as one batch; it does not wait for more."""


def write_repository(
    model: Path,
    spec: ModelSpec,
    server: Server,
    out: Path,
    *,
    name: str | None = None,
    device: Device = "cpu",
    max_batch: int = MAX_BATCH,
) -> Path:
    """Write a model repository with one model, completely or not at all.

    For both servers, `NAME/1/` contains the model, and `NAME/` contains labels.txt and the spec,
    edgeml.json, which neither server reads. Triton also reads `NAME/config.pbtxt`, which has the
    spec as the parameter `edgeml`; the OpenVINO Model Server reads `config.json`, which has the
    relative path of `NAME`. The formats are those of triton-inference-server/common,
    protobuf/model_config.proto, and of openvinotoolkit/model_server, src/schema.cpp.

    A server returns logits: the spec states how they become probabilities and labels. Names and
    shapes are those in the model file.

    Args:
        model: An .onnx, or an .xml with its .bin next to it.
        spec: Its spec.
        server: `triton` serves an .onnx with ONNX Runtime and an .xml with OpenVINO, which uses
            bfloat16 there on CPUs that have it; `ovms` computes in FP32 on a CPU.
        out: The repository. One that edgeml wrote is replaced.
        name: The name for clients; None uses the name of `out`, with `_` for unsafe characters.
        device: Where it runs.
        max_batch: See `MAX_BATCH`.

    Raises:
        InputError: Neither an .onnx nor an .xml, or `out` cannot be written to or is in use.
        ModelLoadError: The model cannot be read.
        SpecError: The spec belongs to another model.
        MissingDependencyError: onnx or OpenVINO is not installed.
    """
    model, out = Path(model), Path(out)
    model_name = safe_name(out.name if name is None else name)
    ports = _ports(model)
    _check_fit(model, ports, spec)
    check_free(out)
    with staged(out) as folder:
        version = folder / model_name / "1"
        version.mkdir(parents=True)
        shutil.copyfile(model, version / f"model{model.suffix}")
        if model.suffix == ".xml":
            shutil.copyfile(model.with_suffix(".bin"), version / "model.bin")
        labels = "".join(f"{_one_line(label)}\n" for label in spec.labels)
        _write(folder / model_name / LABELS_FILE, labels)
        _write(folder / model_name / SPEC_FILE, spec.to_json() + "\n")
        if server == "triton":
            config = _triton_config(model_name, model.suffix, ports, spec, device, max_batch)
            _write(folder / model_name / "config.pbtxt", config)
        else:
            _write(folder / "config.json", _ovms_config(model_name, device))
        if out.exists():
            # A folder that is not empty cannot be replaced by renaming.
            os.replace(out, folder.parent / "replaced")
    return out


def safe_name(name: str) -> str:
    """Return a name that is safe in a path and in a URL."""
    return re.sub(r"[^A-Za-z0-9_.-]", "_", name).lstrip(".-") or "model"


@dataclass(frozen=True)
class _Port:
    """An input or output of a model file; None in its shape is a dynamic dimension."""

    name: str
    type: Kind
    shape: tuple[int | None, ...]


def _ports(model: Path) -> tuple[_Port, _Port]:
    """Return a model's only input and only output."""
    match model.suffix:
        case ".onnx":
            inputs, outputs = _ports_of_onnx(model)
        case ".xml":
            inputs, outputs = _ports_of_ir(model)
        case _:
            raise InputError(f"Servers read an .onnx or an .xml, not {model.name!r}.")
    if len(inputs) != 1 or len(outputs) != 1:
        raise InputError(
            f"{model.name!r} has {len(inputs)} inputs and {len(outputs)} outputs; "
            "an image classifier has one of each."
        )
    return inputs[0], outputs[0]


def _ports_of_onnx(model: Path) -> tuple[list[_Port], list[_Port]]:
    graph = read_onnx(model).graph
    from onnx import TensorProto, ValueInfoProto

    kinds: dict[int, Kind] = {TensorProto.FLOAT: "FP32", TensorProto.UINT8: "UINT8"}

    def port(value: ValueInfoProto) -> _Port:
        tensor = value.type.tensor_type
        sides = [
            side.dim_value if side.HasField("dim_value") else None for side in tensor.shape.dim
        ]
        return _port(model, value.name, kinds.get(tensor.elem_type), sides)

    constants = {tensor.name for tensor in graph.initializer}
    inputs = [port(value) for value in graph.input if value.name not in constants]
    return inputs, [port(value) for value in graph.output]


def _ports_of_ir(model: Path) -> tuple[list[_Port], list[_Port]]:
    with needs("openvino", extra="openvino", to="read OpenVINO models"), without_telemetry():
        import openvino as ov
    try:
        network = ov.Core().read_model(model)
    except RuntimeError as err:
        message = " ".join(str(err).split())[-300:]
        raise ModelLoadError(f"OpenVINO refuses {model.name!r}: {message}") from err
    kinds: dict[str, Kind] = {"f32": "FP32", "u8": "UINT8"}

    def port(value: ov.Output) -> _Port:
        sides = [None if side.is_dynamic else side.get_length() for side in value.partial_shape]
        kind = kinds.get(value.element_type.get_type_name())
        return _port(model, value.any_name, kind, sides)

    return [port(value) for value in network.inputs], [port(value) for value in network.outputs]


def _port(model: Path, name: str, kind: Kind | None, sides: list[int | None]) -> _Port:
    if kind is None:
        raise InputError(f"{name!r} of {model.name!r} is neither FP32 nor UINT8.")
    return _Port(name, kind, tuple(sides))


def _check_fit(model: Path, ports: tuple[_Port, _Port], spec: ModelSpec) -> None:
    """Check that the spec fits the tensors of the model."""
    image, logits = ports
    height, width = spec.preprocess.size
    raw = spec.input == "uint8"
    kind, sides = ("UINT8", (height, width, 3)) if raw else ("FP32", (3, height, width))
    if (image.type, image.shape[1:]) != (kind, sides):
        raise SpecError(
            f"The spec's input is {kind} (N, {', '.join(map(str, sides))}); "
            f"{model.name!r} takes {image.type} {image.shape}."
        )
    if logits.shape[1:] != (len(spec.labels),):
        raise SpecError(
            f"The spec has {len(spec.labels)} labels; {model.name!r} outputs {logits.shape}."
        )


def check_free(out: Path) -> None:
    """Check that nothing would be replaced that edgeml did not write.

    Raises:
        InputError: There is a file, or a folder with something else in it.
    """
    if not out.exists():
        return
    if out.is_dir():
        models = [entry for entry in out.iterdir() if entry.name != "config.json"]
        if not models or (len(models) == 1 and (models[0] / SPEC_FILE).is_file()):
            return
    raise InputError(
        f"{str(out)!r} exists and contains something other than one model from edgeml. Choose "
        "another path with --out, and move the model's folder from there."
    )


def _triton_config(
    name: str,
    suffix: str,
    ports: tuple[_Port, _Port],
    spec: ModelSpec,
    device: Device,
    max_batch: int,
) -> str:
    """Return a ModelConfig in protobuf's text format.

    OpenVINO's backend reshapes a model to the largest batch and refuses smaller ones
    (openvino_backend, src/openvino.cc), so there the batch is an ordinary dynamic dimension.
    Elsewhere waiting requests are batched, and none waits for a batch: no preferred size was
    measured.
    """
    image, logits = ports
    batched = suffix == ".onnx" and image.shape[0] is None
    layout = "FORMAT_NHWC" if image.type == "UINT8" else "FORMAT_NCHW"

    def dims(port: _Port) -> str:
        sides = port.shape[1:] if batched else port.shape
        return ", ".join(str(-1 if side is None else side) for side in sides)

    lines = [
        f"name: {_quoted(name)}",
        f"backend: {_quoted('onnxruntime' if suffix == '.onnx' else 'openvino')}",
        f"default_model_filename: {_quoted(f'model{suffix}')}",
        f"max_batch_size: {max_batch if batched else 0}",
        "input {",
        f"  name: {_quoted(image.name)}",
        f"  data_type: TYPE_{image.type}",
        # Triton allows a format only with three dimensions.
        *([f"  format: {layout}"] if batched else []),
        f"  dims: [{dims(image)}]",
        "}",
        "output {",
        f"  name: {_quoted(logits.name)}",
        f"  data_type: TYPE_{logits.type}",
        f"  dims: [{dims(logits)}]",
        f"  label_filename: {_quoted(LABELS_FILE)}",
        "}",
        *(["dynamic_batching {}"] if batched else []),
        "instance_group {",
        f"  kind: KIND_{device.upper()}",
        "  count: 1",
        "}",
        *(
            f"parameters {{\n  key: {_quoted(key)}\n  value {{ string_value: {_quoted(text)} }}\n}}"
            for key, text in spec_metadata(spec).items()
        ),
    ]
    return "".join(f"{line}\n" for line in lines)


def _ovms_config(name: str, device: Device) -> str:
    config: dict[str, object] = {"name": name, "base_path": name, "target_device": device.upper()}
    if device == "cpu":
        # Otherwise OpenVINO uses bfloat16 on a CPU that has it: other scores than were checked.
        config["plugin_config"] = {"INFERENCE_PRECISION_HINT": "f32"}
    return json.dumps({"model_config_list": [{"config": config}]}, indent=2) + "\n"


def _quoted(text: str) -> str:
    """Return a string in protobuf's text format: quotes, backslashes and controls escaped."""
    escaped = text.replace("\\", r"\\").replace('"', r"\"")
    return '"' + re.sub(r"[\x00-\x1f\x7f]", lambda match: rf"\{ord(match[0]):03o}", escaped) + '"'


def _one_line(label: str) -> str:
    """Return a label as one line of a file of labels."""
    return re.sub(r"[\r\n]+", " ", label)


def _write(path: Path, text: str) -> None:
    path.write_text(text, encoding="utf-8", newline="\n")
