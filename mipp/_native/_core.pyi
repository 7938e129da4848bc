from collections.abc import Sequence
from typing import type_check_only

import numpy as np
import numpy.typing as npt

_Words = npt.NDArray[np.unsignedinteger]

_C_API: object  # the capsule of mipp/include/mipp/mipp.h

@type_check_only
class _Native(type):  # the metaclass of pybind11
    ...

# cpu

def cpu_features() -> tuple[str, ...]: ...
def cpu_levels() -> tuple[str, ...]: ...
def cpu_level() -> str: ...
def cpu_set_level(name: str) -> None: ...
def cpu_check_environment() -> None: ...
def cpu_active() -> dict[str, str]: ...
def default_threads() -> int: ...
def quota_processors(root: str) -> int: ...
def throw_status(status: int) -> None: ...

# ring

def ring_matmul(rows: _Words, columns: _Words, out: _Words | None = None, threads: int | None = None) -> _Words: ...

# prf

class KeySchedules(metaclass=_Native):
    """AES-256 round keys of HKDF-SHA256(key, no salt, info) for each row of infos; wiped when freed."""

    def __init__(self, key: bytes, infos: npt.NDArray[np.uint8], threads: int | None = None) -> None: ...
    def __len__(self) -> int: ...

def hkdf_expand_batch(
    key: bytes, infos: npt.NDArray[np.uint8], threads: int | None = None
) -> npt.NDArray[np.uint8]: ...
def keystream_words(schedules: KeySchedules, segment: int, first_block: int, out: _Words) -> None: ...
def keystream_matmul(
    schedules: KeySchedules,
    index: npt.NDArray[np.int64],
    first_row: npt.NDArray[np.int64],
    row_count: npt.NDArray[np.int64],
    columns: _Words,
    out: _Words,
    threads: int | None = None,
) -> None: ...
def zero_share_add(
    out: _Words,
    key: bytes,
    infos: npt.NDArray[np.uint8],
    lengths: npt.NDArray[np.int64],
    negate: bool,
    threads: int | None = None,
    first: int = 0,
) -> None: ...

# galois

def share_rows(
    rows: _Words,
    schedules: Sequence[KeySchedules],
    segment: Sequence[int],
    first_row: int,
    matrices: _Words,
    outs: Sequence[_Words],
    threads: int | None = None,
) -> None: ...
def combine(inputs: Sequence[_Words], matrices: _Words, outs: Sequence[_Words], threads: int | None = None) -> None: ...
def reconstruct(
    answers: Sequence[_Words], out: npt.NDArray[np.int64], threads: int | None = None, width: int | None = None
) -> None: ...
def fold_answers(
    answers: Sequence[_Words],
    weights: _Words,
    low: int,
    high: int,
    threads: int | None = None,
    width: int | None = None,
) -> tuple[_Words, npt.NDArray[np.bool_]]: ...
def pack_answers(words: _Words, width: int, out: _Words, threads: int | None = None) -> None: ...
def reconstruct_top_k_var(
    answers: Sequence[_Words],
    k: int,
    threads: int | None = None,
    first: int = 0,
    best: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None = None,
    low: int = ...,
    high: int = ...,
    width: int | None = None,
    n: int | None = None,
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]: ...

# compare

_U64 = npt.NDArray[np.uint64]
_U32 = npt.NDArray[np.uint32]

def slice_bits(words: _Words, first_bit: int, planes: _U64, threads: int | None = None) -> None: ...
def prf_words(key: bytes, out: _U64, threads: int | None = None) -> None: ...
def prf_xor(key: bytes, inout: _U64, threads: int | None = None) -> None: ...
def prf_add(key: bytes, inout: _U64, negate: bool, threads: int | None = None) -> None: ...
def and_layer(
    x_lo: _U64,
    x_hi: _U64,
    y_lo: _U64,
    y_hi: _U64,
    key_a: bytes,
    key_b: bytes,
    out: _U64,
    threads: int | None = None,
) -> None: ...
def tree_layer(
    g_lo: _U64,
    g_hi: _U64,
    p_lo: _U64,
    p_hi: _U64,
    key_a: bytes,
    key_b: bytes,
    out: _U64,
    threads: int | None = None,
) -> None: ...
def tree_combine(g: _U64, p: _U64, z: _U64, out_g: _U64, out_p: _U64, threads: int | None = None) -> None: ...
def digit_products(bits: _U64, out: _U64, threads: int | None = None) -> None: ...
def digit_carries(shares: _U64, t: _U64, first: bool, out: _U64, threads: int | None = None) -> None: ...
def pack_words(words: _U64, width: int, out: _U64, threads: int | None = None) -> None: ...
def unpack_words(packed: _U64, width: int, out: _U64, threads: int | None = None) -> None: ...
def permutation(key: bytes, n: int) -> _U32: ...
def shuffle_pass(x: _U64, perm: _U32, key: bytes | None, sign: int, out: _U64, threads: int | None = None) -> None: ...
def square_dealer(
    r1: _Words,
    r2: _Words,
    weights: _U64,
    out: _U64,
    carry: _Words | None,
    msb: _Words | None,
    delta: _Words | None,
    threads: int | None = None,
) -> None: ...
def square_share(
    m: _Words,
    r: _Words,
    weights: _U64,
    first: bool,
    out: _U64,
    carry: _Words | None,
    msb: _Words | None,
    delta: _Words | None,
    threads: int | None = None,
) -> None: ...

# audit: of coefficients and weights the low 61 bits count

def combine_rows_p61(rows: npt.NDArray[np.uint32], coefficients: _U64, threads: int | None = None) -> _U64:
    """For each column the sum over rows of coefficient times word, modulo 2^61 - 1."""

def tag_rows_p61(rows: npt.NDArray[np.uint32], weights: _U64, threads: int | None = None) -> _U64:
    """For each row the sum over columns of weight times word, modulo 2^61 - 1."""

# pir: a selection has bit r % 64 of word r // 64 for row r

def pir_key_facts(key: bytes) -> tuple[int, int]:
    """Party and number of rows of a well-formed key."""

def pir_generate(row: int, rows: int, random: bytes) -> tuple[bytes, bytes]: ...
def pir_expand(key: bytes, out: _U64, threads: int | None = None) -> None: ...
def pir_scan(
    records: npt.NDArray[np.uint8],
    selections: _U64,
    first_row: int = 0,
    out: npt.NDArray[np.uint8] | None = None,
    threads: int | None = None,
) -> npt.NDArray[np.uint8]:
    """XORs the selected records into out, or into zeros; returns it."""

def pir_gather(selections: _U64, ordinals: npt.NDArray[np.int64], threads: int | None = None) -> _U64: ...

# bigint: numbers are rows of little-endian 64-bit limbs below the modulus; one row stands for all where (N|1) is said

_Limbs = npt.NDArray[np.uint64]

class Modulus(metaclass=_Native):
    """Arithmetic modulo an odd number, or its square, of up to 8192 bits. Time depends on sizes alone, except _var."""

    @property
    def limbs(self) -> int: ...
    def __init__(self, modulus: _Limbs, square: bool = False) -> None: ...
    def mul(self, a: _Limbs, b: _Limbs, threads: int | None = None) -> _Limbs: ...
    def product(self, a: _Limbs, threads: int | None = None) -> _Limbs: ...
    def pow(self, base: _Limbs, exponent: _Limbs, exponent_bits: int, threads: int | None = None) -> _Limbs: ...
    def pow_var(self, base: _Limbs, exponent: _Limbs, threads: int | None = None) -> _Limbs: ...
    def multi_pow(
        self,
        bases: _Limbs,
        exponents: _Words,
        exponent_bits: int,
        slot_bits: int,
        threads: int | None = None,
    ) -> _Limbs: ...
    def reduce(self, wide: _Limbs, threads: int | None = None) -> _Limbs: ...
    def add_plain(self, ciphertexts: _Limbs, plain: _Limbs, threads: int | None = None) -> _Limbs: ...

class FixedBase(metaclass=_Native):
    """Powers of one base by tables; keeps the tier that it was made on."""

    @property
    def table_bytes(self) -> int: ...
    def __init__(
        self, modulus: Modulus, base: _Limbs, exponent_bits: int, window: int = 0, threads: int | None = None
    ) -> None: ...
    def pow(self, exponents: _Limbs, threads: int | None = None) -> _Limbs: ...

class PaillierDecryptor(metaclass=_Native):
    """Decryption with both primes, by CRT; secret, wiped when freed."""

    @property
    def limbs(self) -> int: ...
    @property
    def finishes(self) -> bool: ...
    @property
    def power_limbs(self) -> int: ...
    def __init__(self, p: _Limbs, q: _Limbs, h_p: _Limbs, h_q: _Limbs, q_inverse: _Limbs) -> None: ...
    def decrypt(self, ciphertexts: _Limbs, threads: int | None = None) -> _Limbs: ...
    def finish(self, power_p: _Limbs, power_q: _Limbs) -> _Limbs:
        """The rest of one decryption from c^(p-1) mod p^2 and c^(q-1) mod q^2, (1, power_limbs) each."""

# lattice: polynomials are (..., L, N) residues below the L primes of a ring

class LatticeRing(metaclass=_Native):
    """Integers modulo a product of primes, and polynomials modulo X^degree + 1."""

    def __init__(self, degree: int, primes: Sequence[int]) -> None: ...
    @property
    def degree(self) -> int: ...
    @property
    def primes(self) -> tuple[int, ...]: ...

def lattice_forward(ring: LatticeRing, a: _U64, threads: int | None = None) -> None:
    """Coefficients to values, in place."""

def lattice_inverse(ring: LatticeRing, a: _U64, threads: int | None = None) -> None: ...
def lattice_negate(ring: LatticeRing, a: _U64, threads: int | None = None) -> None: ...
def lattice_multiply(ring: LatticeRing, a: _U64, b: _U64, out: _U64, threads: int | None = None) -> None:
    """Pointwise, by as many factors or by one."""

def lattice_add(ring: LatticeRing, a: _U64, b: _U64, threads: int | None = None) -> None:
    """Add to a as many polynomials, or one to each."""

def lattice_residues(
    ring: LatticeRing, values: npt.NDArray[np.int64], out: _U64, threads: int | None = None
) -> None: ...
def lattice_uniform(
    ring: LatticeRing, schedules: KeySchedules, first: int, out: _U64, threads: int | None = None
) -> None:
    """Uniform residues of public keystreams: the time tells which words were left out."""

def lattice_ternary(
    ring: LatticeRing, schedules: KeySchedules, first: int, out: _U64, threads: int | None = None
) -> None: ...
def lattice_gaussian(
    ring: LatticeRing, schedules: KeySchedules, first: int, out: _U64, threads: int | None = None
) -> None: ...
def lattice_flood(
    ring: LatticeRing, schedules: KeySchedules, first: int, bits: int, out: _U64, threads: int | None = None
) -> None: ...
def lattice_switch(ring: LatticeRing, a: _U64, bits: int, out: _U64, threads: int | None = None) -> None: ...
def lattice_encode(ring: LatticeRing, values: npt.NDArray[np.int64], plain_bits: int, out: _U64) -> None: ...
def lattice_matvec(
    ring: LatticeRing, words: _Words, plain_bits: int, query: _U64, out: _U64, threads: int | None = None
) -> None: ...
def lattice_phase(
    ring: LatticeRing, c0: _U64, c1: _U64, secret: _U64, bits: int, out: _U64, threads: int | None = None
) -> None: ...
def lattice_expand(
    ring: LatticeRing,
    key_ring: LatticeRing,
    ciphertext: _U64,
    keys: _U64,
    count: int,
    out: _U64,
    threads: int | None = None,
) -> None: ...
