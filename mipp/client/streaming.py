"""Adds vectors in batches of one size, from a file or from arrays that a program makes; resumes after an interruption.

Memory is that of two batches, whatever there is to add: nothing is kept for a row, but for 4 bytes in the report where
the index has clusters. A batch is known by its content: the SHA-256 of its encoded rows, with their order in the file
where they are stored in another one, and how many equal batches came before it. Adding again encodes from the start,
and sends the batches that the journal does not know.
"""

from __future__ import annotations

import contextlib
import hashlib
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..encoding.numbers import matrix
from ..errors import EncodingError, MippError, ParameterError, ScoreRangeError
from ..io.files import shown
from ..io.memory import SpareArrays
from ..io.patterns import place_of
from ..io.streams import RowStream, in_blocks
from .added import AddReport, Progress, drop_replaced, follow, known_again, lost_rows, rows_label, rows_name
from .encrypting import EncryptedRows
from .journal import part_label
from .journal_recovery import rows_digest
from .part_ids import PartIds, added_ids, known_ids
from .recording import RecordOwner
from .row_ids import AddedRun, FileRows, batch_rows, stored_places

__all__ = ["add_blocks", "add_file", "add_vectors"]

Metadata = Sequence[Mapping[str, Any] | None]
Listed = Callable[[PartIds], None]


def add_file(
    owner: RecordOwner,
    stream: RowStream,
    *,
    metadata: Metadata | None = None,
    check: bool = False,
    progress: Progress | None = None,
    listed: Listed | None = None,
) -> AddReport:
    """Add the vectors of an open file; parameters and errors as of :meth:`mipp.client.owner.ImageOwner.add_stream`.

    ``listed`` is called with the ids of the rows of each part, in the order of the file, also of those that were there.
    """
    return _add(owner, stream.path, stream.blocks, stream.rows, metadata, check, progress, listed)


def add_blocks(owner: RecordOwner, arrays: Iterable[np.ndarray], *, progress: Progress | None = None) -> AddReport:
    """Add arrays of vectors; parameters and errors as of :meth:`mipp.client.owner.ImageOwner.add_stream`."""
    given = (matrix(array, owner.config.encoding.dim, "rows") for array in arrays)
    return _add(owner, None, lambda rows: in_blocks(given, rows), None, None, False, progress)


def add_vectors(
    owner: RecordOwner,
    path: Path,
    data: np.ndarray,
    *,
    metadata: Metadata | None = None,
    progress: Progress | None = None,
) -> AddReport:
    """Add the vectors of a file that are in memory, or mapped. All are checked before the first batch is sent.

    Parameters
    ----------
    owner : RecordOwner
        The owner.
    path : Path
        The file, for the journal and the report.
    data : ndarray, (N, dim)
        Its vectors, as :func:`mipp.io.vectors.load_vectors` gives them. Secret.
    metadata : sequence of mapping or None, optional
        As of :meth:`mipp.client.owner.ImageOwner.add_stream`.
    progress : callable, optional
        Called with the number of rows that were processed since the last call.

    Returns
    -------
    AddReport
        One entry for each row.
    """
    return _add(owner, path, lambda rows: in_blocks([data], rows), len(data), metadata, True, progress)


def _add(
    owner: RecordOwner,
    path: Path | None,
    blocks: Callable[[int], Iterator[np.ndarray]],
    rows: int | None,
    metadata: Metadata | None,
    check: bool,
    progress: Progress | None,
    listed: Listed | None = None,
) -> AddReport:
    began = time.monotonic()
    if metadata is not None:
        if len(metadata) != rows:
            raise ParameterError(f"{rows} rows need as many entries of metadata, not {len(metadata)}")
        for fields in metadata:
            owner.records_for(None, [fields], 1)
    name, size = "rows" if path is None else shown(path), batch_rows(owner.config)
    encode = _Encoder(owner, name)
    if check:
        for _ in _ahead(blocks(size), encode):
            pass
    added = FileRows(str(path or ""))
    report = AddReport(added)
    labels: dict[str, int] = {}
    with owner.adding:
        follow(owner)
        former = _former(owner, blocks, size) if path is not None else None
        place = None if path is None else place_of(path)
        names: list[str] = []
        encode.after = "; the {:,} rows before are in the index, and adding again goes on from there"
        with contextlib.closing(_ahead(blocks(size), encode)) as parts:
            while (part := next(parts, None)) is not None:
                # a file may hold the same rows several times
                labels[part.name] = labels.get(part.name, -1) + 1
                label = rows_label(part.name, labels[part.name])
                with owner.turn:  # another process may be adding the same rows
                    known = _known(owner, label, former, part)
                    if not known:
                        some = None if metadata is None else metadata[part.start : part.start + len(part.rows)]
                        if some is not None and part.order is not None:
                            some = [some[i] for i in part.order]
                        records = owner.records_for(None, some, len(part.rows))
                        ids = owner.store_rows(part.rows, None, [label], records, file=place, encrypted=part.encrypted)
                        places = None if part.order is None else stored_places(part.order)
                        runs = [AddedRun(part.start, *run[:3], places) for run in ids.runs]
                        added.runs += runs
                        if listed is not None:
                            for run in runs:
                                listed(added_ids(run))
                    elif listed is not None and owner.journal is not None:
                        listed(known_ids(owner.journal, known, part.start, len(part.rows), part.order))
                    if known and owner.journal is not None and place is not None:
                        # before the end: an interrupted call may be followed by a change of the file
                        owner.journal.hold(place, label)
                names.append(label)
                encode.encrypting = not known  # what follows rows that are there often is there, too
                report.skipped += len(part.rows) if known else 0
                report.read_bytes += part.read_bytes
                if progress is not None:
                    progress(len(part.rows))
                del part  # its memory is used again
        if owner.journal is not None and place is not None:
            with owner.turn:
                owner.journal.claim({place: names})
            report.replaced += drop_replaced(owner)
            report.lost = lost_rows(owner, [place]) if report.skipped else 0
    report.seconds = time.monotonic() - began
    return report


def _known(owner: RecordOwner, label: str, former: str | None, part: _Part) -> str:
    """Label that the journal has rows under: theirs, also if it had no order, or that of the first version; or none."""
    if owner.journal is None:
        return ""
    if owner.journal.has(label) or (part.order is not None and known_again(owner.journal, label, part.digest)):
        return label
    first = "" if former is None else part_label(former, part.start, len(part.rows))
    return first if first and owner.journal.has(first) else ""


class _Part(NamedTuple):
    """Encoded rows, the number of the first, their digest, and bytes of the rows before they were encoded.

    ``encrypted``: the rows, encrypted, if they were. ``order``: that the rows were brought to, if they were. ``name``:
    of their content.
    """

    start: int
    rows: np.ndarray
    digest: str
    read_bytes: int
    encrypted: EncryptedRows | None
    order: np.ndarray | None
    name: str


class _Encoder:
    """Encodes blocks; an error names the first bad row, and says ``after`` of the rows before its block.

    ``encrypting``: whether blocks are encrypted, too.
    """

    def __init__(self, owner: RecordOwner, name: str) -> None:
        self._encoding, self._name, self.after = owner.config.encoding, name, ""
        self._encrypt, self.encrypting = owner.encrypt, False
        self._order = owner.stored_order
        self._spare = SpareArrays()

    def __call__(self, start: int, block: np.ndarray) -> _Part:
        try:
            rows = self._encoding.encode_rows(block, empty=self._spare.take)
        except (EncodingError, ScoreRangeError) as error:
            row = start + _first_refused(self._encoding.encode_rows, block)
            text = self.after.format(start) if start else ""
            raise type(error)(f"{self._name}, row {row}: {error}{text}") from None
        except MippError as error:
            raise type(error)(f"{self._name}: {error}") from None
        order = self._order(rows)
        if order is not None:
            rows = rows[order]
        digest = rows_digest(rows)
        encrypted = self._encrypt(rows, bytes.fromhex(digest), self._spare) if self.encrypting else None
        return _Part(start, rows, digest, block.nbytes, encrypted, order, rows_name(digest, order))


def _ahead(blocks: Iterator[np.ndarray], encode: Callable[[int, np.ndarray], _Part]) -> Generator[_Part, None, None]:
    """Encoded blocks in order. While one is used, a thread encodes the next, and encrypts it.

    Blocks are read by the caller's thread, which a program's iterator may rely on. If reading fails, the block before
    comes first.
    """
    with ThreadPoolExecutor(1) as pool:
        start, waiting = 0, None
        while True:
            failure: Exception | None = None
            block: np.ndarray | None = None
            try:
                block = next(blocks, None)
            except Exception as error:
                failure = error
            following = None if block is None else pool.submit(encode, start, block)
            if waiting is not None:
                yield waiting.result()
            if failure is not None:
                raise failure
            if following is None or block is None:
                return
            start, waiting = start + len(block), following


def _first_refused(encode: Callable[[np.ndarray], np.ndarray], part: np.ndarray) -> int:
    """The first row that an encoding refuses, among rows that it refuses together."""
    low, high = 0, len(part)
    while high - low > 1:
        middle = (low + high) // 2
        try:
            encode(part[low:middle])
            low = middle
        except MippError:
            high = middle
    return low


def _former(owner: RecordOwner, blocks: Callable[[int], Iterator[np.ndarray]], size: int) -> str | None:
    """Hash of all vectors, which labels in journals of the first version have; None if this one has none of them."""
    if owner.journal is None or not owner.journal.has_untimed():
        return None
    digest = hashlib.sha256()
    for part in blocks(size):
        digest.update(part.data.cast("B"))
    return digest.hexdigest()
