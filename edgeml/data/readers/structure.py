"""Names of folders that arrange a data set, and so are not labels: train, images, annotations."""

from __future__ import annotations

import re

_WORDS = {
    "train", "training", "test", "testing", "val", "valid", "validation", "dev", "sample",
    "samples", "image", "images", "img", "imgs", "jpegimages", "pngimages", "rawimages", "pictures",
    "label", "labels", "annotation", "annotations", "bbox", "bboxes", "masks", "segmentation",
    "segmentations", "segmentationclass", "segmentationobject", "imagesets", "data", "dataset",
    "datasets", "obj",
}  # fmt: skip


def is_structural(name: str) -> bool:
    """Whether a folder's name consists of words that arrange data: `train`, `sample_images`."""
    words = re.split(r"[\s_.-]+|\d+", name.lower())
    return any(words) and all(word in _WORDS for word in words if word)
