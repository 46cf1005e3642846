"""Classify many files: the work of `edgeml predict`."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from edgeml.errors import ImageError, InputError
from edgeml.files import check_writable, sha256_of_file, staged
from edgeml.image.file_kinds import counted, image_kind
from edgeml.image.jpeg import encode_jpeg
from edgeml.image.reading import read_image
from edgeml.ordered import usable_cpus
from edgeml.predict.inspection import model_files
from edgeml.predict.journal import UNFINISHED, Entry, Journal, Stamp, open_journal, stamp_of
from edgeml.predict.predictor import Prediction, Predictor
from edgeml.predict.tables import check_parquet, write_csv, write_parquet
from edgeml.progress import SILENT, Progress

LIST_SUFFIX = ".txt"

# Of 2, 4, 8 and 16, the least CPU time an image with two MobileNets in either runtime, on two cores
# of a Zen 4: the network takes 7 to 11 % less than with 1. Larger ones leave the cache.
_BATCH = 4


@dataclass(frozen=True, kw_only=True)
class FileResult:
    """The result of one file: a prediction, or the reason why there is none.

    Attributes:
        source: The name of the file, unchanged.
        prediction: None if there is an error.
        error: Why there is no prediction.
        stamp: Size and time of the file before it was read.
    """

    source: str
    prediction: Prediction | None
    error: str | None
    stamp: Stamp

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels that are present."""
        return self.prediction.labels if self.prediction else ()

    def to_dict(self) -> Entry:
        """Return the object that `edgeml predict --json` prints for an image."""
        result = self.prediction.to_dict() if self.prediction else {"labels": [], "scores": {}}
        return {"source": self.source, **result, "error": self.error}


@dataclass(frozen=True, kw_only=True)
class Outputs:
    """Where results go; a stopped or killed run can continue with the first three.

    Attributes:
        jsonl: A file that grows by a line for each image.
        csv: A table, written at the end. Until then the results are in a file next to it.
        parquet: The same as Parquet.
        overlay: A folder for the images with their labels drawn on them.
    """

    jsonl: Path | None = None
    csv: Path | None = None
    parquet: Path | None = None
    overlay: Path | None = None

    @property
    def files(self) -> list[Path]:
        """The files among them."""
        return [path for path in (self.jsonl, self.csv, self.parquet) if path]

    @property
    def journal(self) -> Path | None:
        """The file that holds results during the run; None if no file is requested."""
        if self.jsonl or not self.files:
            return self.jsonl
        first = self.files[0]
        return first.with_name(f"{first.name}{UNFINISHED}.jsonl")

    @property
    def marker(self) -> Path | None:
        """The file that marks a run as unfinished."""
        return self.files[0].with_name(self.files[0].name + UNFINISHED) if self.files else None

    def check(self, sources: Sequence[Path]) -> None:
        """Check before long work that its results can be written.

        Raises:
            InputError: A place cannot be written to, two outputs are one file, or the overlays
                would be images of the next run.
            MissingDependencyError: pyarrow is not installed.
        """
        if len({path.absolute() for path in self.files}) < len(self.files):
            raise InputError(f"Two outputs are the same file, {str(self.files[0])!r}.")
        if self.parquet:
            check_parquet()
        if self.overlay:
            inside = Path(os.path.realpath(self.overlay))
            for source in sources:
                if source.is_dir() and inside.is_relative_to(os.path.realpath(source)):
                    raise InputError(
                        f"{str(self.overlay)!r} is inside {str(source)!r}: the next run would read "
                        "the overlays as images. Choose a folder next to it."
                    )
        for path in (*self.files, self.overlay and self.overlay / "0.jpg"):
            if path:
                check_writable(path)


@dataclass
class Tally:
    """The counts of a run.

    Attributes:
        images: All images, including those of an earlier run.
        failed: Images with an error instead of labels.
        first_error: The first of these errors.
    """

    images: int = 0
    failed: int = 0
    first_error: str | None = None

    def add(self, entry: Entry) -> None:
        """Count an image."""
        self.images += 1
        if entry["error"] is not None:
            self.failed += 1
            self.first_error = self.first_error or f"{entry['source']!r}: {entry['error']}"


def list_files(sources: Sequence[Path], progress: Progress = SILENT) -> list[str]:
    """List images: files, images in folders and subfolders, and the lines of .txt files.

    Files in a folder are known by their bytes, and in the order of their names. Images of a format
    that is not read are listed, since each of them is to have an error; other files are not, and
    `progress` notes their number. Hidden files are ignored, links to folders are not followed. `-`
    reads names from stdin.

    Raises:
        InputError: A source does not exist, or has no images.
    """
    files: list[str] = []
    unread: list[str] = []
    others: list[str] = []
    for source in sources:
        images = list(_named_by(source, unread, others))
        if not images:
            found = f", only other files: {counted(others)}" if others else ""
            raise InputError(f"There are no images in {str(source)!r}{found}.")
        files += images
    if unread:
        progress.note(f"images of formats that are not read: {counted(unread)}")
    if others:
        progress.note(f"left out, since they are no images: {counted(others)}")
    return files


def predict_files(
    predictor: Predictor, files: Iterable[str], *, batch: int = _BATCH
) -> Iterator[FileResult]:
    """Classify files as they arrive, in their order; an unreadable one is reported, not skipped.

    Decoding and inference overlap, best with a Predictor of `mode="throughput"`. Memory is
    bounded: see `Predictor.predict_many`.

    Raises:
        InferenceError: The Predictor is closed.
    """
    pending: deque[tuple[str, Stamp]] = deque()

    def stamped() -> Iterator[str]:
        for file in files:
            # Before it is read, so that a change during reading is noticed.
            pending.append((file, stamp_of(file)))
            yield file

    for result in predictor.predict_many(stamped(), batch=batch):
        file, stamp = pending.popleft()
        if isinstance(result, Prediction):
            yield FileResult(source=file, prediction=result, error=None, stamp=stamp)
        else:
            # The reason comes first: a word that programs can rely on.
            reason = f"{result.reason}: " if isinstance(result, ImageError) else ""
            yield FileResult(source=file, prediction=None, error=f"{reason}{result}", stamp=stamp)


def classify(
    predictor: Predictor,
    files: Sequence[str],
    outputs: Outputs,
    *,
    batch: int = _BATCH,
    key: Mapping[str, str] | None = None,
    on_entry: Callable[[Entry], None] | None = None,
    progress: Progress = SILENT,
) -> Tally:
    """Classify files into `outputs`, and continue a run that was stopped or killed.

    Args:
        predictor: A model.
        files: The result of `list_files`.
        outputs: Where results go.
        batch: Images in one run of the network, at most.
        key: What must be equal for a run to continue; None is the Predictor's `resume_key`.
        on_entry: Called with `FileResult.to_dict` of each file, those of an earlier run first.
        progress: Where progress is shown.

    Raises:
        InputError: An output cannot be written, or was started with another model.
        InferenceError: The Predictor is closed.
    """
    tally = Tally()

    def count(entry: Entry) -> None:
        tally.add(entry)
        if on_entry:
            on_entry({name: entry[name] for name in ("source", "labels", "scores", "error")})

    with ExitStack() as stack:
        journal, remaining = None, files
        if outputs.journal and outputs.marker:
            run = open_journal(outputs.journal, key or resume_key(predictor), marker=outputs.marker)
            journal = stack.enter_context(run)
            stack.enter_context(_noting_interrupts(journal, len(files), progress))
            remaining, done = journal.resume(files)
            for entry in done:
                count(entry)
            if tally.images:
                progress.note(f"{tally.images} of {len(files)} images were done before.")
        advance = stack.enter_context(progress.task("predict", total=len(remaining)))
        # With few images, smaller batches use all processors.
        batch = min(batch, max(len(remaining) // (2 * usable_cpus()), 1))
        for result in predict_files(predictor, remaining, batch=batch):
            if outputs.overlay and result.prediction:
                write_overlay(result.source, result.prediction, outputs.overlay)
            entry = result.to_dict()
            if journal:
                journal.append({**entry, **vars(result.stamp)})
            count(entry)
            advance(1)
        if journal:
            for write, target in ((write_csv, outputs.csv), (write_parquet, outputs.parquet)):
                if target:
                    write(journal.entries(), predictor.spec.labels, target)
            journal.finish(keep=outputs.jsonl is not None)
    return tally


@contextmanager
def _noting_interrupts(journal: Journal, total: int, progress: Progress) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        # Counted in the file: the latest entry may be written and not yet counted.
        done = sum(1 for _ in journal.entries())
        progress.note(
            f"{done} of {total} images are done and stored in {journal.path}: "
            "the same command continues from there."
        )
        raise


def resume_key(predictor: Predictor, model: Path | None = None) -> dict[str, str]:
    """Return what results depend on apart from the images: model, spec, runtime, edgeml."""
    key = {
        "spec": sha256(predictor.spec.to_json().encode()).hexdigest(),
        "runtime": predictor.runtime.name,
        "edgeml": _version(),
    }
    if model is None:
        return key
    digests = [sha256_of_file(file) for file in model_files(model) if file.is_file()]
    return {"model": sha256("".join(digests).encode()).hexdigest(), **key}


def write_overlay(source: str, prediction: Prediction, folder: Path) -> Path:
    """Write an image with its labels drawn on it, as `<name>-<digest of its path>.jpg`.

    Images of the same name in several folders get different names, the same in every run.
    """
    from edgeml.predict.overlay import draw

    path = Path(source)
    digest = sha256(os.fsencode(source)).hexdigest()[:8]
    # Names may have 255 bytes, and the temporary file has a longer one.
    name = os.fsencode(path.stem)[:200].decode("utf-8", "ignore")
    target = folder / f"{name}-{digest}.jpg"
    jpeg = encode_jpeg(draw(read_image(source), prediction))
    with staged(target) as temporary:
        temporary.write_bytes(jpeg)
    return target


def _version() -> str:
    try:
        return version("edgeml")
    except PackageNotFoundError:
        return "not installed"


def _named_by(source: Path, unread: list[str], others: list[str]) -> Iterator[str]:
    if str(source) == "-":
        return _lines_of(sys.stdin.buffer)
    if source.is_dir():
        return _images_below(str(source), unread, others)
    if not source.exists():
        raise InputError(f"There is no image {str(source)!r}.")
    if source.suffix.lower() == LIST_SUFFIX:
        with open(source, "rb") as file:
            return iter(list(_lines_of(file)))
    return iter([str(source)])


def _lines_of(file: Iterable[bytes]) -> Iterator[str]:
    for line in file:
        if name := line.removeprefix(b"\xef\xbb\xbf").rstrip(b"\r\n"):
            yield os.fsdecode(name)


def _images_below(folder: str, unread: list[str], others: list[str]) -> Iterator[str]:
    """Walk a folder; one that cannot be read is yielded itself, and becomes an error.

    The formats of images that are not read are added to `unread`, and the suffixes of files that
    are no images to `others`.
    """
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError:
        yield folder
        return
    for entry in entries:
        if entry.name.startswith("."):
            continue
        if entry.is_dir(follow_symlinks=False):
            yield from _images_below(entry.path, unread, others)
        elif (kind := image_kind(entry.path)) is None:
            others.append(Path(entry.name).suffix.lower() or "without a suffix")
        else:
            unread += [kind] * bool(kind)
            yield entry.path
