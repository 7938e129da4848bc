"""The grants that a user received: what it may search, as owners signed it and servers count it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

from ..crypto import signing
from ..errors import AuthenticationError, MessageError
from ..rpc import messages as m
from ..rpc.grants import own_grant, read_grant
from ..rpc.names import known_name
from .indexing import IndexClient
from .snapshots import DIFFERENT_NAMES

__all__ = ["ReceivedGrant", "ReceivingClient"]

_DIFFER = "not all servers have this grant yet; until they have, searches leave this owner out"
#: owners that only one server tells of: grants on their way, or invented ones, whose signatures cost time to check
_ALONE = 1000

#: a server's word on one owner: grant, key, registration, name, whether it expired, queries left, rows
_Entry: TypeAlias = tuple[bytes, bytes, bytes, str, bool, int, int]


@dataclass(frozen=True)
class ReceivedGrant:
    """The newest grant of one owner to a user; see :meth:`mipp.ImageOwner.grant`.

    Parameters
    ----------
    owner : bytes
        Id of the owner, 16 bytes.
    owner_name : str
        Name of the owner, as all servers know it; its id in hex where they differ.
    state : str
        ``in force``, ``expired`` (by one server's clock at least) or ``revoked``.
    rows : int or None
        Live rows of the owner now, the least number that a server tells; None unless the grant is in force.
    rankings : tuple of str
        Rankings that the user may ask for; empty if revoked.
    max_k, quota, min_rows : int
        Largest k, number of queries, and fewest rows that a query may cover; 0 for any.
    left : int or None
        Queries that the quota still allows, the least that a server counts; None without a quota.
    scores : bool
        Whether the user gets scores.
    expiry : int
        Unix seconds; 0 for never.
    version : int
        1 for the owner's first grant to this user, and one more for each later one.
    blocked : bool
        Whether the user blocks this owner: searches leave it out whatever it grants.
    problem : str
        How the servers differ on this grant, on whether it has expired, or on the owner's name; empty if they agree.

    Examples
    --------
    >>> from mipp.client.received import ReceivedGrant
    >>> grant = ReceivedGrant(bytes(16), "anna", "in force", 500, ("server",), 20, 1000, 0, 998, True, 0, 1, False)
    >>> grant.searchable, grant.left
    (True, 998)
    """

    owner: bytes
    owner_name: str
    state: str
    rows: int | None
    rankings: tuple[str, ...]
    max_k: int
    quota: int
    min_rows: int
    left: int | None
    scores: bool
    expiry: int
    version: int
    blocked: bool
    problem: str = ""

    @property
    def searchable(self) -> bool:
        """Whether a search covers this owner now: the grant is in force everywhere, not used up, and not blocked."""
        return self.state == "in force" and not self.blocked and not self.problem and self.left != 0


@dataclass(frozen=True)
class _Told:
    """A server's word on one grant whose signature is right."""

    grant: m.Grant
    name: str
    expired: bool
    left: int
    rows: int

    @property
    def order(self) -> tuple[int, int, bool]:
        return self.grant.epoch, self.grant.version, self.grant.revoked

    @property
    def state(self) -> str:
        return "revoked" if self.grant.revoked else "expired" if self.expired else "in force"


class ReceivingClient(IndexClient):
    """The part of :class:`~mipp.client.user.User` that lists what it was granted.

    Its parameters are those of :class:`~mipp.client.user.User`.
    """

    #: grants that were suspended when :meth:`grants` was called last
    suspended_grants = 0

    def grants(self) -> list[ReceivedGrant]:
        """List the grants to this user on record: what it may search, with revoked and expired grants.

        One small round to all servers; it counts against no quota. Servers learn that this user asked. They cannot
        change a grant of an owner, as its owner signed it. A server can hide one, tell another name or say that it
        expired; the grant's ``problem`` says so. Unnoticed, it can tell smaller counts of rows and of queries left.

        Returns
        -------
        list of ReceivedGrant
            For each owner its newest grant, by the owners' names. Owners that were forgotten are not listed, nor are
            grants that are suspended since all servers were restored from backups (``suspended_grants`` counts these).

        Raises
        ------
        MessageError
            A server's list does not fit together or names an owner twice; the lists differ in more than 1000 owners.
        MippError
            A server cannot be reached or refuses.

        Examples
        --------
        >>> import tempfile, numpy as np, mipp
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with mipp.Deployment.create(folder, mipp.Encoding("cosine", 4)) as deployment:
        ...         anna, berta = deployment.create_owner("anna"), deployment.create_owner("berta")
        ...         ids = anna.add_vectors(np.eye(4))
        ...         ulla = deployment.create_user("ulla")
        ...         anna.grant(ulla, quota=10)
        ...         berta.grant(ulla)
        ...         berta.revoke(ulla)
        ...         result = ulla.search(np.ones(4), k=2)
        ...         grants = ulla.grants()
        >>> [(grant.owner_name, grant.state, grant.rows, grant.left) for grant in grants]
        [('anna', 'in force', 4, 9), ('berta', 'revoked', None, None)]
        """
        replies = self.ask_present(m.UserGrants(self.id))
        listed = {server: _listed(reply, server) for server, reply in replies.items()}
        counts = Counter(owner for of in listed.values() for owner in of)
        if len(listed) > 1 and sum(count == 1 for count in counts.values()) > _ALONE:
            raise MessageError(f"the servers' lists of grants differ in more than {_ALONE} owners")
        told = {server: self._checked(of) for server, of in listed.items()}
        owners = {owner for of in told.values() for owner in of}
        found = [self._newest(owner, told) for owner in owners]
        self.suspended_grants = min((reply.suspended for reply in replies.values()), default=0)
        return sorted(found, key=lambda g: (g.owner_name, g.owner))

    def _newest(self, owner: bytes, servers: Mapping[int, Mapping[bytes, _Told]]) -> ReceivedGrant:
        """The newest grant of an owner, of what the servers told."""
        all_ = {server: of[owner] for server, of in servers.items() if owner in of}
        newest = max(all_.values(), key=lambda t: t.order)
        same = {server: t for server, t in all_.items() if t.order == newest.order}
        grant, names = newest.grant, {t.name for t in all_.values()}
        ended = sorted(server for server, t in same.items() if t.state == "expired")
        state = "expired" if ended else newest.state
        # the key centre counts every query, a cloud only those that it was asked; the least is what is enforced
        left = min((t.left for t in same.values() if t.left >= 0), default=-1) if grant.quota else -1
        problems = []
        if len(same) != len(servers):
            problems.append(_DIFFER)
        if len(names) > 1:
            problems.append(DIFFERENT_NAMES)
        if ended and len(ended) != len(same):
            by = " and ".join(str(server) for server in ended)
            problems.append(f"server {by} says that it has expired, and other servers do not")
        return ReceivedGrant(
            owner, known_name(newest.name, owner) if len(names) == 1 else owner.hex(), state,
            min(t.rows for t in same.values()) if state == "in force" else None,
            tuple(grant.rankings), grant.max_k, grant.quota, grant.min_rows,
            min(left, grant.quota) if left >= 0 else None, grant.scores, grant.expiry, grant.version,
            owner in self._blocked, "; ".join(problems),
        )  # fmt: skip

    def _checked(self, listed: Mapping[bytes, _Entry]) -> dict[bytes, _Told]:
        """A server's grants by owner, without those that their owner did not sign for this user."""
        found: dict[bytes, _Told] = {}
        for owner, (packed, public, registration, name, expired, left, rows) in listed.items():
            try:
                if signing.party_id(public, registration) != owner:
                    raise AuthenticationError("a grant with another party's key")
                grant = own_grant(packed, self.config.id, owner, public)
            except (AuthenticationError, MessageError):  # a server's word counts nothing
                continue
            if grant.user == self.id:
                found[owner] = _Told(grant, name, expired, left, max(0, rows))
        return found


def _listed(reply: m.UserGrantList, server: int) -> dict[bytes, _Entry]:
    """A server's list by owner, before any signature is checked; what is no grant is left out."""
    lists = (
        reply.grants, reply.sign_keys, reply.registrations, reply.names, reply.expired, reply.left, reply.rows,
    )  # fmt: skip
    if len({len(one) for one in lists}) != 1:
        raise MessageError(f"server {server} sent a list of grants that does not fit together")
    found: dict[bytes, _Entry] = {}
    for entry in zip(*lists, strict=True):
        try:
            owner = read_grant(entry[0]).owner
        except (AuthenticationError, MessageError):
            continue
        if owner in found:
            raise MessageError(f"server {server} sent two grants of one owner, where the newest alone is asked for")
        found[owner] = entry
    return found
