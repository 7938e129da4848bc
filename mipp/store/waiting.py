"""Which changes are open at a server, and which other servers' word is missing."""

from __future__ import annotations

from dataclasses import dataclass

from ..rpc.chain import unpack_votes
from . import changes as rules
from .ledger import Ledger

__all__ = ["WaitingChange", "waiting"]


@dataclass(frozen=True)
class WaitingChange:
    """A change that is open. ``servers``: those whose votes are missing; empty if its owner's COMMIT is."""

    owner: bytes
    op: bytes
    state: str
    servers: tuple[int, ...]


def waiting(ledger: Ledger) -> list[WaitingChange]:
    """All changes that are open at a server.

    Parameters
    ----------
    ledger : Ledger
        Of the server.
    """
    out = []
    seen = dict(ledger.catalog.all("SELECT server, incarnation FROM peers"))
    seen[ledger.server] = ledger.incarnation
    for owner, op, state, commit, digest, votes in ledger.catalog.all(
        "SELECT owner, op, state, commit_frames, commit_hash, votes FROM changes "
        "WHERE state NOT IN ('committed', 'aborted')"
    ):
        missing: tuple[int, ...] = ()
        if state == rules.ACCEPTED and commit:
            current = [v for v in unpack_votes(votes) if v.incarnation == seen.get(v.server, 0)]
            have = {v.server for v in current if v.commit == digest}
            missing = tuple(s for s in ledger.parse(commit).servers if s not in have)
        out.append(WaitingChange(owner, op, state, missing))
    return out
