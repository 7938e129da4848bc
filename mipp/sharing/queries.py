"""A user's side: queries to query shares."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from .._native import _core
from ..crypto import schedule
from ..params import Params
from . import constants
from .words import as_words

__all__ = ["query_shares"]


def query_shares(queries: np.ndarray, params: Params, servers: Sequence[int] | None = None) -> dict[int, np.ndarray]:
    """Share queries between 2t+1 servers, with fresh randomness of the operating system.

    Parameters
    ----------
    queries : array_like of int, shape (B, dim)
        Integers that fit the ring. Secret.
    params : Params
        Parameters of the deployment, of the scheme ``shares``.
    servers : sequence of int, optional
        All key centres and t+1 clouds; default: the first t+1 clouds.

    Returns
    -------
    dict of int to ndarray, shape (B, D), dtype of the ring
        One query share for each server, of B D words, D being ``params.padded(dim)``. Any t of them together are
        uniformly random, padding included.

    Raises
    ------
    DTypeError, ShapeError
        The queries are not integers, or not a matrix.
    ParameterError
        An integer does not fit the ring, or the servers are not all key centres and t+1 clouds.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.params import Params
    >>> from mipp.sharing import query_shares
    >>> shares = query_shares(np.array([[5, -1, 2]]), Params())
    >>> {server: share.shape for server, share in shares.items()}
    {1: (1, 4), 2: (1, 4), 3: (1, 4)}
    """
    chosen = params.check_servers(
        servers if servers is not None else params.clouds[: params.t + 1] + params.key_centres
    )
    words = as_words(queries, params, "queries")
    shape = (params.t, len(words), params.padded(words.shape[1]))
    raw = schedule.random_bytes(int(np.prod(shape)) * params.ring_bits // 8)
    return _query_shares(words, np.frombuffer(raw, params.dtype).reshape(shape), params, chosen)


def _query_shares(
    words: np.ndarray, random: np.ndarray, params: Params, servers: tuple[int, ...]
) -> dict[int, np.ndarray]:
    """Share queries with given random words (t, B, D), for :func:`query_shares` and known answers."""
    b, dim = words.shape
    padded = np.zeros((b, params.padded(dim)), params.dtype)
    padded[:, :dim] = words
    outs = [np.empty_like(padded) for _ in servers]
    inputs = [padded] + [np.ascontiguousarray(r) for r in random]
    _core.combine(inputs, constants.query_matrices(params, servers), outs, 1)
    return dict(zip(servers, outs, strict=True))
