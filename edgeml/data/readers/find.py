"""Read a data set from disk, in the format that is found there."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from edgeml.data.chosen_labels import report_reading, with_labels
from edgeml.data.dataset import Dataset
from edgeml.data.readers.coco import find_coco, read_coco
from edgeml.data.readers.columns import origin_of_names
from edgeml.data.readers.csv_text import is_json_table
from edgeml.data.readers.cvat import find_cvat, read_cvat
from edgeml.data.readers.datumaro import find_datumaro, is_datumaro, read_datumaro
from edgeml.data.readers.fiftyone import find_fiftyone, is_fiftyone, read_fiftyone
from edgeml.data.readers.folders import EVERY_LEVEL, EXPECTED, files_below, is_hidden, read_folders
from edgeml.data.readers.hints import TABLES, hint
from edgeml.data.readers.json_files import read_json
from edgeml.data.readers.label_cells import checked_separator
from edgeml.data.readers.label_studio import is_label_studio, is_task, read_label_studio
from edgeml.data.readers.parquet_images import image_column, images_refused
from edgeml.data.readers.rows import SkipLog, printable
from edgeml.data.readers.table import TableOptions, read_table, read_tables
from edgeml.data.readers.table_folders import find_tables
from edgeml.data.readers.voc import find_voc, read_voc
from edgeml.data.readers.yolo import is_yolo, read_yolo
from edgeml.errors import DataError, InputError
from edgeml.image.file_kinds import is_image
from edgeml.progress import SILENT, Progress
from edgeml.spec.model_spec import some_names

_SHEETS = (".xlsx", ".xls", ".ods", ".numbers")
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
    unpack: Path | None = None,
    progress: Progress = SILENT,
) -> Dataset:
    """Read labelled images in any of the supported formats.

    * A folder of folders named after labels: `data/red_shirt/1.jpg`, the labels joined by
      `delimiter`. See `edgeml.data.readers.folders.read_folders`.
    * A .csv, .tsv, .jsonl or .parquet with the column `path`, relative to its folder, and `labels`
      (lists, or separated by `;`) or a column for each label (1, 0, empty for unknown), and
      optionally `group`, `split` (train, val or test) and `label_groups`. See
      `edgeml.data.readers.table.read_table`. Or a folder with Roboflow's `_classes.csv` or Hugging
      Face's `metadata.csv` or `metadata.jsonl`, or with one in each of `train`, `valid` and `test`.
    * COCO (.json, or a folder), YOLO (data.yaml, or a folder), Pascal VOC (a folder), and exports
      of Label Studio (.json, .csv), CVAT for images (.xml), Datumaro and FiftyOne (.json): see the
      modules of these names in `edgeml.data.readers`.

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
        unpack: A folder to write images to that a Parquet file contains; None: that is an error.
        progress: Gets a line with the labels and their origin, and one for each choice in reading.

    Raises:
        DataError: The data are missing, empty, inconsistent, or have fewer than two labels; names
            file and line.
        InputError: The delimiter or the number of group names cannot be used.
        MissingDependencyError: A library that reads this format is not installed.
    """
    _check_delimiter(delimiter)
    skips: SkipLog = [] if skip_bad else None
    source = Path(os.path.abspath(path))
    names = tuple(labels), tuple(ignore_labels)
    options = TableOptions(checked_separator(separator), *names, unpack, _checked_root(root))
    dataset = _read(source, delimiter, group_names, skips, options)
    _check_ignored(source, ignore_labels, dataset)
    if labels and dataset.labels_from == origin_of_names(options.labels):
        labels = ()  # these were columns with names of labels
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


def contains_images(path: Path) -> bool:
    """Whether a data set contains its images, as Parquet does, instead of naming their files.

    Raises:
        DataError: A Parquet file cannot be read.
    """
    tables = find_tables(path) if os.path.isdir(path) else [path]
    parquet = [table for table in tables if table.suffix.lower() == ".parquet"]
    return any(os.path.isfile(table) and image_column(table) for table in parquet)


def _read(
    source: Path,
    delimiter: str,
    group_names: Sequence[str],
    skips: SkipLog,
    options: TableOptions,
) -> Dataset:
    if os.path.isdir(source):
        return _read_folder(source, delimiter, group_names, skips, options)
    if not os.path.exists(source):
        raise DataError(f"{printable(source)!r} does not exist. {EXPECTED}.")
    if not os.path.isfile(source):
        raise DataError(f"{printable(source)!r} is neither a file nor a folder. {EXPECTED}.")
    match source.suffix.lower():
        case ".csv" | ".tsv" | ".jsonl" | ".parquet":
            return read_table(source, skips=skips, options=options)
        case ".json":
            return _read_json(source, skips, options)
        case ".xml":
            return read_cvat(source, skips=skips)
        case ".yaml" | ".yml":
            return read_yolo(source, skips=skips)
        case suffix if suffix in _ARCHIVES:
            raise DataError(
                f"{printable(source)!r} is an archive, which edgeml does not unpack: unpack it and "
                "name the folder."
            )
        case suffix if suffix in _SHEETS:
            raise DataError(f"{printable(source)!r} is a spreadsheet: save it as .csv.")
    raise DataError(f"{printable(source)!r} is not a data set. {EXPECTED}.")


def reader_options(path: Path) -> set[str]:
    """Return which of `delimiter`, `separator` and `root` apply to the data at a path."""
    if os.path.isdir(path):
        finders = (is_yolo, find_coco, find_datumaro, find_fiftyone, find_cvat)
        if any(found(path) for found in finders):
            return set()
        return {"separator"} if find_tables(path) else set() if find_voc(path) else {"delimiter"}
    suffix = path.suffix.lower()
    table = suffix not in (".json", ".yaml", ".yml", ".xml")
    if suffix == ".json":
        table = is_json_table(read_json(path, printable(path.name)))
    return {"separator", "root"} if table else set()


def _check_delimiter(delimiter: str) -> None:
    if not delimiter.strip() and not delimiter == " ":
        raise InputError(f"The delimiter is {delimiter!r}; it must be a character such as '_'.")
    if EVERY_LEVEL in delimiter and delimiter != EVERY_LEVEL:
        raise InputError(f"The delimiter is {delimiter!r}; no folder's name contains '/'.")


def _check_ignored(source: Path, ignored: Sequence[str], dataset: Dataset) -> None:
    missing = [name for name in ignored if name not in dataset.labels]
    # Columns and questions of the others are left out by name too; their readers check that.
    if missing and os.path.isdir(source) and not (find_tables(source) or find_fiftyone(source)):
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


def _read_folder(
    source: Path,
    delimiter: str,
    group_names: Sequence[str],
    skips: SkipLog,
    options: TableOptions,
) -> Dataset:
    if is_yolo(source):
        return read_yolo(source, skips=skips)
    if files := find_coco(source):
        return read_coco(files, root=source, skips=skips)
    if files := find_datumaro(source):
        return read_datumaro(files, root=source, skips=skips)
    if file := find_fiftyone(source):
        return _read_json(file, skips, options)
    if file := find_cvat(source):
        return read_cvat(file, skips=skips)
    if files := find_tables(source):
        if options.unpack is None:
            for table in files:
                if table.suffix == ".parquet" and (column := image_column(table)):
                    raise images_refused(source, column)
        inside = len(files) == 1
        return read_tables(files, root=source, skips=skips, options=options, split_by_path=inside)
    if files := find_voc(source):
        return read_voc(files, root=source, skips=skips)
    if inner := _data_set_in(source):
        raise DataError(
            f"{printable(source)!r} contains the folder of another data set. Did you mean "
            f"{printable(inner)!r}?"
        )
    return read_folders(
        source, delimiter=delimiter, group_names=group_names, allowed=options.labels, skips=skips
    )


def _data_set_in(source: Path) -> Path | None:
    """Return a folder up to two levels below that is a data set of VOC, YOLO or COCO."""
    first = _folders_in(source)
    below = [*first, *(inner for folder in first for inner in _folders_in(folder))]
    for folder in below:
        parts = folder / "JPEGImages", folder / "Annotations"
        if all(map(os.path.isdir, parts)) or is_yolo(folder) or find_coco(folder):
            return folder
    return None


def _folders_in(folder: Path) -> list[Path]:
    try:
        entries = sorted(e.path for e in os.scandir(folder) if e.is_dir(follow_symlinks=False))
    except OSError:
        return []  # read_folders names it
    return [Path(path) for path in entries if not is_hidden(os.path.basename(path))]


def _read_json(source: Path, skips: SkipLog, options: TableOptions) -> Dataset:
    document = read_json(source, printable(source.name))
    if isinstance(document, dict) and is_task(document):
        document = [document]
    if is_label_studio(document):
        return read_label_studio(source, document, ignored=options.ignored, skips=skips)
    if is_fiftyone(document):
        return read_fiftyone(source, document, ignored=options.ignored, skips=skips)
    if is_json_table(document):
        return read_table(source, skips=skips, options=options)
    reader = read_datumaro if is_datumaro(document) else read_coco
    return reader({source: None}, root=source.parent, skips=skips, document=document)


def _check_labels(source: Path, dataset: Dataset) -> None:
    name, remedy = repr(printable(source)), hint(source)
    if dataset.skipped:
        first = str(dataset.skipped[0]).removesuffix(remedy)
        left_out = "1 was" if len(dataset.skipped) == 1 else f"{len(dataset.skipped)} were"
        remedy = f" {left_out} left out: {first}{remedy}"
    elif not len(dataset) and dataset.notes:
        remedy = f" Note: {'; '.join(dataset.notes)}.{remedy}"
    if not len(dataset):
        raise DataError(f"{name} has no usable images.{remedy}")
    if len(dataset.labels) < 2:
        only = f"only the label {dataset.labels[0]!r}" if dataset.labels else "no label"
        raise DataError(f"{name} has {only}: nothing to tell apart.{remedy}")
    if not dataset.present.any():
        raise DataError(f"No image in {name} has a label.{remedy}")
