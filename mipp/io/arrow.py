"""Parquet and Arrow files: vectors in one column of lists, or in several columns of numbers, read some rows at a time.

Files may be hostile. Of Parquet, the footer is checked: every row group must declare as many numbers as its rows have,
and its size must be one that compression can reach. Batches of an Arrow file (IPC, Feather version 2) are checked one
by one before pyarrow sees them, since a compressed buffer says itself how much memory it takes. Dictionaries of lists,
nested lists, nulls, and lists of different lengths are refused.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from ..errors import DTypeError, EncodingError, ParameterError, ShapeError, missing_extra
from .files import open_regular, reading, shown
from .layouts import MAX_DIM

__all__ = ["SUFFIXES", "ArrowRows", "open_arrow"]

SUFFIXES = (".parquet", ".arrow", ".feather")
#: bytes of a batch of an Arrow file, as it is and decompressed
_MOST_BATCH = 1 << 30
#: more than compression reaches with numbers that differ
_MOST_COMPRESSED = 1100
_SMALL = 1 << 20
#: bytes of numbers that are read from a Parquet file at once
_PIECE = 1 << 24
_MOST_METADATA = 1 << 24
_NAMED = 10
_MAGIC = b"ARROW1\0\0"


@dataclass(frozen=True)
class ArrowRows:
    """Vectors of an open file: number, dimension, and a function that reads about so many rows at a time."""

    rows: int
    dim: int
    read: Callable[[int], Iterator[npt.NDArray[Any]]]


@contextlib.contextmanager
def open_arrow(path: Path, columns: Sequence[str] = ()) -> Iterator[ArrowRows]:
    """Open a file; ``columns`` names one column of lists, or columns of numbers; default what there is.

    Raises
    ------
    MissingExtraError
        pyarrow is not installed.
    ParameterError
        No such file in its format, or a damaged one; several columns of lists, and none is named; no such column.
    DTypeError, ShapeError, EncodingError
        Columns of other types; lists of different lengths, no rows; nulls.
    """
    try:
        import pyarrow.parquet  # noqa: F401
    except ImportError:
        raise missing_extra(f"{shown(path)}: Parquet and Arrow files need pyarrow", "arrow") from None
    with open_regular(path) as (file, size):
        if path.suffix.lower() == ".parquet":
            with reading(path, "Parquet file"):
                opened = _parquet(path, file, size, columns)
        else:
            with reading(path, "Arrow file"):
                opened = _ipc(path, file, size, columns)
        yield opened


# --- columns ----------------------------------------------------------------------------------------------------------


def _chosen(path: Path, schema: Any, columns: Sequence[str]) -> list[Any]:
    """Fields of the one column of lists, or of columns of numbers."""
    fields = [schema.field(number) for number in range(len(schema))]
    names = [field.name for field in fields]
    if columns:
        for name in columns:
            if names.count(name) != 1:
                there = ", ".join(repr(n[:50]) for n in names[:_NAMED]) + (", ..." if len(names) > _NAMED else "")
                raise ParameterError(f"{shown(path)}: no one column {name[:50]!r}; columns there: {there or 'none'}")
        fields = [schema.field(name) for name in dict.fromkeys(columns)]
    else:
        lists = [field for field in fields if _is_list(field.type)]
        if len(lists) > 1:
            there = ", ".join(repr(field.name[:50]) for field in lists[:_NAMED])
            raise ParameterError(f"{shown(path)}: several columns of lists ({there}); name the one with the vectors")
        fields = lists or fields
    if not fields:
        raise ShapeError(f"{shown(path)}: no columns")
    if len(fields) > 1 or not _is_list(fields[0].type):
        for field in fields:
            _number(path, field, field.type)
        twice = {name for name, count in Counter(names).items() if count > 1}
        if twice.intersection(field.name for field in fields):
            raise ParameterError(f"{shown(path)}: two columns have one name")
    else:
        _number(path, fields[0], fields[0].type.value_type)
    if len(fields) > MAX_DIM:
        raise ShapeError(f"{shown(path)}: {len(fields)} columns are more than {MAX_DIM}")
    return fields


def _is_list(kind: Any) -> bool:
    from pyarrow import types

    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _number(path: Path, field: Any, kind: Any) -> None:
    from pyarrow import types

    if not (types.is_integer(kind) or types.is_floating(kind)):
        raise DTypeError(
            f"{shown(path)}: column {field.name[:50]!r} holds {str(field.type)[:100]}, not numbers or lists of them"
        )


def _dim(path: Path, dim: int, rows: int) -> int:
    if rows < 1 or not 1 <= dim <= MAX_DIM:
        raise ShapeError(
            f"{shown(path)}: vectors must have shape (N, dim), both from 1, dim to {MAX_DIM}, not ({rows}, {dim})"
        )
    return dim


def _numbers(path: Path, batch: Any, fields: Sequence[Any], dim: int, first: int) -> npt.NDArray[Any]:
    """Rows of a batch whose first one has the number ``first``."""
    batch.validate(full=True)
    parts, places = [], {name: place for place, name in enumerate(batch.schema.names)}
    for field in fields:
        array = batch.column(places[field.name])
        if array.null_count:
            row = first + int(np.argmax(np.asarray(array.is_null())))
            raise EncodingError(f"{shown(path)}: row {row} of column {field.name[:50]!r} is null")
        if _is_list(field.type):
            lengths = np.asarray(array.value_lengths()) if not hasattr(array.type, "list_size") else np.array([dim])
            if (lengths != dim).any():
                row = int(np.argmax(lengths != dim))
                raise ShapeError(f"{shown(path)}: row {first + row} has {int(lengths[row])} numbers, not {dim}")
            array = array.flatten()
            if array.null_count:
                row = first + int(np.argmax(np.asarray(array.is_null()))) // dim
                raise EncodingError(f"{shown(path)}: row {row} of column {field.name[:50]!r} holds a null")
        parts.append(array.to_numpy(zero_copy_only=False))
    return parts[0].reshape(batch.num_rows, dim) if _is_list(fields[0].type) else np.stack(parts, axis=1)


# --- Parquet ----------------------------------------------------------------------------------------------------------


def _parquet(path: Path, file: BinaryIO, size: int, columns: Sequence[str]) -> ArrowRows:
    from pyarrow import parquet

    # not the whole row group at once, and in its own types, whatever metadata of Arrow says
    opened = parquet.ParquetFile(file, pre_buffer=False, buffer_size=1 << 20)
    fields = _chosen(path, opened.schema_arrow, columns)
    names, is_list = [field.name for field in fields], _is_list(fields[0].type)
    meta = opened.metadata
    rows, dim = meta.num_rows, 0 if is_list else len(fields)
    wanted = [
        number for number in range(meta.num_columns)
        if meta.schema.column(number).path.split(".", 1)[0] in names or meta.schema.column(number).path in names
    ]  # fmt: skip
    if len(wanted) != len(fields):
        raise ParameterError(f"{shown(path)}: its columns are nested")
    seen = 0
    for group in (meta.row_group(number) for number in range(meta.num_row_groups)):
        seen += group.num_rows
        for number in wanted:
            part = group.column(number)
            if is_list and not dim and group.num_rows:
                dim = _dim(path, part.num_values // group.num_rows, rows)
            if part.num_values != group.num_rows * (dim if is_list else 1):
                raise ShapeError(
                    f"{shown(path)}: a group of {group.num_rows} rows declares {part.num_values} numbers in column "
                    f"{names[0][:50]!r}: lists of different lengths, or empty ones"
                )
            plain, stored = part.total_uncompressed_size, part.total_compressed_size
            if not 0 < stored <= size or not 0 < plain <= max(_SMALL, stored * _MOST_COMPRESSED):
                raise ParameterError(
                    f"{shown(path)}: {stored} bytes in it declare {plain} bytes, more than compression reaches"
                )
    if seen != rows:
        raise ParameterError(f"{shown(path)}: {rows} rows are declared, and its groups have {seen}")
    _dim(path, dim, rows)

    def read(count: int) -> Iterator[npt.NDArray[Any]]:
        first, step = 0, max(1, min(count, _PIECE // (8 * dim)))
        batches = opened.iter_batches(batch_size=step, columns=names, use_threads=False)
        while first < rows:
            with reading(path, "Parquet file"):
                batch = next(batches, None)
                if batch is None or first + batch.num_rows > rows:
                    raise ParameterError(f"{shown(path)}: has not the {rows} rows that it declares")
                data = _numbers(path, batch, fields, dim, first)
            first += len(data)
            yield data

    return ArrowRows(rows, dim, read)


# --- Arrow IPC --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Message:
    """A message of an Arrow file: what it is, where it begins, bytes of its metadata and of its body, rows."""

    kind: int
    start: int
    head: int
    body: int
    rows: int


_SCHEMA, _DICTIONARY, _BATCH = 1, 2, 3


def _ipc(path: Path, file: BinaryIO, size: int, columns: Sequence[str]) -> ArrowRows:
    import pyarrow as pa

    if os.pread(file.fileno(), 8, 0) != _MAGIC:
        raise ParameterError(f"{shown(path)}: not an Arrow file (IPC, Feather version 2)")
    messages, place = [], len(_MAGIC)
    while (message := _message(path, file, place, size)) is not None:
        messages.append(message)
        place += message.head + message.body
    if not messages or messages[0].kind != _SCHEMA or any(m.kind != _BATCH for m in messages[1:]):
        raise ParameterError(f"{shown(path)}: not a schema and batches of rows alone; dictionaries are not read")
    schema = pa.ipc.read_schema(pa.py_buffer(os.pread(file.fileno(), messages[0].head, messages[0].start)))
    fields, batches = _chosen(path, schema, columns), [m for m in messages[1:] if m.rows]
    rows = sum(message.rows for message in batches)

    def decoded(message: _Message) -> Any:
        raw = os.pread(file.fileno(), message.head + message.body, message.start)
        _check_buffers(path, raw, message)
        batch = pa.ipc.read_record_batch(pa.py_buffer(raw), schema)
        if batch.num_rows != message.rows:
            raise ParameterError(f"{shown(path)}: changed while it was read")
        batch.validate(full=True)  # offsets that lead out of a list end the process where they are used
        return batch

    if not _is_list(fields[0].type):
        dim = len(fields)
    elif hasattr(fields[0].type, "list_size"):
        dim = fields[0].type.list_size
    else:
        first = decoded(batches[0]).column(schema.get_field_index(fields[0].name)) if batches else []
        dim = len(first[0]) if len(first) and first[0].is_valid else 0
    _dim(path, dim, rows)

    def read(count: int) -> Iterator[npt.NDArray[Any]]:
        del count  # batches are as they are
        first = 0
        for message in batches:
            with reading(path, "Arrow file"):
                data = _numbers(path, decoded(message), fields, dim, first)
            first += len(data)
            yield data

    return ArrowRows(rows, dim, read)


class _Table:
    """A table of a flatbuffer; struct.error for a place outside."""

    def __init__(self, raw: bytes, place: int) -> None:
        self.raw, self.place = raw, place
        self._fields = place - self._unpack("<i", place)
        self._size = self._unpack("<H", self._fields)

    def _unpack(self, form: str, place: int) -> int:
        if place < 0:
            raise struct.error("a place before the buffer")
        return int(struct.unpack_from(form, self.raw, place)[0])

    def field(self, number: int) -> int:
        """Place of a field, 0 if it is left out."""
        at = 4 + 2 * number
        inside = self._unpack("<H", self._fields + at) if at < self._size else 0
        return self.place + inside if inside else 0

    def value(self, number: int, form: str) -> int:
        place = self.field(number)
        return self._unpack(form, place) if place else 0

    def target(self, number: int) -> int:
        """Place that a field points to, 0 if it is left out."""
        place = self.field(number)
        return place + self._unpack("<I", place) if place else 0

    def length(self, number: int) -> tuple[int, int]:
        """Length of a vector, and where its elements begin."""
        place = self.target(number)
        return (self._unpack("<I", place), place + 4) if place else (0, 0)


def _root(raw: bytes) -> _Table:
    return _Table(raw, int(struct.unpack_from("<I", raw, 0)[0]))


def _message(path: Path, file: BinaryIO, place: int, size: int) -> _Message | None:
    """The message at a place of a file; None at the end."""
    begin = os.pread(file.fileno(), 8, place)
    if len(begin) < 8 or begin[:4] != b"\xff\xff\xff\xff":
        raise ParameterError(f"{shown(path)}: not a complete Arrow file")
    length = int.from_bytes(begin[4:], "little", signed=True)
    if length == 0:
        return None
    if not 0 < length <= min(size - place - 8, _MOST_METADATA):
        raise ParameterError(f"{shown(path)}: not a complete Arrow file (metadata of {length} bytes)")
    raw = os.pread(file.fileno(), length, place + 8)
    message = _root(raw)
    kind, body = message.value(1, "<B"), message.value(3, "<q")
    if not 0 <= body <= size - place - 8 - length:
        raise ParameterError(f"{shown(path)}: a part declares {body} bytes, more than the file has")
    rows = 0
    if kind == _BATCH:
        rows = _Table(raw, message.target(2)).value(0, "<q")
        if body > _MOST_BATCH:
            raise ParameterError(f"{shown(path)}: a batch has {body} bytes; rewrite it with batches of fewer rows")
        if not 0 <= rows <= _MOST_BATCH:
            raise ParameterError(f"{shown(path)}: a batch declares {rows} rows")
    return _Message(kind, place, 8 + length, body, rows)


def _check_buffers(path: Path, raw: bytes, message: _Message) -> None:
    """ParameterError for a batch whose compressed buffers declare more than compression reaches, or than may be."""
    batch = _Table(raw[8 : message.head], _root(raw[8 : message.head]).target(2))
    if not batch.field(3):  # not compressed
        return
    count, place = batch.length(2)
    total = 0
    for number in range(count):
        start, length = struct.unpack_from("<qq", batch.raw, place + 16 * number)
        if not 0 <= start <= start + length <= message.body:
            raise ParameterError(f"{shown(path)}: a buffer lies outside of its batch")
        if length < 8:
            continue
        (plain,) = struct.unpack_from("<q", raw, message.head + start)
        total += max(plain, 0)
        if plain > max(_SMALL, length * _MOST_COMPRESSED) or total > _MOST_BATCH:
            raise ParameterError(
                f"{shown(path)}: {length} bytes declare {plain} bytes, more than compression reaches or than is read"
            )
