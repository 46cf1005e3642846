"""Runs a network with tensors from inside it as outputs."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from edgeml.errors import ExportError, needs
from edgeml.runtimes.fixed_batch import rounds
from edgeml.runtimes.protocol import one_line
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
        options.log_severity_level = 4
        try:
            self._session = ort.InferenceSession(
                probed.SerializeToString(), options, providers=["CPUExecutionProvider"]
            )
        except Exception as err:  # ONNX Runtime's own errors share no public base class
            raise ExportError(f"ONNX Runtime cannot run the network: {one_line(err)}") from err
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
