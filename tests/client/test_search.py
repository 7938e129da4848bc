"""Encrypted ranking equals the ranking of the quantised plaintext, through every change of the index."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import mipp
from mipp.errors import AccessDeniedError, NotFoundError, ParameterError
from tests.conftest import ALL_RANKINGS, DIM, vectors


@pytest.mark.parametrize("ranking", ["user", "server"])
def test_ranking_is_exact(world, ranking):
    for seed in range(5):
        world.check(k=10, seed=seed, ranking=ranking)
    world.check(k=60, ranking=ranking)
    world.check(k=1, ranking=ranking)


@pytest.mark.parametrize("ranking", ["user", "server"])
def test_batch_of_queries_equals_single_queries(world, ranking):
    queries = vectors(7, seed=3)
    for query, result in zip(queries, world.user.search_batch(queries, 5, ranking=ranking), strict=True):
        assert [((h.batch, h.row), h.score) for h in result.hits] == world.expected(query, 5)


@pytest.mark.parametrize("ranking", ["user", "server"])
def test_large_batches_are_split(world, monkeypatch, ranking):
    monkeypatch.setattr("mipp.schemes.shares._SERVER_BYTES", 4000)
    monkeypatch.setattr("mipp.schemes.shares.FEW_BYTES", 1)
    monkeypatch.setattr("mipp.schemes.shares.LEAST_ROWS", 17)
    queries = vectors(7, seed=3)
    for query, result in zip(queries, world.user.search_batch(queries, 5, ranking=ranking), strict=True):
        assert [((h.batch, h.row), h.score) for h in result.hits] == world.expected(query, 5)
    index, scores = world.user.scores(queries)
    assert scores.shape == (7, 60) == (len(queries), index.total)


@pytest.mark.parametrize("ranking", ["user", "server"])
def test_ties_go_to_the_smaller_row(deployment, ranking):
    owner, user = deployment.create_owner("o"), deployment.create_user("u")
    owner.add_vectors(np.repeat(vectors(2), 20, axis=0))
    owner.grant(user.id, rankings=ALL_RANKINGS)
    hits = user.search(vectors(2)[1], 40, ranking=ranking).hits
    assert [h.row for h in hits] == list(range(20, 40)) + list(range(20))


@pytest.mark.parametrize(
    "encoding",
    [
        mipp.Encoding("ip", DIM, ring_bits=16, bits=4, query_bits=5),
        mipp.Encoding("l2", DIM, ring_bits=64, query_bits=10),
        mipp.Encoding("l1", DIM, levels=5, ring_bits=16),
        mipp.Encoding("hamming", DIM, ring_bits=16),
    ],
    ids=["ip16", "l2-64", "l1-16", "hamming16"],
)
def test_all_metrics_and_rings(tmp_path, encoding):
    rng = np.random.default_rng(4)
    high = {"l1": 5, "hamming": 2}.get(encoding.metric)
    x = rng.integers(0, high, (40, DIM)) if high else rng.normal(size=(40, DIM)) * 3
    with mipp.Deployment.create(tmp_path / "d", encoding) as deployment:
        owner, user = deployment.create_owner("o"), deployment.create_user("u")
        owner.add_vectors(x[:25])
        owner.add_vectors(x[25:])
        owner.grant(user.id, rankings=ALL_RANKINGS)
        scores = encoding.encode_queries(x[:3]).astype(int) @ encoding.encode_rows(x).astype(int).T
        _, found = user.scores(x[:3])
        assert np.array_equal(found, scores)
        for ranking in ("user", "server") if encoding.allows_server_ranking else ("user",):
            for q, result in zip(scores, user.search_batch(x[:3], 10, ranking=ranking), strict=True):
                assert [h.score for h in result.hits] == np.sort(q)[::-1][:10].tolist()


def test_deleted_images_are_in_no_answer(world):
    hits = world.check().hits
    for hit in hits[:3]:
        next(o for o in world.owners if o.id == hit.owner).delete([hit.id])
        del world.plain[hit.batch, hit.row]
    world.check(k=57)
    with pytest.raises(ParameterError, match="57 images"):
        world.user.search(vectors(1)[0], 58)


def test_deletes_of_rows_that_are_not_there(world):
    owner, other = world.owners
    mine = owner.batches()[0].id
    theirs = other.batches()[0].id
    for ids in ([(mine, 15)], [(mine, 0), (mine, 99)], [(theirs, 0)], [(b"x" * 16, 0)]):
        with pytest.raises(NotFoundError):
            owner.delete(ids)
    for ids in ([], ["zz:0"], ["00:0"], [("a", "b")], [(mine, -1)], [f"{mine.hex()}"]):
        with pytest.raises(ParameterError):
            owner.delete(ids)
    world.check(k=60)


class Moves:
    """Stands in for a journal that is up to date: follows places through merges, and knows no earlier ones."""

    def __init__(self, plain):
        self.plain = plain

    def present(self, pairs, live):
        return {pair: pair for pair in pairs}

    def merging(self, batch, origins, numbers, moving):
        for new, (n, row) in enumerate(zip(moving.which, moving.rows, strict=True)):
            self.plain[batch, new] = self.plain.pop((moving.batches[n], int(row)))

    def unlisted(self, live):
        return []

    def settle(self, live, waiting):
        pass

    def unread(self, live):
        return []

    def differing(self, live):
        return {}

    def begin(self, batch, labels):
        raise AssertionError("a merge has no labels")

    def deleted(self, ids):
        for i in ids:
            del self.plain[i]


def test_compact_merges_small_batches_and_keeps_images(world):
    owner = world.owners[0]
    owner.journal = Moves(world.plain)
    batch = owner.batches()[0].id
    owner.delete([(batch, 0), (batch, 7)])
    before = world.check(k=58)
    names = {h.score: f.name for h in before.hits if h.owner == owner.id for f in _fetch(world.user, h)}
    assert len(names) == 13
    assert owner.compact() == 1
    assert [(b.rows, b.live, b.generation) for b in owner.batches()] == [(28, 28, 0)]
    after = world.check(k=58)
    assert {h.score: f.name for h in after.hits if h.owner == owner.id for f in _fetch(world.user, h)} == names
    kept, gone = world.user.fetch([(batch, 1), (batch, 7)])
    assert kept.name in names.values() and isinstance(gone.error, AccessDeniedError)
    assert owner.compact() == 0


def _fetch(user, hit):
    try:
        return user.fetch([hit], strict=True)
    except NotFoundError:
        return []


def test_large_batches_are_compacted_in_place(world):
    owner = world.owners[0]
    batch = owner.batches()[0]
    for row in (3, 4, 11):
        owner.delete([(batch.id, row)])
        del world.plain[batch.id, row]
        share = next((world.home(1) / "shares").glob(f"*/{batch.id.hex()}.*"))
        size = share.stat().st_size
        owner.compact(merge_below=1)
        share = next((world.home(1) / "shares").glob(f"*/{batch.id.hex()}.*"))
        assert share.stat().st_size < size + 200
        world.check(k=10)
    now = owner.batches()[0]
    assert (now.id, now.rows, now.live, now.generation) == (batch.id, 15, 12, 3)
    images = list((world.home(1) / "images").glob(f"*/{batch.id.hex()}.*"))
    assert len(images) == 1
    assert world.user.fetch([(batch.id, 5)])[0].content == bytes([0, 5]) * 50
    with pytest.raises(NotFoundError):
        world.user.fetch([(batch.id, 3)], strict=True)
    assert world.deployment.verify()["problems"] == []


def test_everything_survives_reopening(world):
    before = world.check()
    world.owners[0].delete([(world.owners[0].batches()[0].id, 2)])
    world.plain.pop((world.owners[0].batches()[0].id, 2))
    world.reopen()
    world.check()
    world.owners[1].add_vectors(vectors(3, seed=9))
    assert world.deployment.status()["images"] == 62
    assert before.hits


def test_an_owner_without_batches_disturbs_nothing(world):
    new = world.deployment.create_owner("clara")
    new.grant(world.user.id, rankings=ALL_RANKINGS)
    world.check()
    with pytest.raises(ParameterError, match="0 images"):
        world.user.search(vectors(1)[0], 1, owners=[new.id])
    world.plain |= dict(zip(new.add_vectors(vectors(2, 5)), vectors(2, 5), strict=True))
    world.check(k=62)


def test_search_of_some_owners(world):
    owner = world.owners[1]
    hits = world.user.search(vectors(1)[0], 30, owners=[owner.id]).hits
    assert {h.owner for h in hits} == {owner.id} and {h.owner_name for h in hits} == {"berta"}
    with pytest.raises(ParameterError):
        world.user.search(vectors(1)[0], 31, owners=[owner.id])


@pytest.mark.slow
def test_threads_add_and_search_at_once(world):
    """One deployment used by several threads of a process."""
    quiet = world.deployment.create_owner("quiet")
    quiet.add_vectors(vectors(20, 33))
    quiet.grant(world.user.id, rankings=ALL_RANKINGS)
    query = vectors(1, 7)[0]
    expected = [h.score for h in world.user.search(query, 20, owners=[quiet.id]).hits]

    def add(owner, seed):
        for i in range(6):
            owner.add_vectors(vectors(2, seed + i))

    def search():
        for _ in range(20):
            assert [h.score for h in world.user.search(query, 20, owners=[quiet.id]).hits] == expected
            scores = [h.score for h in world.user.search(query, 30).hits]
            assert scores == sorted(scores, reverse=True)

    with ThreadPoolExecutor(4) as pool:
        jobs = [pool.submit(add, o, 100 * i) for i, o in enumerate(world.owners)] + [
            pool.submit(search) for _ in range(2)
        ]
        for job in jobs:
            job.result()
    assert world.deployment.status()["images"] == 60 + 20 + 24


def test_bytes_and_rounds_are_counted(world):
    world.check()
    channel = world.deployment.channel
    channel.bytes_sent.clear()
    rounds = channel.rounds
    world.user.search(vectors(1)[0], 5, ranking="user")
    assert channel.rounds - rounds == 1
    assert set(channel.bytes_sent) == {"Query", "Answer"}
    words = world.user.cost(5, ranking="user")["user"]["received"]  # fewer where they travel
    assert words == 60 * 4 * (1 + world.user.scheme.checks) or channel.remote
    assert 3 * words < channel.bytes_sent["Answer"] < 3 * (words + 100)


@pytest.mark.parametrize("ranking", ["user", "server"])
def test_nearest_are_the_hits_as_arrays(world, monkeypatch, ranking):
    queries = vectors(7, seed=3)
    results = world.user.search_batch(queries, 5, ranking=ranking)
    monkeypatch.setattr("mipp.schemes.shares._SERVER_BYTES", 4000)
    monkeypatch.setattr("mipp.schemes.shares.FEW_BYTES", 1)
    monkeypatch.setattr("mipp.schemes.shares.LEAST_ROWS", 17)
    found = world.user.nearest(queries, 5, ranking=ranking)
    ids = found.index.ids()
    for q, result in enumerate(results):
        assert [(h.batch, h.row) for h in result.hits] == [ids[r] for r in found.rows[q]]
        assert [h.score for h in result.hits] == found.scores[q].tolist()
        assert [h.value for h in result.hits] == found.values[q].tolist()


def test_owners_get_their_rows_back(world):
    """As quantised, without the deleted ones; through deletions, rewriting and merging. Others' batches are refused."""
    owner, other = world.owners
    encoding = world.deployment.config.encoding

    def check():
        left = {}
        for batch in owner.batches():
            numbers, features = owner.rows_of(batch.id)
            assert len(numbers) == batch.live and features.shape == (batch.live, encoding.dim)
            left |= {(batch.id, int(n)): row for n, row in zip(numbers, features, strict=True)}
        mine = {h.batch for h in world.user.search(vectors(1)[0], 5, owners=[owner.id], ranking="user").hits}
        assert mine <= {batch for batch, _ in left}
        for place, row in left.items():
            expected = world.plain[place] / np.linalg.norm(world.plain[place])
            np.testing.assert_allclose(row, expected, atol=0.51 * encoding.scale[0])

    check()
    batch = owner.batches()[0].id
    for rows in ((0, 7), (3,)):
        owner.delete([(batch, r) for r in rows])
        check()
        owner.compact(merge_below=1)
        check()
    owner.journal = Moves(world.plain)
    owner.compact()
    check()
    owner.delete([(owner.batches()[0].id, r) for r in range(owner.batches()[0].rows)])
    assert owner.rows_of(owner.batches()[0].id)[1].shape == (0, encoding.dim)
    with pytest.raises(NotFoundError):
        owner.rows_of(other.batches()[0].id)
