"""Exchange of servers' signed addresses, with whoever answers: what is passed on proves itself.

No certificate is compared here, so a server whose certificate is not known yet can tell its new one. Whoever is in the
middle can withhold updates or show old ones, which are refused; it cannot make any.
"""

from __future__ import annotations

import http.client
import logging
import queue
import threading
import time

from ..errors import AuthenticationError, MippError, UnreachableError
from .address_book import AddressBook, Taken
from .address_updates import MAX_UPDATES_BYTES, read_updates
from .bodies import ADDRESSES_PATH
from .http_pages import page
from .tls import connect_unpinned

__all__ = ["Learner", "exchange", "versions_text"]

_log = logging.getLogger("mipp.addresses")

#: seconds to connect, and for the reply
CONNECT, PAGE = 5.0, 10.0
#: seconds that a request waits for news of a server that cannot be reached
PATIENCE = 1.5
#: seconds for which a server that failed, or told of news, is not asked about again
AGAIN = 5.0
#: most characters of the header that tells versions
_HEADER = 200


class _Unpinned(http.client.HTTPConnection):
    def __init__(self, host: str, port: int, who: str) -> None:
        super().__init__(host, port)
        self._who = who

    def connect(self) -> None:
        self.sock = connect_unpinned(self.host, self.port, CONNECT, self._who)


def exchange(book: AddressBook, server: int, *, give: bool = False) -> tuple[Taken, dict[int, int]]:
    """Ask a server for all addresses that it knows, and take over what is news.

    Parameters
    ----------
    book : AddressBook
        What is known here.
    server : int
        Whom to ask.
    give : bool
        Also tell it what is known here, as servers do among themselves.

    Returns
    -------
    taken : Taken
        What changed here.
    versions : dict of int to int
        Versions that the server showed, of those servers whose address changed since the description.

    Raises
    ------
    UnreachableError
        Nobody answers there, or somebody who tells no addresses.
    MippError
        The reply is no list of addresses.
    """
    address = book.address(server)
    who = f"server {server} ({address.name})"
    connection = _Unpinned(address.host, address.port, who)
    try:
        status, body = page(connection, ADDRESSES_PATH, MAX_UPDATES_BYTES, PAGE, who, book.to_json() if give else None)
    except (OSError, http.client.HTTPException) as error:
        if isinstance(error, MippError):
            raise
        raise UnreachableError(f"{who} did not tell its addresses") from None
    if status != 200:
        raise UnreachableError(f"{who} tells no addresses of servers")
    updates, _ = read_updates(body)
    return book.take(updates), {u.server: u.version for u in updates}


def versions_text(book: AddressBook) -> str:
    """Versions of all servers' addresses, as the header of replies tells them."""
    return ".".join(map(str, book.versions.values()))


class Learner:
    """Learns addresses for a client: when a server cannot be reached as it is known, and when replies tell of news.

    Parameters
    ----------
    book : AddressBook
        What is known here.
    """

    def __init__(self, book: AddressBook) -> None:
        self._book = book
        self._lock = threading.Lock()
        self._failed: dict[int, float] = {}
        self._told: dict[int, float] = {}

    def failed(self, server: int, error: MippError) -> bool:
        """Ask about a server that cannot be reached; whether its address or certificates changed.

        Parameters
        ----------
        server : int
            The server.
        error : MippError
            Why it cannot be reached. If somebody answers with another certificate, that one is asked, too: it may be
            the server itself, with a new certificate.
        """
        book, before = self._book, self._known(server)
        book.reload()
        if self._known(server) != before:
            return True
        if not self._due(self._failed, server):
            return False
        asked = [i for i in book.versions if i != server or isinstance(error, AuthenticationError)]
        done: queue.SimpleQueue[int] = queue.SimpleQueue()

        def ask(other: int) -> None:
            self._ask(other)
            done.put(other)

        for i in asked:  # all at once: one of them may be silent
            threading.Thread(target=ask, args=(i,), name="mipp addresses", daemon=True).start()
        until = time.monotonic() + PATIENCE
        for _ in asked:
            try:
                done.get(timeout=max(until - time.monotonic(), 0))
            except queue.Empty:
                break
            if self._known(server) != before:
                break
        return self._known(server) != before

    def told(self, server: int, header: str | None) -> None:
        """Ask a server whose reply tells of addresses that are not known here."""
        known = list(self._book.versions.values())
        if header is None or len(header) > _HEADER:
            return
        parts = header.split(".")
        fits = abs(len(parts) - len(known)) <= 1
        if not fits or not all(p.isascii() and p.isdigit() and len(p) < 11 for p in parts):
            return
        # one of the two may not have heard of a cloud that joined, which comes last
        if any(int(told) > here for told, here in zip(parts, known, strict=False)) and self._due(self._told, server):
            self._ask(server)

    def _known(self, server: int) -> tuple[str, int, tuple[bytes, ...]]:
        address = self._book.address(server)
        return address.host, address.port, self._book.certificates(server)

    def _due(self, last: dict[int, float], server: int) -> bool:
        now = time.monotonic()
        with self._lock:
            due = now - last.get(server, -AGAIN) >= AGAIN
            if due:
                last[server] = now
        return due

    def _ask(self, server: int) -> None:
        try:
            for problem in exchange(self._book, server)[0].refused:
                _log.warning("server %d told of an address that is not taken: %s", server, problem)
        except MippError as error:
            _log.info("no addresses were learned: %s", error)
        except Exception:  # what a server tells of others must not end a request
            _log.exception("unexpected error when server %d told its addresses", server)
