"""Weights that operators make from constants are weights: their layers become INT8."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from edgeml.runtimes.onnx_file import read_onnx
from edgeml_export.int8.ranges import measure_ranges
from edgeml_export.int8.to_int8 import int8_from_onnx
from tests.export.graphs import Node, photos, run
from tests.field.nets import CONSTANTS, NODES, integer_layers, plain_network, stored
from tests.field.test_onnx_files import BATCH

pytestmark = pytest.mark.runtime

W2 = CONSTANTS["w2"]
COLUMNS = W2.shape[0], -1
NORM = np.sqrt((W2.reshape(COLUMNS) ** 2).sum(axis=1)).reshape(-1, 1, 1, 1)

# How the weight of the second convolution is made, and from what.
WAYS: dict[str, tuple[list[Node], dict[str, Any]]] = {
    "Identity": ([("Identity", ["base"], "w2")], {"base": W2}),
    "Transpose": ([("Transpose", ["base"], "w2", {"perm": [3, 2, 1, 0]})],
                  {"base": W2.transpose(3, 2, 1, 0).copy()}),
    "Reshape": ([("Reshape", ["base", "shape"], "w2")],
                {"base": W2.reshape(-1), "shape": np.array(W2.shape, np.int64)}),
    "Cast": ([("Cast", ["base"], "w2", {"to": 1})], {"base": W2.astype(np.float64)}),
    "Unsqueeze": ([("Unsqueeze", ["base", "axes"], "w2")],
                  {"base": W2[:, :, 0].copy(), "axes": np.array([2], np.int64)}),
    "two of them": ([("Identity", ["base"], "same"),
                     ("Transpose", ["same"], "w2", {"perm": [1, 0, 2, 3]})],
                    {"base": W2.transpose(1, 0, 2, 3).copy()}),
    "a norm and a factor": ([("Div", ["base", "norm"], "unit"), ("Mul", ["unit", "norm"], "w2")],
                            {"base": W2, "norm": NORM}),
    "a sigmoid": ([("Sigmoid", ["base"], "w2")], {"base": W2}),
    # As timm's ScaledStdConv2d and StdConv2d do (NFNet, BiT): a batch normalisation of the weight.
    "standardised": ([("Reshape", ["base", "rows"], "row"),
                      ("ReduceMean", ["row", "axes"], "mean", {"keepdims": 0}),
                      ("Sub", ["row", "middle"], "shifted"),
                      ("Mul", ["shifted", "shifted"], "squares"),
                      ("ReduceMean", ["squares", "axes"], "variance", {"keepdims": 0}),
                      ("BatchNormalization", ["row", "gain", "zero", "mean", "variance"], "normal"),
                      ("Reshape", ["normal", "shape"], "w2")],
                     {"base": W2, "rows": np.array([1, len(W2), -1], np.int64),
                      "axes": np.array([0, 2], np.int64),
                      "middle": W2.reshape(1, len(W2), -1).mean(axis=2, keepdims=True),
                      "gain": np.linspace(0.1, 0.3, len(W2), dtype=np.float32),
                      "zero": np.zeros(len(W2), np.float32),
                      "shape": np.array(W2.shape, np.int64)}),
}  # fmt: skip


def network_with(way: tuple[list[Node], dict[str, Any]]) -> onnx.ModelProto:
    made, constants = way
    others = {name: value for name, value in CONSTANTS.items() if name != "w2"}
    nodes: Sequence[Node] = [*made, *NODES]
    if made[0][0] == "Unsqueeze":  # a kernel of 1 x 3
        nodes = [(*node, {"pads": [0, 0, 0, 0]}) if node[2] == "x2" else node for node in nodes]  # type: ignore[misc]
    return plain_network(nodes, {**others, **constants})


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_a_layer_with_computed_weights_becomes_int8(
    way: tuple[list[Node], dict[str, Any]], tmp_path: Path
) -> None:
    source = stored(network_with(way), tmp_path / "model.onnx")
    ranges = measure_ranges(source, photos(tmp_path / "photos"))
    written = int8_from_onnx(source, tmp_path / "int8.onnx", ranges)
    assert integer_layers(written) == {"Conv": 2, "Gemm": 0}


@pytest.mark.parametrize("way", WAYS.values(), ids=WAYS)
def test_folding_changes_no_result(way: tuple[list[Node], dict[str, Any]], tmp_path: Path) -> None:
    path = stored(network_with(way), tmp_path / "model.onnx")
    folded = read_onnx(path)
    made = {node[0] for node in way[0]}
    assert made.isdisjoint(node.op_type for node in folded.graph.node)
    np.testing.assert_allclose(run(folded, BATCH)[0], run(path, BATCH)[0], rtol=1e-5, atol=1e-6)


def test_a_bias_that_two_layers_share_by_identity_is_a_constant(tmp_path: Path) -> None:
    nodes: list[Node] = [("Identity", ["b1"], "b2"), *NODES]
    nodes[3] = ("Conv", ["y1", "w2", "b2"], "x2")
    source = stored(plain_network(nodes), tmp_path / "model.onnx")
    ranges = measure_ranges(source, photos(tmp_path / "photos"))
    written = int8_from_onnx(source, tmp_path / "int8.onnx", ranges)
    assert integer_layers(written) == {"Conv": 2, "Gemm": 0}
    assert "Identity" not in {node.op_type for node in onnx.load(written).graph.node}


def test_a_constant_that_would_grow_stays_a_node(tmp_path: Path) -> None:
    side = np.ones((1, 4096), np.float32)
    nodes: list[Node] = [
        ("Mul", ["row", "column"], "large"),
        ("ReduceMean", ["large"], "one", {"keepdims": 0}),
        *NODES[:-1],
        ("Gemm", ["flat", "w3", "b3"], "scores", {"transB": 1}),
        ("Mul", ["scores", "one"], "logits"),
    ]
    model = plain_network(nodes, {**CONSTANTS, "row": side, "column": side.T.copy()})
    read = read_onnx(stored(model, tmp_path / "model.onnx"))
    assert [node.op_type for node in read.graph.node][:2] == ["Mul", "ReduceMean"]
