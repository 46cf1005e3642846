"""A network with the layers that runtimes treat specially, and a way to press it hard."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from edgeml import Predictor
from edgeml.spec import METADATA_KEY
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


def in_threads(predictor: Predictor, threads: int = 8, each: int = 20) -> None:
    """Let threads predict at once; compare bit for bit with one picture after another."""
    rng = np.random.default_rng(0)
    frames = [rng.integers(0, 256, (40, 30, 3), np.uint8) for _ in range(threads * each)]
    alone = [predictor.predict(frame).scores for frame in frames]

    def work(thread: int) -> list[NDArray[np.float32]]:
        return [predictor.predict(frame).scores for frame in frames[thread::threads]]

    with ThreadPoolExecutor(threads) as pool:
        for thread, together in enumerate(pool.map(work, range(threads))):
            np.testing.assert_array_equal(together, alone[thread::threads])
