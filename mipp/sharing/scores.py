"""Score shares: zero shares that servers add, and the user's way from score shares to scores and ranks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from .._native import _core
from ..crypto import schedule
from ..errors import DTypeError, ParameterError
from ._renamed import renamed

__all__ = ["RunningTopK", "add_zero_share", "pack_score_shares", "packed_words", "reconstruct", "top_k"]

_INFOS_AT_ONCE = 1 << 19
_INT64 = np.iinfo(np.int64)
#: rows of a query that are packed together (csrc/galois)
_BLOCK = 512


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


def packed_words(rows: int, width: int, ring_bits: int) -> int:
    """Count the words of the ring that one query's packed score shares take.

    Parameters
    ----------
    rows : int
        Number of score shares.
    width : int
        Bits of each that are kept; ``ring_bits`` if they are not packed.
    ring_bits : int
        Bits of a word: 16, 32 or 64.

    Returns
    -------
    int
        Words.

    Examples
    --------
    >>> from mipp.sharing import packed_words
    >>> packed_words(1_000_000, 16, 32), packed_words(10, 17, 32), packed_words(10, 32, 32)
    (500000, 6, 10)
    """
    blocks, rest = divmod(rows, _BLOCK)
    return blocks * (_BLOCK // ring_bits) * width + -(-rest * width // ring_bits)


def pack_score_shares(score_shares: np.ndarray, width: int, *, threads: int | None = None) -> np.ndarray:
    """Cut score shares to their low bits and pack these.

    Low bits of uniformly random words are uniformly random, and they fix the low bits of the sum. So the scores can
    still be added up if each fits ``width`` bits as a signed number, and nothing else is told.

    Parameters
    ----------
    score_shares : ndarray, shape (B, N), dtype of the ring
        One server's score shares.
    width : int
        Bits of each that are kept, 1 to one less than those of a word.
    threads : int, optional
        Native threads; default :func:`mipp.cpu.threads`.

    Returns
    -------
    ndarray, shape (B, packed_words), dtype of the ring
        Each query's by itself.

    Raises
    ------
    DTypeError, ShapeError, ParameterError
        Not an array of ring words; a width out of range.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.sharing import pack_score_shares, reconstruct
    >>> shares = [np.array([[4_000_000_000, 70_000]], np.uint32), np.array([[294_967_291, 20]], np.uint32)]
    >>> packed = [pack_score_shares(share, 18) for share in shares]
    >>> packed[0].shape, reconstruct(packed, width=18, rows=2)
    ((1, 2), array([[   -5, 70020]]))
    """
    if not isinstance(score_shares, np.ndarray) or score_shares.ndim != 2:
        raise DTypeError("score shares must be an array with an axis of queries and one of rows")
    shape = len(score_shares), packed_words(score_shares.shape[1], width, 8 * score_shares.dtype.itemsize)
    out = np.empty(shape, score_shares.dtype)
    _core.pack_answers(score_shares, width, out, threads or 0)
    return out


@renamed(answers="score_shares")
def reconstruct(
    score_shares: Sequence[np.ndarray], *, threads: int | None = None, width: int | None = None, rows: int | None = None
) -> np.ndarray:
    """Add the score shares of a query up to scores: their sum modulo 2^ring_bits or 2^width, read as signed.

    Parameters
    ----------
    score_shares : list of ndarray, shape (B, N) or packed, dtype of the ring
        One array from each of the 2t+1 servers. Secret together.
    threads : int, optional
        Native threads; default :func:`mipp.cpu.threads`.
    width, rows : int, optional
        Of packed score shares (:func:`pack_score_shares`): bits of each, and N.

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
    first = score_shares[0]
    out = np.empty(first.shape if rows is None else (len(first), rows), np.int64)
    _core.reconstruct(list(score_shares), out, threads or 0, width)
    return out


@renamed(answers="score_shares")
def top_k(
    score_shares: Sequence[np.ndarray],
    k: int,
    *,
    low: int = int(_INT64.min),
    high: int = int(_INT64.max),
    threads: int | None = None,
    width: int | None = None,
    rows: int | None = None,
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
    width, rows : int, optional
        As for :func:`reconstruct`.

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
    shares = list(score_shares)
    return _core.reconstruct_top_k_var(shares, k, threads or 0, low=low, high=high, width=width, n=rows)


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
    def add(
        self, score_shares: Sequence[np.ndarray], *, threads: int | None = None, width: int | None = None,
        rows: int | None = None,
    ) -> None:  # fmt: skip
        """Rank the next rows. Its time depends on the scores.

        Parameters
        ----------
        score_shares : list of ndarray, shape (B, n), dtype of the ring
            Score shares of the next n rows, one array from each of the 2t+1 servers. Secret together.
        threads : int, optional
            Native threads; default :func:`mipp.cpu.threads`.
        width, rows : int, optional
            As for :func:`reconstruct`.

        Raises
        ------
        DTypeError, ShapeError
            Not a list of arrays of ring words, or arrays of other shapes.
        """
        best = self.rows, self.scores
        shares, limits = list(score_shares), (self.low, self.high)
        _core.reconstruct_top_k_var(shares, self.k, threads or 0, self.seen, best, *limits, width, rows)
        self.seen += shares[0].shape[1] if rows is None else rows
