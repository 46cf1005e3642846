"""XML files: parsed within limits, and without a DOCTYPE, whose entities may expand to any size."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from edgeml.errors import DataError

_MAX_BYTES = 1 << 28


class _Builder(ElementTree.TreeBuilder):
    def doctype(self, *_: Any) -> None:
        raise ValueError("it has a DOCTYPE, which annotations do not need")


def read_xml(file: Path, name: str) -> ElementTree.Element:
    """Read an XML file of at most 256 MiB; `name` stands for it in errors.

    Raises:
        DataError: It cannot be read, is not XML, or has a DOCTYPE.
    """
    parser = ElementTree.XMLParser(target=_Builder())
    try:
        with open(file, "rb") as opened:
            size = 0
            while chunk := opened.read(1 << 16):
                size += len(chunk)
                if size > _MAX_BYTES:
                    raise DataError(f"{name} is larger than {_MAX_BYTES >> 20} MiB, the limit.")
                parser.feed(chunk)
        root: ElementTree.Element = parser.close()
    except OSError as err:
        raise DataError(f"Cannot read {name}: {err.strerror}.") from err
    except ElementTree.ParseError as err:
        raise DataError(f"{name}, line {err.position[0]}: it is not XML: {err}.") from err
    except (ValueError, LookupError) as err:  # ours, or an encoding that Python does not know
        raise DataError(f"{name}: {err}.") from err
    return root


def text_of(element: ElementTree.Element, name: str) -> str:
    """Return the text of an element in another, without blanks around it; empty if it is absent."""
    return (element.findtext(name) or "").strip()
