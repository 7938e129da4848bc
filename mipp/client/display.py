"""Results as HTML, for notebooks: a grid of pictures with texts below, and tables. No script and no outside address.

Owners may be hostile. Every text is cut, escaped, isolated from the direction of its neighbours and not typeset as
mathematics; every picture is decoded and encoded anew (:mod:`mipp.io.display`).
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from html import escape
from typing import NamedTuple

from .. import cpu
from ..io.display import PICTURE_TYPE, picture, shown

__all__ = ["MOST", "Card", "grid", "number", "table"]

#: cards or lines that are shown; a sentence counts the rest
MOST = 50
_SIDE = 160
#: that decode pictures; :func:`mipp.io.display.opening` says how many pixels they have open together
_THREADS = 4
#: notebooks typeset what stands between dollar signs, unless these classes forbid it (MathJax 3 and 2)
_PLAIN = ' class="mathjax_ignore tex2jax_ignore"'
_GRID = "display:flex;flex-wrap:wrap;gap:10px"
_CARD = f"margin:0;width:{_SIDE}px;overflow:hidden;overflow-wrap:anywhere;font-size:90%"
#: as high as a picture, so that texts of a line begin at one height
_FRAME = f"height:{_SIDE}px;display:flex;align-items:center;justify-content:center"


class Card(NamedTuple):
    """One place of a grid: an image file of a stranger, or nothing, and lines of text below it."""

    content: bytes
    lines: Sequence[str]
    #: images with more pixels are not decoded
    most_pixels: int


def number(value: float | None) -> str:
    """A score or value for a reader; empty where there is none."""
    return "" if value is None else f"{value:.5g}" if isinstance(value, float) else str(value)


def grid(cards: Sequence[Card], notes: Iterable[str] = ()) -> str:
    """HTML of cards, at most :data:`MOST`, and sentences about the whole."""
    cards_shown = cards[:MOST]
    with ThreadPoolExecutor(min(_THREADS, cpu.threads())) as pool:
        pictures = list(pool.map(lambda card: _picture(card, card.most_pixels), cards_shown))
    figures = "".join(_figure(card, one) for card, one in zip(cards_shown, pictures, strict=True))
    return f'<div{_PLAIN}>{_paragraphs(notes)}<div style="{_GRID}">{figures}</div>{_rest(len(cards))}</div>'


def table(heads: Sequence[str], rows: Sequence[Sequence[str]], notes: Iterable[str] = ()) -> str:
    """HTML of lines of cells, at most :data:`MOST`, and sentences about the whole."""
    head = "".join(f"<th>{_safe(text)}</th>" for text in heads)
    lines = "".join("<tr>" + "".join(f"<td>{_safe(text)}</td>" for text in row) + "</tr>" for row in rows[:MOST])
    return f"<div{_PLAIN}>{_paragraphs(notes)}<table><tr>{head}</tr>{lines}</table>{_rest(len(rows))}</div>"


def _picture(card: Card, most_pixels: int) -> bytes | None:
    return picture(card.content, _SIDE, most_pixels=most_pixels) if card.content else None


def _figure(card: Card, small: bytes | None) -> str:
    if small is None:
        image = "<i>no picture</i>"
    else:
        image = f'<img alt="" src="data:{PICTURE_TYPE};base64,{base64.b64encode(small).decode()}">'
    lines = "<br>".join(_safe(line) for line in card.lines if line)
    return f'<figure style="{_CARD}"><div style="{_FRAME}">{image}</div><figcaption>{lines}</figcaption></figure>'


def _safe(text: str) -> str:
    """A text as HTML that shows it, and does nothing else."""
    return f"<bdi>{escape(shown(text))}</bdi>"


def _paragraphs(notes: Iterable[str]) -> str:
    return "".join(f"<p>{_safe(note)}</p>" for note in notes)


def _rest(count: int) -> str:
    return f"<p>{count - MOST} more are not shown.</p>" if count > MOST else ""
