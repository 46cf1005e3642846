"""Scores in outputs of any place and shape, and inputs whose size only the spec knows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper

from edgeml import Predictor
from edgeml.data import Dataset
from edgeml.errors import SpecError
from edgeml.predict.inspection import describe
from edgeml.runtimes.protocol import as_rows
from edgeml_export import export
from tests.export.graphs import SIDE, Node, run
from tests.field.nets import CONSTANTS, NODES, plain_network, stored
from tests.field.test_onnx_files import BATCH, WIDE

pytestmark = [pytest.mark.runtime, pytest.mark.usefixtures("untimed")]

CONSTANTS_WITH_HEADS = {
    **CONSTANTS,
    "other": np.ones((7, 8), np.float32),
    "last": np.array([2, 3], np.int64),
    "second": np.array([1], np.int64),
    "one": np.array([1], np.int64),
    "minus": np.array([-1], np.int64),
}


def with_two_outputs(path: Path) -> Path:
    """Write a network whose scores are its second output."""
    nodes: list[Node] = [*NODES, ("Gemm", ["flat", "other"], "colour", {"transB": 1})]
    model = plain_network(nodes, CONSTANTS_WITH_HEADS)
    colour = helper.make_tensor_value_info("colour", TensorProto.FLOAT, ["N", 7])
    scores = model.graph.output[0]
    outputs = [colour, onnx.ValueInfoProto.FromString(scores.SerializeToString())]
    del model.graph.output[:]
    model.graph.output.extend(outputs)
    return stored(model, path, output="logits")


@pytest.mark.parametrize(
    ("fmt", "precision"), [("onnx", "int8"), ("onnx", "fp16"), ("openvino", "int8")]
)
def test_scores_that_are_the_second_output_are_exported(
    fmt: str, precision: str, tmp_path: Path, data: Dataset
) -> None:
    source = with_two_outputs(tmp_path / "two.onnx")
    options = {"calib": data, **WIDE} if precision == "int8" else {}
    out = tmp_path / f"out.{'xml' if fmt == 'openvino' else 'onnx'}"
    done = export(source, fmt, precision=precision, check=data, out=out, allow_overlap=True,
                  **options)  # fmt: skip
    assert done.checks is not None
    assert done.checks.passed
    if fmt == "onnx":
        graph = onnx.load(done.path).graph
        assert [value.name for value in graph.output] == ["logits"]
        assert sum(node.op_type == "Gemm" for node in graph.node) == 1


def test_a_server_gets_one_output(tmp_path: Path, data: Dataset) -> None:
    source = with_two_outputs(tmp_path / "two.onnx")
    done = export(source, "triton", check=data, out=tmp_path / "repository")
    assert (done.path / "repository" / "config.pbtxt").read_text().count("output {") == 1


SHAPES: dict[str, list[Node]] = {
    "(N, C, 1, 1)": [*NODES[:-1], ("Gemm", ["flat", "w3", "b3"], "rows", {"transB": 1}),
                     ("Unsqueeze", ["rows", "last"], "logits")],
    "(N, 1, C)": [*NODES[:-1], ("Gemm", ["flat", "w3", "b3"], "rows", {"transB": 1}),
                  ("Unsqueeze", ["rows", "second"], "logits")],
}  # fmt: skip


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("shape", SHAPES)
def test_axes_of_length_one_are_removed(shape: str, runtime: str, tmp_path: Path) -> None:
    model = plain_network(SHAPES[shape], CONSTANTS_WITH_HEADS)
    source = stored(model, tmp_path / "model.onnx")
    expected = run(plain_network(), BATCH)[0]
    with Predictor(source, runtime=runtime) as predictor:
        assert np.allclose(predictor.infer(BATCH), expected, atol=1e-5)
        assert predictor.infer(BATCH[:1]).shape == (1, 2)
    exported = export(source, "onnx", precision="fp16", out=tmp_path / "half.onnx").path
    assert run(exported, BATCH)[0].shape == (2, 2)


def test_a_vector_of_scores_is_a_column() -> None:
    scores: NDArray[np.float32] = np.arange(3, dtype=np.float32)
    assert as_rows(scores, 3).tolist() == [[0.0], [1.0], [2.0]]
    assert as_rows(scores, 1).tolist() == [[0.0, 1.0, 2.0]]
    assert as_rows(scores[:1], 1).tolist() == [[0.0]]


@pytest.mark.parametrize("shape", [(2, 3, 4, 1), (1, 3, 4), (3, 2, 1), (2, 3)])
def test_other_shapes_stay_as_they_are(shape: tuple[int, ...]) -> None:
    assert as_rows(np.zeros(shape), 2).shape == shape


@pytest.mark.parametrize("fmt", ["triton", "ovms", "openvino"])
def test_a_size_that_only_the_spec_states_is_written_into_the_network(
    fmt: str, tmp_path: Path
) -> None:
    model = plain_network(shape=("batch", "channels", "height", "width"))
    source = stored(model, tmp_path / "model.onnx")
    out = tmp_path / ("out.xml" if fmt == "openvino" else "out")
    done = export(source, fmt, out=out)
    if fmt == "openvino":
        with Predictor(done.path) as predictor:
            assert predictor.runtime.input_shape == (None, 3, SIDE, SIDE)
    if fmt == "triton":
        (written,) = out.rglob("*.onnx")
        shape = onnx.load(written).graph.input[0].type.tensor_type.shape.dim
        assert [dim.dim_value for dim in shape[1:]] == [3, SIDE, SIDE]
        assert shape[0].dim_param == "batch"


@pytest.mark.parametrize("kind", ["dictionaries", "class numbers"])
def test_an_output_that_is_no_tensor_of_scores_is_refused_at_inspect(
    kind: str, tmp_path: Path
) -> None:
    model = plain_network()
    model.graph.node[-1].output[0] = "rows"
    del model.graph.output[:]
    if kind == "dictionaries":
        model.opset_import.append(helper.make_opsetid("ai.onnx.ml", 2))
        node = helper.make_node(
            "ZipMap", ["rows"], ["logits"], domain="ai.onnx.ml", classlabels_strings=["a", "b"]
        )
        number = helper.make_map_type_proto(
            TensorProto.STRING, helper.make_tensor_type_proto(TensorProto.FLOAT, [])
        )
        kind_of = helper.make_sequence_type_proto(number)
        model.graph.output.append(helper.make_value_info("logits", kind_of))
    else:
        node = helper.make_node("ArgMax", ["rows"], ["logits"], axis=1)
        value = helper.make_tensor_value_info("logits", TensorProto.INT64, ["N", 1])
        model.graph.output.append(value)
    model.graph.node.append(node)
    with pytest.raises(SpecError, match="logits"):
        describe(stored(model, tmp_path / "model.onnx"))
