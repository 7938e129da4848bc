"""Inner products of encrypted and plain numbers by the batched kernels (beyond phe)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ...paillier.limbs import from_limbs
from ...paillier.powers import weighted_products
from .encoding import EncodedNumber
from .paillier import EncryptedNumber, aligned

__all__ = ["dot"]


def dot(encrypted: Any, plain: Any, *, threads: int | None = None) -> Any:
    """Inner products of encrypted numbers (K,) or (R, K) with plain numbers (K,) or (K, M), as ``numpy.dot``.

    Parameters
    ----------
    encrypted : sequence or array of EncryptedNumber, one key
    plain : numbers; time does not depend on integers of a numpy dtype. Floats keep all their bits.
    threads : native threads

    Returns
    -------
    EncryptedNumber, or an object array of them; equal to what ``sum(a * b)`` decrypts to, not obfuscated

    Raises
    ------
    ValueError
        Shapes that do not multiply, different keys, numbers too large.
    TypeError
        What are no encrypted or no plain numbers.
    """
    left = np.asarray(encrypted, object)
    right = plain if isinstance(plain, np.ndarray) else np.array(plain, object)
    if left.ndim not in (1, 2) or right.ndim not in (1, 2) or left.shape[-1] != right.shape[0] or not left.size:
        raise ValueError(f"shapes {left.shape} and {right.shape} do not multiply")
    numbers = left.reshape(-1).tolist()
    if not all(isinstance(number, EncryptedNumber) for number in numbers):
        raise TypeError("the first operand must hold EncryptedNumbers")
    key = numbers[0].public_key
    data, exponent = aligned(numbers, threads)
    columns: np.ndarray = right.reshape(len(right), -1).T
    if columns.dtype.kind in "iu":
        weights, shift, bound = columns, 0, 1 << 8 * columns.itemsize - (columns.dtype.kind == "i")
    else:
        encoded = [EncodedNumber.encode(key, v) for v in columns.reshape(-1).tolist()]
        shift = min((e.exponent for e in encoded), default=0)
        signed = [e.decrease_exponent_to(shift).encoding for e in encoded]
        signed = [v - key.n if v > key.n // 2 else v for v in signed]
        weights = np.empty(len(signed), object)
        weights[:] = signed
        weights = weights.reshape(columns.shape)
        bound = 1 << -(-max((abs(v).bit_length() for v in signed), default=1) // 32) * 32
    rows = data.reshape(-1, left.shape[-1], data.shape[1])
    out = np.empty((len(rows), len(columns)), object)
    for i, row in enumerate(rows):
        products = weighted_products(key.batched, np.ascontiguousarray(row), weights, bound, threads=threads)
        for j, c in enumerate(from_limbs(products)):
            out[i, j] = EncryptedNumber(key, c, exponent + shift)
    shape = left.shape[:-1] + right.shape[1:]
    return out.reshape(shape) if shape else out[0, 0]
