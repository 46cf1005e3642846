"""Folders named after the labels of the images in them: `red_shirt/1.jpg`."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence, Set
from dataclasses import replace
from pathlib import Path

from edgeml.data.dataset import Dataset, Side
from edgeml.data.readers.rows import (
    SIDE_OF_FOLDER,
    Row,
    SkipLog,
    dataset_from_rows,
    label_fault,
    label_name,
    label_parts,
    printable,
    skip_or_raise,
    text_fault,
)
from edgeml.errors import DataError, InputError
from edgeml.image.headers import format_of
from edgeml.image.reading import SUFFIXES
from edgeml.spec.labels import LabelGroup

logger = logging.getLogger(__name__)

EVERY_LEVEL = "/"
"""The delimiter with which each folder on the way to an image is one label."""

EXPECTED = (
    "Expected a folder whose sub-folders are named after labels (red_shirt/1.jpg), a table (.csv, "
    ".parquet) with the columns path and labels, a COCO .json, or a YOLO data.yaml"
)

TABLES = (".csv", ".parquet", ".json", ".yaml", ".yml")
"""Suffixes of files that describe a data set."""


def read_folders(
    root: Path, *, delimiter: str, group_names: Sequence[str] = (), skips: SkipLog
) -> Dataset:
    """Read images whose labels are the names of folders.

    The folder directly in `root` names the labels, joined by `delimiter`; folders below it have no
    meaning. With the delimiter `/` every folder between `root` and the image is one label. If
    `root` contains only folders named `train`, `val` (or `valid`, `validation`) and `test`, these
    are the sides of a split, and each of them contains the folders of labels.

    If every image has one label at each of two or more positions (red_shirt, blue_dress), and
    no label occurs at two positions, the labels of a position form a label group.

    The arguments are those of `read_dataset`; the number of group names must be that of the groups.
    """
    rows: list[Row] = []
    for start, side in _starts(root):
        rows += _rows(root, start, side, delimiter, skips)
    dataset = dataset_from_rows(
        rows,
        root=root,
        label_groups=_groups_by_position({row.present for row in rows}, group_names),
        skips=skips,
    )
    return replace(dataset, labels_from=f"the names of folders, split at {delimiter!r}")


def files_below(root: Path, skips: SkipLog) -> list[Path]:
    """Return the files below a folder, sorted, without hidden files and folders.

    A link to a file counts as that file. A link to a folder is not followed: it could lead back up.
    """
    files: list[str] = []
    folders = [os.fspath(root)]
    while folders:
        folder = folders.pop()
        try:
            entries = list(os.scandir(folder))
        except OSError as err:
            skip_or_raise(skips, printable(folder), f"the folder cannot be read: {err.strerror}.")
            continue
        for entry in entries:
            if is_hidden(entry.name):
                continue
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            elif os.path.isfile(entry.path):
                files.append(entry.path)
            else:
                skip_or_raise(skips, printable(entry.path), _why_not_a_file(entry.path))
    return [Path(path) for path in sorted(files, key=lambda path: path.split(os.sep))]


def is_hidden(name: str) -> bool:
    """Whether a file or folder is hidden or created by a system, such as `.DS_Store`."""
    return name.startswith(".") or name == "__MACOSX"


def is_image(path: Path) -> bool:
    """Whether a file has the suffix of an image."""
    return path.suffix.lower() in SUFFIXES


def hint(folder: Path) -> str:
    """Suggest a file in a folder that may describe the data; empty if there is none."""
    if not os.path.isdir(folder):
        return ""
    places = (folder, folder / "annotations")
    files = [file for place in places for end in TABLES for file in sorted(place.glob(f"*{end}"))]
    return f" Did you mean {printable(files[0])!r}?" if files else ""


def _starts(root: Path) -> Iterator[tuple[Path, Side | None]]:
    """Yield the folders that contain the folders of labels: `root`, or one for each side."""
    folders = _folders_in(root)
    sides = {folder.name: SIDE_OF_FOLDER.get(folder.name.lower()) for folder in folders}
    named = "train" in sides.values() and None not in sides.values()
    if named and all(_folders_in(folder) for folder in folders):
        logger.info("%s is split into %s", printable(root), ", ".join(sides))
        yield from ((folder, sides[folder.name]) for folder in folders)
    else:
        yield root, None


def _rows(
    root: Path, start: Path, side: Side | None, delimiter: str, skips: SkipLog
) -> Iterator[Row]:
    files_of = {folder: files_below(folder, skips) for folder in _folders_in(start)}
    loose = [path for path in _visible(start) if os.path.isfile(path)]
    stray = [path for path in loose if is_image(path)]
    if not any(is_image(path) for files in files_of.values() for path in files):
        name = repr(printable(start))
        fault = f"There are no images in {name}"
        if stray:
            fault = f"{len(stray)} images are in {name} itself, not in a sub-folder"
        raise DataError(f"{fault}. {EXPECTED}.{hint(start)}")
    for path in stray:
        skip_or_raise(skips, printable(path), "it is not in a folder that names labels.")
    others = [path for path in loose if not is_image(path)]
    for folder, files in files_of.items():
        images = [path for path in files if is_image(path)]
        others += [path for path in files if not is_image(path)]
        if not images:
            skip_or_raise(skips, printable(folder), "the folder has no images.")
        elif delimiter == EVERY_LEVEL:
            yield from _rows_by_level(start, images, side, skips)
        elif names := _labels_from(folder, delimiter, len(images), skips):
            yield from _rows_of(root, images, names, side, skips)
    _skip_misnamed(others, root, skips)


def _rows_by_level(
    start: Path, images: list[Path], side: Side | None, skips: SkipLog
) -> Iterator[Row]:
    for path in images:
        names = tuple(dict.fromkeys(map(label_name, path.relative_to(start).parts[:-1])))
        faults = [fault for name in names if (fault := label_fault(name))]
        if faults:
            skip_or_raise(
                skips, printable(path), f"a folder on the way does not name a label: {faults[0]}."
            )
        else:
            yield from _rows_of(start, [path], names, side, skips)


def _rows_of(
    root: Path,
    images: list[Path],
    labels: tuple[str, ...],
    side: Side | None,
    skips: SkipLog,
) -> Iterator[Row]:
    for path in images:
        if fault := text_fault(str(path)[len(str(root)) :]):
            skip_or_raise(skips, printable(path), f"the name of the file cannot be used: {fault}.")
        else:
            yield Row(where=printable(path), path=str(path), present=labels, split=side or "")


def _labels_from(folder: Path, delimiter: str, count: int, skips: SkipLog) -> tuple[str, ...]:
    names = label_parts(folder.name, delimiter)
    faults = [fault for name in names if (fault := label_fault(name))]
    if names and not faults:
        return names
    why = f": {faults[0]}" if faults else f": expected one or more words joined by {delimiter!r}"
    skip_or_raise(skips, printable(folder), f"the folder of {count} images names no labels{why}.")
    return ()


def _groups_by_position(
    combinations: Set[tuple[str, ...]], group_names: Sequence[str]
) -> tuple[LabelGroup, ...]:
    """Return one group for each position of a label, if the positions share no label."""
    positions: list[set[str]] = []
    if len({len(labels) for labels in combinations}) == 1:
        positions = [set(column) for column in zip(*combinations, strict=True)]
    if len(positions) < 2 or sum(map(len, positions)) != len(set().union(*positions)):
        positions = []
    if group_names and len(group_names) != len(positions):
        raise InputError(
            f"There are {len(positions)} label groups for the {len(group_names)} names "
            f"{', '.join(group_names)}: give one name for each group, or none."
        )
    names = group_names or [f"group{number}" for number, _ in enumerate(positions, start=1)]
    return tuple(
        LabelGroup(name=name, labels=tuple(sorted(labels)), rule="one")
        for name, labels in zip(names, positions, strict=True)
    )


def _skip_misnamed(others: list[Path], root: Path, skips: SkipLog) -> None:
    """Skip images whose file name has no suffix of an image."""
    for path in others:
        if kind := _kind_inside(path):
            endings = ", ".join(sorted(SUFFIXES))
            skip_or_raise(
                skips, printable(path), f"it is {kind}; names of images end in {endings}."
            )
    if others:
        logger.info("%d files in %s are not images", len(others), printable(root))


def _kind_inside(path: Path) -> str | None:
    try:
        with open(path, "rb") as file:
            head = file.read(12)
    except OSError:
        return None
    match format_of(head):
        case "jpeg" | "png" | "gif" | "webp":  # two bytes are no proof of a BMP, nor four of a TIFF
            return "an image by its content but not by its name"
        case "heic":
            return "HEIC, which is not supported"
        case _:
            return None


def _why_not_a_file(path: str) -> str:
    if os.path.isdir(path):
        return "it is a link to a folder, which is not followed; use that folder itself."
    if os.path.islink(path):
        return "it is a link that leads to no file."
    return "it is neither a file nor a folder."


def _visible(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if not is_hidden(entry.name))
    except OSError as err:
        raise DataError(
            f"The folder {printable(folder)!r} cannot be read: {err.strerror}."
        ) from err


def _folders_in(folder: Path) -> list[Path]:
    return [entry for entry in _visible(folder) if os.path.isdir(entry)]
