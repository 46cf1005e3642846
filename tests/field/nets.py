"""Small networks as other tools write them, built by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edgeml.spec.storage import METADATA_KEY
from tests.export.graphs import SIDE, SPEC, Node, model_of, weights

CONSTANTS: dict[str, NDArray[Any]] = {
    "w1": weights(8, 3, 3, 3),
    "b1": np.linspace(-0.5, 0.5, 8, dtype=np.float32),
    "w2": weights(8, 8, 3, 3, seed=1),
    "w3": weights(2, 8, seed=2),
    "b3": np.array([0.1, -0.1], np.float32),
}
NODES: list[Node] = [
    ("Conv", ["input", "w1", "b1"], "x1"),
    ("Relu", ["x1"], "y1"),
    ("Conv", ["y1", "w2"], "x2"),
    ("Relu", ["x2"], "y2"),
    ("GlobalAveragePool", ["y2"], "pooled"),
    ("Flatten", ["pooled"], "flat"),
    ("Gemm", ["flat", "w3", "b3"], "logits", {"transB": 1}),
]


def plain_network(
    nodes: Sequence[Node] = NODES, constants: Mapping[str, Any] = CONSTANTS, **options: Any
) -> onnx.ModelProto:
    """Build two convolutions and a linear layer; `options` are those of `model_of`."""
    return model_of(nodes, constants, **options)


def stored(model: onnx.ModelProto, path: Path, **spec: Any) -> Path:
    """Write the bytes of a model as they are, with a spec inside that has these fields."""
    path.parent.mkdir(parents=True, exist_ok=True)
    onnx.helper.set_model_props(model, {METADATA_KEY: replace(SPEC, **spec).to_json()})
    path.write_bytes(model.SerializeToString())
    return path


def with_initializers_as_inputs(model: onnx.ModelProto, ir_version: int = 3) -> onnx.ModelProto:
    """List the weights among the inputs, as files up to IR version 3 must."""
    for tensor in model.graph.initializer:
        model.graph.input.append(
            onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims))
        )
    model.ir_version = ir_version
    return model


def two_folders(root: Path, each: int = 6) -> Path:
    """Write reddish and bluish images into folders `a` and `b`."""
    rng = np.random.default_rng(0)
    for name, colour in (("a", (40, 60, 200)), ("b", (200, 60, 40))):
        (root / name).mkdir(parents=True)
        for number in range(each):
            noise = rng.integers(-40, 40, (SIDE, SIDE, 3))
            picture = np.clip(np.array(colour) + noise, 0, 255).astype(np.uint8)
            cv2.imwrite(str(root / name / f"{number}.png"), picture)
    return root


def integer_layers(path: Path) -> dict[str, int]:
    """Count the layers of a QDQ file by their operator, if all that they multiply is integer."""
    graph = onnx.load(path).graph
    maker = {name: node.op_type for node in graph.node for name in node.output}
    counts: dict[str, int] = {}
    for node in graph.node:
        if node.op_type in ("Conv", "Gemm", "MatMul"):
            quantized = all(maker.get(name) == "DequantizeLinear" for name in node.input[:2])
            counts[node.op_type] = counts.get(node.op_type, 0) + quantized
    return counts


def values_of(model: onnx.ModelProto) -> dict[str, NDArray[Any]]:
    """Return the initializers by name."""
    return {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
