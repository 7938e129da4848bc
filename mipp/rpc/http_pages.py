"""One public page of a server: a small request whose reply has a bounded size and an absolute time limit."""

from __future__ import annotations

import http.client
import threading

from ..errors import LimitError, MessageError
from .sockets import end

__all__ = ["page"]


def page(
    connection: http.client.HTTPConnection, path: str, most: int, seconds: float, who: str, body: bytes | None = None
) -> tuple[int, bytes]:
    """Status and body of a page; the connection is closed.

    Parameters
    ----------
    connection : HTTPConnection
        Connects by itself.
    path : str
        Of the page.
    most : int
        Most bytes of the reply.
    seconds : float
        Time limit, once connected: a reply that drips ends, too.
    who : str
        Name of the server, for errors.
    body : bytes, optional
        Sent by POST; default a GET.

    Raises
    ------
    OSError, HTTPException
        The connection broke.
    MessageError, LimitError
        A reply without a length, or a longer one.
    """
    late: threading.Timer | None = None
    try:
        connection.connect()
        late = threading.Timer(seconds, end, [connection.sock])
        late.daemon = True
        late.start()
        connection.request("GET" if body is None else "POST", path, body)
        response = connection.getresponse()
        size = response.length
        if size is None:
            raise MessageError(f"{who} sent a page without a length")
        if size > most:
            raise LimitError(f"a page of {who} is longer than {most} bytes")
        got = response.read(size)
        if len(got) < size:
            raise http.client.IncompleteRead(got)
        return response.status, got
    finally:
        if late is not None:
            late.cancel()
        connection.close()
