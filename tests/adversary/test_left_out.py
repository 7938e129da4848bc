"""One owner's damaged, missing or differing state is that owner's: named, and all others are found and fetched."""

import pytest

from mipp.errors import AccessDeniedError, IntegrityError, ParameterError, StaleSnapshotError
from mipp.rpc import messages as m
from mipp.server.settling import settle
from tests.conftest import ALL_RANKINGS, vectors

QUERY = vectors(1, 7)[0]


def share_file(world, owner, server=1, number=0):
    batch = owner.batches()[number].id
    return next((world.home(server) / "shares" / owner.id.hex()).glob(f"{batch.hex()}.*")), batch


@pytest.mark.parametrize("damage", ["flipped", "missing", "short"])
@pytest.mark.parametrize("server", [1, 2])
def test_a_damaged_share_file(world, server, damage):
    anna, berta = world.owners
    path, batch = share_file(world, anna, server)
    good = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        path.write_bytes(good[:-7] if damage == "short" else good[:300] + b"\xff" + good[301:])
    world.reopen()
    anna, berta = world.owners
    for ranking in ("user", "server"):
        result = world.user.search(QUERY, 45, ranking=ranking)
        assert [(o.owner_name, o.batch, o.server) for o in result.left_out] == [("anna", batch, server)]
        assert len(result.hits) == 45 and batch not in {h.batch for h in result.hits}
        assert "/" not in result.left_out[0].reason
        assert len(world.user.search(QUERY, 60, ranking=ranking).hits) == 45  # as many as there are
        with pytest.raises(IntegrityError, match=batch.hex()):
            world.user.search(QUERY, 5, ranking=ranking, strict=True)
        others = world.user.search(QUERY, 30, ranking=ranking, owners=berta, strict=True)
        assert len(others.hits) == 30 and others.left_out == ()
    matches = world.user.range_search(QUERY, -0.99)
    assert 0 < len(matches) <= 45 and len(matches.left_out) == 1
    images = world.user.fetch([(berta.batches()[0].id, row) for row in range(15)] + [(batch, 1)])
    assert [i.error for i in images] == [None] * 16  # image packs are files of their own
    path.write_bytes(good)  # brought back: no restart is needed
    assert len(world.user.search(QUERY, 60, ranking="user", strict=True).hits) == 60


def test_damage_that_comes_while_the_index_is_known(world):
    """The snapshot is older than the damage: the query meets it, and goes on without."""
    anna = world.owners[0]
    assert len(world.user.search(QUERY, 60).hits) == 60
    path, batch = share_file(world, anna, 2)
    path.write_bytes(b"")
    world.deployment.servers[2].store.views.clear()  # as when its process starts again
    world.deployment.servers[2].queries._plans.clear()
    for ranking in ("server", "user"):
        result = world.user.search(QUERY, 60, ranking=ranking)
        assert len(result.hits) == 45 and [o.batch for o in result.left_out] == [batch]


def test_damaged_keys_at_the_key_centre(world):
    anna, berta = world.owners
    server = world.deployment.servers[3]
    sealed = bytearray(server.store.owner(anna.id)[2])
    sealed[-1] ^= 1
    with server.store.catalog.transaction() as db:
        db.execute("UPDATE owners SET sealed=? WHERE id=?", (bytes(sealed), anna.id))
    server._secrets.clear()
    for ranking in ("user", "server"):
        result = world.user.search(QUERY, 30, ranking=ranking)
        assert {h.owner for h in result.hits} == {berta.id}
        assert [(o.owner_name, o.batch, o.server) for o in result.left_out] == [("anna", b"", 3)]
    with pytest.raises(IntegrityError, match="anna"):
        world.user.search(QUERY, 30, strict=True)
    with pytest.raises(ParameterError, match="left out"):
        world.user.search(QUERY, 1, owners="anna")


def test_a_grant_given_to_some_servers_only(world):
    """A hostile owner tells the servers different things: it is left out until they agree, at no cost for the rest."""
    mallory = world.deployment.create_owner("mallory")
    mallory.add_vectors(vectors(4, 9))
    grant = m.Grant(mallory.id, world.user.id, 0, 1, 0, list(ALL_RANKINGS), 0, True, 0, 0, False)
    mallory.ask_all(grant, [1])
    world.user.recover = None  # nobody passes it on
    for ranking in ("user", "server"):
        result = world.user.search(QUERY, 60, ranking=ranking)
        assert len(result.hits) == 60 and {o.owner for o in result.left_out} == {mallory.id}
    settle(world.deployment.operators)
    assert world.user.index().total == 64 and not world.user.index().left_out


def test_only_the_owners_that_are_asked_for_are_opened(world, monkeypatch):
    berta = world.owners[1]
    world.reopen()
    opened = []
    for server in world.deployment.servers.values():
        real = server.store.views._new_view
        monkeypatch.setattr(
            server.store.views, "_new_view", lambda o, old, real=real: (opened.append(o), real(o, old))[1]
        )
    assert world.user.search(QUERY, 30, owners="berta").hits
    assert set(opened) == {berta.id}
    world.user.fetch([h for h in world.user.search(QUERY, 30, owners="berta").hits if h.row < 15][:2])
    assert set(opened) == {berta.id}


def test_later_owners_are_found(world):
    """A user that searched before an owner came, or added, finds it in its next search."""
    for ranking in ("user", "server"):
        before = len(world.user.search(QUERY, 60, ranking=ranking).hits)
        late = world.deployment.create_owner(f"late-{ranking}")
        late.add_vectors(QUERY[None])
        late.grant(world.user.id, rankings=ALL_RANKINGS)
        assert late.id in {h.owner for h in world.user.search(QUERY, before, ranking=ranking).hits}
        late.add_vectors(QUERY[None])
        found = world.user.search(QUERY, 2, ranking=ranking).hits
        assert [h.owner for h in found] == [late.id] * 2 and {h.row for h in found} == {0}
        late.revoke(world.user.id)
        assert late.id not in {h.owner for h in world.user.search(QUERY, 60, ranking=ranking).hits}


def test_blocked_owners_do_not_disturb(world):
    """Neither what they grant nor what is damaged of theirs; and new owners are found all the same."""
    anna = world.owners[0]
    world.user.block(anna)
    share_file(world, anna)[0].write_bytes(b"")
    result = world.user.search(QUERY, 30)
    assert {h.owner for h in result.hits} == {world.owners[1].id} and result.left_out == ()
    late = world.deployment.create_owner("late")
    late.add_vectors(vectors(2))
    late.grant(world.user.id)
    assert len(world.user.search(QUERY, 32).hits) == 32
    with pytest.raises(ParameterError, match="blocked"):
        world.user.search(QUERY, 3, owners="anna")


def test_uploads_do_not_make_a_snapshot_stale(world):
    """Any number of uploads between snapshot and query; nothing is refused, nothing counted twice."""
    anna, user = world.owners[0], world.user
    anna.grant(user.id, rankings=("user", "server"), quota=100)
    encoded = user.config.encoding.encode_queries(QUERY)
    for ranking in ("user", "server"):
        index = user.index()
        for i in range(10):
            anna.add_vectors(vectors(1, 50 + i))
        _, replies = user._querier._sent(index, encoded, 3, ranking)
        assert len(replies) == 3
    used = [
        s.store.catalog.one("SELECT used FROM grants WHERE owner=?", anna.id)[0]
        for s in world.deployment.servers.values()
    ]
    assert used == [2, 2, 2]
    anna.delete([(anna.batches()[0].id, 0)])
    with pytest.raises(StaleSnapshotError):
        user._querier._sent(index, encoded, 3, "user")
    assert user.search(QUERY, 3, ranking="user").hits


def test_rights_do_not_outlive_a_revocation_or_a_forget(world):
    """A header that was begun is answered for ten minutes, but not beyond its grants."""
    anna, berta, user = *world.owners, world.user
    encoded = user.config.encoding.encode_queries(QUERY)
    for end in (lambda: berta.revoke(user.id), anna.forget):
        prepared = user._querier.hide(user.index(), encoded, 3, "user")
        assert user._querier.send(prepared, range(5))
        end()
        with pytest.raises(AccessDeniedError):
            user._querier.send(prepared, range(5, 10))
        if end is not anna.forget:
            berta.grant(user.id, rankings=("user", "server"))


def test_a_change_that_reached_one_server_slows_nobody_and_is_found_later(world):
    """The first server is ahead of the others; when they follow, the user's next search sees the new row."""
    from mipp.rpc.wire import encode, pack_frames
    from tests.adversary.forge import Change

    anna, user = world.owners[0], world.user
    change = Change(anna, b"h" * 16, rows=1)
    change.prepare()
    votes = change.commit()
    assert change.certify(votes, [1]) == ["committed"]
    rounds = world.deployment.channel.rounds
    for _ in range(3):
        assert len(user.search(QUERY, 60, strict=True).hits) == 60
    assert world.deployment.channel.rounds - rounds <= 6
    assert change.certify(votes, [2, 3]) == ["committed"] * 2
    assert len(user.search(QUERY, 61, strict=True).hits) == 61
    assert pack_frames(encode(m.HeadRequest(anna.id)))


@pytest.mark.usefixtures("shared_ids")
def test_ids_that_several_owners_have_fail_alone(world):
    from tests.adversary.forge import Change

    anna, berta = world.owners
    mallory = world.deployment.create_owner("mallory")
    Change(mallory, anna.batches()[0].id, rows=2).make()
    mallory.grant(world.user.id, rankings=ALL_RANKINGS)
    images = world.user.fetch([(anna.batches()[0].id, 0), (berta.batches()[0].id, 1)])
    assert isinstance(images[0].error, ParameterError) and images[1].content == bytes([1, 1]) * 50


def test_naming_no_owner_is_not_naming_all(world):
    for none in ([], ()):
        with pytest.raises(ParameterError, match="no owner is named"):
            world.user.search(QUERY, 5, owners=none)
    assert len(world.user.search(QUERY, 60, owners=None).hits) == 60
