"""``python -m mipp.compat.ann_benchmarks FILE.hdf5``: the figures of ann-benchmarks, without ann-benchmarks."""

from __future__ import annotations

import functools
import itertools
import json
import sys
from pathlib import Path
from typing import Any

import click

from ...errors import MippError
from ...io.files import shown
from ...io.layouts import suffix_of
from .measure import measure
from .plots import check_plot_file, plot_recall

_LINES = (
    ("recall@{k}", "recall", "{:.4f}"),
    ("recall@{k}, batch", "recall_batch", "{:.4f}"),
    ("queries/s", "queries_per_second", "{:.1f}"),
    ("queries/s, batch", "queries_per_second_batch", "{:.1f}"),
    ("build, s", "build_seconds", "{:.2f}"),
    ("memory, KiB", "memory_kib", "{:.0f}"),
)

#: files of big-ann-benchmarks, which another command measures
_BINS = (".fbin", ".u8bin", ".i8bin", ".ibin")


@click.command("mipp.compat.ann_benchmarks")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-k", type=click.IntRange(1), default=10, show_default=True, help="Neighbours.")
@click.option("--queries", type=click.IntRange(1), help="Only the first so many; default all.")
@click.option(
    "--ring", "rings", type=click.Choice(["0", "16", "32", "64"]), multiple=True, default=("32",), show_default=True,
    help="0: as the data need. Several: one after the other.",
)  # fmt: skip
@click.option(
    "--ranking", "rankings", type=click.Choice(["user", "server"]), multiple=True, default=("user",), show_default=True
)
@click.option("--threads", type=click.IntRange(1), help="Native threads; default all cores.")
@click.option("--plot", type=click.Path(path_type=Path), help="Draw recall against queries per second: .png or .svg.")
@click.option("--json", "as_json", is_flag=True, help="Print one object per measurement.")
def main(
    files: tuple[Path, ...], k: int, queries: int | None, rings: tuple[str, ...], rankings: tuple[str, ...],
    threads: int | None, plot: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Recall, queries per second, build time and memory of encrypted search on files of ann-benchmarks."""
    failed = False
    points: list[tuple[str, float, float]] = []
    try:
        if plot is not None:
            check_plot_file(plot)
    except MippError as error:
        click.echo(f"mipp: {error}", err=True)
        sys.exit(1)
    for path in files:
        try:
            for ring, ranking in dict.fromkeys(itertools.product(rings, rankings)):
                found = measure(
                    path, k=k, queries=queries or 0, ring_bits=int(ring), ranking=ranking, threads=threads,
                    notice=functools.partial(_notice, path),
                )  # fmt: skip
                click.echo(json.dumps(found) if as_json else _text(found))
                name = (
                    f"{path.stem if len(files) > 1 else ''} {found['ring_bits']} bits, ranked by the {ranking}".strip()
                )
                points.append((name, found["recall"], found["queries_per_second"]))
                points.append((f"{name}, batch", found["recall_batch"], found["queries_per_second_batch"]))
        except MippError as error:
            more = "" if suffix_of(path) not in _BINS else "; for such files: python -m mipp.compat.big_ann_benchmarks"
            text = str(error).removeprefix(f"{shown(path)}: ")
            click.echo(f"{path}: {text}{more}", err=True)
            failed = True
    try:
        if plot is not None and points:
            plot_recall(plot, points, k=k, title=", ".join(path.stem for path in files))
            click.echo(f"{shown(plot)} written", err=True)
    except MippError as error:
        click.echo(f"mipp: {error}", err=True)
        failed = True
    sys.exit(int(failed))


def _notice(path: Path, text: str) -> None:
    click.echo(f"{shown(path)}: {text}", err=True)


def _text(found: dict[str, Any]) -> str:
    head = "{file}: {rows} x {dim}, {queries} queries, {distance}, {algorithm}".format(**found)
    lines = [f"  {name.format(k=found['k']):<20}{form.format(found[key])}" for name, key, form in _LINES]
    return "\n".join([head, *lines])


if __name__ == "__main__":
    main()
