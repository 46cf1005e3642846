"""What is read of an engine's layers, out of TensorRT's own words."""

from __future__ import annotations

import json

import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgeml.runtimes.tensorrt.engine_layers import (
    Layer,
    layers_of_inspector,
    layers_of_log,
    products_of,
    types_of,
)
from tests.export.graphs import model_of, weights

pytestmark = pytest.mark.runtime


def tensor(name: str, kind: str, shape: str = "[-1,64,24,24]") -> str:
    return (
        f"{{ Name: {name}, Dimensions: {shape}, Strides: [36864,1,1536,64], StrideOrder: "
        f"[3,0,2,1], Datatype: {kind}, Format: (NHWC) Channel major format }}"
    )


# As TensorRT-RTX 1.7.1.116 logs it, with fewer layers, shorter names and no tactics.
LOG = f"""Layers:
Name: __mye2085_0_myl0_0, LayerType: shape_call, Inputs: [], Constants: [], Outputs: [], \
TacticName: , StreamId: 0, Metadata: 
Name: __myl_CastMulRoun_myl0_1, LayerType: kgen, Inputs: [ {tensor("images", "Float")}], \
Constants: [ {tensor("lit", "Half", "[1]")}], Outputs: [ {tensor("q", "Int8")}], \
TacticName: __myl_CastMulRoun_0x8c, StreamId: 0, Metadata: [ONNX Layer: images_Q]\
[ONNX Layer: conv_1]
Name: conv_1_myl0_2, LayerType: correlation, Inputs: [ {tensor("q", "Int8")}], Constants: [ \
{tensor("w", "Int8")}, {tensor("a", "Float")}, {tensor("b", "Float")}], Outputs: [ \
{tensor("y", "Float")}], TacticName: sm80_xmma, StreamId: 0, Metadata: [ONNX Layer: conv_1]\
[ONNX Layer: images_DQ]
Name: __mye17484_myl0_13, LayerType: signal, Inputs: [], Constants: [], Outputs: [], \
TacticName: , StreamId: 0, EventId: 1, Metadata: 
Name: __myl_FcAdd_myl0_3, LayerType: runtime_fusion, Inputs: [ {tensor("m", "Half")}], \
Constants: [ {tensor("v", "Half")}, {tensor("c", "Half")}], Outputs: [ \
{tensor("z", "Float")}], TacticName: fc, StreamId: 0, Metadata: [ONNX Layer: linear]

I/O Tensors:
 Name: images, IOMode: Input, DataType: Float, Dimensions: [-1,3,96,96]
"""


def network() -> onnx.ModelProto:
    """Make a network of which the nodes have the names above, and one that no layer names."""
    model = model_of(
        [
            ("Conv", ["input", "w"], "y"),
            ("GlobalAveragePool", ["y"], "p"),
            ("Flatten", ["p"], "f"),
            ("Gemm", ["f", "v"], "z"),
            ("MatMul", ["z", "u"], "logits"),
        ],
        {"w": weights(2, 3, 1, 1), "v": weights(2, 2), "u": weights(2, 2)},
    )
    for node, name in zip(
        model.graph.node, ("conv_1", "pool", "flat", "linear", "lost"), strict=True
    ):
        node.name = name
    return model


def test_layers_are_read_from_the_log_of_a_build() -> None:
    layers = layers_of_log(["Total Weights Memory: 8 bytes", LOG, "Adding 1 engine(s)"])
    assert [layer.kind for layer in layers] == ["kgen", "correlation", "runtime_fusion"]
    assert layers[1] == Layer(
        name="conv_1_myl0_2",
        kind="correlation",
        inputs=("int8",),
        weights=("int8", "fp32", "fp32"),
        outputs=("fp32",),
        onnx=("conv_1", "images_DQ"),
    )
    assert types_of(layers) == {"fp32": 1, "int8": 1, "fp16": 1}
    assert products_of(layers, network()) == {
        "Conv": {"int8": 1},
        "Gemm": {"fp16": 1},
        "MatMul": {"unknown": 1},
    }


# A layer as the inspectors of 10 and 11 give it (docs.nvidia.com: Engine Inspector, and Migrating
# IEngineInspector Usage from TensorRT 10.x to 11.x). No such engine was at hand to ask.
TEN = {
    "Layers": [
        {
            "Name": "conv_1 + relu",
            "LayerType": "CaskConvolution",
            "Inputs": [
                {
                    "Name": "q",
                    "Dimensions": [1, 3, 224, 224],
                    "Format/Datatype": "Thirty-two wide channel vectorized row major Int8 format",
                }
            ],
            "Outputs": [{"Name": "y", "Format/Datatype": "Row major linear FP16 format"}],
            "Weights": {"Type": "Int8", "Count": 9408},
            "Metadata": "[ONNX Layer: conv_1]\x1e[ONNX Layer: relu]",
        }
    ],
    "Bindings": ["images", "logits"],
}
ELEVEN = {
    "Layers": [
        {
            "Name": "conv_1 + relu",
            "LayerType": "CaskConvolution",
            "Inputs": [{"Name": "q", "Format": "Channel major", "Datatype": "Int8"}],
            "Outputs": [{"Name": "y", "Format": "Row major linear", "Datatype": "Half"}],
            "Weights": {"Type": "Int8", "Count": 9408},
            "Metadata": "[ONNX Layer: conv_1]\x1e[ONNX Layer: relu]",
        }
    ],
    "I/O Tensors": [{"Name": "images", "IOMode": "Input"}],
}


@pytest.mark.parametrize("document", [TEN, ELEVEN])
def test_layers_are_read_from_the_inspectors_of_both_versions(document: object) -> None:
    assert layers_of_inspector(json.dumps(document)) == (
        Layer(
            name="conv_1 + relu",
            kind="CaskConvolution",
            inputs=("int8",),
            weights=("int8",),
            outputs=("fp16",),
            onnx=("conv_1", "relu"),
        ),
    )


@pytest.mark.parametrize(
    "text", ["", "no JSON", "[]", "{}", '{"Layers": ["conv_1"]}', '{"Layers": null}', '"Layers"']
)
def test_an_inspector_that_tells_no_more_than_names_gives_no_layers(text: str) -> None:
    assert layers_of_inspector(text) == ()


def test_an_unknown_type_is_unknown() -> None:
    document = LOG.replace("Datatype: Half", "Datatype: Posit")
    assert types_of(layers_of_log([document])) == {"fp32": 1, "int8": 1, "unknown": 1}


@given(st.text())
def test_words_of_another_version_break_nothing(text: str) -> None:
    assert isinstance(layers_of_log([f"Layers:\n{text}"]), tuple)
    assert isinstance(layers_of_inspector(text), tuple)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["Name", "Inputs", "Outputs", "Weights", "Type", "Constants", "Metadata"]
            ),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@given(st.lists(json_values, max_size=3))
def test_json_of_another_shape_breaks_nothing(layers: list[object]) -> None:
    assert isinstance(layers_of_inspector(json.dumps({"Layers": layers})), tuple)
