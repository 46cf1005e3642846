"""Which images a model was trained, chosen and tested on: the split.csv of its run, read again."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import cast

from edgeml.data.dataset import SIDES, Dataset, Side
from edgeml.data.split import sides_digest
from edgeml.data.split_file import CONTENT, ROOT, SPLIT_FILE
from edgeml.spec.model_spec import ModelSpec


@dataclass(frozen=True, kw_only=True)
class RunSplit:
    """The side of each image of a run.

    Attributes:
        by_content: By the SHA-256 of the image's bytes; empty for a run of edgeml 0.1.0.
        by_path: By its absolute path at that time.
        digest: As `split_digest` returns it; empty for a run of edgeml 0.1.0.
    """

    by_content: Mapping[str, Side]
    by_path: Mapping[str, Side]
    digest: str

    def sides(self, dataset: Dataset) -> list[Side | None]:
        """Return the side of each row in the run, None where the run does not know the image.

        Images are compared by their bytes: a copy that was encoded again is another image. The
        images of a run without digests are compared by their paths.

        Raises:
            DataError: A file cannot be read; names it.
        """
        if self.by_content:
            return [self.by_content.get(content) for content in dataset.hashes()]
        return [self.by_path.get(os.path.normpath(path)) for path in dataset.paths]

    def divided(self, dataset: Dataset) -> Dataset | None:
        """Return the images that the run knows by their bytes, split as there; None without any."""
        sides = self.sides(dataset) if self.by_content else []
        rows = [row for row, side in enumerate(sides) if side]
        if not rows:
            return None
        split = tuple(cast("Side", sides[row]) for row in rows)
        return replace(dataset.select(rows), split=split)


def find_run_split(model: Path, spec: ModelSpec, data: Path | None = None) -> RunSplit | None:
    """Return the split of the run that a model comes from; None if it is not at hand.

    It is looked for in the run folder, next to the model, and in the data if they are a split.csv.
    Next to a file, it counts only if its digest is the one in the model's spec.
    """
    is_run = model.is_dir() or model.suffix.lower() == ".safetensors"
    own = (model if model.is_dir() else model.parent) / SPLIT_FILE
    stated = spec.provenance.split_sha256
    for table in (own, data):
        found = _read(table) if table and table.suffix.lower() == ".csv" else None
        if found is None:
            continue
        own_run = is_run and table == own
        if found.digest == stated if found.digest and stated else own_run:
            return found
    return None


def _read(table: Path) -> RunSplit | None:
    """Read a split.csv; return None if there is none, or it has another form."""
    by_path: dict[str, Side] = {}
    contents: list[tuple[str, Side]] = []
    try:
        with open(table, encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file, strict=True):
                path, side = row.get("path"), row.get("split")
                if not path or side not in SIDES:
                    return None
                place = os.path.join(os.path.abspath(table.parent), row.get(ROOT) or "", path)
                by_path[os.path.normpath(place)] = cast("Side", side)
                if content := row.get(CONTENT):
                    contents.append((content, cast("Side", side)))
    except (OSError, UnicodeDecodeError, csv.Error):
        return None
    if not by_path:
        return None
    complete = len(contents) == len(by_path)
    return RunSplit(
        by_content=dict(contents) if complete else {},
        by_path=by_path,
        digest=sides_digest(contents) if complete else "",
    )
