"""COCO annotations: the categories of the objects in an image are its labels."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

from edgeml.data.dataset import Dataset, Side, relative_name
from edgeml.data.readers.json_files import read_json
from edgeml.data.readers.rows import (
    SIDE_OF_FOLDER,
    Row,
    SkipLog,
    dataset_from_rows,
    label_fault,
    label_name,
    printable,
    skip_or_raise,
    text_fault,
    usable_rows,
)
from edgeml.errors import DataError

logger = logging.getLogger(__name__)


def read_coco(
    files: dict[Path, Side | None], *, root: Path, skips: SkipLog, document: Any = None
) -> Dataset:
    """Read COCO .json files: the labels of an image are the categories of its annotations.

    The `file_name` of an image is looked up next to the .json, in `images/` and `data/`, and in the
    folder named like the end of the .json's name (`train2017/` for `instances_train2017.json`); for
    a .json in `annotations/` also in the parent folder. It must not lead out of these folders.

    `files` has the side of the split that the images of each file are on, if there is a split;
    `document` is the content of the only file, if it is known.
    """
    rows: list[Row] = []
    labels: dict[str, None] = {}
    for file, side in files.items():
        name = printable(relative_name(file, root))
        content = _checked(read_json(file, name) if document is None else document, name)
        names = _names_of_categories(content, name)
        labels |= dict.fromkeys(names.values())
        rows += _rows(_Finder(file), content, names, name, side, skips)
    rows = usable_rows(rows, skips)
    dataset = dataset_from_rows(rows, root=root, labels=labels, skips=skips)
    first = printable(relative_name(next(iter(files)), root))
    return replace(dataset, labels_from=f"the categories of {first}")


def find_coco(root: Path) -> dict[Path, Side | None]:
    """Return the .json files of a COCO folder, with the sides of the split.

    These are files such as `train/_annotations.coco.json`, which Roboflow writes, and
    `annotations/instances_train2017.json`; a single side is not a split.
    """
    files = [*root.glob("*/_annotations.coco.json"), *root.glob("annotations/instances_*.json")]
    sides: dict[Path, Side | None] = {}
    for file in sorted(files):
        roboflow = file.name.startswith("_")
        word = file.parent.name if roboflow else _last_word(file).rstrip("0123456789")
        side = SIDE_OF_FOLDER.get(word.lower())
        if side:
            sides[file] = side
    return sides if len(set(sides.values())) > 1 else dict.fromkeys(sides)


def _checked(document: object, name: str) -> dict[str, Any]:
    lists = document if isinstance(document, dict) else {}
    for wanted in ("images", "annotations", "categories"):
        if not isinstance(lists.get(wanted), list):
            raise DataError(
                f"{name}: it is not valid COCO: it has no list {wanted!r}. Expected images, "
                "annotations and categories, or an export of Label Studio, Datumaro or FiftyOne."
            )
    return lists


def _names_of_categories(document: dict[str, Any], file: str) -> dict[int | str, str]:
    """Return the names of the categories by id; none may be bad, as all images depend on them."""
    names: dict[int | str, str] = {}
    parents = set()
    for number, category in enumerate(document["categories"]):
        where = f"{file}, categories[{number}]"
        name = category.get("name") if isinstance(category, dict) else None
        if not isinstance(name, str) or not _is_id(category.get("id")):
            raise DataError(f"{where}: it must have an id and a name.")
        if category["id"] in names:
            raise DataError(f"{where}: the id {category['id']!r:.80} is duplicated.")
        if fault := label_fault(label_name(name)):
            raise DataError(f"{where}: {name[:80]!r} cannot be a label: {fault}.")
        names[category["id"]] = label_name(name)
        parents.add(str(category.get("supercategory")))
    used = {
        annotation.get("category_id")
        for annotation in document["annotations"]
        if isinstance(annotation, dict) and _is_id(annotation.get("category_id"))
    }
    # Roboflow lists the project itself as the supercategory of all others.
    unused_parents = {key for key, name in names.items() if name in parents and key not in used}
    if unused_parents and len(unused_parents) < len(names):
        dropped = ", ".join(names.pop(key) for key in unused_parents)
        logger.info("%s: categories that are only supercategories: %s", file, dropped)
    if len(set(names.values())) < len(names):
        logger.warning("%s: categories with the same name become one label", file)
    return names


def _rows(
    finder: _Finder,
    document: dict[str, Any],
    names: dict[int | str, str],
    file: str,
    side: Side | None,
    skips: SkipLog,
) -> Iterator[Row]:
    images = _images(document, file, skips)
    present, doubtful = _annotated(document, images, names, file, skips)
    for key, name in images.items():
        # An image with a skipped annotation may show any of the other categories.
        unknown = set(names.values()) - present[key] if key in doubtful else ()
        where, labels = f"{file}, image {key!r:.80}", tuple(sorted(present[key]))
        yield Row(where, finder.find(name), labels, tuple(sorted(unknown)), split=side or "")
    empty = sum(not labels for labels in present.values())
    if empty:
        logger.info("%s: %d images have no annotation, and so no label", file, empty)


def _annotated(
    document: dict[str, Any],
    images: dict[int | str, str],
    names: dict[int | str, str],
    file: str,
    skips: SkipLog,
) -> tuple[dict[int | str, set[str]], set[int | str]]:
    """Return the labels of each image, and the images with an annotation that was left out."""
    present: dict[int | str, set[str]] = {key: set() for key in images}
    doubtful: set[Any] = set()
    known = {entry["id"] for entry in document["images"] if _has_id(entry)}
    seen = set()
    for number, annotation in enumerate(document["annotations"]):
        if not isinstance(annotation, dict):
            skip_or_raise(skips, f"{file}, annotations[{number}]", "it is not an object.")
            continue
        key: Any = annotation.get("id")
        image: Any = annotation.get("image_id")
        category: Any = annotation.get("category_id")
        fault = None
        if not _is_id(image) or image not in known:
            fault = f"there is no image with the id {image!r:.80}."
        elif not _is_id(category) or category not in names:
            fault = f"there is no category with the id {category!r:.80}."
        elif _is_id(key) and key in seen:
            fault = "its id is duplicated."
        if fault:
            where = f"annotation {key!r:.80}" if _is_id(key) else f"annotations[{number}]"
            skip_or_raise(skips, f"{file}, {where}", fault)
            doubtful.add(image if _is_id(image) else None)
        elif image in images:  # otherwise the image was already left out and recorded
            present[image].add(names[category])
        seen.add(key if _is_id(key) else None)
    return present, doubtful


def _images(document: dict[str, Any], file: str, skips: SkipLog) -> dict[int | str, str]:
    """Return the file name of each image that can be used."""
    counts = Counter(entry["id"] for entry in document["images"] if _has_id(entry))
    images: dict[int | str, str] = {}
    for number, image in enumerate(document["images"]):
        if not _has_id(image):
            where = f"{file}, images[{number}]"
            skip_or_raise(skips, where, "it must be an object with an id and a file_name.")
        elif fault := _fault_of_image(image, counts):
            skip_or_raise(skips, f"{file}, image {image['id']!r:.80}", fault)
        else:
            images[image["id"]] = image["file_name"]
    return images


def _fault_of_image(image: dict[str, Any], counts: Counter[int | str]) -> str | None:
    name = image.get("file_name")
    if counts[image["id"]] > 1:
        return "its id is duplicated."  # its annotations could belong to either
    if not isinstance(name, str) or not name.strip():
        return "it has no file_name."
    if fault := text_fault(name):
        return f"its file_name cannot be used: {fault}."
    if _leads_out(name):
        what = f"its file_name {name[:200]!r} leads out of the folder"
        return f"{what}; make it relative to the folder."
    return None


def _is_id(value: object) -> bool:
    return type(value) is int or type(value) is str


def _has_id(entry: object) -> bool:
    return isinstance(entry, dict) and _is_id(entry.get("id"))


def _leads_out(name: str) -> bool:
    parts = name.replace("\\", "/").split("/")
    return ".." in parts or not parts[0] or parts[0].endswith(":")


def _last_word(file: Path) -> str:
    return file.stem.rpartition("_")[2]


class _Finder:
    """Looks up images in the folders where they may be, starting with that of the last one."""

    def __init__(self, file: Path) -> None:
        above = [file.parent.parent] if file.parent.name == "annotations" else []
        word = _last_word(file)
        self._folders = [
            os.path.join(base, below)
            for base in (file.parent, *above)
            for below in ("", "images", "data", word, os.path.join("images", word))
        ]

    def find(self, name: str) -> str:
        for path in (name, name.replace("\\", "/")):
            for number, folder in enumerate(self._folders):
                place = os.path.join(folder, path)
                if os.path.isfile(place):
                    self._folders.insert(0, self._folders.pop(number))
                    return place
        return os.path.join(self._folders[0], name)
