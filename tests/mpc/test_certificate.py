"""The servers' test of rows on shares: who passes, who is named, what is opened, what it costs."""

import dataclasses

import numpy as np
import pytest

from mipp.encoding import Encoding
from mipp.errors import MippError, ParameterError, StaleSnapshotError
from mipp.mpc import certificate, comparison, cost, ideal
from mipp.mpc.certificate import Batch, certify_rows
from mipp.mpc.cost import certificate_cost
from mipp.mpc.session import run_local
from tests.mpc.parties import HEADER, KEYS, SNAPSHOT, recorded, run
from tests.mpc.ranged import ENCODINGS, FINITE, Ranged, ranged
from tests.mpc.test_cost import counted, exactly
from tests.mpc.test_security import looks_uniform

ROWS = 300


@pytest.fixture(params=[*ENCODINGS, *FINITE])
def of(request):
    return ranged(request.param)


def rows_of(of, count=ROWS, seed=1):
    return of.encoding.encode_rows(of.features(count, np.random.default_rng(seed)))


def crafted(of, rows):
    """Rows that break the rule, each in another way; words of the ring's two's complement."""
    bad = rows.copy()
    half, k = of.half, of.encoding.ring_bits
    bad[7] = 0
    bad[7, 0] = 1 << (k - 2)
    bad[100, :2] = -half
    bad[150, 1] = half - 1
    bad[200] *= 4
    bad[201, 0] = of.rows.bound + 1  # short of what a projection tells for certain
    e = of.rows.extra
    bad[299, -1] = bad[299, -1] + 2 * e.slack // e.unit + 1 if e is not None else half >> 2
    return bad


def test_rows_in_range_pass_and_others_are_named(of):
    rows = rows_of(of)
    assert of.certify(of.share(rows)) == []
    bad = crafted(of, rows)
    words = of.share(bad)
    expected = np.flatnonzero(of.rows.failing(of.padded(bad)))
    assert {7, 100, 150, 299} <= set(expected) and len(expected) < 8
    assert of.certify(words) == expected.tolist()
    assert ideal.refused_rows(words, of.rows, of.params).tolist() == expected.tolist()


def test_one_over_the_limit():
    """The sum of squares is compared exactly, in every ring."""
    for k in (16, 32, 64):
        of = Ranged(Encoding("ip", 6, bits=5, query_bits=5, ring_bits=k, row_norm2=230, query_norm2=230))
        rows = np.zeros((40, 6), rows_of(of, 1).dtype)
        rows[:, :2] = 15, 2  # 229
        rows[:20, 2] = 1  # 230
        assert of.certify(of.share(rows)) == []
        rows[13, 3] = 1  # 231
        assert of.certify(of.share(rows)) == [13]


@pytest.mark.parametrize("count", [1, 2, 31, 33, 257])
def test_batches_of_every_size(count):
    of = Ranged(ENCODINGS["l2"])
    rows = rows_of(of, count)
    assert of.certify(of.share(rows)) == []
    rows[-1, 3] = of.half >> 1
    assert of.certify(of.share(rows)) == [count - 1]


def test_shares_that_do_not_lie_on_a_line(of):
    """Every pair of servers gives a row in range, another one for each."""
    rows = rows_of(of, 60)
    for server in (1, 2, 3):
        words = {i: w.copy() for i, w in of.share(rows).items()}
        words[server][17, 2] += 1
        words[server][40, -1] ^= words[server].dtype.type(of.half)
        found = of.certify(words)
        assert {17, 40} <= set(found) and len(found) == 2
        assert ideal.refused_rows(words, of.rows, of.params).tolist() == found


def test_many_bad_rows_are_named_up_to_a_number(monkeypatch):
    monkeypatch.setattr(certificate, "MOST_NAMED", 50)
    of = Ranged(ENCODINGS["cosine"])
    rows = rows_of(of, 900)
    rows[:, 0] = of.half >> 1
    found = of.certify(of.share(rows))
    assert found == list(range(50))


@pytest.mark.parametrize("dim", [64, 2048])
def test_naming_rows_takes_few_rounds(dim):
    """However many groups fail: a failing batch costs no more than a few honest ones."""
    of = Ranged(Encoding("cosine", dim))
    rows = rows_of(of, 700)
    rows[:, 0] = of.half >> 1
    bad, good = counted(of.task(of.share(rows))), counted(of.task(of.share(rows_of(of, 700))))
    assert bad[1].rounds <= 3 * good[1].rounds


def test_no_rows_at_all():
    """All were deleted: the parties agree on that."""
    of = Ranged(ENCODINGS["cosine"])
    assert of.certify({i: np.empty((0, of.width), np.uint32) for i in (1, 2, 3)}) == []


def test_chunks(monkeypatch):
    """Rows are tested some at a time; progress is told."""
    monkeypatch.setattr(certificate, "_CHUNK_WORDS", 4096)
    of = Ranged(ENCODINGS["l2, weights"])
    rows, told = rows_of(of, 3000), []
    rows[1200] *= 5
    words = of.share(rows)
    found = run(of.task(words, progress=told.append))
    assert found[0].tolist() == [1200] and sorted(set(told))[-1] == 3000 and len(set(told)) > 2


@pytest.mark.parametrize("exact", [False, True])
def test_cost_is_exact(of, exact, monkeypatch):
    monkeypatch.setattr(certificate, "TOGETHER", 500)
    monkeypatch.setattr(cost, "TOGETHER", 500)
    rule = dataclasses.replace(of.rows, exact=True, bound=of.rows.bound) if exact else of.rows
    for rows in (400, 777):
        words = of.share(rows_of(of, rows))
        exactly(certificate_cost(rule, rows), counted(of.task(words, rule)))


def test_words_one_by_one_where_projections_do_not_reach():
    of = Ranged(ENCODINGS["ip, long rows"])
    assert of.rows.exact
    rows = np.array([[4000, 0, 0], [2400, 3200, 0], [-4000, 0, 0]] * 20, np.int16)
    assert of.certify(of.share(rows)) == []
    rows[3, 0], rows[8, 2] = 4001, -(1 << 15)
    assert of.certify(of.share(rows)) == [3, 8]


# --- what is opened ------------------------------------------------------------------------------------------------


def opened(of, rows):
    """Everything that the parties opened, in order."""
    seen = []

    def task(party):
        if party.index == 1:
            real = party.note_opened
            party.note_opened = lambda words: (seen.append(words.copy()), real(words))[1]
        return of.task(words)(party)

    words = of.share(rows)
    run(task)
    return seen


def test_nothing_opened_depends_on_rows_in_range(of):
    """All of it is zero, for rows at the bounds as for others."""
    rows = rows_of(of)
    if of.encoding.metric in ("ip", "cosine") and not of.rows.exact:
        rows[:] = 0
        rows[::2, 0] = np.sqrt(of.rows.limit).astype(int)
    for one in (rows, rows[::-1].copy(), rows_of(of, seed=9)):
        for words in opened(of, one):
            assert not words.any()


def test_every_message_is_uniform():
    of = Ranged(ENCODINGS["l2"])
    for rows in (np.zeros((4000, 16), np.int32), rows_of(of, 4000)):
        frames = []
        recorded(of.task(of.share(rows)), frames)
        kinds = {}
        for header, payload in frames:
            if header.kind not in ("hello", "confirm", "done", "abort"):
                kinds.setdefault(header.kind, []).append(payload)
        assert {"lift", "reshare", "open", "split", "generate", "and"} <= set(kinds)
        for kind, parts in kinds.items():
            assert looks_uniform(b"".join(sorted(set(parts)))), kind


# --- planted faults: each test here sees one -----------------------------------------------------------------------


def wrap_attack(of):
    """Rows whose sum of squares is small modulo 2^(k + e): only the test of projections stops them."""
    rows = np.zeros((64, of.encoding.encoded_dim), rows_of(of, 1).dtype)
    rows[9, 0] = 1 << 24
    return rows


def test_a_test_that_is_skipped_is_missed(monkeypatch):
    of = Ranged(Encoding("cosine", 16))
    assert of.rows.sum_bits == 40
    words = of.share(wrap_attack(of))
    assert of.certify(words) == [9]
    real = certificate.less_than

    def sums_alone(party, pair, width):
        bits = real(party, pair, width)
        bits[0] = 0  # the 80 tests of the one group
        bits[1] &= ~np.uint64((1 << 16) - 1)
        return bits

    monkeypatch.setattr(certificate, "less_than", sums_alone)
    assert of.certify(words) == []


def test_a_bound_off_by_one_is_missed():
    of = Ranged(Encoding("ip", 6, bits=5, query_bits=5, row_norm2=230, query_norm2=230))
    rows = np.zeros((40, 6), np.int32)
    rows[13, :4] = 15, 2, 1, 1
    assert of.certify(of.share(rows)) == [13]
    loose = dataclasses.replace(of.rows, limit=231)
    assert of.certify(of.share(rows), loose) == []


def test_coins_that_are_known_before_are_no_test(monkeypatch):
    """Who knows the coins before the shares are fixed chooses words that all projections leave out."""
    from mipp.mpc.session import Party

    of = Ranged(Encoding("cosine", 16))
    fixed = np.random.default_rng(3)
    stream = fixed.integers(0, 256, 1 << 20).astype(np.uint8)
    # for the first word of the second row of a group, every coefficient is 0: bits 01
    size = of.rows.group * of.rows.width
    per = -(-size // 4)
    two = np.unpackbits(stream[: certificate.PROJECTIONS * per].reshape(certificate.PROJECTIONS, per), axis=1)
    two = two[:, : 2 * size].reshape(certificate.PROJECTIONS, size, 2)
    two[:, of.rows.width] = 0, 1
    packed = np.packbits(two.reshape(certificate.PROJECTIONS, -1), axis=1).reshape(-1)
    rows = np.zeros((of.rows.group, 16), np.int32)
    rows[1, 0] = 1 << 24
    words = of.share(rows)
    assert of.certify(words) == [1]
    monkeypatch.setattr(Party, "coins", lambda self, purpose, count: packed[:count])
    assert of.certify(words) == []


@pytest.mark.parametrize("projections", [1, 3])
def test_soundness_counted_in_a_tiny_world(monkeypatch, projections):
    """With few projections the worst rows pass with 2^-projections, not more."""
    monkeypatch.setattr(certificate, "PROJECTIONS", projections)
    of = Ranged(Encoding("cosine", 16))
    words = of.share(wrap_attack(of)[:10])
    passed = sum(of.certify(words) == [] for _ in range(240))
    mean = 240 / 2**projections
    assert mean - 6 * np.sqrt(mean) < passed < mean + 6 * np.sqrt(mean)


# --- what parties must agree on -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes, error",
    [
        ({"header": b"x" * 32}, ParameterError), ({"snapshot": b"x" * 32}, StaleSnapshotError),
        ({"rows": ROWS - 1}, ParameterError), ({"rule": "limit"}, ParameterError),
    ],
)  # fmt: skip
def test_parties_that_mean_different_rows(changes, error):
    of = Ranged(ENCODINGS["cosine"])
    if "rule" in changes:
        changes = {"rule": dataclasses.replace(of.rows, limit=of.rows.limit + 1)}
    words, batch = of.share(rows_of(of)), Batch(HEADER, SNAPSHOT, ROWS, of.rows, of.params)

    def task(party):
        mine = dataclasses.replace(batch, **changes) if party.index == 2 else batch
        return certify_rows(party, lambda a, b: words[party.index][a:b], mine)

    with pytest.raises(error):
        run_local(task, KEYS, timeout=5)


def test_a_server_whose_rows_cannot_be_read():
    of = Ranged(ENCODINGS["cosine"])
    words = of.share(rows_of(of))

    def task(party):
        def rows(start, stop):
            if party.index == 2:
                raise OSError("disk")
            return words[party.index][start:stop]

        return certify_rows(party, rows, Batch(HEADER, SNAPSHOT, ROWS, of.rows, of.params))

    with pytest.raises((OSError, MippError)):
        run_local(task, KEYS, timeout=5)


def test_three_blocks(monkeypatch):
    monkeypatch.setattr(comparison, "_SPLIT_GROUPS", 3)
    of = Ranged(ENCODINGS["l2"])
    rows = crafted(of, rows_of(of, 4000))
    assert of.certify(of.share(rows)) == np.flatnonzero(of.rows.failing(of.padded(rows))).tolist()
