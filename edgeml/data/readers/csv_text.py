"""The cells of a .csv or .tsv, whatever its delimiter, and of JSON objects as the same table."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from edgeml.data.readers.columns import names_images
from edgeml.data.readers.json_files import parse_json, read_json
from edgeml.data.readers.rows import SkipLog, read_text, skip_or_raise
from edgeml.errors import DataError
from edgeml.image.reading import SUFFIXES

Cells = Iterator[tuple[str, list[str]]]
"""The location of a row, and its cells in the order of the columns; the header comes first."""

_MAX_BYTES = 1 << 28
_DELIMITERS = (",", ";", "\t", "|")


def csv_cells(table: Path, name: str, skips: SkipLog) -> Cells:
    """Yield the header of a .csv, then its rows without empty ones.

    The header determines the delimiter: `,`, `;`, a tab or `|`. A row that cannot be parsed ends
    with its first line: after a quote that never closes, the rest of the file would be one cell.
    Empty cells beyond the header are dropped, as spreadsheets write them.
    """
    text = read_text(table, limit=_MAX_BYTES, keep_bad=skips is not None, allow_utf16=True)
    lines = list(io.StringIO(text, newline=""))
    width = 0
    header: list[str] = []
    delimiter, start = _delimiter(lines)
    while start < len(lines):
        reader = csv.reader(
            (lines[at] for at in range(start, len(lines))),
            delimiter=delimiter,
            strict=True,
            skipinitialspace=True,
        )
        first = start
        fault = ""
        try:
            for cells in reader:
                while width and len(cells) > width and not cells[-1].strip():
                    cells.pop()
                empty = not any(cell.strip() for cell in cells)
                if not empty and width and len(cells) != width:
                    fault = (
                        f"it has {len(cells)} fields, the first line has {width}; a cell with "
                        f"{delimiter!r} in it must be in quotes."
                    )
                    break
                if not empty:
                    width, header = width or len(cells), header or cells
                    yield f"{name}, line {first + 1}", cells
                first = start + reader.line_num
        except csv.Error as err:
            fault = f"{err}."
            if "unexpected end" in str(err):
                fault = "a quote opens that never closes."
        if not fault:
            return
        if {"annotation_id", "lead_time"} <= set(header):
            fault += " Label Studio's CSV may lack quotes: export JSON-MIN instead."
        skip_or_raise(skips, f"{name}, line {first + 1}", fault)
        start = first + 1


def jsonl_cells(table: Path, name: str, skips: SkipLog) -> Cells:
    """Yield the keys of all objects of a .jsonl, then the values of each as a .csv has them."""
    text = read_text(table, limit=_MAX_BYTES, keep_bad=skips is not None)
    entries: list[tuple[str, dict[str, object]]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        where = f"{name}, line {number}"
        try:
            entry = parse_json(line, where)
        except DataError as err:
            skip_or_raise(skips, where, f"{str(err).rpartition(': ')[2]}")
            continue
        if isinstance(entry, dict):
            entries.append((where, entry))
        else:
            skip_or_raise(skips, where, "it is no object.")
    yield from _of_objects(entries, name)


def json_cells(table: Path, name: str, skips: SkipLog) -> Cells:
    """Yield the same of a .json: a list of objects, or an object of labels by image."""
    document = read_json(table, name)
    if isinstance(document, dict):
        document = [{"path": image, "labels": labels} for image, labels in document.items()]
    entries = []
    for number, entry in enumerate(document):
        if isinstance(entry, dict):
            entries.append((f"{name}, entry {number}", entry))
        else:
            skip_or_raise(skips, f"{name}, entry {number}", "it is no object.")
    yield from _of_objects(entries, name)


def is_json_table(document: Any) -> bool:
    """Whether the content of a .json is a list of objects that name images, or labels by image."""
    if isinstance(document, dict):
        suffixes = {os.path.splitext(key)[1].lower() for key in document}
        return bool(suffixes) and suffixes <= SUFFIXES
    entries = document if isinstance(document, list) else []
    return bool(entries) and all(
        isinstance(entry, dict) and any(map(names_images, entry)) for entry in entries
    )


def _of_objects(entries: list[tuple[str, dict[str, object]]], name: str) -> Cells:
    header = list(dict.fromkeys(key for _, entry in entries for key in entry))
    yield f"{name}, line 1", header
    for where, entry in entries:
        yield where, [_cell(entry.get(key)) for key in header]


def _cell(value: object) -> str:
    match value:
        case str():
            return value
        case None:
            return ""
        case bool():
            return "1" if value else "0"
        case list() if all(isinstance(item, (str, int)) for item in value):
            return json.dumps([str(item) for item in value], ensure_ascii=False)
        case _:
            return json.dumps(value, ensure_ascii=False)


def _delimiter(lines: list[str]) -> tuple[str, int]:
    """Return the delimiter, and the number of the first line after `sep=;`, which Excel reads."""
    first = next((line for line in lines if line.strip()), "")
    if first.lower().startswith("sep=") and len(first.rstrip("\r\n")) == len("sep=;"):
        return first[4], lines.index(first) + 1
    header = {delimiter: _parts(first, delimiter) for delimiter in _DELIMITERS}
    return max(_DELIMITERS, key=lambda d: (any(map(names_images, header[d])), len(header[d]))), 0


def _parts(line: str, delimiter: str) -> list[str]:
    try:
        return next(csv.reader([line], delimiter=delimiter, skipinitialspace=True), [])
    except csv.Error:
        return []
