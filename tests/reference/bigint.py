"""Slow oracle of the big-integer kernels: plain integers behind the interface of `mipp._native._core`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Limbs = NDArray[np.uint64]


def to_int(limbs: Any) -> int:
    """Number of one row of little-endian 64-bit limbs."""
    return int.from_bytes(np.ascontiguousarray(limbs, dtype="<u8").tobytes(), "little")


def to_ints(array: Any) -> list[int]:
    """Numbers of an array (N, limbs)."""
    return [to_int(row) for row in array]


def to_limbs(values: Any, limbs: int) -> Limbs:
    """Array (N, limbs) of numbers below 2^(64 limbs)."""
    data = b"".join(int(value).to_bytes(8 * limbs, "little") for value in values)
    return np.frombuffer(data, dtype="<u8").reshape(len(values), limbs).copy()


def _broadcast(rows: list[int], count: int) -> list[int]:
    return rows * count if len(rows) == 1 else rows


class Modulus:
    """Arithmetic modulo an odd number m, or modulo m^2."""

    def __init__(self, modulus: Any, square: bool = False) -> None:
        self.root = to_int(modulus)
        if self.root % 2 == 0 or self.root < 3:
            raise ValueError("an even modulus")
        self.square = square
        self.value = self.root**2 if square else self.root
        self.root_limbs = len(modulus)
        self.limbs = self.root_limbs * (2 if square else 1)

    def _out(self, values: list[int]) -> Limbs:
        return to_limbs(values, self.limbs)

    def mul(self, a: Any, b: Any, threads: int = 0) -> Limbs:
        left, right = to_ints(a), to_ints(b)
        count = max(len(left), len(right))
        pairs = zip(_broadcast(left, count), _broadcast(right, count), strict=True)
        return self._out([x * y % self.value for x, y in pairs])

    def product(self, a: Any, threads: int = 0) -> Limbs:
        out = []
        for group in a:
            value = 1
            for x in to_ints(group):
                value = value * x % self.value
            out.append(value)
        return self._out(out)

    def pow(self, base: Any, exponent: Any, exponent_bits: int, threads: int = 0) -> Limbs:
        bases, exponents = to_ints(base), to_ints(exponent)
        count = max(len(bases), len(exponents))
        pairs = zip(_broadcast(bases, count), _broadcast(exponents, count), strict=True)
        return self._out([pow(x, e, self.value) for x, e in pairs])

    def pow_var(self, base: Any, exponent: Any, threads: int = 0) -> Limbs:
        e = to_int(exponent)
        return self._out([pow(x, e, self.value) for x in to_ints(base)])

    def multi_pow(self, bases: Any, exponents: Any, exponent_bits: int, slot_bits: int, threads: int = 0) -> Limbs:
        roots = to_ints(bases)
        out = []
        for slots in exponents:
            value = 1
            for j, base in enumerate(roots):
                e = sum(int(slot[j]) << (slot_bits * s) for s, slot in enumerate(slots))
                value = value * pow(base, e, self.value) % self.value
            out.append(value)
        return self._out(out)

    def reduce(self, wide: Any, threads: int = 0) -> Limbs:
        return self._out([x % self.value for x in to_ints(wide)])

    def add_plain(self, ciphertexts: Any, plain: Any, threads: int = 0) -> Limbs:
        pairs = zip(to_ints(ciphertexts), to_ints(plain), strict=True)
        return self._out([c * (1 + m * self.root) % self.value for c, m in pairs])


class FixedBase:
    """Powers of one base."""

    def __init__(self, modulus: Modulus, base: Any, exponent_bits: int, window: int = 0, threads: int = 0) -> None:
        self.modulus, self.base, self.exponent_bits = modulus, to_int(base), exponent_bits

    def pow(self, exponents: Any, threads: int = 0) -> Limbs:
        return self.modulus._out([pow(self.base, e, self.modulus.value) for e in to_ints(exponents)])


class PaillierDecryptor:
    """Paillier decryption from the two primes: m = L(c^(p-1) mod p^2) h_p mod p, the same for q, joined by CRT."""

    def __init__(self, p: Any, q: Any, h_p: Any, h_q: Any, q_inverse: Any) -> None:
        self.p, self.q, self.h_p, self.h_q = to_int(p), to_int(q), to_int(h_p), to_int(h_q)
        self.q_inverse = to_int(q_inverse)
        self.limbs = -(-(self.p * self.q).bit_length() // 64)

    def decrypt(self, ciphertexts: Any, threads: int = 0) -> Limbs:
        out = []
        for c in to_ints(ciphertexts):
            m_p = (pow(c, self.p - 1, self.p**2) - 1) // self.p * self.h_p % self.p
            m_q = (pow(c, self.q - 1, self.q**2) - 1) // self.q * self.h_q % self.q
            out.append(m_q + self.q * ((m_p - m_q) * self.q_inverse % self.p))
        return to_limbs(out, self.limbs)
