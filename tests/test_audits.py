"""Audits as mathematics: tags, combinations and draws against plain integers; what each ring's rows are as words."""

import os
import pickle

import numpy as np
import pytest

from mipp.crypto import schedule
from mipp.errors import DTypeError, ParameterError, ShapeError
from mipp.params import RING_DTYPES, Params
from mipp.sharing import OwnerKeys, audits, convert_share, share_rows
from mipp.sharing.audits import Coefficients, combine_rows, combine_tags, row_tags, tag_weights, weighted_sum
from tests.reference.audits import P, combined, half_words, tagged
from tests.reference.prf import hkdf, keystream

KEY, SEED = bytes(range(32)), bytes(range(32, 64))


@pytest.mark.parametrize("bits", RING_DTYPES)
def test_an_honest_answer_is_accepted_and_a_changed_word_is_not(bits):
    rng, dtype = np.random.default_rng(bits), RING_DTYPES[bits]
    rows = rng.integers(0, np.iinfo(dtype).max, (50, 16), dtype, endpoint=True)
    halves, weights = np.array(half_words(rows)), tag_weights(KEY, 1, 16 * bits // 32)
    tags, factors = row_tags(rows, weights), Coefficients(SEED, [b"b" * 16], [50]).of(0, 0, 50)
    assert tags.tolist() == tagged(halves, weights)
    answer = combine_rows(rows, factors)
    assert answer.tolist() == combined(halves, factors)
    right = sum(int(t) * (int(c) & P) for t, c in zip(tags, factors, strict=True)) % P
    assert combine_tags(tags, factors) == right == weighted_sum(answer, weights)
    for bit in {0, 1, bits - 1}:  # the top bit, too, which escapes half of all combinations modulo a power of two
        changed = rows.copy()
        changed[37, 5] ^= dtype.type(1 << bit)
        assert weighted_sum(combine_rows(changed, factors), weights) != right
    for wrong in (rows[::-1].copy(), np.zeros_like(rows), np.roll(rows, 1, axis=1)):
        assert weighted_sum(combine_rows(wrong, factors), weights) != right


def test_known_answers():
    """Labels and keystream, made by other means: formats that owner and clouds agree on, and that old tags need."""
    weights = hkdf(KEY, b"mipp v1 audit weights" + b"\x02" + (8).to_bytes(4, "big"))
    assert np.array_equal(tag_weights(KEY, 2, 8), keystream(weights, "<u8", 8))
    stream = keystream(hkdf(SEED, b"mipp v1 audit rows" + b"b" * 16), "<u8", 5)
    assert np.array_equal(Coefficients(SEED, [b"b" * 16], [5]).of(0, 1, 5), stream[1:])
    of, rows, factors = Coefficients(SEED, [b"a" * 16, b"b" * 16], [3, 4]).draws(5)
    words = keystream(hkdf(SEED, b"mipp v1 audit draws"), "<u8", 10)
    assert np.array_equal(factors, words[5:])
    assert [int(3 * o + r) for o, r in zip(of, rows, strict=True)] == [int(w) % 7 for w in words[:5]]
    root = schedule.audit_key(KEY, b"d" * 16, b"g" * 16)
    assert (
        root == hkdf(KEY, b"mipp v1 audit" + b"d" * 16 + b"g" * 16) != schedule.journal_key(KEY, b"d" * 16, b"g" * 16)
    )


def test_weights_and_coefficients_differ_by_everything_they_are_derived_from():
    seen = [tag_weights(key, cloud, words) for key in (KEY, SEED) for cloud in (0, 1, 2) for words in (8, 12)]
    assert len({int(w[0]) for w in seen}) == len(seen)
    of = [
        Coefficients(seed, [b, b"z" * 16], [9, 9]).of(0, 0, 9) for seed in (KEY, SEED) for b in (b"a" * 16, b"b" * 16)
    ]
    assert len({int(c[0]) for c in of}) == len(of)
    one, two = Coefficients(SEED, [b"a" * 16], [9]), Coefficients(SEED, [b"c" * 16, b"a" * 16], [4, 9])
    assert np.array_equal(one.of(0, 0, 9), two.of(1, 0, 9)) and np.array_equal(one.of(0, 3, 8), one.of(0, 0, 9)[3:8])


def test_deleted_rows_are_left_out():
    """Owner and cloud leave them out by the same code, so that neither would notice a fault of it."""
    made = Coefficients(os.urandom(32), [b"a" * 16, b"b" * 16, b"c" * 16], [10, 70, 20])
    dead = [np.arange(10), np.array([0, 3, 68, 69]), np.empty(0, np.int64)]
    of, rows, factors = made.draws(5000)
    naive = sorted(d for d in zip(of.tolist(), rows.tolist(), factors.tolist(), strict=True) if d[1] not in dead[d[0]])
    found = [(b, r.tolist(), f.tolist()) for b, r, f in made.live_draws(5000, dead)]
    assert [b for b, _, _ in found] == [1, 2] and all(r == sorted(r) for _, r, _ in found)
    assert sorted((b, *pair) for b, r, f in found for pair in zip(r, f, strict=True)) == naive
    every = made.of(1, 0, 70)
    for start, stop in ((0, 70), (3, 69), (4, 68), (69, 70)):
        alive = [0 if row in dead[1] else int(every[row]) for row in range(start, stop)]
        assert made.of(1, start, stop, dead[1]).tolist() == alive


def test_coefficients_and_draws_are_spread():
    """A mean far from the middle, a row that is drawn too often or two equal coefficients would be a planted flaw."""
    made = Coefficients(os.urandom(32), [b"a" * 16, b"b" * 16, b"c" * 16], [10, 70, 20])
    factors = np.concatenate([made.of(1, 0, 70), *(made.of(i, 0, 10) for i in (0, 2))]) & np.uint64(P)
    assert len(set(factors.tolist())) == 90
    of, rows, by = made.draws(40_000)
    assert (np.bincount(of) > np.array([3500, 26800, 7400])).all() and len(set(by.tolist())) == 40_000
    hits = np.bincount(np.array([0, 10, 80])[of] + rows, minlength=100)
    assert hits.min() > 250 and hits.max() < 560  # 400 each; 7.5 standard deviations
    assert abs((by >> np.uint64(60) & np.uint64(1)).mean() - 0.5) < 0.02


def test_wrong_arguments():
    rows, weights = np.ones((3, 4), np.uint32), np.ones(4, np.uint64)
    for call, error in (
        (lambda: audits.audit_words(rows.astype(float)), DTypeError), (lambda: audits.audit_words([[1]]), DTypeError),
        (lambda: audits.audit_words(np.ones((3, 3), np.uint16)), ShapeError),
        (lambda: audits.audit_words(rows[:, ::2]), ShapeError), (lambda: audits.audit_words(rows[0]), ShapeError),
        (lambda: tag_weights(b"k", 1, 4), ParameterError), (lambda: tag_weights(KEY, 1, 0), ParameterError),
        (lambda: row_tags(rows, weights[:3]), ShapeError), (lambda: combine_rows(rows, weights), ShapeError),
        (lambda: combine_tags(weights.astype(np.int64), weights), DTypeError),
        (lambda: combine_tags(weights, weights[:3]), ShapeError),
        (lambda: weighted_sum(weights, weights[:3]), ShapeError),
        (lambda: Coefficients(b"s", [b"b" * 16], [1]), ParameterError),
        (lambda: Coefficients(SEED, [], []), ParameterError), (lambda: Coefficients(SEED, [b"b"], [1]), ParameterError),
        (lambda: pickle.dumps(Coefficients(SEED, [b"b" * 16], [1])), TypeError),
    ):  # fmt: skip
        with pytest.raises(error):
            call()


@pytest.mark.parametrize("params", [Params(), Params(ring_bits=64), Params(4, 1), Params(5, 2, 16)], ids=str)
def test_one_clouds_words_give_anothers(params):
    """For all rows, and for those that are left of a batch."""
    keys = OwnerKeys(os.urandom(32), os.urandom(16), os.urandom(16), params)
    shared = share_rows(np.random.default_rng(1).integers(-99, 99, (9, 5)), keys)
    left = np.array([1, 4, 8])
    for a in params.clouds:
        for b in set(params.clouds) - {a}:
            assert np.array_equal(convert_share(shared.shares[a], a, b, shared.nonce, 5, keys), shared.shares[b])
            some = convert_share(shared.shares[a][left], a, b, shared.nonce, 5, keys, rows=9, ordinals=left)
            assert np.array_equal(some, shared.shares[b][left])
    for a, b in ((1, 1), (1, 3 if params.n < 5 else 4), (9, 1)):
        with pytest.raises(ParameterError):
            convert_share(shared.shares[1], a, b, shared.nonce, 5, keys)
    with pytest.raises(ShapeError):
        convert_share(shared.shares[1][:, :1], 1, 2, shared.nonce, 5, keys)
