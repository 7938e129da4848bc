"""The servers' test, on shares, that rows keep the encoding's bounds; once for each batch, before it is ranked.

For a group of rows each server projects its words on random coefficients in {-1, 0, 0, 1}, drawn when the shares were
fixed, and the servers compare the projections with a bound (:class:`~mipp.encoding.bounds.RowRule`). Once no word can
be larger than X < 2^(k-2), words are lifted from Z_2^k to Z_2^64 exactly, their weighted squares summed there, and
every row's sum is compared with the encoding's limit. That the three servers' words lie on one polynomial of degree 1,
and that the last word of l2 is the sum, are opened as differences that are zero.

All that is opened is the same for all rows within the bounds. Of a batch that is refused it tells about its owner's
rows alone. Why this is enough is proved in the room's README.

Source: projections as in Baum, Nof, "Concretely-efficient zero-knowledge arguments for arithmetic circuits", PKC 2020,
and Lyubashevsky, Nguyen, Seiler, PKC 2021; lifting with a dealer's masks as in Escudero et al., "Improved primitives
for MPC over mixed arithmetic-binary circuits", CRYPTO 2020. Cost: :func:`mipp.mpc.cost.certificate_cost`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from .. import ring
from .._native import _core
from ..encoding.bounds import PROJECTIONS, RowRule
from ..errors import ProtocolError
from ..params import RING_DTYPES, Params
from ..sharing import constants
from . import kernels as local
from .comparison import less_than
from .lift import lift_rows
from .quickselect import unpack
from .replicated import open_words, reshare_words
from .session import Party

__all__ = ["MOST_NAMED", "TOGETHER", "Batch", "certify_rows", "chunk_rows"]

#: words of a server that are tested at a time
_CHUNK_WORDS = 1 << 21
#: rows of a failing batch that are named
MOST_NAMED = 1000
#: rows of a chunk whose comparisons share their rounds, which costs some bytes
TOGETHER = 4096
_DEALER = 3


@dataclasses.dataclass(frozen=True, eq=False)
class Batch:
    """Public facts of the rows to be certified, on which all three servers must agree.

    Parameters
    ----------
    header : 32 bytes: names owner and batch
    snapshot : 32 bytes: which of the rows are tested
    rows : how many
    rule : of the encoding
    params : two or three clouds, t=1
    servers : those that test, if not the only ones
    """

    header: bytes
    snapshot: bytes
    rows: int
    rule: RowRule
    params: Params
    servers: tuple[int, ...] | None = None

    @property
    def digest(self) -> bytes:
        """Of all values but the snapshot, for the first round."""
        r = self.rule
        extra = dataclasses.astuple(r.extra) if r.extra is not None else ()
        facts = (r.ring_bits, r.width, r.weights.tobytes(), r.limit, r.group, r.exact, r.bound, r.hint_bits, extra)
        return local.digest("mipp v2 certificate", self.header, self.rows, *facts)


def chunk_rows(rule: RowRule) -> int:
    """Rows that are tested at a time: whole groups."""
    return max(1, _CHUNK_WORDS // (rule.width * rule.group)) * rule.group


def certify_rows(
    party: Party,
    rows: Callable[[int, int], np.ndarray],
    batch: Batch,
    progress: Callable[[int], None] | None = None,
) -> np.ndarray:
    """Which rows break the rule, as all three servers see it: sorted row numbers, at most :data:`MOST_NAMED`.

    Parameters
    ----------
    party : new, one per attempt
    rows : gives this server's words (stop - start, D) of rows start to stop: stored, or the keystream. Secret
    batch : what all agree on
    progress : called with the number of rows that were tested so far

    Raises
    ------
    StaleSnapshotError, ParameterError, ProtocolError, MessageError
        The parties disagree, or one failed: nothing is certified.

    A row within the bounds fails with less than 10^-16; one beyond passes with at most 2^-40.
    """
    # a small batch is less than a group: fewer coefficients, the same bound
    rule = dataclasses.replace(batch.rule, group=max(1, min(batch.rule.group, batch.rows)))
    with party.attempt():
        party.hello(batch.header, batch.digest, batch.snapshot)
        columns = _columns(party, batch, rule, "group")
        step, failing, groups = chunk_rows(rule), [], []
        for start in range(0, batch.rows, step):
            stop = min(start + step, batch.rows)
            bad_groups, bad_rows = _chunk(party, rows(start, stop), rule, batch, columns)
            groups += [(start + g * rule.group, min(start + (g + 1) * rule.group, stop)) for g in bad_groups.tolist()]
            failing.append(start + bad_rows)
            if progress is not None:
                progress(stop)
        found = np.concatenate([np.empty(0, np.int64), *failing])
        if groups:
            found = _named(party, rows, batch, groups, found)
        party.confirm()
        return np.unique(found)[:MOST_NAMED]


def _named(
    party: Party, rows: Callable[[int, int], np.ndarray], batch: Batch, groups: list[tuple[int, int]], found: np.ndarray
) -> np.ndarray:
    """Rows of the first failing groups, each tested by itself: of the others in a failing group nothing is known."""
    rule = batch.rule.alone()
    columns = _columns(party, batch, rule, "alone")
    groups = groups[: MOST_NAMED // (groups[0][1] - groups[0][0]) + 1]
    numbers = np.concatenate([np.arange(start, stop) for start, stop in groups])
    words = np.concatenate([rows(start, stop) for start, stop in groups])
    named = []
    for at in range(0, len(numbers), chunk_rows(rule)):
        some = numbers[at : at + chunk_rows(rule)]
        bad = np.union1d(*_chunk(party, words[at : at + len(some)], rule, batch, columns))
        named.append(some[bad])
    alone = np.concatenate(named)
    # a group whose rows all pass by themselves is named whole
    whole = [np.arange(start, stop) for start, stop in groups if not ((alone >= start) & (alone < stop)).any()]
    return np.concatenate([np.setdiff1d(found, numbers), alone, *whole])


def _columns(party: Party, batch: Batch, rule: RowRule, purpose: str) -> np.ndarray:
    """Factors for groups of this server's words: projections of the row, then of sums that must be zero."""
    size, dtype = rule.group * rule.width, RING_DTYPES[rule.ring_bits]
    coins = party.coins(f"projections {purpose}", PROJECTIONS * (-(-size // 4)))
    two = np.unpackbits(coins.reshape(PROJECTIONS, -1), axis=1, count=2 * size).reshape(PROJECTIONS, size, 2)
    # 11: 1, 00: -1, else 0
    signs = two[..., 0].astype(dtype) + two[..., 1].astype(dtype) - dtype.type(1)
    parts = []
    if party.index != _DEALER and not rule.exact:
        mine = (signs.reshape(-1, rule.width) * rule.tested.astype(dtype)).reshape(PROJECTIONS, size)
        parts.append(_times(mine, constants.row_weights(batch.params, batch.servers)[party.index - 1]))
    parts.append(_times(signs, constants.row_degree_matrices(batch.params, batch.servers)[party.index - 1]))
    return np.concatenate(parts)


def _times(signs: np.ndarray, matrix: np.ndarray) -> np.ndarray:
    """Coefficients of this server's words, from those of the elements that it maps them to by an (m, m) matrix."""
    out = np.empty_like(signs)
    _core.combine([signs], np.ascontiguousarray(matrix.T)[None, None], [out], 1)
    return out


def _chunk(
    party: Party, words: np.ndarray, rule: RowRule, batch: Batch, columns: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of groups and of rows that fail."""
    n, group, dtype = len(words), rule.group, RING_DTYPES[rule.ring_bits]
    groups = -(-n // group)
    whole = words
    if n < groups * group:
        whole = np.zeros((groups * group, rule.width), dtype)
        whole[:n] = words
    products = ring.matmul(whole.reshape(groups, -1), columns, threads=party.threads or None)
    first, cloud = party.index == 1, party.index != _DEALER
    weights = constants.row_weights(batch.params, batch.servers)[party.index - 1] if cloud else None
    lifted = lift_rows(party, words, rule, weights, keep=rule.exact)
    sums, last = lifted.sums, lifted.last
    if rule.exact:
        tested = lifted.own[:, rule.tested] if cloud else np.zeros((n, int(rule.tested.sum())), dtype)
        values = np.ascontiguousarray(tested).reshape(-1)
    else:
        values = products[:PROJECTIONS].reshape(-1) if cloud else np.zeros(PROJECTIONS * groups, dtype)

    # differences that are zero: words of three polynomials' degree, and the last word of l2 less the sum
    zero = [products[-PROJECTIONS:].reshape(-1)]
    e = rule.extra
    if e is not None and not e.slack:
        zero.append(sums.astype(dtype) - lifted.stored)
    opened = open_words(party, np.concatenate(zero))

    # differences that are not negative
    bound = dtype.type(rule.bound * first)
    narrow, wide = [bound - values, bound + values], [np.uint64(rule.limit * first) - sums]
    if e is not None and e.slack:
        stored = lifted.stored + dtype.type(e.centre * first % (1 << rule.ring_bits))
        narrow += [stored, dtype.type(e.most * first) - stored]
        apart = np.uint64(e.unit) * last - sums
        wide += [np.uint64(e.slack * first) - apart, np.uint64(e.slack * first) + apart]
    low, high = _negatives(party, np.concatenate(narrow), np.concatenate(wide), rule, together=n <= TOGETHER)

    size = len(values)
    each = low[:size] | low[size : 2 * size]
    bad_rows = high.reshape(-1, n).any(axis=0) | low[2 * size :].reshape(-1, n).any(axis=0)
    bad_groups = (opened[: PROJECTIONS * groups].reshape(PROJECTIONS, groups) != 0).any(axis=0)
    if rule.exact:
        bad_rows |= each.reshape(n, -1).any(axis=1)
    else:
        bad_groups |= each.reshape(PROJECTIONS, groups).any(axis=0)
    if len(zero) > 1:
        bad_rows |= opened[PROJECTIONS * groups :] != 0
    return np.flatnonzero(bad_groups), np.flatnonzero(bad_rows)


def _negatives(
    party: Party, narrow: np.ndarray, wide: np.ndarray, rule: RowRule, *, together: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Which sums of k bits, and which of k + e bits, are negative, opened: bool arrays.

    ``together``: in the rounds of one comparison. A share times 2^e is a share modulo 2^(k+e) of a number with the same
    sign.
    """
    calls = [(narrow, rule.ring_bits), (wide, rule.sum_bits)]
    if together:
        lifted = narrow.astype(np.uint64) << np.uint64(rule.hint_bits)
        calls = [(np.concatenate([lifted, wide]), rule.sum_bits)]
    bits = [unpack(less_than(party, reshare_words(party, words), width), len(words)) for words, width in calls]
    every = np.concatenate(bits)
    return every[: len(narrow)], every[len(narrow) :]


def refused(rows: np.ndarray, total: int) -> str:
    """A sentence that names rows which are out of range."""
    if not len(rows):
        raise ProtocolError("no row was refused")
    shown = ", ".join(map(str, rows[:20].tolist()))
    more = f" and {'at least ' * (len(rows) >= MOST_NAMED)}{len(rows) - 20} more" if len(rows) > 20 else ""
    return f"of {total} rows, these are out of the encoding's range: {shown}{more}"
