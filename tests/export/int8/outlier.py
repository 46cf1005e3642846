"""A network that breaks in INT8, and its scores with some layers in float."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edgeml import ModelSpec, Predictor
from edgeml.measure.bootstrap import ApLosses, drop_intervals
from edgeml.runtimes.onnx_file import read_onnx, spec_of_onnx, write_onnx
from edgeml_export.int8.ranges import Ranges
from edgeml_export.int8.targets import Target
from edgeml_export.int8.to_int8 import int8_from_onnx

Scores = NDArray[np.float32]

# A power of two: scaling up and down again changes no bit of what is computed in float.
FACTOR = 1024.0


def plant_outlier(source: Path, target: Path, factor: float = FACTOR) -> tuple[str, str]:
    """Scale one channel between two convolutions up and down again; return their names.

    They are the first with only a ReLU between them, so that nothing bypasses them.
    """
    model = read_onnx(source)
    spec, graph = spec_of_onnx(model, source), model.graph
    makes, takes = next(
        (first, third)
        for first, second, third in _chains(graph)
        if [first.op_type, second.op_type, third.op_type] == ["Conv", "Relu", "Conv"]
    )
    tensors = {tensor.name: tensor for tensor in graph.initializer}
    for name, where, scale in (
        (makes.input[1], np.s_[3], factor),
        (makes.input[2], np.s_[3], factor),
        (takes.input[1], np.s_[:, 3], 1 / factor),
    ):
        values = numpy_helper.to_array(tensors[name]).copy()
        values[where] *= scale
        tensors[name].CopyFrom(numpy_helper.from_array(values, name))
    write_onnx(model, target, spec)
    return makes.name, takes.name


def _chains(graph: onnx.GraphProto) -> Iterator[tuple[onnx.NodeProto, ...]]:
    """Yield three nodes in a row, each the only reader of the one before."""
    readers = Counter(name for node in graph.node for name in node.input)
    maker = {output: node for node in graph.node for output in node.output}
    for third in graph.node:
        second = maker.get(third.input[0])
        first = second and maker.get(second.input[0])
        if first and second and readers[first.output[0]] == readers[second.output[0]] == 1:
            yield first, second, third


@dataclass(frozen=True, eq=False)
class Planted:
    """The network, and the layers that break it in INT8."""

    path: Path
    makes: str
    takes: str
    ranges: Ranges
    spec: ModelSpec
    inputs: dict[str, NDArray[np.float32]]
    targets: dict[str, NDArray[np.int8]]
    folder: Path

    def scores(self, path: Path, part: str, layout: Target = "x86") -> Scores:
        runtime = "openvino" if layout == "openvino" else "onnxruntime"
        with Predictor(path, runtime=runtime) as predictor:
            return predictor.probabilities(predictor.runtime.run(self.inputs[part]))

    def in_int8(
        self, in_float: Sequence[str] | frozenset[str], part: str, layout: Target
    ) -> Scores:
        path = self.folder / f"{layout}.onnx"
        int8_from_onnx(self.path, path, self.ranges, layout=layout, keep=in_float)
        return self.scores(path, part, layout)

    def drops(
        self, in_float: Sequence[str] | frozenset[str], part: str, layout: Target
    ) -> ApLosses:
        fp32, got = self.scores(self.path, part), self.in_int8(in_float, part, layout)
        return drop_intervals(fp32, got, self.targets[part], self.spec.labels)
