"""The file that a path in a table means: with a suffix, next to the table or below."""

from __future__ import annotations

import os
from pathlib import Path

from edgeml.data.readers.structure import is_structural
from edgeml.image.reading import SUFFIXES

_ENDINGS = (*sorted(SUFFIXES), ".JPG", ".JPEG", ".PNG")


class ImagePlaces:
    """Finds images by the paths that people and tools write into tables."""

    def __init__(self, folder: Path) -> None:
        self._folder = os.fspath(folder)
        self._below: list[str] | None = None
        self._found: dict[str, int] = {}

    def find(self, text: str) -> str:
        """Return the absolute path of an image: of the file that exists, else as it is written.

        Tried in order: the path as it is; without blanks around it and with slashes; with the
        suffix of an image. If none exists, the same in folders such as `images` or `train` next to
        the table, where exactly one may have it.
        """
        plain = os.path.join(self._folder, text)
        if os.path.isfile(plain):
            return plain
        relative = text.strip().replace("\\", "/")
        if found := _existing(os.path.join(self._folder, relative)):
            return found[0] if len(found) == 1 else plain
        if not os.path.isabs(relative) and ".." not in relative.split("/"):
            tries = [os.path.join(folder, relative) for folder in self._folders()]
            places = [place for path in tries for place in _existing(path)]
            if len(places) == 1:
                folder = os.path.relpath(places[0], self._folder).split(os.sep)[0]
                self._found[folder] = self._found.get(folder, 0) + 1
                return places[0]
        return plain

    def notes(self) -> list[str]:
        """Return how many images were found in folders that the table does not name."""
        return [f"{count} images are in {folder}/" for folder, count in self._found.items()]

    def _folders(self) -> list[str]:
        if self._below is None:
            try:
                entries = sorted(entry.path for entry in os.scandir(self._folder) if entry.is_dir())
            except OSError:
                entries = []
            self._below = [path for path in entries if is_structural(os.path.basename(path))]
        return self._below


def _existing(path: str) -> list[str]:
    """Return the file of a path, or the files that have this name and the suffix of an image."""
    if os.path.isfile(path):
        return [path]
    if os.path.splitext(path)[1].lower() in SUFFIXES:
        return []
    return [path + end for end in _ENDINGS if os.path.isfile(path + end)]
