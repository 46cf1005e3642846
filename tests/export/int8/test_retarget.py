"""INT8 files of other tools, rewritten for TensorRT: the same numbers, in types it takes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from edgeml.errors import ExportError
from edgeml.runtimes.onnx_file import read_onnx, spec_of_onnx
from edgeml.runtimes.tensorrt.legality import refused_by_tensorrt
from edgeml_export.int8.calibration import choose_calibration
from edgeml_export.int8.ranges import Ranges, measure_ranges
from edgeml_export.int8.retarget import retarget, retargeted_from_onnx
from edgeml_export.int8.targets import Target
from edgeml_export.int8.to_int8 import int8_from_onnx
from tests.export.graphs import Node, inputs_of, model_of, photos, run, weights
from tests.export.int8.quantized import by_onnx_runtime, float_network, quantized

pytestmark = pytest.mark.runtime


def copy(model: onnx.ModelProto) -> onnx.ModelProto:
    return onnx.ModelProto.FromString(model.SerializeToString())


def rewritten(model: onnx.ModelProto) -> tuple[onnx.ModelProto, str]:
    """Rewrite a copy, and check that the result is valid and legal."""
    other = copy(model)
    changes = retarget(other)
    onnx.checker.check_model(other, full_check=True)
    assert refused_by_tensorrt(other) == []
    return other, changes


def noise(count: int = 4, spread: float = 1.0) -> NDArray[np.float32]:
    return np.random.default_rng(0).normal(0, spread, (count, 3, 16, 16)).astype(np.float32)


def values(model: onnx.ModelProto, *names: str) -> list[NDArray[Any]]:
    """Run the nodes of the file, without what ONNX Runtime would merge."""
    return run(model, noise(), *names, optimized=False)


@pytest.mark.parametrize(
    ("options", "changes"),
    [
        ({"dtype": np.uint8, "zero": 128}, "1 activations"),
        ({"dtype": np.uint8, "zero": 120}, "1 activations"),
        ({"zero": 3}, "1 activations"),
        ({"bias": "int32"}, "1 biases"),
        ({"activation_by_channel": True}, "1 activations"),
        (
            {"dtype": np.uint8, "zero": 128, "folded": False, "bias": "int32"},
            "1 activations, 1 biases",
        ),
        (
            {"dtype": np.uint8, "zero": 128, "weight_dtype": np.int8, "output": True},
            "2 activations",
        ),
        ({"dtype": np.uint8, "zero": 128, "constants_by_nodes": True}, "1 activations"),
    ],
)
def test_a_rewritten_file_computes_the_same_except_for_one_more_rounding(
    options: dict[str, Any], changes: str
) -> None:
    model = quantized(**options)
    other, found = rewritten(model)
    assert found == changes
    (before,), (after,) = values(model), values(other)
    # A tenth of the largest output.
    np.testing.assert_allclose(after, before, atol=0.015)
    assert np.abs(before).max() > 0.15


def test_a_legal_file_stays_as_it_is() -> None:
    model = quantized(output=True)
    other, changes = rewritten(model)
    assert changes == ""
    assert other == model


def test_rewriting_twice_changes_nothing_more() -> None:
    once, _ = rewritten(quantized(dtype=np.uint8, zero=7, bias="int32"))
    twice, changes = rewritten(once)
    assert changes == ""
    assert twice == once


def test_biases_become_the_floats_of_their_integers() -> None:
    other, _ = rewritten(quantized(bias="int32"))
    bias = next(t for t in other.graph.initializer if t.name == "bd")
    expected = np.arange(4) * np.float32(0.0002)
    np.testing.assert_allclose(numpy_helper.to_array(bias), expected, rtol=1e-6)


def weight_of(model: onnx.ModelProto) -> NDArray[Any]:
    """Give what the convolution multiplies by."""
    (found,) = values(model, "wd")
    return found


def with_weights(stored: NDArray[Any], scale: Any, zero: Any) -> onnx.ModelProto:
    """Make the convolution's weights other integers."""
    model = quantized(by_channel=np.ndim(scale) > 0)
    for tensor in model.graph.initializer:
        new = {"w": stored, "ws": np.asarray(scale, np.float32), "wz": np.asarray(zero)}
        if tensor.name in new:
            tensor.CopyFrom(numpy_helper.from_array(new[tensor.name], tensor.name))
    return model


def test_weights_shifted_by_128_keep_their_integers() -> None:
    stored = np.random.default_rng(1).integers(0, 256, (4, 3, 3, 3)).astype(np.uint8)
    model = with_weights(stored, np.float32(0.01), np.uint8(128))
    other, changes = rewritten(model)
    assert changes == "1 weights"
    np.testing.assert_array_equal(weight_of(other), weight_of(model))


@pytest.mark.parametrize("channels", [True, False])
def test_weights_around_a_zero_point_are_rounded_once_more(channels: bool) -> None:
    stored = np.random.default_rng(1).integers(0, 256, (4, 3, 3, 3)).astype(np.uint8)
    stored[2] = stored[2] // 32 + 100  # a channel of small values
    scale = np.array([0.01, 0.02, 0.01, 0.005]) if channels else np.float32(0.01)
    zero = np.array([90, 100, 104, 110], np.uint8) if channels else np.uint8(104)
    model = with_weights(stored, scale, zero)
    other, changes = rewritten(model)
    assert changes == "1 weights"
    before, after = weight_of(model), weight_of(other)
    # Half a step of each output channel's own range.
    step = np.abs(before).max(axis=(1, 2, 3), keepdims=True) / 127
    assert (np.abs(after - before) <= step / 2 + 1e-6).all()


def hidden_relu() -> onnx.ModelProto:
    """Build a network whose ReLU is gone: the Q behind the convolution clamps at 0 instead."""
    nodes: list[Node] = [
        ("Conv", ["input", "w"], "y"),
        ("QuantizeLinear", ["y", "s", "z"], "q"),
        ("DequantizeLinear", ["q", "s", "z"], "d"),
        ("GlobalAveragePool", ["d"], "p"),
        ("Flatten", ["p"], "logits"),
    ]
    constants = {"w": weights(2, 3, 3, 3), "s": np.float32(0.02), "z": np.uint8(0)}
    return model_of(nodes, constants)


def test_a_relu_that_was_hidden_in_a_range_returns() -> None:
    model = hidden_relu()
    other, _ = rewritten(model)
    assert [node.op_type for node in other.graph.node].count("Relu") == 1
    (plain, before), (after,) = values(model, "y", "d"), values(other, "d")
    assert plain.min() < -1
    np.testing.assert_allclose(before, np.clip(np.rint(plain / 0.02), 0, 255) * 0.02, atol=1e-6)
    assert after.min() == 0
    np.testing.assert_allclose(after, before, atol=0.02 * (0.5 + 255 / 127 / 2) + 1e-6)


def test_a_relu_is_not_added_twice() -> None:
    model = hidden_relu()
    model.graph.node[1].input[0] = "r"
    model.graph.node.insert(1, helper.make_node("Relu", ["y"], ["r"], "relu"))
    other, _ = rewritten(model)
    assert [node.op_type for node in other.graph.node].count("Relu") == 1


def test_the_limits_of_a_range_stay() -> None:
    model = hidden_relu()
    zero = next(t for t in model.graph.initializer if t.name == "z")
    zero.CopyFrom(numpy_helper.from_array(np.uint8(20), "z"))  # -0.4 to 4.7
    other, _ = rewritten(model)
    (plain,), (before,), (after,) = values(model, "y"), values(model, "d"), values(other, "d")
    assert plain.min() < -1
    assert before.min() == pytest.approx(-0.4)
    assert after.min() == pytest.approx(-0.4, abs=4.7 / 127)


def test_raw_frames_go_into_a_cast() -> None:
    nodes: list[Node] = [
        ("Transpose", ["input"], "t", {"perm": [0, 3, 1, 2]}),
        ("Cast", ["t"], "f", {"to": TensorProto.FLOAT}),
        ("GlobalAveragePool", ["f"], "p"),
        ("Flatten", ["p"], "logits"),
    ]
    model = model_of(nodes, {}, dtype=TensorProto.UINT8, shape=("N", 16, 16, 3))
    other, changes = rewritten(model)
    assert changes == "1 inputs"
    frames = np.random.default_rng(0).integers(0, 256, (2, 16, 16, 3)).astype(np.uint8)
    np.testing.assert_array_equal(run(other, frames)[0], run(model, frames)[0])


def other_pair(model: onnx.ModelProto) -> None:
    """Let the DQ read integers otherwise than the Q writes them."""
    model.graph.initializer.append(numpy_helper.from_array(np.uint8(9), "z9"))
    model.graph.node[1].input[2] = "z9"


def blocks(model: onnx.ModelProto) -> None:
    model.graph.node[0].attribute.append(helper.make_attribute("block_size", 16))


def computed(model: onnx.ModelProto) -> None:
    model.graph.node.insert(0, helper.make_node("Identity", ["s"], ["s2"], "copy"))
    model.graph.node[1].input[1] = "s2"


def old(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 26


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (other_pair, "x_node reads integers otherwise than q_node writes them"),
        (blocks, "q_node: scales that are computed, or one for each block"),
        (computed, "q_node: scales that are computed"),
        (old, "This cannot be rewritten for TensorRT: The opset is 26"),
    ],
)
def test_a_file_that_cannot_be_rewritten_is_refused(change: Any, message: str) -> None:
    model = quantized(dtype=np.uint8, zero=7)
    change(model)
    with pytest.raises(ExportError, match=message):
        retarget(model)


def test_a_file_of_onnx_runtime_is_rewritten(tmp_path: Path) -> None:
    source = float_network(tmp_path / "source.onnx")
    theirs = pytest.importorskip("onnxruntime.quantization")
    for number, options in enumerate(
        (
            {},
            {"activation_type": theirs.QuantType.QUInt8, "per_channel": True},
            {
                "activation_type": theirs.QuantType.QUInt8,
                "weight_type": theirs.QuantType.QUInt8,
                "per_channel": False,
            },
        )
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        model = by_onnx_runtime(source, folder, **options)
        other, changes = rewritten(model)
        assert "activations" in changes
        batch = inputs_of(photos(folder / "photos", count=3))
        (fp32,), (before,), (after,) = (
            run(one, batch, optimized=False) for one in (onnx.load(source), model, other)
        )
        spread = np.abs(fp32 - fp32.mean(axis=0)).max()
        assert np.abs(after - before).max() < 0.1 * spread
        assert np.abs(before - fp32).max() < 0.2 * spread


@pytest.mark.train
@pytest.mark.parametrize("layout", ["x86", "arm", "openvino"])
@pytest.mark.parametrize("name", ["network", "resnet", "vit"])
def test_our_files_for_other_targets_are_rewritten(
    layout: Target, name: str, data: Any, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    fp32: Path = request.getfixturevalue(name)
    ranges: Ranges = measure_ranges(fp32, choose_calibration(data, data.labels, limit=16))
    theirs = int8_from_onnx(fp32, tmp_path / "theirs.onnx", ranges, layout=layout)
    changes = retargeted_from_onnx(theirs, tmp_path / "ours.onnx")
    network, spec = read_onnx(tmp_path / "ours.onnx"), spec_of_onnx(read_onnx(theirs), theirs)
    assert refused_by_tensorrt(network) == []
    provenance = spec_of_onnx(network, tmp_path / "ours.onnx").provenance
    notes = {**spec.provenance.notes, "retargeted": f"to tensorrt: {changes}"}
    assert provenance == replace(spec.provenance, notes=notes)
    batch = spec.preprocess(_frames(data))
    exact, before, after = (
        run(path, batch, optimized=False)[0] for path in (fp32, theirs, tmp_path / "ours.onnx")
    )
    spread = np.abs(exact - exact.mean(axis=0)).max()
    assert np.abs(before - exact).max() < 0.1 * spread
    assert np.abs(after - exact).max() < 0.15 * spread


def _frames(data: Any) -> list[Any]:
    from edgeml.image.reading import read_image

    return [read_image(path) for path in data.paths[::40]]
