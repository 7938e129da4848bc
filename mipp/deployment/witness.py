"""Counters of servers, noted outside of their folders: reveals that a catalog was replaced by an older one."""

from __future__ import annotations

import contextlib
import mmap
import os
from pathlib import Path

from ..errors import DeploymentError

__all__ = ["Witness"]

_MAGIC = b"mippwit1"


class Witness:
    """A small memory-mapped file with one counter for each server, shared by processes.

    A counter is written after each transaction that raised it, without waiting for the disk: after a power failure it
    may be too low, never too high.

    Parameters
    ----------
    path : Path
        The file, made if missing, mode 0600.
    servers : int
        Number of servers.

    Raises
    ------
    DeploymentError
        The file cannot be opened, or is not a witness of so many servers.
    """

    def __init__(self, path: Path, servers: int) -> None:
        size = len(_MAGIC) + 8 * servers
        try:
            fd = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
            try:
                if os.fstat(fd).st_size == 0:
                    os.write(fd, _MAGIC.ljust(size, b"\0"))
                if os.fstat(fd).st_size != size or os.pread(fd, 8, 0) != _MAGIC:
                    raise DeploymentError(f"{path} does not hold the counters of {servers} servers")
                self._map = mmap.mmap(fd, size)
            finally:
                os.close(fd)
        except OSError as error:
            raise DeploymentError(f"cannot open {path}: {error.strerror}") from None

    def note(self, server: int, counter: int) -> None:
        """Note that a server's counter reached a value; lower values change nothing."""
        with contextlib.suppress(ValueError):  # the file is closed: a server's last write
            if counter > self.noted(server):
                at = len(_MAGIC) + 8 * (server - 1)
                self._map[at : at + 8] = counter.to_bytes(8, "little")

    def noted(self, server: int) -> int:
        """The highest value that was noted of a server."""
        at = len(_MAGIC) + 8 * (server - 1)
        return int.from_bytes(self._map[at : at + 8], "little")

    def close(self) -> None:
        """Close the file."""
        self._map.close()
