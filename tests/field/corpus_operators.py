"""Files with operators, names and constants that exporters write and most networks lack."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from tests.export.graphs import Node, weights
from tests.field.corpus import (
    CONSTANTS,
    LABELS,
    LAST,
    NODES,
    POOLED,
    TRUNK,
    Case,
    Model,
    network,
    reads,
    refused,
)

WIDTH = len(LABELS)


def attention() -> Model:
    """Build a block of a transformer on the places of the trunk."""
    nodes: list[Node] = [
        *TRUNK,
        ("Reshape", ["y2", "places"], "flat"),
        ("Transpose", ["flat"], "tokens", {"perm": [0, 2, 1]}),
        ("LayerNormalization", ["tokens", "ones", "zeros"], "normed"),
        *(("MatMul", ["normed", name], f"{name}_out") for name in ("q", "k", "v")),
        ("Transpose", ["k_out"], "kt", {"perm": [0, 2, 1]}),
        ("MatMul", ["q_out", "kt"], "products"),
        ("Mul", ["products", "scale"], "scaled"),
        ("Softmax", ["scaled"], "shares", {"axis": -1}),
        ("MatMul", ["shares", "v_out"], "mixed"),
        ("Add", ["mixed", "tokens"], "summed"),
        ("ReduceMean", ["summed", "axis"], "pooled", {"keepdims": 0}),
        ("MatMul", ["pooled", "head"], "product"),
        ("Add", ["product", "b3"], "logits"),
    ]
    constants = {
        "places": np.array([0, 8, -1]), "ones": np.ones(8, np.float32), "axis": np.array([1]),
        "zeros": np.zeros(8, np.float32), "scale": np.float32(0.35), "head": CONSTANTS["w3"].T,
        **{name: weights(8, 8, seed=ord(name)) for name in "qkv"},
    }  # fmt: skip
    return network(nodes, constants)


def recurrent() -> Model:
    nodes: list[Node] = [
        *TRUNK,
        ("Reshape", ["y2", "places"], "flat"),
        ("Transpose", ["flat"], "tokens", {"perm": [2, 0, 1]}),
        ("GRU", ["tokens", "gw", "gr", "", "", ""], ["", "last"], {"hidden_size": 8}),
        ("Squeeze", ["last", "zero"], "flat2"),
        ("Gemm", ["flat2", "w3", "b3"], "logits", {"transB": 1}),
    ]
    return network(nodes, {
        "places": np.array([0, 8, -1]), "zero": np.array([0]), "gw": weights(1, 24, 8, seed=3),
        "gr": weights(1, 24, 8, seed=4),
    })  # fmt: skip


def swapped(before: str, *nodes: Node, **constants: object) -> Model:
    """Put nodes in place of the one that makes `before`."""
    chain = [each for node in NODES for each in (nodes if node[2] == before else [node])]
    return network(chain, constants)


def operators() -> list[Case]:
    eight = np.linspace(0.5, 1.5, 8, dtype=np.float32)
    norm: list[Node] = [
        ("Conv", ["y1", "w2"], "c2", {"strides": [2, 2]}),
        ("BatchNormalization", ["c2", "g", "s", "s", "g"], "x2"),
    ]
    return [
        reads("ConvTranspose", swapped("x2", ("ConvTranspose", ["y1", "w2"], "x2",
              {"strides": [2, 2]}))),
        reads("depthwise convolution", swapped("x2", ("Conv", ["y1", "w7"], "x2", {"group": 8}),
              w7=weights(8, 1, 3, 3))),
        reads("grouped convolution", swapped("x2", ("Conv", ["y1", "w7"], "x2", {"group": 2}),
              w7=weights(8, 4, 3, 3))),
        reads("attention", attention()),
        reads("GRU", recurrent()),
        reads("Einsum", swapped("logits", ("Einsum", ["flat", "w3"], "m",
              {"equation": "nc,kc->nk"}), ("Add", ["m", "b3"], "logits"))),
        reads("Resize", swapped("y1", ("Relu", ["x1"], "small"), ("Resize",
              ["small", "", "twice"], "y1", {"mode": "linear"}),
              twice=np.array([1, 1, 2, 2], np.float32))),
        reads("Resize to a size", swapped("y1", ("Relu", ["x1"], "small"), ("Shape", ["small"],
              "sh"), ("Slice", ["sh", "i0", "i2"], "nc"), ("Concat", ["nc", "hw"], "full",
              {"axis": 0}), ("Resize", ["small", "", "", "full"], "y1", {"mode": "nearest"}),
              i0=np.array([0]), i2=np.array([2]), hw=np.array([12, 12]))),
        reads("BatchNormalization", swapped("x2", *norm, g=eight, s=np.zeros(8, np.float32))),
        reads("PRelu and HardSwish", swapped("y2", ("PRelu", ["x2", "slope"], "p"),
              ("HardSwish", ["p"], "y2"), slope=eight.reshape(8, 1, 1))),
        reads("Sigmoid times x", swapped("y2", ("Sigmoid", ["x2"], "s"),
              ("Mul", ["x2", "s"], "y2"))),
        reads("Clip with one limit", swapped("y2", ("Clip", ["x2", "", "six"], "c"),
              ("Relu", ["c"], "y2"), six=np.float32(6))),
        reads("Split and Concat", swapped("y2", ("Split", ["x2", "parts"], ["a", "b"],
              {"axis": 1}), ("Relu", ["a"], "ra"), ("Concat", ["ra", "b"], "y2", {"axis": 1}),
              parts=np.array([4, 4]))),
        reads("Dropout", swapped("flat", ("Flatten", ["pooled"], "f"),
              ("Dropout", ["f", "ratio", "no"], ["flat", "mask"]), ratio=np.float32(0.5),
              no=np.array(False))),
        reads("Identity chains", swapped("y2", ("Identity", ["x2"], "i1"), ("Identity", ["i1"],
              "i2"), ("Relu", ["i2"], "i3"), ("Identity", ["i3"], "y2"))),
        reads("a shape at run time", swapped("flat", ("Shape", ["pooled"], "sh"), ("Gather",
              ["sh", "zero"], "n"), ("Concat", ["n", "minus"], "rows", {"axis": 0}), ("Reshape",
              ["pooled", "rows"], "flat"), zero=np.array([0]), minus=np.array([-1]))),
        reads("mean of a map of classes", network([*TRUNK, ("Conv", ["y2", "w8"], "map"),
              ("GlobalAveragePool", ["map"], "mean"), ("Flatten", ["mean"], "logits")],
              {"w8": CONSTANTS["w3"].reshape(WIDTH, 8, 1, 1)})),
        reads("FusedConv of ONNX Runtime", network([
              ("com.microsoft::FusedConv", ["input", "w1", "b1"], "y1", {"activation": "Relu",
              "pads": [1, 1, 1, 1]}), *NODES[2:]], domains={"com.microsoft": 1}),
              no_export=["onnx fp16"]),
        reads("Gelu of ONNX Runtime", swapped_domain(), no_export=["onnx fp16"]),
        refused("an operator of nobody", network([("nobody::Relu6", ["input"], "y"), *NODES],
                domains={"nobody": 1})),
        refused("an operator of the future", network([("Relu7", ["input"], "y"), *NODES[:-1],
                ("Relu7", ["flat"], "f7"), LAST])),
    ]  # fmt: skip


def swapped_domain() -> Model:
    model = swapped("y2", ("com.microsoft::Gelu", ["x2"], "y2"))
    model.opset_import.append(helper.make_opsetid("com.microsoft", 1))
    return model


def constants() -> list[Case]:
    as_nodes = network()
    for tensor in as_nodes.graph.initializer:
        node = helper.make_node("Constant", [], [tensor.name], value=tensor)
        as_nodes.graph.node.insert(0, node)
    del as_nodes.graph.initializer[:]
    sparse = network()
    for tensor in [each for each in sparse.graph.initializer if each.name == "w3"]:
        dense = numpy_helper.to_array(tensor).copy()
        dense[:, ::2] = 0
        index = np.flatnonzero(dense)
        sparse.graph.sparse_initializer.append(
            helper.make_sparse_tensor(
                numpy_helper.from_array(dense.ravel()[index], "w3"),
                numpy_helper.from_array(index),
                dense.shape,
            )
        )
        sparse.graph.initializer.remove(tensor)
    typed = network()
    for tensor in typed.graph.initializer:
        tensor.float_data.extend(numpy_helper.to_array(tensor).ravel().tolist())
        tensor.ClearField("raw_data")
    shared = network([
        ("Conv", ["input", "w1", "b1"], "x1"), ("Relu", ["x1"], "y1"), ("Conv", ["y1", "w2"], "x2"),
        ("Relu", ["x2"], "m2"), ("Conv", ["m2", "w2"], "x3"), ("Relu", ["x3"], "y2"),
        *POOLED[4:], LAST,
    ])  # fmt: skip
    dead = network([*NODES[:2], ("Sigmoid", ["y1"], "unread"), *NODES[2:]])
    dead.graph.initializer.append(numpy_helper.from_array(np.ones(3, np.float32), "unread_too"))
    half: Node = ("Cast", ["w2h"], "w2f", {"to": TensorProto.FLOAT})
    moved: Node = ("Transpose", ["w2t"], "w2m", {"perm": [3, 2, 0, 1]})
    return [
        reads("weights in Constant nodes", as_nodes),
        reads("a sparse weight", sparse),
        reads("weights as lists of floats", typed),
        reads("a weight of two layers", shared),
        reads("nodes that nothing reads", dead),
        reads("a weight in half precision", swapped("x2", half, ("Conv", ["y1", "w2f"], "x2"),
              w2h=CONSTANTS["w2"].astype(np.float16))),
        reads("a weight behind Transpose", swapped("x2", moved, ("Conv", ["y1", "w2m"], "x2"),
              w2t=np.ascontiguousarray(CONSTANTS["w2"].transpose(2, 3, 1, 0)))),
    ]  # fmt: skip


def renamed(name_of: Callable[[str], str]) -> Model:
    return network(name_of=name_of)


def names() -> list[Case]:
    without, twice, slim = network(), network(), network()
    for node in without.graph.node:
        node.name = ""
    for node in twice.graph.node:
        node.name = "node"
    slim.ClearField("producer_name")
    slim.graph.ClearField("name")
    shuffled = network()
    nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in shuffled.graph.node]
    del shuffled.graph.node[:]
    shuffled.graph.node.extend(reversed(nodes))
    return [
        reads("names with slashes", renamed(lambda name: f"/model/layer.0/{name}:0")),
        reads("names in other alphabets", renamed(lambda name: f"层 {name} 🐈 é")),
        reads("long names", renamed(lambda name: 500 * "very_" + name)),
        reads("names with quotes", renamed(lambda name: f"\"{name}'\\n{{}}%s")),
        reads("nodes without names", without),
        refused("nodes of one name", twice),
        reads("a graph without a name", slim),
        reads("nodes in the wrong order", shuffled),
    ]  # fmt: skip
