"""The address book: where each server is reached now, by the description and the newest update that it signed.

A book in a folder keeps what it learned in ``addresses.json`` there. Several processes may use the folder at once.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import os
import stat
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from ..crypto.certificates import certificate_pin
from ..errors import BusyError, ConflictError, DeploymentError, MippError, StoreError
from ..io.durable import replace_file
from .address_updates import MAX_UPDATES_BYTES, AddressUpdate, check_update, read_updates, updates_json
from .addresses import Address
from .description import DeploymentConfig
from .key_sets import EpochKeys, KeySet, first_keys

__all__ = ["ADDRESSES_NAME", "AddressBook", "Taken"]

_log = logging.getLogger("mipp.addresses")

ADDRESSES_NAME = "addresses.json"


@dataclass
class Taken:
    """What became of a list of updates: servers whose address changed here, and why others were refused."""

    changed: set[int] = field(default_factory=set)
    refused: list[str] = field(default_factory=list)


class AddressBook:
    """Addresses of a deployment's servers. Usable from many threads.

    An update is taken if the server's own identity signed it and its version is higher than what is known. Of two
    updates with the same version the first one stays; the second one is kept as evidence, and ``conflicts`` tells.

    Parameters
    ----------
    config : DeploymentConfig
        The deployment's description.
    folder : Path, optional
        Where what was learned is kept; default in memory only.
    keep : bool
        Write to the folder; else it is only read.
    spacing : float
        Seconds between two updates of one server that are taken, so that a server that signs many costs little.
    clock : callable
        Seconds, monotonic.

    Raises
    ------
    DeploymentError
        The file in the folder is damaged.
    """

    def __init__(
        self,
        config: DeploymentConfig,
        folder: Path | None = None,
        *,
        keep: bool = True,
        spacing: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._config, self._folder, self._keep, self._spacing, self._clock = config, folder, keep, spacing, clock
        self._addresses: dict[int, Address] = dict(config.addresses)
        self._updates: dict[int, AddressUpdate] = {}
        self._twice: dict[int, AddressUpdate] = {}
        self._taken: dict[int, float] = {}
        self._seen: tuple[int, ...] = ()
        self._lock = threading.RLock()
        self.reload()

    # --- what is known ------------------------------------------------------------------------------------------

    def address(self, server: int) -> Address:
        """Name, URL and newest certificate of a server."""
        return self._addresses[server]

    def certificates(self, server: int) -> tuple[bytes, ...]:
        """Certificates (DER) that a server may show, the newest first."""
        update = self._updates.get(server)
        return (self._addresses[server].certificate,) if update is None else update.certificates

    def keys(self, server: int) -> tuple[EpochKeys, ...]:
        """Box and pair keys of a server that are valid, the newest first."""
        update = self._updates.get(server)
        return (update.keys if update is not None else ()) or (first_keys(self._config, server),)

    def key_set(self) -> KeySet:
        """The newest keys of all servers."""
        return KeySet(self._config.id, {server: self.keys(server)[0] for server in self._addresses})

    def update(self, server: int) -> AddressUpdate | None:
        """The newest update of a server; None if the description still holds."""
        return self._updates.get(server)

    def version(self, server: int) -> int:
        """Version of a server's address; 0 for that of the description."""
        update = self._updates.get(server)
        return 0 if update is None else update.version

    @property
    def versions(self) -> dict[int, int]:
        """Version of each server's address."""
        return {server: self.version(server) for server in sorted(self._addresses)}

    @property
    def conflicts(self) -> list[str]:
        """A sentence for each server that signed two updates of one version."""
        return [
            f"server {i} ({self._addresses[i].name}) signed two different addresses of version {u.version}; the first "
            "one is used here. Ask its operator; another rotation ends it"
            for i, u in sorted(self._twice.items())
        ]

    def to_json(self) -> bytes:
        """The updates, for others."""
        with self._lock:
            return updates_json(u for _, u in sorted(self._updates.items()))

    # --- what is learned ----------------------------------------------------------------------------------------

    def take(self, updates: Iterable[AddressUpdate], *, own: bool = False) -> Taken:
        """Take over updates from anybody; older ones are left out.

        Parameters
        ----------
        updates : iterable of AddressUpdate
            From anybody.
        own : bool
            They were made here: all of them are taken, at once and durably, or an error says why not.

        Returns
        -------
        Taken
            Which servers' addresses changed, and a sentence for each update that was refused.

        Raises
        ------
        MippError
            With ``own``: an update that is not valid, or cannot be written. Nothing has changed.
        """
        done = Taken()
        with self._lock:
            news = [u for u in updates if own or self._tells(u)]
            if not news:
                return done
            with self._alone():
                done.changed |= self.reload()
                before = dict(self._addresses), dict(self._updates), dict(self._twice)
                for update in news:
                    try:
                        if self._take(update, own):
                            done.changed.add(update.server)
                    except MippError as error:
                        if own:
                            raise
                        done.refused.append(str(error))
                if (self._updates, self._twice) != before[1:]:
                    try:
                        self._write()
                    except StoreError as error:  # it still holds for this process
                        if own:
                            self._addresses, self._updates, self._twice = before
                            raise
                        _log.warning("what was learned of servers' addresses cannot be kept: %s", error)
        return done

    def _tells(self, update: AddressUpdate) -> bool:
        """Whether an update could be news: a look that costs nothing."""
        known = self._updates.get(update.server)
        if known is None or update.version > known.version:
            return True
        same = update.version == known.version and update.server not in self._twice
        return same and update.signed_bytes() != known.signed_bytes()

    def _take(self, update: AddressUpdate, own: bool) -> bool:
        """Whether the address changed."""
        if not self._tells(update):
            if own:
                raise ConflictError(f"a later address of server {update.server} is known already; try again")
            return False
        second = update.version == self.version(update.server)
        soon = self._taken.get(update.server, -self._spacing) + self._spacing - self._clock()
        if soon > 0 and not own and not second:  # of the second ones of a version one is kept, so they need no pause
            raise BusyError(f"server {update.server} changes its address too often")
        address = self.check(update)
        if second:
            self._twice[update.server] = update
            raise ConflictError(
                f"server {update.server} signed two different addresses of version {update.version}; the first one is "
                "used here"
            )
        self._set(update, address)
        self._taken[update.server] = self._clock()
        return True

    def check(self, update: AddressUpdate) -> Address:
        """The address that an update names; changes nothing.

        Raises
        ------
        DeploymentError, AuthenticationError
            As of :func:`~mipp.rpc.address_updates.check_update`; or it names the TLS key of another server.
        """
        address = check_update(self._config, update)
        pins = {certificate_pin(c) for c in update.certificates}
        for other in self._addresses.keys() - {update.server}:
            if pins & {certificate_pin(c) for c in self.certificates(other)}:
                raise DeploymentError(f"the new address of server {update.server} names the TLS key of server {other}")
        return address

    def _set(self, update: AddressUpdate, address: Address) -> None:
        self._addresses[update.server], self._updates[update.server] = address, update
        self._twice.pop(update.server, None)

    # --- the file -----------------------------------------------------------------------------------------------

    def reload(self) -> set[int]:
        """Read what another process learned; the servers whose address changed.

        Raises
        ------
        DeploymentError
            The file is damaged.
        """
        if self._folder is None:
            return set()
        path, changed = self._folder / ADDRESSES_NAME, set[int]()
        with self._lock:
            try:
                if (seen := _state(path)) == self._seen:
                    return changed
                with open(os.open(path, os.O_RDONLY | os.O_NONBLOCK), "rb") as file:
                    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
                        raise DeploymentError(f"{path} is no file")
                    text = file.read(MAX_UPDATES_BYTES + 1)
            except FileNotFoundError:
                return changed
            except OSError as error:
                raise DeploymentError(f"cannot read {path}: {error.strerror}") from None
            try:
                updates, refused = read_updates(text)
                found = [(u, check_update(self._config, u)) for u in updates]
                twice = [u for u in refused if check_update(self._config, u)]
            except MippError as error:
                raise DeploymentError(
                    f"{path} is damaged ({error}); without it the others tell the newest addresses again"
                ) from None
            for update, address in found:
                if update.version > self.version(update.server):
                    self._set(update, address)
                    changed.add(update.server)
            for update in twice:
                if update.version == self.version(update.server):
                    self._twice[update.server] = update
            self._seen = seen
        return changed

    def _write(self) -> None:
        if self._folder is None or not self._keep:
            return
        path = self._folder / ADDRESSES_NAME
        replace_file(path, updates_json((u for _, u in sorted(self._updates.items())), self._twice.values()))
        self._seen = _state(path)

    @contextlib.contextmanager
    def _alone(self) -> Iterator[None]:
        """One process at a time changes the file; without a folder, or where it cannot be opened, there is no other."""
        fd = -1
        if self._folder is not None and self._keep:
            with contextlib.suppress(OSError):
                fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            if fd >= 0:
                fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            if fd >= 0:
                os.close(fd)


def _state(path: Path) -> tuple[int, ...]:
    found = os.stat(path)
    return found.st_ino, found.st_mtime_ns, found.st_size
