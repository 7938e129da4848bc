"""A server's certificates and its way to the others, kept up to date while it runs.

Servers tell each other their signed addresses: when a connection is made, when one of them has news, when one cannot be
reached, and now and then. A new address is used at once: TLS contexts are made anew, and connections with a certificate
that is not valid any more end.
"""

from __future__ import annotations

import logging
import ssl
import threading
import time
from collections.abc import Callable
from pathlib import Path

from ..errors import DeploymentError, MippError, ParameterError
from ..mpc.mesh import Mesh
from ..mpc.outgoing import Peer
from ..rpc.address_book import AddressBook
from ..rpc.address_exchange import exchange, versions_text
from ..rpc.bodies import ADDRESSES_HEADER
from ..rpc.description import DeploymentConfig
from ..rpc.key_sets import EpochKeys
from ..rpc.tls import mesh_context, server_context
from .tls_files import served_tls

__all__ = ["Transport"]

_log = logging.getLogger("mipp.addresses")

#: seconds between two updates of one server that are taken
SPACING = 1.0
#: seconds between two looks at the file; until a peer is asked again that is there, and one that is not
TICK, SETTLED, MISSING = 0.5, 300.0, 3.0


class Transport:
    """TLS contexts of one server, the peers that it dials, and what it learns of their addresses.

    Parameters
    ----------
    folder : Path
        The server's folder.
    config : DeploymentConfig
        The description that it joined.
    index : int
        Its number.

    Raises
    ------
    DeploymentError
        The TLS files, or the file of addresses, are missing or damaged.
    """

    def __init__(self, folder: Path, config: DeploymentConfig, index: int) -> None:
        self._folder, self._index = folder, index
        self.book = AddressBook(config, folder, spacing=SPACING)
        self._others = sorted(config.addresses.keys() - {index})
        self._known: dict[int, tuple[str, tuple[bytes, ...]]] = {}
        self._keys: dict[int, tuple[EpochKeys, ...]] = {}
        self._take_keys: Callable[[], None] = lambda: None
        self._mesh: Mesh | None = None
        self._wake, self._stopped = threading.Event(), threading.Event()
        #: when each peer is asked next; versions that it showed last
        self._next = dict.fromkeys(self._others, 0.0)
        self._shown: dict[int, dict[int, int]] = {}
        #: peers whose keys are in use here
        self._heard: set[int] = set()
        self._asking: set[int] = set()
        self._conflicts: list[str] = []
        self._thread = threading.Thread(target=self._keep, name="mipp addresses", daemon=True)
        self._pem: tuple[Path, Path] | None = None
        try:
            self._take_over()
        except (DeploymentError, ParameterError, ssl.SSLError) as error:
            again = f"; make new ones with: mipp server rotate {folder} --new-certificate --finish"
            hint = again if self.book.version(index) else ""
            raise DeploymentError(f"cannot use the TLS files in {folder}: {error}{hint}") from None

    @property
    def url(self) -> str:
        """URL of this server."""
        return self.book.address(self._index).url

    def context(self) -> ssl.SSLContext:
        """Context for a new connection to this server."""
        return self._context

    def headers(self) -> list[str]:
        """Line of each reply's head that tells clients which versions there are."""
        return [f"{ADDRESSES_HEADER}: {versions_text(self.book)}"]

    @property
    def peers(self) -> dict[int, Peer]:
        """The other servers as they are known now."""
        return dict(self._peers)

    def start(self, mesh: Mesh, take_keys: Callable[[], None]) -> None:
        """Begin to learn addresses, and to have the mesh use them; ``take_keys`` is called when servers' keys change.

        It is called once for the keys that are known at the start, too.
        """
        self._mesh, self._take_keys = mesh, take_keys
        self._thread.start()

    def met(self, peer: int) -> None:
        """A peer is there: tell it what is known here, and hear what it knows."""
        self._next[peer] = 0.0
        self._wake.set()

    def heard(self, peer: int) -> bool:
        """Whether a peer told its addresses and keys since the start, and this server uses what it told."""
        return peer in self._heard

    def stop(self) -> None:
        """Learn no more."""
        self._stopped.set()
        self._wake.set()

    # --- what is known now --------------------------------------------------------------------------------------

    def _take_over(self) -> None:
        """Make contexts and peers of the addresses that are known now, if they changed."""
        known = {i: (self.book.address(i).url, self.book.certificates(i)) for i in (self._index, *self._others)}
        if known == self._known:
            return
        try:
            pem = served_tls(self._folder, known[self._index][1])
        except (MippError, ssl.SSLError) as error:
            if self._pem is None:
                raise
            pem = self._pem  # the others' addresses count all the same
            _log.warning("the newest certificate of this server cannot be used: %s", error)
        self._context = server_context(*pem, {i: known[i][1] for i in self._others})
        self._peers = {
            i: Peer(
                self.book.address(i).host, self.book.address(i).port, known[i][1],
                f"server {i} ({self.book.address(i).name})", mesh_context(*pem, known[i][1], self._index),
            )
            for i in self._others
        }  # fmt: skip
        if self._mesh is not None:
            for i, peer in self._peers.items():
                self._mesh.replace(i, peer)
            changed = [i for i, now in known.items() if now != self._known.get(i)]
            _log.info("the addresses of servers %s changed", ", ".join(map(str, changed)))
        self._known, self._pem = known, pem

    def _keep(self) -> None:
        versions: dict[int, int] = {}
        failed = ""
        while not self._stopped.is_set():
            self._wake.wait(TICK)
            self._wake.clear()
            shown = set(self._shown)
            try:
                self.book.reload()
                self._take_over()
                keys = {i: self.book.keys(i) for i in self.book.versions}
                if keys != self._keys:
                    self._take_keys()
                    self._keys = keys
                self._heard |= shown
                failed = ""
            except MippError as error:  # it goes on with what it had
                if str(error) != failed:
                    failed = str(error)
                    _log.warning("a new address cannot be used: %s", error)
            except Exception:
                _log.exception("unexpected error at a new address")
            if self.book.versions != versions:
                versions = self.book.versions
                for peer in self._others:
                    if self._shown.get(peer) != versions:
                        self._next[peer] = 0.0
            if self.book.conflicts != self._conflicts:
                self._conflicts = self.book.conflicts
                for text in self._conflicts:
                    _log.warning("%s", text)
            for peer in self._others:
                if time.monotonic() >= self._next[peer] and peer not in self._asking and not self._stopped.is_set():
                    there = self._mesh is None or self._mesh.there(peer)
                    self._next[peer] = time.monotonic() + (SETTLED if there else MISSING)
                    self._asking.add(peer)  # in a thread of its own: a silent peer holds nothing up
                    threading.Thread(target=self._ask, args=(peer,), name="mipp exchange", daemon=True).start()

    def _ask(self, peer: int) -> None:
        """Exchange addresses with a peer, and note when to do so again if that is soon."""
        try:
            self._exchange(peer)
        finally:
            self._asking.discard(peer)

    def _exchange(self, peer: int) -> None:
        try:
            done, shown = exchange(self.book, peer, give=True)
        except MippError as error:
            self._next[peer] = time.monotonic() + MISSING
            _log.debug("no addresses were exchanged: %s", error)
            return
        except Exception:
            _log.exception("unexpected error at an exchange of addresses")
            return
        first = peer not in self._shown
        self._shown[peer] = {i: shown.get(i, 0) for i in self.book.versions}
        for text in done.refused:
            _log.info("an address was not taken: %s", text)
        if self._shown[peer] != self.book.versions:  # one of both takes the rest later
            self._next[peer] = time.monotonic() + MISSING
        if done.changed or first:
            self._wake.set()
