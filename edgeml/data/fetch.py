"""Fetch the photos of the apparel use case from Kaggle: the one place here that needs a network."""

from __future__ import annotations

import os
import shutil
import ssl
import sys
from collections.abc import Set
from contextlib import redirect_stdout
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from urllib.error import HTTPError, URLError
from urllib.request import urlopen

from edgeml.data.dataset import Dataset
from edgeml.data.readers.find import read_dataset
from edgeml.data.readers.folders import is_hidden
from edgeml.errors import DataError, InputError, needs
from edgeml.files import check_writable, staged
from edgeml.progress import SILENT, Progress

APPAREL = "kaiska/apparel-dataset"
"""Photos of shop windows and catalogues in folders such as red_shirt (kaggle.com/datasets/...)."""

APPAREL_IMAGES = 16_170

_HOST = "https://api.kaggle.com"
_PATIENCE_S = 12.0
_TOKEN = (
    "make an API token at https://www.kaggle.com/settings/api and put it in the environment "
    "variable KAGGLE_API_TOKEN"
)


def fetch_apparel(out: Path, *, progress: Progress = SILENT) -> Dataset:
    """Bring Kaggle's kaiska/apparel-dataset into a folder, by way of kagglehub's cache.

    Nothing is sent but what the download needs. What broke off before goes on from there.

    Args:
        out: A folder that does not exist yet, or is empty. It appears when all is there.
        progress: Told what is going on.

    Returns:
        The data set in `out`. `differences_from_apparel` says whether it is what is expected.

    Raises:
        InputError: `out` is not empty or cannot be written to.
        DataError: Kaggle cannot be reached, does not answer, or wants credentials.
        MissingDependencyError: kagglehub is not installed.
    """
    target = Path(out).resolve()
    if os.path.exists(target) and (not os.path.isdir(target) or any(target.iterdir())):
        raise InputError(f"{str(out)!r} exists and is not an empty folder: give a new one.")
    check_writable(target)
    source = _top(_download())
    progress.note(f"Copying from {source}, which may be deleted afterwards")
    try:
        with staged(target) as folder:
            shutil.copytree(source, folder, ignore=lambda _, names: filter(is_hidden, names))
            if os.path.exists(target):
                target.rmdir()  # Windows does not rename onto a folder, not even an empty one.
    except OSError as err:
        raise InputError(f"Cannot write {str(out)!r}: {err.strerror or err}.") from err
    return read_dataset(target, skip_bad=True)


def differences_from_apparel(dataset: Dataset, *, labels: Set[str]) -> list[str]:
    """Say in lines what of a data set is not as Kaggle's apparel was when this was written."""
    missing = sorted(labels - set(dataset.labels))
    strange = sorted(set(dataset.labels) - labels)
    said = []
    if len(dataset) != APPAREL_IMAGES:
        said.append(f"{len(dataset)} pictures, not {APPAREL_IMAGES}")
    if missing:
        said.append(f"no picture has {', '.join(missing)}")
    if strange:
        said.append(f"labels that are not expected: {', '.join(strange)}")
    return said


def _download() -> Path:
    """Give the folder in kagglehub's cache."""
    # kagglehub logs to what stdout is when it is imported; here that is for results.
    with redirect_stdout(sys.stderr):
        with needs("kagglehub", extra="kaggle", to="fetch data from Kaggle"):
            import kagglehub
        _check_reachable()
        try:
            return Path(kagglehub.dataset_download(APPAREL))
        except Exception as err:  # its own errors, those of requests, and of all beneath
            raise DataError(f"Kaggle's {APPAREL} was not fetched: {_why(err)}.") from err


def _check_reachable() -> None:
    """Ask Kaggle for anything: kagglehub waits without limit where packets are swallowed."""
    answers: Queue[str | None] = Queue()

    def ask() -> None:
        try:
            urlopen(_HOST, timeout=_PATIENCE_S).close()
        except HTTPError:
            answers.put(None)  # it answers, and that is enough
        except URLError as err:
            # Certificates are kagglehub's affair, which brings its own.
            trusted = not isinstance(err.reason, ssl.SSLError)
            answers.put(str(err.reason) if trusted else None)
        except (OSError, ValueError) as err:
            answers.put(str(err))
        else:
            answers.put(None)

    Thread(target=ask, daemon=True).start()
    try:
        fault = answers.get(timeout=_PATIENCE_S)
    except Empty:
        fault = f"no answer within {_PATIENCE_S:.0f} s"
    if fault is not None:
        raise DataError(
            f"Kaggle cannot be reached ({fault}): check the network and the proxy, or download "
            f"{APPAREL} elsewhere and give its folder to edgeml."
        )


def _why(err: Exception) -> str:
    status = getattr(getattr(err, "response", None), "status_code", None)
    if status in (401, 403):
        return f"it wants to know who asks; {_TOKEN}"
    if status == 404:
        return "there is no such data set any more"
    said = " ".join(str(err).split())[:200] or "no reason is given"
    kind = type(err).__name__
    if "Connection" in kind or "Timeout" in kind or "Chunked" in kind:
        return f"the connection broke off ({said}); the same command goes on from there"
    return f"{kind}: {said}; if it is about credentials, {_TOKEN}"


def _top(folder: Path) -> Path:
    """Go down to where the folders of labels are: archives often hold one folder with all."""
    while True:
        entries = [entry for entry in folder.iterdir() if not is_hidden(entry.name)]
        if len(entries) != 1 or not os.path.isdir(entries[0]):
            return folder
        folder = entries[0]
