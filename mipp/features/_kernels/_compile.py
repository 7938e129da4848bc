"""Compilation of kernels, and their cache on disk, which may be missing, read-only, damaged or another user's.

Numba keeps compiled functions as pickles: where it finds no place for them it refuses to compile, and what it reads it
trusts. Here a kernel without a usable cache is compiled in memory; files carry a checksum, as a damaged one can crash
the process; and a folder that other users can write to is not read, as loading a pickle runs what is in it.
"""

from __future__ import annotations

import hashlib
import importlib
import logging
import os
import pickle
import stat
import threading
from collections.abc import Callable
from typing import Any, TypeVar

import numba

__all__ = ["compilations", "kernel"]

F = TypeVar("F", bound=Callable[..., Any])

_log = logging.getLogger("mipp.features")
_DIGEST = 32
_state = threading.Lock()
_compiled = 0
_told: set[str] = set()


def kernel(**options: Any) -> Callable[[F], F]:
    """Decorator: compile a function with numba at its first call, without the GIL, through the cache if there is one.

    Options as of ``numba.njit``.
    """

    def wrap(function: F) -> F:
        compiled = numba.njit(nogil=True, **options)(function)
        if hasattr(compiled, "_cache"):  # not with NUMBA_DISABLE_JIT
            compiled._cache = _Cache(function)
        return compiled

    return wrap


def compilations() -> int:
    """How many kernels this process has compiled so far, instead of loading them."""
    return _compiled


def _tell(level: int, text: str) -> None:
    """Log a message once in a process."""
    with _state:
        new = text not in _told
        _told.add(text)
    if new:
        _log.log(level, text)


class _Cache:
    """The cache that numba asks for compiled functions; it never fails."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._inner: Any = None
        try:
            inner = _checked(function)
            self._inner = inner if _trusted(inner.cache_path, function.__code__.co_filename) else None
        except Exception:
            # numba finds no place that it can write to, or is a version whose cache works in another way
            pass

    @property
    def cache_path(self) -> str | None:
        return None if self._inner is None else self._inner.cache_path

    def load_overload(self, signature: Any, context: Any) -> Any:
        global _compiled
        found = None
        if self._inner is not None:
            try:
                found = self._inner.load_overload(signature, context)
            except Exception:
                # damaged: it is compiled and written again
                found = None
        if found is None:
            with _state:
                _compiled += 1
            _tell(
                logging.INFO, "compiling the functions that extract features; at the first use this takes some seconds"
            )
        return found

    def save_overload(self, signature: Any, data: Any) -> None:
        try:
            self._inner.save_overload(signature, data)
        except Exception:
            # also where there is no cache at all
            _tell(
                logging.WARNING,
                "compiled functions cannot be kept, so every process compiles them again; NUMBA_CACHE_DIR can name a "
                "folder for them that this user, and no other, can write to",
            )

    def enable(self) -> None:
        pass

    def disable(self) -> None:
        self._inner = None

    def flush(self) -> None:
        if self._inner is not None:
            self._inner.flush()


def _trusted(folder: str, source: str) -> bool:
    """Whether a folder is this user's, root's or of the owner of the program, and not for everyone to write."""
    if not hasattr(os, "geteuid"):
        return True
    try:
        found = os.stat(folder)
    except FileNotFoundError:
        return True
    return found.st_uid in (0, os.geteuid(), os.stat(source).st_uid) and not found.st_mode & stat.S_IWOTH


def _verified(data: bytes) -> bytes:
    """Data without the checksum at its end; OSError, as for a file that is not there, if it is another's."""
    content, digest = data[:-_DIGEST], data[-_DIGEST:]
    if hashlib.sha256(content).digest() != digest:
        raise OSError("damaged")
    return content


def _checked(function: Callable[..., Any]) -> Any:
    """Numba's cache of a function, with checksums."""
    caching: Any = importlib.import_module("numba.core.caching")

    class Files(caching.IndexDataCacheFile):  # type: ignore[misc]
        def _load_index(self) -> Any:
            try:
                with open(self._index_path, "rb") as file:
                    version, data = pickle.load(file), file.read()
                if version != self._version:
                    return {}
                stamp, overloads = pickle.loads(_verified(data))
                return overloads if stamp == self._source_stamp else {}
            except Exception:
                # missing or damaged: it is written again
                return {}

        def _dump(self, obj: Any) -> bytes:
            data = super()._dump(obj)
            return bytes(data) + hashlib.sha256(data).digest()

        def _load_data(self, name: str) -> Any:
            with open(self._data_path(name), "rb") as file:
                return pickle.loads(_verified(file.read()))

    inner = caching.FunctionCache(function)
    locator = inner._impl.locator
    # a name of its own: numba alone would not know the checksums
    name = f"mipp-{inner._impl.filename_base}"
    inner._cache_file = Files(locator.get_cache_path(), name, locator.get_source_stamp())
    return inner
