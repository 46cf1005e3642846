"""Runs a network with tensors from inside it as outputs."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import ExportError, needs
from edgeml.runtimes.fixed_batch import rounds
from edgeml.runtimes.telemetry import without_telemetry

if TYPE_CHECKING:
    import onnx


class Probe:
    """A network in ONNX Runtime, on the CPU, that also returns tensors from inside it."""

    def __init__(self, model: onnx.ModelProto, names: Collection[str]) -> None:
        """Open the network.

        Args:
            model: It stays as it is.
            names: The tensors to return.

        Raises:
            ExportError: ONNX Runtime cannot run the network.
        """
        with needs("onnxruntime", extra="export", to="look inside a network"), without_telemetry():
            import onnxruntime as ort
        import onnx

        probed = onnx.ModelProto()
        probed.CopyFrom(model)
        known = {value.name for value in (*probed.graph.output, *probed.graph.input)}
        extra = sorted(set(names) - known)
        probed.graph.output.extend(onnx.ValueInfoProto(name=name) for name in extra)
        options = ort.SessionOptions()
        options.log_severity_level = 3
        try:
            self._session = ort.InferenceSession(
                probed.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as err:  # ONNX Runtime's own errors share no public base class
            raise ExportError(f"ONNX Runtime cannot run the network: {err}") from err
        self._outputs = [output.name for output in self._session.get_outputs()]
        source = self._session.get_inputs()[0]
        self._input, size = source.name, source.shape[0]
        self._fixed = size if isinstance(size, int) else None

    def run(self, batch: NDArray[Any]) -> dict[str, NDArray[Any]]:
        """Return the tensors for a batch by name, the input among them.

        A network of a fixed batch runs in rounds of that size. Its tensors are joined along the
        first axis, without the copies of the last image that fill the last round.
        """
        tensors, size = {self._input: batch}, self._fixed or len(batch)
        outputs = [
            self._session.run(self._outputs, {self._input: part}) for part in rounds(batch, size)
        ]
        for name, *parts in zip(self._outputs, *outputs, strict=True):
            joined = np.concatenate([np.atleast_1d(part) for part in parts])
            per_image = len(joined) // (size * len(parts))
            tensors[name] = joined[: per_image * len(batch)] if per_image else joined
        return tensors


def takes_any_batch(model: onnx.ModelProto) -> bool:
    """Return whether a network whose batch is open runs on two images, as its input promises.

    A Reshape that was traced with one image does not. True also for a network that does not run
    on one image either, which later steps report.
    """
    with needs("onnxruntime", extra="export", to="run a network"), without_telemetry():
        import onnxruntime as ort
    import onnx

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
