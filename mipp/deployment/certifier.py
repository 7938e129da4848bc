"""Has the servers certify batches of earlier versions, whose rows were never checked, in a background thread."""

from __future__ import annotations

import functools
import logging
import math
import threading
from collections.abc import Sequence
from typing import Any

from ..client.retry import collect_pending
from ..errors import BusyError, MippError, ProtocolError, StaleSnapshotError
from ..params import Params
from ..rpc import peer_messages as pm
from ..rpc.channel import Channel, request
from ..rpc.wire import encode

__all__ = ["Certifier"]

_log = logging.getLogger("mipp.deployment")
#: attempts at one batch, as it may change meanwhile
_ATTEMPTS = 5


class Certifier:
    """Certifies the batches that some server has no certificate of, one after the other.

    Parameters
    ----------
    channel : Channel
        To the servers' side for operators and peers.
    params : Params
        Of the deployment.
    """

    def __init__(self, channel: Channel, params: Params) -> None:
        self._channel, self._params = channel, params
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None

    def missing(self) -> list[tuple[bytes, bytes]]:
        """Owner and id of each batch that is neither certified at all servers nor refused."""
        found: dict[tuple[bytes, bytes], None] = {}
        for server in self._channel.servers:
            told = request(self._channel, server, pm.UncertifiedRequest())
            found |= dict.fromkeys(zip(told.owners, told.batches, strict=True))
        return list(found)

    def start(self) -> int:
        """Start the thread if a batch is missing; the number of these batches."""
        batches = self.missing()
        if batches and (self._thread is None or not self._thread.is_alive()):
            self._thread = threading.Thread(target=self._work, args=(batches,), name="mipp certifier", daemon=True)
            self._thread.start()
        return len(batches)

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the thread has ended, at most some seconds; whether all batches were tested."""
        if self._thread is not None:
            self._thread.join(seconds)
        if self._thread is None or not self._thread.is_alive():
            return not self.missing()
        return False

    def stop(self) -> None:
        """End the thread after the batch that is being tested."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join()

    def _work(self, batches: list[tuple[bytes, bytes]]) -> None:
        for owner, batch in batches:
            if self._stop.is_set():
                return
            try:
                self._certify(owner, batch)
            except MippError as error:  # it stays uncertified; searches name it
                _log.warning("batch %s of owner %s was not certified: %s", batch.hex(), owner.hex(), error)
            except Exception:
                _log.exception("batch %s of owner %s was not certified", batch.hex(), owner.hex())

    def _certify(self, owner: bytes, batch: bytes) -> None:
        for attempt in range(_ATTEMPTS):
            try:
                return self._once(owner, batch)
            except (StaleSnapshotError, BusyError, ProtocolError):
                if attempt == _ATTEMPTS - 1 or self._stop.wait(0.2 * 2**attempt):
                    raise

    def _once(self, owner: bytes, batch: bytes) -> None:
        for servers in self._params.server_sets:
            replies = self._asked(pm.CertifyBatch(owner, batch, list(servers)), servers)
            again = functools.partial(self._asked, pm.CollectBatch(owner, batch, list(servers)))
            collect_pending(replies, again, "certify the batch", patience=math.inf)

    def _asked(self, msg: Any, servers: Sequence[int]) -> dict[int, Any]:
        return self._channel.gather({s: encode(msg) for s in servers}, together=True)
