"""What each target cannot run: code and node, in small files made by hand and by ONNX Runtime."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from edgeml.runtimes.onnx_graph import QUANTIZERS
from edgeml.runtimes.tensorrt.legality import refused_by_tensorrt
from edgeml_export.int8.legality import violations
from edgeml_export.int8.targets import TARGETS, Target
from tests.export.graphs import Node, model_of, weights
from tests.export.int8.quantized import by_onnx_runtime, float_network, quantized

pytestmark = pytest.mark.runtime

U8, S8 = {"dtype": np.uint8}, {"dtype": np.int8}


def found(model: onnx.ModelProto, target: Target) -> list[tuple[str, str]]:
    """Code and node of each violation."""
    return [(each.code, each.node) for each in violations(model, target)]


@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("x86", {**U8, "zero": 7, "output": True}),
        ("x86", {**U8, "bias": "int32", "output": True, "folded": False}),
        ("x86", {**U8, "output": True, "constants_by_nodes": True}),
        ("arm", {**S8, "zero": -3, "output": True}),
        ("arm", {**S8, "bias": "int32", "output": True, "constants_by_nodes": True}),
        ("openvino", {**U8, "zero": 7}),
        ("openvino", S8),
        ("openvino", {**U8, "output": True, "bias": "int32", "folded": False}),
        ("tensorrt", {}),
        ("tensorrt", {"output": True, "folded": False}),
        ("tensorrt", {"constants_by_nodes": True}),
        ("tensorrt", {"constants_by_nodes": True, "folded": False}),
    ],
)
def test_a_right_file_breaks_no_rule(target: Target, options: dict[str, Any]) -> None:
    model = quantized(**options)
    onnx.checker.check_model(model, full_check=True)
    assert violations(model, target) == []


@pytest.mark.parametrize(
    ("target", "options", "code", "nodes"),
    [
        ("tensorrt", U8, "qdq-uint8", "q_node x_node"),
        ("tensorrt", {"weight_dtype": np.uint8}, "qdq-uint8", "wd_node"),
        ("tensorrt", {"zeros": False}, "qdq-uint8", "q_node x_node"),  # the default type
        ("tensorrt", {**U8, "unnamed": ["q", "x"]}, "qdq-uint8", "q x"),  # named by their outputs
        ("tensorrt", {"zero": 3}, "qdq-zero-point", "q_node x_node"),
        ("tensorrt", {"bias": "int32"}, "qdq-int32", "bd_node"),
        ("tensorrt", {"activation_by_channel": True}, "qdq-activation-scales", "q_node x_node"),
        ("openvino", {**S8, "bias": "sum"}, "qdq-bias-in-sum", "bd_node"),
        ("openvino", {"activation_by_channel": True}, "qdq-activation-scales", "q_node x_node"),
        ("x86", {**S8, "output": True}, "qdq-slow-type", "q_node x_node oq_node o_node"),
        ("arm", {**U8, "output": True}, "qdq-slow-type", "q_node x_node oq_node o_node"),
        ("x86", U8, "qdq-no-output", "y_node"),
        ("arm", S8, "qdq-no-output", "y_node"),
        *(
            (target, {**dtype, **more, "by_channel": False}, "qdq-one-scale", "wd_node")
            for more in ({"folded": True}, {"folded": False})
            for target, dtype in (
                ("x86", {**U8, "output": True}),
                ("arm", {**S8, "output": True}),
                ("openvino", U8),
                ("tensorrt", S8),
            )
        ),
    ],
)
def test_each_rule_is_reported_where_it_is_broken_and_nowhere_else(
    target: Target, options: dict[str, Any], code: str, nodes: str
) -> None:
    model = quantized(**options)
    onnx.checker.check_model(model, full_check=True)
    assert found(model, target) == [(code, node) for node in nodes.split()]


def test_a_violation_reads_as_a_sentence_that_starts_with_its_node() -> None:
    first, _ = violations(quantized(dtype=np.uint8), "tensorrt")
    sentence = "q_node: TensorRT reads uint8 as int8, with a warning and wrong results."
    assert str(first) == sentence
    model = plain()
    model.opset_import[0].version = 8
    (opset,) = violations(model, "tensorrt")
    assert str(opset).startswith("The opset is 8; TensorRT reads 9 to 25: export")


@pytest.mark.parametrize("cast", [True, False])
def test_raw_frames_go_into_a_cast_for_tensorrt(cast: bool) -> None:
    model = quantized()
    graph = model.graph
    graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8
    first = helper.make_node("Cast", ["input"], ["float"], "cast", to=TensorProto.FLOAT)
    graph.node[0].input[0] = "float"
    if not cast:
        first = helper.make_node("Transpose", ["input"], ["turned"], "turn", perm=[0, 1, 3, 2])
        graph.node.insert(0, helper.make_node("Cast", ["turned"], ["float"], "c", to=1))
    graph.node.insert(0, first)
    onnx.checker.check_model(model, full_check=True)
    assert found(model, "tensorrt") == ([] if cast else [("uint8-input", "turn")])
    assert found(model, "openvino") == []


@pytest.mark.parametrize(
    ("kind", "codes"),
    [
        ("INT8", []),
        ("UINT16", ["qdq-type"] * 2),
        ("INT16", ["qdq-type"] * 2),
        ("INT4", ["qdq-type"] * 2),
        ("FLOAT8E4M3FN", ["qdq-type"] * 2),
    ],
)
def test_the_type_that_a_node_names_itself_counts(kind: str, codes: list[str]) -> None:
    """Since opset 21 QuantizeLinear may name its type instead of having a zero point."""
    model = quantized(zeros=False)
    model.opset_import[0].version = 21
    dtype = getattr(TensorProto, kind)
    for node in model.graph.node:
        if node.op_type == "QuantizeLinear":
            node.attribute.append(helper.make_attribute("output_dtype", dtype))
    assert [each.code for each in refused_by_tensorrt(model)] == codes


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
    expected = [] if channels == 1 else [("qdq-one-scale", "wd_node")]
    assert found(model_of(nodes, constants), "openvino") == expected


def plain() -> onnx.ModelProto:
    """Build a network without Q/DQ nodes."""
    nodes: list[Node] = [("Conv", ["input", "w"], "y"), ("Flatten", ["y"], "logits")]
    return model_of(nodes, {"w": weights(2, 3, 3, 3)})


def test_a_file_without_q_and_dq_breaks_no_rule() -> None:
    for target in TARGETS:
        assert violations(plain(), target) == []


def opset(version: int) -> Any:
    def change(model: onnx.ModelProto) -> None:
        model.opset_import[0].version = version

    return change


def second_input(model: onnx.ModelProto) -> None:
    model.graph.input.append(helper.make_tensor_value_info("size", TensorProto.FLOAT, [1]))


def no_input(model: onnx.ModelProto) -> None:
    del model.graph.input[:]


def any_size(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "H"


def raw(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT8


def on_integers(model: onnx.ModelProto) -> None:
    model.graph.node[0].op_type = "ConvInteger"


@pytest.mark.parametrize(
    ("change", "violation", "values"),
    [
        (opset(8), ("opset", ""), "8; TensorRT reads 9 to 25"),
        (opset(9), None, ""),
        (opset(25), None, ""),
        (opset(26), ("opset", ""), "26; TensorRT reads 9 to 25"),
        (second_input, ("inputs", ""), "has 2: input, size"),
        (no_input, ("inputs", ""), "has 0: none"),
        (any_size, ("input-shape", ""), "'input' is (N, 3, H, 16)"),
        (raw, ("uint8-input", "y_node"), ""),
        (on_integers, ("integer-operator", "y_node"), "ConvInteger"),
    ],
)
def test_tensorrt_refuses_some_files_without_q_and_dq(
    change: Any, violation: tuple[str, str] | None, values: str
) -> None:
    model = plain()
    change(model)
    refused = refused_by_tensorrt(model)
    assert refused == violations(model, "tensorrt")
    assert [(each.code, each.node) for each in refused] == ([violation] if violation else [])
    assert all(values in each.message for each in refused)
    assert violations(model, "openvino") == violations(model, "x86") == []


def test_one_scale_for_all_channels_is_bad_for_tensorrt_but_not_refused() -> None:
    model = quantized(by_channel=False)
    assert len(violations(model, "tensorrt")) == 1
    assert refused_by_tensorrt(model) == []


def test_a_scale_that_is_computed_is_refused() -> None:
    model = quantized()
    model.graph.node.insert(0, helper.make_node("Identity", ["s"], ["s2"], "copy"))
    model.graph.node[1].input[1] = "s2"
    onnx.checker.check_model(model, full_check=True)
    assert found(model, "tensorrt") == [("qdq-computed-scale", "q_node")]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return float_network(tmp_path_factory.mktemp("source") / "source.onnx")


def codes(model: onnx.ModelProto, target: Target) -> set[str]:
    return {each.code for each in violations(model, target)}


def test_onnx_runtimes_default_is_legal_nowhere(source: Path, tmp_path: Path) -> None:
    """It is int8 by tensor, and weights by tensor ruin depthwise layers."""
    model = by_onnx_runtime(source, tmp_path)
    assert codes(model, "openvino") == {"qdq-one-scale"}
    assert "qdq-one-scale" in codes(model, "x86") & codes(model, "arm")
    assert "qdq-int32" in codes(model, "tensorrt")


def test_onnx_runtimes_uint8_by_channel_is_legal_on_x86_only(source: Path, tmp_path: Path) -> None:
    quantization = pytest.importorskip("onnxruntime.quantization")
    model = by_onnx_runtime(
        source,
        tmp_path,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        per_channel=True,
    )
    assert codes(model, "x86") == codes(model, "openvino") == set()
    assert codes(model, "arm") == {"qdq-slow-type"}
    assert codes(model, "tensorrt") >= {"qdq-uint8", "qdq-int32"}


def test_onnx_runtimes_symmetric_int8_is_legal_for_tensorrt(source: Path, tmp_path: Path) -> None:
    quantization = pytest.importorskip("onnxruntime.quantization")
    model = by_onnx_runtime(
        source,
        tmp_path,
        activation_type=quantization.QuantType.QInt8,
        weight_type=quantization.QuantType.QInt8,
        per_channel=True,
        extra_options={"ActivationSymmetric": True, "QuantizeBias": False},
    )
    assert codes(model, "tensorrt") == set()
    assert codes(model, "x86") == {"qdq-slow-type"}


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
def test_a_file_that_breaks_the_rules_of_onnx_is_refused_in_one_line(spoil: Any) -> None:
    model = quantized(output=True)
    spoil(model)
    (violation,) = refused_by_tensorrt(model)
    assert violation.code == "onnx"
    assert "\n" not in str(violation)


def test_a_constant_without_a_value_is_not_a_fault_of_quantisation() -> None:
    model = quantized()
    model.graph.node.add(op_type="Constant", output=["nothing"])
    assert refused_by_tensorrt(model) == []
