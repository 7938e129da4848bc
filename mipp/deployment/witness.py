"""A note of each server's counter outside of its folder: shows that a catalog was replaced by an older one."""

from __future__ import annotations

import contextlib
import mmap
import os
from pathlib import Path

from ..errors import DeploymentError

__all__ = ["Witness"]

_MAGIC = b"mippwit1"


class Witness:
    """A small mapped file with one number for each server; shared by processes.

    A number is written after each transaction that raised it, without waiting for the disk: after a power failure it
    may be too low, never too high.
    """

    def __init__(self, path: Path, servers: int) -> None:
        size = len(_MAGIC) + 8 * servers
        try:
            fd = os.open(path, os.O_CREAT | os.O_RDWR, 0o600)
            try:
                if os.fstat(fd).st_size == 0:
                    os.write(fd, _MAGIC.ljust(size, b"\0"))
                if os.fstat(fd).st_size != size or os.pread(fd, 8, 0) != _MAGIC:
                    raise DeploymentError(f"{path} is no note of {servers} servers' counters")
                self._map = mmap.mmap(fd, size)
            finally:
                os.close(fd)
        except OSError as error:
            raise DeploymentError(f"cannot open {path}: {error.strerror}") from None

    def note(self, server: int, counter: int) -> None:
        """Note that a server's counter reached this value."""
        with contextlib.suppress(ValueError):  # closed: a server's last write
            if counter > self.noted(server):
                at = len(_MAGIC) + 8 * (server - 1)
                self._map[at : at + 8] = counter.to_bytes(8, "little")

    def noted(self, server: int) -> int:
        """The highest value noted."""
        at = len(_MAGIC) + 8 * (server - 1)
        return int.from_bytes(self._map[at : at + 8], "little")

    def close(self) -> None:
        self._map.close()
