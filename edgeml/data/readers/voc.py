"""Pascal VOC: the classes of the objects in an image are its labels."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from edgeml.data.dataset import Dataset, Side, relative_name
from edgeml.data.readers.file_kinds import is_image
from edgeml.data.readers.folders import visible
from edgeml.data.readers.rows import (
    SIDE_OF_FOLDER,
    Row,
    SkipLog,
    described_dataset,
    label_fault,
    label_name,
    printable,
    read_text,
    skip_or_raise,
)
from edgeml.data.readers.xml_file import read_xml, text_of
from edgeml.errors import DataError

_MAX_BYTES = 1 << 26
# The union comes first, so that its parts decide.
_SETS: dict[str, Side] = {"trainval": "train", "train": "train", "val": "val", "test": "test"}
_STATES = {"1": 1, "+1": 1, "-1": 0, "0": -1}


def find_voc(root: Path) -> dict[Path, Side | None]:
    """Return the folders of the .xml files of a VOC data set, with the sides of the split.

    These are `Annotations` next to `JPEGImages`; or folders of images with an .xml next to each, as
    LabelImg and Roboflow write them, perhaps one for each side.
    """
    lists = root / "ImageSets" / "Main"
    if (root / "JPEGImages").is_dir() and any(lists.glob("*_train*.txt")):
        return {root / "Annotations": None}
    for name in ("Annotations", "annotations", "Annotations/xmls", "annotations/xmls"):
        if _is_voc(root / name) and _images(root):
            return {root / name: None}
    sides = {root / name: side for name, side in SIDE_OF_FOLDER.items() if _is_voc(root / name)}
    if not sides:
        return {root: None} if _is_voc(root) and _images(root) else {}
    one = len(set(sides.values())) == 1
    return dict.fromkeys(sides) if one else {**sides}


def read_voc(folders: dict[Path, Side | None], *, root: Path, skips: SkipLog) -> Dataset:
    """Read VOC annotations: one .xml for each image.

    A class of which an image has only difficult objects is unknown for it. Where there are lists
    `ImageSets/Main/cat_train.txt` with 1, -1 and 0 (difficult), these state the labels; lists such
    as `train.txt` state the split. An image without an .xml was not annotated: it is left out.
    """
    lists = root / "ImageSets" / "Main"
    states, sides = _class_lists(lists, skips)
    sides |= _listed(lists)
    if len(set(sides.values())) < 2:
        sides = dict.fromkeys(sides, "")
    notes: list[str] = []
    rows: list[Row] = []
    if states:
        origin = "the lists of classes in ImageSets/Main"
        images = {file.stem: file for file in _images(root)}
        names = {name for stem in states.values() for name in stem}
        for stem, found in states.items():
            present = tuple(sorted(name for name, state in found.items() if state == 1))
            unknown = tuple(sorted(n for n in names if found.get(n, -1) == -1))
            path = str(images.get(stem, root / "JPEGImages" / f"{stem}.jpg"))
            rows.append(Row(f"ImageSets/Main, {stem}", path, present, unknown, split=sides[stem]))
        return described_dataset(
            rows, root=root, labels=names, origin=origin, notes=notes, skips=skips
        )
    for folder, side in folders.items():
        rows += _rows(folder, side, root, sides, notes, skips)
    labels = {label for row in rows for label in (*row.present, *row.unknown)}
    difficult = sum(bool(row.unknown) for row in rows)
    if difficult:
        notes.append(f"{difficult} images have a class only in difficult objects: it is unknown")
    if empty := sum(not row.present and not row.unknown for row in rows):
        notes.append(f"{empty} of {len(rows)} images have no object, and so no label")
    origin = (
        f"the objects in the .xml files of {printable(relative_name(next(iter(folders)), root))}"
    )
    return described_dataset(
        rows, root=root, labels=labels, origin=origin, notes=notes, skips=skips
    )


def _is_voc(folder: Path) -> bool:
    """Whether the first .xml in a folder describes an image."""
    first = min(folder.glob("*.xml"), default=None)
    if first is None:
        return False
    try:
        return read_xml(first, first.name).tag == "annotation"
    except DataError:
        return False


def _images(root: Path) -> list[Path]:
    folder = next((root / n for n in ("JPEGImages", "images") if os.path.isdir(root / n)), root)
    return [file for file in visible(folder) if is_image(file)]


def _rows(
    folder: Path,
    side: Side | None,
    root: Path,
    sides: dict[str, str],
    notes: list[str],
    skips: SkipLog,
) -> Iterator[Row]:
    beside = [file for file in visible(folder) if is_image(file)]
    images = {file.stem: file for file in beside or _images(root)}
    files = sorted(folder.glob("*.xml"))
    bare = sorted(set(images) - {file.stem for file in files})
    if bare:
        notes.append(f"{len(bare)} images without an .xml are left out, such as {bare[0]}")
    if any(sides.values()) and (unlisted := [file for file in files if file.stem not in sides]):
        notes.append(f"{len(unlisted)} images in no list of ImageSets/Main are left out")
        files = [file for file in files if file.stem in sides]
    for file in files:
        name = printable(relative_name(file, root))
        try:
            annotation = read_xml(file, name)
        except DataError as err:
            if skips is None:
                raise
            skip_or_raise(skips, name, str(err))
            continue
        clear: set[str] = set()
        difficult: set[str] = set()
        for item in annotation.iterfind("object"):
            hard = text_of(item, "difficult") == "1"
            (difficult if hard else clear).add(label_name(text_of(item, "name")))
        faults = [why for label in clear | difficult if (why := label_fault(label))]
        written = os.path.basename(text_of(annotation, "filename").replace("\\", "/"))
        path = images.get(file.stem) or (images.get(os.path.splitext(written)[0]))
        if faults:
            skip_or_raise(skips, name, f"a class cannot be a label: {faults[0]}.")
        else:
            place = path or (folder if beside else root / "JPEGImages") / (written or file.stem)
            unknown = tuple(sorted(difficult - clear))
            split = sides.get(file.stem, "") or side or ""
            yield Row(name, str(place), tuple(sorted(clear)), unknown, split=split)


def _listed(lists: Path) -> dict[str, str]:
    """Return the side of each image that `train.txt`, `val.txt` and `test.txt` list."""
    files = {lists / f"{name}.txt": side for name, side in _SETS.items()}
    return {
        words[0]: side
        for file, side in files.items()
        if os.path.isfile(file)
        for _, words in _lines(file)
    }


def _class_lists(lists: Path, skips: SkipLog) -> tuple[dict[str, dict[str, int]], dict[str, str]]:
    """Return whether each listed image has each class (1, 0, or -1 for difficult), and its side."""
    states: dict[str, dict[str, int]] = {}
    sides: dict[str, str] = {}
    for word, side in _SETS.items():
        for file in sorted(lists.glob(f"*_{word}.txt")):
            name = label_name(file.stem.removesuffix(f"_{word}"))
            for number, line in _lines(file):
                where = f"ImageSets/Main/{printable(file.name)}, line {number}"
                if len(line) != 2 or line[1] not in _STATES:
                    skip_or_raise(skips, where, "expected the name of an image and 1, -1 or 0.")
                else:
                    states.setdefault(line[0], {})[name] = _STATES[line[1]]
                    sides[line[0]] = side
    return states, sides


def _lines(file: Path) -> Iterator[tuple[int, list[str]]]:
    text = read_text(file, limit=_MAX_BYTES)
    for number, line in enumerate(text.splitlines(), start=1):
        if words := line.split():
            yield number, words
