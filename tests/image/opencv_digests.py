"""What the OpenCV that is imported makes of files and frames, as digests, for another to compare.

python -m tests.image.opencv_digests FOLDER
"""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path

import cv2
from numpy.typing import NDArray

from edgeml.errors import ImageError
from edgeml.image.jpeg import encode_jpeg
from edgeml.image.preprocess import Preprocess
from edgeml.image.reading import read_image
from tests.image.corpus import encoded, picture, write_corpus

PREPROCESSES = {
    f"{mode} {interpolation} {size}": Preprocess(
        size=(size, size),
        resize=mode,  # type: ignore[arg-type]
        interpolation=interpolation,  # type: ignore[arg-type]
    )
    for mode in ("squash", "crop", "letterbox")
    for interpolation in ("linear", "cubic")
    for size in (64, 224)
}


def write_pictures(folder: Path) -> None:
    """Write the corpus, and pictures that are large enough to be halved and decoded scaled."""
    write_corpus(folder)
    for height, width in ((480, 640), (481, 643), (1080, 1920)):
        (folder / f"large{width}.jpg").write_bytes(encoded(picture(height, width), "JPEG"))


def digests(folder: Path) -> dict[str, str]:
    """Give a digest, or the reason of the error, for each file and what is made of it."""
    found = {"OpenCV": cv2.__version__}
    for file in sorted(folder.iterdir()):
        try:
            frame = read_image(file)
        except ImageError as err:
            found[file.name] = err.reason
            continue
        found[file.name] = _digest(frame)
        if file.name.startswith("large"):
            found[f"{file.name}, encoded"] = hashlib.sha256(encode_jpeg(frame)).hexdigest()
            for name, preprocess in PREPROCESSES.items():
                scaled = read_image(file, at_least=preprocess.min_decode_size)
                found[f"{file.name}, {name}, scaled"] = _digest(scaled)
                found[f"{file.name}, {name}"] = _digest(preprocess([frame, scaled]))
    return found


def _digest(array: NDArray[object]) -> str:
    return f"{array.shape} {hashlib.sha256(array.tobytes()).hexdigest()}"


if __name__ == "__main__":
    print(json.dumps(digests(Path(sys.argv[1]))))
