"""The scheme ``paillier``: inner products under the user's Paillier key, by one cloud and a key centre.

Rows x are stored as c = x + p mod 2^k: the cloud has c, the key centre makes the keystream p, and so -p mod 2^k, from
keys. Both get the query q encrypted coordinate by coordinate. Each computes its product, <c, q> or <-p mod 2^k, q>,
over the integers, of several rows in the slots of one ciphertext, and adds

* U or -U per ciphertext, uniform mod n, from the PRF of the two servers over the hash of the header: either answer
  alone has a uniform plaintext;
* 2^k R per slot, R its own and uniform in [2^B, 2^B + 2^(B+40)), where 2^B >= sum |q_j|: what a slot holds above bit k
  is then, within distance 2^-38, independent of how often the sums wrapped, so of the rows;
* an encryption of 0 with r uniform mod n, so that the key's owner cannot read exponents off the randomness.

The user multiplies both, decrypts once and keeps each slot mod 2^k: <x, q> mod 2^k.

Semi-honest servers that do not collude, and a user that follows the protocol: one that encrypts numbers above the bound
reads more than scores. Retrying a header repeats U but not R; m retries cost log2(m) of the 40 bits.

Source: Paillier, EUROCRYPT 1999; packing as in Sadeghi, Schneider, Wehrenberg, ICISC 2009.
"""

from __future__ import annotations

import dataclasses
import functools
import threading
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .._native import _core
from ..backends import Rows
from ..crypto.schedule import mask_infos, random_bytes
from ..encoding import Encoding
from ..errors import LimitError, MessageError, ParameterError, ShapeError
from ..paillier import PrivateKey, PublicKey, RandomnessPool, generate_keypair
from ..paillier.keys import MOST_BITS
from ..paillier.limbs import to_limbs
from ..params import RING_DTYPES, Params
from ..rpc import messages as m
from ..rpc.description import DeploymentConfig
from ..rpc.limits import MAX_ANSWER_BYTES, MAX_QUERIES, MAX_QUERY_BYTES
from .base import Hidden, PairKeys, RowPlan, Scheme, SearchCost, ServerScheme, UserKeys, UserScheme

__all__ = ["PaillierScheme", "SlotLayout", "answer", "check_query", "encrypt_query", "scores"]

#: bits of R beyond the bound that it hides
STATISTICAL_BITS = 40
_EXTRA_LIMBS = 2


class PaillierScheme(Scheme):
    """One cloud and a key centre; each user encrypts its queries under its own Paillier key and ranks by itself."""

    name = "paillier"
    cloud_counts = (1,)
    sized_keys = True
    summary = "one cloud and a key centre; queries are encrypted under the user's Paillier key, the user ranks"

    def params(self, ring_bits: int, clouds: int | None = None) -> Params:
        return Params(1 + self.checked_clouds(clouds), 1, ring_bits, self.name)

    def user_secrets(self, config: DeploymentConfig, key_bits: int) -> dict[str, bytes]:
        return {"paillier": generate_keypair(key_bits).to_bytes()}

    def for_user(
        self, config: DeploymentConfig, servers: Sequence[int] | None, secrets: Mapping[str, bytes], threads: int | None
    ) -> UserScheme:
        return _User(config, servers, PrivateKey.from_bytes(secrets["paillier"]), threads)

    def for_server(
        self, config: DeploymentConfig, index: int, pair_keys: PairKeys, threads: int | None, keys: UserKeys,
        own_key: bytes,
    ) -> ServerScheme:  # fmt: skip
        return _Server(config, index, pair_keys, threads, keys)


class _User(UserScheme):
    """Holds the user's Paillier key pair. The user learns all exact scores, and more if it encrypts numbers above the
    encoding's bound; the servers learn nothing of a query."""

    by_rows = False

    def __init__(
        self, config: DeploymentConfig, servers: Sequence[int] | None, key: PrivateKey, threads: int | None
    ) -> None:
        p = config.params
        self._config, self._key, self._threads = config, key, threads
        self.servers = p.check_servers(servers if servers is not None else p.clouds + p.key_centres)
        self._layout = SlotLayout.of(config.encoding, key.public)
        self.public_key = key.public.to_bytes()

    def hide(self, encoded: np.ndarray) -> Hidden:
        if encoded.size and int(np.abs(encoded.astype(np.int64)).sum(axis=1).max()) > 1 << self._layout.bound_bits:
            raise ParameterError("the query is longer than the encoding's bound")
        encrypted = encrypt_query(encoded, self._key.public, threads=self._threads)
        return Hidden(dict.fromkeys(self.servers, encrypted))

    def portion(self, rows: int, ranking: str, k: int, *, choice: int = 0) -> int:
        per_query = self._layout.ciphertexts(rows) * 8 * self._key.public.element_limbs
        most = MAX_ANSWER_BYTES // per_query
        return max(1, min(most, _most_queries(self._config.encoding.encoded_dim, self._key.public.element_limbs)))

    def verify(self, score_shares: Sequence[np.ndarray], queries: int, rows: int, width: int) -> None:
        expected = queries, self._layout.ciphertexts(rows) * self._key.public.element_limbs
        if any(s.shape != expected or s.dtype != np.dtype("<u8") for s in score_shares):
            raise MessageError("a server's answer has the wrong shape")

    def open(self, score_shares: Sequence[np.ndarray], rows: int, opening: Any) -> list[np.ndarray]:
        return [scores(list(score_shares), rows, self._layout, self._key, threads=self._threads)]

    @property
    def unverified(self) -> str:
        return "answers of the paillier scheme are not verified: the cloud could use a wrong row throughout, unnoticed"

    def cost(
        self, images: int, batches: int, k: int, ranking: str, queries: int, width: int, *, checks: int = 0,
        folded: bool = False,
    ) -> SearchCost:  # fmt: skip
        element = 8 * self._key.public.element_limbs
        sent = queries * self._config.encoding.encoded_dim * element + 16 * batches
        received = queries * self._layout.ciphertexts(images) * element
        return {"ranking": ranking, "images": images, "user": {"rounds": 1, "sent": sent, "received": received}}


class _Server(ServerScheme):
    """Users' Paillier keys, randomness made ahead, masked and packed score shares.

    It answers for all rows at once: ciphertexts are packed across rows, and every retry has fresh randomness, so it
    counts against quotas.
    """

    by_rows = False

    def __init__(
        self, config: DeploymentConfig, index: int, pair_keys: PairKeys, threads: int | None, keys: UserKeys
    ) -> None:
        self._config, self._index, self._threads, self._registered = config, index, threads, keys
        self._pair_keys = pair_keys
        self._keys: dict[bytes, tuple[PublicKey, SlotLayout, RandomnessPool]] = {}
        self._lock = threading.Lock()

    def close(self) -> None:
        self._keys.clear()

    def check_user_key(self, key: bytes) -> None:
        SlotLayout.of(self._config.encoding, PublicKey.from_bytes(key))

    def prepare(self, user: bytes, rows: int, queries: int) -> None:
        """One power mod n^2 per ciphertext of an answer. Kept in memory only; each value is used once."""
        _, layout, pool = self._key(user)
        pool.prepare(layout.ciphertexts(rows) * queries)

    def _key(self, user: bytes) -> tuple[PublicKey, SlotLayout, RandomnessPool]:
        with self._lock:
            if user not in self._keys:
                key = PublicKey.from_bytes(self._registered(user))
                # r of full range: a key's owner can tell short exponents
                pool = RandomnessPool(key, full_range=True)
                self._keys[user] = key, SlotLayout.of(self._config.encoding, key), pool
            return self._keys[user]

    @property
    def query_bytes(self) -> int:
        return max(MAX_QUERY_BYTES, self._config.encoding.encoded_dim * 2 * MOST_BITS // 8)

    def check_query(self, header: m.QueryHeader, query_share: np.ndarray, theta: np.ndarray) -> None:
        if header.ranking != "user":
            raise ParameterError("these servers do not compare scores; use ranking='user'")
        if theta.size:
            raise ShapeError("only a threshold query has thresholds")
        key, dim = self._key(header.user)[0], self._config.encoding.encoded_dim
        if header.queries > (most := _most_queries(dim, key.element_limbs)):
            raise LimitError(f"at most {most} queries are taken at once, not {header.queries}: send fewer queries")
        check_query(query_share, header.queries, dim, key)

    def check_size(self, header: m.QueryHeader, rows: int) -> int:
        if not rows:
            raise ParameterError("the query covers no images")
        key, layout, _ = self._key(header.user)
        size = header.queries * layout.ciphertexts(rows) * 8 * key.element_limbs
        if size > MAX_ANSWER_BYTES and header.queries > 1:
            raise LimitError(
                f"{header.queries} queries over {rows} rows are {size} bytes of score shares; at most "
                f"{MAX_ANSWER_BYTES} are given at once: send fewer queries together"
            )
        return size

    def answer(
        self,
        header: m.QueryHeader,
        header_hash: bytes,
        plan: RowPlan,
        stored: Rows,
        query_share: np.ndarray,
        rows: range,
        checked: Any = None,
    ) -> np.ndarray:
        key, layout, pool = self._key(header.user)
        words = stored.words(self._config.encoding.encoded_dim)
        (pair_key,) = self._pair_keys(header.keys).values()
        return answer(
            words if plan.live is None else words[plan.live], query_share, layout, key, pool, pair_key,
            header_hash, negate=self._index in self._config.params.key_centres, threads=self._threads,
        )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class SlotLayout:
    """How scores of ``k`` bits lie in plaintexts below n. Public; the same at all three parties.

    Parameters
    ----------
    ring_bits : ring bits, 16, 32 or 64
    bound_bits : B, with 2^B at least the sum of |q_j| of any query
    key_bits : bits of n
    """

    ring_bits: int
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
        return self.ring_bits + self.bound_bits + STATISTICAL_BITS + 2

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


def _most_queries(dim: int, element_limbs: int) -> int:
    """Queries that go under one header, at most, of ``dim`` ciphertexts each."""
    return min(MAX_QUERIES, max(1, MAX_QUERY_BYTES // (8 * dim * element_limbs)))


def check_query(query_share: np.ndarray, queries: int, dim: int, key: PublicKey) -> None:
    """Refuse what is no encrypted query of ``queries`` rows of ``dim`` ciphertexts: numbers must be below n^2."""
    if query_share.shape != (queries, dim * key.element_limbs) or query_share.dtype != np.dtype("<u8"):
        raise ShapeError(
            f"query shares must be ({queries}, {dim * key.element_limbs}) words of 64 bits: {dim} ciphertexts"
        )
    limit = np.frombuffer(int(key.n_squared).to_bytes(8 * key.element_limbs, "little"), "<u8")
    numbers = query_share.reshape(-1, key.element_limbs)
    differs = numbers != limit
    top = key.element_limbs - 1 - np.argmax(differs[:, ::-1], axis=1)
    at = np.arange(len(numbers)), top
    if not (differs.any(axis=1) & (numbers[at] < limit[top])).all():
        raise ParameterError("a ciphertext of the query is not below n^2")


def answer(
    rows: np.ndarray,
    query_share: np.ndarray,
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
    query_share : (B, D * element_limbs) uint64, encrypted queries, checked
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
    schedules = _core.KeySchedules(pair_key, mask_infos(header, len(query_share)), 1)
    out = np.empty((len(query_share), count, key.element_limbs), np.uint64)
    modulus = key.modulus
    for query, packed in enumerate(out):
        bases = query_share[query].reshape(-1, key.element_limbs)
        sums = modulus.multi_pow(bases, exponents, layout.ring_bits, layout.width, threads=threads)
        for plain in (_high_parts(layout, key, count), _masks(schedules, query, key, count, negate, threads)):
            sums = modulus.add_plain(sums, plain, threads=threads)
        packed[:] = modulus.mul(sums, pool.take(count), threads=threads)
    return out.reshape(len(query_share), -1)


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
    out = np.empty((len(plain), layout.slots), RING_DTYPES[layout.ring_bits])
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
    low = layout.ring_bits
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
