"""CVAT for images 1.1: the tags of an image, and the classes of its shapes, are its labels."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import Element

from edgeml.data.dataset import Dataset
from edgeml.data.readers.image_places import ImagePlaces
from edgeml.data.readers.rows import (
    SIDE_OF_FOLDER,
    Row,
    SkipLog,
    described_dataset,
    label_fault,
    label_name,
    printable,
    skip_or_raise,
)
from edgeml.data.readers.xml_file import read_xml, text_of
from edgeml.errors import DataError

_SHAPES = ("tag", "box", "polygon", "polyline", "points", "ellipse", "mask", "cuboid", "skeleton")


def find_cvat(root: Path) -> Path | None:
    """Return the `annotations.xml` of a folder, if there is one of CVAT's."""
    file = root / "annotations.xml"
    try:
        with open(file, "rb") as opened:
            return file if b"<annotations" in opened.read(4096) else None
    except OSError:
        return None


def read_cvat(file: Path, *, skips: SkipLog) -> Dataset:
    """Read an `annotations.xml`, whose images are next to it or in `images/`.

    The labels are those of the task or project, also those on no image; attributes are not read. An
    image without a tag or shape has no label. The `subset` of an image is its side of the split.

    Raises:
        DataError: It is not CVAT's XML for images, or contains the tracks of a video.
    """
    name = printable(file.name)
    root = read_xml(file, name)
    if root.tag == "annotation":
        raise DataError(f"{name} is the VOC file of one image: name the folder of all.")
    if root.tag != "annotations" or root.find("image") is None:
        what = "the tracks of a video" if root.find("track") is not None else "no images"
        raise DataError(f"{name} has {what}; export it from CVAT as 'CVAT for images 1.1'.")
    known = [label_name(text_of(label, "name")) for label in root.iterfind("meta//labels/label")]
    places = ImagePlaces(file.parent, ("..", "../images"))
    rows = []
    attributes = 0
    for number, image in enumerate(root.iterfind("image")):
        where = f"{name}, image {image.get('id', str(number))[:80]}"
        shapes = [shape for shape in image if shape.tag in _SHAPES]
        attributes += any(shape.find("attribute") is not None for shape in shapes)
        labels = tuple(dict.fromkeys(label_name(shape.get("label", "")) for shape in shapes))
        fault = next((why for label in labels if (why := label_fault(label))), None)
        if fault:
            skip_or_raise(skips, where, f"a tag cannot be a label: {fault}.")
        elif not image.get("name", "").strip():
            skip_or_raise(skips, where, "it has no name.")
        else:
            path = _place(places, image)
            side = SIDE_OF_FOLDER.get(image.get("subset", "").lower(), "")
            rows.append(Row(where, path, labels, split=side))
    notes = places.notes()
    if attributes:
        notes.append(f"the attributes of tags and shapes are not read ({attributes} images)")
    if empty := sum(not row.present for row in rows):
        notes.append(f"{empty} of {len(rows)} images have no tag, and so no label")
    names = {*known, *(label for row in rows for label in row.present)} - {""}
    origin = f"the tags and shapes of {name}"
    return described_dataset(
        rows, root=file.parent, labels=names, origin=origin, notes=notes, skips=skips
    )


def _place(places: ImagePlaces, image: Element) -> str:
    """Return the path of an image; a project's export has a folder for each subset."""
    name, subset = image.get("name", ""), image.get("subset", "")
    inner = places.find(f"{subset}/{name}") if subset else ""
    return inner if inner and Path(inner).is_file() else places.find(name)
