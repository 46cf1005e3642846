"""YOLO: a text file for each image, whose lines begin with the number of a class."""

from __future__ import annotations

import logging
import math
import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgeml.data.dataset import SIDES, Dataset, Side
from edgeml.data.readers.file_kinds import is_image
from edgeml.data.readers.folders import files_below, visible
from edgeml.data.readers.hints import hint
from edgeml.data.readers.rows import (
    SIDE_OF_FOLDER,
    Row,
    SkipLog,
    dataset_from_rows,
    label_fault,
    label_name,
    printable,
    read_text,
    skip_or_raise,
    text_fault,
    usable_rows,
)
from edgeml.data.readers.yaml_file import load_yaml
from edgeml.errors import DataError
from edgeml.image.reading import SUFFIXES

logger = logging.getLogger(__name__)

_MAX_BYTES = 1 << 18
_MAX_LABEL_BYTES = 1 << 24
_YAML = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
_NAMES = ("classes.txt", "labels/classes.txt", "obj.names")


@dataclass(frozen=True)
class _Names:
    """The names of the classes by number, and the file that defines them."""

    by_number: dict[int, str]
    file: str


def read_yolo(source: Path, *, skips: SkipLog) -> Dataset:
    """Read a YOLO data set: the labels of an image are the classes in its text file.

    The text file of `images/a.jpg` is `labels/a.txt`; without a folder `images` it is next to the
    image. An image without a text file has no label.

    Args:
        source: A `data.yaml` with names and train, val, test (folders, lists of images in a
            .txt, or lists of these, relative to `path` or to the .yaml), or a folder with
            `images/` and `labels/`, optionally with one folder for each side in them, or with
            `train/images/` and `train/labels/`; the names are then in `classes.txt`.
        skips: Records bad entries.
    """
    yaml_file = source if os.path.isfile(source) else find_yaml(source)
    if yaml_file:
        root = yaml_file.parent
        names, sides = _from_yaml(yaml_file, skips)
    else:
        root = source
        names, sides = _from_classes(root), _sides_of_folder(root, skips)
    rows = list(_rows(sides, names, root, skips))
    _check_leftovers(rows, skips)
    rows = usable_rows(rows, skips)
    dataset = dataset_from_rows(rows, root=root, labels=set(names.by_number.values()), skips=skips)
    return replace(dataset, labels_from=f"the classes of {names.file}")


def find_yaml(folder: Path) -> Path | None:
    """Return the .yaml that describes a folder, if there is one."""
    return next((folder / name for name in _YAML if os.path.isfile(folder / name)), None)


def is_yolo(folder: Path) -> bool:
    """Whether a folder has the layout of a YOLO data set."""
    if find_yaml(folder):
        return True
    if _is_beside(folder) or _is_darknet(folder):
        return True
    return any(
        os.path.isdir(place / "images")
        and next((place / "labels").rglob("*.txt"), None) is not None
        for place in (folder, *(folder / name for name in SIDE_OF_FOLDER))
    )


def _is_darknet(folder: Path) -> bool:
    """Whether a folder has names and a list of images, as Darknet reads and CVAT exports."""
    return os.path.isfile(folder / "obj.names") and os.path.isfile(folder / "train.txt")


def _is_beside(folder: Path) -> bool:
    """Whether a folder has names, and images with a text file next to each, as by LabelImg."""
    if not any(os.path.isfile(folder / name) for name in _NAMES):
        return False
    return any(path.with_suffix(".txt").is_file() for path in visible(folder) if is_image(path))


def _from_yaml(file: Path, skips: SkipLog) -> tuple[_Names, dict[Side | None, list[Path]]]:
    document, lines = load_yaml(file)
    names = _names(file, document, lines)
    keys = {SIDE_OF_FOLDER[key]: key for key in document if key in SIDE_OF_FOLDER}
    if not keys:
        found = [name for name in SIDE_OF_FOLDER if os.path.isdir(file.parent / name)]
        keys = {SIDE_OF_FOLDER[name]: name for name in found}
        document, lines = document | dict(zip(found, found, strict=True)), defaultdict(int, lines)
    if not keys:
        raise DataError(f"{printable(file)!r} names no train, val or test.")
    base = _base(file, document)
    sides: dict[Side | None, list[Path]] = {}
    for side in SIDES:
        if side not in keys or document[keys[side]] in (None, ""):
            continue
        where = f"{printable(file.name)}, line {lines[keys[side]]}"
        entries = document[keys[side]]
        entries = entries if isinstance(entries, list) else [entries]
        sides[side] = []
        for entry in entries:
            if not isinstance(entry, str) or text_fault(entry):
                raise DataError(f"{where}: {keys[side]} must be a folder or a list of images.")
            sides[side] += _images(entry, base, where, side, skips)
    # coco128.yaml names the same folder for train and for val: that is no split.
    if len({tuple(paths) for paths in sides.values()}) == 1:
        return names, {None: next(iter(sides.values()))}
    return names, sides


def _base(file: Path, document: dict[Any, Any]) -> Path:
    """Return the folder of the entries: `path` if it exists, else the folder of the .yaml."""
    path = document.get("path")
    if not isinstance(path, str) or text_fault(path):
        return file.parent
    return file.parent / path if os.path.isdir(file.parent / path) else file.parent


def _images(entry: str, base: Path, where: str, side: Side, skips: SkipLog) -> list[Path]:
    # Roboflow writes ../train/images for the folder train/images next to its data.yaml.
    tries = [base / entry, base / entry.removeprefix("../")]
    if os.path.isabs(entry):  # of another machine
        parts = entry.strip("/").split("/")
        tries += [base.joinpath(*parts[start:]) for start in range(1, len(parts))]
    place = next((path for path in tries if os.path.exists(path)), None)
    if place is None:
        why = f"there is no {printable(str(tries[0]))!r}."
        if side == "test":
            logger.warning("%s: %s", where, why)  # some exports name a missing test folder
        else:
            skip_or_raise(skips, where, why)
        return []
    place = Path(os.path.abspath(place))
    if os.path.isdir(place):
        return [path for path in files_below(place, skips) if is_image(path)]
    if place.suffix.lower() != ".txt" or not os.path.isfile(place):
        skip_or_raise(skips, where, f"{printable(place)!r} is neither a folder nor a .txt.")
        return []
    return list(_listed(place, skips))


def _listed(file: Path, skips: SkipLog) -> Iterator[Path]:
    text = read_text(file, limit=_MAX_LABEL_BYTES, keep_bad=skips is not None)
    for number, line in enumerate(text.split("\n"), start=1):
        where, name = f"{printable(file.name)}, line {number}", line.strip()
        path = Path(os.path.abspath(file.parent / name)) if not text_fault(name) else None
        if path is not None and not os.path.isfile(path) and name.startswith("data/"):
            # CVAT writes data/obj_train_data/1.jpg for the folder next to the list.
            path = Path(os.path.abspath(file.parent / name.removeprefix("data/")))
        if not name:
            continue
        if path is None:
            skip_or_raise(skips, where, f"{text_fault(name)}.")
        elif not os.path.isfile(path):
            skip_or_raise(skips, where, f"there is no image {str(path)!r}.")
        else:
            yield path


def _from_classes(root: Path) -> _Names:
    file = next((root / name for name in _NAMES if os.path.isfile(root / name)), None)
    if file is None:
        raise DataError(
            f"{printable(root)!r} has the folders of YOLO, but neither a data.yaml nor a "
            f"classes.txt with the names of the classes.{hint(root)}"
        )
    lines = read_text(file, limit=_MAX_BYTES).rstrip().split("\n")
    for number, line in enumerate(lines, start=1):
        if fault := label_fault(label_name(line)):
            raise DataError(
                f"{printable(file.name)}, line {number}: it does not name a class: {fault}."
            )
    return _checked(file, dict(enumerate(map(label_name, lines))))


def _sides_of_folder(root: Path, skips: SkipLog) -> dict[Side | None, list[Path]]:
    """Return the images of `images/`, `images/train/` and so on, or `train/images/` and so on."""
    if _is_darknet(root):
        sides: dict[Side | None, list[Path]] = {}
        for name, named_side in SIDE_OF_FOLDER.items():
            if os.path.isfile(root / f"{name}.txt"):
                sides[named_side] = list(_listed(root / f"{name}.txt", skips))
        return sides if len(sides) > 1 else {None: sides["train"]}
    if _is_beside(root):
        return {None: [path for path in visible(root) if is_image(path)]}
    places: dict[Path, Side | None] = {}
    for name, named_side in SIDE_OF_FOLDER.items():
        for place in (root / "images" / name, root / name / "images"):
            if os.path.isdir(place):
                places[place] = named_side
    if len(set(places.values())) < 2:
        images_folder = [root / "images"] if os.path.isdir(root / "images") else places
        places = dict.fromkeys(images_folder)
    sides = {}
    for place, side in places.items():
        images = [path for path in files_below(place, skips) if is_image(path)]
        sides.setdefault(side, []).extend(images)
    known = [place for place in places if place.parent.name == "images"]
    for path in files_below(root / "images", skips) if known else []:
        if is_image(path) and not any(path.is_relative_to(place) for place in known):
            skip_or_raise(skips, printable(path), "it is not in a folder train, val or test.")
    return sides


def _rows(
    sides: dict[Side | None, list[Path]], names: _Names, root: Path, skips: SkipLog
) -> Iterator[Row]:
    count = bare = 0
    classify = _in_class_folders(sides, names)
    for side, paths in sides.items():
        for path in paths:
            if fault := text_fault(str(path)[len(str(root)) :]):
                why = f"the name of the file cannot be used: {fault}."
                skip_or_raise(skips, printable(path), why)
                continue
            labels_file = _labels_path(str(path))
            has_labels = os.path.isfile(labels_file)
            count, bare = count + 1, bare + (not has_labels)
            present, complete = _present(labels_file, names, skips) if has_labels else ((), True)
            # If a line was left out, the image may show any of the other classes.
            absent = set(names.by_number.values()) - set(present)
            unknown = () if complete else tuple(sorted(absent))
            if classify:
                present, unknown = (path.parent.name,), ()
            yield Row(printable(path), str(path), present, unknown, split=side or "")
    if count and bare == count and not classify:
        folders = {path.parent.name for paths in sides.values() for path in paths}
        others = sorted(folders - set(names.by_number.values()))
        also = (
            f" Or for folders of classes, {names.file} must name {others[0]!r}." if others else ""
        )
        raise DataError(
            f"None of {count} images of {printable(root)!r} has a text file with its classes; that "
            f"of images/a.jpg is labels/a.txt.{also if len(others) < len(folders) else ''}"
        )
    if bare and not classify:
        logger.info("%d of %d images have no text file, and so no label", bare, count)


def _in_class_folders(sides: dict[Side | None, list[Path]], names: _Names) -> bool:
    """Whether images are in folders named after their class and have no text files.

    Ultralytics' models that classify read this layout.
    """
    classes = set(names.by_number.values())
    images = [path for paths in sides.values() for path in paths]
    return bool(images) and all(
        path.parent.name in classes and not os.path.isfile(_labels_path(str(path)))
        for path in images
    )


def _labels_path(image: str) -> str:
    """Return the path of an image's text file: `labels` replaces the innermost `images`."""
    path = os.path.splitext(image)[0] + ".txt"
    before, images, after = path.rpartition(f"{os.sep}images{os.sep}")
    return f"{before}{os.sep}labels{os.sep}{after}" if images else path


def _present(file: str, names: _Names, skips: SkipLog) -> tuple[tuple[str, ...], bool]:
    """Return the labels in a text file, and whether all of its lines could be read."""
    present: dict[str, None] = {}
    complete = True
    try:
        text = read_text(Path(file), limit=_MAX_LABEL_BYTES, keep_bad=skips is not None)
    except DataError as err:
        skip_or_raise(skips, printable(file), str(err))
        return (), False
    for number, line in enumerate(text.split("\n"), start=1):
        words = line.split()
        if words and (fault := _fault(words, names)):
            skip_or_raise(skips, f"{printable(file)}, line {number}", fault)
            complete = False
        elif words:
            present[names.by_number[int(float(words[0]))]] = None
    return tuple(present), complete


def _fault(words: Sequence[str], names: _Names) -> str | None:
    try:
        numbers = list(map(float, words))
    except ValueError:
        return f"{' '.join(words)[:80]!r} is not a class and numbers."
    if not all(map(math.isfinite, numbers)):
        return f"{' '.join(words)[:80]!r} contains NaN or infinity."
    if int(numbers[0]) != numbers[0]:
        return f"the class {words[0][:80]!r} is not an integer."
    if int(numbers[0]) not in names.by_number:
        return f"the class {words[0][:80]} is not among the {len(names.by_number)} of {names.file}."
    return None


def _check_leftovers(rows: list[Row], skips: SkipLog) -> None:
    """Skip text files without an image; an image may exist without being in a list."""
    expected = {_labels_path(row.path) for row in rows}
    for folder in sorted({os.path.dirname(path) for path in expected}):
        before, labels, after = f"{folder}{os.sep}".rpartition(f"{os.sep}labels{os.sep}")
        if not labels or not os.path.isdir(folder):
            continue
        for name in sorted(os.listdir(folder)):
            stem, suffix = os.path.splitext(name)
            path = os.path.join(folder, name)
            if suffix != ".txt" or path in expected or name in ("classes.txt", "README.txt"):
                continue
            image = os.path.join(before, "images", after, stem)
            if not any(os.path.isfile(image + end) for end in (*SUFFIXES, ".JPG", ".PNG")):
                skip_or_raise(skips, printable(path), "there is no image for these labels.")


def _names(file: Path, document: dict[Any, Any], lines: dict[Any, int]) -> _Names:
    classes = document.get("names")
    where = f"{printable(file.name)}, line {lines.get('names', 1)}"
    if isinstance(classes, list):
        classes = dict(enumerate(classes))
    if not isinstance(classes, dict) or not classes:
        raise DataError(f"{where}: names must list the classes, or name them by number.")
    names: dict[int, str] = {}
    for key, name in classes.items():
        if not isinstance(key, int) or isinstance(key, bool) or key < 0:
            raise DataError(f"{where}: {str(key)[:80]!r} in names is not the number of a class.")
        if not isinstance(name, (str, int, float)):
            raise DataError(f"{where}: the name of class {key} is not text.")
        if fault := label_fault(label_name(str(name))):
            raise DataError(f"{where}: the name of class {key} cannot be used: {fault}.")
        names[key] = label_name(str(name))
    count = document.get("nc")
    if isinstance(count, int) and count != len(names):
        raise DataError(f"{where}: nc is {count}, but the number of names is {len(names)}.")
    return _checked(file, names)


def _checked(file: Path, names: dict[int, str]) -> _Names:
    if len(set(names.values())) < len(names):
        logger.warning("%s: classes with the same name become one label", printable(file))
    return _Names(names, printable(file.name))
