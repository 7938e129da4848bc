"""Limits of what a server gives one party or one request. Everything beyond is refused with a typed error.

A request's limits are checked before memory is taken for it; a party's are on its :class:`Card`.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["MAX_ANSWER_BYTES", "MAX_QUERIES", "MAX_RANKED_BYTES", "MAX_RANKED_HITS", "Card"]

#: queries under one header
MAX_QUERIES = 1 << 16
#: score shares that one request is answered with; a user that wants more asks for some rows at a time
MAX_ANSWER_BYTES = 1 << 27
#: score shares of a batch of queries that the servers rank together (one query alone may have more rows); comparing
#: needs some eight times as much
MAX_RANKED_BYTES = 1 << 26
#: hits (queries times k) of one ranking
MAX_RANKED_HITS = 1 << 22


@dataclass(frozen=True)
class Card:
    """Limits of one party at a server.

    Parameters
    ----------
    rows, bytes : that an owner may store, shares and images together; None without limit
    concurrent : requests under way at once
    """

    rows: int | None = None
    bytes: int | None = None
    concurrent: int = 256
