"""What clouds and the key centre have in common: checks before work, parties and grants, queries, images.

Every request of an owner or user is signed for one server (or, for changes that servers pass on, for all); signature,
time, grant and snapshot are checked before anything is computed. Owners' changes are in ``changing.py``, what servers
and operators ask in ``peering.py``.
"""

from __future__ import annotations

import collections
import contextlib
import functools
import hashlib
import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..crypto import box, schedule, signing
from ..errors import (
    AccessDeniedError,
    AuthenticationError,
    BusyError,
    IntegrityError,
    MessageError,
    MippError,
    NotFoundError,
    ParameterError,
    ShapeError,
    error_to_wire,
)
from ..rpc import messages as m
from ..rpc.associated_data import image_seal_info, owner_seal_info
from ..rpc.description import DeploymentConfig
from ..rpc.grants import check_grant, expired_text, in_force
from ..rpc.limits import MAX_ENVELOPE_BYTES, MAX_HEAD_BYTES, Card, within_size
from ..rpc.names import check_name
from ..rpc.wire import (
    Frames,
    decode,
    encode,
    frame_hashes,
    joined_hash,
    kind_of,
    pack_frames,
    unpack_frames,
)
from ..store.parties import is_registered
from ..store.store import ServerStore
from ..store.views import BatchView
from . import certifying
from . import changes as changing
from .admission import Admission
from .freshness import RequestLog
from .images import image_files, images_reply, locate_images, requested_images
from .open_headers import OpenHeaders
from .peers import HANDLERS as PEER_HANDLERS
from .plan import Plan
from .queries import Queries
from .status import owner_snapshot

__all__ = ["Server"]

_log = logging.getLogger("mipp.server")


@dataclass(frozen=True)
class Digest:
    """Hash of a request's content, and of each of its frames."""

    whole: bytes
    frames: list[bytes]


class Server(Queries):
    """Base of :class:`~mipp.server.cloud.CloudServer` and :class:`~mipp.server.key_centre.KeyCentre`.

    Parameters
    ----------
    config : public description of the deployment
    index : this server's number
    folder : its own folder
    box_key, pair_key : its two X25519 private keys, 32 secret bytes each
    sign_key : seed of its Ed25519 identity, 32 secret bytes
    create : make a new store in ``folder``
    threads : native threads per product, default all cores
    check : compare checksums of files when they are first used
    clock : Unix time, for expiry of grants and the age of requests
    holder, alive : this process's name, and whether the process of a name still runs: whom prepared changes wait for
    witness : called with a number that only grows, after everything that a restored backup must not undo unnoticed
    card : limits of each party
    """

    has_shares = False

    def __init__(
        self, config: DeploymentConfig, index: int, folder: Path, box_key: bytes, pair_key: bytes, sign_key: bytes, *,
        create: bool = False, threads: int | None = None, check: bool = True, clock: Callable[[], float] = time.time,
        holder: bytes = b"", alive: Callable[[bytes], bool] = lambda holder: True,
        witness: Callable[[int], None] | None = None, card: Card | None = None,
    ) -> None:  # fmt: skip
        p = config.params
        expected = p.storage_servers if self.has_shares else p.key_servers
        if index not in expected:
            raise ParameterError(f"{type(self).__name__} is one of servers {list(expected)}, not {index}")
        self.config, self.index, self.threads, self._clock = config, index, threads, clock
        self._box_key, self._sign_key = box_key, signing.private_key(sign_key)
        self.card = Card() if card is None else card
        self._pair_keys = {
            other: schedule.pair_key(
                box.shared_secret(pair_key, keys.pair), config.id, min(index, other), max(index, other)
            )
            for other, keys in config.servers.items()
            if other != index
        }
        self.store = ServerStore(
            folder, index, p, config.params_hash, has_shares=self.has_shares, create=create, check=check,
            holder=holder, alive=alive, witness=witness,
        )  # fmt: skip
        self.store.changes.parse = changing.parse_commit
        self.store.changes.certified_only = config.certifies
        #: rankings that are open here; None where servers cannot reach each other
        self.admission: Admission | None = None
        #: tests of rows that are open here; None where servers cannot reach each other
        self.certifying: Admission | None = None
        #: rows that a test has seen so far, and all, by the test's name
        self.progress: dict[bytes, tuple[int, int]] = {}
        self._headers = OpenHeaders()
        self._log = RequestLog(clock, served=self.store.ahead(), keep=self.store.note_ahead)
        self._busy: collections.Counter[bytes] = collections.Counter()
        self._busy_lock = threading.Lock()
        #: held while a whole batch is given back to its owner: it takes several times its size
        self.large_reply = threading.BoundedSemaphore(2)
        #: false after a restore from a backup, until the other servers told what is missing here
        self.ready = True
        self._plans: dict[bytes, Plan] = {}
        self._plan_lock = threading.Lock()
        self._secrets: dict[bytes, bytes] = {}

    def __repr__(self) -> str:
        return f"{type(self).__name__}(server={self.index})"

    def __reduce__(self) -> str:
        raise TypeError("a server holds keys and does not pickle")

    def close(self) -> None:
        for admission in (self.admission, self.certifying):
            if admission is not None:
                admission.close()
        self.store.close()
        self._plans.clear()
        self._secrets.clear()

    # --- dispatch -----------------------------------------------------------------------------------------------

    def handle(self, frames: Frames) -> Frames:
        """Answer one signed request of an owner or user; refusals and failures come back as a ``Failure`` message."""

        def answer(frames: Frames) -> Any:
            if (name := kind_of(frames)) != m.Signed.__name__:
                raise AuthenticationError(f"a request {name} must be signed")
            if not self.ready:
                raise BusyError("this server was restored from a backup and waits for the other servers")
            within_size(frames, MAX_ENVELOPE_BYTES)
            return self._signed(decode(frames, m.Signed))

        return self._replied(frames, answer)

    def operate(self, frames: Frames) -> Frames:
        """Answer one request of this server's operator or of another server; never reached by owners or users."""

        def answer(frames: Frames) -> Any:
            msg: Any = decode(frames)
            if type(msg) not in PEER_HANDLERS:
                raise MessageError(f"{type(msg).__name__} is no request of an operator or a server")
            return PEER_HANDLERS[type(msg)](self, msg)

        return self._replied(frames, answer)

    def _replied(self, frames: Frames, answer: Callable[[Frames], Any]) -> Frames:
        try:
            self._refresh()
            return encode(answer(frames))
        except Exception as error:
            if not isinstance(error, MippError):
                _log.exception("server %d: unexpected %s", self.index, type(error).__name__)
            name, text = error_to_wire(error)
            # errors of files name paths of this machine, which are no business of who asks
            return encode(m.Failure(name, text.replace(f"{self.store.folder}{os.sep}", "")))

    def _refresh(self) -> None:
        """Drop what this process keeps of owners whom another process's server forgot."""
        if self.store.catalog.changed_elsewhere():
            gone = set(self.store.forgotten_ids())
            if gone:
                self._drop_caches(gone)

    def _drop_caches(self, owners: set[bytes]) -> None:
        """Drop an owner's secrets, and plans over its rows."""
        for owner in owners:
            self._secrets.pop(owner, None)
        with self._plan_lock:
            for key, plan in list(self._plans.items()):
                if any(part.view.owner in owners for part in plan.parts):
                    del self._plans[key]
        self._headers.drop(owners)

    def sign(self, data: bytes) -> bytes:
        """Sign with this server's identity: votes, 64 bytes."""
        return signing.sign_raw(self._sign_key, data)

    def _signed(self, msg: m.Signed, *, passed_on: bool = False) -> Any:
        frames: Frames = [f.data for f in msg.frames]
        name = kind_of(frames)
        kind = _KINDS.get(name)
        if kind is None:
            raise MessageError(f"{name} is no signed request")
        if msg.deployment != self.config.id:
            raise AuthenticationError("the request is for another deployment")
        relayed = kind in m.FOR_ALL
        if msg.receiver != (m.ALL_SERVERS if relayed else self.index):
            raise AuthenticationError(f"a {name} signed for server {msg.receiver} came to server {self.index}")
        if passed_on and not relayed:
            raise AuthenticationError(f"a {name} is not passed on between servers")
        # the content is read after its signature was checked; only registrations hold the key that checks them
        within_size(frames, MAX_HEAD_BYTES if kind not in _SELF_SIGNED else MAX_ENVELOPE_BYTES)
        hashes = frame_hashes(frames)
        digest = Digest(joined_hash(frames, hashes), hashes)
        content: Any = decode(frames, kind) if kind in _SELF_SIGNED else None
        public, actor = self._identity(kind, content, msg.signer)
        if actor != msg.signer:
            raise AuthenticationError("the signer is not the party that the keys belong to")
        statement = signing.Statement(msg.deployment, msg.receiver, name, digest.whole, msg.issued, msg.random)
        signing.verify(public, msg.signature, statement)
        if not relayed:  # those carry versions; sent again they change nothing
            self._log.check(msg.signer, statement, repeatable=kind not in _ONCE)
        content = decode(frames, kind) if content is None else content
        method = _HANDLERS[kind]
        packed = functools.partial(pack_frames, encode(msg))
        with self._one_of(msg.signer):
            if isinstance(method, str):
                return getattr(self, method)(msg.signer, content, digest, packed)
            if passed_on and kind is m.CommitOp:
                return changing.commit(self, msg.signer, content, digest, packed, by_peer=True)
            return method(self, msg.signer, content, digest, packed)

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

    def pass_on(self, packed: bytes) -> Any:
        """Serve a signed message for all servers that another server has."""
        return self._signed(decode(unpack_frames(packed), m.Signed), passed_on=True)

    @contextlib.contextmanager
    def _one_of(self, signer: bytes) -> Iterator[None]:
        """One request of a party; BusyError when it has too many under way."""
        with self._busy_lock:
            if self._busy[signer] >= self.card.concurrent:
                raise BusyError(f"this party has {self.card.concurrent} requests under way; try again later")
            self._busy[signer] += 1
        try:
            yield
        finally:
            with self._busy_lock:
                self._busy[signer] -= 1
                if not self._busy[signer]:
                    del self._busy[signer]

    # --- parties, grants ----------------------------------------------------------------------------------------

    def _register_owner(self, signer: bytes, msg: m.RegisterOwner, digest: Digest, packed: Any) -> m.Ok:
        if len(msg.registration) != 16 or len(msg.sealed) != len(self.config.servers):
            raise ShapeError("a registration has a nonce of 16 bytes, and sealed secrets for every server")
        if any(len(s) > 256 for s in msg.sealed):  # the others' are kept, too, to be passed on
            raise ShapeError("sealed secrets of an owner have at most 256 bytes for each server")
        self._check_name(signer, msg.name)
        sealed = msg.sealed[sorted(self.config.servers).index(self.index)]
        self._unseal(signer, sealed)
        self.store.add_owner(signer, msg.name, msg.sign_key, msg.registration, sealed, packed())
        return m.Ok()

    def _register_user(self, signer: bytes, msg: m.RegisterUser, digest: Digest, packed: Any) -> m.Ok:
        self._check_name(signer, msg.name)
        box.seal(msg.box_key, b"", b"")  # refuses keys that nothing can be sealed to
        self._check_paillier(msg.paillier)
        self.store.add_user(signer, msg.name, msg.sign_key, msg.box_key, msg.paillier, packed())
        return m.Ok()

    def _check_name(self, party: bytes, name: str) -> None:
        """ParameterError for a bad name; parties that were registered under older rules keep theirs."""
        if not is_registered(self.store.catalog, party) and check_name(name) != name:
            raise ParameterError("a name is NFC-normalised")

    def _check_paillier(self, key: bytes) -> None:
        if key:
            raise ParameterError("users of this deployment have no Paillier key")

    def _unseal(self, owner: bytes, sealed: bytes) -> bytes:
        info = owner_seal_info(self.config.id, owner, self.index)
        secret = box.open_sealed(self._box_key, sealed, info)
        if len(secret) != (32 if self.has_shares else 64):
            raise MessageError("sealed owner secrets of the wrong length")
        return secret

    def _owner_secret(self, owner: bytes) -> bytes:
        """The owner's secrets for this server, unsealed; kept in memory while the owner is registered."""
        name, _, sealed = self.store.owner(owner)  # raises once forgotten, in whichever process
        if owner not in self._secrets:
            try:
                self._secrets[owner] = self._unseal(owner, sealed)
            except (AuthenticationError, MessageError):
                raise IntegrityError(f"the keys of owner {name} at server {self.index} are damaged") from None
        return self._secrets[owner]

    def _grant(self, signer: bytes, msg: m.Grant, digest: Digest, packed: Any) -> m.Ok:
        if msg.owner != signer:
            raise AccessDeniedError("only the owner grants access to its images")
        check_grant(msg, self.config.offered)
        self.store.user(msg.user)
        epoch = self.store.catalog.counter("epoch")
        if msg.epoch != epoch:
            raise AccessDeniedError(f"the grant is of epoch {msg.epoch}, the servers' is {epoch}; sign it anew")
        order = (msg.epoch, msg.version, msg.revoked)
        self.store.put_grant(signer, msg.user, order, m.grant_id(digest.whole), packed())
        return m.Ok()

    def _list_grants(self, signer: bytes, msg: m.ListGrants, digest: Digest, packed: Any) -> m.GrantList:
        grants = [frames for _, frames in self.store.grants(owner=signer)]
        return m.GrantList(self.store.catalog.counter("epoch"), grants)

    def _granted(self, user: bytes) -> dict[bytes, m.Grant]:
        """Grants that let ``user`` do anything now, by id, in order of owner."""
        now = self._clock()
        found, expired = in_force(self.store.grants(user=user), now)
        if not found:
            ended = expired_text(expired.values(), now)
            if self.store.suspended(user):
                ended += "; grants are suspended since all servers were restored from backups: owners must grant again"
            raise AccessDeniedError(f"no owner grants this user anything (no grant, revoked, or expired){ended}")
        return found

    def _ended(self, user: bytes) -> str:
        """Which of the user's grants expired, and this server's time, to be appended to a refusal."""
        now = self._clock()
        return expired_text(in_force(self.store.grants(user=user), now)[1].values(), now)

    def _forget(self, signer: bytes, msg: m.ForgetOwner, digest: Digest, packed: Any) -> m.Ok:
        if msg.owner != signer or msg.registration != self.store.registration(signer)[0]:
            raise AccessDeniedError("only the owner forgets its images, in the registration that it names")
        self.store.forget_owner(signer, packed())
        self._drop_caches({signer})
        return m.Ok()

    # --- queries ------------------------------------------------------------------------------------------------

    def _granters(self, signer: bytes, msg: m.GrantersRequest, digest: Digest, packed: Any) -> m.Granters:
        owners, names = [], []
        for grant in self._granted(signer).values():
            with contextlib.suppress(NotFoundError):  # forgotten at this moment
                names.append(self.store.owner(grant.owner)[0])
                owners.append(grant.owner)
        return m.Granters(owners, names)

    def _snapshot(self, signer: bytes, msg: m.SnapshotRequest, digest: Digest, packed: Any) -> m.Snapshot:
        grants = {g.owner: (grant, g) for grant, g in self._granted(signer).items()}
        for owner in msg.owners:
            if owner not in grants:
                raise AccessDeniedError(f"an owner that was asked for grants this user nothing{self._ended(signer)}")
        found = [
            owner_snapshot(
                self.store,
                owner,
                self._trouble(owner),
                *grants[owner],
                brief=msg.brief,
                certifies=self.config.certifies,
            )
            for owner in sorted(set(msg.owners) or grants)
        ]
        whole = hashlib.sha256(b"mipp v2 whole snapshot" + bytes([msg.brief]))
        for o in found:
            whole.update(o.owner + o.view + o.grant + o.floor.to_bytes(8, "big"))
            whole.update(repr((o.damaged, o.reasons, o.left, o.unranked, o.unranked_reasons)).encode())
        if whole.digest() == msg.known:
            return m.Snapshot(msg.known, True, [])
        return m.Snapshot(whole.digest(), False, [pack_frames(encode(o)) for o in found])

    def row_words(self, owner: bytes, batch: BatchView) -> Callable[[np.ndarray], np.ndarray]:
        """What gives this server's words (n, D) of rows of a batch, by original numbers: stored, or keystream."""
        raise NotImplementedError  # clouds and the key centre have one each

    def _trouble(self, owner: bytes) -> str:
        """Why none of an owner's rows can be searched here, or nothing."""
        if not self.has_shares:
            try:
                self._owner_secret(owner)
            except IntegrityError as error:
                return str(error)
        return ""

    # --- images, status -----------------------------------------------------------------------------------------

    def _image_part(self, owner: bytes) -> bytes:
        """This server's part of the owner's image keys."""
        raise NotImplementedError

    def _fetch_images(self, signer: bytes, msg: m.FetchImages, digest: Digest, packed: Any) -> m.Images:
        places = requested_images(msg)
        granted = {g.owner for g in self._granted(signer).values()}
        images = locate_images(self.store, granted, places, self._ended(signer))
        files = image_files(self.store, images) if self.has_shares else []
        box_key = self.store.user(signer)[2]

        def seal(parts: bytes, ids: list[bytes]) -> bytes:
            return box.seal(box_key, parts, image_seal_info(self.config.id, signer, self.index, ids))

        return images_reply(images, files, self._image_part, seal)


#: kind of request -> method of the server, or function
_HANDLERS: dict[type, Any] = {
    m.RegisterOwner: "_register_owner",
    m.RegisterUser: "_register_user",
    m.Grant: "_grant",
    m.ListGrants: "_list_grants",
    m.ForgetOwner: "_forget",
    m.GrantersRequest: "_granters",
    m.SnapshotRequest: "_snapshot",
    m.Query: "_query",
    m.CollectRanking: "_collect",
    m.FetchImages: "_fetch_images",
    **changing.HANDLERS,
    **certifying.HANDLERS,
}
_KINDS = {kind.__name__: kind for kind in _HANDLERS}
#: signed by a key inside
_SELF_SIGNED = (m.RegisterOwner, m.RegisterUser)
#: never served twice: each time counts, or hands out what is handed out once
_ONCE = (m.Query, m.CollectRanking, m.CollectCertificate)
_BY_USER = (m.GrantersRequest, m.SnapshotRequest, m.Query, m.CollectRanking, m.FetchImages)
