"""A server's part in the certificates of rows: two clouds and the key centre test that a batch keeps the bounds.

Owners ask for it between PREPARE and COMMIT; whoever operates the servers asks for batches that were there before. What
is tested, and how, is in ``mpc/certificate.py``. With three clouds each two of them test with the key centre, and a
server counts a batch as certified when all tests that it has a part in have passed. Certificates have a rendezvous of
their own, one attempt at a time, so that a large upload holds up no search.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import (
    BusyError,
    ConflictError,
    IntegrityError,
    NotFoundError,
    OutOfRangeError,
    ParameterError,
    ShapeError,
    StaleSnapshotError,
)
from ..mpc.certificate import Batch, certify_rows, refused
from ..mpc.link import Link
from ..mpc.waiting import certificate_room
from ..rpc import messages as m
from ..rpc import peer_messages as pm
from ..store import changes as rules
from ..store.views import BatchView
from .admission import Admission
from .base import Handlers, Request, ServerBase
from .ranking import seated

__all__ = ["HANDLERS", "LONG", "PEER_HANDLERS"]

#: words of a batch whose test is left to a worker thread, so that its owner is told how far it is
LONG = 1 << 23
#: words that a test of rows may take a second for, in all
WORDS_A_SECOND = 1_000_000


def certify(server: ServerBase, request: Request[m.CertifyRows]) -> m.Ok | m.Pending:
    signer, msg = request.signer, request.content
    admission = _admission(server)
    if len(msg.op) != 16:
        raise ShapeError("a change has an id of 16 bytes")
    servers = _testers(server, msg.servers)
    among = frozenset(msg.among or server.config.servers)
    if not among.issuperset(servers) or not among.issubset(server.config.servers):
        raise ParameterError("a change is tested by servers that it is written to")
    name = _name(b"prepared", signer, msg.op)
    key = _key(server, name, servers)

    def rows() -> _Rows:
        batch = server.store.certificates.prepared(signer, msg.op)
        return _Rows(batch, np.arange(batch.rows), bytes(32))

    def run(link: Link, checked: Any) -> m.Ok:
        try:
            session, bad, tested = _test(server, link, signer, key, servers, rows)
        except StaleSnapshotError:  # of a prepared batch nothing else changes
            raise BusyError("the servers' keys changed just now; try again") from None
        if len(bad):
            with contextlib.suppress(ConflictError):
                server.store.changes.never(signer, msg.op)
            raise OutOfRangeError(refused(bad, tested.rows))
        note(server.tests.passed(name, servers, session, among))
        return m.Ok()

    def note(certificate: bytes) -> None:
        if certificate:
            server.store.certificates.note_prepared(signer, msg.op, certificate, tested=sorted(among))

    # the file is opened when the test begins
    accepted = server.store.changes.state(signer, msg.op) in (rules.ACCEPTED, rules.COMMITTED)
    if accepted:
        return m.Ok()
    batch, tested = server.store.certificates.prepared(signer, msg.op), server.store.certificates.tested(signer, msg.op)
    if batch.certified and among.issubset(tested or among):  # never twice: it costs
        return m.Ok()
    if server.tests.has(name, servers):  # and those of a server that is away now are needed no more
        note(server.tests.certificate(name, among))
        return m.Ok()
    attend = batch.rows * server.config.row_rule.width < LONG
    return _told(server, key, admission.ask(signer, key, 0, lambda: None, run, servers=servers, attend=attend))


def collect(server: ServerBase, request: Request[m.CollectCertificate]) -> m.Ok | m.Pending:
    signer, msg = request.signer, request.content
    key = _key(server, _name(b"prepared", signer, msg.op), _testers(server, msg.servers))
    return _told(server, key, _admission(server).collect(signer, key))


def certify_batch(server: ServerBase, msg: pm.CertifyBatch) -> m.Ok | m.Pending:
    servers = _testers(server, msg.servers)
    name = _name(b"visible", msg.owner, msg.batch)
    key = _key(server, name, servers)

    def rows() -> _Rows:
        batch, view = _visible(server, msg)
        live = np.setdiff1d(np.arange(batch.rows), batch.tombstones)
        return _Rows(batch, live, hashlib.sha256(view + batch.tombstones.astype("<i8").tobytes()).digest())

    def run(link: Link, checked: Any) -> m.Ok:
        session, bad, tested = _test(server, link, msg.owner, key, servers, rows)
        if len(bad):
            refusal = f"{refused(bad, tested.rows)}; its owner deletes them, and it is checked again"
            server.store.certificates.note_visible(msg.owner, tested, refusal=refusal)
            return m.Ok()
        about = hashlib.sha256(name + tested.tombstones.astype("<i8").tobytes()).digest()
        everyone = frozenset(server.config.servers)
        if certificate := server.tests.passed(about, servers, session, everyone):
            server.store.certificates.note_visible(msg.owner, tested, certificate)
        return m.Ok()

    reply = _admission(server).ask(msg.owner, key, 0, lambda: _visible(server, msg) and None, run, servers=servers)
    return _told(server, key, reply)


def collect_batch(server: ServerBase, msg: pm.CollectBatch) -> m.Ok | m.Pending:
    key = _key(server, _name(b"visible", msg.owner, msg.batch), _testers(server, msg.servers))
    return _told(server, key, _admission(server).collect(msg.owner, key))


def uncertified(server: ServerBase, msg: pm.UncertifiedRequest) -> pm.Uncertified:
    missing = server.store.certificates.missing() if server.config.certifies else []
    return pm.Uncertified([owner for owner, _ in missing], [batch for _, batch in missing])


def _admission(server: ServerBase) -> Admission:
    if server.certifying is None or not server.config.certifies:
        raise ParameterError("rows of this deployment need no certificate: its servers do not rank")
    return server.certifying


def _name(kind: bytes, owner: bytes, batch: bytes) -> bytes:
    """Name of one test among the servers: 32 bytes, of the owner and the id, which stands for one content for ever."""
    return hashlib.sha256(b"mipp v1 certify " + kind + owner + batch).digest()


def _testers(server: ServerBase, servers: list[int]) -> tuple[int, ...]:
    """The servers of a test, of which this is one, in the order of their parts."""
    parties = server.config.params.parties(servers or None)
    if server.index not in parties:
        raise ParameterError(f"server {server.index} has no part in a test of servers {list(servers)}")
    return parties


def _key(server: ServerBase, name: bytes, servers: tuple[int, ...]) -> bytes:
    """Name of one test of these servers."""
    return name if len(server.config.params.server_sets) == 1 else hashlib.sha256(name + bytes(servers)).digest()


def _visible(server: ServerBase, msg: pm.CertifyBatch) -> tuple[BatchView, bytes]:
    """A visible batch, and the view that it is of."""
    view = server.store.view(msg.owner)
    if msg.batch not in view.index:
        raise NotFoundError("this owner has no such batch")
    batch = view.batches[view.index[msg.batch]]
    if batch.problem:
        raise IntegrityError(f"batch {msg.batch.hex()} is damaged at server {server.index}: {batch.problem}")
    return batch, view.hash


@dataclass(frozen=True)
class _Rows:
    """Subject of one test: a batch, which rows of it (original numbers), and the state that this is of."""

    batch: BatchView
    live: np.ndarray
    state: bytes


def _test(
    server: ServerBase, link: Link, owner: bytes, key: bytes, servers: tuple[int, ...], rows: Callable[[], _Rows]
) -> tuple[bytes, np.ndarray, BatchView]:
    """This server's part; the session, which rows are out of range, and the batch as it was tested.

    Whatever goes wrong here, also before the first round, is told to the peers: else they wait, and all others' tests.
    """
    key_set = server.keys.current
    party = seated(server.index, servers, server.keys.pair_keys(key_set), link, server.threads)
    try:
        about = rows()
        words = server.row_words(owner, about.batch)
    except BaseException as error:
        party.fail(error)
        raise
    live = about.live
    party.slow = len(live) * server.config.row_rule.width / WORDS_A_SECOND
    # one who has other keys is told at the first round, since the state differs
    state = hashlib.sha256(about.state + key_set).digest()
    facts = Batch(key, state, len(live), server.config.row_rule, server.config.params, servers)
    server.progress[key] = 0, len(live)
    link.expect(certificate_room(facts.rule, len(live)))
    try:
        bad = certify_rows(
            party, lambda start, stop: words(live[start:stop]), facts, functools.partial(_note, server, key, len(live))
        )
    finally:
        server.progress.pop(key, None)
    return party.session, live[bad], about.batch


def _note(server: ServerBase, key: bytes, total: int, done: int) -> None:
    server.progress[key] = done, total


def _told(server: ServerBase, key: bytes, reply: Any) -> m.Ok | m.Pending:
    """A reply, with how far the test has come."""
    if isinstance(reply, m.Pending):
        return m.Pending(reply.retry_after, *server.progress.get(key, (0, 0)))
    assert isinstance(reply, m.Ok)
    return reply


HANDLERS: Handlers = {
    m.CertifyRows: certify,
    m.CollectCertificate: collect,
}
PEER_HANDLERS: dict[type, Callable[[ServerBase, Any], Any]] = {
    pm.CertifyBatch: certify_batch,
    pm.CollectBatch: collect_batch,
    pm.UncertifiedRequest: uncertified,
}
