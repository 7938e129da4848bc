"""Randomness made ahead of time."""

from __future__ import annotations

import os
import threading

import numpy as np

from .keys import PublicKey

__all__ = ["RandomnessPool"]


class RandomnessPool:
    """Encryptions of 0 under one key, made ahead; each is handed out once and then forgotten.

    Parameters
    ----------
    public : the key
    full_range : as for :meth:`PublicKey.randomness`; True by default, as pools serve those who answer to a key's owner
    threads : native threads for making them

    Kept in memory only. Safe to use from several threads; a forked child starts with an empty pool, so that no value is
    used by two processes.
    """

    def __init__(self, public: PublicKey, *, full_range: bool = True, threads: int | None = None) -> None:
        self.public, self._full_range, self._threads = public, full_range, threads
        self._lock = threading.Lock()
        self._ready: list[np.ndarray] = []
        self._process = os.getpid()

    def __repr__(self) -> str:
        return f"RandomnessPool({self.public!r}, {len(self)} ready)"

    def __reduce__(self) -> str:
        raise TypeError("a pool of randomness is secret and does not pickle")

    def __len__(self) -> int:
        with self._lock:
            self._settle()
            return len(self._ready)

    def prepare(self, count: int) -> None:
        """Have at least ``count`` values ready."""
        missing = count - len(self)
        if missing > 0:
            fresh = self._make(missing)
            with self._lock:
                self._settle()
                self._ready += list(fresh)

    def take(self, count: int) -> np.ndarray:
        """``count`` values, (count, element_limbs) uint64, never handed out before; makes what is missing."""
        with self._lock:
            self._settle()
            taken = self._ready[:count]
            del self._ready[:count]
        out = np.empty((count, self.public.element_limbs), np.uint64)
        if taken:
            out[: len(taken)] = taken
        if len(taken) < count:
            out[len(taken) :] = self._make(count - len(taken))
        return out

    def _make(self, count: int) -> np.ndarray:
        return self.public.randomness(count, full_range=self._full_range, threads=self._threads)

    def _settle(self) -> None:
        if self._process != os.getpid():
            self._ready.clear()
            self._process = os.getpid()
