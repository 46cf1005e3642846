"""Weights that an ONNX file keeps in other files, as PyTorch writes them by default."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from edgeml.errors import ModelLoadError
from edgeml.files import sha256_of_file
from edgeml.spec.foreign.read_graph import read_graph

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


def sha256_of_onnx(path: Path) -> str:
    """Return the digest of an .onnx; one of all its files together if its weights are in others.

    Raises:
        ModelLoadError: It cannot be read.
    """
    digests = [sha256_of_file(file) for file in (path, *weight_files(path))]
    if len(digests) == 1:
        return digests[0]
    return hashlib.sha256("".join(digests).encode()).hexdigest()


def weight_files(path: Path) -> list[Path]:
    """Return the files next to an .onnx, or below it, that have weights of it, and exist.

    Raises:
        ModelLoadError: The .onnx cannot be read.
    """
    files = [path.parent / name for name in read_graph(path).weight_files]
    return [file for file in files if file.is_file() and _is_inside(file, path)]


def _is_inside(file: Path, path: Path) -> bool:
    folders = {path.parent.resolve(), path.resolve().parent}
    return any(file.resolve().is_relative_to(folder) for folder in folders)


def _content(where: dict[str, str], path: Path, name: str) -> bytes:
    location = where.get("location", "")
    file = path.parent / location
    if not location or not _is_inside(file, path):
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
