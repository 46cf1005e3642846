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
from edgeml.compare import compare
from edgeml.data import Dataset
from edgeml.errors import ImageError, NotComparableError
from edgeml.metrics import UNKNOWN
from tests.tiny import LABELS, TinyRuntime, tiny_spec


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
    assert same.reference == same.exported
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
    assert flips.any()
    assert found.flips == dict(zip(LABELS, flips.sum(axis=0).tolist(), strict=True))
    assert found.label_flips_per_1000 == pytest.approx(1000 * flips.sum() / 120)
    for metrics, logits in ((found.reference, expected), (found.exported, expected + shift)):
        aps = [average_precision_score(data.targets[:, i], logits[:, i]) for i in range(3)]
        assert metrics.mAP == pytest.approx(np.mean(aps))


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
    told = json.loads(json.dumps(found.to_dict(), allow_nan=False))
    assert told["max_abs"] == pytest.approx(0.5)
    assert told["metrics"]["reference"]["mAP"] is None


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


def test_every_image_is_decoded_once(data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    import edgeml.compare as module

    decoded: list[Path] = []
    read = module.read_image

    def counted(image: Path, *, at_least: Sequence[int]) -> NDArray[np.uint8]:
        decoded.append(image)
        return read(image, at_least=at_least)

    monkeypatch.setattr(module, "read_image", counted)
    compare(Predictor(TinyRuntime()), Predictor(TinyRuntime()), data)
    assert sorted(decoded) == sorted(data.paths)
