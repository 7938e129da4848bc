"""Parameters of the sharing, and the constants of the Galois ring that follow from them.

Z = integers mod 2^k; R = Z[X]/(f_m) with f_2 = X^2+X+1 and f_3 = X^3+X+1, m the least with 2^m >= n+1. Server i of
1..n sits at the element whose coefficients are the binary digits of i; these points and 0 differ pairwise by units,
so Shamir sharing works over R. All constants are derived here from that definition with exact integers, none is
pasted. All of this is public.

Source: Cramer, Damgaard, Nielsen, "Secure Multiparty Computation and Secret Sharing", section 11 (sharing over
rings with enough units), and McDonald, "Finite Rings with Identity" (Galois rings).
"""

from __future__ import annotations

import dataclasses
import functools
import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from .errors import ParameterError

__all__ = ["RING_DTYPES", "GaloisRing", "Params", "scheme_name"]

Element = tuple[int, ...]

#: unsigned numpy dtype of one ring word, by ring bits
RING_DTYPES: dict[int, np.dtype[Any]] = {16: np.dtype("<u2"), 32: np.dtype("<u4"), 64: np.dtype("<u8")}

# f_m without its leading term, constant first; irreducible mod 2
_MODULUS = {2: (1, 1), 3: (1, 1, 0)}
#: earlier names of schemes
_RENAMED = {"homomorphic": "paillier"}
#: the scheme whose rows are Shamir shares; the rows of all others are masked, and stored by one cloud
SHARED = "shares"
MAX_SERVERS = 7
MAX_THRESHOLD = 3


class GaloisRing:
    """R = (Z/2^k)[X]/(f_m); elements are tuples of m integers, constant coefficient first."""

    def __init__(self, k: int, m: int) -> None:
        self.k, self.m, self.mask = k, m, (1 << k) - 1
        self.zero: Element = (0,) * m
        self.one: Element = (1,) + (0,) * (m - 1)

    def add(self, a: Element, b: Element) -> Element:
        return tuple((x + y) & self.mask for x, y in zip(a, b, strict=True))

    def sub(self, a: Element, b: Element) -> Element:
        return tuple((x - y) & self.mask for x, y in zip(a, b, strict=True))

    def mul(self, a: Element, b: Element) -> Element:
        m, f = self.m, _MODULUS[self.m]
        wide = [0] * (2 * m - 1)
        for i, x in enumerate(a):
            for j, y in enumerate(b):
                wide[i + j] += x * y
        for top in range(2 * m - 2, m - 1, -1):
            for j in range(m):
                wide[top - m + j] -= wide[top] * f[j]
        return tuple(v & self.mask for v in wide[:m])

    def is_unit(self, a: Element) -> bool:
        """An element is a unit exactly when it is not zero modulo 2."""
        return any(c & 1 for c in a)

    def inv(self, a: Element) -> Element:
        """Inverse of a unit: a^(2^m - 2) inverts mod 2, then Newton's iteration doubles the precision."""
        if not self.is_unit(a):
            raise ParameterError("no unit of the ring")
        y = self.one
        for _ in range(2**self.m - 2):
            y = self.mul(y, a)
        two = (2,) + (0,) * (self.m - 1)
        for _ in range(self.k.bit_length() + 1):
            y = self.mul(y, self.sub(two, self.mul(a, y)))
        return y

    def monomial(self, b: int) -> Element:
        return tuple(int(i == b) for i in range(self.m))

    def trace(self, a: Element) -> int:
        """Trace over Z of the multiplication by ``a``."""
        return sum(self.mul(a, self.monomial(b))[b] for b in range(self.m)) & self.mask

    def point(self, i: int) -> Element:
        """Evaluation point of server ``i``: the binary digits of i as coefficients."""
        return tuple((i >> b) & 1 for b in range(self.m))

    def lagrange(self, nodes: Sequence[Element], at: Element) -> list[Element]:
        """Weights w with g(at) = sum w[j] g(nodes[j]) for every g of degree below len(nodes)."""
        weights = []
        for j, node in enumerate(nodes):
            w = self.one
            for i, other in enumerate(nodes):
                if i != j:
                    w = self.mul(w, self.mul(self.sub(at, other), self.inv(self.sub(node, other))))
            weights.append(w)
        return weights

    def dual_basis(self) -> list[Element]:
        """e_0..e_(m-1) with trace(e_b X^c) = [b = c]."""
        m = self.m
        rows = [
            [self.trace(self.mul(self.monomial(b), self.monomial(c))) for c in range(m)] + list(self.monomial(b))
            for b in range(m)
        ]
        return [tuple(row[m:]) for row in solve_mod_2k(rows, self.k)]

    def matrix(self, a: Element) -> list[list[int]]:
        """M with (a x)[b] = sum_c M[b][c] x[c]."""
        columns = [self.mul(a, self.monomial(c)) for c in range(self.m)]
        return [[columns[c][b] for c in range(self.m)] for b in range(self.m)]


def solve_mod_2k(augmented: list[list[int]], k: int) -> list[list[int]]:
    """Gauss-Jordan elimination mod 2^k of [A | B] with A invertible mod 2; returns [I | A^-1 B]."""
    n, mod = len(augmented), 1 << k
    a = [list(row) for row in augmented]
    for c in range(n):
        pivot = next((r for r in range(c, n) if a[r][c] & 1), None)
        if pivot is None:
            raise ParameterError("matrix is not invertible modulo 2^k")
        a[c], a[pivot] = a[pivot], a[c]
        scale = pow(a[c][c], -1, mod)
        a[c] = [v * scale % mod for v in a[c]]
        for r in range(n):
            if r != c and a[r][c]:
                factor = a[r][c]
                a[r] = [(v - factor * w) % mod for v, w in zip(a[r], a[c], strict=True)]
    return a


def scheme_name(name: str) -> str:
    """The name of a scheme; an earlier one with a DeprecationWarning."""
    if not isinstance(name, str):
        raise ParameterError(f"a scheme is named by text, not {type(name).__name__}")
    if name not in _RENAMED:
        return name
    warnings.warn(f"the scheme {name} is called {_RENAMED[name]} now", DeprecationWarning, stacklevel=3)
    return _RENAMED[name]


@dataclasses.dataclass(frozen=True)
class Params:
    """Number of servers, threshold and ring of a deployment. Public.

    Parameters
    ----------
    n : int
        Servers, 3 to 7. Servers ``n-t+1 .. n`` are key servers (they hold keys only), the others storage servers.
    t : int
        Any ``t`` colluding servers learn nothing; 1 to 3, and ``n >= 2t+1``.
    k : int
        Bits of a ring word: 16, 32 or 64. All arithmetic is modulo ``2^k``.

    Raises
    ------
    ParameterError
        For any other combination.
    """

    n: int = 3
    t: int = 1
    k: int = 32
    scheme: str = "shares"

    def __post_init__(self) -> None:
        for name in ("n", "t", "k"):
            value = getattr(self, name)
            if isinstance(value, np.integer):
                value = int(value)
                object.__setattr__(self, name, value)
            if isinstance(value, bool) or not isinstance(value, int):
                raise ParameterError(f"{name} must be an int")
        if self.k not in RING_DTYPES:
            raise ParameterError(f"ring bits k must be 16, 32 or 64, not {self.k}")
        object.__setattr__(self, "scheme", scheme_name(self.scheme))
        if self.masked:
            if (self.n, self.t) != (2, 1):
                raise ParameterError(f"the scheme {self.scheme!r} has n=2 servers and t=1, not n={self.n}, t={self.t}")
            return
        if not 1 <= self.t <= MAX_THRESHOLD:
            raise ParameterError(f"threshold t must be 1 to {MAX_THRESHOLD}, not {self.t}")
        if not 2 * self.t + 1 <= self.n <= MAX_SERVERS:
            raise ParameterError(f"n must be 2t+1 to {MAX_SERVERS} servers (t={self.t}), not {self.n}")

    @property
    def masked(self) -> bool:
        """Whether one cloud stores masked rows, and the key centre has the masks; else rows are Shamir shares."""
        return self.scheme != SHARED

    @property
    def m(self) -> int:
        """Degree of the Galois ring: features per ring element (1: the integers, where rows are masked)."""
        if self.masked:
            return 1
        return 2 if self.n < 4 else 3

    @property
    def dtype(self) -> np.dtype[Any]:
        """numpy dtype of one ring word."""
        return RING_DTYPES[self.k]

    @property
    def ring(self) -> GaloisRing:
        return GaloisRing(self.k, self.m)

    @property
    def storage_servers(self) -> tuple[int, ...]:
        return tuple(range(1, self.n - self.t + 1))

    @property
    def key_servers(self) -> tuple[int, ...]:
        return tuple(range(self.n - self.t + 1, self.n + 1))

    def padded(self, dim: int) -> int:
        """Words stored per row of ``dim`` features: whole ring elements and whole AES blocks."""
        if dim < 1:
            raise ParameterError(f"dim must be positive, not {dim}")
        step = math.lcm(self.m, 128 // self.k)
        return -(-dim // step) * step

    def check_servers(self, servers: Sequence[int]) -> tuple[int, ...]:
        """The servers of a query, sorted: all key servers and t+1 storage servers, else ParameterError.

        Both servers where rows are masked.
        """
        chosen = tuple(sorted(servers))
        if self.masked:
            if chosen != (1, 2):
                raise ParameterError(f"a query needs both servers, not {list(servers)}")
            return chosen
        storage = [s for s in chosen if s in self.storage_servers]
        if len(set(chosen)) != len(chosen) or len(storage) != self.t + 1 or chosen[self.t + 1 :] != self.key_servers:
            raise ParameterError(
                f"a query needs all key servers {list(self.key_servers)} and {self.t + 1} of the storage servers "
                f"{list(self.storage_servers)}, not {list(servers)}"
            )
        return chosen

    def row_matrices(self) -> np.ndarray:
        """Constants of row sharing, shape (n-t, 1+t, m, m), dtype of the ring.

        ``[i-1, 0]`` multiplies the features, ``[i-1, 1+j]`` the keystream of key server ``n-t+1+j``.
        """
        return _row_matrices(self)

    def column_matrices(self, servers: Sequence[int]) -> np.ndarray:
        """Constants of query sharing, shape (2t+1, 1+t, m, m), dtype of the ring, for ``servers`` in sorted order.

        ``[i, 0]`` multiplies the query words, ``[i, 1+j]`` the j-th random words: dual-basis encoding, Shamir
        polynomial, Lagrange weight at 0 and trace in one linear map.
        """
        return _column_matrices(self, self.check_servers(servers))

    def row_weights(self) -> np.ndarray:
        """What the two storage servers of n=3, t=1 multiply their words by to add up to the features: (2, m, m)."""
        return _row_weights(self)

    def row_degree_matrices(self) -> np.ndarray:
        """(3, m, m): applied to each server's words of a row, they add to zero just when these lie on a line.

        For n=3, t=1. The shares of a row are values of a polynomial of degree 1; the value at 0 of X times the
        polynomial of degree 2 through three points p_i is its coefficient of X^2 times p_1 p_2 p_3, a unit.
        """
        return _degree_matrices(self)[0]

    def column_degree_matrices(self) -> np.ndarray:
        """(3, m, m): the same for the columns of a query at servers 1, 2, 3."""
        return _degree_matrices(self)[1]


@functools.lru_cache(maxsize=64)
def _row_weights(params: Params) -> np.ndarray:
    ring, nodes = params.ring, [params.ring.point(i) for i in (1, 2)]
    return _constant(np.array([ring.matrix(w) for w in ring.lagrange(nodes, ring.zero)], params.dtype))


@functools.lru_cache(maxsize=64)
def _degree_matrices(params: Params) -> tuple[np.ndarray, np.ndarray]:
    ring, points = params.ring, [params.ring.point(i) for i in (1, 2, 3)]
    rows, columns = [], []
    for point, weight in zip(points, ring.lagrange(points, ring.zero), strict=True):
        rows.append(ring.matrix(ring.mul(weight, point)))
        # a column holds u[b] = trace(v X^b) of the weighted share v, so v = sum_b u[b] e_b
        images = [ring.mul(point, e) for e in ring.dual_basis()]
        columns.append([[image[b] for image in images] for b in range(ring.m)])
    return _constant(np.array(rows, params.dtype)), _constant(np.array(columns, params.dtype))


def _constant(matrices: np.ndarray) -> np.ndarray:
    matrices.flags.writeable = False
    return matrices


@functools.lru_cache(maxsize=64)
def _row_matrices(params: Params) -> np.ndarray:
    ring = params.ring
    nodes = [ring.zero] + [ring.point(s) for s in params.key_servers]
    out = np.empty((len(params.storage_servers), 1 + params.t, ring.m, ring.m), params.dtype)
    for row, i in enumerate(params.storage_servers):
        for col, w in enumerate(ring.lagrange(nodes, ring.point(i))):
            out[row, col] = ring.matrix(w)
    return _constant(out)


@functools.lru_cache(maxsize=256)
def _column_matrices(params: Params, servers: tuple[int, ...]) -> np.ndarray:
    ring = params.ring
    dual = ring.dual_basis()
    out = np.empty((len(servers), 1 + params.t, ring.m, ring.m), params.dtype)
    for row, (i, lam) in enumerate(
        zip(servers, ring.lagrange([ring.point(s) for s in servers], ring.zero), strict=True)
    ):
        power = lam
        for col in range(1 + params.t):
            inputs = dual if col == 0 else [ring.monomial(c) for c in range(ring.m)]
            for c, element in enumerate(inputs):
                lifted = ring.mul(power, element)
                for b in range(ring.m):
                    out[row, col, b, c] = ring.trace(ring.mul(lifted, ring.monomial(b)))
            power = ring.mul(power, ring.point(i))
    return _constant(out)
