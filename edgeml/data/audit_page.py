"""The page of `edgeml data audit`: the findings with their images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from markupsafe import Markup

from edgeml.data.audit import ODDITIES, RARE, Audit
from edgeml.data.dataset import cooccurrence
from edgeml.report.page import Tile, figure, image_url, percent, write_page
from edgeml.report.svg_figures import cooccurrence_heatmap, frequent_pairs

# These limits keep a page readable, and below a few megabytes.
_MAX_GROUPS = 12
_MAX_CONFLICTS = 24
_MAX_IN_GROUP = 8
_MAX_LINES = 40
_MAX_LABELS = 40
_SIDE = 128


@dataclass(frozen=True, kw_only=True)
class _Image:
    """An image for the page; `url` is empty if it can no longer be read."""

    url: str
    file: str
    labels: tuple[str, ...]
    side: str


@dataclass(frozen=True, kw_only=True)
class _Group:
    """Images that belong together; `others` more are not shown."""

    title: str
    images: tuple[_Image, ...]
    others: int


def audit_report(audit: Audit, out: Path) -> None:
    """Write the page to `out`."""
    exact = audit.groups(audit.duplicates.exact)
    near = _more_than_exact(audit)
    write_page(
        out,
        "audit.html",
        {
            "kind": "data audit",
            "title": "/".join(Path(audit.source).absolute().parts[-2:]),
            "tiles": _tiles(audit),
            "audit": audit,
            "bad": [*audit.skipped, *audit.unreadable][:_MAX_LINES],
            "bad_count": len(audit.skipped) + len(audit.unreadable),
            "conflicts": [
                [_image(audit, row) for row in pair]
                for pair in audit.duplicates.conflicts[:_MAX_CONFLICTS]
            ],
            "exact": _groups(audit, exact),
            "exact_count": len(exact),
            "near": _groups(audit, near),
            "near_count": len(near),
            "across": _groups(audit, audit.across_sides()),
            "across_count": len(audit.across_sides()),
            "odd": _odd(audit),
            "unnamed": [
                _image_of(path, path.name, (), "") for path in audit.unnamed[:_MAX_IN_GROUP]
            ],
            "labels": audit.label_counts(),
            "rare": RARE,
            "has_unknown": not audit.dataset.known.all(),
            "together": _together(audit),
            "sizes": audit.sizes(),
            "facts": [("Data", audit.source), *audit.summary()],
        },
    )


def _tiles(audit: Audit) -> list[Tile]:
    exact, near = (
        len(groups) - len(np.unique(groups))
        for groups in (audit.duplicates.exact, audit.duplicates.near)
    )
    bad = len(audit.skipped) + len(audit.unreadable)
    per_image = audit.dataset.present.sum() / max(len(audit.dataset), 1)
    unknown = (~audit.dataset.known).mean() if audit.dataset.targets.size else 0.0
    counts = [
        ("Images", len(audit.dataset), "usable"),
        ("Labels", len(audit.dataset.labels), f"{per_image:.1f} per image"),
        ("Left out", bad, "rows and images"),
        ("Duplicates", near, f"{exact} byte for byte"),
        ("Conflicts", len(audit.duplicates.conflicts), "pairs with different labels"),
    ]
    tiles = [Tile(name=name, value=figure(count, 0), of=of) for name, count, of in counts]
    if unknown:
        tiles.append(Tile(name="Unknown", value=percent(unknown), unit="%", of="of the targets"))
    return tiles


def _more_than_exact(audit: Audit) -> list[list[int]]:
    """Return the groups of near duplicates whose images do not all have the same bytes."""
    exact = audit.duplicates.exact
    near = audit.groups(audit.duplicates.near)
    return [rows for rows in near if len({int(exact[row]) for row in rows}) > 1]


def _groups(audit: Audit, groups: Sequence[Sequence[int]]) -> list[_Group]:
    return [_group(audit, f"{len(rows)} images", rows) for rows in groups[:_MAX_GROUPS]]


def _group(audit: Audit, title: str, rows: Sequence[int]) -> _Group:
    images = tuple(_image(audit, row) for row in rows[:_MAX_IN_GROUP])
    return _Group(title=title, images=images, others=len(rows) - len(images))


def _odd(audit: Audit) -> list[_Group]:
    """Return the images of each unusual kind, and those whose suffix is of another format."""
    kinds = [(oddity, audit.odd(oddity)) for oddity in ODDITIES]
    kinds.append(("wrong extension", audit.wrong_suffixes()))
    return [_group(audit, f"{name}: {figure(len(rows), 0)}", rows) for name, rows in kinds if rows]


def _image(audit: Audit, row: int) -> _Image:
    dataset = audit.dataset
    side = dataset.split[row] if dataset.split is not None else ""
    return _image_of(dataset.paths[row], audit.name(row), dataset.labels_of(row), side)


def _image_of(path: Path, name: str, labels: tuple[str, ...], side: str) -> _Image:
    return _Image(url=image_url(path, _SIDE), file=name, labels=labels, side=side)


def _together(audit: Audit) -> Markup | None:
    """Draw which labels occur together, for the most common labels."""
    counts = cooccurrence(audit.dataset.targets)
    if not counts.any():
        return None
    common = np.argsort(-counts.diagonal(), kind="stable")[:_MAX_LABELS]
    columns = np.sort(common)
    names = [audit.dataset.labels[column] for column in columns]
    counts = counts[np.ix_(columns, columns)]
    return cooccurrence_heatmap(counts, names, frequent_pairs(counts, names, 3))
