"""A network with the layers that runtimes treat specially, and a way to press it hard."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgeml import Predictor
from edgeml.spec.storage import METADATA_KEY
from tests.tiny import tiny_spec


def every_layer_onnx(path: Path) -> Path:
    """Write Conv, Relu, residual Add, GlobalAveragePool, Gemm with random weights; give `path`."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(0)
    weights = {
        "kernel": rng.normal(0, 0.2, (16, 3, 3, 3)),
        "head": rng.normal(0, 0.5, (3, 16)),
        "bias": rng.normal(0, 0.1, 3),
    }
    node, value = helper.make_node, helper.make_tensor_value_info
    graph = helper.make_graph(
        [
            node("Conv", ["images", "kernel"], ["convolved"], strides=[2, 2], pads=[1] * 4),
            node("Relu", ["convolved"], ["positive"]),
            node("Add", ["positive", "convolved"], ["sum"]),
            node("GlobalAveragePool", ["sum"], ["pooled"]),
            node("Flatten", ["pooled"], ["flat"]),
            node("Gemm", ["flat", "head", "bias"], ["logits"], transB=1),
        ],
        "net",
        [value("images", TensorProto.FLOAT, ["N", 3, 32, 32])],
        [value("logits", TensorProto.FLOAT, ["N", 3])],
        [
            numpy_helper.from_array(array.astype(np.float32), name)
            for name, array in weights.items()
        ],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {METADATA_KEY: tiny_spec().to_json()})
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def noise(count: int, seed: int = 0) -> NDArray[np.float32]:
    return np.random.default_rng(seed).normal(size=(count, 3, 32, 32)).astype(np.float32)


def assert_same_in_threads(predictor: Predictor, threads: int = 8, each: int = 60) -> None:
    """Let threads predict at once; what they get must be what one alone gets, bit for bit."""
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (40, 30, 3), np.uint8) for _ in range(threads * each)]
    alone = [predictor.predict(frame).scores for frame in frames]

    def work(thread: int) -> list[NDArray[np.float32]]:
        return [predictor.predict(frame).scores for frame in frames[thread::threads]]

    with ThreadPoolExecutor(threads) as pool:
        for thread, together in enumerate(pool.map(work, range(threads))):
            np.testing.assert_array_equal(together, alone[thread::threads])


def endless_onnx(path: Path) -> Path:
    """Write the tiny model with a Loop behind it that adds for as long as there are numbers."""
    from onnx import TensorProto, helper, numpy_helper

    node, value = helper.make_node, helper.make_tensor_value_info
    body = helper.make_graph(
        [node("Identity", ["go"], ["go_on"]), node("Add", ["sum", "little"], ["more"])],
        "body",
        [
            value("i", TensorProto.INT64, []),
            value("go", TensorProto.BOOL, []),
            value("sum", TensorProto.FLOAT, ["N", 3]),
        ],
        [value("go_on", TensorProto.BOOL, []), value("more", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(np.array(1e-3, np.float32), "little")],
    )
    graph = helper.make_graph(
        [
            node("GlobalAveragePool", ["images"], ["pooled"]),
            node("Flatten", ["pooled"], ["flat"]),
            node("Loop", ["rounds", "true", "flat"], ["logits"], body=body),
        ],
        "endless",
        [value("images", TensorProto.FLOAT, ["N", 3, 32, 32])],
        [value("logits", TensorProto.FLOAT, ["N", 3])],
        [
            numpy_helper.from_array(np.array(1 << 62), "rounds"),
            numpy_helper.from_array(np.array(True), "true"),
        ],
    )
    return _saved(graph, path)


def slow_onnx(path: Path, layers: int = 40) -> Path:
    """Write a network of many layers, each of which takes some milliseconds."""
    from onnx import TensorProto, helper, numpy_helper

    node, value = helper.make_node, helper.make_tensor_value_info
    rng = np.random.default_rng(0)
    weights = {"first": rng.normal(0, 0.2, (64, 3, 3, 3))}
    nodes = [node("Conv", ["images", "first"], ["0"], pads=[1] * 4)]
    for i in range(layers):
        weights[f"kernel{i}"] = rng.normal(0, 0.04, (64, 64, 7, 7))
        nodes.append(node("Conv", [str(i), f"kernel{i}"], [f"{i}c"], pads=[3] * 4))
        nodes.append(node("Tanh", [f"{i}c"], [str(i + 1)]))
    weights["head"] = rng.normal(0, 0.5, (3, 64))
    nodes += [
        node("GlobalAveragePool", [str(layers)], ["pooled"]),
        node("Flatten", ["pooled"], ["flat"]),
        node("Gemm", ["flat", "head"], ["logits"], transB=1),
    ]
    graph = helper.make_graph(
        nodes,
        "slow",
        [value("images", TensorProto.FLOAT, ["N", 3, 32, 32])],
        [value("logits", TensorProto.FLOAT, ["N", 3])],
        [numpy_helper.from_array(one.astype(np.float32), name) for name, one in weights.items()],
    )
    return _saved(graph, path)


def _saved(graph: Any, path: Path) -> Path:
    import onnx
    from onnx import helper

    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    helper.set_model_props(model, {METADATA_KEY: tiny_spec().to_json()})
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path
