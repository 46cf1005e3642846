"""Any readable data set, written as a table of our own."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from edgeml.data.dataset import Dataset
from edgeml.data.readers.find import contains_images
from edgeml.data.split_file import table_text
from edgeml.errors import InputError
from edgeml.files import check_writable, staged, write_text


def convert(
    source: Path, out: Path, *, read: Callable[..., Dataset], overwrite: bool = False
) -> Dataset:
    """Write a data set as a .csv that reads back equal: images, labels, groups and split.

    Images that a Parquet file contains are written to a new folder `images` next to the .csv;
    other images stay where they are.

    Args:
        source: A file or folder of any format.
        out: The .csv to write.
        read: Reads the source, with the argument `unpack` of `read_dataset`.
        overwrite: Replace an existing .csv; images are never replaced.

    Raises:
        DataError: The source cannot be read, or a name in it cannot be written.
        InputError: `out` is no .csv, exists, or cannot be written; or the folder of images exists.
    """
    out = Path(os.path.abspath(out))
    if out.suffix.lower() != ".csv":
        raise InputError(f"--out is {out.name!r}; it must end in .csv.")
    if out.exists() and not overwrite:
        raise InputError(f"{str(out)!r} exists: choose another name, or pass --overwrite.")
    if not contains_images(source):
        dataset = read(source)
        write_text(out, table_text(dataset, out.parent))
        return dataset
    images = out.parent / "images"
    if os.path.lexists(images):
        raise InputError(f"{str(images)!r} exists, where the images belong: choose another folder.")
    check_writable(out)
    with staged(images) as temporary:
        dataset = read(source, unpack=temporary)
        paths = tuple(
            images / path.relative_to(temporary) if path.is_relative_to(temporary) else path
            for path in dataset.paths
        )
        dataset = replace(dataset, root=out.parent, paths=paths)
        text = table_text(dataset, out.parent)
    write_text(out, text)
    return dataset
