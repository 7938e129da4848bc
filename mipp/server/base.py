"""What every handler of a server stands on: configuration, keys, store, grants in force, limits of each party.

Handlers are functions of a :class:`ServerBase` and a :class:`Request`; ``server.py`` has the table of all of them.
"""

from __future__ import annotations

import contextlib
import functools
import logging
import threading
import time
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np

from .. import schemes
from ..backends import Backend, CpuBackend, Rows
from ..crypto import schedule, signing
from ..errors import AccessDeniedError, AuthenticationError, BusyError, IntegrityError, MessageError, ParameterError
from ..mpc.session import Counters
from ..rpc import messages as m
from ..rpc.associated_data import owner_seal_info, owner_secret_commitment
from ..rpc.description import DeploymentConfig
from ..rpc.grants import expired_text, in_force
from ..rpc.limits import Card
from ..rpc.wire import encode, pack_frames
from ..store.store import ServerStore
from ..store.views import BatchView
from .admission import Admission
from .commits import parse_commit
from .completion_sessions import Sessions
from .key_ring import KeyRing
from .passed_tests import PassedTests
from .plan import Plan
from .rates import ReadTurns, RequestRates
from .replies import ReplyRoom
from .upload_data import Arrived

__all__ = ["Handlers", "Observer", "Request", "ServerBase", "log"]

M = TypeVar("M")
log = logging.getLogger("mipp.server")


class Observer(Protocol):
    """Counts what a server does; see :class:`~mipp.server.metrics.Metrics`."""

    def request(self, kind: str, random: bytes, party: bytes) -> AbstractContextManager[None]:
        """Count and log a request while it is answered."""

    def ranking(self, counters: Counters, seconds: float, outcome: str) -> None:
        """Count a ranking that has ended."""

    def suspected(self, servers: Sequence[int]) -> None:
        """Count a user's report of wrong answers."""


@dataclass(frozen=True, repr=False)
class Request(Generic[M]):
    """A request of an owner or user whose signature was verified.

    ``hash`` is that of its content, ``frame_hashes`` those of the content's frames. ``by_peer``: another server passed
    it on. ``arrived``: how it came, if it was announced.
    """

    signer: bytes
    content: M
    hash: bytes
    frame_hashes: list[bytes]
    envelope: m.Signed
    by_peer: bool = False
    arrived: Arrived | None = None

    @functools.cached_property
    def packed(self) -> bytes:
        """The signed message as one string, to be kept and passed on."""
        return pack_frames(encode(self.envelope))


class ServerBase(ABC):
    """Base of :class:`~mipp.server.cloud.CloudServer` and :class:`~mipp.server.key_centre.KeyCentre`.

    Parameters
    ----------
    config : public description of the deployment
    index : this server's number
    folder : its own folder
    box_key, pair_key : its two X25519 private keys, 32 secret bytes each; ``keys.take`` brings later ones
    sign_key : seed of its Ed25519 identity, 32 secret bytes
    create : make a new store in ``folder``
    threads : native threads per product, default all cores
    check : compare checksums of files when they are first used
    clock : Unix time, for expiry of grants and the age of requests
    holder, alive : this process's name, and whether the process of a name still runs: whom prepared changes wait for
    witness : called with a number that only grows, after everything that a restored backup must not undo unnoticed
    card : limits of each party, where its invitation sets none
    backend : where products run, default this process
    """

    has_shares = False

    def __init__(
        self, config: DeploymentConfig, index: int, folder: Path, box_key: bytes, pair_key: bytes, sign_key: bytes, *,
        create: bool = False, threads: int | None = None, check: bool = True, clock: Callable[[], float] = time.time,
        holder: bytes = b"", alive: Callable[[bytes], bool] = lambda holder: True,
        witness: Callable[[int], None] | None = None, card: Card | None = None, backend: Backend | None = None,
    ) -> None:  # fmt: skip
        p = config.params
        expected = p.clouds if self.has_shares else p.key_centres
        if index not in expected:
            raise ParameterError(f"{type(self).__name__} is one of servers {list(expected)}, not {index}")
        self.config, self.index, self.threads, self.clock = config, index, threads, clock
        self.backend = CpuBackend(p, threads) if backend is None else backend
        self._sign_key = signing.private_key(sign_key)
        #: its X25519 keys, and those shared with each other server; secret
        self.keys = KeyRing(config, index, [(box_key, pair_key)])
        self.card = Card() if card is None else card
        scheme = schemes.get(config.params.scheme)  # before any file is opened
        self.store = ServerStore(
            folder, index, p, config.params_hash, has_shares=self.has_shares, create=create, check=check,
            holder=holder, alive=alive, witness=witness, record_bytes=config.record_bytes,
        )  # fmt: skip
        self.store.changes.parse = parse_commit
        self.store.changes.certified_only = config.certifies
        own_key = schedule.answer_key(sign_key, config.id, index)
        self.scheme = scheme.for_server(config, index, self.keys.pair_keys, threads, self.store.scheme_key, own_key)
        #: rankings that are open here; None where servers cannot reach each other
        self.admission: Admission | None = None
        #: tests of rows that are open here; None where servers cannot reach each other
        self.certifying: Admission | None = None
        #: tests of rows that passed, of batches for which others are still to come
        self.tests = PassedTests(p, index)
        #: rows that a test has seen so far, and all, by the test's name
        self.progress: dict[bytes, tuple[int, int]] = {}
        self._busy: Counter[bytes] = Counter()
        self._busy_lock = threading.Lock()
        self._rates = RequestRates()
        #: held while a whole batch is given back to its owner: it takes several times its size
        self.large_reply = threading.BoundedSemaphore(2)
        #: turns at audits, each of which reads all rows of an owner
        self.audits = ReadTurns()
        #: room for replies; None where they are not sent
        self.replies: ReplyRoom | None = None
        #: false after a restore from a backup, until the other servers told what is missing here
        self.ready = True
        #: ``new``, ``restored`` or ``whole``, as :class:`~mipp.rpc.peer_messages.PeerState` says
        self.phase = "whole"
        #: shares of other clouds that this server helps to rebuild
        self.completions = Sessions()
        #: counts for its operator; None where nobody asks
        self.metrics: Observer | None = None
        #: whether an owner or user brought something since the last settling that the other servers may have missed
        self.pass_on_due = False
        #: has the servers settle what is open now; None where something else does
        self.settle: Callable[[], None] | None = None
        self._secrets: dict[bytes, bytes] = {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}(server={self.index})"

    def __reduce__(self) -> str:
        raise TypeError("a server holds keys and does not pickle")

    @property
    def voting(self) -> bool:
        """Whether it votes on changes: not before all other servers were heard after a start."""
        return self.phase == "whole"

    def close(self) -> None:
        """Close all files, and drop what is kept in memory."""
        for admission in (self.admission, self.certifying):
            if admission is not None:
                admission.close()
        self.store.close()
        self.scheme.close()
        self._secrets.clear()

    def drop_secret(self, owner: bytes) -> None:
        """Read an owner's secrets again when they are used next.

        Parameters
        ----------
        owner : bytes
            Id of the owner, 16 bytes.
        """
        self._secrets.pop(owner, None)

    def drop_caches(self, owners: set[bytes]) -> None:
        """Drop this process's secrets and caches of owners that were forgotten.

        Parameters
        ----------
        owners : set of bytes
            Their ids, 16 bytes each.
        """
        for owner in owners:
            self._secrets.pop(owner, None)
        self.completions.drop(owners)
        self.backend.keep_only(self.store.digests)

    # --- rows ---------------------------------------------------------------------------------------------------

    @abstractmethod
    def rows(self, plan: Plan) -> Rows:
        """Load the rows that a query covers into the backend.

        Parameters
        ----------
        plan : Plan
            The rows, as this server laid them out.

        Returns
        -------
        Rows
            Handle of the backend for products with query shares.

        Raises
        ------
        IntegrityError
            A batch has no rows at this server.
        """

    @abstractmethod
    def row_words(self, owner: bytes, batch: BatchView) -> Callable[[np.ndarray], np.ndarray]:
        """Make a reader of this server's share words of one batch: stored words, or keystream.

        Parameters
        ----------
        owner : bytes
            Id of the owner, 16 bytes.
        batch : BatchView
            The batch.

        Returns
        -------
        callable
            From original row numbers (n,), ascending, to words (n, D) of the ring. Secret.

        Raises
        ------
        IntegrityError
            The batch has no rows at this server.
        """

    # --- keys ---------------------------------------------------------------------------------------------------

    def sign(self, data: bytes) -> bytes:
        """Sign with this server's identity; used for votes.

        Parameters
        ----------
        data : bytes
            Any number of bytes.

        Returns
        -------
        bytes
            Ed25519 signature, 64 bytes; public.
        """
        return signing.sign_raw(self._sign_key, data)

    def unseal(self, owner: bytes, sealed: bytes, commitment: bytes, *, most: str = "all") -> bytes:
        """Open the secrets that an owner sealed to this server.

        Parameters
        ----------
        owner : bytes
            Id of the owner, 16 bytes.
        sealed : bytes
            The sealed box.
        commitment : bytes
            The owner's to these secrets, 32 bytes; empty where an owner of an earlier version gave none.
        most : str
            With which keys, as of :meth:`~mipp.server.key_ring.KeyRing.open`.

        Returns
        -------
        bytes
            At a key centre the owner's keystream key and image part, 32 bytes each; at a cloud its image part, 32
            bytes. Secret.

        Raises
        ------
        AuthenticationError, MessageError
            The box does not open, or holds other secrets than the owner commits to.
        """
        secret = self.keys.open(sealed, owner_seal_info(self.config.id, owner, self.index), most=most)
        if len(secret) != (32 if self.has_shares else 64):
            raise MessageError("sealed owner secrets of the wrong length")
        if commitment not in (b"", owner_secret_commitment(self.config.id, owner, self.index, secret)):
            raise AuthenticationError("the sealed secrets are not those that the owner commits to")
        return secret

    def owner_secret(self, owner: bytes) -> bytes:
        """An owner's secrets for this server, opened; cached in memory while the owner is registered.

        Parameters
        ----------
        owner : bytes
            Id of the owner, 16 bytes.

        Returns
        -------
        bytes
            As of :meth:`unseal`. Secret.

        Raises
        ------
        NotFoundError
            The owner is unknown or was forgotten.
        IntegrityError
            The stored boxes are damaged, or sealed to keys that this server has no more.
        """
        name, _, sealed = self.store.owner(owner)  # raises once forgotten, in whichever process
        if owner not in self._secrets:
            commitment = self.commitment(owner)
            for one in (sealed, *self.store.seals.sealed(owner, self.index)):
                with contextlib.suppress(AuthenticationError, MessageError):
                    self._secrets[owner] = self.unseal(owner, one, commitment)
                    break
            else:
                why = "are sealed to keys that it lost; its owner seals them anew" if self.keys.epoch else "are damaged"
                raise IntegrityError(f"the keys of owner {name} at server {self.index} {why}")
        return self._secrets[owner]

    def commitment(self, owner: bytes) -> bytes:
        """A registered owner's commitment to its secrets for this server.

        Parameters
        ----------
        owner : bytes
            Id of the owner, 16 bytes.

        Returns
        -------
        bytes
            32 bytes, or empty for an owner of an earlier version. Public.
        """
        at = 32 * sorted(self.config.servers).index(self.index)
        return self.store.commitments(owner)[at : at + 32]

    @abstractmethod
    def image_part(self, owner: bytes) -> bytes:
        """This server's part of an owner's image keys.

        Parameters
        ----------
        owner : bytes
            Id of the owner, 16 bytes.

        Returns
        -------
        bytes
            32 bytes. Secret.
        """

    # --- parties ------------------------------------------------------------------------------------------------

    def granted(self, user: bytes) -> dict[bytes, m.Grant]:
        """List the grants of a user that are in force now.

        Parameters
        ----------
        user : bytes
            Id of the user, 16 bytes.

        Returns
        -------
        dict of bytes to Grant
            By id of the grant, in order of owner.

        Raises
        ------
        AccessDeniedError
            No grant is in force; the text names those that expired.
        """
        now = self.clock()
        found, expired = in_force(self.store.grants(user=user), now)
        if not found:
            ended = expired_text(expired.values(), now)
            if self.store.suspended(user):
                ended += "; grants are suspended since all servers were restored from backups: owners must grant again"
            raise AccessDeniedError(f"no owner grants this user anything (no grant, revoked, or expired){ended}")
        return found

    def ended(self, user: bytes) -> str:
        """Describe the user's expired grants, with this server's time, for the end of a refusal.

        Parameters
        ----------
        user : bytes
            Id of the user, 16 bytes.

        Returns
        -------
        str
            Empty if none expired.
        """
        now = self.clock()
        return expired_text(in_force(self.store.grants(user=user), now)[1].values(), now)

    def card_of(self, party: bytes) -> Card:
        """Limits of a party: those of its invitation, and this server's own where that sets none.

        Parameters
        ----------
        party : bytes
            Id of the owner or user, 16 bytes.

        Returns
        -------
        Card
            The limits.
        """
        if not self.config.registrar:
            return self.card
        given = zip(("rows", "bytes", "requests"), self.store.invited_limits(party), strict=True)
        limits: dict[str, Any] = {name: limit for name, limit in given if limit is not None}
        return replace(self.card, **limits)

    @contextlib.contextmanager
    def one_of(self, party: bytes, *, counted: bool = True) -> Iterator[None]:
        """Count a party's request while it is served.

        Parameters
        ----------
        party : bytes
            Id of the owner or user, 16 bytes.
        counted : bool
            Whether it counts towards the party's requests a minute.

        Yields
        ------
        None

        Raises
        ------
        BusyError
            The party has too many requests under way, or made too many in the last minute; the text says when to try
            again.
        """
        requests = self.card_of(party).requests if counted else None
        if requests is not None and (seconds := self._rates.take(party, requests)):
            raise BusyError(f"this party has {requests} requests a minute; try again in {seconds} s")
        with self._busy_lock:
            if self._busy[party] >= self.card.concurrent:
                raise BusyError(f"this party has {self.card.concurrent} requests under way; try again later")
            self._busy[party] += 1
        try:
            yield
        finally:
            with self._busy_lock:
                self._busy[party] -= 1
                if not self._busy[party]:
                    del self._busy[party]

    def room_for(self, party: bytes, size: int) -> None:
        """Take room for a large reply before it is made.

        Parameters
        ----------
        party : bytes
            Id of who gets it, 16 bytes.
        size : int
            Its bytes.

        Raises
        ------
        BusyError
            The party has too much unread.
        """
        if self.replies is not None:
            self.replies.take(party, size)

    @abstractmethod
    def pass_on(self, packed: bytes) -> Any:
        """Serve a signed message for all servers that another server passes on.

        Parameters
        ----------
        packed : bytes
            The message, with its frames packed into one string.

        Returns
        -------
        message
            The reply.

        Raises
        ------
        AuthenticationError, MessageError
            The signature is wrong, or the message is not one for all servers.
        """


#: kind of request -> its handler
Handlers = dict[type, Callable[[ServerBase, Request[Any]], Any]]
