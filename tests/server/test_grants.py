"""Grants: every server enforces them, for searching and for fetching."""

import numpy as np
import pytest

from mipp.errors import AccessDeniedError, NotFoundError, ParameterError
from mipp.rpc import messages as m
from tests.adversary.grants import raw_grant
from tests.conftest import ALL_RANKINGS, vectors

QUERY = vectors(1, 7)[0]


def every_server_refuses(world, user, match):
    """The same query as honest code would send it, to each server alone."""
    index = world.user.index()
    captured = {}

    class Tap:
        servers = (1, 2, 3)

        def gather(self, requests, *, together=False, spare=False):
            captured.update(requests)
            raise KeyboardInterrupt

    real, user.channel = user.channel, Tap()
    try:
        encoded = user.config.encoding.encode_queries(QUERY)
        with pytest.raises(KeyboardInterrupt):
            user._querier._sent(index, encoded, 3, "user")
    finally:
        user.channel = real
    for server in (1, 2, 3):
        with pytest.raises(AccessDeniedError, match=match):
            real.gather({server: captured[server]})


def test_without_a_grant_every_server_refuses(world):
    stranger = world.deployment.create_user("stranger")
    before = world.deployment.channel.bytes_sent["Answer"]
    with pytest.raises(AccessDeniedError, match="no owner grants"):
        stranger.search(QUERY)
    every_server_refuses(world, stranger, "no owner grants")
    assert world.deployment.channel.bytes_sent["Answer"] == before
    with pytest.raises(AccessDeniedError):
        stranger.fetch([world.user.search(QUERY).hits[0]])


def test_another_owners_grant_does_not_help(world):
    friend = world.deployment.create_user("friend")
    world.owners[0].grant(friend.id)
    assert {h.owner for h in friend.search(QUERY, 30).hits} == {world.owners[0].id}
    with pytest.raises(ParameterError):
        friend.search(QUERY, 31)
    with pytest.raises(AccessDeniedError):
        friend.search(QUERY, 1, owners=[world.owners[1].id])
    every_server_refuses(world, friend, "not in force")
    theirs = next(h for h in world.user.search(QUERY, 60).hits if h.owner == world.owners[1].id)
    with pytest.raises(AccessDeniedError):
        friend.fetch([theirs], strict=True)


def test_revoke_takes_effect_at_once(world):
    world.user.search(QUERY)
    world.owners[0].revoke(world.user.id)
    assert {h.owner for h in world.user.search(QUERY, 30).hits} == {world.owners[1].id}
    world.owners[1].revoke(world.user.id)
    with pytest.raises(AccessDeniedError):
        world.user.search(QUERY)
    every_server_refuses_after = pytest.raises(AccessDeniedError)
    with every_server_refuses_after:
        world.user.index()
    world.owners[0].grant(world.user.id)
    world.user.search(QUERY, 30)
    with pytest.raises(NotFoundError):
        world.owners[1].revoke(world.user.id)


def test_forget_takes_effect_at_once(world):
    anna, berta = world.owners
    batches = [b.id.hex() for b in anna.batches()]
    world.user.search(QUERY)
    anna.forget()
    assert {h.owner for h in world.user.search(QUERY, 30).hits} == {berta.id}
    for server in (1, 2, 3):
        assert not [p for b in batches for p in world.home(server).rglob(f"{b}*")]
    for act in (lambda: anna.add_vectors(vectors(1)), lambda: anna.grant(world.user.id), anna.register):
        with pytest.raises((AccessDeniedError, NotFoundError)):
            act()
    with pytest.raises(NotFoundError, match="forgotten"):
        world.deployment.owner("anna")
    assert [o["forgotten"] for o in world.deployment.status()["owners"] if o["name"] == "anna"] == [True]


def test_forgotten_keys_are_not_in_the_key_centres_files(world):
    anna = world.owners[0]
    sealed = world.deployment.servers[3].store.owner(anna.id)[2]
    folder = world.home(3)
    assert any(sealed in p.read_bytes() for p in folder.glob("catalog*"))
    anna.forget()
    assert not any(sealed in p.read_bytes() for p in folder.glob("catalog*"))


def test_limits_are_enforced_by_the_servers(world, monkeypatch):
    anna, berta = world.owners
    user = world.user
    berta.revoke(user.id)
    anna.grant(user.id, max_k=3)
    user.search(QUERY, 3)
    with pytest.raises(AccessDeniedError, match="k up to 3"):
        user.search(QUERY, 4)
    anna.grant(user.id, rankings=("server",))
    user.search(QUERY, 1)
    with pytest.raises(AccessDeniedError, match="ranking"):
        user.search(QUERY, 1, ranking="user")
    anna.grant(user.id, rankings=("user",))
    user.search(QUERY, 1, ranking="user")
    with pytest.raises(AccessDeniedError, match="ranking"):
        user.search(QUERY, 1, ranking="server")
    anna.grant(user.id, min_rows=31)
    with pytest.raises(AccessDeniedError, match="31 rows"):
        user.search(QUERY, 1)
    anna.ask_all(raw_grant(world, anna, expiry=1))
    with pytest.raises(AccessDeniedError, match="expired at 1970-01-01 00:00:01 UTC"):
        user.search(QUERY, 1)
    anna.grant(user.id, expiry=4102444800)
    user.search(QUERY, 1)
    for server in world.deployment.servers.values():
        monkeypatch.setattr(server, "clock", lambda: 4102444800.0)
    with pytest.raises(AccessDeniedError, match="2100-01-01 00:00:00 UTC, this server's clock says 2100"):
        user.search(QUERY, 1)


def test_quota_is_counted_by_every_server(world):
    anna, berta = world.owners
    berta.revoke(world.user.id)
    anna.grant(world.user.id, quota=5)
    world.user.search_batch(vectors(3), 2)
    with pytest.raises(AccessDeniedError, match="quota"):
        world.user.search_batch(vectors(3), 2)
    world.user.search_batch(vectors(2), 2)
    for server in world.deployment.servers.values():
        assert server.store.catalog.one("SELECT used FROM grants WHERE owner=?", anna.id) == (5,)
    with pytest.raises(AccessDeniedError, match="quota"):
        world.user.search(QUERY, 2)
    anna.grant(world.user.id, quota=1)
    world.user.search(QUERY, 2)


def test_a_stale_grant_is_refused_everywhere(world):
    anna = world.owners[0]
    stale = world.user.index()
    anna.grant(world.user.id, rankings=("user",))
    world.user._known.clear()
    encoded = world.user.config.encoding.encode_queries(QUERY)
    with pytest.raises(AccessDeniedError, match="not in force"):
        world.user._querier._sent(stale, encoded, 3, "user")
    world.check(k=9)


def test_a_restored_backup_revives_nothing(world):
    """An older signed grant, sent again after the revocation, is refused by every server."""
    anna = world.owners[0]
    old = world.deployment.servers[1].store.grants(owner=anna.id)[0][1]
    anna.revoke(world.user.id)
    from mipp.rpc.wire import unpack_frames

    for server in (1, 2, 3):
        with pytest.raises(AccessDeniedError, match="too old"):
            world.deployment.channel.gather({server: unpack_frames(old)})
    assert {h.owner for h in world.user.search(QUERY, 30).hits} == {world.owners[1].id}


def test_only_the_owner_grants(world):
    anna, berta = world.owners
    forged = m.Grant(anna.id, world.user.id, 0, 99, 0, ["user"], 0, True, 0, 0, False)
    with pytest.raises(AccessDeniedError):
        berta.ask_all(forged)
    with pytest.raises(AccessDeniedError):
        berta.ask_all(m.ForgetOwner(anna.id, anna.keys.registration))


def test_bad_grants(world):
    anna = world.owners[0]
    for bad in (
        {"rankings": ()},
        {"rankings": ("mine",)},
        {"max_k": -1},
        {"quota": -1},
        {"expiry": -5},
        {"min_rows": -1},
        {"rankings": "user"},
        {"rankings": (1,)},
        {"rankings": ("user", "user")},
        {"expiry": 1},
        {"expiry": 1 << 63},
        {"expiry": 1 << 64},
        {"quota": 1 << 62},
        {"quota": 1 << 64},
        {"max_k": (1 << 31) + 1},
        {"min_rows": (1 << 31) + 1},
        {"max_k": True},
        {"quota": 1.0},
        {"quota": "9"},
        {"scores": 1},
        {"rankings": ("user",), "max_k": 1},
        {"rankings": ("server", "user"), "scores": False},
        {"rankings": ("threshold",), "max_k": 1},
        {"rankings": ("server", "threshold"), "scores": False},
    ):
        with pytest.raises(ParameterError):
            anna.grant(world.user.id, **bad)
    for bad in (b"x" * 15, b"", "x" * 16, None):
        with pytest.raises(ParameterError):
            anna.grant(bad)
    with pytest.raises(NotFoundError):
        anna.grant(b"x" * 16)
    assert len(anna.grants()) == 1 and anna.grants()[0].version == 1


def test_limits_at_their_ends(world):
    """The largest numbers that are accepted work in SQLite and on the wire."""
    anna = world.owners[0]
    world.owners[1].revoke(world.user.id)
    anna.grant(world.user.id, expiry=(1 << 63) - 1, quota=np.int64((1 << 62) - 1), max_k=1 << 31)
    assert world.user.search(QUERY, 3).hits
    assert anna.grants()[0].expiry == (1 << 63) - 1
    anna.grant(world.user.id, min_rows=1 << 31)
    with pytest.raises(AccessDeniedError, match="at least 2147483648 rows"):
        world.user.search(QUERY, 3)


def test_the_default_grants_the_least(world):
    anna = world.owners[0]
    world.owners[1].revoke(world.user.id)
    anna.grant(world.user.id)
    assert anna.grants()[0].rankings == ("server",)
    world.user.search(QUERY, 3)
    with pytest.raises(AccessDeniedError, match="ranking 'user'"):
        world.user.search(QUERY, 3, ranking="user")
    with pytest.raises(AccessDeniedError, match="ranking 'threshold'"):
        world.user.range_search(QUERY, 0.1)


def test_a_threshold_needs_every_owner(world):
    world.user.range_search(QUERY, 0.1)
    world.owners[1].grant(world.user.id, rankings=("server", "user"))
    with pytest.raises(AccessDeniedError, match="ranking 'threshold'"):
        world.user.range_search(QUERY, 0.1, owners=world.owners)
    assert [o.owner_name for o in world.user.range_search(QUERY, 0.1).left_out] == ["berta"]
    world.user.range_search(QUERY, 0.1, owners="anna")
    world.owners[1].grant(world.user.id, rankings=ALL_RANKINGS)
    world.user.range_search(QUERY, 0.1)
