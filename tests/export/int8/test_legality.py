"""What each target cannot run, in small files made to have it, and in files of ONNX Runtime."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto

from edgeml.runtimes.onnx_file import QUANTIZERS
from edgeml.runtimes.tensorrt.legality import refused_by_tensorrt
from edgeml_export.int8.legality import violations
from edgeml_export.int8.targets import TARGETS, Target
from tests.export.graphs import Node, inputs_of, model_of, photos, weights, written

pytestmark = pytest.mark.runtime


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
    drop: Sequence[str] = (),
) -> onnx.ModelProto:
    """Make a convolution of 4 channels between Q/DQ nodes, with a sum behind it if asked.

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
        drop: Outputs of nodes to lose their names.
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
    kept = {name: value for name, value in constants.items() if name in used}
    if constants_by_nodes:
        made = [name for name in kept if name in ("s", "z", "ws", "wz")]
        nodes = [
            *(
                (
                    "Constant",
                    [],
                    name,
                    {"value": onnx.numpy_helper.from_array(np.asarray(kept[name]))},
                )
                for name in made
            ),
            *nodes,
        ]
        kept = {name: value for name, value in kept.items() if name not in made}
    model = model_of(nodes, kept)
    for node in model.graph.node:
        if node.output[0] in drop:
            node.name = ""
    return model


RIGHT: dict[Target, list[onnx.ModelProto]] = {
    "x86": [
        quantized(dtype=np.uint8, zero=7, output=True),
        quantized(dtype=np.uint8, bias="int32", output=True, folded=False),
        quantized(dtype=np.uint8, output=True, constants_by_nodes=True),
    ],
    "arm": [
        quantized(dtype=np.int8, zero=-3, output=True),
        quantized(dtype=np.int8, bias="int32", output=True, constants_by_nodes=True),
    ],
    "openvino": [
        quantized(dtype=np.uint8, zero=7),
        quantized(dtype=np.int8),
        quantized(dtype=np.uint8, output=True, bias="int32", folded=False),
    ],
    "tensorrt": [
        quantized(),
        quantized(output=True, folded=False),
        quantized(constants_by_nodes=True),
        quantized(constants_by_nodes=True, folded=False),
    ],
}


@pytest.mark.parametrize("target", TARGETS)
def test_a_right_file_breaks_no_rule(target: Target) -> None:
    for model in RIGHT[target]:
        onnx.checker.check_model(model, full_check=True)
        assert violations(model, target) == []


@pytest.mark.parametrize(
    ("target", "model", "sentences"),
    [
        (
            "tensorrt",
            quantized(dtype=np.uint8),
            [
                "q_node: TensorRT reads uint8 as int8, with a warning and wrong results.",
                "x_node: TensorRT reads uint8 as int8, with a warning and wrong results.",
            ],
        ),
        (
            "tensorrt",
            quantized(weight_dtype=np.uint8),
            ["wd_node: TensorRT reads uint8 as int8, with a warning and wrong results."],
        ),
        (
            "tensorrt",
            quantized(zero=3),
            [
                "q_node: the zero point is not 0; TensorRT knows symmetric ranges only.",
                "x_node: the zero point is not 0; TensorRT knows symmetric ranges only.",
            ],
        ),
        (
            "tensorrt",
            quantized(bias="int32"),
            ["bd_node: TensorRT refuses an int32 bias; leave biases in floating point."],
        ),
        (
            "tensorrt",
            quantized(activation_by_channel=True),
            [
                "q_node: an activation with a scale for each channel; TensorRT takes one.",
                "x_node: an activation with a scale for each channel; TensorRT takes one.",
            ],
        ),
        (
            "tensorrt",
            quantized(zeros=False),  # without a zero point the integers are uint8
            [
                "q_node: TensorRT reads uint8 as int8, with a warning and wrong results.",
                "x_node: TensorRT reads uint8 as int8, with a warning and wrong results.",
            ],
        ),
        (
            "openvino",
            quantized(bias="sum"),
            ["bd_node: a quantised bias behind a sum; OpenVINO 2026.4 dies of it."],
        ),
        (
            "openvino",
            quantized(activation_by_channel=True),
            [
                "q_node: an activation with a scale for each channel runs in FP32.",
                "x_node: an activation with a scale for each channel runs in FP32.",
            ],
        ),
        (
            "x86",
            quantized(output=True),
            [
                f"{name}: activations are int8; ONNX Runtime is fast with uint8 here."
                for name in ("q_node", "x_node", "oq_node", "o_node")
            ],
        ),
        (
            "arm",
            quantized(dtype=np.uint8, output=True),
            [
                f"{name}: activations are uint8; ONNX Runtime is fast with int8 here."
                for name in ("q_node", "x_node", "oq_node", "o_node")
            ],
        ),
        (
            "x86",
            quantized(dtype=np.uint8),
            ["y_node: no Q behind it, so ONNX Runtime computes it in FP32."],
        ),
        (
            "arm",
            quantized(),
            ["y_node: no Q behind it, so ONNX Runtime computes it in FP32."],
        ),
        *(
            (
                target,
                quantized(
                    dtype=dtype, by_channel=False, output=target in ("x86", "arm"), folded=folded
                ),
                ["wd_node: one scale for all channels of the weights of y_node."],
            )
            for folded in (True, False)
            for target, dtype in (
                ("x86", np.uint8),
                ("arm", np.int8),
                ("openvino", np.uint8),
                ("tensorrt", np.int8),
            )
        ),
        (
            "tensorrt",
            quantized(dtype=np.uint8, drop=["q", "x"]),  # told by what they make
            [
                "q: TensorRT reads uint8 as int8, with a warning and wrong results.",
                "x: TensorRT reads uint8 as int8, with a warning and wrong results.",
            ],
        ),
    ],
)  # fmt: skip
def test_each_rule_is_told_where_it_is_broken_and_nowhere_else(
    target: Target, model: onnx.ModelProto, sentences: list[str]
) -> None:
    onnx.checker.check_model(model, full_check=True)
    assert violations(model, target) == sentences


@pytest.mark.parametrize("cast", [True, False])
def test_raw_frames_go_into_a_cast_for_tensorrt(cast: bool) -> None:
    model = quantized()
    graph = model.graph
    graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    made = onnx.helper.make_node("Cast", ["input"], ["float"], "cast", to=TensorProto.FLOAT)
    graph.node[0].input[0] = "float"
    if not cast:
        made = onnx.helper.make_node("Transpose", ["input"], ["turned"], "turn", perm=[0, 1, 3, 2])
        graph.node.insert(0, onnx.helper.make_node("Cast", ["turned"], ["float"], "c", to=1))
    graph.node.insert(0, made)
    onnx.checker.check_model(model, full_check=True)
    expected = [] if cast else ["turn: TensorRT takes a uint8 input only into a Cast."]
    assert violations(model, "tensorrt") == expected
    assert violations(model, "openvino") == []


def test_the_type_that_a_node_names_itself_counts() -> None:
    """Since opset 21 QuantizeLinear may name its type instead of having a zero point."""
    model = quantized(zeros=False)
    model.opset_import[0].version = 21
    quantize = next(node for node in model.graph.node if node.op_type == "QuantizeLinear")
    quantize.attribute.append(onnx.helper.make_attribute("output_dtype", TensorProto.INT8))
    assert violations(model, "tensorrt") == []


@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose", "Gemm", "GemmT", "MatMul"])
@pytest.mark.parametrize("channels", [1, 5])
def test_one_scale_is_right_where_there_is_one_channel(kind: str, channels: int) -> None:
    shape, attributes = {
        "Conv": ((channels, 3, 1, 1), {}),
        "ConvTranspose": ((3, channels, 1, 1), {}),
        "Gemm": ((768, channels), {}),
        "GemmT": ((channels, 768), {"transB": 1}),
        "MatMul": ((768, channels), {}),
    }[kind]
    product = kind in ("Gemm", "GemmT", "MatMul")
    operator = "Gemm" if kind == "GemmT" else kind
    nodes: list[Node] = [
        ("DequantizeLinear", ["w", "s", "z"], "wd", {"axis": 0}),
        ("Flatten", ["input"], "f"),
        (operator, ["f" if product else "input", "wd"], "y", attributes),
        ("Flatten", ["y"], "logits"),
    ]
    constants = {"w": np.ones(shape, np.int8), "s": np.float32(1), "z": np.int8(0)}
    model = model_of(nodes, constants)
    told = "wd_node: one scale for all channels of the weights of y_node."
    assert violations(model, "openvino") == ([] if channels == 1 else [told])


def plain() -> onnx.ModelProto:
    """Make a network without Q/DQ nodes."""
    nodes: list[Node] = [("Conv", ["input", "w"], "y"), ("Flatten", ["y"], "logits")]
    return model_of(nodes, {"w": weights(2, 3, 3, 3)})


def test_a_file_without_q_and_dq_breaks_no_rule() -> None:
    for target in TARGETS:
        assert violations(plain(), target) == []


@pytest.mark.parametrize(("opset", "legal"), [(8, False), (9, True), (25, True), (26, False)])
def test_tensorrt_has_a_range_of_opsets(opset: int, legal: bool) -> None:
    model = plain()
    model.opset_import[0].version = opset
    told = (
        f"The opset is {opset}; TensorRT reads 9 to 25: "
        "write the file anew with one of these, 18 if in doubt."
    )
    assert violations(model, "tensorrt") == ([] if legal else [told])


def second_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(onnx.helper.make_tensor_value_info("size", TensorProto.FLOAT, [1]))


def no_input(model: onnx.ModelProto) -> None:
    del model.graph.input[:]


def any_size(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "H"


def raw(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8


def on_integers(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "ConvInteger"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (
            second_input,
            "A network of one input is expected; this one has 2: input, size.",
        ),
        (no_input, "A network of one input is expected; this one has 0: none."),
        (
            any_size,
            "The input 'input' is (N, 3, H, 16); only the first of four dimensions, the batch, "
            "may be open.",
        ),
        (raw, "y_node: TensorRT takes a uint8 input only into a Cast."),
        (
            on_integers,
            "y_node: TensorRT knows no ConvInteger; quantise with Q/DQ nodes around layers in "
            "floating point.",
        ),
    ],
)
def test_what_tensorrt_refuses_in_any_file_is_told(change: Any, sentence: str) -> None:
    model = plain()
    change(model)
    assert refused_by_tensorrt(model) == violations(model, "tensorrt") == [sentence]
    assert violations(model, "openvino") == violations(model, "x86") == []


def test_one_scale_for_all_channels_is_bad_for_tensorrt_but_not_refused() -> None:
    model = quantized(by_channel=False)
    assert len(violations(model, "tensorrt")) == 1
    assert refused_by_tensorrt(model) == []


@pytest.mark.parametrize("kind", ["UINT16", "INT16", "INT4", "FLOAT8E4M3FN"])
def test_other_types_than_int8_are_refused(kind: str) -> None:
    model = quantized(zeros=False)
    model.opset_import[0].version = 21
    dtype = getattr(TensorProto, kind)
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            node.attribute.append(onnx.helper.make_attribute("output_dtype", dtype))
    name = str(np.dtype(onnx.helper.tensor_dtype_to_np_dtype(dtype)))
    assert refused_by_tensorrt(model) == [
        f"{node}: {name}; edgeml builds engines of int8 and floats only."
        for node in ("q_node", "x_node")
    ]


def test_a_scale_that_is_computed_is_refused() -> None:
    model = quantized()
    model.graph.node.insert(0, onnx.helper.make_node("Identity", ["s"], ["s2"], "copy"))
    model.graph.node[1].input[1] = "s2"
    onnx.checker.check_model(model, full_check=True)
    told = ["q_node: its scale is computed; TensorRT needs a constant."]
    assert refused_by_tensorrt(model) == told


# Files of ONNX Runtime's own quantiser.


class Reader:
    """Hands a quantiser one input after the other."""

    def __init__(self, batch: NDArray[np.float32]) -> None:
        self._inputs: Iterator[NDArray[np.float32]] = iter(np.split(batch, len(batch)))

    def get_next(self) -> dict[str, NDArray[np.float32]] | None:
        one = next(self._inputs, None)
        return None if one is None else {"input": one}


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
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
    return written(model, tmp_path_factory.mktemp("theirs") / "source.onnx")


def by_onnx_runtime(source: Path, folder: Path, **options: Any) -> onnx.ModelProto:
    """Quantise by `quantize_static`, which says on stdout what it would rather have."""
    theirs = pytest.importorskip("onnxruntime.quantization")
    reader = Reader(inputs_of(photos(folder / "photos", count=3)))
    with contextlib.redirect_stdout(None):
        theirs.quantize_static(source, folder / "theirs.onnx", reader, **options)
    return onnx.load(folder / "theirs.onnx")


def rules(model: onnx.ModelProto, target: Target) -> set[str]:
    """What the sentences say, without the nodes' names."""
    return {
        sentence.split(": ", 1)[1].split(" of the weights")[0]
        for sentence in violations(model, target)
    }


def test_onnx_runtimes_default_is_legal_nowhere(source: Path, tmp_path: Path) -> None:
    """It is int8 by tensor, and weights by tensor ruin depthwise layers."""
    model = by_onnx_runtime(source, tmp_path)
    by_tensor = "one scale for all channels"
    assert rules(model, "x86") >= {by_tensor}
    assert rules(model, "openvino") == {by_tensor}
    assert by_tensor in rules(model, "arm")
    assert any("int32 bias" in rule for rule in rules(model, "tensorrt"))


def test_onnx_runtimes_uint8_by_channel_is_legal_on_x86_only(source: Path, tmp_path: Path) -> None:
    theirs = pytest.importorskip("onnxruntime.quantization")
    model = by_onnx_runtime(
        source,
        tmp_path,
        activation_type=theirs.QuantType.QUInt8,
        weight_type=theirs.QuantType.QInt8,
        per_channel=True,
    )
    assert violations(model, "x86") == []
    assert violations(model, "openvino") == []
    assert rules(model, "arm") == {"activations are uint8; ONNX Runtime is fast with int8 here."}
    assert {
        "TensorRT reads uint8 as int8, with a warning and wrong results.",
        "TensorRT refuses an int32 bias; leave biases in floating point.",
    } <= rules(model, "tensorrt")


def test_onnx_runtimes_symmetric_int8_is_legal_for_tensorrt(source: Path, tmp_path: Path) -> None:
    theirs = pytest.importorskip("onnxruntime.quantization")
    model = by_onnx_runtime(
        source,
        tmp_path,
        activation_type=theirs.QuantType.QInt8,
        weight_type=theirs.QuantType.QInt8,
        per_channel=True,
        extra_options={"ActivationSymmetric": True, "QuantizeBias": False},
    )
    assert violations(model, "tensorrt") == []
    assert rules(model, "x86") == {"activations are int8; ONNX Runtime is fast with uint8 here."}


def cyclic(model: onnx.ModelProto) -> None:
    first, second = (node for node in model.graph.node if node.op_type in QUANTIZERS[:1])
    first.input[0], second.input[0] = second.output[0], first.output[0]


@pytest.mark.parametrize(
    "spoil",
    [
        lambda model: model.graph.node.add(op_type="QuantizeLinear", input=["input"]),
        lambda model: model.graph.node.add(op_type="QLinearConv"),
        cyclic,
    ],
)
def test_a_file_that_breaks_the_rules_of_onnx_is_refused_in_a_sentence(spoil: Any) -> None:
    model = quantized(output=True)
    spoil(model)
    (found,) = refused_by_tensorrt(model)
    assert found.startswith("It is not valid ONNX: ")
    assert "\n" not in found


def test_a_constant_that_says_no_value_is_no_fault_of_quantisation() -> None:
    model = quantized()
    model.graph.node.add(op_type="Constant", output=["nothing"])
    assert refused_by_tensorrt(model) == []
