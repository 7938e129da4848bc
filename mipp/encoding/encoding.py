"""Features to ring integers, and the metrics that become inner products.

One :class:`Encoding` is fixed per index. It is public: scales are declared, or fitted on a public sample when the
index is made, never on private uploads. Larger scores are nearer for every metric:

==============  ==============================================  =========================  ============================
metric          stored row a                                    query b                    score <a, b>
==============  ==============================================  =========================  ============================
``ip``          round(x / s)                                    round(q s / t)             about <x, q> / t
``cosine``      the same of x / |x|                             the same of q / |q|        about cos(x, q) / t
``hellinger``   the same of root(x) / |root(x)|                 the same of q              about BC(x, q) / t
``l2``          round((x - o) / s) =: v, and sum w v^2          2 w round((q - o) / s'),-c c (|q|_w^2 - |v - q|_w^2)
``l2``, t given v, and round(sum w (s v)^2 / t) - h             round(2 w s (q-o) / t), -1 (|q|_w^2 - |s v - q|_w^2) / t
+ h ``l1``          thermometer code of x in 0..levels-1            2 code(q) - 1              |q|_1 - |x - q|_1, exact
``hamming``     ``+1`` for 1, ``-1`` for 0                      the same                   dim - 2 distance, exact
==============  ==============================================  =========================  ============================

with s the row scale (for ``ip``, ``cosine``, ``hellinger`` and ``l2`` with t possibly one per dimension), s' = s / c,
c = 2^(query_bits - bits), t the query scale, w integer weights (1 unless given: weighted L2 is exact on integers), BC
the Bhattacharyya coefficient of two histograms; rounding is half to even, clipping at +-(2^(bits-1) - 1). With t,
``l2`` scores come in steps of t, whatever the scales, and h centres their range: what a ring of 16 bits needs. A
projection is applied to x - o, or to the unit vector, first. Scores are exact integers; what could wrap is refused:
from norm bounds that are enforced on every row and query.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
from typing import Any

import numpy as np

from ..errors import DTypeError, EncodingError, ParameterError, ScoreRangeError
from ..params import RING_DTYPES
from .bounds import ranking_problem
from .numbers import LARGEST, SMALLEST, array, matrix, plain_scalars, real, said, several, unit, whole
from .projection import Projection
from .ranges import checked_threshold, in_range

__all__ = ["METRICS", "Encoding"]

METRICS = ("cosine", "hamming", "hellinger", "ip", "l1", "l2")
_UNIT = ("cosine", "hellinger")
_INTEGERS: dict[int, np.dtype[Any]] = {16: np.dtype("<i2"), 32: np.dtype("<i4"), 64: np.dtype("<i8")}
_FORMAT = 1
_CHUNK = 1 << 16
MAX_DIM = 1 << 20
_MAX_NORM2 = 1 << 62


def _ceil(value: float) -> int:
    """The least integer that is not smaller, at most what a norm bound holds."""
    return math.ceil(min(value, float(_MAX_NORM2)))


@dataclasses.dataclass(frozen=True)
class Encoding:
    """How features become integers, for one index. Public, immutable, hashed into every stored and sent object.

    Parameters
    ----------
    metric : 'cosine', 'hamming', 'hellinger', 'ip', 'l1' or 'l2'
    dim : features per row as the caller has them
    bits, query_bits : bits of stored and of query integers, sign included: 2 to 16 and 2 to 24, both up to 32 in a ring
        of 64 bits; ``l2`` needs query_bits >= bits. More query bits cost no storage. Not used by ``l1`` and
        ``hamming``.
    ring_bits : 16, 32 or 64
    scale : row scale s > 0, one number or, but for ``l2`` without t, one per (projected) dimension. Default 1, for
        ``cosine`` and ``hellinger`` 1 / (2^(bits-1) - 1).
    query_scale : query scale t > 0 for ``ip``, ``cosine``, ``hellinger`` and ``l2``. Default for ``ip`` the mean row
        scale, so that the query's integers are about its own numbers; for ``cosine`` and ``hellinger`` the largest row
        scale / (2^(query_bits-1) - 1), so that no unit vector clips; for ``l2`` none (0).
    offset : ``l2`` only: subtracted first; one number per dimension, or empty.
    levels : ``l1`` only: values are integers 0 .. levels-1.
    row_norm2, query_norm2 : largest squared Euclidean norm of an encoded row (without the extra coordinate) and of an
        encoded query (before the factor 2), enforced. Weighted where there are weights; for ``l2`` with t, of s v and
        of the query in units of t. Default: what the bits allow.
    weights : ``l2`` only: positive integers, one per (projected) dimension, or empty.
    projection : a :class:`Projection`, for ``ip``, ``cosine``, ``hellinger`` and ``l2``, or None.

    Raises
    ------
    ParameterError
        A value out of range, or one that the metric does not take.
    ScoreRangeError
        Scores of rows and queries within the bounds could leave the ring.
    """

    metric: str
    dim: int
    bits: int = 8
    query_bits: int = 8
    ring_bits: int = 32
    scale: tuple[float, ...] = ()
    query_scale: float = 0.0
    offset: tuple[float, ...] = ()
    levels: int = 0
    row_norm2: int = 0
    query_norm2: int = 0
    weights: tuple[int, ...] = ()
    projection: Projection | None = None

    def __post_init__(self) -> None:
        def fail(text: str) -> None:
            raise ParameterError(f"encoding: {text}")

        plain_scalars(self)
        if self.metric not in METRICS:
            fail(f"metric must be one of {', '.join(METRICS)}, not {said(self.metric)}")
        if not isinstance(self.ring_bits, int) or self.ring_bits not in RING_DTYPES:
            fail(f"ring_bits must be 16, 32 or 64, not {said(self.ring_bits)}")
        for name, low, high in (
            ("dim", 1, MAX_DIM),
            ("bits", 2, 32 if self.ring_bits == 64 else 16),
            ("query_bits", 2, 32 if self.ring_bits == 64 else 24),
            ("levels", 0, 1 << 16),
            ("row_norm2", 0, _MAX_NORM2),
            ("query_norm2", 0, _MAX_NORM2),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                fail(f"{name} must be an integer from {low} to {high}, not {said(value)}")
        scaled = self.metric in ("ip", "l2", *_UNIT)
        for name in ("scale", "offset"):
            object.__setattr__(self, name, tuple(real(v) for v in several(getattr(self, name))))
        weights = (w.item() if isinstance(w, np.integer) else w for w in several(self.weights))
        object.__setattr__(self, "weights", tuple(weights))
        object.__setattr__(self, "query_scale", real(self.query_scale))
        if not 0 <= self.query_scale < math.inf:
            fail("query_scale must be finite and positive")
        if self.projection is not None:
            if not scaled or not isinstance(self.projection, Projection):
                fail(f"{self.metric} takes no projection of type {type(self.projection).__name__}")
            if self.projection.dim != self.dim:
                fail(f"the projection is of {self.projection.dim} dimensions, not {self.dim}")
        if self.scale and not scaled:
            fail(f"{self.metric} takes no scale")
        if not self.scale and scaled:
            object.__setattr__(self, "scale", (1.0 / self.clip if self.metric in _UNIT else 1.0,))
        if any(not SMALLEST <= v <= LARGEST for v in self.scale):
            fail("scales must be finite and positive, from 2^-480 to 2^480")
        each = self.metric != "l2" or self.query_scale
        if scaled and len(self.scale) not in (1, self.inner_dim if each else 1):
            fail(f"{self.metric} takes one scale" + (f" or {self.inner_dim}" if each else ""))
        if self.offset and (self.metric != "l2" or len(self.offset) != self.dim):
            fail("an offset is for l2, one number per dimension")
        if any(not abs(v) <= LARGEST for v in self.offset):
            fail("offsets must be finite, and at most 2^480")
        if self.metric == "l2" and not self.query_scale and self.query_bits < self.bits:
            fail("l2 needs query_bits >= bits, or a query_scale")
        if self.metric == "l1" and self.levels < 2:
            fail("l1 needs levels >= 2")
        if self.metric != "l1" and self.levels:
            fail(f"{self.metric} takes no levels")
        if self.weights:
            if self.metric != "l2" or len(self.weights) != self.inner_dim:
                fail("weights are for l2, one per dimension")
            if any(isinstance(w, bool) or not isinstance(w, int) or not 1 <= w < 1 << 16 for w in self.weights):
                fail("weights must be integers from 1 to 65535")
        if self.metric in ("ip", *_UNIT) and not self.query_scale:
            t = float(np.mean(self.scale)) if self.metric == "ip" else max(self.scale) / self.query_clip
            object.__setattr__(self, "query_scale", t)
        if self.query_scale and not scaled:
            fail(f"{self.metric} takes no query_scale")
        if self.query_scale and not SMALLEST**2 <= self.query_scale <= LARGEST**2:
            fail("query_scale must be from 2^-960 to 2^960")
        if (self.row_norm2 or self.query_norm2) and not scaled:
            fail(f"{self.metric} takes no norm bounds")
        if scaled:
            self._default_bounds()
        low, high = self.score_range
        if max(-low, high) >= 1 << (self.ring_bits - 1):
            raise ScoreRangeError(
                f"scores from {low} to {high} do not fit a {self.ring_bits}-bit ring: use a larger ring, fewer bits, "
                "or declare smaller row_norm2 and query_norm2"
            )

    def _default_bounds(self) -> None:
        total = sum(self.weights) if self.weights else self.inner_dim
        row, query = total * self.clip**2, total * self.query_clip**2
        if self.stepped:
            with np.errstate(over="ignore"):
                row = _ceil(float((self.integer_weights * self.scales**2).sum()) * self.clip**2 / self.query_scale)
                inverse = float((1.0 / (self.integer_weights * self.scales**2)).sum())
            query = _ceil(self.query_clip**2 * self.query_scale / 4 * inverse)
        elif self.metric in _UNIT and len(self.scale) == 1:
            # |x| = 1, a projection does not lengthen it, and rounding moves each coordinate by at most 1/2
            slack = math.sqrt(self.inner_dim) / 2
            length = 1.0 if self.projection is None else 1.0 + Projection.TOLERANCE
            stored, asked = length / self.scale[0] + slack, length * self.scale[0] / self.query_scale + slack
            row, query = min(row, _ceil(stored * stored)), min(query, _ceil(asked * asked))
        # what can be declared, and so written down, has 62 bits
        row, query = min(row, _MAX_NORM2), min(query, _MAX_NORM2)
        object.__setattr__(self, "row_norm2", min(self.row_norm2, row) or row)
        object.__setattr__(self, "query_norm2", min(self.query_norm2, query) or query)

    @property
    def inner_dim(self) -> int:
        """Dimensions after the projection."""
        return self.dim if self.projection is None else self.projection.out_dim

    @property
    def stepped(self) -> bool:
        """Whether this is l2 in steps of t."""
        return self.metric == "l2" and self.query_scale > 0

    @property
    def scales(self) -> np.ndarray:
        """Row scale of each dimension after the projection."""
        return np.asarray(np.broadcast_to(np.array(self.scale), self.inner_dim))

    @property
    def integer_weights(self) -> np.ndarray:
        """Weight of each dimension after the projection, int64; 1 where none is given."""
        return np.array(self.weights, np.int64) if self.weights else np.ones(self.inner_dim, np.int64)

    @property
    def _raw_range(self) -> tuple[int, int]:
        """Score range of stepped l2 without h: 2 <q, s v> / t - e, by Cauchy-Schwarz and 2 sqrt(Q e) <= Q + e."""
        row, query = self.row_norm2, self.query_norm2
        return -(row + math.isqrt(4 * query * (row + 1)) + 1), query + 1

    @property
    def centre(self) -> int:
        """h of stepped l2."""
        low, high = self._raw_range
        return -(low + high) // 2

    @property
    def clip(self) -> int:
        """Largest absolute value of a row's words."""
        return (1 << (self.bits - 1)) - 1

    @property
    def query_clip(self) -> int:
        """Largest absolute value of a query's words, before factors."""
        return (1 << (self.query_bits - 1)) - 1

    @property
    def _factor(self) -> int:
        """c = 2^(query_bits - bits) of l2."""
        return 1 << (self.query_bits - self.bits)

    @property
    def encoded_dim(self) -> int:
        """Words per row before padding."""
        if self.metric == "l2":
            return self.inner_dim + 1
        return self.dim * (self.levels - 1) if self.metric == "l1" else self.inner_dim

    @property
    def score_range(self) -> tuple[int, int]:
        """Least and largest score that rows and queries within the bounds can give (exact integers)."""
        if self.metric in ("ip", *_UNIT):
            top = math.isqrt(self.row_norm2 * self.query_norm2)
            return -top, top
        if self.stepped:
            low, high = self._raw_range
            return low + self.centre, high + self.centre
        if self.metric == "l2":
            cross = math.isqrt(4 * self.row_norm2 * self.query_norm2) + 1
            return -(self._factor * self.row_norm2 + cross), self.query_norm2 // self._factor + 1
        return -self.encoded_dim, self.encoded_dim

    @property
    def query_norm1(self) -> int:
        """Bound on the sum of absolute values of an encoded query (exact integer, public)."""
        if self.metric in ("l1", "hamming"):
            return self.encoded_dim
        most = self.inner_dim * self.query_clip
        if self.stepped:
            # b = 2 w s q / t, so |b|_1 <= 2 |s|_w |q|_w / t, with |q|_w^2 / t bounded
            with np.errstate(over="ignore"):
                steps = float((self.integer_weights * self.scales**2).sum()) / self.query_scale
            return min(most, _ceil(2 * math.sqrt(steps) * math.sqrt(self.query_norm2)) if self.query_norm2 else 0) + 1
        total = sum(self.weights) if self.weights else self.inner_dim
        if self.weights:
            most = total * self.query_clip
        norm1 = min(most, math.isqrt(total * self.query_norm2))
        return 2 * norm1 + self._factor if self.metric == "l2" else norm1

    @property
    def allows_server_ranking(self) -> bool:
        """Whether max score - min score < 2^(ring_bits-1), which oblivious comparison needs, and the servers can check.

        They check the range of rows and queries (:mod:`mipp.encoding.bounds`).
        """
        return not ranking_problem(self)

    # --- serialisation -----------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Values that :meth:`from_dict` takes, JSON-ready."""
        data = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        # later fields are left out where they say nothing: what was made without them keeps its hash
        for name in ("weights", "projection"):
            if not data[name]:
                del data[name]
        if self.projection is not None:
            data["projection"] = self.projection.to_dict()
        return {"format": _FORMAT, **data}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Encoding:
        """Inverse of :meth:`to_dict`; ParameterError for other formats or fields."""
        fields = {f.name for f in dataclasses.fields(cls)}
        if not isinstance(data, dict) or data.get("format") != _FORMAT or set(data) - fields != {"format"}:
            raise ParameterError("not an encoding of this format version")
        values = {name: value for name, value in data.items() if name != "format"}
        if "projection" in values:
            values["projection"] = Projection.from_dict(values["projection"])
        try:
            return cls(**values)
        except TypeError:
            raise ParameterError("not an encoding of this format version") from None

    @functools.cached_property  # servers compare it with every query's
    def hash(self) -> bytes:
        """SHA-256 over the canonical JSON form: 32 bytes."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(b"mipp v1 encoding" + text.encode()).digest()

    @classmethod
    def fit(
        cls, metric: str, sample: np.ndarray, *, quantile: float = 1.0, center: bool = False,
        server_ranking: bool = False, **options: Any,
    ) -> Encoding:  # fmt: skip
        """An encoding whose scale fits a **public** sample: :func:`mipp.encoding.fit`."""
        from .fit import fit

        return fit(metric, sample, quantile=quantile, center=center, server_ranking=server_ranking, **options)

    # --- arrays ------------------------------------------------------------------------------------------------

    def encode_rows(self, rows: np.ndarray) -> np.ndarray:
        """Features to stored integers.

        Parameters
        ----------
        rows : (N, dim) finite floats or integers; secret

        Returns
        -------
        (N, encoded_dim) signed integers of ``ring_bits`` bits, C-contiguous; secret

        Raises
        ------
        DTypeError, ShapeError, EncodingError
            Not numbers, wrong shape; NaN, infinite, zero vector for ``cosine``, out of 0..levels-1 or not 0/1.
        ScoreRangeError
            A row longer than the declared bound.
        """
        x = matrix(rows, self.dim, "rows")
        out = np.empty((len(x), self.encoded_dim), _INTEGERS[self.ring_bits])
        for start in range(0, len(x), _CHUNK):
            part = self._row_chunk(x[start : start + _CHUNK])
            out[start : start + _CHUNK] = part.astype(out.dtype, casting="unsafe", copy=False)
        return out

    def encode_queries(self, queries: np.ndarray) -> np.ndarray:
        """Query vectors to integers: (B, dim) or (dim,) numbers to (B, encoded_dim). Secret. Errors as for rows."""
        queries = array(queries, "queries")
        x = matrix(queries[None] if queries.ndim == 1 else queries, self.dim, "queries")
        if self.metric == "l1":
            b = 2 * self._thermometer(x, "queries") - 1
        elif self.metric == "hamming":
            b = self._signs(x, "queries")
        else:
            b = self._quantise(x, query=True)
            self._check_queries(b)
            if self.metric == "l2":
                last = -1 if self.stepped else -self._factor
                b = b if self.stepped else 2 * b * self.integer_weights
                b = np.concatenate([b, np.full((len(b), 1), last, b.dtype)], axis=1)
        return np.ascontiguousarray(b.astype(_INTEGERS[self.ring_bits]))

    def decode_rows(self, rows: np.ndarray) -> np.ndarray:
        """Stored integers (N, encoded_dim) back to features (N, dim) float64, as quantised; secret.

        ``cosine`` gives unit vectors, ``hellinger`` histograms of sum 1; a projection loses what it leaves out.
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
        """Scores (B, N) of ``queries`` (B, dim) in the metric's own unit, float64.

        Inner product or cosine (larger is nearer), squared Euclidean, city-block or Hamming distance (smaller is
        nearer); exact for ``l1`` and ``hamming``, else up to quantisation. Clipped to what the metric can give.
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
        """Values that are linear in the scores."""
        queries = array(queries, "queries")
        queries = queries[None] if queries.ndim == 1 else queries
        if self.metric == "l2" and not self.stepped:
            return self._distances(scores, matrix(queries, self.dim, "queries"))
        if self.stepped:
            # as integers: in a ring of 64 bits floats would lose the steps, and a narrower type would wrap around
            scores = (scores.astype(np.int64) if scores.dtype.kind in "iu" else scores) - self.centre
        scores = np.asarray(scores, np.float64)
        if self.metric in ("ip", *_UNIT):
            return scores * self.query_scale
        if self.metric == "hamming":
            return (self.dim - scores) / 2
        if self.metric == "l1":
            asked = whole(matrix(queries, self.dim, "queries"), 0, self.levels - 1, "queries")
            return asked.sum(axis=1, keepdims=True) - scores
        b = self._quantise(matrix(queries, self.dim, "queries"), query=True).astype(np.float64)
        return (self._query_length(b)[:, None] - scores) * self.query_scale

    def _distances(self, scores: np.ndarray, queries: np.ndarray) -> np.ndarray:
        """Values of l2 without t. In integers: nearest rows of long queries are small differences of large numbers."""
        b = self._quantise(queries, query=True)
        self._check_queries(b)
        norm2 = np.asarray(self._squares(b), np.int64)[:, None]
        scores = scores.astype(np.int64, copy=False) if scores.dtype.kind in "iu" else scores
        steps, rest = norm2 // self._factor, norm2 % self._factor
        return np.asarray(((steps - scores) + rest / self._factor) / self._factor * self.scale[0] ** 2)

    def score_threshold(self, value: float, query: np.ndarray) -> int:
        """The least score of one query (dim,) whose :meth:`values` are at least as near as ``value``.

        ParameterError for what is no number, and for a value that every score or no score reaches.
        """
        value = checked_threshold(self, value)
        # far apart: next to a long query's own length floats do not tell one score from the next
        apart = 1 << max(self.score_range[1].bit_length() - 1, 0)
        with np.errstate(over="ignore", invalid="ignore"):
            zero, other = self._values(np.array([[0, apart]]), array(query, "query")[None])[0].tolist()
        if not math.isfinite(other - zero) or other == zero:
            raise ParameterError("no threshold can be told for this query")
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

    def _row_chunk(self, x: np.ndarray) -> np.ndarray:
        if self.metric == "l1":
            return self._thermometer(x, "rows")
        if self.metric == "hamming":
            return self._signs(x, "rows")
        a = self._quantise(x, query=False)
        if self.stepped:
            v = a * np.array(self.scale)
            length = self._squares(v) / self.query_scale
            self._refuse_long(length.max(initial=0.0) > self.row_norm2, "row")
            extra = np.rint(length).astype(a.dtype) - self.centre
            return np.concatenate([a, extra[:, None]], axis=1)
        norm2 = self._squares(a)
        self._refuse_long(int(norm2.max(initial=0)) > self.row_norm2, "row")
        return np.concatenate([a, norm2[:, None].astype(a.dtype)], axis=1) if self.metric == "l2" else a

    def _quantise(self, x: np.ndarray, *, query: bool) -> np.ndarray:
        what = "query" if query else "row"
        with np.errstate(over="ignore", invalid="ignore"):
            # what is beyond float64 is clipped as all that is large
            v = self._scaled(x.astype(np.float64), what, query=query)
        if np.isnan(v).any():
            raise EncodingError(f"a {what} holds numbers too large for the encoding")
        clip = self.query_clip if query else self.clip
        np.rint(v, out=v)
        np.clip(v, -clip, clip, out=v)
        return v.astype(np.int64)

    def _scaled(self, v: np.ndarray, what: str, *, query: bool) -> np.ndarray:
        """What is rounded to words of rows or queries."""
        if self.metric == "hellinger":
            if (v < 0).any():
                raise EncodingError(f"a {what} holds negative values, which no histogram has")
            np.sqrt(v, out=v)
        if self.metric in _UNIT:
            v = unit(v, what)
        if self.offset:
            v -= np.array(self.offset)
        if self.projection is not None:
            if np.abs(v).max(initial=0.0) > LARGEST:
                raise EncodingError(f"a {what} holds numbers too large to be projected")
            v = v @ self.projection.matrix
        scale = np.array(self.scale)
        if not query:
            return np.asarray(v / scale)
        if self.stepped:
            return np.asarray(v * (2 * self.integer_weights * scale / self.query_scale))
        return np.asarray(v / (scale / self._factor) if self.metric == "l2" else v * scale / self.query_scale)

    def _query_length(self, b: np.ndarray) -> np.ndarray:
        """Squared weighted length of stepped l2 queries in units of t: of b t / (2 w s)."""
        v = b / (2 * np.array(self.scale))
        return np.asarray(np.einsum("ij,ij,j->i", v, v, 1.0 / self.integer_weights) * self.query_scale)

    def _check_queries(self, b: np.ndarray) -> None:
        if self.stepped:
            longest = float(self._query_length(b).max(initial=0.0))
        else:
            longest = int(self._squares(b).max(initial=0))
        self._refuse_long(longest > self.query_norm2, "query")

    def _squares(self, v: np.ndarray) -> np.ndarray:
        """Weighted squared lengths of rows; of integers exact, but floats beyond every bound where they would wrap."""
        weighted = v * self.integer_weights if self.weights else v
        if v.dtype.kind == "i" and max(self.clip, self.query_clip) >= 1 << 20:
            about = np.einsum("ij,ij->i", weighted.astype(np.float64), v.astype(np.float64))
            if about.max(initial=0.0) > 2.0 * _MAX_NORM2 * 0.9:
                return np.asarray(about)
        return np.asarray(np.einsum("ij,ij->i", weighted, v))

    @staticmethod
    def _refuse_long(wrong: bool | np.bool_, what: str) -> None:
        if wrong:
            raise ScoreRangeError(f"a {what} is longer than the encoding's bound allows; scores could wrap")

    def _thermometer(self, x: np.ndarray, what: str) -> np.ndarray:
        v = whole(x, 0, self.levels - 1, what)
        code = v[:, :, None] > np.arange(self.levels - 1)
        return code.reshape(len(v), self.encoded_dim).astype(np.int64)

    def _signs(self, x: np.ndarray, what: str) -> np.ndarray:
        return 2 * whole(x, 0, 1, what) - 1
