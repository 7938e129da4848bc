"""``mipp owner``: images and files of vectors that an owner adds, lists and deletes."""

from __future__ import annotations

import contextlib
import copy
import os
from collections.abc import Callable, Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from ..client.image_ids import image_rows
from ..client.ingest import AddReport
from ..client.journal import is_gone
from ..client.owner import ImageOwner
from ..client.part_ids import PartIds
from ..client.reading import way_out
from ..client.row_ids import FileRows
from ..errors import NotFoundError, ParameterError
from ..io.files import replacing
from ..io.patterns import is_pattern, pattern_matcher, place_of
from ..io.tables import csv_rows
from ..io.vectors import SUFFIXES as VECTOR_SUFFIXES
from ..rpc.grants import time_text
from .common import deployment_option, json_option, opened, own_text, progress, show, warn_of_others
from .outputs import RegularFile, check_output_file, printable, warn
from .owner import load_owner, owner_group
from .passphrases import passphrase_option
from .tables import print_csv, print_table


def _checking(done: int, total: int) -> None:
    click.echo(f"mipp: the servers have checked {done:,} of {total:,} rows", err=True)


@owner_group.command("add")
@click.argument("name")
@click.argument("images", nargs=-1, type=click.Path(path_type=Path, exists=True))
@click.option("--vectors", type=RegularFile(), help=f"File of vectors of any size: {', '.join(VECTOR_SUFFIXES)}.")
@click.option("--column", "columns", multiple=True, help="Of a Parquet or Arrow file: column of vectors; or several.")
@click.option("--check", is_flag=True, help="With --vectors: check all rows before the first is sent; reads twice.")
@click.option(
    "--metadata",
    type=RegularFile(),
    help=".csv or .jsonl with a column or field path, the file inside what is added; with --vectors a line a row.",
)
@click.option(
    "--ids", "ids_file", type=click.Path(path_type=Path, dir_okay=False),
    help="With --vectors: write row of the file and id of each row to this .csv, also of rows that were there already.",
)  # fmt: skip
@click.option("--preview-size", type=click.IntRange(0), help="Most bytes of a thumbnail; default as much as fits.")
@click.option("--follow-links", is_flag=True, help="Also add what links in folders name outside of these folders.")
@click.option("--workers", type=click.IntRange(1), help="Threads that decode and extract; default all cores.")
@passphrase_option
@deployment_option
@json_option
def add_command(
    name: str,
    images: tuple[Path, ...],
    vectors: Path | None,
    columns: tuple[str, ...],
    check: bool,
    metadata: Path | None,
    ids_file: Path | None,
    preview_size: int | None,
    follow_links: bool,
    workers: int | None,
    folder: Path,
    as_json: bool,
) -> None:
    """Extract, encode, encrypt and upload IMAGES (files or folders) or a file of vectors.

    Call it again to resume: content that is there already is skipped, also under another name. The rows of a file
    that was changed are replaced. Links that lead out of a folder are left out (--follow-links adds them). Exit code 1
    if a file was left out, or if every cloud has lost rows of a file that is there already: then mipp owner delete the
    file, and add it again.

    Vectors are added in batches, in the memory of two batches. Each is checked before it is sent, and stays if a later
    one is refused.
    """
    from ..client.ingest import add_images, names_inside
    from ..client.streaming import add_file
    from ..io.metadata import read_metadata, read_rows
    from ..io.streams import open_rows
    from ..io.walk import walk_images

    if bool(images) == (vectors is not None):
        raise click.UsageError("give either IMAGES or --vectors FILE")
    if (check or columns) and vectors is None:
        raise click.UsageError("--check and --column go with --vectors")
    if ids_file is not None:
        _check_ids_file(ids_file, vectors, metadata)
    left_out: list[tuple[Path, str]] = []
    others: list[Path] = []
    with opened(folder) as deployment:
        owner = load_owner(deployment, name)
        owner.checking = None if as_json else _checking
        if vectors is not None:
            if deployment.config.descriptor:
                raise ParameterError(f"this index holds {deployment.config.descriptor} features of images; add images")
            with open_rows(vectors, columns) as stream:
                fields = None if metadata is None else read_rows(metadata, stream.rows)
                ticks = progress("add", stream.rows, as_json, stream.size / stream.rows)
                with _ids_file(ids_file) as listed, ticks as advance:
                    report = add_file(owner, stream, metadata=fields, check=check, progress=advance, listed=listed)
        else:
            paths, left_out = walk_images(images, outside=follow_links, others=others)
            warn_of_others(others)
            if not paths:
                raise ParameterError(
                    "; ".join(
                        [
                            f"no image files in {', '.join(map(str, images))}",
                            *(f"{path}: {text}" for path, text in left_out),
                        ]
                    )
                )
            names = names_inside(images, paths)
            told = {} if metadata is None else read_metadata(metadata)
            if unknown := sorted(told.keys() - set(names.values())):
                text = f"{metadata} names {unknown[0]}, which is not among the files that are added"
                if len(unknown) == len(told):
                    raise ParameterError(text)
                warn(f"{text}" + (f", and {len(unknown) - 1} more such files" if len(unknown) > 1 else ""))
            of_path = {path: told[name] for path, name in names.items() if name in told}
            with progress("add", len(paths), as_json) as advance:
                report = add_images(
                    owner, paths, metadata=of_path, names=names, preview_size=preview_size, workers=workers,
                    progress=advance,
                )  # fmt: skip
            if there := len(of_path.keys() - {Path(file) for file, _ in [*report.added, *report.errors]}):
                warn(f"{there} files with metadata were there already, so it was not changed: see mipp owner annotate")
    if report.lost:
        warn(
            f"{report.lost:,} rows of these files are lost: no cloud has them any more, so searches leave them out; "
            + way_out(name)
        )
    if show_added(report, left_out, others, as_json, *_rates(report)) or report.lost:
        raise click.exceptions.Exit(1)


def show_added(
    report: AddReport, left_out: Sequence[tuple[Path, str]], others: Sequence[Path], as_json: bool,
    more: dict[str, Any] | None = None, words: str = "",
) -> bool:  # fmt: skip
    """Say what was added, ``more`` of it in JSON and ``words`` at the end of the line; whether a file was left out."""
    added = len(report.added)
    shown = report.added if not isinstance(report.added, FileRows) or added <= _LISTED else ()
    ids = [{"file": file, "id": f"{batch.hex()}:{row}"} for file, (batch, row) in shown]
    errors = [{"file": str(path), "error": text} for path, text in left_out]
    errors += [{"file": file, "error": own_text(file, text)} for file, text in report.errors]
    outcome = {
        "added": added, "skipped": report.skipped, "replaced": report.replaced, "lost": report.lost, "errors": errors,
        "ids": ids, "no_images": [str(path) for path in others], **(more or {}),
    }  # fmt: skip
    show(outcome, as_json, lambda: [
        *(f"left out {e['file']}: {e['error']}" for e in errors),
        f"{added} added, {report.skipped} already there, {len(errors)} left out"
        + (f", {report.replaced} replaced" if report.replaced else "") + words,
    ])  # fmt: skip
    return bool(errors)


#: rows of vectors whose ids are in JSON one by one; --ids writes those of any number
_LISTED = 10_000


def _check_ids_file(path: Path, vectors: Path | None, metadata: Path | None) -> None:
    """Refuse, before the work, a file that ids cannot or should not be written to."""
    if vectors is None:
        raise click.UsageError("--ids goes with --vectors; ids of images are in --json")
    if path.suffix.lower() != ".csv":
        raise ParameterError(f"ids are written as .csv, not as {path.name}")
    check_output_file(path)
    if any(path.exists() and given is not None and path.samefile(given) for given in (vectors, metadata)):
        raise ParameterError(f"{path} is read by this command, so ids are not written to it")


@contextlib.contextmanager
def _ids_file(path: Path | None) -> Iterator[Callable[[PartIds], None] | None]:
    """A function that writes ids of rows to a file, which is there once all are; None for no file."""
    if path is None:
        yield None
        return
    with replacing(path, mode=0o600) as file:
        file.write(csv_rows([["row", "id"]]).encode())

        def write(part: PartIds) -> None:
            names = [batch.hex() for batch in part.batches]
            for at in range(0, len(part.rows), _LISTED):
                some = (column[at : at + _LISTED].tolist() for column in (part.rows, part.which, part.numbers))
                lines = ((row, f"{names[n]}:{number}") for row, n, number in zip(*some, strict=True))
                file.write(csv_rows(lines).encode())

        yield write


def _rates(report: AddReport) -> tuple[dict[str, Any], str]:
    """Of vectors: batches, rows and bytes a second, in JSON and in words."""
    if not isinstance(report.added, FileRows):
        return {}, ""
    rows = len(report.added) + report.skipped
    per_second, bytes_per_second = (n / max(report.seconds, 1e-9) for n in (rows, report.read_bytes))
    more = {
        # rows of a batch with clusters do not follow each other, so there is no first one
        "batches": [
            {
                "id": run.batch.hex(), "first": run.first if run.places is None else None, "rows": run.rows,
                "file_row": run.start, "laid_out": run.places is not None,
            }
            for run in report.added.runs
        ],
        "seconds": round(report.seconds, 3), "rows_per_second": round(per_second, 1),
        "mib_per_second": round(bytes_per_second / (1 << 20), 2),
    }  # fmt: skip
    return more, f" ({per_second:,.0f} rows/s, {bytes_per_second / (1 << 20):,.1f} MiB/s)"


@owner_group.command("list")
@click.argument("name")
@click.argument("patterns", nargs=-1, metavar="[PATTERN]...")
@click.option("--batches", "by_batch", is_flag=True, help="List batches instead: id, rows, live rows, when, refused.")
@click.option("--csv", "as_csv", is_flag=True, help="Print CSV.")
@passphrase_option
@deployment_option
@json_option
def list_command(
    name: str, patterns: tuple[str, ...], by_batch: bool, as_csv: bool, folder: Path, as_json: bool
) -> None:
    """List this owner's images, or its files of vectors: id, when it was added, the file that it was last seen at.

    PATTERN limits the list to files: a path, or one with wildcards in quotes, from the current folder on
    ('photos/*.jpg', 'photos/**', '/**/a.png'). An id names its image for good, whatever is merged. Times are of the
    journal: of images that were read back from the servers it has none.
    """
    if as_json and as_csv:
        raise click.UsageError("give either --json or --csv")
    if by_batch and patterns:
        raise click.UsageError("batches have no paths: give either --batches or PATTERN")
    with opened(folder) as deployment:
        owner = load_owner(deployment, name)
        of_images = bool(deployment.config.descriptor)
        if by_batch:
            columns, rows, data = _batches(owner)
        elif of_images:
            columns, rows, data = _images(owner, patterns)
        else:
            columns, rows, data = _vectors(owner, patterns)
    if as_csv:
        print_csv(columns, rows)
    elif as_json:
        show(data, True, list)
    else:
        print_table(columns, rows)
    if not rows:
        what = " and ".join(patterns)
        warn(f"owner {name} has no file {what}; wildcards need quotes" if patterns else f"owner {name} has no images")


#: columns, rows of a table, and JSON
_Listed = tuple[list[str], list[list[Any]], dict[str, Any]]


def _batches(owner: ImageOwner) -> _Listed:
    times = owner.batch_times()
    data = [
        {
            "id": b.id.hex(), "rows": b.rows, "live": b.live, "added": times.get(b.id), "refused": b.refused,
            "generation": b.generation,
        }
        for b in owner.batches()
    ]  # fmt: skip
    rows = [[d["id"], d["rows"], d["live"], _when(d["added"]), d["refused"]] for d in data]
    return ["id", "rows", "live", "added", "refused"], rows, {"batches": data}


def _images(owner: ImageOwner, patterns: Sequence[str]) -> _Listed:
    images = owner.images()
    wanted = _wanted(patterns, [image.path for image in images])
    found = [image for image in images if wanted(image.path)]
    data = [
        {
            "id": image.id, "file": _text(image.path), "batch": image.batch.hex(), "row": image.row,
            "added": image.added,
        }
        for image in found
    ]  # fmt: skip
    rows = [[d["id"], d["row"], _when(d["added"]), d["file"]] for d in data]
    return ["id", "row", "added", "file"], rows, {"images": data}


def _vectors(owner: ImageOwner, patterns: Sequence[str]) -> _Listed:
    files = owner.vectors()
    wanted = _wanted(patterns, [f.path for f in files])
    data = [
        {"file": _text(f.path), "rows": f.rows, "batches": [b.hex() for b in f.batches], "added": f.added}
        for f in files if wanted(f.path)
    ]  # fmt: skip
    rows = [[d["rows"], _when(d["added"]), d["file"]] for d in data]
    return ["rows", "added", "file"], rows, {"vectors": data, "images": _images(owner, patterns)[2]["images"]}


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _when(seconds: Any) -> str:
    return "" if seconds is None else time_text(seconds)


def _wanted(patterns: Sequence[str], paths: Sequence[Path | None]) -> Any:
    """A test of these paths: whether one of the patterns matches; all do without patterns."""
    known = {path for path in paths if path is not None}
    tests = [_test(text, known) for text in patterns]
    return lambda path: not tests or (path is not None and any(test(path) for test in tests))


def _test(text: str, known: Collection[Path]) -> Any:
    """A test of paths: whether one is the file of this name, or, where there is no such file, matches the pattern."""
    place = place_of(Path(text))
    if not is_pattern(text) or place in known or os.path.lexists(place):
        return lambda path: path == place
    return pattern_matcher(text)


images_command = copy.copy(list_command)
images_command.name, images_command.hidden = "images", True
images_command.help = "The earlier name of mipp owner list."
owner_group.add_command(images_command)


@owner_group.command("delete")
@click.argument("name")
@click.argument("targets", nargs=-1, required=True, metavar="TARGET...")
@click.option("--dry-run", is_flag=True, help="Say what would be deleted, and delete nothing.")
@click.option("--yes", is_flag=True, help="Do not ask before more than one row or file is deleted.")
@passphrase_option
@deployment_option
@json_option
def delete_command(name: str, targets: tuple[str, ...], dry_run: bool, yes: bool, folder: Path, as_json: bool) -> None:
    """Delete images. TARGET is an id, a file, or a path with wildcards in quotes.

    An id is batch:row, as mipp owner list and mipp search print it. Files are those that mipp owner list shows, on the
    disk or not; wildcards are those of mipp owner list ('photos/old/**'). A file's content that another file holds
    stays. A TARGET that names no file is an error, and nothing is deleted. More than one row or file is deleted only
    after a question, or with --yes.
    """
    ids = [text for text in targets if _is_id(text)]
    with opened(folder) as deployment:
        owner = load_owner(deployment, name)
        paths = _chosen(owner, [text for text in targets if not _is_id(text)])
        wanted = list(dict.fromkeys(image_rows(ids)))
        named = [f"{batch.hex()}:{row}" for batch, row in wanted] + [str(path) for path in paths]
        count = len(wanted) + _rows_of(owner, paths, of_images=bool(deployment.config.descriptor))
        what = f"{count:,} row{'s' * (count != 1)}" + (f" of {_files(len(paths))}" if paths else "")
        if dry_run:
            data = {
                "owner": name, "dry_run": True, "ids": named[: len(wanted)], "files": named[len(wanted) :],
                "rows": count,
            }  # fmt: skip
            show(data, as_json, lambda: [*(f"would delete {text}" for text in named), f"{what} in all"])
            return
        if (count > 1 or len(named) > 1) and not yes:
            for text in named[:_SHOWN]:
                click.echo(printable(text), err=True)
            if len(named) > _SHOWN:
                click.echo(f"... and {len(named) - _SHOWN} more", err=True)
            click.confirm(f"Delete {what} of owner {name}?", abort=True, err=True)
        deleted = owner.delete(wanted) if wanted else 0
        before = len(wanted) - deleted
        rows, kept = owner.delete_files(paths) if paths else (0, 0)
    if there := [path for path in paths if not is_gone(path)]:
        several = len(there) > 1
        warn(
            f"{there[0]}{' and others are' if several else ' is'} still on the disk: adding or syncing brings "
            f"{'them' if several else 'it'} back"
        )
    data = {"owner": name, "deleted": deleted + rows, "already_gone": before, "kept": kept}
    show(data, as_json, lambda: [
        f"{deleted + rows} deleted" + (f", {before} already gone" if before else "")
        + (f", {kept} kept, as other files have the same content" if kept else "")
    ])  # fmt: skip


#: names that the question before a deletion shows
_SHOWN = 10


def _is_id(text: str) -> bool:
    """Whether a text has the form of an image id."""
    batch, colon, row = text.partition(":")
    return colon == ":" and len(batch) == 32 and set(batch) <= set("0123456789abcdefABCDEF") and row.isdecimal()


def _rows_of(owner: ImageOwner, paths: Sequence[Path], *, of_images: bool) -> int:
    """Rows that these files hold: as many as are deleted, unless another file holds the same content."""
    if of_images or not paths:
        return len(paths)
    rows = {file.path: file.rows for file in owner.vectors()}
    return sum(rows.get(path, 0) for path in paths)


def _files(count: int) -> str:
    return f"{count:,} file{'s' * (count != 1)}"


def _chosen(owner: ImageOwner, targets: Sequence[str]) -> list[Path]:
    """Files that the journal knows and that targets name; NotFoundError for a target that names none."""
    if not targets:
        return []
    known, chosen = owner.files(), dict[Path, None]()
    for text in targets:
        test = _test(text, set(known))
        found = [path for path in known if test(path)]
        if not found:
            raise NotFoundError(_no_file(owner, text, known))
        chosen.update(dict.fromkeys(found))
    return list(chosen)


def _no_file(owner: ImageOwner, text: str, known: Sequence[Path]) -> str:
    inside = sum(place_of(Path(text)) in path.parents for path in known)
    if inside:
        return f"{text} is a folder with {inside} files of owner {owner.name}: '{Path(text) / '**'}' deletes them"
    return f"{text} is no image id (batch:row) and names no file of owner {owner.name}; mipp owner list shows both"
