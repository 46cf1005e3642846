"""Download the photos of the apparel use case from Kaggle."""

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
_TIMEOUT_S = 12.0
_TOKEN = (
    "create an API token at https://www.kaggle.com/settings/api and put it in the environment "
    "variable KAGGLE_API_TOKEN"
)


def fetch_apparel(out: Path, *, progress: Progress = SILENT) -> Dataset:
    """Copy Kaggle's kaiska/apparel-dataset into a folder, through kagglehub's cache.

    Only what the download needs is sent. An interrupted download continues where it stopped.

    Args:
        out: A folder that does not exist yet, or is empty. It appears when the copy is complete.
        progress: Shown the work.

    Returns:
        The data set in `out`. `differences_from_apparel` checks whether it is the expected one.

    Raises:
        InputError: `out` is not empty or cannot be written to.
        DataError: Kaggle cannot be reached, does not answer, or requires credentials.
        MissingDependencyError: kagglehub is not installed.
    """
    target = Path(os.path.realpath(out))
    if os.path.exists(target) and (not os.path.isdir(target) or any(target.iterdir())):
        raise InputError(f"{str(out)!r} exists and is not an empty folder: choose a new one.")
    check_writable(target, folder=True)
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
    """Return how a data set differs from Kaggle's apparel, whose labels are `labels`."""
    differences = []
    if len(dataset) != APPAREL_IMAGES:
        differences.append(f"{len(dataset)} images, not {APPAREL_IMAGES}")
    if missing := labels - set(dataset.labels):
        differences.append(f"no image has {', '.join(sorted(missing))}")
    if unexpected := set(dataset.labels) - labels:
        differences.append(f"unexpected labels: {', '.join(sorted(unexpected))}")
    return differences


def _download() -> Path:
    """Download the data set and return its folder in kagglehub's cache."""
    # kagglehub logs to the stdout of its import; stdout is for results.
    with redirect_stdout(sys.stderr):
        with needs("kagglehub", extra="kaggle", to="fetch data from Kaggle"):
            import kagglehub
        _check_reachable()
        try:
            return Path(kagglehub.dataset_download(APPAREL))
        except Exception as err:  # errors of kagglehub, requests and the libraries below
            raise DataError(f"Kaggle's {APPAREL} could not be downloaded: {_reason(err)}.") from err


def _check_reachable() -> None:
    """Check that Kaggle answers: kagglehub waits without limit if packets are dropped."""
    answers: Queue[str | None] = Queue()

    def request() -> None:
        fault: str | None = None
        try:
            urlopen(_HOST, timeout=_TIMEOUT_S).close()
        except HTTPError:
            pass  # any answer is enough
        except URLError as err:
            if not isinstance(err.reason, ssl.SSLError):  # kagglehub has its own certificates
                fault = str(err.reason)
        except (OSError, ValueError) as err:
            fault = str(err)
        answers.put(fault)

    Thread(target=request, daemon=True).start()
    try:
        fault = answers.get(timeout=_TIMEOUT_S)
    except Empty:
        fault = f"no answer within {_TIMEOUT_S:.0f} s"
    if fault is not None:
        raise DataError(
            f"Kaggle cannot be reached ({fault}): check the network and the proxy, or download "
            f"{APPAREL} elsewhere and use its folder."
        )


def _reason(err: Exception) -> str:
    status = getattr(getattr(err, "response", None), "status_code", None)
    if status in (401, 403):
        return f"it requires credentials; {_TOKEN}"
    if status == 404:
        return "the data set no longer exists"
    message = " ".join(str(err).split())[:200] or "no reason is stated"
    kind = type(err).__name__
    if "Connection" in kind or "Timeout" in kind or "Chunked" in kind:
        return f"the connection was lost ({message}); run the same command again to continue"
    return f"{kind}: {message}; if it is about credentials, {_TOKEN}"


def _top(folder: Path) -> Path:
    """Return the folder of the folders of labels; archives often contain a single top folder."""
    while True:
        entries = [entry for entry in folder.iterdir() if not is_hidden(entry.name)]
        if len(entries) != 1 or not os.path.isdir(entries[0]):
            return folder
        folder = entries[0]
