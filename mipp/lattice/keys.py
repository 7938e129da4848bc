"""Secret keys, and what servers need of a user's keys."""

from __future__ import annotations

import functools

import numpy as np

from .._native import _core
from ..crypto.schedule import random_bytes
from ..errors import DTypeError, MessageError, ParameterError
from . import polynomials as poly
from .parameters import Parameters, levels, whole_number

__all__ = ["EvaluationKey", "SecretKey"]

_SECRET = b"mipp lattice secret 1\n"
_EVALUATION = b"mippLEK1"


class SecretKey:
    """A user's secret key: a polynomial with coefficients -1, 0, 1, uniform.

    Keys come from :meth:`generate` or :meth:`from_bytes`.

    Parameters
    ----------
    parameters : Parameters
        The parameter set.
    seed : bytes
        32 secret bytes of the operating system, from which the polynomial is made. Secret.

    Attributes
    ----------
    parameters : Parameters
        The parameter set. Public.

    Raises
    ------
    ParameterError
        The seed has another length.

    Notes
    -----
    A secret key does not pickle, and its repr shows nothing of it. With a parameter set that has no special prime, make
    a new key for each query: a server that answers wrongly and sees whether the user complains learns of the key.

    Examples
    --------
    >>> from mipp.lattice import Parameters, SecretKey
    >>> secret = SecretKey.generate(Parameters.choose(coordinates=64, score_bits=18, ring_bits=32))
    >>> secret
    SecretKey(n4096, secret hidden)
    >>> again = SecretKey.from_bytes(secret.parameters, secret.to_bytes())
    """

    def __init__(self, parameters: Parameters, seed: bytes) -> None:
        if not isinstance(seed, bytes) or len(seed) != 32:
            raise ParameterError("a lattice secret key is made from 32 bytes")
        self.parameters, self._seed = parameters, seed
        ring = poly.key_ring(parameters)
        stream = poly.schedules(seed, poly.SECRET, parameters, poly.PLACE_OF_SEED, range(1), None)
        residues = np.empty((1, len(parameters.moduli), parameters.degree), np.uint64)
        _core.lattice_ternary(ring, stream, 0, residues, None)
        # 0, 1 and p - 1 as signed numbers, without a branch
        low = residues[0, 0]
        self._signed = low.astype(np.int64) - (low > 1) * np.int64(parameters.primes[0])
        _core.lattice_forward(ring, residues, None)
        self._residues, self._negated = residues, residues.copy()
        _core.lattice_negate(ring, self._negated, None)

    @classmethod
    def generate(cls, parameters: Parameters) -> SecretKey:
        """Make a key from the operating system's randomness.

        Parameters
        ----------
        parameters : Parameters
            The parameter set.

        Returns
        -------
        SecretKey
            The key.
        """
        return cls(parameters, random_bytes(32))

    @property
    def residues(self) -> np.ndarray:
        """The key modulo the primes of q, in the NTT domain: uint64 (L, N). **Secret**."""
        return self._residues[0, : self.parameters.limbs]

    @property
    def negated(self) -> np.ndarray:
        """The key's negative modulo all moduli, in the NTT domain: uint64 (1, moduli, N). **Secret**."""
        return self._negated

    @property
    def coefficients(self) -> np.ndarray:
        """Coefficients -1, 0, 1: int64 (N,). **Secret**."""
        return self._signed

    def __repr__(self) -> str:
        return f"SecretKey({self.parameters.name}, secret hidden)"

    def __reduce__(self) -> str:
        raise TypeError("a secret key is secret and does not pickle; see to_bytes")

    def to_bytes(self) -> bytes:
        """Serialise the key: label with version, hash of the parameters, seed.

        Returns
        -------
        bytes
            **Secret**: store it encrypted.
        """
        return _SECRET + self.parameters.hash + self._seed

    @classmethod
    def from_bytes(cls, parameters: Parameters, data: bytes) -> SecretKey:
        """Read a key that :meth:`to_bytes` wrote.

        Parameters
        ----------
        parameters : Parameters
            The parameter set that it must have.
        data : bytes
            The serialised key. Secret.

        Returns
        -------
        SecretKey
            The key.

        Raises
        ------
        ParameterError
            Not a secret key of this format version, or one of other parameters.
        """
        if not isinstance(data, bytes) or not data.startswith(_SECRET) or len(data) != len(_SECRET) + 64:
            raise ParameterError("not a lattice secret key of this format version")
        found, seed = data[len(_SECRET) : -32], data[-32:]
        if found != parameters.hash:
            raise ParameterError("a lattice secret key of other parameters")
        return cls(parameters, seed)


class EvaluationKey:
    """Public keys of a user, registered once with the servers: an encryption of zero, and keys that switch keys.

    For parameter sets with a special prime; the others need none. Made by :meth:`generate` and :meth:`from_bytes`.

    Parameters
    ----------
    parameters : Parameters
        The parameter set.
    coordinates : int
        Largest number of coordinates of a query under this key.
    seed : bytes
        32 bytes from which the uniform polynomials are made. Public.
    zero : ndarray of uint64, shape (L, N)
        First component of the encryption of zero, NTT domain. Public.
    switching : ndarray of uint64, shape (levels, L, L+1, N)
        First components of the keys that switch keys, NTT domain. Public.

    Attributes
    ----------
    parameters, coordinates
        As given.

    Notes
    -----
    At 128 coordinates: 4.1 MB sent, 17 MB in memory once it is used. Keys that switch keys assume circular security, as
    is usual: they are encryptions of images of the secret key under the secret key.

    Examples
    --------
    >>> from mipp.lattice import EvaluationKey, Parameters, SecretKey
    >>> parameters = Parameters.choose(coordinates=4, score_bits=30, ring_bits=32)
    >>> key = EvaluationKey.generate(SecretKey.generate(parameters), coordinates=4)
    >>> data = key.to_bytes()
    >>> len(data) == EvaluationKey.size(parameters, 4), EvaluationKey.from_bytes(parameters, data)
    (True, EvaluationKey(n8192, 4 coordinates))
    """

    def __init__(
        self, parameters: Parameters, coordinates: int, seed: bytes, zero: np.ndarray, switching: np.ndarray
    ) -> None:
        self.parameters, self.coordinates = parameters, coordinates
        self._seed, self._zero, self._switching = seed, zero, switching

    def __repr__(self) -> str:
        return f"EvaluationKey({self.parameters.name}, {self.coordinates} coordinates)"

    @classmethod
    def generate(cls, secret: SecretKey, coordinates: int, *, threads: int | None = None) -> EvaluationKey:
        """Make the public keys of a secret key.

        Parameters
        ----------
        secret : SecretKey
            The key. Secret.
        coordinates : int
            Largest number of coordinates of a query.
        threads : int, optional
            Native threads; default :func:`mipp.cpu.threads`.

        Returns
        -------
        EvaluationKey
            Public.

        Raises
        ------
        ParameterError
            Too many coordinates, or a parameter set that needs no such key.
        """
        p = secret.parameters
        special = _special(p)
        coordinates = whole_number(coordinates, 1, p.max_coordinates, "coordinates")
        seed, errors = random_bytes(32), random_bytes(32)
        none = np.empty((0, p.limbs, 0), np.uint64)
        zero = encrypted(secret, none, seed, poly.UNIFORM_ZERO, errors, poly.ZERO_ERROR, 1, threads)[0]
        switching = np.empty((levels(coordinates), p.limbs, len(p.moduli), p.degree), np.uint64)
        if len(switching):
            _make_switching(secret, special, seed, errors, switching, threads)
        return cls(p, coordinates, seed, zero, switching)

    def zero(self, threads: int | None = None) -> np.ndarray:
        """Encryption of zero, NTT domain.

        Parameters
        ----------
        threads : int, optional
            Native threads; default :func:`mipp.cpu.threads`.

        Returns
        -------
        ndarray of uint64, shape (2, L, N)
            Public.
        """
        return np.stack([self._zero, uniform(self.parameters, self._seed, poly.UNIFORM_ZERO, 1, threads)[0]])

    @functools.cached_property
    def switching(self) -> np.ndarray:
        """Keys that switch keys, both components, NTT domain: uint64 (levels, L, 2, L+1, N). Public; kept once made."""
        p = self.parameters
        b = self._switching
        keys = np.empty((*b.shape[:2], 2, *b.shape[2:]), np.uint64)
        keys[:, :, 0] = b
        keys[:, :, 1] = _uniform_switch(p, self._seed, b.shape[0] * b.shape[1], None).reshape(b.shape)
        return keys

    @staticmethod
    def size(parameters: Parameters, coordinates: int) -> int:
        """Give the number of bytes of a serialised key.

        Parameters
        ----------
        parameters : Parameters
            The parameter set.
        coordinates : int
            Largest number of coordinates of a query.

        Returns
        -------
        int
            Bytes.
        """
        count = parameters.limbs * (1 + levels(coordinates) * len(parameters.moduli))
        return 8 * (poly.HEADER_WORDS + poly.packed_words(parameters, count))

    def to_bytes(self, *, threads: int | None = None) -> bytes:
        """Serialise the key: header with version, parameters' hash and seed, and packed residues.

        Parameters
        ----------
        threads : int, optional
            Native threads; default :func:`mipp.cpu.threads`.

        Returns
        -------
        bytes
            Public. :meth:`size` says how many.
        """
        p = self.parameters
        header = poly.header_words(_EVALUATION, p, self.coordinates, self._seed)
        parts = [header, poly.pack(p, self._zero, threads), poly.pack(p, self._switching, threads)]
        return np.concatenate(parts).astype("<u8").tobytes()

    @classmethod
    def from_bytes(cls, parameters: Parameters, data: bytes, *, threads: int | None = None) -> EvaluationKey:
        """Read a stranger's key.

        Parameters
        ----------
        parameters : Parameters
            The parameter set that it must have.
        data : bytes
            The serialised key. Public.
        threads : int, optional
            Native threads; default :func:`mipp.cpu.threads`.

        Returns
        -------
        EvaluationKey
            The key. That its polynomials are encryptions cannot be checked.

        Raises
        ------
        MessageError
            Another format version or length, other parameters, or a residue that is not below its prime.
        ParameterError
            The parameter set needs no such key.
        DTypeError
            ``data`` is not bytes.
        """
        _special(parameters)
        if not isinstance(data, (bytes, bytearray, memoryview)):
            raise DTypeError(f"an evaluation key is bytes, not {type(data).__name__}")
        view = memoryview(data).cast("B")
        if len(view) < 8 * poly.HEADER_WORDS:
            raise MessageError("an evaluation key is longer")
        header = np.frombuffer(view[: 8 * poly.HEADER_WORDS], "<u8")
        coordinates, seed = poly.read_header(header, _EVALUATION, parameters, "an evaluation key")
        if len(view) != cls.size(parameters, coordinates):
            raise MessageError(f"an evaluation key for {coordinates} coordinates has another length")
        body = np.frombuffer(view[8 * poly.HEADER_WORDS :], "<u8").astype(np.uint64)
        first = poly.packed_words(parameters, parameters.limbs)
        what = "an evaluation key"
        zero = poly.unpack(parameters, body[:first], parameters.primes, (), what, threads)
        shape = (levels(coordinates), parameters.limbs)
        switching = poly.unpack(parameters, body[first:], parameters.moduli, shape, what, threads)
        return cls(parameters, coordinates, seed, zero, switching)


def uniform(parameters: Parameters, seed: bytes, kind: bytes, count: int, threads: int | None) -> np.ndarray:
    """Uniform polynomials of a public seed, NTT domain: (count, L, N)."""
    out = np.empty((count, parameters.limbs, parameters.degree), np.uint64)
    stream = poly.schedules(seed, kind, parameters, poly.PLACE_OF_SEED, range(count), threads)
    _core.lattice_uniform(poly.ring(parameters), stream, 0, out, threads)
    return out


def encrypted(
    secret: SecretKey, messages: np.ndarray, seed: bytes, kind: bytes, errors: bytes, error_kind: bytes, count: int,
    threads: int | None,
) -> np.ndarray:  # fmt: skip
    """First components -a s + e + message of seeded encryptions, NTT domain: (count, L, N).

    Messages are coefficients (M, L, n), for the first n coefficients of the last M polynomials; the others are zero.
    """
    p, of = secret.parameters, poly.ring(secret.parameters)
    error = np.empty((count, p.limbs, p.degree), np.uint64)
    stream = poly.schedules(errors, error_kind, p, poly.PLACE_OF_SEED, range(count), threads)
    _core.lattice_gaussian(of, stream, 0, error, threads)
    if messages.size:
        part = error[count - len(messages) :, :, : messages.shape[2]]
        poly.add_modulo(part, messages, poly.primes_of(p.primes))
    _core.lattice_forward(of, error, threads)
    product = uniform(p, seed, kind, count, threads)
    _core.lattice_multiply(of, product, np.ascontiguousarray(secret.negated[:, : p.limbs]), product, threads)
    _core.lattice_add(of, product, error, threads)
    return product


def _make_switching(
    secret: SecretKey, special: int, seed: bytes, errors: bytes, out: np.ndarray, threads: int | None
) -> None:
    """First components of keys that switch from s(X^(N/2^level + 1)) to s, NTT domain: out (levels, L, L+1, N)."""
    p, of = secret.parameters, poly.key_ring(secret.parameters)
    count = len(out) * p.limbs
    flat = out.reshape(count, len(p.moduli), p.degree)
    stream = poly.schedules(errors, poly.SWITCH_ERROR, p, poly.PLACE_OF_SEED, range(count), threads)
    _core.lattice_gaussian(of, stream, 0, flat, threads)
    image = np.empty((1, len(p.moduli), p.degree), np.uint64)
    for level in range(len(out)):
        turned = _automorphism(secret.coefficients, p.degree // 2**level + 1)
        for d, prime in enumerate(p.primes):
            # P (q/p_d) [(q/p_d)^-1]_{p_d} is P modulo p_d, and 0 modulo every other prime
            _core.lattice_residues(of, turned[None] * np.int64(special % prime), image, threads)
            poly.add_modulo(out[level, d, d], image[0, d], np.array(prime, np.uint64))
    _core.lattice_forward(of, flat, threads)
    random = _uniform_switch(p, seed, count, threads)
    _core.lattice_multiply(of, random, secret.negated, random, threads)
    _core.lattice_add(of, flat, random, threads)


def _uniform_switch(parameters: Parameters, seed: bytes, count: int, threads: int | None) -> np.ndarray:
    out = np.empty((count, len(parameters.moduli), parameters.degree), np.uint64)
    if count:
        stream = poly.schedules(seed, poly.UNIFORM_SWITCH, parameters, poly.PLACE_OF_SEED, range(count), threads)
        _core.lattice_uniform(poly.key_ring(parameters), stream, 0, out, threads)
    return out


def _automorphism(coefficients: np.ndarray, power: int) -> np.ndarray:
    """Coefficients of a(X^power), signed."""
    n = len(coefficients)
    to = np.arange(n, dtype=np.int64) * power % (2 * n)
    out = np.empty_like(coefficients)
    out[to % n] = coefficients * np.where(to < n, 1, -1)
    return out


def _special(parameters: Parameters) -> int:
    if parameters.special is None:
        raise ParameterError(f"parameter set {parameters.name} needs no evaluation key")
    return parameters.special
