"""Read a model's graph from its bytes, without a library: a device has one runtime only.

Runtimes report inputs, outputs and metadata, but not which operation comes last, which
distinguishes logits from probabilities. Files are untrusted.
"""

from __future__ import annotations

import mmap
from pathlib import Path

from edgeml.errors import ModelLoadError
from edgeml.spec.foreign.graph import DamagedError, Graph
from edgeml.spec.foreign.onnx_graph import read_onnx_graph
from edgeml.spec.foreign.openvino_graph import read_openvino_graph


def read_graph(path: Path) -> Graph:
    """Read the graph of an .onnx or .xml file.

    Raises:
        ModelLoadError: It cannot be read, is damaged, or is of another kind.
    """
    try:
        if path.suffix.lower() == ".xml":
            return read_openvino_graph(path)
        with open(path, "rb") as file:
            if not file.read(1):
                raise ModelLoadError(f"{path.name!r} is empty.")
            with (
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
                memoryview(data) as view,
            ):
                return read_onnx_graph(view)
    except OSError as err:
        raise ModelLoadError(f"{path.name!r} cannot be read: {err.strerror}.") from err
    except DamagedError as err:
        raise ModelLoadError(f"{path.name!r} is damaged: {err}.") from err
