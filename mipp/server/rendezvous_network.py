"""The rendezvous over a network: the key centre decides, the clouds report to it and are told by notes.

Notes to the key centre: HAVE (a query is parked here), REFUSE, DONE (an attempt ended here). Notes from it: START with
the attempt's random name, which names the session too, and CANCEL. Each note names the table that it is about:
rankings, or tests of rows. A connection that breaks cancels whatever was parked over it.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from collections import Counter
from typing import Any

import msgpack

from ..errors import MessageError, MippError, ProtocolError, UnreachableError
from ..mpc.link import PARTIES, Frame, Header, Link
from ..mpc.mesh import EARLY_BYTES, Mesh
from ..rpc.failures import error_from_wire, error_to_wire
from .rendezvous import RUNNING, Key, LocalRendezvous, Ticket

__all__ = ["CloudRendezvous", "KeyCentreRendezvous", "deliver"]

_log = logging.getLogger("mipp.server")
_HAVE, _REFUSE, _DONE, _START, _CANCEL = "have", "refuse", "done", "start", "cancel"
#: queries that one cloud may have reported and the others not; an honest one has no more (``rankings.in_all``)
REPORTED = 1024


def _pack(table: str, what: str, *fields: Any) -> bytes:
    packed: bytes = msgpack.packb([table, what, *fields])
    return packed


def _said(error: Exception) -> tuple[str, str]:
    """An error for a note, as much of it as whoever reads it shows."""
    name, text = error_to_wire(error)
    return name, text[:500]


class _RemoteTicket:
    """At the key centre: a query that is parked at a cloud."""

    #: a cloud's word is not taken for it: the key centre has the query itself
    servers: tuple[int, ...] = ()

    def __init__(self, centre: KeyCentreRendezvous, key: Key, server: int) -> None:
        self._centre, self._key, self._server = centre, key, server
        self._connection = centre.connections[server]
        #: what START says of the servers that take part, where these are not all: one number a byte
        self.others: tuple[bytes, ...] = ()

    def go(self, attempt: bytes, link: Link) -> None:
        """Tell it to start. If its connection broke since it reported the query, it will not end the attempt."""
        told = self._centre.tell(self._server, _START, *self._key, attempt, *self.others)
        if not told or self._centre.connections[self._server] != self._connection:
            self._centre.done(attempt, self._server)

    def refused(self, error: MippError) -> None:
        self._centre.tell(self._server, _CANCEL, *self._key, *_said(error))


class KeyCentreRendezvous(LocalRendezvous):
    """The rendezvous at the key centre, for itself and for the clouds.

    Parameters
    ----------
    mesh : connections with the clouds
    table : name of this rendezvous in notes
    running : attempts at the same time
    """

    def __init__(self, mesh: Mesh, table: str, *, running: int = RUNNING) -> None:
        super().__init__(running=running, servers=mesh.servers, always=(mesh.index,))
        self._mesh, self._table = mesh, table
        #: how often each cloud's connection broke
        self.connections: Counter[int] = Counter()

    def tell(self, peer: int, what: str, *fields: Any) -> bool:
        """Send a cloud a note; False if it is away: then it drops what it has parked, by itself."""
        try:
            self._mesh.note(peer, _pack(self._table, what, *fields))
        except UnreachableError:
            return False
        return True

    def _links(self, attempt: bytes, tickets: dict[int, Ticket]) -> dict[int, Link]:
        link = self._mesh.open(attempt, EARLY_BYTES)
        for ticket in tickets.values() if len(self._all) > len(tickets) else ():
            if isinstance(ticket, _RemoteTicket):
                ticket.others = (bytes(sorted(tickets)),)
        return dict.fromkeys(tickets, link)  # the clouds open their own

    def told(self, peer: int, what: str, fields: list[Any]) -> None:
        """Take a cloud's note."""
        if what == _DONE:
            (attempt,) = fields
            self.done(attempt, peer)
            return
        user, query, *rest = fields
        key = user, query
        if what == _HAVE:
            with self._lock:
                reported = sum(peer in g.tickets for g in self._gathering.values())
            if reported >= REPORTED:
                raise MessageError("more queries than a cloud has at once")
            self.have(key, peer, _RemoteTicket(self, key, peer))
        elif what == _REFUSE:
            self.refuse(key, peer, error_from_wire(*rest))
        else:
            raise MessageError("a note of an unknown kind")

    def changed(self, peer: int, there: bool) -> None:
        """A cloud came or went; what it had parked or was running ends."""
        if there:
            return
        with self._lock:
            self.connections[peer] += 1
            keys = [k for k, g in self._gathering.items() if peer in g.tickets]
            keys += [k for k, tickets in self._complete.items() if peer in tickets]
            attempts = list(self._running)
        for key in keys:
            self.refuse(key, peer, UnreachableError("its connection broke"))
        for attempt in attempts:
            self.done(attempt, peer)


class CloudRendezvous:
    """The rendezvous as a cloud sees it.

    Parameters
    ----------
    mesh : connections with the other servers
    table : name of this rendezvous in notes
    key_centre : number of the key centre
    """

    def __init__(self, mesh: Mesh, table: str, key_centre: int) -> None:
        self._mesh, self._table, self._key_centre = mesh, table, key_centre
        self._lock = threading.Lock()
        self._tickets: dict[Key, Ticket] = {}

    def have(self, key: Key, server: int, ticket: Ticket) -> None:
        with self._lock:
            self._tickets[key] = ticket
        try:
            if not self._mesh.there(self._key_centre):  # what it says in reply could not come
                raise UnreachableError("the key centre is not connected")
            self._mesh.note(self._key_centre, _pack(self._table, _HAVE, *key))
        except BaseException:
            with self._lock:
                self._tickets.pop(key, None)
            raise

    def refuse(self, key: Key, server: int, error: BaseException) -> None:
        known = error if isinstance(error, Exception) else ProtocolError("stopped")
        name, text = _said(known)
        with contextlib.suppress(UnreachableError):
            self._mesh.note(self._key_centre, _pack(self._table, _REFUSE, *key, name, text))
        with self._lock:
            ticket = self._tickets.pop(key, None)
        if ticket is not None:  # what is parked here ends at once, whether or not the key centre can be told
            ticket.refused(error_from_wire(name, f"server {server} refused: {text}"))

    def done(self, attempt: bytes, server: int) -> None:
        with contextlib.suppress(UnreachableError):
            self._mesh.note(self._key_centre, _pack(self._table, _DONE, attempt))

    def sweep(self) -> None:
        """Nothing to do: the key centre sweeps."""

    def told(self, peer: int, what: str, fields: list[Any]) -> None:
        """Take the key centre's note."""
        if peer != self._key_centre:
            raise MessageError("only the key centre starts rankings")
        if what not in (_START, _CANCEL):
            raise MessageError("a note of an unknown kind")
        user, query, *rest = fields
        with self._lock:
            ticket = self._tickets.pop((user, query), None)
        if what == _START:
            attempt, *others = rest
            if others and not {self._mesh.index, self._key_centre} <= set(others[0]) <= set(self._mesh.servers):
                raise MessageError("a start of other servers")
            try:
                link = self._mesh.open(attempt, EARLY_BYTES)
            except MippError as error:
                if ticket is not None:
                    ticket.refused(error)
                raise
            if ticket is not None:
                ticket.go(attempt, link)
            else:  # it was given up here meanwhile: the others need not wait
                self._abort(attempt, link, tuple(others[0]) if others else PARTIES)
        elif ticket is not None:
            ticket.refused(error_from_wire(*rest))

    def _abort(self, attempt: bytes, link: Link, servers: tuple[int, ...]) -> None:
        text = b"ProtocolError\nthe query was given up"
        parties = [s for s in servers if s != self._key_centre] + [self._key_centre]
        me = parties.index(self._mesh.index) + 1
        for party, peer in enumerate(parties, 1):
            if party != me:
                head = Header("abort", me, party, 0, bytes(16), len(text)).pack()
                with contextlib.suppress(MippError):
                    link.send(peer, Frame(head, [memoryview(text)]))
        link.close()
        self.done(attempt, self._mesh.index)

    def changed(self, peer: int, there: bool) -> None:
        """A server came or went; without the key centre nothing that is parked starts."""
        if there or peer != self._key_centre:
            return
        with self._lock:
            tickets, self._tickets = self._tickets, {}
        for ticket in tickets.values():
            ticket.refused(UnreachableError("the connection to the key centre broke"))


def deliver(tables: dict[str, KeyCentreRendezvous | CloudRendezvous], peer: int, data: bytes) -> None:
    """Give a peer's note to the rendezvous that it is about; MessageError for anything else."""
    try:
        values: Any = msgpack.unpackb(data, max_array_len=8, max_map_len=0, max_ext_len=0)
        table, what, *fields = values
        ok = (
            table in tables
            and type(what) is str
            and all(type(f) in (bytes, str) and len(f) <= 4096 for f in fields)
            and (len(fields), what) in {(2, _HAVE), (4, _REFUSE), (1, _DONE), (3, _START), (4, _START), (4, _CANCEL)}
            and (what == _DONE or [(type(f), len(f)) for f in fields[:2]] == [(bytes, 16), (bytes, 32)])
            and (what not in (_REFUSE, _CANCEL) or all(type(f) is str for f in fields[2:]))
            and (what != _DONE or (type(fields[0]) is bytes and len(fields[0]) == 16))
            and (what != _START or (type(fields[2]) is bytes and len(fields[2]) == 16))
            and (what != _START or all(type(f) is bytes and len(set(f)) == len(f) == 3 for f in fields[3:]))
        )
    except Exception:
        ok = False
    if not ok:
        raise MessageError("malformed note")
    tables[table].told(peer, what, fields)
