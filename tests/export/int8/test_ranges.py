"""Ranges against numpy on the tensors themselves, and the file that stores them."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterator
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
from onnx import TensorProto

from edgeml.errors import CalibrationError, ExportError
from edgeml_export.int8 import ranges as module
from edgeml_export.int8.calibration import Calibration
from edgeml_export.int8.histogram import METHODS, PERCENTILE
from edgeml_export.int8.ranges import Ranges, ranges_for
from tests.export.graphs import SPEC, inputs_of, model_of, photos, run, weights
from tests.notes import Notes

pytestmark = pytest.mark.runtime

TENSORS = ("input", "first", "cut", "zero", "const")
CHANNELS = (("input", 1), ("cut", 1), ("flat", -1))


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> Calibration:
    return photos(tmp_path_factory.mktemp("photos"), count=7)


@pytest.fixture(scope="module")
def network() -> onnx.ModelProto:
    return model_of(
        [
            ("Conv", ["input", "w"], "first"),
            ("Relu", ["first"], "cut"),
            ("Mul", ["cut", "nothing"], "zero"),
            ("Add", ["zero", "half"], "const"),
            ("GlobalAveragePool", ["cut"], "pooled"),
            ("Flatten", ["pooled"], "flat"),
            ("Gemm", ["flat", "head"], "logits", {"transB": 1}),
        ],
        {
            "w": weights(8, 3, 3, 3),
            "nothing": np.float32(0),
            "half": np.float32(0.3),
            "head": weights(2, 8),
        },
    )


@pytest.fixture(scope="module")
def measured(network: onnx.ModelProto, calibration: Calibration) -> Ranges:
    return ranges_for(network, TENSORS, CHANNELS, SPEC, calibration)


@pytest.fixture(scope="module")
def tensors(network: onnx.ModelProto, calibration: Calibration) -> dict[str, NDArray[np.float32]]:
    names = ("first", "cut", "flat", "zero", "const")
    batch = inputs_of(calibration)
    return {"input": batch, **dict(zip(names, run(network, batch, *names), strict=True))}


def test_the_limits_are_those_of_all_images(
    measured: Ranges, tensors: dict[str, NDArray[np.float32]]
) -> None:
    assert measured.images == 7
    found = measured.by("minmax")
    assert set(found) == set(TENSORS)
    for name, (low, high) in found.items():
        assert low == pytest.approx(min(0.0, tensors[name].min()), rel=1e-5)
        assert high == pytest.approx(max(0.0, tensors[name].max()), rel=1e-5)


def test_the_range_by_percentile_is_numpys_within_a_bin(
    measured: Ranges, tensors: dict[str, NDArray[np.float32]]
) -> None:
    tail = (100 - PERCENTILE) / 2
    for name in ("input", "first", "cut"):
        values = tensors[name].astype(np.float64)
        reach = 2.0 ** math.ceil(math.log2(np.abs(values).max()))
        expected = np.percentile(values, [tail, 100 - tail], method="inverted_cdf")
        got = measured.by("percentile")[name]
        np.testing.assert_allclose(
            got, [min(0, expected[0]), max(0, expected[1])], atol=reach / 2048
        )


def test_means_of_channels_are_numpys(
    measured: Ranges, tensors: dict[str, NDArray[np.float32]]
) -> None:
    assert set(measured.means) == set(CHANNELS)
    for name in ("input", "cut"):
        expected = tensors[name].mean(axis=(0, 2, 3), dtype=np.float64)
        np.testing.assert_allclose(measured.means[name, 1], expected, rtol=1e-5, atol=1e-6)
    expected = tensors["flat"].mean(axis=0, dtype=np.float64)
    np.testing.assert_allclose(measured.means["flat", -1], expected, rtol=1e-5, atol=1e-6)


def test_a_constant_tensor_has_a_range(
    measured: Ranges,
) -> None:
    for method in METHODS:
        assert measured.by(method)["zero"] == (0.0, 0.0)
        low, high = measured.by(method)["const"]
        assert low == 0
        assert high == pytest.approx(0.3, abs=0.5 / 2048)


def test_every_range_is_within_the_limits_of_the_values(measured: Ranges) -> None:
    for ranges in measured.tensors.values():
        for low, high in ranges.values():
            assert ranges["minmax"][0] <= low <= 0 <= high <= ranges["minmax"][1]


@pytest.mark.parametrize("size", [1, 3, 8])
def test_a_fixed_batch_has_the_ranges_of_its_twin_with_any_batch(
    size: int, network: onnx.ModelProto, calibration: Calibration, measured: Ranges
) -> None:
    fixed = onnx.ModelProto()
    fixed.CopyFrom(network)
    for value in (*fixed.graph.input, *fixed.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = size
    found = ranges_for(fixed, TENSORS, CHANNELS, SPEC, calibration)
    assert found.tensors == measured.tensors
    for key, means in measured.means.items():
        np.testing.assert_array_equal(found.means[key], means)


def test_nan_and_infinity_are_refused_with_the_tensors_name(
    calibration: Calibration,
) -> None:
    model = model_of(
        [
            ("Log", ["input"], "broken"),  # some inputs are below 0
            ("GlobalAveragePool", ["broken"], "p"),
            ("Flatten", ["p"], "logits"),
        ],
        {},
    )
    with pytest.raises(CalibrationError, match="'broken' is not finite"):
        ranges_for(model, ["broken"], [], SPEC, calibration)


def test_a_network_that_cannot_run_is_fields(calibration: Calibration) -> None:
    model = model_of([("Flatten", ["input"], "f"), ("Sigmoid", ["f"], "logits")], {})
    model.graph.node[1].op_type = "NoSuchOperator"
    with pytest.raises(ExportError, match="cannot run the network"):
        ranges_for(model, ["f"], [], SPEC, calibration)


def test_raw_uint8_frames_are_measured_as_the_network_takes_them(calibration: Calibration) -> None:
    model = model_of(
        [
            ("Cast", ["input"], "float", {"to": TensorProto.FLOAT}),
            ("Transpose", ["float"], "image", {"perm": [0, 3, 1, 2]}),
            ("GlobalAveragePool", ["image"], "p"),
            ("Flatten", ["p"], "logits"),
        ],
        {},
        dtype=TensorProto.UINT8,
        shape=("N", 16, 16, 3),
    )
    spec = replace(SPEC, input="uint8")
    batch = inputs_of(calibration, spec)
    assert batch.dtype == np.uint8
    found = ranges_for(model, ["image"], [("image", 1)], spec, calibration)
    assert found.by("minmax")["image"] == (0.0, float(batch.max()))
    expected = batch.mean(axis=(0, 1, 2))
    np.testing.assert_allclose(found.means["image", 1], expected, rtol=1e-5)


# The file.

names = st.text(max_size=12)
ends = st.floats(0, 1e30)
range_pairs = st.builds(lambda low, high: (-low, high), ends, ends)
hexadecimal = st.text("0123456789abcdef", min_size=64, max_size=64)
known_ranges = st.builds(
    Ranges,
    network_sha256=hexadecimal,
    calibration_sha256=hexadecimal,
    images=st.integers(1, 10**6),
    tensors=st.dictionaries(names, st.fixed_dictionaries(dict.fromkeys(METHODS, range_pairs))),
    means=st.dictionaries(
        st.tuples(names, st.integers(-4, 4)),
        arrays(np.float32, st.integers(0, 5), elements=st.floats(-(2.0**99), 2.0**99, width=32)),
    ),
)


@settings(deadline=None)
@given(known_ranges)
def test_ranges_are_read_as_they_are_written(ranges: Ranges) -> None:
    again = Ranges.from_json(ranges.to_json())
    assert again.tensors == ranges.tensors, "to the last bit"
    assert replace(again, means={}) == replace(ranges, means={})
    assert again.means.keys() == ranges.means.keys()
    for key, values in ranges.means.items():
        np.testing.assert_allclose(again.means[key], values, rtol=1e-5)
    assert again.to_json() == Ranges.from_json(again.to_json()).to_json()


def test_real_ranges_are_read_as_they_are_written(measured: Ranges) -> None:
    text = measured.to_json()
    assert Ranges.from_json(text).to_json() == text
    assert len(text.splitlines()) > len(measured.tensors) + len(measured.means)


def variants(fields: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield files that are almost right."""
    for field in fields:
        yield {key: value for key, value in fields.items() if key != field}
        for wrong in (None, [], 3, "x", {"a": 1}, {"a:b": "c"}, {"a:1": [["x"]]}):
            if not (field in ("network_sha256", "calibration_sha256") or wrong == fields[field]):
                yield {**fields, field: wrong}
    yield {**fields, "format": "edgeml.ranges/2"}
    yield {**fields, "images": math.inf}
    yield {**fields, "images": "many"}
    for pair in ([1, 2], [-2, -1], [0], [0, 1, 2], [0, math.inf], [math.nan, 0], "x", [0, "x"]):
        yield {**fields, "tensors": {"t": dict.fromkeys(METHODS, pair)}}
    yield {**fields, "tensors": {"t": {"minmax": [0, 1]}}}
    yield {**fields, "tensors": {"t": dict.fromkeys(METHODS, (0, 10**400))}}
    for means in ([math.nan], [1e300], [10**400], ["x"], [[1.0]], 3.0):
        yield {**fields, "means": {"t:1": means}}
    yield {**fields, "means": {"t": [1.0]}}


def test_other_json_is_refused(measured: Ranges) -> None:
    fields = json.loads(measured.to_json())
    accepted = []
    for other in (*variants(fields), [], None, 3, "text", {}):
        with contextlib.suppress(CalibrationError):
            Ranges.from_json(json.dumps(other))
            accepted.append(other)
    assert accepted == [{**fields, "images": 3}]


@given(st.binary(max_size=60))
def test_any_bytes_are_refused(content: bytes) -> None:
    with contextlib.suppress(UnicodeDecodeError):
        text = content.decode()
        with pytest.raises(CalibrationError):
            Ranges.from_json(text)


@given(st.data())
def test_a_file_with_a_hole_is_read_or_refused(data: st.DataObject) -> None:
    text = (
        '{"format": "edgeml.ranges/1", "network_sha256": "a", "calibration_sha256": "b", '
        '"images": 2, "tensors": {"t": {"minmax": [-1, 2], "percentile": [0, 1], '
        '"entropy": [0, 1]}}, "means": {"t:1": [0.5, 1]}}'
    )
    start = data.draw(st.integers(0, len(text)))
    stop = data.draw(st.integers(start, min(len(text), start + 6)))
    filling = data.draw(st.text('0123456789.-e[]{}",:\x00\ud800 \u0664', max_size=4))
    with contextlib.suppress(CalibrationError):
        read = Ranges.from_json(text[:start] + filling + text[stop:])
        assert Ranges.from_json(read.to_json()).to_json() == read.to_json()
        for ranges in read.tensors.values():
            assert all(low <= 0 <= high for low, high in ranges.values())


def test_json_that_is_too_deep_is_refused() -> None:
    with pytest.raises(CalibrationError):
        Ranges.from_json("[" * 100_000)


def forbid_measuring(monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(*_: object) -> None:
        raise AssertionError("the network was run")

    monkeypatch.setattr(module, "_measure", measure)


def test_stored_ranges_are_used_without_running_the_network(
    network: onnx.ModelProto,
    calibration: Calibration,
    measured: Ranges,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cache = tmp_path / "cache.json"
    ranges_for(network, TENSORS, CHANNELS, SPEC, calibration, cache=cache)
    content = cache.read_bytes()
    forbid_measuring(monkeypatch)
    for images in (calibration, None):
        progress = Notes()
        again = ranges_for(network, TENSORS, CHANNELS, SPEC, images, cache=cache, progress=progress)
        assert again.to_json() == measured.to_json()
        assert "7 images" in progress.lines[0]
    assert cache.read_bytes() == content


def test_stored_ranges_of_other_images_are_replaced(
    network: onnx.ModelProto, calibration: Calibration, measured: Ranges, tmp_path: Path
) -> None:
    cache = tmp_path / "cache.json"
    other = photos(tmp_path / "others", count=3, seed=5)
    first = ranges_for(network, TENSORS, CHANNELS, SPEC, other, cache=cache)
    assert Ranges.from_json(cache.read_text()).calibration_sha256 == other.digest
    again = ranges_for(network, TENSORS, CHANNELS, SPEC, calibration, cache=cache)
    assert again.to_json() == cache.read_text() == measured.to_json() != first.to_json()


def test_stored_ranges_of_another_network_are_replaced_or_refused_without_images(
    network: onnx.ModelProto, calibration: Calibration, tmp_path: Path
) -> None:
    cache = tmp_path / "cache.json"
    other = onnx.ModelProto()
    other.CopyFrom(network)
    # One bit of one weight.
    raw = bytearray(other.graph.initializer[0].raw_data)
    raw[0] ^= 1
    other.graph.initializer[0].raw_data = bytes(raw)
    ranges_for(other, TENSORS, CHANNELS, SPEC, calibration, cache=cache)
    half = replace(SPEC, preprocess=replace(SPEC.preprocess, mean=(0.5, 0.5, 0.5)))
    for expected in (
        (network, TENSORS, CHANNELS, SPEC),
        (other, TENSORS[1:], CHANNELS, SPEC),
        (other, TENSORS, CHANNELS[1:], SPEC),
        (other, TENSORS, CHANNELS, half),
    ):
        with pytest.raises(CalibrationError, match="--calib"):
            ranges_for(*expected, None, cache=cache)
    before = cache.read_text()
    ranges_for(network, TENSORS, CHANNELS, SPEC, calibration, cache=cache)
    assert cache.read_text() != before


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"format": "edgeml.ranges/1"}'])
def test_a_damaged_file_is_measured_again_and_replaced(
    network: onnx.ModelProto,
    calibration: Calibration,
    measured: Ranges,
    content: bytes,
    tmp_path: Path,
) -> None:
    cache = tmp_path / "cache.json"
    cache.write_bytes(content)
    with pytest.raises(CalibrationError, match="--calib"):
        ranges_for(network, TENSORS, CHANNELS, SPEC, None, cache=cache)
    ranges_for(network, TENSORS, CHANNELS, SPEC, calibration, cache=cache)
    assert cache.read_text() == measured.to_json()


def test_without_images_and_without_a_file_the_message_names_the_option(
    network: onnx.ModelProto,
) -> None:
    with pytest.raises(CalibrationError, match="--calib DATA"):
        ranges_for(network, TENSORS, CHANNELS, SPEC, None)


def test_measured_ranges_equal_the_stored_ones(
    network: onnx.ModelProto, calibration: Calibration, tmp_path: Path
) -> None:
    cache = tmp_path / "cache.json"
    measured = ranges_for(network, TENSORS, CHANNELS, SPEC, calibration, cache=cache)
    again = ranges_for(network, TENSORS, CHANNELS, SPEC, None, cache=cache)
    assert measured.tensors == again.tensors
    assert measured.means.keys() == again.means.keys()
    for key, means in measured.means.items():
        np.testing.assert_array_equal(means, again.means[key])
