"""Hits of many queries, written as they come: .csv, .jsonl and .npz files, lines and tables on standard output."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import io
import json
import shutil
import sys
import tempfile
import zipfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol, TypeAlias

import click
import numpy as np

from ..client.nearest import Nearest
from ..client.results import Preview
from ..io.files import replacing
from ..io.tables import cell, printable
from .found import hit_table, print_hits

__all__ = ["SUFFIXES", "Found", "Output", "Queries", "written"]

SUFFIXES = (".csv", ".jsonl", ".npz")
_COLUMNS = ("query", "rank", "id", "owner", "score", "value")
_TOLD = ("name", "caption", "metadata")
#: names of images, or numbers of vectors from 0
Queries: TypeAlias = Sequence[str | int]


@dataclass(frozen=True)
class Found:
    """Hits of B queries as arrays (B, k), best first; in empty places ``row`` and ``owner`` are -1.

    ``owner`` is a number into ``owners``, pairs of id and name. ``previews``: records of the hits in order, of all
    queries one after the other; None if none were asked for.
    """

    names: Queries
    batch: np.ndarray
    row: np.ndarray
    owner: np.ndarray
    owners: Sequence[tuple[bytes, str]]
    score: np.ndarray | None
    value: np.ndarray | None
    previews: Sequence[Preview] | None = None

    @classmethod
    def of(cls, names: Queries, nearest: Nearest) -> Found:
        """The hits of one call of :meth:`mipp.User.nearest`."""
        index, there = nearest.index, nearest.rows >= 0
        batch, row = index.locate(np.where(there, nearest.rows, 0).ravel())
        batch, row = batch.reshape(there.shape), row.reshape(there.shape)
        ids = index.batches[batch]
        ids[~there] = 0
        owner = np.where(there, index.owner_of_batch[batch], -1)
        owners = [(o.owner, o.name) for o in index.owners]
        return cls(names, ids, np.where(there, row, -1), owner, owners, nearest.scores, nearest.values)

    def part(self, start: int, stop: int) -> Found:
        """Some of the queries."""
        return dataclasses.replace(
            self, names=self.names[start:stop], batch=self.batch[start:stop], row=self.row[start:stop],
            owner=self.owner[start:stop], score=None if self.score is None else self.score[start:stop],
            value=None if self.value is None else self.value[start:stop],
        )  # fmt: skip

    def with_previews(self, previews: Sequence[Preview]) -> Found:
        """The same with records."""
        return dataclasses.replace(self, previews=previews)

    def hits(self) -> Iterator[tuple[str | int, list[dict[str, Any]]]]:
        """Of each query its name, and its hits as plain values."""
        previews = iter(self.previews or ())
        batches, width = self.batch.tobytes(), self.row.shape[1]
        rows, owners = self.row.tolist(), self.owner.tolist()
        nothing = [None] * width
        scores = None if self.score is None else self.score.tolist()
        values = None if self.value is None else self.value.tolist()
        for q, (name, of, by) in enumerate(zip(self.names, rows, owners, strict=True)):
            found = []
            score, value = nothing if scores is None else scores[q], nothing if values is None else values[q]
            for rank in range(width):
                if of[rank] < 0:
                    break  # empty places are the last ones
                at = 16 * (q * width + rank)
                hit: dict[str, Any] = {
                    "query": name, "rank": rank + 1, "id": f"{batches[at : at + 16].hex()}:{of[rank]}",
                    "owner": self.owners[by[rank]][1], "score": score[rank], "value": value[rank],
                }  # fmt: skip
                if self.previews is not None:
                    one = next(previews, None)
                    told = ("", "", None) if one is None else (one.path, one.caption, one.metadata)
                    hit |= dict(zip(_TOLD, told, strict=True))
                    if one is not None and one.error is not None:
                        hit["preview_error"] = str(one.error)
                found.append(hit)
            yield name, found


class Output(Protocol):
    """Where hits of a batch go."""

    def add(self, found: Found) -> None:
        """Take the hits of some queries."""

    def told(self, queries: int, unverified: str) -> None:
        """All queries came: their number, and why the servers' answers were not checked, if they were not."""


@contextlib.contextmanager
def written(out: Path | None, metric: str, previews: bool, as_json: bool) -> Iterator[Output]:
    """Where hits go: a file by its suffix, whole or not at all and for this person's eyes alone; or standard output."""
    if out is None:
        yield _JsonLines(_echo) if as_json else _Printed(metric)
        return
    with replacing(out, mode=0o600) as file:
        if out.suffix.lower() == ".npz":
            with _Arrays(file, out.parent, metric) as arrays:
                yield arrays
            return
        text = io.TextIOWrapper(file, "utf-8", "backslashreplace", newline="")
        yield _JsonLines(text.write) if out.suffix.lower() == ".jsonl" else _Table(text, previews)
        text.flush()
        text.detach()  # the file is closed where it was opened


def _echo(text: str) -> None:
    click.echo(text, nl=False)


class _Lines:
    def told(self, queries: int, unverified: str) -> None:
        """Nothing: a line has no place for it."""


class _JsonLines(_Lines):
    """One JSON object a line and hit."""

    def __init__(self, write: Any) -> None:
        self._write = write

    def add(self, found: Found) -> None:
        self._write("".join(f"{json.dumps(hit)}\n" for _, hits in found.hits() for hit in hits))


class _Table(_Lines):
    """CSV with a heading; texts cannot become formulas of a spreadsheet."""

    def __init__(self, file: io.TextIOBase, previews: bool) -> None:
        self._columns = (*_COLUMNS, *(_TOLD if previews else ()))
        # quoted, as some spreadsheets split cells at semicolons
        self._writer = csv.writer(file, quoting=csv.QUOTE_ALL)
        self._writer.writerow(self._columns)

    def add(self, found: Found) -> None:
        for _, hits in found.hits():
            for hit in hits:
                if hit.get("metadata") is not None:
                    hit["metadata"] = json.dumps(hit["metadata"], ensure_ascii=False)
                values = ("" if hit[c] is None else hit[c] for c in self._columns)
                self._writer.writerow([cell(v) if isinstance(v, str) else v for v in values])


class _Printed(_Lines):
    """For a person: a table on a terminal; elsewhere the name of each query above its hits."""

    def __init__(self, metric: str) -> None:
        self._metric = metric

    def add(self, found: Found) -> None:
        if sys.stdout.isatty():
            hit_table([hit for _, hits in found.hits() for hit in hits], self._metric)
            return
        for name, hits in found.hits():
            click.echo(f"query {printable(str(name))}")
            print_hits(hits, self._metric)


class _Arrays:
    """A .npz file. Arrays grow in unnamed files beside it until all hits are there: memory does not grow with them."""

    def __init__(self, file: BinaryIO, folder: Path, metric: str) -> None:
        self._file, self._folder, self._metric = file, folder, metric
        self._parts: dict[str, tuple[BinaryIO, np.dtype[Any], tuple[int, ...]]] = {}
        self._names: list[str | int] = []
        self._owners: dict[tuple[bytes, str], int] = {}
        self._width, self._without = -1, set[str]()

    def __enter__(self) -> _Arrays:
        return self

    def __exit__(self, *error: object) -> None:
        for part, _, _ in self._parts.values():
            part.close()

    def add(self, found: Found) -> None:
        numbers = np.array([self._owners.setdefault(o, len(self._owners)) for o in found.owners] or [0], np.int32)
        arrays = {
            "batch": found.batch, "row": found.row, "score": found.score, "value": found.value,
            "owner": np.where(found.owner >= 0, numbers[found.owner], -1).astype(np.int32),
        }  # fmt: skip
        self._names += found.names
        # a later state of the index may have fewer rows than k, or more
        self._width = found.row.shape[1] if self._width < 0 else self._width
        for name, array in arrays.items():
            if array is None:  # the grants give no scores
                self._without.add(name)
                continue
            self._append(name, array[:, : self._width])

    def _append(self, name: str, array: np.ndarray) -> None:
        if array.shape[1] < self._width:
            empty = np.zeros((len(array), self._width, *array.shape[2:]), array.dtype)
            empty[:] = -1 if name in ("row", "owner") else 0
            empty[:, : array.shape[1]] = array
            array = empty
        if name not in self._parts:
            opened: Any = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - closed with the others
            self._parts[name] = opened, array.dtype, array.shape[1:]
        self._parts[name][0].write(np.ascontiguousarray(array).data.cast("B"))

    def told(self, queries: int, unverified: str) -> None:
        numbered = all(isinstance(name, int) for name in self._names)
        small = {
            "query": np.array(self._names, np.int64 if numbered else np.str_),
            "owners": np.array([name for _, name in self._owners], np.str_),
            "owner_ids": np.frombuffer(b"".join(i for i, _ in self._owners), np.uint8).reshape(-1, 16),
            "metric": np.array(self._metric),
            "unverified": np.array(unverified),
        }
        with zipfile.ZipFile(self._file, "w", zipfile.ZIP_STORED) as archive:
            for name, array in small.items():
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, array, allow_pickle=False)
            for name, (part, dtype, tail) in self._parts.items():
                if name in self._without:
                    continue
                header = {
                    "descr": np.lib.format.dtype_to_descr(dtype), "fortran_order": False, "shape": (queries, *tail)
                }  # fmt: skip
                part.seek(0)
                with archive.open(f"{name}.npy", "w", force_zip64=True) as entry:
                    np.lib.format.write_array_header_1_0(entry, header)
                    shutil.copyfileobj(part, entry, 1 << 20)
