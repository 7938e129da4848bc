"""A user's proof that its query keeps the encoding's bounds, and the servers' check of it: exact, no round of its own.

The user shares every bit of its query with the three servers, and of what the squared norm leaves to its bound, in
words x_1 + x_2 + x_3 of which server a lacks x_a (x_1 and x_2 are keystream of a seed, x_3 is sent). From its two
summands and its query share each server computes an additive share of *relations*, sums that are zero just when

* every bit is 0 or 1 (b^2 - b = 0 has no other solution modulo 2^w),
* every word of the query, a sum of query shares, is what its bits say, and what the metric fixes is that,
* the weighted squared norm, less what is left to the bound, is the bound,
* the three query shares are those of one polynomial of degree 1, and a threshold lies in the range of its bits.

The header holds a hash of each summand, so its two holders have the same one, and nothing can be changed once the query
is signed. The servers then draw coins together and open :data:`~mipp.encoding.bounds.PROJECTIONS` sums of random
subsets of all relations of all queries: a false one is missed with 2^-40. They are zero for every user that keeps to
the bounds, and of one that does not they tell about its query alone: rows do not enter.

Source: products of replicated shares as in :mod:`.replicated`. Cost: :func:`proof_bytes` to each cloud, 64 bytes to the
key centre, one round of 40 words between the servers. Leakage: none.
"""

from __future__ import annotations

import dataclasses
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from .. import ring
from .._native import _core
from ..crypto import schedule
from ..encoding.bounds import PROJECTIONS, QueryRule
from ..errors import AuthenticationError, OutOfRangeError, ScoreRangeError, ShapeError
from ..params import RING_DTYPES, Params
from ..sharing import constants
from . import kernels as local
from .link import PARTIES
from .replicated import Pair, open_words_along
from .session import Party

__all__ = [
    "Summand", "check_relations", "commitment", "held_by", "pack", "proof_bytes", "prove", "query_words", "relations",
    "share_bits", "unpack", "verified", "zero_bits",
]  # fmt: skip

SEED_BYTES = 32
#: relations that are summed at a time
_CHUNK = 1 << 15
#: the summand that public constants are added to
_PUBLIC = 1


@dataclasses.dataclass(frozen=True, repr=False, eq=False)
class Summand:
    """One of the three summands of a proof: keystream of ``seed``, or ``words`` (B, L) where they are not empty.

    Secret to the one server that lacks it. ``seed`` (32 bytes) also hides words in their commitment.
    """

    seed: bytes
    words: np.ndarray

    def expanded(self, shape: tuple[int, int], dtype: np.dtype[Any], threads: int) -> np.ndarray:
        """(B, L) words."""
        if self.words.size:
            return self.words
        return local.keystream(self.seed, shape[0] * shape[1], dtype, threads).reshape(shape)


def held_by(party: int) -> tuple[int, int]:
    """The two summands that a party (1, 2 or 3) has: all but that of its own number."""
    return party % 3 + 1, (party + 1) % 3 + 1


def pack(proof: Mapping[int, Summand], party: int) -> tuple[bytes, np.ndarray]:
    """The part of a proof for one party: the seeds of its two summands, and the words of the third if it has that."""
    numbers = held_by(party)
    words = proof[3].words
    return b"".join(proof[n].seed for n in numbers), words if 3 in numbers else words[:0, :0]


def unpack(party: int, seeds: bytes, words: np.ndarray) -> dict[int, Summand]:
    """Inverse of :func:`pack`, at that party; ShapeError for what it would not be sent."""
    numbers = held_by(party)
    if len(seeds) != 2 * SEED_BYTES:
        raise ShapeError("a query that servers rank carries two seeds of its proof, 32 bytes each")
    if 3 not in numbers and words.size:
        raise ShapeError("this server takes no words of a proof")
    halves = seeds[:SEED_BYTES], seeds[SEED_BYTES:]
    return {n: Summand(seed, words if n == 3 else words[:0, :0]) for n, seed in zip(numbers, halves, strict=True)}


def commitment(number: int, summand: Summand) -> bytes:
    """Commitment to summand ``number`` in the header: 32 bytes that hide it."""
    head = b"mipp v1 proof" + bytes([number]) + summand.seed
    return hashlib.sha256(head + np.ascontiguousarray(summand.words).tobytes()).digest()


def proof_bytes(rule: QueryRule, queries: int, *, threshold: bool = False, choice: int = 0) -> int:
    """Bytes of the words that each cloud gets; ``choice``: bits of a choice of clusters (:mod:`.probes`)."""
    return queries * (rule.words(threshold=threshold) + choice) * rule.proof_bits // 8


# --- the user ------------------------------------------------------------------------------------------------------


def prove(
    rule: QueryRule, queries: np.ndarray, thetas: Sequence[int] | None = None, choice: np.ndarray | None = None
) -> dict[int, Summand]:
    """Summands 1, 2, 3 of the proof for encoded queries (B, dim); secret. Party a is to get all but number a.

    Parameters
    ----------
    rule : of the encoding
    queries : as :meth:`mipp.Encoding.encode_queries` gives them
    thetas : thresholds, one per query, or None
    choice : (B, clusters) bits that follow those of the proof (:func:`mipp.mpc.probes.choice_bits`), or None

    Raises
    ------
    ScoreRangeError
        A query or threshold beyond the bounds: nothing can be proved of it.
    """
    bits = _bits(rule, np.asarray(queries), thetas)
    if choice is not None:
        bits = np.concatenate([bits, choice.astype(bits.dtype)], axis=1)
    return share_bits(bits, RING_DTYPES[rule.proof_bits])


def share_bits(bits: np.ndarray, dtype: np.dtype[Any]) -> dict[int, Summand]:
    """Summands 1, 2, 3 of bits (B, L), words of ``dtype``: fresh keystream twice, and what is left; secret."""
    seeds = {number: schedule.random_bytes(SEED_BYTES) for number in PARTIES}
    words = bits.astype(dtype)
    for number in (1, 2):
        words -= local.keystream(seeds[number], words.size, dtype, 1).reshape(words.shape)
    empty = np.empty((0, 0), dtype)
    return {number: Summand(seeds[number], words if number == 3 else empty) for number in PARTIES}


def _bits(rule: QueryRule, queries: np.ndarray, thetas: Sequence[int] | None) -> np.ndarray:
    """(B, L) uint8: bits of the words, of what the norm leaves to its bound, of the thresholds; secret."""
    c = queries[:, : rule.count].astype(np.int64) // rule.factors
    stored = (c + rule.shift) // rule.unit
    squares = np.zeros(len(c), np.uint64) if rule.weights is None else (c * c).view(np.uint64) @ rule.weights
    parts = [_binary(stored, rule.bits).reshape(len(c), -1)]
    if rule.weights is not None:
        parts.append(_binary(np.uint64(rule.limit) - squares, rule.slack_bits))
    if thetas is not None:
        if not all(0 <= t - rule.low < 1 << rule.theta_bits for t in thetas):
            raise ScoreRangeError("a threshold is out of the range of scores")
        parts.append(_binary(np.array([t - rule.low for t in thetas], np.uint64), rule.theta_bits))
    bits = np.concatenate(parts, axis=1)
    if _sizes_wrong(rule, queries, c, stored, squares):
        raise ScoreRangeError("a query is out of the encoding's range")
    return bits


def _sizes_wrong(rule: QueryRule, queries: np.ndarray, c: np.ndarray, stored: np.ndarray, squares: np.ndarray) -> bool:
    """Whether words are no multiples of their factors, beyond their bits or the norm, or not what they must be."""
    wrong = (c * rule.factors != queries[:, : rule.count]).any() or (stored * rule.unit - rule.shift != c).any()
    wrong = wrong or (stored < 0).any() or (stored >> rule.bits).any()
    wrong = wrong or (rule.last is not None and (queries[:, rule.count] != rule.last).any())
    return bool(wrong or (squares > np.uint64(rule.limit)).any())


def _binary(values: np.ndarray, bits: int) -> np.ndarray:
    """The low bits of non-negative integers, least significant first, as a last axis."""
    shifts = np.arange(bits, dtype=np.uint64)
    return ((values.astype(np.uint64)[..., None] >> shifts) & np.uint64(1)).astype(np.uint8)


# --- the servers ---------------------------------------------------------------------------------------------------


def verified(
    rule: QueryRule, server: int, summands: Mapping[int, Summand], commitments: Sequence[bytes], queries: int,
    *, threshold: bool, choice: int = 0,
) -> None:  # fmt: skip
    """Refuse summands that are not those of the header, before anything is computed.

    Raises
    ------
    ShapeError, AuthenticationError
        Another shape or dtype; a summand that the header does not commit to.
    """
    shape = (queries, rule.words(threshold=threshold) + choice)
    for number, summand in summands.items():
        expected = shape if number == 3 else (0, 0)
        if summand.words.shape != expected or (number == 3 and summand.words.dtype != RING_DTYPES[rule.proof_bits]):
            raise ShapeError(f"a proof holds {shape} words of {rule.proof_bits} bits")
        if len(summand.seed) != SEED_BYTES or len(commitments) != len(PARTIES):
            raise ShapeError("a proof has three commitments, and seeds of 32 bytes")
        if not hmac.compare_digest(commitment(number, summand), commitments[number - 1]):
            raise AuthenticationError(f"server {server}: the proof is not the one that the header commits to")


def relations(
    rule: QueryRule, params: Params, party: int, summands: Mapping[int, Summand], query_share: np.ndarray,
    theta: np.ndarray, threads: int, servers: Sequence[int] | None = None,
) -> np.ndarray:  # fmt: skip
    """This party's additive shares (B, R) of what must be zero, mod 2^proof_bits.

    Parameters
    ----------
    rule : of the encoding
    params : two or three clouds, t=1
    party : 1, 2 or 3: its place in :meth:`mipp.params.Params.parties`
    summands : the two that it has
    query_share : (B, D) words, its share of the queries
    theta : (B,) words, its share of the thresholds, or (0,)
    servers : of the query; default the first that can be
    """
    threshold, dtype = bool(theta.size), RING_DTYPES[rule.proof_bits]
    shape = (len(query_share), rule.words(threshold=threshold))
    both = Pair(*(summands[number].expanded(shape, dtype, threads) for number in held_by(party)))
    first, up = party == 1, dtype.type(rule.proof_bits - rule.ring_bits)
    c = _chosen(rule, party, both)
    out = [zero_bits(both)]
    # a key centre at infinity has no part of the query: its share is fixed by the degree
    server = params.parties(servers)[party - 1]
    words = query_share.astype(dtype) * dtype.type(server in constants.query_parts(params, servers))
    words[:, : rule.count] -= rule.factors.astype(np.int64).view(np.uint64).astype(dtype) * c[0]
    if rule.last is not None and first:
        words[:, rule.count] -= dtype.type(rule.last % (1 << rule.proof_bits))
    degree = np.empty_like(query_share)
    matrix = constants.query_degree_matrices(params, servers)[party - 1]
    _core.combine([query_share], matrix[None, None], [degree], 1)
    out += [words << up, degree.astype(dtype) << up]

    out += _norms(rule, party, both, c)
    if threshold:
        offset = _sums(both.lo[:, shape[1] - rule.theta_bits :])
        low = dtype.type(rule.low * first % (1 << rule.proof_bits))
        out.append(((theta.astype(dtype) - low - offset) << up)[:, None])
    return np.concatenate(out, axis=1)


def query_words(
    rule: QueryRule, party: int, summands: Mapping[int, Summand], queries: int, threads: int,
    fixed: Mapping[int, int] | None = None,
) -> tuple[Pair, np.ndarray]:  # fmt: skip
    """A party's two summands of the encoded queries that a proof is about, where no query share was sent.

    Parameters
    ----------
    rule, party, summands, threads : as of :func:`relations`; no thresholds
    queries : B
    fixed : word to public constant, besides what the metric fixes

    Returns
    -------
    words : Pair of (B, width) words of ``proof_bits`` bits; they add up to the queries modulo 2^ring_bits; secret
    zero : (B, R) this party's additive shares of what must be zero, for :func:`check_relations`
    """
    dtype = RING_DTYPES[rule.proof_bits]
    shape = (queries, rule.words(threshold=False))
    both = Pair(*(summands[number].expanded(shape, dtype, threads) for number in held_by(party)))
    c = _chosen(rule, party, both)
    constants_of = dict(fixed or {})
    if rule.last is not None:
        constants_of[rule.count] = rule.last
    words = Pair(np.zeros((queries, rule.width), dtype), np.zeros((queries, rule.width), dtype))
    for number, out, mine in zip(held_by(party), words, c, strict=True):
        out[:, : rule.count] = rule.factors.astype(np.int64).view(np.uint64).astype(dtype) * mine
        for word, value in constants_of.items():
            out[:, word] = dtype.type(value % (1 << rule.proof_bits) * (number == _PUBLIC))
    return words, np.concatenate([zero_bits(both), *_norms(rule, party, both, c)], axis=1)


def zero_bits(bits: Pair) -> np.ndarray:
    """This party's additive shares of b^2 - b, which is zero just when b is 0 or 1."""
    lo, hi = bits
    return np.asarray(lo * lo + lo.dtype.type(2) * lo * hi - lo)


def _chosen(rule: QueryRule, party: int, bits: Pair) -> Pair:
    """Summands of what the query chooses: c = unit * sum 2^i bit_i - shift, (B, count) each."""
    dtype, n = bits.lo.dtype, rule.count * rule.bits
    lo, hi = (
        _sums(s[:, :n].reshape(len(s), rule.count, rule.bits)) * dtype.type(rule.unit)
        - dtype.type(rule.shift * (number == _PUBLIC))
        for number, s in zip(held_by(party), bits, strict=True)
    )
    return Pair(lo, hi)


def _norms(rule: QueryRule, party: int, bits: Pair, c: Pair) -> list[np.ndarray]:
    """Shares of the bound less the weighted squared norm and what the bits say is left of it; empty without one."""
    if rule.weights is None:
        return []
    dtype, n = c.lo.dtype, rule.count * rule.bits
    used = ((c.lo * c.lo + dtype.type(2) * c.lo * c.hi) * rule.weights.astype(dtype)).sum(axis=1, dtype=dtype)
    left = _sums(bits.lo[:, n : n + rule.slack_bits])
    return [np.asarray(dtype.type(rule.limit * (party == 1)) - used - left)[:, None]]


def _sums(bits: np.ndarray) -> np.ndarray:
    """Sums of shares of bits times powers of two over the last axis."""
    powers = bits.dtype.type(1) << np.arange(bits.shape[-1], dtype=bits.dtype)
    return np.asarray((bits * powers).sum(axis=-1, dtype=bits.dtype))


def check_relations(party: Party, shares: np.ndarray) -> None:
    """Open sums of random subsets of relations with the next round's messages.

    That round raises OutOfRangeError at every party if one is not zero. Its own messages must be masked ones.

    Parameters
    ----------
    shares : this party's additive shares, of any shape; fixed before the session began

    Cost: no round, 40 words to each peer.
    """
    flat = np.ascontiguousarray(shares).reshape(-1)
    total = np.zeros(PROJECTIONS, flat.dtype)
    for start in range(0, len(flat), _CHUNK):
        some = flat[start : start + _CHUNK]
        coins = party.coins(f"relations {start}", PROJECTIONS * (-(-len(some) // 8)))
        chosen = np.unpackbits(coins.reshape(PROJECTIONS, -1), axis=1, count=len(some)).astype(flat.dtype)
        total += ring.matmul(chosen, some[None], threads=1)[0]
    open_words_along(party, total, "check", _zero_or_out_of_range)


def _zero_or_out_of_range(sums: np.ndarray) -> None:
    if sums.any():
        raise OutOfRangeError(
            "check: the query is out of the encoding's range, or a server lied; it was counted against its user"
        )
