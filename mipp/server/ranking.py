"""One ranking by the servers: what is checked before, and one server's part from score shares to result."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from ..errors import AccessDeniedError, BusyError, LimitError, ParameterError
from ..io.memory import memory_bytes
from ..mpc.comparison import threshold
from ..mpc.cost import Cost, threshold_memory, top_k_memory
from ..mpc.facts import public_facts
from ..mpc.link import Link, PlacedLink
from ..mpc.probed import ProbedRows
from ..mpc.session import Counters, Party, Public
from ..mpc.topk import KeyRoom, top_k
from ..mpc.waiting import threshold_room, top_k_room
from ..rpc import messages as m
from ..rpc.description import DeploymentConfig

__all__ = [
    "TIMEOUT",
    "MemoryBudget",
    "Prepared",
    "check_ranking",
    "rank",
    "ranking_memory",
    "require_covered",
    "seated",
]

#: seconds that a server waits for any one message of a peer; where all rows are worked on, one more for so many scores
TIMEOUT, SCORES_A_SECOND = 60.0, 250_000


class Prepared(NamedTuple):
    """What a server has ready before the first round of a ranking; secret, but for ``scores`` and ``public``.

    ``shares``: of the scores. ``scores``: whether the user gets them. ``zero``: shares of what is zero for a query in
    range. ``fill``: writes the score shares, where the servers make query shares first; ``probed``: what that costs;
    ``products``: rows that are multiplied then.
    """

    shares: np.ndarray | KeyRoom
    scores: bool
    public: Public
    zero: np.ndarray | None
    fill: Callable[[Party], None] | None = None
    probed: Cost | None = None
    products: int = 0


def check_ranking(
    header: m.QueryHeader, header_hash: bytes, config: DeploymentConfig, theta: np.ndarray, rows: int,
    probed: ProbedRows | None = None,
) -> Public:  # fmt: skip
    """Refuse a k or thresholds that do not fit the query; nothing is computed.

    Parameters
    ----------
    header, header_hash : of the query, and its hash
    config : of the deployment
    theta : (B,) words, share of the thresholds, or (0,)
    rows : live rows that the query covers
    probed : scores of a query that chooses clusters
    """
    if probed is not None:
        probed.require(header.k)
        rows = probed.scores
    public = public_facts(config, header_hash, header.snapshot, rows, probed=probed is not None)
    if header.ranking == "threshold":
        if theta.shape != (header.queries,) or header.k != 0:
            raise ParameterError("a threshold query has one threshold per query, and k = 0")
    elif theta.size:
        raise ParameterError("only a threshold query has thresholds")
    else:
        require_covered(header, rows)
    needed = ranking_memory(public, header, config, probed)
    if needed > memory_bytes():
        raise LimitError(
            f"ranking {rows} rows takes {needed >> 20} MiB at each server, more than one has: use ranking='user'"
        )
    return public


def require_covered(header: m.QueryHeader, rows: int) -> None:
    """AccessDeniedError for a k beyond the live rows that a query covers."""
    if header.k > rows:
        raise AccessDeniedError(f"k={header.k} is more than the {rows} images that the query covers")


class MemoryBudget:
    """Memory that rankings of one server take together: at most what it has. One that is too many ends as busy."""

    def __init__(self) -> None:
        self._lock, self._held = threading.Lock(), 0

    @contextlib.contextmanager
    def held(self, size: int) -> Iterator[None]:
        """Hold so many bytes; BusyError if other rankings leave too little."""
        with self._lock:
            if self._held and self._held + size > memory_bytes():
                raise BusyError(f"other rankings hold this server's memory; this one takes {size >> 20} MiB")
            self._held += size
        try:
            yield
        finally:
            with self._lock:
                self._held -= size


def ranking_memory(public: Public, header: m.QueryHeader, config: DeploymentConfig, probed: ProbedRows | None) -> int:
    """Bytes that a server holds at once for a ranking."""
    if header.ranking == "threshold":
        return threshold_memory(public, header.queries)
    more = 0 if probed is None else probed.memory(header.queries, config.query_rule)
    return top_k_memory(public, header.queries, header.k) + more


def seated(
    index: int, servers: Sequence[int], pair_keys: Mapping[int, bytes], link: Link, threads: int | None
) -> Party:
    """This server as a party of a protocol.

    Parameters
    ----------
    index : this server
    servers : that take part, in the order of their parts (:meth:`mipp.params.Params.parties`)
    pair_keys : this server's keys with the others, by number; secret
    link : this server's way to the others, for one attempt
    threads : native threads
    """
    place = {server: number for number, server in enumerate(servers, 1)}
    keys = {place[server]: key for server, key in pair_keys.items() if server in place}
    return Party(place[index], keys, PlacedLink(link, servers), timeout=TIMEOUT, threads=threads)


def rank(
    index: int,
    servers: Sequence[int],
    pair_keys: Mapping[int, bytes],
    link: Link,
    header: m.QueryHeader,
    prepare: Callable[[], Prepared],
    theta: np.ndarray,
    threads: int | None,
    ended: Callable[[Counters, float, str], None] | None = None,
) -> m.Ranked:
    """Run one server's side; a refusal before the first round is told to the peers, so that nobody waits.

    Parameters
    ----------
    index, servers, pair_keys, link : as of :func:`seated`
    header : of the query
    prepare : charges the quota and gives this server's (B, live rows) share of the scores (for the nearest, where their
        keys will be), whether scores may be opened
        to the user, what :func:`check_ranking` returned, and its shares of what is zero for a query in range
    theta : (B,) words, share of the thresholds
    threads : native threads
    ended : called at the end with what was sent, the seconds it took, and ``ok`` or the type of the error
    """
    party, began, outcome = seated(index, servers, pair_keys, link, threads), time.perf_counter(), "ok"
    try:
        return _rank(party, index, header, prepare, theta)
    except BaseException as error:
        outcome = type(error).__name__
        raise
    finally:
        if ended is not None:
            ended(party.counters, time.perf_counter() - began, outcome)


def _rank(
    party: Party, index: int, header: m.QueryHeader, prepare: Callable[[], Prepared], theta: np.ndarray
) -> m.Ranked:
    try:
        ready = prepare()
        shares, scores, public, zero = ready[:4]
    except BaseException as error:
        party.fail(error)
        raise
    party.counters.lap("product")
    # a peer may still read its rows, and large messages take their time
    party.slow = header.queries * max(public.rows, ready.products) / SCORES_A_SECOND
    check_bits = 0 if zero is None else 8 * zero.dtype.itemsize
    # no peer sends more than its first round before this server's: until then little may wait
    if header.ranking == "threshold":
        assert isinstance(shares, np.ndarray)
        party.link.expect(threshold_room(public, header.queries, check_bits))
        part = threshold(party, shares, public, theta_shares=np.ascontiguousarray(theta), zero=zero)
    else:
        party.link.expect(top_k_room(public, header.queries, header.k, check_bits, ready.probed))
        part = top_k(party, shares, header.k, public, scores=scores, zero=zero, fill=ready.fill)
    words = part.words.reshape(len(part.words) if part.words.ndim == 2 else 1, -1)
    return m.Ranked(index, part.session, part.parameters, part.queries, part.rows, words)
