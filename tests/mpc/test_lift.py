"""Shares of sums of squares against plain integers, in blocks of every size."""

import numpy as np
import pytest

from mipp.mpc import lift
from mipp.mpc.lift import lift_rows
from mipp.sharing import constants
from tests.mpc.parties import HEADER, SNAPSHOT, run
from tests.mpc.ranged import ENCODINGS, FINITE, ranged


def lifted(of, rows, **more):
    """What the three servers have of rows (N, encoded_dim)."""
    words, weights = of.share(rows), constants.row_weights(of.params, None)

    def task(party):
        with party.attempt():
            party.hello(HEADER, bytes(32), SNAPSHOT)
            mine = weights[party.index - 1] if party.index < 3 else None
            return lift_rows(party, words[party.index], of.rows, mine, **more)

    return run(task)


def total(parts, modulus):
    return [sum(map(int, each)) % modulus for each in zip(*parts, strict=True)]


@pytest.mark.parametrize("name", [*ENCODINGS, *FINITE])
@pytest.mark.parametrize("block, count", [(1, 1), (1, 8), (1, 77), (400, 100), (1 << 17, 33)])
def test_shares_add_up_to_the_sums(name, block, count, monkeypatch):
    monkeypatch.setattr(lift, "_BLOCK_WORDS", block)
    of = ranged(name)
    rule, rows = of.rows, of.encoding.encode_rows(of.features(count, np.random.default_rng(count)))
    rows[0, 0] = rule.largest  # the largest word that the tests before let through
    found = lifted(of, rows, keep=True)
    padded, weights = of.padded(rows).tolist(), [int(w) for w in rule.weights]
    expected = [sum(w * x * x for w, x in zip(weights, row, strict=True)) for row in padded]
    assert total([f.sums for f in found], 1 << rule.sum_bits) == [e % (1 << rule.sum_bits) for e in expected]
    ring = 1 << rule.ring_bits
    assert total([f.own.reshape(-1) for f in found[:2]], ring) == [x % ring for row in padded for x in row]
    assert found[2].own.size == 0
    if rule.extra is not None:
        e = rule.extra
        assert total([f.stored for f in found], ring) == [row[e.word] % ring for row in padded]
        assert total([f.last for f in found], 1 << rule.sum_bits) == [row[e.word] + e.centre for row in padded]


def test_rows_are_not_kept_unless_they_are_asked_for():
    of = ranged("cosine")
    rows = of.encoding.encode_rows(of.features(20, np.random.default_rng(0)))
    assert all(f.own.size == 0 for f in lifted(of, rows))


def test_blocks_have_masks_of_their_own(monkeypatch):
    """The words that a cloud sends are uniform and differ between blocks of equal rows."""
    monkeypatch.setattr(lift, "_BLOCK_WORDS", 1)
    of = ranged("cosine")
    words, sent = {i: np.zeros((64, of.width), np.uint32) for i in (1, 2, 3)}, {}

    def task(party):
        real = party.exchange

        def noted(kind, outgoing, incoming):
            if kind == "lift":
                sent[party.index] = [a.copy() for arrays in outgoing.values() for a in arrays]
            return real(kind, outgoing, incoming)

        party.exchange = noted
        with party.attempt():
            party.hello(HEADER, bytes(32), SNAPSHOT)
            weights = constants.row_weights(of.params, None)
            return lift_rows(party, words[party.index], of.rows, weights[party.index - 1] if party.index < 3 else None)

    run(task)
    for (one,) in sent.values():
        assert len(np.unique(one.reshape(8, -1), axis=0)) == 8 and len(np.unique(one)) > len(one) * (
            0.9 if one.itemsize > 1 else 0.05
        )
