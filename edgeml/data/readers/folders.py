"""Folders named after the labels of the images in them: `red_shirt/1.jpg`."""

from __future__ import annotations

import logging
import os
from collections import Counter
from collections.abc import Iterator, Sequence, Set
from dataclasses import dataclass, field, replace
from pathlib import Path

from edgeml.data.chosen_labels import DOUBTFUL
from edgeml.data.dataset import Dataset, Side
from edgeml.data.readers.hints import hint, lists_images, tables_in
from edgeml.data.readers.label_cells import shares_words
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
from edgeml.data.readers.structure import is_structural
from edgeml.errors import DataError, InputError
from edgeml.image.file_kinds import counted, is_any_image, is_image, other_format
from edgeml.image.reading import SUFFIXES
from edgeml.image.unread import HEIF_ADVICE
from edgeml.spec.labels import LabelGroup

logger = logging.getLogger(__name__)

EVERY_LEVEL = "/"
"""The delimiter with which each folder on the way to an image is one label."""

EXPECTED = (
    "Expected a folder whose sub-folders are named after labels (red_shirt/1.jpg), a table (.csv, "
    ".tsv, .jsonl, .parquet) with the columns path and labels, COCO, YOLO, VOC, or an export of "
    "Label Studio, CVAT, Datumaro or FiftyOne"
)


# macOS, Synology (thumbnails), QNAP, Windows and Linux write these.
_OF_SYSTEMS = {
    "__MACOSX", "@eaDir", "#recycle", "@Recycle", "$RECYCLE.BIN", "System Volume Information",
    "lost+found",
}  # fmt: skip


@dataclass(frozen=True)
class _Reading:
    """What the user states about folders, and what is found in them.

    Attributes:
        delimiter: Separates the labels in a folder's name.
        allowed: Names that are labels even if they usually arrange data.
        left_out: The number of files that are not read, by format or suffix.
    """

    delimiter: str
    allowed: Sequence[str]
    left_out: Counter[str] = field(default_factory=Counter)


def read_folders(
    root: Path,
    *,
    delimiter: str,
    group_names: Sequence[str] = (),
    allowed: Sequence[str] = (),
    skips: SkipLog,
) -> Dataset:
    """Read images whose labels are the names of folders.

    The folder directly in `root` names the labels, joined by `delimiter`; folders below it have no
    meaning. With the delimiter `/` every folder between `root` and the image is one label. If
    `root` contains folders named `train`, `val` (or `valid`, `validation`) and `test`, these are
    the sides of a split, and each of them contains the folders of labels. Such names, and others
    that arrange data (`images`, `annotations`), are labels only if they are `allowed`.

    If every image has one label at each of two or more positions (red_shirt, blue_dress), and
    no label occurs at two positions, the labels of a position form a label group.

    The arguments are those of `read_dataset`; the number of group names must be that of the groups.
    """
    rows: list[Row] = []
    notes: list[str] = []
    reading = _Reading(delimiter, allowed)
    for start, side in _starts(root, allowed, notes, skips):
        rows += _rows(root, start, side, reading, skips)
    if delimiter != EVERY_LEVEL and _is_doubtful(rows, delimiter):
        notes.append(
            f"{DOUBTFUL} at {delimiter!r} though no name consists of words of the others; "
            "--delimiter / reads each name as one label"
        )
    if reading.delimiter != EVERY_LEVEL:
        notes += _notes_on_inner(rows)
    for table in filter(lists_images, tables_in(root)):
        notes.append(
            f"{printable(table.name)} is not read, as the folders name the labels; to read it, "
            f"name {printable(table)} in place of the folder"
        )
    dataset = dataset_from_rows(
        rows,
        root=root,
        label_groups=_groups_by_position({row.present for row in rows}, group_names),
        skips=skips,
    )
    return replace(
        dataset,
        labels_from=f"the names of folders, split at {delimiter!r}",
        notes=tuple(notes),
        left_out=reading.left_out,
    )


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
    return name.startswith(".") or name in _OF_SYSTEMS


def _starts(
    root: Path, allowed: Sequence[str], notes: list[str], skips: SkipLog
) -> Iterator[tuple[Path, Side | None]]:
    """Yield the folders that contain the folders of labels: one, or one for each side."""
    root = _unwrapped(root)
    folders = [folder for folder in _folders_in(root) if folder.name not in allowed]
    sides = {f: side for f in folders if (side := SIDE_OF_FOLDER.get(f.name.lower()))}
    inside = {folder: _unwrapped(folder) for folder in sides}
    labelled = [
        folder
        for folder in sides
        if any(
            _has_images(entry) and (entry.name in allowed or not is_structural(entry.name))
            for entry in _folders_in(inside[folder])
        )
    ]
    if not labelled:
        yield root, None
        return
    for folder in _folders_in(root):
        if folder not in sides and _has_images(folder):
            names = " and ".join(folder.name for folder in labelled)
            why = f"it is next to {names}, which are a split: move it elsewhere."
            skip_or_raise(skips, printable(folder), why)
        elif folder in sides and folder not in labelled:
            count = sum(map(is_image, files_below(folder, skips)))
            notes += [f"{folder.name}/ has {count} images without labels: not read"] * bool(count)
    one = len({sides[folder] for folder in labelled}) == 1
    for folder in labelled:
        yield inside[folder], None if one else sides[folder]


def _unwrapped(folder: Path) -> Path:
    """Return the folder that contains the labels: below `data/images/`, if all images are."""
    while not any(is_image(path) for path in visible(folder) if os.path.isfile(path)):
        inner = [entry for entry in _folders_in(folder) if _has_images(entry)]
        if len(inner) != 1 or not is_structural(inner[0].name):
            break
        if not _folders_in(inner[0]):
            break
        folder = inner[0]
    return folder


def _has_images(folder: Path) -> bool:
    """Whether there is an image below a folder, judged by suffixes; without any, by bytes."""
    files = [os.path.join(place, name) for place, _, names in os.walk(folder) for name in names]
    suffixes = [os.path.splitext(file)[1].lower() for file in files]
    return any(suffix in SUFFIXES for suffix in suffixes) or any(
        is_any_image(file)
        for file, suffix in zip(files, suffixes, strict=True)
        if suffix not in (".txt", ".xml", ".json")  # of which there may be one for each image
    )


def _rows(
    root: Path, start: Path, side: Side | None, reading: _Reading, skips: SkipLog
) -> Iterator[Row]:
    files_of = {folder: files_below(folder, skips) for folder in _folders_in(start)}
    images_of = {folder: list(filter(is_image, files)) for folder, files in files_of.items()}
    loose = [path for path in visible(start) if os.path.isfile(path)]
    stray = [path for path in loose if is_image(path)]
    if not any(images_of.values()):
        name = repr(printable(start))
        fault = f"There are no images in {name}"
        formats = [kind for path in loose if (kind := other_format(path))]
        if stray or formats:
            also = f", and {counted(formats)} that are not read" if formats else ""
            fault = (
                f"{len(stray)} images{also} are in {name} itself, not in a sub-folder. Move them "
                "into a folder for each label, or list them in a labels.csv next to them"
            )
        raise DataError(f"{fault}. {EXPECTED}.{hint(start)}")
    for path in stray:
        skip_or_raise(skips, printable(path), "it is not in a folder that names labels.")
    others = [path for path in loose if path not in stray]
    for folder, images in images_of.items():
        others += sorted({*files_of[folder]} - {*images})
        if not images and not is_structural(folder.name):
            skip_or_raise(skips, printable(folder), "the folder has no images.")
        elif not images:
            continue
        elif is_structural(folder.name) and folder.name not in reading.allowed:
            why = (
                f"{folder.name!r} is a usual name for a part of a data set, and no label: read "
                f"another folder or file, or name the labels (--labels {folder.name},...)."
            )
            skip_or_raise(skips, printable(folder), why + hint(start))
        elif reading.delimiter == EVERY_LEVEL:
            yield from _rows_by_level(start, images, side, reading, skips)
        elif names := _labels_from(folder, reading.delimiter, len(images), skips):
            yield from _rows_of(root, images, names, side, skips)
    _skip_others(others, root, reading, skips)


def _rows_by_level(
    start: Path, images: list[Path], side: Side | None, reading: _Reading, skips: SkipLog
) -> Iterator[Row]:
    for path in images:
        names = tuple(dict.fromkeys(map(label_name, path.relative_to(start).parts[:-1])))
        faults = [fault for name in names if (fault := label_fault(name))]
        parts = [name for name in names if is_structural(name) and name not in reading.allowed]
        faults += [f"{name!r} is a usual name for a part of a data set" for name in parts]
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


def _is_doubtful(rows: Sequence[Row], delimiter: str) -> bool:
    """Whether folders are named by several words, of which no name shares all with others."""
    names = {delimiter.join(row.present) for row in rows}
    several = any(len(row.present) > 1 for row in rows)
    return several and not shares_words(names, delimiter)


def _notes_on_inner(rows: Sequence[Row]) -> list[str]:
    """Return a note if folders below those of the labels recur, and so may be the labels."""
    labels_of: dict[str, set[tuple[str, ...]]] = {}
    for row in rows:
        inner = os.path.basename(os.path.dirname(row.path))
        labels_of.setdefault(inner, set()).add(row.present)
    again = [n for n, found in labels_of.items() if len(found) > 1 and not is_structural(n)]
    if not again:
        return []
    return [
        f"the names of inner folders, such as {again[0]!r}, are not read, though they occur below "
        "several labels: name a folder inside, or --delimiter / to read each folder as a label"
    ]


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


def _skip_others(others: list[Path], root: Path, reading: _Reading, skips: SkipLog) -> None:
    """Count the files that are no images, and skip images of other formats."""
    formats = {path: name for path in others if (name := other_format(path))}
    for path in others:
        reading.left_out[formats.get(path) or path.suffix.lower() or "no suffix"] += 1
    if formats and skips is None:
        path, name = next(iter(formats.items()))
        counts = counted(formats.values())
        advice = f" {HEIF_ADVICE}." if "HEIC" in counts else ""
        raise DataError(
            f"{printable(path)}: it is {name}, which is not supported ({counts} in all). Convert "
            f"these, or leave them out (--skip-bad).{advice}"
        )
    for path, name in formats.items():
        skip_or_raise(skips, printable(path), f"it is {name}, which is not supported.")
    if others:
        logger.info("%d files in %s are not images", len(others), printable(root))


def _why_not_a_file(path: str) -> str:
    if os.path.isdir(path):
        return "it is a link to a folder, which is not followed; use that folder itself."
    if os.path.islink(path):
        return "it is a link that leads to no file."
    return "it is neither a file nor a folder."


def visible(folder: Path) -> list[Path]:
    """Return the sorted entries of a folder that are not hidden.

    Raises:
        DataError: The folder cannot be read.
    """
    try:
        return sorted(entry for entry in folder.iterdir() if not is_hidden(entry.name))
    except OSError as err:
        raise DataError(
            f"The folder {printable(folder)!r} cannot be read: {err.strerror}."
        ) from err


def _folders_in(folder: Path) -> list[Path]:
    return [entry for entry in visible(folder) if os.path.isdir(entry)]
