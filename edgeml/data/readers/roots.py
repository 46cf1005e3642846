"""The folder that the paths in a table start from: its own, or the one where the images are now."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path, PureWindowsPath

from edgeml.data.readers.columns import Columns
from edgeml.data.readers.rows import Row, printable
from edgeml.errors import DataError

_Cells = Iterable[tuple[str, list[str]]]


def with_root(
    cells: _Cells, columns: Columns, *, table: Path, root: Path | None
) -> tuple[Iterator[tuple[str, list[str]]], Path]:
    """Return the rows with their paths as they are on this machine, and the folder they start from.

    A path is relative to `root`, or else to the folder in the column `data_root`, or else to the
    folder of the table. Given a root, the first parts of absolute paths are replaced by it: as many
    as leave the most images that exist.

    Raises:
        DataError: No absolute path exists below the root, or several numbers of parts are possible.
    """
    rows = list(cells)
    paths = [texts[columns.path].strip().replace("\\", "/") for _, texts in rows]
    at = columns.extras.get("data_root")
    if root is not None:
        drop = _parts_to_drop(table, list(filter(_is_absolute, paths)), root)
        for path, (_, texts) in zip(paths, rows, strict=True):
            if _is_absolute(path):
                texts[columns.path] = "/".join(path.split("/")[drop:])
        return iter(rows), root
    start = table.parent
    if at is not None:
        for _, texts in rows:
            texts[columns.path] = os.path.join(texts[at], texts[columns.path])
        start = Path(next((texts[at] for _, texts in rows if texts[at]), start))
    return iter(rows), start


def check_some_exist(rows: Sequence[Row]) -> None:
    """Check that an image exists, if the table has any: otherwise they are in another folder.

    Raises:
        DataError: None exists.
    """
    if not rows or any(os.path.isfile(row.path) for row in rows):
        return
    raise DataError(
        f"{rows[0].where}: there is no image {printable(rows[0].path)!r}, nor any other of "
        f"{len(rows)}. If they are in another folder now, name it with --root."
    )


def usual_places(table: Path) -> tuple[str, ...]:
    """Return where the images of a table in a folder `annotations` or `labels` may be."""
    inside = table.parent.name.lower() in ("annotations", "labels", "csv", "metadata")
    return ("..", "../images", "../data") if inside else ()


def _parts_to_drop(table: Path, paths: Sequence[str], root: Path) -> int:
    """Return how many of the first parts of absolute paths `root` replaces; 0 without paths."""
    if not paths:
        return 0
    parts = [path.split("/") for path in paths]
    shared = min(map(len, parts)) - 1
    while len({tuple(path[:shared]) for path in parts}) > 1:
        shared -= 1
    found = {
        drop: sum(os.path.isfile(os.path.join(root, *path[drop:])) for path in parts)
        for drop in range(1, shared + 1)
    }
    most = max(found.values(), default=0)
    best = [drop for drop, count in found.items() if count == most]
    if not most:
        raise DataError(
            f"{printable(table)!r}: none of its {len(paths)} absolute paths ends with the path of "
            f"an image in {printable(root)!r}; the first is {printable(paths[0])!r}."
        )
    if len(best) > 1:
        first, second = ("/".join(parts[0][drop:]) for drop in best[:2])
        raise DataError(
            f"{printable(table)!r}: {printable(paths[0])!r} may be {printable(first)!r} or "
            f"{printable(second)!r} in {printable(root)!r}: name the folder above or below it."
        )
    return best[0]


def _is_absolute(path: str) -> bool:
    return path.startswith("/") or PureWindowsPath(path).is_absolute()
