from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from sklearn.metrics import average_precision_score

from edgeml import ModelSpec, Predictor
from edgeml.data import Dataset
from edgeml.errors import ImageError, MissingSpecError, NotComparableError, SpecError
from edgeml.measure.compare import compare, measure, open_pair, run_both
from edgeml.spec.labels import UNKNOWN
from tests.notes import Notes
from tests.tiny import LABELS, TinyRuntime, make_tiny_onnx, tiny_spec


class Shifted(TinyRuntime):
    """The tiny network with something added to its logits."""

    def __init__(self, shift: object, spec: ModelSpec | None = None) -> None:
        super().__init__(spec)
        self._shift = np.asarray(shift, np.float32)

    def run(self, batch: NDArray[np.float32] | NDArray[np.uint8], /) -> NDArray[np.float32]:
        return super().run(batch) + self._shift


@pytest.fixture
def data(tmp_path: Path) -> Dataset:
    """Forty pictures of one colour each, red, green or blue by turns, more or less saturated."""
    rng = np.random.default_rng(0)
    paths, targets = [], np.zeros((40, 3), np.uint8)
    for row in range(40):
        colour = np.full(3, 120)
        colour[2 - row % 3] += int(rng.integers(-20, 100))
        path = tmp_path / f"{row:02}.png"
        cv2.imwrite(str(path), np.full((36, 44, 3), colour, np.uint8))
        paths.append(path)
        targets[row, row % 3] = 1
    return Dataset(root=tmp_path, paths=tuple(paths), labels=LABELS, targets=targets)


def logits_of(data: Dataset) -> NDArray[np.float32]:
    predictor = Predictor(TinyRuntime())
    return predictor.logits([predictor.read(path) for path in data.paths])


def test_a_model_is_faithful_to_itself(data: Dataset) -> None:
    same = compare(Predictor(TinyRuntime()), Predictor(TinyRuntime()), data)
    assert (same.images, same.max_abs, same.mean_abs, same.label_flips_per_1000) == (40, 0, 0, 0)
    assert (same.inputs_equal, same.inputs_max_abs) == (40, 0)
    assert set(same.quantiles.values()) == {0.0}
    assert same.reference == same.exported
    assert (same.drops.mAP.points, same.drops.mAP.low, same.drops.mAP.high) == (0, 0, 0)
    assert same.passed is None


def test_differences_flips_and_metrics_are_those_counted_by_hand(data: Dataset) -> None:
    shift = np.random.default_rng(1).normal(0, 1, (40, 3)).astype(np.float32)

    class Noisy(TinyRuntime):
        done = 0

        def run(self, batch: NDArray[np.float32] | NDArray[np.uint8], /) -> NDArray[np.float32]:
            rows = slice(self.done, self.done + len(batch))
            self.done += len(batch)
            return super().run(batch) + shift[rows]

    found = compare(Predictor(TinyRuntime()), Predictor(Noisy()), data)
    expected = logits_of(data)
    flips = (expected >= 0) != (expected + shift >= 0)  # a probability of 0.5 is a logit of 0
    assert found.max_abs == pytest.approx(np.abs(shift).max(), rel=1e-5)
    assert found.mean_abs == pytest.approx(np.abs(shift).mean(), rel=1e-5)
    rising = np.sort(np.abs(shift), axis=None)
    # Of 120 differences: the least one that so many do not exceed.
    ranks = {"p50": 60, "p90": 108, "p99": 119, "p99.9": 120}
    expected_quantiles = {name: rising[rank - 1] for name, rank in ranks.items()}
    assert found.quantiles == pytest.approx(expected_quantiles, rel=1e-5)
    probabilities = [1 / (1 + np.exp(-logits)) for logits in (expected, expected + shift)]
    apart = np.abs(probabilities[0] - probabilities[1]).mean()
    assert found.probability_mean_abs == pytest.approx(apart, rel=1e-5)
    assert flips.any()
    assert found.flips == dict(zip(LABELS, flips.sum(axis=0).tolist(), strict=True))
    assert found.label_flips_per_1000 == pytest.approx(1000 * flips.sum() / 120)
    for metrics, logits in ((found.reference, expected), (found.exported, expected + shift)):
        aps = [average_precision_score(data.targets[:, i], logits[:, i]) for i in range(3)]
        assert metrics.mAP == pytest.approx(np.mean(aps))
    lost = 100 * (found.reference.mAP - found.exported.mAP)
    assert found.drops.mAP.points == pytest.approx(lost)
    assert found.drops.mAP.low < lost < found.drops.mAP.high
    assert tuple(found.drops.labels) == LABELS


def test_columns_of_the_data_are_matched_by_name(data: Dataset) -> None:
    order = [2, 0, 1]
    turned = replace(data, labels=tuple(LABELS[i] for i in order), targets=data.targets[:, order])
    straight = compare(Predictor(TinyRuntime()), Predictor(TinyRuntime()), data)
    assert compare(Predictor(TinyRuntime()), Predictor(TinyRuntime()), turned) == straight


def test_each_model_prepares_the_frames_by_its_own_spec(data: Dataset) -> None:
    # Half as large an input has the same mean colour, which is all that this network sees.
    smaller = Predictor(TinyRuntime(tiny_spec(size=16)))
    assert compare(Predictor(TinyRuntime()), smaller, data).max_abs < 1e-4
    spec = tiny_spec()
    turned = replace(spec, preprocess=replace(spec.preprocess, channels="bgr"))
    assert compare(Predictor(TinyRuntime()), Predictor(TinyRuntime(turned)), data).max_abs > 1


class Raw(TinyRuntime):
    """The tiny network behind a normalisation of its own, as a graph with uint8 input has it."""

    def __init__(self, spec: ModelSpec) -> None:
        super().__init__(replace(spec, input="uint8"))
        self._inside = spec.preprocess

    @property
    def input_shape(self) -> tuple[int | None, int, int, int]:
        return (None, *self.spec.preprocess.size, 3)

    def run(self, batch: NDArray[np.float32] | NDArray[np.uint8], /) -> NDArray[np.float32]:
        assert batch.dtype == np.uint8
        return super().run(self._inside.normalize(batch))


def preprocessed(**changes: object) -> ModelSpec:
    spec = tiny_spec()
    return replace(spec, preprocess=replace(spec.preprocess, **changes))


def test_raw_frames_are_compared_by_what_they_mean(data: Dataset) -> None:
    raw = Predictor(Raw(tiny_spec()))
    for pair in ((Predictor(TinyRuntime()), raw), (raw, Predictor(TinyRuntime()))):
        found = compare(*pair, data)
        assert (found.inputs_equal, found.inputs_max_abs, found.max_abs) == (40, 0, 0)
    mean = (0.485, 0.456, 0.506)  # 0.1 / 0.225 of the third channel too much
    other = compare(Predictor(TinyRuntime()), Predictor(Raw(preprocessed(mean=mean))), data)
    assert other.inputs_equal == 0
    assert other.inputs_max_abs == pytest.approx(0.1 / 0.225, rel=1e-5)


def test_how_far_the_inputs_are_apart_is_told(data: Dataset) -> None:
    def inputs(**changes: object) -> tuple[int, float]:
        other = Predictor(TinyRuntime(preprocessed(**changes)))
        found = compare(Predictor(TinyRuntime()), other, data)
        assert json.loads(json.dumps(found.to_dict()))["inputs_equal"] == found.inputs_equal
        return found.inputs_equal, found.inputs_max_abs

    assert inputs(mean=(0.485, 0.456, 0.406)) == (40, 0)
    # Pictures of one colour look the same whatever is cut off; a border does not.
    assert inputs(resize="crop") == (40, 0)
    assert inputs(resize="letterbox")[0] == 0
    assert inputs(channels="bgr")[0] == 13  # the green ones, as red as they are blue
    assert inputs(size=(16, 16)) == (0, np.inf)


def test_outputs_are_measured_again_by_other_specs_without_the_networks(data: Dataset) -> None:
    models = Predictor(TinyRuntime()), Predictor(Shifted(0.5))
    outputs = run_both(*models, data)
    assert measure(outputs, *(model.spec for model in models)) == compare(*models, data)
    for model in models:
        model.close()
    # A threshold at sigmoid(0.5) undoes the shift, but for those at the very threshold.
    fitted = replace(tiny_spec(), thresholds=(0.6224593,) * 3)
    before, after = (measure(outputs, tiny_spec(), spec) for spec in (tiny_spec(), fitted))
    assert before.label_flips_per_1000 > 0
    assert after.label_flips_per_1000 == 0
    assert after.exported.exact_match == after.reference.exact_match
    assert after.max_abs == before.max_abs == pytest.approx(0.5)
    scores = outputs.scores(tiny_spec(), fitted)
    assert scores[0] == pytest.approx(1 / (1 + np.exp(-outputs.reference)))
    assert outputs.targets.tolist() == data.targets.tolist()


def test_a_network_of_fixed_batch_gets_batches_of_that_size(data: Dataset) -> None:
    class Fixed(TinyRuntime):
        @property
        def input_shape(self) -> tuple[int | None, int, int, int]:
            return (7, 3, 32, 32)

        def run(self, batch: NDArray[np.float32] | NDArray[np.uint8], /) -> NDArray[np.float32]:
            assert len(batch) == 7
            return super().run(batch)

    found = compare(Predictor(TinyRuntime()), Predictor(Fixed()), data)
    assert found.max_abs < 1e-6


def test_a_network_with_another_number_of_outputs_is_refused(data: Dataset) -> None:
    wider = Predictor(TinyRuntime(tiny_spec(("a", "b", "c", "d"))), spec=tiny_spec())
    with pytest.raises(NotComparableError, match=r"shape \(32, 4\)"):
        compare(Predictor(TinyRuntime()), wider, data)


@pytest.mark.runtime
@pytest.mark.parametrize("bare_is", ["reference", "candidate"])
def test_a_model_that_says_nothing_is_taken_at_the_other_s_word(
    bare_is: str, data: Dataset, tmp_path: Path
) -> None:
    import onnx

    known = make_tiny_onnx(tmp_path / "known.onnx")
    model = onnx.load(known)
    model.ClearField("metadata_props")
    bare = tmp_path / "bare.onnx"
    onnx.save(model, bare)
    notes = Notes()
    pair = (bare, known) if bare_is == "reference" else (known, bare)
    with open_pair(*pair, progress=notes) as (first, second):
        assert compare(first, second, data).max_abs == 0
    (note,) = notes.lines
    assert note.startswith("bare.onnx does not state")
    assert note.endswith("uses the spec of known.onnx.")
    with pytest.raises(MissingSpecError, match="no spec inside"), open_pair(bare, bare):
        pass


@pytest.mark.runtime
def test_a_spec_that_is_there_and_wrong_is_not_replaced(tmp_path: Path) -> None:
    known = make_tiny_onnx(tmp_path / "known.onnx")
    wrong = make_tiny_onnx(tmp_path / "wrong.onnx")
    (tmp_path / "wrong.onnx.json").write_text("{}")
    with pytest.raises(SpecError, match="format None"), open_pair(known, wrong):
        pass


def test_probabilities_are_compared_where_only_one_model_gives_logits(data: Dataset) -> None:
    class Sigmoid(TinyRuntime):
        def run(self, batch: NDArray[np.float32] | NDArray[np.uint8], /) -> NDArray[np.float32]:
            return (1 / (1 + np.exp(-super().run(batch)))).astype(np.float32)

    done = Predictor(Sigmoid(replace(tiny_spec(), activation="none")))
    found = compare(Predictor(TinyRuntime()), done, data)
    assert found.max_abs < 1e-6
    assert found.label_flips_per_1000 == 0


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_a_candidate_whose_logits_are_no_numbers_is_infinitely_far_away(
    broken: float, data: Dataset
) -> None:
    found = compare(Predictor(TinyRuntime()), Predictor(Shifted([0, broken, 0])), data)
    assert found.max_abs == np.inf
    assert found.to_dict()["max_abs"] is None
    # A third of the outputs: the median is finite, the tail is not.
    assert found.quantiles["p50"] == 0
    assert found.to_dict()["quantiles"]["p99"] is None


def test_unknown_and_absent_labels_do_not_break_a_comparison(data: Dataset) -> None:
    partly = data.targets.copy()
    partly[:30, 0], partly[30:, 0], partly[::3, 2] = UNKNOWN, 0, UNKNOWN
    data = replace(data, targets=partly)
    found = compare(Predictor(TinyRuntime()), Predictor(Shifted([2, 2, 2])), data)
    # Whether a label flips is no question of the truth: all 120 decisions count.
    assert found.label_flips_per_1000 == pytest.approx(1000 * sum(found.flips.values()) / 120)
    assert found.reference.absent == found.exported.absent == ("red",)
    known = partly[:, 2] != UNKNOWN
    aps = [
        average_precision_score(partly[:, 1], logits_of(data)[:, 1]),
        average_precision_score(partly[known, 2], logits_of(data)[known, 2]),
    ]
    assert found.reference.mAP == pytest.approx(np.mean(aps))
    assert found.exported.OP < found.reference.OP


def test_a_comparison_on_pictures_of_which_nothing_is_known_has_no_metrics(data: Dataset) -> None:
    blank = replace(data, targets=np.full_like(data.targets, UNKNOWN))
    found = compare(Predictor(TinyRuntime()), Predictor(Shifted(0.5)), blank)
    as_dict = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert as_dict["max_abs"] == pytest.approx(0.5)
    assert as_dict["metrics"]["reference"]["mAP"] is None


def test_models_with_other_labels_are_refused(data: Dataset) -> None:
    for names in (("red", "green", "pink"), ("green", "red", "blue")):
        other = Predictor(TinyRuntime(tiny_spec(names)))
        with pytest.raises(NotComparableError, match=names[0]):
            compare(Predictor(TinyRuntime()), other, data)


def test_data_with_an_unknown_label_or_no_image_are_refused(data: Dataset) -> None:
    models = Predictor(TinyRuntime()), Predictor(TinyRuntime())
    with pytest.raises(NotComparableError, match="pink"):
        compare(*models, replace(data, labels=("blue", "green", "pink")))
    with pytest.raises(NotComparableError, match="no image"):
        compare(*models, data.select([]))


def test_an_unreadable_image_is_named(data: Dataset) -> None:
    data.paths[7].write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"07\.png"):
        compare(Predictor(TinyRuntime()), Predictor(TinyRuntime()), data)


def test_the_dictionary_is_json(data: Dataset) -> None:
    found = compare(Predictor(TinyRuntime()), Predictor(Shifted(0.5)), data).to_dict()
    again = json.loads(json.dumps(found, allow_nan=False))
    assert again == found
    assert found["max_abs"] == pytest.approx(0.5)
    assert set(found["metrics"]) == {"reference", "exported"}
    assert list(found["quantiles"]) == ["p50", "p90", "p99", "p99.9"]
    assert set(found["drops"]["labels"]) == set(found["flips"]) == set(LABELS)
    assert set(found["drops"]["mAP"]) == {"points", "low", "high"}


def test_every_image_is_decoded_once(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    import edgeml.measure.compare as module

    decoded: list[Path] = []
    read = module.read_image

    def counted(image: Path, *, at_least: Sequence[int]) -> NDArray[np.uint8]:
        decoded.append(image)
        return read(image, at_least=at_least)

    monkeypatch.setattr(module, "read_image", counted)
    compare(Predictor(TinyRuntime()), Predictor(TinyRuntime()), data)
    assert sorted(decoded) == sorted(data.paths)
