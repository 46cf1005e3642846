"""The cells of a Parquet file, as the text that a .csv of the same table would contain."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgeml.data.readers.rows import SkipLog, printable, skip_or_raise
from edgeml.errors import DataError, needs

if TYPE_CHECKING:
    import pyarrow as pa

# A file of a kilobyte may expand to any size: runs of equal cells take no space in it.
_MAX_ROWS = 10_000_000
_MAX_BYTES = 1 << 30
_ROWS_AT_ONCE = 8192

LONGEST_CELL = 131_072
"""As in a .csv (`csv.field_size_limit`). A longer cell is cut to one character more."""


def parquet_header(table: Path, *, images: bool = False) -> list[str]:
    """Return the names of the columns of a Parquet file, if its metadata are within the limits.

    A file with images in it may be of any size: they are read one by one.
    """
    with opened(table, dictionaries=not images) as file:
        rows = file.metadata.num_rows
        if rows > _MAX_ROWS:
            raise DataError(f"{printable(table)!r} has {rows} rows; the limit is {_MAX_ROWS}.")
        groups = map(file.metadata.row_group, range(file.metadata.num_row_groups))
        if not images and sum(group.total_byte_size for group in groups) > _MAX_BYTES:
            raise _too_large(table)
        return list(file.schema_arrow.names)


def parquet_cells(
    table: Path, name: str, names: list[str], wanted: list[int], skips: SkipLog
) -> Iterator[tuple[str, list[str]]]:
    """Read the columns that have a meaning; others may be large, for example encoded images."""
    for number, cells in enumerate(_parquet_rows(table, [names[at] for at in wanted]), start=1):
        where = f"{name}, row {number}"
        if max(map(len, cells)) > LONGEST_CELL:
            skip_or_raise(skips, where, f"a cell has more than {LONGEST_CELL} characters.")
            continue
        row = [""] * len(names)
        for at, cell in zip(wanted, cells, strict=True):
            row[at] = cell
        yield where, row


def _parquet_rows(table: Path, columns: Sequence[str]) -> Iterator[list[str]]:
    """Yield the cells of some columns, row by row; a list as JSON."""
    with opened(table) as file:
        check_types(table, file.schema_arrow, columns)
        size = 0
        for batch in file.iter_batches(_ROWS_AT_ONCE, columns=list(columns), use_threads=False):
            size += batch.nbytes
            if size > _MAX_BYTES:
                raise _too_large(table)
            texts = [cell_texts(batch.column(batch.schema.names.index(name))) for name in columns]
            yield from map(list, zip(*texts, strict=True))


def class_names(table: Path) -> dict[str, list[str]]:
    """Return the names of classes by column, which Hugging Face's datasets store as metadata."""
    with opened(table) as file:
        text = (file.schema_arrow.metadata or {}).get(b"huggingface", b"")
    with suppress(ValueError, RecursionError, KeyError, TypeError, AttributeError):
        features = json.loads(text)["info"]["features"]
        return {
            str(column): list(map(str, names))
            for column, feature in features.items()
            if (names := _names_of_feature(feature))
        }
    return {}


def _names_of_feature(feature: Any) -> list[Any]:
    while isinstance(feature, (dict, list)):
        if isinstance(feature, list):  # older files write a list of a feature as [feature]
            feature = feature[0] if len(feature) == 1 else None
        elif isinstance(feature.get("names"), list):
            return list(feature["names"])
        else:
            feature = feature.get("feature")
    return []


@contextmanager
def opened(table: Path, *, dictionaries: bool = True) -> Iterator[Any]:
    """Open a Parquet file; text is read as dictionaries unless it has columns of other bytes.

    Raises:
        DataError: It cannot be read as Parquet.
        MissingDependencyError: pyarrow is not installed.
    """
    with needs("pyarrow", extra="parquet", to="read Parquet files"):
        import pyarrow as pa
        import pyarrow.parquet as pq
    try:
        with pq.ParquetFile(table) as file:
            leaves = [file.schema.column(number) for number in range(len(file.schema))]
        texts = [leaf.path for leaf in leaves if leaf.physical_type == "BYTE_ARRAY"]
        texts = texts if dictionaries else []
        # As dictionaries, equal texts take no more memory than in the file.
        with pq.ParquetFile(table, read_dictionary=texts) as file:
            yield file
    except (pa.ArrowException, OSError, MemoryError) as err:
        message = " ".join(str(err).split())[:200]
        raise DataError(f"{printable(table)!r} cannot be read as Parquet: {message}") from err


def _too_large(table: Path) -> DataError:
    return DataError(
        f"{printable(table)!r} expands to more than {_MAX_BYTES >> 20} MiB, the limit."
    )


def check_types(table: Path, schema: pa.Schema, columns: Sequence[str]) -> None:
    """Refuse columns that are neither text, numbers nor lists of these."""
    import pyarrow as pa

    for name in columns:
        kind = schema.field(name).type
        inner = kind.value_type if pa.types.is_list(kind) or pa.types.is_large_list(kind) else kind
        inner = inner.value_type if pa.types.is_dictionary(inner) else inner
        if not any(
            fits(inner)
            for fits in (
                pa.types.is_string, pa.types.is_large_string, pa.types.is_integer,
                pa.types.is_floating, pa.types.is_boolean, pa.types.is_null,
            )
        ):  # fmt: skip
            raise DataError(
                f"{printable(table)!r}: the column {name!r} contains {str(kind)[:80]}; expected "
                "text, numbers, true and false, or lists of text."
            )


def cell_texts(column: pa.Array) -> list[str]:
    """Return the cells of a column as a .csv has them; a list as JSON."""
    import pyarrow as pa

    kind = column.type
    if pa.types.is_list(kind) or pa.types.is_large_list(kind):
        ends = column.offsets.to_pylist()
        items = cell_texts(column.values.slice(ends[0], ends[-1] - ends[0]))
        spans = ((start - ends[0], end - ends[0]) for start, end in pairwise(ends))
        return [_joined(items[start:end]) for start, end in spans]
    if pa.types.is_dictionary(kind):
        used = column.indices.unique().drop_null()
        words = dict(zip(used.to_pylist(), _plain_texts(column.dictionary.take(used)), strict=True))
        return ["" if index is None else words[index] for index in column.indices.to_pylist()]
    return _plain_texts(column)


def _joined(items: list[str]) -> str:
    if sum(map(len, items)) + len(items) > LONGEST_CELL:
        return " " * (LONGEST_CELL + 1)
    return json.dumps(items, ensure_ascii=False)


def _plain_texts(column: pa.Array) -> list[str]:
    try:
        return [_text(value) for value in column.to_pylist()]
    except UnicodeDecodeError:
        return [_text(_value(scalar)) for scalar in column]


def _value(scalar: Any) -> object:
    """Return a cell; bytes that are not UTF-8 as lone surrogates, which the reader refuses."""
    try:
        return scalar.as_py()
    except UnicodeDecodeError as err:
        return err.object.decode("utf-8", "surrogateescape")


def _text(value: object) -> str:
    match value:
        case str():
            return value[: LONGEST_CELL + 1]
        case None:
            return ""
        case bool():
            return "1" if value else "0"
        case float():
            return "" if math.isnan(value) else f"{value:.17g}"
        case _:
            return str(value)
