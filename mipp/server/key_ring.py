"""A server's X25519 keys, its own secret ones and the others' public ones, while they change.

Each server has keys of one epoch, or of two while it changes them. For every combination that is valid the ring has the
keys that this server shares with each other one. See :mod:`mipp.rpc.key_sets`.
"""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Mapping, Sequence

from ..crypto import box, schedule
from ..errors import AuthenticationError, MessageError, StaleKeysError
from ..rpc.description import DeploymentConfig
from ..rpc.key_sets import EpochKeys, KeySet, first_keys

__all__ = ["KeyRing"]


def _public(key: bytes) -> bytes:
    return box.box_private(key).public_key().public_bytes_raw()


class KeyRing:
    """The keys of one server, its own and those that it shares with the others. Usable from many threads.

    Parameters
    ----------
    config : DeploymentConfig
        The deployment's description, whose keys count until :meth:`take` names others.
    index : int
        This server's number.
    pairs : iterable of (bytes, bytes)
        Its box and pair private keys, 32 bytes each, of one or more epochs. Secret.
    """

    def __init__(self, config: DeploymentConfig, index: int, pairs: Iterable[tuple[bytes, bytes]]) -> None:
        self._config, self._index = config, index
        self._lock = threading.Lock()
        #: keys with others, by own secret and other public pair key
        self._shared: dict[tuple[bytes, bytes], bytes] = {}
        self.take(pairs, {i: (first_keys(config, i),) for i in config.servers})

    def __repr__(self) -> str:
        return f"KeyRing(server={self._index}, epoch={self.epoch})"

    def __reduce__(self) -> str:
        raise TypeError("a key ring holds keys and does not pickle")

    def take(self, pairs: Iterable[tuple[bytes, bytes]], valid: Mapping[int, Sequence[EpochKeys]]) -> None:
        """Use these keys from now on.

        Parameters
        ----------
        pairs : iterable of (bytes, bytes)
            This server's box and pair private keys. Those that are not valid any more still open what was sealed to
            them before. Secret.
        valid : mapping of int to sequence of EpochKeys
            For every server the public keys that are valid, the newest first.
        """
        own = {(_public(secret), _public(pair)): (secret, pair) for secret, pair in pairs}
        mine = [keys for keys in valid[self._index] if (keys.box, keys.pair) in own]
        boxes = [own[keys.box, keys.pair][0] for keys in mine]
        boxes += [secret for secret, _ in own.values() if secret not in boxes]
        usable = {**valid, self._index: mine}
        numbers = sorted(usable)
        sets: dict[bytes, KeySet] = {}
        for chosen in itertools.product(*(usable[i] for i in numbers)):  # the first one is the newest everywhere
            found = KeySet(self._config.id, dict(zip(numbers, chosen, strict=True)))
            sets[found.id] = found
        # a client that has not heard of a cloud that joined names the keys of the servers before it
        joined = self._config.joined
        for found in list(sets.values()) if joined is not None else ():
            before = KeySet(found.deployment, {i: keys for i, keys in found.servers.items() if i != joined})
            if self._index in before.servers:
                sets.setdefault(before.id, before)
        secrets = {(keys.box, keys.pair): own[keys.box, keys.pair][1] for keys in mine}
        with self._lock:
            self._boxes, self._valid_boxes, self._sets, self._secrets = boxes, len(mine), sets, secrets
            self._valid = {i: frozenset(keys.box for keys in some) for i, some in valid.items()}
            self._newest = mine[0] if mine else None
            self._missing = valid[self._index][0].epoch if mine[:1] != list(valid[self._index][:1]) else None
            current = {(secret, k.pair) for secret in secrets.values() for s in valid.values() for k in s}
            self._shared = {pair: key for pair, key in self._shared.items() if pair in current}

    @property
    def epoch(self) -> int:
        """Epoch of this server's newest keys."""
        return 0 if self._newest is None else self._newest.epoch

    @property
    def newest(self) -> EpochKeys:
        """This server's newest public keys; secrets are sealed to its box key.

        Raises
        ------
        StaleKeysError
            This server has no key that is valid.
        """
        newest = self._newest
        if newest is None:
            raise self._none_valid()
        return newest

    def _none_valid(self) -> StaleKeysError:
        return StaleKeysError(f"server {self._index} has none of its keys that are valid now")

    def is_valid(self, server: int, box_key: bytes) -> bool:
        """Whether a public box key of a server counts now."""
        return box_key in self._valid.get(server, frozenset())

    @property
    def problem(self) -> str:
        """Why this server cannot use its newest keys, in a sentence; empty if it can."""
        if self._missing is None:
            return ""
        return (
            f"the keys of epoch {self._missing} of this server are not in its folder; make new ones with: "
            "mipp server rotate --new-keys --finish"
        )

    @property
    def current(self) -> bytes:
        """Id of the key set that is the newest everywhere.

        Raises
        ------
        StaleKeysError
            This server has no key that is valid.
        """
        newest = next(iter(self._sets), None)
        if newest is None:
            raise self._none_valid()
        return newest

    def pair_keys(self, key_set: bytes) -> Mapping[int, bytes]:
        """Keys that this server shares with each other one.

        Parameters
        ----------
        key_set : bytes
            Id of the key set, from anybody.

        Returns
        -------
        mapping of int to bytes
            32 bytes for each other server. Secret.

        Raises
        ------
        StaleKeysError
            These keys are not valid at this server: ended, or not known yet.
        """
        with self._lock:
            found = self._sets.get(key_set)
            if found is None:
                raise StaleKeysError(
                    f"the servers' keys changed: server {self._index} knows others than the request names"
                )
            mine = found.servers[self._index]
            secret = self._secrets[mine.box, mine.pair]
            return {i: self._with(secret, i, keys.pair) for i, keys in found.servers.items() if i != self._index}

    def _with(self, secret: bytes, other: int, public: bytes) -> bytes:
        """The key shared with another server. Holds the lock."""
        if (secret, public) not in self._shared:
            low, high = sorted((self._index, other))
            self._shared[secret, public] = schedule.pair_key(
                box.shared_secret(secret, public), self._config.id, low, high
            )
        return self._shared[secret, public]

    def open(self, sealed: bytes, info: bytes, *, most: str = "all") -> bytes:
        """Open what was sealed to this server.

        Parameters
        ----------
        sealed : bytes
            From anybody.
        info : bytes
            What it was sealed for.
        most : str
            With which keys: ``newest``, ``valid``, or ``all`` that it has, those of ended epochs, too.

        Returns
        -------
        bytes
            The content. Secret.

        Raises
        ------
        AuthenticationError, MessageError
            No key opens it.
        """
        failed: AuthenticationError | MessageError = AuthenticationError("a sealed box that no key here opens")
        with self._lock:
            boxes = self._boxes[: {"newest": min(1, self._valid_boxes), "valid": self._valid_boxes}.get(most)]
        for secret in boxes:
            try:
                return box.open_sealed(secret, sealed, info)
            except (AuthenticationError, MessageError) as error:
                failed = error
        raise failed
