"""Parameters of a deployment: servers, threshold and ring. All of this is public."""

from __future__ import annotations

import dataclasses
import itertools
import math
import warnings
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import ParameterError

__all__ = ["FINITE", "INFINITY", "MASKED", "RING_DTYPES", "Params", "scheme_name"]

#: unsigned numpy dtype of one ring word, by ring bits
RING_DTYPES: dict[int, np.dtype[Any]] = {16: np.dtype("<u2"), 32: np.dtype("<u4"), 64: np.dtype("<u8")}

#: forms of sharing: the key centre's share is the leading coefficient; every share is a value at a point; rows are
#: masked by the keystream alone
INFINITY, FINITE, MASKED = "infinity", "finite", "masked"
#: the scheme whose rows are Shamir shares; the rows of all others are masked, and stored by one cloud
_SHARED = "shares"
#: earlier names of schemes
_RENAMED = {"homomorphic": "paillier"}
MAX_SERVERS = 7
MAX_THRESHOLD = 3
#: servers of the form ``infinity``: two or three clouds, and the key centre, which keeps its number when a cloud joins
_INFINITY_SERVERS = (3, 4)
_INFINITY_KEY_CENTRE = 3


def scheme_name(name: str) -> str:
    """The name of a scheme; an earlier one with a DeprecationWarning.

    Parameters
    ----------
    name : str
        ``shares``, ``lattice``, ``paillier``, or the earlier name ``homomorphic`` of the last.

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
        Number of servers, 3 to 7. Key centres hold keys only, the others are clouds.
    t : int
        Any ``t`` colluding servers learn nothing; 1 to 3, and ``n >= 2t+1``.
    ring_bits : int
        Bits of a ring word: 16, 32 or 64. All arithmetic is modulo ``2^ring_bits``.
    scheme : str
        ``shares``, or another scheme (:mod:`mipp.schemes`), whose rows are masked, with n=2 and t=1.
    sharing : str, optional
        Form of sharing. ``infinity``: the key centre has the leading coefficient of the polynomials. It is server 3;
        clouds are servers 1, 2 and, for n=4, 4; t=1. A cloud can join without a change to stored rows or keys.
        ``finite``: every server has a value at a point; servers ``n-t+1 .. n`` are key centres. ``masked``: the form of
        the other schemes. Default ``infinity`` where n and t allow it.
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
    >>> Params(n=4, t=1).clouds, Params(n=4, t=1, sharing="finite").clouds
    ((1, 2, 4), (1, 2, 3))
    >>> params.padded(93)  # words per stored row of 93 features
    96
    """

    n: int
    t: int
    ring_bits: int
    scheme: str
    sharing: str

    def __init__(
        self,
        n: int = 3,
        t: int = 1,
        ring_bits: int = 32,
        scheme: str = "shares",
        sharing: str | None = None,
        *,
        k: Any = ...,
    ) -> None:
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
            self._set_sharing(sharing, (MASKED,))
            return
        if not 1 <= self.t <= MAX_THRESHOLD:
            raise ParameterError(f"threshold t must be 1 to {MAX_THRESHOLD}, not {self.t}")
        if not 2 * self.t + 1 <= self.n <= MAX_SERVERS:
            raise ParameterError(f"n must be 2t+1 to {MAX_SERVERS} servers (t={self.t}), not {self.n}")
        grows = self.t == 1 and self.n in _INFINITY_SERVERS
        self._set_sharing(sharing, (INFINITY, FINITE) if grows else (FINITE,))

    def _set_sharing(self, sharing: str | None, possible: tuple[str, ...]) -> None:
        """Set the form of sharing: one that is possible, by default the first."""
        if sharing is not None and sharing not in possible:
            names = " or ".join(map(repr, possible))
            raise ParameterError(
                f"the scheme {self.scheme!r} with n={self.n}, t={self.t} has sharing={names}, not {sharing!r}"
            )
        object.__setattr__(self, "sharing", sharing or possible[0])

    @property
    def m(self) -> int:
        """Words of a ring element: the least m such that the Galois ring has 2^m points for 0 and the servers.

        2 in the form ``infinity``, whose key centre needs none of them. 1 where rows are masked: elements are words.
        """
        return {INFINITY: 2, FINITE: self.n.bit_length(), MASKED: 1}[self.sharing]

    @property
    def layout(self) -> tuple[int, int]:
        """Sizes that keys and stored rows are bound to: n and t; m and t in the form ``infinity``, which can grow."""
        return (self.m if self.sharing == INFINITY else self.n), self.t

    @property
    def dtype(self) -> np.dtype[Any]:
        """The unsigned numpy dtype of a ring word."""
        return RING_DTYPES[self.ring_bits]

    @property
    def clouds(self) -> tuple[int, ...]:
        """Numbers of the clouds: the servers that store shares of rows."""
        return tuple(i for i in range(1, self.n + 1) if i not in self.key_centres)

    @property
    def key_centres(self) -> tuple[int, ...]:
        """Numbers of the key centres: the servers that hold keys only."""
        if self.sharing == INFINITY:
            return (_INFINITY_KEY_CENTRE,)
        return tuple(range(self.n - self.t + 1, self.n + 1))

    def point_number(self, server: int) -> int:
        """Number of a server's evaluation point, which key labels and zero shares name it by.

        Parameters
        ----------
        server : int
            Number of the server.

        Returns
        -------
        int
            The server's number. In the form ``infinity``: 0 for the key centre, which has no point; 3 for cloud 4.

        Raises
        ------
        ParameterError
            There is no such server.

        Examples
        --------
        >>> from mipp import Params
        >>> [Params(n=4, t=1).point_number(server) for server in (1, 2, 3, 4)]
        [1, 2, 0, 3]
        """
        if server not in self.clouds + self.key_centres:
            raise ParameterError(f"there is no server {server}; servers are 1 to {self.n}")
        if self.sharing != INFINITY:
            return server
        return 0 if server in self.key_centres else self.clouds.index(server) + 1

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

    @property
    def compares(self) -> bool:
        """Whether the servers of a query can compare scores among themselves: they are two clouds and a key centre."""
        return self.scheme == _SHARED and (self.sharing == INFINITY or self.n == 3)

    @property
    def server_sets(self) -> tuple[tuple[int, ...], ...]:
        """All sets of servers that can answer a query: every key centre, and t+1 clouds (one where rows are masked).

        Examples
        --------
        >>> from mipp import Params
        >>> Params(n=4, t=1).server_sets
        ((1, 2, 3), (1, 3, 4), (2, 3, 4))
        """
        needed = min(self.t + 1, len(self.clouds))
        return tuple(tuple(sorted((*some, *self.key_centres))) for some in itertools.combinations(self.clouds, needed))

    @property
    def spare_clouds(self) -> int:
        """How many clouds may be away while queries are answered and changes are made."""
        return max(0, len(self.clouds) - self.t - 1)

    def parties(self, servers: Sequence[int] | None = None) -> tuple[int, ...]:
        """The servers of a query in the order of their parts in protocols among them: clouds, then key centres.

        Parameters
        ----------
        servers : sequence of int, optional
            Numbers of the servers, in any order; default the first of :attr:`server_sets`.

        Returns
        -------
        tuple of int
            The servers; the first is party 1.

        Raises
        ------
        ParameterError
            Servers that no query has, as of :meth:`check_servers`.

        Examples
        --------
        >>> from mipp import Params
        >>> Params(n=4, t=1).parties([1, 3, 4])
        (1, 4, 3)
        """
        chosen = self.server_sets[0] if servers is None else self.check_servers(servers)
        return tuple(s for s in chosen if s in self.clouds) + self.key_centres

    def check_servers(self, servers: Sequence[int]) -> tuple[int, ...]:
        """Check the servers of a query: all key centres and t+1 clouds, or the one cloud where rows are masked.

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
        others = tuple(s for s in chosen if s not in self.clouds)
        if len(set(chosen)) != len(chosen) or len(chosen) - len(others) != needed or others != self.key_centres:
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
