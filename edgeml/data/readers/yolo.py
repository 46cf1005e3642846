"""YOLO: a text file beside each picture, whose lines begin with the number of a class."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeml.data.dataset import SIDES, Dataset, Side
from edgeml.data.readers.folders import files_below, is_picture
from edgeml.data.readers.rows import (
    SIDE_OF_FOLDER,
    Row,
    Skips,
    dataset_from_rows,
    label_fault,
    label_name,
    leave_out,
    read_text,
    shown,
    text_fault,
    usable_rows,
)
from edgeml.errors import DataError, needs
from edgeml.image.reading import SUFFIXES

logger = logging.getLogger(__name__)

_MOST_BYTES = 1 << 18
_MOST_BYTES_OF_LABELS = 1 << 24
_DEEPEST = 20
_YAML = ("data.yaml", "data.yml", "dataset.yaml", "dataset.yml")
_NAMES = ("classes.txt", "labels/classes.txt", "obj.names")


@dataclass(frozen=True)
class _Names:
    """The names of the classes by number, and the file that says so."""

    of: dict[int, str]
    where: str


def read_yolo(source: Path, *, skips: Skips) -> Dataset:
    """Read a YOLO data set: the classes that stand in a picture's text file are its labels.

    Args:
        source: A `data.yaml` with names and train, val, test (folders, lists of pictures in a
            .txt, or lists of these, seen from `path` or from the .yaml), or a folder with
            `images/` and `labels/`, perhaps with one folder for each side in them, or with
            `train/images/` and `train/labels/`; the names are then in `classes.txt`.
        skips: Where bad things are noted.

    The text file of `images/a.jpg` is `labels/a.txt`, or without a folder `images` it lies beside
    the picture. A picture without one has no label.

    Raises:
        DataError: Something cannot be used; names file and line.
        MissingDependencyError: PyYAML is not installed.
    """
    given = source if os.path.isfile(source) else find_yaml(source)
    if given:
        root = given.parent
        names, sides = _from_yaml(given, skips)
    else:
        root = source
        names, sides = _from_classes(root), _sides_of_folder(root, skips)
    rows = list(_rows(sides, names, root, skips))
    _check_leftovers(rows, skips)
    rows = usable_rows(rows, skips)
    return dataset_from_rows(rows, root=root, labels=set(names.of.values()), skips=skips)


def find_yaml(folder: Path) -> Path | None:
    """Find the .yaml that describes a folder, if it has one."""
    return next((folder / name for name in _YAML if os.path.isfile(folder / name)), None)


def is_yolo(folder: Path) -> bool:
    """See whether a folder is laid out as YOLO's are."""
    if find_yaml(folder):
        return True
    return any(
        os.path.isdir(place / "images")
        and next((place / "labels").rglob("*.txt"), None) is not None
        for place in (folder, *(folder / name for name in SIDE_OF_FOLDER))
    )


def _from_yaml(file: Path, skips: Skips) -> tuple[_Names, dict[Side | None, list[Path]]]:
    document, lines = _load_yaml(file)
    names = _names(file, document, lines)
    given = {SIDE_OF_FOLDER[key]: key for key in document if key in SIDE_OF_FOLDER}
    if not given:
        raise DataError(f"{shown(file)!r} names no train, val or test.")
    base = _base(file, document)
    sides: dict[Side | None, list[Path]] = {}
    for side in SIDES:
        if side not in given or document[given[side]] in (None, ""):
            continue
        where = f"{shown(file.name)}, line {lines[given[side]]}"
        entries = document[given[side]]
        entries = entries if isinstance(entries, list) else [entries]
        sides[side] = []
        for entry in entries:
            if not isinstance(entry, str) or text_fault(entry):
                raise DataError(f"{where}: {given[side]} must be a folder or a list of pictures.")
            sides[side] += _pictures(entry, base, where, side, skips)
    # coco128.yaml has one folder for train and for val: that divides nothing.
    if len({tuple(paths) for paths in sides.values()}) == 1:
        return names, {None: next(iter(sides.values()))}
    return names, sides


def _base(file: Path, document: dict[Any, Any]) -> Path:
    """Find what entries are seen from: `path`, which some write as seen from elsewhere."""
    path = document.get("path")
    if not isinstance(path, str) or text_fault(path):
        return file.parent
    return file.parent / path if os.path.isdir(file.parent / path) else file.parent


def _pictures(entry: str, base: Path, where: str, side: Side, skips: Skips) -> list[Path]:
    # Roboflow writes ../train/images for the folder train/images beside its data.yaml.
    tries = [base / entry, base / entry.removeprefix("../")]
    place = next((path for path in tries if os.path.exists(path)), None)
    if place is None:
        why = f"there is no {shown(str(tries[0]))!r}."
        if side == "test":
            logger.warning("%s: %s", where, why)  # exports name a test folder that they lack
        else:
            leave_out(skips, where, why)
        return []
    place = Path(os.path.abspath(place))
    if os.path.isdir(place):
        return [path for path in files_below(place, skips) if is_picture(path)]
    if place.suffix.lower() != ".txt" or not os.path.isfile(place):
        leave_out(skips, where, f"{shown(place)!r} is neither a folder nor a .txt.")
        return []
    return list(_listed(place, skips))


def _listed(file: Path, skips: Skips) -> Iterator[Path]:
    text = read_text(file, most=_MOST_BYTES_OF_LABELS, keep_bad=skips is not None)
    for number, line in enumerate(text.split("\n"), start=1):
        where, name = f"{shown(file.name)}, line {number}", line.strip()
        path = Path(os.path.abspath(file.parent / name)) if not text_fault(name) else None
        if not name:
            continue
        if path is None:
            leave_out(skips, where, f"{text_fault(name)}.")
        elif not os.path.isfile(path):
            leave_out(skips, where, f"there is no picture {str(path)!r}.")
        else:
            yield path


def _from_classes(root: Path) -> _Names:
    file = next((root / name for name in _NAMES if os.path.isfile(root / name)), None)
    if file is None:
        raise DataError(
            f"{shown(root)!r} has the folders of YOLO, but neither a data.yaml nor a classes.txt "
            "that names the classes."
        )
    lines = read_text(file, most=_MOST_BYTES).rstrip().split("\n")
    for number, line in enumerate(lines, start=1):
        if fault := label_fault(label_name(line)):
            raise DataError(f"{shown(file.name)}, line {number}: it names no class: {fault}.")
    return _checked(file, dict(enumerate(map(label_name, lines))))


def _sides_of_folder(root: Path, skips: Skips) -> dict[Side | None, list[Path]]:
    """Find the pictures of `images/`, `images/train/` and so on, or `train/images/` and so on."""
    places: dict[Path, Side | None] = {}
    for name, side in SIDE_OF_FOLDER.items():
        for place in (root / "images" / name, root / name / "images"):
            if os.path.isdir(place):
                places[place] = side
    if len(set(places.values())) < 2:
        places = (
            {root / "images": None} if os.path.isdir(root / "images") else dict.fromkeys(places)
        )
    sides: dict[Side | None, list[Path]] = {}
    for place, of in places.items():
        found = [path for path in files_below(place, skips) if is_picture(path)]
        sides.setdefault(of, []).extend(found)
    known = [place for place in places if place.parent.name == "images"]
    for path in files_below(root / "images", skips) if known else []:
        if is_picture(path) and not any(path.is_relative_to(place) for place in known):
            leave_out(skips, shown(path), "it lies in none of the folders train, val and test.")
    return sides


def _rows(
    sides: dict[Side | None, list[Path]], names: _Names, root: Path, skips: Skips
) -> Iterator[Row]:
    count = bare = 0
    for side, paths in sides.items():
        for path in paths:
            if fault := text_fault(str(path)[len(str(root)) :]):
                leave_out(skips, shown(path), f"the name of the file cannot be used: {fault}.")
                continue
            labels = _labels_file(path)
            count += 1
            bare += labels is None
            present, sure = _present(labels, names, skips) if labels else ((), True)
            # Where a line was left out, nobody knows what the picture does not show.
            unknown = () if sure else tuple(sorted(set(names.of.values()) - set(present)))
            yield Row(
                where=shown(path),
                path=str(path),
                present=present,
                unknown=unknown,
                split=side or "",
            )
    if count and bare == count:
        raise DataError(
            f"None of {count} pictures of {shown(root)!r} has a text file with its classes; that "
            "of images/a.jpg is labels/a.txt."
        )
    if bare:
        logger.info("%d of %d pictures have no text file, and so no label", bare, count)


def _labels_file(picture: Path) -> str | None:
    path = _labels_path(str(picture))
    return path if os.path.isfile(path) else None


def _labels_path(picture: str) -> str:
    """Name a picture's text file: in `labels` where it is in the innermost `images`."""
    stem = os.path.splitext(picture)[0] + ".txt"
    before, found, after = stem.rpartition(f"{os.sep}images{os.sep}")
    return f"{before}{os.sep}labels{os.sep}{after}" if found else stem


def _present(file: str, names: _Names, skips: Skips) -> tuple[tuple[str, ...], bool]:
    """Give the labels in a text file, and whether all of it could be read."""
    present: dict[str, None] = {}
    sure = True
    try:
        text = read_text(Path(file), most=_MOST_BYTES_OF_LABELS, keep_bad=skips is not None)
    except DataError as err:
        leave_out(skips, shown(file), str(err))
        return (), False
    for number, line in enumerate(text.split("\n"), start=1):
        words = line.split()
        if words and (fault := _fault(words, names)):
            leave_out(skips, f"{shown(file)}, line {number}", fault)
            sure = False
        elif words:
            present[names.of[int(float(words[0]))]] = None
    return tuple(present), sure


def _fault(words: Sequence[str], names: _Names) -> str | None:
    try:
        numbers = list(map(float, words))
    except ValueError:
        return f"{' '.join(words)[:80]!r} is not a class and numbers."
    if not all(map(math.isfinite, numbers)):
        return f"{' '.join(words)[:80]!r} has a number that is not finite."
    if int(numbers[0]) != numbers[0]:
        return f"the class {words[0][:80]!r} is no whole number."
    if int(numbers[0]) not in names.of:
        return f"the class {words[0][:80]} is not among the {len(names.of)} of {names.where}."
    return None


def _check_leftovers(rows: list[Row], skips: Skips) -> None:
    """Name the text files whose picture is gone; one that is in no list is not."""
    expected = {_labels_path(row.path) for row in rows}
    for folder in sorted({os.path.dirname(path) for path in expected}):
        before, found, after = f"{folder}{os.sep}".rpartition(f"{os.sep}labels{os.sep}")
        if not found or not os.path.isdir(folder):
            continue
        for name in sorted(os.listdir(folder)):
            stem, suffix = os.path.splitext(name)
            path = os.path.join(folder, name)
            if suffix != ".txt" or path in expected or name in ("classes.txt", "README.txt"):
                continue
            picture = os.path.join(before, "images", after, stem)
            if not any(os.path.isfile(picture + end) for end in (*SUFFIXES, ".JPG", ".PNG")):
                leave_out(skips, shown(path), "there is no picture for these labels.")


def _names(file: Path, document: dict[Any, Any], lines: dict[Any, int]) -> _Names:
    given = document.get("names")
    where = f"{shown(file.name)}, line {lines.get('names', 1)}"
    if isinstance(given, list):
        given = dict(enumerate(given))
    if not isinstance(given, dict) or not given:
        raise DataError(f"{where}: names must list the classes, or name them by number.")
    names: dict[int, str] = {}
    for key, name in given.items():
        if not isinstance(key, int) or isinstance(key, bool) or key < 0:
            raise DataError(f"{where}: {str(key)[:80]!r} in names is no number of a class.")
        if not isinstance(name, (str, int, float)):
            raise DataError(f"{where}: the name of class {key} is no text.")
        if fault := label_fault(label_name(str(name))):
            raise DataError(f"{where}: the name of class {key} cannot be used: {fault}.")
        names[key] = label_name(str(name))
    count = document.get("nc")
    if isinstance(count, int) and count != len(names):
        raise DataError(f"{where}: nc says {count} classes, but names has {len(names)}.")
    return _checked(file, names)


def _checked(file: Path, names: dict[int, str]) -> _Names:
    if len(set(names.values())) < len(names):
        logger.warning("%s: classes of the same name are one label", shown(file))
    return _Names(names, shown(file.name))


def _load_yaml(file: Path) -> tuple[dict[Any, Any], dict[Any, int]]:
    """Read a .yaml; give its top level, and the line of each key there."""
    with needs("yaml", extra="train", to=f"read {shown(file.name)}"):
        import yaml

    text = read_text(file, most=_MOST_BYTES)
    try:
        # What a short file repeats by alias may unfold to any size, so there must be none.
        depth = 0
        for event in yaml.parse(text, Loader=yaml.SafeLoader):
            depth += isinstance(event, yaml.CollectionStartEvent)
            depth -= isinstance(event, yaml.CollectionEndEvent)
            if isinstance(event, yaml.AliasEvent) or depth > _DEEPEST:
                what = "aliases are not read" if depth <= _DEEPEST else "it is nested too deeply"
                line = event.start_mark.line + 1 if event.start_mark else 1
                raise DataError(f"{shown(file.name)}, line {line}: {what}.")
        lines = _lines_of_keys(yaml.compose(text, Loader=yaml.SafeLoader), file)
        document = yaml.safe_load(text)
    except DataError:
        raise
    except yaml.MarkedYAMLError as err:
        line = err.problem_mark.line + 1 if err.problem_mark else 1
        raise DataError(f"{shown(file.name)}, line {line}: {err.problem or err}.") from err
    except (yaml.YAMLError, RecursionError, ValueError, OverflowError) as err:
        said = " ".join(str(err).split())[:200]
        raise DataError(f"{shown(file)!r} cannot be read as YAML: {said}") from err
    return document, lines


def _lines_of_keys(node: Any, file: Path) -> dict[Any, int]:
    """Give the line of each key of the top level, and refuse one that stands twice there or below.

    YAML would keep the last of them.
    """
    if getattr(node, "id", None) != "mapping":
        raise DataError(f"{shown(file.name)}, line 1: expected keys such as names and train.")
    for mapping in (node, *(value for _, value in node.value if value.id == "mapping")):
        seen = set()
        for key, _ in mapping.value:
            line = key.start_mark.line + 1
            if key.id != "scalar" or key.value in seen:
                what = "stands twice" if key.id == "scalar" else "is no key"
                raise DataError(f"{shown(file.name)}, line {line}: {str(key.value)[:80]!r} {what}.")
            seen.add(key.value)
    return {key.value: key.start_mark.line + 1 for key, _ in node.value}
