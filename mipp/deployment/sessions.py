"""Processes that use an embedded deployment now: file locks, which the kernel releases when a process dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
from collections.abc import Callable
from pathlib import Path

from ..crypto.schedule import random_bytes
from ..errors import StoreError

__all__ = ["OwnerTurn", "Session"]


class OwnerTurn:
    """Lock of one owner among the threads and processes that use its key file; a re-entrant context manager.

    One such lock is held while a change is made: without it two changes would compete for the same place in the owner's
    chain, and one would have to start again. A second lock is held for as long as files are added.

    Parameters
    ----------
    path : Path
        The lock file, made if missing, mode 0600.
    waiting : callable, optional
        Called without arguments before waiting for another process.
    """

    def __init__(self, path: Path, waiting: Callable[[], None] | None = None) -> None:
        self._path, self.waiting = path, waiting
        self._lock = threading.RLock()
        self._fd = -1
        self._depth = 0

    def __enter__(self) -> None:
        self._lock.acquire()
        if self._depth == 0:
            try:
                self._fd = os.open(self._path, os.O_CREAT | os.O_RDWR, 0o600)
                self._wait(self._fd)
            except BaseException as error:
                if self._fd >= 0:
                    os.close(self._fd)
                self._fd = -1
                self._lock.release()
                if isinstance(error, OSError):
                    raise StoreError(f"cannot lock {self._path}: {error.strerror}") from None
                raise
        self._depth += 1

    def _wait(self, fd: int) -> None:
        if self.waiting is not None:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                self.waiting()
        fcntl.flock(fd, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            os.close(self._fd)
            self._fd = -1
        self._lock.release()


class Session:
    """One process's use of a deployment, from opening to closing.

    Parameters
    ----------
    folder : Path
        Folder of the lock files, made if missing.

    Attributes
    ----------
    token : bytes
        Random name of this session, 16 bytes.
    alone : bool
        Whether no other process had the deployment open when this one came. Then recovery is safe, and other processes
        wait until :meth:`ready` is called.
    crashed : bool
        Whether an earlier process ended without closing the deployment.
    """

    def __init__(self, folder: Path) -> None:
        try:
            folder.mkdir(exist_ok=True, mode=0o700)
            self._all = os.open(folder / "all.lock", os.O_CREAT | os.O_RDWR, 0o600)
        except OSError as error:
            raise StoreError(
                f"cannot write in {folder} ({error.strerror}): whoever opens a deployment, also to look, writes there"
            ) from None
        self._folder = folder
        self.token = random_bytes(16)
        try:
            fcntl.flock(self._all, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.alone = True
        except OSError:
            fcntl.flock(self._all, fcntl.LOCK_SH)
            self.alone = False
        stale = [p for p in folder.glob("*.session") if not self._locked(p)]
        self.crashed = bool(stale)
        # locked under a temporary name first, so that nobody ever sees it unlocked
        self._path = folder / f"{self.token.hex()}.session"
        temporary = folder / f"{self.token.hex()}.new"
        self._own = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600)
        fcntl.flock(self._own, fcntl.LOCK_EX)
        os.rename(temporary, self._path)
        self._stale = stale

    def ready(self) -> None:
        """Let other processes in: recovery is done."""
        if self.alone:
            for path in self._stale:
                path.unlink(missing_ok=True)
            fcntl.flock(self._all, fcntl.LOCK_SH)

    def alive(self, token: bytes) -> bool:
        """Whether the process of the session with this token still runs."""
        return token == self.token or self._locked(self._folder / f"{token.hex()}.session")

    @staticmethod
    def _locked(path: Path) -> bool:
        try:
            fd = os.open(path, os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return False
        except OSError:
            return True
        finally:
            os.close(fd)

    def close(self) -> None:
        """End the session and release its locks."""
        with contextlib.suppress(OSError):
            self._path.unlink(missing_ok=True)
        for fd in (self._own, self._all):
            with contextlib.suppress(OSError):
                os.close(fd)
