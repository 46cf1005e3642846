"""What a step says while it works, kept."""

from __future__ import annotations

from edgeml.progress import Progress


class Notes(Progress):
    """Keeps the lines that are said."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def note(self, text: str) -> None:
        self.lines.append(text)
