"""Classify files: what `edgeml predict` does, as functions."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgeml.errors import ImageError, InputError
from edgeml.files import staged
from edgeml.images import SUFFIXES, encode_jpeg, read_image
from edgeml.predictor import Prediction, Predictor
from edgeml.progress import SILENT, Progress


@dataclass(frozen=True, kw_only=True)
class FileResult:
    """What a model says of one file: a prediction, or why there is none."""

    source: Path
    prediction: Prediction | None
    error: str | None

    @property
    def labels(self) -> tuple[str, ...]:
        """Names of the labels that are present."""
        return self.prediction.labels if self.prediction else ()

    def to_dict(self) -> dict[str, Any]:
        """Give what `edgeml predict --json` prints for an image."""
        said = self.prediction.to_dict() if self.prediction else {"labels": [], "scores": {}}
        return {"source": str(self.source), **said, "error": self.error}


def predict_files(
    predictor: Predictor, sources: Sequence[Path], *, progress: Progress = SILENT
) -> list[FileResult]:
    """Classify images and the images in folders; an unreadable one is reported, not skipped.

    Raises:
        InputError: A source does not exist, or a folder has no images.
    """
    files = [file for source in sources for file in _images_of(source)]
    results = []
    with progress.task("predict", total=len(files)) as advance:
        for file in files:
            try:
                results.append(
                    FileResult(source=file, prediction=predictor.predict(file), error=None)
                )
            except ImageError as err:
                results.append(FileResult(source=file, prediction=None, error=str(err)))
            advance(1)
    return results


def write_csv(results: Sequence[FileResult], target: Path) -> None:
    """Write source, labels, error and a column for each score; whole or not at all."""
    names = next((r.prediction.spec.labels for r in results if r.prediction), ())
    with staged(target) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        table = csv.writer(file)
        table.writerow(["source", "labels", "error", *names])
        for result in results:
            scores = [f"{p:.6f}" for p in result.prediction.scores] if result.prediction else []
            table.writerow([result.source, ";".join(result.labels), result.error or "", *scores])


def write_overlays(results: Sequence[FileResult], folder: Path) -> None:
    """Write each image with its labels drawn on it, as `<number>_<name>.jpg`."""
    from edgeml.stream.overlay import draw

    for number, result in enumerate(results):
        if result.prediction:
            picture = draw(read_image(result.source), result.prediction)
            with staged(folder / f"{number:05d}_{result.source.stem}.jpg") as temporary:
                temporary.write_bytes(encode_jpeg(picture))


def _images_of(source: Path) -> Iterator[Path]:
    if source.is_dir():
        # Named as they were given, not made absolute: that is how the results name them too.
        found = sorted(p for p in source.rglob("[!.]*") if p.suffix.lower() in SUFFIXES)
        if not found:
            raise InputError(f"There are no images in {str(source)!r}.")
        yield from found
    elif source.exists():
        yield source
    else:
        raise InputError(f"There is no image {str(source)!r}.")
