"""Print what was measured as the tables of README.md.

python benchmarks/predict/tables.py [RESULTS_FOLDER]
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent


def bars(rows: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of a table of all figures, with their limits where there are any."""
    yield "| row | what | median | 95 % | asked for | |"
    yield "| --- " * 6 + "|"
    for title, row in rows.items():
        for bar in row["bars"]:
            limit = "" if bar["at_most"] is None else f"at most {bar['at_most']:g}"
            limit = limit if bar["at_least"] is None else f"at least {bar['at_least']:g}"
            verdict = {True: "holds", False: "**missed**", None: ""}[bar["holds"]]
            digits = 0 if "us, " in bar["what"] else 4 if "score" in bar["what"] else 2
            value, low, high = (f"{bar[key]:.{digits}f}" for key in ("value", "low", "high"))
            interval = "" if low == high == value else f"{low} to {high}"
            yield f"| {title} | {bar['what']} | {value} | {interval} | {limit} | {verdict} |"


def ways(rows: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of a table of times, in milliseconds."""
    yield "| row | way | ms | CPU ms | p95 ms | p99 ms |"
    yield "| --- " * 6 + "|"
    for title, row in rows.items():
        for way, figures in row.get("ways", {}).items():
            if "p95_ms" in figures:
                keys = ("ms", "cpu_ms", "p95_ms", "p99_ms")
                cells = [_number(figures[key]) for key in keys]
                yield f"| {title} | {way} | {' | '.join(cells)} |"


def peers(rows: dict[str, Any]) -> Iterator[str]:
    """Yield the lines of a table of tools: time, and distance from the reference."""
    head = ["pictures, threads", "tool", "ms", "CPU ms", "times edgeml (95 %)", "same best class"]
    head += ["max lost", "max change of p"]
    yield f"| {' | '.join(head)} |"
    yield "| --- " * len(head) + "|"
    for title, row in rows.items():
        beside = {bar["what"].split(" over ")[0]: bar for bar in row["bars"] if bar["at_least"]}
        for tool, figures in row["ways"].items():
            cells = [title, tool, _number(figures["ms"]), _number(figures["cpu_ms"])]
            cells.append(_times(beside[tool]) if tool in beside else "")
            cells.append(f"{figures['same best class']} of {figures['pictures']}")
            cells += [f"{figures['max lost']:.3f}", f"{figures['max |dp|']:.3f}"]
            yield f"| {' | '.join(cells)} |"


def _times(bar: dict[str, Any]) -> str:
    against = bar["what"].split(" over ")[1]
    return f"{bar['value']:.2f} ({bar['low']:.2f} to {bar['high']:.2f}) of {against}"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.2f}"


def main(arguments: Sequence[str]) -> None:
    folder = Path(arguments[0]) if arguments else HERE / "results"
    for name, tables in (("floor", (bars, ways)), ("peers", (peers,))):
        if (folder / f"{name}.json").exists():
            rows = json.loads((folder / f"{name}.json").read_text())["rows"]
            for table in tables:
                print(f"\n{name}: {table.__name__}\n")
                print("\n".join(table(rows)))


if __name__ == "__main__":
    main(sys.argv[1:])
