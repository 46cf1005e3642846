"""Ranges against numpy on the tensors themselves, and the file that keeps them."""

from __future__ import annotations

import contextlib
import itertools
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
from scipy.stats import entropy

from edgeml.errors import CalibrationError, ExportError
from edgeml_export.int8 import ranges as module
from edgeml_export.int8.calibration import Calibration
from edgeml_export.int8.histogram import METHODS, PERCENTILE, Histogram, entropy_cut
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


def test_least_and_greatest_are_those_of_all_images(
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
        wanted = np.percentile(values, [tail, 100 - tail], method="inverted_cdf")
        got = measured.by("percentile")[name]
        np.testing.assert_allclose(got, [min(0, wanted[0]), max(0, wanted[1])], atol=reach / 2048)


def test_means_of_channels_are_numpys(
    measured: Ranges, tensors: dict[str, NDArray[np.float32]]
) -> None:
    assert set(measured.means) == set(CHANNELS)
    for name in ("input", "cut"):
        wanted = tensors[name].mean(axis=(0, 2, 3), dtype=np.float64)
        np.testing.assert_allclose(measured.means[name, 1], wanted, rtol=1e-5, atol=1e-6)
    wanted = tensors["flat"].mean(axis=0, dtype=np.float64)
    np.testing.assert_allclose(measured.means["flat", -1], wanted, rtol=1e-5, atol=1e-6)


def test_a_tensor_that_is_always_zero_or_the_same_has_a_range_all_the_same(
    measured: Ranges,
) -> None:
    for method in METHODS:
        assert measured.by(method)["zero"] == (0.0, 0.0)
        low, high = measured.by(method)["const"]
        assert low == 0
        assert high == pytest.approx(0.3, abs=0.5 / 2048)


def test_every_range_lies_within_what_was_seen(measured: Ranges) -> None:
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


def test_values_that_are_no_numbers_are_refused_with_the_tensors_name(
    calibration: Calibration,
) -> None:
    model = model_of(
        [
            ("Log", ["input"], "broken"),  # some of the inputs lie below 0
            ("GlobalAveragePool", ["broken"], "p"),
            ("Flatten", ["p"], "logits"),
        ],
        {},
    )
    with pytest.raises(CalibrationError, match="'broken' is not finite"):
        ranges_for(model, ["broken"], [], SPEC, calibration)


def test_infinities_are_refused_too() -> None:
    for value in (np.inf, -np.inf, np.nan):
        with pytest.raises(CalibrationError, match="'t' is not finite"):
            Histogram().add("t", np.array([1, value, -1], np.float32))


def test_a_network_that_cannot_run_is_told(calibration: Calibration) -> None:
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
    wanted = batch.mean(axis=(0, 1, 2))
    np.testing.assert_allclose(found.means["image", 1], wanted, rtol=1e-5)


# Histograms. Odd multiples of 1/512 lie on no end of a bin and are no power of two.

odd = st.integers(1, 2000).map(lambda n: (2 * n + 1) / 512)
signed = st.builds(lambda value, sign: value * sign, odd, st.sampled_from([-1.0, 0.0, 1.0]))


@settings(deadline=None)
@given(st.lists(arrays(np.float32, st.integers(1, 30), elements=signed), min_size=1, max_size=5))
def test_a_histogram_that_widens_gives_what_one_gives_that_saw_all_at_once(
    batches: list[NDArray[np.float32]],
) -> None:
    widened, known = Histogram(), Histogram()
    batches = [np.zeros(3, np.float32), *batches]
    for batch in batches:
        widened.add("t", batch)
    known.add("t", np.concatenate(batches))
    assert widened.ranges() == known.ranges()
    np.testing.assert_array_equal(widened._counts, known._counts)
    assert widened._counts.sum() == sum(map(len, batches))


@settings(deadline=None)
@given(
    arrays(
        np.float32,
        st.integers(1, 200),
        elements=st.floats(-(2.0**127), 2.0**127, width=32),
    )
)
def test_any_finite_values_have_ranges(values: NDArray[np.float32]) -> None:
    histogram = Histogram()
    histogram.add("t", values)
    found = histogram.ranges()
    assert found["minmax"] == (min(0.0, float(values.min())), max(0.0, float(values.max())))
    for low, high in found.values():
        assert found["minmax"][0] <= low <= 0 <= high <= found["minmax"][1]


@settings(deadline=None)
@given(st.integers(0, 2**32 - 1), st.sampled_from([1.0, 7.0, 1e-3]))
def test_percentiles_of_random_values_are_numpys_within_a_bin(seed: int, scale: float) -> None:
    rng = np.random.default_rng(seed)
    values = (scale * rng.standard_t(3, 40000)).astype(np.float32)
    histogram = Histogram()
    histogram.add("t", values)
    tail = (100 - PERCENTILE) / 2
    wanted = np.percentile(values, [tail, 100 - tail], method="inverted_cdf")
    bin_width = 2.0 ** math.ceil(math.log2(np.abs(values).max())) / 2048
    np.testing.assert_allclose(histogram.ranges()["percentile"], wanted, atol=1.01 * bin_width)


def test_of_a_large_tensor_a_share_is_counted_and_its_ends_are_exact() -> None:
    values = np.random.default_rng(0).normal(0, 1, 300_000).astype(np.float32)
    values[123_457] = 50
    histogram = Histogram()
    histogram.add("t", values.reshape(3, 100, 1000))
    assert histogram.high == 50
    assert 40_000 < histogram._counts.sum() < 70_000
    wanted = np.percentile(values, PERCENTILE)
    assert histogram.ranges()["percentile"][1] == pytest.approx(wanted, rel=0.15)


def literal_entropy_cut(counts: NDArray[np.int64], levels: int, cuts: list[int]) -> list[float]:
    """The divergence at each cut as on Migacz's slides, element by element."""
    counts = counts.astype(np.float64)
    counts[0] = counts[1]
    divergences = []
    for cut in cuts:
        p = [float(count) for count in counts[:cut]]
        p[-1] += float(sum(counts[cut:]))
        edges = [math.ceil(level * cut / levels) for level in range(levels + 1)]
        q: list[float] = []
        for low, high in itertools.pairwise(edges):
            full = [count > 0 for count in counts[low:high]]
            share = sum(counts[low:high]) / max(1, sum(full))
            q += [share if some else 0.0 for some in full]
        q = [1e-4 if mass > 0 and not given else given for mass, given in zip(p, q, strict=True)]
        divergences.append(float(entropy(p, q)))
    return divergences


@settings(deadline=None, max_examples=25)
@given(
    st.sampled_from([8, 16, 128]),
    arrays(np.int64, st.integers(10, 320), elements=st.integers(0, 40)),
)
def test_no_cut_loses_less_information_than_the_one_chosen(
    levels: int, counts: NDArray[np.int64]
) -> None:
    filled = np.flatnonzero(counts)
    last = int(filled[-1]) + 1 if len(filled) else 0
    chosen = entropy_cut(counts, levels)
    if last <= levels:
        assert chosen == last
        return
    cuts = [*range(levels, last, max(1, (last - levels) // 128)), last]
    divergences = literal_entropy_cut(counts, levels, cuts)
    assert chosen in cuts
    assert divergences[cuts.index(chosen)] <= min(divergences) + 1e-9


def test_the_cut_by_entropy_is_about_where_onnx_runtime_cuts() -> None:
    """Its `get_entropy_threshold` wants an odd number of bins around 0, and 2n + 1 levels."""
    calibrate = pytest.importorskip("onnxruntime.quantization.calibrate")
    rng = np.random.default_rng(0)
    for values in (rng.laplace(0, 1, 100_000), rng.standard_t(3, 100_000)):
        reach = float(np.abs(values).max())
        counts = np.histogram(np.abs(values), bins=2048, range=(0, reach))[0]
        ours = entropy_cut(counts) * reach / 2048
        both = np.concatenate([values, -values]).astype(np.float32)
        histogram, edges = np.histogram(both, bins=4097, range=(-reach, reach))
        collector = calibrate.HistogramCollector("entropy", True, 4097, 255, 99.99, "")
        told = histogram, edges, np.float32(-reach), np.float32(reach), np.float32(reach)
        theirs = float(collector.get_entropy_threshold(told, 255)[1])
        # Theirs puts what is left of bins that do not divide evenly into the last level.
        assert theirs / 1.5 < ours < theirs * 1.5


def test_a_constant_is_not_cut() -> None:
    counts = np.zeros(2048, np.int64)
    counts[1500] = 7
    assert entropy_cut(counts) > 1500


def test_values_too_small_to_divide_by_are_taken_for_zero() -> None:
    for value in (1e-45, -1e-38, 1e-35):
        histogram = Histogram()
        histogram.add("t", np.array([value], np.float32))
        histogram.add("t", np.array([1, 0, 0.5], np.float32))
        assert histogram._counts[2048] == 2
        assert histogram._counts.sum() == 4


def test_values_that_fit_into_the_levels_are_all_kept() -> None:
    assert entropy_cut(np.zeros(2048, np.int64)) == 0
    assert entropy_cut(np.array([5, 4, 3] + [0] * 500)) == 3
    assert entropy_cut(np.r_[np.ones(128, np.int64), np.zeros(99, np.int64)]) == 128


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


def variants(told: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Files that are almost ours."""
    for field in told:
        yield {key: value for key, value in told.items() if key != field}
        for wrong in (None, [], 3, "x", {"a": 1}, {"a:b": "c"}, {"a:1": [["x"]]}):
            if not (field in ("network_sha256", "calibration_sha256") or wrong == told[field]):
                yield {**told, field: wrong}
    yield {**told, "format": "edgeml.ranges/2"}
    yield {**told, "images": math.inf}
    yield {**told, "images": "many"}
    for pair in ([1, 2], [-2, -1], [0], [0, 1, 2], [0, math.inf], [math.nan, 0], "x", [0, "x"]):
        yield {**told, "tensors": {"t": dict.fromkeys(METHODS, pair)}}
    yield {**told, "tensors": {"t": {"minmax": [0, 1]}}}
    yield {**told, "tensors": {"t": dict.fromkeys(METHODS, (0, 10**400))}}
    for means in ([math.nan], [1e300], [10**400], ["x"], [[1.0]], 3.0):
        yield {**told, "means": {"t:1": means}}
    yield {**told, "means": {"t": [1.0]}}


def test_other_json_is_refused_in_a_sentence(measured: Ranges) -> None:
    told = json.loads(measured.to_json())
    accepted = []
    for other in (*variants(told), [], None, 3, "text", {}):
        with contextlib.suppress(CalibrationError):
            Ranges.from_json(json.dumps(other))
            accepted.append(other)
    assert accepted == [{**told, "images": 3}]


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


def test_kept_ranges_serve_again_without_running_the_network(
    network: onnx.ModelProto,
    calibration: Calibration,
    measured: Ranges,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    kept = tmp_path / "kept.json"
    ranges_for(network, TENSORS, CHANNELS, SPEC, calibration, cache=kept)
    content = kept.read_bytes()
    forbid_measuring(monkeypatch)
    for images in (calibration, None):
        progress = Notes()
        again = ranges_for(network, TENSORS, CHANNELS, SPEC, images, cache=kept, progress=progress)
        assert again.to_json() == measured.to_json()
        assert "7 images" in progress.lines[0]
    assert kept.read_bytes() == content


def test_kept_ranges_of_other_images_are_replaced(
    network: onnx.ModelProto, calibration: Calibration, measured: Ranges, tmp_path: Path
) -> None:
    kept = tmp_path / "kept.json"
    other = photos(tmp_path / "others", count=3, seed=5)
    first = ranges_for(network, TENSORS, CHANNELS, SPEC, other, cache=kept)
    assert Ranges.from_json(kept.read_text()).calibration_sha256 == other.digest
    again = ranges_for(network, TENSORS, CHANNELS, SPEC, calibration, cache=kept)
    assert again.to_json() == kept.read_text() == measured.to_json() != first.to_json()


def test_kept_ranges_of_another_question_are_refused_without_images_and_else_replaced(
    network: onnx.ModelProto, calibration: Calibration, tmp_path: Path
) -> None:
    kept = tmp_path / "kept.json"
    other = onnx.ModelProto()
    other.CopyFrom(network)
    # One bit of one weight.
    raw = bytearray(other.graph.initializer[0].raw_data)
    raw[0] ^= 1
    other.graph.initializer[0].raw_data = bytes(raw)
    ranges_for(other, TENSORS, CHANNELS, SPEC, calibration, cache=kept)
    half = replace(SPEC, preprocess=replace(SPEC.preprocess, mean=(0.5, 0.5, 0.5)))
    for wanted in (
        (network, TENSORS, CHANNELS, SPEC),
        (other, TENSORS[1:], CHANNELS, SPEC),
        (other, TENSORS, CHANNELS[1:], SPEC),
        (other, TENSORS, CHANNELS, half),
    ):
        with pytest.raises(CalibrationError, match="--calib"):
            ranges_for(*wanted, None, cache=kept)
    before = kept.read_text()
    ranges_for(network, TENSORS, CHANNELS, SPEC, calibration, cache=kept)
    assert kept.read_text() != before


@pytest.mark.parametrize("content", [b"", b"{", b"\xff\xfe", b'{"format": "edgeml.ranges/1"}'])
def test_a_damaged_file_is_measured_anew_and_mended(
    network: onnx.ModelProto,
    calibration: Calibration,
    measured: Ranges,
    content: bytes,
    tmp_path: Path,
) -> None:
    kept = tmp_path / "kept.json"
    kept.write_bytes(content)
    with pytest.raises(CalibrationError, match="--calib"):
        ranges_for(network, TENSORS, CHANNELS, SPEC, None, cache=kept)
    ranges_for(network, TENSORS, CHANNELS, SPEC, calibration, cache=kept)
    assert kept.read_text() == measured.to_json()


def test_without_images_and_without_a_file_the_way_out_is_told(network: onnx.ModelProto) -> None:
    with pytest.raises(CalibrationError, match="--calib DATA"):
        ranges_for(network, TENSORS, CHANNELS, SPEC, None)


def test_what_was_measured_is_what_is_kept(
    network: onnx.ModelProto, calibration: Calibration, tmp_path: Path
) -> None:
    kept = tmp_path / "kept.json"
    measured = ranges_for(network, TENSORS, CHANNELS, SPEC, calibration, cache=kept)
    again = ranges_for(network, TENSORS, CHANNELS, SPEC, None, cache=kept)
    assert measured.tensors == again.tensors
    assert measured.means.keys() == again.means.keys()
    for key, means in measured.means.items():
        np.testing.assert_array_equal(means, again.means[key])
