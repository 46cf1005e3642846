"""Files near a folder that may describe its images, for errors and notes."""

from __future__ import annotations

import os
from pathlib import Path

from edgeml.data.readers.columns import names_images
from edgeml.data.readers.rows import printable
from edgeml.data.readers.structure import is_structural

TABLES = (".csv", ".tsv", ".jsonl", ".parquet", ".json", ".xml", ".yaml", ".yml")
"""Suffixes of files that describe a data set."""

_TEXTS = (".csv", ".tsv", ".jsonl")


def hint(folder: Path) -> str:
    """Suggest a file in or above a folder that may describe the data; empty if there is none."""
    if not os.path.isdir(folder):
        return ""
    try:
        inside = sorted(entry.path for entry in os.scandir(folder) if entry.is_dir())
    except OSError:
        return ""
    if is_structural(folder.name) and os.path.isdir(folder.parent / "Annotations"):
        return f" Did you mean {printable(folder.parent)!r}?"
    places = [folder, *(Path(path) for path in inside if is_structural(os.path.basename(path)))]
    places += [folder.parent] if is_structural(folder.name) else []
    files = [file for place in places for file in tables_in(place)]
    if not files:
        return ""
    best = next(filter(lists_images, files), files[0])
    return f" Did you mean {printable(best)!r}?"


def tables_in(folder: Path) -> list[Path]:
    """Return the files in a folder that may describe a data set, tables first."""
    try:
        names = sorted(os.listdir(folder))
    except OSError:
        return []
    files = [folder / name for name in names if not name.startswith(".")]
    return [file for end in TABLES for file in files if file.suffix.lower() == end]


def lists_images(table: Path) -> bool:
    """Whether a table has a column of images and another one, judged by its first line."""
    if table.suffix.lower() not in _TEXTS:
        return False
    try:
        with open(table, "rb") as file:
            line = file.read(4096).split(b"\n")[0].decode("utf-8-sig", "replace")
    except OSError:
        return False
    for sign in "{}\":'\t;|":
        line = line.replace(sign, ",")
    columns = [name for name in line.split(",") if name.strip()]
    return len(columns) > 1 and any(map(names_images, columns))
