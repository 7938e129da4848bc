"""The page of an evaluation: figures with intervals, plots, classes, and what the best and worst queries found."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, features

from ..errors import MippError
from ..io.files import shown
from ..io.images import load_image, thumbnail
from .details import KINDS, PAIRS, by_class
from .html import (
    Markup,
    cards,
    data_uri,
    figure,
    join,
    number,
    page,
    paragraph,
    picture,
    plain,
    section,
    table,
    text,
)  # fmt: skip
from .intervals import CONFIDENCE, RESAMPLES
from .svg import Bar, Series, bars, lines

__all__ = ["FINE", "MEASURES", "evaluation_page", "machine_table", "measure_names"]

#: measures with their names, and whether more is better
MEASURES = {
    "map": ("mAP", True), "p10": ("P@10", True), "p20": ("P@20", True), "nn_error": ("1-NN error", False),
    "anmrr": ("ANMRR", False), "ns": ("N-S score", True), "recall1": ("recall@1", True),
    "recall10": ("recall@10", True), "recall100": ("recall@100", True),
}  # fmt: skip
_EXPLAINED = {
    "map": "mAP: mean over queries of the average precision, over the full ranking.",
    "p10": "P@10, P@20: share of images with the query's label among the first 10 and 20.",
    "nn_error": "1-NN error: share of queries whose nearest image has another label.",
    "anmrr": "ANMRR: where in the ranking the right images stand, 0 first, 1 beyond reach; less is better.",
    "ns": "N-S score: right images among the first four, the query counted; for groups of four.",
    "recall10": "recall@k: share of the true k nearest that are among the first k; in an evaluation by labels, of the "
    "nearest in float.",
}
#: digits of differences, which are small
FINE = 5
_TILE = (144, 120)
#: classes in the plot, and in the table, where there are more
_BARS, _CLASSES = 40, 400
_ERRORS = 100


def measure_names(result: Mapping[str, Any]) -> list[str]:
    """List the measures that an evaluation has, in the order of pages and tables.

    Parameters
    ----------
    result : mapping
        Of :mod:`mipp.evaluation.evaluate`.

    Returns
    -------
    list of str

    Examples
    --------
    >>> from mipp.evaluation.pages import measure_names
    >>> measure_names({"float": {"recall10": 1.0, "map": 0.5}})
    ['map', 'recall10']
    """
    return [name for name in MEASURES if name in result["float"]]


def evaluation_page(report: Mapping[str, Any], *, window: tuple[float, float] | None = None) -> str:
    """Make the page of an evaluation.

    Parameters
    ----------
    report : mapping
        Of :func:`mipp.evaluation.report.described`: a result, and what it was measured on. The page holds it as JSON.
    window : tuple of float, optional
        (low, high) for deep gray images, as in the evaluation.

    Returns
    -------
    str
        HTML. It shows images of the best and worst queries, and labels, in the clear.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.encoding import Encoding
    >>> from mipp.evaluation.evaluate import evaluate_labelled
    >>> from mipp.evaluation.pages import evaluation_page
    >>> from mipp.evaluation.report import described
    >>> vectors = np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]])
    >>> result = evaluate_labelled(vectors, np.array(["a", "a", "b", "b"]), Encoding("cosine", 2))
    >>> "1.0000" in evaluation_page(described(result))
    True
    """
    what = report.get("descriptor") or f"{report['metric']} vectors"
    unit = "images" if "descriptor" in report else "vectors"
    lead = (
        f"{report['images']:,} {unit}, {report['queries']:,} queries, {report['dim']} stored words of {report['ring']} "
        f"bits ({report['bytes']:,} bytes a cloud), {report['scheme']} scheme, mipp {report.get('version', '')}."
    )
    body = [
        _cards(report),
        _notices(report),
        section("Accuracy", [_accuracy(report), _explained(report), _recall_plot(report)]),
        section("Searches of chosen clusters", _clusters(report)),
        section("Differences of the same queries", _differences(report)),
        section("Curves", _curves(report)),
        section("Classes", _classes(report)),
        _examples(report, window),
        section("Queries with the lowest recall", _lowest(report)),
        section("Images that were left out", _errors(report)),
        section("What was measured, and where", [machine_table(report)]),
    ]
    return page(f"Retrieval accuracy: {what}", lead, [part for part in body if part], report)


def machine_table(report: Mapping[str, Any]) -> Markup:
    """Make the table of what a report was measured on.

    Parameters
    ----------
    report : mapping
        With ``machine``, ``versions``, ``command``, ``created``, ``dataset``, as far as they are there.

    Returns
    -------
    Markup

    Examples
    --------
    >>> from mipp.evaluation.pages import machine_table
    >>> "amx" in machine_table({"machine": {"level": "amx"}})
    True
    """
    names = {
        "classes": "classes", "labels_sha256": "SHA-256 of the labels", "names_sha256": "SHA-256 of the file names",
        "vectors_sha256": "SHA-256 of the vectors", "queries_sha256": "SHA-256 of the queries",
        "truth_sha256": "SHA-256 of the true neighbours",
    }  # fmt: skip
    rows: list[tuple[str, object]] = []
    if report.get("command"):
        rows.append(("command", text(report["command"], 4000)))
    if report.get("created"):
        rows.append(("written", report["created"]))
    for name, shown_name in (("images", "images" if "descriptor" in report else "vectors"), ("queries", "queries")):
        if name in report:
            rows.append((shown_name, number(report[name])))
    versions = report.get("versions", {})
    rows += [(names.get(name, name), value) for name, value in report.get("dataset", {}).items()]
    rows += [(str(k).replace("_", " "), v) for k, v in report.get("machine", {}).items() if k not in versions]
    rows += [(f"version of {name}", value) for name, value in versions.items()]
    return table(["fact", "value"], rows)


def _cards(report: Mapping[str, Any]) -> Markup:
    found = report.get("intervals", {}).get("encrypted", {})
    facts = []
    for name in [n for n in measure_names(report) if n in ("map", "p10", "anmrr", "recall1", "recall10")]:
        remark = f"encrypted; {_range(found[name])}" if name in found else "encrypted"
        facts.append((MEASURES[name][0], number(report["encrypted"][name]), remark))
    same = "yes" if report["identical"] else "NO"
    return cards([*facts, ("scores identical", same, "quantised and encrypted, all of them")])


def _notices(report: Mapping[str, Any]) -> Markup:
    parts = []
    if not report["identical"]:
        parts.append(
            paragraph("Encrypted scores differ from those of the quantised plaintext. This is a fault.", "notice")
        )
    if "examples" in report:
        parts.append(paragraph("This page holds labels, and paths and pictures of images, in the clear.", "faint"))
    return join(parts)


def _range(ends: Sequence[float | None], digits: int = 4) -> str:
    """Ends of an interval."""
    return "no interval" if ends[0] is None else f"{number(ends[0], digits)} to {number(ends[1], digits)}"


def _bar(name: str, value: float, ends: Sequence[float | None], mark: float) -> Bar:
    return Bar(name, value, ends[0], ends[1], mark)


def _accuracy(report: Mapping[str, Any]) -> Markup:
    found = report.get("intervals", {})
    columns = ["measure"]
    for kind in KINDS:
        columns += [f"#{kind}", "#95 % interval"]
    rows = []
    for name in measure_names(report):
        row: list[object] = [MEASURES[name][0]]
        for kind in KINDS:
            row += [number(report[kind][name]), _range(found[kind][name]) if kind in found else None]
        rows.append(row)
    return table(columns, rows, caption="Means over queries")


def _explained(report: Mapping[str, Any]) -> Markup:
    has = measure_names(report)
    texts = [sentence for name, sentence in _EXPLAINED.items() if name in has]
    texts.append(
        f"Intervals: {100 * CONFIDENCE:g} %, by bootstrap over the queries ({RESAMPLES:,} draws, fixed seed, "
        "percentile method). They say how far a figure depends on the choice of queries, not what another collection "
        "would give."
    )
    return join([paragraph(sentence, "faint") for sentence in texts])


def _differences(report: Mapping[str, Any]) -> list[Markup]:
    found = report.get("differences")
    if not found:
        return []
    names = [f"{b} - {a}" for a, b in PAIRS]
    columns = ["measure"]
    for name in names:
        columns += [f"#{name.replace('-', '−')}", "#95 % interval"]
    rows = []
    for measure in measure_names(report):
        row: list[object] = [MEASURES[measure][0]]
        for name in names:
            difference, *ends = found[name][measure]
            row += [number(difference, FINE, signed=True), _range(ends, FINE)]
        rows.append(row)
    said = "Each query is compared with itself, so these intervals are much narrower than those of the means."
    return [table(columns, rows, caption="Means of differences"), paragraph(said, "faint")]


def _curves(report: Mapping[str, Any]) -> list[Markup]:
    curves = report.get("curves")
    if not curves:
        return []
    plots = (
        ("precision", "Precision at recall (interpolated)", "recall", "precision", 0.0),
        ("hits", "Queries with a right image among the first k", "k", "share of queries", 1.0),
        ("p_at_k", "Precision among the first k", "k", "precision", 1.0),
    )
    out = []
    for name, title, across, up, first in plots:
        count = len(next(iter(curves.values()))[name])
        xs = [first + i for i in range(count)] if first else [i / (count - 1) for i in range(count)]
        series = [Series(kind, xs, curve[name]) for kind, curve in curves.items()]
        ends = "; ".join(f"{s.name} from {number(s.y[0], 3)} to {number(s.y[-1], 3)}" for s in series)
        plot = lines(title, f"{title}: {ends}.", series, name=f"plot-{name.replace('_', '-')}", across=across, up=up,
                     y=(0.0, 1.0))  # fmt: skip
        rows = [
            [number(x, 2) if not first else number(int(x)), *(number(s.y[i]) for s in series)] for i, x in enumerate(xs)
        ]
        out.append(figure(title, plot, table([f"#{across}", *(f"#{s.name}" for s in series)], rows)))
    return [Markup(f'<div class="figures">{join(out)}</div>')]


def _classes(report: Mapping[str, Any]) -> list[Markup]:
    found = by_class(report)
    if not found:
        return []
    first, last = found, []
    if len(found) > _BARS:
        first, last = found[: _BARS // 2], found[-_BARS // 2 :]
    drawn = [
        _bar(c["label"], c["encrypted"]["map"], c["interval"], c["float"]["map"])
        for c in (*first, *last) if c["encrypted"]["map"] is not None
    ]  # fmt: skip
    said = "" if not last else f" Of {len(found):,} classes, the {len(first)} best and the {len(last)} worst."
    out = []
    if drawn:
        plot = bars(
            "mAP by class",
            f"Encrypted mAP of {len(drawn)} classes, highest first: from {number(drawn[0].value, 3)} to "
            f"{number(drawn[-1].value, 3)}. The numbers are in the table of classes.",
            drawn, name="plot-classes", across="mAP", ends=(0.0, 1.0),
        )  # fmt: skip
        out.append(figure(f"mAP by class, encrypted, with 95 % intervals; diamond: float.{said}", plot))
    columns = ["class", "#queries", "#mAP", "#95 % interval", "#P@10", "#P@20", "#1-NN error", "#ANMRR", "#mAP, float",
               "#P@10, float"]  # fmt: skip
    listed = found if len(found) <= _CLASSES else [*found[: _CLASSES // 2], *found[-_CLASSES // 2 :]]
    rows = [
        [
            c["label"], number(c["queries"]), number(c["encrypted"]["map"]), _range(c["interval"]),
            *(number(c["encrypted"][name]) for name in ("p10", "p20", "nn_error", "anmrr")),
            *(number(c["float"][name]) for name in ("map", "p10")),
        ]
        for c in listed
    ]  # fmt: skip
    out.append(table(columns, rows, caption="Means over the queries of a class; encrypted unless said"))
    if len(listed) < len(found):
        out.append(paragraph(f"The table has the {_CLASSES // 2} best and the {_CLASSES // 2} worst classes.", "faint"))
    return out


def _examples(report: Mapping[str, Any], window: tuple[float, float] | None) -> Markup:
    out = []
    for name, heading in (("best", "Best queries"), ("worst", "Worst queries")):
        rows = []
        for query in report.get("examples", {}).get(name, ()):
            items = [_tile(query, "query", ["query", query["label"], f"AP {number(query['map'], 3)}"], window)]
            for rank, hit in enumerate(query["hits"], 1):
                kind, word = ("right", "✓ right") if hit["right"] else ("wrong", "✗ wrong")
                items.append(_tile(hit, kind, [f"{rank} {word}", hit["label"]], window))
            rows.append(Markup(f'<ul class="tiles">{join(items)}</ul>'))
        if rows:
            said = paragraph(f"By average precision (AP), encrypted; the first {len(query['hits'])} hits.", "faint")
            out.append(section(heading, [said, *rows]))
    return join(out)


def _tile(
    image: Mapping[str, Any], kind: str, said: Sequence[str], window: tuple[float, float] | None
) -> Markup:  # fmt: skip
    if "path" not in image:
        return picture(
            None, "", [said[0], *(plain(line, 60) for line in said[1:])], kind, missing=f"row {image['row']}"
        )
    name = Path(image["path"]).name
    lines_under = [said[0], *(plain(line, 60) for line in said[1:]), plain(name, 60)]
    try:
        small = Image.fromarray(thumbnail(load_image(image["path"], window=window), _TILE))
    except MippError:  # the file may have changed since it was measured
        return picture(None, "", lines_under, kind, missing="cannot be read any more")
    content = io.BytesIO()
    form = "webp" if features.check("webp") else "png"
    small.save(content, form.upper(), **({"quality": 80, "method": 4} if form == "webp" else {}))
    alternative = f"{'query' if kind == 'query' else 'hit'}: {name}, {said[1]}"
    return picture(data_uri(content.getvalue(), f"image/{form}"), alternative, lines_under, kind)


def _lowest(report: Mapping[str, Any]) -> list[Markup]:
    """Of an evaluation by neighbours: rows of a table."""
    per_query = report.get("per_query")
    if not per_query or "labels" in per_query:
        return []
    names = measure_names(report)
    key = "recall10" if "recall10" in names else names[0]
    values = per_query["encrypted"][key]
    order = sorted(range(len(values)), key=lambda i: (values[i], i))[:10]
    rows = [[number(per_query["rows"][i]), *(number(per_query["encrypted"][name][i]) for name in names)] for i in order]
    return [
        table(["#query", *(f"#{MEASURES[name][0]}" for name in names)], rows,
              caption=f"Encrypted; lowest {MEASURES[key][0]} first, queries counted from 0"),
    ]  # fmt: skip


def _recall_plot(report: Mapping[str, Any]) -> Markup:
    """Of an evaluation by neighbours: mean recalls; their numbers are in the table of accuracy."""
    if "curves" in report or "intervals" not in report:
        return Markup("")
    names = measure_names(report)
    found = report["intervals"]["encrypted"]
    drawn = [_bar(MEASURES[n][0], report["encrypted"][n], found[n], report["float"][n]) for n in names]
    said = "; ".join(f"{bar.name} {number(bar.value, 3)}" for bar in drawn)
    plot = bars(
        "Recall", f"Encrypted recall by depth: {said}. The numbers are in the table of accuracy.", drawn,
        name="plot-recall", across="recall", ends=(0.0, 1.0),
    )  # fmt: skip
    return figure("Recall, encrypted, with 95 % intervals; diamond: float", plot)


def _clusters(report: Mapping[str, Any]) -> list[Markup]:
    found = report.get("clusters")
    if found is None:
        return []
    columns = ("#clusters", "#groups", "#k", "#found", "#worst query", "#rows that servers rank, over all")
    row = [
        found["clusters"],
        found["groups"],
        found["k"],
        *(number(found[n], 3) for n in ("recall", "least", "ranked")),
    ]
    return [
        table(columns, [row], caption="Part of the k nearest that is found when a query looks at one cluster a group")
    ]


def _errors(report: Mapping[str, Any]) -> list[Markup]:
    errors = report.get("errors") or ()
    # a reason begins with the file's path
    rows = [[Path(path).name, reason.removeprefix(f"{shown(Path(path))}: ")] for path, reason in errors[:_ERRORS]]
    out = [table(["file", "reason"], rows)] if rows else []
    if len(errors) > _ERRORS:
        out.append(paragraph(f"{len(errors) - _ERRORS:,} more are in the data of this page."))
    return out
