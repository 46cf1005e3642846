from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from edgeml import ModelSpec, Preprocess
from edgeml.data import Dataset, SplitPlan, split_dataset
from edgeml.data.dataset import Side
from edgeml.data.run_split import RunSplit
from edgeml.errors import CalibrationError, DataError
from edgeml.spec.provenance import Provenance
from edgeml_export.roles import Roles, assign_roles
from tests.notes import Notes

LABELS = ("a", "b")
SPEC = ModelSpec(labels=LABELS, thresholds=(0.5, 0.5), preprocess=Preprocess(size=(8, 8)))


def pictures_of(hashes: str, split: str | None = None, folder: str = "/data") -> Dataset:
    """Pictures that need not exist: a letter is the digest of each, and another is its side."""
    sides = {"t": "train", "v": "val", "e": "test"}
    paths = tuple(Path(folder) / f"{row}.jpg" for row in range(len(hashes)))
    return Dataset(
        root=Path(folder),
        paths=paths,
        labels=LABELS,
        targets=np.tile(np.array([1, 0], np.int8), (len(hashes), 1)),
        split=split and tuple(sides[letter] for letter in split),
        known_hashes=dict(zip(paths, hashes, strict=True)),
    )


def used(roles: Roles) -> tuple[str, str, str]:
    """Give the digests that calibrate, fit and report, each in order."""

    def of(hashes: Sequence[str]) -> str:
        return "".join(sorted(hashes))

    return (
        of(roles.calibration.hashes if roles.calibration else ""),
        of(roles.fitting.hashes() if roles.fitting else ""),
        of(roles.reporting.hashes() if roles.reporting else ""),
    )


def test_the_sides_of_a_split_calibrate_fit_and_report() -> None:
    data = pictures_of("abcdefg", "tvetvet")
    assert used(assign_roles(SPEC, data, data)) == ("adg", "be", "cf")
    assert used(assign_roles(SPEC, data, None)) == ("adg", "be", "")
    assert used(assign_roles(SPEC, None, data)) == ("", "be", "cf")
    assert used(assign_roles(SPEC, None, None)) == ("", "", "")


def test_a_run_states_the_sides_of_images_whose_data_changed() -> None:
    sides: dict[str, Side] = {"a": "train", "b": "val", "c": "test", "d": "train"}
    run = RunSplit(by_content=sides, by_path={}, digest="")
    notes = Notes()
    data = pictures_of("abcdef")
    roles = assign_roles(SPEC, data, data, run=run, progress=notes)
    assert used(roles) == ("ad", "b", "c")
    assert "2 of 6 images" in notes.lines[0]
    assert used(assign_roles(SPEC, None, data, run=run)) == ("", "b", "c")
    assert used(assign_roles(SPEC, None, pictures_of("xyz"), run=run)) == ("", "", "xyz")


def test_without_a_validation_side_nothing_fits() -> None:
    data = pictures_of("abcdef", "teteet")
    assert used(assign_roles(SPEC, data, data)) == ("acf", "", "bde")


def test_of_two_data_sets_with_splits_each_gives_its_own_side() -> None:
    calib = pictures_of("abc", "tve", "/calib")
    check = pictures_of("xyz", "tve", "/check")
    assert used(assign_roles(SPEC, calib, check)) == ("a", "b", "z")


def test_few_images_all_calibrate_and_the_other_data_s_validation_side_fits() -> None:
    calib = pictures_of("abcdef", folder="/calib")
    assert used(assign_roles(SPEC, calib, pictures_of("xyz", None, "/check"))) == (
        "abcdef", "", "xyz",
    )  # fmt: skip
    assert used(assign_roles(SPEC, calib, pictures_of("xyz", "tve", "/check"))) == (
        "abcdef", "y", "z",
    )  # fmt: skip


def spec_for(data: Dataset) -> ModelSpec:
    return ModelSpec(
        labels=data.labels,
        thresholds=(0.5,) * len(data.labels),
        preprocess=Preprocess(size=(8, 8)),
    )


def test_one_data_set_for_both_is_divided_as_for_training(data: Dataset) -> None:
    roles = assign_roles(spec_for(data), data, data)
    divided = split_dataset(data, SplitPlan())
    assert roles.calibration is not None
    assert set(roles.calibration.hashes) <= set(divided.part("train").hashes())
    assert roles.fitting is not None
    assert roles.fitting.paths == divided.part("val").paths
    assert roles.reporting is not None
    assert roles.reporting.paths == divided.part("test").paths


def test_the_split_that_a_model_was_trained_with_is_taken(data: Dataset) -> None:
    plan = SplitPlan(val=0.3, test=0.2, seed=5)
    spec = spec_for(data)
    trained = ModelSpec(
        labels=spec.labels,
        thresholds=spec.thresholds,
        preprocess=spec.preprocess,
        provenance=Provenance(data_sha256=data.digest(), split=plan),
    )
    roles = assign_roles(trained, None, data)
    assert roles.reporting is not None
    assert roles.reporting.paths == split_dataset(data, plan).part("test").paths


def test_of_data_for_calibration_alone_three_of_ten_fit(data: Dataset) -> None:
    other = replace(pictures_of("xyz", None, "/check"), labels=("ball", "blue"))
    roles = assign_roles(spec_for(data), data, other)
    assert roles.calibration is not None
    assert roles.fitting is not None
    assert roles.reporting is other
    assert len(roles.calibration.paths) + len(roles.fitting) == len(data)
    assert len(roles.fitting) == pytest.approx(0.3 * len(data), rel=0.05)
    assert not set(roles.calibration.paths) & set(roles.fitting.paths)


@pytest.mark.parametrize(("count", "divided"), [(59, False), (60, True)])
def test_from_sixty_images_on_some_fit(count: int, divided: bool, data: Dataset) -> None:
    some = data.select(np.arange(count))
    assert (assign_roles(spec_for(some), some, None).fitting is not None) == divided


OVERLAPS = [
    # calibrates, checks; the message
    (("abcd", "ttvv"), ("xbay", None), "2 of 4 images that are checked with are also calibrated "),
    (("abcd", "ttvv"), ("xycz", None), "1 of 4 images that are checked with are also fitted with"),
    (("abca", "ttvv"), ("xy", None), "1 of 2 images that are fitted with are also calibrated with"),
]


@pytest.mark.parametrize(("calib", "check", "message"), OVERLAPS)
def test_an_image_with_two_roles_is_refused_and_counted(
    calib: tuple[str, str], check: tuple[str, None], message: str
) -> None:
    with pytest.raises(CalibrationError, match=message) as caught:
        assign_roles(SPEC, pictures_of(*calib, "/calib"), pictures_of(*check, "/check"))
    assert "--allow-overlap" in str(caught.value)


def test_the_refusal_names_an_image_and_a_remedy() -> None:
    calib = pictures_of("abcd", "ttvv", "/calib")
    with pytest.raises(CalibrationError, match=r"for example '1\.jpg'.*Give --check other images"):
        assign_roles(SPEC, calib, pictures_of("xb", None, "/check"))
    # Other images to check with would not help where two sides of one split share a picture.
    with pytest.raises(CalibrationError, match=r"for example '3\.jpg'.*edgeml data split"):
        assign_roles(SPEC, pictures_of("abca", "ttvv"), None)


@pytest.mark.parametrize(("calib", "check", "message"), OVERLAPS)
def test_an_allowed_overlap_is_counted_by_content_and_noted(
    calib: tuple[str, str], check: tuple[str, None], message: str
) -> None:
    notes = Notes()
    roles = assign_roles(
        SPEC,
        pictures_of(*calib, "/calib"),
        pictures_of(*check, "/check"),
        allow_overlap=True,
        progress=notes,
    )
    assert roles.overlap == int(message.split()[0])
    assert [line for line in notes.lines if "flatter" in line] == [
        f"{roles.overlap} images have more than one role of calibrating, fitting and checking: "
        "the figures flatter the model."
    ]


def test_the_same_bytes_twice_in_one_role_are_no_overlap() -> None:
    data = pictures_of("aabbcc", "ttvvee")
    assert assign_roles(SPEC, data, data).overlap == 0


def test_nothing_to_calibrate_or_to_report_with_is_refused() -> None:
    data = pictures_of("abc", "vvv")
    with pytest.raises(CalibrationError, match="no image to calibrate"):
        assign_roles(SPEC, data, None)
    with pytest.raises(DataError, match="test part"):
        assign_roles(SPEC, None, data)
