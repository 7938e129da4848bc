"""A pool of encryption randomness, made ahead of time."""

from __future__ import annotations

import os
import threading

import numpy as np

from .keys import PublicKey

__all__ = ["RandomnessPool"]


class RandomnessPool:
    """Encryptions of 0 under one key, made ahead of time. Each is handed out once and then forgotten.

    Parameters
    ----------
    public : PublicKey
        The key.
    full_range : bool
        As for :meth:`PublicKey.randomness`; True by default, because a pool usually serves a party that sends
        ciphertexts to the key's owner.
    threads : int, optional
        Native threads that make the values; default :func:`mipp.cpu.threads`.

    Attributes
    ----------
    public : PublicKey
        The key.

    Notes
    -----
    The values are secret and stay in memory. A pool can be used from several threads. A forked child starts with an
    empty pool, so that no two processes use the same value. Its length is the number of values that are ready.

    Examples
    --------
    >>> from mipp.paillier import RandomnessPool, generate_keypair
    >>> key = generate_keypair(256, insecure=True)  # a test key
    >>> pool = RandomnessPool(key.public)
    >>> pool.prepare(3)
    >>> pool.take(2).shape, len(pool)
    ((2, 8), 1)
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
        """Make values until at least ``count`` are ready.

        Parameters
        ----------
        count : int
            Number of values.
        """
        missing = count - len(self)
        if missing > 0:
            fresh = self._make(missing)
            with self._lock:
                self._settle()
                self._ready += list(fresh)

    def take(self, count: int) -> np.ndarray:
        """Take values that were never handed out before; makes those that are missing.

        Parameters
        ----------
        count : int
            Number of values.

        Returns
        -------
        ndarray of uint64, shape (count, element_limbs)
            Values for ``randomness`` of :meth:`PublicKey.raw_encrypt`. Secret.
        """
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
