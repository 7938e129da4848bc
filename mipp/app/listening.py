"""The page's port: bodies come after the proof of their sender, and connections of strangers give way.

waitress reads a request whole before the site sees it, and takes no more connections once a number of them is open. Any
account of this machine can connect, so both are decided here: the head of a request with a body must be proved before
the body is read, and a new connection closes the oldest one that has sent no proved request.
"""

from __future__ import annotations

import errno
import ipaddress
import secrets
import socket
import threading
from typing import Any

from waitress.adjustments import Adjustments
from waitress.channel import HTTPChannel
from waitress.parser import HTTPRequestParser
from waitress.server import TcpWSGIServer
from waitress.utilities import Error, RequestEntityTooLarge
from waitress.wasyncore import close_all

from .guard import Guard

__all__ = ["LARGEST_BODY", "LARGEST_FIELDS", "Listener", "fresh_address"]

#: the address that every system has; loopback addresses that :func:`fresh_address` gives, the first and the one after
#: the last: not those of 127.0.0.0/16, where other programs listen, and not the broadcast address
_ONLY = "127.0.0.1"
_FIRST, _END = (int(ipaddress.IPv4Address(text)) for text in ("127.1.0.0", "127.255.255.255"))

#: bytes of a query image, and of the fields of any other request
LARGEST_BODY, LARGEST_FIELDS = 64 << 20, 1 << 20
#: connections; bytes of a request's head
_MOST, _HEAD_BYTES = 128, 16 << 10
#: seconds that a connection may take until its first proved request
_UNPROVED_SECONDS = 20.0
_THREADS = 8
#: replies and requests below this size stay in memory: the server would write larger ones into temporary files
_IN_MEMORY = 1 << 31


def fresh_address() -> str:
    """Choose a loopback address at random, so that each run of the page has an origin that no browser has seen.

    Whoever served an address and port that a browser visited earlier may have left a service worker or cached files
    there, which would run in a later page of the same origin.

    Returns
    -------
    str
        One of 2^24 - 2^16 - 1 addresses; 127.0.0.1 where the system has no other loopback addresses (macOS).
    """
    host = str(ipaddress.IPv4Address(_FIRST + secrets.randbelow(_END - _FIRST)))
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        try:
            probe.bind((host, 0))
        except OSError as error:
            if error.errno != errno.EADDRNOTAVAIL:
                raise
            return _ONLY
    return host


class _Unproved(Error):  # type: ignore[misc]
    code, reason = 401, "Unauthorized"


class _LengthRequired(Error):  # type: ignore[misc]
    code, reason = 411, "Length Required"


class _Parser(HTTPRequestParser):  # type: ignore[misc]
    """One request; its body is read only if its head is proved, and as long as its path allows."""

    guard: Guard
    #: the head is proved
    proved = False

    def parse_header(self, header_plus: bytes) -> None:
        super().parse_header(header_plus)
        if self.body_rcv is None:
            return
        searches = self.path.startswith("/api/user/") and self.path.endswith("/search")
        most = LARGEST_BODY if searches else LARGEST_FIELDS
        if self.chunked:
            self.error = _LengthRequired("a request says how long its body is")
        elif self.content_length > most:
            self.error = RequestEntityTooLarge(f"more than {most} bytes")
        elif not self.guard.admits(self.command, self.request_uri, self._header):
            self.error = _Unproved("this page was opened by another link; open a new one")
        else:
            self.proved = True
            return
        self.completed = True

    def _header(self, name: str) -> str:
        return str(self.headers.get(name.upper().replace("-", "_"), ""))


class _Channel(HTTPChannel):  # type: ignore[misc]
    #: a proved request came over this connection
    proved = False

    @property
    def gives_way(self) -> bool:
        """Whether nothing that a page asked for is under way."""
        return not self.requests and not (self.request is not None and self.request.proved)


class Listener(TcpWSGIServer):  # type: ignore[misc]
    """Serves a WSGI application on a port of a loopback address.

    Parameters
    ----------
    application : callable
        The site.
    guard : Guard
        Whose proofs count.
    host : str
        The address.
    port : int
        0 for a free one.
    """

    def __init__(self, application: Any, guard: Guard, host: str, port: int) -> None:
        parser = type("Parser", (_Parser,), {"guard": guard})
        self._running = self._ending = False
        #: held while the trigger is pulled: run() would close its pipe meanwhile, and another file get its number
        self._closing = threading.Lock()
        self.channel_class = type("Channel", (_Channel,), {"parser_class": parser})
        # connections are bounded here: waitress would wait until one ends
        super().__init__(
            application,
            adj=Adjustments(
                host=host, port=port, threads=_THREADS, connection_limit=2 * _MOST, backlog=_MOST,
                max_request_header_size=_HEAD_BYTES, max_request_body_size=LARGEST_BODY + 1,
                inbuf_overflow=_IN_MEMORY, outbuf_overflow=_IN_MEMORY, channel_timeout=60, cleanup_interval=5,
                ident=None, clear_untrusted_proxy_headers=True,
            ),
        )  # fmt: skip

    def prove(self, port: str) -> None:
        """Note that a proved request came from a port of this machine: its connection does not give way any more."""
        for channel in list(self.active_channels.values()):
            if str(channel.addr[1]) == port:
                channel.proved = True

    def handle_accept(self) -> None:
        super().handle_accept()
        # after the new one is there: the number of a closed socket is not used again for what poll() just told of it
        idle = [channel for channel in self.active_channels.values() if channel.gives_way]
        for _ in range(len(self.active_channels) - _MOST):
            if idle:
                oldest = min(idle, key=lambda channel: (channel.proved, channel.creation_time))
                idle.remove(oldest)
                oldest.handle_close()

    def maintenance(self, now: float) -> None:
        super().maintenance(now)
        for channel in list(self.active_channels.values()):
            if channel.gives_way and not channel.proved and now - channel.creation_time > _UNPROVED_SECONDS:
                channel.will_close = True

    def end(self) -> None:
        """End :meth:`run`, with the port, its connections and threads."""
        with self._closing:
            self._ending = True
            if self._running:
                self.pull_trigger()
            else:
                close_all(self._map)
        self.task_dispatcher.shutdown(cancel_pending=True, timeout=2)

    def run(self) -> None:
        """Serve until :meth:`end`."""
        self._running = True
        try:
            super().run()
        except OSError:  # sockets were closed under poll()
            if not self._ending:
                raise

    def readable(self) -> bool:
        # asked before each poll(), in the thread that owns the sockets
        if self._ending:
            with self._closing:
                close_all(self._map, ignore_all=True)
            return False
        return bool(super().readable())
