"""Data sets that are broken in every way we know of, in every format, written to disk."""

from __future__ import annotations

import io
import os
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.data.readers.sets import (
    GOOD,
    coco,
    columns,
    encoded,
    folders,
    parquet,
    put,
    table,
    write_images,
    yolo,
)  # fmt: skip


def changed(file: Path, old: str, new: str) -> None:
    text = file.read_text("utf-8")
    assert old in text
    file.write_text(text.replace(old, new, 1), "utf-8")


def png_of(height: int, width: int) -> bytes:
    """Return a PNG of a few bytes whose header states a huge size."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    body = b"IDAT" + zlib.compress(b"\0" * 1000)
    chunks = b"".join(
        struct.pack(">I", len(c) - 4) + c + struct.pack(">I", zlib.crc32(c))
        for c in (head, body, b"IEND")
    )
    return b"\x89PNG\r\n\x1a\n" + chunks


# Ways to break it.


def link(root: Path, name: str, to: str) -> Path:
    folders(root)
    (root / name).symlink_to(to)
    return root


def pipe(root: Path) -> Path:
    folders(root)
    os.mkfifo(root / "red_shirt" / "7.png")
    return root


def with_file(root: Path, name: str | bytes, data: bytes) -> Path:
    folders(root)
    file = Path(os.fsdecode(os.path.join(os.fsencode(root), os.fsencode(name))))
    put(file, data)
    return root


def empty_class(root: Path) -> Path:
    (folders(root) / "green_shirt").mkdir()
    return root


def linked_row(root: Path) -> Path:
    file = table(root, "7.png,red;shirt")
    (root / "7.png").symlink_to("/etc/passwd")
    return file


def leak(root: Path) -> Path:
    rows = [f"{name},{';'.join(labels)},train" for name, labels in GOOD.items()]
    write_images(root)
    put(root / "7.png", encoded(0))
    return put(root / "labels.csv", "\n".join(["path,labels,split", *rows, "7.png,red,test", ""]))


def cut(file: Path, keep: int) -> Path:
    file.write_bytes(file.read_bytes()[:keep])
    return file


def replaced(file: Path, old: str, new: str) -> Path:
    changed(file, old, new)
    return file


def yolo_file(root: Path, name: str, data: bytes | str) -> Path:
    put(yolo(root) / name, data)
    return root


def yolo_yaml(root: Path, old: str, new: str) -> Path:
    changed(yolo(root) / "data.yaml", old, new)
    return root


def zip_slip(root: Path) -> Path:
    with zipfile.ZipFile(root / "data.zip", "w") as archive:
        archive.writestr("red_shirt/1.png", encoded(0))
        archive.writestr("../../escaped.png", encoded(1))
    return root / "data.zip"


def zip_bomb(root: Path) -> Path:
    with zipfile.ZipFile(root / "bomb.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("red_shirt/1.png", b"\0" * 50_000_000)
    return root / "bomb.zip"


def tar_with_a_link(root: Path) -> Path:
    with tarfile.open(root / "data.tar.gz", "w:gz") as archive:
        entry = tarfile.TarInfo("red_shirt")
        entry.type, entry.linkname = tarfile.SYMTYPE, "/etc"
        archive.addfile(entry)
        inside = tarfile.TarInfo("red_shirt/passwd")
        inside.size = 1
        archive.addfile(inside, io.BytesIO(b"x"))
    return root / "data.tar.gz"


@dataclass(frozen=True)
class Case:
    """One broken data set.

    Attributes:
        make: Builds it in a folder and returns the path that a user would name.
        says: A pattern of the error: file and line, or another location.
        skipped: The locations listed with skip_bad; None if the data set is refused even so.
        lost: Good images that are left out with it.
        added: Additional images, with their labels.
    """

    make: Callable[[Path], Path]
    says: str
    skipped: tuple[str, ...] | None = None
    lost: tuple[str, ...] = ()
    added: tuple[tuple[str, tuple[str, ...]], ...] = ()


def append(name: str, entry: object) -> Callable[[dict[str, Any]], object]:
    return lambda document: document[name].append(entry)


BOMB = "a: &a [x, x, x]\nb: &b [*a, *a, *a]\nc: &c [*b, *b, *b]\n"

CASES = {
    "folders: a class without images": Case(
        empty_class, r"green_shirt: the folder has no images", ("green_shirt",)),
    "folders: an image in no class": Case(
        lambda root: with_file(root, "7.png", encoded(7)), r"7\.png: it is not in",
        ("7.png",)),
    "folders: a link to nothing": Case(
        lambda root: link(root, "red_shirt/7.png", "gone.png"), r"red_shirt/7\.png: .*no file",
        ("7.png",)),
    "folders: a link to itself": Case(
        lambda root: link(root, "red_shirt/7.png", "7.png"), r"red_shirt/7\.png: .*no file",
        ("7.png",)),
    "folders: a link back up": Case(
        lambda root: link(root, "red_shirt/up", ".."), r"red_shirt/up: .*link to a folder",
        ("red_shirt/up",)),
    "folders: a link to a file that is not an image": Case(
        lambda root: link(root, "red_shirt/7.png", "/etc/passwd"), r"red_shirt/7\.png",
        ("7.png",)),
    "folders: a link to an endless device": Case(
        lambda root: link(root, "red_shirt/7.png", "/dev/zero"), r"red_shirt/7\.png: .*neither|"
        r"red_shirt/7\.png: .*no file", ("7.png",)),
    "folders: a pipe, which would be waited for": Case(
        pipe, r"red_shirt/7\.png: it is neither", ("7.png",)),
    "folders: a file name that is not UTF-8": Case(
        lambda root: with_file(root, b"red_shirt/\xff7.png", encoded(7)),
        r"red_shirt/\\udcff7\.png: .*not UTF-8", ("7.png",)),
    "folders: a folder name that is not UTF-8": Case(
        lambda root: with_file(root, b"red_\xff/7.png", encoded(7)), r"red_\\udcff: .*not UTF-8",
        ("red_\\udcff",)),
    "folders: a folder name with the separator of tables": Case(
        lambda root: with_file(root, "red;shirt/7.png", encoded(7)), r"red;shirt: .*';'",
        ("red;shirt",)),
    "folders: a folder that names no label": Case(
        lambda root: with_file(root, "_/7.png", encoded(7)), r"/_: .*names no labels", ("/_",)),
    "folders: a photo in JPEG XL": Case(
        lambda root: with_file(root, "red_shirt/7.jxl", b"\xff\x0a" + bytes(60)),
        r"red_shirt/7\.jxl: it is JPEG XL", ("7.jxl",)),
    "folders: HEIC that is called .jpg": Case(
        lambda root: with_file(root, "red_shirt/7.jpg", b"\0\0\0\x18ftypheic\0\0\0\0mif1heic"),
        r"red_shirt/7\.jpg", ("7.jpg",)),
    "folders: a text that is called .jpg": Case(
        lambda root: with_file(root, "red_shirt/7.jpg", b"<html>404</html>"), r"red_shirt/7\.jpg",
        ("7.jpg",)),
    "folders: an image that ends in the middle": Case(
        lambda root: with_file(root, "red_shirt/7.png", encoded(7)[:200]), r"red_shirt/7\.png",
        ("7.png",)),
    "folders: a file without a byte": Case(
        lambda root: with_file(root, "red_shirt/7.png", b""), r"red_shirt/7\.png", ("7.png",)),
    "folders: an image of gigapixels in a few bytes": Case(
        lambda root: with_file(root, "red_shirt/7.png", png_of(60_000, 60_000)),
        r"red_shirt/7\.png", ("7.png",)),
    "csv: a missing image": Case(
        lambda root: table(root, "7.png,red;shirt"), r"labels\.csv, line 8: there is no image",
        ("labels.csv, line 8",)),
    "csv: a row too long and one too short": Case(
        lambda root: table(root, "7.png,red,shirt", "8.png"), r"labels\.csv, line 8: it has 3",
        ("labels.csv, line 8", "labels.csv, line 9")),
    "csv: a quote that never closes": Case(
        lambda root: replaced(table(root), "3.png", '"3.png'), r"labels\.csv, line 4: a quote",
        ("labels.csv, line 4",), ("3.png",)),
    "csv: letters after a quote": Case(
        lambda root: replaced(table(root), "3.png", '"3.png"x'), r"labels\.csv, line 4",
        ("labels.csv, line 4",), ("3.png",)),
    "csv: a byte that is not UTF-8": Case(
        lambda root: table(root, b"\xe97.png,red;shirt"), r"labels\.csv, line 8: .*0xe9",
        ("labels.csv, line 8",)),
    "csv: a NUL": Case(
        lambda root: table(root, "7.png,red\0;shirt"), r"labels\.csv, line 8: .*contains.* NUL",
        ("labels.csv, line 8",)),
    "csv: no path": Case(
        lambda root: table(root, " ,red"), r"labels\.csv, line 8: the path", ("line 8",)),
    "csv: one image with two sets of labels": Case(
        lambda root: table(root, "./1.png,blue;dress"), r"labels\.csv, line 8: .*line 2",
        ("labels.csv, line 8",)),
    "csv: a link to a file that is not an image": Case(
        linked_row, r"7\.png", ("7.png",)),
    "csv: a path to a device": Case(
        lambda root: table(root, "/dev/zero,red"), r"labels\.csv, line 8: there is no image",
        ("labels.csv, line 8",)),
    "csv: a path longer than the system takes": Case(
        lambda root: table(root, "9" * 5000 + ".png,red"), r"labels\.csv, line 8: there is no",
        ("labels.csv, line 8",)),
    "csv: a cell of megabytes": Case(
        lambda root: table(root, f"7.png,{'x' * 3_000_000}"), r"labels\.csv, line 8: field larger",
        ("labels.csv, line 8",)),
    "csv: cut short, in UTF-16": Case(
        lambda root: put(root / "labels.csv", "path,labels\n".encode("utf-16")[:-1]),
        r"labels\.csv', line 1: it is UTF-16"),
    "csv: a column twice": Case(
        lambda root: table(root, header="path,path"), r"labels\.csv', line 1: "),
    "csv: only a header": Case(
        lambda root: put(root / "labels.csv", "path,labels\n"), r"labels\.csv' has no rows"),
    "csv: nothing": Case(lambda root: put(root / "labels.csv", ""), r"labels\.csv', line 1: "),
    "csv: only missing images": Case(
        lambda root: put(root / "labels.csv", "path,labels\n1.png,a\n2.png,b\n"),
        r"labels\.csv, line 2: there is no image"),
    "csv: one image on two sides": Case(leak, r"1\.png' \(train\) and .*7\.png' \(test\)"),
    "columns: a label out of range": Case(
        lambda root: replaced(columns(root), "3.png,0", "3.png,7"),
        r"labels\.csv, line 4: the column 'blue' has '7'", ("labels.csv, line 4",), ("3.png",)),
    "columns: no image has a label": Case(
        lambda root: (
            write_images(root), put(root / "x.csv", "path,a,b\n1.png,0,0\n2.png,0,0\n"))[1],
        r"x\.csv' has a label|No image in .*x\.csv"),
    "parquet: a missing image": Case(
        lambda root: parquet(root, ("7.png", "red")), r"labels\.parquet, row 7: there is no",
        ("labels.parquet, row 7",)),
    "parquet: a row without a path": Case(
        lambda root: parquet(root, ("", "red")), r"labels\.parquet, row 7: the path is empty",
        ("labels.parquet, row 7",)),
    "parquet: a cell of megabytes": Case(
        lambda root: parquet(root, ("7.png", "x" * 3_000_000)), r"labels\.parquet, row 7: a cell",
        ("labels.parquet, row 7",)),
    "parquet: cut short": Case(
        lambda root: cut(parquet(root), 500), r"labels\.parquet' cannot be read as Parquet"),
    "coco: cut short": Case(
        lambda root: cut(coco(root), 900), r"instances\.json, line \d\d"),
    "coco: NaN": Case(
        lambda root: replaced(coco(root), '"id": 3', '"id": NaN'), r"instances\.json: .*NaN"),
    "coco: a key twice": Case(
        lambda root: replaced(coco(root), '"id": 3', '"id": 3, "id": 4'),
        r"instances\.json: .*'id' is duplicated"),
    "coco: nested without end": Case(
        lambda root: put(root / "x.json", "[" * 100_000), r"x\.json: it is nested too deeply"),
    "coco: a number of thousands of digits": Case(
        lambda root: replaced(coco(root), '"id": 3', '"id": ' + "9" * 5000), r"instances\.json: "),
    "coco: no categories": Case(
        lambda root: coco(root, lambda document: document.pop("categories")),
        r"instances\.json: .*no list 'categories'"),
    "coco: one category id twice": Case(
        lambda root: coco(root, append("categories", {"id": 0, "name": "hat"})),
        r"instances\.json, categories\[4\]: the id 0 is duplicated"),
    "coco: an annotation of no image": Case(
        lambda root: coco(root, append("annotations", {"id": 99, "image_id": 9, "category_id": 1})),
        r"instances\.json, annotation 99: .*image with the id 9", ("annotation 99",)),
    "coco: an annotation of no category": Case(
        lambda root: coco(root, append("annotations", {"id": 99, "image_id": 1, "category_id": 9})),
        r"instances\.json, annotation 99: .*category with the id 9", ("annotation 99",)),
    "coco: an annotation that is null": Case(
        lambda root: coco(root, append("annotations", None)),
        r"instances\.json, annotations\[12\]: it is not an object", ("annotations[12]",)),
    "coco: an annotation id twice": Case(
        lambda root: coco(root, append("annotations", {"id": 10, "image_id": 2, "category_id": 0})),
        r"instances\.json, annotation 10: its id", ("annotation 10",)),
    "coco: an image id twice": Case(
        lambda root: coco(root, append("images", {"id": 3, "file_name": "4.png"})),
        r"instances\.json, image 3: its id", ("image 3", "image 3"), ("3.png",)),
    "coco: an image that is not there": Case(
        lambda root: coco(root, append("images", {"id": 9, "file_name": "9.png"})),
        r"instances\.json, image 9: there is no image", ("image 9",)),
    "coco: a file name longer than the system takes": Case(
        lambda root: coco(root, append("images", {"id": 9, "file_name": "9" * 5000})),
        r"instances\.json, image 9: there is no image", ("image 9",)),
    "coco: an image outside": Case(
        lambda root: coco(root, append("images", {"id": 9, "file_name": "../../etc/passwd"})),
        r"instances\.json, image 9: .*leads out", ("image 9",)),
    "yolo: a class out of range": Case(
        lambda root: replaced(yolo(root) / "labels/3.txt", "2 .5", "7 .5").parent.parent,
        r"labels/3\.txt, line 2: the class 7", ("3.txt, line 2",), ("3.png",),
        (("3.png", ("dress",)),)),
    "yolo: words where numbers belong": Case(
        lambda root: replaced(yolo(root) / "labels/3.txt", "2 .5", "red .5").parent.parent,
        r"labels/3\.txt, line 2: 'red", ("3.txt, line 2",), ("3.png",), (("3.png", ("dress",)),)),
    "yolo: labels in UTF-16": Case(
        lambda root: yolo_file(root, "labels/3.txt", "2 .5 .5 .1 .1\n".encode("utf-16")),
        r"labels/3\.txt', line 1: it is UTF-16", ("3.txt",), ("3.png",), (("3.png", ()),)),
    "yolo: labels without an image": Case(
        lambda root: yolo_file(root, "labels/7.txt", "0 .5 .5 .1 .1\n"),
        r"labels/7\.txt: there is no image", ("7.txt",)),
    "yolo: a bomb of aliases": Case(
        lambda root: yolo_yaml(root, "nc: 4\n", BOMB), r"data\.yaml, line 3: aliases"),
    "yolo: invalid yaml": Case(
        lambda root: yolo_yaml(root, "]", ""), r"data\.yaml, line 4: "),
    "yolo: a yaml that would run code": Case(
        lambda root: yolo_yaml(root, "nc: 4", "nc: !!python/object/apply:os.getcwd []"),
        r"data\.yaml, line 2: "),
    "yolo: a count that is wrong": Case(
        lambda root: yolo_yaml(root, "nc: 4", "nc: 5"), r"data\.yaml, line 3: nc is 5"),
    "yolo: a folder that is not there": Case(
        lambda root: yolo_yaml(root, "train: images", "train: gone"),
        r"data\.yaml, line 1: there is no"),
    "yolo: a folder with a name longer than the system takes": Case(
        lambda root: yolo_yaml(root, "train: images", f"path: {'x' * 5000}\ntrain: {'x' * 5000}"),
        r"data\.yaml, line 2: there is no"),
    "yolo: no labels at all": Case(
        lambda root: [path.unlink() for path in (yolo(root) / "labels").iterdir()] and root,
        r"None of 6 images"),
    "anything: a name longer than the system takes": Case(
        lambda root: root / ("9" * 5000), r"9' does not exist"),
    "anything: a pipe": Case(
        lambda root: os.mkfifo(root / "x.csv") or root / "x.csv", r"x\.csv' is neither a file"),
    "anything: an image": Case(
        lambda root: put(root / "1.png", encoded(0)), r"1\.png' is not a data set"),
    "archive: a .zip with a path outside": Case(zip_slip, r"data\.zip' is an archive"),
    "archive: a .zip that expands to gigabytes": Case(zip_bomb, r"bomb\.zip' is an archive"),
    "archive: a .tar.gz with a link": Case(tar_with_a_link, r"data\.tar\.gz' is an archive"),
}  # fmt: skip
