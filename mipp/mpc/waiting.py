"""How much of one session can wait at a server: what an honest peer may have sent that was not received yet.

A round in which everybody sends to everybody is a barrier: nobody ends it before all others have begun it, and so have
received all that was sent before. A peer is ahead by at most one barrier and what comes up to the next one, however
slow this server is. Between two barriers lies at most one call of the comparison, of at most
:data:`~mipp.mpc.comparison.MOST_AT_ONCE`, or one chunk of rows; a call's size is bounded for every order of the keys
(:func:`most_compared`), not only for those that are likely. Everything here is public. Headers are not counted by
their bytes: each frame counts as :data:`~mipp.mpc.link.FRAME_BYTES`.
"""

from __future__ import annotations

import dataclasses

from ..encoding.bounds import RowRule
from . import kernels as local
from .certificate import MOST_NAMED, chunk_rows
from .comparison import MOST_AT_ONCE, alone_of
from .cost import Cost, add, add_check, chunk_cost, comparison_cost, largest, padded, threshold_cost
from .link import FRAME_BYTES
from .quickselect import sample_size, spare
from .session import ABORT_BYTES, CONFIRM_BYTES, HELLO_BYTES, Public

__all__ = ["certificate_room", "most_compared", "threshold_room", "top_k_room"]


def most_compared(rows: int, k: int) -> int:
    """Comparisons, padding included, of one call for one query, whatever the order of its keys.

    All segments but the last lie within the first k ranks; of s >= 2 members, one asks for at most s (sample + 2) / 2.
    """
    if rows <= sample_size(rows):
        return padded(rows * (rows - 1) // 2)
    inside = min(k, rows)
    # each of at most inside / 2 segments is padded
    return padded(max(rows, spare(rows))) + inside * (sample_size(rows) + 2) // 2 + 64 * (inside // 2)


def _call(n: int, width: int) -> Cost:
    """The most that one party sends in a call of at most n comparisons, and the opening of the call before."""
    cost = Cost()
    calls = [largest(comparison_cost(count, width)) for count in (n, alone_of(n))]
    add(cost, Cost(0, *(_most(calls, kind) for kind in ("payload", "frames"))))
    cost.all_send(16 * local.plane_words(n), 2)
    return cost


def _most(costs: list[Cost], kind: str) -> dict[int, int]:
    return {party: max(getattr(cost, kind)[party] for cost in costs) for party in costs[0].payload}


def _room(cost: Cost) -> int:
    """Bytes of one peer that may wait; it may also say that it stopped."""
    most = largest(cost)
    return max(most.payload.values()) + FRAME_BYTES * max(most.frames.values()) + ABORT_BYTES + FRAME_BYTES


def _ends() -> Cost:
    """First and last rounds."""
    cost = Cost()
    cost.all_send(2 * HELLO_BYTES, 2)
    cost.all_send(2 * CONFIRM_BYTES, 2)
    cost.all_send(0, 2)
    return cost


def top_k_room(public: Public, queries: int, k: int, check_bits: int = 0, probed: Cost | None = None) -> int:
    """Bytes of one peer that may wait in :func:`mipp.mpc.topk.top_k`.

    ``check_bits``: of words of the query's check. ``probed``: cost of query shares that servers make before.
    """
    cost = _ends()
    add_check(cost, check_bits)
    if probed is not None:
        add(cost, probed)
    # two of a query's five messages of the shuffle are a party's at most, and their roles turn
    cost.all_send(8 * local.packed_words(public.rows, public.key_bits) * 2 * queries, 3)
    add(cost, _call(min(queries * most_compared(public.rows, k), MOST_AT_ONCE), public.key_bits))
    return _room(cost)


def threshold_room(public: Public, queries: int, check_bits: int = 0) -> int:
    """Bytes of one peer that may wait in :func:`mipp.mpc.comparison.threshold` with secret thresholds: all of them."""
    cost = threshold_cost(public, queries, (public.low, public.high))
    add_check(cost, check_bits)
    return _room(cost)


def certificate_room(rule: RowRule, rows: int) -> int:
    """Bytes of one peer that may wait in :func:`mipp.mpc.certificate.certify_rows`, also of rows that break the rule.

    Between two barriers lies less than a chunk; the openings of the chunk before are counted as a whole one.
    """
    group = max(1, min(rule.group, rows))
    rule, alone = dataclasses.replace(rule, group=group), rule.alone()
    cost = _ends()
    chunks = [
        largest(chunk_cost(some, count, 0))
        for some, most in ((rule, rows), (alone, min(rows, MOST_NAMED + group)))
        for count in {min(most, chunk_rows(some)), most % chunk_rows(some)} - {0}
    ]
    if chunks:
        most = Cost(0, *(_most(chunks, kind) for kind in ("payload", "frames")))
        add(cost, most)
        add(cost, most)
    return _room(cost)
