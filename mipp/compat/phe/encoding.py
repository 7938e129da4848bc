"""``EncodedNumber``: signed integers and floats as residues modulo n with a public exponent."""

from __future__ import annotations

import functools
import math
import sys
from fractions import Fraction
from typing import Any, Protocol, TypeVar

import gmpy2
import numpy as np

__all__ = ["EncodedNumber"]

#: bits of the largest power of a base that is computed
_MOST_BITS = 1 << 24

Encoded = TypeVar("Encoded", bound="EncodedNumber")


class Modulus(Protocol):
    """The facts of a public key that encoding needs."""

    n: int
    max_int: int


class EncodedNumber:
    """A number as ``encoding * BASE**exponent``; negative ones as n minus their absolute value.

    Not encrypted: whoever sees an encoded number knows the number. As ``phe.EncodedNumber``; a subclass that overrides
    ``BASE`` and ``LOG2_BASE`` encodes in another base.

    Parameters
    ----------
    public_key : PaillierPublicKey
        Key whose n is the modulus.
    encoding : int
        The residue, 0 to n - 1. Secret if the number is.
    exponent : int
        Public also after encryption. 0 for integers; for floats the largest one that keeps all bits.

    Examples
    --------
    >>> import mipp.compat.phe as phe
    >>> public_key, private_key = phe.generate_paillier_keypair(n_length=256)
    >>> number = phe.EncodedNumber.encode(public_key, -2.5)
    >>> number.decode()
    -2.5
    """

    BASE = 16
    LOG2_BASE = math.log(BASE, 2)
    FLOAT_MANTISSA_BITS = sys.float_info.mant_dig

    def __init__(self, public_key: Modulus, encoding: int, exponent: int) -> None:
        # the same object as given; the annotation names what is used of it
        self.public_key: Any = public_key
        self.encoding = encoding
        self.exponent = exponent

    @classmethod
    def encode(
        cls: type[Encoded],
        public_key: Modulus,
        scalar: Any,
        precision: float | None = None,
        max_exponent: int | None = None,
    ) -> Encoded:
        """Encode an int or a float.

        Parameters
        ----------
        public_key : PaillierPublicKey
            Key whose n is the modulus.
        scalar : int or float
            The number, also of numpy or gmpy2.
        precision : float, optional
            Round to multiples of the largest power of ``BASE`` up to this. Default: exact.
        max_exponent : int, optional
            Largest exponent of the result.

        Returns
        -------
        EncodedNumber
            Of the class that this is called on.

        Raises
        ------
        TypeError
            ``scalar`` is not a number.
        ValueError, OverflowError
            It is NaN or infinite, or larger than a third of n.

        Examples
        --------
        >>> import mipp.compat.phe as phe
        >>> public_key, private_key = phe.generate_paillier_keypair(n_length=256)
        >>> phe.EncodedNumber.encode(public_key, 0.7, precision=0.25).decode()
        0.6875
        """
        scalar = python_number(scalar)
        if precision is not None:
            exponent = math.floor(math.log(precision, cls.BASE))
        elif isinstance(scalar, int):
            exponent = 0
        elif isinstance(scalar, float):
            lowest_bit = math.frexp(scalar)[1] - cls.FLOAT_MANTISSA_BITS
            exponent = math.floor(lowest_bit / cls.LOG2_BASE)
        else:
            raise TypeError(f"Don't know the precision of type {type(scalar)}.")
        if max_exponent is not None:
            exponent = min(max_exponent, exponent)
        if exponent == 0 and isinstance(scalar, int):
            number = int(scalar)
        else:
            if abs(exponent) * cls.LOG2_BASE > _MOST_BITS:
                raise ValueError(f"exponent {exponent} is out of range")
            number = round(Fraction(scalar) * Fraction(cls.BASE) ** -exponent)
        if abs(number) > public_key.max_int:
            raise ValueError(f"Integer needs to be within +/- {public_key.max_int} but got {number}")
        return cls(public_key, number % public_key.n, exponent)

    def decode(self) -> Any:
        """Return the number.

        Returns
        -------
        int or float
            An int if the exponent is not negative, else a float.

        Raises
        ------
        ValueError
            The encoding is not below n.
        OverflowError
            The encoding lies in the middle third of the residues, so a sum or product overflowed; or the number is too
            large for a float.
        """
        n, limit = self.public_key.n, self.public_key.max_int
        if self.encoding >= n:
            raise ValueError("Attempted to decode corrupted number")
        if self.encoding <= limit:
            mantissa = self.encoding
        elif self.encoding >= n - limit:
            mantissa = self.encoding - n
        else:
            raise OverflowError("Overflow detected in decrypted number")
        mantissa = int(mantissa)
        bits = abs(self.exponent) * math.log2(self.BASE)  # of the power, looked at before it is made
        if self.exponent >= 0:
            if bits > _MOST_BITS and mantissa:
                raise OverflowError(f"exponent {self.exponent} is too large to decode")
            return mantissa and mantissa * self.BASE**self.exponent
        if bits > mantissa.bit_length() + 1100:
            return -0.0 if mantissa < 0 else 0.0
        try:
            return mantissa / self.BASE**-self.exponent
        except OverflowError:
            raise OverflowError("decoded result too large for a float") from None

    def decrease_exponent_to(self: Encoded, new_exp: int) -> Encoded:
        """Return the same number with a smaller exponent.

        Parameters
        ----------
        new_exp : int
            The exponent, at most the present one.

        Returns
        -------
        EncodedNumber
            A new object.

        Raises
        ------
        ValueError
            ``new_exp`` is larger than the present exponent.
        """
        if new_exp > self.exponent:
            raise ValueError(f"New exponent {new_exp} should be more negative than old exponent {self.exponent}")
        n = self.public_key.n
        factor = pow(self.BASE, self.exponent - new_exp, n)
        return type(self)(self.public_key, int(self.encoding * factor) % n, new_exp)


def python_number(scalar: Any) -> Any:
    """Convert numbers of numpy and gmpy2 to Python's, so that no arithmetic uses their narrow types; others stay.

    ValueError for a longdouble that no float equals.
    """
    if isinstance(scalar, (np.integer, gmpy2.mpz)):
        return int(scalar)
    if isinstance(scalar, np.bool_):
        return bool(scalar)
    if isinstance(scalar, np.floating):
        number = float(scalar)
        if isinstance(scalar, np.longdouble) and math.isfinite(number) and number != scalar:
            raise ValueError("a longdouble has more bits than a float keeps; round it first")
        return number
    return scalar


@functools.cache
def encoding_of(base: int) -> type[EncodedNumber]:
    """The class of encoded numbers of a base."""
    if base == EncodedNumber.BASE:
        return EncodedNumber
    return type("EncodedNumber", (EncodedNumber,), {"BASE": base, "LOG2_BASE": math.log(base, 2)})


def common_base(base: int | None, exponent: int, other: int | None, other_exponent: int) -> int | None:
    """The base of a sum or product. With exponent 0 any base fits; None is an unknown base.

    ValueError if the two numbers have no base in common.
    """
    if base == other or other is None or (other_exponent == 0 and base is not None):
        return base
    if base is None or exponent == 0:
        return other
    raise ValueError(f"numbers of base {base} and of base {other} do not go together")


def step(base: int, exponent: int, smaller: int, public_key: Modulus) -> int:
    """base^(exponent - smaller): the factor that brings a number to a smaller exponent.

    ValueError if it is larger than the key allows; its size is checked before it is computed.
    """
    if (exponent - smaller) * math.log2(base) > public_key.max_int.bit_length() + 1:
        raise ValueError(
            f"Integer needs to be within the key's range; exponents {exponent} and {smaller} are too far apart"
        )
    factor: int = base ** (exponent - smaller)
    if factor > public_key.max_int:
        raise ValueError(f"Integer needs to be within +/- {public_key.max_int} but got {factor}")
    return factor
