"""The page of a training report, and that of a search for the learning rate."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import matplotlib as mpl
import numpy as np
import pytest
from sklearn import metrics as sk

from edgeml.errors import InputError
from edgeml.measure.metrics import evaluate
from edgeml.spec.labels import LabelGroup
from edgeml.training.report.findings import ScoredSplit, Training
from edgeml.training.report.page import train_report, write_lr_report
from edgeml.training.report.plots import smoothed
from tests.report.pages import EVIL, Page, check_page
from tests.training.report_inputs import (
    COLOUR,
    EPOCH,
    LABELS,
    NAN_EPOCH,
    decided,
    measured,
    other_labels,
    scored,
    spec_of,
    strict_json,
    training,
)


def written(inputs: Training, out: Path) -> tuple[Page, dict[str, Any]]:
    """Write a report; return its checked page and its strictly parsed JSON."""
    train_report(inputs, out)
    return check_page(out), strict_json(out.with_name("report.json").read_text("utf-8"))


Usual = tuple[Page, dict[str, Any]]


@pytest.fixture(scope="module")
def usual(tmp_path_factory: pytest.TempPathFactory) -> Usual:
    """The page and the JSON of `training()` as it is."""
    return written(training(), tmp_path_factory.mktemp("usual") / "report.html")


def words(page: Page) -> str:
    return " ".join(page.text.split())


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "report.html"


def test_the_json_holds_the_history_and_the_inputs(out: Path) -> None:
    inputs = training(held_out=evaluate(np.eye(6, dtype=np.float32), np.eye(6, dtype=np.int8),
                                      training().spec), held_out_name="red + dress")  # fmt: skip
    page, document = written(inputs, out)
    assert document["schema"] == "edgeml.train/1"
    assert document["best_epoch"] == 3
    assert [row["epoch"] for row in document["history"]] == [1, 2, 3, 4]
    assert document["history"][3]["val_loss"] == 0.25
    assert document["config"] == {
        "model": "cnn", "weights": "a/b.safetensors", "lr": 1e-3, "args": None,
    }  # fmt: skip
    assert document["facts"] == {"Versions": "torch 2.15.0"}
    assert document["audit"] == [["Duplicates", "3 groups"]]
    assert document["held_out"]["name"] == "red + dress"
    assert document["held_out"]["images"] == 6
    text = words(page)
    for shown in ("red + dress", "torch 2.15.0", "Duplicates", "3 groups", '"a/b.safetensors"'):
        assert shown in text


def test_tiles_and_table_show_the_test_split(usual: Usual) -> None:
    page, document = usual
    text = words(page)
    assert "Measured on the 80 images of the test split, by which nothing was chosen." in text
    assert "The saved weights are those of epoch 3 of 4." in text
    pieces = "|".join(page.pieces)
    for name in ("mAP", "exact_match", "macro_F1", "CF1", "OF1"):
        assert f"|{100 * document['metrics']['test'][name]:.1f}|%|test: " in pieces
    for label in LABELS:
        numbers = document["labels"][label]["test"]
        shown = [f"{100 * numbers[key]:.1f}" for key in ("AP", "F1", "precision", "recall")]
        assert f"|{label}|{'|'.join(shown)}|" in pieces
    descriptions = [one.get("aria-label", "") for one in page.all("svg")]
    assert any("Epoch 3 was saved." in one for one in descriptions)
    assert any("validation from 1.000 to 0.250" in one for one in descriptions)
    # No image file exists: each is shown as missing.
    assert text.count("image missing") == len(document["worst"]) > 0
    assert not page.all("img")


def test_without_a_test_split_the_validation_split_is_shown_with_a_warning(
    out: Path,
) -> None:
    page, document = written(training(test=None), out)
    assert document["side"] == "val"
    assert set(document["metrics"]) == {"val"}
    text = words(page)
    assert "There is no test split: measured on the 60 images of the validation split" in text
    assert "validation: mean of 6 labels" in text
    assert measured(training(test=scored(0)))["side"] == "val"


def test_labels_that_are_absent_or_never_predicted_are_named(out: Path) -> None:
    test = scored(80, seed=2)
    test.targets[:, 5] = 0
    test.scores[:, 4] = 0.01
    page, document = written(training(test=test), out)
    assert "which CP counts as a precision of 0: dress." in words(page)
    assert document["labels"]["dress"]["test"]["precision"] is None
    assert "Absent from the test split, and therefore not in its averages over labels: kids." in (
        words(page)
    )
    assert "Absent from the validation split" not in words(page)
    assert document["metrics"]["test"]["absent_labels"] == ["kids"]
    assert document["labels"]["kids"]["test"]["AP"] is None
    assert "kids" not in document["precision_recall"]


def test_unknown_targets_are_excluded_and_counted(out: Path) -> None:
    test = scored(80, seed=2, unknown=0.3)
    page, document = written(training(test=test), out)
    known = test.targets != -1
    for column, label in enumerate(LABELS):
        entry = document["labels"][label]["test"]
        rows = known[:, column]
        truth, present = test.targets[rows, column], decided(test)[rows, column]
        assert entry["known"] == rows.sum()
        assert entry["precision"] == pytest.approx(sk.precision_score(truth, present), rel=1e-5)
        assert entry["recall"] == pytest.approx(sk.recall_score(truth, present), rel=1e-5)
    assert "|Known,|test|" in "|".join(page.pieces)
    assert "the truth is unknown" in words(page)


def test_the_worst_images_come_first_with_their_labels(tmp_path: Path) -> None:
    targets = np.zeros((4, 6), np.int8)
    targets[:, [0, 3]] = 1
    scores = np.where(targets > 0, 0.9, 0.1).astype(np.float32)
    scores[1, [3, 4]] = 0.25, 0.9375  # the shirt is missed, a dress is entry
    scores[2, 5] = 0.996  # kids are entry, surely
    targets[2, 4] = -1
    scores[2, 4] = 0.75
    paths = tuple(tmp_path / f"{name}.jpg" for name in "abcd")
    cv2.imwrite(str(paths[2]), np.full((30, 50, 3), 200, np.uint8))
    paths[1].write_bytes(b"not an image")
    split = ScoredSplit(scores=scores, targets=targets, paths=paths)
    page, document = written(training(test=split), tmp_path / "out" / "report.html")
    # The mean of -log(probability of the truth) over known labels: 1.05 for c, 0.76 for b.
    assert [Path(one["path"]).name for one in document["worst"]] == ["c.jpg", "b.jpg"]
    shown = {Path(one["path"]).name: one for one in document["worst"]}
    assert shown["b.jpg"]["truth"] == ["red", "shirt"]
    assert shown["b.jpg"]["predicted"] == ["red", "dress"]
    assert shown["c.jpg"]["unknown"] == ["dress"]
    assert shown["c.jpg"]["scores"]["kids"] == pytest.approx(0.996)
    text = words(page)
    for chip in (
        "right: ✓ red 0.90", "wrong: ✗ dress 0.94", "missed: ? shirt 0.25", "wrong: ✗ kids 1.00",
        "unknown: ~ dress 0.75",
    ):  # fmt: skip
        assert chip in text
    assert text.count("image missing") == 1
    assert len(page.all("img")) == 1


def test_the_page_states_the_cost_of_waiting(out: Path) -> None:
    page, _ = written(training(history=[replace(EPOCH, epoch=1, wait=0.5)]), out)
    sentence = "reading them was the bottleneck. Without waiting it would be 2.0 times as fast."
    assert sentence in words(page)


def test_markup_in_names_is_escaped(out: Path) -> None:
    def evil(place: str) -> str:
        return f"{place}{EVIL}"

    labels = (evil("label"), *LABELS[1:])
    colour = replace(COLOUR, name=evil("group"), labels=labels[:3])
    inputs = training(
        spec=spec_of(labels, (colour,)),
        title=evil("title"),
        config={evil("key"): evil("value")},
        facts={evil("fact"): evil("version")},
        audit=[(evil("check"), evil("result"))],
        held_out_name=evil("held out"),
    )
    held = evaluate(inputs.val.scores, inputs.val.targets, inputs.spec)
    assert inputs.test
    paths = tuple(Path(evil("file").replace("/", "")) for _ in inputs.test.paths)
    page, _ = written(replace(inputs, held_out=held, test=replace(inputs.test, paths=paths)), out)
    for place in ("label", "group", "title", "fact", "version", "check", "result", "held out"):
        assert evil(place) in page.text
    for place in ("key", "value"):
        assert json.dumps(evil(place)) in page.text
    assert evil("file").replace("/", "") in page.text


def test_names_of_any_script_and_length_are_shown(out: Path) -> None:
    labels = ("Größenänderungsschneiderei" * 4, "模型", "🧥", "a {row} of braces {0}", "%s %(x)s")
    page, document = written(other_labels(labels), out)
    assert all(name in page.text for name in labels)
    assert set(document["labels"]) == set(labels)
    assert out.with_name("per_label.csv").read_text("utf-8").count("\n") == 6


@pytest.mark.parametrize(
    "inputs",
    [
        training(history=[EPOCH], best_epoch=1),
        training(history=[], uncalibrated=None, audit=(), config={}, facts={}),
        training(history=[NAN_EPOCH], spec=spec_of(LABELS, (replace(COLOUR, rule="any"),))),
        training(history=[EPOCH, NAN_EPOCH, replace(EPOCH, epoch=3)]),
        training(history=[replace(EPOCH, epoch=epoch) for epoch in range(1, 101)], best_epoch=0),
        training(
            spec=spec_of(("yes", "no"), (LabelGroup(name="a", labels=("yes", "no"), rule="one"),)),
            val=scored(1, ("yes", "no")),
            test=None,
            uncalibrated=None,
        ),
        other_labels(("yes", "no"), 3),
    ],
    ids=["one epoch", "little data", "nothing known", "a gap", "many epochs", "one image",
         "two labels"],
)  # fmt: skip
def test_unusual_data_make_a_valid_page(out: Path, inputs: Training) -> None:
    page, _ = written(inputs, out)
    assert "Label by label" in page.text


def test_a_split_without_present_or_known_labels_makes_a_valid_page(out: Path) -> None:
    absent, unknown = scored(5), scored(5)
    absent.targets[:], unknown.targets[:] = 0, -1
    page, document = written(training(val=absent, test=unknown, uncalibrated=None), out)
    assert "No image of this split has a label." in words(page)
    assert document["metrics"]["val"]["mAP"] is document["metrics"]["test"]["mAP"] is None


def test_a_split_without_errors_has_no_worst_image(out: Path) -> None:
    split = scored(12)
    perfect = replace(split, scores=np.where(split.targets > 0, 0.99, 0.01).astype(np.float32))
    page, document = written(training(test=perfect), out)
    assert document["worst"] == []
    assert "All known labels of all images of the test split were predicted correctly" in words(
        page
    )


def test_of_80_labels_the_24_worst_curves_are_drawn_and_the_page_stays_under_3_megabytes(
    tmp_path: Path,
) -> None:
    random = np.random.default_rng(0)
    for name in range(24):  # noise is the worst for JPEG
        noise = random.integers(0, 256, (200, 200, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f"{name}.bmp"), noise)
    labels = tuple(f"a label with quite a long name {index:02}" for index in range(80))
    inputs = other_labels(labels, 120)
    paths = tuple(tmp_path / f"{row % 24}.bmp" for row in range(120))
    assert inputs.test
    page, document = written(
        replace(inputs, test=replace(inputs.test, paths=paths)), tmp_path / "report.html"
    )
    assert "The 24 labels with the lowest AP are shown, out of 80" in words(page)
    AP = {name: of["test"]["AP"] for name, of in document["labels"].items()}
    drawn = [one["aria-label"] for one in page.all("svg") if one.get("class") == "plot curve"]
    lowest = sorted(AP, key=lambda name: AP[name])[:24]
    assert [one.removeprefix("Precision over recall of ").split(":")[0] for one in drawn] == lowest
    assert len(document["precision_recall"]) == 80
    assert len(page.all("img")) == 24
    assert (tmp_path / "report.html").stat().st_size < 3_000_000


def test_the_same_training_gives_the_same_bytes_and_leaves_matplotlib_alone(
    tmp_path: Path,
) -> None:
    before = dict(mpl.rcParams)
    for name in ("a", "b"):
        train_report(training(), tmp_path / name / "report.html")
    for file in ("report.html", "report.json", "per_label.csv"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert dict(mpl.rcParams) == before


def test_nan_scores_are_refused_before_anything_is_written(out: Path) -> None:
    split = scored(10)
    split.scores[3, 2] = math.nan
    with pytest.raises(InputError, match="NaN"):
        train_report(training(test=split), out)
    assert not list(out.parent.iterdir())


def test_smoothing_is_a_mean_with_decaying_weights() -> None:
    values = np.random.default_rng(0).normal(size=50)
    expected = [
        np.average(values[: last + 1], weights=0.9 ** np.arange(last, -1, -1))
        for last in range(len(values))
    ]
    np.testing.assert_allclose(smoothed(values), expected)
    gap = smoothed(np.array([1.0, math.nan, 1.0, math.inf]))
    np.testing.assert_array_equal(np.isnan(gap), [False, True, False, True])
    assert gap[2] == pytest.approx(1)


@pytest.mark.parametrize("suggested", [3.2e-3, None])
def test_the_learning_rate_report_shows_the_suggestion(out: Path, suggested: float | None) -> None:
    rates = np.geomspace(1e-6, 1, 60).tolist()
    losses = [0.7] * 30 + [0.3] * 20 + [math.nan, 1e9, math.inf] + [5.0] * 7
    write_lr_report(rates, losses, suggested, out)
    page = check_page(out)
    note = "Suggested: 0.0032." if suggested else "No rate is suggested."
    assert any(note in one.get("aria-label", "") for one in page.all("svg"))
    assert ("0.0032" in page.text) == bool(suggested)
    assert "1e-06 to 1" in page.text


@pytest.mark.parametrize("losses", [[], [0.5], [math.nan] * 3, [0.5] * 4])
def test_a_learning_rate_report_without_a_suggestion_is_valid(
    out: Path, losses: list[float]
) -> None:
    write_lr_report([10.0**-i for i in range(len(losses), 0, -1)], losses, None, out)
    check_page(out)
