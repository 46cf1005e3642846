from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from edgeml import Predictor
from edgeml.data import Dataset
from edgeml_export.artifact import read_onnx, spec_of_onnx
from edgeml_export.to_fp16 import fp16_from_onnx
from edgeml_export.to_onnx import onnx_from_checkpoint

pytestmark = [pytest.mark.train, pytest.mark.runtime]

FLOAT, FLOAT16 = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16


def types_of_values(model: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model).graph
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {tensor.name: tensor.data_type for tensor in inferred.initializer}


def test_weights_are_fp16_and_inputs_and_outputs_stay_fp32(network: Path, tmp_path: Path) -> None:
    path = fp16_from_onnx(network, tmp_path / "model.fp16.onnx")
    model = read_onnx(path)
    types = types_of_values(model)
    assert types["images"] == types["logits"] == FLOAT
    convolutions = [node for node in model.graph.node if node.op_type == "Conv"]
    assert convolutions
    assert {types[name] for node in convolutions for name in node.input} == {FLOAT16}
    assert path.stat().st_size < 0.55 * network.stat().st_size
    assert spec_of_onnx(model, path).precision == "fp16"


def test_logits_differ_by_less_than_a_hundredth_of_their_spread(
    network: Path, test_part: Dataset, tmp_path: Path
) -> None:
    # FP16 rounds to 11 bits, 0.05 % each time; ten layers of independent roundings stay below 1 %.
    with (
        Predictor(network) as first,
        Predictor(fp16_from_onnx(network, tmp_path / "model.onnx")) as second,
    ):
        frames = [first.read(path) for path in test_part.paths]
        expected, got = first.logits(frames), second.logits(frames)
    assert 0 < np.abs(got - expected).max() < 0.01 * expected.std()


def test_norms_softmax_and_means_of_a_transformer_stay_fp32(vit: Path, tmp_path: Path) -> None:
    model = read_onnx(fp16_from_onnx(vit, tmp_path / "vit.fp16.onnx"))
    types = types_of_values(model)
    kept = [n for n in model.graph.node if n.op_type in ("LayerNormalization", "Softmax")]
    assert {node.op_type for node in kept} == {"LayerNormalization", "Softmax"}
    assert {types[node.input[0]] for node in kept} == {FLOAT}
    products = [node for node in model.graph.node if node.op_type == "MatMul"]
    assert {types[name] for node in products for name in node.input} == {FLOAT16}


def test_a_model_with_raw_frames_keeps_its_cast_at_the_front(run: Path, tmp_path: Path) -> None:
    source = onnx_from_checkpoint(run, tmp_path / "raw.onnx", input="uint8")
    path = fp16_from_onnx(source, tmp_path / "raw.fp16.onnx")
    assert read_onnx(path).graph.node[0].op_type == "Cast"
    frame = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    with Predictor(source) as first, Predictor(path) as second:
        expected = first.logits([frame])
        assert np.abs(second.logits([frame]) - expected).max() < 0.01 * np.abs(expected).max()


def test_a_weight_beyond_fp16_is_no_warning_but_the_comparison_s_business(
    network: Path, tmp_path: Path, recwarn: pytest.WarningsRecorder
) -> None:
    model = read_onnx(network)
    weights = model.graph.initializer[0]
    values = onnx.numpy_helper.to_array(weights).copy()
    values.flat[0] = 1e6
    weights.CopyFrom(onnx.numpy_helper.from_array(values, weights.name))
    onnx.save(model, tmp_path / "large.onnx")
    fp16_from_onnx(tmp_path / "large.onnx", tmp_path / "large.fp16.onnx")
    assert not list(recwarn)
