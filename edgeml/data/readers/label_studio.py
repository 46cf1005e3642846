"""Label Studio's exports: JSON of tasks, JSON-MIN, and CSV."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgeml.data.dataset import Dataset
from edgeml.data.readers.image_places import ImagePlaces
from edgeml.data.readers.json_files import parse_json
from edgeml.data.readers.rows import (
    Row,
    SkipLog,
    described_dataset,
    label_fault,
    label_name,
    printable,
    skip_or_raise,
)
from edgeml.errors import DataError
from edgeml.image.reading import SUFFIXES
from edgeml.spec.model_spec import quoted_names

_WRITTEN = {
    "id", "annotator", "annotation_id", "created_at", "updated_at", "lead_time", "agreement",
    "completed_by",
}  # fmt: skip
_IMAGE = ("image", "img", "image_url", "url", "photo", "picture", "captioning", "path")
_MOVED = ("..", "../images", "images", "upload", "media/upload")


def read_label_studio(file: Path, tasks: Any, *, ignored: Sequence[str], skips: SkipLog) -> Dataset:
    """Read the tasks of a JSON or JSON-MIN export.

    The labels of an image are the choices of its annotation, and the classes of its regions. A task
    without an annotation, or whose annotation was skipped, is left out and counted; one that was
    annotated with nothing is an image without labels. Predictions are not read. An image is looked
    up next to the file and in folders such as `images`, by the end of its path or URL.

    Args:
        file: That of the tasks.
        tasks: Its content.
        ignored: The names of controls (`from_name`) that are not read.
        skips: Records bad entries.
    """
    places = ImagePlaces(file.parent, _MOVED)
    reading = _Reading(printable(file.name), places, ignored, skips)
    for number, task in enumerate(tasks):
        where = f"{reading.name}, task {task.get('id', number)!r:.80}"
        if is_task(task):
            reading.add_task(where, task)
        else:
            reading.add_record(where, task)
    rows, origin, notes = reading.result()
    return described_dataset(rows, root=file.parent, origin=origin, notes=notes, skips=skips)


def is_label_studio(document: Any) -> bool:
    """Whether the content of a .json is a list of tasks."""
    return (
        isinstance(document, list)
        and bool(document)
        and all(isinstance(task, dict) and (is_task(task) or _is_record(task)) for task in document)
    )


def is_task(task: Mapping[str, Any]) -> bool:
    """Whether an object is a task of Label Studio's JSON."""
    kinds = ("annotations", "completions", "predictions")
    return isinstance(task.get("data"), dict) and any(kind in task for kind in kinds)


def is_label_studio_table(header: Collection[str]) -> bool:
    """Whether the columns are those of Label Studio's CSV."""
    return {"annotator", "annotation_id", "lead_time"} <= set(header)


def rows_of_table(
    header: Sequence[str],
    cells: Iterable[tuple[str, list[str]]],
    places: ImagePlaces,
    ignored: Sequence[str],
    notes: list[str],
    skips: SkipLog,
) -> tuple[list[Row], str]:
    """Return the rows of a CSV export, and where their labels come from."""
    reading = _Reading("", places, ignored, skips)
    for where, texts in cells:
        record = dict(zip(header, texts, strict=True))
        reading.add_record(where, {key: _from_cell(text) for key, text in record.items()})
    rows, origin, more = reading.result()
    notes += more
    return rows, origin


def _is_record(task: Mapping[str, Any]) -> bool:
    return {"annotation_id", "annotator", "lead_time"} <= set(task)


def _from_cell(text: str) -> Any:
    if text.strip()[:1] in ("{", "["):
        try:
            return parse_json(text, "")
        except DataError:
            return text
    return text or None


@dataclass
class _Reading:
    """The rows of an export so far, and which control has which labels."""

    name: str
    places: ImagePlaces
    ignored: Sequence[str]
    skips: SkipLog
    rows: list[Row] = field(default_factory=list)
    labels_of: dict[str, set[str]] = field(default_factory=dict)
    unannotated: int = 0

    def add_task(self, where: str, task: Mapping[str, Any]) -> None:
        annotations = task.get("annotations", task.get("completions"))
        annotations = annotations if isinstance(annotations, list) else []
        done = [a for a in annotations if isinstance(a, dict) and not _is_skipped(a)]
        done = [a for a in done if a.get("ground_truth")] or done
        if not done:
            self.unannotated += 1
            return
        found = [dict(self._of_results(annotation.get("result"))) for annotation in done]
        sets = [frozenset(label for _, label in labels) for labels in found]
        image = _image_of(task["data"])
        if image is None:
            skip_or_raise(self.skips, where, "its data name no image, or several.")
        elif len(set(sets)) > 1:
            skip_or_raise(self.skips, where, f"its {len(done)} annotations have different labels.")
        else:
            self._add(where, image, found[0])

    def add_record(self, where: str, record: Mapping[str, Any]) -> None:
        image = _image_of(record)
        keys = [key for key in record if key not in _WRITTEN]
        if "id" in record and "annotator" in record:
            order = list(record)
            if order.index("id") < order.index("annotator"):  # the data come first
                keys = [key for key in keys if order.index(key) > order.index("id")]
        keys = [key for key in keys if record[key] != image and key not in self.ignored]
        if record.get("annotation_id") in (None, ""):
            self.unannotated += 1
        elif image is None:
            skip_or_raise(self.skips, where, "it names no image, or several.")
        else:
            found = {(key, label): None for key in keys for label in _of_value(record[key])}
            self._add(where, image, found)

    def result(self) -> tuple[list[Row], str, list[str]]:
        """Return the rows, where the labels come from, and notes.

        Raises:
            DataError: Two controls have a label in common, which then could mean either.
        """
        controls = sorted(self.labels_of)
        for number, one in enumerate(controls):
            for other in controls[:number]:
                if common := self.labels_of[one] & self.labels_of[other]:
                    raise DataError(
                        f"The controls {other!r} and {one!r} have the same choices, such as "
                        f"{min(common)!r}: choose the one to read by --ignore-labels OTHER, or "
                        "give their choices different names."
                    )
        notes = self.places.notes()
        if self.unannotated:
            notes.append(
                f"{self.unannotated} tasks without an annotation, or skipped, are left out"
            )
        if empty := sum(not row.present for row in self.rows):
            notes.append(f"{empty} of {len(self.rows)} images are annotated with no label")
        return self.rows, f"the annotations of {quoted_names(controls)}", notes

    def _of_results(self, results: Any) -> Iterator[tuple[tuple[str, str], None]]:
        for result in results if isinstance(results, list) else ():
            control = str(result.get("from_name")) if isinstance(result, dict) else ""
            if control and control not in self.ignored and isinstance(result.get("value"), dict):
                value = {k: v for k, v in result["value"].items() if k == result.get("type")}
                yield from (((control, label), None) for label in _of_value(value))

    def _add(self, where: str, image: str, found: Mapping[tuple[str, str], None]) -> None:
        labels = tuple(dict.fromkeys(label for _, label in found))
        if faults := [why for label in labels if (why := label_fault(label))]:
            skip_or_raise(self.skips, where, f"a choice cannot be a label: {faults[0]}.")
            return
        for control, label in found:
            self.labels_of.setdefault(control, set()).add(label)
        self.rows.append(Row(where, self.places.find_remote(image), labels))


def _is_skipped(annotation: Mapping[str, Any]) -> bool:
    return bool(annotation.get("was_cancelled") or annotation.get("skipped"))


def _image_of(data: Mapping[str, Any]) -> str | None:
    """Return the image of a task: the value that ends as one, or whose key is that of one."""
    texts = {key: value for key, value in data.items() if isinstance(value, str) and value}
    named = [key for key in _IMAGE if key in texts]
    ends = [key for key, text in texts.items() if _suffix(text) in SUFFIXES]
    chosen = [key for key in named if key in ends][:1] or ends or named
    return texts[chosen[0]] if len(chosen) == 1 else None


def _suffix(text: str) -> str:
    return os.path.splitext(text.split("?d=")[-1].split("?")[0].split("&")[0])[1].lower()


def _of_value(value: Any) -> Iterator[str]:
    """Yield the labels in what an annotation states: texts, lists of texts, or regions."""
    match value:
        case str() if value.strip():
            yield label_name(value)
        case list():
            for item in value:
                yield from _of_value(item)
        case dict():
            for key, item in value.items():
                if key.endswith(("choices", "labels", "taxonomy")):
                    yield from _of_value(item)
