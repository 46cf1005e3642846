"""Whether a network takes the batches that its input declares."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from edgeml.errors import needs
from edgeml.runtimes.telemetry import without_telemetry

if TYPE_CHECKING:
    import onnx


def limit_batch(model: onnx.ModelProto) -> bool:
    """Fix the batch of a network at one where it takes no other; return whether it was changed.

    Raises:
        MissingDependencyError: ONNX Runtime, which tries it, is not installed.
    """
    if takes_any_batch(model):
        return False
    del model.graph.value_info[:]
    for value in (*model.graph.input, *model.graph.output):
        for dim in list(value.type.tensor_type.shape.dim)[:1]:
            dim.dim_value = 1
    return True


def takes_any_batch(model: onnx.ModelProto) -> bool:
    """Return whether a network whose batch is open runs on two images, as its input promises.

    A Reshape that was traced with one image does not. True also for a network that does not run
    on one image either, which later steps report.
    """
    with needs("onnxruntime", extra="export", to="run a network"), without_telemetry():
        import onnxruntime as ort
    import onnx

    if len(model.graph.input) != 1 or not model.graph.output:
        return True
    image = model.graph.input[0]
    sides = [dim.dim_value for dim in image.type.tensor_type.shape.dim]
    if len(sides) != 4 or sides[0] or not all(sides[1:]):
        return True
    dtype = onnx.helper.tensor_dtype_to_np_dtype(image.type.tensor_type.elem_type)
    options = ort.SessionOptions()
    options.log_severity_level = 4

    def rows(count: int) -> int:
        try:
            session = ort.InferenceSession(
                model.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
            feed = {image.name: np.zeros((count, *sides[1:]), dtype)}
            return len(session.run([model.graph.output[0].name], feed)[0])
        except Exception:  # ONNX Runtime's own errors share no public base class
            return 0

    return rows(2) == 2 or rows(1) != 1
