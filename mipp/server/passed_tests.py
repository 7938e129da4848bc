"""Which tests of rows this server had a part in have passed, where queries can go to several sets of servers.

A batch is certified when every set of servers that this one belongs to has tested it: then all its shares lie on one
line for each row, and whichever set a query names has the same rows.
"""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict

from ..params import Params

__all__ = ["PassedTests"]

#: batches whose tests have begun and not ended
_MOST = 4096


class PassedTests:
    """The tests that passed at one server, by batch; in memory, as a batch is tested again after a restart.

    Parameters
    ----------
    params : of the deployment
    index : this server
    """

    def __init__(self, params: Params, index: int) -> None:
        self._sets = {params.parties(s) for s in params.server_sets if index in s}
        self._several = len(params.server_sets) > 1
        self._passed: OrderedDict[bytes, set[tuple[int, ...]]] = OrderedDict()
        self._lock = threading.Lock()

    def has(self, name: bytes, parties: tuple[int, ...]) -> bool:
        """Whether these servers' test of a batch has passed, and those of others are still to come."""
        with self._lock:
            return parties in self._passed.get(name, ())

    def passed(self, name: bytes, parties: tuple[int, ...], session: bytes, among: frozenset[int]) -> bytes:
        """Note that these servers' test has passed.

        Parameters
        ----------
        name : of the batch as it was tested, 32 bytes
        parties : the servers, in the order of their parts
        session : of the test, 32 bytes
        among : the servers that have the batch

        Returns
        -------
        bytes
            The certificate of the batch, 32 bytes, as of :meth:`certificate`.
        """
        if not self._several:
            return session
        with self._lock:
            self._passed.setdefault(name, set()).add(parties)
            self._passed.move_to_end(name)
            while len(self._passed) > _MOST:
                self._passed.popitem(last=False)
        return self.certificate(name, among)

    def certificate(self, name: bytes, among: frozenset[int]) -> bytes:
        """The certificate of a batch, 32 bytes, if all tests have passed that this server and others of these
        servers have a part in; else empty."""
        needed = {parties for parties in self._sets if among.issuperset(parties)}
        with self._lock:
            if not needed or not self._passed.get(name, set()) >= needed:
                return b""
        # the same at all servers, as that of one session is where there is only one set
        return hashlib.sha256(b"mipp v1 certified " + name).digest()
