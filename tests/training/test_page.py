"""The report of a training: what stands on its page, and the numbers beside it."""

from __future__ import annotations

import csv
import json
import math
import re
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import cv2
import matplotlib as mpl
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from sklearn import metrics as sk

from edgeml.errors import InputError
from edgeml.image.preprocess import Preprocess
from edgeml.measure.metrics import evaluate
from edgeml.report.drawn import curve, heatmap
from edgeml.spec.labels import LabelGroup
from edgeml.spec.model_spec import ModelSpec
from edgeml.training.history import Epoch
from edgeml.training.report.files import per_label_csv, report_json
from edgeml.training.report.findings import ScoredSplit, Training, analyse
from edgeml.training.report.page import train_report, write_lr_report
from edgeml.training.report.plots import smoothed
from tests.report.pages import EVIL, Page, check_page

LABELS = ("red", "green", "blue", "shirt", "dress", "kids")
COLOUR = LabelGroup(name="colour", labels=("red", "green", "blue"), rule="one")
THRESHOLDS = (0.5, 0.5, 0.5, 0.3, 0.4, 0.6)


EPOCH = Epoch(
    epoch=1, lr=1e-3, train_loss=0.4, val_loss=0.5, mAP=0.6, CP=0.5, CR=0.5, CF1=0.56,
    macro_F1=0.55, OP=0.5, OR=0.5, OF1=0.57, exact_match=0.3, seconds=10.0, images_per_s=200.0,
    wait=0.02,
)  # fmt: skip
NAN_EPOCH = Epoch(**{**{field.name: math.nan for field in fields(Epoch)}, "epoch": 1})  # type: ignore[arg-type]


def scored(
    images: int, labels: tuple[str, ...] = LABELS, *, seed: int = 0, unknown: float = 0.0
) -> ScoredSplit:
    """Draw targets, and scores that follow them with some errors."""
    random = np.random.default_rng(seed)
    targets = (random.random((images, len(labels))) < 0.4).astype(np.int8)
    if labels == LABELS:
        targets[:, :3] = np.eye(3, dtype=np.int8)[random.integers(0, 3, images)]
    logits = 2.5 * targets - 1 + random.normal(size=targets.shape)
    targets[random.random(targets.shape) < unknown] = -1
    return ScoredSplit(
        scores=(1 / (1 + np.exp(-logits))).astype(np.float32),
        targets=targets,
        paths=tuple(Path(f"gone/{row}.jpg") for row in range(images)),
    )


def spec_of(labels: tuple[str, ...], groups: tuple[LabelGroup, ...] = ()) -> ModelSpec:
    return ModelSpec(
        labels=labels,
        thresholds=(0.5,) * len(labels),
        preprocess=Preprocess(size=(8, 8)),
        groups=groups,
    )


def training(**changes: Any) -> Training:
    inputs = Training(
        title="A run",
        history=[replace(EPOCH, epoch=epoch, val_loss=1 / epoch) for epoch in range(1, 5)],
        spec=replace(spec_of(LABELS, (COLOUR,)), thresholds=THRESHOLDS),
        val=scored(60, seed=1),
        test=scored(80, seed=2),
        uncalibrated=scored(60, seed=3).scores,
        temperature=1.25,
        audit=(("Duplicates", "3 groups"),),
        config={"model": "cnn", "weights": Path("a/b.safetensors"), "lr": 1e-3, "args": None},
        facts={"Versions": "torch 2.15.0"},
        best_epoch=3,
    )
    return replace(inputs, **changes)


def other_labels(labels: tuple[str, ...], images: int = 20, **changes: Any) -> Training:
    """Return a training with other labels, in no group."""
    return training(
        spec=spec_of(labels),
        val=scored(images, labels, seed=1),
        test=scored(images, labels, seed=2),
        uncalibrated=None,
        **changes,
    )


def written(inputs: Training, out: Path) -> tuple[Page, dict[str, Any]]:
    """Write a report; give its page, checked, and its JSON, read as strictly as can be."""
    train_report(inputs, out)
    return check_page(out), strict_json(out.with_name("report.json").read_text("utf-8"))


def measured(inputs: Training) -> dict[str, Any]:
    """Return what would stand in report.json, without drawing a page."""
    return strict_json(report_json(inputs, analyse(inputs)))


def strict_json(text: str) -> dict[str, Any]:
    def refuse(constant: str) -> None:
        raise ValueError(constant)

    document: dict[str, Any] = json.loads(text, parse_constant=refuse)
    return document


def decided(side: ScoredSplit) -> NDArray[np.bool_]:
    """Decide by hand: thresholds, and the best colour."""
    present = side.scores >= np.array(THRESHOLDS, np.float32)
    present[:, :3] = np.eye(3, dtype=bool)[side.scores[:, :3].argmax(axis=1)]
    return present


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


def test_the_json_holds_what_scikit_learn_measures() -> None:
    inputs = training()
    document = measured(inputs)
    sides = {"val": inputs.val, "test": inputs.test}
    assert set(document["metrics"]) == set(sides)
    for name, side in sides.items():
        assert side
        truth, present = side.targets, decided(side)
        precision, recall, f1, support = sk.precision_recall_fscore_support(
            truth, present, zero_division=0
        )
        AP = sk.average_precision_score(truth, side.scores, average=None)
        for column, label in enumerate(LABELS):
            entry = document["labels"][label]
            assert entry["threshold"] == THRESHOLDS[column]
            assert entry[name] == {
                "AP": pytest.approx(AP[column], rel=1e-5),
                "precision": pytest.approx(precision[column], rel=1e-5),
                "recall": pytest.approx(recall[column], rel=1e-5),
                "F1": pytest.approx(f1[column], rel=1e-5),
                "positives": support[column],
                "known": len(truth),
            }
        summary = document["metrics"][name]
        assert summary["images"] == len(truth)
        assert summary["mAP"] == pytest.approx(AP.mean(), rel=1e-5)
        assert summary["macro_F1"] == pytest.approx(f1.mean(), rel=1e-5)
        assert summary["OF1"] == pytest.approx(sk.f1_score(truth, present, average="micro"))
        assert summary["exact_match"] == pytest.approx(sk.accuracy_score(truth, present))


def test_the_json_holds_confusion_cooccurrence_and_curves_of_the_test_side() -> None:
    inputs = training()
    document = measured(inputs)
    side = inputs.test
    assert side
    assert document["side"] == "test"
    matrix = sk.confusion_matrix(
        side.targets[:, :3].argmax(axis=1), side.scores[:, :3].argmax(axis=1)
    )
    assert document["confusion"] == {
        "colour": {"labels": list(COLOUR.labels), "counts": matrix.tolist()}
    }
    assert document["cooccurrence"]["labels"] == list(LABELS)
    for row in range(6):
        for column in range(6):
            both = sum(t[row] == 1 and t[column] == 1 for t in side.targets)
            assert document["cooccurrence"]["counts"][row][column] == both
    for column, label in enumerate(LABELS):
        entry = document["precision_recall"][label]
        precision, recall, _ = sk.precision_recall_curve(
            side.targets[:, column], side.scores[:, column]
        )
        for point in zip(entry["recall"], entry["precision"], strict=True):
            assert np.isclose(np.c_[recall, precision], point, rtol=1e-5).all(axis=1).any()
        area = (np.diff(entry["recall"], prepend=0) * entry["precision"]).sum()
        assert area == pytest.approx(document["labels"][label]["test"]["AP"], rel=1e-4)
        numbers = document["labels"][label]["test"]
        assert entry["mark"] == [numbers["recall"], numbers["precision"]]
        assert entry["prevalence"] == pytest.approx(numbers["positives"] / 80)


def test_the_json_holds_reliability_before_and_after_the_temperature() -> None:
    inputs = training()
    document = measured(inputs)
    assert document["temperature"] == 1.25
    assert inputs.test is not None
    assert inputs.uncalibrated is not None
    for name, scores, targets in (
        ("val_before", inputs.uncalibrated, inputs.val.targets),
        ("val", inputs.val.scores, inputs.val.targets),
        ("test", inputs.test.scores, inputs.test.targets),
    ):
        entry, gap, total = document["reliability"][name], 0.0, scores.size
        for low in range(15):
            inside = np.minimum(scores.astype(float) * 15 // 1, 14) == low
            assert entry["count"][low] == inside.sum()
            if inside.any():
                assert entry["confidence"][low] == pytest.approx(scores[inside].mean(), rel=1e-4)
                assert entry["frequency"][low] == pytest.approx(targets[inside].mean(), rel=1e-4)
                gap += abs(scores[inside].mean() - targets[inside].mean()) * inside.sum() / total
            else:
                assert entry["confidence"][low] is None
        assert entry["ece"] == pytest.approx(gap, rel=1e-4)
        assert entry["brier"] == pytest.approx(np.square(scores - targets).mean(), rel=1e-4)


def test_the_json_holds_the_history_and_what_was_handed_in(out: Path) -> None:
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


def test_the_csv_has_a_row_for_each_label_with_the_numbers_of_the_json() -> None:
    inputs = training()
    document = measured(inputs)
    rows = list(csv.DictReader(per_label_csv(inputs, analyse(inputs)).splitlines()))
    assert [row["label"] for row in rows] == list(LABELS)
    assert [row["group"] for row in rows] == ["colour"] * 3 + [""] * 3
    for row in rows:
        of = document["labels"][row["label"]]
        assert float(row["threshold"]) == of["threshold"]
        for side in ("val", "test"):
            for key, value in of[side].items():
                assert float(row[f"{side}_{key}"]) == value


def test_tiles_and_table_show_the_test_side_and_say_so(usual: Usual) -> None:
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


def test_without_a_test_side_the_validation_side_is_shown_and_said_to_be_chosen_by(
    out: Path,
) -> None:
    page, document = written(training(test=None), out)
    assert document["side"] == "val"
    assert set(document["metrics"]) == {"val"}
    text = words(page)
    assert "There is no test split: measured on the 60 images of the validation split" in text
    assert "validation: mean of 6 labels" in text
    assert measured(training(test=scored(0)))["side"] == "val"


def test_labels_that_a_side_lacks_or_that_are_never_predicted_are_named(out: Path) -> None:
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


def test_unknown_targets_are_counted_in_nothing_and_told(out: Path) -> None:
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


def test_pairs_that_are_confused_are_counted_within_a_group_and_among_the_rest() -> None:
    targets = np.zeros((5, 6), np.int8)
    targets[:, 0] = 1  # all are red
    targets[:3, 3] = 1  # and three a shirt
    scores = np.full((5, 6), 0.1, np.float32)
    scores[:4, 1] = 0.9  # four are taken for green
    scores[4, 0] = 0.9
    scores[:2, 4] = 0.9  # two shirts for dresses
    scores[2, 3] = 0.9
    side = ScoredSplit(scores=scores, targets=targets, paths=(Path("a"),) * 5)
    entry = analyse(training(test=side)).confused
    assert [(one.truth, one.predicted, one.count, one.positives) for one in entry] == [
        ("red", "green", 4, 5),
        ("shirt", "dress", 2, 3),
    ]


def test_the_worst_images_come_first_with_their_labels_in_words(tmp_path: Path) -> None:
    targets = np.zeros((4, 6), np.int8)
    targets[:, [0, 3]] = 1
    scores = np.where(targets > 0, 0.9, 0.1).astype(np.float32)
    scores[1, [3, 4]] = 0.25, 0.9375  # the shirt is missed, a dress is entry
    scores[2, 5] = 0.996  # kids are entry, surely
    targets[2, 4] = -1
    scores[2, 4] = 0.75
    paths = tuple(tmp_path / f"{name}.jpg" for name in "abcd")
    cv2.imwrite(str(paths[2]), np.full((30, 50, 3), 200, np.uint8))
    paths[1].write_bytes(b"no image")
    side = ScoredSplit(scores=scores, targets=targets, paths=paths)
    page, document = written(training(test=side), tmp_path / "out" / "report.html")
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


def test_images_that_are_gone_are_shown_as_missing(usual: Usual) -> None:
    page, document = usual
    assert words(page).count("image missing") == len(document["worst"]) > 0
    assert not page.all("img")


@pytest.mark.parametrize(
    ("wait", "bottleneck"), [(0.5, "data"), (0.01, "compute"), (math.nan, None)]
)
def test_the_bottleneck_is_told_by_how_long_training_waited(
    wait: float, bottleneck: str | None
) -> None:
    # The first epoch, in which caches are filled, is not what a run is judged by.
    history = [
        replace(EPOCH, epoch=1, wait=0.9, images_per_s=10.0),
        replace(EPOCH, epoch=2, wait=wait),
    ]
    speed = measured(training(history=history))["speed"]
    assert speed["bottleneck"] == bottleneck
    assert speed["images_per_s"] == 200.0


def test_the_page_says_what_waiting_costs(out: Path) -> None:
    page, _ = written(training(history=[replace(EPOCH, epoch=1, wait=0.5)]), out)
    told = "reading them was the bottleneck. Without waiting it would be 2.0 times as fast."
    assert told in words(page)


def test_the_kept_epoch_is_in_the_description_of_the_curves(usual: Usual) -> None:
    descriptions = [one.get("aria-label", "") for one in usual[0].all("svg")]
    assert any("Epoch 3 was saved." in one for one in descriptions)
    assert any("validation from 1.000 to 0.250" in one for one in descriptions)


def test_markup_in_a_name_is_shown_and_not_obeyed(out: Path) -> None:
    def evil(place: str) -> str:
        return f"{place}{EVIL}"

    labels = (evil("label"), *LABELS[1:])
    colour = replace(COLOUR, name=evil("group"), labels=labels[:3])
    inputs = training(
        spec=spec_of(labels, (colour,)),
        title=evil("title"),
        config={evil("key"): evil("value")},
        facts={evil("fact"): evil("said")},
        audit=[(evil("check"), evil("result"))],
        held_out_name=evil("held out"),
    )
    held = evaluate(inputs.val.scores, inputs.val.targets, inputs.spec)
    assert inputs.test
    paths = tuple(Path(evil("file").replace("/", "")) for _ in inputs.test.paths)
    page, _ = written(replace(inputs, held_out=held, test=replace(inputs.test, paths=paths)), out)
    for place in ("label", "group", "title", "fact", "said", "check", "result", "held out"):
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
    ids=["one epoch", "little said", "nothing known", "a gap", "many epochs", "one image",
         "two labels"],
)  # fmt: skip
def test_little_or_odd_data_make_a_sound_page(out: Path, inputs: Training) -> None:
    page, _ = written(inputs, out)
    assert "Label by label" in page.text


def test_a_side_on_which_nothing_is_present_or_known_makes_a_sound_page(out: Path) -> None:
    absent, unsaid = scored(5), scored(5)
    absent.targets[:], unsaid.targets[:] = 0, -1
    page, document = written(training(val=absent, test=unsaid, uncalibrated=None), out)
    assert "No image of this split has a label." in words(page)
    assert document["metrics"]["val"]["mAP"] is document["metrics"]["test"]["mAP"] is None


def test_a_side_without_an_error_has_no_worst_image(out: Path) -> None:
    side = scored(12)
    perfect = replace(side, scores=np.where(side.targets > 0, 0.99, 0.01).astype(np.float32))
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
    assert [
        told.removeprefix("Precision over recall of ").split(":")[0] for told in drawn
    ] == lowest
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


def test_scores_that_are_not_numbers_are_refused_before_anything_is_written(out: Path) -> None:
    side = scored(10)
    side.scores[3, 2] = math.nan
    with pytest.raises(InputError, match="NaN"):
        train_report(training(test=side), out)
    assert not list(out.parent.iterdir())


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_any_sides_can_be_measured_and_written(data: st.DataObject) -> None:
    width = data.draw(st.integers(2, 5))
    labels = tuple("abcde"[:width])
    grouped = data.draw(st.integers(0, width))
    groups = (LabelGroup(name="g", labels=labels[:grouped], rule="one"),) if grouped > 1 else ()

    def side() -> ScoredSplit:
        rows = data.draw(st.integers(0, 6))
        cells = st.lists(
            st.tuples(st.sampled_from([-1, 0, 1]), st.floats(0, 1, width=32)),
            min_size=rows * width,
            max_size=rows * width,
        )
        drawn = np.array(data.draw(cells), np.float32).reshape(rows, width, 2)
        return ScoredSplit(
            targets=drawn[:, :, 0].astype(np.int8), scores=drawn[:, :, 1], paths=(Path("x"),) * rows
        )

    inputs = training(spec=spec_of(labels, groups), val=side(), test=side(), uncalibrated=None)
    entry = analyse(inputs)
    document = strict_json(report_json(inputs, entry))
    shown = inputs.test if document["side"] == "test" else inputs.val
    assert shown
    wrong = [one for one in document["worst"] if one["truth"] != one["predicted"]]
    assert len(wrong) == len(document["worst"]) <= len(shown.targets)
    assert len(per_label_csv(inputs, entry).splitlines()) == width + 1


def test_a_heatmap_has_a_cell_for_each_count_with_its_names() -> None:
    counts = np.array([[2, 1], [0, 3]])
    svg = heatmap(
        counts, counts / 3, ("<a>", "b{row}"), told="{row}/{column}: {count}, {share}",
        between="rows", description="What it shows.",
    )  # fmt: skip
    titles = re.findall(r'fill-opacity="([\d.]+)"><title>(.*?)</title>', svg)
    assert titles == [
        ("0.70", "&lt;a&gt;/&lt;a&gt;: 2, 67 %"),
        ("0.40", "&lt;a&gt;/b{row}: 1, 33 %"),
        ("1.00", "b{row}/b{row}: 3, 100 %"),
    ]


def test_a_curve_is_drawn_as_steps_from_the_left() -> None:
    svg = curve([0.5, 1.0], [1.0, 0.5], mark=(0.5, 1.0), prevalence=0.25, description="A curve.")
    # The plot is 150 wide from x = 22 and 96 high from y = 6.
    assert 'class="line" d="M22 6V6H97V54H172"' in svg
    assert '<circle cx="97" cy="6"' in svg
    assert 'class="chance" d="M22 78H172"' in svg


def test_smoothing_is_the_mean_with_weights_that_fade() -> None:
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
def test_the_page_of_a_search_for_a_learning_rate_shows_what_it_suggests(
    out: Path, suggested: float | None
) -> None:
    rates = np.geomspace(1e-6, 1, 60).tolist()
    losses = [0.7] * 30 + [0.3] * 20 + [math.nan, 1e9, math.inf] + [5.0] * 7
    write_lr_report(rates, losses, suggested, out)
    page = check_page(out)
    told = "Suggested: 0.0032." if suggested else "No rate is suggested."
    assert any(told in one.get("aria-label", "") for one in page.all("svg"))
    assert ("0.0032" in page.text) == bool(suggested)
    assert "1e-06 to 1" in page.text


@pytest.mark.parametrize("losses", [[], [0.5], [math.nan] * 3, [0.5] * 4])
def test_a_search_that_found_little_makes_a_sound_page(out: Path, losses: list[float]) -> None:
    write_lr_report([10.0**-i for i in range(len(losses), 0, -1)], losses, None, out)
    check_page(out)
