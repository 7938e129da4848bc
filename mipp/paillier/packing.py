"""Several small signed numbers in one ciphertext.

A plaintext holds sum_s v_s 2^(slot_bits s) with abs(v_s) < 2^(slot_bits-1). It is unpacked from the lowest slot up, as
the residue nearest to 0 each time. Sums, and products with one plain factor, work on all slots at once.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ..errors import DTypeError, ParameterError, PlaintextRangeError
from .array import EncryptedArray
from .codec import decode, encode, integers
from .keys import PrivateKey, PublicKey
from .limbs import to_limbs
from .powers import elementwise_power

__all__ = ["PackedArray", "encrypt_packed", "pack"]


class PackedArray:
    """Numbers packed in order into slots of a few ciphertexts.

    :func:`encrypt_packed` and :func:`pack` make them. They add to each other and multiply by one plain integer.

    Parameters
    ----------
    public : PublicKey
        The key.
    data : ndarray of uint64, shape (P, element_limbs)
        Ciphertexts.
    shape : tuple of int
        Shape of the array of numbers.
    slot_bits : int
        Bits of a slot. Public.
    bound : int
        Bound on the absolute value of the integer in a slot, below 2^(slot_bits-1). Public.
    fraction_bits : int
        Number of fraction bits of the numbers. Public.

    Attributes
    ----------
    public, data, shape, slot_bits, bound, fraction_bits
        As given.

    Raises
    ------
    PlaintextRangeError
        The bound does not fit a slot. An operation whose result could run into the next slot is refused before it runs.

    Notes
    -----
    Results are not re-randomised until :meth:`rerandomise`.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.paillier import encrypt_packed, generate_keypair
    >>> key = generate_keypair(256, insecure=True)  # a test key
    >>> packed = encrypt_packed(key.public, np.arange(20, dtype=np.int8), 12)
    >>> packed.shape, len(packed)  # 20 numbers in one ciphertext
    ((20,), 1)
    >>> (packed * 3 + packed).decrypt(key)[:5]
    array([ 0,  4,  8, 12, 16])
    """

    __array_ufunc__ = None
    __slots__ = ("bound", "data", "fraction_bits", "public", "shape", "slot_bits")

    def __init__(
        self,
        public: PublicKey,
        data: np.ndarray,
        shape: tuple[int, ...],
        slot_bits: int,
        bound: int,
        fraction_bits: int,
    ) -> None:
        _fits(bound, slot_bits)
        self.public, self.data, self.shape, self.slot_bits = public, data, shape, slot_bits
        self.bound, self.fraction_bits = bound, fraction_bits

    def __repr__(self) -> str:
        return f"PackedArray(shape={self.shape}, {len(self.data)} ciphertexts, slots of {self.slot_bits} bits)"

    def __len__(self) -> int:
        """Number of ciphertexts."""
        return len(self.data)

    def __add__(self, other: PackedArray) -> PackedArray:
        if not isinstance(other, PackedArray):
            raise DTypeError("packed numbers add to packed numbers")
        if other.public != self.public:
            raise ParameterError("these ciphertexts belong to different keys")
        same = self.shape, self.slot_bits, self.fraction_bits
        if (other.shape, other.slot_bits, other.fraction_bits) != same:
            raise ParameterError("packed arrays must agree in shape, slots and fraction bits")
        result = self._like(self.data, self.bound + other.bound)  # raises if a slot could overflow
        return result._like(self.public.modulus.mul(self.data, other.data), result.bound)

    def __mul__(self, factor: int) -> PackedArray:
        if isinstance(factor, bool) or not isinstance(factor, (int, np.integer)):
            raise DTypeError("packed numbers multiply with one integer, which is taken as public")
        factor = int(factor)
        result = self._like(self.data, self.bound * abs(factor))  # raises if a slot could overflow
        weights = [factor] * len(self.data)
        data = elementwise_power(self.public, self.data, weights, max(1, abs(factor)), factor < 0)
        return result._like(data, result.bound)

    __rmul__ = __mul__

    def rerandomise(self, *, full_range: bool = False, threads: int | None = None) -> PackedArray:
        """Encrypt the same numbers under fresh randomness, without decrypting them.

        Parameters
        ----------
        full_range : bool
            As for :meth:`PublicKey.randomness`; needed when the result goes to the key's owner.
        threads : int, optional
            Native threads; default :func:`mipp.cpu.threads`.

        Returns
        -------
        PackedArray
            New ciphertexts; without the private key nobody can link them to these.
        """
        fresh = self.public.randomness(len(self.data), full_range=full_range, threads=threads)
        return self._like(self.public.modulus.mul(self.data, fresh, threads=threads), self.bound)

    def decrypt(self, key: PrivateKey, *, threads: int | None = None) -> np.ndarray:
        """Decrypt the numbers.

        Parameters
        ----------
        key : PrivateKey
            The private key.
        threads : int, optional
            Native threads; default :func:`mipp.cpu.threads`.

        Returns
        -------
        ndarray
            Numbers of shape ``shape``: float64 with fraction bits, else int64 or Python integers. Secret.

        Raises
        ------
        ParameterError
            The ciphertexts belong to another key.
        PlaintextRangeError
            A number has overflowed, and this is seen.
        """
        if key.public != self.public:
            raise ParameterError("these ciphertexts belong to another key")
        slots, half = _slots(self.public, self.slot_bits), 1 << self.slot_bits - 1
        numbers = []
        for m in decode(self.public, key.raw_decrypt(self.data, threads=threads)):
            for _ in range(slots):
                v = (m + half) % (2 * half) - half
                numbers.append(v)
                m = (m - v) >> self.slot_bits
            if m:
                raise PlaintextRangeError("a decrypted number has overflowed")
        numbers = numbers[: int(np.prod(self.shape))]
        if self.fraction_bits:
            return np.array([v / (1 << self.fraction_bits) for v in numbers], np.float64).reshape(self.shape)
        return np.array(numbers, np.int64 if self.bound < 1 << 63 else object).reshape(self.shape)

    def _like(self, data: np.ndarray, bound: int) -> PackedArray:
        return PackedArray(self.public, data, self.shape, self.slot_bits, bound, self.fraction_bits)


def encrypt_packed(
    key: PublicKey, values: Any, slot_bits: int, *, fraction_bits: int | None = None, max_abs: float | None = None,
    full_range: bool = False, threads: int | None = None,
) -> PackedArray:  # fmt: skip
    """Encrypt numbers in slots, (bits - 3) // slot_bits of them in one ciphertext.

    Parameters
    ----------
    key : PublicKey
        Key of the party that may decrypt.
    values : array_like of int or float, any shape
        Numbers to encrypt. Secret.
    slot_bits : int
        Bits of a slot, sign included. Leave room for sums: the sum of n numbers needs log2(n) more bits.
    fraction_bits, max_abs, full_range, threads
        As for :func:`encrypt`.

    Returns
    -------
    PackedArray
        The packed numbers.

    Raises
    ------
    DTypeError, ParameterError
        As for :func:`encrypt`; or slots that the key does not hold.
    PlaintextRangeError
        The numbers could be too large for a slot.

    Examples
    --------
    >>> from mipp.paillier import encrypt_packed, generate_keypair
    >>> key = generate_keypair(256, insecure=True)  # a test key
    >>> packed = encrypt_packed(key.public, [1, -2, 3], 16, max_abs=100)
    >>> packed.decrypt(key)
    array([ 1, -2,  3])
    """
    numbers, fraction, bound, shape = integers(values, fraction_bits, max_abs)
    slots = _slots(key, slot_bits)
    _fits(bound, slot_bits)
    groups = [numbers[i : i + slots] for i in range(0, len(numbers), slots)]
    plain = [sum(v << slot_bits * s for s, v in enumerate(group)) for group in groups]
    data = key.raw_encrypt(encode(key, plain), full_range=full_range, threads=threads)
    return PackedArray(key, data, shape, slot_bits, bound, fraction)


def pack(array: EncryptedArray, slot_bits: int, *, threads: int | None = None) -> PackedArray:
    """Pack the numbers of an encrypted array into slots, under encryption.

    Cost: ``slot_bits`` squarings for each number.

    Parameters
    ----------
    array : EncryptedArray
        The numbers.
    slot_bits : int
        Bits of a slot, sign included; the array's bound must fit.
    threads : int, optional
        Native threads; default :func:`mipp.cpu.threads`.

    Returns
    -------
    PackedArray
        The same numbers in fewer ciphertexts; not re-randomised.

    Raises
    ------
    ParameterError
        Slots that the key does not hold.
    PlaintextRangeError
        The array's bound does not fit a slot.

    Examples
    --------
    >>> import numpy as np
    >>> from mipp.paillier import encrypt, generate_keypair, pack
    >>> key = generate_keypair(256, insecure=True)  # a test key
    >>> packed = pack(encrypt(key.public, np.array([5, -6], np.int8)), 12)
    >>> len(packed), packed.decrypt(key).tolist()
    (1, [5, -6])
    """
    key = array.public
    slots = _slots(key, slot_bits)
    _fits(array.bound, slot_bits)
    data = array.flat_data
    count = -(-len(data) // slots)
    padded = np.zeros((count * slots, data.shape[1]), np.uint64)
    padded[:, 0] = 1  # an encryption of 0
    padded[: len(data)] = data
    columns = padded.reshape(count, slots, data.shape[1])
    shift = to_limbs([1 << slot_bits], slot_bits // 64 + 1)[0]
    sums = columns[:, -1].copy()
    for s in range(slots - 2, -1, -1):
        sums = key.modulus.pow_var(sums, shift, threads=threads)
        sums = key.modulus.mul(sums, columns[:, s].copy(), threads=threads)
    return PackedArray(key, sums, array.shape, slot_bits, array.bound, array.fraction_bits)


def _slots(key: PublicKey, slot_bits: int) -> int:
    if isinstance(slot_bits, bool) or not isinstance(slot_bits, int) or slot_bits < 2 or key.bits - 3 < slot_bits:
        raise ParameterError(f"slots must have 2 to {key.bits - 3} bits, not {slot_bits!r}")
    return (key.bits - 3) // slot_bits


def _fits(bound: int, slot_bits: int) -> None:
    if bound >= 1 << slot_bits - 1:
        raise PlaintextRangeError(
            f"numbers up to 2^{bound.bit_length()} do not fit slots of {slot_bits} bits; give max_abs or wider slots"
        )
