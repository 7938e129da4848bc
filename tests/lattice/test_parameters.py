"""Parameter sets: the standard's table, room for scores and floods, boundaries of the choice, refusals."""

import dataclasses
import math
from fractions import Fraction

import gmpy2
import pytest

from mipp.errors import ParameterError
from mipp.lattice import EncryptedVector, EvaluationKey, Parameters, answer_words

#: Homomorphic Encryption Security Standard (2018), table of quantum attacks: ternary secrets, 128 bits
STANDARD = {1024: 25, 2048: 51, 4096: 101, 8192: 202, 16384: 411, 32768: 827}
CHOICES = [(128, 20, 32), (1, 16, 16), (128, 20, 64), (129, 20, 32), (1024, 32, 64), (1024, 32, 32), (300, 16, 16)]


@pytest.mark.parametrize("choice", CHOICES)
def test_every_set_is_within_the_standards_table(choice):
    p = Parameters.choose(*choice)
    bits, limit = p.security()
    largest = math.prod(
        [*p.primes, p.special or 1]
    )  # everything is encrypted modulo q, keys that switch keys also by P
    assert 2 ** (bits - 1) <= largest < 2**bits
    assert limit == STANDARD[p.degree]
    assert bits <= limit


def test_a_modulus_beyond_the_table_is_refused():
    p = Parameters.choose(4, 16, 32)
    third = next(x for x in range(2**47 + 1, 2**48, 2**13) if gmpy2.is_prime(x))
    with pytest.raises(ParameterError, match="too large for degree 4096: at most 101"):
        Parameters("too large", 4096, (*p.primes, third), None, 20)
    with pytest.raises(ParameterError, match="too large"):  # the special prime counts
        Parameters("too large", 4096, p.primes, third, 20)


@pytest.mark.parametrize("choice", CHOICES)
def test_floods_are_the_largest_that_fit(choice):
    p = Parameters.choose(*choice)
    share = Fraction(2**p.flood_bits * 2**p.plain_bits, p.modulus)
    assert share <= Fraction(3, 8) < 2 * share
    assert p.largest_noise(1) < p.largest_noise(2) < 1024
    assert all(prime % (2 * p.degree) == 1 and gmpy2.is_prime(prime) for prime in p.moduli)
    assert p.switched_bits == p.plain_bits + 11 <= 52


def test_flooding_hides_the_noise_of_rows():
    assert Parameters.choose(128, 20, 32).distance_bits(128) > 40
    assert Parameters.choose(128, 32, 64).distance_bits(128) > 48
    assert Parameters.choose(1024, 32, 64).distance_bits(1024) > 45


@pytest.mark.parametrize(
    ("choice", "name", "plain_bits"),
    [
        ((1, 1, 16), "n4096", 16), ((128, 16, 16), "n4096", 16), ((128, 20, 32), "n4096", 20),
        ((128, 20, 64), "n4096", 20), ((129, 20, 32), "n8192", 32), ((128, 21, 32), "n8192", 32),
        ((129, 16, 16), "n8192", 16),
        ((1024, 32, 32), "n8192", 32), ((1024, 32, 64), "n8192", 32),
    ],
)  # fmt: skip
def test_choice(choice, name, plain_bits):
    p = Parameters.choose(*choice)
    assert (p.name, p.plain_bits) == (name, plain_bits)
    assert p.max_coordinates >= choice[0]


@pytest.mark.parametrize(
    "choice",
    [
        (1025, 16, 32),
        (1, 33, 64),
        (129, 33, 64),
        (0, 16, 32),
        (4, 0, 32),
        (4, 17, 16),
        (4, 16, 24),
        (4.0, 16, 32),
        (True, 4, 32),
    ],
)
def test_what_fits_no_set_is_refused(choice):
    with pytest.raises(ParameterError):
        Parameters.choose(*choice)


def test_sizes():
    small, large = Parameters.choose(128, 20, 32), Parameters.choose(128, 32, 32)
    assert EncryptedVector.words(small, 128) * 8 < 7e6
    assert EncryptedVector.words(large, 128) * 8 < 0.15e6
    assert EvaluationKey.size(large, 128) < 4.2e6
    assert answer_words(small, 8192) * 8 / 8192 <= 8
    assert answer_words(large, 8192) * 8 / 8192 <= 11
    # N numbers of the second component, and one a row of the first
    assert [answer_words(small, rows) for rows in (0, 1, 4096, 4097)] == [0, 1 + 1984, 3968, 3968 + 1985]


def test_every_parameter_is_in_the_hash(small_expanding):
    p = small_expanding
    others = [
        dataclasses.replace(p, plain_bits=31), dataclasses.replace(p, special=None),
        dataclasses.replace(p, primes=p.primes[::-1]), dataclasses.replace(p, primes=p.primes[:2], plain_bits=16),
    ]  # fmt: skip
    assert len({x.hash for x in [p, *others]}) == 5
    assert dataclasses.replace(p, name="same", insecure=True).hash == p.hash


@pytest.mark.parametrize(
    "change",
    [
        {"degree": 96}, {"degree": 32}, {"degree": 16384}, {"primes": ()}, {"primes": (97,)}, {"plain_bits": 1},
        {"primes": (281474976694273, 281474976694273)}, {"primes": (281474976694273, 281474976694275)},
        {"plain_bits": 33}, {"plain_bits": "20"},
        {"primes": (281474976694273,), "plain_bits": 20, "degree": 4096, "insecure": False},
        {"insecure": False}, {"special": 281474976694273},
    ],
)  # fmt: skip
def test_bad_parameters_are_refused(small, change):
    with pytest.raises(ParameterError):
        Parameters(**{**{f.name: getattr(small, f.name) for f in dataclasses.fields(small)}, **change})
