"""Encrypted queries."""

from __future__ import annotations

import numpy as np

from .._native import _core
from ..crypto.schedule import random_bytes
from ..errors import DTypeError, MessageError, ParameterError, ShapeError
from . import polynomials as poly
from .keys import EvaluationKey, SecretKey, encrypted, uniform
from .parameters import Parameters, levels, whole_number

__all__ = ["EncryptedVector", "PreparedQuery", "encrypt", "prepare"]

_QUERY = b"mippLEV1"


class EncryptedVector:
    """A query: signed integers encrypted under one user's key. Made by :func:`encrypt` and :meth:`from_words`.

    Parameters
    ----------
    parameters : Parameters
        The parameter set.
    coordinates : int
        Number of integers.
    seed : bytes
        32 bytes from which the uniform polynomials are made. Public.
    residues : ndarray of uint64, shape (1 + coordinates, L, N) or (1, L, N)
        First components. Without a special prime: an encryption of zero, then one ciphertext for each coordinate, NTT
        domain. With one: one ciphertext, coefficients. Public.

    Attributes
    ----------
    parameters, coordinates, seed, residues
        As given.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.lattice import EncryptedVector, Parameters, SecretKey, encrypt
    >>> parameters = Parameters.choose(coordinates=3, score_bits=18, ring_bits=32)
    >>> query = encrypt(SecretKey.generate(parameters), np.array([3, -1, 4]))
    >>> words = query.to_words()
    >>> EncryptedVector.from_words(parameters, 3, words)
    EncryptedVector(n4096, 3 coordinates)
    >>> len(words) == EncryptedVector.words(parameters, 3)
    True
    """

    def __init__(self, parameters: Parameters, coordinates: int, seed: bytes, residues: np.ndarray) -> None:
        self.parameters, self.coordinates = parameters, coordinates
        self.seed, self.residues = seed, residues

    def __repr__(self) -> str:
        return f"EncryptedVector({self.parameters.name}, {self.coordinates} coordinates)"

    @staticmethod
    def words(parameters: Parameters, coordinates: int) -> int:
        """Give the length of a serialised query.

        Parameters
        ----------
        parameters : Parameters
            The parameter set.
        coordinates : int
            Coordinates of the query.

        Returns
        -------
        int
            64-bit words.
        """
        return poly.HEADER_WORDS + poly.packed_words(
            parameters, _polynomials(parameters, coordinates) * parameters.limbs
        )

    def to_words(self, *, threads: int | None = None) -> np.ndarray:
        """Serialise the query: header with version, parameters' hash and seed, and packed residues.

        Parameters
        ----------
        threads : int, optional
            Native threads; default :func:`mipp.cpu.threads`.

        Returns
        -------
        ndarray of uint64, shape (words,)
            Public. :meth:`words` says how many.
        """
        header = poly.header_words(_QUERY, self.parameters, self.coordinates, self.seed)
        return np.concatenate([header, poly.pack(self.parameters, self.residues, threads)])

    @classmethod
    def from_words(
        cls, parameters: Parameters, coordinates: int, words: np.ndarray, *, threads: int | None = None
    ) -> EncryptedVector:
        """Read a stranger's query.

        Parameters
        ----------
        parameters : Parameters
            The parameter set that it must have.
        coordinates : int
            Number of coordinates that it must have.
        words : ndarray of uint64, shape (words,)
            The serialised query. Public.
        threads : int, optional
            Native threads; default :func:`mipp.cpu.threads`.

        Returns
        -------
        EncryptedVector
            The query. That its polynomials are encryptions cannot be checked.

        Raises
        ------
        MessageError
            Another format version or length, other parameters, another number of coordinates, or a residue that is not
            below its prime.
        ParameterError
            More coordinates than the parameter set allows.
        DTypeError
            ``words`` is not an array of uint64.
        """
        coordinates = whole_number(coordinates, 1, parameters.max_coordinates, "coordinates")
        if not isinstance(words, np.ndarray) or words.dtype != np.uint64:
            raise DTypeError("an encrypted query is an array of uint64")
        if words.shape != (cls.words(parameters, coordinates),):
            raise MessageError(f"an encrypted query of {coordinates} coordinates has another length")
        found, seed = poly.read_header(words[: poly.HEADER_WORDS], _QUERY, parameters, "an encrypted query")
        if found != coordinates:
            raise MessageError(f"an encrypted query has {coordinates} coordinates, not {found}")
        body = np.ascontiguousarray(words[poly.HEADER_WORDS :])
        shape = (_polynomials(parameters, coordinates),)
        residues = poly.unpack(parameters, body, parameters.primes, shape, "an encrypted query", threads)
        return cls(parameters, coordinates, seed, residues)


def encrypt(secret: SecretKey, values: np.ndarray, *, threads: int | None = None) -> EncryptedVector:
    """Encrypt a query.

    Parameters
    ----------
    secret : SecretKey
        The user's key. Secret.
    values : ndarray of signed integers, shape (coordinates,)
        The query, each value from -2^(w-1) to 2^(w-1) - 1. Secret.
    threads : int, optional
        Native threads; default :func:`mipp.cpu.threads`.

    Returns
    -------
    EncryptedVector
        Public: it tells the number of coordinates alone, if Ring-LWE is hard.

    Raises
    ------
    DTypeError, ShapeError
        Another dtype or shape.
    ParameterError
        No coordinates or too many, or a value out of range.

    Notes
    -----
    Cost: a transform for each coordinate and prime, or for one ciphertext with a special prime. A message m is encoded
    as round(q m / t) (Kim, Polyakov, Zucca, "Revisiting homomorphic encryption schemes for finite fields", ASIACRYPT
    2021), so that sums that wrap modulo t add no noise.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.lattice import Parameters, SecretKey, encrypt
    >>> secret = SecretKey.generate(Parameters.choose(coordinates=2, score_bits=20, ring_bits=32))
    >>> encrypt(secret, np.array([1, -2]))
    EncryptedVector(n4096, 2 coordinates)
    """
    p, of = secret.parameters, poly.ring(secret.parameters)
    numbers = _signed(p, values)
    encoded = np.empty((len(numbers), p.limbs), np.uint64)
    _core.lattice_encode(of, numbers, p.plain_bits, encoded)
    seed, errors, count = random_bytes(32), random_bytes(32), _polynomials(p, len(numbers))
    if p.special is None:
        messages = encoded[:, :, None]
    else:
        padded = np.zeros((1, p.limbs, p.degree), np.uint64)
        padded[0, :, : len(numbers)] = encoded.T
        size = 1 << levels(len(numbers))  # expansion multiplies by it
        inverse = np.array([pow(size, -1, prime) for prime in p.primes], np.uint64)
        constant = np.repeat(inverse[None, :, None], p.degree, axis=2)
        messages = poly.multiply(of, padded, constant, threads)
    residues = encrypted(secret, messages, seed, poly.UNIFORM_QUERY, errors, poly.QUERY_ERROR, count, threads)
    if p.special is not None:
        _core.lattice_inverse(of, residues, threads)
    return EncryptedVector(p, len(numbers), seed, residues)


class PreparedQuery:
    """A query as a server multiplies with it: one ciphertext for each coordinate. Made by :func:`prepare`.

    Parameters
    ----------
    parameters : Parameters
        The parameter set.
    polynomials : ndarray of uint64, shape (coordinates, 2, L, N)
        Ciphertexts of the coordinates as constants, NTT domain. Public.
    zero : ndarray of uint64, shape (2, L, N)
        An encryption of zero, NTT domain. Public.

    Attributes
    ----------
    parameters, polynomials, zero
        As given.
    coordinates : int
        Number of coordinates.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.lattice import Parameters, SecretKey, encrypt, prepare
    >>> secret = SecretKey.generate(Parameters.choose(coordinates=2, score_bits=20, ring_bits=32))
    >>> prepare(encrypt(secret, np.array([1, -2]))).polynomials.shape
    (2, 2, 2, 4096)
    """

    def __init__(self, parameters: Parameters, polynomials: np.ndarray, zero: np.ndarray) -> None:
        self.parameters, self.polynomials, self.zero = parameters, polynomials, zero
        self.coordinates = len(polynomials)

    def __repr__(self) -> str:
        return f"PreparedQuery({self.parameters.name}, {self.coordinates} coordinates)"


def prepare(
    query: EncryptedVector, evaluation: EvaluationKey | None = None, *, threads: int | None = None
) -> PreparedQuery:
    """Expand a query to one ciphertext for each coordinate, at a server, once for all blocks of rows.

    Parameters
    ----------
    query : EncryptedVector
        The query. Public.
    evaluation : EvaluationKey or None
        The user's public keys; None for parameter sets without a special prime.
    threads : int, optional
        Native threads; default :func:`mipp.cpu.threads`.

    Returns
    -------
    PreparedQuery
        Public; 16 L N bytes for each coordinate.

    Raises
    ------
    ParameterError
        Keys are missing, not needed, of other parameters, or for fewer coordinates.

    Notes
    -----
    Expansion by automorphisms: Angel, Chen, Laine, Setty, "PIR with compressed queries and amortized query processing",
    IEEE S&P 2018. Cost: a key switch for each coordinate.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.lattice import EvaluationKey, Parameters, SecretKey, encrypt, prepare
    >>> secret = SecretKey.generate(Parameters.choose(coordinates=2, score_bits=32, ring_bits=32))
    >>> key = EvaluationKey.generate(secret, coordinates=2)
    >>> prepare(encrypt(secret, np.array([1, -2])), key)
    PreparedQuery(n8192, 2 coordinates)
    """
    p, of = query.parameters, poly.ring(query.parameters)
    polynomials = np.empty((query.coordinates, 2, p.limbs, p.degree), np.uint64)
    if p.special is None:
        if evaluation is not None:
            raise ParameterError(f"parameter set {p.name} needs no evaluation key")
        polynomials[:, 0] = query.residues[1:]
        random = uniform(p, query.seed, poly.UNIFORM_QUERY, 1 + query.coordinates, threads)
        polynomials[:, 1] = random[1:]
        return PreparedQuery(p, polynomials, np.stack([query.residues[0], random[0]]))
    if evaluation is None or evaluation.parameters != p:
        raise ParameterError(f"a query of parameter set {p.name} needs an evaluation key of the same parameters")
    if evaluation.coordinates < query.coordinates:
        raise ParameterError(f"an evaluation key for {evaluation.coordinates} coordinates, not {query.coordinates}")
    random = uniform(p, query.seed, poly.UNIFORM_QUERY, 1, threads)
    _core.lattice_inverse(of, random, threads)
    ciphertext = np.stack([query.residues[0], random[0]])
    keys = evaluation.switching[: levels(query.coordinates)]
    _core.lattice_expand(of, poly.key_ring(p), ciphertext, keys, query.coordinates, polynomials, threads)
    return PreparedQuery(p, polynomials, evaluation.zero(threads))


def _polynomials(parameters: Parameters, coordinates: int) -> int:
    """Polynomials of a query that are sent."""
    return 1 if parameters.special is not None else 1 + coordinates


def _signed(parameters: Parameters, values: np.ndarray) -> np.ndarray:
    if not isinstance(values, np.ndarray) or values.dtype.kind != "i":
        raise DTypeError("a query must be an array of signed integers")
    if values.ndim != 1:
        raise ShapeError(f"a query must be one vector, not of shape {values.shape}")
    whole_number(len(values), 1, parameters.max_coordinates, "coordinates")
    half = 1 << parameters.plain_bits - 1
    numbers = np.ascontiguousarray(values, np.int64)
    if int(numbers.min()) < -half or int(numbers.max()) >= half:
        raise ParameterError(f"values of a query must be from {-half} to {half - 1}")
    return numbers
