"""Parameters of a deployment: servers, threshold and ring. All of this is public."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import ParameterError

__all__ = ["RING_DTYPES", "Params", "scheme_name"]

#: unsigned numpy dtype of one ring word, by ring bits
RING_DTYPES: dict[int, np.dtype[Any]] = {16: np.dtype("<u2"), 32: np.dtype("<u4"), 64: np.dtype("<u8")}

#: the scheme whose rows are Shamir shares; the rows of all others are masked, and stored by one cloud
_SHARED = "shares"
#: earlier names of schemes
_RENAMED = {"homomorphic": "paillier"}
MAX_SERVERS = 7
MAX_THRESHOLD = 3


def scheme_name(name: str) -> str:
    """The name of a scheme; an earlier one with a DeprecationWarning.

    Parameters
    ----------
    name : str
        ``shares``, ``paillier``, or the earlier name ``homomorphic`` of the latter.

    Returns
    -------
    str
        The name that is used now.

    Raises
    ------
    ParameterError
        No text.

    Examples
    --------
    >>> from mipp.params import scheme_name
    >>> scheme_name("paillier")
    'paillier'
    """
    if not isinstance(name, str):
        raise ParameterError(f"a scheme is named by text, not {type(name).__name__}")
    if name not in _RENAMED:
        return name
    warnings.warn(f"the scheme {name} is called {_RENAMED[name]} now", DeprecationWarning, stacklevel=3)
    return _RENAMED[name]


@dataclasses.dataclass(frozen=True, init=False)
class Params:
    """Number of servers, threshold and ring of a deployment. Public.

    Parameters
    ----------
    n : int
        Number of servers, 3 to 7. Servers ``n-t+1 .. n`` are key centres (they hold keys only), the others clouds.
    t : int
        Any ``t`` colluding servers learn nothing; 1 to 3, and ``n >= 2t+1``.
    ring_bits : int
        Bits of a ring word: 16, 32 or 64. All arithmetic is modulo ``2^ring_bits``.
    scheme : str
        ``shares``, or another scheme (:mod:`mipp.schemes`), whose rows are masked, with n=2 and t=1.
    k : int
        Old name of ``ring_bits``, for one release.

    Raises
    ------
    ParameterError
        Any other combination.

    Examples
    --------
    >>> from mipp import Params
    >>> params = Params(n=3, t=1, ring_bits=32)
    >>> params.clouds, params.key_centres, params.dtype
    ((1, 2), (3,), dtype('uint32'))
    >>> params.padded(93)  # words per stored row of 93 features
    96
    """

    n: int
    t: int
    ring_bits: int
    scheme: str

    def __init__(self, n: int = 3, t: int = 1, ring_bits: int = 32, scheme: str = "shares", *, k: Any = ...) -> None:
        if k is not ...:
            warnings.warn("Params(k=...) becomes ring_bits=", DeprecationWarning, stacklevel=2)
            ring_bits = k
        for name, value in (("n", n), ("t", t), ("ring_bits", ring_bits)):
            if isinstance(value, np.integer):
                value = int(value)
            if isinstance(value, bool) or not isinstance(value, int):
                raise ParameterError(f"{name} must be an int")
            object.__setattr__(self, name, value)
        object.__setattr__(self, "scheme", scheme_name(scheme))
        if self.ring_bits not in RING_DTYPES:
            raise ParameterError(f"ring_bits must be 16, 32 or 64, not {self.ring_bits}")
        if self.scheme != _SHARED:
            if (self.n, self.t) != (2, 1):
                raise ParameterError(f"the scheme {self.scheme!r} has n=2 servers and t=1, not n={self.n}, t={self.t}")
            return
        if not 1 <= self.t <= MAX_THRESHOLD:
            raise ParameterError(f"threshold t must be 1 to {MAX_THRESHOLD}, not {self.t}")
        if not 2 * self.t + 1 <= self.n <= MAX_SERVERS:
            raise ParameterError(f"n must be 2t+1 to {MAX_SERVERS} servers (t={self.t}), not {self.n}")

    @property
    def m(self) -> int:
        """Words of a ring element: the least m such that the Galois ring has 2^m >= n+1 points.

        1 for fewer than 2t+1 servers, which share nothing by polynomials: an element is one word there.
        """
        return self.n.bit_length() if self.n > 2 * self.t else 1

    @property
    def dtype(self) -> np.dtype[Any]:
        """The unsigned numpy dtype of a ring word."""
        return RING_DTYPES[self.ring_bits]

    @property
    def clouds(self) -> tuple[int, ...]:
        """Numbers of the clouds: the servers that store shares of rows."""
        return tuple(range(1, self.n - self.t + 1))

    @property
    def key_centres(self) -> tuple[int, ...]:
        """Numbers of the key centres: the servers that hold keys only."""
        return tuple(range(self.n - self.t + 1, self.n + 1))

    def padded(self, dim: int) -> int:
        """Number of words stored for a row: whole ring elements and whole AES blocks.

        Parameters
        ----------
        dim : int
            Features per row, at least 1.

        Returns
        -------
        int
            The least sufficient multiple of m and of 128 / ring_bits.

        Raises
        ------
        ParameterError
            ``dim`` is not positive.
        """
        if dim < 1:
            raise ParameterError(f"dim must be positive, not {dim}")
        step = math.lcm(self.m, 128 // self.ring_bits)
        return -(-dim // step) * step

    def check_servers(self, servers: Sequence[int]) -> tuple[int, ...]:
        """Check the servers of a query: all key centres and t+1 clouds (in the Paillier scheme its one cloud).

        Parameters
        ----------
        servers : sequence of int
            Numbers of the servers, in any order.

        Returns
        -------
        tuple of int
            The servers, sorted.

        Raises
        ------
        ParameterError
            Any other set of servers.
        """
        chosen = tuple(sorted(servers))
        needed = min(self.t + 1, len(self.clouds))
        clouds = [s for s in chosen if s in self.clouds]
        if len(set(chosen)) != len(chosen) or len(clouds) != needed or chosen[needed:] != self.key_centres:
            raise ParameterError(
                f"a query needs all key centres {list(self.key_centres)} and {needed} of the clouds "
                f"{list(self.clouds)}, not {list(servers)}"
            )
        return chosen

    # --- old names, for one release -----------------------------------------------------------------------------

    @property
    def k(self) -> int:
        """Deprecated: use ``ring_bits``."""
        return int(self._old("k", "ring_bits"))

    @property
    def storage_servers(self) -> tuple[int, ...]:
        """Deprecated: use ``clouds``."""
        return tuple(self._old("storage_servers", "clouds"))

    @property
    def key_servers(self) -> tuple[int, ...]:
        """Deprecated: use ``key_centres``."""
        return tuple(self._old("key_servers", "key_centres"))

    def _old(self, old: str, new: str) -> Any:
        warnings.warn(f"Params.{old} becomes Params.{new}", DeprecationWarning, stacklevel=3)
        return getattr(self, new)

    if TYPE_CHECKING:  # mipp.sharing attaches these; see mipp.sharing.constants for the new names

        @property
        def ring(self) -> Any: ...

        def row_matrices(self) -> np.ndarray: ...

        def column_matrices(self, servers: Sequence[int]) -> np.ndarray: ...

        def row_weights(self) -> np.ndarray: ...

        def row_degree_matrices(self) -> np.ndarray: ...

        def column_degree_matrices(self) -> np.ndarray: ...
