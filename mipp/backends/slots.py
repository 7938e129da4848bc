"""Products of slots, of rows as they lie in memory or a mapped file, and of rows that are made from keys.

Here and on workers. Products are not masked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import Any, NamedTuple

import numpy as np

from .. import ring
from ..io.memory import WINDOW_BYTES, ahead
from ..sharing import Run, key_centre_product, keystream_words
from .base import Slots

__all__ = ["key_centre_slots", "stored_slots"]

#: deleted rows whose words are held at a time
_DEAD = 1 << 12
#: slots of a window are a multiple, where it holds so many: whole cache lines of products
_LINE = 64


class _Window(NamedTuple):
    """Some slots of a group: their numbers from 0, rows of theirs that are there, and the numbers of these rows."""

    share: np.ndarray
    first: int
    stop: int
    words: np.ndarray
    ordinals: np.ndarray | None


def stored_slots(
    slots: Slots, words: np.ndarray, ordinals: np.ndarray | None, shares: Sequence[np.ndarray] | np.ndarray,
    out: np.ndarray, threads: int | None,
) -> None:  # fmt: skip
    """Multiply slots that a cloud stores.

    Parameters
    ----------
    slots : public
    words : (n, D) their rows that are there; secret
    ordinals : numbers of these rows, counted from the first row of the slots; None if all are there
    shares : (groups, B, size * D) query shares of the groups that are here; secret
    out : (B, slots) words, written
    """
    windows = list(_windows(slots, words, ordinals, shares))
    with closing(ahead([window.words for window in windows])) as read:
        for some, window in zip(read, windows, strict=True):
            first, stop = window.first, window.stop
            c, d = np.searchsorted(slots.dead, [first * slots.size, stop * slots.size]).tolist()
            dead, into = slots.dead[c:d] - first * slots.size, out[:, first:stop]
            if window.ordinals is None:
                ring.matmul(some.reshape(stop - first, -1), window.share, out=into, threads=threads)
                for rows in _some(dead):
                    _subtract(some[rows], rows, window.share, slots.size, into)
            else:
                # rows that were compacted away leave gaps, and slots are whole
                whole = np.zeros(((stop - first) * slots.size, words.shape[1]), words.dtype)
                whole[window.ordinals] = some
                whole[dead] = 0
                ring.matmul(whole.reshape(stop - first, -1), window.share, out=into, threads=threads)


def key_centre_slots(
    slots: Slots, schedules: Any, run: Run, shares: Sequence[np.ndarray] | np.ndarray, out: np.ndarray,
    threads: int | None,
) -> None:  # fmt: skip
    """Multiply slots of the key centre's keystream.

    Parameters
    ----------
    slots : public
    schedules : of :func:`mipp.sharing.batch_schedules`; secret
    run : all rows of the slots, in one batch
    shares, out : as of :func:`stored_slots`
    """
    row = int(run.first_row[0])
    for share, (first, stop) in zip(shares, slots.groups(), strict=False):
        query, into, base = np.ascontiguousarray(share), out[:, first:stop], first * slots.size
        wide = Run(run.index, np.array([row // slots.size + first]), np.array([stop - first]))
        key_centre_product(schedules, wide, query, into, threads=threads)
        c, d = np.searchsorted(slots.dead, [base, stop * slots.size]).tolist()
        for dead in _some(slots.dead[c:d]):
            rows = Run(np.repeat(run.index, len(dead)), row + dead, np.ones(len(dead), np.int64))
            words = keystream_words(schedules, rows, query.shape[1] // slots.size, query.dtype)
            _subtract(words, dead - base, query, slots.size, into)


def _windows(
    slots: Slots, words: np.ndarray, ordinals: np.ndarray | None, shares: Sequence[np.ndarray] | np.ndarray
) -> Iterator[_Window]:
    step = max(1, WINDOW_BYTES // (slots.size * words.shape[1] * words.itemsize))
    if step > _LINE:
        step = step // _LINE * _LINE
    for share, (begin, end) in zip(shares, slots.groups(), strict=False):
        query = np.ascontiguousarray(share)
        for first in range(begin, end, step):
            stop = min(first + step, end)
            a, b = first * slots.size, stop * slots.size
            if ordinals is None:
                yield _Window(query, first, stop, words[a:b], None)
            else:
                c, d = np.searchsorted(ordinals, [a, b]).tolist()
                yield _Window(query, first, stop, words[c:d], ordinals[c:d] - a)


def _some(dead: np.ndarray) -> Iterator[np.ndarray]:
    """Deleted rows, so many at a time that their words are little."""
    for first in range(0, len(dead), _DEAD):
        yield dead[first : first + _DEAD]


def _subtract(words: np.ndarray, rows: np.ndarray, share: np.ndarray, size: int, out: np.ndarray) -> None:
    """Take rows of slots, numbers ``rows`` with their words, out of products of the slots; in place."""
    slot, inside = np.divmod(rows, size)
    for query, into in zip(share.reshape(len(out), size, -1), out, strict=True):
        np.subtract.at(into, slot, (words * query[inside]).sum(axis=1, dtype=out.dtype))
