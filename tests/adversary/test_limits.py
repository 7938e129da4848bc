"""Small messages that would take much memory or many threads, and parties beyond their cards: typed refusals before."""

import threading
import tracemalloc

import numpy as np
import pytest

import mipp
from mipp.client.ranking import _portions
from mipp.crypto import schedule
from mipp.errors import BusyError, LimitError
from mipp.rpc import limits
from mipp.rpc import messages as m
from mipp.rpc.associated_data import query_share_commitment
from mipp.rpc.limits import Card
from mipp.rpc.wire import encode
from tests.conftest import invited, vectors

NONE = np.empty(0, np.uint32)


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """20,000 rows of 4 words."""
    encoding = mipp.Encoding("ip", 4, bits=4, query_bits=4, scale=1.0)
    with mipp.Deployment.create(tmp_path_factory.mktemp("m") / "d", encoding, threads=1) as deployment:
        owner, user = deployment.create_owner("o"), deployment.create_user("u")
        owner.add_vectors(np.random.default_rng(0).integers(-7, 8, (20_000, 4)).astype(np.float32))
        owner.grant(user.id, rankings=("user", "server", "threshold"))
        yield deployment, user


def query(user, queries, ranking="user", k=1, **parts):
    index, config = user.index(), user.config
    column = np.zeros((queries, config.params.padded(4)), np.uint32)
    theta = np.zeros(queries, np.uint32) if ranking == "threshold" else NONE
    salt = schedule.random_bytes(32)
    header = m.QueryHeader(
        config.id, user.id, schedule.random_bytes(16), ranking, k, queries, [1, 2, 3], config.encoding.hash,
        index.snapshot, [o.grant for o in index.owners], [o.position for o in index.owners],
        [len(o.batches) for o in index.owners], [query_share_commitment(salt, column, theta)] * 3, index.batches,
    )  # fmt: skip
    return m.Query([np.frombuffer(f, np.uint8) for f in encode(header)], salt, column, theta, **parts)


@pytest.mark.parametrize(("ranking", "k"), [("user", 1), ("server", 1), ("threshold", 0)])
def test_many_columns_over_many_rows(many, ranking, k):
    """1 MiB of query asked 5 GB at every server."""
    deployment, user = many
    msg = query(user, 1 << 16, ranking, k)
    for server in (1, 2, 3):
        frames = user.sign(msg, server)
        tracemalloc.start()
        with pytest.raises(LimitError, match="at most"):
            deployment.channel.gather({server: frames})
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 40 << 20
    assert user.search(np.ones(4), 3, ranking="user").hits
    # the honest client does the same in parts
    assert user.nearest(np.ones((3000, 4)), 3, ranking="user").rows.shape == (3000, 3)


def test_many_hits(many, monkeypatch):
    _, user = many
    with pytest.raises(LimitError, match="hits"):
        monkeypatch.setattr("mipp.schemes.shares.MAX_RANKED_HITS", 10_000)
        user.search(np.ones(4), 20_000)
    assert len(user.search(np.ones(4), 9_000).hits) == 9_000


def test_the_limits_let_honest_blocks_through():
    from mipp.schemes.shares import HEADER_QUERIES, row_blocks

    for queries in (1, 64, 65, HEADER_QUERIES):
        for word in (2, 4, 8):
            assert max(len(b) for b in row_blocks(10**7, queries, word)) * queries * word <= limits.MAX_ANSWER_BYTES


def test_requests_of_one_party_at_once(world):
    server = world.deployment.servers[1]
    server.card = Card(concurrent=3)
    real, inside, go_on = server._handlers[m.ListGrants], threading.Semaphore(0), threading.Event()

    def slow(*args):
        inside.release()
        assert go_on.wait(20)
        return real(*args)

    server._handlers[m.ListGrants] = slow
    anna, berta = world.owners
    workers = [threading.Thread(target=lambda: anna.ask({1: m.ListGrants(anna.id)})) for _ in range(3)]
    for worker in workers:
        worker.start()
    for _ in workers:
        assert inside.acquire(timeout=20)
    with pytest.raises(BusyError, match="3 requests"):
        anna.ask({1: m.HeadRequest(anna.id)})
    assert berta.ask({1: m.HeadRequest(berta.id)})  # others are not concerned
    go_on.set()
    for worker in workers:
        worker.join()
    assert anna.ask({1: m.HeadRequest(anna.id)}) and not server._busy


@pytest.mark.parametrize("card", [Card(rows=33), Card(bytes=4000)])
def test_an_owners_card(world, card):
    anna = world.owners[0]
    for server in world.deployment.servers.values():
        server.card = card
    with pytest.raises(LimitError, match="may store"):
        anna.add_vectors(vectors(20))
    assert world.deployment.status()["servers_agree"]
    world.check(k=60)
    if card.rows:
        anna.add_vectors(vectors(3))
        with pytest.raises(LimitError):
            anna.add_vectors(vectors(1))
    assert world.owners[1].batches()


def test_ids_named_many_times(world):
    """A delete, a merge, a query and a fetch name each thing once, or once is all it counts for."""
    anna = world.owners[0]
    batch = anna.batches()[0].id
    anna.delete([(batch, 0)] * 300)
    assert anna.batches()[0].live == 14
    from mipp.errors import ShapeError
    from tests.adversary.forge import Change

    with pytest.raises(ShapeError):
        Change(anna, b"m" * 16, replaces=[batch] * 3).prepare([1])
    owners, batches = (np.frombuffer(i * 300, np.uint8).reshape(-1, 16) for i in (anna.id, batch))
    with pytest.raises(ShapeError, match="once"):
        world.user.ask({1: m.FetchImages(owners, batches, np.full(300, 3, "<i8"))})


def test_changes_under_way_are_few(world):
    """They wait for their commits, and each settling looks at them."""
    anna = world.owners[0]
    batch = np.frombuffer(anna.batches()[0].id, np.uint8)[None]
    for i in range(64):
        anna.ask_all(m.DeleteOp(i.to_bytes(16, "big"), batch, np.array([0], "<i8")))
    with pytest.raises(BusyError, match="64 changes under way"):
        anna.ask({1: m.DeleteOp(b"d" * 16, batch, np.array([0], "<i8"))})
    world.owners[1].add_vectors(vectors(1))
    anna.ask_all(m.AbortOp((3).to_bytes(16, "big")))
    anna.add_vectors(vectors(1))


def test_parallel_uploads_keep_to_the_card(world):
    """What is reserved counts, before its files are written."""
    from tests.adversary.forge import Change

    anna = world.owners[0]
    server = world.deployment.servers[1]
    server.card = Card(rows=130)
    changes = [Change(anna, bytes([i]) * 16, rows=40) for i in range(1, 9)]
    taken = []

    def upload(change):
        try:
            change.prepare([1])
            taken.append(change)
        except LimitError:
            pass

    threads = [threading.Thread(target=upload, args=(c,)) for c in changes]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(taken) == 2  # 30 rows are there


def test_registrations_are_small(world):
    """They are kept and passed on, also the parts for other servers."""
    import dataclasses

    from mipp.client.owner import ImageOwner
    from mipp.crypto import signing
    from mipp.errors import ShapeError

    deployment = world.deployment
    given = invited(deployment, "owner", "eve")
    keys = b"r" * 32, b"s" * 32, b"n" * 16
    stranger = ImageOwner("eve", deployment.config, deployment.channel, *keys, invitation=given)
    sent = []
    stranger.register_with_all = sent.append
    stranger.register()
    big = dataclasses.replace(sent[0], sealed=[sent[0].sealed[0], bytes(1000), bytes(1000)])
    with pytest.raises(ShapeError, match="256"):
        deployment.channel.gather({1: stranger.sign(big)})
    huge = dataclasses.replace(big, sealed=[sent[0].sealed[0], bytes(1 << 19), b""])
    with pytest.raises(LimitError):
        deployment.channel.gather({1: stranger.sign(huge)})
    assert signing.party_id(big.sign_key, big.registration) == stranger.id


def test_small_indexes_are_compared_many_times_over(world):
    """Of few hundred rows each is compared with dozens: a batch of queries takes far more memory than its scores."""
    anna, user = world.owners[0], world.user
    anna.add_vectors(vectors(240))
    index = user.index()
    encoded = user.config.encoding.encode_queries(vectors(3000))
    with pytest.raises(LimitError, match="comparisons; at most"):
        user._querier._sent(index, encoded, 1, "server")
    parts = [some for _, some in _portions(user._querier, index, encoded, "server", 1)]
    assert sum(map(len, parts)) == 3000 and 1 < len(parts) < 40
    assert len(list(_portions(user._querier, index, encoded, "user", 1))) == 1
    with_hits = [some for _, some in _portions(user._querier, index, np.concatenate([encoded] * 8), "server", 300)]
    assert max(map(len, with_hits)) * 300 <= limits.MAX_RANKED_HITS
