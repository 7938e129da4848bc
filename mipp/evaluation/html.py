"""Pages of figures: one HTML file that needs nothing else.

A page has no script, loads nothing, follows a light or dark display, fits a telephone and prints. Its own
content-security policy forbids whatever could be loaded. The data of the page lies in it as JSON, in a
``<script type="application/json">`` element: a block of data that no browser runs. :func:`read_page` takes it out
again.

Texts may be anybody's. Every function escapes what it is given, except :class:`Markup`, which only this module and
:mod:`mipp.evaluation.svg` make.
"""

from __future__ import annotations

import html
import json
import os
from base64 import b64encode
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import ParameterError
from ..io.files import as_path, read_regular, replace_whole, shown
from ..io.strict import strict_loads
from ..io.tables import printable
from .style import STYLE

__all__ = [
    "Markup", "cards", "data_uri", "figure", "is_page", "join", "number", "page", "paragraph", "picture", "plain",
    "read_page", "section", "table", "text", "write_page",
]  # fmt: skip

#: longer texts of strangers are cut
_MOST_TEXT = 300
#: paragraphs are our own, and may be longer
_LONG = 4000
_MOST_BYTES = 1 << 26
#: lists and objects of a file: a page has some hundred, and a short text could make many
_MOST_PARTS = 1_000_000
_DATA = '<script type="application/json" id="mipp-data">'
_NONE = "–"


class Markup(str):
    """HTML that is taken as it is; all other texts are escaped.

    Parameters
    ----------
    text : str
        Well-formed HTML without anybody else's texts, except escaped ones.

    Examples
    --------
    >>> from mipp.evaluation.html import Markup, text
    >>> text("<b>"), text(Markup("<b>"))
    ('&lt;b&gt;', '<b>')
    """

    __slots__ = ()


def plain(value: object, most: int = _MOST_TEXT) -> str:
    """Make a text fit for one line: no control characters, cut where it is long.

    Parameters
    ----------
    value : object
        Anybody's text, or something whose text is taken.
    most : int
        Largest number of characters.

    Returns
    -------
    str
        Control characters, marks that change the direction of writing, and bytes of file names that are no text
        become escapes such as ``\\x1b``.

    Examples
    --------
    >>> from mipp.evaluation.html import plain
    >>> plain("red" + chr(27) + "[31m"), plain("x" * 400)[-3:]
    ('red\\\\x1b[31m', 'xx…')
    """
    given = str(value)
    cut = given if len(given) <= most else given[: most - 1] + "…"
    return printable(cut)


def text(value: object, most: int = _MOST_TEXT) -> Markup:
    """Escape a text.

    Parameters
    ----------
    value : object
        Anybody's text; :class:`Markup` stays as it is.
    most : int
        Largest number of characters.

    Returns
    -------
    Markup

    Examples
    --------
    >>> from mipp.evaluation.html import text
    >>> text("a < b & c")
    'a &lt; b &amp; c'
    """
    return value if isinstance(value, Markup) else Markup(html.escape(plain(value, most)))


def number(value: float | int | None, digits: int = 4, *, signed: bool = False) -> str:
    """Write a number as pages show it.

    Parameters
    ----------
    value : float, int or None
        An int is written whole, None as a dash.
    digits : int
        Digits after the point of a float.
    signed : bool
        Whether a plus is written.

    Returns
    -------
    str

    Examples
    --------
    >>> from mipp.evaluation.html import number
    >>> number(0.5), number(12345), number(None), number(0.25, 2, signed=True), number(-1e-9)
    ('0.5000', '12,345', '–', '+0.25', '0.0000')
    """
    if value is None:
        return _NONE
    if isinstance(value, int):
        return f"{value:+,}" if signed else f"{value:,}"
    value = round(value, digits) + 0.0  # no minus before zero
    return f"{value:{'+' if signed and value else ''},.{digits}f}"


def join(parts: Sequence[Markup]) -> Markup:
    """Put pieces of a page one after the other.

    Parameters
    ----------
    parts : sequence of Markup

    Returns
    -------
    Markup

    Examples
    --------
    >>> from mipp.evaluation.html import join, text
    >>> join([text("a"), text("b")])
    'ab'
    """
    return Markup("".join(parts))


def paragraph(value: object, kind: str = "") -> Markup:
    """Make a paragraph.

    Parameters
    ----------
    value : object
        Its text.
    kind : str
        ``""``, ``"faint"`` or ``"notice"``.

    Returns
    -------
    Markup

    Examples
    --------
    >>> from mipp.evaluation.html import paragraph
    >>> paragraph("x < y", "faint")
    '<p class="faint">x &lt; y</p>'
    """
    return Markup(f'<p class="{kind}">{text(value, _LONG)}</p>' if kind else f"<p>{text(value, _LONG)}</p>")


def section(heading: str, parts: Sequence[Markup]) -> Markup:
    """Make a section with a heading; nothing of no parts.

    Parameters
    ----------
    heading : str
        Its text.
    parts : sequence of Markup
        What is in it.

    Returns
    -------
    Markup

    Examples
    --------
    >>> from mipp.evaluation.html import section, text
    >>> section("Classes", [text("none")]), section("Classes", [])
    ('<section><h2>Classes</h2>none</section>', '')
    """
    return Markup(f"<section><h2>{text(heading)}</h2>{''.join(parts)}</section>" if parts else "")


def cards(facts: Sequence[tuple[str, str, str]]) -> Markup:
    """Make a row of large figures.

    Parameters
    ----------
    facts : sequence of tuple
        (name, figure, remark) each.

    Returns
    -------
    Markup

    Examples
    --------
    >>> from mipp.evaluation.html import cards
    >>> "<dd>0.58<small>encrypted</small></dd>" in cards([("mAP", "0.58", "encrypted")])
    True
    """
    made = "".join(
        f"<div><dt>{text(name)}</dt><dd>{text(value)}<small>{text(remark)}</small></dd></div>"
        for name, value, remark in facts
    )
    return Markup(f'<dl class="cards">{made}</dl>')


def table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, caption: str = "") -> Markup:
    """Make a table; nothing of no rows.

    Parameters
    ----------
    columns : sequence of str
        Headings. One that begins with ``#`` is of figures, which stand on the right; the mark is left out.
    rows : sequence of sequences
        Texts, or Markup; None is a dash.
    caption : str
        Says what the table is.

    Returns
    -------
    Markup

    Examples
    --------
    >>> from mipp.evaluation.html import table
    >>> '<td class="n">3</td>' in table(["class", "#images"], [["<b>", 3]])
    True
    """
    if not rows:
        return Markup("")
    kinds = [' class="n"' if column.startswith("#") else "" for column in columns]
    head = "".join(
        f'<th scope="col"{kind}>{text(c.removeprefix("#"))}</th>' for kind, c in zip(kinds, columns, strict=True)
    )
    body = "".join(
        "<tr>"
        + "".join(
            f"<td{kind}>{text(_NONE if cell is None else cell)}</td>" for kind, cell in zip(kinds, row, strict=True)
        )
        + "</tr>"
        for row in rows
    )
    title = f"<caption>{text(caption)}</caption>" if caption else ""
    made = f"<table>{title}<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return Markup(f'<div class="scroll" tabindex="0">{made}</div>')


def figure(caption: str, plot: Markup, numbers: Markup | None = None) -> Markup:
    """Make a figure of a plot, with its numbers as a table that opens under it.

    Parameters
    ----------
    caption : str
        Says what the plot shows.
    plot : Markup
        Of :mod:`mipp.evaluation.svg`.
    numbers : Markup, optional
        Of :func:`table`; without it the caption says where the numbers are.

    Returns
    -------
    Markup

    Examples
    --------
    >>> from mipp.evaluation.html import Markup, figure, table
    >>> "<details>" in figure("Hits", Markup("<svg></svg>"), table(["#k"], [[1]]))
    True
    """
    under = f"<details><summary>The numbers as a table</summary>{numbers}</details>" if numbers else ""
    return Markup(f"<figure><figcaption>{text(caption)}</figcaption>{plot}{under}</figure>")


def data_uri(content: bytes, kind: str) -> str:
    """Write an image file as an address that holds it.

    Parameters
    ----------
    content : bytes
        The file.
    kind : str
        Its media type, e.g. ``image/webp``.

    Returns
    -------
    str

    Examples
    --------
    >>> from mipp.evaluation.html import data_uri
    >>> data_uri(b"abc", "image/png")
    'data:image/png;base64,YWJj'
    """
    return f"data:{kind};base64,{b64encode(content).decode()}"


def picture(uri: str | None, alternative: str, lines: Sequence[str], kind: str, *, missing: str = "") -> Markup:
    """Make an item of a list of pictures.

    Parameters
    ----------
    uri : str or None
        Of :func:`data_uri`; None where there is no picture.
    alternative : str
        What the picture is, for who does not see it.
    lines : sequence of str
        Under the picture; the first one is bold.
    kind : str
        ``query``, ``right`` or ``wrong``: frames differ in lines as well as in colour.
    missing : str
        Why there is no picture.

    Returns
    -------
    Markup
        A ``<li>`` element.

    Examples
    --------
    >>> from mipp.evaluation.html import picture
    >>> "no picture" in picture(None, "query", ["query"], "query", missing="no picture")
    True
    """
    shown_image = (
        f'<img src="{html.escape(uri)}" alt="{text(alternative)}">'
        if uri is not None
        else f'<span class="gone">{text(missing)}</span>'
    )
    under = "".join(f"<b>{text(line)}</b>" if not i else f"{text(line)}<br>" for i, line in enumerate(lines))
    return Markup(f'<li class="{kind}">{shown_image}{under}</li>')


def page(title: str, lead: str, body: Sequence[Markup], data: object) -> str:
    """Make a whole page.

    Parameters
    ----------
    title : str
        Its heading.
    lead : str
        A sentence or two under it.
    body : sequence of Markup
        Sections.
    data : object
        What JSON takes; all numbers finite. It is readable for whoever has the page.

    Returns
    -------
    str

    Examples
    --------
    >>> from mipp.evaluation.html import page
    >>> made = page("Figures", "Of today.", [], {"a": "</script>"})
    >>> made.count("</script>"), "prefers-color-scheme" in made
    (1, True)
    """
    # no text in the data can end the element, or begin a comment
    inside = json.dumps(data, allow_nan=False).replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta http-equiv="Content-Security-Policy" content="default-src \'none\'; img-src data:; '
        "style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'\">"
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        '<meta name="referrer" content="no-referrer">'
        f"<title>{text(title)}</title><style>{STYLE}</style></head>\n"
        f"<body><header><h1>{text(title)}</h1>{paragraph(lead, 'faint')}</header>\n<main>{chr(10).join(body)}</main>\n"
        f"{_DATA}{inside}</script></body></html>\n"
    )


def is_page(path: str | os.PathLike[str]) -> bool:
    """Tell by its suffix whether a file is a page.

    Parameters
    ----------
    path : str or path

    Returns
    -------
    bool

    Examples
    --------
    >>> from mipp.evaluation.html import is_page
    >>> is_page("report.HTML"), is_page("report")
    (True, False)
    """
    return Path(path).suffix.lower() in (".html", ".htm")


def write_page(path: str | os.PathLike[str], content: str) -> None:
    """Write a page, for this person's eyes alone (mode 0600): all of it, or the earlier file stays.

    Parameters
    ----------
    path : str or path
        The file.
    content : str
        Of :func:`page`.

    Raises
    ------
    ParameterError
        The file cannot be written.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from mipp.evaluation.html import page, read_page, write_page
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_page(pathlib.Path(folder, "a.html"), page("A", "", [], {"n": 1}))
    ...     read_page(pathlib.Path(folder, "a.html"))
    {'n': 1}
    """
    replace_whole(path, content.encode(), mode=0o600)


def read_page(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read the data of a page, or of a JSON file.

    Parameters
    ----------
    path : str or path
        A file of :func:`write_page`, or one that holds one JSON object; at most 64 MiB, with a million lists and
        objects. It may be anybody's.

    Returns
    -------
    dict

    Raises
    ------
    NotFoundError
        No such file.
    ParameterError
        A file that is neither, or a larger one.

    Examples
    --------
    See :func:`write_page`.

    >>> from mipp.evaluation.html import read_page
    >>> callable(read_page)
    True
    """
    file = as_path(path)
    content = read_regular(file, _MOST_BYTES)
    try:
        given = content.decode()
        if given.lstrip()[:1] == "<":
            # found by search, not by a parser of HTML: the file may be anybody's, and JSON in a page has no "<"
            given = given.partition(_DATA)[2].partition("<")[0]
        if given.count("[") + given.count("{") > _MOST_PARTS:
            raise ValueError("too many lists and objects")
        data = strict_loads(given)
    except ValueError:  # also bytes that are no text
        raise ParameterError(f"{shown(file)}: neither a page of mipp with its data nor a JSON object") from None
    if not isinstance(data, dict):
        raise ParameterError(f"{shown(file)}: neither a page of mipp with its data nor a JSON object")
    return data
