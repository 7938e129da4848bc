"""The channel of a server to the others' side for peers, and to its own: calls over the mesh."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..errors import MippError, ProtocolError
from ..mpc.mesh import Mesh
from ..rpc import messages as m
from ..rpc.failures import error_from_wire
from ..rpc.wire import Frames, decode
from .server import Server

__all__ = ["PeerChannel"]

#: seconds that a peer may take to answer
PATIENCE = 60.0


class PeerChannel:
    """Requests of one server to all servers, itself included, as their peer; see :class:`~mipp.rpc.channel.Channel`.

    Parameters
    ----------
    server : Server
        This server.
    mesh : Mesh
        Its connections with the others.
    """

    def __init__(self, server: Server, mesh: Mesh) -> None:
        self._server, self._mesh = server, mesh

    @property
    def servers(self) -> tuple[int, ...]:
        return tuple(sorted(self._server.config.servers))

    def gather(self, requests: Mapping[int, Frames], *, together: bool = False) -> dict[int, Any]:
        if len(requests) == 1:
            return {server: self._request(server, frames) for server, frames in requests.items()}
        with ThreadPoolExecutor(max(len(requests), 1)) as pool:
            waiting = {server: pool.submit(self._request, server, frames) for server, frames in requests.items()}
        failed = [e for e in (job.exception() for job in waiting.values()) if e is not None]
        if failed:
            raise min(failed, key=lambda e: (not isinstance(e, MippError), isinstance(e, ProtocolError)))
        return {server: job.result() for server, job in waiting.items()}

    def _request(self, server: int, frames: Frames) -> Any:
        if server == self._server.index:
            reply: Any = decode(self._server.operate(frames))
        else:
            reply = decode(self._mesh.call(server, frames, PATIENCE))
        if isinstance(reply, m.Failure):
            raise error_from_wire(reply.name, reply.text)
        return reply
