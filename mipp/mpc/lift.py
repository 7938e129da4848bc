"""Sums of squares of shared rows over the integers, by masks that the key centre deals; once for each row.

The clouds learn m = x + 2^(k-2) + r, r the sum of one mask of each with the key centre. It knows r, and shares with
them what turns "m less r mod 2^k" into integers: whether the two masks wrap, the top bit of r, and, where that is set,
r's other bits. Formulas and the proof are in the room's README.

Messages are of all rows that are tested together, so that rounds are few. All that is not sent is made of a block of
rows at a time, in memory that is used again: fresh memory for each step costs more than the arithmetic. Each block has
masks of its own (its number is the item of their keys). Cost: one round, :func:`mipp.mpc.cost.certificate_cost`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np

from .._native import _core
from ..encoding.bounds import RowRule
from ..params import RING_DTYPES
from . import kernels as local
from .session import Party

__all__ = ["Lifted", "lift_rows"]

#: words of a block: its masks, shares and hints stay in a cache
_BLOCK_WORDS = 1 << 17
_DEALER = 3


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Lifted:
    """One server's additive shares of rows' sums. All are secret.

    Parameters
    ----------
    sums : ndarray of uint64, shape (N,)
        Of each row's weighted sum of squares, modulo 2^(k+e).
    last : ndarray of uint64, shape (N,)
        Of the last word of l2 plus the centre, modulo 2^(k+e); 0 for other metrics.
    stored : ndarray, shape (N,), dtype of the ring
        Of the same word as it is stored, modulo 2^k.
    own : ndarray, shape (N, D), dtype of the ring
        Of the rows; without rows unless they were asked for.
    """

    sums: np.ndarray
    last: np.ndarray
    stored: np.ndarray
    own: np.ndarray


@dataclasses.dataclass(frozen=True)
class _Block:
    """Rows from ``start`` to ``stop``, the ``item``-th ones."""

    item: int
    start: int
    stop: int


class _Lift:
    """What both roles need: sizes, buffers, keys."""

    def __init__(self, party: Party, n: int, rule: RowRule) -> None:
        self.party, self.n, self.rule, self.width = party, n, rule, rule.width
        self.dtype = RING_DTYPES[rule.ring_bits]
        self.hint = RING_DTYPES.get(rule.hint_bits, np.dtype("u1"))
        # blocks begin at whole words of 64 bits in every array
        self.rows = max(8, _BLOCK_WORDS // self.width // 8 * 8)

    def blocks(self) -> Iterator[_Block]:
        for item, start in enumerate(range(0, self.n, self.rows)):
            yield _Block(item, start, min(start + self.rows, self.n))

    def words(self, rows: int, dtype: np.dtype, each: int = 1) -> np.ndarray:
        """Room for so many rows, in whole words of 64 bits."""
        return np.empty(-(-rows * self.width * each * dtype.itemsize // 8), np.uint64)

    def fill(self, keys: bytes, room: np.ndarray, dtype: np.dtype, block: _Block, at: int, each: int = 1) -> np.ndarray:
        """Keystream in ``room`` from row ``at`` on, for a block of rows with ``each`` times D words."""
        size = self.width * each * dtype.itemsize
        first, stop = at * size // 8, -(-(at + block.stop - block.start) * size // 8)
        local.words_mask(keys, room[first:stop], self.party.threads)
        return self.part(room, dtype, block, at, each)

    def part(self, room: np.ndarray, dtype: np.dtype, block: _Block, at: int, each: int = 1) -> np.ndarray:
        size, count = self.width * each, block.stop - block.start
        return room.view(dtype)[at * size : (at + count) * size].reshape(each * count, self.width)

    def hints(self, flat: np.ndarray | None, block: _Block) -> local.Hints | None:
        """Carry, top bit and rest of a block, one after the other."""
        if flat is None:
            return None
        carry, top, rest = flat.reshape(3, block.stop - block.start, self.width)
        return carry, top, rest


def lift_rows(
    party: Party, words: np.ndarray, rule: RowRule, weights: np.ndarray | None, *, keep: bool = False
) -> Lifted:
    """Compute shares of each row's weighted sum of squares.

    Parameters
    ----------
    party : in an attempt
    words : (N, D) of the ring, this server's; secret. Not read at the key centre
    rule : the encoding's
    weights : (m, m) matrix by which a cloud's words become its additive share; None at the key centre
    keep : whether the result has ``own``

    Returns
    -------
    Lifted
        Additive shares.

    Cost: 1 round; each cloud sends N D words, the key centre 3 N D hints to cloud 2. Leakage: none; a cloud sees the
    other's words under a mask of that one with the key centre, cloud 2 the hints under one of cloud 1.
    """
    lift = _Lift(party, len(words), rule)
    if weights is None:
        return _dealt(lift)
    return _shared(lift, words, weights, keep=keep)


def _dealt(lift: _Lift) -> Lifted:
    party, rule, n = lift.party, lift.rule, lift.n
    sums, bits = np.empty(n, np.uint64), rule.hint_bits
    room = [lift.words(min(n, lift.rows), lift.dtype) for _ in range(2)]
    given = lift.words(n, lift.hint, 3) if bits else np.empty(0, np.uint64)
    for block in lift.blocks():
        r1, r2 = (
            lift.fill(party.key(missing, "lift", block.item), some, lift.dtype, block, 0)
            for missing, some in zip((2, 1), room, strict=True)
        )
        flat = None
        if bits:
            flat = lift.fill(party.key(2, "hints", block.item), given, lift.hint, block, block.start, 3)
        sums[block.start : block.stop] = local.square_dealer(
            r1, r2, rule.weights, lift.hints(flat, block), party.threads
        )
    whole = given.view(lift.hint)[: 3 * n * lift.width]
    party.exchange("lift", {2: [whole]} if bits else {}, {})
    return Lifted(sums, np.zeros(n, np.uint64), np.zeros(n, lift.dtype), np.zeros((0, lift.width), lift.dtype))


def _shared(lift: _Lift, words: np.ndarray, weights: np.ndarray, *, keep: bool) -> Lifted:
    party, rule, n, width = lift.party, lift.rule, lift.n, lift.width
    first, other, bits = party.index == 1, 3 - party.index, rule.hint_bits
    matrices, count = weights[None, None], min(n, lift.rows)
    own = np.empty((n if keep else count, width), lift.dtype)
    stored = np.zeros(n, lift.dtype)
    masks = [party.key(other, "lift", block.item) for block in lift.blocks()]
    dealt = [party.key(2, "hints", block.item) for block in lift.blocks()] if first and bits else []

    offset = np.full(width, 1 << (rule.ring_bits - 2), lift.dtype)
    if rule.extra is not None:
        offset[rule.extra.word] = rule.extra.centre % (1 << rule.ring_bits)
    sent = lift.words(n, lift.dtype)
    for block in lift.blocks():
        rows = slice(block.start, block.stop)
        mine = own[rows] if keep else own[: block.stop - block.start]
        _core.combine([words[rows]], matrices, [mine], party.threads)
        if rule.extra is not None:
            stored[rows] = mine[:, rule.extra.word]
        masked = lift.fill(masks[block.item], sent, lift.dtype, block, block.start)
        masked += mine
        if first:
            masked += offset
    sent = sent.view(lift.dtype)[: n * width]
    incoming: dict[int, list[tuple[int, type[np.unsignedinteger]]]] = {other: [(n * width, lift.dtype.type)]}
    if not first and bits:
        incoming[_DEALER] = [(3 * n * width, lift.hint.type)]
    got = party.exchange("lift", {other: [sent]}, incoming)

    sums, last = np.empty(n, np.uint64), np.zeros(n, np.uint64)
    m, room = np.empty((count, width), lift.dtype), lift.words(count, lift.dtype)
    hint_room = lift.words(count, lift.hint, 3)
    for block in lift.blocks():
        rows, some = slice(block.start, block.stop), m[: block.stop - block.start]
        r = lift.fill(masks[block.item], room, lift.dtype, block, 0)
        theirs = lift.part(got[other][0], lift.dtype, block, block.start)
        np.add(lift.part(sent, lift.dtype, block, block.start), theirs, out=some)
        flat = None
        if bits and first:
            flat = lift.fill(dealt[block.item], hint_room, lift.hint, block, 0, 3)
        elif bits:
            flat = lift.part(got[_DEALER][0], lift.hint, block, block.start, 3)
        hints = lift.hints(flat, block)
        sums[rows] = local.square_share(some, r, rule.weights, first, hints, party.threads)
        if rule.extra is not None:
            last[rows] = _last(some[:, rule.extra.word], r[:, rule.extra.word], rule, hints, first=first)
    return Lifted(sums, last, stored, own if keep else own[:0])


def _last(m: np.ndarray, r: np.ndarray, rule: RowRule, hints: local.Hints | None, *, first: bool) -> np.ndarray:
    """This cloud's share of the last word plus the centre, of the masked words and its masks of one column."""
    k, extra = rule.ring_bits, rule.extra
    assert extra is not None
    last = np.uint64(0) - r.astype(np.uint64)
    if first:
        last += m.astype(np.uint64)
    if hints is not None:
        clear = np.uint64(1) - (m >> m.dtype.type(k - 1)).astype(np.uint64)
        carry, top = (h[:, extra.word].astype(np.uint64) for h in hints[:2])
        last += (carry + clear * top) << np.uint64(k)
    return last
