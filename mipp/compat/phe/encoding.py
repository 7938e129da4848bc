"""``EncodedNumber``: signed integers and floats as residues modulo n with a public exponent."""

from __future__ import annotations

import math
import sys
from fractions import Fraction
from typing import TYPE_CHECKING, Any, TypeVar

import gmpy2
import numpy as np

if TYPE_CHECKING:
    from .paillier import PaillierPublicKey

__all__ = ["EncodedNumber"]

Encoded = TypeVar("Encoded", bound="EncodedNumber")


class EncodedNumber:
    """A number encoding * BASE^exponent, negative ones as n minus their absolute value.

    Parameters
    ----------
    public_key : whose n
    encoding : 0 <= encoding < n
    exponent : public; of integers 0, of floats what keeps all their bits

    Another base by a subclass that overrides ``BASE`` and ``LOG2_BASE``.
    """

    BASE = 16
    LOG2_BASE = math.log(BASE, 2)
    FLOAT_MANTISSA_BITS = sys.float_info.mant_dig

    def __init__(self, public_key: PaillierPublicKey, encoding: int, exponent: int) -> None:
        self.public_key = public_key
        self.encoding = encoding
        self.exponent = exponent

    @classmethod
    def encode(
        cls: type[Encoded],
        public_key: PaillierPublicKey,
        scalar: Any,
        precision: float | None = None,
        max_exponent: int | None = None,
    ) -> Encoded:
        """Encode an int or float.

        Parameters
        ----------
        precision : floats and ints are rounded to multiples of the largest power of BASE up to this; default exact
        max_exponent : largest exponent of the result

        Raises
        ------
        TypeError
            Not a number.
        ValueError, OverflowError
            NaN or infinite; larger than a third of n.
        """
        if isinstance(scalar, (np.integer, gmpy2.mpz)):
            scalar = int(scalar)
        elif isinstance(scalar, np.floating):
            scalar = float(scalar)
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
            number = round(Fraction(scalar) * Fraction(cls.BASE) ** -exponent)
        if abs(number) > public_key.max_int:
            raise ValueError(f"Integer needs to be within +/- {public_key.max_int} but got {number}")
        return cls(public_key, number % public_key.n, exponent)

    def decode(self) -> Any:
        """The number: an int if the exponent is not negative, else a float.

        Raises
        ------
        ValueError
            The encoding is not below n.
        OverflowError
            The encoding lies in the middle third, so something overflowed; or the result is too large for a float.
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
        if self.exponent >= 0:
            return mantissa * self.BASE**self.exponent
        try:
            return mantissa / self.BASE**-self.exponent
        except OverflowError:
            raise OverflowError("decoded result too large for a float") from None

    def decrease_exponent_to(self: Encoded, new_exp: int) -> Encoded:
        """The same number with a smaller exponent; ValueError if ``new_exp`` is larger."""
        if new_exp > self.exponent:
            raise ValueError(f"New exponent {new_exp} should be more negative than old exponent {self.exponent}")
        factor = self.BASE ** (self.exponent - new_exp)
        return type(self)(self.public_key, int(self.encoding * factor) % self.public_key.n, new_exp)
