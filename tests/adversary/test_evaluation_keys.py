"""Evaluation keys of the lattice scheme: brought by several programs at once, lost by one server, denied by a liar."""

import threading
import time

import numpy as np
import pytest

import mipp
from mipp.errors import AccessDeniedError, LimitError, MissingKeyError, ProtocolError
from mipp.lattice import EvaluationKey
from mipp.rpc import messages as m
from mipp.rpc.wire import decode, encode
from tests.conftest import KINDS, World, answer, made, vectors

LONG = mipp.Encoding("cosine", 12, bits=12, query_bits=12)  # scores need the parameter set with evaluation keys


@pytest.fixture(params=KINDS)
def world(request, tmp_path):
    with made(request.param, tmp_path, LONG, scheme="lattice") as deployment:
        yield World(deployment)


def lose(world, number):
    """A server loses all evaluation keys, as after a restore."""
    server = world.deployment.servers[number]
    with server.store.catalog.transaction() as db:
        db.execute("DELETE FROM evaluation_keys")
    server.scheme.drop_user(world.user.id)


def denies(deployment, number, times=1):
    """A server says that it lacks the key, to the first queries that come."""
    real, asked = deployment.servers[number].handle, []

    def handler(frames):
        if _kind(frames) == "Query":
            asked.append(1)
            if len(asked) <= times:
                return encode(m.Failure("MissingKeyError", f"server {number} has no evaluation key of this user"))
        return real(frames)

    answer(deployment, number, handler)
    return asked


def _kind(frames):
    return type(decode([f.data for f in decode(frames, m.Signed).frames])).__name__


def limited(world, quota):
    """Both owners limit the user's queries, and it has heard of that."""
    for owner in world.owners:
        owner.grant(world.user, quota=quota)
    world.user.index()


def used(world, number):
    store = world.deployment.servers[number].store
    return {row[0] for row in store.catalog.all("SELECT used FROM grants WHERE user=?", world.user.id)}


def test_first_searches_of_one_user_at_once(world):
    """Each program brings a key; the first one stays, and all find what is right."""
    users, found, gate = [world.deployment.user("ulla") for _ in range(4)], [], threading.Barrier(4)
    query = vectors(1, 9)[0]

    def search(user):
        gate.wait()
        try:
            found.append([((h.batch, h.row), h.score) for h in user.search(query, 4).hits])
        except Exception as error:
            found.append(error)

    threads = [threading.Thread(target=search, args=(user,)) for user in users]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [world.expected(query, 4)] * 4


def test_a_key_that_came_meanwhile_is_no_failure(world):
    """Between the refusal and the key, another program of the user brings one."""
    real = world.user.scheme.evaluation_key

    def late():
        world.deployment.user("ulla").search(vectors(1)[0], 1)
        return real()

    world.user.scheme.evaluation_key = late
    world.check()


@pytest.mark.parametrize("number", [1, 2])
def test_a_server_that_lost_the_key_costs_no_query_at_the_other(world, number):
    world.check()
    limited(world, 1)
    lose(world, number)
    world.check(k=3)
    assert used(world, 1) == used(world, 2) == {1}


@pytest.mark.parametrize("number", [1, 2])
def test_a_liar_that_denies_the_key_costs_no_query_at_the_other(world, number):
    world.check()
    limited(world, 1)
    asked = denies(world.deployment, number)
    world.check(k=3)
    assert len(asked) == 2 and used(world, 1) == used(world, 2) == {1}


def test_a_server_that_goes_on_denying_is_asked_twice(world):
    world.check()
    limited(world, 5)
    asked = denies(world.deployment, 2, times=9)
    with pytest.raises(ProtocolError, match="server 2"):
        world.user.search(vectors(1)[0], 1)
    assert len(asked) == 2 and used(world, 1) == {1}


@pytest.mark.parametrize(("kind", "refusals"), [("BusyError", 3), ("LimitError", 1000)])
def test_a_server_that_does_not_take_the_key_costs_no_query_twice(world, kind, refusals):
    """Busy for a while, or without room: the other server counts the first query, and none of those behind it."""
    limited(world, 100)
    world.user.search(vectors(1, 9)[0], 4)
    lose(world, 1)
    before, real, asked = used(world, 2), world.deployment.servers[1].handle, []

    def handler(frames):
        if _kind(frames) == "KeepEvaluationKey":
            asked.append(1)
            if len(asked) <= refusals:
                return encode(m.Failure(kind, "not now"))
        return real(frames)

    answer(world.deployment, 1, handler)
    for _ in range(3):
        if kind == "BusyError":
            world.user.search(vectors(1, 9)[0], 4)
        else:
            with pytest.raises(LimitError):
                world.user.search(vectors(1, 9)[0], 4)
    assert used(world, 2) == {count + (3 if kind == "BusyError" else 1) for count in before}
    assert len(asked) == (4 if kind == "BusyError" else 3)


@pytest.mark.parametrize("scheme", ["shares", "lattice"])
def test_where_there_are_no_keys_nobody_may_want_one(tmp_path, scheme):
    with mipp.Deployment.create(tmp_path / "d", mipp.Encoding("cosine", 12), scheme=scheme, threads=1) as deployment:
        world = World(deployment)
        for owner in world.owners:
            owner.grant(world.user, rankings=["user"], quota=5)
        asked = denies(deployment, 2)
        deployment.channel.bytes_sent.clear()
        with pytest.raises(ProtocolError, match="server 2 wants an evaluation key"):
            world.user.search(vectors(1)[0], 1, ranking="user")
        assert len(asked) == 1 and max(used(world, 1)) <= 2  # once; folded check columns count, too
        assert not deployment.channel.bytes_sent["KeepEvaluationKey"]


def test_a_key_that_vanishes_after_the_check_is_used(world, monkeypatch):
    """A query that was counted is answered."""
    world.check()
    for owner in world.owners:
        owner.grant(world.user, quota=1)
    for number in (1, 2):
        queries = world.deployment.servers[number].queries
        real = queries._charge

        def charge(*given, number=number, real=real):
            real(*given)
            lose(world, number)

        monkeypatch.setattr(queries, "_charge", charge)
    world.check(k=3)
    assert used(world, 1) == used(world, 2) == {1}


def test_keys_of_expired_grants_give_way(world, monkeypatch):
    world.check()
    size = world.user.scheme.evaluation_key_bytes
    monkeypatch.setattr("mipp.store.parties.MAX_EVALUATION_KEYS_BYTES", size)
    now = [time.time()]
    for server in world.deployment.servers.values():
        monkeypatch.setattr(server, "clock", lambda: now[0])
    for owner in world.owners:
        owner.grant(world.user, expiry=int(now[0]) + 100)
    other = world.deployment.create_user("otto")
    world.owners[0].grant(other)
    with pytest.raises(LimitError, match="no room"):
        other.search(vectors(1)[0], 1)
    now[0] += 200
    assert len(other.search(vectors(1)[0], 1).hits) == 1
    for server in world.deployment.servers.values():
        assert server.store.has_evaluation_key(other.id) and not server.store.has_evaluation_key(world.user.id)


def test_what_a_server_has_is_not_read_again(world, monkeypatch):
    """Asking costs no reading, and a second key is not read; nor is one of a user without grants."""
    world.check()
    key = m.KeepEvaluationKey(np.frombuffer(world.user.scheme.evaluation_key(), np.uint8))
    eve = world.deployment.create_user("eve")
    monkeypatch.setattr(EvaluationKey, "from_bytes", lambda *a, **o: pytest.fail("read"))
    for server in world.deployment.servers.values():
        monkeypatch.setattr(server.store, "_evaluation_key", lambda user: pytest.fail("read"))
    world.user.ask_all(key)
    assert {r.needed for r in world.user.ask_all(m.EvaluationKeyRequest(world.user.id)).values()} == {0}
    assert all(r.needed for r in eve.ask_all(m.EvaluationKeyRequest(eve.id)).values())
    with pytest.raises(AccessDeniedError):
        eve.ask_all(key)


def test_a_damaged_key_is_missing_once_it_was_read(world):
    world.check()
    server = world.deployment.servers[1]
    with server.store.catalog.transaction() as db:
        db.execute("UPDATE evaluation_keys SET key=CAST(substr(key, 2) || x'00' AS BLOB)")
    server.scheme.drop_user(world.user.id)
    assert server.store.damaged_evaluation_keys() == [world.user.id]
    with pytest.raises(MissingKeyError):
        server.scheme._key(world.user.id)
    state = world.user.ask_all(m.EvaluationKeyRequest(world.user.id))
    assert [state[1].needed > 0, state[2].needed > 0] == [True, False]
    world.check()
    assert server.store.damaged_evaluation_keys() == []
