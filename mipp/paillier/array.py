"""Arrays of Paillier ciphertexts with numpy-like arithmetic: sums, and products with plain numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ..errors import DTypeError, ParameterError, PlaintextRangeError, ShapeError
from .codec import decode, encode, integers, largest, objects, plain_matrix, plain_numbers
from .keys import PrivateKey, PublicKey
from .limbs import to_limbs
from .powers import elementwise_power, invert, weighted_products

__all__ = ["EncryptedArray", "concatenate", "decrypt", "encrypt"]


def encrypt(
    key: PublicKey, values: Any, *, fraction_bits: int | None = None, max_abs: float | None = None,
    full_range: bool = False, threads: int | None = None,
) -> EncryptedArray:  # fmt: skip
    """Encrypt numbers, each with fresh randomness.

    Parameters
    ----------
    key : PublicKey
        Key of the party that may decrypt.
    values : array_like of int or float, any shape
        Numbers to encrypt. Secret.
    fraction_bits : int, optional
        Floats are rounded to multiples of 2^-fraction_bits, half to even. Default: 32 for floats, 0 for integers.
        Public.
    max_abs : float, optional
        Bound on the absolute values, checked. Public: it decides which sums may overflow. Default: the range of the
        dtype for numpy integers, the next power of 2^64 for Python integers, 2^32 for floats.
    full_range : bool
        Full-range randomness, see :meth:`PublicKey.randomness`; needed for ciphertexts that go to the key's owner.
    threads : int, optional
        Native threads; default :func:`mipp.cpu.threads`.

    Returns
    -------
    EncryptedArray
        Ciphertexts in the shape of ``values``. Whoever lacks the private key learns the shape, ``fraction_bits`` and
        the bound, and nothing else.

    Raises
    ------
    DTypeError
        ``values`` are not numbers.
    ParameterError
        A number is NaN or infinite, or an option is out of range.
    PlaintextRangeError
        A number is larger than ``max_abs``, or the bound is larger than the key allows.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.paillier import decrypt, encrypt, generate_keypair
    >>> key = generate_keypair(256, insecure=True)  # a test key
    >>> array = encrypt(key.public, np.array([3, -1, 4], np.int8))
    >>> array.shape, array.bound
    ((3,), 128)
    >>> decrypt(key, array)
    array([ 3, -1,  4])
    """
    numbers, fraction, bound, shape = integers(values, fraction_bits, max_abs)
    if bound > largest(key):
        raise PlaintextRangeError(f"numbers up to 2^{bound.bit_length()} do not fit a key of {key.bits} bits")
    data = key.raw_encrypt(encode(key, numbers), full_range=full_range, threads=threads)
    return EncryptedArray(key, data.reshape(*shape, key.element_limbs), fraction, bound)


def decrypt(key: PrivateKey, array: EncryptedArray, *, threads: int | None = None) -> np.ndarray:
    """Decrypt an array of ciphertexts.

    Parameters
    ----------
    key : PrivateKey
        The private key.
    array : EncryptedArray
        Ciphertexts under that key.
    threads : int, optional
        Native threads; default :func:`mipp.cpu.threads`.

    Returns
    -------
    ndarray
        Numbers in the shape of ``array``: float64 if the array has fraction bits, else int64 if its bound fits, else
        Python integers (dtype object). Secret.

    Raises
    ------
    ParameterError
        The ciphertexts belong to another key.
    PlaintextRangeError
        A number has overflowed. This is detected if it lies in the middle third of the residues modulo n.

    Examples
    --------
    >>> from mipp.paillier import decrypt, encrypt, generate_keypair
    >>> key = generate_keypair(256, insecure=True)  # a test key
    >>> decrypt(key, encrypt(key.public, [0.5, -1.25]))
    array([ 0.5 , -1.25])
    """
    if array.public != key.public:
        raise ParameterError("these ciphertexts belong to another key")
    numbers = decode(key.public, key.raw_decrypt(array.flat_data, threads=threads))
    if array.fraction_bits:
        out = np.array([v / (1 << array.fraction_bits) for v in numbers], np.float64)
    elif array.bound <= 1 << 63 and 1 << 63 not in numbers:
        out = np.array(numbers, np.int64)
    else:
        out = np.empty(len(numbers), object)
        out[:] = numbers
    return out.reshape(array.shape)


class EncryptedArray:
    """Ciphertexts of numbers v 2^-fraction_bits with abs(v) <= bound, under one key.

    :func:`encrypt` makes them. ``+``, ``-``, ``*``, ``@`` and :meth:`sum` follow numpy's rules, with arrays under the
    same key (``+`` and ``-``) and with plain numbers; plain floats are rounded to 32 fraction bits.

    Parameters
    ----------
    public : PublicKey
        The key.
    data : ndarray of uint64, shape (..., element_limbs)
        Ciphertexts, C-contiguous; not copied.
    fraction_bits : int
        Number of fraction bits of the numbers. Public.
    bound : int
        Bound on the absolute value of the integers v. Public.

    Attributes
    ----------
    public, data, fraction_bits, bound
        As given.

    Raises
    ------
    ShapeError
        ``data`` has another dtype or number of limbs.
    PlaintextRangeError
        ``bound`` does not fit the key. An operation whose result could overflow is refused before it runs.

    Notes
    -----
    Results are **not re-randomised**: whoever knows the operands can test guesses of how a result was made, until
    :meth:`rerandomise`. Time depends on shapes, on dtypes and, for plain Python integers, on their largest bit length,
    not on other values. Ciphertexts cannot be compared: ``==`` raises DTypeError.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.paillier import decrypt, encrypt, generate_keypair
    >>> key = generate_keypair(256, insecure=True)  # a test key
    >>> c = encrypt(key.public, np.array([3, -1, 4], np.int8))
    >>> total = c @ np.array([2, 7, -1], np.int8) + 10
    >>> int(decrypt(key, total))  # 2 * 3 - 7 - 4 + 10
    5
    """

    __array_ufunc__ = None  # numpy hands its operators over
    __slots__ = ("bound", "data", "fraction_bits", "public")

    def __init__(self, public: PublicKey, data: np.ndarray, fraction_bits: int, bound: int) -> None:
        if data.shape[-1:] != (public.element_limbs,) or data.dtype != np.uint64:
            raise ShapeError(f"ciphertexts must have {public.element_limbs} words of 64 bits each")
        if bound > largest(public):
            raise PlaintextRangeError("the result could overflow the key's plaintexts")
        self.public, self.data = public, np.require(data, requirements=("C", "A"))
        self.fraction_bits, self.bound = fraction_bits, bound

    # --- shape ------------------------------------------------------------------------------------------------

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the array of numbers."""
        return self.data.shape[:-1]

    @property
    def ndim(self) -> int:
        """Number of dimensions."""
        return self.data.ndim - 1

    @property
    def size(self) -> int:
        """Number of ciphertexts."""
        return int(np.prod(self.shape))

    @property
    def nbytes(self) -> int:
        """Bytes of all ciphertexts."""
        return self.data.nbytes

    @property
    def flat_data(self) -> np.ndarray:
        """Ciphertexts in C order: uint64, shape (size, element_limbs)."""
        return self.data.reshape(-1, self.public.element_limbs)

    @property
    def T(self) -> EncryptedArray:
        """The array with its axes in reverse order."""
        return self._like(np.moveaxis(self.data.T, 0, -1))

    def __repr__(self) -> str:
        return f"EncryptedArray(shape={self.shape}, fraction_bits={self.fraction_bits}, {self.public!r})"

    def __len__(self) -> int:
        if not self.shape:
            raise DTypeError("a single ciphertext has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator[EncryptedArray]:
        return (self[i] for i in range(len(self)))

    def __getitem__(self, key: Any) -> EncryptedArray:
        return self._like(self.flat_data[np.arange(self.size).reshape(self.shape)[key]])

    def reshape(self, *shape: int | tuple[int, ...]) -> EncryptedArray:
        """Give the array another shape.

        Parameters
        ----------
        *shape : int or tuple of int
            The new shape, as for numpy; one entry may be -1.

        Returns
        -------
        EncryptedArray
            The same ciphertexts, in the same C order.
        """
        wanted: Any = shape[0] if len(shape) == 1 and isinstance(shape[0], tuple) else shape
        return self._like(
            self.data.reshape(*np.broadcast_to(False, self.shape).reshape(wanted).shape, self.public.element_limbs)
        )

    def ravel(self) -> EncryptedArray:
        """Flatten the array to one dimension, in C order.

        Returns
        -------
        EncryptedArray
            The same ciphertexts, shape (size,).
        """
        return self._like(self.flat_data)

    def __eq__(self, other: object) -> bool:
        raise DTypeError("ciphertexts cannot be compared; decrypt them")

    __hash__ = None  # type: ignore[assignment]

    # --- arithmetic ---------------------------------------------------------------------------------------------

    def __add__(self, other: Any) -> EncryptedArray:
        return self._sum(other, 1)

    __radd__ = __add__

    def __sub__(self, other: Any) -> EncryptedArray:
        return self._sum(-other if isinstance(other, EncryptedArray) else other, -1)

    def __rsub__(self, other: Any) -> EncryptedArray:
        return -self + other

    def __neg__(self) -> EncryptedArray:
        return self._like(invert(self.public, self.flat_data).reshape(self.data.shape))

    def __mul__(self, other: Any) -> EncryptedArray:
        """Multiply by plain numbers: constant time for the numbers of an array; a single number is taken as public."""
        if isinstance(other, EncryptedArray):
            raise DTypeError("Paillier ciphertexts add, they do not multiply with each other")
        numbers, fraction, bound, shape = plain_numbers(other)
        out = np.broadcast_shapes(self.shape, shape)
        base = np.broadcast_to(self.data, (*out, self.data.shape[-1])).reshape(-1, self.data.shape[-1])
        weights = np.broadcast_to(objects(numbers, shape), out).reshape(-1).tolist()
        signed = getattr(other, "dtype", np.dtype(object)).kind != "u" if shape else numbers[0] < 0
        # raises where the result could overflow, before any work is done
        result = EncryptedArray(self.public, self.data, self.fraction_bits + fraction, self.bound * bound)
        data = elementwise_power(self.public, np.ascontiguousarray(base), weights, bound, signed)
        return result._like(data.reshape(*out, self.public.element_limbs))

    __rmul__ = __mul__

    def __matmul__(self, other: Any) -> EncryptedArray:
        return self.dot(other)

    def dot(self, other: Any, *, threads: int | None = None) -> EncryptedArray:
        """Multiply with a plain vector or matrix, like numpy's ``@``.

        Parameters
        ----------
        other : array_like of int or float, shape (K,) or (K, M)
            Plain weights; this array has shape (K,) or (R, K). May be secret: time depends on their dtype only.
        threads : int, optional
            Native threads; default :func:`mipp.cpu.threads`.

        Returns
        -------
        EncryptedArray
            Shape as for numpy's ``@``; not re-randomised.

        Raises
        ------
        ShapeError
            The shapes do not multiply.
        PlaintextRangeError
            The result could overflow.
        """
        weights, fraction, bound = plain_matrix(other)
        if self.ndim not in (1, 2) or self.shape[-1] != weights.shape[0]:
            raise ShapeError(f"shapes {self.shape} and {weights.shape} do not multiply")
        columns = weights.reshape(len(weights), -1).T
        return self._products(self.data.reshape(-1, *self.data.shape[-2:]), columns, fraction, bound, threads).reshape(
            self.shape[:-1] + weights.shape[1:]
        )

    def __rmatmul__(self, other: Any) -> EncryptedArray:
        """Multiply plain weights (K,) or (M, K) with ciphertexts (K,) or (K, R)."""
        weights, fraction, bound = plain_matrix(other)
        if self.ndim not in (1, 2) or self.shape[0] != weights.shape[-1]:
            raise ShapeError(f"shapes {weights.shape} and {self.shape} do not multiply")
        columns = np.moveaxis(self.data, 0, -2) if self.ndim == 2 else self.data[None]
        out = self._products(np.ascontiguousarray(columns), weights.reshape(-1, weights.shape[-1]), fraction, bound)
        return out.T.reshape(weights.shape[:-1] + self.shape[1:])

    def sum(self, axis: int | None = None, *, threads: int | None = None) -> EncryptedArray:
        """Add the numbers up.

        Parameters
        ----------
        axis : int, optional
            Axis to sum along; default: all numbers.
        threads : int, optional
            Native threads; default :func:`mipp.cpu.threads`.

        Returns
        -------
        EncryptedArray
            The sums, not re-randomised.

        Raises
        ------
        ParameterError
            The array has no such axis.
        PlaintextRangeError
            A sum could overflow.
        """
        whole = self.ravel() if axis is None else self
        along = 0 if axis is None else axis + self.ndim * (axis < 0)
        if not 0 <= along < whole.ndim:
            raise ParameterError(f"axis {axis} is out of range for {self.ndim} dimensions")
        limbs, count = self.public.element_limbs, whole.shape[along]
        shape = whole.shape[:along] + whole.shape[along + 1 :]
        groups = np.ascontiguousarray(np.moveaxis(whole.data, along, -2)).reshape(int(np.prod(shape)), count, limbs)
        data = self.public.modulus.product(groups, threads=threads)
        return EncryptedArray(self.public, data.reshape(*shape, limbs), self.fraction_bits, self.bound * max(count, 1))

    def rerandomise(self, *, full_range: bool = False, threads: int | None = None) -> EncryptedArray:
        """Encrypt the same numbers under fresh randomness, without decrypting them.

        Parameters
        ----------
        full_range : bool
            As for :meth:`PublicKey.randomness`; needed when the result goes to the key's owner.
        threads : int, optional
            Native threads; default :func:`mipp.cpu.threads`.

        Returns
        -------
        EncryptedArray
            New ciphertexts; without the private key nobody can link them to these.
        """
        fresh = self.public.randomness(self.size, full_range=full_range, threads=threads)
        data = self.public.modulus.mul(self.flat_data, fresh, threads=threads)
        return self._like(data.reshape(self.data.shape))

    def rescale(self, fraction_bits: int) -> EncryptedArray:
        """Represent the same numbers with more fraction bits.

        Parameters
        ----------
        fraction_bits : int
            The new number of fraction bits, at least the present one.

        Returns
        -------
        EncryptedArray
            The same numbers; the bound grows by the same factor.

        Raises
        ------
        ParameterError
            Fewer fraction bits than now.
        PlaintextRangeError
            The result could overflow.
        """
        more = fraction_bits - self.fraction_bits
        if more < 0:
            raise ParameterError("fraction bits cannot be taken away under encryption")
        if not more:
            return self
        exponent = to_limbs([1 << more], more // 64 + 1)[0]
        data = self.public.modulus.pow_var(self.flat_data, exponent)
        return EncryptedArray(self.public, data.reshape(self.data.shape), fraction_bits, self.bound << more)

    def _like(self, data: np.ndarray) -> EncryptedArray:
        return EncryptedArray(self.public, data, self.fraction_bits, self.bound)

    def _sum(self, other: Any, sign: int) -> EncryptedArray:
        key = self.public
        if isinstance(other, EncryptedArray):
            if other.public != key:
                raise ParameterError("these ciphertexts belong to different keys")
            fraction = max(self.fraction_bits, other.fraction_bits)
            a, b = self.rescale(fraction), other.rescale(fraction)
            data = key.modulus.mul(*_aligned(a.data, b.data))
            return EncryptedArray(
                key,
                data.reshape(*np.broadcast_shapes(a.shape, b.shape), key.element_limbs),
                fraction,
                a.bound + b.bound,
            )
        numbers, fraction, bound, shape = plain_numbers(other)
        common = max(fraction, self.fraction_bits)
        a = self.rescale(common)
        # raises where the result could overflow, before any work is done
        result = EncryptedArray(key, a.data, common, a.bound + (bound << common - fraction))
        plain = encode(key, [sign * v << common - fraction for v in numbers]).reshape(*shape, key.limbs)
        out = np.broadcast_shapes(a.shape, shape)
        numerals, addends = (
            np.ascontiguousarray(np.broadcast_to(x, (*out, x.shape[-1])).reshape(-1, x.shape[-1]))
            for x in (a.data, plain)
        )
        return result._like(key.modulus.add_plain(numerals, addends).reshape(*out, key.element_limbs))

    def _products(
        self, rows: np.ndarray, weights: np.ndarray, fraction: int, bound: int, threads: int | None = None
    ) -> EncryptedArray:
        """Products (R, M) of ciphertexts (R, K, element_limbs) and plain integers (M, K) of at most ``bound``."""
        reach = self.bound * bound * max(1, weights.shape[1])
        # raises where the result could overflow, before any work is done
        result = EncryptedArray(self.public, self.data, self.fraction_bits + fraction, reach)
        data = [
            weighted_products(self.public, np.ascontiguousarray(row), weights, bound, threads=threads) for row in rows
        ]
        return result._like(np.stack(data) if data else np.empty((0, len(weights), rows.shape[-1]), np.uint64))


def concatenate(arrays: Sequence[EncryptedArray], axis: int = 0) -> EncryptedArray:
    """Join arrays along an axis.

    Parameters
    ----------
    arrays : sequence of EncryptedArray
        Arrays under one key, equal in shape except along ``axis``.
    axis : int
        Axis to join along.

    Returns
    -------
    EncryptedArray
        The joined array, with the most fraction bits and the largest bound of all.

    Raises
    ------
    ParameterError
        No arrays, or arrays under different keys.

    Examples
    --------
    >>> from mipp.paillier import concatenate, decrypt, encrypt, generate_keypair
    >>> key = generate_keypair(256, insecure=True)  # a test key
    >>> decrypt(key, concatenate([encrypt(key.public, [1, 2]), encrypt(key.public, [3])])).tolist()
    [1, 2, 3]
    """
    if not arrays or any(a.public != arrays[0].public for a in arrays):
        raise ParameterError("concatenate needs at least one array, all of one key")
    fraction = max(a.fraction_bits for a in arrays)
    scaled = [a.rescale(fraction) for a in arrays]
    if axis < 0:
        axis += arrays[0].ndim
    data = np.concatenate([a.data for a in scaled], axis)
    return EncryptedArray(arrays[0].public, data, fraction, max(a.bound for a in scaled))


def _aligned(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    limbs = a.shape[-1]
    out = np.broadcast_shapes(a.shape, b.shape)
    rows = [x.reshape(1, limbs) if x.size == limbs else np.broadcast_to(x, out).reshape(-1, limbs) for x in (a, b)]
    return np.ascontiguousarray(rows[0]), np.ascontiguousarray(rows[1])
