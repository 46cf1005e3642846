"""Data sets as they lie on a disk, read by what is found there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from edgeml.data.dataset import Dataset
from edgeml.data.readers.coco import find_coco, read_coco
from edgeml.data.readers.folders import (
    EVERY_LEVEL,
    EXPECTED,
    files_below,
    hint,
    is_picture,
    read_folders,
)
from edgeml.data.readers.rows import Skips, shown
from edgeml.data.readers.table import read_table
from edgeml.data.readers.yolo import is_yolo, read_yolo
from edgeml.errors import DataError, InputError

_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar")


def read_dataset(
    path: Path,
    *,
    delimiter: str = "_",
    group_names: Sequence[str] = (),
    skip_bad: bool = False,
) -> Dataset:
    """Read labelled pictures, whatever form they are in.

    * A folder of folders named after labels: `data/red_shirt/1.jpg`. The folder directly in `path`
      names the labels of all pictures below it, joined by `delimiter`; with the delimiter `/` each
      folder on the way to a picture is one label. If each name has one label for each of two or
      more positions, these become label groups. See `edgeml.data.readers.folders.read_folders`.
    * A .csv or .parquet with the column `path`, seen from its folder, and `labels` (separated by
      `;`) or a column for each label (1, 0, empty for unknown), and optionally `group`, `split`
      (train, val or test) and `label_groups`. See `edgeml.data.readers.table.read_table`.
    * A COCO .json, or a folder of several. See `edgeml.data.readers.coco.read_coco`.
    * A YOLO data.yaml, or a folder of `images/` and `labels/`: see
      `edgeml.data.readers.yolo.read_yolo`.

    Args:
        path: A file or a folder.
        delimiter: Between the labels in a folder's name.
        group_names: The names of the label groups of folders, in the order of the positions;
            empty: `group1`, `group2` and so on.
        skip_bad: Leave out what is bad and name it in `Dataset.skipped`; else it is an error.

    Raises:
        DataError: Missing, empty, inconsistent, or with one label only; names file and line.
        InputError: The delimiter or the number of group names cannot be used.
        MissingDependencyError: A library that reads this form is not installed.
    """
    if not delimiter.strip() and not delimiter == " ":
        raise InputError(f"The delimiter is {delimiter!r}; it must be a character such as '_'.")
    if EVERY_LEVEL in delimiter and delimiter != EVERY_LEVEL:
        raise InputError(f"The delimiter is {delimiter!r}; '/' stands in no folder's name.")
    skips: Skips = [] if skip_bad else None
    source = Path(os.path.abspath(path))
    dataset = _read(source, delimiter, group_names, skips)
    _check_labels(source, dataset)
    return dataset


def find_images(path: Path) -> list[Path]:
    """List pictures, sorted: of a data set in a file, of a folder and all below it, or one file.

    Raises:
        DataError: There is none.
    """
    source = Path(os.path.abspath(path))
    if os.path.isfile(source):
        return sorted(_read(source, "_", (), None).paths) if _describes(source) else [source]
    found = (
        [file for file in files_below(source, None) if is_picture(file)]
        if os.path.exists(source)
        else []
    )
    if not found:
        raise DataError(f"There are no pictures in {shown(path)!r}.")
    return found


def _read(source: Path, delimiter: str, group_names: Sequence[str], skips: Skips) -> Dataset:
    if os.path.isdir(source):
        return _read_folder(source, delimiter, group_names, skips)
    if not os.path.exists(source):
        raise DataError(f"{shown(source)!r} does not exist. {EXPECTED}.")
    if not os.path.isfile(source):
        raise DataError(f"{shown(source)!r} is neither a file nor a folder. {EXPECTED}.")
    match source.suffix.lower():
        case ".csv" | ".parquet":
            return read_table(source, skips=skips)
        case ".json":
            return read_coco({source: None}, root=source.parent, skips=skips)
        case ".yaml" | ".yml":
            return read_yolo(source, skips=skips)
        case suffix if suffix in _ARCHIVES:
            raise DataError(
                f"{shown(source)!r} is an archive, and edgeml unpacks none: unpack it yourself "
                "and give the folder."
            )
    raise DataError(f"{shown(source)!r} is no data set. {EXPECTED}.")


def _describes(file: Path) -> bool:
    return file.suffix.lower() in (".csv", ".parquet", ".json", ".yaml", ".yml")


def _read_folder(root: Path, delimiter: str, group_names: Sequence[str], skips: Skips) -> Dataset:
    if is_yolo(root):
        return read_yolo(root, skips=skips)
    if files := find_coco(root):
        return read_coco(files, root=root, skips=skips)
    return read_folders(root, delimiter=delimiter, group_names=group_names, skips=skips)


def _check_labels(source: Path, dataset: Dataset) -> None:
    lost = f" {len(dataset.skipped)} were left out: {dataset.skipped[0]}" if dataset.skipped else ""
    if not len(dataset):
        raise DataError(f"{shown(source)!r} has no pictures that can be used.{lost}{hint(source)}")
    if len(dataset.labels) < 2:
        only = f"only the label {dataset.labels[0]!r}" if dataset.labels else "no label"
        raise DataError(f"{shown(source)!r} has {only}: nothing to tell apart.{lost}{hint(source)}")
    if not dataset.present.any():
        raise DataError(f"No picture in {shown(source)!r} has a label.{lost}")
