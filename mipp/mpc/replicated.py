"""Replicated sharing among three parties: resharing, AND exchange, opening.

x = x_1 + x_2 + x_3 (words mod 2^64 or less, or planes with XOR); party a lacks x_a and holds lo = x_(a+1) and
hi = x_(a+2), cyclic. K_c is the key of the two parties that know x_c. A zero share is F(K_(a+1)) -+ F(K_(a+2)): over
the three parties it adds to zero, and one mask of each party is unknown to each other party.

Source: Araki, Furukawa, Lindell, Nof, Ohara, "High-Throughput Semi-Honest Secure Three-Party Computation with an
Honest Majority", CCS 2016. Leakage: none; every message is masked by keystream that its receiver lacks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from ..errors import ProtocolError
from . import kernels as local
from .link import PARTIES
from .session import Arrays, Incoming, Outgoing, Party

__all__ = [
    "Pair", "UserShare", "open_to_all", "open_words", "open_words_along", "reshare_words", "send_back", "together",
]  # fmt: skip


class Pair(NamedTuple):
    """One party's two summands; each alone is uniform."""

    lo: np.ndarray
    hi: np.ndarray

    def __repr__(self) -> str:
        return f"Pair{self.lo.shape}"


def reshare_words(party: Party, words: np.ndarray) -> Pair:
    """Additive shares (n,) of any unsigned dtype to replicated ones, sums mod the dtype's ring.

    Cost: 1 round, n words per party. Each party sends its share plus its zero share to the previous party.
    """
    return send_back(party, "reshare", _masked(party, words, "reshare"))


def _masked(party: Party, words: np.ndarray, purpose: str) -> np.ndarray:
    """An additive share (n,) plus this party's zero share: uniform to whoever lacks one of its two masks."""
    plus, minus = party.zero_keys(purpose)
    mask = local.keystream(plus, len(words), words.dtype, party.threads)
    np.add(mask, words, out=mask)
    np.subtract(mask, local.keystream(minus, len(words), words.dtype, party.threads), out=mask)
    return mask


def send_back(party: Party, kind: str, mine: np.ndarray) -> Pair:
    """Masked additive parts (of a product, of a resharing) become replicated: mine to the previous party.

    Cost: 1 round, ``mine`` sent and as much received.
    """
    got = party.exchange(kind, {party.previous: [mine]}, {party.next: [(mine.size, mine.dtype.type)]})
    return Pair(mine, got[party.next][0].reshape(mine.shape))


def open_to_all(party: Party, mine: np.ndarray) -> np.ndarray:
    """The XOR of all parties' masked additive planes (W,), at every party. Cost: 1 round, 2 W words sent."""
    spec = [(len(mine), np.uint64)]
    got = party.exchange("open", {p: [mine] for p in party.peers}, dict.fromkeys(party.peers, spec))
    bits = got[party.next][0] ^ got[party.previous][0] ^ mine
    party.note_opened(bits)
    return bits


def open_words(party: Party, words: np.ndarray) -> np.ndarray:
    """The sums of all parties' additive shares (n,), mod the dtype's ring, at every party. Cost: 1 round, 2 n words."""
    mine, outgoing, incoming = _opening(party, words, "open")
    return _opened(party, mine, party.exchange("open", outgoing, incoming))


def open_words_along(party: Party, words: np.ndarray, kind: str, then: Callable[[np.ndarray], None]) -> None:
    """As :func:`open_words`, with the next round's messages: ``then`` gets the sums before that round ends."""
    mine, outgoing, incoming = _opening(party, words, kind)
    party.along(kind, outgoing, incoming, lambda got: then(_opened(party, mine, got)))


def _opening(party: Party, words: np.ndarray, kind: str) -> tuple[np.ndarray, Outgoing, Incoming]:
    mine = _masked(party, words, kind)
    spec = [(len(mine), mine.dtype.type)]
    return mine, {p: [mine] for p in party.peers}, dict.fromkeys(party.peers, spec)


def _opened(party: Party, mine: np.ndarray, got: Arrays) -> np.ndarray:
    total = got[party.next][0] + got[party.previous][0] + mine
    party.note_opened(total)
    return total


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class UserShare:
    """One server's part of a result, for the user. ``words`` is uniform without the other two servers' parts.

    ``session`` and ``parameters`` are 32 bytes each; parts of different ones do not combine.
    """

    server: int
    session: bytes
    parameters: bytes
    queries: int
    rows: int
    words: np.ndarray

    def __repr__(self) -> str:
        return f"UserShare(server={self.server}, queries={self.queries}, rows={self.rows}, words hidden)"


def together(shares: Sequence[UserShare]) -> list[UserShare]:
    """The parts of servers 1, 2, 3 of one session; ProtocolError for anything else: no partial result."""
    ordered = sorted(shares, key=lambda s: s.server)
    if [s.server for s in ordered] != list(PARTIES):
        raise ProtocolError("the user's parts: a result needs exactly one part of each of the three servers")
    first = ordered[0]
    for s in ordered[1:]:
        if (s.session, s.parameters, s.queries, s.rows) != (
            first.session,
            first.parameters,
            first.queries,
            first.rows,
        ) or s.words.shape != first.words.shape:
            raise ProtocolError("the user's parts: parts of different sessions do not combine")
    return ordered
