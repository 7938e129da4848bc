"""The channel of a server to the others' side for peers, and to its own: calls over the mesh."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import MippError
from ..mpc.mesh import Mesh
from ..rpc.channel import accepted, reply_or
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

    remote = True

    def __init__(self, server: Server, mesh: Mesh) -> None:
        self._server, self._mesh = server, mesh

    @property
    def servers(self) -> tuple[int, ...]:
        return tuple(sorted(self._server.config.servers))

    def gather(
        self, requests: Mapping[int, Frames], *, together: bool = False, spare: bool = False,
        refusals: tuple[type[MippError], ...] = (),
    ) -> dict[int, Any]:  # fmt: skip
        return {server: reply_or(refusals, self._request, server, frames) for server, frames in requests.items()}

    def _request(self, server: int, frames: Frames) -> Any:
        here = server == self._server.index
        return accepted(decode(self._server.operate(frames) if here else self._mesh.call(server, frames, PATIENCE)))
