"""Files that are absent or complete, never partial; and their digests."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from edgeml.errors import InputError, needs

try:
    import fcntl
except ImportError:  # Windows has no locks on folders: nothing is cleaned up there
    fcntl = None  # type: ignore[assignment]

_SUFFIX = ".edgeml-partial"

_TEMPORARY = re.compile(rf"\..+\.\w{{8}}{re.escape(_SUFFIX)}", re.DOTALL)

_cleaned: set[Path] = set()


@contextmanager
def staged(target: Path) -> Iterator[Path]:
    """Yield a temporary path next to `target`; rename it to `target` if the block succeeds.

    The temporary path has the suffix of `target` and does not exist yet; the block may write a
    file or a folder there. If the block raises, the temporary path is removed and `target` stays
    unchanged. The remains of a killed process are removed by the next one that writes there.

    Raises:
        InputError: The folder of `target` cannot be written to, or is full.
    """
    target = Path(target)
    with staging(target) as folder:
        temporary = folder / target.name
        try:
            yield temporary
            _flush(temporary)
            os.replace(temporary, target)
            _flush(target.parent)
        except BrokenPipeError:
            raise
        except OSError as err:  # of the temporary file, which nobody knows
            if err.filename is None or Path(os.fsdecode(err.filename)).is_relative_to(folder):
                raise _cannot_write(target, err) from err
            raise


@contextmanager
def staging(target: Path) -> Iterator[Path]:
    """Yield a temporary folder on the file system of `target`, whose folder is created if absent.

    It is removed when the block ends or, if the process is killed, when the next one writes there.

    Raises:
        InputError: The folder of `target` cannot be written to, or it is a device.
    """
    try:
        kind = os.stat(target).st_mode
    except FileNotFoundError:
        kind = stat.S_IFREG
    except OSError as err:
        raise _cannot_write(target, err) from err
    in_dev = target.parent == Path("/dev")  # /dev/stdout may lead to a file
    if in_dev or not (stat.S_ISREG(kind) or stat.S_ISDIR(kind)):
        # A rename would put a file in its place: /dev/null would be gone for everyone.
        raise InputError(f"Cannot write {str(target)!r}: it is a device or a pipe, not a file.")
    _clean_up(target.parent.absolute())
    folder, lock = _locked_folder(target)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        if lock is not None:
            os.close(lock)


def check_writable(target: Path, *, folder: bool = False) -> None:
    """Check before long work that its target, a file or a folder, can be written.

    Raises:
        InputError: The folder of `target` cannot be written to, or something else is there.
    """
    with staging(target):
        if target.exists() and target.is_dir() != folder:
            found, wanted = ("file", "folder") if folder else ("folder", "file")
            raise InputError(f"Cannot write the {wanted} {str(target)!r}: it is a {found}.")
        pass


def write_text(target: Path, text: str) -> None:
    """Write `text` as UTF-8, completely or not at all."""
    with staged(target) as temporary:
        temporary.write_text(text, encoding="utf-8", newline="\n")


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Let one process at a time into this block; the others wait for it.

    The file `path` stays, empty. Where there are no locks (Windows, some shares), all enter.

    Raises:
        InputError: The folder of `path` cannot be written to.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    except OSError as err:
        raise InputError(f"Cannot write {str(path)!r}: {err.strerror}.") from err
    try:
        if fcntl is not None:
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def user_cache(kind: str, *, extra: str) -> Path:
    """Return the folder where this system keeps caches of one kind.

    The variable EDGEML_CACHE names another place, for example a larger disk.

    Args:
        kind: The name of the folder.
        extra: The extra that brings platformdirs, for an error.

    Raises:
        MissingDependencyError: platformdirs is not installed.
        InputError: This user has no home folder.
    """
    if chosen := os.environ.get("EDGEML_CACHE"):
        return Path(chosen, kind)
    with needs("platformdirs", extra=extra, to="find the folder for caches"):
        import platformdirs
    folder = Path("~")
    with suppress(RuntimeError):  # HOME is not set, and there is no such user
        folder = Path(platformdirs.user_cache_dir("edgeml", appauthor=False), kind)
    if not folder.is_absolute():  # what older versions of platformdirs return then
        raise InputError("This user has no home folder: set EDGEML_CACHE to a folder for caches.")
    return folder


def sha256_of_file(path: Path) -> str:
    """Hash a file's bytes, as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
    except OSError as err:
        err.filename = str(path)  # which a failed read does not have
        raise
    return digest.hexdigest()


def _cannot_write(target: Path, err: OSError) -> InputError:
    why = err.strerror or err
    return InputError(f"Cannot write {str(target)!r}: {why}. Choose another place with --out.")


def _locked_folder(target: Path) -> tuple[Path, int | None]:
    """Create a folder and lock it: the lock ends with this process, however that ends.

    A process number in its name would not do: another machine on the same share has its own.
    """
    while True:
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            prefix = f".{target.name}."
            folder = Path(tempfile.mkdtemp(prefix=prefix, suffix=_SUFFIX, dir=target.parent))
        except OSError as err:
            raise _cannot_write(target, err) from err
        try:
            lock = _lock(folder)
        except (BlockingIOError, FileNotFoundError):
            continue  # another process removed it before it was locked
        except OSError:
            return folder, None  # a share without locks, where nothing is cleaned up
        if folder.exists():
            return folder, lock
        os.close(lock)


def _clean_up(parent: Path) -> None:
    """Remove temporary folders of dead processes, whose locks are free.

    Once in the life of a process, so that writing many files into one folder stays quick.
    """
    if parent in _cleaned:
        return
    _cleaned.add(parent)
    try:
        abandoned = [name for name in os.listdir(parent) if _TEMPORARY.fullmatch(name)]
    except OSError:  # it does not exist yet, or cannot be read
        return
    for folder in (parent / name for name in abandoned):
        with suppress(OSError):
            lock = _lock(folder)
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def _lock(folder: Path) -> int:
    """Lock a folder and return the descriptor that holds the lock.

    Raises:
        BlockingIOError: Another process holds it.
        OSError: The folder is gone, or there are no locks here.
    """
    if fcntl is None:
        raise OSError
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _flush(path: Path) -> None:
    """Force a file, or the entries of a folder, to the disk before a rename makes them final."""
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot open a folder; NTFS journals the rename itself.
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
