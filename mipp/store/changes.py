"""The rules by which a change becomes visible on all servers or on none. Pure functions; the store applies them.

An owner's changes (uploads, deletes, merges) form one chain. Each server moves a change through these states::

    none -> reserved -> prepared -> accepted -> committed
      \\________\\__________\\___________\\______-> aborted

PREPARE reserves the name and brings the files. COMMIT, signed by the owner for all servers, names the position in the
chain, the view (hash of the history) before and after, and what each server was given. A server that can follow
*accepts*: a durable, signed vote for exactly this COMMIT. Equal accepting votes of all servers at their current
incarnations are the *certificate*: the change is committed. A server that has not accepted may refuse for ever
(*never*), and one such vote aborts the change everywhere. So no two servers can end differently, whoever dies when; a
server that accepted waits for the others' votes. After a restore from a backup (over a network, after each start) a
server has a new incarnation, and its votes of earlier ones count no more. Before it votes again every peer noted that,
and told it, after a restore, what is refused.

The rules were explored exhaustively (``tests/store/test_change_model.py`` explores these very functions).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from ..rpc.chain import Vote

__all__ = [
    "ABORTED",
    "ACCEPTED",
    "COMMITTED",
    "NONE",
    "OPEN",
    "PREPARED",
    "RESERVED",
    "at_commit",
    "may_refuse",
    "outcome",
    "refusals",
    "valid_after_restore",
]

NONE, RESERVED, PREPARED, ACCEPTED, COMMITTED, ABORTED = (
    "none", "reserved", "prepared", "accepted", "committed", "aborted",
)  # fmt: skip
#: states in which the outcome is open
OPEN = (RESERVED, PREPARED, ACCEPTED)


# --- what a server does -------------------------------------------------------------------------------------------


def at_commit(
    state: str, accepted: bytes, commit: bytes, position: int, parent: bytes, head: tuple[int, bytes], rival: bool
) -> str:
    """Decide on a COMMIT.

    Parameters
    ----------
    state : of the change at this server
    accepted : hash of the COMMIT that it accepted, if it did
    commit, position, parent : of this COMMIT
    head : position and view of the last committed change of this owner here
    rival : whether another change of this owner is accepted here and undecided

    Returns
    -------
    str
        ``"accept"``; ``"recorded"``: say again what was said; ``"never"``: refuse for ever; ``"unknown"``: nothing was
        prepared under this name; ``"conflict"``: another COMMIT of the same change was accepted; ``"behind"``: changes
        before this one are missing here, so no vote now.
    """
    if state == ABORTED:
        return "recorded"
    if state in (ACCEPTED, COMMITTED):
        return "recorded" if accepted == commit else "conflict"
    if state != PREPARED:
        return "unknown"
    if position > head[0] + 1:
        return "behind"
    # a place that is taken, or may be, is never given again: waiting for each other could last for ever
    return "accept" if (position, parent) == (head[0] + 1, head[1]) and not rival else "never"


def may_refuse(state: str) -> bool:
    """Whether a server may still vote "never"."""
    return state in (NONE, RESERVED, PREPARED)


def outcome(
    commit: bytes, servers: Sequence[int], votes: Iterable[Vote], incarnations: Mapping[int, int]
) -> str | None:
    """COMMITTED, ABORTED, or None while it is open.

    Parameters
    ----------
    commit : hash of the COMMIT that this server accepted
    servers : all that the change is written to
    votes : all that are known, also its own
    incarnations : the highest known of each server; votes of earlier ones do not count
    """
    known = set(votes)
    if any(v.server in servers for v in refusals(known, incarnations)):
        return ABORTED
    have = {v.server for v in known if v.commit == commit and v.incarnation == incarnations.get(v.server, 0)}
    return COMMITTED if have.issuperset(servers) else None


def refusals(votes: Iterable[Vote], incarnations: Mapping[int, int]) -> list[Vote]:
    """Votes that refuse for ever.

    One of an earlier incarnation counts no more: its server may have forgotten it. Whoever heard it in time refuses,
    too, and told the server so before it voted again.
    """
    return [v for v in votes if not v.accepts and v.incarnation >= incarnations.get(v.server, 0)]


def valid_after_restore(votes: Iterable[Vote], server: int, incarnation: int) -> list[Vote]:
    """Votes on an open change that still count when ``server`` was restored and is at ``incarnation`` now."""
    return [v for v in votes if v.server != server or v.incarnation >= incarnation]
