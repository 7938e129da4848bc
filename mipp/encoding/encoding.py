"""Features to ring integers, and the metrics that become inner products.

One :class:`Encoding` is fixed per index. It is public: its scales are declared, or fitted to a public sample when the
index is made, never to private uploads. The score of a row and a query is the inner product <a, b> of their integers;
larger scores are nearer for every metric::

    metric       stored row a                        query b                              score <a, b>
    -----------  ----------------------------------  -----------------------------------  -----------------------------
    ip           round(x / s)                        round(q s / t)                       about <x, q> / t
    cosine       round(u(x) / s)                     round(u(q) s / t)                    about cos(x, q) / t
    hellinger    round(u(sqrt x) / s)                round(u(sqrt q) s / t)               about BC(x, q) / t
    l2           v = round((x - o) / s),             2 w y with y = round((q - o) c / s), c (|y / c|^2 - |v - y / c|^2)
                 then |v|^2                          then -c
    l2 with t    v = round((x - o) / s),             round(2 w s (q - o) / t),            about h + (|q - o|^2
                 then round(|s v|^2 / t) - h         then -1                              - |s v - (q - o)|^2) / t
    l1           thermometer code of x               2 code(q) - 1                        |q|_1 - |x - q|_1, exact
    hamming      +1 for 1, -1 for 0                  the same                             dim - 2 distance, exact

Here x is a row's and q a query's vector; u(x) = x / |x|; BC is the Bhattacharyya coefficient of two histograms; s is
the row scale (possibly one per dimension, but for ``l2`` without t), t the query scale, o the offset, w the integer
weights (1 unless given), and |v|^2 = sum w v^2 for ``l2``; c = 2^(query_bits - bits). The thermometer code of a value
in 0 .. levels-1 has levels-1 words: the value's number of ones, then zeros.

Rounding is half to even; integers are clipped to +-(2^(bits-1) - 1). With t, ``l2`` scores come in steps of t, whatever
the scales are, and h centres their range; a ring of 16 bits needs this. A projection is applied first, to x - o or to
the unit vector. Scores are exact integers. Norm bounds are enforced on every row and query, so that no score wraps;
what could wrap is refused.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any, Self

import numpy as np

from ..errors import DTypeError, EncodingError, ParameterError
from .bounds import ranking_problem
from .fitting import fitted
from .numbers import array, matrix, whole
from .parameters import UNIT_METRICS, EncodingParameters
from .quantise import check_queries, quantise, quantise_rows, query_length, refuse_long, squares
from .ranges import checked_threshold, in_range

__all__ = ["Encoding"]

_INTEGERS: dict[int, np.dtype[Any]] = {16: np.dtype("<i2"), 32: np.dtype("<i4"), 64: np.dtype("<i8")}
_CHUNK = 1 << 16
#: numbers that are encoded together: what a core's cache holds
_CACHED = 1 << 17


@dataclasses.dataclass(frozen=True)
class Encoding(EncodingParameters):
    """How features become integers, for one index. Public and immutable; its hash is in every stored and sent object.

    Parameters
    ----------
    metric : str
        ``cosine``, ``hamming``, ``hellinger``, ``ip``, ``l1`` or ``l2``.
    dim : int
        Features per row, before a projection.
    bits, query_bits : int
        Bits of stored and of query integers, sign included: 2 to 16 and 2 to 24, both up to 32 in a ring of 64 bits.
        ``l2`` without ``query_scale`` needs query_bits >= bits. More query bits cost no storage. Not used by ``l1`` and
        ``hamming``.
    ring_bits : int
        Bits of a ring word: 16, 32 or 64.
    scale : tuple of float
        Row scale s > 0: one number, or one per (projected) dimension, except for ``l2`` without ``query_scale``.
        Default 1; for ``cosine`` and ``hellinger`` 1 / (2^(bits-1) - 1).
    query_scale : float
        Query scale t > 0, for ``ip``, ``cosine``, ``hellinger`` and ``l2``. Default for ``ip``: the mean row scale, so
        that the query's integers are about its own numbers. Default for ``cosine`` and ``hellinger``: the largest row
        scale / (2^(query_bits-1) - 1), so that no unit vector clips. Default for ``l2``: none (0).
    offset : tuple of float
        ``l2`` only: vector that is subtracted first, one number per dimension; empty for none.
    levels : int
        ``l1`` only: values are integers from 0 to levels-1.
    row_norm2, query_norm2 : int
        Largest squared Euclidean norm of an encoded row (without the extra coordinate) and of an encoded query (before
        the factor 2). Enforced. Weighted where there are weights; for ``l2`` with t, in units of t: of s v, and of the
        query. Default: what the bits allow.
    weights : tuple of int
        ``l2`` only: integers from 1 to 65535, one per (projected) dimension; empty for none.
    projection : Projection, optional
        For ``ip``, ``cosine``, ``hellinger`` and ``l2``.

    Raises
    ------
    ParameterError
        A value is out of range, or the metric does not take it.
    ScoreRangeError
        Scores of rows and queries within the bounds could leave the ring.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.encoding import Encoding
    >>> e = Encoding("l2", dim=2)
    >>> rows, query = np.array([[3, 4], [0, 1]]), np.array([[0, 0]])
    >>> e.encode_rows(rows)
    array([[ 3,  4, 25],
           [ 0,  1,  1]], dtype=int32)
    >>> scores = e.encode_queries(query) @ e.encode_rows(rows).T
    >>> e.values(scores, query)  # squared distances
    array([[25.,  1.]])
    """

    @property
    def allows_server_ranking(self) -> bool:
        """Whether servers can rank scores of this encoding.

        Oblivious comparison needs max score - min score < 2^(ring_bits-1), and the servers must be able to check the
        range of rows and queries (:mod:`mipp.encoding.bounds`).
        """
        return not ranking_problem(self)

    @classmethod
    def fit(
        cls, metric: str, sample: np.ndarray, *, quantile: float = 1.0, center: bool = False,
        server_ranking: bool = False, **options: Any,
    ) -> Self:  # fmt: skip
        """Make an encoding whose scale fits a **public** sample. Also available as ``mipp.encoding.fit``.

        If the bounds that follow from the bits do not fit the ring, rows and queries are bounded by the longest of the
        sample plus a tenth; longer ones are refused later.

        Parameters
        ----------
        metric : str
            As for :class:`Encoding`; ``l1`` and ``hamming`` need no scale.
        sample : array_like of float, shape (N, dim)
            **Public** sample. The encoding, which everybody sees, shows its largest absolute value (or quantile), and
            its mean with ``center``.
        quantile : float
            Quantile of the absolute values that must not clip, in (0, 1].
        center : bool
            ``l2`` only: use the mean of the sample as offset.
        server_ranking : bool
            Leave the room that servers need to rank: half the score range.
        **options : Any
            Further parameters of :class:`Encoding`.

        Returns
        -------
        Encoding
            The encoding.

        Raises
        ------
        ParameterError
            An argument is out of range.
        DTypeError, ShapeError, EncodingError
            The sample is not a matrix of finite numbers, is empty, or holds only zeros.
        ScoreRangeError
            The ring is too small for these bits.

        Examples
        --------
        >>> import numpy as np
        >>> from mipp.encoding import Encoding
        >>> sample = np.array([[0.5, -2.0], [1.0, 1.5]])
        >>> e = Encoding.fit("ip", sample, bits=8)
        >>> e.encode_rows(sample)
        array([[  32, -127],
               [  64,   95]], dtype=int32)
        """
        return fitted(
            cls, metric, sample, quantile=quantile, center=center, server_ranking=server_ranking, options=options
        )

    # --- arrays ------------------------------------------------------------------------------------------------

    def encode_rows(
        self, rows: np.ndarray, *, empty: Callable[[tuple[int, ...], np.dtype], np.ndarray] = np.empty
    ) -> np.ndarray:
        """Encode rows of features as integers.

        Parameters
        ----------
        rows : array_like of float or int, shape (N, dim)
            Finite numbers. Secret.
        empty : callable
            Makes the result's array, as :func:`numpy.empty` does.

        Returns
        -------
        ndarray of int16, int32 or int64, shape (N, encoded_dim)
            Signed integers of ``ring_bits`` bits, C-contiguous. Secret.

        Raises
        ------
        DTypeError, ShapeError
            The rows are not numbers, or have another shape.
        EncodingError
            A value is NaN or infinite, negative for ``hellinger``, not in 0 .. levels-1 for ``l1``, or not 0 or 1 for
            ``hamming``; or a row is zero for ``cosine`` or ``hellinger``.
        ScoreRangeError
            A row is longer than the bound.
        """
        x = matrix(rows, self.dim, "rows")
        out = empty((len(x), self.encoded_dim), _INTEGERS[self.ring_bits])
        # a product of matrices may round otherwise where it has other rows, so its chunks stay as they were
        chunk = _CHUNK if self.projection is not None else max(1 << 8, _CACHED // self.encoded_dim)
        for start in range(0, len(x), chunk):
            self._row_chunk(x[start : start + chunk], out[start : start + chunk])
        return out

    def encode_queries(self, queries: np.ndarray) -> np.ndarray:
        """Encode query vectors as integers.

        Parameters
        ----------
        queries : array_like of float or int, shape (B, dim) or (dim,)
            Finite numbers. Secret.

        Returns
        -------
        ndarray of int16, int32 or int64, shape (B, encoded_dim)
            Signed integers of ``ring_bits`` bits, C-contiguous. Secret.

        Raises
        ------
        DTypeError, ShapeError, EncodingError, ScoreRangeError
            As for :meth:`encode_rows`.
        """
        queries = array(queries, "queries")
        x = matrix(queries[None] if queries.ndim == 1 else queries, self.dim, "queries")
        if self.metric == "l1":
            b = 2 * self._thermometer(x, "queries") - 1
        elif self.metric == "hamming":
            b = self._signs(x, "queries")
        else:
            b = quantise(self, x, query=True)
            check_queries(self, b)
            if self.metric == "l2":
                last = -1 if self.stepped else -self.query_factor
                b = b if self.stepped else 2 * b * self.integer_weights
                b = np.concatenate([b, np.full((len(b), 1), last, b.dtype)], axis=1)
        return np.ascontiguousarray(b.astype(_INTEGERS[self.ring_bits]))

    def decode_rows(self, rows: np.ndarray) -> np.ndarray:
        """Decode stored integers to features, up to quantisation.

        ``cosine`` gives unit vectors, ``hellinger`` histograms of sum 1. A projection loses the dimensions
        that it leaves out.

        Parameters
        ----------
        rows : array_like of int, shape (N, encoded_dim)
            Encoded rows. Secret.

        Returns
        -------
        ndarray of float64, shape (N, dim)
            Features. Secret.

        Raises
        ------
        DTypeError, ShapeError, EncodingError
            The rows are not numbers, have another shape, or hold numbers that no ring has.
        """
        a = matrix(rows, self.encoded_dim, "rows")
        if self.metric == "l1":
            return np.asarray(a.reshape(len(a), self.dim, -1).sum(axis=2), np.float64)
        if self.metric == "hamming":
            return np.asarray((a + 1) / 2)
        if float(np.abs(a).max(initial=0)) > 2.0**63:
            raise EncodingError("rows hold numbers that no ring has")
        v = a[:, : self.inner_dim].astype(np.float64) * self.scales
        if self.projection is not None:
            v = v @ self.projection.matrix.T
        if self.offset:
            v = v + np.array(self.offset)
        return np.asarray(v * v if self.metric == "hellinger" else v)

    def values(self, scores: np.ndarray, queries: np.ndarray) -> np.ndarray:
        """Turn scores into values of the metric.

        Values are inner products, cosines or Bhattacharyya coefficients (larger is nearer), or squared Euclidean,
        city-block or Hamming distances (smaller is nearer). They are exact for ``l1`` and ``hamming``, else up to
        quantisation, and clipped to the metric's range.

        Parameters
        ----------
        scores : array_like of int, shape (B, N)
            Scores of the queries. Secret.
        queries : array_like of float or int, shape (B, dim) or (dim,)
            The queries, not encoded. Secret.

        Returns
        -------
        ndarray of float64, shape (B, N)
            Values. Secret.

        Raises
        ------
        DTypeError, ShapeError, EncodingError, ScoreRangeError
            The scores are not numbers, or the queries cannot be encoded.
        """
        scores = array(scores, "scores")
        if scores.dtype.kind not in "buifO" or (
            scores.dtype.kind == "O" and not all(isinstance(v, (int, float, np.number)) for v in scores.flat)
        ):
            raise DTypeError(f"scores must be numbers, not {str(scores.dtype)[:50]}")
        if scores.dtype.kind == "O":  # integers beyond 64 bits, as tests have them
            try:
                scores = scores.astype(np.float64)
            except (TypeError, ValueError, OverflowError):
                raise DTypeError("scores must be numbers") from None
        with np.errstate(over="ignore", invalid="ignore"):
            return in_range(self, self._values(scores, queries))

    def _values(self, scores: np.ndarray, queries: np.ndarray) -> np.ndarray:
        """Values before they are clipped; they are linear in the scores."""
        queries = array(queries, "queries")
        queries = queries[None] if queries.ndim == 1 else queries
        if self.metric == "l2" and not self.stepped:
            return self._distances(scores, matrix(queries, self.dim, "queries"))
        if self.stepped:
            # subtract in int64: floats would lose steps of a 64-bit ring, and a narrower type would wrap
            scores = (scores.astype(np.int64) if scores.dtype.kind in "iu" else scores) - self.centre
        scores = np.asarray(scores, np.float64)
        if self.metric in ("ip", *UNIT_METRICS):
            return scores * self.query_scale
        if self.metric == "hamming":
            return (self.dim - scores) / 2
        if self.metric == "l1":
            asked = whole(matrix(queries, self.dim, "queries"), 0, self.levels - 1, "queries")
            return asked.sum(axis=1, keepdims=True) - scores
        b = quantise(self, matrix(queries, self.dim, "queries"), query=True).astype(np.float64)
        return (query_length(self, b)[:, None] - scores) * self.query_scale

    def _distances(self, scores: np.ndarray, queries: np.ndarray) -> np.ndarray:
        """Squared distances of ``l2`` without t, in integers: near rows of a long query differ by little."""
        b = quantise(self, queries, query=True)
        check_queries(self, b)
        norm2 = np.asarray(squares(self, b), np.int64)[:, None]
        scores = scores.astype(np.int64, copy=False) if scores.dtype.kind in "iu" else scores
        steps, rest = norm2 // self.query_factor, norm2 % self.query_factor
        return np.asarray(((steps - scores) + rest / self.query_factor) / self.query_factor * self.scale[0] ** 2)

    def score_threshold(self, value: float, query: np.ndarray) -> int:
        """Compute the least score whose value is at least as near as a threshold.

        Parameters
        ----------
        value : float
            Threshold in the unit of :meth:`values`.
        query : array_like of float or int, shape (dim,)
            One query. Secret.

        Returns
        -------
        int
            The least score that reaches the threshold. As secret as the query.

        Raises
        ------
        ParameterError
            The threshold is not a finite number, or every score or no score reaches it.
        """
        value = checked_threshold(self, value)
        # two scores far apart: near a long query's own length, floats cannot tell neighbouring scores apart
        apart = 1 << max(self.score_range[1].bit_length() - 1, 0)
        with np.errstate(over="ignore", invalid="ignore"):
            zero, other = self._values(np.array([[0, apart]]), array(query, "query")[None])[0].tolist()
        if not math.isfinite(other - zero) or other == zero:
            raise ParameterError("no threshold can be computed for this query")
        step = (other - zero) / apart
        exact = (value - zero) / step
        # values come from integers by float arithmetic; a score that gives exactly this value counts as reaching it
        beyond = 2.0**70  # no ring has such scores
        error = min((abs(value) + abs(zero)) * 2.0**-49 / abs(step), beyond)
        theta = math.ceil(exact - max(1e-6, error)) if abs(exact) < beyond else int(math.copysign(beyond, exact))
        low, high = self.score_range
        if not low <= theta <= high:
            what = "no score can" if theta > high else "every score does"
            raise ParameterError(f"{what} reach the threshold {value:g}; it is out of range")
        return theta

    def _row_chunk(self, x: np.ndarray, out: np.ndarray) -> None:
        if self.metric == "l1":
            out[:] = self._thermometer(x, "rows")
        elif self.metric == "hamming":
            out[:] = self._signs(x, "rows")
        elif self.stepped:
            a = quantise(self, x, query=False)
            length = squares(self, a * np.array(self.scale)) / self.query_scale
            refuse_long(length.max(initial=0.0) > self.row_norm2, "row")
            out[:, :-1], out[:, -1] = a, np.rint(length).astype(a.dtype) - self.centre
        else:
            norm2 = quantise_rows(self, x, out[:, : self.inner_dim])
            refuse_long(int(norm2.max(initial=0)) > self.row_norm2, "row")
            if self.metric == "l2":
                out[:, -1] = norm2

    def _thermometer(self, x: np.ndarray, what: str) -> np.ndarray:
        v = whole(x, 0, self.levels - 1, what)
        code = v[:, :, None] > np.arange(self.levels - 1)
        return code.reshape(len(v), self.encoded_dim).astype(np.int64)

    def _signs(self, x: np.ndarray, what: str) -> np.ndarray:
        return 2 * whole(x, 0, 1, what) - 1
