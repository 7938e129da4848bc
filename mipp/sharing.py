"""The secret sharing: rows to shares, queries to columns, answers to scores.

For those who bring their own roles; the roles of this package use nothing else. The scheme, for n servers of which
the last t hold keys only (:class:`mipp.params.Params`):

* an owner shares rows with :func:`share_rows`: storage server i gets g(point(i)), where g has the row as its value at
  0 and key servers' keystream as their values; key servers get nothing but a 32-byte key, once;
* a user shares queries with :func:`query_columns`: one uniformly random column per server;
* a storage server answers ``ring.matmul(stored, columns)``, a key server :func:`key_server_product`, each plus its
  :func:`add_zero_share`;
* the user adds the answers: :func:`reconstruct` or :func:`top_k`, or :class:`RunningTopK` some rows at a time.

With ``Params(2, 1, k, "homomorphic")`` the one storage server gets the row plus the key server's keystream.

Semi-honest servers, any t of which learn nothing; t+1 storage servers together, or with key servers, learn all rows.
Source: Shamir sharing over Galois rings (DESIGN sections 3 to 5); zero shares: Cramer, Damgard, Ishai, TCC 2005.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ._native import _core
from .crypto import schedule
from .errors import DTypeError, ParameterError, ShapeError
from .params import Params

__all__ = [
    "OwnerKeys",
    "Run",
    "RunningTopK",
    "SharedRows",
    "add_zero_share",
    "batch_schedules",
    "key_server_product",
    "key_server_rows",
    "key_server_words",
    "open_share",
    "query_columns",
    "reconstruct",
    "share_rows",
    "top_k",
]

MAX_BLOCKS = 1 << 32
_INFOS_AT_ONCE = 1 << 19
_INT64 = np.iinfo(np.int64)
_SIGNED: dict[int, np.dtype[Any]] = {2: np.dtype("<i2"), 4: np.dtype("<i4"), 8: np.dtype("<i8")}


class OwnerKeys:
    """An owner's secret keys in one registration.

    Parameters
    ----------
    root : 32 secret random bytes
    deployment : 16 bytes, public id of the deployment
    registration : 16 random bytes, new for each registration, public
    params : parameters of the deployment
    """

    __slots__ = ("_root", "deployment", "params", "registration")

    def __init__(self, root: bytes, deployment: bytes, registration: bytes, params: Params) -> None:
        if len(root) != 32 or len(deployment) != 16 or len(registration) != 16:
            raise ParameterError("an owner root has 32 bytes, deployment id and registration nonce 16")
        self._root, self.deployment, self.registration, self.params = root, deployment, registration, params

    def __repr__(self) -> str:
        return f"OwnerKeys(deployment={self.deployment.hex()}, secret hidden)"

    def __reduce__(self) -> str:
        raise TypeError("owner keys are secret and do not pickle")

    def server_key(self, server: int) -> bytes:
        """Key of a key server: 32 secret bytes, handed to it once, sealed."""
        if server not in self.params.key_servers:
            raise ParameterError(f"server {server} is no key server; those are {list(self.params.key_servers)}")
        p = self.params
        return schedule.key_server_key(
            self._root, self.deployment, self.registration, p.n, p.t, server, masked=p.masked
        )

    def fresh_nonce(self, rows: np.ndarray, encoding_hash: bytes) -> bytes:
        """A batch nonce that depends on fresh randomness and on the content."""
        content = np.ascontiguousarray(rows).reshape(-1).view(np.uint8)
        return schedule.batch_nonce(self._root, (content.data, encoding_hash))


@dataclasses.dataclass(frozen=True, repr=False)
class SharedRows:
    """One encrypted batch: ``nonce`` (its id), ``dim``, and ``shares[i]`` (N, D) words of storage server i."""

    nonce: bytes
    dim: int
    rows: int
    shares: dict[int, np.ndarray]

    def __repr__(self) -> str:
        return f"SharedRows(batch={self.nonce.hex()}, rows={self.rows}, dim={self.dim})"


def as_words(values: np.ndarray, params: Params, what: str) -> np.ndarray:
    """Integers of at most the ring's width as ring words, C-contiguous, two's complement; no copy when possible."""
    try:
        values = np.asarray(values)
    except (ValueError, OverflowError):
        raise ShapeError(f"{what} must be (rows, dim), with rows of one length") from None
    if values.dtype.kind not in "iu":
        raise DTypeError(f"{what} must be integers, not {str(values.dtype)[:50]}")
    if values.ndim != 2 or values.shape[1] < 1:
        raise ShapeError(f"{what} must be (rows, dim) with dim >= 1, not {values.shape}")
    if values.dtype.itemsize == params.dtype.itemsize and values.dtype.isnative:
        return np.require(values, requirements=("C", "A")).view(params.dtype)
    if values.dtype.itemsize > params.dtype.itemsize and values.size:
        half = 1 << (params.k - 1)
        if int(values.min()) < -half or int(values.max()) >= 2 * half:
            raise ParameterError(f"{what} hold integers that do not fit {params.k} bits")
    return np.ascontiguousarray(values.astype(params.dtype))


def share_rows(
    rows: np.ndarray, keys: OwnerKeys, encoding_hash: bytes = b"", *, threads: int | None = None
) -> SharedRows:
    """Encrypt one batch of rows under fresh keystream.

    Parameters
    ----------
    rows : (N, dim) integers that fit the ring (signed or its words), N >= 1; secret
    keys : the owner's
    encoding_hash : 32 bytes of the index's encoding, enters the nonce
    threads : native threads, default all cores

    Returns
    -------
    SharedRows
        Each share alone, and any t with the key servers' counted in, is uniformly random.

    Raises
    ------
    DTypeError, ShapeError, ParameterError
        Not integers, not (N, dim), no rows, too many for one batch (2^32 AES blocks).
    """
    words = as_words(rows, keys.params, "rows")
    if not len(words):
        raise ShapeError("a batch needs at least one row")
    return _share_rows(words, keys, keys.fresh_nonce(words, encoding_hash), threads)


def _share_rows(words: np.ndarray, keys: OwnerKeys, nonce: bytes, threads: int | None) -> SharedRows:
    """With a given nonce: for :func:`share_rows` and known answers only. A repeated nonce gives the rows away."""
    p = keys.params
    n, dim = words.shape
    width = p.padded(dim)
    if n * width * p.k // 128 > MAX_BLOCKS:
        raise ParameterError(f"{n} rows of {dim} are too many for one batch (2^32 AES blocks)")
    infos = _infos([schedule.batch_info(nonce, p.k, dim, n)])
    schedules = [_core.KeySchedules(keys.server_key(s), infos, 1) for s in p.key_servers]
    outs = [np.empty((n, width), p.dtype) for _ in p.storage_servers]
    if p.masked:
        masked = outs[0]
        _core.keystream_words(schedules[0], 0, 0, masked.reshape(-1))
        masked[:, :dim] += words
        return SharedRows(nonce, dim, n, {1: masked})
    _core.share_rows(words, schedules, [0] * p.t, 0, p.row_matrices(), outs, threads or 0)
    return SharedRows(nonce, dim, n, dict(zip(p.storage_servers, outs, strict=True)))


def open_share(
    share: np.ndarray,
    server: int,
    nonce: bytes,
    dim: int,
    keys: OwnerKeys,
    *,
    rows: int | None = None,
    ordinals: np.ndarray | None = None,
) -> np.ndarray:
    """The owner's way back: rows from what one storage server holds.

    Parameters
    ----------
    share : (N, D) words of storage server ``server``
    nonce, dim : of the batch
    rows : original row count of the batch (default N)
    ordinals : (N,) original row numbers of the stored rows, if some were removed

    Returns
    -------
    (N, dim) signed integers; secret
    """
    p = keys.params
    if server not in p.storage_servers:
        raise ParameterError(f"server {server} is no storage server")
    share = as_words(share, p, "share")
    n, width = share.shape
    if width != p.padded(dim):
        raise ShapeError(f"a share of {dim} features has {p.padded(dim)} words per row, not {width}")
    infos = _infos([schedule.batch_info(nonce, p.k, dim, rows if rows is not None else n)])
    inputs = [share]
    for s in p.key_servers:
        stream = np.empty((n, width), p.dtype)
        keyed = _core.KeySchedules(keys.server_key(s), infos, 1)
        blocks = width * p.k // 128
        if ordinals is None:
            _core.keystream_words(keyed, 0, 0, stream.reshape(-1))
        else:
            for row, ordinal in zip(stream, ordinals, strict=True):
                _core.keystream_words(keyed, 0, int(ordinal) * blocks, row)
        inputs.append(stream)
    if p.masked:
        return np.ascontiguousarray((share - stream)[:, :dim]).view(_SIGNED[p.dtype.itemsize])
    ring = p.ring
    weights = ring.lagrange([ring.zero] + [ring.point(s) for s in p.key_servers], ring.point(server))
    inverse = ring.inv(weights[0])
    constants = [inverse] + [ring.mul(inverse, ring.sub(ring.zero, w)) for w in weights[1:]]
    matrices = np.array([[ring.matrix(c) for c in constants]], p.dtype)
    out = np.empty((n, width), p.dtype)
    _core.combine(inputs, matrices, [out], 0)
    return np.ascontiguousarray(out[:, :dim]).view(_SIGNED[p.dtype.itemsize])


def query_columns(queries: np.ndarray, params: Params, servers: Sequence[int] | None = None) -> dict[int, np.ndarray]:
    """Share queries for 2t+1 servers with fresh operating-system randomness.

    Parameters
    ----------
    queries : (B, dim) integers that fit the ring; secret
    params : of the deployment
    servers : all key servers and t+1 storage servers; default the first t+1

    Returns
    -------
    dict
        server -> (B, D) words, each alone (any t together) uniformly random, padding too. Cost: B D words a server.
    """
    chosen = params.check_servers(
        servers if servers is not None else params.storage_servers[: params.t + 1] + params.key_servers
    )
    words = as_words(queries, params, "queries")
    shape = (params.t, len(words), params.padded(words.shape[1]))
    random = np.frombuffer(schedule.random_bytes(int(np.prod(shape)) * params.k // 8), params.dtype).reshape(shape)
    return _columns(words, random, params, chosen)


def _columns(words: np.ndarray, random: np.ndarray, params: Params, servers: tuple[int, ...]) -> dict[int, np.ndarray]:
    """Columns from given random words (t, B, D): for :func:`query_columns` and known answers only."""
    b, dim = words.shape
    padded = np.zeros((b, params.padded(dim)), params.dtype)
    padded[:, :dim] = words
    outs = [np.empty_like(padded) for _ in servers]
    inputs = [padded] + [np.ascontiguousarray(r) for r in random]
    _core.combine(inputs, params.column_matrices(servers), outs, 1)
    return dict(zip(servers, outs, strict=True))


def batch_schedules(
    server_key: bytes,
    nonces: Sequence[bytes],
    dims: Sequence[int],
    rows: Sequence[int],
    k: int,
    *,
    threads: int | None = None,
) -> _core.KeySchedules:
    """AES key schedules of many batches of one owner at a key server; native memory, wiped when freed.

    ``server_key`` is secret; nonces, dims and original row counts as uploaded.
    """
    infos = [schedule.batch_info(n, k, d, r) for n, d, r in zip(nonces, dims, rows, strict=True)]
    return _core.KeySchedules(server_key, _infos(infos), threads or 0)


@dataclasses.dataclass(frozen=True)
class Run:
    """Rows of several batches in the order of the answers: (R,) int64 schedule numbers, first rows, counts."""

    index: np.ndarray
    first_row: np.ndarray
    count: np.ndarray


def key_server_product(
    schedules: _core.KeySchedules, run: Run, columns: np.ndarray, out: np.ndarray, *, threads: int | None = None
) -> None:
    """A key server's product, from keys alone: keystream rows times columns, made in registers, never stored.

    Parameters
    ----------
    schedules : of one owner's batches
    run : which rows, in which order
    columns : (B, D) words
    out : (B, N) words, N the total of ``run.count``; rows may be strided
    """
    _core.keystream_matmul(schedules, run.index, run.first_row, run.count, columns, out, threads or 0)


def key_server_rows(schedules: _core.KeySchedules, run: Run, params: Params, dim: int) -> np.ndarray:
    """What a key server adds to stored rows to get plain ones: minus the keystream, (N, dim) words; secret.

    N is the total of ``run.count``. For the homomorphic scheme, where rows are stored as c = x + p mod 2^k: this is -p.
    """
    return np.negative(key_server_words(schedules, run, params, dim)[:, :dim])


def key_server_words(schedules: _core.KeySchedules, run: Run, params: Params, dim: int) -> np.ndarray:
    """A key server's share of rows: their keystream, (N, D) words; secret."""
    width = params.padded(dim)
    blocks = width * params.k // 128
    out = np.empty((int(run.count.sum()), width), params.dtype)
    start = 0
    for segment, first, count in zip(run.index.tolist(), run.first_row.tolist(), run.count.tolist(), strict=True):
        _core.keystream_words(schedules, segment, first * blocks, out[start : start + count].reshape(-1))
        start += count
    return out


def add_zero_share(
    answers: np.ndarray,
    server: int,
    servers: Sequence[int],
    pair_keys: Mapping[int, bytes],
    header: bytes,
    nonces: np.ndarray,
    rows: np.ndarray,
    *,
    first: int = 0,
    threads: int | None = None,
) -> None:
    """Add server ``server``'s zero share to its answers, in place.

    Parameters
    ----------
    answers : (B, N) words, N the sum of ``rows``
    server, servers : this one, and all that take part
    pair_keys : other server -> 32 secret bytes shared with it
    header : 32 bytes, hash of the query's header: no two headers share a mask
    nonces : (S, 16) uint8 batch nonces in the order of the answers
    rows : (S,) int64, row count of each batch: all of it, or of the first and last the part that is answered
    first : row of the first batch that the answers begin with. A row's mask depends on header, query, batch and row
        alone, so the answers to some rows are those rows' part of the whole answer, bit for bit

    Over ``servers`` the shares add to zero; without one of them the rest is uniformly random.
    """
    step = max(1, _INFOS_AT_ONCE // max(1, len(nonces)))
    for start in range(0, len(answers), step):
        part = range(start, min(start + step, len(answers)))
        infos = schedule.zero_infos(header, nonces, part)
        for other in servers:
            if other != server:
                out = answers[part.start : part.stop]
                _core.zero_share_add(out, pair_keys[other], infos, rows, other < server, threads or 0, first)


def reconstruct(answers: Sequence[np.ndarray], *, threads: int | None = None) -> np.ndarray:
    """Scores (B, N) int64 from the 2t+1 answers (B, N) of one query: their sum mod 2^k, read as signed."""
    if not isinstance(answers, (list, tuple)) or not answers or not isinstance(answers[0], np.ndarray):
        raise DTypeError("answers must be a list of arrays")
    out = np.empty(answers[0].shape, np.int64)
    _core.reconstruct(list(answers), out, threads or 0)
    return out


def top_k(
    answers: Sequence[np.ndarray],
    k: int,
    *,
    low: int = int(_INT64.min),
    high: int = int(_INT64.max),
    threads: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The k best rows from the answers: row numbers (B, k) and scores (B, k), best first, ties by smaller row.

    Rows whose scores are not ``low`` to ``high`` are dropped: they stand behind all others, by row, with score -2^63,
    and only if fewer than k rows are left. Runs at the user, who knows the scores; its time depends on them.
    """
    rows, scores = _core.reconstruct_top_k_var(list(answers), k, threads or 0, low=low, high=high)
    return rows, scores


class RunningTopK:
    """The k best rows of B queries over answers that come some rows at a time, in row order.

    The same result as :func:`top_k` of all at once: ``rows`` and ``scores`` (B, k) int64, best first, ties by smaller
    row. Of fewer than k rows so far, the first ``seen`` columns count. ``low`` and ``high`` as for :func:`top_k`.
    """

    def __init__(self, queries: int, k: int, *, low: int = int(_INT64.min), high: int = int(_INT64.max)) -> None:
        if queries < 0 or k < 1:
            raise ParameterError(f"k must be a positive integer, not {k!r}")
        self.k, self.seen, self.low, self.high = k, 0, low, high
        self.rows, self.scores = np.empty((queries, k), np.int64), np.empty((queries, k), np.int64)

    def add(self, answers: Sequence[np.ndarray], *, threads: int | None = None) -> None:
        """Rank the next rows: their 2t+1 answers, (B, n) words each. Its time depends on the scores."""
        best = self.rows, self.scores
        _core.reconstruct_top_k_var(list(answers), self.k, threads or 0, self.seen, best, self.low, self.high)
        self.seen += answers[0].shape[1]


def _infos(infos: Sequence[bytes]) -> np.ndarray:
    return np.frombuffer(b"".join(infos), np.uint8).reshape(len(infos), -1)
