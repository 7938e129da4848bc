"""Plots as inline SVG: lines and horizontal bars.

A plot is one ``<svg>`` element without scripts, styles or references. Its colours are classes of the page around it
(:mod:`mipp.evaluation.style`), so that they follow a light or a dark display. Series differ in dashes and markers as
well as in colour. A plot has a title and a description for screen readers.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ..errors import ParameterError
from .html import Markup, plain, text

__all__ = ["Bar", "Series", "bars", "lines", "ticks"]

_WIDTH, _HEIGHT = 460, 320
_LEFT, _RIGHT, _TOP, _BOTTOM = 52, 12, 12, 44
_ROW, _LEGEND = 40, 18
#: series that can be told apart
_STYLES = 6
_LABEL = 58


@dataclass(frozen=True)
class Series:
    """A line of a plot.

    Parameters
    ----------
    name : str
        For the legend.
    x, y : sequence of float
        Points, from left to right.

    Examples
    --------
    >>> from mipp.evaluation.svg import Series
    >>> Series("encrypted", [0, 1], [0.5, 0.7]).name
    'encrypted'
    """

    name: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class Bar:
    """A bar of a plot.

    Parameters
    ----------
    name : str
        For the line above the bar; may be anybody's text.
    value : float
        Where it ends.
    low, high : float, optional
        Ends of an interval, drawn as a line with two caps.
    mark : float, optional
        Another value to compare with, drawn as a diamond.
    less : bool, optional
        Whether it is drawn as the lesser kind of bar; default if it ends below where bars begin.

    Examples
    --------
    >>> from mipp.evaluation.svg import Bar
    >>> Bar("flowers", 0.8, 0.7, 0.9).mark is None
    True
    """

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    mark: float | None = None
    less: bool | None = None


class _Scale:
    """Positions of numbers along an axis, linear or logarithmic."""

    def __init__(self, low: float, high: float, start: float, end: float, log: bool) -> None:
        self.log = log
        self.low, self.high = (math.log10(low), math.log10(high)) if log else (low, high)
        if self.high <= self.low:
            self.high = self.low + 1.0
        self.start, self.end = start, end

    def __call__(self, value: float) -> float:
        if self.log:
            value = math.log10(max(value, 1e-300))
        share = min(1.0, max(0.0, (value - self.low) / (self.high - self.low)))
        return round(self.start + share * (self.end - self.start), 2)


def ticks(low: float, high: float, *, log: bool = False, most: int = 7) -> list[float]:
    """Choose round numbers for an axis.

    Parameters
    ----------
    low, high : float
        Ends of the axis, ``low`` below ``high``; above 0 with ``log``.
    log : bool
        Whether the axis is logarithmic: powers of ten, and 2 and 5 times these where they are few.
    most : int
        Largest number of ticks, about.

    Returns
    -------
    list of float

    Examples
    --------
    >>> from mipp.evaluation.svg import ticks
    >>> ticks(0, 1), ticks(0.5, 300, log=True)
    ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [1.0, 10.0, 100.0])
    """
    if log:
        decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        for factors in ((1, 2, 5), (1,)):
            found = [float(f"{f}e{d}") for d in decades for f in factors]
            found = [value for value in found if low * 0.999 <= value <= high * 1.001]
            if len(found) <= most:
                return found
        return found[:: -(-len(found) // most)]
    rough = (high - low) / max(1, most - 1)
    unit = 10.0 ** math.floor(math.log10(rough))
    step = next(unit * f for f in (1, 2, 2.5, 5, 10) if unit * f >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    return [float(f"{i * step:.9g}") + 0.0 for i in range(first, math.floor(high / step + 1e-9) + 1)]


def lines(
    title: str,
    description: str,
    series: Sequence[Series],
    *,
    name: str,
    across: str,
    up: str,
    y: tuple[float, float] | None = None,
    log: bool = False,
) -> Markup:
    """Draw lines.

    Parameters
    ----------
    title, description : str
        For screen readers.
    series : sequence of Series
        At most six, none without points.
    name : str
        Of the plot, unlike all others of the page: letters, digits and hyphens.
    across, up : str
        Labels of the axes.
    y : tuple of float, optional
        Ends of the vertical axis; default those of the points.
    log : bool
        Whether both axes are logarithmic; all numbers are then above 0.

    Returns
    -------
    Markup
        One ``<svg>`` element.

    Raises
    ------
    ParameterError
        No points, or more than six series.

    Examples
    --------
    >>> from mipp.evaluation.svg import Series, lines
    >>> plot = lines("Hits", "Rises", [Series("all", [1, 2], [0.5, 0.9])], name="hits", across="k", up="share")
    >>> plot.startswith("<svg"), "<title" in plot
    (True, True)
    """
    xs = [value for line in series for value in line.x]
    ys = [value for line in series for value in line.y]
    if not xs or len(series) > _STYLES:
        raise ParameterError(f"a plot needs 1 to {_STYLES} series with points")
    bottom, top = y or _ends(ys, log)
    height = _HEIGHT + _LEGEND * len(series)
    low, high = _nonempty(min(xs), max(xs), log)
    x_scale = _Scale(low, high, _LEFT, _WIDTH - _RIGHT, log)
    y_scale = _Scale(bottom, top, _HEIGHT - _BOTTOM, _TOP, log)
    out = [_grid_y(y_scale, ticks(bottom, top, log=log))]
    for value in ticks(low, high, log=log):
        out.append(_line(x_scale(value), _TOP, x_scale(value), _HEIGHT - _BOTTOM, "grid"))
        out.append(_label(x_scale(value), _HEIGHT - _BOTTOM + 16, _number(value), "middle"))
    out.append(_label((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 8, across, "middle"))
    middle = (_TOP + _HEIGHT - _BOTTOM) / 2
    out.append(_label(13, middle, up, "middle", f' transform="rotate(-90 13 {middle:g})"'))
    for number, line in enumerate(series):
        points = [(x_scale(a), y_scale(b)) for a, b in zip(line.x, line.y, strict=True)]
        path = " ".join(f"{a:g},{b:g}" for a, b in points)
        out.append(f'<polyline class="line s{number}" points="{path}"/>')
        every = max(1, len(points) // 10)
        out += [_marker(number, a, b) for a, b in points[::every]]
        at = _HEIGHT + _LEGEND * number + 6
        out.append(f'<polyline class="line s{number}" points="{_LEFT},{at} {_LEFT + 36},{at}"/>')
        out.append(_marker(number, _LEFT + 18, at))
        out.append(_label(_LEFT + 44, at + 4, _short(line.name), "start"))
    return _svg(name, title, description, height, out)


def bars(
    title: str,
    description: str,
    rows: Sequence[Bar],
    *,
    name: str,
    across: str,
    ends: tuple[float, float] | None = None,
    base: float = 0.0,
    log: bool = False,
) -> Markup:
    """Draw horizontal bars, the name above each.

    Parameters
    ----------
    title, description : str
        For screen readers.
    rows : sequence of Bar
        From the top down, at least one.
    name : str
        Of the plot, unlike all others of the page: letters, digits and hyphens.
    across : str
        Label of the axis.
    ends : tuple of float, optional
        Ends of the axis; default those of the numbers.
    base : float
        Where bars begin.
    log : bool
        Whether the axis is logarithmic; all numbers are then above 0.

    Returns
    -------
    Markup
        One ``<svg>`` element. Lesser bars have another colour and an outline.

    Raises
    ------
    ParameterError
        No rows.

    Examples
    --------
    >>> from mipp.evaluation.svg import Bar, bars
    >>> "flowers" in bars("Classes", "By class", [Bar("flowers", 0.8)], name="classes", across="mAP")
    True
    """
    if not rows:
        raise ParameterError("a plot needs at least one bar")
    if ends is None:
        values = [v for bar in rows for v in (bar.value, bar.low, bar.high, bar.mark) if v is not None]
        ends = _ends([*values, base], log)
    bottom = _TOP + _ROW * len(rows)
    scale = _Scale(*ends, 8, _WIDTH - _RIGHT, log)
    out = []
    for value in ticks(*ends, log=log):
        out.append(_line(scale(value), _TOP, scale(value), bottom, "grid"))
        out.append(_label(scale(value), bottom + 16, _number(value), "middle"))
    if ends[0] < base < ends[1]:
        out.append(_line(scale(base), _TOP, scale(base), bottom, "axis"))
    for i, bar in enumerate(rows):
        top = _TOP + _ROW * i
        out.append(_label(8, top + 12, _short(bar.name), "start"))
        start, end = sorted((scale(base), scale(bar.value)))
        kind = "bar less" if (bar.value < base if bar.less is None else bar.less) else "bar"
        out.append(f'<rect class="{kind}" x="{start:g}" y="{top + 17}" width="{max(0.8, end - start):g}" height="11"/>')
        if bar.low is not None and bar.high is not None:
            a, b, y = scale(bar.low), scale(bar.high), top + 22.5
            out += [_line(a, y, b, y, "spread"), *(_line(x, y - 4, x, y + 4, "spread") for x in (a, b))]
        if bar.mark is not None:
            x, y = scale(bar.mark), top + 22.5
            out.append(f'<path class="mark" d="M{x:g} {y - 5:g}l5 5l-5 5l-5 -5z"/>')
    out.append(_label(_WIDTH / 2, bottom + 34, across, "middle"))
    return _svg(name, title, description, bottom + 42, out)


def _svg(name: str, title: str, description: str, height: float, parts: Sequence[str]) -> Markup:
    return Markup(
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height:g}" role="img" '
        f'aria-labelledby="{name}-t {name}-d"><title id="{name}-t">{text(title)}</title>'
        f'<desc id="{name}-d">{text(description, 4000)}</desc>{"".join(parts)}</svg>'
    )


def _grid_y(scale: _Scale, values: Sequence[float]) -> str:
    out = []
    for value in values:
        out.append(_line(_LEFT, scale(value), _WIDTH - _RIGHT, scale(value), "grid"))
        out.append(_label(_LEFT - 6, scale(value) + 4, _number(value), "end"))
    return "".join(out)


def _line(x1: float, y1: float, x2: float, y2: float, kind: str) -> str:
    return f'<line class="{kind}" x1="{x1:g}" y1="{y1:g}" x2="{x2:g}" y2="{y2:g}"/>'


def _label(x: float, y: float, label: str, anchor: str, more: str = "") -> str:
    return f'<text x="{x:g}" y="{y:g}" text-anchor="{anchor}"{more}>{text(label)}</text>'


def _marker(number: int, x: float, y: float) -> str:
    """Circle, square, diamond, triangle; then the first two, empty."""
    kind = f'class="point s{number}"'
    shape = number % 4
    if shape == 0:
        return f'<circle {kind} cx="{x:g}" cy="{y:g}" r="3.2"/>'
    if shape == 1:
        return f'<rect {kind} x="{x - 3:g}" y="{y - 3:g}" width="6" height="6"/>'
    if shape == 2:
        return f'<path {kind} d="M{x:g} {y - 4:g}l4 4l-4 4l-4 -4z"/>'
    return f'<path {kind} d="M{x:g} {y - 4:g}l4 7h-8z"/>'


def _ends(values: Sequence[float], log: bool) -> tuple[float, float]:
    """Ends of an axis with some room around the values."""
    low, high = min(values), max(values)
    if log:
        return low / 1.15, high * 1.15
    if low == high == 0:
        return -1.0, 1.0
    room = 0.05 * (high - low or abs(high))
    return (0.0 if low >= 0 else low - room), (0.0 if high <= 0 else high + room)


def _nonempty(low: float, high: float, log: bool) -> tuple[float, float]:
    return (low, high) if high > low else (low, low * 10 if log else low + 1)


def _number(value: float) -> str:
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:g}{unit}"
    return f"{value:g}"


def _short(label: str) -> str:
    """As much as fits beside an axis; the table under the plot has all of it."""
    label = plain(label)
    return label if len(label) <= _LABEL else label[: _LABEL - 1] + "…"
