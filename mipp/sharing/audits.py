"""Audits of stored rows: an owner proves with a few words of traffic that a cloud still holds what it was given.

This is the compact proof of retrievability with private verification of Shacham and Waters ("Compact Proofs of
Retrievability", ASIACRYPT 2008), modulo p = 2^61 - 1. A row is its bytes read as D' words x_ij of 32 bits, whatever the
ring. The owner derives secret weights a_j for each cloud, and keeps one tag a row, t_i = sum_j a_j x_ij mod p. To audit
it draws a seed, from which both sides expand coefficients c_i. The cloud answers s_j = sum_i c_i x_ij mod p, and the
owner compares sum_j a_j s_j with sum_i c_i t_i.

*Soundness.* Let s* be the right answer. The owner accepts s exactly when sum_j a_j (s_j - s*_j) = 0. Nobody but the
owner sees anything that depends on the weights except whether answers were accepted. Until a wrong answer passes for
the first time, wrong ones were all refused and right ones all accepted, which tells nothing of the weights. So in q
audits a wrong answer passes with probability at most q 2^-60: one linear equation of secret, nearly uniform weights
must hold. A cloud that computes from changed rows gives a right answer by chance with probability at most 2^-60: two
words of 32 bits that differ do so modulo p, too, and the coefficient of a changed row is new. Modulo 2^k it would be
one half where the top bit of a word was flipped. Words of 64 bits would not be unique modulo p.

Weights and coefficients are the low 61 bits of keystream words; all ones count as 0, so no value is more likely than
2^-60. They stand on AES-256 in counter mode and HKDF-SHA256 being pseudorandom, as all of mipp does.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from .._native import _core
from ..crypto import schedule
from ..errors import DTypeError, ParameterError, ShapeError
from .words import label_array

__all__ = [
    "MODULUS",
    "SEED_BYTES",
    "Coefficients",
    "audit_words",
    "combine_rows",
    "combine_tags",
    "row_tags",
    "tag_weights",
    "weighted_sum",
]

#: p, a Mersenne prime
MODULUS = (1 << 61) - 1
SEED_BYTES = 32
_WORD = np.dtype("<u4")
_PER_BLOCK = 2  # keystream words of 64 bits


def audit_words(rows: np.ndarray) -> np.ndarray:
    """View rows as words of 32 bits.

    Parameters
    ----------
    rows : ndarray, shape (N, D), any unsigned or signed integers
        C-contiguous; whole words of 32 bits a row.

    Returns
    -------
    ndarray of uint32, shape (N, D')
        A view of the same bytes.

    Raises
    ------
    DTypeError, ShapeError
        No integers, or rows that are no whole words.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.sharing.audits import audit_words
    >>> audit_words(np.array([[1, 2, 3, 4]], "<u2")).tolist(), audit_words(np.array([[1 << 32, 5]], "<u8")).tolist()
    ([[131073, 262147]], [[0, 1, 5, 0]])
    """
    if not isinstance(rows, np.ndarray) or rows.dtype.kind not in "iu":
        raise DTypeError("rows must be an array of integers")
    if rows.ndim != 2 or not rows.flags.c_contiguous or not rows.shape[1] or rows.shape[1] * rows.itemsize % 4:
        raise ShapeError("rows must be (N, D), C-contiguous, and whole words of 32 bits each")
    return rows.view(_WORD)


def tag_weights(key: bytes, cloud: int, words: int) -> np.ndarray:
    """Derive the weights of an owner's tags for one cloud.

    Parameters
    ----------
    key : bytes
        :func:`mipp.crypto.schedule.audit_key`, 32 bytes. Secret.
    cloud : int
        Number of the cloud; 0 for weights of image ids.
    words : int
        D', words of 32 bits in a row.

    Returns
    -------
    ndarray of uint64, shape (D',)
        Weights, of which the low 61 bits count. Secret.

    Raises
    ------
    ParameterError
        A key or number that cannot be.

    Examples
    --------
    >>> from mipp.sharing.audits import tag_weights
    >>> tag_weights(bytes(32), 1, 4).shape, bool((tag_weights(bytes(32), 1, 4) == tag_weights(bytes(32), 2, 4)).any())
    ((4,), False)
    """
    if len(key) != SEED_BYTES or words < 1:
        raise ParameterError(f"weights come from a key of {SEED_BYTES} bytes, at least one")
    return _stream(_core.KeySchedules(key, label_array([schedule.audit_weights_info(cloud, words)]), 1), 0, 0, words)


def row_tags(rows: np.ndarray, weights: np.ndarray, *, threads: int | None = None) -> np.ndarray:
    """Compute the tags of rows: sums of weights times words, modulo p. Its time depends on no value.

    Parameters
    ----------
    rows : ndarray, shape (N, D), integers
        As a cloud gets them. Secret.
    weights : ndarray of uint64, shape (D',)
        Of :func:`tag_weights`. Secret.
    threads : int, optional
        Native threads; default :func:`mipp.cpu.threads`.

    Returns
    -------
    ndarray of uint64, shape (N,)
        Tags below p. Secret: with as many rows as weights they give the weights.

    Raises
    ------
    DTypeError, ShapeError
        Arrays that do not fit together.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.sharing.audits import row_tags
    >>> row_tags(np.array([[1, 2], [3, 4]], np.uint32), np.array([10, 1], np.uint64)).tolist()
    [12, 34]
    """
    return _core.tag_rows_p61(audit_words(rows), weights, threads or 0)


def combine_rows(rows: np.ndarray, coefficients: np.ndarray, *, threads: int | None = None) -> np.ndarray:
    """Combine rows linearly modulo p: what a cloud answers. Its time depends on no value.

    Parameters
    ----------
    rows : ndarray, shape (N, D), integers
        Stored rows. Secret.
    coefficients : ndarray of uint64, shape (N,)
        One a row, of which the low 61 bits count; 0 leaves a row out.
    threads : int, optional
        Native threads; default :func:`mipp.cpu.threads`.

    Returns
    -------
    ndarray of uint64, shape (D',)
        Sums below p. Secret: of one row they are that row.

    Raises
    ------
    DTypeError, ShapeError
        Arrays that do not fit together.

    Examples
    --------
    The owner's comparison, by hand:

    >>> import numpy as np
    >>> from mipp.sharing.audits import combine_rows, combine_tags, row_tags, weighted_sum
    >>> rows, weights = np.array([[1, 2], [3, 4]], np.uint32), np.array([10, 1], np.uint64)
    >>> coefficients = np.array([5, 7], np.uint64)
    >>> answer = combine_rows(rows, coefficients)
    >>> answer.tolist(), weighted_sum(answer, weights), combine_tags(row_tags(rows, weights), coefficients)
    ([26, 38], 298, 298)
    """
    return _core.combine_rows_p61(audit_words(rows), coefficients, threads or 0)


def combine_tags(tags: np.ndarray, coefficients: np.ndarray, *, threads: int | None = None) -> int:
    """Combine tags linearly modulo p: the right-hand side of the owner's comparison.

    Parameters
    ----------
    tags : ndarray of uint64, shape (N,)
        Of :func:`row_tags`. Secret.
    coefficients : ndarray of uint64, shape (N,)
        As for :func:`combine_rows`.
    threads : int, optional
        Native threads; default :func:`mipp.cpu.threads`.

    Returns
    -------
    int
        Below p.

    Raises
    ------
    DTypeError, ShapeError
        Arrays that do not fit together.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.sharing.audits import MODULUS, combine_tags
    >>> combine_tags(np.array([1, MODULUS - 1], np.uint64), np.array([5, 3], np.uint64))
    2
    """
    if not isinstance(tags, np.ndarray) or tags.dtype != np.uint64 or tags.ndim != 1:
        raise DTypeError("tags must be a vector of uint64")
    return _dot(tags, coefficients, threads or 0)


def weighted_sum(sums: np.ndarray, weights: np.ndarray) -> int:
    """Sum a cloud's answer by the weights, modulo p: the left-hand side of the owner's comparison.

    Parameters
    ----------
    sums : ndarray of uint64, shape (D',)
        The answer.
    weights : ndarray of uint64, shape (D',)
        Of :func:`tag_weights`. Secret.

    Returns
    -------
    int
        Below p.

    Raises
    ------
    ShapeError
        Another number of weights.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.sharing.audits import weighted_sum
    >>> weighted_sum(np.array([26, 38], np.uint64), np.array([10, 1], np.uint64))
    298
    """
    if sums.shape != weights.shape or sums.ndim != 1:
        raise ShapeError("a sum needs one weight a word")
    return _dot(sums, weights, 1)


def _dot(words: np.ndarray, factors: np.ndarray, threads: int) -> int:
    """Sum of words of 64 bits times factors, modulo p."""
    # the kernel takes halves of 32 bits
    low, high = _core.combine_rows_p61(audit_words(np.ascontiguousarray(words)[:, None]), factors, threads)
    return (int(low) + (int(high) << 32)) % MODULUS


class Coefficients:
    """The coefficients of one audit, expanded from its seed by both sides.

    Row r of batch b has word r of a keystream of that batch. A *draw* picks a row of all batches, deleted ones too,
    uniformly and with replacement, and has a coefficient of its own. So n draws miss m changed rows of N with
    probability (1 - m/N)^n: a sample of 1% misses one changed row with 0.99, and 460 with 0.01.

    Parameters
    ----------
    seed : bytes
        32 bytes, new for each audit; nobody may know it before the rows are stored.
    batches : sequence of bytes
        Ids of the batches, 16 bytes each.
    rows : sequence of int
        Rows of each batch as it was uploaded.

    Raises
    ------
    ParameterError
        A seed of another length, or no batch.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.sharing.audits import Coefficients
    >>> coefficients = Coefficients(bytes(32), [b"a" * 16, b"b" * 16], [5, 7])
    >>> np.array_equal(coefficients.of(1, 3, 6), coefficients.of(1, 0, 7)[3:6])
    True
    >>> batches, rows, factors = coefficients.draws(1000)
    >>> sorted(set(batches.tolist())), int(rows[batches == 1].max()), len(factors)
    ([0, 1], 6, 1000)
    """

    def __init__(self, seed: bytes, batches: Sequence[bytes], rows: Sequence[int]) -> None:
        if len(seed) != SEED_BYTES or not batches:
            raise ParameterError(f"coefficients come from a seed of {SEED_BYTES} bytes, for at least one batch")
        labels = [schedule.audit_rows_info(batch) for batch in batches]
        self._schedules = _core.KeySchedules(seed, label_array(labels), 1)
        self._draws = _core.KeySchedules(seed, label_array([schedule.audit_draws_info()]), 1)
        self._ends = np.cumsum(np.array(rows, np.int64), dtype=np.int64)

    def __reduce__(self) -> Any:
        raise TypeError("coefficients are made from their seed and do not pickle")

    def of(self, batch: int, start: int, stop: int, dead: np.ndarray | None = None) -> np.ndarray:
        """Expand the coefficients of rows ``start`` to ``stop`` of a batch.

        Parameters
        ----------
        batch : int
            Place of the batch among those given.
        start, stop : int
            Rows of the batch as it was uploaded.
        dead : ndarray of int64, optional
            The batch's deleted rows, ascending: their coefficients are 0.

        Returns
        -------
        ndarray of uint64, shape (stop - start,)
            Of which the low 61 bits count. The caller's own.

        Examples
        --------
        >>> from mipp.sharing.audits import Coefficients
        >>> Coefficients(bytes(32), [bytes(16)], [9]).of(0, 4, 9).shape
        (5,)
        """
        factors = _stream(self._schedules, batch, start, stop)
        if dead is not None:
            low, high = np.searchsorted(dead, [start, stop])
            factors[dead[low:high] - start] = 0
        return factors

    def draws(self, count: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Draw rows of all batches.

        Parameters
        ----------
        count : int
            Number of draws.

        Returns
        -------
        batches : ndarray of int64, shape (count,)
            Place of the batch of each draw.
        rows : ndarray of int64, shape (count,)
            Its row in the batch.
        coefficients : ndarray of uint64, shape (count,)
            Its coefficient.

        Examples
        --------
        >>> from mipp.sharing.audits import Coefficients
        >>> batches, rows, factors = Coefficients(bytes(32), [bytes(16)], [1]).draws(3)
        >>> batches.tolist(), rows.tolist(), factors.shape
        ([0, 0, 0], [0, 0, 0], (3,))
        """
        words = _stream(self._draws, 0, 0, 2 * count)
        # fewer than 2^48 rows, so no row is more likely than another by more than one in 2^16
        places = (words[:count] % np.uint64(max(1, int(self._ends[-1])))).astype(np.int64)
        batches = np.searchsorted(self._ends, places, side="right")
        starts = self._ends - np.diff(self._ends, prepend=0)
        return batches, places - starts[batches], words[count:]

    def live_draws(self, count: int, dead: Sequence[np.ndarray]) -> Iterator[tuple[int, np.ndarray, np.ndarray]]:
        """Draw rows as :meth:`draws` does, and leave out deleted ones.

        Parameters
        ----------
        count : int
            Number of draws.
        dead : sequence of ndarray of int64
            Deleted rows of each batch.

        Yields
        ------
        batch : int
            Place of a batch of which live rows were drawn.
        rows : ndarray of int64
            Its rows that were drawn, ascending; more than once if drawn more than once.
        coefficients : ndarray of uint64
            The coefficient of each.

        Examples
        --------
        >>> import numpy as np
        >>> from mipp.sharing.audits import Coefficients
        >>> made = Coefficients(bytes(32), [b"a" * 16, b"b" * 16], [2, 1])
        >>> [(batch, set(rows.tolist())) for batch, rows, _ in made.live_draws(50, [np.array([0]), np.array([0])])]
        [(0, {1})]
        """
        of, rows, factors = self.draws(count)
        order = np.lexsort((rows, of))
        of, rows, factors = of[order], rows[order], factors[order]
        ends = np.searchsorted(of, np.arange(len(dead) + 1))
        for number, gone in enumerate(dead):
            some = slice(ends[number], ends[number + 1])
            alive = ~np.isin(rows[some], gone)
            if alive.any():
                yield number, rows[some][alive], factors[some][alive]


def _stream(schedules: _core.KeySchedules, segment: int, start: int, stop: int) -> np.ndarray:
    """Words ``start`` to ``stop`` of 64 bits of a keystream."""
    first = start // _PER_BLOCK
    out = np.empty(stop - first * _PER_BLOCK, np.uint64)
    _core.keystream_words(schedules, segment, first, out)
    return out[start - first * _PER_BLOCK :]
