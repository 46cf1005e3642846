"""`edgeml data convert` writes any data set as a table that reads back equal."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgeml.data import Dataset, read_dataset
from edgeml.data.convert import convert
from edgeml.data.split_file import table_text
from edgeml.errors import DataError, InputError
from edgeml.spec.labels import LabelGroup
from tests.data.readers import sets
from tests.data.readers.sets import encoded, labels_by_name, put, run_command, touch, write_table
from tests.field.label_sets import EVERY, LABELS, NAMES, numbers

FORMATS = {name: make for name, (make, _) in EVERY.items()} | {
    make.__name__: make for make in (sets.folders, sets.table, sets.columns, sets.coco, sets.yolo)
}


def same(one: Dataset, other: Dataset) -> None:
    assert one.paths == other.paths
    assert one.labels == other.labels
    np.testing.assert_array_equal(one.targets, other.targets)
    assert (one.split, one.groups) == (other.split, other.groups)
    assert {(g.name, g.labels) for g in one.label_groups} == {
        (g.name, g.labels) for g in other.label_groups
    }


@pytest.mark.parametrize("make", FORMATS.values(), ids=FORMATS)
@pytest.mark.parametrize("place", ["data/labels.csv", "elsewhere/deep/labels.csv"])
def test_every_format_reads_back_equal(
    tmp_path: Path, make: Callable[[Path], Path], place: str
) -> None:
    source = make(tmp_path / "data")
    before = read_dataset(source)
    out = tmp_path / place
    written = convert(source, out, read=read_dataset, overwrite=True)
    same(written, before)
    same(read_dataset(out), before)
    assert str(tmp_path) not in out.read_text("utf-8")


names = st.text(
    st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp"), exclude_characters=";\0"),
    min_size=1,
    max_size=6,
).map(lambda text: " ".join(text.split()))


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_any_labels_targets_and_splits_read_back_equal(data: st.DataObject) -> None:
    unusual = [
        "a,b",
        "a b",
        "a|b",
        '"q"',
        "['x']",
        "[x]",
        "[1]",
        "N/A",
        "sep=,",
        "1",
        "0",
        "-1",
        "nan",
        "yes",
    ]
    labels = data.draw(
        st.lists(st.sampled_from(unusual) | names, min_size=2, max_size=4, unique=True)
    )
    labels = sorted({label for label in labels if label} | {"x", "y"})
    values = st.lists(st.sampled_from([-1, 0, 1]), min_size=len(labels), max_size=len(labels))
    targets = np.array(data.draw(st.lists(values, min_size=2, max_size=4)), np.int8)
    targets[0, 0], targets[1, 0] = 1, 0
    sides = st.sampled_from(["train", "val", "test"])
    split = data.draw(st.none() | st.lists(sides, min_size=len(targets), max_size=len(targets)))
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        files = [root / f"{n} é;,'.jpg" for n in range(len(targets))]
        touch(root, *(file.name for file in files))
        before = Dataset(
            root=root, paths=tuple(files), labels=tuple(labels), targets=targets,
            split=None if split is None else tuple(split),
        )  # fmt: skip
        with suppress(DataError):  # such a label cannot have its own column
            put(root / "labels.csv", table_text(before, root))
        if not (root / "labels.csv").exists():
            return
        same(read_dataset(root / "labels.csv"), before)


def test_label_groups_and_groups_are_kept(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg", "2.jpg")
    text = "path,labels,label_groups,group\n1.jpg,red;a,c;,ann\n2.jpg,blue,c,bob\n"
    before = read_dataset(write_table(tmp_path, text))
    convert(tmp_path / "labels.csv", tmp_path / "new.csv", read=read_dataset)
    after = read_dataset(tmp_path / "new.csv")
    same(after, before)
    assert after.label_groups == (LabelGroup(name="c", labels=("blue", "red"), rule="one"),)


@pytest.mark.parametrize(("out", "words"), [("labels.csv", "--overwrite"), ("x.txt", r"\.csv")])
def test_nothing_is_replaced_by_surprise(tmp_path: Path, out: str, words: str) -> None:
    touch(tmp_path, "1.jpg", "2.jpg")
    table = write_table(tmp_path, "path,labels\n1.jpg,a\n2.jpg,b\n")
    before = table.read_bytes()
    with pytest.raises(InputError, match=words):
        convert(table, tmp_path / out, read=read_dataset)
    assert table.read_bytes() == before


def test_the_command_writes_what_it_reads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    source = str(sets.folders(tmp_path / "data"))
    out = tmp_path / "labels.csv"
    words = ["data", "convert", source, "--out", str(out)]
    assert run_command(words, monkeypatch) == 0
    captured = capsys.readouterr()
    assert captured.out == f"{out}\n"
    assert "labels: blue, dress, red, shirt, from the names of folders" in captured.err
    assert run_command(words, monkeypatch) == 2
    assert run_command([*words, "--overwrite"], monkeypatch) == 0
    assert labels_by_name(read_dataset(out)) == sets.GOOD


# Parquet files with images in them


def parquet(root: Path, kind: str = "list", name: str = "train-00000-of-00001.parquet") -> Path:
    """Write the images as Hugging Face's `to_parquet` does; `kind` is that of the labels."""
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    kinds: dict[str, list[Any]] = {
        "list": [numbers(image) for image in LABELS],
        "names": [list(labels) for labels in LABELS.values()],
        "one": [numbers(image)[0] if LABELS[image] else 2 for image in LABELS],
    }
    classes = {"names": list(NAMES), "_type": "ClassLabel"}
    feature = {"list": {"feature": classes, "_type": "Sequence"}, "one": classes}.get(kind, {})
    features = {"image": {"_type": "Image"}, "label": feature}
    info = json.dumps({"info": {"features": features}})
    table = pa.table(
        {
            "image": [{"bytes": encoded(n), "path": image} for n, image in enumerate(LABELS)],
            "label": kinds[kind],
            "width": [20] * 4,
        }
    ).replace_schema_metadata({"huggingface": info})
    root.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, root / name)
    return root / name


ONE = {"1.png": ("cat",), "2.png": ("dog",), "3.png": ("indoor",), "4.png": ("dog",)}


@pytest.mark.parametrize(("kind", "labels"), [("list", LABELS), ("names", LABELS), ("one", ONE)])
def test_images_in_parquet_are_written_as_files(
    tmp_path: Path, kind: str, labels: dict[str, tuple[str, ...]]
) -> None:
    source = parquet(tmp_path / "hub", kind)
    out = tmp_path / "new" / "labels.csv"
    with pytest.raises(DataError) as caught:
        read_dataset(source)
    assert f"edgeml data convert {source} --out FOLDER/labels.csv" in str(caught.value)
    written = convert(source, out, read=read_dataset)
    same(read_dataset(out), written)
    assert labels_by_name(read_dataset(out)) == labels
    for seed, name in enumerate(LABELS):
        assert (out.parent / "images" / name).read_bytes() == encoded(seed)
    assert sorted(path.name for path in out.parent.iterdir()) == ["images", "labels.csv"]


def test_shards_of_parquet_are_the_sides_of_a_split(tmp_path: Path) -> None:
    for side in ("train", "validation", "test"):
        parquet(tmp_path / "hub/data", name=f"{side}-00000-of-00001.parquet")
    out = tmp_path / "labels.csv"
    with pytest.raises(DataError, match=rf"edgeml data convert {tmp_path}/hub --out"):
        read_dataset(tmp_path / "hub")
    dataset = convert(tmp_path / "hub", out, read=read_dataset)
    assert len(dataset) == 12
    assert [dataset.split.count(s) for s in ("train", "val", "test")] == [4] * 3  # type: ignore[union-attr]
    same(read_dataset(out), dataset)


def test_columns_of_classes_are_chosen_by_the_option(tmp_path: Path) -> None:
    # As CIFAR-100.
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    classes = {
        name: {"names": names, "_type": "ClassLabel"}
        for name, names in (
            ("fine_label", ["cat", "dog", "oak"]),
            ("coarse_label", ["pet", "tree"]),
        )
    }
    table = pa.table({
        "img": [{"bytes": encoded(n), "path": None} for n in range(3)],
        "fine_label": [0, 1, 2], "coarse_label": [0, 0, 1], "features": [b"1", b"2", b"3"],
    })  # fmt: skip
    info = json.dumps({"info": {"features": classes}})
    pq.write_table(table.replace_schema_metadata({"huggingface": info}), tmp_path / "x.parquet")
    out = tmp_path / "new/labels.csv"
    with pytest.raises(DataError, match="--labels fine_label"):
        convert(tmp_path / "x.parquet", out, read=read_dataset)
    read = partial(read_dataset, labels=["coarse_label"])
    assert convert(tmp_path / "x.parquet", out, read=read).labels == ("pet", "tree")


def test_other_bytes_than_images_are_no_images(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    touch(tmp_path, "1.jpg", "2.jpg")
    table = {"image": ["1.jpg", "2.jpg"], "label": ["a", "b"], "embedding": [b"1", b"2"]}
    pq.write_table(pa.table(table), tmp_path / "x.parquet")
    assert labels_by_name(read_dataset(tmp_path / "x.parquet")) == {
        "1.jpg": ("a",),
        "2.jpg": ("b",),
    }


def test_images_that_exist_are_never_replaced(tmp_path: Path) -> None:
    source = parquet(tmp_path / "hub")
    touch(tmp_path, "images/1.png")
    with pytest.raises(InputError, match="images"):
        convert(source, tmp_path / "labels.csv", read=read_dataset, overwrite=True)
    assert (tmp_path / "images/1.png").read_bytes() == b"images/1.png"
    assert not (tmp_path / "labels.csv").exists()


def test_a_bad_row_of_parquet_leaves_nothing_behind(tmp_path: Path) -> None:
    pa, pq = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [{"bytes": encoded(1), "path": None}, {"bytes": None, "path": None},
            {"bytes": encoded(2), "path": "../../x/a.png"}]  # fmt: skip
    pq.write_table(pa.table({"image": rows, "label": ["a", "b", "b"]}), tmp_path / "x.parquet")
    out = tmp_path / "new/labels.csv"
    with pytest.raises(DataError, match=r"x\.parquet, row 2: it has no image"):
        convert(tmp_path / "x.parquet", out, read=read_dataset)
    assert not (tmp_path / "new/images").exists()
    read = partial(read_dataset, skip_bad=True)
    dataset = convert(tmp_path / "x.parquet", out, read=read)
    assert labels_by_name(dataset) == {"000001.png": ("a",), "a.png": ("b",)}
    assert len(replace(dataset).skipped) == 1
