"""Broken data sets are refused by file and line; with skip_bad, only the bad entries are left out.

The command line does the same in one line, without a traceback or a partial file.
"""

from __future__ import annotations

import csv
import re
from pathlib import Path

import pytest

from edgeml.data import Dataset, SplitPlan, read_dataset, split_dataset
from edgeml.data.screen import without_unreadable
from edgeml.errors import DataError
from tests.data.readers.cases import CASES, Case
from tests.data.readers.sets import (
    GOOD,
    coco,
    columns,
    folders,
    labels_by_name,
    parquet,
    run_command,
    table,
    yolo,
)  # fmt: skip

every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES)


def load(path: Path, *, skip_bad: bool) -> Dataset:
    """Read, screen and split as `edgeml data split` does."""
    dataset = without_unreadable(read_dataset(path, skip_bad=skip_bad), skip_bad=skip_bad)
    return split_dataset(dataset, SplitPlan())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


def test_good_data_sets_are_read_in_every_format(tmp_path: Path) -> None:
    for make in (folders, table, columns, parquet, coco, yolo):
        dataset = load(make(tmp_path / make.__name__), skip_bad=False)
        assert labels_by_name(dataset) == GOOD
        assert dataset.known.all()
        assert dataset.skipped == ()


@every_case
def test_a_bad_entry_is_refused_by_its_place_or_left_out(root: Path, case: Case) -> None:
    path = case.make(root)
    with pytest.raises(DataError) as caught:
        load(path, skip_bad=False)
    assert re.search(case.says, str(caught.value)), str(caught.value)
    assert "\n" not in str(caught.value)
    if case.skipped is None:
        with pytest.raises(DataError) as caught:
            load(path, skip_bad=True)
        assert path.name in str(caught.value) or re.search(case.says, str(caught.value))
        return
    dataset = load(path, skip_bad=True)
    expected = {name: labels for name, labels in GOOD.items() if name not in case.lost}
    assert labels_by_name(dataset) == expected | dict(case.added)
    skipped = sorted(map(str, dataset.skipped))
    assert len(skipped) == len(case.skipped), skipped
    for line, name in zip(skipped, case.skipped, strict=True):
        assert name in line.split(": ")[0]


@pytest.mark.parametrize(
    "name",
    [
        "folders: a folder name that is not UTF-8",
        "folders: an image that ends in the middle",
        "csv: a quote that never closes",
        "parquet: cut short",
        "coco: an image id twice",
        "yolo: a class out of range",
        "archive: a .zip that expands to gigabytes",
    ],
)
def test_the_command_prints_one_line_and_leaves_no_file(
    root: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    case = CASES[name]
    out = root.parent / "out" / "split.csv"
    words = ["data", "split", str(case.make(root)), "--out", str(out)]
    assert run_command(words, monkeypatch) == 2
    printed = capsys.readouterr()
    progress = re.compile(r"[a-z ]+: \d+/\d+ in|labels: |note: ")  # of earlier steps
    lines = [line for line in printed.err.splitlines() if not progress.match(line)]
    assert printed.out == ""
    assert len(lines) == 1, printed.err
    assert lines[0].startswith("edgeml: ")
    assert not out.exists()
    assert not [*root.parent.rglob(".split.csv*")]

    status = run_command([*words, "--skip-bad"], monkeypatch)
    printed = capsys.readouterr()
    assert "Traceback" not in printed.err
    assert status == (2 if case.skipped is None else 0), printed.err
    assert out.exists() == (case.skipped is not None)
    if case.skipped is not None:
        assert printed.err.count("Left out: ") == len(case.skipped)
        with open(out, encoding="utf-8", newline="") as file:
            names = {Path(row["path"]).name for row in csv.DictReader(file)}
        assert names == (set(GOOD) - set(case.lost)) | {name for name, _ in case.added}


def test_ten_bad_rows_are_named_and_the_others_counted(
    root: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = table(root, *(f"gone{number}.png,red" for number in range(25)))
    out = root.parent / "split.csv"
    words = ["data", "split", str(file), "--out", str(out), "--skip-bad"]
    assert run_command(words, monkeypatch) == 0
    lines = [line for line in capsys.readouterr().err.splitlines() if "Left out" in line]
    assert len(lines) == 11
    assert "labels.csv, line 8: there is no image" in lines[0]
    assert lines[-1] == "Left out: 15 more, 25 in all"


def test_derived_data_sets_list_the_skipped_entries(root: Path) -> None:
    dataset = load(table(root, "gone.png,red"), skip_bad=True)
    assert len(dataset.part("train").skipped) == len(dataset.select([0]).skipped) == 1
