"""Weights and biases in integers: rounding by kernel, and the correction of biases."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from numpy.typing import NDArray
from onnx import numpy_helper

from edgeml.runtimes.onnx_file import read_onnx
from edgeml_export.int8.ranges import measure_ranges
from edgeml_export.int8.rounding import by_channel
from edgeml_export.int8.targets import Target
from edgeml_export.int8.to_int8 import quantize
from tests.export.graphs import inputs_of, model_of, photos, run, weights, written
from tests.export.int8.networks import CORRECTED

pytestmark = pytest.mark.runtime

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
def test_weights_are_rounded_within_a_step_and_sums_of_kernels_within_half_a_step(
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


def test_scales_are_not_below_the_lower_limit() -> None:
    weight = weights(3, 4)
    weight[1] *= 1e-9
    scale, integers = by_channel(weight, 0, np.array([0, 1e-6, 0]))
    assert scale[1] == np.float32(1e-6)
    assert not integers[1].any()
    assert (by_channel(weight, 0, 3.0)[0] == 3).all()


@pytest.mark.parametrize("case", CORRECTED)
@pytest.mark.parametrize("layout", ["x86", "tensorrt"])
def test_the_mean_error_of_rounded_weights_is_subtracted_from_the_bias(
    case: str, layout: Target, tmp_path: Path
) -> None:
    """Images of one colour have no edges, where means differ from those inside."""
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
    """Return the source with the rounded weight of a layer, and the bias if wanted."""
    mixed = read_onnx(source)
    known = {tensor.name for tensor in mixed.graph.initializer}
    quantized = {node.name: node for node in model.graph.node}
    for node in mixed.graph.node:
        if node.name not in ("y_node", "product_node"):
            continue
        for index, name in enumerate(quantized[node.name].input):
            is_bias = index == 2 or node.op_type == "Add"
            is_weight = index == 1 and not is_bias
            if not (is_weight or (is_bias and bias)):
                continue
            if index < len(node.input) and node.input[index] not in known:
                continue  # the layer's own output
            values = run(model, batch, name, optimized=False)[0]
            tensor = numpy_helper.from_array(values, f"{node.name}_{index}")
            mixed.graph.initializer.append(tensor)
            if index < len(node.input):
                node.input[index] = tensor.name
            else:
                node.input.append(tensor.name)
    return mixed
