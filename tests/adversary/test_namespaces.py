"""An owner's ids are its own: whatever another owner calls its uploads, nothing of the first one is touched."""

import threading

import numpy as np
import pytest

from mipp.errors import MippError, NonceReuseError, NotFoundError, StoreError
from mipp.rpc import messages as m
from mipp.store import store as store_module
from tests.adversary.forge import SERVERS, Change
from tests.conftest import vectors

QUERY = vectors(1, 7)[0]


def files_of(world, owner):
    return {
        path: path.read_bytes()
        for server in (1, 2)
        for room in ("shares", "images")
        for path in (world.home(server) / room / owner.id.hex()).glob("*")
    }


@pytest.fixture
def victim(world):
    """anna, of whom everybody knows the batch ids; checked to be unharmed at the end."""
    anna = world.owners[0]
    before = files_of(world, anna)
    yield anna
    assert files_of(world, anna) == before and len(before) >= 4
    assert world.deployment.verify()["problems"] == []
    world.check(k=60)
    world.check(k=10, ranking="server")
    images = world.user.fetch([h for h in world.user.search(QUERY, 60).hits if h.owner == anna.id and h.row < 15])
    assert sum(i.error is None for i in images) == 15


@pytest.mark.parametrize("abort", [True, False])
def test_an_upload_under_anothers_batch_id(world, victim, abort):
    """What a user saved names one image: no other owner gets that id. Files of the first owner stay as they are."""
    mallory = world.deployment.create_owner("mallory")
    for batch in victim.batches():
        change = Change(mallory, batch.id, images=b"x" * 50)
        with pytest.raises(NonceReuseError, match="another owner"):
            change.prepare()
        if abort:
            mallory.ask_all(m.AbortOp(batch.id))
            assert "committed" not in change.certify(change.commit())
        else:
            with pytest.raises(NotFoundError):
                change.commit()
    assert not mallory.batches()
    for server in world.deployment.servers.values():
        server.store.sweep()


def test_ids_that_were_merged_deleted_or_forgotten(world):
    anna, berta = world.owners
    old = [b.id for b in anna.batches()]
    berta.delete([(b.id, row) for b in berta.batches()[:1] for row in range(b.rows)])
    gone = berta.batches()[0].id
    anna.compact()
    berta.compact()
    new = anna.batches()[0].id
    before = files_of(world, anna)
    mallory = world.deployment.create_owner("mallory")
    for batch in (*old, new, gone):
        with pytest.raises(NonceReuseError, match="another owner"):
            Change(mallory, batch, images=b"x" * 50).prepare()
    berta.forget()
    with pytest.raises(NonceReuseError, match="another owner"):
        Change(mallory, gone).prepare()
    assert files_of(world, anna) == before
    images = world.user.fetch([(new, row) for row in range(15)])
    assert [i.content for i in images] == [bytes([0, row]) * 50 for row in range(15)]
    assert world.deployment.verify()["problems"] == []
    assert len(mallory.batches()) == 0


def test_two_owners_prepare_one_id(world):
    """Whoever commits first has it; the other one's is refused at every server, for ever."""
    anna, mallory = world.owners[0], world.deployment.create_owner("mallory")
    first, second = Change(anna, b"r" * 16, images=b"a" * 60), Change(mallory, b"r" * 16, images=b"m" * 60)
    first.prepare()
    second.prepare()
    assert set(first.certify(first.commit())) == {"committed"}
    assert set(second.certify(second.commit())) == {"aborted"}
    assert len(mallory.batches()) == 0 and b"r" * 16 in [b.id for b in anna.batches()]
    assert world.deployment.verify()["problems"] == []


@pytest.mark.usefixtures("shared_ids")
def test_two_owners_with_one_batch_id(world):
    """Both are searched and fetched as themselves, and their rows are never under the same mask."""
    anna = world.owners[0]
    batch = anna.batches()[0].id
    mallory = world.deployment.create_owner("mallory")
    assert set(Change(mallory, batch, rows=15).make()) == {"committed"}
    mallory.grant(world.user.id, rankings=("user", "server"))
    index = world.user.index()
    assert [b.tobytes() for b in index.batches].count(batch) == 2 and index.total == 75
    assert len(world.user.search(QUERY, 75, ranking="user").hits) == 75
    found = world.user.search(QUERY, 75, ranking="server").hits
    assert sorted(h.owner for h in found) == sorted([mallory.id] * 15 + [o.id for o in world.owners for _ in range(30)])
    mine = [h for h in found if h.batch == batch and h.row == 3]
    assert len(mine) == 2
    images = {h.owner: i for h, i in zip(mine, world.user.fetch(mine), strict=True)}
    assert images[anna.id].content == bytes([0, 3]) * 50 and images[mallory.id].error is not None
    # some of the batches: those of one of them alone
    for owner in (anna, mallory):
        hits = world.user.search(QUERY, 15, owners=owner, ranking="user").hits
        assert {h.owner for h in hits} == {owner.id}
    plan = next(p for p in world.deployment.servers[1].queries._plans.values() if p.total == 75)
    assert len({n.tobytes() for n in plan.nonces}) == len(plan.nonces)


def test_a_retry_while_the_first_attempt_writes(world, monkeypatch):
    """The owner's connection broke, it sends the same again: both attempts write, none removes the other's file."""
    anna = world.owners[0]
    change = Change(anna, b"r" * 16, images=b"i" * 60)
    real, started, go_on = store_module.write_share, threading.Event(), threading.Event()

    def slow(path, *rest):
        if not started.is_set():
            started.set()
            assert go_on.wait(20)
        return real(path, *rest)

    monkeypatch.setattr(store_module, "write_share", slow)
    first = threading.Thread(target=lambda: change.prepare([1]))
    first.start()
    assert started.wait(20)
    change.prepare()
    assert set(change.certify(change.commit())) == {"committed"}
    go_on.set()
    first.join()
    assert world.deployment.verify()["problems"] == []
    assert len([p for p in files_of(world, anna) if p.name.startswith((b"r" * 16).hex())]) == 4
    change.prepare()  # and once more, when it is long done
    assert world.user.search(QUERY, 62, ranking="user", strict=True).hits


def test_two_attempts_with_different_content(world):
    anna = world.owners[0]
    Change(anna, b"r" * 16).prepare()
    with pytest.raises(NonceReuseError):
        Change(anna, b"r" * 16, rows=3).prepare()
    anna.ask_all(m.AbortOp(b"r" * 16))
    with pytest.raises((NonceReuseError, StoreError)):
        Change(anna, b"r" * 16).prepare()
    world.check(k=60)


def test_ids_of_others_in_every_other_request(world, victim):
    mallory = world.deployment.create_owner("mallory")
    batch = victim.batches()[0].id
    name = np.frombuffer(batch, np.uint8)[None]
    box = b"\x09" + bytes(31)
    for msg in (
        m.DeleteOp(b"d" * 16, name, np.array([0], "<i8")),
        m.FetchShares(batch, box),
        m.FetchOwnImages(batch, np.array([0], "<i8")),
        m.AuditRows(b"s" * 32, 0, box, name),
        m.ForgetOwner(victim.id, victim.keys.registration),
        m.Certify(victim.id, batch, []),
    ):
        for server in SERVERS:
            with pytest.raises(MippError):
                mallory.ask({server: msg})
    with pytest.raises(MippError):
        Change(mallory, b"m" * 16, replaces=[batch]).prepare()
    assert list(mallory.ask({1: m.ListBatches(victim.id)})[1].batches) == []
    mallory.ask_all(m.AbortOp(batch))
    mallory.ask_all(m.Compact(victim.id))
