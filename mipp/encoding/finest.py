"""The finest steps that a ring holds: exact for whole numbers, a stated bound on the error for all else."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..errors import EncodingError, ParameterError, ScoreRangeError
from ..params import RING_DTYPES
from .encoding import MAX_DIM, Encoding
from .fit import tune
from .numbers import LARGEST, SMALLEST, check_sample, integer, matrix, said, whole

__all__ = ["check_queries", "check_whole", "finest", "finest_unit", "judged", "misses", "query_factors"]

#: vectors may be this much longer than the sample's, before rounding up to a power of two
MARGIN = 2.0
#: an offset is for so many vectors that are so much nearer to it than to zero
_LEAST_FOR_OFFSET, _NEARER = 100, 8
_CHUNK = 1 << 16
_MOST_TUNED = 20_000
#: bits of rows and of queries by ring
_BITS = {16: (16, 24), 32: (16, 24), 64: (32, 32)}
#: what a ring of 64 bits gives rows that servers compare: scores and 2^23 rows fit 64 bits together
_RANKED_BITS = 20
#: and samples of few rows where those would lose neighbours: scores and 2^17 rows do
_MORE_BITS, _FEW = 23, 1 << 14
#: a ring of 32 bits is chosen if it misses at most this share of the ten nearest, found with so many queries
MISSES, _JUDGES, _NEAREST, _NEAR = 5e-4, 512, 10, 40
#: fewer rows do not show how near neighbours will be
_LEAST_JUDGED = 1000
#: multiplications that choosing may take
_JUDGED_WORK = 1 << 31


def finest(
    metric: str, sample: np.ndarray, *, ring_bits: int = 0, server_ranking: bool = False,
    reach: np.ndarray | None = None,
) -> Encoding:  # fmt: skip
    """The encoding of ``ip`` or ``l2`` with the finest steps that a ring holds.

    Whole numbers are kept as they are, so that scores are exact. All else is rounded to multiples of one step s
    (``encoding.scale``), so small that nothing is clipped: what is longer than the bound is refused. With c the number
    of steps of the query in one of the row (1, but for whole rows):

    * ``l2``: the root of the value differs from the true distance by at most ``sqrt(dim) (s + s / c) / 2``;
    * ``ip``, queries multiplied by :func:`query_factors` first: the value differs from the true product by at most
      ``0.76 sqrt(dim) s |q|`` (32 bits; 1.01 with ``server_ranking``, also with 64 bits, for dim up to 2^20).

    A ring of 64 bits has steps some 60,000 times finer than one of 32 bits (16 times with ``server_ranking``,
    128 times for samples of up to 16,384 rows that need it).

    A ring of 16 bits has no room for that, unless whole numbers are small: there it is :func:`mipp.encoding.tune`,
    which clips, and is judged by recall.

    Parameters
    ----------
    metric : ``ip`` or ``l2``
    sample : (N, dim) numbers. What the encoding tells of it is public: whether all numbers are whole, the length of the
        longest vector, doubled (unless that would lose neighbours) and rounded up to a power of two, whether 32 bits
        keep the nearest; and for ``l2``, if 100 vectors or more lie together far from zero, their mean in multiples of
        the largest deviation. (:func:`mipp.encoding.tune` tells more.)
    ring_bits : 16, 32, 64, or 0: 32 bits where they keep whole numbers exactly, or miss at most 0.05 % of the ten
        nearest rows of the sample, tried with up to 512 of its rows; else 64. Samples of fewer than 1000 rows do not
        show that and get 64 bits, unless they are whole.
    server_ranking : leave the room that oblivious comparison needs: half the range
    reach : queries (M, dim) that the encoding must hold too, or None: the bound covers them, and where the sample is
        whole but they are not, the ring is one of 64 bits (unless ``ring_bits`` says otherwise) whose steps keep both

    Raises
    ------
    ParameterError, DTypeError, ShapeError, EncodingError, ScoreRangeError
        Another metric or ring; a sample that is empty or no matrix of finite numbers; what ``tune`` refuses.
    """
    return judged(metric, sample, ring_bits=ring_bits, server_ranking=server_ranking, reach=reach)[0]


def judged(
    metric: str, sample: np.ndarray, *, ring_bits: int = 0, server_ranking: bool = False,
    reach: np.ndarray | None = None,
) -> tuple[Encoding, float | None]:  # fmt: skip
    """As :func:`finest`, and its :func:`misses` on the sample: 0 where nothing is rounded, None where choosing took no
    look at them.
    """
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
        # all of the ring: no room for longer rows but to the next power of two, and any step
        bound = _power(longest * (1 + 2.0**-20))
        finer = _rounded(metric, x.shape[1], bound, 64, server_ranking, common, _MORE_BITS, wide=True)
        if finer.allows_server_ranking or not server_ranking:
            found, share = finer, misses(finer, x)
    return found, share


def finest_unit(metric: str, dim: int, *, ring_bits: int = 32, server_ranking: bool = False) -> Encoding:
    """As :func:`finest`, for vectors of length one at most: it needs no sample, and tells nothing of the vectors.

    Parameters
    ----------
    metric, dim : ``ip`` or ``l2``; numbers per vector
    ring_bits : 32 or 64; a ring of 16 bits needs a sample
    server_ranking : as of :func:`finest`

    Raises
    ------
    ParameterError
        Another metric, dimension or ring.
    """
    if metric not in ("ip", "l2") or ring_bits not in (32, 64):
        raise ParameterError("unit vectors are for ip and l2, in rings of 32 or 64 bits")
    integer(dim, 1, MAX_DIM, "dim")
    # a little longer, for vectors whose length was made one in float32
    return _rounded(metric, dim, 1.0 + 2.0**-16, ring_bits, server_ranking, {})


def _is_exact(encoding: Encoding) -> bool:
    """Whether :func:`finest` made this encoding for whole rows: no other one has 16 bits or more and scale 1."""
    return encoding.scale == (1.0,) and encoding.bits >= _BITS[32][0]


def check_whole(encoding: Encoding, rows: np.ndarray) -> None:
    """EncodingError for rows (N, dim) that an encoding for whole numbers would round or clip."""
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
    """ScoreRangeError for queries (B, dim) of ``l2`` that an encoding without ``query_scale`` would clip."""
    if encoding.metric == "l2" and not encoding.query_scale:
        x = matrix(queries, encoding.dim, "queries").astype(np.float64)
        offset = np.array(encoding.offset) if encoding.offset else 0.0
        # as many steps as a row has, each divided further
        with np.errstate(over="ignore"):
            largest = np.abs(x - offset).max(initial=0.0)
        if largest > ((1 << (encoding.bits - 1)) - 1) * encoding.scale[0]:
            raise ScoreRangeError("a query has a coordinate that the encoding would clip")


def query_factors(encoding: Encoding, queries: np.ndarray) -> np.ndarray:
    """By what to multiply queries (B, dim) of ``ip`` so that they take all of their range: (B,) float64, secret.

    The ranking stays as it is, no query is too long, and scores become finer; divide the values by it. Where rows are
    kept exactly these are powers of two, so that whole queries stay whole. A query of numbers below 2^-480 counts as
    zero.

    Raises
    ------
    ParameterError, DTypeError, ShapeError, EncodingError
        An encoding of ``l2``; queries that are no matrix of finite numbers, or hold some beyond 2^480.
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
    """The mean in multiples of the power of two above the largest deviation, so whole where x is; mostly zeros."""
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
    """One less than what clips, so that the bound on norms refuses whatever would be clipped."""
    return (1 << (bits - 1)) - 2


def misses(encoding: Encoding, x: np.ndarray) -> float:
    """The share of the ten nearest rows that an encoding of :func:`finest` loses.

    Up to 512 rows of x (N, dim) are asked for among as many rows of x as can be compared in about a second, each
    without itself. 0 for two rows or fewer. Not constant time; as secret as x.
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
        kept = np.lexsort((true, -scores), axis=1)[:, :k]  # where scores are equal, the wrong ones first
        least = np.partition(true, near - k, axis=1)[:, near - k, None]
        lost += int((np.take_along_axis(true, kept, axis=1) < least).sum())
        total += kept.size
    return lost / total


def _exact(metric: str, dim: int, bound: int, ring_bits: int, server: bool, common: dict[str, Any]) -> Encoding | None:
    """Scale 1 with rows up to ``bound`` long, queries as fine as there is room; None if there is none."""
    row_bits, query_bits = _BITS[ring_bits]
    if ring_bits == 64:  # as many as the bound needs, so that queries can be finer
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
    """The longest row takes all of the range; a query of ``ip`` too, one of ``l2`` as the row."""
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
    if ring_bits == 64 and not wide:  # a power of two: what has few binary digits, as whole numbers, stays exact
        scale = _power(scale)
        rows = min(rows, math.ceil(bound / scale + slack))
        options |= {"query_scale": scale} if metric == "ip" else {"query_norm2": rows**2}
    if rows <= slack or not math.isfinite(1.0 / scale):
        raise ParameterError("the sample's vectors are too many-dimensional or too small for any step")
    return Encoding(metric, dim, scale=(scale,), row_norm2=rows**2, **options)


def _room(ring_bits: int, server: bool) -> int:
    """Largest absolute score where scores of both signs occur alike."""
    return (1 << (ring_bits - 1 - server)) - 1
