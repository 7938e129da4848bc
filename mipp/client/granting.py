"""An owner's grants: who may search and fetch its images, how, how often and until when."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..crypto import signing
from ..errors import (
    AccessDeniedError,
    AuthenticationError,
    MessageError,
    NotFoundError,
    ParameterError,
    ScoreRangeError,
)
from ..mpc.facts import unrankable
from ..rpc import messages as m
from ..rpc.channel import Channel
from ..rpc.description import DeploymentConfig
from ..rpc.grants import PROBE, check_grant, own_grant
from .client import Client
from .given import expiry_seconds, user_id, whole_number
from .retry import ATTEMPTS

__all__ = ["GrantInfo", "Granting"]


@dataclass(frozen=True)
class GrantInfo:
    """A grant as the servers have it; see :meth:`mipp.ImageOwner.grant`.

    Parameters
    ----------
    user : bytes
        Id of the user, 16 bytes.
    version : int
        1 for the first grant to this user, and one more for each later one.
    expiry : int
        Unix seconds; 0 for never.
    rankings : tuple of str
        Rankings that the user may ask for.
    max_k, quota, min_rows : int
        Limits; 0 for none.
    scores : bool
        Whether the user gets scores.
    revoked : bool
        Whether the grant was revoked.
    used : int or None
        Queries of the quota that were used; None without a quota, and for a revoked grant.
    """

    user: bytes
    version: int
    expiry: int
    rankings: tuple[str, ...]
    max_k: int
    scores: bool
    quota: int
    min_rows: int
    revoked: bool
    used: int | None = None


class Granting(Client):
    """The part of :class:`~mipp.client.owner.ImageOwner` that grants and revokes."""

    def __init__(self, name: str, config: DeploymentConfig, channel: Channel, sign_seed: bytes) -> None:
        super().__init__(name, config, channel, sign_seed)
        #: looks up the id of a user by name; set by the deployment
        self.find_user: Callable[[str], bytes] | None = None

    def grant(
        self,
        user: Any,
        *,
        expiry: Any = 0,
        rankings: Sequence[str] | None = None,
        max_k: int | None = 0,
        scores: bool = True,
        quota: int | None = 0,
        min_rows: int | None = 0,
    ) -> None:
        """Let a user search and fetch this owner's images. Replaces an earlier grant to the same user.

        Every server enforces the grant. What it lets the user learn depends on ``rankings``:

        - ``server``: the k nearest images only, with their scores if ``scores``;
        - ``probe``, in an index with clusters: searches with ``probe=True``, the k nearest of clusters that the user
          chooses. By many of them, each of other clusters, the user gets far more rows and scores for one example
          than ``max_k``; ``quota`` bounds how often;
        - ``user``: all exact scores, from which a few dozen queries give the features themselves;
        - ``threshold``: which images reach a score that the user chooses; many such queries give the scores.

        Parameters
        ----------
        user : User, bytes or str
            The user, its id (16 bytes or 32 hex digits), or its name in this deployment.
        expiry : int, float, str, datetime, timedelta or None
            Unix seconds, an ISO date, a datetime with a time zone, or a span from now such as ``"30d"``
            (:func:`mipp.client.given.expiry_seconds`); 0 or None for never. Each server compares it with its own clock.
        rankings : sequence of str, optional
            Default ``("server",)``; ``("user",)`` with one cloud, which has no other, and in an index that was
            made for users who rank.
        max_k : int or None
            Largest k of a search, 0 for any; not with ``user`` or ``threshold``.
        scores : bool
            Whether ranking by the servers gives scores; False not with ``user`` or ``threshold``.
        quota : int or None
            Number of queries in all, 0 for any; each grant starts a new count. Where the user ranks, verified answers
            (:meth:`mipp.User.search`) count as one query more for each batch.
        min_rows : int or None
            Fewest of this owner's live rows that a query may cover, 0 for any. Of a search of chosen clusters those
            count that it covers whatever it chooses.

        Raises
        ------
        ParameterError
            A number out of range, an expiry in the past, or limits that a granted ranking gets around.
        ScoreRangeError
            The encoding allows none of these rankings, so the grant would allow nothing.
        NotFoundError
            An unknown user.

        Examples
        --------
        >>> import tempfile, numpy as np, mipp
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     with mipp.Deployment.create(folder, mipp.Encoding("cosine", 4)) as deployment:
        ...         anna, ulla = deployment.create_owner("anna"), deployment.create_user("ulla")
        ...         ids = anna.add_vectors(np.eye(4))
        ...         anna.grant(ulla, max_k=2, quota=100)
        ...         grant = anna.grants()[0]
        ...         try:
        ...             ulla.search(np.ones(4), k=3, owners=anna)
        ...         except mipp.errors.AccessDeniedError as error:
        ...             refusal = str(error)
        >>> grant.rankings, grant.max_k, grant.quota
        (('server',), 2, 100)
        >>> refusal
        'a grant allows k up to 2, not 3 (owner anna: its grant allows k up to 2)'
        """
        chosen = self.config.offered[:1] if rankings is None else rankings
        self._give(user, expiry, chosen, max_k, scores, quota, min_rows, revoked=False)

    def _give(
        self,
        user: Any,
        expiry: Any = 0,
        rankings: Sequence[str] = (),
        max_k: int | None = 0,
        scores: bool = False,
        quota: int | None = 0,
        min_rows: int | None = 0,
        *,
        revoked: bool,
    ) -> None:
        """Check a grant by the servers' rules, and send it to all of them."""
        to = user_id(user, self.find_user)
        chosen = None if isinstance(rankings, str) or not isinstance(rankings, Iterable) else list(rankings)
        if chosen is None or not all(isinstance(r, str) for r in chosen):
            raise ParameterError('rankings are a sequence of names, such as ("server",)')
        if not isinstance(scores, (bool, np.bool_)):
            raise ParameterError("scores of a grant must be True or False")
        given = {"max_k": max_k, "quota": quota, "min_rows": min_rows}
        limits = {name: whole_number(value, f"{name} of a grant", none=0) for name, value in given.items()}
        grant = m.Grant(
            self.id, to, 0, 1, expiry_seconds(expiry), [str(r) for r in chosen], limits["max_k"], bool(scores),
            limits["quota"], limits["min_rows"], revoked,
        )  # fmt: skip
        check_grant(grant, self.config.grantable)
        if not revoked and not set(grant.rankings) & {*self.config.possible, PROBE}:
            raise ScoreRangeError(unrankable(self.config.encoding))
        for attempt in range(ATTEMPTS):  # retries if another process of this owner was faster with a version
            epoch, version = self._next_version(grant.user)
            grant = dataclasses.replace(grant, epoch=epoch, version=version)
            check_grant(grant, self.config.grantable)
            try:
                self.ask_present(grant)
                return
            except AccessDeniedError:
                if attempt == ATTEMPTS - 1 or self._next_version(grant.user) == (epoch, version):
                    raise

    def revoke(self, user: Any) -> None:
        """Revoke a user's grant, from the next query on. The user keeps the images and scores that it already has.

        Parameters
        ----------
        user : User, bytes or str
            As for :meth:`grant`.

        Raises
        ------
        NotFoundError
            An unknown user, or one without a grant of this owner.
        """
        user = user_id(user, self.find_user)
        if not any(g.user == user and not g.revoked for g in self.grants()):
            raise NotFoundError("this user has no grant of this owner")
        self._give(user, revoked=True)

    def grants(self) -> list[GrantInfo]:
        """List the grants on record, revoked and expired ones too, and how much of their quotas is used.

        Two small rounds to all servers. Servers can tell a wrong count, and can hide a grant.

        Returns
        -------
        list of GrantInfo
            For each user the highest version that any server has, by the users' ids.
        """
        found, left = self._grants()[1], dict[bytes, int]()
        for reply in self.ask_present(m.GrantUse(self.id)).values():
            if len(reply.users) != len(reply.left):
                raise MessageError("a server sent a list of quotas that does not fit together")
            for user, queries in zip(reply.users, reply.left, strict=True):
                # the key centre counts every query, a cloud only those that it was asked; the least is what is enforced
                left[user] = min(left.get(user, queries), queries)
        return [
            dataclasses.replace(g, used=min(max(g.quota - left.get(g.user, g.quota), 0), g.quota))
            if g.quota and not g.revoked else g
            for g in found
        ]  # fmt: skip

    def _grants(self) -> tuple[int, list[GrantInfo]]:
        best: dict[bytes, GrantInfo] = {}
        public = signing.sign_public(self._seed)
        replies = list(self.ask_present(m.ListGrants(self.id)).values())
        for reply in replies:
            for packed in reply.grants:
                try:  # a server's word on what this owner revoked counts nothing
                    g = own_grant(packed, self.config.id, self.id, public)
                except (AuthenticationError, MessageError):
                    continue
                if g.user not in best or best[g.user].version < g.version:
                    best[g.user] = GrantInfo(
                        g.user,
                        g.version,
                        g.expiry,
                        tuple(g.rankings),
                        g.max_k,
                        g.scores,
                        g.quota,
                        g.min_rows,
                        g.revoked,
                    )
        # one server alone is not believed
        told = Counter(reply.epoch for reply in replies)
        epoch = max(told, key=lambda one: (told[one], one))
        return epoch, sorted(best.values(), key=lambda g: g.user)

    def _next_version(self, user: bytes) -> tuple[int, int]:
        """The servers' epoch, and the version of this owner's next grant to a user."""
        epoch, known = self._grants()
        return epoch, max((g.version for g in known if g.user == user), default=0) + 1
