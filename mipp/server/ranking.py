"""One ranking by the servers: its checks, one server's part from score shares to result, and how a user collects it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from ..client.client import Client
from ..encoding import Encoding
from ..encoding.bounds import ranking_problem
from ..errors import AccessDeniedError, BusyError, ParameterError, ProtocolError, ScoreRangeError
from ..mpc.comparison import threshold
from ..mpc.link import Link
from ..mpc.session import Party, Public
from ..mpc.topk import top_k
from ..rpc import messages as m
from ..rpc.description import DeploymentConfig

__all__ = [
    "TIMEOUT",
    "check_ranking",
    "collect_pending",
    "collect_ranked",
    "most_rows",
    "public_facts",
    "rank",
    "require_ranking",
    "retry_busy",
    "unrankable",
]

#: seconds that a server waits for any one message of a peer
TIMEOUT = 60.0
#: seconds that a user asks for a ranking that the servers say is not finished
PATIENCE = 900.0
#: milliseconds between two such questions, at most
MAX_PAUSE = 2000
#: seconds that a user retries while servers are busy
BUSY_PATIENCE = 15.0
# score shares, whether the user gets scores, the public facts, shares of what is zero for a query in range
Prepared = tuple[np.ndarray, bool, Public, np.ndarray]
T = TypeVar("T")


def require_ranking(config: DeploymentConfig) -> None:
    """ScoreRangeError if the servers cannot compare scores of this encoding, or cannot check rows and queries."""
    if not config.certifies:
        raise ScoreRangeError(unrankable(config.encoding))


def unrankable(encoding: Encoding) -> str:
    """Why servers cannot rank scores of this encoding, and what to do instead."""
    why = ranking_problem(encoding) or "servers do not rank in this deployment"
    return f"{why}; rank as the user, or make the index with a larger ring, fewer bits or larger steps"


def most_rows(config: DeploymentConfig) -> int:
    """Rows of which servers can find the nearest: scores and row numbers share the 64 bits of a key."""
    rule = config.query_rule
    return 1 << (64 - (rule.high - rule.low).bit_length() - 1)


def public_facts(config: DeploymentConfig, bound: bytes, snapshot: bytes, rows: int) -> Public:
    """What servers and user agree on for one query; ScoreRangeError when scores could wrap in a comparison."""
    require_ranking(config)
    if not rows:
        raise ParameterError("the query covers no images")
    rule = config.query_rule
    return Public(bound, snapshot, rows, rule.ring_bits, rule.low, rule.high)


def check_ranking(
    header: m.QueryHeader, bound: bytes, config: DeploymentConfig, theta: np.ndarray, rows: int
) -> Public:
    """Refuse a k or thresholds that do not fit the query; nothing is computed.

    Parameters
    ----------
    header, bound : of the query, and its hash
    config : of the deployment
    theta : (B,) words, share of the thresholds, or (0,)
    rows : live rows that the query covers
    """
    public = public_facts(config, bound, header.snapshot, rows)
    if header.ranking == "threshold":
        if theta.shape != (header.queries,) or header.k != 0:
            raise ParameterError("a threshold query has one threshold per query, and k = 0")
    elif theta.size:
        raise ParameterError("only a threshold query has thresholds")
    elif header.k > rows:
        raise AccessDeniedError(f"k={header.k} is more than the {rows} images that the query covers")
    return public


def rank(
    index: int,
    pair_keys: dict[int, bytes],
    link: Link,
    header: m.QueryHeader,
    prepare: Callable[[], Prepared],
    theta: np.ndarray,
    threads: int | None,
) -> m.Ranked:
    """Run one server's side; a refusal before the first round is told to the peers, so that nobody waits.

    Parameters
    ----------
    index, pair_keys, link : this server, its keys with the others, its way to them
    header : of the query
    prepare : charges the quota and gives this server's (B, live rows) share of the scores, whether scores may be opened
        to the user, what :func:`check_ranking` returned, and its shares of what is zero for a query in range
    theta : (B,) words, share of the thresholds
    threads : native threads
    """
    party = Party(index, pair_keys, link, timeout=TIMEOUT, threads=threads)
    try:
        shares, scores, public, zero = prepare()
    except BaseException as error:
        party.fail(error)
        raise
    if header.ranking == "threshold":
        part = threshold(party, shares, public, theta_shares=np.ascontiguousarray(theta), zero=zero)
    else:
        part = top_k(party, shares, header.k, public, scores=scores, zero=zero)
    words = part.words.reshape(len(part.words) if part.words.ndim == 2 else 1, -1)
    return m.Ranked(part.server, part.session, part.parameters, part.queries, part.rows, words)


# --- the user's side ----------------------------------------------------------------------------------------------


def collect_ranked(client: Client, bound: bytes, replies: dict[int, Any]) -> dict[int, Any]:
    """Ask the servers that answered ``Pending`` again until each has given its part; replies by server, in order.

    Parameters
    ----------
    client : who asked
    bound : hash of the query's header
    replies : of the servers to the query; those that are not Pending are returned as they are

    Raises
    ------
    ProtocolError
        A server did not finish in ``PATIENCE`` seconds.
    MippError
        The error that ended the ranking.
    """

    def again(servers: list[int]) -> dict[int, Any]:
        requests = {server: client._sign(m.CollectRanking(bound), server) for server in servers}
        return client.channel.gather(requests, together=True)

    return collect_pending(replies, again, "finish the ranking")


def collect_pending(
    replies: dict[int, Any],
    again: Callable[[list[int]], dict[int, Any]],
    doing: str,
    *,
    patience: float | None = None,
    progress: Callable[[m.Pending], None] | None = None,
) -> dict[int, Any]:
    """Ask servers that answered ``Pending`` again, after the pause that they want, until none does; all replies.

    Parameters
    ----------
    replies : by server
    again : asks these servers
    doing : what they are to do, for the error
    patience : seconds after which it is an error; ``PATIENCE`` if not given
    progress : told a server's reply before each pause

    Raises
    ------
    ProtocolError
        A server did not finish in time.
    """
    patience = PATIENCE if patience is None else patience
    until = time.monotonic() + patience
    while pending := {server: r for server, r in replies.items() if isinstance(r, m.Pending)}:
        first = min(pending)
        if time.monotonic() > until:
            raise ProtocolError(f"server {first} did not {doing} in {patience:g} s")
        if progress is not None:
            progress(pending[first])
        time.sleep(min(max(1, *(r.retry_after for r in pending.values())), MAX_PAUSE) / 1000)
        replies = replies | again(sorted(pending))
    return replies


def retry_busy(attempt: Callable[[], T]) -> T:
    """Run ``attempt``; retries with growing pauses while servers have too many requests, for some seconds."""
    until, pause = time.monotonic() + BUSY_PATIENCE, 0.05
    while True:
        try:
            return attempt()
        except BusyError:
            if time.monotonic() > until:
                raise
        time.sleep(pause * random.uniform(0.5, 1.5))
        pause = min(2 * pause, 1.0)
