"""Read a data set from disk, in the format that is found there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from edgeml.data.chosen_labels import report_reading, with_labels
from edgeml.data.dataset import Dataset
from edgeml.data.readers.coco import find_coco, read_coco
from edgeml.data.readers.file_kinds import is_image
from edgeml.data.readers.folders import (
    EVERY_LEVEL,
    EXPECTED,
    TABLES,
    files_below,
    hint,
    read_folders,
)
from edgeml.data.readers.label_cells import checked_separator
from edgeml.data.readers.rows import SkipLog, printable
from edgeml.data.readers.table import TableOptions, read_table
from edgeml.data.readers.yolo import is_yolo, read_yolo
from edgeml.errors import DataError, InputError
from edgeml.progress import SILENT, Progress
from edgeml.spec.model_spec import some_names

_ARCHIVES = (".zip", ".tar", ".tgz", ".gz", ".bz2", ".xz", ".zst", ".7z", ".rar")


def read_dataset(
    path: Path,
    *,
    delimiter: str = "_",
    separator: str | None = None,
    labels: Sequence[str] = (),
    ignore_labels: Sequence[str] = (),
    root: Path | None = None,
    group_names: Sequence[str] = (),
    skip_bad: bool = False,
    progress: Progress = SILENT,
) -> Dataset:
    """Read labelled images in any of the supported formats.

    * A folder of folders named after labels: `data/red_shirt/1.jpg`. The folder directly in `path`
      names the labels of all images below it, joined by `delimiter`; with the delimiter `/` each
      folder on the way to an image is one label. If every name has one label at each of two or
      more positions, the labels of a position form a label group. See
      `edgeml.data.readers.folders.read_folders`.
    * A .csv or .parquet with the column `path`, relative to its folder, and `labels` (lists, or
      separated by `;`) or a column for each label (1, 0, empty for unknown), and optionally
      `group`, `split` (train, val or test) and `label_groups`. See
      `edgeml.data.readers.table.read_table`.
    * A COCO .json, or a folder of several. See `edgeml.data.readers.coco.read_coco`.
    * A YOLO data.yaml, or a folder of `images/` and `labels/`: see
      `edgeml.data.readers.yolo.read_yolo`.

    Args:
        path: A file or a folder.
        delimiter: Separates the labels in a folder's name.
        separator: Separates the labels in a cell of a table, or `tab` or `space`; None: `;`, and
            cells that appear to use another one are an error.
        labels: The labels to read, or their columns in a table; empty: all.
        ignore_labels: Labels, or columns of a table, to leave out.
        root: The folder that the paths in a table start from, if not the one it states.
        group_names: The names of the label groups of folders, in the order of the positions;
            empty: `group1`, `group2` and so on.
        skip_bad: Leave out bad entries and list them in `Dataset.skipped`; otherwise the first
            one is an error.
        progress: Gets a line with the labels, and one for each choice that was made in reading.

    Raises:
        DataError: The data are missing, empty, inconsistent, or have fewer than two labels; names
            file and line.
        InputError: The delimiter or the number of group names cannot be used.
        MissingDependencyError: A library that reads this format is not installed.
    """
    _check_delimiter(delimiter)
    skips: SkipLog = [] if skip_bad else None
    source = Path(os.path.abspath(path))
    options = TableOptions(
        checked_separator(separator), tuple(labels), tuple(ignore_labels), _checked_root(root)
    )
    dataset = _read(source, delimiter, group_names, skips, options)
    if "separator" not in reader_options(source):  # a table may have had such a column
        _check_ignored(source, ignore_labels, dataset)
    dataset = with_labels(dataset, labels, ignore_labels)
    _check_labels(source, dataset)
    report_reading(dataset, progress)
    return dataset


def find_images(path: Path) -> list[Path]:
    """Return sorted image paths: of a data set in a file, of a folder and all below it, or a file.

    Raises:
        DataError: There are none.
    """
    source = Path(os.path.abspath(path))
    if os.path.isfile(source):
        described = source.suffix.lower() in TABLES
        return sorted(_read(source, "_", (), None, TableOptions()).paths) if described else [source]
    files = files_below(source, None) if os.path.exists(source) else []
    images = [file for file in files if is_image(file)]
    if not images:
        raise DataError(f"There are no images in {printable(path)!r}.")
    return images


def _read(
    source: Path,
    delimiter: str,
    group_names: Sequence[str],
    skips: SkipLog,
    options: TableOptions,
) -> Dataset:
    if os.path.isdir(source):
        if is_yolo(source):
            return read_yolo(source, skips=skips)
        if files := find_coco(source):
            return read_coco(files, root=source, skips=skips)
        return read_folders(
            source,
            delimiter=delimiter,
            group_names=group_names,
            allowed=options.labels,
            skips=skips,
        )
    if not os.path.exists(source):
        raise DataError(f"{printable(source)!r} does not exist. {EXPECTED}.")
    if not os.path.isfile(source):
        raise DataError(f"{printable(source)!r} is neither a file nor a folder. {EXPECTED}.")
    match source.suffix.lower():
        case ".csv" | ".parquet":
            return read_table(source, skips=skips, options=options)
        case ".json":
            return read_coco({source: None}, root=source.parent, skips=skips)
        case ".yaml" | ".yml":
            return read_yolo(source, skips=skips)
        case suffix if suffix in _ARCHIVES:
            raise DataError(
                f"{printable(source)!r} is an archive, which edgeml does not unpack: unpack it and "
                "name the folder."
            )
    raise DataError(f"{printable(source)!r} is not a data set. {EXPECTED}.")


def reader_options(path: Path) -> set[str]:
    """Return which of `delimiter`, `separator` and `root` apply to the data at a path."""
    if os.path.isdir(path):
        return set() if is_yolo(path) or find_coco(path) else {"delimiter"}
    return set() if path.suffix.lower() in (".json", ".yaml", ".yml") else {"separator", "root"}


def _check_delimiter(delimiter: str) -> None:
    if not delimiter.strip() and not delimiter == " ":
        raise InputError(f"The delimiter is {delimiter!r}; it must be a character such as '_'.")
    if EVERY_LEVEL in delimiter and delimiter != EVERY_LEVEL:
        raise InputError(f"The delimiter is {delimiter!r}; no folder's name contains '/'.")


def _check_ignored(source: Path, ignored: Sequence[str], dataset: Dataset) -> None:
    missing = [name for name in ignored if name not in dataset.labels]
    if missing:
        raise DataError(
            f"{printable(source)!r} has no label {missing[0]!r} to leave out. "
            f"The labels are: {some_names(dataset.labels)}."
        )


def _checked_root(root: Path | None) -> Path | None:
    if root is None:
        return None
    if not os.path.isdir(root):
        raise DataError(f"--root {printable(root)!r} is not a folder.")
    return Path(os.path.abspath(root))


def _check_labels(source: Path, dataset: Dataset) -> None:
    name, remedy = repr(printable(source)), hint(source)
    if dataset.skipped:
        remedy = f" {len(dataset.skipped)} were left out: {dataset.skipped[0]}{remedy}"
    if not len(dataset):
        raise DataError(f"{name} has no usable images.{remedy}")
    if len(dataset.labels) < 2:
        only = f"only the label {dataset.labels[0]!r}" if dataset.labels else "no label"
        raise DataError(f"{name} has {only}: nothing to tell apart.{remedy}")
    if not dataset.present.any():
        raise DataError(f"No image in {name} has a label.{remedy}")
