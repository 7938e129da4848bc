"""One server as a process of its own: HTTP for clients, the mesh with its peers, and what it does by itself."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from pathlib import Path

from ..cpu import threads
from ..errors import DeploymentError, MippError, UnreachableError
from ..mpc.mesh import Mesh
from ..rpc import messages as m
from ..rpc import peer_messages as pm
from ..rpc.channel import request
from ..rpc.description import DeploymentConfig
from ..rpc.http_server import HttpServer
from ..rpc.local_socket import SOCKET_NAME, OperatorChannel, OperatorSocket
from ..rpc.turns import short_turns
from ..rpc.wire import Frames, encode, kind_of
from ..server.admission import Admission
from ..server.following import follow
from ..server.metrics import Metrics
from ..server.peer_channel import PATIENCE, PeerChannel
from ..server.peers import standing
from ..server.rendezvous_network import CloudRendezvous, KeyCentreRendezvous, deliver
from ..server.repair import Repairer
from ..server.replies import ReplyRoom
from ..server.sealing import reseal
from ..server.settling import join, settle
from ..server.site import ServerSite
from ..server.uploads import Uploads
from ..store.waiting import waiting
from .backends import BackendChoice
from .ceremony import number_of, read_card, read_description
from .servers import CONFIG_NAME, key_pairs, known_scheme, open_server
from .sessions import Session
from .settings import ServerSettings
from .transport import Transport

__all__ = ["ServerProcess", "own_number", "server_runs"]

_log = logging.getLogger("mipp.server")

#: seconds between two looks at what is to be done, and between two settlings when nothing calls for one
TICK, SETTLE = 0.5, 30.0
#: seconds between two times that peers are told how far this server has come
TOLD = 5.0
#: seconds that a peer may take to note it, when this server stops
LAST_WORD = 2.0
#: seconds that an accepted change waits before peers are asked; that a grant, forget or registration waits until it is
#: passed on to servers that missed it
ASK = 5.0
#: seconds between two times that workers remove files which this server has no more
PRUNED = 600.0


def own_number(folder: Path) -> tuple[DeploymentConfig, int]:
    """The description that the server in a folder joined, and its number there.

    Raises
    ------
    DeploymentError
        The folder holds no server, or one that joined no deployment.
    """
    card = read_card(folder)
    if not (folder / CONFIG_NAME).exists():
        raise DeploymentError(f"the server in {folder} joined no deployment yet: mipp server join {folder} FILE")
    config = known_scheme(read_description(folder / CONFIG_NAME))
    return config, number_of(card, config)


def server_runs(folder: Path, index: int) -> bool:
    """Whether the server in a folder runs now, and answers its operator."""
    try:
        request(OperatorChannel(folder, index), index, pm.ServerReportRequest())
        return True
    except MippError:
        return False


_CPU = BackendChoice()


class ServerProcess:
    """A server of a deployment, running in this process.

    Parameters
    ----------
    folder : Path
        The server's folder: made by :func:`~mipp.deployment.ceremony.init_server`, joined to its deployment.
    backend : BackendChoice, optional
        Where its products run; default this process.

    Raises
    ------
    DeploymentError
        The folder holds no server that joined a deployment, another process runs it, or its port is taken.
    StoreError, KeyFileError
        Its files are damaged.
    """

    def __init__(self, folder: Path, backend: BackendChoice = _CPU) -> None:
        self.folder = folder
        self.config, self.index = config, index = own_number(folder)
        self.transport = Transport(folder, config, index)
        self.settings = ServerSettings.load(folder, self.transport.url)
        self._wake, self._stopped = threading.Event(), threading.Event()
        self._turns = contextlib.ExitStack()
        #: held while settling; how often that has begun
        self._settling, self._settlings = threading.Lock(), 0
        self._since: dict[tuple[bytes, bytes], float] = {}
        self._told = dict.fromkeys(self.transport.peers, -1)
        self._resealed = 0
        self._keeper = threading.Thread(target=self._keep, name="mipp keeper", daemon=True)
        with contextlib.ExitStack() as opened:  # what is open already is closed again if something fails
            self._session = Session(folder / "sessions")
            opened.callback(self._session.close)
            if not self._session.alone:
                raise DeploymentError(f"another process runs the server in {folder}")
            made = backend.make(folder, config.params, self.settings.threads or threads())
            opened.callback(made.close)
            self.server = open_server(
                folder, config, index, threads=self.settings.threads, holder=self._session.token,
                alive=self._session.alive, card=self.settings.card, backend=made,
            )  # fmt: skip
            opened.callback(self.server.close)
            made.keep_only(self.server.store.digests)
            self.server.ready, self.server.phase, self.server.settle = False, "new", self.ask_settle
            self.server.replies = ReplyRoom(self.settings.card.reply_bytes)
            self.server.store.changes.take_prepared()
            if self._session.crashed:
                self.server.store.sweep()
            peers = self.transport.peers
            self.mesh = Mesh(index, config.id, peers, self._called, self._noted, self._changed, self.settings.peers)
            self.channel = PeerChannel(self.server, self.mesh)
            self.repairer = Repairer(self.server, self.channel)
            self._tables: dict[str, KeyCentreRendezvous | CloudRendezvous] = {}
            if config.params.compares:
                self._meet(config.params.key_centres[-1])
            self.server.metrics = Metrics(self._gauges)
            self.site = ServerSite(
                self.server, Uploads(folder, limits=self.settings.uploads), config.to_json().encode(), self.reasons,
                self.server.metrics.page, self.transport.book, self.repairer.lost,
            )  # fmt: skip
            try:
                self.http = HttpServer(
                    self.settings.host, self.settings.port, self.transport.context, self.site, self.mesh.accept,
                    limits=self.settings.connections, clock=lambda: self.server.clock(), extra=self.transport.headers,
                )  # fmt: skip
            except OSError as error:
                raise DeploymentError(f"cannot listen on {self.settings.listen}: {error.strerror}") from None
            opened.callback(self.http.stop)
            try:
                self._operator = OperatorSocket(folder, self._operated)
            except OSError as error:
                raise DeploymentError(f"cannot make {folder / SOCKET_NAME}: {error.strerror}") from None
            opened.pop_all()

    def _meet(self, key_centre: int) -> None:
        limits = self.settings.rankings
        for table, running in (("rankings", limits.at_once), ("tests", limits.tests_at_once)):
            if self.index == key_centre:
                self._tables[table] = KeyCentreRendezvous(self.mesh, table, running=running)
            else:
                self._tables[table] = CloudRendezvous(self.mesh, table, key_centre)
        self.server.admission = Admission(self.index, self._tables["rankings"], limits=limits)
        self.server.certifying = Admission(self.index, self._tables["tests"], limits=limits)

    def start(self) -> None:
        """Begin to serve."""
        self._turns.enter_context(short_turns())
        self.http.start()
        self.mesh.start()
        self.transport.start(self.mesh, self._take_keys)
        self._keeper.start()
        if self.settings.repair:
            self.repairer.start()
        self._session.ready()
        _log.info("server %d listens on port %d", self.index, self.http.port)

    def reasons(self) -> list[str]:
        """Why this server cannot serve. Peers that are away are no reason: else all would wait for each other.

        Returns
        -------
        list of str
            A sentence each, public facts only; empty if it can serve.
        """
        if self.server.keys.problem:
            return [self.server.keys.problem]
        if self.server.ready:
            reason = self.server.backend.reason
            return [reason] if reason else []
        if self.server.phase == "restored":
            return ["this server was restored from a backup and waits for all other servers"]
        return ["it waits to hear another server, as after each start"]

    def stop(self, seconds: float = 0.0) -> bool:
        """Stop: take in nothing new, wait so long for what is under way, close everything.

        Parameters
        ----------
        seconds : float
            Time for requests under way.

        Returns
        -------
        bool
            Whether all of them ended in time.
        """
        self.site.draining = True
        self._stopped.set()
        self._wake.set()
        self.transport.stop()
        self._operator.close()
        self.repairer.stop()
        until = time.monotonic() + seconds
        for admission in (self.server.admission, self.server.certifying):
            if admission is not None:  # users collect what runs by requests that are still to come
                admission.drain(until - time.monotonic())
        ended = self.http.stop(max(0.0, until - time.monotonic()))
        if self._keeper.ident is not None:
            self._keeper.join(5)
            self._tell(LAST_WORD)
        self.mesh.close()
        self.server.close()
        self.server.backend.close()
        self._session.close()
        self._turns.close()
        return ended

    def _gauges(self) -> dict[str, tuple[str, dict[str, float]]]:
        sent = {str(i): float(size) for i, size in self.mesh.sent_bytes.items()}
        there = {str(i): float(self.mesh.there(i)) for i in self.mesh.sent_bytes}
        admissions = [a for a in (self.server.admission, self.server.certifying) if a is not None]
        return {
            "mipp_ready": ("Whether this server serves.", {"": float(self.server.ready)}),
            "mipp_votes": ("Whether it takes part in changes.", {"": float(self.server.voting)}),
            "mipp_peer_there": ("Whether another server is connected, both ways.", there),
            "mipp_peer_sent_bytes": ("Bytes sent to another server since the start, TLS not counted.", sent),
            "mipp_lost_batches": (
                "Batches with live rows whose files this server lacks: searches leave them out.",
                {"": float(self.repairer.lost())},
            ),
            "mipp_connections": ("Open connections, of clients and servers.", {"": float(self.http.connections)}),
            **self.server.backend.gauges(),
            "mipp_open_changes": ("Changes that are not decided.", {"": float(len(self._since))}),
            "mipp_open_rankings": (
                "Rankings and tests of rows that are parked, running or not collected.",
                {"": float(sum(a.open for a in admissions))},
            ),
        }

    # --- the operator -------------------------------------------------------------------------------------------

    def _operated(self, frames: Frames) -> Frames:
        try:
            return self._told_operator(frames)
        except MippError as error:
            return encode(self.server.failure(error))

    def _told_operator(self, frames: Frames) -> Frames:
        kind = kind_of(frames)
        if kind == pm.ServerReportRequest.__name__:
            peers = sorted(self.config.servers.keys() - {self.index})
            problems = [self.mesh.problem(i) for i in peers]
            return encode(pm.ServerReport(self.reasons(), self.server.voting, peers, problems))
        if kind == pm.WaitingChangesRequest.__name__:
            return encode(self._waiting())
        if kind == pm.ResealRequest.__name__:
            return encode(self._reseal())
        if kind == pm.RepairRequest.__name__:
            return encode(pm.RepairReport(*self.repairer.repair()))
        return self.server.operate(frames)

    def _waiting(self) -> pm.WaitingChanges:
        found, now = waiting(self.server.store.changes), time.monotonic()
        names = [" and ".join(f"server {s}" for s in c.servers) if c.servers else "its owner's commit" for c in found]
        seconds = [int(now - self._since.get((c.owner, c.op), now)) for c in found]
        return pm.WaitingChanges(
            [c.owner for c in found], [c.op for c in found], [c.state for c in found], names, seconds
        )

    # --- peers --------------------------------------------------------------------------------------------------

    def _called(self, peer: int, frames: Frames) -> Frames:
        return self.server.operate(frames, peer=peer)

    def _noted(self, peer: int, data: bytes) -> None:
        deliver(self._tables, peer, data)

    def _changed(self, peer: int, there: bool) -> None:
        for meet in self._tables.values():
            meet.changed(peer, there)
        if there:
            self._wake.set()
            self.transport.met(peer)

    # --- what a server does by itself ---------------------------------------------------------------------------

    def _use_keys(self) -> None:
        """Use the servers' newest keys."""
        book = self.transport.book
        self.server.keys.take(key_pairs(self.folder).values(), {i: book.keys(i) for i in self.config.servers})
        if self.server.keys.problem:
            _log.warning("server %d: %s", self.index, self.server.keys.problem)

    def _seal_again(self) -> list[str]:
        """Seal to its own newest keys what owners sealed to earlier ones; names of owners where it cannot."""
        epoch, lost = self.server.keys.epoch, reseal(self.server)
        if lost:
            _log.warning("server %d: no key here opens the secrets of %d owners", self.index, len(lost))
        self._resealed = epoch
        return lost

    def _take_keys(self) -> None:
        """The same two, when the transport heard of new keys."""
        self._use_keys()
        if not self.server.keys.problem and self.server.keys.epoch != self._resealed:
            self._seal_again()  # not when others change theirs: it reads all owners

    def _reseal(self) -> pm.ResealReport:
        """For the operator: take the newest keys from the folder now, and seal to them what is not."""
        self.transport.book.reload()
        self._use_keys()
        lost = self._seal_again()
        return pm.ResealReport(self.server.keys.epoch, lost)

    def _helpers(self) -> list[int]:
        """Peers to catch up by: all that are there, once they said which its newest keys are and it has these."""
        there = [i for i in self.transport.peers if self.mesh.there(i)]
        heard = all(self.transport.heard(i) for i in there)
        return there if heard and not self.server.keys.problem else []

    def ask_settle(self) -> None:
        """Settle what is open between the servers, now; one at a time. Those who ask meanwhile share the next one."""
        asked = self._settlings
        with self._settling:
            if self._settlings > asked:  # one began, and ended, since
                return
            self._settlings += 1
            settle(self.channel)

    def _tell(self, seconds: float = PATIENCE) -> None:
        """Tell the peers how far this server has come, so that a restored backup of it is noticed."""
        counter = self.server.store.catalog.counter("counter")
        behind = [i for i, known in self._told.items() if known != counter and self.mesh.there(i)]
        if not behind or not self.server.voting:
            return
        told = standing(self.server)
        for peer in behind:
            with contextlib.suppress(UnreachableError):
                if kind_of(self.mesh.call(peer, encode(told), seconds)) == m.Ok.__name__:
                    self._told[peer] = told.counter

    def _keep(self) -> None:
        settled = time.monotonic() - SETTLE
        told = pruned = time.monotonic()
        while not self._stopped.is_set():
            woken = self._wake.wait(TICK)
            self._wake.clear()
            try:
                for meet in self._tables.values():
                    meet.sweep()
                if not self.server.voting and (helpers := self._helpers()):
                    join(self.server, self.channel, helpers)
                now = time.monotonic()
                wait = ASK if self._accepted(now) or self.server.pass_on_due else SETTLE
                if self.server.voting and (woken or now - settled > wait) and not self._stopped.is_set():
                    settled, self.server.pass_on_due = now, False
                    self.ask_settle()
                    follow(self.server, self.channel)
                if now - told > TOLD:
                    told = now
                    self._tell()
                if now - pruned > PRUNED:
                    pruned = now
                    self.server.backend.keep_only(self.server.store.digests)
            except UnreachableError as error:
                _log.info("server %d: %s", self.index, error)
            except MippError as error:
                _log.warning("server %d: %s", self.index, error)
            except Exception:
                if not self._stopped.is_set():
                    _log.exception("server %d: unexpected error", self.index)

    def _accepted(self, now: float) -> bool:
        """Whether a change was accepted here and is not decided; notes since when each open one was seen."""
        found = self.server.store.changes.open()
        self._since = {(c.owner, c.op): self._since.get((c.owner, c.op), now) for c in found}
        return any(c.commit for c in found)
