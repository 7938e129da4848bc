"""Figures of the tools as one HTML page: tables, plots of ratios, the machine, and the data itself.

Pages are made by :mod:`mipp.evaluation.html`: no script, nothing to load. The data in a page is that of ``--json``, so
``--compare OLD`` takes an earlier page as well as an earlier JSON file. It sets ratios beside those of the earlier run,
and only where both are of one machine, by fingerprint, and of full sizes. Ratios were measured in turn within each run,
so they bear such a comparison; times of two runs do not, and are not compared.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mipp.errors import MippError
from mipp.evaluation.html import Markup, figure, is_page, number, page, paragraph, read_page, section, table
from mipp.evaluation.pages import machine_table
from mipp.evaluation.svg import Bar, Series, bars, lines
from mipp.io.files import replace_whole

Row = Mapping[str, Any]


@dataclass(frozen=True)
class Kind:
    """A tool's page: how its rows are named, shown and compared."""

    title: str
    lead: str
    #: columns with the text of a row in each; ``#`` marks figures
    columns: Sequence[tuple[str, Callable[[Row], object]]]
    #: equal for rows that two runs can compare
    key: Callable[[Row], tuple[object, ...]]
    #: the ratio that is compared, and its name
    ratio: Callable[[Row], float]
    ratio_name: str
    plots: Callable[[Sequence[Row]], list[Markup]]


def add_options(parser: argparse.ArgumentParser) -> None:
    """``--html`` and ``--compare``."""
    parser.add_argument("--html", type=Path, metavar="FILE.html", help="one page with tables and plots")
    parser.add_argument(
        "--compare", type=Path, metavar="OLD", help="with --html: an earlier page or JSON file, to set ratios beside"
    )


def check(parser: argparse.ArgumentParser, asked: argparse.Namespace, schema: str) -> dict[str, Any] | None:
    """Before the work: that the page can be written; the earlier run's data, if one is named."""
    if asked.html is None:
        if asked.compare is not None:
            parser.error("--compare goes with --html")
        return None
    folder = asked.html.parent
    if not is_page(asked.html):
        parser.error(f"--html writes a page: its name ends in .html, not as {asked.html.name!a}")
    if not folder.is_dir() or not os.access(folder, os.W_OK | os.X_OK) or asked.html.is_dir():
        parser.error(f"cannot write {asked.html}")
    if asked.compare is None:
        return None
    try:
        earlier = read_page(asked.compare)
    except MippError as error:
        parser.error(str(error))
    if earlier.get("schema") != schema or not isinstance(earlier.get("results"), list):
        parser.error(f"{asked.compare} holds no run of this tool ({schema})")
    return earlier


def write(path: Path, kind: Kind, content: dict[str, Any], earlier: dict[str, Any] | None, name: str) -> None:
    """Write the page of a run; ``name`` is the tool's, for the command line."""
    command = shlex.join(["python", "-m", name, *sys.argv[1:]])
    replace_whole(path, make(kind, content, earlier, command).encode())
    print("page:", path)


def make(kind: Kind, content: dict[str, Any], earlier: dict[str, Any] | None = None, command: str = "") -> str:
    """The page of a run. ``content`` is what ``--json`` writes, and lies in the page as it is."""
    rows: list[Row] = content["results"]
    parts = []
    if content["quick"]:
        parts.append(paragraph("Measured with --quick: the figures mean nothing.", "notice"))
    if content["busy"]:
        parts.append(paragraph(f"The machine was {content['busy']}.", "notice"))
    columns, shown = [name for name, _ in kind.columns], [[get(row) for _, get in kind.columns] for row in rows]
    if earlier is not None:
        reasons, found = compared(kind, content, earlier)
        if reasons:
            parts.append(paragraph(f"Not compared with the earlier run: {'; '.join(reasons)}.", "notice"))
        else:
            columns += [f"#{kind.ratio_name} before", "#now / before"]
            shown = [[*cells, *_before(kind, row, found)] for cells, row in zip(shown, rows, strict=True)]
            said = f"Before: the run of {earlier.get('datetime')}. Ratios of two runs only hint; measure again in turn."
            parts.append(paragraph(said, "faint"))
    parts.append(table(columns, shown, caption="All figures"))
    if content.get("growth"):
        grown = [[name, number(ratio, 3)] for name, ratio in content["growth"].items()]
        caption = "Time per row of the most rows over that of an eighth of them"
        parts.append(table(["case", "#ratio"], grown, caption=caption))
    if content.get("left_out"):
        left_out = list(content["left_out"].items())
        parts.append(table(["left out", "why"], left_out, caption="Works that were left out"))
    facts = {"machine": content["machine"], "versions": content.get("versions", {}), "created": content["datetime"]}
    body = [
        section("Figures", parts),
        section("Plots", kind.plots(rows) if rows else []),
        section("Where it was measured", [machine_table(facts | ({"command": command} if command else {}))]),
    ]
    return page(kind.title, kind.lead, [part for part in body if part], content)


def compared(
    kind: Kind, content: Mapping[str, Any], earlier: Mapping[str, Any]
) -> tuple[list[str], dict[tuple[object, ...], float]]:
    """Why the ratios of two runs are not comparable; else the earlier run's, by the key of their rows."""
    theirs = earlier.get("machine")
    reasons = []
    if not isinstance(theirs, dict) or theirs.get("fingerprint") != content["machine"]["fingerprint"]:
        reasons.append("it is of another machine")
    if content["quick"] or earlier.get("quick") is not False:
        reasons.append("a run with --quick measures nothing")
    found = {}
    for row in earlier["results"]:
        try:
            found[kind.key(row)] = float(kind.ratio(row))
        except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError):  # of another version, or by hand
            reasons.append("it holds a figure that cannot be read")
            break
    return reasons, found


def _before(kind: Kind, row: Row, found: Mapping[tuple[object, ...], float]) -> tuple[str | None, str | None]:
    before = found.get(kind.key(row))
    return (None, None) if not before else (number(before, 3), number(kind.ratio(row) / before, 3))


def _sizes(row: Row) -> str:
    return ", ".join(f"{name} {number(value)}" for name, value in row["sizes"].items())


def _notes(row: Row) -> str:
    kept = {name: value for name, value in row["notes"].items() if name != "paths_ms"}
    return ", ".join(f"{name.replace('_', ' ')}: {value}" for name, value in kept.items())


def _peers_plots(rows: Sequence[Row]) -> list[Markup]:
    shown = [Bar(f"{row['work']} / {row['peer']}", 1 / row["ratio"]) for row in rows]
    said = "; ".join(f"{bar.name}: {number(bar.value, 2)}" for bar in shown)
    title = "Times as fast as the peer"
    plot = bars(title, said, shown, name="plot-peers", across="times as fast (1: equal)", base=1.0, log=True)
    return [figure(f"{title}; bars to the left of 1: the peer is faster. Numbers: the table above", plot)]


PEERS = Kind(
    "The same work by other libraries",
    "Times are medians of one run. Ratios are medians of pairs that were measured in turn; both sides have the threads "
    "named. Trust ratios, not times.",
    [
        ("work", lambda r: r["work"]),
        ("peer", lambda r: r["peer"]),
        ("#threads", lambda r: number(r["threads"])),
        ("#mipp, ms", lambda r: number(r["ms"], 3)),
        ("#peer, ms", lambda r: number(r["peer_ms"], 3)),
        ("#mipp / peer", lambda r: number(r["ratio"], 3)),
        ("#times as fast", lambda r: number(1 / r["ratio"], 2)),
        ("#pairs", lambda r: number(r["rounds"])),
        ("sizes", _sizes),
        ("notes", _notes),
    ],
    lambda r: (r["work"], r["peer"], r["threads"], tuple(sorted(r["sizes"].items()))),
    lambda r: r["ratio"],
    "mipp / peer",
    _peers_plots,
)


def _share_of_limit(row: Row) -> float:
    """How far a promise is kept: 1 exactly, more is better."""
    return row["ratio"] / row["limit"] if row["least"] else row["limit"] / row["ratio"]


def _limits_plots(rows: Sequence[Row]) -> list[Markup]:
    shown = [Bar(f"{row['work']} / {row['against']}", _share_of_limit(row)) for row in rows if row["ratio"] > 0]
    if not shown:
        return []
    said = "; ".join(f"{bar.name}: {number(bar.value, 2)}" for bar in shown)
    title, across = "How far each promise is kept", "share of the promise (1: just kept)"
    plot = bars(title, said, shown, name="plot-limits", across=across, base=1.0, log=True)
    return [figure(f"{title}; bars to the left of 1: missed. Numbers: the table above", plot)]


LIMITS = Kind(
    "Promises against their baselines",
    "Ratios are medians of pairs that were measured in turn in one run. A limit holds on machines of its level and "
    "above.",
    [
        ("work", lambda r: r["work"]),
        ("against", lambda r: r["against"]),
        ("#ms", lambda r: number(r["ms"], 2)),
        ("#ratio", lambda r: number(r["ratio"], 3)),
        ("limit", lambda r: f"at {'least' if r['least'] else 'most'} {r['limit']:g}"),
        ("verdict", lambda r: "kept" if r["kept"] else "missed"),
        ("applies here", lambda r: "yes" if r["applies"] else f"no: {r['level']}"),
        ("#share of the promise", lambda r: number(_share_of_limit(r), 2) if r["ratio"] > 0 else None),
    ],
    lambda r: (r["work"], r["against"]),
    lambda r: r["ratio"],
    "ratio",
    _limits_plots,
)


def _scale_plots(rows: Sequence[Row]) -> list[Markup]:
    threads = max(row["threads"] for row in rows)
    mine = [row for row in rows if row["threads"] == threads]
    queries = sorted({row["queries"] for row in mine})
    ends = list(dict.fromkeys((queries[0], queries[-1])))
    most = max(row["rows"] for row in mine)

    def series(field: str) -> list[Series]:
        out = []
        for kind in dict.fromkeys(row["kind"] for row in mine):
            for count in ends:
                line = [row for row in mine if (row["kind"], row["queries"]) == (kind, count)]
                out.append(Series(f"{kind}, {count} queries", [r["rows"] for r in line], [r[field] for r in line]))
        return out

    by_queries = [
        Series(kind, [r["queries"] for r in line], [r["ns_per_row"] for r in line])
        for kind in dict.fromkeys(row["kind"] for row in mine)
        if (line := [r for r in mine if (r["kind"], r["rows"]) == (kind, most)])
    ]
    plots = (
        ("ns-rows", "Time per row over rows", "rows", "ns a row", series("ns_per_row")),
        ("over-limit", "Time over memory's limit over rows", "rows", "times the limit", series("over_limit")),
        ("ns-queries", f"Time per row over queries, {most:,} rows", "queries", "ns a row", by_queries),
        ("peak", "Peak memory of the process over rows", "rows", "MiB", series("peak_mib")),
    )
    out = []
    for name, title, across, up, drawn in plots:
        said = "; ".join(f"{s.name} from {s.y[0]:.4g} to {s.y[-1]:.4g}" for s in drawn)
        plot = lines(title, f"{title}, {threads} threads: {said}.", drawn, name=f"plot-{name}", across=across, up=up,
                     log=True)  # fmt: skip
        out.append(figure(f"{title}, {threads} threads. Numbers: the table above", plot))
    return [Markup(f'<div class="figures">{"".join(out)}</div>')]


SCALE = Kind(
    "Growth of products with rows and queries",
    "Rows of 128 words. The limit is that of this machine's memory, measured in turn: rows read once, score shares "
    "written once.",
    [
        ("kind", lambda r: r["kind"]),
        ("#threads", lambda r: number(r["threads"])),
        ("#rows", lambda r: number(r["rows"])),
        ("#queries", lambda r: number(r["queries"])),
        ("#seconds", lambda r: number(r["seconds"], 6)),
        ("#ns / row", lambda r: number(r["ns_per_row"], 2)),
        ("#GB/s", lambda r: number(r["gb_per_s"], 2)),
        ("#G products/s", lambda r: number(r["g_products_per_s"], 2)),
        ("#times the limit", lambda r: number(r["over_limit"], 3)),
        ("#peak MiB", lambda r: number(r["peak_mib"], 0)),
        ("#expected MiB", lambda r: number(r["expected_mib"], 0)),
        ("#runs", lambda r: number(r["rounds"])),
    ],
    lambda r: (r["kind"], r["threads"], r["rows"], r["queries"]),
    lambda r: r["over_limit"],
    "times the limit",
    _scale_plots,
)
