"""Datumaro's JSON: the labels of an image, and the classes of its shapes."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from edgeml.data.dataset import Dataset, Side, relative_name
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


def find_datumaro(root: Path) -> dict[Path, Side | None]:
    """Return the files `annotations/train.json` and so on, with their sides; empty if none is."""
    files = [file for file in sorted(root.glob("annotations/*.json")) if _begins_as_datumaro(file)]
    sides = {file: SIDE_OF_FOLDER.get(file.stem.lower()) for file in files}
    return (
        sides
        if len(set(sides.values())) > 1 and None not in sides.values()
        else (dict.fromkeys(files))
    )


def is_datumaro(document: Any) -> bool:
    """Whether the content of a .json is Datumaro's: items, and categories by kind."""
    return (
        isinstance(document, dict)
        and isinstance(document.get("items"), list)
        and isinstance(document.get("categories"), dict)
    )


def read_datumaro(
    files: Mapping[Path, Side | None], *, root: Path, skips: SkipLog, document: Any = None
) -> Dataset:
    """Read Datumaro's JSON, one file for each subset.

    The labels are those of the categories, also those on no image. An item without an annotation
    has no label. Images are in `images/`, or in a folder there with the name of the subset.

    Args:
        files: The files, with the side of the split that their images are on.
        root: The folder that relative paths start from.
        skips: Records bad entries.
        document: The content of the only file, if it is known.
    """
    rows: list[Row] = []
    labels: dict[str, None] = {}
    notes: list[str] = []
    for file, side in files.items():
        name = printable(relative_name(file, root))
        content = document if document is not None else read_json(file, name)
        if not is_datumaro(content):
            raise DataError(f"{name} is not Datumaro's: it has no lists of items and categories.")
        names = _names(content, name)
        labels |= dict.fromkeys(names)
        subset = file.stem
        more = (f"images/{subset}", "images", f"../images/{subset}", "../images", "..", subset)
        places = ImagePlaces(file.parent, more)
        for number, item in enumerate(content["items"]):
            row = _row(item, f"{name}, items[{number}]", names, places, skips)
            rows += [Row(row.where, row.path, row.present, split=side or "")] if row else []
        notes += places.notes()
    if empty := sum(not row.present for row in rows):
        notes.append(f"{empty} of {len(rows)} images have no annotation, and so no label")
    origin = f"the categories of {printable(relative_name(next(iter(files)), root))}"
    return described_dataset(
        rows, root=root, labels=labels, origin=origin, notes=notes, skips=skips
    )


def _begins_as_datumaro(file: Path) -> bool:
    """Whether a file may be Datumaro's, by its first bytes; others are not parsed to find out."""
    try:
        with open(file, "rb") as opened:
            head = opened.read(4096)
    except OSError:
        return False
    return (
        b'"dm_format_version"' in head
        or b'"infos"' in head
        or b'"media_type"' in head
        or (b'"categories"' in head and b'"label"' in head and b'"labels"' in head)
    )


def _names(content: dict[str, Any], name: str) -> list[str]:
    """Return the names of the labels by their number."""
    kind = content["categories"].get("label")
    entries = kind.get("labels") if isinstance(kind, dict) else None
    entries = entries if isinstance(entries, list) else []
    names = [entry.get("name") for entry in entries if isinstance(entry, dict)]
    if not names or len(names) != len(entries) or not all(isinstance(n, str) for n in names):
        raise DataError(f"{name}: its categories name no labels.")
    found = [label_name(str(text)) for text in names]
    if faults := [why for label in found if (why := label_fault(label))]:
        raise DataError(f"{name}: a category cannot be a label: {faults[0]}.")
    return found


def _row(
    item: Any, where: str, names: Sequence[str], places: ImagePlaces, skips: SkipLog
) -> Row | None:
    """Return the row of an item; None if it was left out."""
    media = item.get("image") or item.get("media") or {} if isinstance(item, dict) else {}
    path = media.get("path") if isinstance(media, dict) else None
    image = path or (item.get("id") if isinstance(item, dict) else None)
    annotations = item.get("annotations", []) if isinstance(item, dict) else None
    if not isinstance(image, str) or not image.strip() or not isinstance(annotations, list):
        skip_or_raise(skips, where, "it must have an id or path of an image, and annotations.")
        return None
    numbers = [a.get("label_id") if isinstance(a, dict) else "" for a in annotations]
    numbers = [number for number in numbers if number is not None]  # captions have none
    wrong = [n for n in numbers if type(n) is not int or not 0 <= n < len(names)]
    if wrong:
        skip_or_raise(skips, where, f"there is no label with the number {wrong[0]!r:.80}.")
        return None
    found = places.find(image)
    if not os.path.isfile(found):
        found = places.find(os.path.basename(image.replace("\\", "/"))) if path else found
    return Row(where, found, tuple(dict.fromkeys(names[int(str(n))] for n in numbers)))
