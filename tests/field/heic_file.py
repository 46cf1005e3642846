"""A HEIC of 64 x 80 pixels, and the same turned: pi-heif, which reads it, cannot write one."""

from __future__ import annotations

import base64
import struct

HEIC = base64.b64decode(
    """
AAAAHGZ0eXBoZWljAAAAAG1pZjFoZWljbWlhZgAAAVZtZXRhAAAAAAAAACFoZGxyAAAAAAAAAABwaWN0AAAAAAAAAAAAAAAA
AAAAACJpbG9jAAAAAERAAAEAAQAAAAABegABAAAAAAAAAM4AAAAjaWluZgAAAAAAAQAAABVpbmZlAgAAAAABAABodmMxAAAA
AA5waXRtAAAAAAABAAAA1mlwcnAAAAC3aXBjbwAAAHhodmNDAQNwAAAAkAAAAAAAHvAA/P34+AAADwNgAAEAGEABDAH//wNw
AAADAJAAAAMAAAMAHroCQGEAAQArQgEBA3AAAAMAkAAAAwAAAwAeoCiBBZbqSSmubgIaDAgAAAMAyAAAAwAIQGIAAQAHRAHB
crAiQAAAABNjb2xybmNseAABAA0ABoAAAAAUaXNwZQAAAAAAAABQAAAAQAAAABBwaXhpAAAAAAMICAgAAAAXaXBtYQAAAAAA
AAABAAEEgQIDBAAAANZtZGF0AAAAyigBrzb1Mrg872BIUD+ihjvNt2xAXC+DuUsxkeGrCNmIuMFEMjVFqKzKk07YW3LP/IjN
IwsgBBKsFDXX3uXT9MNg8cfmYLsIKNs07HrUX2icQYwNBFe28L4PWzhXoRH8e2DPVhvmb7H0pAS2FamY/RhjxCr7wHMOn6wF
mjHzI5X95r/vWKeReYKEnlKs6ejTM/9n4EXA/WbnLkfVGdYWjnOiShODi1PqNbvzOnezSR00KiUFlUxlKOEJTzVjo0Nl/dSy
Rs5k4ySXkE8=
"""
)
"""`tests.image.corpus.picture(64, 80)` as pillow-heif encodes it with quality 35."""


def turned_heic(angle: int, axis: int | None = None) -> bytes:
    """Add properties to the image (ISO/IEC 23008-12, 6.5.10, 6.5.12): irot, and perhaps imir."""
    added = struct.pack(">I4sB", 9, b"irot", angle)
    if axis is not None:
        added += struct.pack(">I4sB", 9, b"imir", axis)
    count = 1 if axis is None else 2
    data, properties = bytearray(HEIC), HEIC.index(b"ipco")
    (length,) = struct.unpack_from(">I", HEIC, properties - 4)
    there, position = 0, properties + 4
    while position < properties - 4 + length:
        there, position = there + 1, position + struct.unpack_from(">I", HEIC, position)[0]
    links = HEIC.index(b"ipma")
    numbers = bytes(0x80 | there + 1 + i for i in range(count))
    end = links - 4 + struct.unpack_from(">I", HEIC, links - 4)[0]
    data[links + 14] += count  # the properties of the one image
    data[end:end] = numbers
    data[position:position] = added
    grown = len(added) + count
    for kind, by in ((b"meta", grown), (b"iprp", grown), (b"ipco", len(added)), (b"ipma", count)):
        at = data.index(kind) - 4
        struct.pack_into(">I", data, at, struct.unpack_from(">I", data, at)[0] + by)
    start = HEIC.index(b"mdat") + 4
    at = data.index(struct.pack(">I", start), data.index(b"iloc"))
    struct.pack_into(">I", data, at, start + grown)
    return bytes(data)
