"""What owners and users share: an identity, signed requests, a channel."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ..crypto import schedule, signing
from ..errors import ParameterError
from ..rpc import messages as m
from ..rpc.channel import Channel
from ..rpc.description import DeploymentConfig
from ..rpc.limits import MAX_ROW
from ..rpc.names import check_name
from ..rpc.wire import Frames, encode, frame_hashes, joined_hash

__all__ = ["Client", "image_rows", "several_images"]


class Client:
    """Base of :class:`~mipp.client.owner.ImageOwner` and :class:`~mipp.client.user.User`; holds secret keys."""

    id: bytes

    def __init__(self, name: str, config: DeploymentConfig, channel: Channel, sign_seed: bytes) -> None:
        self.name, self.config, self.channel = check_name(name), config, channel
        self._seed = sign_seed
        self._key = signing.private_key(sign_seed)
        #: completes on all servers what some have committed; set by the deployment that coordinates recovery
        self.recover: Callable[[], None] | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, id={self.id.hex()})"

    def __reduce__(self) -> str:
        raise TypeError("owners and users hold secret keys and do not pickle")

    def signed(self, msg: Any, receiver: int = m.ALL_SERVERS) -> tuple[Frames, list[bytes], bytes]:
        """A request signed for one server, the hashes of its frames, and its content's hash.

        What servers pass on to each other is signed for all.
        """
        frames = encode(msg)
        hashes = frame_hashes(frames)
        whole = joined_hash(frames, hashes)
        if isinstance(msg, m.FOR_ALL):
            receiver = m.ALL_SERVERS
        issued, random = int(time.time() * 1000), schedule.random_bytes(16)
        statement = signing.Statement(self.config.id, receiver, type(msg).__name__, whole, issued, random)
        content = [np.frombuffer(f, np.uint8) for f in frames]
        signature = signing.sign(self._key, statement)
        return encode(m.Signed(self.config.id, self.id, receiver, issued, random, signature, content)), hashes, whole

    def _sign(self, msg: Any, receiver: int = m.ALL_SERVERS) -> Frames:
        return self.signed(msg, receiver)[0]

    def _ask(self, msgs: dict[int, Any]) -> dict[int, Any]:
        return self.channel.gather({server: self._sign(msg, server) for server, msg in msgs.items()})

    def _tell(self, msg: Any, servers: Iterable[int] | None = None) -> dict[int, Any]:
        """The same message to all servers (or those named), in one round."""
        to = list(servers) if servers is not None else sorted(self.config.servers)
        if isinstance(msg, m.FOR_ALL):
            return self.channel.gather(dict.fromkeys(to, self._sign(msg)))
        return self._ask(dict.fromkeys(to, msg))


_IMAGE_ID = "an image id is (batch id of 16 bytes, row), text of 32 hex digits, a colon and the row, or a hit"


def image_rows(ids: Any) -> list[tuple[bytes, int]]:
    """Image ids, as (batch id, row), text ``batchhex:row`` or hits, one or several, as pairs."""
    out = []
    for i in several_images(ids):
        try:
            if isinstance(i, str):
                digits, number = i.split(":")
                batch, row = bytes.fromhex(digits), int(number)
            elif hasattr(i, "batch") and hasattr(i, "row"):
                batch, row = i.batch, i.row
            else:
                batch, row = i
            if not isinstance(batch, (bytes, bytearray)) or isinstance(row, (float, str, bytes)):
                raise ParameterError(_IMAGE_ID)
            batch, row = bytes(batch), int(row)
        except (ValueError, TypeError):
            raise ParameterError(_IMAGE_ID) from None
        if len(batch) != 16 or not 0 <= row < MAX_ROW:
            raise ParameterError(_IMAGE_ID)
        out.append((batch, row))
    return out


def several_images(ids: Any) -> list[Any]:
    """Image ids or hits as a list, also where it is one alone."""
    if hasattr(ids, "hits"):
        return list(ids.hits)
    if isinstance(ids, str) or hasattr(ids, "batch"):
        return [ids]
    if isinstance(ids, tuple) and len(ids) == 2 and isinstance(ids[0], (bytes, bytearray)):
        return [ids]
    if not isinstance(ids, Iterable) or isinstance(ids, (bytes, bytearray)):
        raise ParameterError(_IMAGE_ID)
    return list(ids)
