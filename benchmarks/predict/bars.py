"""Figures that are judged, and how they are printed."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from turns import Estimate

Row = dict[str, Any]


def bar(
    what: str, found: Estimate, *, at_most: float | None = None, at_least: float | None = None
) -> Row:
    """Judge a figure by its median; without a limit there is no verdict."""
    holds = None
    if at_most is not None:
        holds = found.value <= at_most
    if at_least is not None:
        holds = found.value >= at_least
    return {"what": what, **asdict(found), "at_most": at_most, "at_least": at_least, "holds": holds}


def line(judged: Row) -> str:
    """Describe a figure and whether it is within its limit."""
    limit = f" <= {judged['at_most']}" if judged["at_most"] is not None else ""
    limit = f" >= {judged['at_least']}" if judged["at_least"] is not None else limit
    verdict = {True: "holds", False: "MISSED", None: "no limit"}[judged["holds"]]
    interval = f"({judged['low']:.3f} to {judged['high']:.3f})"
    return f"{judged['what']}: {judged['value']:.3f} {interval}{limit}: {verdict}"


def show(name: str, row: Row) -> None:
    """Print a row: its ways, what else there is, then its bars."""
    print(f"\n{name}")
    for way, figures in row.get("ways", {}).items():
        numbers = {k: v for k, v in figures.items() if isinstance(v, (int, float))}
        print(f"  {way}: " + ", ".join(f"{key} {value:.4g}" for key, value in numbers.items()))
    for key, value in row.items():
        if key not in ("ways", "bars"):
            print(f"  {key}: {json.dumps(value)}")
    for each in row.get("bars", ()):
        print(f"  {line(each)}", flush=True)


def conclude(failed: Sequence[str]) -> None:
    """Print what a script that is read from the end needs to know."""
    print("\nRESULT " + (f"{len(failed)} missed" if failed else "all bars hold"))
    for each in failed:
        print(f"RESULT {each}")
