"""The lattice scheme end to end: one cloud, a key centre, queries under the user's own lattice keys."""

import contextlib
import dataclasses
import pickle
import sqlite3

import numpy as np
import pytest

import mipp
from mipp.crypto import schedule
from mipp.errors import (
    AccessDeniedError,
    AuthenticationError,
    LimitError,
    MessageError,
    MippError,
    MissingKeyError,
    NotFoundError,
    ParameterError,
    ShapeError,
    VerificationError,
)
from mipp.lattice import SecretKey
from mipp.rpc import messages as m
from mipp.rpc.associated_data import query_share_commitment
from mipp.rpc.wire import encode
from mipp.schemes.lattice import parameters_of
from tests.adversary.grants import store_old_grant
from tests.conftest import DIM, KINDS, World, made, vectors

#: name of the parameter set, bits of a word -> encoding whose scores need it
ENCODINGS = {
    ("n4096", 16): mipp.Encoding("cosine", DIM, bits=6, ring_bits=16),
    ("n4096", 32): mipp.Encoding("cosine", DIM),
    ("n4096", 64): mipp.Encoding("cosine", DIM, ring_bits=64),
    ("n8192", 32): mipp.Encoding("cosine", DIM, bits=12, query_bits=12),
    ("n8192", 64): mipp.Encoding("cosine", DIM, bits=12, query_bits=12, ring_bits=64),
}
BOTH = [("n4096", 32), ("n8192", 32)]


@pytest.fixture(params=BOTH, ids=lambda p: f"{p[0]}-{p[1]}")
def encoding(request):
    assert parameters_of(ENCODINGS[request.param]).name == request.param[0]
    return ENCODINGS[request.param]


@pytest.fixture(params=KINDS)
def world(request, tmp_path, encoding):
    with made(request.param, tmp_path, encoding, scheme="lattice") as deployment:
        yield World(deployment)


def expands(world):
    """Whether the parameters have evaluation keys."""
    return parameters_of(world.deployment.config.encoding).special is not None


@pytest.mark.parametrize("encoding", list(ENCODINGS), indirect=True, ids=lambda p: f"{p[0]}-{p[1]}")
def test_ranking_is_the_plaintexts(world):
    for seed in range(2):
        world.check(k=60, seed=seed)
    found = world.user.search(vectors(1, 3)[0], k=5)  # the user ranks without being told to
    assert [h.score for h in found.hits] == sorted((h.score for h in found.hits), reverse=True)
    assert not found.verified and "lattice" in found.unverified


@pytest.mark.parametrize("metric", ["l2", "ip", "l1", "hamming"])
def test_every_metric(tmp_path, metric):
    encoding = mipp.Encoding(metric, 5, **({"levels": 4} if metric == "l1" else {}))
    rng = np.random.default_rng(1)
    x = (
        rng.integers(0, 4 if metric == "l1" else 2, (40, 5))
        if metric in ("l1", "hamming")
        else rng.normal(size=(40, 5)) * 40
    )
    with mipp.Deployment.create(tmp_path / "d", encoding, scheme="lattice") as deployment:
        owner, user = deployment.create_owner("anna"), deployment.create_user("ulla")
        owner.add_vectors(x)
        owner.grant(user.id)
        index, scores = user.scores(x[:2])
        rows = encoding.encode_rows(x).astype(np.int64)[[r for _, r in index.ids()]]
        assert np.array_equal(scores, encoding.encode_queries(x[:2]).astype(np.int64) @ rows.T)
        theta = float(np.median(encoding.values(scores[:1], x[:1])))
        near = encoding.values(scores[:1], x[:1])[0]
        reached = np.flatnonzero(near >= theta if metric == "ip" else near <= theta)
        matched = user.range_search(x[0], theta)
        rows_of = np.array([r for _, r in index.ids()])
        best_first = reached[np.argsort(-scores[0, reached], kind="stable")]
        assert [h.row for h in matched] == rows_of[best_first].tolist()


@pytest.mark.parametrize("which", BOTH, ids=lambda p: p[0])
def test_scores_at_both_ends_of_the_range(tmp_path, which):
    """Rows and queries as long as the encoding allows: the largest and the least score come out whole."""
    encoding = ENCODINGS[which]
    x = np.eye(DIM)[:1] * np.array([[1], [-1]])
    with mipp.Deployment.create(tmp_path / "d", encoding, scheme="lattice") as deployment:
        owner, user = deployment.create_owner("anna"), deployment.create_user("ulla")
        owner.add_vectors(x)
        owner.grant(user)
        _, scores = user.scores(x[:1])
        rows, query = encoding.encode_rows(x).astype(np.int64), encoding.encode_queries(x[:1]).astype(np.int64)
        assert np.array_equal(scores, query @ rows.T)
        assert scores[0].max() > 0.9 * encoding.score_range[1] and scores[0].min() == -scores[0].max()


@pytest.mark.parametrize("block", [1, 1 << 26])
def test_rows_of_several_polynomials(tmp_path, monkeypatch, block):
    """One row less than a polynomial holds, as many, one more, and several; some of them deleted."""
    monkeypatch.setattr("mipp.schemes.lattice._BLOCK_BYTES", block)
    encoding = ENCODINGS[BOTH[0]]
    degree = parameters_of(encoding).degree
    x = vectors(2 * degree + 3)
    with mipp.Deployment.create(tmp_path / "d", encoding, scheme="lattice") as deployment:
        owner, user = deployment.create_owner("anna"), deployment.create_user("ulla")
        rows, query = encoding.encode_rows(x).astype(np.int64), encoding.encode_queries(x[:1]).astype(np.int64)
        owner.grant(user)
        at = 0
        for until in (degree - 1, degree, degree + 1, len(x)):
            ids = owner.add_vectors(x[at:until])
            at = until
            _, scores = user.scores(x[:1])
            assert np.array_equal(scores, query @ rows[:until].T)
        owner.delete(ids[1:5])
        left = np.delete(rows, range(degree + 2, degree + 6), axis=0)
        for _ in range(2):
            _, scores = user.scores(x[:1])
            assert np.array_equal(scores, query @ left.T)
            owner.compact(merge_below=1)


def test_batches_of_queries(world):
    queries = vectors(3, 9)
    batch = world.user.search_batch(queries, 4)
    for query, result in zip(queries, batch, strict=True):
        assert [((h.batch, h.row), h.score) for h in result.hits] == world.expected(query, 4)


def test_many_queries_go_under_several_headers(world, monkeypatch):
    monkeypatch.setattr("mipp.schemes.lattice.MAX_QUERY_BYTES", 2 * world.user.cost(k=1)["user"]["sent"])
    world.user.index()
    world.deployment.channel.bytes_sent.clear()
    queries = vectors(5, 9)
    for query, result in zip(queries, world.user.search_batch(queries, 4), strict=True):
        assert [((h.batch, h.row), h.score) for h in result.hits] == world.expected(query, 4)
    with pytest.raises(LimitError, match="fewer queries"):
        Query(world, queries=3).ask()


def test_deletes_compaction_and_new_batches(world):
    anna, _ = world.owners
    gone = [i for i in world.plain if i[1] in (0, 3, 14)]
    for pair in gone:
        del world.plain[pair]
    mine = {b.id for b in anna.batches()}
    anna.delete([pair for pair in gone if pair[0] in mine])
    world.owners[1].delete([pair for pair in gone if pair[0] not in mine])
    world.check()
    x = vectors(30, 77)
    world.plain |= dict(zip(anna.add_vectors(x), x, strict=True))
    world.check(k=30)
    anna.compact(merge_below=1)  # rewritten by the servers, ids stay
    world.check(k=30)
    before = len(world.owners[1].batches())
    world.owners[1].compact()  # decrypted and encrypted again by the owner, from the one cloud
    assert len(world.owners[1].batches()) < before
    user = world.user
    found = user.search(vectors(1, 5)[0], k=len(world.plain))
    rows = world.deployment.config.encoding.encode_rows(np.array(list(world.plain.values()))).astype(np.int64)
    q = world.deployment.config.encoding.encode_queries(vectors(1, 5)).astype(np.int64)
    assert [h.score for h in found.hits] == sorted((rows @ q[0]).tolist(), reverse=True)


def test_reopened(world):
    world.check()
    before = world.user.id
    world.reopen()
    assert world.user.id == before
    world.deployment.channel.bytes_sent.clear()
    world.check()
    assert world.deployment.channel.bytes_sent["KeepEvaluationKey"] == 0
    status = world.deployment.status()
    assert status["params"] == {"n": 2, "t": 1, "k": 32, "scheme": "lattice", "sharing": "masked"}
    assert status["servers_agree"] and not world.deployment.verify()["problems"]


def test_revoked_and_forgotten(world):
    anna, berta = world.owners
    berta.revoke(world.user.id)
    assert {h.owner_name for h in world.user.search(vectors(1)[0], k=30).hits} == {"anna"}
    anna.forget()
    with pytest.raises(AccessDeniedError):
        world.user.search(vectors(1)[0], k=1)


def test_grants_are_enforced(world):
    anna, berta = world.owners
    berta.revoke(world.user.id)
    for refused in ({"rankings": ["server"]}, {"rankings": ["user", "threshold"]}, {"max_k": 2}, {"scores": False}):
        with pytest.raises(ParameterError):
            anna.grant(world.user.id, **refused)
    store_old_grant(world, anna, rankings=["server"])
    with pytest.raises(AccessDeniedError, match="ranking"):
        world.user.search(vectors(1)[0], k=1)
    store_old_grant(world, anna, max_k=2, quota=2)
    assert len(world.user.search(vectors(1)[0], k=2).hits) == 2
    with pytest.raises(AccessDeniedError, match="k up to 2"):
        world.user.search(vectors(1)[0], k=3)
    world.user.search(vectors(1)[0], k=2)
    with pytest.raises(AccessDeniedError, match="quota"):
        world.user.search(vectors(1)[0], k=2)


def test_servers_do_not_rank(world):
    with pytest.raises(ParameterError, match='ranking must be "user"'):
        world.user.search(vectors(1)[0], k=1, ranking="server")
    with pytest.raises(ParameterError):
        world.user.cost(ranking="threshold")


def test_bytes_are_as_announced(world):
    channel, user = world.deployment.channel, world.user
    user.index()
    cost = user.cost(k=5)["user"]
    assert ("once" in cost) == expands(world)
    channel.bytes_sent.clear()
    user.search(vectors(1)[0], k=5)
    assert 0 <= channel.bytes_sent["KeepEvaluationKey"] - 2 * cost.get("once", 0) < 1000
    channel.bytes_sent.clear()
    user.search(vectors(1)[0], k=5)
    sent, received = channel.bytes_sent["Query"] / 2, channel.bytes_sent["Answer"] / 2
    assert cost["sent"] <= sent < cost["sent"] + 1500  # headers and signatures
    assert cost["received"] <= received < cost["received"] + 200
    assert channel.bytes_sent["KeepEvaluationKey"] == 0


def test_encodings_that_the_scheme_cannot_carry(tmp_path):
    for encoding in (
        mipp.Encoding("ip", 200, bits=16, query_bits=16, ring_bits=64),
        mipp.Encoding("cosine", 1025, ring_bits=64),
    ):
        with pytest.raises(ParameterError, match="lattice"):
            mipp.Deployment.create(tmp_path / "d", encoding, scheme="lattice")
        assert not (tmp_path / "d").exists()


# --- keys ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("encoding", BOTH[:1], indirect=True, ids=["n4096"])
def test_every_query_has_a_key_of_its_own(world, monkeypatch):
    keys, generate = [], SecretKey.generate.__func__

    def spy(cls, parameters):
        keys.append(generate(cls, parameters))
        return keys[-1]

    monkeypatch.setattr(SecretKey, "generate", classmethod(spy))
    world.user.search_batch(vectors(3), 2)
    world.check()
    assert len({key.to_bytes() for key in keys}) == len(keys) == 4
    assert world.user.scheme.public_key == b"" == world.user.scheme.evaluation_key()


@pytest.mark.parametrize("encoding", BOTH[1:], indirect=True, ids=["n8192"])
class TestEvaluationKeys:
    def test_it_comes_with_the_first_search_and_stays(self, world):
        servers = world.deployment.servers if isinstance(world.deployment, mipp.Deployment) else {}
        assert not any(s.store.has_evaluation_key(world.user.id) for s in servers.values())
        world.check()
        assert all(s.store.has_evaluation_key(world.user.id) for s in servers.values())
        world.deployment.channel.bytes_sent.clear()
        world.user.register()
        world.check()
        world.check()
        assert not world.deployment.channel.bytes_sent["EvaluationKeyRequest"]

    def test_a_server_that_lost_it_gets_another(self, world):
        if not isinstance(world.deployment, mipp.Deployment):
            pytest.skip("looks into the servers")
        world.check()
        for number in (1, 2):
            server = world.deployment.servers[number]
            with server.store.catalog.transaction() as db:
                db.execute("UPDATE evaluation_keys SET key=CAST(substr(key, 2) || x'00' AS BLOB)")
            server.scheme.drop_user(world.user.id)
            assert any("evaluation key" in p for p in world.deployment.verify()["problems"])
            world.check()
            assert not world.deployment.verify()["problems"]

    def test_a_catalog_of_an_earlier_version_takes_keys(self, world):
        if not isinstance(world.deployment, mipp.Deployment):
            pytest.skip("looks into the servers")
        for server in world.deployment.servers.values():
            with server.store.catalog.transaction() as db:
                db.execute("DROP TABLE evaluation_keys")
        world.reopen()
        world.check()
        assert not world.deployment.verify()["problems"]

    def test_backups_have_it(self, world, tmp_path):
        if not isinstance(world.deployment, mipp.Deployment):
            pytest.skip("looks into the servers")
        world.check()
        kept = world.deployment.servers[1].store.scheme_key(world.user.id)
        copy = tmp_path / "catalog"
        world.deployment.servers[1].store.catalog.copy_to(copy)
        with contextlib.closing(sqlite3.connect(copy)) as db:
            assert db.execute("SELECT key FROM evaluation_keys").fetchall() == [(kept,)]

    def test_only_whole_keys_of_granted_users_are_kept(self, world):
        user = world.user
        good = np.frombuffer(user.scheme.evaluation_key(), np.uint8)
        for owner in world.owners:
            owner.revoke(user)
        with pytest.raises(AccessDeniedError):
            user.ask_all(m.KeepEvaluationKey(good))
        for owner in world.owners:
            owner.grant(user)
        for bad in (good[:-1], np.append(good, np.uint8(0)), good[:0], ~good, np.zeros_like(good)):
            with pytest.raises((ParameterError, MessageError)):
                user.ask_all(m.KeepEvaluationKey(bad))
        user.ask_all(m.KeepEvaluationKey(good))
        another = np.frombuffer(user.scheme.evaluation_key(), np.uint8)
        user.ask_all(m.KeepEvaluationKey(another))  # one a user: the first one stays
        if isinstance(world.deployment, mipp.Deployment):
            for server in world.deployment.servers.values():
                assert server.store.scheme_key(user.id) == good.tobytes()
        world.check()

    def test_strangers_keep_nothing(self, world):
        stranger = mipp.User(
            "eve", world.deployment.config, world.deployment.channel, b"s" * 32, b"b" * 32,
            secrets=world.deployment.config and {"lattice": SecretKey.generate(
                parameters_of(world.deployment.config.encoding)).to_bytes()},
        )  # fmt: skip
        with pytest.raises(NotFoundError):
            stranger.ask_all(m.KeepEvaluationKey(np.zeros(10, np.uint8)))

    def test_there_is_room_for_some_only(self, world, monkeypatch):
        """Keys of users that nobody grants anything any more give way; else there is no room."""
        world.check()
        size = len(world.user.scheme.evaluation_key())
        monkeypatch.setattr("mipp.store.parties.MAX_EVALUATION_KEYS_BYTES", size)
        other = world.deployment.create_user("otto")
        world.owners[0].grant(other)
        with pytest.raises(LimitError, match="no room"):
            other.search(vectors(1)[0], 3)
        for owner in world.owners:
            owner.revoke(world.user)
        assert len(other.search(vectors(1)[0], 3).hits) == 3
        for owner in world.owners:
            owner.grant(world.user)
        other_owner = world.owners[0]
        other_owner.revoke(other)
        world.check()

    def test_a_query_before_the_key_is_refused_and_not_counted(self, world):
        for owner in world.owners:
            owner.grant(world.user, quota=1)
        for server in (1, 2):
            with pytest.raises(MissingKeyError):
                Query(world).ask(server)
        assert len(world.user.search(vectors(1)[0], 1).hits) == 1

    def test_the_key_file_keeps_the_secret_key(self, world):
        again = world.deployment.user("ulla")
        assert again.scheme._key.to_bytes() == world.user.scheme._key.to_bytes()
        text = (world.deployment.folder / "users" / "ulla.key").read_text()
        assert world.user.scheme._key.to_bytes().hex() not in text


def test_users_have_no_other_keys(world):
    for key in (b"x", bytes(32)):
        with pytest.raises(ParameterError, match="no key of the scheme"):
            world.user.ask_all(m.RegisterUser("ulla", *world.user._public, key))
    if not expands(world):
        with pytest.raises(ParameterError):
            world.user.ask_all(m.KeepEvaluationKey(np.zeros(100, np.uint8)))
        assert {r.needed for r in world.user.ask_all(m.EvaluationKeyRequest(world.user.id)).values()} == {0}


def test_other_schemes_keep_no_evaluation_keys(deployment):
    user = deployment.create_user("ulla")
    with pytest.raises(ParameterError, match="evaluation keys"):
        user.ask_all(m.KeepEvaluationKey(np.zeros(100, np.uint8)))
    assert {r.needed for r in user.ask_all(m.EvaluationKeyRequest(user.id)).values()} == {0}


def test_nothing_secret_is_shown_or_pickled(world):
    hidden = world.user.scheme.hide(world.user.config.encoding.encode_queries(vectors(1)))
    asked = world.user._querier.hide(
        world.user.index(), world.user.config.encoding.encode_queries(vectors(1)), 1, "user"
    )
    assert hidden.opening is not None and asked.opening is not None
    for one in (hidden, asked, hidden.opening[0], world.user.scheme):
        assert hidden.opening[0].to_bytes().hex()[:16] not in repr(one) and "array" not in repr(one)
    for one in (hidden, hidden.opening[0], world.user.scheme):
        with pytest.raises(TypeError):
            pickle.dumps(one)


def test_no_key_and_no_plain_query_on_the_wire(world, monkeypatch):
    seen, keys, channel = [], [], world.deployment.channel
    gather, generate = channel.gather, SecretKey.generate.__func__

    def spy(requests, **options):
        seen.extend(bytes(f) for frames in requests.values() for f in frames)
        return gather(requests, **options)

    def watched(cls, parameters):
        keys.append(generate(cls, parameters))
        return keys[-1]

    monkeypatch.setattr(channel, "gather", spy)
    monkeypatch.setattr(SecretKey, "generate", classmethod(watched))
    query = vectors(1)
    world.user.register()
    world.user.search(query[0], k=3)
    keys += [world.user.scheme._key] if expands(world) else []
    wire = b"".join(seen)
    assert keys and not any(key.to_bytes()[-32:] in wire for key in keys)
    encoded = world.user.config.encoding.encode_queries(query)
    for plain in (encoded, encoded.astype(np.int64), query):
        assert plain.tobytes() not in wire


# --- attacks and bad input ----------------------------------------------------------------------------------------


class Query:
    """A query by hand, one field changed."""

    def __init__(self, world, **changes):
        self.user, self.world = world.user, world
        encoding = self.user.config.encoding
        index = self.user.index()
        self.hidden = self.user.scheme.hide(encoding.encode_queries(vectors(changes.get("queries", 1) or 1)))
        self.column = self.hidden.shares[1]
        self.theta = np.empty(0, np.uint32)
        self.salt = bytes(32)
        for name in [n for n in changes if n in ("column", "theta", "salt")]:
            setattr(self, name, changes.pop(name))
        commitment = query_share_commitment(self.salt, self.column, self.theta)
        header = m.QueryHeader(
            self.user.config.id, self.user.id, schedule.random_bytes(16), "user", 1, 1, [1, 2], encoding.hash,
            index.snapshot, [o.grant for o in index.owners], [o.position for o in index.owners],
            [len(o.batches) for o in index.owners], [commitment, commitment], index.batches,
        )  # fmt: skip
        self.header = dataclasses.replace(header, **changes)

    def ask(self, server=1):
        frames = [np.frombuffer(f, np.uint8) for f in encode(self.header)]
        return self.user.ask({server: m.Query(frames, self.salt, self.column, self.theta)})[server].score_shares


@pytest.fixture
def ready(world):
    """Servers have the user's evaluation key, if there is any."""
    world.check()
    return world


@pytest.mark.parametrize("server", [1, 2])
def test_bad_queries_are_refused(ready, server):
    world = ready
    good = Query(world)
    cases = [
        (ShapeError, {"column": good.column[:, 1:]}),
        (ShapeError, {"column": np.concatenate([good.column] * 2)}),
        (ShapeError, {"column": np.ones((1, DIM), np.uint32)}),
        (ShapeError, {"theta": np.ones(1, np.uint32)}),
        (ShapeError, {"queries": 0}),
        (MessageError, {"column": np.zeros_like(good.column)}),
        (MessageError, {"column": ~good.column}),
        (
            MessageError,
            {"column": np.where(np.arange(good.column.size) < 10, good.column, 2**64 - 1).astype(np.uint64)},
        ),
        (ParameterError, {"servers": [1]}),
        (ParameterError, {"servers": [1, 2, 3]}),
        (ParameterError, {"ranking": "server"}),
        (ParameterError, {"ranking": "threshold", "k": 0}),
        (AuthenticationError, {"commitments": [bytes(32)] * 2}),
        (AuthenticationError, {"user": bytes(16)}),
        (AccessDeniedError, {"grants": [bytes(16)] * 2}),
    ]
    for error, changes in cases:
        with pytest.raises(error):
            Query(world, **changes).ask(server)
    assert Query(world).ask(server).size


def test_bad_queries_cost_nothing(ready, monkeypatch):
    """What is no query is refused before anything is computed or counted."""
    monkeypatch.setattr("mipp.schemes.lattice.matvec", lambda *a, **o: pytest.fail("computed"))
    for owner in ready.owners:
        owner.grant(ready.user, quota=1)
    good = Query(ready)
    with pytest.raises(MessageError):
        Query(ready, column=~good.column).ask(1)
    monkeypatch.undo()
    assert Query(ready).ask(1).size


def test_a_retry_has_the_same_bytes_and_counts(ready):
    for owner in ready.owners:
        owner.grant(ready.user.id, quota=2)
    query = Query(ready)
    frames = [np.frombuffer(f, np.uint8) for f in encode(query.header)]
    with pytest.raises(ParameterError, match="some rows"):
        ready.user.ask({1: m.Query(frames, query.salt, query.column, query.theta, 0, 5)})
    assert np.array_equal(query.ask(), query.ask())
    with pytest.raises(AccessDeniedError, match="quota"):
        query.ask()


def test_a_retry_has_the_same_bytes_after_a_restart(ready):
    query = Query(ready)
    before = [query.ask(server) for server in (1, 2)]
    ready.reopen()
    query.user = ready.user
    assert all(np.array_equal(query.ask(server), old) for server, old in zip((1, 2), before, strict=True))


def test_another_header_has_other_randomness(ready):
    """The same query under another header: no word of an answer is the same, and the answers do not fit."""
    one = Query(ready)
    other = Query(ready, column=one.column)
    a, b, c = one.ask(1), one.ask(2), other.ask(2)
    assert (b == c).mean() < 0.01
    scheme, opening = ready.user.scheme, one.hidden.opening
    (good,) = scheme.open([a, b], 60, opening)
    signed = {2: np.int16, 4: np.int32, 8: np.int64}[good.dtype.itemsize]
    assert sorted(good.view(signed)[0].tolist()) == sorted(s for _, s in ready.expected(vectors(1)[0], 60))
    try:
        (mixed,) = scheme.open([a, c], 60, opening)
    except MippError:
        return
    assert (mixed == good).sum() < 3


def test_long_queries_are_not_sent(world):
    encoding = world.user.config.encoding
    encoded = np.full((1, DIM), encoding.query_norm1, np.int32)
    with pytest.raises(ParameterError, match="longer"):
        world.user.scheme.hide(encoded)


def test_hostile_answers(ready):
    scheme = ready.user.scheme
    query = Query(ready)
    a, b = query.ask(1), query.ask(2)
    for bad in (a[:, 1:], a.astype(np.int64), np.concatenate([a, a])):
        with pytest.raises(MessageError):
            scheme.verify([bad, b], 1, 60, 0)
    scheme.verify([a, b], 1, 60, 0)
    with pytest.raises(VerificationError):
        scheme.open([np.roll(a, 1), b], 60, query.hidden.opening)


def test_a_query_over_no_rows_is_refused_and_not_counted(ready):
    for owner in ready.owners:
        owner.grant(ready.user.id, quota=1)
    empty = Query(ready)
    none = np.empty((0, 16), np.uint8)
    empty.header = dataclasses.replace(empty.header, counts=[0] * len(empty.header.counts), batches=none)
    for server in (1, 2):
        with pytest.raises(ParameterError, match="no images"):
            empty.ask(server)
    assert Query(ready).ask(1).size


def test_a_users_key_of_other_parameters_is_refused(tmp_path):
    small, large = (ENCODINGS[which] for which in BOTH)
    del small
    with mipp.Deployment.create(tmp_path / "d", large, scheme="lattice") as deployment:
        user = deployment.create_user("ulla")
        wide = mipp.Encoding("cosine", DIM, bits=12, query_bits=12, ring_bits=64)
        assert parameters_of(wide) == parameters_of(large)
        for bad in (b"", b"nonsense", user.scheme._key.to_bytes()[:-1]):
            with pytest.raises((MippError, ValueError)):
                mipp.User(
                    "ulla", deployment.config, deployment.channel, user._seed, user._box_key, secrets={"lattice": bad}
                )
