"""Oracle of the lattice kernels: the same functions in plain Python integers.

The NTT domain of this oracle is the polynomial's values at odd powers of a root, in bit-reversed order; kernels may use
another order, so results are compared after the inverse. Samplers follow the same distributions, not the same bytes.
"""

import math

import gmpy2
import numpy as np

from mipp._native import _core

SIGMA = 3.2


class LatticeRing:
    """Z_q[X] / (X^N + 1), q the product of the primes."""

    def __init__(self, degree, primes):
        self.degree, self.primes = degree, tuple(primes)
        assert degree & (degree - 1) == 0 and degree >= 4
        assert all(gmpy2.is_prime(p) and p % (2 * degree) == 1 for p in primes)
        self.q = math.prod(self.primes)
        self.levels = degree.bit_length() - 1
        self.roots = [_root(p, 2 * degree) for p in self.primes]
        self.tables = [_powers(root, p, degree) for root, p in zip(self.roots, self.primes, strict=True)]


def _root(p, order):
    """An element of this order (a power of two) modulo p."""
    for g in range(2, p):
        root = pow(g, (p - 1) // order, p)
        if pow(root, order // 2, p) == p - 1:
            return root
    raise AssertionError


def _reversed_bits(i, bits):
    return int(format(i, f"0{bits}b")[::-1], 2)


def _powers(root, p, degree):
    bits = degree.bit_length() - 1
    forward = [pow(root, _reversed_bits(i, bits), p) for i in range(degree)]
    return np.array(forward, object), np.array([pow(x, -1, p) for x in forward], object)


# --- polynomials, one prime, coefficients ------------------------------------------------------------------------


def schoolbook(a, b, p):
    """a b modulo X^N + 1 and p, from the definition."""
    n, out = len(a), [0] * len(a)
    for i in range(n):
        for j in range(n):
            sign = 1 if i + j < n else -1
            out[(i + j) % n] += sign * int(a[i]) * int(b[j])
    return [x % p for x in out]


def kronecker(a, b, p):
    """The same product by one product of long integers (Kronecker substitution)."""
    n = len(a)
    size = -(-(2 * int(p).bit_length() + n.bit_length()) // 8)
    x, y = (
        gmpy2.from_binary(b"\x01\x01" + b"".join(int(v).to_bytes(size, "little") for v in u) + b"\0") for u in (a, b)
    )
    raw = int(x * y).to_bytes(2 * n * size, "little")
    whole = [int.from_bytes(raw[i * size : (i + 1) * size], "little") for i in range(2 * n)]
    return [(whole[i] - whole[n + i]) % p for i in range(n)]


def product(a, b, p):
    return schoolbook(a, b, p) if len(a) <= 32 else kronecker(a, b, p)


def automorphism(a, power):
    """a(X^power), of signed or unsigned coefficients, not reduced."""
    n, out = len(a), [0] * len(a)
    for i, x in enumerate(a):
        k = i * power % (2 * n)
        out[k % n] = int(x) if k < n else -int(x)
    return out


# --- NTT domain --------------------------------------------------------------------------------------------------


def lattice_forward(ring, a, threads=None):
    for at, p, (powers, _) in _parts(ring, a):
        x, length = a[at].astype(object), ring.degree
        blocks = 1
        while length > 1:
            x = x.reshape(blocks, 2, length // 2)
            twisted = x[:, 1] * powers[blocks : 2 * blocks, None] % p
            x = np.stack([(x[:, 0] + twisted) % p, (x[:, 0] - twisted) % p], axis=1)
            blocks, length = 2 * blocks, length // 2
        a[at] = x.reshape(-1).astype(np.uint64)


def lattice_inverse(ring, a, threads=None):
    for at, p, (_, inverses) in _parts(ring, a):
        x, length = a[at].astype(object), 2
        blocks = ring.degree // 2
        while blocks:
            x = x.reshape(blocks, 2, length // 2)
            low, high = x[:, 0] + x[:, 1], (x[:, 0] - x[:, 1]) * inverses[blocks : 2 * blocks, None]
            x = np.stack([low % p, high % p], axis=1)
            blocks, length = blocks // 2, 2 * length
        a[at] = (x.reshape(-1) * pow(ring.degree, -1, p) % p).astype(np.uint64)


def _parts(ring, a):
    for m in np.ndindex(a.shape[:-2]):
        for limb, p in enumerate(ring.primes):
            yield (*m, limb), p, ring.tables[limb]


def _primes(ring):
    return np.array(ring.primes, object)[:, None]


def lattice_multiply(ring, a, b, out, threads=None):
    out[...] = (a.astype(object) * b.astype(object) % _primes(ring)).astype(np.uint64)


def lattice_add(ring, a, b, threads=None):
    a[...] = ((a.astype(object) + b.astype(object)) % _primes(ring)).astype(np.uint64)


def lattice_negate(ring, a, threads=None):
    a[...] = (-a.astype(object) % _primes(ring)).astype(np.uint64)


def lattice_residues(ring, values, out, threads=None):
    out[...] = (values.astype(object)[..., None, :] % _primes(ring)).astype(np.uint64)


# --- samplers ----------------------------------------------------------------------------------------------------


def _stream(schedules, index, words):
    out = np.empty(words + words % 2, np.uint64)
    _core.keystream_words(schedules, index, 0, out)
    return [int(x) for x in out[:words]]


def lattice_uniform(ring, schedules, first, out, threads=None):
    flat = out.reshape(-1, *out.shape[-2:])
    for m in range(len(flat)):
        stream = _stream(schedules, first + m, 2 * ring.degree * len(ring.primes))
        for limb, p in enumerate(ring.primes):
            wide = stream[2 * limb * ring.degree : 2 * (limb + 1) * ring.degree]  # 128 bits: within 2^-78 of uniform
            flat[m, limb] = [(x << 64 | y) % p for x, y in zip(wide[::2], wide[1::2], strict=True)]


def lattice_ternary(ring, schedules, first, out, threads=None):
    _small(ring, schedules, first, out, lambda x: x % 3 - 1)


def lattice_gaussian(ring, schedules, first, out, threads=None):
    def draw(x):  # Box and Muller, rounded
        u, v = ((x >> 32) + 1) / 2**32, (x % 2**32) / 2**32
        return round(SIGMA * math.sqrt(-2 * math.log(u)) * math.cos(2 * math.pi * v))

    _small(ring, schedules, first, out, draw)


def lattice_flood(ring, schedules, first, bits, out, threads=None):
    flat = out.reshape(-1, *out.shape[-2:])
    for m in range(len(flat)):
        stream = _stream(schedules, first + m, 2 * ring.degree)
        for i in range(ring.degree):
            x = ((stream[2 * i] << 64 | stream[2 * i + 1]) & ((1 << bits) - 1)) - (1 << bits - 1)
            flat[m, :, i] = [x % p for p in ring.primes]


def _small(ring, schedules, first, out, draw):
    flat = out.reshape(-1, *out.shape[-2:])
    for m in range(len(flat)):
        values = [draw(x) for x in _stream(schedules, first + m, ring.degree)]
        for limb, p in enumerate(ring.primes):
            flat[m, limb] = [x % p for x in values]


# --- the scheme --------------------------------------------------------------------------------------------------


def composed(ring, a):
    """Residues (..., L, N) as integers below q (..., N), by the Chinese remainder theorem."""
    weights = [(ring.q // p) * pow(ring.q // p, -1, p) for p in ring.primes]
    return sum(a[..., limb, :].astype(object) * w for limb, w in enumerate(weights)) % ring.q


def decomposed(ring, x):
    """Integers (..., N) as residues (..., L, N)."""
    return np.stack([(x % p).astype(np.uint64) for p in ring.primes], axis=-2)


def rounded(numerator, denominator):
    """Integers nearest to a fraction; halves go up."""
    return (2 * numerator + denominator) // (2 * denominator)


def centred(words, bits):
    """Words modulo 2^bits as numbers from -2^(bits-1)."""
    half = 1 << bits - 1
    return (words.astype(object) + half) % (1 << bits) - half


def lattice_switch(ring, a, bits, out, threads=None):
    out[...] = (rounded(composed(ring, a) << bits, ring.q) % (1 << bits)).astype(np.uint64)


def lattice_encode(ring, values, plain_bits, out):
    whole = rounded(values.astype(object) * ring.q, 1 << plain_bits)
    out[...] = decomposed(ring, whole[..., None])[..., 0]


def lattice_matvec(ring, words, plain_bits, query, out, threads=None):
    out[...] = 0
    for k in range(len(out)):
        block = words[k * ring.degree : (k + 1) * ring.degree]
        for j in range(words.shape[1]):
            row = np.zeros(ring.degree, object)
            row[: len(block)] = centred(block[:, j], plain_bits)
            residues = decomposed(ring, row)[None]
            lattice_forward(ring, residues)
            term = np.empty_like(out[k])
            lattice_multiply(ring, query[j], residues, term)
            lattice_add(ring, out[k], term)


def lattice_phase(ring, c0, c1, secret, bits, out, threads=None):
    coefficients = secret[None].copy()
    lattice_inverse(ring, coefficients)
    p, modulus = ring.primes[0], 1 << bits
    ternary = [int(x) if x < p // 2 else int(x) - p for x in coefficients[0, 0]]
    for m in range(len(c0)):
        key = [x % modulus for x in ternary]
        turned = product(c1[m], key, modulus)
        out[m] = [(int(x) + y) % modulus for x, y in zip(c0[m], turned, strict=True)]


def lattice_expand(ring, key_ring, ciphertext, keys, count, out, threads=None):
    """SealPIR's expansion (Angel, Chen, Laine, Setty 2018) with hybrid key switching, on integers modulo q."""
    n, special = ring.degree, key_ring.primes[-1]
    found = [tuple(composed(ring, ciphertext))]
    for level in range((count - 1).bit_length()):
        power = n // 2**level + 1
        down = 2 * n - 2**level  # X^-2^level
        low = found
        high = [tuple(_times_power(x, down) for x in c) for c in low[: count - len(low)]]
        found = [
            _plus(ring.q, c, _switched(ring, key_ring, special, _turned(ring.q, c, power), keys[level]))
            for c in low + high
        ]
    for j, c in enumerate(found):
        residues = np.stack([decomposed(ring, x) for x in c])
        lattice_forward(ring, residues)
        out[j] = residues


def _times_power(x, power):
    n = len(x)
    turned = np.empty(n, object)
    for i in range(n):
        k = (i + power) % (2 * n)
        turned[k % n] = x[i] if k < n else -x[i]
    return turned


def _plus(q, a, b):
    return tuple((x + y) % q for x, y in zip(a, b, strict=True))


def _turned(q, c, power):
    return tuple(np.array(automorphism(x, power), object) % q for x in c)


def _switched(ring, key_ring, special, c, keys):
    total = np.zeros((2, len(key_ring.primes), ring.degree), np.uint64)
    for d, p in enumerate(ring.primes):
        digit = decomposed(key_ring, (c[1] + p // 2) % p - p // 2)[None]
        lattice_forward(key_ring, digit)
        term = np.empty_like(total)
        lattice_multiply(key_ring, keys[d], digit, term)
        lattice_add(key_ring, total, term)
    lattice_inverse(key_ring, total)
    b, a = (rounded(x, special) % ring.q for x in composed(key_ring, total))
    return (c[0] + b) % ring.q, a
