"""Data sets as they lie on a disk: folders named after labels, or a table."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from edgeml.data.apparel import COLOURS, GARMENTS
from edgeml.data.dataset import Dataset, targets_from_names
from edgeml.data.table import SEPARATOR, label_parts, read_table
from edgeml.errors import DataError
from edgeml.images import SUFFIXES
from edgeml.spec import LabelGroup

logger = logging.getLogger(__name__)

_EXPECTED = (
    "Expected a folder whose sub-folders are named after labels (red_shirt/1.jpg), "
    "or a .csv with the columns path and labels"
)


def read_dataset(path: Path) -> Dataset:
    """Read labelled pictures: a folder such as `data/red_shirt/1.jpg`, or a .csv.

    A folder's name gives the labels of all pictures below it, joined by `_`. If each name has one
    label for each of two or more positions, these become label groups.
    The columns of a .csv: `path` (from the folder of the .csv), `labels` (separated by `;`), and
    optionally `group`, `split` (train, val or test) and `label_groups` (as many as labels).

    Raises:
        DataError: Missing, empty, inconsistent, or with one label only; names file and line.
    """
    source = Path(os.path.abspath(path))
    if source.is_dir():
        dataset = _read_folder(source)
    elif source.suffix.lower() == ".csv" and source.is_file():
        dataset = read_table(source)
    elif source.exists():
        raise DataError(f"{str(path)!r} is neither a folder nor a .csv. {_EXPECTED}.")
    else:
        raise DataError(f"{str(path)!r} does not exist. {_EXPECTED}.")
    if len(dataset.labels) < 2:
        only = f"only the label {dataset.labels[0]!r}" if dataset.labels else "no label"
        raise DataError(f"{str(path)!r} has {only}: nothing to tell apart.{_hint(source)}")
    return dataset


def find_images(path: Path) -> list[Path]:
    """List pictures, sorted: of a .csv, of a folder and all below it, or one file itself.

    Raises:
        DataError: There is none.
    """
    source = Path(os.path.abspath(path))
    if source.is_file():
        return sorted(read_table(source).paths) if source.suffix.lower() == ".csv" else [source]
    found = sorted(file for file in _files_below(source) if _is_picture(file))
    if not found:
        raise DataError(f"There are no pictures in {str(path)!r}.")
    return found


def _read_folder(root: Path) -> Dataset:
    paths: list[Path] = []
    names: list[tuple[str, ...]] = []
    others = 0
    for folder in sorted(entry for entry in root.iterdir() if _is_open_folder(entry)):
        files = list(_files_below(folder))
        pictures = sorted(file for file in files if _is_picture(file))
        others += len(files) - len(pictures)
        if pictures:
            paths += pictures
            names += [_labels_from(folder)] * len(pictures)
    loose = [file for file in root.iterdir() if file.is_file() and not _is_hidden(file.name)]
    stray = sum(map(_is_picture, loose))
    if not paths:
        found = f"{stray} pictures lie in {str(root)!r} itself" if stray else f"{str(root)!r}"
        said = f"{found}, in no sub-folder" if stray else f"There are no pictures in {found}"
        raise DataError(f"{said}. {_EXPECTED}.{_hint(root)}")
    if stray:
        logger.warning("%d pictures directly in %s have no label and are left out", stray, root)
    if others + len(loose) - stray:
        logger.info("%d files in %s are no pictures", others + len(loose) - stray, root)
    labels, targets = targets_from_names(names)
    return Dataset(
        root=root,
        paths=tuple(paths),
        labels=labels,
        targets=targets,
        label_groups=_groups_by_position(sorted(set(names))),
    )


def _labels_from(folder: Path) -> tuple[str, ...]:
    names = label_parts(folder.name, "_")
    if not names or SEPARATOR in folder.name:
        raise DataError(
            f"The folder {str(folder)!r} names no labels: expected one or more words joined "
            f"by '_', without {SEPARATOR!r}."
        )
    return names


def _groups_by_position(names: Sequence[tuple[str, ...]]) -> tuple[LabelGroup, ...]:
    """See whether the first words exclude each other, and the second: red_shirt, blue_dress."""
    if len({len(row) for row in names}) != 1 or len(names[0]) < 2:
        return ()
    positions = [sorted(set(column)) for column in zip(*names, strict=True)]
    if sum(map(len, positions)) != len(set().union(*positions)):
        return ()
    return tuple(
        LabelGroup(name=_group_name(labels, number), labels=tuple(labels), rule="one")
        for number, labels in enumerate(positions, start=1)
    )


def _group_name(labels: Sequence[str], number: int) -> str:
    for name, words in (("colour", COLOURS), ("garment", GARMENTS)):
        if set(labels) <= set(words):
            return name
    return f"group{number}"


def _files_below(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not _is_hidden(name)]
        yield from (Path(parent, name) for name in files if not _is_hidden(name))


def _is_open_folder(path: Path) -> bool:
    return path.is_dir() and not _is_hidden(path.name)


def _is_hidden(name: str) -> bool:
    return name.startswith(".")


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in SUFFIXES


def _hint(folder: Path) -> str:
    """Name the table in a folder that was given in its place."""
    tables = sorted(folder.glob("*.csv")) if folder.is_dir() else []
    return f" Did you mean {str(tables[0])!r}?" if tables else ""
