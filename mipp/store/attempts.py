"""Files of one server that are written and removed beside its catalog: none is lost sight of, whenever it is killed."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from ..crypto.schedule import random_bytes
from ..errors import StoreError
from .catalog import Catalog

__all__ = ["Attempts"]


class Attempts:
    """Names, notes and removal of files.

    Parameters
    ----------
    catalog, folder : of the server
    holder : names this process
    """

    def __init__(self, catalog: Catalog, folder: Path, holder: bytes) -> None:
        self.catalog, self.folder, self.holder = catalog, folder, holder
        self._hold = threading.Lock()
        #: how many hold files back from removal, and the names of those that are due
        self._holding, self._due = 0, list[str]()

    def attempt_name(self, room: str, owner: bytes, name: str) -> str:
        """A file name of this attempt alone, below the server's folder."""
        return f"{room}/{owner.hex()}/{name}-{random_bytes(6).hex()}"

    @contextlib.contextmanager
    def attempt(self, owner: bytes, files: Iterable[str]) -> Any:
        """Files of one attempt: noted in the catalog before they are written, removed if the body raises.

        Whoever sweeps meanwhile leaves them alone. The body must call :meth:`keep` in the transaction that names them.
        """
        names = list(files)
        with self.catalog.transaction(sync=False) as db:
            self.note(db, owner, names)
        try:
            yield
        except BaseException:
            self.drop(names)
            raise

    def note(self, db: Any, owner: bytes, names: Iterable[str]) -> None:
        db.executemany("INSERT INTO attempts VALUES (?, ?, ?)", [(n, owner, self.holder) for n in names])

    @staticmethod
    def keep(db: Any, names: Iterable[str]) -> None:
        """Inside the transaction that names them elsewhere: files are no attempt any more."""
        db.executemany("DELETE FROM attempts WHERE file=?", [(n,) for n in names])

    def drop(self, names: Iterable[str]) -> None:
        """Remove files that nothing names any more, or an attempt's own."""
        names = list(names)
        self.unlink(names)
        with contextlib.suppress(StoreError), self.catalog.transaction(sync=False) as db:  # else a sweep does it
            self.keep(db, names)

    def unlink(self, names: Iterable[str]) -> None:
        with self._hold:
            if self._holding:
                self._due += names
                return
        for name in names:
            with contextlib.suppress(OSError):
                (self.folder / name).unlink(missing_ok=True)

    @contextlib.contextmanager
    def holding(self) -> Iterator[None]:
        """No file is removed by this process until the end of the block: a backup is taken."""
        with self._hold:
            self._holding += 1
        try:
            yield
        finally:
            with self._hold:
                self._holding -= 1
                due, self._due = (self._due, []) if not self._holding else ([], self._due)
            self.unlink(due)
