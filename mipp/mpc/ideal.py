"""The ideal functionality: the same results in the clear, behind the same interface.

A trusted third party that gets the three servers' shares and answers the user. For tests, and to see what the protocols
must compute; it protects nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ..encoding.bounds import QueryRule, RowRule
from ..errors import OutOfRangeError, ParameterError, ScoreRangeError
from ..params import Params
from ..sharing import constants
from .link import PARTIES
from .session import Public

__all__ = ["check_queries", "matches", "open_scores", "probed_scores", "ranking", "refused_rows"]


def open_scores(shares: Sequence[np.ndarray], public: Public) -> np.ndarray:
    """Scores (B, N) int64 from the three servers' (B, N) or (N,) shares; ScoreRangeError outside the public range."""
    first, second, third = (public.words(s) for s in shares)
    total = (first + second + third).view(f"<i{public.ring_bits // 8}").astype(np.int64)
    if int(total.min()) < public.low or int(total.max()) > public.high:
        raise ScoreRangeError("a score outside the declared range")
    return total


def ranking(
    shares: Sequence[np.ndarray], k: int, public: Public, *, scores: bool = True
) -> tuple[np.ndarray, np.ndarray | None]:
    """The result of :func:`mipp.mpc.topk.combine_top_k`: rows (B, k), best first, ties by smaller row; scores."""
    if not 1 <= k <= public.rows:
        raise ParameterError(f"k must be from 1 to {public.rows}, not {k!r}")
    clear = open_scores(shares, public)
    rows = np.stack([np.lexsort((np.arange(public.rows), ~s))[:k] for s in clear])
    return rows, np.take_along_axis(clear, rows, 1) if scores else None


def matches(shares: Sequence[np.ndarray], theta: int | Sequence[int], public: Public) -> np.ndarray:
    """The result of :func:`mipp.mpc.comparison.combine_matches`: (B, N) bool, score >= theta."""
    clear = open_scores(shares, public)
    return clear >= np.broadcast_to(np.asarray(theta, np.int64).reshape(-1, 1), (len(clear), 1))


def probed_scores(rows: np.ndarray, queries: np.ndarray, chosen: np.ndarray) -> np.ndarray:
    """The scores that products with :func:`mipp.mpc.probes.probe_shares` are shares of, (B, groups * slots) int64.

    ``rows`` (groups, slots, size, D), ``queries`` (B, D), ``chosen`` (B, groups), all in the clear.
    """
    groups = np.arange(len(rows))
    found = [
        np.einsum("gjd,d->gj", rows[groups, :, some], q).reshape(-1) for q, some in zip(queries, chosen, strict=True)
    ]
    return np.asarray(np.stack(found), np.int64)


def refused_rows(words: Mapping[int, np.ndarray], rule: RowRule, params: Params) -> np.ndarray:
    """The rows that :func:`mipp.mpc.certificate.certify_rows` refuses, from all three servers' words (N, D)."""
    clear = _mapped([words[1], words[2]], constants.row_weights(params))
    apart = _mapped([words[i] for i in PARTIES], constants.row_degree_matrices(params))
    return np.flatnonzero(rule.failing(_signed(clear)) | apart.any(axis=1))


def check_queries(
    query_shares: Mapping[int, np.ndarray], rule: QueryRule, params: Params, thetas: Sequence[int] = (),
    servers: Sequence[int] | None = None,
) -> None:  # fmt: skip
    """OutOfRangeError for what :func:`mipp.mpc.query_proof.check_relations` refuses, from all parties' query shares
    (B, D); ``servers``: of the query, default the first that can be."""
    apart = _mapped([query_shares[i] for i in PARTIES], constants.query_degree_matrices(params, servers))
    parties = params.parties(servers)
    parts = constants.query_parts(params, servers)
    first, *others = (query_shares[parties.index(i) + 1] for i in parts)
    clear = sum(others, first)
    outside = any(not 0 <= t - rule.low < 1 << rule.theta_bits for t in thetas)
    if outside or apart.any() or rule.failing(_signed(clear)).any():
        raise OutOfRangeError("a query is out of the encoding's range")


def _mapped(inputs: list[np.ndarray], matrices: np.ndarray) -> np.ndarray:
    """Sum over the inputs of each element (m words) times the input's matrix."""
    m = matrices.shape[1]
    total = sum(x.reshape(-1, m) @ matrix.T for x, matrix in zip(inputs, matrices, strict=True))
    return np.asarray(total).reshape(inputs[0].shape)


def _signed(words: np.ndarray) -> np.ndarray:
    return words.view(f"<i{words.dtype.itemsize}").astype(np.int64)
