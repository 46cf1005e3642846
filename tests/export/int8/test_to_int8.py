from __future__ import annotations

import logging
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from onnx import TensorProto, numpy_helper

from edgeml import Predictor
from edgeml.data import Dataset
from edgeml.errors import ExportError
from edgeml.runtimes import RuntimeOptions
from edgeml.runtimes.onnx_file import read_onnx, spec_of_onnx
from edgeml.runtimes.ort import OrtRuntime, _is_for_another_runtime
from edgeml.runtimes.ov import OpenVinoRuntime
from edgeml.spec.storage import METADATA_KEY
from edgeml_export.int8.calibration import Calibration, choose_calibration
from edgeml_export.int8.layers import quantizable
from edgeml_export.int8.legality import violations
from edgeml_export.int8.ranges import Ranges, measure_ranges
from edgeml_export.int8.rounding import by_channel
from edgeml_export.int8.targets import TARGETS, Target
from edgeml_export.int8.to_int8 import (
    int8_from_onnx,
    quantize,
)
from edgeml_export.to_fp16 import fp16_from_onnx
from tests.export import graphs
from tests.export.conftest import of_timm
from tests.export.graphs import SIDE, SPEC, Node, inputs_of, model_of, photos, run, weights, written

pytestmark = [pytest.mark.train, pytest.mark.runtime]


@pytest.fixture(scope="module")
def quantized(network: Path, ranges: Ranges, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return int8_from_onnx(network, tmp_path_factory.mktemp("int8") / "m.onnx", ranges)


def executed(path: Path, folder: Path) -> Counter[str]:
    """Count the operators that ONNX Runtime makes of a file."""
    return Counter(node.op_type for node in graphs.executed(path, folder).graph.node)


def test_what_lies_between_the_first_and_the_last_layer_runs_in_integers(
    quantized: Path, network: Path, tmp_path: Path
) -> None:
    before = Counter(node.op_type for node in read_onnx(network).graph.node)
    operators = executed(quantized, tmp_path)
    assert operators["QLinearConv"] == before["Conv"] > 0
    assert operators["Conv"] == operators["Relu"] == 0
    # One way into integers; out of them once for each kind of pooling.
    assert operators["QuantizeLinear"] == 1
    assert operators["DequantizeLinear"] <= 2


def test_residual_sums_run_in_integers_too(resnet: Path, data: Dataset, tmp_path: Path) -> None:
    few = measure_ranges(resnet, choose_calibration(data, data.labels, limit=4))
    before = Counter(node.op_type for node in read_onnx(resnet).graph.node)
    operators = executed(int8_from_onnx(resnet, tmp_path / "m.onnx", few), tmp_path)
    assert operators["QLinearConv"] == before["Conv"] > 0
    assert operators["QLinearAdd"] == before["Add"] > 0
    assert operators["Conv"] == operators["Add"] == operators["Relu"] == 0


def test_weights_are_signed_with_a_scale_for_each_output_channel(
    quantized: Path, network: Path
) -> None:
    graph = read_onnx(quantized).graph
    tensors = {t.name: onnx.numpy_helper.to_array(t) for t in graph.initializer}
    weights = [t for t in tensors.values() if t.dtype == np.int8 and t.ndim == 4]
    assert len(weights) == sum(node.op_type == "Conv" for node in read_onnx(network).graph.node)
    for node in graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in tensors:
            stored, scale = (tensors[name] for name in node.input[:2])
            assert scale.shape == (stored.shape[0],)
            if stored.dtype == np.int8:
                assert not tensors[node.input[2]].any()
        elif node.op_type == "QuantizeLinear":
            assert tensors[node.input[2]].dtype == np.uint8


def test_the_last_layer_stays_fp32(quantized: Path, network: Path) -> None:
    (head,) = [node for node in read_onnx(quantized).graph.node if node.op_type == "Gemm"]
    (before,) = [node for node in read_onnx(network).graph.node if node.op_type == "Gemm"]
    assert list(head.input)[1:] == list(before.input)[1:]
    assert head.output[0] == "logits"


def test_logits_stay_close_to_those_of_the_source(
    quantized: Path, network: Path, test_part: Dataset
) -> None:
    # A step of 8 bits is 0.4 % of a tensor's range; what ten layers add up to was measured at
    # 1 % of the logits' spread for a trained network, and 4 % for one with random weights.
    with Predictor(network) as first, Predictor(quantized) as second:
        assert second.runtime.metadata["precision"] == "int8"
        frames = [first.read(path) for path in test_part.paths]
        expected, got = first.logits(frames), second.logits(frames)
    assert np.sqrt(np.mean((got - expected) ** 2)) < 0.05 * expected.std()


def test_the_spec_says_what_it_was_calibrated_with(quantized: Path, ranges: Ranges) -> None:
    spec = spec_of_onnx(read_onnx(quantized), quantized)
    assert spec.precision == "int8"
    assert spec.metrics == {}
    assert spec.provenance.calibration_sha256 == ranges.calibration_sha256
    assert "60 images" in str(spec.provenance.quantizer)


def test_the_same_images_give_the_same_bytes_silently(
    quantized: Path,
    network: Path,
    ranges: Ranges,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    handlers = list(logging.root.handlers)
    again = int8_from_onnx(network, tmp_path / "again.onnx", ranges)
    assert again.read_bytes() == quantized.read_bytes()
    assert capfd.readouterr() == ("", "")
    assert [r for r in caplog.records if r.levelno >= logging.WARNING] == []
    assert logging.root.handlers == handlers


def test_a_network_that_is_its_last_layer_has_nothing_to_quantise(
    tiny_onnx: Path, ranges: Ranges, tmp_path: Path
) -> None:
    with pytest.raises(ExportError, match="no layer to quantise"):
        int8_from_onnx(tiny_onnx, tmp_path / "m.onnx", ranges)


def test_the_layout_for_openvino_runs_there_in_integers(
    network: Path, ranges: Ranges, test_part: Dataset, tmp_path: Path
) -> None:
    path = int8_from_onnx(network, tmp_path / "m.onnx", ranges, layout="openvino")
    with Predictor(network) as first, Predictor(path, runtime="openvino") as second:
        assert second.runtime.metadata["precision"] == "int8"
        frames = [first.read(image) for image in test_part.paths]
        expected, got = first.logits(frames), second.logits(frames)
    assert np.sqrt(np.mean((got - expected) ** 2)) < 0.05 * expected.std()


def test_of_a_transformer_only_layers_with_weights_are_quantised(
    vit: Path, data: Dataset, tmp_path: Path
) -> None:
    few = measure_ranges(vit, choose_calibration(data, data.labels, limit=4))
    graph = read_onnx(int8_from_onnx(vit, tmp_path / "vit.int8.onnx", few)).graph
    made = {output: node.op_type for node in graph.node for output in node.output}
    constants = {tensor.name for tensor in graph.initializer}

    def quantised(node: onnx.NodeProto) -> list[bool]:
        return [made.get(name) == "DequantizeLinear" for name in node.input]

    products = [node for node in graph.node if node.op_type == "MatMul"]
    with_weights = [node for node in products if made.get(node.input[1]) == "DequantizeLinear"]
    attention = [node for node in products if node not in with_weights]
    assert len(with_weights) == 24, "four layers in each of six blocks"
    assert all(all(quantised(node)) for node in with_weights)
    assert len(attention) == 12
    assert not any(any(quantised(node)) for node in attention)
    # OpenVINO 2026.4 dies of a quantised bias.
    biased = [n for n in graph.node if n.op_type == "Add" and constants.intersection(n.input)]
    assert biased
    with Predictor(tmp_path / "vit.int8.onnx", runtime="openvino") as predictor:
        assert predictor.runtime.metadata["precision"] == "int8"


# Weights.

kernels = arrays(
    np.float32,
    st.one_of(
        st.tuples(st.integers(1, 4), st.integers(1, 3), st.integers(1, 3), st.integers(1, 3)),
        st.tuples(st.integers(1, 5), st.integers(1, 5)),
        st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 4)),
    ),
    elements=st.floats(-8, 8, width=32),
)


@settings(deadline=None)
@given(kernels, st.integers(0, 1))
def test_weights_are_rounded_within_a_step_and_whole_kernels_within_half_of_one(
    weight: NDArray[np.float32], axis: int
) -> None:
    scale, integers = by_channel(weight, axis)
    assert integers.dtype == np.int8
    assert integers.min() >= -127
    largest = np.abs(np.moveaxis(weight, axis, 0).reshape(weight.shape[axis], -1)).max(axis=1)
    np.testing.assert_array_equal(
        scale, np.where(largest / np.float32(127) > 2e-38, largest / np.float32(127), 1)
    )
    shape = [-1 if index == axis else 1 for index in range(weight.ndim)]
    exact = weight.astype(np.float64) / scale.reshape(shape)
    error = integers - exact
    if weight.ndim == 4 and weight[0, 0].size > 1:
        assert np.abs(error).max() < 1 + 1e-4
        assert np.abs(error.sum(axis=(2, 3))).max() <= 0.5 + 1e-3
    else:
        assert np.abs(error).max() <= 0.5 + 1e-4


def test_a_channel_of_zeros_stays_zero() -> None:
    weight = weights(3, 2, 3, 3)
    weight[1] = 0
    scale, integers = by_channel(weight, 0)
    assert not integers[1].any()
    assert scale[1] == 1


def test_scales_are_not_below_what_is_asked_for() -> None:
    weight = weights(3, 4)
    weight[1] *= 1e-9
    scale, integers = by_channel(weight, 0, np.array([0, 1e-6, 0]))
    assert scale[1] == np.float32(1e-6)
    assert not integers[1].any()
    assert (by_channel(weight, 0, 3.0)[0] == 3).all()


# The means of what leaves a layer.


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Calibration:
    return photos(tmp_path_factory.mktemp("photos"))


HEAD: list[Node] = [
    ("GlobalAveragePool", ["z"], "pooled"),
    ("Flatten", ["pooled"], "flat"),
    ("Gemm", ["flat", "head"], "logits", {"transB": 1}),
]
FLAT: list[Node] = [
    ("AveragePool", ["input"], "small", {"kernel_shape": [4, 4], "strides": [4, 4]})
]
BIAS = np.linspace(-1, 1, 8, dtype=np.float32)
STEM: Node = ("Conv", ["input", "stem", "bias"], "y")
STEM_CONSTANTS = {"stem": weights(8, 3, 3, 3), "bias": BIAS, "head": weights(2, 8, seed=9)}

CORRECTED: dict[str, tuple[list[Node], dict[str, Any]]] = {
    "conv": ([STEM, ("Relu", ["y"], "z"), *HEAD], STEM_CONSTANTS),
    "conv without a bias": (
        [("Conv", ["input", "stem"], "y"), ("Relu", ["y"], "z"), *HEAD],
        STEM_CONSTANTS,
    ),
    "groups": (
        [
            ("Conv", ["input", "first"], "x"),
            ("Conv", ["x", "grouped", "bias"], "y", {"group": 2}),
            ("Relu", ["y"], "z"),
            *HEAD,
        ],
        {**STEM_CONSTANTS, "first": weights(4, 3, 1, 1), "grouped": weights(8, 2, 3, 3)},
    ),
    "depthwise": (
        [
            ("Conv", ["input", "first"], "x"),
            ("Conv", ["x", "depthwise", "bias"], "y", {"group": 8}),
            ("Relu", ["y"], "z"),
            *HEAD,
        ],
        {**STEM_CONSTANTS, "first": weights(8, 3, 1, 1), "depthwise": weights(8, 1, 3, 3)},
    ),
    **{
        f"gemm {name}": (
            [
                *FLAT,
                ("Flatten", ["small"], "x"),
                ("Gemm", ["x", "w", "bias"], "y", attributes),
                ("Relu", ["y"], "z"),
                ("Gemm", ["z", "head"], "logits", {"transB": 1}),
            ],
            {
                "w": weights(8, 48) if attributes["transB"] else weights(8, 48).T.copy(),
                "bias": bias,
                "head": weights(2, 8),
            },
        )
        for name, attributes, bias in (
            ("transB 1", {"transB": 1}, BIAS),
            ("transB 0", {"transB": 0}, BIAS),
            ("with attributes written down", {"transB": 1, "alpha": 1.0, "beta": 1.0}, BIAS),
            ("with a bias of two dimensions", {"transB": 1}, BIAS[None]),
        )
    },
    **{
        f"matmul, {first} first": (
            [
                *FLAT,
                ("Flatten", ["small"], "x"),
                ("MatMul", ["x", "w"], "product"),
                ("Add", ["product", "bias"] if first == "product" else ["bias", "product"], "y"),
                ("Relu", ["y"], "z"),
                ("Gemm", ["z", "head"], "logits", {"transB": 1}),
            ],
            {"w": weights(8, 48).T.copy(), "bias": BIAS, "head": weights(2, 8)},
        )
        for first in ("product", "bias")
    },
}


@pytest.mark.parametrize("case", CORRECTED)
@pytest.mark.parametrize("layout", ["x86", "tensorrt"])
def test_what_rounded_weights_add_to_the_mean_of_a_layer_is_taken_from_its_bias(
    case: str, layout: Target, tmp_path: Path
) -> None:
    """Pictures of one colour have no edges, where means are others than within."""
    calibration = photos(tmp_path, detail=1)
    nodes, constants = CORRECTED[case]
    source = written(model_of(nodes, constants), tmp_path / "source.onnx")
    model, batch = read_onnx(source), inputs_of(calibration)
    quantize(model, measure_ranges(source, calibration), layout)
    (wanted,) = run(source, batch, "y")

    def mean_error(*, bias: bool) -> float:
        (got,) = run(with_constants_of(model, source, batch, bias=bias), batch, "y")
        return float(np.abs((got - wanted).mean(axis=(0, *range(2, got.ndim)))).max())

    steps = [t for t in model.graph.initializer if t.name == "y_node_bias_scale"]
    step = max((float(numpy_helper.to_array(t).max()) for t in steps), default=0)
    assert mean_error(bias=True) < 0.02 * mean_error(bias=False) + 0.51 * step
    assert mean_error(bias=False) > step, "or there is nothing to correct"


def with_constants_of(
    model: onnx.ModelProto, source: Path, batch: NDArray[Any], *, bias: bool
) -> onnx.ModelProto:
    """Give the source with the rounded weight of a layer, and the bias too; the rest is float."""
    plain = read_onnx(source)
    known = {tensor.name for tensor in plain.graph.initializer}
    twins = {node.name: node for node in model.graph.node}
    for node in plain.graph.node:
        if node.name not in ("y_node", "product_node"):
            continue
        for index, name in enumerate(twins[node.name].input):
            is_bias = index == 2 or node.op_type == "Add"
            is_weight = index == 1 and not is_bias
            if not (is_weight or (is_bias and bias)):
                continue
            if index < len(node.input) and node.input[index] not in known:
                continue  # what the layer itself made
            values = run(model, batch, name)[0]
            tensor = numpy_helper.from_array(values, f"{node.name}_{index}")
            plain.graph.initializer.append(tensor)
            if index < len(node.input):
                node.input[index] = tensor.name
            else:
                node.input.append(tensor.name)
    return plain


# Networks that are laid out in odd ways: all are to stay close to FP32.


def rms(got: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    """How far logits lie apart, in their spread."""
    return float(np.sqrt(np.mean((got - wanted) ** 2)) / wanted.std())


SECOND: Node = ("Conv", ["x", "second", "bias"], "y2")
FLATTENED: list[Node] = [("GlobalAveragePool", ["input"], "g"), ("Flatten", ["g"], "f")]
BESIDE_ATTENTION: list[Node] = [
    ("Relu", ["h"], "cut"),
    ("Softmax", ["cut"], "soft"),
    ("Mul", ["soft", "cut"], "m"),
    ("Gemm", ["m", "head"], "logits", {"transB": 1}),
]
# Of 196 tokens with 8 channels each.
ATTENTION: list[Node] = [
    STEM,
    ("Reshape", ["y", "by_channel"], "columns"),
    ("Transpose", ["columns"], "x", {"perm": [0, 2, 1]}),
    ("MatMul", ["x", "threefold"], "product"),
    ("Add", ["product", "biases"], "qkv"),
    ("Split", ["qkv", "thirds"], ["q", "k", "v"], {"axis": 2}),
    ("Mul", ["q", "half"], "q2"),
    ("Transpose", ["k"], "k2", {"perm": [0, 2, 1]}),
    ("MatMul", ["q2", "k2"], "scores"),
    ("Softmax", ["scores"], "shares"),
    ("MatMul", ["shares", "v"], "heard"),
    ("Transpose", ["heard"], "turned", {"perm": [0, 2, 1]}),
    ("Transpose", ["turned"], "back", {"perm": [0, 2, 1]}),
    ("MatMul", ["back", "proj"], "z"),
]
POOLED: list[Node] = [
    ("ReduceMean", ["z", "tokens"], "h", {"keepdims": 0}),
    ("Gemm", ["h", "head"], "logits", {"transB": 1}),
]
MORE = {
    **STEM_CONSTANTS,
    "second": weights(8, 8, 3, 3, seed=2),
    "small": weights(3, 8, seed=3),
    "one": np.float32(1),
    "minus": np.float32(-0.7),
    "some": np.float32(0.2),
    "six": np.float32(6),
}

ODD: dict[str, list[Node]] = {
    "a ReLU read by two layers": [
        STEM,
        ("Relu", ["y"], "x"),
        SECOND,
        ("Conv", ["x", "second"], "y3"),
        ("Add", ["y2", "y3"], "z"),
        *HEAD,
    ],
    "a layer read by a ReLU and by a sum": [
        STEM,
        ("Relu", ["y"], "x"),
        ("Add", ["y", "x"], "z"),
        *HEAD,
    ],
    "a Clip read by two layers": [
        STEM,
        ("Clip", ["y", "minus", "some"], "x"),
        SECOND,
        ("Conv", ["x", "second"], "y3"),
        ("Add", ["y2", "y3"], "z"),
        *HEAD,
    ],
    "a Clip whose least is above 0": [STEM, ("Clip", ["y", "some", "one"], "z"), *HEAD],
    "a Clip without a least": [STEM, ("Clip", ["y", "", "some"], "z"), *HEAD],
    "pooled and joined": [
        STEM,
        ("Relu", ["y"], "x"),
        ("Conv", ["x", "second", "bias"], "y2", {"pads": [1, 1, 1, 1]}),
        ("Concat", ["x", "y2"], "joined", {"axis": 1}),
        ("MaxPool", ["joined"], "pool", {"kernel_shape": [2, 2], "strides": [2, 2]}),
        ("Conv", ["pool", "wide"], "z"),
        *HEAD,
    ],
    "two layers of one weight": [
        STEM,
        ("Relu", ["y"], "x"),
        SECOND,
        ("Relu", ["y2"], "x2"),
        ("Conv", ["x2", "second", "bias"], "z"),
        *HEAD,
    ],
    "one weight lying both ways": [
        *FLATTENED,
        ("Gemm", ["f", "square"], "h", {"transB": 1}),
        ("Relu", ["h"], "r"),
        ("Gemm", ["r", "square"], "h2"),
        ("Gemm", ["h2", "three"], "logits", {"transB": 1}),
    ],
    "a sum of a tensor with itself": [STEM, ("Add", ["y", "y"], "z"), *HEAD],
    "names that our own would take": [
        ("Conv", ["input", "stem", "z_node_bias"], "y", {"name": "z_node"}),
        ("Relu", ["y"], "input_dequantized"),
        (
            "Conv",
            ["input_dequantized", "second", "stem_scale"],
            "z",
            {"name": "input_dequantized_Q"},
        ),
        *HEAD,
    ],
    "names twice and none": [
        ("Conv", ["input", "stem", "bias"], "y", {"name": "node_2"}),
        ("Relu", ["y"], "x", {"name": ""}),
        ("Conv", ["x", "second", "bias"], "y2", {"name": ""}),
        ("Relu", ["y2"], "x2", {"name": "node_2"}),
        ("Conv", ["x2", "second", "bias"], "z", {"name": "node_2"}),
        *HEAD,
    ],
    "a ReLU behind a Gemm beside attention": [
        *FLATTENED,
        ("Gemm", ["f", "small", "bias"], "h"),
        *BESIDE_ATTENTION,
    ],
    "a ReLU behind a MatMul beside attention": [
        *FLATTENED,
        ("MatMul", ["f", "small"], "h"),
        *BESIDE_ATTENTION,
    ],
    "attention of one layer": [*ATTENTION, *POOLED],
    "attention whose layer something else reads too": [
        *ATTENTION,
        ("ReduceMean", ["qkv", "tokens"], "also", {"keepdims": 0}),
        ("Gemm", ["also", "many"], "also8"),
        *POOLED[:-1],
        ("Add", ["h", "also8"], "sum"),
        ("Gemm", ["sum", "head"], "logits", {"transB": 1}),
    ],
    "attention with queries of several factors": [
        *ATTENTION[:6],
        ("Mul", ["q", "several"], "q2"),
        *ATTENTION[7:],
        *POOLED,
    ],
    "a bias that is added from the left": [
        *FLATTENED,
        ("MatMul", ["f", "small"], "h"),
        ("Add", ["bias", "h"], "h2"),
        ("Relu", ["h2"], "r"),
        ("MatMul", ["r", "eight"], "product"),
        ("Add", ["two", "product"], "logits"),
    ],
    "constants made by nodes": [
        ("Constant", [], "k", {"value": numpy_helper.from_array(weights(1, 8, 1, 1))}),
        ("Conv", ["input", "stem"], "y"),
        ("Add", ["y", "k"], "z"),
        *HEAD,
    ],
    "a grouped ConvTranspose": [
        STEM,
        ("Relu", ["y"], "x"),
        ("ConvTranspose", ["x", "up", "bias"], "z", {"group": 2, "strides": [2, 2]}),
        *HEAD,
    ],
    "a Gemm with factors": [
        *FLATTENED,
        ("Gemm", ["f", "small", "row"], "h", {"alpha": 0.5, "beta": 2.0}),
        ("Relu", ["h"], "r"),
        ("Gemm", ["r", "head"], "logits", {"transB": 1}),
    ],
}
ODD_CONSTANTS = {
    **MORE,
    "wide": weights(8, 16, 1, 1),
    "square": weights(3, 3, seed=4),
    "three": weights(2, 3, seed=5),
    "eight": weights(8, 2, seed=6),
    "two": np.array([1, 2], np.float32),
    "up": weights(8, 4, 2, 2, seed=7),
    "row": BIAS[None],
    "z_node_bias": BIAS,
    "stem_scale": BIAS / 2,
    "by_channel": np.array([0, 8, -1]),
    "threefold": weights(8, 24, seed=8),
    "biases": np.linspace(-1, 1, 24, dtype=np.float32),
    "thirds": np.array([8, 8, 8]),
    "half": np.float32(0.5),
    "several": np.linspace(0.1, 0.9, 8, dtype=np.float32),
    "proj": weights(8, 8, seed=9),
    "tokens": np.array([1]),
    "many": weights(24, 8, seed=10),
}


def constants_of(nodes: list[Node]) -> dict[str, Any]:
    """The constants that these nodes read."""
    used = {name for _, inputs, *_ in nodes for name in inputs}
    return {name: value for name, value in ODD_CONSTANTS.items() if name in used}


@pytest.mark.parametrize("case", ODD)
def test_an_odd_network_stays_close_to_fp32_and_legal_in_every_layout(
    case: str, calibration: Calibration, tmp_path: Path
) -> None:
    nodes = ODD[case]
    source = written(model_of(nodes, constants_of(nodes)), tmp_path / "source.onnx")
    ranges, batch = measure_ranges(source, calibration), inputs_of(calibration)
    named = read_onnx(source)
    quantizable(named, "x86")  # ONNX Runtime refuses names that occur twice
    (wanted,) = run(named, batch)
    for layout in TARGETS:
        path = int8_from_onnx(source, tmp_path / f"{layout}.onnx", ranges, layout=layout)
        assert violations(read_onnx(path), layout) == []
        for optimized in (True, False):
            assert rms(run(path, batch, optimized=optimized)[0], wanted) < 0.02


def test_openvino_gets_integers_from_the_layer_that_makes_queries_keys_and_values(
    calibration: Calibration, tmp_path: Path
) -> None:
    nodes = ODD["attention of one layer"]
    source = written(model_of(nodes, constants_of(nodes)), tmp_path / "source.onnx")
    ranges = measure_ranges(source, calibration)
    model = read_onnx(int8_from_onnx(source, tmp_path / "m.onnx", ranges, layout="openvino"))
    made = {out: node for node in model.graph.node for out in node.output}
    pairs = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert [made[q.input[0]].name for q in pairs if q.input[0] in made] == [
        "y_node", "qkv_node", "shares_node", "heard_node",
    ]  # fmt: skip
    zeros = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    types = {made[q.input[0]].name: zeros[q.input[2]] for q in pairs if q.input[0] in made}
    assert (types["qkv_node"].dtype, types["qkv_node"]) == (np.int8, 0)
    assert (types["shares_node"].dtype, types["shares_node"]) == (np.uint8, 0)


@pytest.mark.parametrize(
    "case",
    [
        "attention whose layer something else reads too",
        "attention with queries of several factors",
    ],
)
def test_what_is_not_only_moved_on_to_quantised_nodes_is_quantised_where_it_is_read(
    case: str, calibration: Calibration, tmp_path: Path
) -> None:
    nodes = ODD[case]
    source = written(model_of(nodes, constants_of(nodes)), tmp_path / "source.onnx")
    ranges = measure_ranges(source, calibration)
    model = read_onnx(int8_from_onnx(source, tmp_path / "m.onnx", ranges, layout="openvino"))
    given = {node.input[0] for node in model.graph.node if node.op_type == "QuantizeLinear"}
    assert {"q2", "k2", "v"} <= given
    assert not any(name.startswith("qkv") for name in given)


@pytest.mark.parametrize("factor", [0, 1e-12, 1e-20, 1e-39])
@pytest.mark.parametrize("layout", ["x86", "arm"])
def test_a_channel_that_is_dead_but_for_its_bias_keeps_it(
    factor: float, layout: Target, calibration: Calibration, tmp_path: Path
) -> None:
    """Batch norms leave such channels: their scale is so small that 32 bits hold no bias."""
    dead = STEM_CONSTANTS["stem"].copy()
    dead[2] *= np.float32(factor)
    constants = {**STEM_CONSTANTS, "stem": dead, "bias": BIAS + np.float32(1.1)}
    model = model_of([STEM, ("Relu", ["y"], "z"), *HEAD], constants)
    source = written(model, tmp_path / "source.onnx")
    ranges, batch = measure_ranges(source, calibration), inputs_of(calibration)
    path = int8_from_onnx(source, tmp_path / "m.onnx", ranges, layout=layout)
    assert executed(path, tmp_path)["QLinearConv"] == 1
    assert rms(run(path, batch)[0], run(source, batch)[0]) < 0.01


def test_what_is_pooled_and_joined_stays_in_integers(
    calibration: Calibration, tmp_path: Path
) -> None:
    nodes = ODD["pooled and joined"]
    source = written(model_of(nodes, constants_of(nodes)), tmp_path / "source.onnx")
    path = int8_from_onnx(source, tmp_path / "m.onnx", measure_ranges(source, calibration))
    operators = executed(path, tmp_path)
    assert operators["QLinearConcat"] == 1
    assert operators["QLinearConv"] == 3
    assert operators["QuantizeLinear"] == 1
    made = {out: node for node in read_onnx(path).graph.node for out in node.output}
    (pool,) = [node for node in made.values() if node.op_type == "MaxPool"]
    before = made[pool.input[0]]
    (after,) = [node for node in made.values() if node.input[0] == pool.output[0]]
    tensors = {t.name: numpy_helper.to_array(t) for t in read_onnx(path).graph.initializer}
    for index in (1, 2):
        assert tensors[before.input[index]] == tensors[after.input[index]], "the same grid"


def test_a_product_with_its_constant_on_the_left_stays_float(
    calibration: Calibration, tmp_path: Path
) -> None:
    nodes: list[Node] = [
        *FLATTENED,
        ("Transpose", ["f"], "t", {"perm": [1, 0]}),
        ("MatMul", ["left", "t"], "h"),
        ("Transpose", ["h"], "back", {"perm": [1, 0]}),
        ("Gemm", ["back", "head"], "logits", {"transB": 1}),
    ]
    model = model_of(nodes, {"left": weights(8, 3), "head": weights(2, 8)})
    source = written(model, tmp_path / "source.onnx")
    with pytest.raises(ExportError, match="no layer to quantise"):
        int8_from_onnx(source, tmp_path / "m.onnx", measure_ranges(source, calibration))


def test_a_network_that_takes_raw_frames_keeps_its_cast_first(
    calibration: Calibration, tmp_path: Path
) -> None:
    spec = replace(SPEC, input="uint8")
    nodes: list[Node] = [
        ("Cast", ["input"], "float", {"to": TensorProto.FLOAT}),
        ("Transpose", ["float"], "image", {"perm": [0, 3, 1, 2]}),
        ("Conv", ["image", "stem", "bias"], "y"),
        ("Relu", ["y"], "z"),
        *HEAD,
    ]
    raw = model_of(nodes, STEM_CONSTANTS, dtype=TensorProto.UINT8, shape=("N", SIDE, SIDE, 3))
    source = written(raw, tmp_path / "source.onnx", spec)
    ranges, batch = measure_ranges(source, calibration), inputs_of(calibration, spec)
    for layout in TARGETS:
        path = int8_from_onnx(source, tmp_path / "m.onnx", ranges, layout=layout)
        model = read_onnx(path)
        assert model.graph.node[0].op_type == "Cast"
        assert violations(model, layout) == []
        assert spec_of_onnx(model, path).input == "uint8"
        assert rms(run(path, batch)[0], run(source, batch)[0]) < 0.01


def test_a_range_that_was_not_measured_is_told(calibration: Calibration, tmp_path: Path) -> None:
    source = written(
        model_of([STEM, ("Relu", ["y"], "z"), *HEAD], STEM_CONSTANTS), tmp_path / "source.onnx"
    )
    ranges = measure_ranges(source, calibration)
    less = {name: found for name, found in ranges.tensors.items() if name != "input"}
    with pytest.raises(ExportError, match="'input' was not measured"):
        int8_from_onnx(source, tmp_path / "m.onnx", replace(ranges, tensors=less))
    assert not (tmp_path / "m.onnx").exists()


# Layers that are kept in floating point.

CHAIN: list[Node] = [
    STEM,
    ("Relu", ["y"], "x"),
    SECOND,
    ("Relu", ["y2"], "x2"),
    ("Conv", ["x2", "second"], "y3"),
    ("Relu", ["y3"], "z"),
    *HEAD,
]


@pytest.mark.parametrize("kept", ["y2_node", "y3_node", "y_node"])
@pytest.mark.parametrize("layout", TARGETS)
def test_a_layer_that_is_kept_runs_in_float_and_with_its_own_weights(
    layout: Target, kept: str, calibration: Calibration, tmp_path: Path
) -> None:
    """One channel is a thousand times the rest: a scale for all of them would be seen at once."""
    constants = constants_of(CHAIN)
    uneven = constants["second"].copy()
    uneven[1] *= 1000
    constants["second"] = uneven
    source = written(model_of(CHAIN, constants), tmp_path / "source.onnx")
    ranges, batch = measure_ranges(source, calibration), inputs_of(calibration)
    path = int8_from_onnx(source, tmp_path / "m.onnx", ranges, layout=layout, keep=[kept])
    runtime = OrtRuntime(path, RuntimeOptions(threads=1))
    got, raw = runtime.run(batch), run(path, batch, optimized=False)[0]
    assert rms(got, raw) < 1e-3
    if layout in ("x86", "arm"):
        operators = executed(path, tmp_path)
        assert operators["QLinearConv"] == 2
        assert operators["Conv"] + operators["FusedConv"] == 1
        assert rms(run(path, batch)[0], raw) < 1e-3, "with the runtime's own defaults too"
    if layout == "openvino":
        opened = OpenVinoRuntime(path, RuntimeOptions(threads=1))
        assert rms(opened.run(batch), raw) < 1e-2


@pytest.mark.parametrize("half", [False, True])
def test_onnx_runtime_does_not_spoil_the_biases_of_a_file_for_tensorrt(
    half: bool, calibration: Calibration, tmp_path: Path
) -> None:
    """Left alone it does, which is what `_is_for_another_runtime` is for.

    It puts each bias in 32 bits by itself, also that of a channel which is dead but for it.
    """
    constants = constants_of(CHAIN)
    constants["stem"] = constants["stem"].copy()
    constants["stem"][2] *= np.float32(1e-6 if half else 1e-12)
    constants["bias"] = BIAS + np.float32(1.1)
    source = written(model_of(CHAIN, constants), tmp_path / "source.onnx")
    ranges, batch = measure_ranges(source, calibration), inputs_of(calibration)
    path = int8_from_onnx(source, tmp_path / "m.onnx", ranges, layout="tensorrt")
    if half:
        path = fp16_from_onnx(path, tmp_path / "half.onnx")
    raw = run(path, batch, optimized=False)[0]
    assert rms(OrtRuntime(path, RuntimeOptions(threads=1)).run(batch), raw) < 1e-3
    if not half:
        assert rms(run(path, batch)[0], raw) > 0.1


def test_files_for_other_runtimes_are_told_from_those_for_onnx_runtime(
    calibration: Calibration, tmp_path: Path
) -> None:
    source = written(
        model_of([STEM, ("Relu", ["y"], "z"), *HEAD], STEM_CONSTANTS), tmp_path / "source.onnx"
    )
    ranges = measure_ranges(source, calibration)
    told = {"x86": False, "arm": False, "openvino": True, "tensorrt": True}
    for layout in TARGETS:
        path = int8_from_onnx(source, tmp_path / "m.onnx", ranges, layout=layout)
        meta = {entry.key: entry.value for entry in read_onnx(path).metadata_props}
        assert _is_for_another_runtime(meta) == told[layout]
    half = fp16_from_onnx(path, tmp_path / "half.onnx")
    meta = {entry.key: entry.value for entry in read_onnx(half).metadata_props}
    assert _is_for_another_runtime(meta)
    named = replace(SPEC, labels=('"quantizer": "edgeml, openvino', "b"))
    assert not _is_for_another_runtime({METADATA_KEY: named.to_json()})
    assert not _is_for_another_runtime({})


# Real networks.


@pytest.fixture(scope="module")
def efficientnet(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One with depthwise layers and gates, random weights."""
    return of_timm("test_efficientnet.r160_in1k", tmp_path_factory.mktemp("eff") / "eff.onnx")


@pytest.mark.parametrize("name", ["network", "resnet", "vit", "efficientnet"])
def test_every_layout_of_a_real_network_is_legal_valid_and_close_to_fp32(
    name: str, data: Dataset, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    source: Path = request.getfixturevalue(name)
    images = choose_calibration(data, data.labels, limit=8)
    ranges = measure_ranges(source, images)
    batch = inputs_of(images, spec_of_onnx(read_onnx(source), source))
    (wanted,) = run(source, batch)
    for layout in TARGETS:
        path = int8_from_onnx(source, tmp_path / f"{layout}.onnx", ranges, layout=layout)
        model = read_onnx(path)
        assert violations(model, layout) == []
        onnx.checker.check_model(model, full_check=True)
        assert model.ir_version <= 10
        assert [entry.version for entry in model.opset_import if not entry.domain] == [18]
        again = int8_from_onnx(source, tmp_path / "again.onnx", ranges, layout=layout)
        assert again.read_bytes() == path.read_bytes()
        runtime = OpenVinoRuntime if layout == "openvino" else OrtRuntime
        assert rms(runtime(path, threads=1).run(batch), wanted) < 0.1
