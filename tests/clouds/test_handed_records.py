"""A cloud that a change was not written to takes it over: what its owner prepared there counts for nothing of itself.

Else a hostile owner could give it other records or images than the other clouds have. Each private fetch reads all
rows, so half of all users' fetches would fail.
"""

import contextlib
import dataclasses

import numpy as np
import pytest

import mipp
from mipp.errors import MippError
from mipp.rpc import messages as m
from mipp.rpc.channel import LocalChannel
from mipp.rpc.records import image_files_hash, record_hashes, record_pack_hash
from mipp.rpc.wire import frame_hashes
from mipp.server.following import follow
from mipp.server.repair import Repairer


def rows(count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 4))


@pytest.fixture
def world(tmp_path):
    with mipp.Deployment.create(tmp_path / "d", mipp.Encoding("cosine", 4), preview_size=512, clouds=3) as made:
        made.anna, made.eve, made.ulla = made.create_owner("anna"), made.create_owner("eve"), made.create_user("ulla")
        made.ids = made.anna.add_vectors(rows(5), [(f"{n}", b"x" * 50, {"n": n}) for n in range(5)])
        made.mine = made.eve.add_vectors(rows(4, 1), [("e", b"e" * 60, {"e": n}) for n in range(4)])
        for owner in (made.anna, made.eve):
            owner.grant(made.ulla)
        yield made


def without(monkeypatch, owner, cloud, change):
    """Whatever the owner sends to a cloud is changed, and its COMMITs are not written to that cloud."""
    signed, commit = owner.signed, type(owner._changes)._commit

    def other(msg, server, known=None):
        return signed(change(msg) if server == cloud else msg, server)

    def fewer(self, kind, op, content, contents, shares, head):
        some = {s: hash_ for s, hash_ in contents.items() if s != cloud}
        return commit(self, kind, op, content, some, shares, head)

    monkeypatch.setattr(owner, "signed", other)
    monkeypatch.setattr(type(owner._changes), "_commit", fewer)


def other_records(msg):
    if not isinstance(msg, (m.UploadOp, m.AnnotateOp)):
        return msg
    records = msg.records.copy()
    records[:, -1] ^= 1
    hash_ = record_pack_hash(record_hashes(records), records.shape[1])
    return dataclasses.replace(msg, records=records, record_hash=hash_)


def other_images(msg):
    if not isinstance(msg, m.UploadOp):
        return msg
    files = msg.images ^ 1
    return dataclasses.replace(
        msg, images=files, image_hash=image_files_hash(*frame_hashes([files.data, msg.image_offsets.data]))
    )


def as_it_was(msg):
    return msg


def settled(world, cloud):
    """The cloud follows the others, and fetches what it lacks; how many files it fetched."""
    channel = LocalChannel({i: s.operate for i, s in world.servers.items()})
    follow(world.servers[cloud], channel)
    files, problems = Repairer(world.servers[cloud], channel).repair()
    assert not problems
    states = [s.store.chains.heads() for s in world.servers.values()]
    assert all(state == states[0] for state in states)
    return files


def everyone_reads(world):
    """Each pair of clouds, several times: what differs in one row fails half of all fetches."""
    for _ in range(6):
        assert [p.metadata for p in world.ulla.preview(world.ids)] == [{"n": n} for n in range(5)]
    for _ in range(9):
        assert [f.content for f in world.ulla.fetch(world.ids[:2], private=True)] == [b"x" * 50] * 2


def facts(world):
    found = []
    for server in world.servers.values():
        with server.store.catalog.reading() as db:
            found.append(server.store.records.facts(db, world.eve.id))
    return found


@pytest.mark.parametrize(
    ("cloud", "change"), [(1, other_records), (4, other_records), (4, other_images), (4, as_it_was)]
)
def test_an_upload_that_is_another_one_at_a_cloud(world, monkeypatch, cloud, change):
    without(monkeypatch, world.eve, cloud, change)
    with contextlib.suppress(MippError):
        world.eve.add_vectors(rows(3, 2), [("n", b"n" * 60, {"new": n}) for n in range(3)])
    monkeypatch.undo()
    assert len(world.eve.batches()) == 2, "written to the others"
    settled(world, cloud)
    told = facts(world)
    assert all(one == told[0] for one in told) and len(told[0]) == 2
    everyone_reads(world)
    assert world.verify()["problems"] == []


@pytest.mark.parametrize(("cloud", "change"), [(1, other_records), (4, as_it_was)])
def test_an_annotation_that_is_another_one_at_a_cloud(world, monkeypatch, cloud, change):
    without(monkeypatch, world.eve, cloud, change)
    with contextlib.suppress(MippError):
        world.eve.annotate({world.mine[1]: {"new": 1}})
    monkeypatch.undo()
    fetched = settled(world, cloud)
    assert fetched == (change is other_records), "what it has is fetched from nobody"
    told = facts(world)
    assert all(one == told[0] for one in told) and len(told[0]) == 2
    everyone_reads(world)
    assert {str(p.metadata) for _ in range(3) for p in world.ulla.preview(world.mine[1:2])} == {"{'new': 1}"}
    assert world.verify()["problems"] == []
    for server in world.servers.values():
        assert server.store.sweep() == 0, "no file is left that nobody names"
