"""The page of `edgeml data audit`: what was found, with the pictures."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from edgeml.data.audit import ODDITIES, RARE, Audit
from edgeml.data.dataset import cooccurrence
from edgeml.errors import ImageError
from edgeml.image.jpeg import jpeg_url
from edgeml.image.reading import read_image
from edgeml.report.drawn import heatmap
from edgeml.report.page import Tile, figure, percent, write_page

# A page stays readable, and below a few megabytes.
_MOST_GROUPS = 12
_MOST_CONFLICTS = 24
_MOST_IN_A_GROUP = 8
_MOST_OF_A_KIND = 8
_MOST_LINES = 40
_MOST_LABELS = 40
_SIDE = 128


@dataclass(frozen=True, kw_only=True)
class _Picture:
    """A picture, ready to be shown; `url` is empty if it cannot be read any more."""

    url: str
    file: str
    labels: tuple[str, ...]
    side: str


@dataclass(frozen=True, kw_only=True)
class _Group:
    """Pictures that belong together; `others` more are not shown."""

    title: str
    pictures: tuple[_Picture, ...]
    others: int


def audit_report(audit: Audit, out: Path) -> None:
    """Write the page to `out`.

    Raises:
        InputError: `out` cannot be written.
    """
    exact = audit.groups(audit.duplicates.exact)
    near = _more_than_exact(audit)
    left_out = len(audit.skipped) + len(audit.unreadable)
    write_page(
        out,
        "audit.html",
        {
            "kind": "data audit",
            "title": "/".join(Path(audit.source).absolute().parts[-2:]),
            "tiles": _tiles(audit),
            "audit": audit,
            "bad": [*audit.skipped, *audit.unreadable][:_MOST_LINES],
            "bad_count": left_out,
            "conflicts": [
                [_picture(audit, row) for row in pair]
                for pair in audit.duplicates.conflicts[:_MOST_CONFLICTS]
            ],
            "exact": _groups(audit, exact),
            "exact_count": len(exact),
            "near": _groups(audit, near),
            "near_count": len(near),
            "across": _groups(audit, audit.across_sides()),
            "across_count": len(audit.across_sides()),
            "odd": _odd(audit),
            "unnamed": [
                _shown(path, path.name, (), "") for path in audit.unnamed[:_MOST_OF_A_KIND]
            ],
            "labels": audit.label_counts(),
            "rare": RARE,
            "has_unknown": not audit.dataset.known.all(),
            "together": _together(audit),
            "sizes": audit.sizes(),
            "facts": [("Looked at", audit.source), *audit.summary()],
        },
    )


def _tiles(audit: Audit) -> list[Tile]:
    exact, near = (
        len(groups) - len(np.unique(groups))
        for groups in (audit.duplicates.exact, audit.duplicates.near)
    )
    bad = len(audit.skipped) + len(audit.unreadable)
    per_picture = audit.dataset.present.sum() / max(len(audit.dataset), 1)
    unknown = (~audit.dataset.known).mean() if audit.dataset.targets.size else 0.0
    tiles = [
        Tile(name="Pictures", value=figure(len(audit.dataset), 0), of="that can be used"),
        Tile(
            name="Labels",
            value=figure(len(audit.dataset.labels), 0),
            of=f"{per_picture:.1f} on a picture",
        ),
        Tile(name="Left out", value=figure(bad, 0), of="rows and pictures"),
        Tile(name="Duplicates", value=figure(near, 0), of=f"of which {exact} byte for byte"),
        Tile(
            name="Conflicts",
            value=figure(len(audit.duplicates.conflicts), 0),
            of="pairs labelled two ways",
        ),
    ]
    if unknown:
        tiles.append(Tile(name="Unknown", value=percent(unknown), unit="%", of="of the targets"))
    return tiles


def _more_than_exact(audit: Audit) -> list[list[int]]:
    """List groups of near duplicates, but not those whose pictures are all the same bytes."""
    exact = audit.duplicates.exact
    near = audit.groups(audit.duplicates.near)
    return [rows for rows in near if len({int(exact[row]) for row in rows}) > 1]


def _groups(audit: Audit, groups: Sequence[Sequence[int]]) -> list[_Group]:
    return [
        _Group(
            title=f"{len(rows)} pictures",
            pictures=tuple(_picture(audit, row) for row in rows[:_MOST_IN_A_GROUP]),
            others=max(0, len(rows) - _MOST_IN_A_GROUP),
        )
        for rows in groups[:_MOST_GROUPS]
    ]


def _odd(audit: Audit) -> list[_Group]:
    """Show pictures of each odd kind, and those whose names lie about their format."""
    kinds = [(oddity, audit.odd(oddity)) for oddity in ODDITIES]
    kinds.append(("wrong extension", audit.wrong_suffixes()))
    return [
        _Group(
            title=f"{name}: {figure(len(rows), 0)}",
            pictures=tuple(_picture(audit, row) for row in rows[:_MOST_OF_A_KIND]),
            others=max(0, len(rows) - _MOST_OF_A_KIND),
        )
        for name, rows in kinds
        if rows
    ]


def _picture(audit: Audit, row: int) -> _Picture:
    dataset = audit.dataset
    side = dataset.split[row] if dataset.split is not None else ""
    return _shown(dataset.paths[row], audit.name(row), dataset.labels_of(row), side)


def _shown(path: Path, name: str, labels: tuple[str, ...], side: str) -> _Picture:
    try:
        url = jpeg_url(read_image(path, at_least=(_SIDE, _SIDE)), _SIDE)
    except ImageError:
        url = ""
    return _Picture(url=url, file=name, labels=labels, side=side)


def _together(audit: Audit) -> Markup | None:
    """Draw which labels occur together: of many labels, the most common ones."""
    counts = cooccurrence(audit.dataset.targets)
    if not counts.any():
        return None
    common = np.argsort(-counts.diagonal(), kind="stable")[:_MOST_LABELS]
    kept = np.sort(common)
    names = [audit.dataset.labels[column] for column in kept]
    counts = counts[np.ix_(kept, kept)]
    shares = counts / np.maximum(counts.diagonal()[:, None], 1)
    return heatmap(
        counts,
        shares,
        names,
        told="{row} with {column}: {count} pictures, {share} of those with {row}",
        between="with ↓ … also →",
        description=f"Which labels occur together. {_told(counts, names)}",
        diagonal="alone",
    )


def _told(counts: NDArray[np.int64], names: Sequence[str]) -> str:
    above = np.triu(counts, 1)
    order = np.argsort(-above, axis=None, kind="stable")[:3]
    pairs: Iterable[tuple[int, int]] = zip(*np.unravel_index(order, above.shape), strict=True)
    told = [f"{names[a]} and {names[b]} {above[a, b]}" for a, b in pairs if above[a, b]]
    return f"Most often: {', '.join(told) or 'none do'}."
