"""Products of slots, of rows as they lie in memory or a mapped file, and of rows that are made from keys.

Here and on workers. Products are not masked.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence, Sized
from contextlib import closing
from typing import Any, NamedTuple

import numpy as np

from .. import ring
from ..io.memory import WINDOW_BYTES, ahead
from ..sharing import Run, key_centre_product, keystream_words
from .base import Slots

__all__ = ["key_centre_slots", "stored_slots"]

#: rows that are copied in the time in which one is taken out of a product, about
_SUBTRACTED = 16
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
            if window.ordinals is None and _few(dead, some, window.share):
                ring.matmul(some.reshape(stop - first, -1), window.share, out=into, threads=threads)
                _subtract(some[dead], dead, window.share, slots.size, into)
                continue
            if window.ordinals is None:
                whole = np.array(some)
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
        query, width = np.ascontiguousarray(share), share.shape[1] // slots.size
        for begin, end in _steps(first, stop, slots.size * width * query.itemsize):
            into, base, rows = out[:, begin:end], begin * slots.size, (end - begin) * slots.size
            c, d = np.searchsorted(slots.dead, [base, end * slots.size]).tolist()
            dead = slots.dead[c:d] - base
            if _few(dead, range(rows), query):
                wide = Run(run.index, np.array([row // slots.size + begin]), np.array([end - begin]))
                key_centre_product(schedules, wide, query, into, threads=threads)
                some = Run(np.repeat(run.index, len(dead)), row + base + dead, np.ones(len(dead), np.int64))
                _subtract(keystream_words(schedules, some, width, query.dtype), dead, query, slots.size, into)
            else:
                whole = keystream_words(
                    schedules, Run(run.index, np.array([row + base]), np.array([rows])), width, query.dtype
                )
                whole[dead] = 0
                ring.matmul(whole.reshape(end - begin, -1), query, out=into, threads=threads)


def _windows(
    slots: Slots, words: np.ndarray, ordinals: np.ndarray | None, shares: Sequence[np.ndarray] | np.ndarray
) -> Iterator[_Window]:
    width = slots.size * words.shape[1] * words.itemsize
    for share, (begin, end) in zip(shares, slots.groups(), strict=False):
        query = np.ascontiguousarray(share)
        for first, stop in _steps(begin, end, width):
            a, b = first * slots.size, stop * slots.size
            if ordinals is None:
                yield _Window(query, first, stop, words[a:b], None)
            else:
                c, d = np.searchsorted(ordinals, [a, b]).tolist()
                yield _Window(query, first, stop, words[c:d], ordinals[c:d] - a)


def _steps(begin: int, end: int, width: int) -> Iterator[tuple[int, int]]:
    """Slots of ``width`` bytes, a window of them at a time: (first, stop)."""
    step = max(1, WINDOW_BYTES // width)
    if step > _LINE:
        step = step // _LINE * _LINE
    for first in range(begin, end, step):
        yield first, min(first + step, end)


def _few(dead: np.ndarray, rows: Sized, share: np.ndarray) -> bool:
    """Whether deleted rows are so few that taking them out of products is less work than copying rows without them."""
    return len(dead) * len(share) * _SUBTRACTED <= len(rows)


def _subtract(words: np.ndarray, rows: np.ndarray, share: np.ndarray, size: int, out: np.ndarray) -> None:
    """Take rows of slots, numbers ``rows`` with their words, out of products of the slots; in place."""
    slot, inside = np.divmod(rows, size)
    for query, into in zip(share.reshape(len(out), size, -1), out, strict=True):
        np.subtract.at(into, slot, (words * query[inside]).sum(axis=1, dtype=out.dtype))
