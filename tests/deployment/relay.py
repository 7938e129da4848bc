"""A TCP relay in front of a server: it passes bytes on, or drops them silently in both directions."""

import contextlib
import socket
import threading


class Relay:
    """Listens on a port and connects to another one for each connection.

    ``silent``: from now on nothing is passed on, and nobody is told; new connections are accepted and left alone.
    """

    def __init__(self, port, to):
        self._to, self.silent = to, False
        self._listener = socket.create_server(("127.0.0.1", port), backlog=64)
        self._open, self._lock = set(), threading.Lock()
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self):
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                self._open.add(sock)
            if self.silent:
                continue
            try:
                other = socket.create_connection(("127.0.0.1", self._to), 5)
            except OSError:
                self._end(sock)
                continue
            other.settimeout(None)
            with self._lock:
                self._open.add(other)
            for one, two in ((sock, other), (other, sock)):
                threading.Thread(target=self._pass, args=(one, two), daemon=True).start()

    def _pass(self, source, to):
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if self.silent:
                    return  # half-open: neither end learns of it
                to.sendall(data)
        if not self.silent:
            self._end(source, to)

    def _end(self, *socks):
        for sock in socks:
            with self._lock:
                self._open.discard(sock)
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def heal(self):
        """Pass bytes on again, over new connections; the silent ones stay as they are."""
        self.silent = False

    def close(self):
        self._listener.close()
        with self._lock:
            left = list(self._open)
        self._end(*left)
