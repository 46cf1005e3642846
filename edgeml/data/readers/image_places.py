"""The file that a path in a table means: with a suffix, next to the table or below."""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from urllib.parse import unquote, urlsplit

from edgeml.data.readers.folders import files_below
from edgeml.data.readers.rows import text_fault
from edgeml.data.readers.structure import is_structural
from edgeml.image.reading import SUFFIXES

_ENDINGS = (*sorted(SUFFIXES), ".JPG", ".JPEG", ".PNG")
_URL = re.compile(r"[a-z][a-z0-9+.-]+://", re.IGNORECASE)
_ABSOLUTE = re.compile(r"[a-z]:/|/", re.IGNORECASE)


class ImagePlaces:
    """Finds images by the paths that people and tools write into tables.

    Args:
        folder: That of the table.
        more: Other folders where images may be, relative to it.
    """

    def __init__(self, folder: Path, more: Sequence[str] = ()) -> None:
        self._folder = os.fspath(folder)
        self._more = [os.path.normpath(os.path.join(folder, name)) for name in more]
        self._below: list[str] | None = None
        self._names: dict[str, list[str]] | None = None
        self._found: dict[str, int] = {}
        self._shortened: dict[str, str] = {}
        self._listed: dict[str, dict[str, list[str]]] = {}

    def find(self, text: str) -> str:
        """Return the absolute path of an image: of the file that exists, else as it is written.

        Tried in order: the path as it is; without blanks around it and with slashes; with the
        suffix of an image. If none exists, the same in folders such as `images` or `train` next to
        the table, where exactly one may have it. Of a path that leads elsewhere (an absolute one,
        or one from a folder above the table), the end is tried: `/home/ann/data/images/1.jpg` as
        `images/1.jpg`. Two paths do not become one file in this way. At last, the name may have its
        accents composed otherwise, as macOS has them, or be in another case, as Windows allows.
        """
        plain = os.path.join(self._folder, text)
        normal = os.path.normpath(plain)
        if os.path.isfile(normal):
            return normal
        if os.path.isfile(plain):  # through a link to a folder, and up from it
            return plain
        relative = text.strip().replace("\\", "/")
        if _URL.match(relative):
            return self.find_remote(relative)
        if found := _existing(os.path.join(self._folder, relative)):
            return found[0] if len(found) == 1 else plain
        if ".." in relative.split("/") or "\0" in relative:
            return plain
        if not _ABSOLUTE.match(relative) and (places := self._places(relative)):
            return self._counted(places[0]) if len(places) == 1 else plain
        for end in self._ends(relative):
            if places := self._exact(end):
                return self._claimed(places[0], relative) if len(places) == 1 else plain
        if not _ABSOLUTE.match(relative):
            folders = [self._folder, *self._folders()]
            places = [p for folder in folders for p in self._alike(os.path.join(folder, relative))]
            return places[0] if len(places) == 1 else plain
        return plain

    def find_remote(self, text: str) -> str:
        """Return the path of an image that an annotation tool names by a URL or a path of its own.

        Label Studio writes `/data/upload/1/0a1b2c3d-cat.jpg`, `/data/local-files/?d=pets/cat.jpg`
        or the URL from which the image came. If the path or its end is not found, the only image of
        its name in any folder below counts; if there is none, it is returned as one next to the
        table.
        """
        name = text.strip().replace("\\", "/")
        if "?d=" in name and "local-files" in name:
            name = "/" + unquote(name.split("?d=")[1].split("&")[0])
        elif _URL.match(name):
            name = "/" + unquote(urlsplit(name).path).lstrip("/")
        elif upload := re.fullmatch(r"/?data/upload/(?:\d+/)?(.+)", name):
            name = self._uploaded(unquote(upload[1]))
        found = self.find(name)
        if os.path.isfile(found) or text_fault(name):
            return found
        last = os.path.basename(name)
        places = self._by_name().get(last, [])
        if len(places) == 1:
            return self._claimed(places[0], name)
        return os.path.join(self._folder, last) if _ABSOLUTE.match(name) else found

    def notes(self) -> list[str]:
        """Return how many images were found in other places than the table names."""
        notes = [f"{count} images are in {folder}/" for folder, count in self._found.items()]
        if self._shortened:
            path, text = next(iter(self._shortened.items()))
            place = os.path.relpath(path, self._folder)
            notes.append(
                f"{len(self._shortened)} images are found by the end of their path: {text} is "
                f"{place}"
            )
        return notes

    def _uploaded(self, name: str) -> str:
        """Return the name of an upload, without the digits that Label Studio puts before it."""
        tries = (name, re.sub(r"^[0-9a-f]{8}-", "", name))
        names = self._by_name()
        return next((text for text in tries if self._exact(text) or text in names), name)

    def _by_name(self) -> dict[str, list[str]]:
        if self._names is None:
            self._names = {}
            for path in map(str, files_below(Path(self._folder), [])):
                self._names.setdefault(os.path.basename(path), []).append(path)
        return self._names

    def _ends(self, relative: str) -> Iterator[str]:
        parts = [part for part in relative.split("/") if part not in ("", ".")]
        if _ABSOLUTE.match(relative):
            yield from ("/".join(parts[start:]) for start in range(1, len(parts)))
            return
        above = self._folder.split(os.sep)
        for start in range(1, len(parts)):
            if parts[:start] == above[-start:]:
                yield "/".join(parts[start:])

    def _exact(self, relative: str) -> list[str]:
        return _existing(os.path.join(self._folder, relative)) or self._places(relative)

    def _alike(self, path: str) -> list[str]:
        """Return the files whose names differ only by case or in how accents are composed."""
        folder, name = os.path.split(path)
        if folder not in self._listed:
            names = self._listed[folder] = {}
            with suppress(OSError):
                for entry in os.listdir(folder):
                    names.setdefault(_folded(entry), []).append(entry)
        found = [os.path.join(folder, n) for n in self._listed[folder].get(_folded(name), [])]
        return [path for path in found if os.path.isfile(path)]

    def _places(self, relative: str) -> list[str]:
        tries = [os.path.join(folder, relative) for folder in self._folders()]
        return [place for path in tries for place in _existing(path)]

    def _counted(self, place: str) -> str:
        folder = os.path.relpath(place, self._folder).split(os.sep)[0]
        if folder != "..":  # where exports have their images: nothing to tell
            self._found[folder] = self._found.get(folder, 0) + 1
        return place

    def _claimed(self, place: str, text: str) -> str:
        if self._shortened.setdefault(place, text) == text:
            return place
        return os.path.join(self._folder, text)

    def _folders(self) -> list[str]:
        if self._below is None:
            try:
                entries = sorted(entry.path for entry in os.scandir(self._folder) if entry.is_dir())
            except OSError:
                entries = []
            named = [path for path in entries if is_structural(os.path.basename(path))]
            self._below = list(dict.fromkeys([*named, *self._more]))
        return self._below


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


def _existing(path: str) -> list[str]:
    """Return the file of a path, or the files that have this name and the suffix of an image."""
    if os.path.isfile(path):
        return [path]
    if os.path.splitext(path)[1].lower() in SUFFIXES:
        return []
    return [path + end for end in _ENDINGS if os.path.isfile(path + end)]
