"""Private retrieval of a record from two servers: neither learns which record, unless both put their keys together.

Both servers have the same records. A client makes two keys of a distributed point function (:func:`generate_keys`)
and sends one to each. A server expands its key to a selection of rows that looks random (:func:`expand`), and answers
the XOR of the records selected (:func:`scan`). The two selections differ in the wanted row alone, so the XOR of both
answers is its record (:func:`combine`). :class:`Database` does this for records in arrays.

**Trust.** A server that has one key learns the number of rows and, within what it can compute, nothing of the row. Both
keys together tell the row at once. So the two servers must not collude, and a key is secret from the other server and
from whoever reads the line. Answers are not checked: a server that lies, or whose records differ, garbles the record.
Records must carry an authentication that the client verifies. A lie may aim at one row, so whether the client notices
one can tell that row: what a client does next must not depend on it.

**Security.** Keys are those of Boyle, Gilboa and Ishai (CCS 2016, figure 1, with early termination: leaves of 128
rows). The generator is AES-128 with fixed public keys, x -> AES(x) xor x, which is proved in the ideal-cipher model
only. The fixed keys are the same for everybody, so security falls with the number of keys: an attacker that has many
keys of one side, N levels in all, and computes AES T times finds a seed of the other side with a probability of about
N T / 2^127. 2^40 keys over 2^20 rows have N = 2^43.8. Guo, Katz, Wang and Yu (IEEE S&P 2020) show such losses for
fixed-key AES.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import closing
from typing import Any, overload

import numpy as np
import numpy.typing as npt

from ._native import _core
from .errors import DTypeError, ParameterError, ShapeError
from .io.memory import WINDOW_BYTES, ahead, mapping_of

__all__ = ["MAX_ROWS", "Database", "check_key", "combine", "expand", "gather", "generate_keys", "scan"]

#: most rows of a domain
MAX_ROWS = 2**32

_Bytes = npt.NDArray[np.uint8]
_Selections = npt.NDArray[np.uint64]

#: keys whose selections are in memory at once
_TOGETHER = 64


def generate_keys(row: int, rows: int) -> tuple[bytes, bytes]:
    """Make the two keys that ask for a row.

    Time does not depend on the row. Randomness comes from the operating system: two calls never make the same keys.

    Parameters
    ----------
    row : int
        The wanted row, 0 to ``rows`` - 1. Secret.
    rows : int
        The domain: all rows of the records, 1 to 2^32. Public.

    Returns
    -------
    tuple of bytes
        One key for each server; which server gets which does not matter. A key has 48 bytes, and 16 bytes and 2 bits
        for each doubling beyond 128 rows: 325 bytes for 2^24 rows. Each is secret from the other server.

    Raises
    ------
    DTypeError
        An argument is not an int.
    ParameterError
        An argument is out of range.

    Examples
    --------
    >>> from mipp import pir
    >>> [len(key) for key in pir.generate_keys(5, 1_000_000)]
    [260, 260]
    """
    return _core.pir_generate(row, rows, os.urandom(32))


def check_key(key: bytes, rows: int) -> int:
    """Check that a key is well-formed and over this domain, before any work is done for it.

    A well-formed key is not necessarily one that :func:`generate_keys` made: any bytes in its place expand to some
    selection. A server loses nothing by that, since a selection is up to the client.

    Parameters
    ----------
    key : bytes
        A key of a client.
    rows : int
        Rows of the domain.

    Returns
    -------
    int
        0 for a first key, 1 for a second one.

    Raises
    ------
    DTypeError
        ``key`` is not bytes.
    MessageError
        The key is malformed, or has another format version.
    ParameterError
        The key is over another number of rows.

    Examples
    --------
    >>> from mipp import pir
    >>> first, second = pir.generate_keys(5, 1000)
    >>> pir.check_key(first, 1000), pir.check_key(second, 1000)
    (0, 1)
    """
    party, domain = _core.pir_key_facts(key)
    if domain != rows:
        raise ParameterError(f"the key is over {domain} rows, not {rows}")
    return party


def expand(key: bytes, *, rows: int | None = None, threads: int | None = None) -> _Selections:
    """Expand a key to the selection that it stands for.

    The selections of both keys of a row differ in this row alone. Time depends on the number of rows only.

    Parameters
    ----------
    key : bytes
        Secret, but for its number of rows.
    rows : int, optional
        The domain that the key must have. Give it for keys of strangers: memory is ``rows`` / 8 bytes, and a key of 432
        bytes may be over 2^32 rows.
    threads : int, optional
        Most threads to use, 1 to 1024. None and 0 mean the default, :func:`mipp.cpu.threads`.

    Returns
    -------
    ndarray of uint64, shape (W,)
        Row r is bit r % 64 of word r // 64. W is 2 ceil(rows / 128); bits behind the last row are 0. As secret as the
        key.

    Raises
    ------
    DTypeError
        ``key`` is not bytes.
    MessageError
        The key is malformed, or has another format version.
    ParameterError
        The key is over another number of rows, or ``threads`` is out of range.

    Examples
    --------
    >>> from mipp import pir
    >>> first, second = pir.generate_keys(70, 100)
    >>> pir.expand(first) ^ pir.expand(second)
    array([ 0, 64], dtype=uint64)
    """
    domain = _core.pir_key_facts(key)[1]
    if rows is not None:
        check_key(key, rows)
    out = np.empty(2 * -(-domain // 128), np.uint64)
    _core.pir_expand(key, out, threads)
    return out


def gather(selections: _Selections, ordinals: npt.NDArray[np.int64], *, threads: int | None = None) -> _Selections:
    """Take the bits of some rows out of selections: those of the rows that a compacted file still has.

    Parameters
    ----------
    selections : ndarray of uint64, shape (W,) or (Q, W)
        From :func:`expand`. Secret.
    ordinals : ndarray of int64, shape (n,)
        The rows to take, strictly ascending, each below 64 W. Public: memory access depends on them.
    threads : int, optional
        As for :func:`expand`.

    Returns
    -------
    ndarray of uint64, shape (ceil(n / 64),) or (Q, ceil(n / 64))
        Bit i is that of row ``ordinals[i]``; bits behind the last are 0. Fit for :func:`scan` of n records.

    Raises
    ------
    DTypeError, ShapeError
        An array has another type, rank or memory layout.
    ParameterError
        Ordinals do not ascend, or leave the selections.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp import pir
    >>> pir.gather(np.array([0b1010, 0], np.uint64), np.array([1, 2, 3]))
    array([5], dtype=uint64)
    """
    many, single = _many(selections)
    out = _core.pir_gather(many, ordinals, threads)
    return out[0] if single else out


def scan(
    records: _Bytes,
    selections: _Selections,
    *,
    first_row: int = 0,
    out: _Bytes | None = None,
    threads: int | None = None,
) -> _Bytes:
    """XOR the records that each selection has, in one pass over the records for all selections.

    Time and memory access do not depend on selections or records. One selection costs about as long as reading the
    records, ten some 1.3 times as long. Records that are mapped from a file are read ahead while they are used, so that
    cold ones stream at the speed of the disk.

    Parameters
    ----------
    records : ndarray of uint8, shape (n, R)
        C-contiguous; may be read-only (memory-mapped). R is a multiple of 8; fastest if it is one of 64. n may be 0.
    selections : ndarray of uint64, shape (W,) or (Q, W)
        From :func:`expand` or :func:`gather`; 1 to 1024 of them. Secret.
    first_row : int
        The row of ``records[0]`` in the selections.
    out : ndarray of uint8, shape (R,) or (Q, R), optional
        Results are XORed into it, so that parts of the records may be scanned one after the other. Else a new array.
    threads : int, optional
        As for :func:`expand`. Records are divided among threads.

    Returns
    -------
    ndarray of uint8, shape (R,) or (Q, R)
        ``out``, or a new array. As secret as the selections and the records.

    Raises
    ------
    DTypeError
        An argument is not an array, or has another dtype.
    ShapeError
        An array has another rank or memory layout, R is no multiple of 8, selections end before the last record, or
        ``out`` has another shape.
    ParameterError
        ``first_row`` or ``threads`` is out of range, or ``out`` overlaps an input.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp import pir
    >>> records = np.arange(32, dtype=np.uint8).reshape(4, 8)
    >>> pir.scan(records, np.array([0b1001], np.uint64))  # records 0 and 3
    array([24, 24, 24, 24, 24, 24, 24, 24], dtype=uint8)
    """
    many, single = _many(selections)
    into = out[None] if single and isinstance(out, np.ndarray) else out
    made = _scan([(records, first_row)], many, into, threads)
    return made[0] if single else made


def _many(selections: Any) -> tuple[_Selections, bool]:
    """Selections with two dimensions, and whether it was one with one."""
    single = isinstance(selections, np.ndarray) and selections.ndim == 1
    return (selections[None] if single else selections), single


def _scan(
    parts: Sequence[tuple[_Bytes, int]], selections: _Selections, out: _Bytes | None, threads: int | None
) -> _Bytes:
    """Scan parts of the records, each with its first row; mapped ones in pieces that are read ahead."""
    pieces = []
    for records, first in parts:
        if mapping_of(records) is None or records.ndim != 2 or not records.size:
            pieces.append((records, first, False))
            continue
        if isinstance(selections, np.ndarray) and first + len(records) > 64 * selections.shape[-1]:
            raise ShapeError("selections must reach to the last record")
        step = max(64, WINDOW_BYTES // records.shape[1] // 64 * 64)
        pieces += [(records[at : at + step], first + at, True) for at in range(0, len(records), step)]
    with closing(ahead([records for records, _, mapped in pieces if mapped])) as read:
        for records, first, mapped in pieces:
            out = _core.pir_scan(next(read) if mapped else records, selections, first, out, threads)
    assert out is not None
    return out


@overload
def combine(a: bytes, b: bytes) -> bytes: ...
@overload
def combine(a: _Bytes, b: _Bytes) -> _Bytes: ...
def combine(a: bytes | _Bytes, b: bytes | _Bytes) -> bytes | _Bytes:
    """Combine the answers of both servers to the wanted record.

    Nothing tells whether a server lied: check the authentication that the record carries.

    Parameters
    ----------
    a, b : bytes or ndarray of uint8
        Answers of the two servers, of one size.

    Returns
    -------
    bytes or ndarray of uint8
        The record, or one record for each pair of keys. Secret.

    Raises
    ------
    DTypeError
        The answers are not both bytes, nor both arrays of uint8.
    ShapeError
        Their sizes differ.

    Examples
    --------
    >>> from mipp import pir
    >>> pir.combine(b"ab", b"#!")
    b'BC'
    """
    if isinstance(a, bytes) and isinstance(b, bytes):
        if len(a) != len(b):
            raise ShapeError(f"answers must have one size, not {len(a)} and {len(b)} bytes")
        return bytes(combine(np.frombuffer(a, np.uint8), np.frombuffer(b, np.uint8)))
    if not (isinstance(a, np.ndarray) and isinstance(b, np.ndarray) and a.dtype == b.dtype == np.uint8):
        raise DTypeError("answers must be both bytes or both arrays of uint8")
    if a.shape != b.shape:
        raise ShapeError(f"answers must have one shape, not {a.shape} and {b.shape}")
    return a ^ b


class Database:
    """Records that are retrieved in private: one server's copy, and the client's side of a query.

    Both servers make one of the same records. A server learns nothing of the wanted row from its key, unless it gets
    the other one too (the module's text says what else to mind). A query costs a server about one read of its records,
    and the lines a key (some 300 bytes) and a record for each server.

    Parameters
    ----------
    records : ndarray of uint8, shape (n, R), or sequence of them
        C-contiguous; may be read-only and mapped from files. R is a multiple of 8 and the same in all parts. Rows are
        numbered through, 1 to 2^32 of them. Not copied.
    threads : int, optional
        Most threads of an answer, 1 to 1024. None and 0 mean the default, :func:`mipp.cpu.threads`.

    Raises
    ------
    DTypeError
        A part is not an array of uint8.
    ShapeError
        A part has another rank or memory layout, R differs or is no multiple of 8, or there is no record.
    ParameterError
        There are too many records.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp import pir
    >>> records = np.frombuffer(b"record-0record-1record-2", np.uint8).reshape(3, 8)
    >>> database = pir.Database(records)  # each of two servers has one
    >>> first, second = database.query(1)  # a client needs to know the number of rows only
    >>> pir.combine(database.answer(first), database.answer(second))
    b'record-1'
    """

    def __init__(self, records: _Bytes | Sequence[_Bytes], *, threads: int | None = None) -> None:
        parts = [records] if isinstance(records, np.ndarray) else list(records)
        for part in parts:
            if not isinstance(part, np.ndarray) or part.dtype != np.uint8:
                raise DTypeError("records must be arrays of uint8")
            if part.ndim != 2 or not part.flags.c_contiguous:
                raise ShapeError("records must have 2 dimensions and be C-contiguous")
            if part.shape[1] != parts[0].shape[1] or part.shape[1] % 8 or not part.shape[1]:
                raise ShapeError("all records must have one size, a multiple of 8 bytes")
        self._rows = sum(map(len, parts))
        if not self._rows:
            raise ShapeError("there must be at least one record")
        if self._rows > MAX_ROWS:
            raise ParameterError(f"there must be at most {MAX_ROWS} records")
        firsts = np.cumsum([0, *map(len, parts)]).tolist()
        self._parts = list(zip(parts, firsts[:-1], strict=True))
        self._threads = threads

    @property
    def rows(self) -> int:
        """Number of records: the domain of keys."""
        return self._rows

    @property
    def record_bytes(self) -> int:
        """Bytes of a record, and of an answer."""
        return self._parts[0][0].shape[1]

    def query(self, row: int) -> tuple[bytes, bytes]:
        """Make the two keys that ask for a row; as :func:`generate_keys`.

        Parameters
        ----------
        row : int
            The wanted row. Secret.

        Returns
        -------
        tuple of bytes
            One key for each server.

        Raises
        ------
        DTypeError, ParameterError
            ``row`` is not an int, or no row.
        """
        return generate_keys(row, self._rows)

    @overload
    def answer(self, key: bytes) -> bytes: ...
    @overload
    def answer(self, key: Sequence[bytes]) -> _Bytes: ...
    def answer(self, key: bytes | Sequence[bytes]) -> bytes | _Bytes:
        """Answer a key, or many keys in one pass over the records for each 64 of them.

        Parameters
        ----------
        key : bytes or sequence of bytes
            From a client, of either party. All keys are checked before any work is done.

        Returns
        -------
        bytes or ndarray of uint8, shape (Q, R)
            The XOR of the records that each key selects.

        Raises
        ------
        DTypeError
            A key is not bytes.
        MessageError
            A key is malformed, or has another format version.
        ParameterError
            A key is over another number of rows.
        """
        keys = [key] if isinstance(key, bytes) else list(key)
        for one in keys:
            check_key(one, self._rows)
        out = np.zeros((len(keys), self.record_bytes), np.uint8)
        for at in range(0, len(keys), _TOGETHER):
            some = keys[at : at + _TOGETHER]
            selections = np.empty((len(some), 2 * -(-self._rows // 128)), np.uint64)
            for one, selection in zip(some, selections, strict=True):
                _core.pir_expand(one, selection, self._threads)
            _scan(self._parts, selections, out[at : at + _TOGETHER], self._threads)
        return out.tobytes() if isinstance(key, bytes) else out

    @staticmethod
    def combine(a: bytes, b: bytes) -> bytes:
        """Combine the answers of both servers; as :func:`combine`, for bytes.

        Parameters
        ----------
        a, b : bytes
            Answers of the two servers.

        Returns
        -------
        bytes
            The record.

        Raises
        ------
        DTypeError, ShapeError
            As for :func:`combine`.
        """
        return combine(a, b)
