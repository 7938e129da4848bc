"""Rows that a query with a choice covers: against a plain list of them, row by row."""

import dataclasses
import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest

from mipp.encoding import Encoding
from mipp.encoding.clusters import Clusters
from mipp.errors import ParameterError, ProtocolError, ScoreRangeError
from mipp.mpc import probed as probed_module
from mipp.mpc.facts import most_rows
from mipp.mpc.probed import ProbedRows
from mipp.mpc.session import Public

CLUSTERS = Clusters.of(Encoding("cosine", 3), np.random.default_rng(0).normal(size=(6, 3)), 2, least=2)


def plain(rows, dead, chosen):
    """Original rows in the order of scores: those of chosen clusters with deleted ones, then other live rows."""
    inside, others, first = [], [], 0
    for count in rows:
        slots = CLUSTERS.slots(count)
        for group in range(2):
            for slot in range(slots):
                inside.append(first + (group * slots + slot) * 3 + chosen[group])
        others += [first + n for n in range(slots * 6, count) if first + n not in dead]
        first += count
    return inside + others


@pytest.mark.parametrize("rows", [[40], [5, 40, 3], [40, 40], [5], [12, 11, 60, 1, 2]])
@pytest.mark.parametrize("part", [0.0, 0.2, 0.9])
def test_order_of_scores(rows, part):
    rng = np.random.default_rng(len(rows))
    dead = np.flatnonzero(rng.random(sum(rows)) < part)
    covered = ProbedRows(CLUSTERS, rows, dead)
    chosen = rng.integers(0, 3, (4, 2))
    gone = set(dead.tolist())
    for one in chosen:
        wanted = plain(rows, gone, one.tolist())
        assert covered.scores == len(wanted)
        live = [n for n, row in enumerate(wanted) if row not in gone]
        assert len(live) >= covered.least_live
        if live:
            found = covered.originals(np.array([live]), one[None])
            assert found[0].tolist() == [wanted[n] for n in live]
        for n in set(range(len(wanted))) - set(live):
            with pytest.raises(ProtocolError, match="deleted"):
                covered.originals(np.array([[n]]), one[None])
    # the bound is reached by some choice
    worst = min(
        sum(row not in gone for row in plain(rows, gone, (a, b))) for a in range(3) for b in range(3)
    )  # fmt: skip
    assert worst == covered.least_live
    covered.require(worst)
    with pytest.raises(ParameterError, match=f"the {worst} rows" if worst else "sure to cover no row"):
        covered.require(worst + 1)


@pytest.mark.parametrize("queries", [1, 4, 1000])
@pytest.mark.parametrize("part", [0.0, 0.3, 0.97])
def test_rows_without_clusters_come_in_little_memory(monkeypatch, queries, part):
    """However many were deleted between those that are live, and whatever number of queries there is."""
    monkeypatch.setattr(probed_module, "OTHER_WORDS", 400)
    rows = [1, 700, 2, 500]
    dead = np.flatnonzero(np.random.default_rng(1).random(sum(rows)) < part)
    covered = ProbedRows(dataclasses.replace(CLUSTERS, least=1000), rows, dead)
    found, most = [], 0
    for some in covered.others(queries):
        held = sum(stop - start for start, stop, _ in some)
        assert 0 < held <= max(1, 400 // queries)
        most = max(most, 0 if all(live is None for *_, live in some) else queries * held)
        for start, stop, live in some:
            found += range(start, stop) if live is None else (start + live).tolist()
    assert found == np.setdiff1d(np.arange(sum(rows)), dead).tolist() and len(found) == covered.scores
    assert most <= covered.other_words(queries) <= max(400, queries) and (part or not covered.other_words(queries))


@pytest.mark.parametrize("scores", [(1 << 40) - 1, 1 << 40, (1 << 40) + 1])
def test_most_rows_leave_room_for_deleted_ones(scores):
    """Whose score lies below the least."""
    config = SimpleNamespace(query_rule=SimpleNamespace(low=-3, high=scores - 4))
    for probed in (False, True):
        rows = most_rows(config, probed=probed)
        fits, more = (Public(bytes(32), bytes(32), n, 64, -3 - probed, scores - 4) for n in (rows, 2 * rows))
        assert fits.key_bits <= 64
        with pytest.raises(ScoreRangeError):
            assert more.key_bits


def test_counting_takes_no_memory_for_rows():
    batches, dead = [5] * 10**5, np.array([7, 10**5])
    tracemalloc.start()
    covered = ProbedRows(CLUSTERS, batches, dead)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert covered.scores == covered.least_live == 5 * 10**5 - 2 and peak < 1 << 16
    found = covered.originals(np.array([[6, 7, 99998, 99999]]), np.zeros((1, 2), int))
    assert found.tolist() == [[6, 8, 99999, 100001]]
