"""What owners and users share: an identity, signed requests, a channel."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ..crypto import signing
from ..errors import ParameterError
from ..protocol import messages as m
from ..protocol.channel import Channel
from ..protocol.wire import Frames, encode, frames_hash
from .config import DeploymentConfig
from .limits import MAX_ROW
from .names import check_name

__all__ = ["Client", "image_rows"]


class Client:
    """Base of :class:`~mipp.roles.owner.ImageOwner` and :class:`~mipp.roles.user.User`; holds secret keys."""

    id: bytes

    def __init__(self, name: str, config: DeploymentConfig, channel: Channel, sign_seed: bytes) -> None:
        self.name, self.config, self.channel = check_name(name), config, channel
        self._seed = sign_seed
        #: completes on all servers what some have committed; set by the deployment that coordinates recovery
        self.recover: Callable[[], None] | None = None

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, id={self.id.hex()})"

    def __reduce__(self) -> str:
        raise TypeError("owners and users hold secret keys and do not pickle")

    def _sign(self, msg: Any) -> Frames:
        frames = encode(msg)
        signature = signing.sign(self._seed, self.config.id, type(msg).__name__, frames_hash(frames))
        return encode(m.Signed(self.config.id, self.id, signature, [np.frombuffer(f, np.uint8) for f in frames]))

    def _ask(self, msgs: dict[int, Any]) -> dict[int, Any]:
        return self.channel.gather({server: self._sign(msg) for server, msg in msgs.items()})

    def _tell(self, msg: Any, servers: Iterable[int] | None = None) -> dict[int, Any]:
        """The same signed message to all servers (or those named), in one round."""
        frames = self._sign(msg)
        return self.channel.gather(
            dict.fromkeys(servers if servers is not None else sorted(self.config.servers), frames)
        )


def image_rows(ids: Iterable[tuple[bytes, int] | str]) -> list[tuple[bytes, int]]:
    """Image ids, as (batch id, row) or text ``batchhex:row``, as pairs."""
    out = []
    for i in ids:
        try:
            batch, row = (
                (bytes.fromhex(i.split(":")[0]), int(i.split(":")[1]))
                if isinstance(i, str)
                else (bytes(i[0]), int(i[1]))
            )
        except (ValueError, IndexError, TypeError):
            raise ParameterError(
                "an image id is (batch id, row), or text of 32 hex digits, a colon and the row"
            ) from None
        if len(batch) != 16 or not 0 <= row < MAX_ROW:
            raise ParameterError(
                "an image id is (batch id of 16 bytes, row), or text of 32 hex digits, a colon and the row"
            )
        out.append((batch, row))
    return out
