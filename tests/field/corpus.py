"""ONNX files as others write them: one small network in many forms, and what is known of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from tests.export.graphs import Node, weights

SIDE = 16
LABELS = ("ant", "bee", "cat", "dog")

CONSTANTS: dict[str, NDArray[Any]] = {
    "w1": weights(8, 3, 3, 3),
    "b1": np.linspace(-0.5, 0.5, 8, dtype=np.float32),
    "w2": weights(8, 8, 3, 3, seed=1),
    "w3": 4 * weights(len(LABELS), 8, seed=2),
    "b3": np.linspace(-0.5, 0.5, len(LABELS), dtype=np.float32),
}
TRUNK: list[Node] = [
    ("Conv", ["input", "w1", "b1"], "x1", {"pads": [1, 1, 1, 1]}),
    ("Relu", ["x1"], "y1"),
    ("Conv", ["y1", "w2"], "x2", {"strides": [2, 2]}),
    ("Relu", ["x2"], "y2"),
]
POOLED: list[Node] = [
    *TRUNK,
    ("GlobalAveragePool", ["y2"], "pooled"),
    ("Flatten", ["pooled"], "flat"),
]
LAST: Node = ("Gemm", ["flat", "w3", "b3"], "logits", {"transB": 1})
NODES: list[Node] = [*POOLED, LAST]

Model = onnx.ModelProto


@dataclass(frozen=True)
class Case:
    """A file, and how edgeml should take it.

    Attributes:
        build: Writes it into an empty folder, and returns the path of the model.
        options: Of `edgeml inspect`, beside those that all cases have.
        refused: Whether all commands refuse it.
        states: Fields of the spec that `inspect` must find.
        tolerance: Of the probabilities, as other kernels round.
        no_export: Formats and precisions that cannot be written, such as `onnx fp16`, or `all`.
    """

    name: str
    build: Callable[[Path], Path]
    options: Sequence[str] = ()
    refused: bool = False
    states: Mapping[str, Any] = field(default_factory=dict)
    tolerance: float = 1e-4
    no_export: Sequence[str] = ()


def value(name: str, shape: Sequence[Any] | None, dtype: int = TensorProto.FLOAT) -> Any:
    return helper.make_tensor_value_info(name, dtype, shape)


def network(
    nodes: Sequence[Node] = NODES,
    constants: Mapping[str, Any] | None = None,
    *,
    shape: Sequence[Any] | None = ("N", 3, SIDE, SIDE),
    dtype: int = TensorProto.FLOAT,
    outputs: Sequence[Any] = (value("logits", ["N", len(LABELS)]),),
    opset: int = 18,
    ir: int = 8,
    domains: Mapping[str, int] | None = None,
    name_of: Callable[[str], str] = lambda name: name,
) -> Model:
    """Build a network; `constants` are added to those of the plain one, as far as they are read."""
    read = {name for node in nodes for name in node[1]} | {one.name for one in outputs}
    known = {
        name: each for name, each in {**CONSTANTS, **(constants or {})}.items() if name in read
    }
    protos = []
    for kind, inputs, out, *more in nodes:
        domain, _, op = kind.rpartition("::")
        made = [out] if isinstance(out, str) else list(out)
        protos.append(
            helper.make_node(
                op,
                [name and name_of(name) for name in inputs],
                [name and name_of(name) for name in made],
                f"{made[0]}_node",
                domain=domain,
                **dict(*more),
            )
        )
    graph = helper.make_graph(
        protos,
        "network",
        [value(name_of("input"), shape, dtype)],
        [],
        [
            each
            if isinstance(each, TensorProto)
            else numpy_helper.from_array(np.asarray(each), name_of(name))
            for name, each in known.items()
        ],
    )
    for output in outputs:
        graph.output.add().CopyFrom(output)
        graph.output[-1].name = name_of(output.name)
    imports = [helper.make_opsetid("", opset)]
    imports += [helper.make_opsetid(*each) for each in (domains or {}).items()]
    return helper.make_model(graph, opset_imports=imports, ir_version=ir, producer_name="others")


def saved(model: Model | Callable[[], Model], name: str = "model.onnx") -> Callable[[Path], Path]:
    """Return a function that writes a network into a folder."""

    def build(folder: Path) -> Path:
        proto = model if isinstance(model, onnx.ModelProto) else model()
        (folder / name).write_bytes(proto.SerializeToString())
        return folder / name

    return build


def reads(name: str, model: Model | Callable[[], Model], *options: str, **more: Any) -> Case:
    """Return a case that every command accepts; without options its output is logits."""
    return Case(name, saved(model), options or ("--activation", "softmax"), **more)


def refused(name: str, model: Model | Callable[[], Model], *options: str) -> Case:
    return Case(name, saved(model), options or ("--activation", "softmax"), refused=True)
