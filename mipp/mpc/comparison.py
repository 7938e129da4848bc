"""Less-than on shared differences, and the threshold: which scores are at least theta, known to the user only.

d < 0 is the top bit of d mod 2^v. d = x_1 + x_2 + x_3; party c knows x_(c+1) and x_(c+2), so it knows their sum S, and
x_c =: T is known to the two others. The sign is S_(v-1) ^ T_(v-1) ^ carry. The tree cuts the v - 1 lower bits in digits
of three. Generate and propagate of a digit are linear in the products of the digit's bits of S, with coefficients that
depend on T alone: c shares these products with one masked message, the two others evaluate, and no AND gate is needed.
The digits are combined by a tree of AND gates. The rows are cut in blocks, one per splitting party. The last gate is
not reshared: its masked additive parts are opened, to all or to the user.

========== ====================================== ================ ========== ========== =======
circuit    rounds, opened to all                  bytes, v = 32    v = 16     to user    rounds
========== ====================================== ================ ========== ========== =======
tree       2 + ceil(log2(ceil((v-1)/3)))          6.88             3.00       6.75       one less
ripple     v                                      5.33             2.67       5.21       one less
========== ====================================== ================ ========== ========== =======

Bytes are per comparison and party, the opened bit included, the resharing not; "to user" for v = 32.

Source: Mohassel, Rindal, "ABY3", CCS 2018 (two-way split); Kogge, Stone 1973 (carry tree); the reduced tree and the
digits are our own.
Leakage: opened bits only. Every message is masked by keystream that its receiver lacks.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np

from ..errors import DTypeError, MessageError, ParameterError, ProtocolError, ScoreRangeError, ShapeError
from . import kernels as local
from .query_proof import check_relations
from .replicated import Pair, UserShare, open_to_all, reshare_words, send_back, together
from .session import Party, Public

__all__ = [
    "CIRCUITS", "MOST_AT_ONCE", "Circuit", "alone_of", "blocks_of", "check_circuit", "combine_matches", "less_than",
    "pieces", "sign_shares", "theta_width", "threshold",
]  # fmt: skip

Circuit = Literal["tree", "ripple"]
CIRCUITS: tuple[Circuit, ...] = ("tree", "ripple")
#: comparisons of one call at most, whole groups: with more, what a call holds would grow with the rows
MOST_AT_ONCE = 1 << 23
#: fewer groups of 512 rows than this are split by one party: three blocks would cost more calls than they save
_SPLIT_GROUPS = 128

Blocks = list[tuple[int, int, int]]


def check_circuit(circuit: str) -> None:
    """ParameterError unless it is one of CIRCUITS."""
    if circuit not in CIRCUITS:
        raise ParameterError(f"circuit must be one of {', '.join(CIRCUITS)}, not {circuit!r}")


def blocks_of(n: int, step: int) -> Blocks:
    """(splitting party, first plane word, end) for n comparisons at a step: thirds, or one block of a turning party."""
    groups = local.plane_words(n) // local.GROUP
    first = step % 3 + 1
    if groups < _SPLIT_GROUPS:
        return [(first, 0, groups * local.GROUP)]
    cuts = [local.GROUP * (groups * i // 3) for i in range(4)]
    return [((first + i - 1) % 3 + 1, cuts[i], cuts[i + 1]) for i in range(3)]


def pieces(n: int) -> list[range]:
    """n comparisons in as many calls, one after the other, as it takes."""
    return [range(start, min(start + MOST_AT_ONCE, n)) for start in range(0, n, MOST_AT_ONCE)]


def alone_of(n: int) -> int:
    """The most comparisons, at most n, of which one party splits all: then it sends more than a third of n."""
    return min(n, 64 * local.GROUP * (_SPLIT_GROUPS - 1))


@dataclasses.dataclass(repr=False)
class _Block:
    """One block at one party; ``role`` 0 splits (knows S), 1 knows T as x_c in lo, 2 knows it in hi."""

    item: int
    owner: int
    role: int
    words: int
    s: np.ndarray  # share of what is split, the top bit last: the mask (roles 0 and 1), or the masked planes (role 2)
    t: np.ndarray  # (v, words) planes of T; at role 0 the masked planes that it sends
    top: np.ndarray  # lo summand of the top bit of S ^ T
    g: Pair
    p: Pair


class _Run:
    """The state of one call: its blocks, and flat messages of which each block has a contiguous part."""

    def __init__(self, party: Party, n: int) -> None:
        self.party, self.threads = party, party.threads
        self.layout = blocks_of(n, party.step)
        self.total = local.plane_words(n)

    def keys(self, purpose: str, block: _Block) -> tuple[bytes, bytes]:
        return self.party.zero_keys(purpose, block.item)

    def parts(self, flat: np.ndarray, blocks: list[_Block], rows: int) -> list[np.ndarray]:
        """Views of a flat buffer, (rows, words) for each block."""
        out, at = [], 0
        for b in blocks:
            out.append(flat[at : at + rows * b.words].reshape(rows, b.words))
            at += rows * b.words
        return out


def sign_shares(party: Party, d: Pair, width: int, circuit: Circuit = "tree") -> np.ndarray:
    """Masked additive (XOR) shares of [d < 0] for n replicated differences.

    Parameters
    ----------
    d : (n,) words of any unsigned dtype, of which the low ``width`` bits count; -2^(width-1) <= d < 2^(width-1); secret
    width : v >= 2 bits
    circuit : 'tree' or 'ripple'

    Returns
    -------
    (W,) uint64 plane, uniform subject to the XOR over the parties, also beyond n; secret

    Cost: rounds and bytes as in the table above, without the opening.
    """
    if not 2 <= width <= 64 or width > 8 * d.lo.itemsize:
        raise ParameterError(f"width must be from 2 to the word's bits, not {width}")
    check_circuit(circuit)
    party.counters.comparisons += len(d.lo)
    run = _Run(party, len(d.lo))
    tree = circuit == "tree"
    blocks = _split(run, d, width, tree)
    if not tree:
        return _ripple(run, blocks, width)
    n = local.digits(width - 1)
    if n == 1:
        return _only_digit(run, blocks, width - 1)
    _carries(run, blocks, width - 1)
    return _tree(run, blocks, n)


def _split(run: _Run, d: Pair, width: int, products: bool) -> list[_Block]:
    """XOR shares of S, or of the products of its digits and its top bit, and T.

    Cost: 1 round; the splitting party sends the planes of its block, one for each bit or product, to the next party.
    """
    party, blocks = run.party, []
    none = np.empty((0, 0), np.uint64)
    planes = local.products(width - 1) + 1 if products else width
    for item, (owner, start, end) in enumerate(run.layout):
        rows = slice(64 * start, 64 * end)
        role = (owner - party.index) % 3
        s, t = none, none
        if role == 0:
            t = local.slice_planes(d.lo[rows] + d.hi[rows], width, run.threads)
            if products:
                t = local.digit_products(t, run.threads)
            # of the mask the tree needs the top bit's plane alone
            s = t[-1:].copy() if products else t.copy()
            local.xor_mask(party.key(party.next, "split", item), t, run.threads)
            np.bitwise_xor(s, t[-len(s) :], out=s)
        elif role == 1:
            s = local.mask_planes(party.key(party.previous, "split", item), (planes, end - start), run.threads)
            t = local.slice_planes(d.lo[rows], width, run.threads)
        else:
            t = local.slice_planes(d.hi[rows], width, run.threads)
        blocks.append(_Block(item, owner, role, end - start, s, t, none, Pair(none, none), Pair(none, none)))
    mine = [b.t for b in blocks if b.role == 0]
    wanted = [b for b in blocks if b.role == 2]
    got = party.exchange(
        "split",
        {party.next: mine} if mine else {},
        {party.previous: [(planes * b.words, np.uint64) for b in wanted]} if wanted else {},
    )
    for block, words in zip(wanted, got.get(party.previous, []), strict=True):
        block.s = words.reshape(planes, block.words)
    for block in blocks:
        block.top = (block.t if block.role == 1 else block.s)[-1].copy()
    return blocks


def _only_digit(run: _Run, blocks: list[_Block], n: int) -> np.ndarray:
    """Masked additive parts of the sign when the digit's generate bit is the carry."""
    out = []
    for b in blocks:
        first, second = run.keys("generate", b)
        part = local.mask_planes(first, (1, b.words), run.threads)
        local.xor_mask(second, part, run.threads)
        if b.role:  # the splitting party knows nothing of T
            np.bitwise_xor(part, local.digit_carries(b.s[:-1], b.t[:n], b.role == 1, run.threads), out=part)
        out.append(part)
    return _finish(blocks, out)


def _carries(run: _Run, blocks: list[_Block], n: int) -> None:
    """Replicated generate and propagate of all digits. Cost: 1 round, 2/3 bit per plane and party.

    The XOR shares of the two parties that know T are u and w. With x_(c+1), x_(c+2) keystream, x_c = u ^ w ^ x_(c+1) ^
    x_(c+2): one sends u ^ x_(c+1), the other w ^ x_(c+2), each masked by a key that the receiver lacks.
    """
    party, digits = run.party, local.digits(n)
    rows = 2 * digits - 1
    sent: dict[int, list[np.ndarray]] = {}
    awaited: dict[int, list[_Block]] = {}
    for b in blocks:
        if b.role == 0:
            # lo is summand c+1 under K_(c+1), hi is summand c+2 under K_(c+2)
            lo, hi = (local.mask_planes(k, (rows, b.words), run.threads) for k in run.keys("generate", b))
            b.g = Pair(lo, hi)
            continue
        other = party.previous if b.role == 1 else party.next
        # role 1 is party c+2 and shares K_(c+1) with c; role 2 is party c+1 and shares K_(c+2) with c
        known = local.mask_planes(party.key(other, "generate", b.item), (rows, b.words), run.threads)
        part = local.digit_carries(b.s[:-1], b.t[:n], b.role == 1, run.threads)
        np.bitwise_xor(part, known, out=part)
        b.g = Pair(part, known) if b.role == 1 else Pair(known, part)
        sent.setdefault(other, []).append(part)
        awaited.setdefault(other, []).append(b)
    got = party.exchange(
        "generate", sent, {p: [(rows * b.words, np.uint64) for b in wanted] for p, wanted in awaited.items()}
    )
    for peer, wanted in awaited.items():
        for b, theirs in zip(wanted, got[peer], strict=True):
            mine = b.g.lo if b.role == 1 else b.g.hi
            both = mine ^ theirs.reshape(mine.shape)
            b.g = Pair(both, b.g.hi) if b.role == 1 else Pair(b.g.lo, both)
    for b in blocks:
        b.s = b.t = np.empty((0, 0), np.uint64)  # several times as large as what the tree needs
        # the lowest digit has no propagate bit and no gate uses one: the last generate plane stands in its place
        b.p = Pair(b.g.lo[digits - 1 :], b.g.hi[digits - 1 :])
        b.g = Pair(b.g.lo[:digits], b.g.hi[:digits])


def _tree(run: _Run, blocks: list[_Block], n: int) -> np.ndarray:
    """From (generate, propagate) of n >= 2 digits to the carry; the last layer stays additive."""
    while True:
        gates = local.layer_gates(n)
        flat = np.empty(gates * run.total, np.uint64)
        parts = run.parts(flat, blocks, gates)
        for b, out in zip(blocks, parts, strict=True):
            local.tree_gates(b.g, b.p, run.keys("and", b), out, run.threads)
        if n == 2:
            return _finish(blocks, parts, 1)
        got = send_back(run.party, "and", flat)
        views = zip(blocks, run.parts(got.lo, blocks, gates), run.parts(got.hi, blocks, gates), strict=True)
        for b, z_lo, z_hi in views:
            g_lo, p_lo = local.combine(b.g.lo, b.p.lo, z_lo, run.threads)
            g_hi, p_hi = local.combine(b.g.hi, b.p.hi, z_hi, run.threads)
            b.g, b.p = Pair(g_lo, g_hi), Pair(p_lo, p_hi)
        n = (n + 1) // 2


def _finish(blocks: list[_Block], parts: list[np.ndarray], keep: int | None = None) -> np.ndarray:
    """Additive shares of carry ^ top from the last gate's masked parts; ``keep``: generate plane to add, if any."""
    out = []
    for b, part in zip(blocks, parts, strict=True):
        sign = part[0] ^ b.top
        if keep is not None:
            np.bitwise_xor(sign, b.g.lo[keep], out=sign)
        out.append(sign)
    return np.concatenate(out)


def _ripple(run: _Run, blocks: list[_Block], width: int) -> np.ndarray:
    """c_1 = S_0 & T_0, c_(b+1) = (S_b ^ c_b) & (T_b ^ c_b) ^ c_b. Cost: v - 2 rounds, 1 bit per gate and party."""
    flat = np.empty(run.total, np.uint64)
    parts = run.parts(flat, blocks, 1)
    for b, out in zip(blocks, parts, strict=True):
        first, second = run.keys("generate", b)
        local.words_mask(first, out, run.threads)
        local.xor_mask(second, out, run.threads)
        if b.role:  # the splitting party knows nothing of T
            np.bitwise_xor(out, b.s[:1] & b.t[:1], out=out)
        # S ^ T has summands c, c+1, c+2: T, the mask, the masked bits
        b.p = Pair(b.t, b.s) if b.role == 1 else Pair(b.s, b.t)
    for bit in range(1, width - 1):
        carry = send_back(run.party, "and", flat)
        flat = np.empty(run.total, np.uint64)
        views = zip(run.parts(carry.lo, blocks, 1), run.parts(carry.hi, blocks, 1), strict=True)
        parts = run.parts(flat, blocks, 1)
        for b, part, (lo, hi) in zip(blocks, parts, views, strict=True):
            p_lo, p_hi = b.p.lo[bit : bit + 1] ^ lo, b.p.hi[bit : bit + 1] ^ hi
            # which summands belong to S and which to T: role 0 knows S alone, the others one summand of each
            x = [Pair(p_lo, p_hi), Pair(lo, p_hi), Pair(p_lo, hi)][b.role]
            y = [Pair(lo, hi), Pair(p_lo, hi), Pair(lo, p_hi)][b.role]
            local.and_gates(x, y, run.keys("and", b), part, run.threads)
            np.bitwise_xor(part, lo, out=part)
    return _finish(blocks, parts)


def less_than(party: Party, d: Pair, width: int, circuit: Circuit = "tree") -> np.ndarray:
    """[d < 0] of n replicated differences, opened to all parties.

    Returns
    -------
    (W,) uint64 plane: bit i % 64 of word i // 64; zero beyond n when d is zero there. Public from now on.

    Parameters, cost: :func:`sign_shares`, and the opening.
    """
    return open_to_all(party, sign_shares(party, d, width, circuit))


def theta_width(public: Public, theta_low: int, theta_high: int) -> int:
    """The least v with |score - theta| < 2^(v-1) over both ranges; ScoreRangeError when v exceeds the ring."""
    spread = max(public.high - theta_low, theta_high - public.low, 1)
    width = spread.bit_length() + 1
    if width > public.ring_bits:
        raise ScoreRangeError(f"thresholds from {theta_low} to {theta_high} cannot be compared in the score ring")
    return width


def threshold(
    party: Party,
    shares: np.ndarray,
    public: Public,
    theta: int | Sequence[int] | None = None,
    *,
    theta_shares: np.ndarray | None = None,
    theta_range: tuple[int, int] | None = None,
    circuit: Circuit = "tree",
    zero: np.ndarray | None = None,
) -> UserShare:
    """Which scores are at least theta: this party's shares of the match bits, for the user alone.

    Parameters
    ----------
    party : new, one per attempt
    shares : (B, N) or (N,) words of the ring, this party's additive shares of the scores; secret
    public : what all parties agree on
    theta : public threshold, one or one per query
    theta_shares : instead of ``theta``, (B,) words: this party's additive shares of secret thresholds
    theta_range : public range of secret thresholds, default the scores' range
    circuit : as in :func:`sign_shares`
    zero : as of :func:`mipp.mpc.topk.top_k`

    Returns
    -------
    UserShare
        For :func:`combine_matches`; uniform without the other two.

    Raises
    ------
    ScoreRangeError, ParameterError, ShapeError, DTypeError
        Bad input, before the first round.
    OutOfRangeError
        A query or threshold is out of range.
    StaleSnapshotError, ProtocolError, MessageError
        The parties disagree, or one failed: nothing is known to anybody.

    Cost: the circuit's rounds less one (the user's), and 4 more (hello, resharing, confirm, done); bytes by
    :func:`mipp.mpc.cost.threshold_cost`, exactly; memory by :func:`mipp.mpc.cost.threshold_memory`. Leakage: none to
    the servers; to the user the match bits.
    """
    with party.attempt():
        words = public.words(shares)
        check_circuit(circuit)
        width, what = _thetas(public, len(words), theta, theta_shares, theta_range)
        parameters = public.digest("threshold", len(words), width, repr(what), circuit)
        party.hello(public.header, parameters, public.snapshot)
        if zero is not None:
            check_relations(party, zero)
        mine = words.astype(words.dtype)  # a copy
        if theta_shares is not None:
            mine -= theta_shares.view(words.dtype)[:, None]
        elif party.index == 1:
            ring = 1 << public.ring_bits
            mine -= np.array([t % ring for t in what], words.dtype)[:, None]
        lo, hi = reshare_words(party, mine.reshape(-1))
        del mine
        signs = np.concatenate([
            sign_shares(party, Pair(lo[some.start : some.stop], hi[some.start : some.stop]), width, circuit)
            for some in pieces(len(lo))
        ])  # fmt: skip
        party.confirm()
        return UserShare(party.index, party.session, parameters, len(words), public.rows, signs)


def _thetas(
    public: Public,
    queries: int,
    theta: int | Sequence[int] | None,
    theta_shares: np.ndarray | None,
    theta_range: tuple[int, int] | None,
) -> tuple[int, tuple[int, ...]]:
    """Width of the differences, and the public thresholds or the range of the secret ones."""
    if (theta is None) == (theta_shares is None):
        raise ParameterError("give either a public theta or theta_shares")
    if theta_shares is not None:
        if not isinstance(theta_shares, np.ndarray):
            raise DTypeError("threshold shares must be an array")
        if theta_shares.dtype.itemsize * 8 != public.ring_bits or theta_shares.dtype.kind not in "iu":
            raise DTypeError(f"threshold shares must be {public.ring_bits}-bit words")
        if theta_shares.shape != (queries,):
            raise ShapeError(f"{queries} queries need as many threshold shares")
        low, high = theta_range or (public.low, public.high)
        if low > high:
            raise ParameterError("the threshold range is empty")
        return theta_width(public, low, high), (low, high)
    given = tuple(theta) if isinstance(theta, Sequence) else (theta,) * queries
    values = tuple(t for t in given if isinstance(t, int) and not isinstance(t, bool))
    if len(values) != len(given):
        raise ParameterError("a threshold is an integer, or a sequence of integers")
    if len(values) != queries:
        raise ShapeError(f"{queries} queries need one threshold or as many")
    return theta_width(public, min(values), max(values)), values


def combine_matches(shares: Sequence[UserShare]) -> np.ndarray:
    """The user's part of :func:`threshold`: (B, N) bool, score >= theta, from the three servers' shares.

    Raises
    ------
    ProtocolError, MessageError
        Not one part of each server, parts of different sessions, or parts that no run gives: the comparisons that fill
        the last group of 512 are of zero with zero. Nothing else of match bits can be checked.
    """
    first, *others = together(shares)
    plane, count = first.words ^ others[0].words ^ others[1].words, first.queries * first.rows
    if plane.shape != (local.plane_words(count),):
        raise MessageError("the user's parts: match shares of a wrong length")
    bits = np.unpackbits(plane.astype("<u8").view(np.uint8), bitorder="little")
    if bits[count:].any():
        raise ProtocolError("the user's parts: the shares add up to no match bits")
    return (bits[:count] == 0).reshape(first.queries, first.rows)
