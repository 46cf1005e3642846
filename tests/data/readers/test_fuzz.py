"""Any bytes give a data set or a DataError, and no other error."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeml.data import Dataset, read_dataset
from edgeml.errors import DataError
from tests.data.readers import sets
from tests.field import label_sets

pytestmark = pytest.mark.slow

# 6000 examples of each found a path that was too long for the system; 60 keep the suite fast.
fuzz = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])

FILES = {
    "csv": (sets.table, "labels.csv"),
    "columns": (sets.columns, "labels.csv"),
    "parquet": (sets.parquet, "labels.parquet"),
    "coco": (sets.coco, "instances.json"),
    "yolo yaml": (sets.yolo, "data.yaml"),
    "yolo labels": (sets.yolo, "labels/3.txt"),
    "Label Studio": (label_sets.label_studio_json, "project-1.json"),
    "Label Studio csv": (label_sets.label_studio_csv, "project-1.csv"),
    "CVAT": (label_sets.cvat, "annotations.xml"),
    "Datumaro": (label_sets.datumaro, "annotations/train.json"),
    "FiftyOne": (label_sets.fiftyone_samples, "samples.json"),
    "FiftyOne classification": (label_sets.fiftyone_labels, "labels.json"),
    "VOC": (label_sets.voc, "Annotations/1.xml"),
    "imagefolder": (label_sets.imagefolder_jsonl, "train/metadata.jsonl"),
}


@pytest.fixture(scope="module", params=FILES, ids=str)
def good(request: pytest.FixtureRequest) -> Iterator[tuple[Path, Path]]:
    """Write a good data set; return the path that a user names, and the file to damage."""
    make, name = FILES[request.param]
    root = Path(tempfile.mkdtemp())
    source = make(root / "data")
    yield source, root / "data" / name
    shutil.rmtree(root)


@st.composite
def edits(draw: st.DrawFn) -> list[tuple[float, int, bytes]]:
    """Draw positions (as shares of a file), numbers of bytes to remove, and bytes to insert."""
    odd = st.sampled_from(
        [b"\0", b'"', b"\xff", b"\n", b"\r", b",", b";", b"{", b"[", b"NaN", b"-1", b"1e999",
         b"9" * 5000, b"x" * 5000, b"\xef\xbb\xbf", b"\xed\xa0\x80", b"..", b"/", b"&a", b"*a",
         b": ", b"null"]
    )  # fmt: skip
    edit = st.tuples(st.floats(0, 1), st.integers(0, 40), odd | st.binary(max_size=6))
    return draw(st.lists(edit, min_size=1, max_size=4))


def damaged(data: bytes, changes: list[tuple[float, int, bytes]]) -> bytes:
    for share, gone, new in changes:
        at = int(share * len(data))
        data = data[:at] + new + data[at + gone :]
    return data


def check(source: Path) -> None:
    for skip_bad in (False, True):
        with suppress(DataError):
            dataset = read_dataset(source, skip_bad=skip_bad)
            assert isinstance(dataset, Dataset)
            assert len(dataset) > 0
            assert len(dataset.labels) >= 2
            assert all(path.is_file() for path in dataset.paths)
            assert all(label == label.strip() and label.encode() for label in dataset.labels)
            assert skip_bad or not dataset.skipped
            assert all(str(skipped).encode() for skipped in dataset.skipped)


@fuzz
@given(changes=edits())
def test_a_damaged_file_gives_a_data_set_or_a_data_error(
    good: tuple[Path, Path], changes: list[tuple[float, int, bytes]]
) -> None:
    source, file = good
    data = file.read_bytes()
    try:
        file.write_bytes(damaged(data, changes))
        check(source)
    finally:
        file.write_bytes(data)


@fuzz
@given(noise=st.binary(max_size=200))
def test_noise_gives_a_data_set_or_a_data_error(good: tuple[Path, Path], noise: bytes) -> None:
    source, file = good
    data = file.read_bytes()
    try:
        file.write_bytes(noise)
        check(source)
    finally:
        file.write_bytes(data)


scalars = (
    st.none() | st.booleans() | st.integers(-2, 9) | st.floats() | st.text(max_size=5)
    | st.sampled_from(["1.png", "../1.png", "id", 0, 1, 2, 10**30])
)  # fmt: skip
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
entries = st.dictionaries(
    st.sampled_from(["id", "image_id", "category_id", "file_name", "name", "supercategory"]), values
)


@fuzz
@given(
    document=st.fixed_dictionaries(
        {name: values | st.lists(entries, max_size=4) for name in ("images", "annotations")}
        | {"categories": st.lists(entries | st.just({"id": 0, "name": "a"}), max_size=3)}
    ),
    known=st.booleans(),
)
def test_coco_with_values_of_any_type_gives_a_data_set_or_a_data_error(
    tmp_path_factory: pytest.TempPathFactory, document: dict[str, Any], known: bool
) -> None:
    root = tmp_path_factory.getbasetemp() / "any"
    sets.write_images(root) if not root.exists() else None
    if known:  # otherwise most documents are refused early
        document["categories"] = [{"id": n, "name": c} for n, c in enumerate("ab")]
    (root / "any.json").write_text(json.dumps(document), "utf-8")
    check(root / "any.json")
