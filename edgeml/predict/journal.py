"""A JSON-lines file that grows by a line for each picture, which a killed run goes on with."""

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
except ImportError:  # on Windows nobody hinders two runs that write one file
    fcntl = None  # type: ignore[assignment]

FORMAT = "edgeml.predict/1"

UNFINISHED = ".unfinished"
"""The suffix of the file that stands beside a journal until its run is finished."""

Entry = dict[str, Any]


@dataclass(frozen=True)
class Stamp:
    """What tells a file from another one of the same name; None if it cannot be asked for.

    Attributes:
        bytes: Its size.
        modified: When it was last written to, in seconds since 1970, UTC.
    """

    bytes: int | None
    modified: float | None


def stamp_of(file: str) -> Stamp:
    """Ask a file for its size and time."""
    try:
        found = os.stat(file)
    except (OSError, ValueError):  # ValueError: a NUL in the name
        return Stamp(None, None)
    return Stamp(found.st_size, round(found.st_mtime, 6))


class Journal:
    """Entries of pictures that are done, one a line; see `open_journal`.

    A line is handed to the system as a whole before the next picture's is made. If the process is
    killed in between, the last line may be cut short: it is then taken off, and done again.
    """

    def __init__(self, path: Path, marker: Path) -> None:
        self.path = path
        self._marker = marker
        self._file: int | None = None

    def resume(self, files: Sequence[str]) -> tuple[Sequence[str], Iterator[Entry]]:
        """Keep what is done of `files`; give those that are left, and the entries that were kept.

        A file counts as done if it has the size and the time that its entry tells. Entries of
        files that have changed, or are not asked for, are taken out.
        """
        whole, done = 0, Counter[bytes]()
        for line, entry in self._lines():
            whole += len(line)
            done[_key(entry)] += 1
        left = list(_without(done, files)) if done else files
        stale = +done  # what is still counted is of no file
        with says_why(self.path):
            if stale:
                self._take_out(stale)
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            if not stale:
                os.ftruncate(self._file, whole)
        return left, self.entries()

    def append(self, entry: Entry) -> None:
        """Add an entry; it is in the file when this returns.

        Raises:
            InputError: The disk is full, or the file cannot be written for another reason.
        """
        assert self._file is not None, "resume comes first"
        line = to_line(entry)
        with says_why(self.path, " What is done is kept: the same command goes on from there."):
            while line:  # a disk that gets full takes a part of it first
                line = line[os.write(self._file, line) :]

    def entries(self) -> Iterator[Entry]:
        """Read what is in the file."""
        for _, entry in self._lines():
            yield entry

    def count(self) -> int:
        """Count the entries that are in the file."""
        return sum(1 for _ in self._lines())

    def finish(self, *, keep: bool) -> None:
        """Say that the run is finished; without `keep`, remove the file that it was kept in."""
        assert self._file is not None, "resume comes first"
        with says_why(self.path):
            os.fsync(self._file)
            self._marker.unlink()
            if not keep:
                self.path.unlink()

    def close(self) -> None:
        """Let go of the file, finished or not."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def _lines(self) -> Iterator[tuple[bytes, Entry]]:
        """Read lines with their entries, up to the first that is not one."""
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

    def _take_out(self, stale: Counter[bytes]) -> None:
        with staged(self.path) as temporary, open(temporary, "wb") as file:
            for line, entry in self._lines():
                key = _key(entry)
                if stale[key]:
                    stale[key] -= 1
                else:
                    file.write(line)


@contextmanager
def open_journal(path: Path, made_with: Mapping[str, str], *, marker: Path) -> Iterator[Journal]:
    """Open a journal: a new one, or that of a run which was stopped or killed.

    A file `marker` says that the run is unfinished, and what it was made with. As long as it is
    there the journal is gone on with; without it an older file at `path` is replaced.

    Args:
        path: The journal.
        made_with: What all of its entries must have been made with: the model and the like.
        marker: The file that says so.

    Raises:
        InputError: It was begun with something else, another process writes it, or it cannot be
            written.
    """
    lock = _locked(marker)
    journal = Journal(path, marker)
    said = {"format": FORMAT, **made_with}
    try:
        begun_with = _read_marker(lock)
        if begun_with is None:
            with says_why(path):
                # In this order: the marker must not speak for an older file.
                path.unlink(missing_ok=True)
                os.ftruncate(lock, 0)
                os.lseek(lock, 0, os.SEEK_SET)
                os.write(lock, to_line(said))
                os.fsync(lock)
        else:
            _check_same(begun_with, said, path, marker)
        yield journal
    finally:
        journal.close()
        os.close(lock)


def to_line(entry: Mapping[str, Any]) -> bytes:
    """Write an entry as one line of JSON."""
    try:
        return (json.dumps(entry, ensure_ascii=False, allow_nan=False) + "\n").encode()
    except UnicodeEncodeError:  # a file's name that is not UTF-8 is escaped, and comes back so
        return (json.dumps(entry) + "\n").encode()


@contextmanager
def says_why(path: Path, then: str = "") -> Iterator[None]:
    """Say in one line why a file cannot be written, for example because the disk is full.

    Raises:
        InputError: The block raised an OSError.
    """
    try:
        yield
    except OSError as err:
        raise InputError(f"Cannot write {str(path)!r}: {err.strerror or err}.{then}") from err


def _key(entry: Entry) -> bytes:
    """Digest which file an entry is of: a million of them shall not take much memory."""
    return _digest(entry.get("source"), entry.get("bytes"), entry.get("modified"))


def _digest(*parts: object) -> bytes:
    return blake2b(repr(parts).encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _without(done: Counter[bytes], files: Sequence[str]) -> Iterator[str]:
    """Give the files that are not done, and count those that are down."""
    for file in files:
        stamp = stamp_of(file)
        key = _digest(file, stamp.bytes, stamp.modified)
        if done[key] > 0:
            done[key] -= 1
        else:
            yield file


def _locked(marker: Path) -> int:
    """Open the marker for this process alone; it may be empty, or of a run before.

    Raises:
        InputError: Another process has it, or it cannot be written.
    """
    while True:
        with says_why(marker):
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
            pass  # who had it finished in this moment, and removed it
        except OSError:
            return descriptor  # a share without locks
        os.close(descriptor)


def _read_marker(descriptor: int) -> Entry | None:
    """Read what a run was begun with; None of a new file, or one that was never written whole."""
    try:
        said = json.loads(os.read(descriptor, 1 << 20))
    except ValueError:
        return None
    return said if isinstance(said, dict) else None


def _check_same(begun_with: Entry, made_with: Mapping[str, str], path: Path, marker: Path) -> None:
    for name, now in made_with.items():
        before = begun_with.get(name)
        if before != now:
            raise InputError(
                f"{str(path)!r} was begun with another {name}: {_short(before)}, and now it is "
                f"{_short(now)}. Go on with that one, write to another file, or remove "
                f"{str(marker)!r} to begin anew."
            )


def _short(value: object) -> str:
    text = str(value)
    return f"{text[:12]}..." if len(text) == 64 else text
