"""Folders whose tables have fixed names: Roboflow's, and Hugging Face's imagefolder and Parquet."""

from __future__ import annotations

import os
import re
from pathlib import Path

from edgeml.data.dataset import Side
from edgeml.data.readers.columns import columns_of
from edgeml.data.readers.csv_text import csv_cells, jsonl_cells
from edgeml.data.readers.rows import SIDE_OF_FOLDER
from edgeml.data.readers.table import MEANINGS
from edgeml.errors import DataError

_NAMES = ("_classes.csv", "metadata.csv", "metadata.jsonl")
_SHARD = re.compile(rf"({'|'.join(SIDE_OF_FOLDER)})(-\d+-of-\d+)?(-\w+)?", re.IGNORECASE)


def find_tables(root: Path) -> dict[Path, Side | None]:
    """Return the tables that describe a folder, with the sides of the split; empty if none does.

    These are `_classes.csv` of Roboflow, and `metadata.csv` or `metadata.jsonl` of an imagefolder
    if it has labels, in the folder itself or in folders such as `train` and `test`; tables such as
    `train.csv` and `val.csv`; and `data/train-00000-of-00001.parquet`. A single side is no split.
    """
    for name in _NAMES:
        sides = {root / folder / name: side for folder, side in SIDE_OF_FOLDER.items()}
        files: dict[Path, Side | None] = {f: s for f, s in sides.items() if os.path.isfile(f)}
        if os.path.isfile(root / name):
            files = {root / name: None}
        if files and all(map(_has_labels, files)):
            return files if len(set(files.values())) > 1 else dict.fromkeys(files)
    for end in (".csv", ".tsv", ".jsonl"):
        tables = {root / f"{name}{end}": side for name, side in SIDE_OF_FOLDER.items()}
        listed = {file: side for file, side in tables.items() if os.path.isfile(file)}
        if len(set(listed.values())) > 1 and all(_has_labels(file) for file in listed):
            return {**listed}
    for place in (root, root / "data", root / "default"):
        shards = {file: _SHARD.fullmatch(file.stem) for file in sorted(place.glob("*.parquet"))}
        if shards and all(shards.values()):
            found = {f: SIDE_OF_FOLDER[m[1].lower()] for f, m in shards.items() if m}
            return {**found} if len(set(found.values())) > 1 else dict.fromkeys(found)
    return {}


def _has_labels(table: Path) -> bool:
    """Whether a table names labels; the metadata of an imagefolder may be captions."""
    cells = (jsonl_cells if table.suffix == ".jsonl" else csv_cells)(table, table.name, [])
    try:
        header = next(cells, ("", []))[1]
        columns = columns_of(table, header, labels=(), ignored=())
        first = next(cells, ("", []))[1]
    except DataError:
        return table.name == "_classes.csv"
    named = columns.named.values()
    return columns.labels is not None or all(
        first[at].strip().lower() in MEANINGS for at in named if first
    )
