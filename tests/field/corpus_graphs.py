"""Files of all versions, batches, outputs, inputs, operators and ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from onnx.external_data_helper import set_external_data

from tests.export.graphs import Node, weights
from tests.field.corpus import (
    CONSTANTS,
    LABELS,
    NODES,
    POOLED,
    SIDE,
    TRUNK,
    Case,
    Model,
    network,
    reads,
    refused,
    value,
)
from tests.field.nets import with_initializers_as_inputs

WIDTH = len(LABELS)
INT64 = TensorProto.INT64
ROWS: list[Node] = [*POOLED, ("Gemm", ["flat", "w3", "b3"], "rows", {"transB": 1})]
NO_ACTIVATION = ("--channels", "rgb")


def scores(name: str = "logits", shape: Any = ("N", WIDTH), dtype: int = TensorProto.FLOAT) -> Any:
    return value(name, None if shape is None else list(shape), dtype)


def versions() -> list[Case]:
    """Return the plain network in each version of the operators and of the file format."""
    pairs = [
        (9, 3), (9, 4), (10, 5), (11, 6), (12, 6), (13, 7), (15, 8), (16, 8), (17, 8), (18, 9),
        (19, 9), (20, 9), (21, 10), (22, 10), (23, 11), (24, 12), (25, 13),
    ]  # fmt: skip
    return [
        reads(
            f"opset {opset}, IR {ir}",
            with_initializers_as_inputs(network(opset=opset), ir)
            if ir == 3
            else network(opset=opset, ir=ir),
        )
        for opset, ir in pairs
    ] + [refused("opset 99", network(opset=99)), refused("IR 99", network(ir=99))]


def reshaped(shape: list[int], batch: Any, declared: Any = "N") -> Model:
    nodes: list[Node] = [
        ("Reshape", ["pooled", "shape"], "flat") if node[2] == "flat" else node for node in NODES
    ]
    return network(
        nodes,
        {"shape": np.array(shape)},
        shape=(batch, 3, SIDE, SIDE),
        outputs=[scores(shape=(declared, WIDTH))],
    )


def batches() -> list[Case]:
    def sized(batch: Any, out: Any) -> Model:
        return network(shape=(batch, 3, SIDE, SIDE), outputs=[scores(shape=(out, WIDTH))])

    no_rank = network()
    no_rank.graph.output[0].type.tensor_type.ClearField("shape")
    no_type = network()
    no_type.graph.output[0].ClearField("type")
    return [
        reads("batch of 1", sized(1, 1)),
        reads("batch of 4", sized(4, 4)),
        reads("batch without a name", sized(None, None)),
        reads("batch of -1", sized(-1, -1)),
        reads("batch under two names", sized("N", "M")),
        reads("batch open, output of 1", sized("N", 1)),
        reads("Reshape to 1", reshaped([1, 8], "N")),
        reads("Reshape to 1 and the rest", reshaped([1, -1], "N")),
        reads("Reshape to 4, batch of 4", reshaped([4, -1], 4, 4)),
        reads("Reshape to 2, batch of 2", reshaped([2, 8], 2, 2)),
        reads("output without a shape", no_rank),
        reads("output without a type", no_type),
        reads("open height and width", network(shape=("N", 3, "H", "W")), "--size", "16x16",
              "--activation", "softmax"),
        reads("all sides open", network(shape=("N", "C", "H", "W")), "--size", "16x16",
              "--activation", "softmax", "--layout", "nchw"),
    ]  # fmt: skip


def outputs() -> list[Case]:
    name_it = ("--output", "logits", "--activation", "softmax")
    softmax: Node = ("Softmax", ["logits"], "probs", {"axis": 1})
    aux: Node = ("Gemm", ["flat", "w4"], "aux", {"transB": 1})
    extra = {
        "w4": weights(7, 8, seed=5), "axis": np.array([1]), "axes": np.array([2, 3]),
        "k": np.array([1]), "box": np.array([-1, 2, 4]),
    }  # fmt: skip
    strings = helper.make_node(
        "LabelEncoder", ["best"], ["names"], domain="ai.onnx.ml",
        keys_int64s=range(WIDTH), values_strings=LABELS,
    )  # fmt: skip
    ml = {"ai.onnx.ml": 2}
    best: Node = ("ArgMax", ["logits"], "best", {"axis": 1, "keepdims": 0})
    named = network([*NODES, best], outputs=[scores(), scores("names", ["N"], 8)], domains=ml)
    named.graph.node.append(strings)
    map_type = helper.make_map_type_proto(TensorProto.STRING, helper.make_tensor_type_proto(1, []))
    zipped = network([*NODES, ("Softmax", ["logits"], "probs", {"axis": 1}), best],
                     outputs=[scores("best", ["N"], INT64)], domains=ml)  # fmt: skip
    zipped.graph.node.append(
        helper.make_node("ZipMap", ["probs"], ["maps"], domain="ai.onnx.ml",
                         classlabels_strings=LABELS))  # fmt: skip
    zipped.graph.output.append(
        helper.make_value_info("maps", helper.make_sequence_type_proto(map_type))
    )
    return [
        reads("features, logits", network(outputs=[scores("flat", ("N", 8)), scores()]), *name_it),
        reads("logits, probabilities", network([*NODES, softmax],
              outputs=[scores(), scores("probs")]), "--output", "probs"),
        reads("probabilities, logits", network([*NODES, softmax],
              outputs=[scores("probs"), scores()]), *name_it),
        reads("three heads", network([*NODES, aux], extra,
              outputs=[scores("aux", ("N", 7)), scores("y2", None), scores()]), *name_it),
        reads("the same output twice", network([*NODES, ("Identity", ["logits"], "again")],
              outputs=[scores(), scores("again")]), *name_it),
        reads("output (N, C, 1, 1)", network([*ROWS, ("Unsqueeze", ["rows", "axes"], "logits")],
              extra, outputs=[scores(shape=("N", WIDTH, 1, 1))])),
        reads("output (N, 1, C)", network([*ROWS, ("Unsqueeze", ["rows", "axis"], "logits")],
              extra, outputs=[scores(shape=("N", 1, WIDTH))])),
        reads("1x1 convolution as the head", network(
            [*TRUNK, ("GlobalAveragePool", ["y2"], "pooled"), ("Conv", ["pooled", "w5"], "logits")],
            {"w5": CONSTANTS["w3"].reshape(WIDTH, 8, 1, 1)},
            outputs=[scores(shape=("N", WIDTH, 1, 1))])),
        reads("probabilities and the best", network([*NODES, softmax, best],
              outputs=[scores("best", ["N"], INT64), scores("probs")]), "--output", "probs"),
        reads("probabilities and a name", named, *name_it),
        reads("output in half precision", network([*ROWS, ("Cast", ["rows"], "logits",
              {"to": TensorProto.FLOAT16})], outputs=[scores(dtype=TensorProto.FLOAT16)]),
              tolerance=2e-3),
        reads("output in double precision", network([*ROWS, ("Cast", ["rows"], "logits",
              {"to": TensorProto.DOUBLE})], outputs=[scores(dtype=TensorProto.DOUBLE)])),
        refused("ZipMap", zipped, "--output", "maps"),
        refused("class numbers only", network([*NODES, best],
                outputs=[scores("best", ["N"], INT64)])),
        refused("boxes", network([*ROWS, ("Reshape", ["rows", "box"], "boxes")], extra,
                outputs=[scores("boxes", ("N", 2, 4))])),
        refused("a map of classes", network(
            [*TRUNK, ("Conv", ["y2", "w5"], "logits")],
            {"w5": CONSTANTS["w3"].reshape(WIDTH, 8, 1, 1)},
            outputs=[scores(shape=("N", WIDTH, 7, 7))])),
        refused("two outputs, none named", network(outputs=[scores("flat", ("N", 8)), scores()]),
                "--activation", "softmax"),
        refused("another number of labels", network([*POOLED, aux], extra,
                outputs=[scores("aux", ("N", 7))])),
        refused("the best only", network(
            [*NODES, ("TopK", ["logits", "k"], ["top", "index"])], extra,
            outputs=[scores("top", ("N", 1)), scores("index", ("N", 1), INT64)]),
            "--output", "top", "--activation", "softmax"),
    ]  # fmt: skip


def from_nhwc(nodes: list[Node] = NODES) -> list[Node]:
    first: Node = ("Transpose", ["input"], "planes", {"perm": [0, 3, 1, 2]})
    return [first, (nodes[0][0], ["planes", *nodes[0][1][1:]], *nodes[0][2:]), *nodes[1:]]


def behind(*first: Node, nodes: list[Node] = NODES) -> list[Node]:
    """Put nodes, the last of which makes `image`, before the network."""
    return [*first, (nodes[0][0], ["image", *nodes[0][1][1:]], *nodes[0][2:]), *nodes[1:]]


def inputs() -> list[Case]:
    softmax = ("--activation", "softmax")
    raw = (*softmax, "--mean", "0,0,0", "--std", "1,1,1")
    means = {
        "mean": np.array([0.4, 0.5, 0.6], np.float32).reshape(1, 3, 1, 1),
        "std": np.array([0.2, 0.25, 0.3], np.float32).reshape(1, 3, 1, 1),
        "c255": np.float32(255), "shift": np.array([-0.4, -0.5, -0.6], np.float32),
    }  # fmt: skip
    floats: Node = ("Cast", ["input"], "float", {"to": 1})
    nhwc, u8 = ("N", SIDE, SIDE, 3), TensorProto.UINT8
    two = network()
    two.graph.input.append(value("mask", ["N", 4]))
    none = network()
    del none.graph.input[:]
    return [
        reads("uint8 NCHW", network(behind(floats, ("Div", ["float", "c255"], "image")), means,
              dtype=u8), *softmax, states={"input": "uint8"}),
        reads("uint8 NHWC", network(behind(floats, ("Div", ["float", "c255"], "scaled"),
              ("Transpose", ["scaled"], "image", {"perm": [0, 3, 1, 2]})), means, dtype=u8,
              shape=nhwc), *softmax, states={"input": "uint8", "layout": "nhwc"}),
        reads("uint8, in BGR", network(behind(floats, ("Div", ["float", "c255"], "image")), means,
              dtype=u8), *softmax, "--channels", "bgr", states={"input": "uint8"}),
        reads("float16", network(behind(("Cast", ["input"], "image", {"to": 1})), means,
              dtype=TensorProto.FLOAT16), *softmax, tolerance=2e-3, states={"input": "float16"}),
        reads("BGR", network(), *softmax, "--channels", "bgr"),
        reads("0 to 255", network(), *softmax, "--mean", "0,0,0", "--std",
              "0.003921569,0.003921569,0.003921569"),
        reads("normalises by Sub and Div", network(behind(("Sub", ["input", "mean"], "centred"),
              ("Div", ["centred", "std"], "image")), means), *raw),
        refused("normalises twice", network(behind(("Sub", ["input", "mean"], "centred"),
                ("Div", ["centred", "std"], "image")), means)),
        reads("NHWC of tf2onnx", network(from_nhwc(), shape=nhwc)),
        reads("NHWC of Keras", network([*from_nhwc(ROWS), ("Softmax", ["rows"], "logits")],
              shape=nhwc), *NO_ACTIVATION),
        reads("NHWC with a Reshape", network(
            [("Transpose", ["input"], "planes", {"perm": [0, 3, 1, 2]}),
             *behind(("Reshape", ["planes", "same"], "image"))],
            {"same": np.array([-1, 3, SIDE, SIDE])}, shape=nhwc)),
        refused("greyscale", network([("Concat", ["input"] * 3, "image", {"axis": 1}),
                *behind()], shape=("N", 1, SIDE, SIDE))),
        refused("four channels", network([("Conv", ["input", "w6"], "image"), *behind()],
                {"w6": weights(3, 4, 1, 1)}, shape=("N", 4, SIDE, SIDE))),
        refused("five dimensions", network([("Squeeze", ["input", "axis"], "image"), *behind()],
                {"axis": np.array([1])}, shape=("N", 1, 3, SIDE, SIDE))),
        refused("rows of features", network([("Gemm", ["input", "w3"], "logits", {"transB": 1})],
                shape=("N", 8))),
        refused("float64", network(behind(floats, ("Identity", ["float"], "image")),
                dtype=TensorProto.DOUBLE)),
        refused("int32", network(behind(floats, ("Identity", ["float"], "image")),
                dtype=TensorProto.INT32)),
        refused("two inputs", two),
        refused("no input", none),
    ]  # fmt: skip


def ends() -> list[Case]:
    def end(name: str, *nodes: Node, opset: int = 18, **more: Any) -> Case:
        constants = {
            "axis": np.array([1]), "one": np.float32(1), "zero": np.float32(0),
            "half": np.float32(0.5),
        }  # fmt: skip
        states = {"activation": more.pop("activation", "none")}
        if task := more.pop("task", None):
            states["task"] = task
        options = more.pop("options", NO_ACTIVATION)
        return reads(f"ends in {name}", network([*ROWS, *nodes], constants, opset=opset),
                     *options, states=states)  # fmt: skip

    largest: Node = ("ReduceMax", ["rows", "axis"], "max", {"keepdims": 1})
    return [
        end("Softmax", ("Softmax", ["rows"], "logits", {"axis": 1}), task="multiclass"),
        end("Softmax of opset 11", ("Softmax", ["rows"], "logits"), opset=11, task="multiclass"),
        end("Sigmoid", ("Sigmoid", ["rows"], "logits"), task="multilabel"),
        end("LogSoftmax", ("LogSoftmax", ["rows"], "logits", {"axis": -1}), activation="softmax"),
        end("a softmax in steps", largest, ("Sub", ["rows", "max"], "less"),
            ("Exp", ["less"], "exp"), ("ReduceSum", ["exp", "axis"], "sum", {"keepdims": 1}),
            ("Div", ["exp", "sum"], "logits"), task="multiclass"),
        end("a sigmoid in steps", ("Neg", ["rows"], "minus"), ("Exp", ["minus"], "exp"),
            ("Add", ["exp", "one"], "sum"), ("Div", ["one", "sum"], "logits"), task="multilabel"),
        end("Clip of a Softmax", ("Softmax", ["rows"], "s"), ("Clip", ["s", "zero", "one"],
            "logits"), task="multiclass"),
        end("a Sigmoid by Tanh", ("Mul", ["rows", "half"], "h"), ("Tanh", ["h"], "t"),
            ("Mul", ["t", "half"], "m"), ("Add", ["m", "half"], "logits")),
        end("Softmax, Identity and Cast", ("Softmax", ["rows"], "s"), ("Identity", ["s"], "i"),
            ("Cast", ["i"], "logits", {"to": 1}), task="multiclass"),
    ]  # fmt: skip


def set_apart(folder: Path, locations: list[str], *, keep: bool = True) -> Path:
    """Write weights into other files, in turn."""
    model = network()
    contents = dict.fromkeys(locations, b"")
    for number, tensor in enumerate(model.graph.initializer):
        place = locations[number % len(locations)]
        set_external_data(tensor, place, len(contents[place]), len(tensor.raw_data))
        contents[place] += tensor.raw_data
        tensor.ClearField("raw_data")
    inner = folder / "inner"
    inner.mkdir()
    for place, content in contents.items():
        if keep:
            (inner / place).parent.mkdir(exist_ok=True)
            (inner / place).write_bytes(content)
    (inner / "model.onnx").write_bytes(model.SerializeToString())
    return inner / "model.onnx"


def external_data() -> list[Case]:
    softmax = ("--activation", "softmax")
    return [
        Case("weights in a file", lambda at: set_apart(at, ["model.onnx.data"]), softmax),
        Case("weights in several files", lambda at: set_apart(at, ["a", "b", "c"]), softmax),
        Case("weights in a subfolder", lambda at: set_apart(at, ["data/w.bin"]), softmax),
        Case("weights missing", lambda at: set_apart(at, ["w"], keep=False), softmax, refused=True),
        Case("weights elsewhere", lambda at: set_apart(at, ["../w"]), softmax, refused=True),
    ]


def branch(op: str, *names: str, out: str) -> Any:
    node = helper.make_node(op, list(names), [out])
    return helper.make_graph([node], out, [], [value(out, None)])


def functions_and_branches() -> list[Case]:
    def opsets(version: int = 18) -> Any:
        return [helper.make_opsetid("", version)]

    relu = helper.make_function("own", "Block", ["X"], ["Y"],
                                [helper.make_node("Relu", ["X"], ["Y"])], opsets())  # fmt: skip
    outer = helper.make_function(
        "own", "Outer", ["X"], ["Y"],
        [helper.make_node("Block", ["X"], ["Z"], domain="own"),
         helper.make_node("Identity", ["Z"], ["Y"])],
        [*opsets(), helper.make_opsetid("own", 1)],
    )  # fmt: skip
    leaky = helper.make_node("LeakyRelu", ["X"], ["Y"])
    leaky.attribute.add(name="alpha", ref_attr_name="slope", type=onnx.AttributeProto.FLOAT)
    sloped = helper.make_function("own", "Leaky", ["X"], ["Y"], [leaky], opsets(), ["slope"])

    def using(*functions: Any, op: str, **attributes: Any) -> Model:
        nodes = [((f"own::{op}", *node[1:3], attributes) if node[0] == "Relu" else node)
                 for node in NODES]  # fmt: skip
        model = network(nodes, domains={"own": 1})  # type: ignore[arg-type]
        model.functions.extend(functions)
        return model

    def condition(constant: bool) -> Model:
        chosen = {
            "then_branch": branch("Relu", "rows", out="a"),
            "else_branch": branch("Identity", "rows", out="b"),
        }
        if constant:
            return network([*ROWS, ("If", ["yes"], "logits", chosen)], {"yes": np.array(True)})
        steps: list[Node] = [
            ("ReduceMax", ["input"], "largest", {"keepdims": 0}),
            ("Greater", ["largest", "limit"], "yes"),
        ]
        return network([*ROWS, *steps, ("If", ["yes"], "logits", chosen)],
                       {"limit": np.float32(1e6)})  # fmt: skip

    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["again"]),
         helper.make_node("Mul", ["state", "grow"], ["next"])],
        "body", [value("i", [], INT64), value("go", [], 9), value("state", None)],
        [value("again", [], 9), value("next", None)],
        [numpy_helper.from_array(np.float32(1.25), "grow")],
    )  # fmt: skip
    loop = network([*ROWS, ("Loop", ["times", "yes", "rows"], "logits", {"body": body})],
                   {"times": np.array(3), "yes": np.array(True)})  # fmt: skip
    return [
        reads("a function", using(relu, op="Block")),
        reads("a function in a function", using(relu, outer, op="Outer")),
        reads("a function with an attribute", using(sloped, op="Leaky", slope=0.1)),
        reads("If, constant", condition(True)),
        reads("If, computed", condition(False), no_export=["onnx fp16"]),
        reads("Loop", loop, no_export=["onnx fp16"]),
    ]
