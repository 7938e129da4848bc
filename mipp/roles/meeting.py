"""Where the three servers of one process meet to compare scores; over a network a TcpLink takes its place."""

from __future__ import annotations

import threading

from ..protocol.link import LocalLink, local_links

__all__ = ["LocalMeeting"]

_OPEN = 64


class LocalMeeting:
    """Hands each of the three servers its end of the links of one query.

    A query is named by its header's hash, which no honest user repeats; a server that comes twice opens a new meeting.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: dict[bytes, dict[int, LocalLink]] = {}

    def join(self, query: bytes, server: int) -> LocalLink:
        """Server ``server``'s link for this query."""
        with self._lock:
            links = self._waiting.get(query)
            if links is None or server not in links:
                links = local_links()
                while len(self._waiting) >= _OPEN:  # meetings that not all came to
                    self._waiting.pop(next(iter(self._waiting)))
                self._waiting[query] = links
            link = links.pop(server)
            if not links:
                self._waiting.pop(query, None)
            return link
