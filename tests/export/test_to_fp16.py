from __future__ import annotations

import logging
import platform
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from numpy.typing import NDArray
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from edgeml import ModelSpec, Predictor, Preprocess
from edgeml.data import Dataset
from edgeml.errors import ExportError, InferenceError
from edgeml.runtimes.onnx_file import read_onnx, spec_of_onnx, write_onnx
from edgeml_export.int8.calibration import choose_calibration
from edgeml_export.int8.ranges import measure_ranges
from edgeml_export.int8.to_int8 import int8_from_onnx
from edgeml_export.to_fp16 import fp16_emulation_from_onnx, fp16_from_onnx, overflows
from edgeml_export.to_onnx import onnx_from_checkpoint

pytestmark = [pytest.mark.train, pytest.mark.runtime]

FLOAT, FLOAT16 = onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16


def types_of_values(model: onnx.ModelProto) -> dict[str, int]:
    inferred = onnx.shape_inference.infer_shapes(model, strict_mode=True).graph
    values = (*inferred.value_info, *inferred.input, *inferred.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    return types | {tensor.name: tensor.data_type for tensor in inferred.initializer}


def of_nodes(
    path: Path, nodes: list[onnx.NodeProto], constants: dict[str, NDArray[np.generic]]
) -> Path:
    """Write a network from `images` (N, 3, 4, 4) to one logit, `logits`."""
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes,
        "net",
        [value("images", FLOAT, ["batch", 3, 4, 4])],
        [value("logits", FLOAT, ["batch", 1])],
        [numpy_helper.from_array(values, name) for name, values in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    spec = ModelSpec(labels=("a",), thresholds=(0.5,), preprocess=Preprocess(size=(4, 4)))
    write_onnx(model, path, spec)
    return path


def overflowing(path: Path) -> Path:
    """A network whose values grow to some 1e6 and come back: right in FP32, infinite in FP16."""
    node = helper.make_node
    return of_nodes(
        path,
        [
            node("Conv", ["images", "grow"], ["large"], name="grower"),
            node("Relu", ["large"], ["positive"], name="carrier"),
            node("Conv", ["positive", "shrink"], ["small"], name="shrinker"),
            node("GlobalAveragePool", ["small"], ["pooled"], name="pool"),
            node("Flatten", ["pooled"], ["logits"], name="flatten"),
        ],
        {
            "grow": np.full((2, 3, 1, 1), 3e5 / 8, np.float32),
            "shrink": np.full((1, 2, 1, 1), 1e-3, np.float32),
        },
    )


def run(path: Path, batch: NDArray[np.float32]) -> NDArray[np.float32]:
    session = ort.InferenceSession(path, providers=["CPUExecutionProvider"])
    (logits,) = session.run(None, {"images": batch})
    return np.asarray(logits)


BRIGHT = np.full((2, 3, 4, 4), 2.0, np.float32)


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
    assert [entry.version for entry in model.opset_import] == [18]


def test_logits_differ_by_less_than_a_hundredth_of_their_spread(
    network: Path, test_part: Dataset, tmp_path: Path
) -> None:
    # FP16 rounds to 11 bits, 0.05 % each time; ten layers of independent roundings stay below 1 %.
    fp16 = fp16_from_onnx(network, tmp_path / "fp16.onnx")
    with (
        Predictor(network) as first,
        Predictor(fp16) as second,
        Predictor(fp16_emulation_from_onnx(fp16, tmp_path / "rounded.onnx")) as third,
    ):
        frames = [first.read(path) for path in test_part.paths]
        expected, got, rounded = (each.logits(frames) for each in (first, second, third))
    assert 0 < np.abs(got - expected).max() < 0.01 * expected.std()
    assert 0 < np.abs(rounded - expected).max() < 0.01 * expected.std()


def test_norms_softmax_and_means_of_a_transformer_stay_fp32(vit: Path, tmp_path: Path) -> None:
    model = read_onnx(fp16_from_onnx(vit, tmp_path / "vit.fp16.onnx"))
    types = types_of_values(model)
    nodes = [n for n in model.graph.node if n.op_type in ("LayerNormalization", "Softmax")]
    assert {node.op_type for node in nodes} == {"LayerNormalization", "Softmax"}
    assert {types[name] for node in nodes for name in (*node.input, *node.output)} == {FLOAT}
    products = [node for node in model.graph.node if node.op_type == "MatMul"]
    assert {types[name] for node in products for name in node.input} == {FLOAT16}


def test_the_mean_before_the_head_stays_fp32(resnet: Path, tmp_path: Path) -> None:
    model = read_onnx(fp16_from_onnx(resnet, tmp_path / "resnet.fp16.onnx"))
    types = types_of_values(model)
    means = [n for n in model.graph.node if n.op_type in ("ReduceMean", "GlobalAveragePool")]
    assert means
    assert {types[name] for node in means for name in (node.input[0], *node.output)} == {FLOAT}


@pytest.mark.parametrize("name", ["network", "vit", "resnet"])
def test_every_value_exists_before_it_is_read(
    name: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    graph = read_onnx(fp16_from_onnx(request.getfixturevalue(name), tmp_path / "fp16.onnx")).graph
    known = {"", *(value.name for value in (*graph.input, *graph.initializer))}
    for node in graph.node:
        assert set(node.input) <= known
        known.update(node.output)
    assert len({node.name for node in graph.node}) == len(graph.node)


def test_a_model_with_raw_frames_keeps_its_cast_at_the_front(
    request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    source = onnx_from_checkpoint(
        request.getfixturevalue("run"), tmp_path / "raw.onnx", input="uint8"
    )
    path = fp16_from_onnx(source, tmp_path / "raw.fp16.onnx")
    assert read_onnx(path).graph.node[0].op_type == "Cast"
    frame = np.random.default_rng(0).integers(0, 256, (40, 40, 3), np.uint8)
    with Predictor(source) as first, Predictor(path) as second:
        expected = first.logits([frame])
        assert np.abs(second.logits([frame]) - expected).max() < 0.01 * np.abs(expected).max()


def test_a_weight_beyond_fp16_keeps_its_layer_in_fp32(network: Path, tmp_path: Path) -> None:
    model = read_onnx(network)
    node = next(node for node in model.graph.node if node.op_type == "Conv")
    weights = next(each for each in model.graph.initializer if each.name == node.input[1])
    values = numpy_helper.to_array(weights).copy()
    values.flat[0] = 1e6
    weights.CopyFrom(numpy_helper.from_array(values, weights.name))
    onnx.save(model, tmp_path / "large.onnx")
    fp16 = read_onnx(fp16_from_onnx(tmp_path / "large.onnx", tmp_path / "large.fp16.onnx"))
    types = types_of_values(fp16)
    assert types[weights.name] == FLOAT
    others = [n for n in fp16.graph.node if n.op_type == "Conv" and n.name != node.name]
    assert {types[name] for other in others for name in other.input} == {FLOAT16}


def test_an_overflow_inside_shows_in_the_emulation_as_in_onnx_s_own_reference(
    tmp_path: Path,
) -> None:
    source = overflowing(tmp_path / "net.onnx")
    fp16 = fp16_from_onnx(source, tmp_path / "fp16.onnx")
    assert np.isfinite(run(source, BRIGHT)).all()
    with np.errstate(over="ignore"):
        (reference,) = ReferenceEvaluator(str(fp16)).run(None, {"images": BRIGHT})
    assert np.isinf(reference).all()
    emulation = fp16_emulation_from_onnx(fp16, tmp_path / "emulation.onnx")
    assert np.isinf(run(emulation, BRIGHT)).all()
    bright = np.full((4, 4, 3), 255, np.uint8)
    with (
        Predictor(emulation) as predictor,
        pytest.raises(InferenceError, match="not a finite number"),
    ):
        predictor.predict(bright)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="Arm has kernels for FP16")
def test_onnx_runtime_on_x86_does_not_show_an_overflow(tmp_path: Path) -> None:
    """The reason for the emulation. If this fails one day, the emulation may not be needed."""
    fp16 = fp16_from_onnx(overflowing(tmp_path / "net.onnx"), tmp_path / "fp16.onnx")
    assert np.isfinite(run(fp16, BRIGHT)).all()


def test_the_emulation_rounds_as_onnx_s_own_reference(network: Path, tmp_path: Path) -> None:
    fp16 = fp16_from_onnx(network, tmp_path / "fp16.onnx")
    emulation = fp16_emulation_from_onnx(fp16, tmp_path / "emulation.onnx")
    batch = np.random.default_rng(0).normal(size=(1, 3, 40, 40)).astype(np.float32)
    (reference,) = ReferenceEvaluator(str(fp16)).run(None, {"images": batch})
    exact = run(network, batch)
    # The reference sums in FP16 too, so the two agree only in their size of error.
    error = np.abs(run(emulation, batch) - exact).max()
    assert 0.1 < error / np.abs(reference - exact).max() < 10


def test_the_layers_that_overflow_are_found_and_in_fp32_they_are_right(tmp_path: Path) -> None:
    source = overflowing(tmp_path / "net.onnx")
    found = overflows(source, [0.01 * BRIGHT, BRIGHT])
    assert found == pytest.approx(dict.fromkeys(("grower", "carrier", "shrinker"), 225_000))
    fp16 = fp16_from_onnx(source, tmp_path / "fp16.onnx", keep=found)
    emulation = fp16_emulation_from_onnx(fp16, tmp_path / "emulation.onnx")
    np.testing.assert_allclose(run(emulation, BRIGHT), run(source, BRIGHT), rtol=2e-3)


@pytest.mark.parametrize(("share", "named"), [(0.6, True), (0.4, False)])
def test_a_value_near_an_overflow_counts_as_one(share: float, named: bool, tmp_path: Path) -> None:
    source = overflowing(tmp_path / "net.onnx")
    assert bool(overflows(source, [BRIGHT * np.float32(share * 65504 / 225_000)])) == named


def test_a_fixed_batch_is_searched_for_overflows_too(tmp_path: Path) -> None:
    model = read_onnx(overflowing(tmp_path / "net.onnx"))
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = 3
    onnx.save(model, tmp_path / "fixed.onnx")
    found = overflows(tmp_path / "fixed.onnx", [BRIGHT])
    assert set(found) == {"grower", "carrier", "shrinker"}


def test_nothing_overflows_in_a_usual_network(network: Path, test_part: Dataset) -> None:
    with Predictor(network) as predictor:
        batch = predictor.prepare([predictor.read(path) for path in test_part.paths[:4]])
    assert overflows(network, [batch]) == {}


def test_nan_counts_as_an_overflow(tmp_path: Path) -> None:
    source = overflowing(tmp_path / "net.onnx")
    assert "grower" in overflows(source, [np.full((1, 3, 4, 4), np.nan, np.float32)])


@pytest.fixture(scope="module")
def quantized(
    network: Path, data: Dataset, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("quantized")
    ranges = measure_ranges(network, choose_calibration(data, data.labels, limit=30))
    return {
        layout: int8_from_onnx(network, folder / f"{layout}.onnx", ranges, layout=layout)
        for layout in ("x86", "openvino")
    }


@pytest.mark.parametrize("layout", ["x86", "openvino"])
def test_an_int8_model_gets_fp16_scales_and_means_the_same(
    layout: str, quantized: dict[str, Path], test_part: Dataset, tmp_path: Path
) -> None:
    source = quantized[layout]
    path = fp16_from_onnx(source, tmp_path / "int8.fp16.onnx")
    model = read_onnx(path)
    types = types_of_values(model)
    assert [entry.version for entry in model.opset_import if entry.domain == ""] == [19]
    assert model.ir_version <= 10
    quantizers = [node for node in model.graph.node if node.op_type == "QuantizeLinear"]
    assert quantizers
    assert {types[node.input[1]] for node in quantizers} == {FLOAT16}
    layers = [node for node in model.graph.node if node.op_type == "Conv"]
    makers = {name: node.op_type for node in model.graph.node for name in node.output}
    assert {makers[node.input[0]] for node in layers} == {"DequantizeLinear"}
    spec = spec_of_onnx(model, path)
    assert (spec.precision, spec.provenance.arithmetic) == ("int8", "fp16")
    emulation = fp16_emulation_from_onnx(path, tmp_path / "emulation.onnx")
    with Predictor(source) as first, Predictor(path) as second, Predictor(emulation) as third:
        frames = [first.read(image) for image in test_part.paths]
        expected = first.logits(frames)
        for other in (second, third):
            rms = np.sqrt(np.mean((other.logits(frames) - expected) ** 2))
            # A value at the edge of two steps may take the other one; nothing else changes.
            assert 0 < rms < 0.02 * expected.std()


@pytest.mark.parametrize(("scale", "kind"), [(2.0**-14, FLOAT16), (2.0**-15, FLOAT)])
def test_a_scale_that_fp16_would_lose_bits_of_stays_fp32(
    scale: float, kind: int, tmp_path: Path
) -> None:
    node = helper.make_node
    source = of_nodes(
        tmp_path / "net.onnx",
        [
            node("DequantizeLinear", ["kernel", "scale", "zero"], ["weights"], axis=0),
            node("Conv", ["images", "weights"], ["map"]),
            node("GlobalAveragePool", ["map"], ["pooled"]),
            node("Flatten", ["pooled"], ["logits"]),
        ],
        {
            "kernel": np.arange(3, dtype=np.int8).reshape(1, 3, 1, 1),
            "scale": np.array([scale], np.float32),
            "zero": np.zeros(1, np.int8),
        },
    )
    model = read_onnx(fp16_from_onnx(source, tmp_path / "fp16.onnx"))
    types = types_of_values(model)
    (dequantizer,) = (n for n in model.graph.node if n.op_type == "DequantizeLinear")
    (layer,) = (n for n in model.graph.node if n.op_type == "Conv")
    assert types[dequantizer.input[1]] == kind
    assert {types[name] for name in layer.input} == {FLOAT16}


def test_a_constant_that_two_nodes_share_is_there_in_both_types(tmp_path: Path) -> None:
    node = helper.make_node
    source = of_nodes(
        tmp_path / "net.onnx",
        [
            node("Add", ["images", "three"], ["a"]),
            node("LayerNormalization", ["images", "three"], ["e"]),
            node("Mul", ["a", "e"], ["b"]),
            node("ReduceMean", ["b"], ["c"], keepdims=0, noop_with_empty_axes=0),
            node("ReduceMean", ["images", "axes"], ["d"], keepdims=0),
            node("Unsqueeze", ["d", "one"], ["f"]),
            node("Add", ["f", "c"], ["logits"]),
        ],
        {
            "three": np.full(BRIGHT.shape[-1], 3, np.float32),
            "axes": np.array([1, 2, 3], np.int64),
            "one": np.array([1], np.int64),
        },
    )
    fp16 = fp16_from_onnx(source, tmp_path / "fp16.onnx")
    kinds = [t.data_type for t in read_onnx(fp16).graph.initializer if t.name.startswith("three")]
    assert sorted(kinds) == [FLOAT, FLOAT16]
    emulation = fp16_emulation_from_onnx(fp16, tmp_path / "emulation.onnx")
    np.testing.assert_allclose(run(emulation, BRIGHT), run(source, BRIGHT), rtol=2e-3)


def test_constants_inside_of_nodes_are_fp16_where_fp16_holds_them(tmp_path: Path) -> None:
    def constant(name: str, value: float) -> onnx.NodeProto:
        tensor = numpy_helper.from_array(np.array(value, np.float32), name)
        return helper.make_node("Constant", [], [name], value=tensor)

    node = helper.make_node
    source = of_nodes(
        tmp_path / "net.onnx",
        [
            constant("two", 2.0),
            constant("large", 1e6),
            node("Constant", [], ["half"], value_float=0.5),
            node("Mul", ["images", "two"], ["a"]),
            node("Mul", ["a", "half"], ["b"]),
            node("Min", ["b", "large"], ["c"]),
            node("ReduceMax", ["c", "axes"], ["d"], keepdims=0),
            node("Unsqueeze", ["d", "one"], ["logits"]),
        ],
        {"axes": np.array([1, 2, 3], np.int64), "one": np.array([1], np.int64)},
    )
    fp16 = fp16_from_onnx(source, tmp_path / "fp16.onnx")
    types = types_of_values(onnx.load(fp16))
    assert [types[name] for name in ("two", "large", "half")] == [FLOAT16, FLOAT, FLOAT]
    np.testing.assert_array_equal(run(fp16, BRIGHT), run(source, BRIGHT))


def test_control_flow_is_refused_by_name(network: Path, tmp_path: Path) -> None:
    model = read_onnx(network)
    value = helper.make_tensor_value_info
    branch = helper.make_graph(
        [helper.make_node("Identity", ["logits"], ["same"])],
        "branch",
        [],
        [value("same", FLOAT, None)],
    )
    largest = helper.make_node("ReduceMax", ["logits"], ["largest"], keepdims=0)
    model.graph.node.extend([largest, helper.make_node("Cast", ["largest"], ["yes"], to=9)])
    model.graph.node.append(
        helper.make_node("If", ["yes"], ["chosen"], then_branch=branch, else_branch=branch)
    )
    onnx.save(model, tmp_path / "branching.onnx")
    with pytest.raises(ExportError, match=r"control flow \(If\)"):
        fp16_from_onnx(tmp_path / "branching.onnx", tmp_path / "fp16.onnx")
    assert not (tmp_path / "fp16.onnx").exists()


@pytest.mark.skipif(platform.machine() != "x86_64", reason="Arm has kernels for FP16")
def test_opening_an_fp16_file_on_x86_tells_that_it_is_no_faster_there(
    network: Path,
    quantized: dict[str, Path],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fp16 = fp16_from_onnx(network, tmp_path / "fp16.onnx")
    both = fp16_from_onnx(quantized["x86"], tmp_path / "both.onnx")
    emulation = fp16_emulation_from_onnx(fp16, tmp_path / "emulation.onnx")
    with caplog.at_level(logging.WARNING, logger="edgeml"):
        for path in (network, quantized["x86"], emulation, fp16, both):
            Predictor(path).close()
        Predictor(fp16, runtime="openvino").close()
    names = [record.getMessage().split(":")[0] for record in caplog.records]
    assert names == ["fp16.onnx", "both.onnx"]
    assert "computes FP16 files in FP32 on x86" in caplog.text
