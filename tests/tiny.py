"""The smallest model that means something: it names the colour that prevails in a picture.

`make_tiny_onnx` writes it as an .onnx file with its spec inside; `TinyRuntime` is the same network
in numpy, for tests that need a `Predictor` but no runtime.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeml import ModelSpec, Preprocess
from edgeml.errors import InferenceError
from edgeml.spec.storage import METADATA_KEY

LABELS = ("red", "green", "blue")


def tiny_spec(labels: Sequence[str] = LABELS, size: tuple[int, int] | int = (32, 32)) -> ModelSpec:
    """Give the spec of the tiny model; `dataclasses.replace` makes others of it."""
    sides = (size, size) if isinstance(size, int) else size
    return ModelSpec(
        labels=tuple(labels), thresholds=(0.5,) * len(labels), preprocess=Preprocess(size=sides)
    )


def tiny_weights(labels: int) -> NDArray[np.float32]:
    """Give weights (labels, 3): output i is the excess of channel i % 3 over the other two.

    From the fourth label on, a factor keeps outputs of the same channel apart.
    """
    rows = [
        (np.eye(3)[i % 3] - (1 - np.eye(3)[i % 3]) / 2) * 2 / (1 + i // 3) for i in range(labels)
    ]
    return np.asarray(rows, np.float32)


def make_tiny_onnx(
    path: Path,
    *,
    labels: Sequence[str] = LABELS,
    size: tuple[int, int] | int = (32, 32),
    spec: ModelSpec | None = None,
) -> Path:
    """Write GlobalAveragePool, Flatten, Gemm as ONNX (opset 18, IR 10, any batch); give `path`.

    Args:
        path: Where to.
        labels: Names of the outputs.
        size: (height, width) of the input, or one number for both.
        spec: Instead of `tiny_spec(labels, size)`; wins over `labels` and `size`.
    """
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    spec = spec or tiny_spec(labels, size)
    count = len(spec.labels)
    graph = helper.make_graph(
        [
            helper.make_node("GlobalAveragePool", ["input"], ["pooled"]),
            helper.make_node("Flatten", ["pooled"], ["flat"]),
            helper.make_node("Gemm", ["flat", "weights", "bias"], ["logits"], transB=1),
        ],
        "tiny",
        [
            helper.make_tensor_value_info(
                "input", TensorProto.FLOAT, ["N", 3, *spec.preprocess.size]
            )
        ],
        [helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", count])],
        [
            numpy_helper.from_array(tiny_weights(count), "weights"),
            numpy_helper.from_array(np.zeros(count, np.float32), "bias"),
        ],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10, producer_name="edgeml"
    )
    helper.set_model_props(model, {METADATA_KEY: spec.to_json()})
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


class TinyRuntime:
    """The tiny model in numpy, with the five members of `edgeml.runtimes.Runtime`.

    Args:
        spec: Stands in `metadata`, as in a file.
        seconds: How long each run takes at least.
        failing: Numbers of the runs, from 0, that raise InferenceError.
    """

    name = "tiny numpy"

    def __init__(
        self,
        spec: ModelSpec | None = None,
        *,
        seconds: float = 0.0,
        failing: Collection[int] = (),
    ) -> None:
        self.spec = spec or tiny_spec()
        self.runs = 0
        self.closed = False
        self._seconds = seconds
        self._failing = failing
        self._weights = tiny_weights(len(self.spec.labels))

    @property
    def input_shape(self) -> tuple[int | None, int, int, int]:
        return (None, 3, *self.spec.preprocess.size)

    @property
    def metadata(self) -> Mapping[str, str]:
        return {METADATA_KEY: self.spec.to_json(), "precision": "f32"}

    def run(self, batch: NDArray[np.float32] | NDArray[np.uint8], /) -> NDArray[np.float32]:
        run, self.runs = self.runs, self.runs + 1
        time.sleep(self._seconds)
        if self.closed:
            raise InferenceError("This model is closed; open it again.")
        if run in self._failing:
            raise InferenceError(f"run {run} failed, as the test wanted.")
        return (batch.mean(axis=(2, 3)) @ self._weights.T).astype(np.float32)

    def close(self) -> None:
        self.closed = True
