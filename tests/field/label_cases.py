"""Label tables as users really have them, with the labels written by hand."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

THREE = ("1.jpg", "2.jpg", "3.jpg")
Labels = Mapping[str, tuple[str, ...]]
AB: Labels = {"1.jpg": ("a", "b"), "2.jpg": ("b",), "3.jpg": ()}
ONE: Labels = {"1.jpg": ("a",), "2.jpg": ("b",), "3.jpg": ("a",)}
COLUMNS = "path,a,b\n1.jpg,1,1\n2.jpg,0,1\n3.jpg,0,0\n"


@dataclass(frozen=True)
class Case:
    """What is on disk, and what must be read from it.

    Attributes:
        texts: The tables by name: text is written as UTF-8.
        labels: The labels of each image by its path; None if it is refused.
        refused: What the error must name: the place, and the remedy.
        files: Images, and other files.
        source: What the user names, relative to the folder of all of it.
        split: The side of each image in `labels`.
        unknown: The pairs of image and label that are unknown.
        options: Those of `read_dataset`.
    """

    texts: Mapping[str, str | bytes]
    labels: Labels | None = None
    refused: str = ""
    files: tuple[str, ...] = THREE
    source: str = "labels.csv"
    split: tuple[str, ...] | None = None
    unknown: frozenset[tuple[str, str]] = frozenset()
    options: Mapping[str, Any] = field(default_factory=dict)


def csv(text: str | bytes, labels: Labels | None = AB, refused: str = "", **more: Any) -> Case:
    return Case({"labels.csv": text}, None if refused else labels, refused, **more)


def under(folder: str, labels: Labels) -> Labels:
    return {f"{folder}/{path}": names for path, names in labels.items()}


NFC, NFD = (unicodedata.normalize(form, "größe") for form in ("NFC", "NFD"))
LIST = "path,labels\n1.jpg,a;b\n2.jpg,b\n3.jpg,\n"
SINGLE = "path,label\n1.jpg,a\n2.jpg,b\n3.jpg,a\n"
CELLS = "path,a,b\n1.jpg,{1},{1}\n2.jpg,{0},{1}\n3.jpg,{0},{0}\n"
ABS = "path,labels\n{0}1.jpg,a;b\n{0}2.jpg,b\n{0}3.jpg,\n"
IN_IMAGES = tuple(f"images/{name}" for name in THREE)

TABLES: dict[str, Case] = {
    # Encodings and lines
    "byte order mark": csv("\ufeff" + LIST),
    "CRLF": csv(LIST.replace("\n", "\r\n")),
    "old Mac lines": csv(LIST.replace("\n", "\r")),
    "no line feed at the end": csv(LIST.rstrip("\n")),
    "UTF-16 with tabs, as Excel's Unicode text": csv(LIST.replace(",", "\t").encode("utf-16")),
    "UTF-16 big-endian": csv(b"\xfe\xff" + LIST.encode("utf-16-be")),
    "latin-1 umlaut": csv(
        "path,labels\n1.jpg,grün\n2.jpg,rot\n".encode("latin-1"),
        refused=r"line 2: the byte 0xfc is not UTF-8; save the file as UTF-8",
    ),
    "quoted line feed in a caption": csv(
        'path,labels,caption\n1.jpg,a;b,"two\nlines"\n2.jpg,b,one\n3.jpg,,\n'
    ),
    "empty lines": csv("\n" + LIST.replace("\n", "\n\n") + "\n\n"),
    "empty rows and columns of a spreadsheet": csv(
        "path,labels,,\n1.jpg,a;b,,\n2.jpg,b,,\n3.jpg,,,\n,,,\n,,,\n"
    ),
    "more empty cells than the header": csv("path,labels\n1.jpg,a;b,\n2.jpg,b,,\n3.jpg,\n"),
    "blanks after commas": csv("path, labels\n1.jpg, a;b\n2.jpg, b\n3.jpg, \n"),
    # Delimiters
    "semicolons": csv(COLUMNS.replace(",", ";")),
    "semicolons and decimal commas": csv(
        COLUMNS.replace(",", ";").replace(";1", ";1,0").replace(";0", ";0,0")
    ),
    "semicolons and commas between labels": csv(
        "path;labels\n1.jpg;a,b\n2.jpg;b\n3.jpg;\n", refused=r"--separator ','"
    ),
    "semicolons and the option": csv(
        "path;labels\n1.jpg;a,b\n2.jpg;b\n3.jpg;\n", options={"separator": ","}
    ),
    "semicolons quoted": csv('"path";"labels"\n"1.jpg";"a;b"\n"2.jpg";"b"\n"3.jpg";""\n'),
    "sep= of Excel": csv("sep=;\r\n" + COLUMNS.replace(",", ";").replace("\n", "\r\n")),
    "bars": csv(COLUMNS.replace(",", "|")),
    "tabs": Case({"labels.tsv": LIST.replace(",", "\t")}, AB, source="labels.tsv"),
    "tabs in a .csv": csv(LIST.replace(",", "\t")),
    # Headers
    "duplicated header": csv(
        "path,a,a\n1.jpg,1,0\n2.jpg,0,1\n", refused=r"line 1: the column 'a' is duplicated"
    ),
    "duplicated header, as pandas writes it": csv(
        "path,label,label.1\n1.jpg,a,b\n2.jpg,b,\n", refused=r"line 1: the column 'label\.1'"
    ),
    "unquoted semicolons": csv(
        "path;labels\n1.jpg;a;b\n2.jpg;b\n", refused=r"line 2: it has 3 fields.*in quotes"
    ),
    "header only": csv("path,labels\n", refused=r"labels\.csv' has no rows below its header"),
    "no header": csv("1.jpg,a\n2.jpg,b\n3.jpg,a\n", refused=r"line 1: .*Expected path,labels"),
    "empty file": csv("", refused=r"line 1: .*Expected path,labels"),
    "upper-case header": csv("PATH,LABELS\n1.jpg,a;b\n2.jpg,b\n3.jpg,\n"),
    "index of pandas": csv(",path,labels\n0,1.jpg,a;b\n1,2.jpg,b\n2,3.jpg,\n"),
    "index of pandas and columns": csv(",path,a,b\n0,1.jpg,1,1\n1,2.jpg,0,1\n2,3.jpg,0,0\n"),
    "width and height": csv(
        "filename,width,height,class\n1.jpg,9,9,a\n2.jpg,9,9,b\n3.jpg,9,9,a\n", ONE
    ),
    # Cells
    "0 and 1": csv(CELLS.replace("{0}", "0").replace("{1}", "1")),
    "True and False": csv(CELLS.replace("{0}", "False").replace("{1}", "True")),
    "TRUE and FALSE": csv(CELLS.replace("{0}", "FALSE").replace("{1}", "TRUE")),
    "yes and no": csv(CELLS.replace("{0}", "no").replace("{1}", "Yes")),
    "1.0 and 0.0": csv(CELLS.replace("{0}", "0.0").replace("{1}", "1.0")),
    "x and nothing": csv(
        CELLS.replace("{0}", "").replace("{1}", "x"), refused=r"line 2: the column 'a' has 'x'"
    ),
    "probabilities": csv(
        "path,a,b\n1.jpg,0.9,0.1\n2.jpg,0.2,0.7\n", refused=r"line 2: the column 'a' has '0\.9'"
    ),
    "counts": csv("path,a,b\n1.jpg,2,0\n2.jpg,0,1\n", refused=r"line 2: the column 'a' has '2'"),
    "-1 is unknown": csv(
        "path,a,b\n1.jpg,1,1\n2.jpg,-1,1\n3.jpg,0,0\n", unknown=frozenset({("2.jpg", "a")})
    ),
    "empty is unknown": csv(
        "path,a,b\n1.jpg,1,1\n2.jpg,,1\n3.jpg,0,0\n", unknown=frozenset({("2.jpg", "a")})
    ),
    "1 and -1 of CelebA": csv(
        COLUMNS.replace("0", "-1"), refused=r"no cell is 0.*Write 0 where a label is absent"
    ),
    "JSON lists": csv('path,labels\n1.jpg,"[""a"", ""b""]"\n2.jpg,"[""b""]"\n3.jpg,[]\n'),
    "Python lists": csv("path,labels\n1.jpg,\"['a', 'b']\"\n2.jpg,['b']\n3.jpg,[]\n"),
    "lists without quotes": csv(
        'path,labels\n1.jpg,"[a, b]"\n2.jpg,[b]\n', refused=r"line 2: .*looks like a list"
    ),
    "mixed separators": csv(
        'path,labels\n1.jpg,a;b\n2.jpg,"a,c"\n3.jpg,a\n', refused=r"--separator ',', or --separator"
    ),
    "labels with commas": csv(
        'path,labels\n1.jpg,"red, dark"\n2.jpg,b\n3.jpg,b\n',
        {"1.jpg": ("red, dark",), "2.jpg": ("b",), "3.jpg": ("b",)},
        options={"separator": ";"},
    ),
    "words that share": csv(
        "path,labels\n1.jpg,hot dog\n2.jpg,dog\n", refused=r"--separator ' ', or --separator ';'"
    ),
    "a separator at the end": csv("path,labels\n1.jpg,a;b;\n2.jpg,;b\n3.jpg,;\n"),
    "columns label_0 and label_1": csv("path,label_0,label_1\n1.jpg,a,b\n2.jpg,b,\n3.jpg,,\n"),
    "columns label_0 and label_1 of 0 and 1": csv(
        "path,label_0,label_1\n1.jpg,1,0\n2.jpg,0,1\n3.jpg,0,0\n",
        {"1.jpg": ("label_0",), "2.jpg": ("label_1",), "3.jpg": ()},
    ),
    "numbers with classes.txt": Case(
        {"labels.csv": "path,label\n1.jpg,0\n2.jpg,1\n3.jpg,0\n", "classes.txt": "a\nb\nc\n"}, ONE
    ),
    "numbers beyond classes.txt": Case(
        {"labels.csv": "path,label\n1.jpg,0\n2.jpg,5\n3.jpg,0\n", "classes.txt": "a\nb\nc\n"},
        refused=r"The label 5 has no name: there are 3",
    ),
    "numbers without names": csv(
        "path,label\n1.jpg,0\n2.jpg,1\n3.jpg,0\n",
        {"1.jpg": ("0",), "2.jpg": ("1",), "3.jpg": ("0",)},
    ),
    "lists of numbers with classes.txt": Case(
        {
            "labels.csv": 'path,labels\n1.jpg,"[0, 1]"\n2.jpg,[1]\n3.jpg,[]\n',
            "classes.txt": "a\nb\n",
        },
        AB,
    ),
    "nan as a label": csv(
        "path,label\n1.jpg,a\n2.jpg,nan\n3.jpg,b\n", refused=r"--ignore-labels nan"
    ),
    "nan, ignored": csv(
        "path,label\n1.jpg,a\n2.jpg,nan\n3.jpg,b\n",
        {"1.jpg": ("a",), "2.jpg": (), "3.jpg": ("b",)},
        options={"ignore_labels": ["nan"]},
    ),
    "a column of another name": csv(
        "image_id,sex,dx\n1,f,a\n2,m,b\n3,f,a\n", ONE, options={"labels": ["dx"]}
    ),
    "a column of another name, not chosen": csv(
        "image_id,sex,dx\n1,f,a\n2,m,b\n3,f,a\n", refused=r"'sex' has 'f'.*--labels"
    ),
    "a chosen column with a slip": csv(
        "path,a,b\n1.jpg,1,0\n2.jpg,o,1\n",
        refused=r"line 3: the column 'a' has 'o'",
        options={"labels": ["a", "b"]},
    ),
    # Paths
    "no suffix, as Kaggle's ids": csv("id,label\n1,a\n2,b\n3,a\n", ONE),
    "./ before paths": csv(ABS.replace("{0}", "./")),
    "paths of Windows": csv(ABS.replace("{0}", "images\\"), under("images", AB), files=IN_IMAGES),
    "absolute paths of another machine": csv(ABS.replace("{0}", "/home/ann/data/")),
    "absolute paths of Windows": csv(
        ABS.replace("{0}", "D:\\data\\images\\"), under("images", AB), files=IN_IMAGES
    ),
    "absolute paths to a folder that has moved": csv(
        ABS.replace("{0}", "/home/ann/images/"), under("images", AB), files=IN_IMAGES
    ),
    "paths from a folder above": Case(
        {"data/labels.csv": ABS.replace("{0}", "data/images/")},
        under("images", AB),
        files=tuple(f"data/{name}" for name in IN_IMAGES),
        source="data/labels.csv",
    ),
    "two names of one image": csv(
        "path,labels\n/x/1.jpg,a\n/y/1.jpg,b\n2.jpg,b\n", refused=r"line 3: there is no image"
    ),
    "names in two folders": csv(
        LIST,
        files=("train/1.jpg", "val/1.jpg", "2.jpg", "3.jpg"),
        refused=r"line 2: there is no image",
    ),
    "paths of another side": csv(
        ABS.replace("{0}", "train/"),
        files=tuple(f"test/{n}" for n in THREE),
        refused=r"line 2: there is no image",
    ),
    "upper-case suffix": csv(
        "path,labels\n1.JPG,a;b\n2,b\n",
        {"1.JPG": ("a", "b"), "2.JPG": ("b",)},
        files=("1.JPG", "2.JPG"),
    ),
    "blanks and umlauts": csv(
        "path,labels\nmein bild ä.jpg,a;b\n2.jpg,b\n",
        {"mein bild ä.jpg": ("a", "b"), "2.jpg": ("b",)},
        files=("mein bild ä.jpg", "2.jpg"),
    ),
    "a composed path, decomposed on disk": csv(
        f"path,labels\n{NFC}.jpg,a\n2.jpg,b\n",
        {f"{NFD}.jpg": ("a",), "2.jpg": ("b",)},
        files=(f"{NFD}.jpg", "2.jpg"),
    ),
    "another case": csv(
        "path,labels\nimg.jpg,a\n2.jpg,b\n",
        {"IMG.JPG": ("a",), "2.jpg": ("b",)},
        files=("IMG.JPG", "2.jpg"),
    ),
    "another case of two files": csv(
        "path,labels\nimg.jpg,a\n2.jpg,b\n",
        files=("IMG.JPG", "Img.jpg", "2.jpg"),
        refused=r"line 2: there is no image",
    ),
    "another suffix": csv(
        "path,labels\n1.jpg,a\n2.jpg,b\n",
        files=("1.jpeg", "2.jpg"),
        refused=r"line 2: there is no image",
    ),
    "composed and decomposed labels": csv(
        f"path,labels\n1.jpg,{NFC}\n2.jpg,{NFD};b\n",
        {"1.jpg": (NFC,), "2.jpg": ("b", NFC)},
    ),
    "a URL of an image that is here": csv(
        "path,labels\nhttps://x.org/y/1.jpg?w=9,a\n2.jpg,b\n", {"1.jpg": ("a",), "2.jpg": ("b",)}
    ),
    "a URL": csv(
        "path,labels\nhttps://x.org/9.jpg,a\n2.jpg,b\n",
        refused=r"line 2: there is no image '.*9",
    ),
    # Rows
    "one row per label": csv(
        "path,label\n1.jpg,a\n1.jpg,b\n2.jpg,b\n2.jpg,b\n",
        {"1.jpg": ("a", "b"), "2.jpg": ("b",)},
    ),
    "two rows that differ": csv(
        "path,labels\n1.jpg,a;b\n2.jpg,b\n1.jpg,b\n", refused=r"line 4: .*line 2"
    ),
    "a row with more cells": csv(
        "path,labels\n1.jpg,a,b\n2.jpg,b\n", refused=r"line 2: it has 3 fields, the first"
    ),
    "a row with fewer cells": csv(
        "path,a,b\n1.jpg,1\n2.jpg,0,1\n", refused=r"line 2: it has 2 fields, the first line has 3"
    ),
    "splits by any name": csv(
        "path,label,Subset\n1.jpg,a,train\n2.jpg,b,valid\n3.jpg,a,test\n",
        ONE,
        split=("train", "val", "test"),
    ),
    "lines of JSON": Case(
        {
            "labels.jsonl": '{"image": "1.jpg", "labels": ["a", "b"]}\n'
            '{"image": "2.jpg", "labels": ["b"]}\n\n{"image": "3.jpg", "labels": []}\n'
        },
        AB,
        source="labels.jsonl",
    ),
}

TABLES |= {
    "a list of objects": Case(
        {
            "labels.json": '[{"image": "1.jpg", "labels": ["a", "b"]}, '
            '{"image": "2.jpg", "labels": ["b"]}, {"image": "3.jpg", "labels": []}]'
        },
        AB,
        source="labels.json",
    ),
    "labels by image": Case(
        {"labels.json": '{"1.jpg": ["a", "b"], "2.jpg": "b", "3.jpg": []}'},
        AB,
        source="labels.json",
    ),
    "a table for each side": Case(
        {
            "train.csv": "path,labels\n1.jpg,a;b\n2.jpg,b\n",
            "val.csv": "path,labels\n3.jpg,\n",
        },
        AB,
        source="",
        split=("train", "train", "val"),
    ),
    "a table of images without labels next to that of training": Case(
        {"train.csv": LIST, "test.csv": "path\n9.jpg\n"},
        source="",
        refused=r"Did you mean '.*train\.csv'",
    ),
    "fastai's columns": csv(
        "fname,labels,is_valid\n1.jpg,a b,False\n2.jpg,b,True\n3.jpg,a,False\n",
        {"1.jpg": ("a", "b"), "2.jpg": ("b",), "3.jpg": ("a",)},
        split=("train", "val", "train"),
        options={"separator": "space"},
    ),
    "an object of another tool": Case(
        {"labels.json": '{"version": "5.0", "shapes": [], "imagePath": "1.jpg"}'},
        source="labels.json",
        refused=r"no list 'images'.*Label Studio",
    ),
}
