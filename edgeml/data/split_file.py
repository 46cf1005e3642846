"""A data set, written as a table that reads back equal."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from edgeml.data.dataset import Dataset, relative_name
from edgeml.data.readers.columns import is_reserved
from edgeml.data.readers.label_cells import (
    cell_fault,
    is_list,
    missing_values,
    refused_separator,
)
from edgeml.data.readers.rows import SEPARATOR
from edgeml.errors import DataError
from edgeml.files import write_text

SPLIT_FILE = "split.csv"
"""The split of a run, in its folder."""

CONTENT, ROOT = "sha256", "data_root"
"""The columns of the digest of an image's bytes, and of the folder that its path starts from."""


def write_split(dataset: Dataset, path: Path) -> None:
    """Write a split data set as a .csv that `read_dataset` reads back equal.

    Paths are relative to the folder of the .csv if all are below it. Otherwise they are relative to
    the root of the data, which the column `data_root` names, or absolute if they are not below it.
    Each label gets its own column if anything is unknown, or if a label is on no image. The column
    `sha256` has the digests of the images where they are known; no file is read for it.

    Raises:
        DataError: The data set is not split, or a name in it cannot be written.
        InputError: The folder of `path` cannot be written to.
    """
    if dataset.split is None:
        raise DataError("The data are not split yet: there is no split to write.")
    folder = Path(os.path.abspath(path)).parent
    inside = all(image.is_relative_to(folder) for image in dataset.paths)
    start = folder if inside else dataset.root
    more: dict[str, list[str]] = {"split": list(dataset.split)}
    if all(image in dataset.known_hashes for image in dataset.paths):
        more[CONTENT] = [dataset.known_hashes[image] for image in dataset.paths]
    if not inside:
        more[ROOT] = [str(start)] * len(dataset)
    paths = [relative_name(image, start) for image in dataset.paths]
    write_text(Path(path), _table(dataset, paths, more))


def table_text(dataset: Dataset, folder: Path) -> str:
    """Return a data set as the text of a .csv in `folder`, which `read_dataset` reads back equal.

    Paths are relative to the folder, also with `..`; those on another drive are absolute.

    Raises:
        DataError: A name in the data set cannot be written.
    """
    paths = [_relative(image, Path(os.path.abspath(folder))) for image in dataset.paths]
    return _table(dataset, paths, {} if dataset.split is None else {"split": list(dataset.split)})


def _relative(image: Path, folder: Path) -> str:
    try:
        return Path(os.path.relpath(image, folder)).as_posix()
    except ValueError:  # another drive of Windows
        return image.as_posix()


def _table(dataset: Dataset, paths: list[str], more: Mapping[str, list[str]]) -> str:
    columns = {"path": paths}
    complete = dataset.known.all() and dataset.present.any(axis=0).all()
    columns |= (_labels_in_one_column if complete else _labels_in_columns)(dataset)
    if dataset.groups is not None:
        columns["group"] = list(dataset.groups)
    columns |= more
    # The csv module quotes a cell with a line feed, but not one with a lone carriage return.
    # An unquoted cell loses the blank that it begins with.
    unusual = any(
        "\r" in cell or cell[:1] == " "
        for name, column in columns.items()
        for cell in (name, *column)
    )
    text = io.StringIO()
    writer = csv.writer(
        text, lineterminator="\n", quoting=csv.QUOTE_ALL if unusual else csv.QUOTE_MINIMAL
    )
    writer.writerow(columns)
    writer.writerows(zip(*columns.values(), strict=True))
    written = text.getvalue()
    try:
        written.encode()
    except UnicodeEncodeError as err:
        name = written[err.start : err.end]
        raise DataError(f"A file name contains {name!r}, which is not UTF-8: rename it.") from err
    return written


def _labels_in_one_column(dataset: Dataset) -> dict[str, list[str]]:
    group_of, order = _groups_and_order(dataset)
    rows = [sorted(dataset.labels_of(row), key=order.index) for row in range(len(dataset))]
    cells = [SEPARATOR.join(names) for names in rows]
    unclear = refused_separator(cells, None) or missing_values(dataset.labels)
    if unclear or any(map(_is_special, cells)):
        cells = [json.dumps(names, ensure_ascii=False) for names in rows]
    columns = {"labels": cells}
    if group_of:
        groups = ([group_of.get(name, "") for name in names] for names in rows)
        columns["label_groups"] = list(map(SEPARATOR.join, groups))
    return columns


def _labels_in_columns(dataset: Dataset) -> dict[str, list[str]]:
    reserved = {name for name in dataset.labels if is_reserved(name)}
    if reserved:
        raise DataError(
            f"A label is named {min(reserved)!r}, which is also the name of a column. Each label "
            "needs its own column here, because some are unknown or on no image: rename the label."
        )
    group_of, order = _groups_and_order(dataset)
    words = np.array(["0", "1", ""])  # for 0, 1 and -1, which indexes the last
    columns = {
        name: words[dataset.targets[:, dataset.labels.index(name)]].tolist() for name in order
    }
    if group_of:
        groups = SEPARATOR.join(group_of.get(name, "") for name in order)
        columns["label_groups"] = [groups] * len(dataset)
    return columns


def _is_special(cell: str) -> bool:
    return is_list(cell) or cell_fault(cell) is not None


def _groups_and_order(dataset: Dataset) -> tuple[dict[str, str], list[str]]:
    """Return the group of each label, and all labels in the order in which they are written.

    The order is that of the groups, so that the first row determines their order when read.
    """
    group_of = {
        label: group.name
        for group in dataset.label_groups
        if group.rule == "one"
        for label in group.labels
    }
    return group_of, list(dict.fromkeys([*group_of, *dataset.labels]))
