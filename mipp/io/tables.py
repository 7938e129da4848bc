"""Tables as CSV, with texts of strangers in them."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

__all__ = ["HIT_COLUMNS", "cell", "csv_rows", "csv_text", "hits_csv", "printable"]

#: columns of a table of hits
HIT_COLUMNS = ("rank", "id", "owner", "score", "value", "name", "caption", "metadata", "file")
#: what spreadsheets take for the beginning of a formula; the latter are the full-width forms
_FORMULAS = tuple("=+-@\uff1d\uff0b\uff0d\uff20")


def printable(text: str) -> str:
    """Make a text fit for a terminal.

    Parameters
    ----------
    text : str
        Anybody's; a file's name may hold bytes that are no UTF-8, as surrogates.

    Returns
    -------
    str
        The text, with escapes such as ``\\x1b`` for control characters and for bytes that are not UTF-8.

    Examples
    --------
    >>> from mipp.io.tables import printable
    >>> printable("red" + chr(27) + "[31m")
    'red\\\\x1b[31m'
    """
    if text.isprintable():
        return text
    known = text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace") if _raw(text) else text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in known)


def _raw(text: str) -> bool:
    """Whether surrogates in ``text``, if any, all stand for bytes of a file's name."""
    return all(not "\ud800" <= c <= "\udfff" or "\udc80" <= c <= "\udcff" for c in text)


def cell(value: Any) -> Any:
    """Make the value of a cell of a table that spreadsheets may open.

    Parameters
    ----------
    value : object
        A text of anybody, a number, or None.

    Returns
    -------
    object
        A text is printable, and has an apostrophe before what would begin a formula. None becomes an empty text.

    Examples
    --------
    >>> from mipp.io.tables import cell
    >>> cell("=1+1"), cell(None), cell(7)
    ("'=1+1", '', 7)
    """
    if not isinstance(value, str):
        return "" if value is None else value
    shown = printable(value)
    return f"'{shown}" if shown.strip()[:1] in _FORMULAS and shown.strip() else shown


def csv_text(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """Write rows as CSV with a heading. All cells are quoted, as some spreadsheets split them at semicolons.

    Parameters
    ----------
    columns : sequence of str
        Headings.
    rows : iterable of sequences
        A value for each column, as :func:`cell` takes them.

    Returns
    -------
    str

    Examples
    --------
    >>> from mipp.io.tables import csv_text
    >>> csv_text(["name"], [["a"]])
    '"name"\\r\\n"a"\\r\\n'
    """
    return csv_rows([columns]) + csv_rows(rows)


def csv_rows(rows: Iterable[Sequence[Any]]) -> str:
    """Write rows as CSV without a heading: as :func:`csv_text`, for a table that is written in parts.

    Parameters
    ----------
    rows : iterable of sequences
        As of :func:`csv_text`.

    Returns
    -------
    str

    Examples
    --------
    >>> from mipp.io.tables import csv_rows
    >>> csv_rows([[1, "a"]])
    '"1","a"\\r\\n'
    """
    out = io.StringIO(newline="")
    writer = csv.writer(out, quoting=csv.QUOTE_ALL)
    writer.writerows([cell(value) for value in row] for row in rows)
    return out.getvalue()


def hits_csv(hits: Sequence[Mapping[str, Any]]) -> bytes:
    """Write hits as a CSV file.

    Parameters
    ----------
    hits : sequence of mapping
        Of each the values of :data:`HIT_COLUMNS` that it has; without ``rank`` its place counts, from 1. Secret.

    Returns
    -------
    bytes
        UTF-8. Secret.

    Examples
    --------
    >>> from mipp.io.tables import hits_csv
    >>> hits_csv([{"id": "00:1", "owner": "anna"}]).splitlines()[1]
    b'"1","00:1","anna","","","","","",""'
    """
    rows = []
    for rank, hit in enumerate(hits, 1):
        told = json.dumps(hit["metadata"], ensure_ascii=False) if hit.get("metadata") else None
        values = {"rank": rank, **hit, "metadata": told}
        rows.append([values.get(name) for name in HIT_COLUMNS])
    return csv_text(HIT_COLUMNS, rows).encode("utf-8", "backslashreplace")
