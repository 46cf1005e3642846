"""A softmax makes a network a transformer only where a product of activations reads it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgeml.runtimes.onnx_graph import has_attention
from edgeml_export.int8.ranges import measure_ranges
from edgeml_export.int8.to_int8 import int8_from_onnx
from tests.export.graphs import Node, executed, model_of, photos, weights
from tests.field.nets import stored

pytestmark = pytest.mark.runtime

CONSTANTS: dict[str, Any] = {
    "w1": weights(8, 3, 3, 3),
    "w2": weights(8, 8, 3, 3, seed=1),
    "w3": weights(2, 8, seed=2),
}
RESIDUAL: list[Node] = [
    ("Conv", ["input", "w1"], "x1", {"pads": [1, 1, 1, 1]}),
    ("Relu", ["x1"], "y1"),
    ("Conv", ["y1", "w2"], "x2", {"pads": [1, 1, 1, 1]}),
    ("Add", ["x2", "y1"], "sum"),
    ("Relu", ["sum"], "y2"),
    ("GlobalAveragePool", ["y2"], "pooled"),
    ("Flatten", ["pooled"], "flat"),
]
LOGITS: list[Node] = [("Gemm", ["flat", "w3"], "logits", {"transB": 1})]
SOFTMAX: list[Node] = [
    ("Gemm", ["flat", "w3"], "scores", {"transB": 1}),
    ("Softmax", ["scores"], "logits"),
]
# Branches weighed by a softmax, as in ResNeSt: no product of two activations.
WEIGHED: list[Node] = [
    ("Softmax", ["flat"], "shares"),
    ("Mul", ["flat", "shares"], "weighed"),
    ("Gemm", ["weighed", "w3"], "logits", {"transB": 1}),
]
ATTENTION: list[Node] = [
    ("Unsqueeze", ["flat", "last"], "tokens"),
    ("Transpose", ["tokens"], "keys", {"perm": [0, 2, 1]}),
    ("MatMul", ["tokens", "keys"], "products"),
    ("Softmax", ["products"], "shares"),
    ("Identity", ["shares"], "kept"),
    ("MatMul", ["kept", "tokens"], "values"),
    ("Squeeze", ["values", "last"], "mixed"),
    ("Gemm", ["mixed", "w3"], "logits", {"transB": 1}),
]


@pytest.mark.parametrize(
    ("end", "attention"),
    [(LOGITS, False), (SOFTMAX, False), (WEIGHED, False), (ATTENTION, True)],
    ids=["logits", "softmax", "weighed", "attention"],
)
def test_attention_is_a_product_that_reads_a_softmax(end: list[Node], attention: bool) -> None:
    constants = {**CONSTANTS, "last": np.array([2], np.int64)}
    assert has_attention(model_of([*RESIDUAL, *end], constants)) is attention


@pytest.mark.parametrize("end", [LOGITS, SOFTMAX, WEIGHED], ids=["logits", "softmax", "weighed"])
def test_residual_sums_of_a_cnn_are_int8_whatever_its_end(end: list[Node], tmp_path: Path) -> None:
    source = stored(model_of([*RESIDUAL, *end], CONSTANTS), tmp_path / "model.onnx")
    ranges = measure_ranges(source, photos(tmp_path / "photos"))
    written = int8_from_onnx(source, tmp_path / "int8.onnx", ranges)
    kinds = [node.op_type for node in executed(written, tmp_path).graph.node]
    assert kinds.count("QLinearConv") == 2
    assert kinds.count("QLinearAdd") == 1
