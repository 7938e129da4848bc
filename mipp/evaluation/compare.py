"""Two evaluations compared: differences of all measures, with intervals where both asked the same queries."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ..errors import ParameterError
from ..io.files import as_path, shown
from .details import KINDS
from .html import Markup, figure, number, page, paragraph, read_page, section, table
from .intervals import differences
from .pages import FINE, MEASURES, machine_table, measure_names
from .svg import Bar, bars

__all__ = ["COLUMNS", "compare", "comparison_page", "comparison_rows", "load_evaluation", "verdict"]

SCHEMA = "mipp comparison 1"
#: of a table of a comparison
COLUMNS = ("measure", "A", "B", "B − A", "95 % interval", "B is")
#: no measure is larger; keeps differences finite
_MOST = 1e6
#: parts of ``dataset`` that make figures comparable, and the words for one that differs
_SAME = {
    "labels_sha256": "other labels", "names_sha256": "other images", "queries_sha256": "other queries",
    "truth_sha256": "other true neighbours, or another depth k of these",
}  # fmt: skip
#: of neighbours alone: labelled vectors of two networks are of the same images, and comparable
_SAME_NEIGHBOURS = {"vectors_sha256": "other vectors"}


def load_evaluation(path: str | os.PathLike[str]) -> dict[str, Any]:
    """Read an evaluation: a page, ``evaluation.json``, or what ``mipp evaluate --json`` printed.

    Parameters
    ----------
    path : str or path
        The file; it may be anybody's.

    Returns
    -------
    dict

    Raises
    ------
    NotFoundError
        No such file.
    ParameterError
        A file that holds no evaluation.

    Examples
    --------
    >>> import pathlib, tempfile
    >>> from mipp.evaluation.compare import load_evaluation
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     file = pathlib.Path(folder, "a.json")
    ...     _ = file.write_text('{"images": 4}')
    ...     try:
    ...         load_evaluation(file)
    ...     except ParameterError as error:
    ...         print(str(error).rpartition(": ")[2])
    no evaluation of mipp
    """
    data = read_page(path)
    wrong = ParameterError(f"{shown(as_path(path))}: no evaluation of mipp")
    if not all(type(data.get(name)) is int and 0 < data[name] < 1 << 62 for name in ("images", "queries")):
        raise wrong
    figures = [data.get(kind) for kind in KINDS]
    if not all(isinstance(side, dict) and side and all(map(_is_number, side.values())) for side in figures):
        raise wrong
    if len({frozenset(side) for side in figures if side}) > 1 or not measure_names(data):
        raise wrong
    if not isinstance(data.get("identical"), bool) or not _good_per_query(data):
        raise wrong
    if not all(isinstance(data.get(name, {}), dict) for name in ("dataset", "machine", "versions")):
        raise wrong
    return data


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and -_MOST <= value <= _MOST


def _good_per_query(data: Mapping[str, Any]) -> bool:
    """Whether each query's figures, if they are there, are numbers, as many as there are queries."""
    if "per_query" not in data:
        return True
    found, count = data["per_query"], data["queries"]
    if not isinstance(found, dict) or not all(isinstance(found.get(kind), dict) for kind in KINDS):
        return False
    if not isinstance(found.get("rows"), list) or not all(type(row) is int for row in found["rows"]):
        return False
    columns = [column for kind in KINDS for column in found[kind].values()]
    return all(
        isinstance(column, list) and len(column) == count and all(v is None or _is_number(v) for v in column)
        for column in (*columns, found["rows"])
    )


def compare(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Compare two evaluations.

    Parameters
    ----------
    first, second : mapping
        Of :func:`load_evaluation`.

    Returns
    -------
    dict
        ``comparable``; ``reasons`` why not, or why there are no intervals; ``paired``: whether both asked the same
        queries; ``measures``, a list of ``kind``, ``measure``, ``first``, ``second`` (None where one lacks it), and,
        where they are comparable, ``difference``, second less first, and its 95 % interval ``low``, ``high`` (None
        where they are not paired).

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.encoding import Encoding
    >>> from mipp.evaluation.compare import compare
    >>> from mipp.evaluation.evaluate import evaluate_labelled
    >>> vectors, labels = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]]), np.array(["a", "a", "b", "b"])
    >>> result = evaluate_labelled(vectors, labels, Encoding("cosine", 2))
    >>> found = compare(result, result)
    >>> found["comparable"], found["paired"], found["measures"][0]["difference"]
    (True, True, 0.0)
    """
    reasons = _not_comparable(first, second)
    comparable = not reasons
    per_query = [side.get("per_query") for side in (first, second)]
    paired = False
    if comparable:
        if None in per_query:
            reasons.append("a file has no figures of each query, so there are no intervals")
        elif per_query[0]["rows"] != per_query[1]["rows"]:  # type: ignore[index]
            reasons.append("other queries of the same collection, so there are no intervals")
        else:
            paired = True
            if first["queries"] < 2:
                reasons.append("one query, so there are no intervals")
    names = [name for name in MEASURES if name in first["float"] or name in second["float"]]
    lacking = [name for name in names if (name in first["float"]) != (name in second["float"])]
    if lacking:
        shown_names = ", ".join(MEASURES[name][0] for name in lacking)
        reasons.append(f"only one of both has {shown_names}")
    # quantised figures are those of the encrypted ranking, unless there is a fault
    kinds = [kind for kind in KINDS if kind != "quantised" or not (first["identical"] and second["identical"])]
    measures: list[dict[str, Any]] = []
    for kind in kinds:
        spread = differences(per_query[0][kind], per_query[1][kind]) if paired else {}  # type: ignore[index]
        for name in names:
            a, b = first[kind].get(name), second[kind].get(name)
            row: dict[str, Any] = {"kind": kind, "measure": name, "first": a, "second": b}
            if comparable and a is not None and b is not None:
                # of the queries that count in both, where they are paired
                difference, low, high = spread.get(name, [b - a, None, None])
                row |= {"difference": difference, "low": low, "high": high}
            measures.append(row)
    return {"schema": SCHEMA, "comparable": comparable, "paired": paired, "reasons": reasons, "measures": measures}


def _not_comparable(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    if not set(first["float"]) & set(second["float"]):
        return ["one was measured by labels, the other by true neighbours"]
    ours, theirs = first.get("dataset", {}), second.get("dataset", {})
    if ("labels_sha256" in ours) != ("labels_sha256" in theirs):
        return ["one was measured by labels, the other by true neighbours, or a file does not say on what"]
    if not ours:
        return ["the files do not say on what they were measured"]
    words = _SAME if "labels_sha256" in ours else _SAME | _SAME_NEIGHBOURS
    found = [text for name, text in words.items() if name in ours and name in theirs and ours[name] != theirs[name]]
    if first["images"] != second["images"]:
        found.insert(0, f"{first['images']:,} images, and {second['images']:,}")
    return found


def comparison_rows(found: Mapping[str, Any]) -> list[list[str | None]]:
    """List the rows of a table of a comparison.

    Parameters
    ----------
    found : mapping
        Of :func:`compare`.

    Returns
    -------
    list of list
        Texts for the columns :data:`COLUMNS`.

    Examples
    --------
    >>> from mipp.evaluation.compare import comparison_rows
    >>> comparison_rows({"measures": [{"measure": "map", "kind": "float", "first": 0.5, "second": None}]})
    [['mAP, float', '0.5000', '–', '–', None, '']]
    """
    rows = []
    for row in found["measures"]:
        low, high = (number(row.get(end), FINE, signed=True) for end in ("low", "high"))
        interval = None if row.get("low") is None else f"{low} to {high}"
        name = f"{MEASURES[row['measure']][0]}, {row['kind']}"
        difference = number(row.get("difference"), FINE, signed=True)
        rows.append([name, number(row["first"]), number(row["second"]), difference, interval, verdict(row)])
    return rows


def verdict(row: Mapping[str, Any]) -> str:
    """Say whether a measure differs beyond its interval.

    Parameters
    ----------
    row : mapping
        Of ``measures`` of :func:`compare`.

    Returns
    -------
    str
        ``better``, ``worse``, ``no difference shown`` or nothing where there is no interval.

    Examples
    --------
    >>> from mipp.evaluation.compare import verdict
    >>> verdict({"measure": "anmrr", "difference": -0.1, "low": -0.15, "high": -0.05})
    'better'
    """
    if row.get("low") is None:
        return ""
    if row["low"] <= 0 <= row["high"]:
        return "no difference shown"
    return "better" if (row["difference"] > 0) == MEASURES[row["measure"]][1] else "worse"


def comparison_page(
    found: Mapping[str, Any], first: Mapping[str, Any], second: Mapping[str, Any], names: tuple[str, str]
) -> str:
    """Make the page of a comparison.

    Parameters
    ----------
    found : mapping
        Of :func:`compare`.
    first, second : mapping
        What was compared.
    names : tuple of str
        Their names, such as those of the files.

    Returns
    -------
    str
        HTML.

    Examples
    --------
    >>> from mipp.evaluation.compare import compare, comparison_page
    >>> side = {"images": 4, "queries": 4, "identical": True, **{kind: {"map": 0.5} for kind in KINDS}}
    >>> "do not say on what" in comparison_page(compare(side, side), side, side, ("a", "b"))
    True
    """
    rows = comparison_rows(found)
    parts = []
    if not found["comparable"]:
        parts.append(paragraph(f"Not comparable: {'; '.join(found['reasons'])}.", "notice"))
    elif found["reasons"]:
        parts.append(paragraph(f"Note: {'; '.join(found['reasons'])}.", "notice"))
    columns = ["measure", *(f"#{column}" for column in COLUMNS[1:-1]), COLUMNS[-1]]
    parts.append(table(columns, rows, caption=f"A: {names[0]}; B: {names[1]}"))
    if found["paired"]:
        parts.append(_plot(found))
        parts.append(
            paragraph(
                "Each query is compared with itself. With many measures, some intervals miss 0 by chance.", "faint"
            )
        )
    sides = [
        section(f"{letter}: {name}", [paragraph(_what(side), "faint"), machine_table(side)])
        for letter, name, side in zip("AB", names, (first, second), strict=True)
    ]
    lead = f"A: {_what(first)} B: {_what(second)}"
    return page(
        "Two evaluations compared", lead, [section("Differences", parts), *sides], dict(found) | {"names": names}
    )


def _what(side: Mapping[str, Any]) -> str:
    what = side.get("descriptor") or f"{side.get('metric', '')} vectors"
    return f"{what}, ring of {side.get('ring', '?')} bits, {side['queries']:,} queries."


def _plot(found: Mapping[str, Any]) -> Markup:
    # of one unit: N-S scores go up to 4
    rows = [row for row in found["measures"] if row["measure"] != "ns" and row.get("low") is not None]
    shown_rows = [
        Bar(
            f"{MEASURES[row['measure']][0]}, {row['kind']}",
            row["difference"],
            row["low"],
            row["high"],
            less=row["difference"] != 0 and (row["difference"] > 0) != MEASURES[row["measure"]][1],
        )
        for row in rows
    ]
    if not shown_rows:
        return Markup("")
    said = "; ".join(f"{bar.name} {number(bar.value, FINE, signed=True)}" for bar in shown_rows)
    plot = bars("B less A", f"Differences: {said}.", shown_rows, name="plot-differences", across="B − A")
    return figure(
        "Differences with 95 % intervals; outlined where B is worse. The table above has the N-S score, too",
        plot,
    )
