"""The highest quantisation precision that cannot overflow the ring: whole numbers stay exact."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import EncodingError, ParameterError, ScoreRangeError
from ..params import RING_DTYPES
from .encoding import Encoding
from .numbers import LARGEST, SMALLEST, check_sample, integer, matrix, said, whole
from .parameters import MAX_DIM
from .tuning import tune

__all__ = ["check_queries", "check_whole", "finest", "finest_unit", "judged", "misses", "query_factors"]

#: factor by which vectors may be longer than the sample's, before rounding up to a power of two
MARGIN = 2.0
#: an offset needs at least this many vectors, nearer to it than to zero by this factor
_LEAST_FOR_OFFSET, _NEARER = 100, 8
_CHUNK = 1 << 16
_MOST_TUNED = 20_000
#: bits of rows and of queries, by ring bits
_BITS = {16: (16, 24), 32: (16, 24), 64: (32, 32)}
#: bits of rows in a ring of 64 bits if servers compare scores: a score and a number of 2^23 rows fit 64 bits together
_RANKED_BITS = 20
#: the same for samples of few rows that would lose neighbours: a score and a number of 2^17 rows fit
_MORE_BITS, _FEW = 23, 1 << 14
#: a ring of 32 bits is chosen if it misses at most the share MISSES of the _NEAREST nearest rows of _JUDGES queries,
#: which are compared exactly among the _NEAR that float32 finds
MISSES, _JUDGES, _NEAREST, _NEAR = 5e-4, 512, 10, 40
#: samples of fewer rows do not show how near neighbours will be
_LEAST_JUDGED = 1000
#: multiplications that the choice of a ring may take
_JUDGED_WORK = 1 << 31


def finest(
    metric: str, sample: np.ndarray, *, ring_bits: int = 0, server_ranking: bool = False,
    reach: np.ndarray | None = None,
) -> Encoding:  # fmt: skip
    """Make the encoding of ``ip`` or ``l2`` with the highest precision that cannot overflow the ring.

    Whole numbers are kept as they are, so that scores are exact. Other numbers are rounded to multiples of one step s
    (``encoding.scale``), so small that nothing is clipped; vectors beyond the bound are refused. With c the number of
    steps of the query in one of the row (1, except for whole rows):

    * ``l2``: the root of the value differs from the true distance by at most ``sqrt(dim) (s + s / c) / 2``;
    * ``ip``, with queries multiplied by :func:`mipp.encoding.finest.query_factors` first: the value differs from the
      true product by at most ``0.76 sqrt(dim) s |q|`` (32 bits; 1.01 with ``server_ranking``, also with 64 bits, for
      dim up to 2^20).

    Steps in a ring of 64 bits are some 60,000 times finer than in one of 32 bits (16 times with ``server_ranking``, 128
    times for samples of up to 16,384 rows that need it). A ring of 16 bits has room for this only if whole numbers are
    small; otherwise the encoding is that of :func:`mipp.encoding.tune`, which clips, and is judged by recall.

    Parameters
    ----------
    metric : str
        ``ip`` or ``l2``.
    sample : array_like of float, shape (N, dim)
        **Public** sample. The encoding, which everybody sees, shows: whether all numbers are whole; the length of the
        longest vector, doubled (unless that would lose neighbours) and rounded up to a power of two; whether 32 bits
        keep the nearest rows; and for ``l2``, if 100 vectors or more lie together far from zero, their mean in
        multiples of the largest deviation. (:func:`mipp.encoding.tune` shows more.)
    ring_bits : int
        16, 32, 64 or 0. With 0 the ring has 32 bits if they keep whole numbers exactly, or miss at most 0.05 % of the
        ten nearest rows of up to 512 rows of the sample; else 64. Samples of fewer than 1000 rows cannot show this, and
        get 64 bits unless they are whole.
    server_ranking : bool
        Leave the room that oblivious comparison needs: half the score range.
    reach : array_like of float, shape (M, dim), optional
        Queries that the encoding must hold too: the bound covers them. If the sample is whole but they are not, the
        ring has 64 bits (unless ``ring_bits`` says otherwise), with steps that hold both.

    Returns
    -------
    Encoding
        The encoding.

    Raises
    ------
    ParameterError
        Another metric or ring, or numbers too small for any step.
    DTypeError, ShapeError, EncodingError
        The sample is empty, or not a matrix of finite numbers.
    ScoreRangeError
        As for :func:`mipp.encoding.tune`, in a ring of 16 bits.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.encoding import finest
    >>> whole = finest("l2", np.array([[3, 4], [100, -7]]))
    >>> whole.ring_bits, whole.scale
    (32, (1.0,))
    >>> finest("l2", np.array([[0.5, 0.25], [1.0, 0.1]]), ring_bits=32).scale[0] < 1e-3
    True
    """
    return judged(metric, sample, ring_bits=ring_bits, server_ranking=server_ranking, reach=reach)[0]


def judged(
    metric: str, sample: np.ndarray, *, ring_bits: int = 0, server_ranking: bool = False,
    reach: np.ndarray | None = None,
) -> tuple[Encoding, float | None]:  # fmt: skip
    """Like :func:`finest`, with the :func:`misses` on the sample: 0 if nothing is rounded, None if not measured."""
    if metric not in ("ip", "l2"):
        raise ParameterError(f"metric must be ip or l2, not {said(metric)}")
    if ring_bits and ring_bits not in RING_DTYPES:
        raise ParameterError(f"ring_bits must be 16, 32, 64 or 0, not {said(ring_bits)}")
    x = matrix(sample, None, "sample")
    check_sample(x)
    offset = _offset(x) if metric == "l2" else np.zeros(x.shape[1])
    largest = max(float(np.abs(p).max()) for p in _parts(x, offset)) or 1.0
    norms = _norms(x, offset, largest)
    longest = float(norms.max())
    fine = False
    if reach is not None and len(reach):
        far = matrix(reach, x.shape[1], "vectors")
        beyond = max(float(np.abs(p).max()) for p in _parts(far, offset)) or 1.0
        longest = max(longest, float(_norms(far, offset, beyond).max()))
        fine = ring_bits in (0, 64) and not _is_whole(far, offset)
    bound = _power(MARGIN * longest)
    common: dict[str, Any] = {"offset": tuple(offset.tolist()) if offset.any() else ()}
    if not fine and _is_whole(x, offset):
        for bits in (ring_bits,) if ring_bits else (32, 64):
            if largest <= _most(_BITS[bits][0]):
                found = _exact(metric, x.shape[1], math.ceil(bound), bits, server_ranking, common)
                if found is not None:
                    return found, 0.0
    if ring_bits == 16:
        if len(x) > _MOST_TUNED:
            x = x[np.unique(np.append(np.arange(_MOST_TUNED) * len(x) // _MOST_TUNED, norms.argmax()))]
        return tune(metric, x, ring_bits=16, server_ranking=server_ranking).encoding, None
    if not ring_bits and not fine and len(x) >= _LEAST_JUDGED:
        found = _rounded(metric, x.shape[1], bound, 32, server_ranking, common)
        if (share := misses(found, x)) <= MISSES:
            return found, share
    found = _rounded(metric, x.shape[1], bound, ring_bits or 64, server_ranking, common)
    if found.ring_bits != 64 or (server_ranking and len(x) > _FEW):
        return found, None
    share = misses(found, x)
    if share > MISSES:
        # use all of the ring: rows up to the next power of two only, and steps that are no powers of two
        bound = _power(longest * (1 + 2.0**-20))
        finer = _rounded(metric, x.shape[1], bound, 64, server_ranking, common, _MORE_BITS, wide=True)
        if finer.allows_server_ranking or not server_ranking:
            found, share = finer, misses(finer, x)
    return found, share


def finest_unit(metric: str, dim: int, *, ring_bits: int = 32, server_ranking: bool = False) -> Encoding:
    """Like :func:`finest`, for vectors of length at most one. Needs no sample, and shows nothing about the vectors.

    Parameters
    ----------
    metric : str
        ``ip`` or ``l2``.
    dim : int
        Numbers per vector.
    ring_bits : int
        32 or 64; a ring of 16 bits needs a sample.
    server_ranking : bool
        As for :func:`finest`.

    Returns
    -------
    Encoding
        The encoding.

    Raises
    ------
    ParameterError
        Another metric, dimension or ring.
    """
    if metric not in ("ip", "l2") or ring_bits not in (32, 64):
        raise ParameterError("unit vectors are for ip and l2, in rings of 32 or 64 bits")
    integer(dim, 1, MAX_DIM, "dim")
    # a little longer, for vectors that were normalised in float32
    return _rounded(metric, dim, 1.0 + 2.0**-16, ring_bits, server_ranking, {})


def _is_exact(encoding: Encoding) -> bool:
    """Whether :func:`finest` made this encoding for whole rows; only those have 16 bits or more and scale 1."""
    return encoding.scale == (1.0,) and encoding.bits >= _BITS[32][0]


def check_whole(encoding: Encoding, rows: np.ndarray) -> None:
    """Refuse rows (N, dim) that an encoding for whole numbers would round or clip; EncodingError."""
    if _is_exact(encoding):
        x = matrix(rows, encoding.dim, "rows").astype(np.float64)
        offset = np.array(encoding.offset) if encoding.offset else 0.0
        try:
            whole(x - offset, 1 - encoding.clip, encoding.clip - 1, "rows")
        except EncodingError:
            raise EncodingError(
                f"the encoding was fitted to whole numbers and keeps those only, up to {encoding.clip - 1} from its "
                "offset; fit it to numbers like these"
            ) from None


def check_queries(encoding: Encoding, queries: np.ndarray) -> None:
    """Refuse queries (B, dim) of ``l2`` that an encoding without ``query_scale`` would clip; ScoreRangeError."""
    if encoding.metric == "l2" and not encoding.query_scale:
        x = matrix(queries, encoding.dim, "queries").astype(np.float64)
        offset = np.array(encoding.offset) if encoding.offset else 0.0
        # a query has as many steps as a row, each divided further
        with np.errstate(over="ignore"):
            largest = np.abs(x - offset).max(initial=0.0)
        if largest > ((1 << (encoding.bits - 1)) - 1) * encoding.scale[0]:
            raise ScoreRangeError("a query has a coordinate that the encoding would clip")


def query_factors(encoding: Encoding, queries: np.ndarray) -> np.ndarray:
    """Factors that stretch queries of ``ip`` over all of their range.

    Multiply the queries by them and divide the values by them: the ranking stays the same, no query is too long, and
    scores become finer. If rows are kept exactly, factors are powers of two, so that whole queries stay whole. Numbers
    below 2^-480 count as zero.

    Parameters
    ----------
    encoding : Encoding
        Encoding of ``ip``.
    queries : array_like of float, shape (B, dim)
        Queries. Secret.

    Returns
    -------
    ndarray of float64, shape (B,)
        Factors. Secret.

    Raises
    ------
    ParameterError
        The encoding has another metric.
    DTypeError, ShapeError, EncodingError
        The queries are not a matrix of finite numbers, or hold numbers beyond 2^480.
    """
    if encoding.metric != "ip":
        raise ParameterError(f"queries of {encoding.metric} take no factors")
    x = matrix(queries, encoding.dim, "queries").astype(np.float64)
    if np.abs(x).max(initial=0.0) > LARGEST:
        raise EncodingError("a query holds numbers too large for float arithmetic; rescale it")
    x = np.where(np.abs(x) < SMALLEST, 0.0, x) * (np.array(encoding.scale) / encoding.query_scale)
    largest = np.abs(x).max(axis=1, initial=0.0)
    safe = np.where(largest > 0, largest, 1.0)
    length = np.sqrt(np.einsum("ij,ij->i", x / safe[:, None], x / safe[:, None])) * safe
    limit = math.sqrt(encoding.query_norm2) - math.sqrt(encoding.dim) / 2
    clip = (1 << (encoding.query_bits - 1)) - 1
    factors = np.minimum(limit / np.where(largest > 0, length, limit), clip / np.where(largest > 0, largest, clip))
    return np.asarray(np.exp2(np.floor(np.log2(factors))) if _is_exact(encoding) else factors)


def _power(value: float) -> float:
    """The least power of two that is not smaller."""
    if not value:
        return 1.0
    fraction, exponent = math.frexp(value)
    return math.ldexp(0.5 if fraction == 0.5 else 1.0, exponent)


def _offset(x: np.ndarray) -> np.ndarray:
    """The mean, rounded to multiples of the power of two above the largest deviation; zeros unless it is far away."""
    mean = x.mean(axis=0, dtype=np.float64)
    deviation = max(float(np.abs(p).max()) for p in _parts(x, mean))
    if len(x) < _LEAST_FOR_OFFSET or deviation * _NEARER > np.abs(mean).max():
        return np.zeros(x.shape[1])
    step = _power(max(deviation, float(np.spacing(np.abs(mean).max()))))
    return np.asarray(np.rint(mean / step) * step)


def _parts(x: np.ndarray, offset: np.ndarray) -> Iterator[np.ndarray]:
    """x - offset in float64, some rows at a time."""
    for start in range(0, len(x), _CHUNK):
        yield x[start : start + _CHUNK].astype(np.float64) - offset


def _is_whole(x: np.ndarray, offset: np.ndarray) -> bool:
    return all((p == np.rint(p)).all() for p in _parts(x, offset))


def _norms(x: np.ndarray, offset: np.ndarray, largest: float) -> np.ndarray:
    """Lengths of x - offset, (N,); divided by the largest number first, so that squares neither overflow nor vanish."""
    parts = [np.einsum("ij,ij->i", p / largest, p / largest) for p in _parts(x, offset)]
    return np.asarray(np.sqrt(np.concatenate(parts)) * largest)


def _most(bits: int) -> int:
    """One less than the clipping value, so that the bound on norms refuses rows that would be clipped."""
    return (1 << (bits - 1)) - 2


def misses(encoding: Encoding, x: np.ndarray) -> float:
    """The share of the ten nearest rows that an encoding of :func:`finest` loses.

    Up to 512 rows of x (N, dim) are queries; each is compared with as many other rows of x as about a second allows.
    The share is 0 for two rows or fewer. Not constant time; as secret as x.
    """
    if len(x) < 3:
        return 0.0
    width = x.shape[1]
    chosen = np.unique(np.arange(_JUDGES) * len(x) // _JUDGES)
    some = max(_LEAST_JUDGED, _JUDGED_WORK // (len(chosen) * width))
    x = x.astype(np.float64) - (np.array(encoding.offset) if encoding.offset else 0.0)
    base = np.unique(np.append(chosen, np.arange(min(some, len(x))) * len(x) // min(some, len(x))))
    ip, largest = encoding.metric == "ip", np.abs(x).max() or 1.0
    rows, asked = x[base], x[chosen]
    near = min(_NEAR, len(base) - 1)
    k, lost, total = min(_NEAREST, near), 0, 0
    small = (rows / largest).astype(np.float32)
    half = 0.0 if ip else np.einsum("ij,ij->i", small, small) / 2
    for start in range(0, len(asked), 64):
        part = asked[start : start + 64]
        about = (part / largest).astype(np.float32) @ small.T - half
        about[np.arange(len(part)), np.searchsorted(base, chosen[start : start + 64])] = -np.inf
        found = np.argpartition(-about, near - 1, axis=1)[:, :near]
        them = rows[found]  # (queries, near, dim)
        true = np.einsum("ij,ikj->ik", part, them) if ip else -((part[:, None] - them) ** 2).sum(axis=2)
        shift = np.array(encoding.offset) if encoding.offset else 0.0
        factors = query_factors(encoding, part)[:, None] if ip else 1.0
        a = encoding.encode_rows(them.reshape(-1, width) + shift).astype(np.int64).reshape(*found.shape, -1)
        scores = np.einsum("ij,ikj->ik", encoding.encode_queries(part * factors + shift).astype(np.int64), a)
        kept = np.lexsort((true, -scores), axis=1)[:, :k]  # among equal scores, the wrong rows first
        least = np.partition(true, near - k, axis=1)[:, near - k, None]
        lost += int((np.take_along_axis(true, kept, axis=1) < least).sum())
        total += kept.size
    return lost / total


def _exact(metric: str, dim: int, bound: int, ring_bits: int, server: bool, common: dict[str, Any]) -> Encoding | None:
    """Scale 1, rows up to ``bound`` long, and queries as fine as the ring allows; None if it has no room."""
    row_bits, query_bits = _BITS[ring_bits]
    if ring_bits == 64:  # as many bits as the bound needs, so that queries can be finer
        row_bits = max(_BITS[32][0], bound.bit_length() + 1)
        query_bits = 24 if server else query_bits
    options = {**common, "bits": row_bits, "ring_bits": ring_bits, "scale": (1.0,), "row_norm2": bound**2}
    tries: list[dict[str, Any]] = []
    if row_bits > query_bits:
        return None
    if metric == "ip":
        most = min(_room(ring_bits, server) // bound, _most(query_bits))
        if most >= bound:  # queries as long as rows
            tries = [{"query_bits": query_bits, "query_scale": 1.0, "query_norm2": most**2}]
    else:
        for finer in range(min(8, query_bits - row_bits), -1, -1):
            if bound << finer <= _most(query_bits):
                tries.append({"query_bits": row_bits + finer, "query_norm2": (bound << finer) ** 2})
    for more in tries:
        try:
            found = Encoding(metric, dim, **options, **more)
        except ScoreRangeError:
            continue
        if found.allows_server_ranking or not server:
            return found
    return None


def _rounded(
    metric: str, dim: int, bound: float, ring_bits: int, server: bool, common: dict[str, Any],
    ranked_bits: int = _RANKED_BITS, wide: bool = False,
) -> Encoding:  # fmt: skip
    """Numbers are rounded: the longest row takes all of the range, and so does a query of ``ip``."""
    slack = math.sqrt(dim) / 2  # rounding lengthens a row by no more
    row_bits, query_bits = _BITS[ring_bits]
    if ring_bits == 64 and server:
        row_bits, query_bits = ranked_bits, ranked_bits
    options: dict[str, Any] = {**common, "bits": row_bits, "ring_bits": ring_bits}
    if metric == "ip":
        rows = _most(row_bits)
        asked = min(_room(ring_bits, server) // rows, _most(query_bits))
        scale = bound / (rows - slack)
        options |= {"query_bits": query_bits, "query_scale": scale, "query_norm2": asked**2}
    else:
        # 3 A^2 below half the range, or 4 A^2 where differences must fit too
        rows = min(math.isqrt(((1 << (ring_bits - 1)) - 8) // (4 if server else 3)), _most(row_bits))
        scale = bound / (rows - slack)
        options |= {"query_bits": row_bits, "query_norm2": rows**2}
    if ring_bits == 64 and not wide:  # a power of two: numbers of few binary digits, such as whole ones, stay exact
        scale = _power(scale)
        rows = min(rows, math.ceil(bound / scale + slack))
        options |= {"query_scale": scale} if metric == "ip" else {"query_norm2": rows**2}
    if rows <= slack or not math.isfinite(1.0 / scale):
        raise ParameterError("the sample's vectors are too many-dimensional or too small for any step")
    return Encoding(metric, dim, scale=(scale,), row_norm2=rows**2, **options)


def _room(ring_bits: int, server: bool) -> int:
    """Largest absolute score, if the score range is symmetric."""
    return (1 << (ring_bits - 1 - server)) - 1
