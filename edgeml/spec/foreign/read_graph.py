"""What a model's graph says, read from its bytes: no library, since a device has one runtime only.

Runtimes tell inputs, outputs and metadata, but not which operation comes last, and that is what
tells logits from probabilities. Files may come from anywhere: nothing is believed but the bytes.
"""

from __future__ import annotations

import mmap
from pathlib import Path

from edgeml.errors import ModelLoadError
from edgeml.spec.foreign.endings import Graph, _DamagedError
from edgeml.spec.foreign.onnx_graph import _onnx
from edgeml.spec.foreign.openvino_graph import _openvino


def read_graph(path: Path) -> Graph:
    """Read the graph of an .onnx or .xml file.

    Raises:
        ModelLoadError: It cannot be read, is damaged, or of another kind.
    """
    try:
        if path.suffix.lower() == ".xml":
            return _openvino(path)
        with open(path, "rb") as file:
            if not file.read(1):
                raise ModelLoadError(f"{path.name!r} is empty.")
            with (
                mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data,
                memoryview(data) as view,
            ):
                return _onnx(view)
    except OSError as err:
        raise ModelLoadError(f"{path.name!r} cannot be read: {err.strerror}.") from err
    except _DamagedError as err:
        raise ModelLoadError(f"{path.name!r} is damaged: {err}.") from err


# Of protobuf and onnx.proto: https://protobuf.dev/programming-guides/encoding/,
# https://github.com/onnx/onnx/blob/main/onnx/onnx.proto
