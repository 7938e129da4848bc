"""Parameter sets: degree, moduli, plaintext modulus, flooding, and what follows from them.

The limits are those of the Homomorphic Encryption Security Standard (Albrecht et al., 2018; eprint 2019/939), 128 bits,
ternary secrets, quantum attackers.
"""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import math

import gmpy2
import numpy as np

from ..errors import ParameterError

__all__ = ["NOISE_BITS", "QUANTUM_LIMITS", "SIGMA", "Parameters", "whole_number"]

#: standard deviation of the rounded Gaussian errors
SIGMA = 3.2
#: bits of an answer below a score: its noise is less than half of 2^NOISE_BITS
NOISE_BITS = 11
#: degree -> largest bits of the modulus (128 bits, ternary secrets, quantum attackers)
QUANTUM_LIMITS = {1024: 25, 2048: 51, 4096: 101, 8192: 202, 16384: 411, 32768: 827}
#: least bits of the statistical distance that flooding leaves, of one row's noise
LEAST_DISTANCE = 40
#: standard deviations that noise exceeds with probability below 2^-65
TAIL = 9.2

_N4096 = (281474976694273, 281474976636929)
_N8192 = (70368743669761, 70368743587841, 70368743489537)
_N8192_SPECIAL = 70368743374849


@dataclasses.dataclass(frozen=True)
class Parameters:
    """Parameters of the lattice scheme. Users take them from :meth:`choose`.

    Parameters
    ----------
    name : str
        Name, for messages.
    degree : int
        N: polynomials are modulo X^N + 1; a power of two from 64 to 8192.
    primes : tuple of int
        Distinct primes below 2^48, 1 modulo 2N; q is their product.
    special : int or None
        A further such prime, of keys that switch keys: a query is then one ciphertext, which servers expand. None: a
        query is one ciphertext for each coordinate.
    plain_bits : int
        w: words and scores are modulo t = 2^w; 2 to 32.
    insecure : bool
        Allow moduli beyond the standard's limit, and too little flooding; for tests only.

    Raises
    ------
    ParameterError
        The values do not fit together, or the modulus is too large for the degree or too small for the flooding.

    Examples
    --------
    >>> from mipp.lattice import Parameters
    >>> parameters = Parameters.choose(coordinates=64, score_bits=18, ring_bits=32)
    >>> parameters.name, parameters.degree, parameters.plain_bits, parameters.flood_bits
    ('n4096', 4096, 20, 74)
    >>> Parameters.choose(coordinates=512, score_bits=30, ring_bits=64).security()
    (184, 202)
    """

    name: str
    degree: int
    primes: tuple[int, ...]
    special: int | None
    plain_bits: int
    insecure: bool = dataclasses.field(default=False, compare=False, repr=False)

    def __post_init__(self) -> None:
        degree = whole_number(self.degree, 64, 8192, "degree")
        whole_number(self.plain_bits, 2, 32, "plain_bits")
        if degree & (degree - 1):
            raise ParameterError(f"degree must be a power of two, not {degree}")
        moduli = self.moduli
        if not 1 <= len(self.primes) <= 7 or len(set(moduli)) < len(moduli):
            raise ParameterError("a parameter set has 1 to 7 distinct primes")
        if any(whole_number(p, 3, 2**48, "prime") % (2 * degree) != 1 or not gmpy2.is_prime(p) for p in moduli):
            raise ParameterError(f"moduli must be primes that are 1 modulo {2 * degree}")
        bits, limit = self.security()
        if bits > limit and not self.insecure:
            raise ParameterError(f"a modulus of {bits} bits is too large for degree {degree}: at most {limit}")
        if not 1 <= self.flood_bits <= 126 or self.largest_noise(2) >= 1 << NOISE_BITS - 1:
            raise ParameterError(f"{self.plain_bits} bits of score do not fit a modulus of {self.log_q:.0f} bits")
        if self.distance_bits(self.max_coordinates) < LEAST_DISTANCE and not self.insecure:
            raise ParameterError(f"a modulus of {self.log_q:.0f} bits leaves no room to flood the noise of rows")

    @classmethod
    def choose(cls, coordinates: int, score_bits: int, ring_bits: int) -> Parameters:
        """Choose the parameter set of a deployment.

        Parameters
        ----------
        coordinates : int
            Coordinates of a query.
        score_bits : int
            Bits that hold every score as a signed number.
        ring_bits : int
            Bits of the rows' words: 16, 32 or 64. Of them the low w are used.

        Returns
        -------
        Parameters
            ``n4096`` for up to 128 coordinates and 20 bits, else ``n8192`` for up to 1024 coordinates and 32 bits.

        Raises
        ------
        ParameterError
            No set fits, or ``score_bits`` exceeds ``ring_bits``.
        """
        coordinates = whole_number(coordinates, 1, 2**31, "coordinates")
        if whole_number(ring_bits, 0, 2**31, "ring_bits") not in (16, 32, 64):
            raise ParameterError(f"ring_bits must be 16, 32 or 64, not {ring_bits!r}")
        score_bits = whole_number(score_bits, 1, int(ring_bits), "score_bits")
        if coordinates <= 128 and score_bits <= 20:
            return _set("n4096", min(int(ring_bits), 20))
        if coordinates <= 1024 and score_bits <= 32:
            return _set("n8192", min(int(ring_bits), 32))
        raise ParameterError(
            f"the lattice scheme has at most 1024 coordinates and 32 bits of score, not {coordinates} and {score_bits}"
        )

    @property
    def moduli(self) -> tuple[int, ...]:
        """The primes, then the special one."""
        return (*self.primes, self.special) if self.special else tuple(self.primes)

    @property
    def limbs(self) -> int:
        """Number of primes of q."""
        return len(self.primes)

    @property
    def modulus(self) -> int:
        """q, the product of the primes."""
        return math.prod(self.primes)

    @property
    def residue_bits(self) -> int:
        """Bits of a residue on the wire."""
        return max(p.bit_length() for p in self.moduli)

    @property
    def log_q(self) -> float:
        """Binary logarithm of q."""
        return math.log2(self.modulus)

    @property
    def switched_bits(self) -> int:
        """Bits of a number of an answer: w + 11."""
        return self.plain_bits + NOISE_BITS

    @property
    def flood_bits(self) -> int:
        """f: the largest with 2^f t/q at most 3/8, so that two servers' floods fill at most 3/4 of what noise may."""
        return (3 * self.modulus >> 3 + self.plain_bits).bit_length() - 1

    @property
    def max_coordinates(self) -> int:
        """Largest number of coordinates of a query."""
        return min(1024, self.degree) if self.special else 128

    @functools.cached_property
    def hash(self) -> bytes:
        """32 bytes that name the parameters: SHA-256 over all of them, with the version of the scheme."""
        numbers = [self.degree, self.plain_bits, self.flood_bits, len(self.primes), *self.primes, self.special or 0]
        return hashlib.sha256(b"mipp v1 lattice parameters" + b"".join(n.to_bytes(8, "big") for n in numbers)).digest()

    def security(self) -> tuple[int, int]:
        """Compare the largest modulus with the standard's limit: 128 bits, ternary secrets, quantum attackers.

        Returns
        -------
        bits, limit : int
            Bits of the largest modulus under which anything is encrypted, the special prime included, and the limit for
            this degree: 0 below degree 1024.
        """
        return math.prod(self.moduli).bit_length(), QUANTUM_LIMITS.get(self.degree, 0)

    def query_noise(self, coordinates: int) -> float:
        """Estimate the noise of a query's ciphertexts, as servers use them.

        Parameters
        ----------
        coordinates : int
            Coordinates of the query.

        Returns
        -------
        float
            Standard deviation. Expansion doubles the mean square at each of n = ceil(log2 coordinates) levels, and each
            level's key switch adds that of L products of errors with digits between -p/2 and p/2, divided by the
            special prime P: 2^n sigma^2 + (2^n - 1) (sum over the primes of N sigma^2 p^2/(12 P^2) + (1 + 2N/3)/12).
        """
        if self.special is None:
            return SIGMA
        size = 1 << levels(coordinates)
        switch = sum(self.degree * SIGMA**2 * (p / self.special) ** 2 / 12 for p in self.primes)
        return math.sqrt(size * SIGMA**2 + (size - 1) * (switch + (1 + 2 * self.degree / 3) / 12))

    def distance_bits(self, coordinates: int) -> float:
        """Bits of the statistical distance that flooding leaves between any two databases, for one row's noise.

        Parameters
        ----------
        coordinates : int
            Coordinates of the query.

        Returns
        -------
        float
            -log2 of v/2^f, v = 9.2 (t/2) sigma sqrt(N coordinates). Without a special prime, no rows that were chosen
            before the query give a larger noise, but with probability 2^-65. Errors of expanded ciphertexts are
            correlated: with a special prime this holds for rows that are uniform, as shares are.
        """
        rows = TAIL * 2 ** (self.plain_bits - 1) * self.query_noise(coordinates)
        return self.flood_bits - math.log2(rows * math.sqrt(self.degree * coordinates))

    def largest_noise(self, answers: int) -> int:
        """Bound of the noise of honest answers, in units of 2^-11 of a score's step: below 1024.

        Parameters
        ----------
        answers : int
            Answers that are added: 1 or 2.

        Returns
        -------
        int
            Floods at their largest, and 9.2 standard deviations of the rounding when moduli are switched.
        """
        flood = answers * 2.0 ** (self.flood_bits - 1 + self.switched_bits - self.log_q)
        return math.ceil(flood + TAIL * math.sqrt(answers * (1 + 2 * self.degree / 3) / 12)) + 1


def levels(coordinates: int) -> int:
    """Levels of the expansion of one ciphertext to this many."""
    return (coordinates - 1).bit_length()


def whole_number(value: object, low: int, high: int, what: str) -> int:
    """Check an integer (Python's or numpy's) and its range, both ends included."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise ParameterError(f"{what} must be an integer, not {type(value).__name__}")
    number = int(value)
    if not low <= number <= high:
        raise ParameterError(f"{what} must be from {low} to {high}, not {number}")
    return number


@functools.lru_cache(maxsize=16)
def _set(name: str, plain_bits: int) -> Parameters:
    if name == "n4096":
        return Parameters(name, 4096, _N4096, None, plain_bits)
    return Parameters(name, 8192, _N8192, _N8192_SPECIAL, plain_bits)
