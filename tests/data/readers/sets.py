"""Small data sets in every format, and what tests of all readers share."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgeml import cli
from edgeml.data import Dataset

GOOD = {
    "1.png": ("red", "shirt"), "2.png": ("blue", "dress"), "3.png": ("dress", "red"),
    "4.png": ("blue", "shirt"), "5.png": ("red", "shirt"), "6.png": ("blue", "dress"),
}  # fmt: skip
CLASSES = ("blue", "dress", "red", "shirt")


def encoded(seed: int) -> bytes:
    frame = np.random.default_rng(seed).integers(0, 256, (16, 20, 3), np.uint8)
    return bytes(cv2.imencode(".png", frame)[1])


def put(file: Path, data: bytes | str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data.encode() if isinstance(data, str) else data)
    return file


def write_images(folder: Path) -> None:
    for seed, name in enumerate(GOOD):
        put(folder / name, encoded(seed))


# The good data set in each form; a case breaks one thing in it.


def folders(root: Path) -> Path:
    for seed, (name, labels) in enumerate(GOOD.items()):
        put(root / "_".join(labels) / name, encoded(seed))
    return root


def table(root: Path, *more: bytes | str, header: str = "path,labels") -> Path:
    """Write a .csv whose last good row is in line 7."""
    write_images(root)
    lines = [header, *(f"{name},{';'.join(labels)}" for name, labels in GOOD.items())]
    data = [line if isinstance(line, bytes) else line.encode() for line in (*lines, *more)]
    return put(root / "labels.csv", b"\n".join(data) + b"\n")


def columns(root: Path, *more: str) -> Path:
    write_images(root)
    rows = [[name, *(str(int(c in labels)) for c in CLASSES)] for name, labels in GOOD.items()]
    lines = [",".join(["path", *CLASSES]), *map(",".join, rows), *more]
    return put(root / "labels.csv", "\n".join(lines) + "\n")


def parquet(root: Path, *more: tuple[str, object]) -> Path:
    pa = pytest.importorskip("pyarrow")
    pq = pytest.importorskip("pyarrow.parquet")
    write_images(root)
    rows = [*((name, ";".join(labels)) for name, labels in GOOD.items()), *more]
    path, labels = zip(*rows, strict=True)
    pq.write_table(pa.table({"path": list(path), "labels": list(labels)}), root / "labels.parquet")
    return root / "labels.parquet"


def coco(root: Path, change: Callable[[dict[str, Any]], object] = lambda document: None) -> Path:
    write_images(root / "images")
    document = {
        "images": [{"id": int(name[0]), "file_name": name} for name in GOOD],
        "annotations": [
            {
                "id": 10 * int(name[0]) + at,
                "image_id": int(name[0]),
                "category_id": CLASSES.index(c),
            }
            for name, labels in GOOD.items()
            for at, c in enumerate(labels)
        ],
        "categories": [{"id": number, "name": name} for number, name in enumerate(CLASSES)],
    }
    change(document)
    return put(root / "instances.json", json.dumps(document, indent=1))


def yolo(root: Path) -> Path:
    write_images(root / "images")
    for name, labels in GOOD.items():
        lines = [f"{CLASSES.index(label)} .5 .5 .1 .1\n" for label in labels]
        put(root / "labels" / f"{name[0]}.txt", "".join(lines))
    put(root / "data.yaml", f"train: images\nnc: 4\nnames: [{', '.join(CLASSES)}]\n")
    return root


def touch(root: Path, *names: str) -> None:
    """Write files of different contents; a reader does not open images."""
    for name in names:
        file = root / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(name.encode())


def write_table(root: Path, text: str) -> Path:
    table = root / "labels.csv"
    table.write_bytes(text.encode())
    return table


def labels_by_path(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    return {
        path.relative_to(dataset.root).as_posix(): dataset.labels_of(row)
        for row, path in enumerate(dataset.paths)
    }


def labels_by_name(dataset: Dataset) -> dict[str, tuple[str, ...]]:
    return {path.name: dataset.labels_of(row) for row, path in enumerate(dataset.paths)}


def run_command(words: list[str], monkeypatch: pytest.MonkeyPatch) -> int:
    """Run the command line in this process; return its exit status."""
    monkeypatch.setattr("sys.argv", ["edgeml", *words])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    return int(stopped.value.code or 0)
