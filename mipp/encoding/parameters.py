"""Parameters of an encoding: which are allowed, the range of scores that follows, and their serialised form."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import json
import math
from typing import Any, Self

import numpy as np

from ..errors import ParameterError, ScoreRangeError
from ..params import RING_DTYPES
from .numbers import LARGEST, SMALLEST, plain_scalars, real, said, several
from .projection import Projection

__all__ = ["MAX_DIM", "MAX_NORM2", "METRICS", "UNIT_METRICS", "EncodingParameters"]

METRICS = ("cosine", "hamming", "hellinger", "ip", "l1", "l2")
#: metrics of vectors of length one
UNIT_METRICS = ("cosine", "hellinger")
MAX_DIM = 1 << 20
#: largest norm bound that can be declared
MAX_NORM2 = 1 << 62
_FORMAT = 1


def _ceil(value: float) -> int:
    """The least integer that is not smaller, at most :data:`MAX_NORM2`."""
    return math.ceil(min(value, float(MAX_NORM2)))


@dataclasses.dataclass(frozen=True)
class EncodingParameters:
    """The parameters of an encoding, checked, and what follows from them. Public.

    :class:`mipp.encoding.Encoding` describes them and adds the operations on arrays.
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
            ("row_norm2", 0, MAX_NORM2),
            ("query_norm2", 0, MAX_NORM2),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                fail(f"{name} must be an integer from {low} to {high}, not {said(value)}")
        scaled = self.metric in ("ip", "l2", *UNIT_METRICS)
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
            object.__setattr__(self, "scale", (1.0 / self.clip if self.metric in UNIT_METRICS else 1.0,))
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
        if self.metric in ("ip", *UNIT_METRICS) and not self.query_scale:
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
        elif self.metric in UNIT_METRICS and len(self.scale) == 1:
            # |x| = 1, a projection does not lengthen it, and rounding moves each coordinate by at most 1/2
            slack = math.sqrt(self.inner_dim) / 2
            length = 1.0 if self.projection is None else 1.0 + Projection.TOLERANCE
            stored, asked = length / self.scale[0] + slack, length * self.scale[0] / self.query_scale + slack
            row, query = min(row, _ceil(stored * stored)), min(query, _ceil(asked * asked))
        # a bound that can be declared, and so written down, has 62 bits
        row, query = min(row, MAX_NORM2), min(query, MAX_NORM2)
        object.__setattr__(self, "row_norm2", min(self.row_norm2, row) or row)
        object.__setattr__(self, "query_norm2", min(self.query_norm2, query) or query)

    @property
    def inner_dim(self) -> int:
        """Number of dimensions after the projection."""
        return self.dim if self.projection is None else self.projection.out_dim

    @property
    def stepped(self) -> bool:
        """Whether this is ``l2`` in steps of t: with a ``query_scale``."""
        return self.metric == "l2" and self.query_scale > 0

    @property
    def scales(self) -> np.ndarray:
        """Row scale s of each dimension after the projection: float64, shape (inner_dim,)."""
        return np.asarray(np.broadcast_to(np.array(self.scale), self.inner_dim))

    @property
    def integer_weights(self) -> np.ndarray:
        """Weight w of each dimension after the projection: int64, shape (inner_dim,); 1 where none is given."""
        return np.array(self.weights, np.int64) if self.weights else np.ones(self.inner_dim, np.int64)

    @property
    def _raw_range(self) -> tuple[int, int]:
        """Score range of stepped ``l2`` without h: 2 <q, s v> / t - e, by Cauchy-Schwarz and 2 sqrt(Q e) <= Q + e."""
        row, query = self.row_norm2, self.query_norm2
        return -(row + math.isqrt(4 * query * (row + 1)) + 1), query + 1

    @property
    def centre(self) -> int:
        """The constant h that centres the score range of stepped ``l2``."""
        low, high = self._raw_range
        return -(low + high) // 2

    @property
    def clip(self) -> int:
        """Largest absolute value of an encoded row's words."""
        return (1 << (self.bits - 1)) - 1

    @property
    def query_clip(self) -> int:
        """Largest absolute value of an encoded query's words, before they are multiplied by weights and factors."""
        return (1 << (self.query_bits - 1)) - 1

    @property
    def query_factor(self) -> int:
        """The factor c = 2^(query_bits - bits) of ``l2`` without a ``query_scale``."""
        return 1 << (self.query_bits - self.bits)

    @property
    def encoded_dim(self) -> int:
        """Number of words of an encoded row, before padding."""
        if self.metric == "l2":
            return self.inner_dim + 1
        return self.dim * (self.levels - 1) if self.metric == "l1" else self.inner_dim

    @property
    def score_range(self) -> tuple[int, int]:
        """Least and largest score of rows and queries within the bounds: exact integers."""
        if self.metric in ("ip", *UNIT_METRICS):
            top = math.isqrt(self.row_norm2 * self.query_norm2)
            return -top, top
        if self.stepped:
            low, high = self._raw_range
            return low + self.centre, high + self.centre
        if self.metric == "l2":
            cross = math.isqrt(4 * self.row_norm2 * self.query_norm2) + 1
            return -(self.query_factor * self.row_norm2 + cross), self.query_norm2 // self.query_factor + 1
        return -self.encoded_dim, self.encoded_dim

    @property
    def query_norm1(self) -> int:
        """Bound on the sum of absolute values of an encoded query: an exact integer, public."""
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
        return 2 * norm1 + self.query_factor if self.metric == "l2" else norm1

    # --- serialisation ---------------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """Serialise the parameters.

        Returns
        -------
        dict
            Values that JSON holds; :meth:`from_dict` reads them.
        """
        data = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        # fields that a later version added are left out when empty: encodings made before keep their hash
        for name in ("weights", "projection"):
            if not data[name]:
                del data[name]
        if self.projection is not None:
            data["projection"] = self.projection.to_dict()
        return {"format": _FORMAT, **data}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Self:
        """Read parameters that :meth:`to_dict` wrote.

        Parameters
        ----------
        data : dict
            The serialised parameters.

        Returns
        -------
        Encoding
            The encoding.

        Raises
        ------
        ParameterError
            Another format version, unknown fields, or values out of range.
        ScoreRangeError
            Scores could leave the ring.
        """
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
        """SHA-256 over the canonical JSON form, with a label: 32 bytes. Stored and sent objects carry it."""
        text = json.dumps(self.to_dict(), sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(b"mipp v1 encoding" + text.encode()).digest()
