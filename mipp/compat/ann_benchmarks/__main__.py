"""``python -m mipp.compat.ann_benchmarks FILE.hdf5``: the figures of ann-benchmarks, without ann-benchmarks."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import click

from ...errors import MippError
from .measure import measure

_LINES = (
    ("recall@{k}", "recall", "{:.4f}"),
    ("recall@{k}, batch", "recall_batch", "{:.4f}"),
    ("queries/s", "queries_per_second", "{:.1f}"),
    ("queries/s, batch", "queries_per_second_batch", "{:.1f}"),
    ("build, s", "build_seconds", "{:.2f}"),
    ("memory, KiB", "memory_kib", "{:.0f}"),
)


@click.command("mipp.compat.ann_benchmarks")
@click.argument("files", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("-k", type=click.IntRange(1), default=10, show_default=True, help="Neighbours.")
@click.option("--queries", type=click.IntRange(0), default=0, help="Only the first so many; default all.")
@click.option(
    "--ring", type=click.Choice(["0", "16", "32", "64"]), default="32", show_default=True, help="0: as the data need."
)
@click.option("--ranking", type=click.Choice(["user", "server"]), default="user", show_default=True)
@click.option("--threads", type=click.IntRange(1), help="Native threads; default all cores.")
@click.option("--json", "as_json", is_flag=True, help="Print one object per file.")
def main(
    files: tuple[Path, ...], k: int, queries: int, ring: str, ranking: str, threads: int | None, as_json: bool
) -> None:
    """Recall, queries per second, build time and memory of encrypted search on files of ann-benchmarks."""
    failed = False
    for path in files:
        try:
            found = measure(path, k=k, queries=queries, ring_bits=int(ring), ranking=ranking, threads=threads)
        except MippError as error:
            click.echo(f"{path}: {error}", err=True)
            failed = True
            continue
        click.echo(json.dumps(found) if as_json else _text(found))
    sys.exit(int(failed))


def _text(found: dict[str, Any]) -> str:
    head = "{file}: {rows} x {dim}, {queries} queries, {distance}, {algorithm}".format(**found)
    lines = [f"  {name.format(k=found['k']):<20}{form.format(found[key])}" for name, key, form in _LINES]
    return "\n".join([head, *lines])


if __name__ == "__main__":
    main()
