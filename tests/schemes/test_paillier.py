"""The Paillier scheme end to end: one cloud, a key centre, the user's own Paillier key."""

import dataclasses
import hmac

import numpy as np
import pytest

import mipp
from mipp.crypto import schedule
from mipp.errors import (
    AccessDeniedError,
    AuthenticationError,
    LimitError,
    MippError,
    NotFoundError,
    ParameterError,
    ShapeError,
)
from mipp.paillier import PrivateKey, PublicKey, generate_keypair
from mipp.rpc import messages as m
from mipp.rpc.associated_data import query_share_commitment
from mipp.rpc.wire import encode, frames_hash
from mipp.schemes.paillier import encrypt_query
from mipp.sharing import OwnerKeys, batch_schedules, key_centre_rows, open_share, share_rows
from tests.adversary.grants import store_old_grant
from tests.conftest import DIM, KINDS, World, made, vectors


@pytest.fixture(scope="module")
def paillier():
    """One key for all: making one takes as long as a test."""
    return generate_keypair(2048)


@pytest.fixture(params=[32])
def ring_bits(request):
    return request.param


@pytest.fixture(params=KINDS)
def world(request, tmp_path, paillier, ring_bits, monkeypatch):
    monkeypatch.setattr("mipp.schemes.paillier.generate_keypair", lambda bits: paillier)
    encoding = mipp.Encoding("cosine", DIM, bits=6 if ring_bits == 16 else 8, ring_bits=ring_bits)
    with made(request.param, tmp_path, encoding, scheme="paillier") as deployment:
        yield World(deployment)


@pytest.mark.parametrize("ring_bits", [16, 32, 64], indirect=True)
def test_ranking_is_the_plaintexts(world):
    for seed in range(2):
        world.check(k=60, seed=seed)
    found = world.user.search(vectors(1, 3)[0], k=5)  # the user ranks without being told to
    assert [h.score for h in found.hits] == sorted((h.score for h in found.hits), reverse=True)


@pytest.mark.parametrize("metric", ["l2", "ip", "l1", "hamming"])
def test_every_metric(tmp_path, paillier, monkeypatch, metric):
    monkeypatch.setattr("mipp.schemes.paillier.generate_keypair", lambda bits: paillier)
    encoding = mipp.Encoding(metric, 5, **({"levels": 4} if metric == "l1" else {}))
    rng = np.random.default_rng(1)
    x = (
        rng.integers(0, 4 if metric == "l1" else 2, (40, 5))
        if metric in ("l1", "hamming")
        else rng.normal(size=(40, 5)) * 40
    )
    with mipp.Deployment.create(tmp_path / "d", encoding, scheme="paillier") as deployment:
        owner, user = deployment.create_owner("anna"), deployment.create_user("ulla")
        owner.add_vectors(x)
        owner.grant(user.id)
        index, scores = user.scores(x[:2])
        rows = encoding.encode_rows(x).astype(np.int64)[[r for _, r in index.ids()]]
        assert np.array_equal(scores, encoding.encode_queries(x[:2]).astype(np.int64) @ rows.T)
        theta = float(np.median(encoding.values(scores[:1], x[:1])))
        near = encoding.values(scores[:1], x[:1])[0]
        matched = user.range_search(x[0], theta)
        reached = np.flatnonzero(near >= theta if metric == "ip" else near <= theta)
        rows_of = np.array([r for _, r in index.ids()])
        best_first = reached[np.argsort(-scores[0, reached], kind="stable")]
        assert [h.row for h in matched] == rows_of[best_first].tolist()
        assert all(h.score is not None for h in matched)


def test_batches_of_queries(world):
    queries = vectors(3, 9)
    batch = world.user.search_batch(queries, 4)
    for query, result in zip(queries, batch, strict=True):
        assert [((h.batch, h.row), h.score) for h in result.hits] == world.expected(query, 4)


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
    dead = list(world.plain)[-30:-25]
    anna.delete(dead)
    for i in dead:
        del world.plain[i]
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


def test_reopened_and_under_another_name(world, tmp_path, paillier):
    before = world.user.id
    world.reopen()
    assert world.user.id == before
    assert len(world.user.search(vectors(1)[0], k=3).hits) == 3
    status = world.deployment.status()
    assert status["params"] == {"n": 2, "t": 1, "k": 32, "scheme": "paillier", "sharing": "masked"}
    assert status["servers_agree"] and not world.deployment.verify()["problems"]


def test_images_come_back(world):
    hits = world.user.search(vectors(1, 2)[0], k=60).hits
    with_image = [h for h in hits if world_has_image(world, h)]
    files = world.user.fetch(with_image[:3])
    assert [f.name.endswith(".png") for f in files] == [True] * 3


def world_has_image(world, hit):
    batches = [b.id for owner in world.owners for b in owner.batches()]
    return hit.batch in (batches[0], batches[2])


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
    # from before those were refused: servers keep to what a stored grant says
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
    channel = world.deployment.channel
    world.user.index()
    channel.bytes_sent.clear()
    cost = world.user.cost(k=5)
    world.user.search(vectors(1)[0], k=5)
    sent, received = channel.bytes_sent["Query"] / 2, channel.bytes_sent["Answer"] / 2
    assert cost["user"]["sent"] <= sent < cost["user"]["sent"] + 1500  # headers and signatures
    assert cost["user"]["received"] <= received < cost["user"]["received"] + 200
    assert cost["user"]["sent"] >= DIM * 512


def test_randomness_ahead_is_used_once(world):
    servers = list(world.deployment.servers.values())
    world.deployment.prepare(world.user.id, queries=2)
    pools = [s.scheme._key(world.user.id)[2] for s in servers]
    count = servers[0].scheme._key(world.user.id)[1].ciphertexts(60)
    assert [len(p) for p in pools] == [2 * count] * 2
    ahead = [list(p._ready) for p in pools]
    world.check()
    assert [len(p) for p in pools] == [count] * 2
    world.check()
    world.check()  # made on the way
    assert [len(p) for p in pools] == [0] * 2
    assert len({v.tobytes() for values in ahead for v in values}) == 4 * count


def test_servers_randomise_in_full_range(world, monkeypatch):
    """The user holds p and q: it could strip short randomness off and read the exponents, which are stored rows."""
    asked = []
    randomness = PublicKey.randomness

    def spy(self, count, *, full_range=False, threads=None):
        asked.append((full_range, count))
        return randomness(self, count, full_range=full_range, threads=threads)

    monkeypatch.setattr(PublicKey, "randomness", spy)
    world.deployment.prepare(world.user.id)
    world.check()  # uses what was prepared, once at each server
    world.check()  # makes its own
    count = world.user.scheme._layout.ciphertexts(60)
    assert [full for full, n in asked if n != DIM] == [True] * 4 and [n for full, n in asked if full] == [count] * 4


# --- what servers hold --------------------------------------------------------------------------------------------


def test_key_schedule_and_stored_rows(world):
    """c = x + p with p the AES-CTR keystream of the key centre's key, bytes as the key schedule says."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    def hkdf(key, info):
        pseudo = hmac.digest(bytes(32), key, "sha256")
        return hmac.digest(pseudo, info + b"\x01", "sha256")

    p = mipp.Params(2, 1, 32, "paillier")
    root, deployment, registration = (bytes([i]) * n for i, n in ((1, 32), (2, 16), (3, 16)))
    keys = OwnerKeys(root, deployment, registration, p)
    server = hkdf(root, b"mipp v1 key server" + bytes([2]) + deployment + registration + bytes([2, 1, 2]))
    assert keys.server_key(2) == server
    x = np.arange(-15, 15).reshape(5, 6).astype(np.int32)
    shared = share_rows(x, keys)
    assert set(shared.shares) == {1} and shared.shares[1].shape == (5, 8)
    batch = hkdf(server, schedule.batch_info(shared.nonce, 32, 6, 5))
    stream = Cipher(algorithms.AES(batch), modes.CTR(bytes(16))).encryptor().update(bytes(5 * 8 * 4))
    stream = np.frombuffer(stream, "<u4").reshape(5, 8)
    assert np.array_equal(shared.shares[1][:, :6] - stream[:, :6], x.view(np.uint32))
    assert np.array_equal(shared.shares[1][:, 6:], stream[:, 6:])
    assert np.array_equal(open_share(shared.shares[1], 1, shared.nonce, 6, keys), x)
    some = np.array([4, 1])
    assert np.array_equal(open_share(shared.shares[1][some], 1, shared.nonce, 6, keys, rows=5, ordinals=some), x[some])
    schedules = batch_schedules(server, [shared.nonce], [6], [5], 32)
    run = mipp.sharing.Run(np.array([0]), np.array([1]), np.array([3]))
    assert np.array_equal(key_centre_rows(schedules, run, p, 6), -stream[1:4, :6])


def test_stored_rows_are_uniform():
    p = mipp.Params(2, 1, 16, "paillier")
    keys = OwnerKeys(*(schedule.random_bytes(n) for n in (32, 16, 16)), p)
    words = share_rows(np.zeros((4000, 8), np.int16), keys).shares[1]
    counts = np.bincount(words.reshape(-1) >> 8, minlength=256)
    assert ((counts - 125) ** 2 / 125).sum() < 360  # 255 degrees of freedom: once in 10^5
    again = share_rows(np.zeros((4000, 8), np.int16), keys).shares[1]
    assert not (words == again).all()


# --- attacks and bad input ----------------------------------------------------------------------------------------


class Query:
    """A query by hand, one field changed."""

    def __init__(self, world, **changes):
        self.user, self.world = world.user, world
        encoding = self.user.config.encoding
        index = self.user.index()
        self.column = encrypt_query(encoding.encode_queries(vectors(1)), world.user.scheme._key.public)
        self.theta = np.empty(0, np.uint32)
        self.salt = bytes(32)
        for name in [n for n in changes if n in ("column", "theta", "salt")]:
            setattr(self, name, changes.pop(name))
        commitment = query_share_commitment(self.salt, self.column, self.theta)
        header = m.QueryHeader(
            self.user.config.id, self.user.id, bytes(16), "user", 1, 1, [1, 2], encoding.hash, index.snapshot,
            [o.grant for o in index.owners], [o.position for o in index.owners],
            [len(o.batches) for o in index.owners], [commitment, commitment], index.batches,
        )  # fmt: skip
        self.header = dataclasses.replace(header, **changes)

    def ask(self, server=1):
        frames = [np.frombuffer(f, np.uint8) for f in encode(self.header)]
        return self.user.ask({server: m.Query(frames, self.salt, self.column, self.theta)})[server]


def test_a_query_by_hand_is_answered(world):
    answer = Query(world).ask()
    layout = world.user.scheme._layout
    assert answer.score_shares.shape == (1, layout.ciphertexts(60) * world.user.scheme._key.public.element_limbs)


def test_queries_of_a_header_are_limited(world, monkeypatch):
    """Clients split batches; servers refuse more before they compare a number with n²."""
    size = 8 * DIM * world.user.scheme._key.public.element_limbs
    monkeypatch.setattr("mipp.schemes.paillier.MAX_QUERY_BYTES", 2 * size)
    assert world.user.scheme.portion(60, "user", 1) == 2
    queries = vectors(3, 9)
    for query, result in zip(queries, world.user.search_batch(queries, 4), strict=True):
        assert [((h.batch, h.row), h.score) for h in result.hits] == world.expected(query, 4)
    column = encrypt_query(world.user.config.encoding.encode_queries(vectors(3)), world.user.scheme._key.public)
    assert len(Query(world, column=column[:2], queries=2).ask().score_shares) == 2
    monkeypatch.setattr("mipp.schemes.paillier.check_query", lambda *given: pytest.fail("looked at"))
    for server in (1, 2):
        with pytest.raises(LimitError, match="at most 2 queries"):
            Query(world, column=column, queries=3).ask(server)


@pytest.mark.parametrize("server", [1, 2])
def test_bad_queries_are_refused(world, server):
    good = Query(world)
    limbs = world.user.scheme._key.public.element_limbs
    cases = [
        (ShapeError, {"column": good.column[:, limbs:]}),
        (ShapeError, {"column": np.concatenate([good.column] * 2)}),
        (ShapeError, {"column": np.ones((1, DIM), np.uint32)}),
        (ShapeError, {"theta": np.ones(1, np.uint32)}),
        (ShapeError, {"queries": 0}),
        (ParameterError, {"column": np.full_like(good.column, 2**64 - 1)}),
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
    assert Query(world).ask(server).score_shares.size


def test_packed_answers_are_given_for_all_rows_and_every_retry_counts(world):
    owner = world.owners[0]
    owner.grant(world.user.id, quota=2)
    query = Query(world)
    frames = [np.frombuffer(f, np.uint8) for f in encode(query.header)]
    with pytest.raises(ParameterError, match="some rows"):
        world.user.ask({1: m.Query(frames, query.salt, query.column, query.theta, 0, 5)})
    query.ask(), query.ask()
    with pytest.raises(AccessDeniedError, match="quota"):
        query.ask()


def test_answers_under_different_headers_do_not_fit(world):
    """The masks U come from the header's hash: one server's answer is of no use with another header's."""
    from mipp.schemes.paillier import scores

    user = world.user
    one, other = Query(world), Query(world, nonce=bytes([1]) * 16)
    other.column = one.column
    assert frames_hash(encode(one.header)) != frames_hash(encode(other.header))
    other.header = dataclasses.replace(other.header, commitments=one.header.commitments)
    a, b, c = one.ask(1).score_shares, one.ask(2).score_shares, other.ask(2).score_shares
    good = scores([a, b], 60, user.scheme._layout, user.scheme._key)
    assert set(good.view(np.int32)[0].tolist()) == {s for _, s in world.expected(vectors(1)[0], 60)}
    mixed = scores([a, c], 60, user.scheme._layout, user.scheme._key)
    assert not (mixed == good).any(axis=None) or (mixed == good).sum() < 3


def test_a_users_key_is_registered_once(world, paillier):
    user = world.user
    user.register()  # again: fine
    other = generate_keypair(2048)
    impostor = mipp.User(
        user.name, user.config, user.channel, user._seed, user._box_key, secrets={"paillier": other.to_bytes()}
    )
    with pytest.raises(ParameterError, match="another key of the scheme"):
        impostor.register()
    world.check()


@pytest.mark.parametrize(
    "bad", [b"", b"mipp paillier public 1\n\x0f", b"nonsense", b"mipp paillier public 1\n" + bytes(300)]
)
def test_bad_keys_are_not_registered(world, bad):
    message = m.RegisterUser("ulla", *world.user._public, bad)
    with pytest.raises(MippError):
        world.user.ask_all(message)


def test_short_keys_are_refused(world):
    short = generate_keypair(1024, insecure=True)
    message = m.RegisterUser("ulla", *world.user._public, short.public.to_bytes())
    with pytest.raises(ParameterError, match="2048"):
        world.user.ask_all(message)


def test_users_of_the_other_scheme_have_no_paillier_key(deployment, paillier):
    user = deployment.create_user("ulla")
    with pytest.raises(ParameterError, match="no key of the scheme"):
        user.ask_all(m.RegisterUser("ulla", *user._public, paillier.public.to_bytes()))
    with pytest.raises(NotFoundError):
        deployment.servers[1].store.scheme_key(bytes(16))


def test_parameters():
    p = mipp.Params(2, 1, 32, "paillier")
    assert (p.clouds, p.key_centres, p.m, p.padded(93)) == ((1,), (2,), 1, 96)
    assert p.check_servers([2, 1]) == (1, 2)
    for bad in ([1], [1, 1], [1, 2, 3]):
        with pytest.raises(ParameterError):
            p.check_servers(bad)
    for bad in ((3, 1, 32, "paillier"), (2, 1, 32), (2, 1, 8, "paillier")):
        with pytest.raises(ParameterError):
            mipp.Params(*bad)


def test_a_key_too_short_for_the_encoding(paillier):
    from mipp.schemes.paillier import SlotLayout

    with pytest.raises(ParameterError, match="does not fit"):
        SlotLayout(64, 2000, paillier.public.bits)


def test_nothing_secret_is_shown(world):
    text = (
        repr(world.user) + repr(world.user.scheme._key) + repr(world.deployment.servers[2].scheme._key(world.user.id))
    )
    for secret in (world.user.scheme._key.p, world.user.scheme._key.q):
        assert str(secret)[:30] not in text and hex(secret)[2:20] not in text


def test_the_key_file_keeps_the_paillier_key(world):
    folder = world.deployment.folder
    text = (folder / "users" / "ulla.key").read_text()
    assert str(world.user.scheme._key.p) not in text
    kept = world.deployment.user("ulla").scheme._key
    assert isinstance(kept, PrivateKey) and kept == world.user.scheme._key


def test_no_prime_and_no_plain_query_on_the_wire(world, monkeypatch):
    """What the user sends holds ciphertexts of the query, its public key, and nothing of the primes."""
    seen, channel = [], world.deployment.channel
    gather = channel.gather

    def spy(requests, **options):
        seen.extend(bytes(f) for frames in requests.values() for f in frames)
        return gather(requests, **options)

    monkeypatch.setattr(channel, "gather", spy)
    user = world.user
    user.register()
    query = vectors(1)
    user.search(query[0], k=3)
    wire = b"".join(seen)
    for prime in (user.scheme._key.p, user.scheme._key.q):
        for order in ("big", "little"):
            assert int(prime).to_bytes(128, order)[32:96] not in wire
    assert user.scheme._key.public.to_bytes() in wire
    assert user.config.encoding.encode_queries(query).tobytes() not in wire and query.tobytes() not in wire


def test_a_query_over_no_rows_is_refused_and_not_counted(world):
    """Any user could otherwise have servers compute on nothing, and log an error."""
    owner = world.owners[0]
    owner.grant(world.user.id, quota=1)
    empty = Query(world)
    none = np.empty((0, 16), np.uint8)
    counts, batches = [0] * len(empty.header.counts), none
    snapshot = empty.header.snapshot
    empty.header = dataclasses.replace(empty.header, counts=counts, batches=batches, snapshot=snapshot)
    for server in (1, 2):
        with pytest.raises(ParameterError, match="no images"):
            empty.ask(server)
    assert Query(world).ask(1)
