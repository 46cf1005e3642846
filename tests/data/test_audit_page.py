"""The page of an audit shows the findings with their images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgeml.data import Dataset
from edgeml.data.audit import Audit, audit
from edgeml.data.audit_page import audit_report
from edgeml.data.dataset import Skipped
from edgeml.errors import InputError
from tests.data.dirty import make_dirty, scene
from tests.report.pages import EVIL, check_page


@pytest.fixture(scope="module")
def dirty(tmp_path_factory: pytest.TempPathFactory) -> Audit:
    return audit(make_dirty(tmp_path_factory.mktemp("dirty")))


def test_the_page_shows_every_finding_with_its_image(dirty: Audit, tmp_path: Path) -> None:
    audit_report(dirty, tmp_path / "audit.html")
    page = check_page(tmp_path / "audit.html")
    for shown in (
        "labels.csv, line 53", "cut.jpg", "conflict.jpg", "exact-twin.jpg", "near-twin.jpg",
        "cmyk: 1", "rgba: 1", "palette: 1", "16-bit: 1", "rotated: 1", "wrong extension: 1",
        "no-row.jpg", "zebra", "rare",
    ):  # fmt: skip
        assert shown in page.text, shown
    # Two in the conflict and in each of three groups, six odd ones, and one without a row.
    assert len(page.all("img")) == 2 + 3 * 2 + 6 + 1
    assert all(image["src"].startswith("data:image/jpeg") for image in page.all("img"))
    targets = {link["href"] for link in page.all("a")}
    assert targets <= {f"#{part['id']}" for part in page.all("h2")}


def test_the_page_of_a_clean_data_set_shows_no_findings(tmp_path: Path) -> None:
    paths = tuple(tmp_path / f"{row}.png" for row in range(4))
    for row, path in enumerate(paths):
        cv2.imwrite(str(path), scene(row))
    targets = np.eye(2, dtype=np.int8)[np.arange(4) % 2]
    dataset = Dataset(root=tmp_path, paths=paths, labels=("a", "b"), targets=targets)
    audit_report(audit(dataset), tmp_path / "audit.html")
    page = check_page(tmp_path / "audit.html")
    assert "There are none: neither with the same bytes" in page.text
    assert "What cannot be used" not in page.text
    assert not page.all("img")


@pytest.mark.parametrize("labels", [1, 60])
def test_the_page_works_with_few_or_many_labels_and_without_readable_images(
    tmp_path: Path, labels: int
) -> None:
    names = tuple(f"{EVIL}{column:02}" for column in range(labels))
    targets = np.ones((2, labels), np.int8)
    targets[1] = -1
    paths = (tmp_path / "a.jpg", tmp_path / "b.jpg")
    dataset = Dataset(root=tmp_path, paths=paths, labels=names, targets=targets)
    report = audit(dataset)
    audit_report(report, tmp_path / "none.html")
    assert "No such file" in check_page(tmp_path / "none.html").text
    for row, path in enumerate(paths):
        cv2.imwrite(str(path), scene(row))
    audit_report(audit(dataset), tmp_path / "some.html")
    assert f"{EVIL}00" in check_page(tmp_path / "some.html").text


def test_the_page_of_thousands_of_findings_stays_small(dirty: Audit, tmp_path: Path) -> None:
    many = tuple(Skipped(f"labels.csv, line {line}", EVIL) for line in range(3000))
    audit_report(replace(dirty, skipped=many), tmp_path / "audit.html")
    page = check_page(tmp_path / "audit.html")
    assert "And 2 961 more" in page.text.replace("\u2009", " ").replace("\u202f", " ")
    assert (tmp_path / "audit.html").stat().st_size < 1_000_000


def test_an_image_deleted_after_the_audit_is_shown_as_unreadable(tmp_path: Path) -> None:
    table = make_dirty(tmp_path / "data")
    report = audit(table)
    (table.parent / "images" / "conflict.jpg").unlink()
    audit_report(report, tmp_path / "audit.html")
    assert "cannot be read" in check_page(tmp_path / "audit.html").text


def test_a_page_that_cannot_be_written_is_refused(dirty: Audit, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="Cannot write"):
        audit_report(dirty, tmp_path / "file" / "audit.html")
