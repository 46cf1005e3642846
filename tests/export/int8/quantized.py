"""Small networks with Q/DQ nodes: built by hand, and by ONNX Runtime's own quantiser."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray

from tests.export.graphs import Node, inputs_of, model_of, photos, weights, written


def quantized(
    *,
    dtype: type[Any] = np.int8,
    zero: int = 0,
    weight_dtype: type[Any] = np.int8,
    by_channel: bool = True,
    activation_by_channel: bool = False,
    bias: str = "",
    output: bool = False,
    folded: bool = True,
    constants_by_nodes: bool = False,
    zeros: bool = True,
    unnamed: Sequence[str] = (),
) -> onnx.ModelProto:
    """Build a convolution of 4 channels between Q/DQ nodes.

    Args:
        dtype: Of activations.
        zero: Their zero point.
        weight_dtype: Of weights.
        by_channel: Weights have a scale for each output channel.
        activation_by_channel: The input has a scale for each channel.
        bias: `int32`: in the convolution; `sum`: quantised, in a sum behind it.
        output: There is Q/DQ behind a ReLU behind the convolution.
        folded: Weights are stored in integers; else in float with Q and DQ behind them.
        constants_by_nodes: Scales and zero points come out of Constant nodes.
        zeros: Nodes have zero points at all.
        unnamed: Outputs of nodes that get no name.
    """
    scale = np.full(3, 0.02, np.float32) if activation_by_channel else np.float32(0.02)
    shape = (4,) if by_channel else ()
    constants: dict[str, Any] = {
        "s": scale,
        "z": np.full(scale.shape, zero, dtype),
        "ws": np.full(shape, 0.01, np.float32),
        "wz": np.zeros(shape, weight_dtype),
        "w": (weights(4, 3, 3, 3) * 90).astype(weight_dtype) if folded else weights(4, 3, 3, 3),
        "bs": np.full(4, 0.0002, np.float32),
        "b": np.arange(4, dtype=np.int32),
        "b8": np.arange(4, dtype=np.int8).reshape(4, 1, 1),
        "bs8": np.float32(0.1),
        "head": weights(2, 4),
    }
    grid, weight_grid = (["s", "z"], ["ws", "wz"]) if zeros else (["s"], ["ws"])
    one = {"axis": 1} if activation_by_channel else {}
    nodes: list[Node] = [
        ("QuantizeLinear", ["input", *grid], "q", one),
        ("DequantizeLinear", ["q", *grid], "x", one),
    ]
    if not folded:
        nodes.append(("QuantizeLinear", ["w", *weight_grid], "wq", {"axis": 0}))
    nodes.append(("DequantizeLinear", ["w" if folded else "wq", *weight_grid], "wd", {"axis": 0}))
    if bias == "int32":
        nodes.append(("DequantizeLinear", ["b", "bs"], "bd", {"axis": 0}))
    nodes.append(("Conv", ["x", "wd", *(["bd"] if bias == "int32" else [])], "y"))
    last = "y"
    if bias == "sum":
        nodes += [("DequantizeLinear", ["b8", "bs8"], "bd"), ("Add", ["y", "bd"], "summed")]
        last = "summed"
    if output:
        nodes += [
            ("Relu", [last], "r"),
            ("QuantizeLinear", ["r", *grid[:2]], "oq"),
            ("DequantizeLinear", ["oq", *grid[:2]], "o"),
        ]
        last = "o"
    nodes += [
        ("GlobalAveragePool", [last], "p"),
        ("Flatten", ["p"], "f"),
        ("Gemm", ["f", "head"], "logits", {"transB": 1}),
    ]
    used = {name for _, inputs, *_ in nodes for name in inputs}
    constants = {name: value for name, value in constants.items() if name in used}
    if constants_by_nodes:
        stored = {name: constants.pop(name) for name in ("s", "z", "ws", "wz") if name in constants}
        tensors = {name: onnx.numpy_helper.from_array(np.asarray(v)) for name, v in stored.items()}
        nodes = [("Constant", [], name, {"value": t}) for name, t in tensors.items()] + nodes
    model = model_of(nodes, constants)
    for node in model.graph.node:
        if node.output[0] in unnamed:
            node.name = ""
    return model


def float_network(path: Path) -> Path:
    """Write a network of two convolutions for ONNX Runtime's own quantiser."""
    model = model_of(
        [
            ("Conv", ["input", "w", "b"], "y"),
            ("Relu", ["y"], "r"),
            ("Conv", ["r", "w2", "b"], "y2"),
            ("Relu", ["y2"], "r2"),
            ("GlobalAveragePool", ["r2"], "p"),
            ("Flatten", ["p"], "f"),
            ("Gemm", ["f", "head"], "logits", {"transB": 1}),
        ],
        {
            "w": weights(4, 3, 3, 3),
            "w2": weights(4, 4, 3, 3),
            "b": np.ones(4, np.float32),
            "head": weights(2, 4),
        },
    )
    return written(model, path)


def by_onnx_runtime(source: Path, folder: Path, **options: Any) -> onnx.ModelProto:
    """Quantise with `quantize_static`, which prints advice on stdout."""
    quantization = pytest.importorskip("onnxruntime.quantization")
    reader = Reader(inputs_of(photos(folder / "photos", count=3)))
    with contextlib.redirect_stdout(None):
        quantization.quantize_static(source, folder / "theirs.onnx", reader, **options)
    return onnx.load(folder / "theirs.onnx")


class Reader:
    """Feeds a quantiser one input at a time."""

    def __init__(self, batch: NDArray[np.float32]) -> None:
        self._inputs: Iterator[NDArray[np.float32]] = iter(np.split(batch, len(batch)))

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        batch = next(self._inputs, None)
        return None if batch is None else {"input": batch}
