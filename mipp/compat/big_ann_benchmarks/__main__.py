"""``python -m mipp.compat.big_ann_benchmarks``: from files of vectors to a plot, without big-ann-benchmarks."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from ...errors import MippError, ParameterError
from ...io.files import shown
from ..ann_benchmarks.plots import check_plot_file, plot_recall
from .dataset import FileDataset
from .measure import measure_files
from .module import METRICS

_FILE = click.Path(path_type=Path)


@click.command("mipp.compat.big_ann_benchmarks")
@click.argument("base", type=_FILE)
@click.argument("queries", type=_FILE)
@click.argument("truth", type=_FILE)
@click.option("--metric", type=click.Choice(list(METRICS)), default="euclidean", show_default=True)
@click.option("-k", type=click.IntRange(1), default=10, show_default=True, help="Neighbours.")
@click.option(
    "--ring", "rings", type=click.Choice(["0", "16", "32", "64"]), multiple=True, default=("32",), show_default=True,
    help="0: as the data need. Several: an index each.",
)  # fmt: skip
@click.option(
    "--ranking", "rankings", type=click.Choice(["user", "server"]), multiple=True, default=("user",), show_default=True
)
@click.option(
    "--batch", "batches", type=click.IntRange(0), multiple=True, default=(0,), show_default=True,
    help="Queries that are sent at once; 0: all.",
)  # fmt: skip
@click.option("--runs", type=click.IntRange(1), default=1, show_default=True, help="The fastest of so many counts.")
@click.option(
    "--index", "folder", type=_FILE, default="data/indices/mipp", show_default=True,
    help="Folder of indexes, which are used again. Holds all secret keys.",
)  # fmt: skip
@click.option("--threads", type=click.IntRange(1), help="Native threads; default all cores.")
@click.option("--plot", type=_FILE, help="Draw recall against queries per second: .png or .svg.")
@click.option("--json", "as_json", is_flag=True, help="Print one object per measurement.")
def main(
    base: Path, queries: Path, truth: Path, metric: str, k: int, rings: tuple[str, ...], rankings: tuple[str, ...],
    batches: tuple[int, ...], runs: int, folder: Path, threads: int | None, plot: Path | None, as_json: bool,
) -> None:  # fmt: skip
    """Recall and queries per second of encrypted search.

    BASE and QUERIES are .fbin, .u8bin or .i8bin files, TRUTH is an .ibin file.
    """
    points: list[tuple[str, float, float]] = []
    try:
        if len(set(rankings)) != len(rankings):
            raise ParameterError("each --ranking is named once")
        if plot is not None:
            check_plot_file(plot)
        dataset = FileDataset(base, queries, truth, metric=metric)
        for ring in dict.fromkeys(rings):
            for found in measure_files(
                dataset, k=k, ring_bits=int(ring), rankings=rankings, batches=tuple(dict.fromkeys(batches)),
                folder=str(folder), threads=threads, runs=runs,
                notice=lambda text: click.echo(f"{shown(base)}: {text}", err=True),
            ):  # fmt: skip
                click.echo(json.dumps(found) if as_json else _text(found))
                name = f"{found['ring_bits']} bits, ranked by the {found['ranking']}"
                points.append((name, found["recall"], found["queries_per_second"]))
        if plot is not None:
            plot_recall(plot, points, k=k, title=f"{dataset.short_name()}: {dataset.nb} x {dataset.d}, {metric}")
            click.echo(f"{shown(plot)} written", err=True)
    except MippError as error:
        click.echo(f"mipp: {error}", err=True)
        sys.exit(1)


def _text(found: dict[str, Any]) -> str:
    index = "built in {build_seconds:.1f} s" if found["build_seconds"] else "index opened"
    return (
        "{dataset}: {rows} x {dim} {dtype}, {queries} queries, {metric}, {algorithm}\n"
        "  recall@{k} {recall:.4f}, {queries_per_second:.1f} queries/s, " + index + ", "
        "memory {memory_kib:.0f} KiB"
    ).format(**found)


if __name__ == "__main__":
    main()
