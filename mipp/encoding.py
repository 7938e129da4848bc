"""Features to ring integers, and the metrics that become inner products.

One :class:`Encoding` is fixed per index. It is public: scales are declared, or fitted on a public sample when the
index is made, never on private uploads. Larger scores are nearer for every metric:

=========  ==============================================  =========================  ========================
metric     stored row a                                    query b                    score <a, b>
=========  ==============================================  =========================  ========================
``ip``     round(x / s)                                    round(q s / t)             about <x, q> / t
``cosine`` the same of x / |x|                             the same of q / |q|        about cos(x, q) / t
``l2``     round((x - o) / s) =: v, and |v|^2              2 round((q - o) / s'), -c  c (|q|^2 - |v - q|^2)
``l1``     thermometer code of x in 0..levels-1            2 code(q) - 1              |q|_1 - |x - q|_1, exact
``hamming````+1`` for 1, ``-1`` for 0                      the same                   dim - 2 distance, exact
=========  ==============================================  =========================  ========================

with s the row scale (for ``ip`` and ``cosine`` possibly one per dimension), s' = s / c, c = 2^(query_bits - bits), t
the query scale; rounding is half to even, clipping at +-(2^(bits-1) - 1). Scores are exact integers; what could wrap
is refused: from norm bounds that are enforced on every row and query.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from typing import Any

import numpy as np

from .errors import DTypeError, EncodingError, ParameterError, ScoreRangeError, ShapeError
from .params import RING_DTYPES

__all__ = ["METRICS", "Encoding"]

METRICS = ("cosine", "hamming", "ip", "l1", "l2")
_INTEGERS: dict[int, np.dtype[Any]] = {16: np.dtype("<i2"), 32: np.dtype("<i4"), 64: np.dtype("<i8")}
_FORMAT = 1
_CHUNK = 1 << 16
MAX_DIM = 1 << 20


@dataclasses.dataclass(frozen=True)
class Encoding:
    """How features become integers, for one index. Public, immutable, hashed into every stored and sent object.

    Parameters
    ----------
    metric : 'cosine', 'hamming', 'ip', 'l1' or 'l2'
    dim : features per row as the caller has them
    bits, query_bits : bits of stored and of query integers, sign included (2 to 16 and 2 to 24); ``l2`` needs
        query_bits >= bits. More query bits cost no storage. Not used by ``l1`` and ``hamming``.
    ring_bits : 16, 32 or 64
    scale : row scale s > 0, one number or (``ip``, ``cosine``) one per dimension. Default 1, for ``cosine``
        1 / (2^(bits-1) - 1).
    query_scale : query scale t > 0 for ``ip`` and ``cosine``. Default for ``ip`` the mean row scale, so that the
        query's integers are about its own numbers; for ``cosine`` the largest row scale / (2^(query_bits-1) - 1), so
        that no unit vector clips.
    offset : ``l2`` only: subtracted first; one number per dimension, or empty.
    levels : ``l1`` only: values are integers 0 .. levels-1.
    row_norm2, query_norm2 : largest squared Euclidean norm of an encoded row (without the extra coordinate) and of an
        encoded query (before the factor 2), enforced. Default: what the bits allow.

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

    def __post_init__(self) -> None:
        def fail(text: str) -> None:
            raise ParameterError(f"encoding: {text}")

        if self.metric not in METRICS:
            fail(f"metric must be one of {', '.join(METRICS)}, not {self.metric!r}")
        for name, low, high in (
            ("dim", 1, MAX_DIM),
            ("bits", 2, 16),
            ("query_bits", 2, 24),
            ("levels", 0, 1 << 16),
            ("row_norm2", 0, 1 << 62),
            ("query_norm2", 0, 1 << 62),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                fail(f"{name} must be an integer from {low} to {high}, not {value!r}")
        if self.ring_bits not in RING_DTYPES:
            fail(f"ring_bits must be 16, 32 or 64, not {self.ring_bits!r}")
        scaled = self.metric in ("ip", "cosine", "l2")
        for name in ("scale", "offset"):
            value = getattr(self, name)
            values = (value,) if isinstance(value, (int, float)) else tuple(value)
            object.__setattr__(self, name, tuple(float(v) for v in values))
        if self.scale and not scaled:
            fail(f"{self.metric} takes no scale")
        if not self.scale and scaled:
            object.__setattr__(self, "scale", (1.0 / self._clip if self.metric == "cosine" else 1.0,))
        if any(not math.isfinite(v) or v <= 0 for v in self.scale):
            fail("scales must be finite and positive")
        if scaled and len(self.scale) not in (1, 1 if self.metric == "l2" else self.dim):
            fail(f"{self.metric} takes one scale" + ("" if self.metric == "l2" else f" or {self.dim}"))
        if self.offset and (self.metric != "l2" or len(self.offset) != self.dim):
            fail("an offset is for l2, one number per dimension")
        if any(not math.isfinite(v) for v in self.offset):
            fail("offsets must be finite")
        if self.metric == "l2" and self.query_bits < self.bits:
            fail("l2 needs query_bits >= bits")
        if self.metric == "l1" and self.levels < 2:
            fail("l1 needs levels >= 2")
        if self.metric != "l1" and self.levels:
            fail(f"{self.metric} takes no levels")
        if self.metric in ("ip", "cosine"):
            if not self.query_scale:
                t = float(np.mean(self.scale)) if self.metric == "ip" else max(self.scale) / self._query_clip
                object.__setattr__(self, "query_scale", t)
            if not math.isfinite(self.query_scale) or self.query_scale <= 0:
                fail("query_scale must be finite and positive")
        elif self.query_scale:
            fail(f"{self.metric} takes no query_scale")
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
        row, query = self.dim * self._clip**2, self.dim * self._query_clip**2
        if self.metric == "cosine" and len(self.scale) == 1:
            # |x| = 1, and rounding moves each coordinate by at most 1/2
            row = min(row, math.ceil((1 / self.scale[0] + math.sqrt(self.dim) / 2) ** 2))
            query = min(query, math.ceil((self.scale[0] / self.query_scale + math.sqrt(self.dim) / 2) ** 2))
        object.__setattr__(self, "row_norm2", min(self.row_norm2, row) or row)
        object.__setattr__(self, "query_norm2", min(self.query_norm2, query) or query)

    @property
    def _clip(self) -> int:
        return (1 << (self.bits - 1)) - 1

    @property
    def _query_clip(self) -> int:
        return (1 << (self.query_bits - 1)) - 1

    @property
    def _factor(self) -> int:
        """c = 2^(query_bits - bits) of l2."""
        return 1 << (self.query_bits - self.bits)

    @property
    def encoded_dim(self) -> int:
        """Words per row before padding."""
        if self.metric == "l2":
            return self.dim + 1
        return self.dim * (self.levels - 1) if self.metric == "l1" else self.dim

    @property
    def score_range(self) -> tuple[int, int]:
        """Least and largest score that rows and queries within the bounds can give (exact integers)."""
        if self.metric in ("ip", "cosine"):
            top = math.isqrt(self.row_norm2 * self.query_norm2)
            return -top, top
        if self.metric == "l2":
            cross = math.isqrt(4 * self.row_norm2 * self.query_norm2) + 1
            return -(self._factor * self.row_norm2 + cross), self.query_norm2 // self._factor + 1
        return -self.encoded_dim, self.encoded_dim

    @property
    def query_norm1(self) -> int:
        """Bound on the sum of absolute values of an encoded query (exact integer, public)."""
        if self.metric in ("l1", "hamming"):
            return self.encoded_dim
        norm1 = min(self.dim * self._query_clip, math.isqrt(self.dim * self.query_norm2))
        return 2 * norm1 + self._factor if self.metric == "l2" else norm1

    @property
    def allows_server_ranking(self) -> bool:
        """Whether max score - min score < 2^(ring_bits-1), which oblivious comparison needs."""
        low, high = self.score_range
        return high - low < 1 << (self.ring_bits - 1)

    # --- serialisation -----------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Values that :meth:`from_dict` takes, JSON-ready."""
        return {"format": _FORMAT, **dataclasses.asdict(self)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Encoding:
        """Inverse of :meth:`to_dict`; ParameterError for other formats or fields."""
        fields = {f.name for f in dataclasses.fields(cls)}
        if not isinstance(data, dict) or data.get("format") != _FORMAT or set(data) - fields != {"format"}:
            raise ParameterError("not an encoding of this format version")
        values = {name: value for name, value in data.items() if name != "format"}
        return cls(**values)

    @property
    def hash(self) -> bytes:
        """SHA-256 over the canonical JSON form: 32 bytes."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(b"mipp v1 encoding" + text.encode()).digest()

    @classmethod
    def fit(
        cls, metric: str, sample: np.ndarray, *, quantile: float = 1.0, center: bool = False, **options: Any
    ) -> Encoding:
        """An encoding whose scale fits a **public** sample.

        Parameters
        ----------
        metric : as in :class:`Encoding`; ``l1`` and ``hamming`` need no fit
        sample : (N, dim) numbers, public
        quantile : of the absolute values that must not clip, in (0, 1]
        center : ``l2`` only: use the mean of the sample as offset
        options : passed on to :class:`Encoding`

        When the ring is too small for what the bits allow, rows and queries are bounded to the longest of the sample
        plus a tenth; longer ones are refused later.
        """
        x = _matrix(sample, None, "sample").astype(np.float64)
        if not len(x):
            raise ShapeError("the sample is empty")
        if not 0 < quantile <= 1:
            raise ParameterError("quantile must be in (0, 1]")
        dim = x.shape[1]
        if metric in ("l1", "hamming"):
            if metric == "l1":
                options.setdefault("levels", int(x.max()) + 1)
            return cls(metric, dim, **options)
        if metric == "cosine":
            x = _unit(x, "sample")
        if center:
            options["offset"] = tuple(x.mean(axis=0).tolist())
            x = x - x.mean(axis=0)
        largest = float(np.quantile(np.abs(x), quantile))
        if largest <= 0:
            raise EncodingError("the sample is zero everywhere; there is no scale to fit")
        bits = int(options.get("bits", 8))
        query_bits = int(options.get("query_bits", 8))
        scale = largest / ((1 << (bits - 1)) - 1)
        if metric in ("ip", "cosine"):
            # the query's integers are about q s / t: let the sample's largest value reach the query's range too
            options.setdefault("query_scale", largest * scale / ((1 << (query_bits - 1)) - 1))
        try:
            return cls(metric, dim, scale=(scale,), **options)
        except ScoreRangeError:
            if options.get("row_norm2") or options.get("query_norm2"):
                raise
        # no bound that the bits alone give fits this ring: bound norms by the sample's, a tenth longer
        wide = cls(metric, dim, scale=(scale,), **{**options, "ring_bits": 64})
        original = x + np.array(wide.offset) if wide.offset else x
        norms: dict[str, Any] = {}
        for name, query in (("row_norm2", False), ("query_norm2", True)):
            a = wide._quantise(original, query=query)
            norms[name] = math.ceil(1.21 * int(np.einsum("ij,ij->i", a, a).max()))
        return cls(metric, dim, scale=(scale,), **options, **norms)

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
        x = _matrix(rows, self.dim, "rows")
        out = np.empty((len(x), self.encoded_dim), _INTEGERS[self.ring_bits])
        for start in range(0, len(x), _CHUNK):
            part = self._row_chunk(x[start : start + _CHUNK])
            out[start : start + _CHUNK] = part.astype(out.dtype, casting="unsafe", copy=False)
        return out

    def encode_queries(self, queries: np.ndarray) -> np.ndarray:
        """Query vectors to integers: (B, dim) or (dim,) numbers to (B, encoded_dim). Secret. Errors as for rows."""
        queries = np.asarray(queries)
        x = _matrix(queries[None] if queries.ndim == 1 else queries, self.dim, "queries")
        if self.metric == "l1":
            b = 2 * self._thermometer(x, "queries") - 1
        elif self.metric == "hamming":
            b = self._signs(x, "queries")
        else:
            b = self._quantise(x, query=True)
            self._check_norm(b, self.query_norm2, "query")
            if self.metric == "l2":
                b = np.concatenate([2 * b, np.full((len(b), 1), -self._factor, b.dtype)], axis=1)
        return np.ascontiguousarray(b.astype(_INTEGERS[self.ring_bits]))

    def values(self, scores: np.ndarray, queries: np.ndarray) -> np.ndarray:
        """Scores (B, N) of ``queries`` (B, dim) in the metric's own unit, float64.

        Inner product or cosine (larger is nearer), squared Euclidean, city-block or Hamming distance (smaller is
        nearer); exact for ``l1`` and ``hamming``, else up to quantisation.
        """
        scores = np.asarray(scores, np.float64)
        queries = np.asarray(queries)
        queries = queries[None] if queries.ndim == 1 else queries
        if self.metric in ("ip", "cosine"):
            return scores * self.query_scale
        if self.metric == "hamming":
            return (self.dim - scores) / 2
        if self.metric == "l1":
            return np.asarray(queries, np.float64).sum(axis=1, keepdims=True) - scores
        b = self._quantise(_matrix(queries, self.dim, "queries"), query=True).astype(np.float64)
        norm2 = (b * b).sum(axis=1, keepdims=True) / self._factor
        return (norm2 - scores) / self._factor * self.scale[0] ** 2

    def score_threshold(self, value: float, query: np.ndarray) -> int:
        """The least score of one query (dim,) whose :meth:`values` are at least as near as ``value``.

        Raises
        ------
        ParameterError
            Not a number, or a value that every score or no score reaches.
        """
        if not math.isfinite(value):
            raise ParameterError(f"a threshold must be a finite number, not {value!r}")
        zero, one = self.values(np.array([[0, 1]]), np.asarray(query)[None])[0].tolist()
        exact = (value - zero) / (one - zero)
        # values come from integers by float arithmetic; a score that gives exactly this value counts as reaching it
        theta = round(exact) if abs(exact - round(exact)) < 1e-6 else math.ceil(exact)
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
        norm2 = self._check_norm(a, self.row_norm2, "row")
        return np.concatenate([a, norm2[:, None].astype(a.dtype)], axis=1) if self.metric == "l2" else a

    def _quantise(self, x: np.ndarray, *, query: bool) -> np.ndarray:
        v = x.astype(np.float64)
        if self.metric == "cosine":
            v = _unit(v, "query" if query else "row")
        if self.offset:
            v -= np.array(self.offset)
        scale = np.array(self.scale)
        if query:
            clip = self._query_clip
            v = v / (scale / self._factor) if self.metric == "l2" else v * scale / self.query_scale
        else:
            clip, v = self._clip, v / scale
        np.rint(v, out=v)
        np.clip(v, -clip, clip, out=v)
        return v.astype(np.int64)

    @staticmethod
    def _check_norm(a: np.ndarray, bound: int, what: str) -> np.ndarray:
        norm2 = np.einsum("ij,ij->i", a, a)
        worst = int(norm2.max(initial=0))
        if worst > bound:
            raise ScoreRangeError(f"a {what} is longer than the encoding's bound allows; scores could wrap")
        return norm2

    def _thermometer(self, x: np.ndarray, what: str) -> np.ndarray:
        v = _whole(x, 0, self.levels - 1, what)
        code = v[:, :, None] > np.arange(self.levels - 1)
        return code.reshape(len(v), -1).astype(np.int64)

    def _signs(self, x: np.ndarray, what: str) -> np.ndarray:
        return 2 * _whole(x, 0, 1, what) - 1


def _matrix(x: np.ndarray, dim: int | None, what: str) -> np.ndarray:
    x = np.asarray(x)
    if x.dtype == bool:
        x = x.astype(np.uint8)
    if x.dtype.kind not in "iuf":
        raise DTypeError(f"{what} must be real numbers, not {x.dtype}")
    if x.ndim != 2 or (dim is not None and x.shape[1] != dim):
        expected = f"(rows, {dim})" if dim is not None else "two-dimensional"
        raise ShapeError(f"{what} must be {expected}, not {x.shape}")
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        raise EncodingError(f"{what} hold NaN or infinite values")
    return x


def _unit(v: np.ndarray, what: str) -> np.ndarray:
    largest = np.abs(v).max(axis=1, keepdims=True, initial=0)
    if (largest == 0).any():
        raise EncodingError(f"a {what} is zero everywhere and has no direction; cosine is undefined")
    v = v / largest  # first, so that squares neither overflow nor vanish
    return v / np.sqrt(np.einsum("ij,ij->i", v, v))[:, None]


def _whole(x: np.ndarray, low: int, high: int, what: str) -> np.ndarray:
    if x.size and (x.min() < low or x.max() > high or (x.dtype.kind == "f" and (x != np.rint(x)).any())):
        raise EncodingError(f"{what} must be whole numbers from {low} to {high}")
    return x.astype(np.int64)
