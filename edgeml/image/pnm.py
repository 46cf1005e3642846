"""The header of PBM, PGM and PPM, the formats of Netpbm."""

from __future__ import annotations

import re
from typing import NamedTuple

from edgeml.errors import ImageError

_TOKEN = re.compile(rb"(?:\s|#[^\n\r]*[\n\r])*(\d{1,10})(?!\d)")


class PnmFacts(NamedTuple):
    """What a header states; `text` if the samples are written as decimal numbers."""

    height: int
    width: int
    bits: int
    samples: int
    text: bool
    min_bytes: int


def read_pnm(data: bytes) -> PnmFacts:
    """Read the header (Netpbm's pbm(5), pgm(5), ppm(5)).

    Raises ImageError if it is damaged, or if its largest value is neither 255 nor 65535: OpenCV
    would take the samples as they are.
    """
    kind, position, found = data[1] - ord("0"), 2, []
    for _ in range(2 if kind in (1, 4) else 3):
        token = _TOKEN.match(data, position, position + 4096)
        if token is None:
            raise ImageError("its header is cut short")
        found.append(int(token[1]))
        position = token.end()
    width, height, largest = (*found, 1)[:3]
    if kind not in (1, 4) and largest not in (255, 65535):
        raise ImageError(
            f"it is a {'PPM' if kind in (3, 6) else 'PGM'} with values up to {largest}; those up "
            "to 255 and 65535 are read",
            reason="unsupported",
        )
    samples, bits = 3 if kind in (3, 6) else 1, {1: 1, 255: 8}.get(largest, 16)
    values = height * width * samples
    room = {1: values, 2: 2 * values, 3: 2 * values, 4: height * -(-width // 8)}
    min_bytes = position + room.get(kind, values * bits // 8)
    return PnmFacts(height, width, bits, samples, kind < 4, min_bytes)
