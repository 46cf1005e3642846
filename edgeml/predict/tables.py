"""Results of `edgeml predict` as tables: a row for each image, a column for each label."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Sequence
from itertools import islice
from pathlib import Path

from edgeml.errors import needs
from edgeml.files import staged
from edgeml.predict.journal import Entry, as_input_error

_FIXED = ("source", "labels", "error")
_ROWS_AT_ONCE = 4096


def columns_of(labels: Sequence[str]) -> list[str]:
    """Return the names of the columns; a label named like a fixed one gets a suffix."""
    return [*_FIXED, *(f"{name} (score)" if name in _FIXED else name for name in labels)]


def write_csv(entries: Iterable[Entry], labels: Sequence[str], target: Path) -> None:
    """Write source, labels, error and a column for each score: all of it, or raise InputError."""
    with (
        as_input_error(target),
        staged(target) as temporary,
        # A name that is not UTF-8 is written as its bytes.
        open(temporary, "w", newline="", encoding="utf-8", errors="surrogateescape") as file,
    ):
        table = csv.writer(file)
        table.writerow(columns_of(labels))
        for entry in entries:
            scores = entry["scores"]
            cells = [f"{scores[name]:.6f}" if scores else "" for name in labels]
            shown = ";".join(entry["labels"])
            table.writerow([entry["source"], shown, entry["error"] or "", *cells])


def write_parquet(entries: Iterable[Entry], labels: Sequence[str], target: Path) -> None:
    """Write the same columns as Parquet: labels are a list, scores float32, null with an error.

    Raises:
        InputError: It cannot be written.
        MissingDependencyError: pyarrow is not installed.
    """
    check_parquet()
    import pyarrow as pa
    import pyarrow.parquet as pq

    kinds = [pa.string(), pa.list_(pa.string()), pa.string(), *(pa.float32() for _ in labels)]
    schema = pa.schema(list(zip(columns_of(labels), kinds, strict=True)))
    rows = iter(entries)
    with (
        as_input_error(target),
        staged(target) as temporary,
        pq.ParquetWriter(temporary, schema) as writer,
    ):
        while block := list(islice(rows, _ROWS_AT_ONCE)):
            columns = [
                [_utf8(entry["source"]) for entry in block],
                [entry["labels"] for entry in block],
                [entry["error"] and _utf8(entry["error"]) for entry in block],
                *([entry["scores"].get(name) for entry in block] for name in labels),
            ]
            arrays = [pa.array(cells, kind) for cells, kind in zip(columns, kinds, strict=True)]
            writer.write_batch(pa.record_batch(arrays, schema=schema))


def check_parquet() -> None:
    """Raise MissingDependencyError if pyarrow is not installed."""
    with needs("pyarrow", extra="parquet", to="write Parquet files"):
        import pyarrow.parquet  # noqa: F401


def _utf8(text: str) -> str:
    """Replace the bytes of a name that are not UTF-8."""
    return text.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
