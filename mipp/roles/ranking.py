"""The servers' part of ``ranking="server"``: from masked answers to shares of the ranking, for the user alone."""

from __future__ import annotations

import contextlib
from collections.abc import Callable

import numpy as np

from ..encoding import Encoding
from ..errors import AccessDeniedError, ParameterError, ScoreRangeError
from ..protocol import messages as m
from ..protocol.comparison import threshold
from ..protocol.link import Link
from ..protocol.session import Party, Public
from ..protocol.topk import top_k

__all__ = ["TIMEOUT", "public_facts", "rank"]

#: seconds that a server waits for any one message of a peer
TIMEOUT = 60.0
# what one server works out before the peers are needed
Prepared = tuple[np.ndarray, bool]


def public_facts(encoding: Encoding, bound: bytes, snapshot: bytes, rows: int) -> Public:
    """What servers and user agree on for one query; ScoreRangeError when scores could wrap in a comparison."""
    low, high = encoding.score_range
    if not encoding.allows_server_ranking:
        raise ScoreRangeError(
            "score differences of this encoding could leave the ring; use ranking='user', a larger ring or fewer bits"
        )
    if not rows:
        raise ParameterError("the query covers no images")
    return Public(bound, snapshot, rows, encoding.ring_bits, low, high)


def rank(
    index: int,
    pair_keys: dict[int, bytes],
    link: Link,
    header: m.QueryHeader,
    bound: bytes,
    encoding: Encoding,
    prepare: Callable[[], Prepared],
    theta: np.ndarray,
    threads: int | None,
) -> m.Ranked:
    """Run one server's side; a refusal before the first round is told to the peers, so that nobody waits.

    Parameters
    ----------
    index, pair_keys, link : this server, its keys with the others, its way to them
    header, bound : of the query, and its hash
    encoding : of the index
    prepare : checks everything and gives this server's (B, live rows) share of the scores, and whether scores may be
        opened to the user
    theta : (B,) words, share of the thresholds
    threads : native threads
    """
    party = Party(index, pair_keys, link, timeout=TIMEOUT, threads=threads)
    try:
        shares, scores = prepare()
        public = public_facts(encoding, bound, header.snapshot, shares.shape[1])
        if header.ranking == "threshold":
            if theta.shape != (header.queries,) or header.k != 0:
                raise ParameterError("a threshold query has one threshold per query, and k = 0")
        elif theta.size:
            raise ParameterError("only a threshold query has thresholds")
        elif header.k > public.rows:
            raise AccessDeniedError(f"k={header.k} is more than the {public.rows} images that the query covers")
    except BaseException as error:
        with contextlib.suppress(BaseException), party.attempt():
            raise error
        raise
    if header.ranking == "threshold":
        part = threshold(party, shares, public, theta_shares=np.ascontiguousarray(theta))
    else:
        part = top_k(party, shares, header.k, public, scores=scores)
    words = part.words.reshape(len(part.words) if part.words.ndim == 2 else 1, -1)
    return m.Ranked(part.server, part.session, part.parameters, part.queries, part.rows, words)
