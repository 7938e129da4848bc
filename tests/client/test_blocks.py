"""Batches of queries that are answered some rows at a time: the same bits, one count, one state of the index."""

import dataclasses
import itertools
import time
import tracemalloc

import numpy as np
import pytest

import mipp
from mipp.crypto import schedule
from mipp.errors import AccessDeniedError, MessageError, ParameterError, StaleSnapshotError, VerificationError
from mipp.io.memory import aligned_words
from mipp.rpc import messages as m
from mipp.rpc.channel import kind_of_request
from mipp.schemes.shares import BLOCK_BYTES, query_blocks, row_blocks
from mipp.server.plan import Plan
from mipp.server.queries import OpenHeaders, row_range
from mipp.store.views import BatchView, OwnerView
from tests.conftest import ALL_RANKINGS, DIM, vectors


def small_blocks(monkeypatch, rows=13):
    for name in ("BLOCK_BYTES", "FEW_BYTES"):
        monkeypatch.setattr(f"mipp.schemes.shares.{name}", 1)
    monkeypatch.setattr("mipp.schemes.shares.LEAST_ROWS", rows)


ENCODINGS = {
    16: mipp.Encoding("ip", DIM, ring_bits=16, bits=4, query_bits=5),
    32: mipp.Encoding("cosine", DIM),
    64: mipp.Encoding("l2", DIM, ring_bits=64, query_bits=10),
}


class Collection:
    """Two owners with batches of many sizes, some deleted and some compacted away; plaintext beside it."""

    def __init__(self, folder, encoding, sizes=((70, 1, 1, 2, 33), (5, 64, 129))):
        self.deployment = mipp.Deployment.create(folder, encoding, threads=2)
        self.encoding = encoding
        self.user = self.deployment.create_user("ulla")
        self.plain = {}
        self.owners = []
        for number, counts in enumerate(sizes):
            owner = self.deployment.create_owner(f"owner{number}")
            for seed, rows in enumerate(counts):
                x = vectors(rows, seed=100 * number + seed)
                self.plain |= dict(zip(owner.add_vectors(x), x, strict=True))
            owner.grant(self.user.id, rankings=ALL_RANKINGS)
            self.owners.append(owner)

    def delete(self, owner, batch, rows):
        ids = [(owner.batches()[batch].id, r) for r in rows]
        owner.delete(ids)
        for i in ids:
            del self.plain[i]

    def scores(self, queries):
        ids = self.user.index().ids()
        rows = self.encoding.encode_rows(np.array([self.plain[i] for i in ids])).astype(np.int64)
        return self.encoding.encode_queries(queries).astype(np.int64) @ rows.T


@pytest.fixture(params=ENCODINGS)
def collection(request, tmp_path):
    made = Collection(tmp_path / "d", ENCODINGS[request.param])
    first, second = made.owners
    made.delete(first, 0, [0, 1, 2, 40, 69])
    first.compact(merge_below=1)
    made.delete(first, 0, [3, 41])
    made.delete(first, 4, range(5, 25))
    made.delete(second, 2, [0, 128])
    assert [b.generation for b in first.batches()] == [1, 0, 0, 0, 0]
    yield made
    made.deployment.close()


def prepared(collection, queries):
    user = collection.user
    return user._querier.hide(user.index(), collection.encoding.encode_queries(queries), 1, "user")


def words(replies):
    return {s: reply.score_shares for s, reply in replies.items()}


def test_answers_to_some_rows_are_their_part_of_the_whole_answer(collection):
    """At every server, bit for bit, for any rows: one header gives one mask word to each row and query."""
    user, queries = collection.user, vectors(3, seed=7)
    asked = prepared(collection, queries)
    whole = words(user._querier.send(asked))
    total = user.index().total
    rng = np.random.default_rng(0)
    edges = [np.sort(rng.choice(total + 1, 2, replace=False)) for _ in range(60)]
    edges += [(a, a + 1) for a in range(0, total, 17)] + [(a, a + 64) for a in range(0, total - 64, 31)] + [(0, total)]
    for a, b in edges:
        for server, part in words(user._querier.send(asked, range(int(a), int(b)))).items():
            assert np.array_equal(part, whole[server][:, a:b]), (server, a, b)
    assert len({a.tobytes() for a in whole.values()}) == 3
    signed = sum(whole.values()).astype(whole[1].dtype).view(f"i{whole[1].itemsize}")
    assert np.array_equal(signed, collection.scores(queries))


def test_another_header_masks_the_same_rows_again(collection):
    user, queries = collection.user, vectors(3, seed=7)
    one, other = (prepared(collection, queries) for _ in range(2))
    for server, part in words(user._querier.send(one, range(10, 60))).items():
        again = words(user._querier.send(other, range(10, 60)))[server]
        assert (part == again).mean() < 0.1


@pytest.mark.parametrize("block", [pytest.param(1, marks=pytest.mark.nightly), 17, 64, 100, 1 << 20])
def test_results_do_not_depend_on_the_block(collection, monkeypatch, block):
    small_blocks(monkeypatch, block)
    monkeypatch.setattr("mipp.schemes.shares.HEADER_QUERIES", 4)
    queries = np.concatenate([vectors(5, seed=3), vectors(2, seed=3)])
    expected = collection.scores(queries)
    index, found = collection.user.scores(queries)
    assert np.array_equal(found, expected)
    for k in (1, 10, 100, index.total):
        best = collection.user.nearest(queries, k, ranking="user")
        assert np.array_equal(best.rows, np.argsort(-expected, axis=1, kind="stable")[:, :k])
        assert np.array_equal(best.scores, np.take_along_axis(expected, best.rows, 1))


@pytest.mark.parametrize("block", [17, 1 << 20])
def test_a_range_search_by_the_user_keeps_what_reaches_the_threshold(collection, monkeypatch, block):
    small_blocks(monkeypatch, block)
    user, encoding, query = collection.user, collection.encoding, vectors(1, seed=3)
    scores = collection.scores(query)[0]
    ids = user.index().ids()
    values = encoding.values(scores[None], query)[0]
    for place in (0, 3, len(scores) // 2, len(scores) - 1):
        threshold = float(np.sort(values)[place])
        found = user.range_search(query, threshold, ranking="user")
        expected = np.flatnonzero(scores >= encoding.score_threshold(threshold, query[0]))
        expected = expected[np.argsort(-scores[expected], kind="stable")]
        assert [h.id for h in found] == [f"{ids[r][0].hex()}:{ids[r][1]}" for r in expected]
        assert [h.score for h in found] == scores[expected].tolist()
        assert found.searched == len(scores) and found.unverified == user.scheme.unverified
        plain = user.range_search(query, threshold, ranking="user", verify=False)
        assert plain == found and plain.unverified
    with pytest.raises(ParameterError, match="ranking must be"):
        user.range_search(query, threshold, ranking="threshold")


def test_a_range_search_by_the_user_needs_its_grant_and_notices_wrong_answers(world, monkeypatch):
    user, query = world.user, vectors(1)
    values = user.config.encoding.values(user.scores(query)[1], query)[0]
    threshold = float(np.sort(values)[-4])
    assert len(user.range_search(query, threshold, ranking="user")) == 4
    by_servers = user.range_search(query, threshold, ranking="server")
    assert len(by_servers) == 4 and by_servers[0].score is None and "not verified" in by_servers.unverified
    server = world.deployment.servers[1]
    answer = server.scheme.answer

    def changed(*given, **more):
        words = answer(*given, **more)
        words[0, 0] += 1
        return words

    monkeypatch.setattr(server.scheme, "answer", changed)
    with pytest.raises(VerificationError):
        user.range_search(query, threshold, ranking="user")
    monkeypatch.undo()
    for owner in world.owners:
        owner.grant(user.id, rankings=["server"])
    with pytest.raises(AccessDeniedError):
        user.range_search(query, threshold, ranking="user", owners=world.owners)


def test_rows_that_are_not_there(collection):
    user = collection.user
    asked = prepared(collection, vectors(1))
    total = user.index().total
    before = user._querier.send(asked, range(total - 1, total))
    for first, count in ((0, total + 1), (total, 1), (-1, 2), (5, 0), (3, -1), (1, total), (2**62, 2**62)):
        for server, part in asked.servers.items():
            with pytest.raises(ParameterError, match="not among"):
                user.ask({server: m.Query(asked.header, *part, first, count)})
    with pytest.raises(MessageError):
        user.ask({1: m.Query(asked.header, *asked.servers[1], 0.5, 1)})
    assert all(
        np.array_equal(words(before)[s], v)
        for s, v in words(user._querier.send(asked, range(total - 1, total))).items()
    )


def test_only_answers_for_the_user_are_given_by_rows(world):
    user = world.user
    encoded = user.config.encoding.encode_queries(vectors(1))
    for ranking, k in (("server", 3), ("threshold", 0)):
        asked = user._querier.hide(user.index(), encoded, k, ranking)
        with pytest.raises(ParameterError, match="some rows"):
            user._querier.send(asked, range(5), together=True)


# --- quotas -------------------------------------------------------------------------------------------------------


def used(world):
    anna = world.owners[0].id
    rows = [s.store.catalog.one("SELECT used FROM grants WHERE owner=?", anna)
            for s in world.deployment.servers.values()]  # fmt: skip
    return [r[0] for r in rows]


def test_a_batch_counts_once_in_however_many_blocks(world, monkeypatch):
    small_blocks(monkeypatch, 7)
    world.owners[0].grant(world.user.id, rankings=ALL_RANKINGS, quota=10)
    rounds = world.deployment.channel.rounds
    world.user.nearest(vectors(4), 3, ranking="user")
    assert world.deployment.channel.rounds - rounds == 1 + 9 + 1  # the index, 9 blocks, and their check columns
    assert used(world) == [5, 5, 5]  # check columns that are folded are one query
    world.user.scores(vectors(4), verify=False)
    assert used(world) == [9, 9, 9]
    with pytest.raises(AccessDeniedError, match="quota"):
        world.user.nearest(vectors(2), 3, ranking="user", owners=world.owners, verify=False)
    assert used(world) == [9, 9, 9]
    found = world.user.nearest(vectors(1), 3, ranking="user")  # the others, of whom not too much was asked
    assert [o.owner_name for o in found.left_out] == ["anna"] and found.index.total == 30


def test_a_header_that_a_server_does_not_remember_counts_again(world):
    world.owners[0].grant(world.user.id, rankings=ALL_RANKINGS, quota=6)
    user = world.user
    encoded = user.config.encoding.encode_queries(vectors(2))
    asked = user._querier.hide(user.index(), encoded, 1, "user")
    for rows in (range(5), range(5, 60), range(0)):
        user._querier.send(asked, rows)
    assert used(world) == [2, 2, 2]
    for server in world.deployment.servers.values():
        server.queries._headers = OpenHeaders()  # as after a restart
    user._querier.send(asked, range(5))
    assert used(world) == [4, 4, 4]
    with pytest.raises(ParameterError):
        user._querier.send(dataclasses.replace(asked), range(100))
    other = user._querier.hide(user.index(), encoded, 1, "user")
    with pytest.raises(ParameterError):
        user._querier.send(other, range(100))  # refused before it is counted
    assert used(world) == [4, 4, 4]
    user._querier.send(other, range(1))
    with pytest.raises(AccessDeniedError, match="quota"):
        user._querier.send(user._querier.hide(user.index(), encoded, 1, "user"), range(1))


def test_a_retry_of_a_ranking_by_the_servers_counts(world):
    world.owners[0].grant(world.user.id, rankings=ALL_RANKINGS, quota=2)
    user = world.user
    encoded = user.config.encoding.encode_queries(vectors(1))
    asked = user._querier.hide(user.index(), encoded, 1, "server")
    user._querier.send(asked, together=True)
    user._querier.send(asked, together=True)
    assert used(world) == [2, 2, 2]
    with pytest.raises(AccessDeniedError, match="quota"):
        user._querier.send(asked, together=True)


def test_remembered_headers_are_few(monkeypatch):
    class Of:
        def __init__(self, owner):
            self.parts = [self]
            self.view = self
            self.owner = owner

    headers, plans = OpenHeaders(size=3, per_user=2), [Of(bytes([i])) for i in range(5)]
    for i, (header, user) in enumerate(((b"a", b"u"), (b"b", b"u"), (b"c", b"u"), (b"d", b"v"), (b"e", b"v"))):
        headers.remember(header, user, plans[i])
        assert headers.find(header) is plans[i]
    assert [headers.find(h) is not None for h in (b"a", b"b", b"c", b"d", b"e")] == [False, False, True, True, True]
    headers.drop({plans[3].owner})
    assert headers.find(b"d") is None and headers.find(b"e") is plans[4]
    later = time.monotonic() + 599
    monkeypatch.setattr("mipp.server.queries.time.monotonic", lambda: later)
    assert headers.find(b"e") is plans[4]
    monkeypatch.setattr("mipp.server.queries.time.monotonic", lambda: later + 2)
    assert headers.find(b"e") is None


# --- changes meanwhile --------------------------------------------------------------------------------------------


class Meanwhile:
    """A channel on which something happens after some rounds of queries."""

    def __init__(self, channel, after, act):
        self.channel, self.left, self.act = channel, after, act
        self.servers, self.remote = channel.servers, channel.remote

    def gather(self, requests, *, together=False, spare=False):
        replies = self.channel.gather(requests, together=together)
        self.left -= 1
        if self.left == 0:
            self.act()
        return replies


def exact(world, found, queries):
    ids = found.index.ids()
    for q, query in enumerate(queries):
        scores = {i: s for i, s in world.expected(query, 10**6) if i in set(ids)}
        expected = sorted(ids, key=lambda i: -scores[i])[: found.rows.shape[1]]  # stable: ties by smaller row number
        assert [ids[r] for r in found.rows[q]] == expected
        assert found.scores[q].tolist() == [scores[i] for i in expected]


@pytest.mark.parametrize("ranking", ["user", "server"])
def test_an_upload_between_blocks_changes_nothing(world, monkeypatch, ranking):
    """The batch is answered at the state that it began with; the next one sees the new rows."""
    small_blocks(monkeypatch, 13)
    monkeypatch.setattr("mipp.schemes.shares._SERVER_BYTES", 4000)
    user, (anna, _) = world.user, world.owners
    queries = vectors(7, seed=3)
    old, new = user.index(), vectors(4, seed=50)

    def act():
        world.plain.update(zip(anna.add_vectors(new), new, strict=True))

    real, user.channel = user.channel, Meanwhile(user.channel, 2, act)
    found = user.nearest(queries, 60, ranking=ranking)
    user.channel = real
    assert old.total == 60 == found.index.total
    exact(world, found, queries)
    again = user.nearest(queries, 64, ranking=ranking)
    assert again.index.total == 64
    exact(world, again, queries)


def test_a_delete_between_blocks(world, monkeypatch):
    """A header that was begun is answered to its end; the next one does not see the deleted row."""
    user, (anna, _) = world.user, world.owners
    before = user.index()
    dead = anna.batches()[0].id
    real, user.channel = user.channel, Meanwhile(user.channel, 1, lambda: anna.delete([(dead, 0)]))
    small_blocks(monkeypatch, 13)
    index, scores = user.scores(vectors(2))
    assert index.total == 60 == scores.shape[1] and index.ids() == before.ids()
    index, scores = user.scores(vectors(2))
    user.channel = real
    assert index.total == 59 == scores.shape[1] and (dead, 0) not in index.ids()


def test_a_delete_between_headers_starts_the_batch_again(world, monkeypatch):
    """All of a batch is of one state."""
    monkeypatch.setattr("mipp.schemes.shares.HEADER_QUERIES", 4)
    user, (anna, _) = world.user, world.owners
    user.index()
    dead = anna.batches()[0].id
    real, user.channel = user.channel, Meanwhile(user.channel, 1, lambda: anna.delete([(dead, 0)]))
    found = user.nearest(vectors(7), 59, ranking="user")
    user.channel = real
    assert found.index.total == 59
    exact(world, found, vectors(7))


@pytest.mark.parametrize("ranking", ["user", "server"])
def test_an_index_that_keeps_changing_ends_in_an_error(world, monkeypatch, ranking):
    monkeypatch.setattr("mipp.client.searching._PATIENCE", 0.05)
    user = world.user
    user.index()

    class Changing:
        servers, remote = user.channel.servers, user.channel.remote

        def gather(self, requests, **options):
            if {kind_of_request(frames) for frames in requests.values()} == {"Query"}:
                raise StaleSnapshotError("the index changed")
            return real.gather(requests, **options)

    real, user.channel = user.channel, Changing()
    with pytest.raises(StaleSnapshotError):
        user.nearest(vectors(2), 3, ranking=ranking)
    user.channel = real
    world.check()


def test_a_grant_that_ends_between_blocks(world, monkeypatch):
    small_blocks(monkeypatch, 13)
    user, (anna, berta) = world.user, world.owners
    user.index()
    real, user.channel = user.channel, Meanwhile(user.channel, 2, lambda: anna.revoke(user.id))
    found = user.nearest(vectors(3), 5, ranking="user")
    user.channel = real
    assert {o.owner for o in found.index.owners} == {berta.id} and found.index.total == 30


# --- memory and cost ----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_memory_does_not_grow_with_the_answers(tmp_path):
    """256 queries over 200,000 rows: 205 MB of answers at each of three servers, of which a block is held."""
    rng = np.random.default_rng(0)
    x = rng.integers(-7, 8, (200_000, 8)).astype(np.float32)
    encoding = mipp.Encoding("ip", 8, ring_bits=32, bits=4, query_bits=4, scale=1.0)
    with mipp.Deployment.create(tmp_path / "d", encoding) as deployment:
        owner, user = deployment.create_owner("o"), deployment.create_user("u")
        owner.add_vectors(x[:199_000])
        for part in np.array_split(x[199_000:], 50):
            owner.add_vectors(part)
        owner.delete([(owner.batches()[0].id, 1000)])
        owner.grant(user.id, rankings=ALL_RANKINGS)
        user.nearest(x[:1], 5, ranking="user")
        tracemalloc.start()
        found = user.nearest(x[:256], 5, ranking="user")
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        # of each server, and of one with a deleted row among them
        assert peak < 6 * BLOCK_BYTES < 256 * 200_000 * 4
        kept = np.delete(x, 1000, axis=0).astype(np.int64)
        for q in (0, 100, 255):
            scores = kept @ x[q].astype(np.int64)
            assert found.rows[q].tolist() == np.argsort(-scores, kind="stable")[:5].tolist()


def test_cost_tells_the_rounds_of_blocks(world, monkeypatch):
    small_blocks(monkeypatch, 16)
    monkeypatch.setattr("mipp.schemes.shares.HEADER_QUERIES", 4)
    user, channel = world.user, world.deployment.channel
    user.index()
    cost = user.cost(5, ranking="user", queries=6)["user"]
    channel.bytes_sent.clear()
    rounds = channel.rounds
    user.nearest(vectors(6), 5, ranking="user")
    assert channel.rounds - rounds == cost["rounds"] == 8
    assert 3 * cost["received"] < channel.bytes_sent["Answer"] < 3 * (cost["received"] + 8 * 100)
    assert 3 * cost["sent"] < channel.bytes_sent["Query"] < 3 * (cost["sent"] + 8 * 900)


@pytest.mark.parametrize(("rows", "queries", "word"), [(1, 1, 8), (100, 4096, 8), (10**7, 1, 2), (5000, 65536, 4)])
def test_blocks_cover_all_rows_once(rows, queries, word):
    blocks = list(row_blocks(rows, queries, word))
    assert blocks[-1].stop == rows and all(a.stop == b.start for a, b in itertools.pairwise(blocks))
    assert all(len(b) % 64 == 0 for b in blocks[:-1])
    assert blocks[0].start == 0 and all(len(b) >= 2048 for b in blocks[:-1])
    assert all(len(b) * queries * word <= 1 << 25 or len(b) <= 2048 for b in blocks)
    assert sum(s.stop - s.start for s in query_blocks(queries)) == queries


def test_memory_for_answers_is_aligned():
    for shape in ((3, 64), (1, 5), (7, 0), (0, 4)):
        for dtype in (np.uint16, np.uint32, np.uint64):
            out = aligned_words(*shape, np.dtype(dtype))
            assert out.shape == shape and out.dtype == dtype and out.flags.c_contiguous and out.flags.writeable
            assert not out.size or out.ctypes.data % 64 == 0


def test_row_ranges():
    assert row_range(0, 0, 5) == range(5) and row_range(0, 0, 0) == range(0)
    assert row_range(2, 3, 5) == range(2, 5)
    for first, count in ((0, 6), (5, 1), (-1, 1), (1, 0)):
        with pytest.raises(ParameterError):
            row_range(first, count, 5)


def test_salts_and_columns_are_new_for_every_header(world):
    user = world.user
    encoded = user.config.encoding.encode_queries(vectors(1))
    one, other = (user._querier.hide(user.index(), encoded, 1, "user") for _ in range(2))
    assert one.hash != other.hash
    for s in (1, 2, 3):
        assert one.servers[s][0] != other.servers[s][0] and (one.servers[s][1] != other.servers[s][1]).any()
    assert len(schedule.random_bytes(16)) == 16


def test_live_rows_of_a_plan():
    """Which original rows answer for which live ones, against numpy, with any rows deleted."""
    rng = np.random.default_rng(1)
    for share in (0.0, 0.02, 0.5, 0.98):
        batches = []
        for i, count in enumerate((1, 64, 3, 200)):
            dead = np.flatnonzero(rng.random(count) < share)
            batches.append(BatchView(bytes([i]) * 16, i, count, 4, 0, dead, None, 0, None))
        view = OwnerView(b"o" * 16, "o", 3, b"h" * 32, 0, batches)
        plan = Plan([view], view.ids)
        starts = np.concatenate([[0], np.cumsum(view.rows)])
        dead = np.concatenate([s + b.tombstones for s, b in zip(starts, batches, strict=False)])
        live = np.setdiff1d(np.arange(plan.total), dead)
        assert plan.live_total == len(live) and (plan.live is None) == (not len(dead))
        assert plan.live is None or np.array_equal(plan.live, live)
        for a in range(0, len(live) + 1, 7):
            for b in range(a, len(live) + 1, 5):
                found, at = [], 0
                for some, start, stop, keep in plan.spans(range(a, b)):
                    assert some.start == at and stop - start <= b - a
                    at = some.stop
                    found += (np.arange(start, stop) if keep is None else start + keep).tolist()
                    assert len(found) == at
                    nonces, rows, first = plan.masks(start, stop)
                    assert len(nonces) == len(rows) and rows.sum() == stop - start and (rows > 0).all()
                    batch = next(i for i, n in enumerate(view.masks) if (n == nonces[0]).all())
                    assert starts[batch] + first == start
                assert found == live[a:b].tolist()
