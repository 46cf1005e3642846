"""Folders of images as users really have them, with the labels written by hand."""

from __future__ import annotations

from typing import Any

from tests.field.label_cases import AB, IN_IMAGES, LIST, NFC, NFD, THREE, Case, Labels, under

COCO = (
    '{"images": [{"id": 1, "file_name": "1.jpg"}, {"id": 2, "file_name": "2.jpg"}, '
    '{"id": 3, "file_name": "3.jpg"}], "categories": [{"id": 7, "name": "a"}, {"id": 9, "name": '
    '"b"}], "annotations": [{"id": 1, "image_id": 1, "category_id": 7}, {"id": 2, "image_id": 1, '
    '"category_id": 9}, {"id": 3, "image_id": 2, "category_id": 9}]}'
)
YOLO_LABELS = {"labels/1.txt": "0 .5 .5 1 1\n1 .5 .5 1 1\n", "labels/2.txt": "1 .5 .5 1 1\n",
               "labels/3.txt": ""}  # fmt: skip


def folder(files: tuple[str, ...], labels: Labels | None = None, **more: Any) -> Case:
    return Case({}, labels, files=files, source="", **more)


FOLDERS: dict[str, Case] = {
    "hidden and system files": folder(
        (
            "a/1.jpg",
            "a/.DS_Store",
            "a/._1.jpg",
            "b/2.jpg",
            "b/Thumbs.db",
            "b/desktop.ini",
            "__MACOSX/a/._1.jpg",
            ".git/x.jpg",
            "@eaDir/1.jpg",
            "a/@eaDir/1.jpg",
            "$RECYCLE.BIN/1.jpg",
            "b/.ipynb_checkpoints/1.jpg",
        ),
        {"a/1.jpg": ("a",), "b/2.jpg": ("b",)},
    ),
    "upper-case suffixes": folder(
        ("a/1.JPG", "b/2.JPEG", "b/3.Png"),
        {"a/1.JPG": ("a",), "b/2.JPEG": ("b",), "b/3.Png": ("b",)},
    ),
    "blanks and umlauts in names": folder(
        (f"{NFD}/mein bild.jpg", "b/2 (1).jpg"),
        {f"{NFD}/mein bild.jpg": (NFC,), "b/2 (1).jpg": ("b",)},
    ),
    "an empty class": folder(("a/1.jpg", "b/2.jpg", "c/.keep"), refused=r"/c: the folder has no"),
    "an empty class, skipped": folder(
        ("a/1.jpg", "b/2.jpg", "c/.keep"),
        {"a/1.jpg": ("a",), "b/2.jpg": ("b",)},
        options={"skip_bad": True},
    ),
    "a class of texts": folder(("a/1.jpg", "b/2.jpg", "c/x.txt"), refused=r"/c: the folder has no"),
    "a class of one word and of two": folder(
        ("hot_dog/1.jpg", "cat/2.jpg"),
        {"hot_dog/1.jpg": ("hot_dog",), "cat/2.jpg": ("cat",)},
        options={"delimiter": "/"},
    ),
    "train and valid": folder(
        ("train/a/1.jpg", "train/b/2.jpg", "valid/a/3.jpg"),
        {"train/a/1.jpg": ("a",), "train/b/2.jpg": ("b",), "valid/a/3.jpg": ("a",)},
        split=("train", "train", "val"),
    ),
    "Train and Test in upper case": folder(
        ("Train/a/1.jpg", "Train/b/2.jpg", "TEST/a/3.jpg"),
        {"Train/a/1.jpg": ("a",), "Train/b/2.jpg": ("b",), "TEST/a/3.jpg": ("a",)},
        split=("train", "train", "test"),
    ),
    "images next to a table": Case(
        {"labels.csv": LIST}, files=IN_IMAGES, source="", refused=r"Did you mean '.*labels\.csv'"
    ),
    "loose images next to a table": Case(
        {"notes.csv": "x,y\n1,2\n", "tags.csv": LIST},
        source="",
        refused=r"Did you mean '.*tags\.csv'",
    ),
    "images below their table": Case(
        {"labels.csv": LIST},
        files=IN_IMAGES,
        source="images",
        refused=r"Did you mean '.*labels\.csv'",
    ),
    "COCO next to images": Case({"result.json": COCO}, AB, source="result.json"),
    "COCO in annotations": Case(
        {"annotations/instances_default.json": COCO},
        under("../images", AB),
        files=IN_IMAGES,
        source="annotations/instances_default.json",
    ),
    "COCO in a folder": Case(
        {"annotations/instances_train.json": COCO},
        under("images/train", AB),
        files=tuple(f"images/train/{n}" for n in THREE),
        source="",
    ),
    "COCO of Roboflow": Case(
        {"train/_annotations.coco.json": COCO},
        under("train", AB),
        files=tuple(f"train/{n}" for n in THREE),
        source="",
    ),
    "COCO in an unknown place": Case(
        {"coco.json": COCO}, files=IN_IMAGES, source="", refused=r"Did you mean '.*coco\.json'"
    ),
    "YOLO with data.yaml": Case(
        {"data.yaml": "train: images\nval: images\nnames: [a, b]\n", **YOLO_LABELS},
        under("images", AB),
        files=IN_IMAGES,
        source="",
    ),
    "YOLO with names by number": Case(
        {"data.yaml": "path: .\ntrain: images\nnames:\n  0: a\n  1: b\n", **YOLO_LABELS},
        under("images", AB),
        files=IN_IMAGES,
        source="data.yaml",
    ),
    "YOLO with classes.txt": Case(
        {"classes.txt": "a\nb\n", **YOLO_LABELS},
        under("images", AB),
        files=IN_IMAGES,
        source="",
    ),
    "YOLO without names": Case(
        {**YOLO_LABELS}, files=IN_IMAGES, source="", refused=r"neither a data\.yaml nor a classes"
    ),
    "YOLO of Roboflow": Case(
        {
            "data.yaml": "train: ../train/images\nval: ../valid/images\nnc: 2\nnames: ['a', 'b']\n",
            "train/labels/1.txt": "0 .5 .5 1 1\n",
            "valid/labels/2.txt": "1 .5 .5 1 1\n",
        },
        {"train/images/1.jpg": ("a",), "valid/images/2.jpg": ("b",)},
        files=("train/images/1.jpg", "valid/images/2.jpg"),
        source="",
        split=("train", "val"),
    ),
    "YOLO of Darknet, as CVAT exports it": Case(
        {
            "obj.names": "a\nb\n",
            "obj.data": "classes = 2\n",
            "train.txt": "data/obj_train_data/1.jpg\ndata/obj_train_data/2.jpg\n",
            "obj_train_data/1.txt": "0 .5 .5 1 1\n",
            "obj_train_data/2.txt": "1 .5 .5 1 1\n",
        },
        {"obj_train_data/1.jpg": ("a",), "obj_train_data/2.jpg": ("b",)},
        files=("obj_train_data/1.jpg", "obj_train_data/2.jpg"),
        source="",
    ),
    "YOLO next to images": Case(
        {"1.txt": "0 .5 .5 1 1\n1 .5 .5 1 1\n", "2.txt": "1 .5 .5 1 1\n", "classes.txt": "a\nb\n"},
        AB,
        source="",
    ),
    "YOLO with paths of another machine": Case(
        {"data.yaml": "train: /content/set/images\nnames: [a, b]\n", **YOLO_LABELS},
        under("images", AB),
        files=IN_IMAGES,
        source="",
    ),
    "YOLO with a .yaml of another name": Case(
        {"pets.yaml": "train: images\nnames: [a, b]\n", **YOLO_LABELS},
        files=IN_IMAGES,
        source="",
        refused=r"Did you mean '.*pets\.yaml'",
    ),
    "Ultralytics classify with names only": Case(
        {"data.yaml": "nc: 2\nnames: [a, b]\n"},
        {"train/a/1.jpg": ("a",), "train/b/2.jpg": ("b",), "val/a/3.jpg": ("a",)},
        files=("train/a/1.jpg", "train/b/2.jpg", "val/a/3.jpg"),
        source="",
        split=("train", "train", "val"),
    ),
    "a data.yaml of nothing": Case(
        {"data.yaml": "nc: 2\nnames: [a, b]\n"},
        files=("cats/1.jpg", "dogs/2.jpg"),
        source="",
        refused=r"names no train, val or test",
    ),
    "Ultralytics classify with another class": Case(
        {"data.yaml": "train: train\nval: val\nnames: [a, b]\n"},
        files=("train/a/1.jpg", "train/c/2.jpg", "val/a/3.jpg"),
        source="",
        refused=r"data\.yaml must name 'c'",
    ),
    "Ultralytics classify": Case(
        {"data.yaml": "path: .\ntrain: train\nval: val\nnames: {0: a, 1: b}\n"},
        {"train/a/1.jpg": ("a",), "train/b/2.jpg": ("b",), "val/a/3.jpg": ("a",)},
        files=("train/a/1.jpg", "train/b/2.jpg", "val/a/3.jpg"),
        source="",
        split=("train", "train", "val"),
    ),
    "VOCdevkit": Case(
        {"VOCdevkit/VOC2007/Annotations/1.xml": "<annotation></annotation>"},
        files=("VOCdevkit/VOC2007/JPEGImages/1.jpg", "VOCdevkit/VOC2012/JPEGImages/2.jpg"),
        source="",
        refused=r"Did you mean '.*VOC2007'",
    ),
    "the annotations of VOC": Case(
        {"Annotations/1.xml": "<annotation></annotation>"},
        files=("JPEGImages/1.jpg",),
        source="Annotations",
        refused=r"Did you mean '.*[^s]'\?",
    ),
    "VOC with xmls, as Kaggle has it": Case(
        {
            f"annotations/xmls/{n}.xml": f"<annotation><object><name>{name}</name></object>"
            "</annotation>"
            for n, name in ((1, "a"), (2, "b"), (3, "a"))
        },
        {"images/1.jpg": ("a",), "images/2.jpg": ("b",), "images/3.jpg": ("a",)},
        files=IN_IMAGES,
        source="",
    ),
    "an archive": Case({"data.zip": "PK"}, source="data.zip", refused=r"unpack it and name the fo"),
    "a spreadsheet": Case({"data.xlsx": "PK"}, source="data.xlsx", refused=r"save it as \.csv"),
}
