"""Weights that an ONNX file keeps in other files, as PyTorch writes them by default."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgeml.errors import ModelLoadError

if TYPE_CHECKING:
    import onnx

_LARGEST = 2**31 - 1
"""Bytes of a protobuf message: exported models are one file."""


def load_external_weights(model: onnx.ModelProto, path: Path) -> None:
    """Read the weights that are in other files into `model`, which was read from `path`.

    Files are untrusted: only those in the model's own folder are read. Where the model is a link,
    as in the cache of the Hugging Face Hub, the folder that it points to will do as well.

    Raises:
        ModelLoadError: A file is missing, too short or elsewhere, or the weights exceed 2 GB.
    """
    size = 0
    for tensor in _tensors(model):
        if not tensor.external_data:
            continue
        where = {entry.key: entry.value for entry in tensor.external_data}
        content = _content(where, path, tensor.name)
        size += len(content)
        if size > _LARGEST:
            raise ModelLoadError(
                f"The weights of {path.name!r} have more than 2 GB, which is more than one ONNX "
                "file can hold. Export a smaller network, or FP16."
            )
        tensor.raw_data = content
        tensor.ClearField("external_data")
        tensor.ClearField("data_location")


def refuse_external_weights(path: Path) -> None:
    """Refuse a model of several files where the digest of one has to identify it.

    Raises:
        ModelLoadError: Weights are in another file.
    """
    import onnx

    if any(tensor.external_data for tensor in _tensors(onnx.load(path, load_external_data=False))):
        raise ModelLoadError(
            f"The weights of {path.name!r} are in another file. An engine belongs to one file: "
            "write it with edgeml export --fmt onnx first."
        )


def _content(where: dict[str, str], path: Path, name: str) -> bytes:
    location = where.get("location", "")
    file = path.parent / location
    folders = {path.parent.resolve(), path.resolve().parent}
    if not location or not any(file.resolve().is_relative_to(folder) for folder in folders):
        raise ModelLoadError(
            f"The weights of {path.name!r} are in {location!r}, outside the model's folder: such "
            "files are not read. Put it next to the model, or save the model as one file."
        )
    try:
        offset, length = int(where.get("offset") or 0), int(where.get("length") or -1)
        with open(file, "rb") as weights:
            available = weights.seek(0, 2)
            weights.seek(offset)
            expected = available - offset if length < 0 else length
            if not 0 <= expected <= available - offset:
                raise ModelLoadError(
                    f"{location!r} has {available} bytes; {name!r} of {path.name!r} is at {offset} "
                    f"to {offset + expected}: the file is not complete, or is another model's."
                )
            return weights.read(expected)
    except ValueError as err:
        raise ModelLoadError(f"{path.name!r} is damaged: where {name!r} is: {where}.") from err
    except OSError as err:
        raise ModelLoadError(
            f"The weights of {path.name!r} are in {location!r}, which cannot be read: "
            f"{err.strerror}. The two files belong next to each other."
        ) from err


def _tensors(model: onnx.ModelProto) -> Iterator[onnx.TensorProto]:
    """Yield all constants of a model, those of its functions and inner graphs included."""
    yield from _tensors_of_graph(model.graph)
    for function in model.functions:
        yield from _tensors_of_nodes(function.node)


def _tensors_of_graph(graph: onnx.GraphProto) -> Iterator[onnx.TensorProto]:
    yield from graph.initializer
    yield from _tensors_of_nodes(graph.node)


def _tensors_of_nodes(nodes: Iterator[onnx.NodeProto]) -> Iterator[onnx.TensorProto]:
    for node in nodes:
        for attribute in node.attribute:
            yield from attribute.tensors
            if attribute.HasField("t"):
                yield attribute.t
            for graph in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])):
                yield from _tensors_of_graph(graph)
