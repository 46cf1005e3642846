"""Folders named after the labels of the pictures in them: `red_shirt/1.jpg`."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence, Set
from pathlib import Path

from edgeml.data.dataset import Dataset, Side
from edgeml.data.readers.rows import (
    SIDE_OF_FOLDER,
    Row,
    Skips,
    dataset_from_rows,
    label_fault,
    label_name,
    label_parts,
    leave_out,
    shown,
    text_fault,
)
from edgeml.errors import DataError, InputError
from edgeml.image.reading import SUFFIXES
from edgeml.spec.labels import LabelGroup

logger = logging.getLogger(__name__)

EVERY_LEVEL = "/"
"""The delimiter with which each folder on the way to a picture is one label."""

EXPECTED = (
    "Expected a folder whose sub-folders are named after labels (red_shirt/1.jpg), a table (.csv, "
    ".parquet) with the columns path and labels, a COCO .json, or a YOLO data.yaml"
)


def read_folders(
    root: Path, *, delimiter: str, group_names: Sequence[str] = (), skips: Skips
) -> Dataset:
    """Read pictures whose labels are the names of folders.

    The folder directly in `root` names the labels, joined by `delimiter`; folders below it only
    keep pictures apart. With the delimiter `/` every folder between `root` and the picture is one
    label. Folders named `train`, `val` (or `valid`, `validation`) and `test`, if `root` has these
    and no others, are the sides of a split, and what was said of `root` holds in each of them.

    If every picture has one label at each of two or more positions (red_shirt, blue_dress), and
    no label occurs at two positions, the labels of a position form a label group.

    Args:
        root: The folder.
        delimiter: The separator of the labels in a folder's name.
        group_names: The names of the label groups, in the order of the positions; empty: `group1`,
            `group2` and so on.
        skips: Where bad things are noted.

    Raises:
        DataError: No pictures, or something that cannot be used.
        InputError: The number of group names is not that of the groups.
    """
    rows: list[Row] = []
    for start, side in _starts(root):
        rows += _rows(root, start, side, delimiter, skips)
    return dataset_from_rows(
        rows,
        root=root,
        label_groups=_groups_by_position({row.present for row in rows}, group_names),
        skips=skips,
    )


def files_below(root: Path, skips: Skips) -> list[Path]:
    """List the files below a folder, sorted; hidden files and folders are not seen.

    A link to a file is that file. A link to a folder is not followed, which could lead in a circle.

    Raises:
        DataError: A link leads nowhere or to a folder, something is neither file nor folder, or
            cannot be read; and nothing may be left out.
    """
    found: list[str] = []
    folders = [os.fspath(root)]
    while folders:
        folder = folders.pop()
        try:
            entries = list(os.scandir(folder))
        except OSError as err:
            leave_out(skips, shown(folder), f"the folder cannot be read: {err.strerror}.")
            continue
        for entry in entries:
            if is_hidden(entry.name):
                continue
            if entry.is_dir(follow_symlinks=False):
                folders.append(entry.path)
            elif os.path.isfile(entry.path):
                found.append(entry.path)
            else:
                leave_out(skips, shown(entry.path), _why_no_file(entry.path))
    return [Path(path) for path in sorted(found, key=lambda path: path.split(os.sep))]


def is_hidden(name: str) -> bool:
    """See whether a file or folder is one of those that nobody means, such as `.DS_Store`."""
    return name.startswith(".") or name == "__MACOSX"


def is_picture(path: Path) -> bool:
    """See whether a file is named as a picture is."""
    return path.suffix.lower() in SUFFIXES


def hint(folder: Path) -> str:
    """Name what describes data in a folder that was given in its place."""
    if not os.path.isdir(folder):
        return ""
    places = (folder, folder / "annotations")
    found = [file for place in places for end in _TABLES for file in sorted(place.glob(f"*{end}"))]
    return f" Did you mean {shown(found[0])!r}?" if found else ""


_TABLES = (".csv", ".parquet", ".json", ".yaml", ".yml")


def _starts(root: Path) -> Iterator[tuple[Path, Side | None]]:
    """Find where the folders of labels stand: in `root`, or in one folder for each side."""
    folders = _folders_in(root)
    sides = {folder.name: SIDE_OF_FOLDER.get(folder.name.lower()) for folder in folders}
    named = "train" in sides.values() and None not in sides.values()
    if named and all(_folders_in(folder) for folder in folders):
        logger.info("%s is divided into %s", shown(root), ", ".join(sides))
        yield from ((folder, sides[folder.name]) for folder in folders)
    else:
        yield root, None


def _rows(
    root: Path, start: Path, side: Side | None, delimiter: str, skips: Skips
) -> Iterator[Row]:
    found = {folder: files_below(folder, skips) for folder in _folders_in(start)}
    loose = [path for path in _visible(start) if os.path.isfile(path)]
    stray = [path for path in loose if is_picture(path)]
    if not any(is_picture(path) for files in found.values() for path in files):
        said = f"{len(stray)} pictures lie in {{}} itself, in no sub-folder" if stray else ""
        raise DataError(
            f"{(said or 'There are no pictures in {}').format(repr(shown(start)))}. "
            f"{EXPECTED}.{hint(start)}"
        )
    for path in stray:
        leave_out(skips, shown(path), "it lies in no folder that names labels.")
    others = [path for path in loose if not is_picture(path)]
    for folder, files in found.items():
        pictures = [path for path in files if is_picture(path)]
        others += [path for path in files if not is_picture(path)]
        if not pictures:
            leave_out(skips, shown(folder), "the folder has no pictures.")
        elif delimiter == EVERY_LEVEL:
            yield from _rows_by_level(start, pictures, side, skips)
        elif names := _labels_from(folder, delimiter, len(pictures), skips):
            yield from _rows_of(root, pictures, [names] * len(pictures), side, skips)
    _look_into(others, root, skips)


def _rows_by_level(
    start: Path, pictures: list[Path], side: Side | None, skips: Skips
) -> Iterator[Row]:
    for path in pictures:
        names = tuple(dict.fromkeys(map(label_name, path.relative_to(start).parts[:-1])))
        faults = [fault for name in names if (fault := label_fault(name))]
        if faults:
            leave_out(skips, shown(path), f"a folder on the way names no label: {faults[0]}.")
        else:
            yield from _rows_of(start, [path], [names], side, skips)


def _rows_of(
    root: Path,
    pictures: list[Path],
    names: list[tuple[str, ...]],
    side: Side | None,
    skips: Skips,
) -> Iterator[Row]:
    for path, present in zip(pictures, names, strict=True):
        if fault := text_fault(str(path)[len(str(root)) :]):
            leave_out(skips, shown(path), f"the name of the file cannot be used: {fault}.")
        else:
            yield Row(where=shown(path), path=str(path), present=present, split=side or "")


def _labels_from(folder: Path, delimiter: str, count: int, skips: Skips) -> tuple[str, ...]:
    names = label_parts(folder.name, delimiter)
    faults = [fault for name in names if (fault := label_fault(name))]
    if names and not faults:
        return names
    why = f": {faults[0]}" if faults else f": expected one or more words joined by {delimiter!r}"
    leave_out(skips, shown(folder), f"the folder of {count} pictures names no labels{why}.")
    return ()


def _groups_by_position(
    combinations: Set[tuple[str, ...]], group_names: Sequence[str]
) -> tuple[LabelGroup, ...]:
    """Return one group for each position of a label, if the positions share no label.

    Raises:
        InputError: The number of names is not that of the groups.
    """
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


def _look_into(others: list[Path], root: Path, skips: Skips) -> None:
    """Name pictures among the files that are not called so."""
    for path in others:
        if kind := _kind_inside(path):
            endings = ", ".join(sorted(SUFFIXES))
            leave_out(skips, shown(path), f"it is {kind}; pictures end in {endings}.")
    if others:
        logger.info("%d files in %s are no pictures", len(others), shown(root))


def _kind_inside(path: Path) -> str | None:
    try:
        with open(path, "rb") as file:
            head = file.read(12)
    except OSError:
        return None
    if head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n", b"GIF8")) or head[8:] == b"WEBP":
        return "a picture by its content but not by its name"
    if head[4:8] == b"ftyp" and head[8:] in (b"heic", b"heix", b"mif1", b"hevc"):
        return "HEIC, which is not read"
    return None


def _why_no_file(path: str) -> str:
    if os.path.isdir(path):
        return "it is a link to a folder, which is not followed; give that folder itself."
    if os.path.islink(path):
        return "it is a link that leads to no file."
    return "it is neither a file nor a folder."


def _visible(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if not is_hidden(entry.name))
    except OSError as err:
        raise DataError(f"The folder {shown(folder)!r} cannot be read: {err.strerror}.") from err


def _folders_in(folder: Path) -> list[Path]:
    return [entry for entry in _visible(folder) if os.path.isdir(entry)]
