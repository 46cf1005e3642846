"""Progress of long work: a bar with a rate and an ETA on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Advance = Callable[[int], None]


class Progress:
    """Shows nothing. The base of `TerminalProgress`, and the default of library calls."""

    @contextmanager
    def task(self, name: str, total: int, unit: str = "img") -> Iterator[Advance]:
        """Open a step of `total` units; the block calls the yielded function with units done."""
        yield lambda count: None

    def note(self, text: str) -> None:
        """Show one line that stays."""


SILENT = Progress()


class TerminalProgress(Progress):
    """Writes to stderr, so that stdout stays free for results."""

    # A line every 15 seconds keeps a log readable and still shows that the work continues.
    SECONDS_BETWEEN_LINES = 15.0

    @contextmanager
    def task(self, name: str, total: int, unit: str = "img") -> Iterator[Advance]:
        """Open a step of `total` units, shown as a bar or as lines."""
        show = self._bar if sys.stderr.isatty() else self._lines
        with show(name, total, unit) as advance:
            yield advance

    def note(self, text: str) -> None:
        """Show one line that stays, above a bar if there is one."""
        from rich.console import Console

        Console(stderr=True, highlight=False, soft_wrap=True).print(text, markup=False)

    @contextmanager
    def _bar(self, name: str, total: int, unit: str) -> Iterator[Advance]:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, ProgressColumn, Task, TimeRemainingColumn
        from rich.text import Text

        class Rate(ProgressColumn):
            def render(self, task: Task) -> Text:
                return Text(f"{task.speed:,.0f} {unit}/s" if task.speed else "", "cyan")

        bar = Progress(
            "{task.description}",
            BarColumn(),
            "{task.completed}/{task.total}",
            Rate(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
            # Otherwise results for a file or a pipe would be shown above the bar.
            redirect_stdout=sys.stdout.isatty(),
        )
        with bar:
            task = bar.add_task(name, total=total)
            yield lambda count: bar.advance(task, count)

    @contextmanager
    def _lines(self, name: str, total: int, unit: str) -> Iterator[Advance]:
        start = last = time.monotonic()
        done = 0

        def advance(count: int) -> None:
            nonlocal done, last
            done += count
            now = time.monotonic()
            if now - last >= self.SECONDS_BETWEEN_LINES and done:
                last = now
                rate = done / (now - start)
                left = (total - done) / rate
                self.note(f"{name}: {done}/{total}, {rate:,.0f} {unit}/s, {left:.0f} s left")

        yield advance
        self.note(f"{name}: {done}/{total} in {time.monotonic() - start:.1f} s")
