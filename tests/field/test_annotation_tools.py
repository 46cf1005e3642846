"""Exports of annotation tools: the labels are read, or a line says what is missing."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from edgeml.data import read_dataset
from edgeml.errors import DataError
from edgeml.progress import Progress
from tests.data.readers.sets import labels_by_name, labels_by_path, put, touch
from tests.field.label_sets import (
    EVERY,
    LABELS,
    NAMES,
    SIDES,
    cvat,
    fiftyone_samples,
    ls_task,
    voc,
    voc_class_lists,
    write_json,
)


def name_of(path: Path) -> str:
    return path.name.removeprefix("0a1b2c3d-")


@pytest.mark.parametrize(("make", "split"), EVERY.values(), ids=EVERY)
def test_every_format_has_the_same_labels(
    tmp_path: Path, make: Callable[[Path], Path], split: bool
) -> None:
    dataset = read_dataset(make(tmp_path))
    found = {name_of(path): dataset.labels_of(row) for row, path in enumerate(dataset.paths)}
    assert found == LABELS
    assert set(dataset.labels) - {"rare"} == set(NAMES)
    assert dataset.known.all()
    assert (dataset.split is not None) == split
    if dataset.split is not None:
        names = map(name_of, dataset.paths)
        assert dict(zip(names, dataset.split, strict=True)) == SIDES
    assert np.issubdtype(dataset.targets.dtype, np.int8)


class Lines(Progress):
    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)


def test_tasks_without_an_annotation_are_counted_and_left_out(tmp_path: Path) -> None:
    touch(tmp_path, *(f"{n}.jpg" for n in range(5)))
    skipped = ls_task(3, "3.jpg", ("cat",))
    skipped["annotations"][0]["was_cancelled"] = True
    tasks = [
        ls_task(0, "0.jpg", ("cat", "dog")),
        ls_task(1, "1.jpg", ()),
        ls_task(2, "2.jpg", None),
        skipped,
        ls_task(4, "4.jpg", ("dog",)),
    ]
    show = Lines()
    dataset = read_dataset(write_json(tmp_path / "x.json", tasks), progress=show)
    assert labels_by_path(dataset) == {"0.jpg": ("cat", "dog"), "1.jpg": (), "4.jpg": ("dog",)}
    assert "note: 2 tasks without an annotation, or skipped, are left out" in show.lines
    assert "labels: cat, dog, from the annotations of 'scene'" in show.lines


def test_annotations_that_differ_are_refused_unless_one_is_the_truth(tmp_path: Path) -> None:
    touch(tmp_path, "0.jpg", "1.jpg")
    task = ls_task(0, "0.jpg", ("cat",))
    task["annotations"] += ls_task(5, "0.jpg", ("dog",))["annotations"]
    tasks = [task, ls_task(1, "1.jpg", ("dog",))]
    with pytest.raises(DataError, match="task 0: its 2 annotations"):
        read_dataset(write_json(tmp_path / "x.json", tasks))
    task["annotations"][0]["ground_truth"] = True
    dataset = read_dataset(write_json(tmp_path / "x.json", tasks))
    assert labels_by_path(dataset)["0.jpg"] == ("cat",)


def test_choices_that_two_controls_share_are_refused_with_the_option(tmp_path: Path) -> None:
    touch(tmp_path, "0.jpg", "1.jpg")
    tasks = [ls_task(0, "0.jpg", ("yes",)), ls_task(1, "1.jpg", ("no",))]
    for task in tasks:
        other = json.loads(json.dumps(task["annotations"][0]["result"][0])) | {"from_name": "blur"}
        task["annotations"][0]["result"].append(other)
    file = write_json(tmp_path / "x.json", tasks)
    with pytest.raises(DataError, match="--ignore-labels"):
        read_dataset(file)
    assert read_dataset(file, ignore_labels=["blur"]).labels == ("no", "yes")


@pytest.mark.parametrize(
    ("image", "found"),
    [
        ("/data/upload/7/0a1b2c3d-a.jpg", "a.jpg"),
        ("/data/local-files/?d=disk/deep/b.jpg", "deep/b.jpg"),
        ("s3://bucket/some/deep/b.jpg", "deep/b.jpg"),
        ("https://x.org/a%20c.jpg?w=3", "other/a c.jpg"),
        ("/home/ann/data/a.jpg", "a.jpg"),
        (r"C:\Users\ann\deep\b.jpg", "deep/b.jpg"),
        ("https://x.org/twice.jpg", None),
        ("https://x.org/gone.jpg", None),
    ],
)
def test_an_image_is_found_by_the_end_of_its_address(
    tmp_path: Path, image: str, found: str | None
) -> None:
    touch(tmp_path, "a.jpg", "deep/b.jpg", "other/a c.jpg", "x/twice.jpg", "y/twice.jpg", "z.jpg")
    tasks = [ls_task(0, image, ("cat",)), ls_task(1, "z.jpg", ("dog",))]
    file = write_json(tmp_path / "x.json", tasks)
    if found is None:
        with pytest.raises(DataError, match=r"task 0: there is no image '.*(twice|gone)\.jpg'"):
            read_dataset(file)
    else:
        assert labels_by_path(read_dataset(file)) == {found: ("cat",), "z.jpg": ("dog",)}


def test_two_addresses_never_become_one_image(tmp_path: Path) -> None:
    touch(tmp_path, "photos/a.jpg", "photos/b.jpg")
    tasks = [
        ls_task(0, "https://x.org/1/a.jpg", ("cat",)),
        ls_task(1, "https://x.org/2/a.jpg", ("cat",)),
        ls_task(2, "b.jpg", ("dog",)),
    ]
    with pytest.raises(DataError, match=r"task 1: there is no image"):
        read_dataset(write_json(tmp_path / "x.json", tasks))


@pytest.mark.parametrize(
    "doctype",
    [
        '<!DOCTYPE a [<!ENTITY x "ha"><!ENTITY y "&x;&x;">]>',
        '<!DOCTYPE a SYSTEM "file:///etc/passwd">',
        '<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]>',
    ],
)
def test_xml_with_a_doctype_is_refused(tmp_path: Path, doctype: str) -> None:
    file = cvat(tmp_path)
    put(file, file.read_text().replace("?>", "?>" + doctype, 1).replace("rare", "&x;"))
    with pytest.raises(DataError, match=r"annotations\.xml: it has a DOCTYPE"):
        read_dataset(file)


def test_the_tracks_of_a_video_are_refused(tmp_path: Path) -> None:
    text = "<annotations><track id='0' label='cat'><box frame='0'/></track></annotations>"
    with pytest.raises(DataError, match=r"CVAT for images 1\.1"):
        read_dataset(put(tmp_path / "annotations.xml", text))


def test_a_class_only_in_difficult_objects_is_unknown(tmp_path: Path) -> None:
    source = voc(tmp_path)
    file = tmp_path / "Annotations/2.xml"
    put(file, file.read_text().replace("<difficult>0", "<difficult>1"))
    dataset = read_dataset(source)
    row = [path.name for path in dataset.paths].index("2.png")
    assert dataset.targets[row].tolist() == [0, -1, 0]
    (tmp_path / "lists").mkdir()
    source = voc_class_lists(tmp_path / "lists")
    put(source / "ImageSets/Main/dog_train.txt", "1 -1\n2  0\n")
    dataset = read_dataset(source)
    row = [path.name for path in dataset.paths].index("2.png")
    assert dataset.targets[row].tolist() == [0, -1, 0]


def test_predictions_and_samples_without_labels_are_not_read(tmp_path: Path) -> None:
    source = fiftyone_samples(tmp_path)
    document = json.loads((source / "samples.json").read_text())
    document["samples"][0]["ground_truth"] = None
    write_json(source / "samples.json", document)
    show = Lines()
    dataset = read_dataset(source, progress=show)
    assert labels_by_name(dataset) == {n: x for n, x in LABELS.items() if n != "1.png"}
    assert "note: 1 samples without a label are not annotated: left out" in show.lines
    for sample in document["samples"]:
        sample["ground_truth"] = None
    with pytest.raises(DataError, match="predictions"):
        read_dataset(write_json(source / "samples.json", document))


def test_an_unlabelled_field_of_several_is_unknown(tmp_path: Path) -> None:
    touch(tmp_path, "data/1.jpg", "data/2.jpg")
    cat, day, night = ({"_cls": "Classification", "label": x} for x in ("cat", "day", "night"))
    samples = [
        {"filepath": "data/1.jpg", "animal": cat, "time": day},
        {"filepath": "data/2.jpg", "animal": None, "time": night},
    ]
    dataset = read_dataset(write_json(tmp_path / "samples.json", {"samples": samples}))
    assert dataset.labels == ("cat", "day", "night")
    assert dataset.targets.tolist() == [[1, 1, 0], [-1, 0, 1]]


def test_captions_next_to_class_folders_are_no_labels(tmp_path: Path) -> None:
    touch(tmp_path, "cat/1.jpg", "dog/2.jpg")
    put(tmp_path / "metadata.csv", "file_name,text\ncat/1.jpg,a cat\ndog/2.jpg,a dog\n")
    assert read_dataset(tmp_path).labels == ("cat", "dog")


def test_the_folders_of_an_imagefolder_are_its_split(tmp_path: Path) -> None:
    touch(tmp_path, "train/1.jpg", "test/2.jpg")
    put(tmp_path / "metadata.csv", "file_name,label\ntrain/1.jpg,cat\ntest/2.jpg,dog\n")
    assert read_dataset(tmp_path).split == ("train", "test")


def test_a_label_without_a_column_in_one_of_the_tables_is_unknown_there(tmp_path: Path) -> None:
    touch(tmp_path, "train/1.jpg", "train/2.jpg", "valid/3.jpg")
    put(tmp_path / "train/_classes.csv", "filename, cat, dog\n1.jpg, 1, 0\n2.jpg, 0, 1\n")
    put(tmp_path / "valid/_classes.csv", "filename, cat\n3.jpg, 1\n")
    dataset = read_dataset(tmp_path)
    assert dataset.targets.tolist() == [[1, 0], [0, 1], [1, -1]]
    put(tmp_path / "valid/_classes.csv", "filename, labels\n3.jpg, cat\n")
    with pytest.raises(DataError, match=r"valid/_classes\.csv' has a column of labels"):
        read_dataset(tmp_path)


def test_values_of_other_types_are_refused_without_a_traceback(tmp_path: Path) -> None:
    source = fiftyone_samples(tmp_path)
    document = json.loads((source / "samples.json").read_text())
    for value in (3, True, [1], {"_cls": "Classifications", "classifications": 3}):
        document["samples"][0] |= {"tags": value, "ground_truth": value}
        dataset = read_dataset(write_json(source / "samples.json", document))
        assert {"2.png", "3.png", "4.png"} <= set(labels_by_name(dataset))


def test_a_csv_of_label_studio_without_quotes_is_refused_with_the_remedy(tmp_path: Path) -> None:
    header = "image,id,choice,annotator,annotation_id,created_at,updated_at,lead_time\n"
    row = '1.jpg,1,{"choices": ["a", "b"]},me,1,,,1.0\n'
    with pytest.raises(DataError, match="JSON-MIN"):
        read_dataset(put(tmp_path / "x.csv", header + row))


def test_classes_of_regions_are_labels_and_texts_are_not(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg", "2.jpg")
    results = [
        {"type": "rectanglelabels", "from_name": "box", "value": {"rectanglelabels": ["cat"]}},
        {"type": "textarea", "from_name": "text", "value": {"text": ["hello"]}},
    ]
    task = {"id": 1, "data": {"image": "1.jpg"}, "annotations": [{"id": 1, "result": results}]}
    file = write_json(tmp_path / "x.json", [task, ls_task(2, "2.jpg", ("dog",))])
    assert labels_by_name(read_dataset(file)) == {"1.jpg": ("cat",), "2.jpg": ("dog",)}
