"""Rows that a hostile owner stored beyond the encoding's bounds: the user that ranks drops them by itself."""

from collections import Counter

import numpy as np
import pytest

import mipp
from mipp.paillier import generate_keypair
from mipp.schemes.lattice import parameters_of
from tests.adversary.forge import uncertified
from tests.conftest import DIM, vectors

ENCODINGS = {
    16: mipp.Encoding("ip", DIM, ring_bits=16, bits=4, query_bits=5),
    32: mipp.Encoding("ip", DIM),
    64: mipp.Encoding("l2", DIM, ring_bits=64, bits=10, query_bits=10),
}


@pytest.fixture(scope="module")
def paillier():
    return generate_keypair(2048)


class Attacked:
    """An honest owner of 40 rows in two batches, two deleted; a hostile one with rows good and bad, two deleted."""

    def __init__(self, deployment):
        self.deployment, encoding = deployment, deployment.config.encoding
        #: bits of the words that scores come in
        self.bits = encoding.ring_bits
        if deployment.config.params.scheme == "lattice":
            self.bits = parameters_of(encoding).plain_bits
        self.encoding, self.low = encoding, encoding.score_range[0]
        anna, mallory = deployment.create_owner("anna"), deployment.create_owner("mallory")
        self.mallory, self.user = mallory, deployment.create_user("ulla")
        self.queries = self.odd_queries()
        self.encoded = encoding.encode_queries(self.queries).astype(object)
        self.stored = {}
        rng = np.random.default_rng(8)
        clip = encoding.clip
        for count in (15, 25):
            self.keep(anna, encoding.encode_rows(rng.integers(-clip, clip + 1, (count, DIM))))
        self.bad = self.beyond()
        self.mixed = self.keep(mallory, np.concatenate([encoding.encode_rows(rng.normal(size=(4, DIM))), self.bad]))
        self.alone = self.keep(mallory, self.bad)
        for owner, gone in ((anna, list(self.stored)[3:5]), (mallory, [(self.mixed, 1), (self.mixed, 6)])):
            owner.delete(gone)
            for place in gone:
                del self.stored[place]
        for owner in (anna, mallory):
            owner.grant(self.user.id, rankings=("user",))
        self.ids = self.user.index().ids()
        half = 1 << (self.bits - 1)
        rows = np.array([self.stored[i] for i in self.ids]).astype(object)
        self.scores = ((self.encoded @ rows.T + half) % (2 * half) - half).astype(np.int64)
        self.good = (self.scores >= self.low) & (self.scores <= encoding.score_range[1])

    def odd_queries(self):
        """Queries close to each other, far from zero, with an odd coordinate."""
        clip = self.encoding.query_clip
        queries = np.random.default_rng(2).integers(-clip + 3, clip - 2, (1, DIM)) + vectors(4, 5).round()
        queries[:, 0] = clip  # odd
        return queries

    def keep(self, owner, rows):
        """Upload encoded rows past every check of the client."""
        # as before servers tested rows; they do not rank these
        with uncertified(self.deployment):
            ids = owner._upload(np.ascontiguousarray(rows, self.encoding.encode_rows(np.zeros((1, DIM))).dtype))
        self.stored |= dict(zip(ids, rows.tolist(), strict=True))
        return ids[0][0]

    def beyond(self):
        """Four times the longest row, along and against the queries; 2^(bits-1) in one coordinate."""
        encoding, q = self.encoding, self.queries[0]
        long = np.zeros((2, encoding.encoded_dim), np.int64)
        long[:, :DIM] = np.round(4 * np.sqrt(encoding.row_norm2) * q / np.linalg.norm(q)) * [[1], [-1]]
        wrapped = encoding.encode_rows(vectors(3, 4)).astype(np.int64)
        wrapped[:, np.flatnonzero((self.encoded % 2 != 0).all(axis=0))[0]] = -(1 << (self.bits - 1))
        return np.concatenate([long, wrapped])

    def expected(self, q, k):
        best = sorted(np.flatnonzero(self.good[q]), key=lambda row: (-self.scores[q, row], row))
        return [(self.ids[row], int(self.scores[q, row])) for row in best[:k]]


#: all schemes in every ring; the slowest of Paillier's are for the slow tests
CASES = [
    pytest.param((scheme, k), id=str((scheme, k)), marks=[pytest.mark.slow] * (scheme == "paillier" and k != 32))
    for scheme in ("shares", "lattice", "paillier")
    for k in ENCODINGS
]


@pytest.fixture(params=CASES)
def attacked(request, tmp_path, paillier, monkeypatch):
    monkeypatch.setattr("mipp.schemes.paillier.generate_keypair", lambda bits: paillier)
    scheme, k = request.param
    with mipp.Deployment.create(tmp_path / "d", ENCODINGS[k], scheme=scheme, threads=1) as deployment:
        yield Attacked(deployment)


def found(result):
    return [((h.batch, h.row), h.score) for h in result.hits]


def test_the_attack_is_one(attacked):
    """All bad rows are out of range for all queries, one above all honest rows; nothing else is."""
    bad = [(attacked.mixed, r) for r in (4, 5, 7, 8)] + [(attacked.alone, r) for r in range(5)]
    assert attacked.good.tolist() == [[i not in bad for i in attacked.ids]] * 4
    assert (attacked.scores.max(axis=1) > attacked.encoding.score_range[1]).all()
    assert len(attacked.ids) == 50 and attacked.good[0].sum() == 41


@pytest.mark.parametrize("blocks", [False, True])
def test_they_are_no_hits(attacked, monkeypatch, blocks):
    if blocks:
        monkeypatch.setattr("mipp.schemes.shares.FEW_BYTES", 1)
        monkeypatch.setattr("mipp.schemes.shares.LEAST_ROWS", 13)
        monkeypatch.setattr("mipp.schemes.shares.HEADER_QUERIES", 3)
    for k in (1, 10, 41):
        for q, result in enumerate(attacked.user.search_batch(attacked.queries, k, ranking="user", strict=True)):
            assert found(result) == attacked.expected(q, k)
            assert len(result.hits) == k and result.left_out == ()
    for k in (42, 44, 50):
        for q, result in enumerate(attacked.user.search_batch(attacked.queries, k, ranking="user", strict=True)):
            assert found(result) == attacked.expected(q, k) and len(result.hits) == 41
            assert all(h.value == attacked.encoding.values([[h.score]], attacked.queries[q])[0, 0] for h in result.hits)
    result = attacked.user.search(attacked.queries[2], 50, ranking="user")
    assert (
        found(result)
        == attacked.expected(2, 50)
        == found(attacked.user.search(attacked.queries[2], 41, ranking="user"))
    )


def left_out(about):
    return {(o.owner_name, o.owner, o.batch, o.server, o.reason) for o in about.left_out}


def reasons(attacked, mixed, alone):
    """What is said about the hostile owner's two batches."""
    owner = attacked.mallory
    return {
        ("mallory", owner.id, batch, 0, f"{rows} out of the encoding's range and {were} left out")
        for batch, (rows, were) in ((attacked.mixed, mixed), (attacked.alone, alone))
    }


FOUR, FIVE, ONE = ("4 rows are", "were"), ("5 rows are", "were"), ("1 row is", "was")


def test_empty_places_of_arrays(attacked):
    best = attacked.user.nearest(attacked.queries, 45, ranking="user")
    ids = best.index.ids()
    for q in range(4):
        assert [(ids[r], s) for r, s in zip(best.rows[q, :41], best.scores[q], strict=False)] == attacked.expected(
            q, 45
        )
    assert (best.rows[:, 41:] == -1).all() and (best.scores[:, 41:] == attacked.low - 1).all()
    assert np.array_equal(best.values, attacked.encoding.values(best.scores, attacked.queries))
    nearer = np.less if attacked.encoding.metric == "l2" else np.greater
    assert nearer(best.values[:, :41].astype(float), best.values[:, 41:].astype(float)[:, :1]).all()
    # four places, filled by row
    first = attacked.user.index().locate(np.flatnonzero(~attacked.good[0])[:4])[0]
    named = Counter(best.index.batches[b].tobytes() for b in first)
    assert {o.batch: int(o.reason[0]) for o in best.left_out} == named
    assert attacked.user.nearest(attacked.queries, 41, ranking="user").left_out == ()


def test_all_scores(attacked):
    index, scores = attacked.user.scores(attacked.queries, strict=True)
    assert np.array_equal(scores, np.where(attacked.good, attacked.scores, attacked.low - 1))
    assert left_out(index) == reasons(attacked, FOUR, FIVE)
    # what was left out once is not remembered
    assert attacked.user.index().left_out == ()
    index, _ = attacked.user.scores(attacked.queries[:1], owners="anna")
    assert index.left_out == ()
    attacked.mallory.delete([(attacked.alone, r) for r in range(1, 5)])
    index, _ = attacked.user.scores(attacked.queries)
    assert left_out(index) == reasons(attacked, FOUR, ONE)
    result = attacked.user.search(attacked.queries[0], 46, ranking="user")
    assert left_out(result) == left_out(index) and len(result.hits) == 41


def test_nothing_is_asked_again(attacked):
    channel = attacked.deployment.channel
    attacked.user.search(attacked.queries[0], 50, ranking="user")
    for call in (
        lambda: attacked.user.search(attacked.queries[0], 50, ranking="user"),
        lambda: attacked.user.scores(attacked.queries[:1]),
    ):
        before = channel.rounds
        call()
        assert channel.rounds == before + 1


def test_matches_of_a_user_that_has_all_scores(attacked):
    if attacked.deployment.config.params.scheme == "shares":
        pytest.skip("servers compare here")
    q = attacked.queries[0]
    near = attacked.encoding.values(attacked.scores[:1, attacked.good[0]], q)[0]
    threshold = float(near.max() if attacked.encoding.metric == "l2" else near.min())
    hits = attacked.user.range_search(q, threshold)
    assert sorted((h.batch, h.row) for h in hits) == sorted(i for i, _ in attacked.expected(0, 50))
    assert left_out(hits) == reasons(attacked, FOUR, FIVE)
