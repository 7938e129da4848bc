"""Cost of a protocol before anything runs: rounds, payload bytes and frames of each party.

Exact for the threshold. For top-k the number of comparisons depends on the (uniform) order at the shuffled positions,
not on the data: ``typical`` is the expected path, ``bound`` a limit that a run exceeds with a chance below one in a
thousand (measured over the order only, see the tests). Everything here is public.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Iterable

from ..encoding.bounds import PROJECTIONS, QueryRule, RowRule
from . import kernels as local
from .certificate import TOGETHER, chunk_rows
from .comparison import MOST_AT_ONCE, Circuit, blocks_of, pieces, theta_width
from .link import HEADER_BYTES, PARTIES
from .quickselect import cross_size, pivot_rank, sample_size
from .session import CONFIRM_BYTES, HELLO_BYTES, Public

__all__ = [
    "Cost",
    "TopKCost",
    "add",
    "add_check",
    "all_comparisons",
    "certificate_cost",
    "chunk_cost",
    "comparison_cost",
    "expected_calls",
    "largest",
    "largest_call",
    "padded",
    "threshold_cost",
    "threshold_memory",
    "top_k_cost",
    "top_k_memory",
]

#: bytes a row and query that a server holds while keys are shuffled, and so many a comparison of a call
_SHUFFLE_BYTES, _CALL_BYTES = 32, 64
#: bytes for each rank that is found, for each query, and besides
_RANK_BYTES, _QUERY_BYTES, _OTHER_BYTES = 256, 4096, 32 << 20


@dataclasses.dataclass
class Cost:
    """Rounds, and by party: payload bytes and frames sent. Messages of servers to the user are not counted."""

    rounds: int = 0
    payload: dict[int, int] = dataclasses.field(default_factory=lambda: dict.fromkeys(PARTIES, 0))
    frames: dict[int, int] = dataclasses.field(default_factory=lambda: dict.fromkeys(PARTIES, 0))

    @property
    def bytes(self) -> dict[int, int]:
        """Bytes sent by each party, headers included."""
        return {p: self.payload[p] + HEADER_BYTES * self.frames[p] for p in PARTIES}

    def send(self, party: int, size: int, frames: int = 1) -> None:
        self.payload[party] += size
        self.frames[party] += frames

    def all_send(self, size: int, frames: int = 1) -> None:
        """A round in which every party sends ``size`` bytes in so many frames."""
        self.rounds += 1
        for party in PARTIES:
            self.send(party, size, frames)


@dataclasses.dataclass
class TopKCost:
    """``typical`` and ``bound`` costs; expected comparisons over all queries."""

    typical: Cost
    bound: Cost
    comparisons: int


def comparison_cost(
    n: int, width: int, circuit: Circuit = "tree", *, to_user: bool = False, first_step: int = 0
) -> Cost:
    """n comparisons in one call, or in as many as so many take, without the resharing.

    Parameters
    ----------
    n : comparisons
    width : v bits
    circuit : as in :func:`mipp.mpc.comparison.sign_shares`
    to_user : the opened bits go to the user, and are not counted
    first_step : the round's number, which says who splits
    """
    cost = Cost()
    for some in pieces(n):
        add(cost, _one_call(len(some), width, circuit, to_user, first_step + cost.rounds))
    return cost


def _one_call(n: int, width: int, circuit: Circuit, to_user: bool, first_step: int) -> Cost:
    cost, plane = Cost(), 8 * local.plane_words(n)
    blocks = [(owner, 8 * (end - start)) for owner, start, end in blocks_of(n, first_step)]
    cost.rounds += 1
    planes = width if circuit == "ripple" else local.products(width - 1) + 1
    for owner, size in blocks:
        cost.send(owner, planes * size)
    if circuit == "ripple":
        for _ in range(width - 2):
            cost.all_send(plane)
    elif (digits := local.digits(width - 1)) > 1:
        cost.rounds += 1
        sent = {(party, other) for owner, _ in blocks for party in PARTIES for other in PARTIES
                if len({owner, party, other}) == 3}  # fmt: skip
        for owner, size in blocks:
            for party in PARTIES:
                if party != owner:
                    cost.send(party, (2 * digits - 1) * size, 0)
        for party, _ in sent:
            cost.send(party, 0)
        while digits > 2:
            cost.all_send(local.layer_gates(digits) * plane)
            digits = (digits + 1) // 2
    if not to_user:
        cost.all_send(2 * plane, 2)
    return cost


def threshold_cost(
    public: Public, queries: int, theta_range: tuple[int, int], circuit: Circuit = "tree", *,
    rule: QueryRule | None = None,
) -> Cost:  # fmt: skip
    """Exact cost of :func:`mipp.mpc.comparison.threshold`.

    Parameters
    ----------
    theta_range : least and largest public threshold, or the declared range of secret ones
    rule : that queries are checked by, None without a check
    """
    width = theta_width(public, *theta_range)
    cost = Cost()
    cost.all_send(2 * HELLO_BYTES, 2)
    add_check(cost, rule.proof_bits if rule is not None else 0)
    cost.all_send(queries * public.rows * public.ring_bits // 8)
    add(cost, comparison_cost(queries * public.rows, width, circuit, to_user=True, first_step=cost.rounds))
    cost.all_send(2 * CONFIRM_BYTES, 2)
    cost.all_send(0, 2)
    return cost


def add_check(cost: Cost, bits: int) -> None:
    """Sums of what is zero, words of so many bits, opened along with the next round; 0: there is no check."""
    if bits:
        for party in PARTIES:
            cost.send(party, 2 * PROJECTIONS * bits // 8, 2)


def certificate_cost(rule: RowRule, rows: int) -> Cost:
    """Exact cost of :func:`mipp.mpc.certificate.certify_rows` when all rows keep the rule."""
    cost = Cost()
    rule = dataclasses.replace(rule, group=max(1, min(rule.group, rows)))
    cost.all_send(2 * HELLO_BYTES, 2)
    step = chunk_rows(rule)
    for n in [step] * (rows // step) + [rows % step] * (rows % step > 0):
        add(cost, chunk_cost(rule, n, cost.rounds))
    cost.all_send(2 * CONFIRM_BYTES, 2)
    cost.all_send(0, 2)
    return cost


def chunk_cost(rule: RowRule, n: int, first_step: int) -> Cost:
    """Cost of the test of n rows at a time; ``first_step``: as for :func:`comparison_cost`."""
    cost, word, e = Cost(), rule.ring_bits // 8, rule.extra
    groups, lies = -(-n // rule.group), e is not None and e.slack > 0
    cost.rounds += 1
    for cloud in (1, 2):
        cost.send(cloud, n * rule.width * word)
    if rule.hint_bits:
        cost.send(3, 3 * n * rule.width * rule.hint_bits // 8)
    opened = PROJECTIONS * groups + (n if e is not None and not lies else 0)
    cost.all_send(2 * opened * word, 2)
    tests = n * int(rule.tested.sum()) if rule.exact else PROJECTIONS * groups
    narrow, wide = 2 * tests + 2 * n * lies, n + 2 * n * lies
    calls = [(narrow, rule.ring_bits, word), (wide, rule.sum_bits, 8)]
    for count, width, size in calls if n > TOGETHER else [(narrow + wide, rule.sum_bits, 8)]:
        cost.all_send(count * size)
        add(cost, comparison_cost(count, width, first_step=first_step + cost.rounds))
    return cost


def top_k_cost(
    public: Public, queries: int, k: int, circuit: Circuit = "tree", *, rule: QueryRule | None = None
) -> TopKCost:
    """Cost of :func:`mipp.mpc.topk.top_k`; see the module for what ``typical`` and ``bound`` mean.

    ``rule``: that queries are checked by, None without a check.

    The shuffle's roles turn with the session: ``typical`` takes their mean, ``bound`` the largest.
    """
    calls = expected_calls(public.rows, k)
    typical, bound = Cost(), Cost()
    for cost in (typical, bound):
        cost.all_send(2 * HELLO_BYTES, 2)
        cost.all_send(2 * CONFIRM_BYTES, 2)
        cost.all_send(0, 2)
        add_check(cost, rule.proof_bits if rule is not None else 0)
        cost.rounds += 3
    words = 8 * local.packed_words(public.rows, public.key_bits)
    whole, rest = divmod(queries, 3)
    for party in PARTIES:
        typical.send(party, 5 * words * queries // 3, 2)
        bound.send(party, words * (5 * whole + 2 * rest), 4)
    if not calls:
        return TopKCost(typical, bound, 0)
    width, rows = public.key_bits, public.rows
    for count in calls:
        add(typical, _mean(comparison_cost(queries * count, width, circuit)))
    if rows <= sample_size(rows):
        add(bound, largest(comparison_cost(queries * calls[0], width, circuit, first_step=4)))
    else:
        most = bound_comparisons(calls, rows)
        each = -(-most // bound_calls(calls))
        for _ in range(bound_calls(calls)):
            add(bound, largest(comparison_cost(queries * each, width, circuit)))
    return TopKCost(typical, bound, queries * sum(calls))


def top_k_memory(public: Public, queries: int, k: int) -> int:
    """Bytes that a server holds at once in :func:`mipp.mpc.topk.top_k`, messages that wait included.

    The shuffle has the most: words and permutations of a query, and the messages on their way; afterwards both summands
    of the keys, and what one call of the comparison takes.
    """
    call, shuffled = queries * largest_call(public.rows, k), _SHUFFLE_BYTES * queries * public.rows
    # of the call before, a bit a comparison in two places; positions that bits gave, and segments of the first ranks
    selected = 20 * queries * public.rows + call // 4 + _RANK_BYTES * queries * k
    return max(shuffled, selected + _CALL_BYTES * min(call, MOST_AT_ONCE)) + _QUERY_BYTES * queries + _OTHER_BYTES


def threshold_memory(public: Public, queries: int) -> int:
    """Bytes that a server holds at once in :func:`mipp.mpc.comparison.threshold`, messages that wait included."""
    scores = queries * public.rows
    words = 4 * scores * public.ring_bits // 8
    return words + _CALL_BYTES * min(scores, MOST_AT_ONCE) + _QUERY_BYTES * queries + _OTHER_BYTES


def bound_calls(calls: list[int]) -> int:
    """Calls of the comparison that a query is bound by."""
    return len(calls) + 5


def bound_comparisons(calls: list[int], rows: int) -> int:
    """Comparisons, padding included, that one query is bound by."""
    return 2 * sum(calls) + rows + 64 * sample_size(rows)


def largest_call(rows: int, k: int) -> int:
    """Comparisons of the largest call for one query that is ranked: what servers hold at once, at least one a row."""
    return max([rows, *_calls_about(rows, k)])


def all_comparisons(rows: int, k: int) -> int:
    """Comparisons of one query in all its calls, about."""
    return sum(_calls_about(rows, k))


def _calls_about(rows: int, k: int) -> list[int]:
    """Calls for the next power of two, so that no user can have servers compute them for each k anew."""
    return _calls_kept(rows, min(rows, 1 << (k - 1).bit_length()) if k > 0 else 0)


def expected_calls(rows: int, k: int) -> list[int]:
    """Comparisons in each call for one query when every pivot falls where it is expected."""
    segments, calls = [(rows, -1, rows == 1)], []
    sample = sample_size(rows)
    while not all(done for _, _, done in segments):
        count, rank, after = 0, 0, []
        for size, pivot, done in segments:
            if rank >= k:
                break
            parts = [(size, pivot, done)]
            if not done and pivot >= 0:
                count += padded(size)
                above = min(max(round((pivot + 1) * (size + 1) / (sample + 1)) - 1, 0), size - 1)
                parts = [(above, -1, above == 1), (1, -1, True), (size - 1 - above, -1, size - 1 - above == 1)]
            elif not done and size > sample and (cross := cross_size(size, rows)):
                count += padded(cross * size)
                gap = -(-(size - cross) // (cross + 1))
                parts = [(gap, -1, gap == 1), (1, -1, True)] * cross + [(gap, -1, gap == 1)]
            elif not done:
                some = min(size, sample)
                count += padded(some * (some - 1) // 2)
                parts = [(size, -1, True) if size <= sample else (size, pivot_rank(size, k - rank, sample), False)]
            for part in parts:
                if part[0] and rank < k:
                    after.append(part)
                rank += part[0]
        segments = after
        calls.append(count)
    return calls


def padded(n: int) -> int:
    """Comparisons that n take up: whole words."""
    return -(-n // 64) * 64


def add(cost: Cost, more: Cost) -> None:
    """Add a cost to another one."""
    cost.rounds += more.rounds
    for party in PARTIES:
        cost.send(party, more.payload[party], more.frames[party])


def _spread(cost: Cost, payload: int, frames: int) -> Cost:
    return Cost(cost.rounds, dict.fromkeys(PARTIES, payload), dict.fromkeys(PARTIES, frames))


def _mean(cost: Cost) -> Cost:
    return _spread(cost, _ceil3(cost.payload.values()), _ceil3(cost.frames.values()))


def largest(cost: Cost) -> Cost:
    """A cost with every party's numbers the largest of any party."""
    return _spread(cost, max(cost.payload.values()), max(cost.frames.values()))


def _ceil3(values: Iterable[int]) -> int:
    return -(-sum(values) // 3)


_calls_kept = functools.lru_cache(maxsize=256)(expected_calls)
