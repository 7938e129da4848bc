"""Check columns: random combinations of a batch's queries, by which a user notices score shares that are wrong.

Beside its B queries the user asks for c more, each a random combination of the B: q*_j = sum_b C_jb q_b modulo 2^k,
with C secret. Honest score shares then satisfy z*_j = sum_b C_jb z_b in every row. The user, or the servers for it,
fold each check column by weights of its own, one a row, that nobody knows before all score shares were given:
s_j = sum_i R_ji z*_ji; and the user compares it with sum_b C_jb sum_i R_ji z_bi.

A server may add to score shares whatever it likes, also by other stored rows; it knows neither C nor R when it does. It
may add to a folded word when it knows R. Let every score lie in a range of S + 1 numbers, which the user checks; then
an error of a score is at most S in size, and 2^v is the largest power of two that can divide it, v being the number of
bits of S less one. A column misses it with probability at most 2^(v-k) ((k-v)/2 + 1): R makes the error's weighted sum
a uniform multiple of 2^v, whose own power of two is v+g with probability 2^-(g+1), and C then makes a uniform multiple
of that power, which must meet one value. Columns are independent.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from .._native import _core
from ..crypto import schedule
from ..errors import ParameterError, ShapeError
from ..params import Params
from .scores import packed_words
from .words import as_words, label_array

__all__ = ["MAX_CHECKS", "CheckColumns", "checks_needed", "fold", "fold_weights", "miss_bits"]

#: check columns of one batch of queries, at most: more would cost more than they are worth
MAX_CHECKS = 16
#: columns that native code folds in one pass
_PASS = 8
#: rows whose weights are made at a time: a multiple of the rows that are packed together
_PIECE = 1 << 16
SEED_BYTES = 32


def miss_bits(span: int, ring_bits: int) -> float:
    """The number of bits b such that one check column misses a wrong score with a probability of at most 2^-b.

    Parameters
    ----------
    span : int
        Largest score less the least one.
    ring_bits : int
        Bits of a ring word.

    Returns
    -------
    float
        At least 0; 0 where a column promises nothing.

    Examples
    --------
    >>> from mipp.sharing.checks import miss_bits
    >>> round(miss_bits(2**18 - 1, 32), 1), round(miss_bits(2**21 - 1, 32), 1), round(miss_bits(2**16 - 1, 16), 1)
    (11.9, 9.2, 0.4)
    """
    left = ring_bits - (max(span, 1).bit_length() - 1)
    return max(0.0, left - math.log2(left / 2 + 1)) if left > 0 else 0.0


def checks_needed(span: int, ring_bits: int, bits: int = 40) -> int:
    """Number of check columns for which a wrong score is missed with a probability of at most 2^-bits.

    Parameters
    ----------
    span, ring_bits
        As for :func:`miss_bits`.
    bits : int
        Soundness in bits.

    Returns
    -------
    int
        0 if :data:`MAX_CHECKS` columns are not enough: the ring leaves too little room above the scores.

    Examples
    --------
    >>> from mipp.sharing.checks import checks_needed
    >>> [checks_needed(2**w - 1, k) for w, k in ((18, 32), (21, 32), (21, 64), (11, 16), (15, 16))]
    [4, 5, 2, 10, 0]
    """
    each = miss_bits(span, ring_bits)
    count = math.ceil(bits / each) if each else MAX_CHECKS + 1
    return count if count <= MAX_CHECKS else 0


def fold_weights(seed: bytes, checks: int, rows: range, params: Params) -> np.ndarray:
    """Expand the weights by which check columns are folded: AES-256 in counter mode, a stream for each column.

    Parameters
    ----------
    seed : bytes
        32 bytes. Secret until all score shares were given.
    checks : int
        c, the number of columns.
    rows : range
        Which rows.
    params : Params
        Of the deployment.

    Returns
    -------
    ndarray, shape (c, len(rows)), dtype of the ring
        Weights, uniformly random.

    Raises
    ------
    ParameterError
        A seed of another length.
    """
    if len(seed) != SEED_BYTES:
        raise ParameterError(f"weights come from a seed of {SEED_BYTES} bytes")
    per_block = 128 // params.ring_bits
    first = rows.start // per_block
    blocks = -(-rows.stop // per_block) - first
    schedules = _core.KeySchedules(seed, label_array([b"mipp v1 fold" + bytes([j]) for j in range(checks)]), 1)
    out = np.empty((checks, blocks * per_block), params.dtype)
    for j in range(checks):
        _core.keystream_words(schedules, j, first, out[j])
    start = rows.start - first * per_block
    return np.ascontiguousarray(out[:, start : start + len(rows)])


def fold(
    score_shares: Sequence[np.ndarray], weights: np.ndarray, *, low: int, high: int, width: int | None = None,
    threads: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Sum weighted scores over rows, and check that each score is in range. Its time depends on no score.

    Parameters
    ----------
    score_shares : list of ndarray, shape (B, N) or packed, dtype of the ring
        Words that add up to the scores: of all servers, or one server's alone for its part. Secret together.
    weights : ndarray, shape (c, N), dtype of the ring
        A weight for each row and column.
    low, high : int
        Range of the scores.
    width : int, optional
        Of packed score shares: bits of each.
    threads : int, optional
        Native threads; default :func:`mipp.cpu.threads`.

    Returns
    -------
    sums : ndarray, shape (B, c), dtype of the ring
        Weighted sums modulo 2^k. Secret.
    outside : ndarray of bool, shape (B,)
        Whether a score is out of range.

    Raises
    ------
    DTypeError, ShapeError
        Arrays of other types or shapes.
    """
    shares = list(score_shares)
    parts = [
        _core.fold_answers(shares, weights[j : j + _PASS], low, high, threads or 0, width)
        for j in range(0, len(weights), _PASS)
    ]
    sums = parts[0][0] if len(parts) == 1 else np.concatenate([part for part, _ in parts], axis=1)
    return sums, parts[0][1]


class CheckColumns:
    """A user's check columns of one batch of queries: makes them, and checks the score shares that come back.

    Parameters
    ----------
    queries : ndarray of int, shape (B, dim)
        Encoded queries. Secret.
    checks : int
        c, the number of columns, 1 to :data:`MAX_CHECKS`.
    params : Params
        Of the deployment.
    score_range : tuple of int
        Least and largest score.

    Attributes
    ----------
    seed : bytes
        Seed of the weights, 32 bytes. Secret until all score shares came.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp import ring
    >>> from mipp.params import Params
    >>> from mipp.sharing.checks import CheckColumns
    >>> rows, queries = np.array([[1, 2], [3, -4]], np.int64), np.array([[5, 6]])
    >>> check = CheckColumns(queries, 4, Params(), (-100, 100))
    >>> words = rows.astype(np.uint32) @ check.with_columns(queries).T  # (rows, B + c)
    >>> scores, columns = np.ascontiguousarray(words[:, :1].T), np.ascontiguousarray(words[:, 1:].T)
    >>> check.add(range(2), [scores])
    False
    >>> check.passes(check.folded(range(2), [columns]))
    True
    >>> scores[0, 1] += 1
    >>> check.add(range(2), [scores])
    False
    >>> check.passes(check.folded(range(2), [columns]))
    False
    """

    def __init__(self, queries: np.ndarray, checks: int, params: Params, score_range: tuple[int, int]) -> None:
        if not 1 <= checks <= MAX_CHECKS:
            raise ParameterError(f"a batch of queries has 1 to {MAX_CHECKS} check columns, not {checks}")
        self._params, self._range, self._checks = params, score_range, checks
        raw = schedule.random_bytes(checks * len(queries) * params.dtype.itemsize)
        self._coefficients = np.frombuffer(raw, params.dtype).reshape(checks, len(queries))
        self.seed = schedule.random_bytes(SEED_BYTES)
        self._sums = np.zeros((len(queries), checks), params.dtype)

    def __repr__(self) -> str:
        return f"CheckColumns({self._checks} columns)"

    def __reduce__(self) -> str:
        raise TypeError("check columns are secret and do not pickle")

    def with_columns(self, queries: np.ndarray) -> np.ndarray:
        """The queries and, after them, the check columns.

        Parameters
        ----------
        queries : ndarray of int, shape (B, dim)
            Those that this was made for. Secret.

        Returns
        -------
        ndarray, shape (B + c, dim), dtype of the ring
            What is shared with the servers. Secret.
        """
        words = as_words(queries, self._params, "queries")
        with np.errstate(over="ignore"):
            return np.concatenate([words, self._coefficients @ words])

    def add(
        self, rows: range, score_shares: Sequence[np.ndarray], *, width: int | None = None, threads: int | None = None
    ) -> bool:
        """Take in the score shares of some rows; all rows once each.

        Parameters
        ----------
        rows : range
            Which rows.
        score_shares : list of ndarray, shape (B, len(rows)) or packed
            From all servers. Secret together.
        width : int, optional
            Of packed score shares: bits of each.
        threads : int, optional
            Native threads; default :func:`mipp.cpu.threads`.

        Returns
        -------
        bool
            Whether a score of these rows is out of range. Such a score is not covered by the bound.
        """
        low, high = self._range
        beyond = False
        for some, part in _pieces(rows, score_shares, width or self._params.ring_bits, self._params.ring_bits):
            weights = fold_weights(self.seed, self._checks, some, self._params)
            sums, outside = fold(part, weights, low=low, high=high, width=width, threads=threads)
            self._sums += sums
            beyond |= bool(outside.any())
        return beyond

    def folded(self, rows: range, columns: Sequence[np.ndarray], *, threads: int | None = None) -> np.ndarray:
        """Fold the check columns of some rows, where servers send them whole.

        Parameters
        ----------
        rows : range
            Which rows.
        columns : list of ndarray, shape (c, len(rows))
            Words of the check columns from all servers, or from one. Secret together.
        threads : int, optional
            Native threads; default :func:`mipp.cpu.threads`.

        Returns
        -------
        ndarray, shape (c,), dtype of the ring
            The weighted sum of each column; those of several blocks of rows add up.
        """
        return fold_columns(columns, self.seed, rows, self._params, threads=threads)

    def passes(self, folded: np.ndarray) -> bool:
        """Whether the score shares agree with the check columns.

        Parameters
        ----------
        folded : ndarray, shape (c,), dtype of the ring
            The folded check columns of all rows, added up over the servers.

        Returns
        -------
        bool
            False if a score, or a check column, is wrong.
        """
        if folded.shape != (self._checks,):
            raise ShapeError(f"{self._checks} folded check columns are due")
        with np.errstate(over="ignore"):
            expected = (self._coefficients * self._sums.T).sum(axis=1, dtype=self._params.dtype)
        return bool((expected == folded).all())


def fold_columns(
    columns: Sequence[np.ndarray], seed: bytes, rows: range, params: Params, *, threads: int | None = None
) -> np.ndarray:
    """Fold check columns by the weights of a seed: at the user all servers' words, or at one server its own.

    Parameters
    ----------
    columns : list of ndarray, shape (c, len(rows)), dtype of the ring
        Words of the check columns.
    seed : bytes
        32 bytes.
    rows : range
        Which rows.
    params : Params
        Of the deployment.
    threads : int, optional
        Native threads; default :func:`mipp.cpu.threads`.

    Returns
    -------
    ndarray, shape (c,), dtype of the ring
        The weighted sum of each column.
    """
    checks = len(columns[0])
    least, most = np.iinfo(np.int64).min, np.iinfo(np.int64).max
    out = np.zeros(checks, params.dtype)
    for first in range(rows.start, rows.stop, _PIECE):
        some = range(first, min(first + _PIECE, rows.stop))
        weights, at = fold_weights(seed, checks, some, params), slice(first - rows.start, some.stop - rows.start)
        for j in range(checks):
            parts = [c[j : j + 1, at] for c in columns]
            out[j : j + 1] += fold(parts, weights[j : j + 1], low=least, high=most, threads=threads)[0][0]
    return out


def _pieces(
    rows: range, score_shares: Sequence[np.ndarray], width: int, ring_bits: int
) -> Iterator[tuple[range, list[np.ndarray]]]:
    """Rows whose weights stay in the caches, and their words; of several queries all rows, since words lie apart."""
    if len(score_shares[0]) != 1:
        yield rows, list(score_shares)
        return
    for first in range(0, len(rows), _PIECE):
        last = min(first + _PIECE, len(rows))
        begin, end = packed_words(first, width, ring_bits), packed_words(last, width, ring_bits)
        yield range(rows.start + first, rows.start + last), [share[:, begin:end] for share in score_shares]
