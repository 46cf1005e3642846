"""Files that are absent or whole, never half; and their digests."""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from edgeml.errors import InputError


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """Give a temporary path beside `target`; rename it to `target` if the block succeeds.

    The temporary path has the suffix of `target` and does not exist yet; the block may write a
    file or a folder there. Should the block raise, what it wrote is removed and `target` is left
    as it was.

    Raises:
        InputError: The folder of `target` cannot be written to.
    """
    target = Path(target)
    folder = staging_folder(target)
    try:
        temporary = folder / target.name
        yield temporary
        _flush(temporary)
        os.replace(temporary, target)
        _flush(target.parent)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def staging_folder(target: Path) -> Path:
    """Make a temporary folder on the file system of `target`, whose folder is made if need be.

    Raises:
        InputError: The folder of `target` cannot be written to.
    """
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        return Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    except OSError as err:
        raise InputError(
            f"Cannot write {str(target)!r}: {err.strerror}. Choose another place with --out."
        ) from err


def check_writable(target: Path) -> None:
    """Refuse a place that cannot be written to before long work is done for it.

    Raises:
        InputError: The folder of `target` cannot be written to.
    """
    staging_folder(target).rmdir()


def write_text(target: Path, text: str) -> None:
    """Write `text` as UTF-8, whole or not at all."""
    with staged(target) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


def sha256_of_file(path: Path) -> str:
    """Hash a file's bytes, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, "rb") as file:
        while chunk := file.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _flush(path: Path) -> None:
    """Force a file, or the entries of a folder, to the disk before a rename makes them final."""
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open a folder; NTFS journals the rename itself.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
