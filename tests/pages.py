"""Reads pages of figures as a stranger's program would: tables, plots, pictures, and whatever could load or run."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from xml.etree import ElementTree

SVG = "{http://www.w3.org/2000/svg}"
#: elements without an end tag
VOID = {"meta", "img", "br", "hr", "link", "input"}
#: every element that a page may have, inside plots too
KNOWN = {
    "html", "head", "meta", "title", "style", "body", "header", "main", "section", "h1", "h2", "h3", "p", "dl", "div",
    "dt", "dd", "small", "table", "caption", "thead", "tbody", "tr", "th", "td", "figure", "figcaption", "details",
    "summary", "ul", "li", "img", "span", "b", "br", "script", "svg", "desc", "line", "text", "polyline", "circle",
    "rect", "path",
}  # fmt: skip


class Page(HTMLParser):
    """Fails on what a page must not have; keeps what it shows."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tables: list[dict] = []
        self.text: list[str] = []
        self.images: list[dict] = []
        self.items: list[str] = []
        self.data = None
        self.plots = [ElementTree.fromstring(part) for part in re.findall(r"<svg.*?</svg>", source, re.S)]
        self.feed(source)
        self.close()
        assert not self.open, f"never closed: {self.open}"
        self.check(source)

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        assert tag in KNOWN, f"an element that no page has: {tag}"
        assert not any(name.startswith("on") or name == "style" for name in given), given
        for name in ("src", "href", "srcset", "data", "action", "poster", "xlink:href"):
            assert given.get(name, "data:image/").startswith("data:image/"), given
        if tag == "script":
            assert given == {"type": "application/json", "id": "mipp-data"}
        if tag not in VOID:
            self.open.append(tag)
        if tag == "table":
            self.tables.append({"caption": "", "rows": []})
        elif tag == "tr":
            self.tables[-1]["rows"].append([])
        elif tag in ("td", "th"):
            self.tables[-1]["rows"][-1].append("")
        elif tag == "img":
            self.images.append(given)
        elif tag == "li":
            self.items.append("")

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        inside = self.open[-1] if self.open else ""
        if inside == "script":
            self.data = json.loads(data)
            return
        if inside == "style":
            assert "url(" not in data and "@import" not in data
            return
        self.text.append(data)
        if "caption" in self.open:
            self.tables[-1]["caption"] += data
        elif {"td", "th"} & set(self.open):
            self.tables[-1]["rows"][-1][-1] += data
        if "li" in self.open:
            self.items[-1] += data + "\n"

    def check(self, source: str) -> None:
        assert self.data is not None
        without = source.replace('xmlns="http://www.w3.org/2000/svg"', "")
        before_data = without[: without.index("<script")]
        assert not re.search(r"<(script|iframe|object|embed|link|base|form)\b", before_data, re.I)
        assert "prefers-color-scheme:dark" in source and "width=device-width" in source and "@media print" in source
        assert "default-src 'none'" in source
        names = []
        for plot in self.plots:
            titles = [plot.find(f"{SVG}title"), plot.find(f"{SVG}desc")]
            assert all(found is not None and found.text for found in titles)
            assert plot.get("role") == "img"
            assert plot.get("aria-labelledby").split() == [found.get("id") for found in titles]
            names += [found.get("id") for found in titles]
        assert len(set(names)) == len(names), "one id names two elements"

    def table(self, caption: str) -> list[list[str]]:
        """Rows below the heading of the one table with this caption."""
        (found,) = [t for t in self.tables if t["caption"].startswith(caption)]
        assert len({len(row) for row in found["rows"]}) == 1
        return found["rows"][1:]

    def plot(self, title: str) -> ElementTree.Element:
        (found,) = [p for p in self.plots if p.find(f"{SVG}title").text == title]
        return found
