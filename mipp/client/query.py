"""One header's worth of queries at the user: what is sent to each server, and what came back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from ..errors import MessageError, ParameterError
from ..mpc.query_proof import commitment, pack, prove
from ..mpc.replicated import UserShare
from ..mpc.session import Public
from ..rpc import messages as m
from ..rpc.description import DeploymentConfig
from .results import Index

__all__ = ["Asked", "Prepared", "parts_of", "range_proof"]


@dataclass(frozen=True, repr=False)
class Prepared:
    """Queries under one header, ready to be sent: each server's salt, column and thresholds, and its part of the proof
    that they are in range; secret."""

    header: list[np.ndarray]
    bound: bytes
    servers: dict[int, tuple[bytes, np.ndarray, np.ndarray]]
    newest: bytes = b""
    proof: Mapping[int, tuple[bytes, np.ndarray]] = field(default_factory=dict)


@dataclass(frozen=True, repr=False)
class Asked:
    """Replies of the servers to some queries, and what they are about."""

    index: Index
    replies: dict[int, Any]
    queries: int
    facts: Public | None
    threshold: bool

    @property
    def public(self) -> Public:
        if self.facts is None:
            raise ParameterError("these are answers, not a ranking")
        return self.facts


def parts_of(asked: Asked) -> list[UserShare]:
    """The servers' parts of a ranking or of match bits."""
    parts = []
    for server, r in asked.replies.items():
        if (
            not isinstance(r, m.Ranked)
            or r.server != server
            or r.queries != asked.queries
            or r.rows != asked.index.total
        ):
            raise MessageError("a server's part of a ranking does not fit the query")
        words = r.words[0] if asked.threshold else r.words
        parts.append(UserShare(r.server, r.session, r.parameters, r.queries, r.rows, words))
    return parts


def range_proof(
    config: DeploymentConfig, servers: Sequence[int], encoded: np.ndarray, ranking: str, theta: int
) -> tuple[list[bytes], dict[int, tuple[bytes, np.ndarray]]]:
    """Commitments of the proof that queries which servers rank are in range, and what each server gets of it.

    Parameters
    ----------
    encoded : (B, encoded_dim) encoded queries; secret
    theta : the threshold of all of them, with ranking "threshold"

    Returns
    -------
    commitments : of the three summands, for the header; none if the user ranks
    parts : server -> the seeds of its two summands, and the words of the third or none; secret
    """
    if ranking == "user" or not config.certifies:
        return [], {}
    made = prove(config.query_rule, encoded, [theta] * len(encoded) if ranking == "threshold" else None)
    return [commitment(number, made[number]) for number in sorted(made)], {s: pack(made, s) for s in servers}
