"""Galois rings R = (Z/2^k)[X]/(f_m), with f_2 = X^2+X+1 and f_3 = X^3+X+1, in exact Python integers.

Both polynomials are irreducible modulo 2, so an element is a unit exactly when it is not zero modulo 2. R holds 2^m
points whose differences are units, as Shamir sharing needs; the integers modulo 2^k hold only two. Sources: McDonald,
"Finite Rings with Identity" (Galois rings); Cramer, Damgard, Nielsen, "Secure Multiparty Computation and Secret
Sharing", section 11 (sharing over such rings).
"""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import ParameterError

__all__ = ["Element", "GaloisRing", "Point", "solve_mod_2k"]

#: an element of the ring: m integers, constant coefficient first
Element = tuple[int, ...]
#: a point of the projective line over the ring, in homogeneous coordinates (u, v): (1, a) is the finite point a, and
#: (0, 1) is infinity
Point = tuple[Element, Element]

# f_m without its leading term, constant first
_MODULUS = {2: (1, 1), 3: (1, 1, 0)}


class GaloisRing:
    """The ring R = (Z/2^ring_bits)[X]/(f_m). Elements are tuples of m integers, constant coefficient first.

    Parameters
    ----------
    ring_bits : int
        Bits of a coefficient.
    m : int
        Degree of f_m: 2 or 3.

    Attributes
    ----------
    ring_bits, m : int
        As given.
    zero, one : tuple of int
        The elements 0 and 1.
    infinity : tuple of tuple of int
        The point at infinity.

    Examples
    --------
    >>> from mipp.sharing.galois import GaloisRing
    >>> ring = GaloisRing(16, 2)
    >>> ring.mul((0, 1), (0, 1))  # X^2 = -X - 1
    (65535, 65535)
    >>> ring.mul((3, 5), ring.inv((3, 5)))
    (1, 0)
    """

    def __init__(self, ring_bits: int, m: int) -> None:
        self.ring_bits, self.m, self.mask = ring_bits, m, (1 << ring_bits) - 1
        self.zero: Element = (0,) * m
        self.one: Element = (1,) + (0,) * (m - 1)
        self.infinity: Point = (self.zero, self.one)

    def add(self, a: Element, b: Element) -> Element:
        """The sum a + b."""
        return tuple((x + y) & self.mask for x, y in zip(a, b, strict=True))

    def sub(self, a: Element, b: Element) -> Element:
        """The difference a - b."""
        return tuple((x - y) & self.mask for x, y in zip(a, b, strict=True))

    def mul(self, a: Element, b: Element) -> Element:
        """The product a b."""
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
        """Whether a has an inverse: exactly when it is not zero modulo 2."""
        return any(c & 1 for c in a)

    def inv(self, a: Element) -> Element:
        """The inverse of a unit: a^(2^m - 2) inverts modulo 2; each step of Newton's iteration doubles the bits."""
        if not self.is_unit(a):
            raise ParameterError("the element is not a unit of the ring")
        y = self.one
        for _ in range(2**self.m - 2):
            y = self.mul(y, a)
        two = (2,) + (0,) * (self.m - 1)
        for _ in range(self.ring_bits.bit_length() + 1):
            y = self.mul(y, self.sub(two, self.mul(a, y)))
        return y

    def monomial(self, b: int) -> Element:
        """The element X^b, for b < m."""
        return tuple(int(i == b) for i in range(self.m))

    def trace(self, a: Element) -> int:
        """The trace over Z of the multiplication by a."""
        return sum(self.mul(a, self.monomial(b))[b] for b in range(self.m)) & self.mask

    def point(self, i: int) -> Point:
        """The finite point number i: the element whose coefficients are the binary digits of i."""
        return self.one, tuple((i >> b) & 1 for b in range(self.m))

    def difference(self, a: Point, b: Point) -> Element:
        """The determinant v_a u_b - u_a v_b of two points: a - b where both are finite, zero where they are equal."""
        return self.sub(self.mul(a[1], b[0]), self.mul(a[0], b[1]))

    def lagrange(self, nodes: Sequence[Point], at: Point) -> list[Element]:
        """Weights w with g(at) = sum w[j] g(nodes[j]) for every polynomial g of degree d < len(nodes).

        With d = len(nodes) - 1, the value of g = sum_i c_i Z^i at (u, v) is sum_i c_i u^(d-i) v^i: the usual value at a
        finite point, and the leading coefficient c_d at infinity.
        """
        weights = []
        for j, node in enumerate(nodes):
            w = self.one
            for i, other in enumerate(nodes):
                if i != j:
                    w = self.mul(w, self.mul(self.difference(at, other), self.inv(self.difference(node, other))))
            weights.append(w)
        return weights

    def dual_basis(self) -> list[Element]:
        """Elements e_0 .. e_(m-1) with trace(e_b X^c) = 1 for b = c and 0 otherwise."""
        m = self.m
        rows = [
            [self.trace(self.mul(self.monomial(b), self.monomial(c))) for c in range(m)] + list(self.monomial(b))
            for b in range(m)
        ]
        return [tuple(row[m:]) for row in solve_mod_2k(rows, self.ring_bits)]

    def matrix(self, a: Element) -> list[list[int]]:
        """The matrix M of the multiplication by a: (a x)[b] = sum_c M[b][c] x[c]."""
        columns = [self.mul(a, self.monomial(c)) for c in range(self.m)]
        return [[columns[c][b] for c in range(self.m)] for b in range(self.m)]


def solve_mod_2k(augmented: list[list[int]], ring_bits: int) -> list[list[int]]:
    """Gauss-Jordan elimination modulo 2^ring_bits of [A | B], A invertible modulo 2; returns [I | A^-1 B]."""
    n, mod = len(augmented), 1 << ring_bits
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
