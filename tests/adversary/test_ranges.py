"""Rows and queries beyond the encoding's bounds: hostile owners and users change nothing that servers open."""

import contextlib
import logging

import numpy as np
import pytest

import mipp
from mipp.encoding import Encoding
from mipp.errors import (
    AccessDeniedError,
    AuthenticationError,
    IntegrityError,
    MippError,
    OutOfRangeError,
    ParameterError,
    ScoreRangeError,
    ShapeError,
)
from mipp.mpc import query_proof, session
from mipp.rpc import messages as m
from mipp.rpc import peer_messages as pm
from mipp.rpc.channel import request
from mipp.rpc.wire import encode
from tests.adversary.forge import SERVERS, Change, uncertified
from tests.conftest import ALL_RANKINGS, DIM, World, embedded_only, vectors

QUERY = vectors(1, 7)[0]


@contextlib.contextmanager
def any_query(user, encoded, monkeypatch):
    """A user's program that sends what it likes: words (dim,), with whatever proof can be made of them."""
    with monkeypatch.context() as patch:
        patch.setattr(query_proof, "_sizes_wrong", lambda *_: False)
        dtype = user.config.encoding.encode_queries(vectors(1, dim=user.config.encoding.dim)).dtype
        words = np.zeros((1, user.config.encoding.encoded_dim), dtype)
        words[0, : len(encoded)] = np.array(encoded).astype(np.int64).astype(dtype)
        patch.setattr("mipp.client.user.encoded_queries", lambda encoding, queries: (np.asarray(queries), words))
        yield


def half(encoding):
    return 1 << (encoding.ring_bits - 1)


def opened_bits(monkeypatch):
    """Every word of bits that server 1 opened in comparisons, from now on."""
    seen, real = [], session.Party.note_opened

    def note(party, words):
        if party.index == 1:
            seen.append(np.array(words))
        return real(party, words)

    monkeypatch.setattr(session.Party, "note_opened", note)
    return seen


# --- queries --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ranking", ["server", "threshold"])
@pytest.mark.parametrize("attack", ["top bit", "bit below", "long", "other sign"])
def test_a_query_out_of_range_is_refused_before_any_score_is_compared(world, monkeypatch, attack, ranking, caplog):
    user, encoding = world.user, world.deployment.config.encoding
    top = half(encoding)
    words = {"top bit": [top], "bit below": [top >> 1], "long": [127] * DIM, "other sign": [-top + 1]}[attack]
    seen = opened_bits(monkeypatch)
    with any_query(user, words, monkeypatch), caplog.at_level(logging.WARNING), pytest.raises(OutOfRangeError):
        if ranking == "server":
            user.search(QUERY, 5)
        else:
            user.range_search(QUERY, 0.3)
    assert len(seen) == 1 and seen[0].shape == (40,) and seen[0].any()  # the sums of the check, and nothing after
    assert caplog.text.count("out of range") == 3 and user.id.hex() in caplog.text
    for server in world.deployment.servers.values():
        assert server.store.catalog.one("SELECT out_of_range FROM users WHERE id=?", user.id) == (1,)
    seen.clear()
    world.check(k=10, ranking="server")  # nothing else happened to anybody
    assert not seen[0].any()


def test_it_counts_against_the_quota(world, monkeypatch):
    user = world.user
    for owner in world.owners:
        owner.grant(user.id, rankings=ALL_RANKINGS, quota=2)
    with any_query(user, [1 << 30], monkeypatch):
        for _ in range(2):
            with pytest.raises(OutOfRangeError):
                user.search(QUERY, 5)
    with pytest.raises(AccessDeniedError):
        user.search(QUERY, 5)


def test_one_bad_query_of_a_batch(world, monkeypatch):
    user = world.user
    encoded = user.config.encoding.encode_queries(vectors(6))
    encoded[4, 0] = 1 << 20
    with monkeypatch.context() as patch:
        patch.setattr(query_proof, "_sizes_wrong", lambda *_: False)
        patch.setattr("mipp.client.user.encoded_queries", lambda encoding, queries: (np.asarray(queries), encoded))
        with pytest.raises(OutOfRangeError):
            user.search_batch(vectors(6), 3)
    assert len(user.search_batch(vectors(6), 3)) == 6


def test_columns_that_do_not_belong_together(world, monkeypatch):
    """+1 at one server and -1 at another: every sum is right, and every answer would be wrong."""
    user, real = world.user, type(world.user.scheme).hide

    def columns(self, encoded):
        made = real(self, encoded)
        made.shares[1][0, 2] += np.uint32(1)
        made.shares[2][0, 2] -= np.uint32(1)
        return made

    with monkeypatch.context() as patch:
        patch.setattr(type(user.scheme), "hide", columns)
        with pytest.raises(OutOfRangeError):
            user.search(QUERY, 5)
        with pytest.raises(OutOfRangeError):
            user.range_search(QUERY, 0.3)
    world.check(k=5, ranking="server")


def test_a_threshold_out_of_range(world, monkeypatch):
    """Its shares say another value than its bits."""
    user, real = world.user, type(world.user._querier).theta_shares

    def shares(self, theta, queries):
        made = real(self, theta, queries)
        if theta is not None:
            made[1] = made[1] + np.uint32(1 << 30)
        return made

    with monkeypatch.context() as patch:
        patch.setattr(type(user._querier), "theta_shares", shares)
        with pytest.raises(OutOfRangeError):
            user.range_search(QUERY, 0.3)
    assert user.range_search(QUERY, 0.3)


def altered(prepared, server, **changes):
    """A query's message with other parts of the proof."""
    seeds, words = prepared.proof[server]
    fields = {"seeds": seeds, "proof": words} | changes
    return m.Query(prepared.header, *prepared.servers[server], 0, 0, b"", fields["seeds"], fields["proof"])


def test_malformed_proofs_are_refused_by_the_server_that_gets_them(world):
    user, index = world.user, world.user.index()
    encoded = user.config.encoding.encode_queries(QUERY[None])
    prepared = user._querier.hide(index, encoded, 5, "server")
    words = prepared.proof[1][1]
    none = np.empty((0, 0), np.uint32)
    for server, changes, error in (
        (1, {"seeds": b""}, ShapeError),
        (1, {"seeds": bytes(64)}, AuthenticationError),
        (1, {"seeds": bytes(65)}, ShapeError),
        (1, {"proof": none}, ShapeError),
        (1, {"proof": words[:, :-1]}, ShapeError),
        (1, {"proof": np.concatenate([words, words])}, ShapeError),
        (1, {"proof": words.astype(np.uint64)}, ShapeError),
        (1, {"proof": words + np.uint32(1)}, AuthenticationError),
        (2, {"proof": words ^ np.uint32(4)}, AuthenticationError),
        (3, {"proof": words}, ShapeError),
        (3, {"seeds": prepared.proof[1][0]}, AuthenticationError),
    ):
        with pytest.raises(error):
            user.ask({server: altered(prepared, server, **changes)})
    asked = user._querier.hide(index, encoded, 5, "user")
    with pytest.raises(ParameterError, match="no proof"):
        user.ask({1: m.Query(asked.header, *asked.servers[1], 0, 0, b"", bytes(64))})
    world.check(k=5, ranking="server")


@pytest.mark.parametrize("kind", ["ties", "spread", "deleted", "long rows"])
def test_opened_bits_look_the_same_whatever_user_and_owner_send(tmp_path, monkeypatch, kind):
    """The statistic that told how many rows have a feature: it is that of a uniform order, or there are no bits at all.

    It was 0.98, 0.61 and 0.05 for rows of which 2, 20 and 50 % have it, when the query was 2^(w-1) e_j.
    """
    encoding = Encoding("ip", 4, bits=4, query_bits=4)
    seen = opened_bits(monkeypatch)
    means, spreads, runs = [], [], 60
    with mipp.Deployment.create(tmp_path / "d", encoding, threads=1) as deployment:
        user = deployment.create_user("ulla")
        rng = np.random.default_rng(3)
        for share in (2, 50):
            owner = deployment.create_owner(f"owner{share}")
            x = np.zeros((200, 4))
            x[: 200 * share // 100, 0] = 1
            if kind == "spread":
                x[:, 1:] = rng.integers(-5, 6, (200, 3))
            if kind == "long rows":
                x[:, 1] = 7
            ids = owner.add_vectors(x)
            if kind == "deleted":
                owner.delete(ids[120:])
            owner.grant(user.id, rankings=ALL_RANKINGS)
            seen.clear()
            for _ in range(8):
                with any_query(user, [half(encoding)], monkeypatch), pytest.raises(OutOfRangeError):
                    user.search(x[0], 1, owners=owner)
            assert [len(words) for words in seen] == [40] * 8  # sums of the check alone, no bit of any comparison
            ones = []
            for _ in range(runs):
                seen.clear()
                user.search(np.array([7, 0, 0, 0]), 1, owners=owner)
                assert not seen[0].any()
                ones.append(int(np.unpackbits(seen[1].view(np.uint8)).sum()))
            means.append(np.mean(ones))
            spreads.append(np.var(ones) / runs)
    assert spreads[0] > 0 and abs(means[0] - means[1]) < 5 * np.sqrt(sum(spreads))


def test_keys_of_64_bits(tmp_path, monkeypatch):
    """The widest comparisons there are: w + r is 64."""
    encoding = Encoding("l2", 4, bits=16, query_bits=23, ring_bits=64, weights=(65535,) * 4)
    rng = np.random.default_rng(6)
    with mipp.Deployment.create(tmp_path / "d", encoding, threads=1) as deployment:
        anna, user = deployment.create_owner("anna"), deployment.create_user("ulla")
        low, high = encoding.score_range
        rows = 1 << (64 - ((high - low).bit_length() + 1))
        assert 8 <= rows <= 4096
        x = rng.integers(-32767, 32768, (rows, 4))
        anna.add_vectors(x)
        anna.grant(user.id, rankings=ALL_RANKINGS)
        query = x[5] + 0.3
        exact = ((x - query) ** 2).sum(axis=1)
        found = user.search(query, rows)
        assert [h.row for h in found.hits] == np.argsort(exact, kind="stable").tolist()
        near = float(user.search(query, 3).hits[2].value)
        assert {h.row for h in user.range_search(query, near)} == {h.row for h in found.hits[:3]}
        # another owner's rows do not fit into the keys as well: it is left out, and stops nobody
        evil = deployment.create_owner("evil")
        evil.add_vectors(rng.integers(-100, 100, (rows + 1, 4)))
        evil.grant(user.id, rankings=ALL_RANKINGS)
        again = user.search(query, 5)
        assert [h.row for h in again.hits] == [h.row for h in found.hits[:5]]
        assert [o.owner_name for o in again.left_out] == ["evil"] and str(rows) in again.left_out[0].reason
        assert len(user.search(query, 5, ranking="user").hits) == 5
        with pytest.raises(ScoreRangeError):
            user.search(query, 5, owners=evil)
        evil.forget()
        for value in (1 << 62, 1 << 40, -(1 << 63)):
            with any_query(user, [value], monkeypatch), pytest.raises(OutOfRangeError):
                user.search(query, 2)
        rows_of = encoding.encode_rows(x[:3]).astype(np.int64)
        rows_of[1, 0] = 1 << 40
        with pytest.raises(OutOfRangeError, match=r"range: 1$"):
            upload(anna, rows_of)


# --- rows -----------------------------------------------------------------------------------------------------------


def upload(owner, rows):
    """What an owner's own program uploads, asking for nothing but what servers demand."""
    encoding = owner.config.encoding
    return owner._upload(np.ascontiguousarray(rows).astype(encoding.encode_rows(vectors(1, dim=encoding.dim)).dtype))


@pytest.mark.parametrize("attack", ["top bit", "4 x the norm", "one longer", "wraps"])
def test_rows_out_of_range_are_refused_before_they_are_visible(world, attack):
    mallory, encoding = world.deployment.create_owner("mallory"), world.deployment.config.encoding
    mallory.grant(world.user.id, rankings=ALL_RANKINGS)
    rows = encoding.encode_rows(vectors(30)).astype(np.int64)
    bad = {
        "top bit": np.eye(1, DIM, dtype=np.int64)[0] * -half(encoding), "4 x the norm": rows[5] * 4,
        "one longer": np.array([encoding.row_norm2, 1, *[0] * (DIM - 2)]), "wraps": np.full(DIM, 1 << 24),
    }[attack]  # fmt: skip
    if attack == "one longer":
        root = int(np.sqrt(encoding.row_norm2))
        bad = np.array([root, 0, *[0] * (DIM - 2)])
        bad[1] = int(np.sqrt(encoding.row_norm2 - root**2)) + 1
    rows[5] = bad
    with pytest.raises(OutOfRangeError, match=r"range: 5$"):
        upload(mallory, rows)
    assert mallory.batches() == [] and world.deployment.status()["servers_agree"]
    for server in world.deployment.servers.values():
        assert not list((server.store.folder / "shares" / mallory.id.hex()).glob("*"))
        assert not server.progress
    world.check(k=20, ranking="server")
    assert len(mallory.add_vectors(vectors(3))) == 3


def test_a_commit_without_a_certificate(world):
    mallory = world.deployment.create_owner("mallory")
    change = Change(mallory, b"e" * 16)
    change.prepare()
    for server in SERVERS:
        with pytest.raises(OutOfRangeError, match="not checked"):
            mallory.ask_all(change.commit_message(), [server])
    change.ask_certificate()
    change.ask_certificate()  # at once
    assert set(change.certify(change.commit())) == {"committed"}
    change.ask_certificate()  # and when it is done


def test_who_may_ask_for_a_certificate_and_of_what(world):
    mallory, anna = world.deployment.create_owner("mallory"), world.owners[0]
    change = Change(anna, b"e" * 16)
    change.prepare()
    for msg in (
        m.CertifyRows(change.op),
        m.CollectCertificate(change.op),
        m.CertifyRows(b"x" * 16),
        m.CertifyRows(b""),
    ):
        for server in SERVERS:
            with pytest.raises(MippError):
                mallory.ask({server: msg})
            with pytest.raises(MippError):
                world.user.ask({server: msg})
    for msg in (pm.CertifyBatch(anna.id, anna.batches()[0].id), pm.UncertifiedRequest()):
        with pytest.raises(AuthenticationError, match="signed"):
            world.deployment.channel.gather({1: encode(msg)})
    change.ask_certificate()
    assert set(change.certify(change.commit())) == {"committed"}


def test_shares_that_differ_between_servers_are_refused(world):
    mallory = world.deployment.create_owner("mallory")
    change = Change(mallory, b"e" * 16, rows=20)
    spoilt = Change(mallory, b"e" * 16, rows=20)
    spoilt.parts[2].share[7, 3] ^= np.uint32(1 << 31)
    spoilt.signed = {s: mallory.signed(msg, s) for s, msg in spoilt.parts.items()}
    change.prepare([1, 3])
    spoilt.prepare([2])
    with pytest.raises(OutOfRangeError, match=r"range: 7$"):
        change.ask_certificate()
    for server in world.deployment.servers.values():
        assert server.store.changes.state(mallory.id, change.op) == "aborted"


def test_a_large_certificate_holds_up_nobody_for_long(world):
    """One owner's tests in a row, another one's upload in between; searches go on."""
    import threading

    mallory, anna = world.deployment.create_owner("mallory"), world.owners[0]
    changes = [Change(mallory, bytes([i]) * 16, rows=3000) for i in range(1, 9)]
    for change in changes:
        change.prepare()
    done = []

    def ask(change):
        change.ask_certificate()
        done.append(change.op)

    threads = [threading.Thread(target=ask, args=(c,)) for c in changes]
    for thread in threads:
        thread.start()
    anna.add_vectors(vectors(2))
    assert len(world.user.search(QUERY, 62).hits) == 62
    for thread in threads:
        thread.join(60)
    assert len(done) == 8


def test_a_test_that_one_server_cannot_begin_ends_at_once_everywhere(world):
    """The owner aborts at one server while the others wait: they waited a minute, and everybody else with them."""
    import threading
    import time

    mallory, anna = world.deployment.create_owner("mallory"), world.owners[0]
    change = Change(mallory, b"e" * 16)
    change.prepare()
    errors = []

    def ask(servers):
        try:
            change.ask_certificate(servers)
        except MippError as error:
            errors.append(error)

    began = time.monotonic()
    first = threading.Thread(target=ask, args=([1, 2],))
    first.start()
    while len(world.deployment.servers[2].certifying._open) < 1:
        time.sleep(0.005)
    mallory.ask_all(m.AbortOp(change.op), [1])
    ask([3])
    first.join(20)
    anna.add_vectors(vectors(2))
    assert time.monotonic() - began < 10 and len(errors) == 2


def test_the_first_tests_of_all_owners_go_before_the_second_of_any(world):
    from mipp.server.rendezvous import LocalRendezvous

    order = []

    class Ticket:
        servers = (1, 2, 3)

        def __init__(self, key):
            self.key = key

        def go(self, attempt, link):
            if not order or order[-1][0] != self.key:
                order.append((self.key, attempt))

        def refused(self, error):
            raise AssertionError

    meet = LocalRendezvous(running=1)
    keys = [(owner, bytes([i])) for i in range(4) for owner in (b"a", b"b")] + [(b"honest", b"1"), (b"honest", b"2")]
    for key in keys:
        for server in SERVERS:
            meet.have(key, server, Ticket(key))
    for _ in keys:
        for server in SERVERS:
            meet.done(order[-1][1], server)
    assert [owner for (owner, _), _ in order[:4]] == [b"a", b"b", b"honest", b"a"]
    assert len(order) == len(keys)


def test_an_owner_whose_rows_are_not_all_ranked_stops_nobody(world):
    """Its grant wants more rows than servers may rank: it is left out, the others are searched."""
    mina = world.deployment.create_owner("mina")
    mina.add_vectors(vectors(5))
    with uncertified(world.deployment):
        mina.add_vectors(vectors(5))
    mina.grant(world.user.id, rankings=ALL_RANKINGS, min_rows=10)
    found = world.user.search(QUERY, 60)
    assert len(found.hits) == 60 and mina.id not in {h.owner for h in found.hits}
    assert {o.owner for o in found.left_out} == {mina.id}
    assert len(world.user.search(QUERY, 70, ranking="user").hits) == 70


# --- batches that were there before ---------------------------------------------------------------------------------


def test_older_batches_are_certified_in_the_background(tmp_path):
    encoding = Encoding("cosine", DIM)
    with mipp.Deployment.create(tmp_path / "d", encoding) as deployment, uncertified(deployment):
        world = World(deployment)
        world.owners[0].delete([(world.owners[0].batches()[0].id, 3)])
        world.owners[0].compact()
        ids = world.owners[1].add_vectors(vectors(40, 5))
        world.owners[1].delete(ids[10:30])
        mallory = deployment.create_owner("mallory")
        mallory.grant(world.user.id, rankings=ALL_RANKINGS)
        rows = encoding.encode_rows(vectors(9)).astype(np.int64)
        rows[4] = 1 << 28
        (bad, _), *_ = upload(mallory, rows)
        (good, _), *_ = upload(mallory, rows[:4])
        batches = sum(len(o.batches()) for o in (*world.owners, mallory))
    with mipp.Deployment.open(tmp_path / "d") as deployment:
        assert "range" in deployment.notes[-1] and str(batches) in deployment.notes[-1]
        user = deployment.user("ulla")
        first = user.search(QUERY, 5, ranking="user")  # needs no certificate
        assert deployment.wait_certified(60)
        found = user.search(QUERY, 200)
        assert len(found.hits) == 59 + 20 + 4
        (left,) = found.left_out
        assert (left.batch, left.owner_name) == (bad, "mallory") and "range: 4" in left.reason
        assert [h.id for h in found.hits if h.batch != bad][:3] == [h.id for h in first.hits if h.batch != bad][:3]
        with pytest.raises(IntegrityError):
            user.search(QUERY, 5, strict=True)
        assert len(user.range_search(QUERY, -0.99)) == 83
        assert good in {h.batch for h in found.hits}
        for server in SERVERS:
            assert request(deployment.operators, server, pm.UncertifiedRequest()).batches == []
    with mipp.Deployment.open(tmp_path / "d") as deployment:
        assert not deployment.notes


@embedded_only
def test_an_owner_mends_a_refused_batch_by_deleting_rows(world):
    """It sees which batch and rows; compacting leaves the batch alone; once they are deleted it is checked again."""
    anna, deployment, encoding = world.owners[0], world.deployment, world.deployment.config.encoding
    rows = encoding.encode_rows(vectors(20)).astype(np.int64)
    rows[[3, 17]] *= 40
    with uncertified(deployment):
        (batch, _), *_ = upload(anna, rows)
    assert deployment.wait_certified(60)
    (refused,) = [b for b in anna.batches() if b.refused]
    assert refused.id == batch and "range: 3, 17" in refused.refused and "deletes them" in refused.refused
    status = {o["name"]: o["unranked"] for o in deployment.status()["owners"]}
    assert status == {"anna": 1, "berta": 0}
    anna.compact()
    assert len(anna.batches()) == 2  # the others were merged
    anna.delete([(batch, 3)])
    assert deployment.wait_certified(60)
    assert "range: 17" in next(b.refused for b in anna.batches() if b.id == batch)
    anna.delete([(batch, 17)])
    assert [b.refused for b in anna.batches()] == ["", ""]
    assert deployment.wait_certified(60)
    found = world.user.search(QUERY, 78)
    assert len(found.hits) == 78 and not found.left_out
    anna.compact()
    assert len(anna.batches()) == 1


@embedded_only
def test_rows_that_are_deleted_during_a_test(world, monkeypatch):
    """What was found of them is not written down: the batch is tested again."""
    from mipp.server import certifying

    anna, deployment, encoding = world.owners[0], world.deployment, world.deployment.config.encoding
    rows = encoding.encode_rows(vectors(20)).astype(np.int64)
    rows[5] *= 40
    with uncertified(deployment):
        (batch, _), *_ = upload(anna, rows)
    real, deleted = certifying.certify_rows, []

    def slow(party, *rest):
        found = real(party, *rest)
        if party.index == 1 and not deleted:
            deleted.append(True)
            anna.delete([(batch, 5)])
        return found

    monkeypatch.setattr(certifying, "certify_rows", slow)
    deployment.wait_certified(60)
    assert deleted
    assert deployment.wait_certified(60)
    assert len(world.user.search(QUERY, 79).hits) == 79 and not any(b.refused for b in anna.batches())


def test_progress_of_a_long_test_is_told(world, monkeypatch):
    from mipp.mpc import certificate
    from mipp.server import certifying

    monkeypatch.setattr(certifying, "LONG", 1000)
    monkeypatch.setattr(certificate, "_CHUNK_WORDS", 4096)
    anna, told = world.owners[0], []
    anna.checking = lambda done, total: told.append((done, total))
    anna.add_vectors(vectors(60_000))
    assert told and all(total == 60_000 and 0 <= done <= total for done, total in told)
    assert told == sorted(told) and world.user.index().total == 60_060


def test_an_encoding_that_servers_cannot_rank_is_said_before_anything_is_sent(tmp_path):
    wide = Encoding("l2", 150, bits=12, query_bits=12)
    with mipp.Deployment.create(tmp_path / "d", wide) as deployment:
        anna, user = deployment.create_owner("anna"), deployment.create_user("ulla")
        anna.add_vectors(vectors(3, dim=150))
        anna.grant(user.id, rankings=ALL_RANKINGS)
        rounds = deployment.channel.rounds
        for ask in (
            lambda: user.search(vectors(1, dim=150)[0], 1),
            lambda: user.range_search(vectors(1, dim=150)[0], 5.0),
        ):
            with pytest.raises(ScoreRangeError, match="leave the ring; rank as the user"):
                ask()
        assert deployment.channel.rounds == rounds


def test_searches_say_what_is_not_certified_yet(world):
    with uncertified(world.deployment):
        (batch, _), *_ = world.owners[0].add_vectors(vectors(5))
    found = world.user.search(QUERY, 60)
    assert len(found.hits) == 60 and [o.batch for o in found.left_out] == [batch]
    assert "not checked" in found.left_out[0].reason and found.left_out[0].server == 0
    assert len(world.user.search(QUERY, 65, ranking="user").hits) == 65
    index = world.user.index()
    encoded = world.user.config.encoding.encode_queries(QUERY[None])
    with pytest.raises(IntegrityError, match="not checked"):  # a user that names it all the same
        world.user._querier._sent(index, encoded, 5, "server")


def test_a_catalog_of_an_earlier_version_gets_its_columns(tmp_path):
    with mipp.Deployment.create(tmp_path / "d", Encoding("cosine", DIM)) as deployment:
        World(deployment)
        for server in deployment.servers.values():
            with server.store.catalog.transaction() as db:
                db.execute("ALTER TABLE batches DROP COLUMN certificate")
                db.execute("ALTER TABLE users DROP COLUMN out_of_range")
    with mipp.Deployment.open(tmp_path / "d") as deployment:
        assert deployment.wait_certified(60)
        assert len(deployment.user("ulla").search(QUERY, 60).hits) == 60


@pytest.mark.parametrize("scheme", ["lattice", "paillier", "no ranking"])
def test_deployments_whose_servers_cannot_rank_need_no_certificate(tmp_path, scheme):
    one_cloud = scheme != "no ranking"
    encoding = Encoding("cosine", DIM) if one_cloud else Encoding("l2", 150, bits=12, query_bits=12)
    assert one_cloud or not encoding.allows_server_ranking
    options = {"scheme": scheme} if one_cloud else {}
    with mipp.Deployment.create(tmp_path / "d", encoding, **options) as deployment:
        assert not deployment.config.certifies
        anna = deployment.create_owner("anna")
        anna.add_vectors(vectors(3, dim=encoding.dim))
        assert len(anna.batches()) == 1
        if not one_cloud:
            with pytest.raises(ParameterError, match="do not rank"):
                anna.ask({1: m.CertifyRows(b"e" * 16)})
