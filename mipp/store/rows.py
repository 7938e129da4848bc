"""Where a cloud's rows lie: large batches mapped, small neighbours joined in one array, none twice."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from .. import cpu
from ..errors import MippError
from ..io.memory import aligned_words
from ..params import RING_DTYPES
from .files import SMALL_FILE, FileInfo, ShareFile, read_share
from .views import BatchView

__all__ = ["Place", "Wanted", "place_rows"]

#: joined arrays hold at most so much, so that joining them again never needs more than that beside the rows
_JOINED_BYTES = 64 << 20
# (array, row of it where the batch begins, original row numbers or None, why the rows cannot be used or "")
Place = tuple[np.ndarray | None, int, np.ndarray | None, str]


@dataclass(frozen=True)
class Wanted:
    """A committed batch: its file, and where its rows lie if they are in memory."""

    path: Path
    info: FileInfo
    size: int
    digest: bytes
    known: BatchView | None

    @property
    def small(self) -> bool:
        return self.size < SMALL_FILE and not self.info.generation

    def problem(self, error: MippError) -> str:
        """The fault of the file, in words without its path: other parties read them."""
        return str(error).replace(str(self.path), "its file")


@dataclass
class _Piece:
    """Consecutive small batches that lie, or will lie, together; ``home`` is None if they are to be joined."""

    first: int
    stop: int
    rows: int
    home: np.ndarray | None


def place_rows(wanted: Sequence[Wanted], *, check: bool) -> list[Place]:
    """Places of the rows of an owner's batches, which are in row order; opens the files of those that are new.

    Neighbours that are small are joined. Batches that come one by one are joined like the digits of a binary counter:
    a row is copied a few times in all, and there are few arrays. An array of which more than a twentieth is not used
    any more (batches were merged or forgotten) is made again. A file that is damaged or cannot be read gets a place
    without an array, and the reason; all others are placed.
    """
    places: list[Place] = [(None, 0, None, "")] * len(wanted)
    opened = _open_large(wanted, check)
    at = 0
    while at < len(wanted):
        if wanted[at].small:
            stop = at + 1
            while stop < len(wanted) and wanted[stop].small:
                stop += 1
            for piece in _merged(_pieces(wanted, at, stop), wanted[at].info):
                _join(wanted, piece, places, check)
            at = stop
        else:
            known = wanted[at].known
            if known is not None:
                assert known.home is not None  # this server stores rows
                places[at] = known.home, known.offset, known.ordinals, ""
            else:
                file = opened[at]
                places[at] = (None, 0, None, file) if isinstance(file, str) else (file.words, 0, file.ordinals, "")
            at += 1
    return places


def _open_large(wanted: Sequence[Wanted], check: bool) -> dict[int, ShareFile | str]:
    """Files of new batches that stand alone, or what is wrong; several at a time: a checksum takes one core."""
    new = [i for i, w in enumerate(wanted) if not w.small and w.known is None]
    if not new:
        return {}

    def opened(i: int) -> ShareFile | str:
        w = wanted[i]
        try:
            return ShareFile(w.path, w.info, w.size, w.digest, check=check)
        except MippError as error:
            return w.problem(error)

    with ThreadPoolExecutor(min(len(new), cpu.threads())) as pool:
        return dict(zip(new, pool.map(opened, new), strict=True))


def _pieces(wanted: Sequence[Wanted], start: int, stop: int) -> list[_Piece]:
    """Arrays that lie together now, and those that are new."""
    pieces: list[_Piece] = []
    end = 0  # row of the last piece's array where the next batch lies, if it belongs to it
    for i in range(start, stop):
        known, rows = wanted[i].known, wanted[i].info.stored
        home, offset = (None, 0) if known is None else (known.home, known.offset)
        if pieces and home is not None and home is pieces[-1].home and offset == end:
            pieces[-1].stop, pieces[-1].rows = i + 1, pieces[-1].rows + rows
        else:
            pieces.append(_Piece(i, i + 1, rows, home))
        end = offset + rows
    for piece in pieces:
        if piece.home is not None and 20 * piece.rows < 19 * len(piece.home):
            piece.home = None
    return pieces


def _merged(pieces: list[_Piece], info: FileInfo) -> list[_Piece]:
    most = _JOINED_BYTES // (info.width * info.k // 8)
    out: list[_Piece] = []
    for piece in pieces:
        while out and out[-1].rows + piece.rows <= most:
            last = out[-1]
            if last.rows >= 2 * piece.rows and not (last.home is None and piece.home is None):
                break
            piece = _Piece(last.first, piece.stop, last.rows + piece.rows, None)
            out.pop()
        out.append(piece)
    return out


def _join(wanted: Sequence[Wanted], piece: _Piece, places: list[Place], check: bool) -> None:
    home, at = piece.home, 0
    problems: dict[int, str] = {}
    if home is None:
        info = wanted[piece.first].info
        home = aligned_words(piece.rows, info.width, RING_DTYPES[info.k])
        for i in range(piece.first, piece.stop):
            w = wanted[i]
            into = home[at : at + w.info.stored]
            if w.known is not None:
                into[:] = w.known.words
            else:
                try:
                    read_share(w.path, w.info, w.size, w.digest, into, check=check)
                except MippError as error:
                    into[:] = 0
                    problems[i] = w.problem(error)
            at += w.info.stored
        home.flags.writeable = False
        at = 0
    else:
        first = wanted[piece.first].known
        assert first is not None  # it lies there
        at = first.offset
    for i in range(piece.first, piece.stop):
        places[i] = (None, 0, None, problems[i]) if i in problems else (home, at, None, "")
        at += wanted[i].info.stored
