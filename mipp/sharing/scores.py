"""Score shares: zero shares that servers add, and the user's way from score shares to scores and ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .._native import _core
from ..crypto import schedule
from ..errors import DTypeError, ParameterError
from ._renamed import renamed

__all__ = ["RunningTopK", "add_zero_share", "reconstruct", "top_k"]

_INFOS_AT_ONCE = 1 << 19
_INT64 = np.iinfo(np.int64)


@renamed(answers="score_shares")
def add_zero_share(
    score_shares: np.ndarray,
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
    """Add a server's zero share to its score shares, in place.

    Over all ``servers`` the zero shares add to zero. Without one of them, the other score shares are uniformly random.

    Parameters
    ----------
    score_shares : ndarray, shape (B, N), dtype of the ring
        The server's products; N is the sum of ``rows``. Changed in place.
    server : int
        Number of this server's point (:meth:`mipp.params.Params.point_number`).
    servers : sequence of int
        Numbers of the points of all servers of the query.
    pair_keys : mapping of int to bytes
        For each other server's point, the 32 bytes that both servers share. Secret.
    header : bytes
        Hash of the query's header, 32 bytes. No two headers may be equal.
    nonces : ndarray of uint8, shape (S, 16)
        Nonces of the batches, in the order of the score shares.
    rows : ndarray of int64, shape (S,)
        Number of rows of each batch: all of it, or, for the first and the last, the part that is asked for.
    first : int
        Row of the first batch with which the score shares begin. A row's mask depends on header, query, batch and row
        alone, so score shares of some rows are that part of the whole, bit for bit.
    threads : int, optional
        Native threads; default :func:`mipp.cpu.threads`.

    Raises
    ------
    DTypeError, ShapeError, ParameterError
        Arrays that do not fit together, or a header or key of another length.

    Notes
    -----
    Source: pseudo-random zero sharing, Cramer, Damgard, Ishai, TCC 2005.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.sharing import add_zero_share
    >>> keys = {(1, 2): b"a" * 32, (1, 3): b"b" * 32, (2, 3): b"c" * 32}
    >>> shares = np.zeros((3, 1, 4), np.uint32)  # three servers, one query, four rows
    >>> for i in (1, 2, 3):
    ...     own = {j: keys[min(i, j), max(i, j)] for j in (1, 2, 3) if j != i}
    ...     add_zero_share(shares[i - 1], i, (1, 2, 3), own, b"h" * 32, np.zeros((1, 16), np.uint8), np.array([4]))
    >>> bool(shares[0].any()), shares.sum(axis=0, dtype=np.uint32)
    (True, array([[0, 0, 0, 0]], dtype=uint32))
    """
    step = max(1, _INFOS_AT_ONCE // max(1, len(nonces)))
    for start in range(0, len(score_shares), step):
        part = range(start, min(start + step, len(score_shares)))
        infos = schedule.zero_infos(header, nonces, part)
        for other in servers:
            if other != server:
                out = score_shares[part.start : part.stop]
                _core.zero_share_add(out, pair_keys[other], infos, rows, other < server, threads or 0, first)


@renamed(answers="score_shares")
def reconstruct(score_shares: Sequence[np.ndarray], *, threads: int | None = None) -> np.ndarray:
    """Add the score shares of a query up to scores: their sum modulo 2^ring_bits, read as signed.

    Parameters
    ----------
    score_shares : list of ndarray, shape (B, N), dtype of the ring
        One array from each of the 2t+1 servers. Secret together.
    threads : int, optional
        Native threads; default :func:`mipp.cpu.threads`.

    Returns
    -------
    ndarray of int64, shape (B, N)
        Scores. Secret.

    Raises
    ------
    DTypeError
        Not a list of arrays of ring words.
    ShapeError
        Arrays of different shapes.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.sharing import reconstruct
    >>> reconstruct([np.array([[65535, 7]], np.uint16), np.array([[65534, 1]], np.uint16)])
    array([[-3,  8]])
    """
    if not isinstance(score_shares, (list, tuple)) or not score_shares or not isinstance(score_shares[0], np.ndarray):
        raise DTypeError("score shares must be a list of arrays")
    out = np.empty(score_shares[0].shape, np.int64)
    _core.reconstruct(list(score_shares), out, threads or 0)
    return out


@renamed(answers="score_shares")
def top_k(
    score_shares: Sequence[np.ndarray],
    k: int,
    *,
    low: int = int(_INT64.min),
    high: int = int(_INT64.max),
    threads: int | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Find the k best rows from the score shares of a query.

    Runs at the user, who learns the scores; its time depends on them.

    Parameters
    ----------
    score_shares : list of ndarray, shape (B, N), dtype of the ring
        One array from each of the 2t+1 servers. Secret together.
    k : int
        Number of rows, 1 to N.
    low, high : int
        Range of valid scores. Rows with other scores come after all others, ordered by row, with score -2^63.
    threads : int, optional
        Native threads; default :func:`mipp.cpu.threads`.

    Returns
    -------
    rows : ndarray of int64, shape (B, k)
        Row numbers, best first; among equal scores the smaller row comes first. Secret.
    scores : ndarray of int64, shape (B, k)
        Their scores. Secret.

    Raises
    ------
    DTypeError, ShapeError
        Not a list of arrays of ring words, or arrays of different shapes.
    ParameterError
        ``k`` is out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.sharing import top_k
    >>> rows, scores = top_k([np.array([[5, 9, 9]], np.uint32), np.array([[1, 0, 2]], np.uint32)], 2)
    >>> rows, scores
    (array([[2, 1]]), array([[11,  9]]))
    """
    rows, scores = _core.reconstruct_top_k_var(list(score_shares), k, threads or 0, low=low, high=high)
    return rows, scores


class RunningTopK:
    """The k best rows of B queries, over score shares that come some rows at a time in row order.

    The result equals that of :func:`top_k` for all rows at once.

    Parameters
    ----------
    queries : int
        B, the number of queries.
    k : int
        Number of rows for each query.
    low, high : int
        As for :func:`top_k`.

    Attributes
    ----------
    rows, scores : ndarray of int64, shape (B, k)
        Row numbers and scores so far, best first. If fewer than k rows were seen, the first ``seen`` columns count.
        Secret.
    seen : int
        Number of rows so far.
    k, low, high : int
        As given.

    Raises
    ------
    ParameterError
        ``queries`` is negative, or ``k`` is not positive.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.sharing import RunningTopK
    >>> best = RunningTopK(1, 2)
    >>> for part in ([[3, 8]], [[9, 1]]):
    ...     best.add([np.array(part, np.uint32), np.zeros((1, 2), np.uint32)])
    >>> best.rows, best.scores, best.seen
    (array([[2, 1]]), array([[9, 8]]), 4)
    """

    def __init__(self, queries: int, k: int, *, low: int = int(_INT64.min), high: int = int(_INT64.max)) -> None:
        if queries < 0 or k < 1:
            raise ParameterError(f"k must be a positive integer, not {k!r}")
        self.k, self.seen, self.low, self.high = k, 0, low, high
        self.rows, self.scores = np.empty((queries, k), np.int64), np.empty((queries, k), np.int64)

    @renamed(answers="score_shares")
    def add(self, score_shares: Sequence[np.ndarray], *, threads: int | None = None) -> None:
        """Rank the next rows. Its time depends on the scores.

        Parameters
        ----------
        score_shares : list of ndarray, shape (B, n), dtype of the ring
            Score shares of the next n rows, one array from each of the 2t+1 servers. Secret together.
        threads : int, optional
            Native threads; default :func:`mipp.cpu.threads`.

        Raises
        ------
        DTypeError, ShapeError
            Not a list of arrays of ring words, or arrays of other shapes.
        """
        best = self.rows, self.scores
        _core.reconstruct_top_k_var(list(score_shares), self.k, threads or 0, self.seen, best, self.low, self.high)
        self.seen += score_shares[0].shape[1]
