"""FiftyOne's data sets on disk: samples.json, or the labels.json of a classification data set."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeml.data.dataset import Dataset
from edgeml.data.readers.image_places import ImagePlaces
from edgeml.data.readers.json_files import read_json
from edgeml.data.readers.rows import (
    SIDE_OF_FOLDER,
    Row,
    SkipLog,
    described_dataset,
    label_fault,
    label_name,
    printable,
    skip_or_raise,
)
from edgeml.errors import DataError
from edgeml.image.reading import SUFFIXES
from edgeml.spec.model_spec import quoted_names

_LISTS = {
    "Classifications": "classifications", "Detections": "detections", "Polylines": "polylines",
}  # fmt: skip
_ONE = ("Classification", "Detection", "Polyline")


def find_fiftyone(root: Path) -> Path | None:
    """Return the file that describes a folder, `samples.json` or `labels.json` next to `data/`."""
    for name in ("samples.json", "labels.json"):
        if os.path.isfile(root / name) and os.path.isdir(root / "data"):
            return root / name
    return None


def is_fiftyone(document: Any) -> bool:
    """Whether the content of a .json is that of FiftyOne."""
    if not isinstance(document, dict):
        return False
    samples, labels = document.get("samples"), document.get("labels")
    listed = isinstance(samples, list) and all(
        isinstance(sample, dict) and "filepath" in sample for sample in samples
    )
    return listed or (isinstance(labels, dict) and "classes" in document)


def read_fiftyone(file: Path, document: Any, *, ignored: Sequence[str], skips: SkipLog) -> Dataset:
    """Read a FiftyOneDataset or a FiftyOneImageClassificationDataset.

    The labels of an image are those of its Classification, Classifications or Detections. Fields in
    which a label has a confidence are predictions, and not read. A sample without any of these is
    not annotated: it is left out and counted. Tags such as `train` are the sides of a split.

    Args:
        file: That of the samples; the images are in `data/` next to it.
        document: Its content.
        ignored: The names of fields that are not read.
        skips: Records bad entries.
    """
    places = ImagePlaces(file.parent)
    if "samples" in document:
        rows, origin, notes = _samples(file, document["samples"], places, ignored, skips)
        labels = None
    else:
        rows, labels, notes = _classified(file, document, places, skips)
        origin = f"the labels of {printable(file.name)}"
    notes += places.notes()
    return described_dataset(
        rows, root=file.parent, labels=labels, origin=origin, notes=notes, skips=skips
    )


def _samples(
    file: Path,
    samples: Sequence[Mapping[str, Any]],
    places: ImagePlaces,
    ignored: Sequence[str],
    skips: SkipLog,
) -> tuple[list[Row], str, list[str]]:
    found, notes = _fields(samples, ignored)
    rows: list[Row] = []
    missing: list[list[str]] = []
    labels_of: dict[str, set[str]] = {name: set() for name in found}
    left_out = 0
    for number, sample in enumerate(samples):
        where = f"{printable(file.name)}, sample {number}"
        values = {name: sample[name] for name in found if isinstance(sample.get(name), dict)}
        if not values:
            left_out += 1
            continue
        present = {name: [*map(label_name, _labels(value))] for name, value in values.items()}
        for name, labels in present.items():
            labels_of[name] |= set(labels)
        listed = tuple(dict.fromkeys(label for labels in present.values() for label in labels))
        if faults := [why for label in listed if (why := label_fault(label))]:
            skip_or_raise(skips, where, f"it has a label that cannot be used: {faults[0]}.")
            continue
        path = places.find_remote(str(sample["filepath"]))
        rows.append(Row(where, path, listed, split=_side(sample.get("tags"))))
        missing.append([name for name in found if name not in values])
    for number, one in enumerate(found):
        for other in found[:number]:
            if common := labels_of[one] & labels_of[other]:
                raise DataError(
                    f"The fields {other!r} and {one!r} both have the label {min(common)!r}: "
                    f"leave one of them out with --ignore-labels {one}, or {other}."
                )
    if left_out:
        notes.append(f"{left_out} samples without a label are not annotated: left out")
    split = all(row.split for row in rows)
    rows = [
        replace(
            row,
            unknown=tuple(sorted(label for name in fields for label in labels_of[name])),
            split=row.split if split else "",
        )
        for row, fields in zip(rows, missing, strict=True)
    ]
    return rows, f"the fields {quoted_names(found)}", notes


def _fields(
    samples: Sequence[Mapping[str, Any]], ignored: Sequence[str]
) -> tuple[list[str], list[str]]:
    """Return the names of the fields of labels, without predictions, and notes about these."""
    names: dict[str, None] = {}
    predicted: dict[str, None] = {}
    for sample in samples:
        for name, value in sample.items():
            if isinstance(value, dict) and value.get("_cls") in (*_LISTS, *_ONE):
                names[name] = None
                if any(item.get("confidence") is not None for item in _items(value)):
                    predicted[name] = None
    found = [name for name in names if name not in predicted and name not in ignored]
    if not found:
        what = f" but predictions in {quoted_names([*predicted])}" if predicted else ""
        raise DataError(f"FiftyOne's samples have no field with labels{what}.")
    notes = []
    if predicted:
        notes.append(f"fields with a confidence are predictions: {quoted_names([*predicted])}")
    return found, notes


def _items(value: Mapping[str, Any]) -> Iterator[Mapping[str, Any]]:
    inner = value.get(_LISTS.get(str(value.get("_cls")), ""), [value])
    yield from (item for item in inner if isinstance(item, dict)) if isinstance(inner, list) else ()


def _labels(value: Mapping[str, Any]) -> Iterator[str]:
    yield from (item["label"] for item in _items(value) if isinstance(item.get("label"), str))


def _side(tags: Any) -> str:
    listed = tags if isinstance(tags, list) else []
    sides = {SIDE_OF_FOLDER.get(str(tag).lower()) for tag in listed} - {None}
    return str(sides.pop()) if len(sides) == 1 else ""


def _classified(
    file: Path, document: Mapping[str, Any], places: ImagePlaces, skips: SkipLog
) -> tuple[list[Row], list[str] | None, list[str]]:
    classes = document.get("classes")
    names = [label_name(str(name)) for name in classes] if isinstance(classes, list) else None
    where_of = _manifest(file.parent)
    rows = []
    left_out = 0
    for key, target in document["labels"].items():
        where = f"{printable(file.name)}, {key!r:.80}"
        if target is None:
            left_out += 1
            continue
        entries = target if isinstance(target, list) else [target]
        values = [entry.get("label") if isinstance(entry, dict) else entry for entry in entries]
        labels = [
            names[value] if names and type(value) is int and 0 <= value < len(names) else value
            for value in values
        ]
        texts = [label_name(label) for label in labels if isinstance(label, str)]
        faults = [why for label in texts if (why := label_fault(label))]
        if len(texts) < len(labels) or faults:
            why = faults[0] if faults else f"{target!r:.80} is not among the classes"
            skip_or_raise(skips, where, f"{why}.")
            continue
        path = places.find_remote(where_of.get(key) or _data_path(file.parent, key))
        rows.append(Row(where, path, tuple(dict.fromkeys(texts))))
    notes = [f"{left_out} images without a label are not annotated: left out"] * bool(left_out)
    return rows, names and [*names, *(n for r in rows for n in r.present)], notes


def _manifest(folder: Path) -> dict[str, str]:
    """Return the paths of `data.json`, which lists images that are elsewhere."""
    file = folder / "data.json"
    paths = read_json(file, file.name) if os.path.isfile(file) else {}
    entries = paths.items() if isinstance(paths, dict) else ()
    return {key: path for key, path in entries if isinstance(path, str)}


def _data_path(folder: Path, key: str) -> str:
    """Return the path of an image by its name without a suffix, which may contain dots."""
    found = [
        f"data/{key}{end}"
        for end in ("", *sorted(SUFFIXES), *(suffix.upper() for suffix in sorted(SUFFIXES)))
        if os.path.isfile(folder / "data" / f"{key}{end}")
    ]
    return found[0] if len(found) == 1 else f"data/{key}"
