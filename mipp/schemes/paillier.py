"""Inner products under the user's Paillier key, by one cloud and a key centre.

Rows x are stored as c = x + p mod 2^k: the cloud has c, the key centre makes the keystream p, and so -p mod 2^k, from
keys. Both get the query q encrypted coordinate by coordinate. Each computes its product, <c, q> or <-p mod 2^k, q>,
over the integers, of several rows in the slots of one ciphertext, and adds

* U or -U per ciphertext, uniform mod n, from the PRF of the two servers bound to the query's header: either answer
  alone has a uniform plaintext;
* 2^k R per slot, R its own and uniform in [2^B, 2^B + 2^(B+40)), where 2^B >= sum |q_j|: what a slot holds above bit k
  is then, within distance 2^-38, independent of how often the sums wrapped, so of the rows;
* an encryption of 0 with r uniform mod n, so that the key's owner cannot read exponents off the randomness.

The user multiplies both, decrypts once and keeps each slot mod 2^k: <x, q> mod 2^k.

Semi-honest servers that do not collude, and a user that follows the protocol: one that encrypts numbers above the bound
reads more than scores. Retrying a header repeats U but not R; m retries cost log2(m) of the 40 bits.

Source: DESIGN section 8; Paillier, EUROCRYPT 1999; packing as in Sadeghi, Schneider, Wehrenberg, ICISC 2009.
"""

from __future__ import annotations

import dataclasses
import functools

import numpy as np

from .._native import _core
from ..crypto.schedule import mask_infos, random_bytes
from ..encoding import Encoding
from ..errors import MessageError, ParameterError, ShapeError
from ..paillier import PrivateKey, PublicKey, RandomnessPool
from ..paillier.limbs import to_limbs
from ..params import RING_DTYPES

__all__ = ["SlotLayout", "answer", "check_query", "encrypt_query", "scores"]

#: bits of R beyond the bound that it hides
STATISTICAL_BITS = 40
_EXTRA_LIMBS = 2


@dataclasses.dataclass(frozen=True)
class SlotLayout:
    """How scores of ``k`` bits lie in plaintexts below n. Public; the same at all three parties.

    Parameters
    ----------
    k : ring bits, 16, 32 or 64
    bound_bits : B, with 2^B at least the sum of |q_j| of any query
    key_bits : bits of n
    """

    k: int
    bound_bits: int
    key_bits: int

    def __post_init__(self) -> None:
        if not self.slots:
            raise ParameterError(f"a slot of {self.width} bits does not fit a key of {self.key_bits} bits")

    @classmethod
    def of(cls, encoding: Encoding, key: PublicKey) -> SlotLayout:
        """For an index and a user's key."""
        return cls(encoding.ring_bits, (encoding.query_norm1 - 1).bit_length(), key.bits)

    @property
    def width(self) -> int:
        """Bits of a slot: 2 * 2^k * (2^(B+1) + 2^(B+40)) and carries stay below 2^width."""
        return self.k + self.bound_bits + STATISTICAL_BITS + 2

    @property
    def slots(self) -> int:
        """Scores per ciphertext; all slots together stay below n."""
        return (self.key_bits - 1) // self.width

    def ciphertexts(self, rows: int) -> int:
        """Packed ciphertexts of one query's answer."""
        return -(-rows // self.slots)


def encrypt_query(query: np.ndarray, key: PublicKey, *, threads: int | None = None) -> np.ndarray:
    """Encrypt queries (B, D) of signed integers: (B, D * element_limbs) uint64. Cost: B D encryptions."""
    n = key.n
    plain = to_limbs([int(v) % n for v in query.reshape(-1).tolist()], key.limbs)
    return key.raw_encrypt(plain, threads=threads).reshape(len(query), -1)


def check_query(column: np.ndarray, queries: int, dim: int, key: PublicKey) -> None:
    """Refuse what is no encrypted query of ``queries`` rows of ``dim`` ciphertexts: numbers must be below n^2."""
    if column.shape != (queries, dim * key.element_limbs) or column.dtype != np.dtype("<u8"):
        raise ShapeError(f"columns must be ({queries}, {dim * key.element_limbs}) words of 64 bits: {dim} ciphertexts")
    limit = np.frombuffer(int(key.n_squared).to_bytes(8 * key.element_limbs, "little"), "<u8")
    numbers = column.reshape(-1, key.element_limbs)
    differs = numbers != limit
    top = key.element_limbs - 1 - np.argmax(differs[:, ::-1], axis=1)
    at = np.arange(len(numbers)), top
    if not (differs.any(axis=1) & (numbers[at] < limit[top])).all():
        raise ParameterError("a ciphertext of the query is not below n^2")


def answer(
    rows: np.ndarray,
    column: np.ndarray,
    layout: SlotLayout,
    key: PublicKey,
    pool: RandomnessPool,
    pair_key: bytes,
    header: bytes,
    *,
    negate: bool,
    threads: int | None = None,
) -> np.ndarray:
    """One server's masked and packed answers.

    Parameters
    ----------
    rows : (N, D) words, c or -p; secret. Time and memory access depend on their number only
    column : (B, D * element_limbs) uint64, encrypted queries, checked
    layout, key : of the index and the user
    pool : encryptions of 0 for this user, each used once, r of full range
    pair_key : 32 secret bytes of the two servers
    header : 32 bytes, hash of the query's header; masks U depend on it
    negate : whether this server adds -U, the key centre does

    Returns
    -------
    (B, P * element_limbs) uint64, P packed ciphertexts a query

    Memory: the rows twice. Cost: N D products of k-bit powers and N * width squarings mod n^2, one full power per
    ciphertext if the pool is empty.
    """
    count = layout.ciphertexts(len(rows))
    exponents = np.zeros((count * layout.slots, rows.shape[1]), rows.dtype)
    exponents[: len(rows)] = rows
    exponents = exponents.reshape(count, layout.slots, -1)
    schedules = _core.KeySchedules(pair_key, mask_infos(header, len(column)), 1)
    out = np.empty((len(column), count, key.element_limbs), np.uint64)
    modulus = key.modulus
    for query, packed in enumerate(out):
        bases = column[query].reshape(-1, key.element_limbs)
        sums = modulus.multi_pow(bases, exponents, layout.k, layout.width, threads=threads)
        for plain in (_high_parts(layout, key, count), _masks(schedules, query, key, count, negate, threads)):
            sums = modulus.add_plain(sums, plain, threads=threads)
        packed[:] = modulus.mul(sums, pool.take(count), threads=threads)
    return out.reshape(len(column), -1)


def scores(
    answers: list[np.ndarray], rows: int, layout: SlotLayout, key: PrivateKey, *, threads: int | None = None
) -> np.ndarray:
    """Scores (B, rows) mod 2^k, uint16, 32 or 64, from both servers' answers; run by the user.

    Raises
    ------
    MessageError
        Answers of the wrong shape, or that do not fit together.
    """
    public = key.public
    count = layout.ciphertexts(rows)
    expected = len(answers[0]), count * public.element_limbs
    if any(a.shape != expected or a.dtype != np.dtype("<u8") for a in answers):
        raise MessageError("a server's answer has the wrong shape")
    first, second = (a.reshape(-1, public.element_limbs) for a in answers)
    try:
        plain = key.raw_decrypt(public.modulus.mul(first, second, threads=threads), threads=threads)
    except ParameterError:
        raise MessageError("a server's answer holds no ciphertexts of this user's key") from None
    out = np.empty((len(plain), layout.slots), RING_DTYPES[layout.k])
    wide = np.concatenate([plain, np.zeros((len(plain), 1), np.uint64)], axis=1)
    for slot in range(layout.slots):
        limb, shift = divmod(slot * layout.width, 64)
        word = wide[:, limb] >> np.uint64(shift)
        if shift:
            word |= wide[:, limb + 1] << np.uint64(64 - shift)
        out[:, slot] = word.astype(out.dtype)  # the low k bits
    return np.ascontiguousarray(out.reshape(expected[0], -1)[:, :rows])


@functools.lru_cache(maxsize=16)
def _high_part_constants(layout: SlotLayout, limbs: int) -> tuple[np.ndarray, np.ndarray]:
    """Bits of a plaintext that hold R - 2^B, and the plaintext with 2^B 2^k in every slot."""
    low = layout.k
    bits = sum(
        ((1 << layout.bound_bits + STATISTICAL_BITS) - 1) << (s * layout.width + low) for s in range(layout.slots)
    )
    base = sum(1 << (s * layout.width + low + layout.bound_bits) for s in range(layout.slots))
    return to_limbs([bits], limbs), to_limbs([base], limbs)


def _high_parts(layout: SlotLayout, key: PublicKey, count: int) -> np.ndarray:
    """Plaintexts (count, limbs) with 2^k R in every slot, R fresh and uniform in [2^B, 2^B + 2^(B+40))."""
    bits, base = _high_part_constants(layout, key.limbs)
    random = np.frombuffer(random_bytes(count * key.limbs * 8), np.uint64).reshape(count, key.limbs)
    return _add(random & bits, base[0])


def _add(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Sums of numbers (N, limbs) and one number (limbs,), without overflow of the last limb."""
    out = np.empty_like(a)
    carry = np.zeros(len(a), np.uint64)
    for i in range(a.shape[1]):
        partial = a[:, i] + b[i]
        out[:, i] = partial + carry
        carry = ((partial < b[i]) | (out[:, i] < carry)).astype(np.uint64)
    return out


def _masks(
    schedules: _core.KeySchedules, query: int, key: PublicKey, count: int, negate: bool, threads: int | None
) -> np.ndarray:
    """U, or -U mod n: (count, limbs); 128 bits more than n has are reduced, so U is within 2^-128 of uniform."""
    wide = np.empty((count, key.limbs + _EXTRA_LIMBS + key.limbs % 2), np.uint64)
    _core.keystream_words(schedules, query, 0, wide.reshape(-1))
    ring = _ring(int(key.n))
    masks = ring.reduce(wide, threads=threads)
    if negate:
        masks = ring.mul(masks, to_limbs([key.n - 1], key.limbs), threads=threads)
    return masks


@functools.lru_cache(maxsize=64)
def _ring(n: int) -> _core.Modulus:
    return _core.Modulus(to_limbs([n], -(-n.bit_length() // 64))[0])
