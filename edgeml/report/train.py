"""The report of `edgeml train`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from edgeml.metrics import Metrics
from edgeml.report.contents import EpochRow
from edgeml.report.demo import Tile
from edgeml.report.page import percent, write_page
from edgeml.report.plots import loss_plot, map_plot


def train_report(
    history: Sequence[EpochRow],
    metrics: Metrics,
    out: Path,
    *,
    title: str,
    facts: Mapping[str, str] | None = None,
) -> None:
    """Write the page to `out`.

    Args:
        history: The epochs, first to last.
        metrics: Of the weights that were kept, on the validation split.
        out: The .html file.
        title: The headline.
        facts: What stands at the foot: the model, digests, versions.

    Raises:
        InputError: `out` cannot be written.
    """
    tiles = [
        Tile(name=name, value=percent(value), unit="%", of=of)
        for name, value, of in (
            ("mAP", metrics.mAP, "mean over labels"),
            ("Exact match", metrics.exact_match, "all labels of an image right"),
            ("CF1", metrics.CF1, "labels weigh the same"),
            ("OF1", metrics.OF1, "decisions weigh the same"),
        )
    ]
    write_page(
        out,
        "train.html",
        {
            "kind": "training",
            "title": title,
            "tiles": tiles,
            "metrics": metrics,
            "loss": loss_plot(history) if history else None,
            "map": map_plot(history) if history else None,
            "facts": list((facts or {}).items()),
        },
    )
