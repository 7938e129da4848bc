"""The way of a request through a server: its envelope is checked, then the handler of its kind answers.

Every request of an owner or user is signed for one server (or, for changes that servers pass on, for all); signature,
time, grant and snapshot are checked before anything is computed. What this server's operator and other servers ask
comes in at :meth:`Server.operate`.
"""

from __future__ import annotations

import contextlib
import functools
import mmap
import os
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from ..crypto import signing
from ..errors import (
    AccessDeniedError,
    AuthenticationError,
    BusyError,
    LimitError,
    MessageError,
    MippError,
    ParameterError,
    StoreError,
)
from ..rpc import messages as m
from ..rpc.bodies import Announcement
from ..rpc.failures import error_to_wire
from ..rpc.limits import MAX_ENVELOPE_BYTES, MAX_HEAD_BYTES, MAX_HEADER_BYTES, within_size
from ..rpc.wire import Frames, decode, encode, frame_hashes, joined_hash, kind_of, sizes_hash, unpack_frames
from ..store.parties import is_registered
from . import audits, certifying, changes, images, lookups, parties, peers, private_fetch, records, snapshots
from .base import Handlers, Request, ServerBase, log
from .freshness import RequestLog
from .private_fetch import PrivateFetch
from .queries import Queries
from .upload_data import Arrived

__all__ = ["Server"]

_WAITING = "this server has just started and waits to hear the others; try again in some seconds"


class Server(ServerBase):
    """Takes in requests. Clouds and the key centre differ in the rows that they have; parameters as of the base."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.queries = Queries(self)
        self.fetches = PrivateFetch(self, self.queries.covered, lambda header: self.queries.in_force(header)[0])
        self._log = RequestLog(self.clock, served=self.store.ahead(), keep=self.store.note_ahead)
        self._handlers: dict[type, Callable[[Any], Any]] = {
            **{kind: functools.partial(handler, self) for kind, handler in _HANDLERS.items()},
            m.Query: self.queries.answer,
            m.CollectRanking: self.queries.collect,
            m.FoldColumns: self.queries.fold,
            m.FetchRecords: self.fetches.answer,
        }

    def close(self) -> None:
        super().close()
        self.queries.close()
        self.fetches.close()

    def drop_caches(self, owners: set[bytes]) -> None:
        super().drop_caches(owners)
        self.queries.drop(owners)
        self.fetches.drop(owners)

    def handle(self, frames: Frames, *, arrived: Arrived | None = None) -> Frames:
        """Answer one signed request of an owner or user.

        Parameters
        ----------
        frames : list of bytes
            The signed message.
        arrived : Arrived, optional
            The request, if it was announced (:meth:`announced`): its content was hashed while it came. Time and
            repetition were checked when it was announced.

        Returns
        -------
        list of bytes
            The reply; a ``Failure`` message for a refusal or failure. Nothing is raised.
        """
        return self._reply(functools.partial(self._requested, arrived=arrived), frames)

    def announced(self, told: Announcement) -> bytes:
        """Check the announcement of a large request, before its data come.

        Parameters
        ----------
        told : Announcement
            Of the request.

        Returns
        -------
        bytes
            Id of the signer, 16 bytes.

        Raises
        ------
        MippError
            The request would be refused.
        """
        if not self.ready:
            raise BusyError(_WAITING)
        if len(told.head) > MAX_ENVELOPE_BYTES:
            raise LimitError(f"a request's first frame has at most {MAX_ENVELOPE_BYTES} bytes")
        # addresses that no memory is set aside for: the lengths are checked, the data are not looked at
        none = [
            memoryview(mmap.mmap(-1, size, mmap.MAP_PRIVATE, mmap.PROT_READ) if size else b"") for size in told.sizes
        ]
        msg = decode([told.head, *none], m.Signed)
        kind = _KINDS.get(told.kind)
        if kind is None or kind in _SELF_SIGNED or kind in m.FOR_ALL:
            raise MessageError(f"a {told.kind[:40]!r} is not announced")
        if len(msg.frames) != len(told.sizes):
            raise MessageError("an announcement names each frame of the content")
        self._check_sizes(kind, told.sizes)
        whole = sizes_hash(told.sizes, told.hashes)
        statement = self._addressed(msg, kind, by_peer=False, whole=whole)
        public, _ = self._identity(kind, None, msg.signer)
        signing.verify(public, msg.signature, statement)
        self._log.check(msg.signer, statement, repeatable=kind not in m.ONCE)
        if kind in (m.Query, m.KeepEvaluationKey):  # who may search nothing sends nothing large
            self.granted(msg.signer)
        return msg.signer

    def _check_sizes(self, kind: type, sizes: list[int]) -> None:
        """Refuse an announced request whose frames would be refused for their length when they are here."""
        most = MAX_HEAD_BYTES if kind is not m.KeepEvaluationKey else MAX_ENVELOPE_BYTES
        if not sizes or sizes[0] > most:
            raise LimitError(f"a request's first frame has at most {most} bytes")
        if kind is m.KeepEvaluationKey and sizes[1:] != [self.scheme.evaluation_key_bytes]:
            raise ParameterError(f"evaluation keys of this deployment have {self.scheme.evaluation_key_bytes} bytes")
        most = self.scheme.query_bytes + MAX_HEADER_BYTES
        if kind is m.Query and sum(sizes) > most:
            raise LimitError(f"a query of this deployment has at most {most} bytes: send fewer queries together")

    def operate(self, frames: Frames, *, peer: int | None = None) -> Frames:
        """Answer one request of this server's operator, or of another server; owners and users never reach this.

        Parameters
        ----------
        frames : list of bytes
            The message.
        peer : int, optional
            Number of another server that asks: it may ask less, and for itself only.

        Returns
        -------
        list of bytes
            The reply; a ``Failure`` message for a refusal or failure. Nothing is raised.
        """
        return self._reply(functools.partial(self._operated, peer=peer), frames)

    def _reply(self, answer: Callable[[Frames], Any], frames: Frames) -> Frames:
        try:
            if self.store.catalog.changed_elsewhere():  # another process's server may have forgotten owners
                gone = set(self.store.forgotten_ids())
                if gone:
                    self.drop_caches(gone)
            return encode(answer(frames))
        except Exception as error:
            if not isinstance(error, MippError):
                log.exception("server %d: unexpected %s", self.index, type(error).__name__)
            return encode(self.failure(error))

    def failure(self, error: Exception) -> m.Failure:
        """Put an error into the form in which it is told to who asked; that of a disk says whose it is.

        Parameters
        ----------
        error : Exception
            Any.

        Returns
        -------
        Failure
            Name and text; no paths of this machine, and nothing of unexpected errors.
        """
        name, text = error_to_wire(error)
        # errors of files name paths of this machine, which are no business of who asks
        text = text.replace(f"{self.store.folder}{os.sep}", "")
        return m.Failure(name, f"server {self.index}: {text}" if isinstance(error, StoreError) else text)

    def _requested(self, frames: Frames, *, arrived: Arrived | None = None) -> Any:
        if (name := kind_of(frames)) != m.Signed.__name__:
            raise AuthenticationError(f"a request {name} must be signed")
        if not self.ready:
            raise BusyError(_WAITING)
        within_size(frames, MAX_ENVELOPE_BYTES)
        return self._handle(self._verified(decode(frames, m.Signed), arrived=arrived))

    def _operated(self, frames: Frames, *, peer: int | None = None) -> Any:
        msg: Any = decode(frames)
        if type(msg) not in peers.HANDLERS or (peer is not None and type(msg) not in peers.OF_PEERS):
            raise MessageError(f"{type(msg).__name__} is no request of an operator or a server")
        if peer is not None and getattr(msg, "target", peer) != peer:
            raise AccessDeniedError("a server asks for what itself lost")
        return peers.HANDLERS[type(msg)](self, msg)

    def pass_on(self, packed: bytes) -> Any:
        return self._handle(self._verified(decode(unpack_frames(packed), m.Signed), by_peer=True))

    def _handle(self, request: Request[Any]) -> Any:
        kind = type(request.content)
        if not self.voting and kind in _VOTES:
            raise BusyError("this server waits for all other servers before it takes part in changes; try again later")
        counted: AbstractContextManager[None] = contextlib.nullcontext()
        if self.metrics is not None:
            counted = self.metrics.request(kind.__name__, request.envelope.random, request.signer)
        free = kind in _UNCOUNTED and not (kind in _SELF_SIGNED and is_registered(self.store.catalog, request.signer))
        with counted, self.one_of(request.signer, counted=not (request.by_peer or free)):
            reply = self._handlers[kind](request)
        self.pass_on_due |= kind in _PASSED_ON and not request.by_peer
        return reply

    def _addressed(self, msg: m.Signed, kind: type, *, by_peer: bool, whole: bytes) -> signing.Statement:
        """What the signature of a request for this server must cover."""
        name, relayed = kind.__name__, kind in m.FOR_ALL
        if msg.deployment != self.config.id:
            raise AuthenticationError("the request is for another deployment")
        if msg.receiver != (m.ALL_SERVERS if relayed else self.index):
            raise AuthenticationError(f"a {name} signed for server {msg.receiver} came to server {self.index}")
        if by_peer and not relayed:
            raise AuthenticationError(f"a {name} is not passed on between servers")
        return signing.Statement(msg.deployment, msg.receiver, name, whole, msg.issued, msg.random)

    def _verified(self, msg: m.Signed, *, by_peer: bool = False, arrived: Arrived | None = None) -> Request[Any]:
        """A request whose signature is that of who it names, for this server, of now, and not repeated.

        ``arrived``: if it was announced. Its time and repetition were checked then.
        """
        frames: Frames = [f.data for f in msg.frames]
        name = kind_of(frames)
        kind = _KINDS.get(name)
        if kind is None:
            raise MessageError(f"{name} is no signed request")
        # the content is read after its signature was checked; only registrations hold the key that checks them
        within_size(frames, MAX_HEAD_BYTES if kind not in _SELF_SIGNED else MAX_ENVELOPE_BYTES)
        hashes = frame_hashes(frames) if arrived is None else arrived.hashes
        whole = joined_hash(frames, hashes)
        statement = self._addressed(msg, kind, by_peer=by_peer, whole=whole)
        content: Any = decode(frames, kind) if kind in _SELF_SIGNED else None
        public, actor = self._identity(kind, content, msg.signer)
        if actor != msg.signer:
            raise AuthenticationError("the signer is not the party that the keys belong to")
        signing.verify(public, msg.signature, statement)
        if arrived is None and kind not in m.FOR_ALL:  # those carry versions; sent again they change nothing
            self._log.check(msg.signer, statement, repeatable=kind not in m.ONCE)
        content = decode(frames, kind) if content is None else content
        return Request(msg.signer, content, whole, hashes, msg, by_peer, arrived)

    def _identity(self, kind: type, content: Any, signer: bytes) -> tuple[bytes, bytes]:
        """Public key that must have signed a request, and the id of the party that it belongs to."""
        if kind is m.RegisterOwner:
            return content.sign_key, signing.party_id(content.sign_key, content.registration)
        if kind is m.RegisterUser:
            return content.sign_key, signing.party_id(content.sign_key, content.box_key)
        if kind in _BY_USER:
            return self.store.user(signer)[1], signer
        if kind is m.ForgetOwner:  # again is fine
            return self.store.registration(signer)[1], signer
        return self.store.owner(signer)[1], signer


#: kind of request -> its handler; those of queries are each server's own
_HANDLERS: Handlers = {
    **parties.HANDLERS,
    **lookups.HANDLERS,
    **snapshots.HANDLERS,
    **images.HANDLERS,
    **changes.HANDLERS,
    **certifying.HANDLERS,
    **audits.HANDLERS,
    **records.HANDLERS,
    **private_fetch.HANDLERS,
}
_KINDS = {kind.__name__: kind for kind in (*_HANDLERS, m.Query, m.CollectRanking, m.FoldColumns, m.FetchRecords)}
#: signed by a key inside
_SELF_SIGNED = (m.RegisterOwner, m.RegisterUser)
#: what can make a server promise something: not before it knows what it promised before
_VOTES = (m.UploadOp, m.DeleteOp, m.AnnotateOp, m.CommitOp, m.AbortOp, m.Certify)
#: what servers pass on to those that missed it, though nothing is open
_PASSED_ON = (m.RegisterOwner, m.RegisterUser, m.Grant, m.ForgetOwner)
#: outside of a party's requests a minute: strangers' registrations, and the end of requests that were counted
_UNCOUNTED = (*_SELF_SIGNED, m.CollectRanking, m.CollectCertificate, m.FoldColumns)
_BY_USER = (
    m.GrantersRequest, m.SnapshotRequest, m.Query, m.CollectRanking, m.FoldColumns, m.FetchImages, m.WrongAnswers,
    m.FetchAlbums, m.FetchOrigins, m.FetchRecords, m.UserGrants, m.EvaluationKeyRequest, m.KeepEvaluationKey,
)  # fmt: skip
