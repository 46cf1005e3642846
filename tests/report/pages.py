"""A parser of pages, and the checks of every page."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

EVIL = "<script>alert('$x$ & $y$')</script>"


class Page(HTMLParser):
    """A parsed page: elements, their attributes, and the text outside <style>.

    `text` is that text unchanged, `pieces` the same split at tags.
    """

    VOID = frozenset({"meta", "link", "img", "br"})

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.source = path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.pieces: list[str] = []
        self.open: list[str] = []
        self.feed(self.source)
        self.close()
        assert self.open == [], "an element is not closed"

    def handle_starttag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: Any) -> None:
        self.elements.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if "style" not in self.open:
            self.text += data
            self.pieces += [data.strip()] if data.strip() else []

    def all(self, tag: str) -> list[dict[str, str]]:
        return [attributes for name, attributes in self.elements if name == tag]


def check_page(path: Path) -> Page:
    """Check a page: it is valid, accessible and self-contained."""
    page = Page(path)
    without_data = re.sub(r"data:image/jpeg;base64,[A-Za-z0-9+/=]+", "", page.source)
    assert not re.search(r"https?:|//[a-z]|@import|url\((?!#)", without_data), "uses the network"
    for tag, attributes in page.elements:
        assert tag not in {"script", "iframe", "object", "embed", "base"}
        for name, value in attributes.items():
            assert not name.startswith("on")
            if name in {"src", "href", "xlink:href", "srcset", "action", "data"}:
                assert value.startswith(("data:", "#")), f"{tag} {name}={value[:60]}"
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids)), "an id is duplicated"
    for target in re.findall(r'url\(#([^)]+)\)|href="#([^"]+)"', page.source):
        assert (target[0] or target[1]) in ids
    for plot in (one for one in page.all("svg") if one.get("class") == "plot"):
        assert plot["role"] == "img"
        assert len(plot["aria-label"]) > 10
    assert all(image["alt"] for image in page.all("img"))
    assert page.all("html")[0]["lang"] == "en"
    assert len(page.all("h1")) == 1
    assert not re.search(r"\b(nan|None|inf)\b", page.text)
    return page
