"""Public facts of a ranking by servers, the same at all three of them and at the user."""

from __future__ import annotations

from ..encoding import Encoding
from ..encoding.bounds import ranking_problem
from ..errors import ParameterError, ScoreRangeError
from ..rpc.description import DeploymentConfig
from .session import Public

__all__ = ["most_rows", "public_facts", "require_ranking", "unrankable"]


def require_ranking(config: DeploymentConfig) -> None:
    """ScoreRangeError if the servers cannot compare scores of this encoding, or cannot check rows and queries."""
    if not config.certifies:
        raise ScoreRangeError(unrankable(config.encoding))


def unrankable(encoding: Encoding) -> str:
    """Why servers cannot rank scores of this encoding, and what to do instead."""
    why = ranking_problem(encoding) or "servers do not rank in this deployment"
    return f"{why}; rank as the user, or make the index with a larger ring, fewer bits or larger steps"


def most_rows(config: DeploymentConfig, *, probed: bool = False) -> int:
    """Rows of which servers can find the nearest: scores and row numbers share the 64 bits of a key.

    ``probed``: of chosen clusters, where there is a score below the least.
    """
    rule = config.query_rule
    return 1 << (64 - (rule.high - rule.low + probed).bit_length() - 1)


def public_facts(
    config: DeploymentConfig, header_hash: bytes, snapshot: bytes, rows: int, *, probed: bool = False
) -> Public:
    """Facts of one query on which servers and user agree; ScoreRangeError when scores could wrap in a comparison.

    Parameters
    ----------
    header_hash : of the query's header, 32 bytes
    snapshot : hash of the state of the index that the query names, 32 bytes
    rows : live rows that the query covers, or scores of a query with chosen clusters
    probed : whether it has such: then deleted rows of a cluster have the score below the least
    """
    require_ranking(config)
    if not rows:
        raise ParameterError("the query covers no images")
    rule = config.query_rule
    return Public(header_hash, snapshot, rows, rule.ring_bits, rule.low - probed, rule.high)
