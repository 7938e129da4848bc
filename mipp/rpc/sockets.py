"""What all connections need: ended from another thread, read to a given length."""

from __future__ import annotations

import contextlib
import socket

__all__ = ["end", "fill"]


def end(sock: socket.socket) -> None:
    """End a connection that another thread may be using: whatever it waits for fails at once.

    Parameters
    ----------
    sock : socket
        The connection; nothing happens if it is closed. Whoever uses it closes it.
    """
    # not SSLSocket.shutdown: that takes TLS away first, and what the other thread writes then would go out in the clear
    with contextlib.suppress(OSError):
        socket.socket.shutdown(sock, socket.SHUT_RDWR)


def fill(sock: socket.socket, into: memoryview) -> None:
    """Read until a buffer is full.

    Parameters
    ----------
    sock : socket
        The connection; its time limit holds for each part that comes.
    into : memoryview
        The buffer, of bytes.

    Raises
    ------
    EOFError
        The other end closed it before.
    """
    got = 0
    while got < into.nbytes:
        count = sock.recv_into(into[got:])
        if not count:
            raise EOFError
        got += count
