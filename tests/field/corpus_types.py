"""Files in integers and half floats, as quantisers of several tools write them."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tests.export.graphs import Node
from tests.field.corpus import (
    CONSTANTS,
    LAST,
    NODES,
    POOLED,
    SIDE,
    Case,
    Model,
    network,
    reads,
    refused,
)

SOFTMAX = ("--activation", "softmax")
NO_FLOAT = ("onnx fp16", "onnx int8", "openvino fp32", "openvino fp16", "openvino int8")


def by_onnxruntime(name: str, *, saturates: bool = False, **options: Any) -> Case:
    """Return a case that ONNX Runtime's own tool quantises.

    With `saturates`, plain ONNX Runtime adds products in 16 bits, and is the one that is off.
    """

    def build(folder: Path) -> Path:
        from onnxruntime import quantization as tool

        class Images(tool.CalibrationDataReader):  # type: ignore[misc]  # no stubs
            def __init__(self) -> None:
                rng = np.random.default_rng(0)
                batches = (rng.normal(0, 1.2, (1, 3, SIDE, SIDE)) for _ in range(4))
                self._feeds = iter([{"input": each.astype(np.float32)} for each in batches])

            def get_next(self) -> dict[str, NDArray[Any]] | None:
                return next(self._feeds, None)

        target = folder / "model.onnx"
        with warnings.catch_warnings(), tempfile.TemporaryDirectory() as other:
            warnings.simplefilter("ignore")
            source = Path(other) / "float.onnx"
            source.write_bytes(network(opset=options.pop("opset", 18)).SerializeToString())
            kinds = {key: getattr(tool.QuantType, each) if key.endswith("_type") else each
                     for key, each in options.items()}  # fmt: skip
            if kinds.pop("dynamic", False):
                tool.quantize_dynamic(source, target, **kinds)
            else:
                form = tool.QuantFormat[kinds.pop("form", "QDQ")]
                tool.quantize_static(source, target, Images(), quant_format=form, **kinds)
        return target

    return Case(name, build, SOFTMAX, tolerance=0.15 if saturates else 0.05, no_export=NO_FLOAT,
                states={"precision": "int8"})  # fmt: skip


def integers(weight: NDArray[Any], bits: int = 8) -> tuple[NDArray[Any], NDArray[Any]]:
    top = 2 ** (bits - 1) - 1
    scale = np.abs(weight).reshape(len(weight), -1).max(axis=1) / top
    shape = (-1, *[1] * (weight.ndim - 1))
    return np.rint(weight / scale.reshape(shape)).astype(np.int8), scale.astype(np.float32)


def pair(source: str, target: str, scale: str, zero: str = "u0") -> list[Node]:
    return [
        ("QuantizeLinear", [source, scale, zero], f"{target}_q"),
        ("DequantizeLinear", [f"{target}_q", scale, zero], target),
    ]


def qdq_by_channel(*, half_scales: bool = False, fold: bool = True) -> Model:
    """Build what NNCF (integers behind DQ) and ModelOpt (Q and DQ behind floats) write."""
    constants: dict[str, Any] = {
        "su": np.float32(0.05), "u0": np.uint8(0), "si": np.float32(0.03), "i0": np.int8(0),
    }  # fmt: skip
    nodes: list[Node] = pair("input", "image", "si", "i0")
    for name in ("w1", "w2"):
        stored, scale = integers(CONSTANTS[name])
        constants |= {f"{name}_s": scale, f"{name}_z": np.zeros(8, np.int8), f"{name}_i": stored}
        start = f"{name}_i"
        if not fold:
            nodes.append(("QuantizeLinear", [name, f"{name}_s", f"{name}_z"], f"{name}_q",
                          {"axis": 0}))  # fmt: skip
            start = f"{name}_q"
        nodes.append(("DequantizeLinear", [start, f"{name}_s", f"{name}_z"], f"{name}_d",
                      {"axis": 0}))  # fmt: skip
    nodes += [
        ("Conv", ["image", "w1_d", "b1"], "x1", {"pads": [1, 1, 1, 1]}), ("Relu", ["x1"], "r1"),
        *pair("r1", "y1", "su"),
        ("Conv", ["y1", "w2_d"], "x2", {"strides": [2, 2]}), ("Relu", ["x2"], "y2"),
        *POOLED[4:], LAST,
    ]  # fmt: skip
    model = network(nodes, constants, opset=19 if half_scales else 18)
    return to_half(model, inside_only=True) if half_scales else model


def weights_only(bits: int = 8) -> Model:
    """Build a network whose weights are stored in integers, and whose arithmetic is in float."""
    constants: dict[str, Any] = {}
    nodes: list[Node] = []
    for name in ("w1", "w2", "w3"):
        stored, scale = integers(CONSTANTS[name], bits)
        constants |= {f"{name}_s": scale, f"{name}_i": stored}
        if bits == 4:
            flat = stored.reshape(len(stored), -1)
            constants[f"{name}_i"] = helper.make_tensor(
                f"{name}_i", TensorProto.INT4, stored.shape, flat.ravel().tolist()
            )
        nodes.append(("DequantizeLinear", [f"{name}_i", f"{name}_s"], f"{name}_d", {"axis": 0}))
    nodes += [
        (kind, [f"{each}_d" if each in ("w1", "w2", "w3") else each for each in taken], *more)
        for kind, taken, *more in NODES
    ]
    return network(nodes, constants, opset=21 if bits == 4 else 18, ir=10)


def in_blocks() -> Model:
    """Build a head of 8-bit integers with one scale for each block of four."""
    weight = CONSTANTS["w3"].T
    scale = (np.abs(weight).reshape(2, 4, -1).max(axis=1) / 127).astype(np.float32)
    stored = np.rint(weight / np.repeat(scale, 4, axis=0)).astype(np.int8)
    return network(
        [
            *POOLED,
            ("DequantizeLinear", ["stored", "scale"], "w", {"axis": 0, "block_size": 4}),
            ("Gemm", ["flat", "w", "b3"], "logits"),
        ],
        {"stored": stored, "scale": scale}, opset=21, ir=10,
    )  # fmt: skip


def to_half(model: Model, *, kind: int = TensorProto.FLOAT16, inside_only: bool = False) -> Model:
    """Turn all floats of a network into another type; with `inside_only`, not its ends."""
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor)
            tensor.CopyFrom(
                numpy_helper.from_array(
                    values.astype(helper.tensor_dtype_to_np_dtype(kind)), tensor.name
                )
            )
    ends = [*model.graph.input, *model.graph.output]
    if not inside_only:
        for each in ends:
            each.type.tensor_type.elem_type = kind
        return model
    for node in model.graph.node:
        node.input[:] = ["input_half" if name == "input" else name for name in node.input]
        node.output[:] = ["logits_half" if name == "logits" else name for name in node.output]
    model.graph.node.insert(0, helper.make_node("Cast", ["input"], ["input_half"], to=kind))
    model.graph.node.append(helper.make_node("Cast", ["logits_half"], ["logits"], to=1))
    return model


def types() -> list[Case]:
    u8s8 = {"activation_type": "QUInt8", "weight_type": "QInt8"}
    s8s8 = {"activation_type": "QInt8", "weight_type": "QInt8"}
    u8u8 = {"activation_type": "QUInt8", "weight_type": "QUInt8"}
    quantized = {"tolerance": 0.05, "no_export": NO_FLOAT}
    half = {"tolerance": 5e-3, "no_export": NO_FLOAT}
    first: Node = ("Cast", ["input"], "f8", {"to": TensorProto.FLOAT8E4M3FN})
    between = [first, ("Cast", ["f8"], "image", {"to": 1}), ("Conv", ["image", "w1", "b1"], "x1")]
    eight = network([*between, *NODES[1:]], opset=19, ir=9)
    stored_f8 = network([("DequantizeLinear", ["w1_8", "s"], "w1_d"),
                         ("Conv", ["input", "w1_d", "b1"], "x1"), *NODES[1:]],
                        {"w1_8": helper.make_tensor("w1_8", TensorProto.FLOAT8E4M3FN,
                                                    CONSTANTS["w1"].shape,
                                                    CONSTANTS["w1"].ravel().tolist()),
                         "s": np.float32(1)}, opset=19, ir=9)  # fmt: skip
    return [
        by_onnxruntime("QDQ, U8S8", **u8s8),
        by_onnxruntime("QDQ, U8S8 by channel", per_channel=True, **u8s8),
        by_onnxruntime("QDQ, S8S8", **s8s8),
        by_onnxruntime("QDQ, U8U8", **u8u8),
        by_onnxruntime("QDQ, U8S8, opset 13", opset=13, per_channel=True, **u8s8),
        by_onnxruntime("QDQ, reduced range", reduce_range=True, **u8s8),
        by_onnxruntime("QOperator, U8S8", form="QOperator", saturates=True, **u8s8),
        by_onnxruntime("QOperator, S8S8 by channel", form="QOperator", per_channel=True, **s8s8),
        by_onnxruntime("dynamic", dynamic=True),
        by_onnxruntime("dynamic, uint8", dynamic=True, weight_type="QUInt8"),
        by_onnxruntime("QDQ, 16 bits", activation_type="QUInt16", weight_type="QInt8"),
        reads("integers behind DQ, by channel", qdq_by_channel(), **quantized,
              states={"precision": "int8"}),
        reads("floats behind Q and DQ", qdq_by_channel(fold=False), **quantized,
              states={"precision": "int8"}),
        reads("scales in half precision", qdq_by_channel(half_scales=True), **quantized),
        reads("weights only, 8 bits", weights_only(), **quantized),
        reads("weights only, 4 bits", weights_only(4), **quantized),
        reads("weights only, in blocks", in_blocks(), **quantized),
        reads("FP16, ends too", to_half(network()), *SOFTMAX, **half,
              states={"precision": "fp16", "input": "float16"}),
        reads("FP16 inside", to_half(network(), inside_only=True), **half,
              states={"precision": "fp16", "input": "float32"}),
        refused("bfloat16 inside",
                to_half(network(), kind=TensorProto.BFLOAT16, inside_only=True)),
        refused("bfloat16, ends too", to_half(network(), kind=TensorProto.BFLOAT16)),
        reads("float8 between", eight, tolerance=0.05, no_export=["openvino fp32"]),
        reads("float8 weights", stored_f8, tolerance=0.05, no_export=NO_FLOAT),
    ]  # fmt: skip
