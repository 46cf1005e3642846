"""Parquet files that contain the images themselves, as Hugging Face's datasets do."""

from __future__ import annotations

import os
import shlex
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

from edgeml.data.readers.columns import names_images
from edgeml.data.readers.parquet import LONGEST_CELL, cell_texts, check_types, opened
from edgeml.data.readers.rows import SkipLog, printable, skip_or_raise, text_fault
from edgeml.errors import DataError
from edgeml.image.headers import SUFFIXES_OF, format_of

_ROWS_AT_ONCE = 64


def image_column(table: Path) -> str | None:
    """Return the name of the column of encoded images; None if there is none.

    It is a struct with `bytes`, or bytes under a name such as `image`; others may be anything.
    """
    with opened(table, dictionaries=False) as file:
        import pyarrow as pa

        for field in file.schema_arrow:
            kind, named = field.type, names_images(field.name)
            if pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0:
                kind, named = kind.field(kind.get_field_index("bytes")).type, True
            if named and (pa.types.is_binary(kind) or pa.types.is_large_binary(kind)):
                return str(field.name)
    return None


def images_refused(source: Path, column: str) -> DataError:
    """Return the error that a data set contains its images, with the command that unpacks them."""
    return DataError(
        f"{printable(source)!r} contains the images themselves, in the column {column!r}. This "
        "writes them as files, next to a table of their labels: edgeml data convert "
        f"{shlex.quote(printable(source))} --out FOLDER/labels.csv"
    )


def unpacked_rows(
    table: Path,
    name: str,
    column: str,
    wanted: Collection[int],
    folder: Path | None,
    skips: SkipLog,
) -> Iterator[tuple[str, list[str]]]:
    """Write the images of a Parquet file to a folder; yield the wanted cells, with their paths.

    A file has the name that the table gives it, or the number of its row; another file is never
    replaced. Images without bytes keep their path.

    Raises:
        DataError: There is no folder to write to, or it cannot be written.
    """
    if folder is None:
        raise images_refused(table, column)
    place = folder / table.stem if len(list(table.parent.glob("*.parquet"))) > 1 else folder
    place.mkdir(parents=True, exist_ok=True)
    number = 0
    with opened(table, dictionaries=False) as file:
        names = file.schema_arrow.names
        at = names.index(column)
        others = [index for index in wanted if index != at]
        check_types(table, file.schema_arrow, [names[index] for index in others])
        for batch in file.iter_batches(_ROWS_AT_ONCE, use_threads=False):
            texts = {index: cell_texts(batch.column(index)) for index in others}
            for row in range(len(batch)):
                number += 1
                where = f"{name}, row {number}"
                cells = [texts[index][row] if index in texts else "" for index in range(len(names))]
                fault = _written(batch.column(at)[row].as_py(), place, number, cells, at)
                if max(map(len, cells)) > LONGEST_CELL:
                    fault = f"a cell has more than {LONGEST_CELL} characters."
                if fault:
                    skip_or_raise(skips, where, fault)
                else:
                    yield where, cells


def _written(value: Any, folder: Path, number: int, cells: list[str], at: int) -> str | None:
    """Write one image and put its path into a row; return what is wrong, or None."""
    fields = value if isinstance(value, dict) else {"bytes": value}
    data, path = fields.get("bytes"), fields.get("path") or ""
    if not data:
        cells[at] = str(path)
        return None if path else "it has no image."
    kind = format_of(data[:4096])
    suffix = SUFFIXES_OF[kind][0] if kind in SUFFIXES_OF else os.path.splitext(path)[1]
    stem = os.path.splitext(os.path.basename(str(path).replace("\\", "/")))[0]
    if text_fault(stem) or len(stem.encode("utf-8", "replace")) > 200 or stem.startswith("."):
        stem = ""
    stem = stem or f"{number:06}"
    for name in (f"{stem}{suffix}", f"{stem}-{number:06}{suffix}"):
        try:
            with open(folder / name, "xb") as file:
                file.write(data)
        except FileExistsError:
            continue
        except OSError as err:
            raise DataError(f"Cannot write {name!r}: {err.strerror}.") from err
        cells[at] = str(folder / name)
        return None
    return "two images have its name."
