"""A JSON-lines file that grows by a line for each image, with which a killed run continues."""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any

from edgeml.errors import InputError
from edgeml.files import staged

try:
    import fcntl
except ImportError:  # on Windows two runs can write one file
    fcntl = None  # type: ignore[assignment]

FORMAT = "edgeml.predict/1"
UNFINISHED = ".unfinished"
"""The suffix of the file next to a journal until its run is finished."""

Entry = dict[str, Any]


@dataclass(frozen=True)
class Stamp:
    """Distinguishes versions of a file: size, and seconds since 1970 UTC of the last write.

    Both are None if the file cannot be read.
    """

    bytes: int | None
    modified: float | None


def stamp_of(file: str) -> Stamp:
    """Return the size and time of a file."""
    try:
        status = os.stat(file)
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return Stamp(None, None)
    return Stamp(status.st_size, round(status.st_mtime, 6))


class Journal:
    """Entries of finished images, one a line; see `open_journal`.

    A line is handed to the system before the next image is classified. If the process is killed in
    between, the last line may be cut short: it is then removed, and its image classified again.
    """

    def __init__(self, path: Path, marker: Path) -> None:
        self.path = path
        self._marker = marker
        self._file: int | None = None

    def resume(self, files: Sequence[str]) -> tuple[Sequence[str], Iterator[Entry]]:
        """Remove entries of other files; return the files that remain, and the entries.

        A file is done if it has the size and the time of its entry. Entries of files that have
        changed, or are not among `files`, are removed.
        """
        length, done = 0, Counter[bytes]()
        for line, entry in self._lines():
            length += len(line)
            done[_key(entry)] += 1
        remaining = list(_without(done, files)) if done else files
        stale = +done  # entries that belong to no file
        with as_input_error(self.path):
            if stale:
                self._remove(stale)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            if not stale:
                os.ftruncate(self._file, length)
        return remaining, self.entries()

    def append(self, entry: Entry) -> None:
        """Add an entry; it is in the file when this returns. Raises InputError on a full disk."""
        assert self._file is not None, "resume comes first"
        line = to_line(entry)
        with as_input_error(
            self.path, " Finished images are stored: the same command continues from there."
        ):
            while line:  # a full disk accepts a part of it first
                line = line[os.write(self._file, line) :]

    def entries(self) -> Iterator[Entry]:
        """Read the entries in the file."""
        return (entry for _, entry in self._lines())

    def finish(self, *, keep: bool) -> None:
        """Mark the run as finished; without `keep`, remove its file."""
        assert self._file is not None, "resume comes first"
        with as_input_error(self.path):
            os.fsync(self._file)
            self._marker.unlink()
            if not keep:
                self.path.unlink()

    def close(self) -> None:
        """Close the file, finished or not."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _lines(self) -> Iterator[tuple[bytes, Entry]]:
        """Yield lines with their entries, up to the first invalid one."""
        try:
            file = open(self.path, "rb")  # noqa: SIM115 - closed below
        except FileNotFoundError:
            return
        with file:
            for line in file:
                try:
                    entry = json.loads(line)
                except ValueError:
                    return
                if not line.endswith(b"\n") or not isinstance(entry, dict):
                    return
                yield line, entry

    def _remove(self, stale: Counter[bytes]) -> None:
        with staged(self.path) as temporary, open(temporary, "wb") as file:
            for line, entry in self._lines():
                key = _key(entry)
                if stale[key]:
                    stale[key] -= 1
                else:
                    file.write(line)


@contextmanager
def open_journal(path: Path, settings: Mapping[str, str], *, marker: Path) -> Iterator[Journal]:
    """Open a journal: a new one, or that of a stopped or killed run.

    The file `marker` marks the run as unfinished and holds `settings`: what all entries depend on,
    such as the model. While it exists, the journal is continued; without it, an older file at
    `path` is replaced.

    Raises:
        InputError: It was started with something else, another process is writing it, or it cannot
            be written.
    """
    lock = _locked(marker)
    journal = Journal(path, marker)
    header = {"format": FORMAT, **settings}
    try:
        started_with = _read_marker(lock)
        if started_with is None:
            with as_input_error(path):
                # In this order: the marker must not describe an older file.
                path.unlink(missing_ok=True)
                os.ftruncate(lock, 0)
                os.lseek(lock, 0, os.SEEK_SET)
                os.write(lock, to_line(header))
                os.fsync(lock)
        else:
            _check_same(started_with, header, path, marker)
        yield journal
    finally:
        journal.close()
        os.close(lock)


def to_line(entry: Mapping[str, Any]) -> bytes:
    """Write an entry as one line of JSON."""
    try:
        return (json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n").encode()
    except UnicodeEncodeError:  # a file name that is not UTF-8 is escaped, and read back so
        return (json.dumps(entry) + "\n").encode()


@contextmanager
def as_input_error(path: Path, advice: str = "") -> Iterator[None]:
    """Turn an OSError, for example a full disk, into an InputError of one line."""
    try:
        yield
    except OSError as err:
        raise InputError(f"Cannot write {str(path)!r}: {err.strerror or err}.{advice}") from err


def _key(entry: Entry) -> bytes:
    """Return a digest of an entry's file; a million of them take little memory."""
    return _digest(entry.get("source"), entry.get("bytes"), entry.get("modified"))


def _digest(*parts: object) -> bytes:
    return blake2b(repr(parts).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _without(done: Counter[bytes], files: Sequence[str]) -> Iterator[str]:
    """Yield the files that are not done, and count down those that are."""
    for file in files:
        stamp = stamp_of(file)
        key = _digest(file, stamp.bytes, stamp.modified)
        if done[key] > 0:
            done[key] -= 1
        else:
            yield file


def _locked(marker: Path) -> int:
    """Open the marker for this process alone; it may be empty, or from an earlier run."""
    while True:
        with as_input_error(marker):
            marker.parent.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(marker, os.O_RDWR | os.O_CREAT, 0o666)
        if fcntl is None:
            return descriptor
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), os.stat(marker)):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            raise InputError(
                f"Another process is writing {str(marker).removesuffix(UNFINISHED)!r}. Wait for "
                "it, or write to another file."
            ) from None
        except FileNotFoundError:
            pass  # the other process has just finished, and removed it
        except OSError:
            return descriptor  # a share without locks
        os.close(descriptor)


def _read_marker(descriptor: int) -> Entry | None:
    """Read what a run was started with; None for a new or incomplete file."""
    try:
        header = json.loads(os.read(descriptor, 1 << 20))
    except ValueError:
        return None
    return header if isinstance(header, dict) else None


def _check_same(started_with: Entry, settings: Mapping[str, str], path: Path, marker: Path) -> None:
    for name, now in settings.items():
        before = started_with.get(name)
        if before != now:
            raise InputError(
                f"{str(path)!r} was started with another {name}: {_short(before)}, and now it is "
                f"{_short(now)}. Continue with that one, write to another file, or remove "
                f"{str(marker)!r} to start again."
            )


def _short(value: object) -> str:
    text = str(value)
    return f"{text[:12]}..." if len(text) == 64 else text
