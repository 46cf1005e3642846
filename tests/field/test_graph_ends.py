"""Whether a graph returns logits or probabilities, and whether it normalises its input."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgeml.errors import SpecError
from edgeml.predict.inspection import describe
from edgeml.spec import ModelSpec
from edgeml.spec.foreign.merge import SpecOverrides, spec_for
from edgeml.spec.foreign.read_graph import read_graph
from edgeml.spec.storage import write_spec

Step = tuple[str, Sequence[str], str]
LABELS = ["a", "b", "c"]
STATED = SpecOverrides(
    labels=LABELS,
    resize="squash",
    mean=(0.0, 0.0, 0.0),
    std=(1.0, 1.0, 1.0),
    channels="rgb",
)
QUANTIZED: Step = ("QuantizeLinear", ["logits", "scale", "zero"], "q")

# Each ends in `y`; the logits are those of a Gemm.
ENDS: dict[str, tuple[str, list[Step]]] = {
    "none": ("linear", [("Identity", ["logits"], "y")]),
    "rectified": ("linear", [("Relu", ["logits"], "y")]),
    "softmax": ("softmax", [("Softmax", ["logits"], "y")]),
    "softmax and clip": ("softmax", [("Softmax", ["logits"], "s"), ("Clip", ["s", "0", "1"], "y")]),
    "softmax reshaped": (
        "softmax",
        [("Softmax", ["logits"], "s"), ("Reshape", ["s", "shape"], "r"), ("Identity", ["r"], "y")],
    ),
    "exponential of log softmax": (
        "softmax",
        [("LogSoftmax", ["logits"], "s"), ("Exp", ["s"], "y")],
    ),
    "softmax in steps": (
        "softmax",
        [
            ("Exp", ["logits"], "e"),
            ("ReduceSum", ["e", "axes"], "sum"),
            ("Div", ["e", "sum"], "y"),
        ],
    ),
    "shifted softmax by a reciprocal": (
        "softmax",
        [
            ("ReduceMax", ["logits", "axes"], "m"),
            ("Sub", ["logits", "m"], "d"),
            ("Exp", ["d"], "e"),
            ("ReduceSum", ["e", "axes"], "sum"),
            ("Reciprocal", ["sum"], "r"),
            ("Mul", ["e", "r"], "y"),
        ],
    ),
    "log softmax": ("log_softmax", [("LogSoftmax", ["logits"], "y")]),
    "sigmoid": ("sigmoid", [("Sigmoid", ["logits"], "y")]),
    "hard sigmoid": ("sigmoid", [("HardSigmoid", ["logits"], "y")]),
    "sigmoid in steps": (
        "sigmoid",
        [
            ("Neg", ["logits"], "n"),
            ("Exp", ["n"], "e"),
            ("Add", ["e", "1"], "sum"),
            ("Div", ["1", "sum"], "y"),
        ],
    ),
    "sigmoid by a reciprocal": (
        "sigmoid",
        [
            ("Neg", ["logits"], "n"),
            ("Exp", ["n"], "e"),
            ("Add", ["1", "e"], "sum"),
            ("Reciprocal", ["sum"], "y"),
        ],
    ),
    "quantized and back": (
        "sigmoid",
        [
            ("Sigmoid", ["logits"], "s"),
            ("QuantizeLinear", ["s", "fine", "zero"], "p"),
            ("DequantizeLinear", ["p", "fine", "zero"], "y"),
        ],
    ),
    # Those that only a run decides.
    "mean of two softmaxes": (
        "unknown",
        [("Softmax", ["logits"], "s"), ("Add", ["s", "s"], "t"), ("Mul", ["t", "0.5"], "y")],
    ),
    "tanh from 0 to 1": (
        "unknown",
        [("Tanh", ["logits"], "t"), ("Mul", ["t", "0.5"], "h"), ("Add", ["h", "0.5"], "y")],
    ),
    "shares in percent": (
        "unknown",
        [("Softmax", ["logits"], "s"), ("Mul", ["s", "100"], "y")],
    ),
}  # fmt: skip
BY_RUN = {
    "mean of two softmaxes": "softmax",
    "tanh from 0 to 1": "sigmoid",
    "shares in percent": "linear",
}
QLINEAR = {
    f"qlinear {kind}": (
        kind,
        [
            QUANTIZED,
            (f"QLinear{kind.title()}", ["q", "scale", "zero", "fine", "zero"], "p"),
            ("DequantizeLinear", ["p", "fine", "zero"], "y"),
        ],
    )
    for kind in ("softmax", "sigmoid")
}
ALL = {**ENDS, **QLINEAR}


def constants() -> dict[str, NDArray[np.generic]]:
    weights = np.random.default_rng(5).normal(size=(3, 3)).astype(np.float32) * 6
    return {
        **{name: np.array(float(name), np.float32) for name in ("0", "1", "0.5", "100")},
        "axes": np.array([1], np.int64),
        "shape": np.array([-1, 3], np.int64),
        "scale": np.array(0.1, np.float32),
        "fine": np.array(1 / 256, np.float32),
        "zero": np.array(0, np.uint8),
        "w": weights,
        "b": np.array([-2, 0.5, 1], np.float32),
        "pixel mean": np.array([0.485, 0.456, 0.406], np.float32).reshape(1, 3, 1, 1),
        "255": np.array(255, np.float32),
    }


def network(folder: Path, end: Sequence[Step], start: Sequence[Step] = ()) -> Path:
    """Write a network of an image's means, a Gemm and `end`; `start` leads from images to `x`."""
    attributes: dict[str, dict[str, object]] = {
        "Softmax": {"axis": 1},
        "LogSoftmax": {"axis": 1},
        "QLinearSoftmax": {"axis": 1, "opset": 18},
    }
    nodes = [
        helper.make_node(
            op,
            inputs,
            [output],
            domain="com.microsoft" if op in ("QLinearSoftmax", "QLinearSigmoid") else "",
            **attributes.get(op, {}),
        )
        for op, inputs, output in [
            *(start or [("Identity", ["images"], "x")]),
            ("GlobalAveragePool", ["x"], "means"),
            ("Flatten", ["means"], "flat"),
            ("Gemm", ["flat", "w", "b"], "logits"),
            *end,
        ]
    ]
    used = {name for node in nodes for name in node.input}
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, ["n", 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 3])],
        [numpy_helper.from_array(v, name) for name, v in constants().items() if name in used],
    )
    opsets = [helper.make_opsetid("", 18), helper.make_opsetid("com.microsoft", 1)]
    path = folder / "m.onnx"
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=10), str(path))
    return path


@pytest.mark.parametrize("form", ALL)
def test_an_activation_is_recognised_in_every_form(tmp_path: Path, form: str) -> None:
    kind, steps = ALL[form]
    assert read_graph(network(tmp_path, steps)).ends["y"][0] == kind


def described(path: Path, **values: str) -> dict[str, object]:
    return describe(path, replace(STATED, **values))  # type: ignore[arg-type]


def openvino_file(path: Path) -> Path:
    ov = pytest.importorskip("openvino")
    ov.save_model(ov.Core().read_model(path), path.with_suffix(".xml"))
    return path.with_suffix(".xml")


@pytest.mark.runtime
@pytest.mark.parametrize(
    ("form", "suffix"), [*((one, ".onnx") for one in ALL), *((one, ".xml") for one in ENDS)]
)
def test_what_contradicts_the_end_of_the_graph_is_refused(
    tmp_path: Path, form: str, suffix: str
) -> None:
    kind, steps = ALL[form]
    kind = BY_RUN.get(form, kind)
    path = network(tmp_path, steps)
    path = openvino_file(path) if suffix == ".xml" else path
    right = {
        "linear": {"softmax", "sigmoid"},
        "log_softmax": {"softmax"},
    }.get(kind, {"none"})
    for activation in ("none", "softmax", "sigmoid"):
        task = "multilabel" if "sigmoid" in (activation, kind) else "multiclass"
        if activation in right:
            spec = described(path, activation=activation, task=task)
            assert spec["activation"] == activation
        else:
            with pytest.raises(SpecError, match="--activation"):
                described(path, activation=activation, task=task)
    if kind in ("softmax", "sigmoid"):
        spec = described(path)
        task = "multilabel" if kind == "sigmoid" else "multiclass"
        assert (spec["activation"], spec["task"]) == ("none", task)


def test_a_spec_of_our_own_cannot_be_overridden_against_the_graph(tmp_path: Path) -> None:
    path = network(tmp_path, ENDS["none"][1])
    write_spec(path, spec_for(path, replace(STATED, activation="sigmoid")).spec)
    assert spec_for(path, SpecOverrides(threshold=0.25)).spec.thresholds == (0.25,) * 3
    with pytest.raises(SpecError, match="logits"):
        spec_for(path, SpecOverrides(activation="none"))


NORMALISING: dict[str, list[Step]] = {
    "Sub": [("Sub", ["images", "pixel mean"], "x")],
    "Div": [("Div", ["images", "255"], "d"), ("Sub", ["d", "pixel mean"], "x")],
    "Mul": [("Cast", ["images"], "c"), ("Mul", ["255", "c"], "x")],
}


@pytest.mark.parametrize("op", ["Sub", "Div"])
def test_mean_and_deviation_for_a_graph_that_normalises_are_refused(
    tmp_path: Path, op: str
) -> None:
    path = network(tmp_path, ENDS["softmax"][1], NORMALISING[op])
    assert read_graph(path).normalises == op
    imagenet = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
    for values in (imagenet, {"mean": imagenet["mean"]}, {"std": imagenet["std"]}):
        with pytest.raises(SpecError, match=f"begins with {op}"):
            spec_for(path, replace(STATED, **values))  # type: ignore[arg-type]
    levels = spec_for(path, replace(STATED, std=(1 / 255,) * 3)).spec
    frame = np.full((1, 8, 8, 3), 200, np.uint8)
    np.testing.assert_allclose(levels.network_input_fitted(frame), 200, rtol=1e-5)


def test_mean_for_a_graph_that_takes_raw_frames_is_refused(tmp_path: Path) -> None:
    from tests.spec.foreign.nets import make_net

    path = make_net(tmp_path / "m.onnx", dtype="uint8", layout="nhwc", ending=["Softmax"])
    stated = replace(STATED, labels=[f"label {i}" for i in range(48)])
    spec: ModelSpec = spec_for(path, stated).spec
    assert spec.input == "uint8"
    with pytest.raises(SpecError, match="--mean"):
        spec_for(path, replace(stated, mean=(0.5, 0.5, 0.5)))


def test_a_network_that_begins_with_a_layer_takes_mean_and_deviation(tmp_path: Path) -> None:
    path = network(tmp_path, ENDS["softmax"][1])
    assert read_graph(path).normalises == ""
    assert spec_for(path, replace(STATED, mean=(0.5,) * 3)).spec.preprocess.mean == (0.5,) * 3
