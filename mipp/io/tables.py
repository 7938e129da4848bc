"""Tables as CSV, with texts of strangers in them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["HIT_COLUMNS", "cell", "csv_text", "hits_csv", "printable"]

#: columns of a table of hits
HIT_COLUMNS = ("rank", "id", "owner", "score", "value", "name", "caption", "metadata", "file")
#: what spreadsheets take for the beginning of a formula; the latter are the full-width forms
_FORMULAS = tuple("=+-@\uff1d\uff0b\uff0d\uff20")


def printable(text: str) -> str:
    """``text`` fit for a terminal: control characters and bytes that are not UTF-8 become escapes such as \\x1b."""
    if text.isprintable():
        return text
    known = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") if _raw(text) else text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in known)


def _raw(text: str) -> bool:
    """Whether surrogates in ``text``, if any, all stand for bytes of a file's name."""
    return all(not "\ud800" <= c <= "\udfff" or "\udc80" <= c <= "\udcff" for c in text)


def cell(value: Any) -> Any:
    """Value of a cell: a text is made printable, and cannot become a formula; None is empty."""
    if not isinstance(value, str):
        return "" if value is None else value
    shown = printable(value)
    return f"'{shown}" if shown.strip()[:1] in _FORMULAS and shown.strip() else shown


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """CSV with a heading; all cells are quoted, as some spreadsheets split them at semicolons."""
    out = io.StringIO(newline="")
    writer = csv.writer(out, quoting=csv.QUOTE_ALL)
    writer.writerow(columns)
    writer.writerows([cell(value) for value in row] for row in rows)
    return out.getvalue()


def hits_csv(hits: Sequence[Mapping[str, Any]]) -> bytes:
    """Hits as a CSV file: of each the values of :data:`HIT_COLUMNS` that it has; ``rank`` by its place if missing."""
    rows = []
    for rank, hit in enumerate(hits, 1):
        told = json.dumps(hit["metadata"], ensure_ascii=False) if hit.get("metadata") else None
        values = {"rank": rank, **hit, "metadata": told}
        rows.append([values.get(name) for name in HIT_COLUMNS])
    return csv_text(HIT_COLUMNS, rows).encode("utf-8", "backslashreplace")
