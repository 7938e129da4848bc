"""Inner products of encrypted and plain numbers by the batched kernels. Not in phe."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Sequence
from typing import Any

import gmpy2
import numpy as np

from ...paillier.limbs import from_limbs, limbs_of, to_limbs
from ...paillier.powers import weighted_products
from .encoding import EncodedNumber, common_base, encoding_of, step
from .numbers import EncryptedNumber
from .residues import Residues

__all__ = ["dot"]


def dot(encrypted: Any, plain: Any, *, threads: int | None = None) -> Any:
    """Compute inner products of encrypted and plain numbers, as ``numpy.dot``. Not in phe.

    Parameters
    ----------
    encrypted : sequence or ndarray of EncryptedNumber
        Shape (K,) or (R, K), all of one key. Public.
    plain : sequence or ndarray
        Numbers, shape (K,) or (K, M), secret. Time does not depend on integers of a numpy dtype; it depends on other
        numbers. Floats keep all their bits.
    threads : int, optional
        Native threads; default all cores.

    Returns
    -------
    EncryptedNumber or ndarray
        One number, or an object array of shape (M,), (R,) or (R, M). Each decrypts to what ``sum(a * b)`` decrypts to.
        Not obfuscated.

    Raises
    ------
    ValueError
        Shapes that do not fit; different keys; numbers too large, also a weight that is too large for the key at the
        exponent of the smallest weight.
    TypeError
        Elements that are not encrypted, or not plain, numbers.

    Examples
    --------
    >>> import mipp.compat.phe as phe
    >>> public_key, private_key = phe.generate_paillier_keypair(n_length=256)
    >>> private_key.decrypt(phe.dot(public_key.encrypt_batch([1, 2, 3]), [10, 0, -1]))
    7
    """
    left = np.asarray(encrypted, object)
    right = plain if isinstance(plain, np.ndarray) else np.array(plain, object)
    if left.ndim not in (1, 2) or right.ndim not in (1, 2) or left.shape[-1] != right.shape[0] or not left.size:
        raise ValueError(f"shapes {left.shape} and {right.shape} do not multiply")
    numbers = left.reshape(-1).tolist()
    if not all(isinstance(number, EncryptedNumber) for number in numbers):
        raise TypeError("the first operand must hold EncryptedNumbers")
    key = numbers[0].public_key
    data, exponent, base = _aligned(numbers, threads)
    columns: np.ndarray = right.reshape(len(right), -1).T
    shift = 0
    if columns.dtype.kind in "iu":
        weights, bound = columns, 1 << 8 * columns.itemsize - (columns.dtype.kind == "i")
        if bound > key.max_int and columns.size:
            _within(max(int(columns.max()), -int(columns.min())), key)
    else:
        encoding = EncodedNumber if base is None else encoding_of(base)
        encoded = [v if isinstance(v, EncodedNumber) else encoding.encode(key, v) for v in columns.reshape(-1).tolist()]
        if any(e.public_key != key for e in encoded):
            raise ValueError("Attempted to multiply with numbers encoded against different public keys!")
        first = 0
        for e in encoded:
            base = common_base(base, exponent or first, e.BASE, e.exponent)
            first = first or e.exponent
        shift = min((e.exponent for e in encoded), default=0)
        weights = np.empty(len(encoded), object)
        weights[:] = [_signed(e, shift, base or EncodedNumber.BASE, key) for e in encoded]
        bound = 1 << -(-max((abs(v).bit_length() for v in weights), default=1) // 32) * 32
        weights = weights.reshape(columns.shape)
    width = left.shape[-1]
    out = np.empty((len(data) // width, len(columns)), object)
    for i in range(len(out)):
        row = data[i * width : (i + 1) * width]
        for j, c in enumerate(_products(key, row, weights, bound, threads)):
            out[i, j] = EncryptedNumber._made(key, c, exponent + shift, base)
    shape = left.shape[:-1] + right.shape[1:]
    return out.reshape(shape) if shape else out[0, 0]


def _aligned(numbers: Sequence[EncryptedNumber], threads: int | None = None) -> tuple[list[Any], int, int | None]:
    """Ciphertexts of one key brought to their least exponent, that exponent, and its base."""
    key = numbers[0].public_key
    if any(number.public_key != key for number in numbers):
        raise ValueError("Attempted to add numbers encrypted against different public keys!")
    base, exponent = numbers[0]._base, numbers[0].exponent
    for number in numbers:
        base = common_base(base, exponent, number._base, number.exponent)
        exponent = exponent or number.exponent
    exponents = [number.exponent for number in numbers]
    least = min(exponents)
    factors = {e: step(base or EncodedNumber.BASE, e, least, key) for e in set(exponents) - {least}}
    out = [gmpy2.mpz(number._number) % key._nsquare for number in numbers]
    for exponent, factor in factors.items():
        at = [i for i, e in enumerate(exponents) if e == exponent]
        if key.batched is None:
            powers = [gmpy2.powmod(out[i], factor, key._nsquare) for i in at]
        else:
            data = to_limbs([out[i] for i in at], key.batched.element_limbs)
            exponent_limbs = to_limbs([factor], limbs_of(factor))[0]
            powers = from_limbs(key.batched.modulus.pow_var(data, exponent_limbs, threads=threads))
        for i, power in zip(at, powers, strict=True):
            out[i] = power
    return out, least, base


def _signed(encoded: EncodedNumber, exponent: int, base: int, key: Residues) -> int:
    """The encoded integer at a smaller exponent; ValueError if it does not fit the key then."""
    factor = step(base, encoded.exponent, exponent, key)
    v = int(encoded.encoding)
    return _within((v - key.n if v >= key.n - key.max_int else v) * factor, key)


def _within(number: int, key: Residues) -> int:
    if abs(number) > key.max_int:
        raise ValueError(f"a weight needs to be within +/- {key.max_int} when all weights have one exponent")
    return number


def _products(key: Residues, row: list[Any], weights: np.ndarray, bound: int, threads: int | None) -> Iterable[Any]:
    """prod_j row[j]^weights[i, j] for plain integers (M, K), |weights| <= bound."""
    if key.batched is not None:
        limbs = to_limbs(row, key.batched.element_limbs)
        return from_limbs(weighted_products(key.batched, limbs, weights, bound, threads=threads))
    # an offset is added to every weight: exponents of one bit length, so that time does not depend on them
    n2, offset = key._nsquare, 3 << bound.bit_length()
    whole = functools.reduce(lambda a, b: a * b % n2, row)
    back = gmpy2.powmod(gmpy2.invert(whole, n2), offset, n2)
    out = []
    for line in weights.tolist():
        powers = [gmpy2.powmod_sec(c, w + offset, n2) for c, w in zip(row, line, strict=True)]
        out.append(functools.reduce(lambda a, b: a * b % n2, powers, back))
    return out
