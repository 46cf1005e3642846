"""Small ONNX files such as other tools write: any layout, type, ending and metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.spec.foreign.drawn import BLOCKS

DTYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "uint8": TensorProto.UINT8}


def make_net(
    path: Path,
    *,
    sides: Sequence[int | str] = (64, 64),
    batch: int | str = "N",
    layout: str = "nchw",
    dtype: str = "float32",
    ending: Sequence[str] = (),
    metadata: Mapping[str, str] | None = None,
    second: str = "",
    pool: int = 16,
) -> Path:
    """Write a network that averages an input over blocks: its outputs are (N, 48).

    Args:
        path: The file to write.
        sides: Height and width; a name makes a side dynamic.
        batch: A number fixes it.
        layout: The layout of the input.
        dtype: The type of the input; uint8 is divided by 255 in the graph.
        ending: Operations of one input and output that come last.
        metadata: For metadata_props.
        second: The name of a second output, the same values without the ending.
        pool: The side of a block.
    """
    shape = [batch, 3, *sides] if layout == "nchw" else [batch, *sides, 3]
    nodes, last = [], "input"

    def add(op: str, *more: str, **attributes: object) -> None:
        nonlocal last
        last, before = f"after_{len(nodes)}_{op}", last
        nodes.append(helper.make_node(op, [before, *more], [last], **attributes))

    if dtype != "float32":
        add("Cast", to=TensorProto.FLOAT)
    if dtype == "uint8":
        add("Div", "c255")
    if layout == "nhwc":
        add("Transpose", perm=[0, 3, 1, 2])
    add("AveragePool", kernel_shape=[pool, pool], strides=[pool, pool])
    add("Flatten")
    plain = last
    for op in ending:
        add(op)
    nodes.append(helper.make_node("Identity", [last], ["scores"]))
    width = 3 * BLOCKS**2 if all(isinstance(side, int) for side in sides) else "M"
    outputs = [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch, width])]
    if second:
        nodes.append(helper.make_node("Identity", [plain], [second]))
        outputs.append(helper.make_tensor_value_info(second, TensorProto.FLOAT, [batch, width]))
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("input", DTYPES[dtype], shape)],
        outputs,
        [numpy_helper.from_array(np.float32(255), "c255")] if dtype == "uint8" else [],
    )
    model = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10, producer_name="tests"
    )
    helper.set_model_props(model, dict(metadata or {}))
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path
