"""Records at servers: what hostile owners send is refused, by every server, before anything of it is there."""

import contextlib
import dataclasses
import threading

import numpy as np
import pytest

import mipp
from mipp.client import recording
from mipp.crypto import schedule
from mipp.errors import (
    AuthenticationError,
    ConflictError,
    IntegrityError,
    MessageError,
    MippError,
    NonceReuseError,
    NotFoundError,
    ParameterError,
    ShapeError,
)
from mipp.rpc import messages as m
from mipp.rpc.limits import FETCH_IMAGES
from mipp.rpc.records import record_hashes, record_pack_hash

SIZE = 512
NONE = np.empty((0, 0), np.uint8)


def rows(count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 4))


@pytest.fixture
def world(tmp_path):
    with mipp.Deployment.create(tmp_path / "d", mipp.Encoding("cosine", 4), preview_size=SIZE) as made:
        made.anna, made.eve, made.ulla = made.create_owner("anna"), made.create_owner("eve"), made.create_user("ulla")
        made.ids = made.anna.add_vectors(rows(5), metadata=[{"n": n} for n in range(5)])
        made.mine = made.eve.add_vectors(rows(4, 1), metadata=[{"e": n} for n in range(4)])
        for owner in (made.anna, made.eve):
            owner.grant(made.ulla)
        yield made


def untouched(world, open_changes=0):
    """Nobody is harmed, and nothing that was refused is left: no file, no pack, no change under way."""
    for _ in range(3):
        assert [p.metadata for p in world.ulla.preview(world.ids)] == [{"n": n} for n in range(5)]
    assert [r.metadata for r in world.eve.records(world.mine)] == [{"e": n} for n in range(4)]
    assert world.verify()["problems"] == [] and world.status()["servers_agree"]
    for number, server in world.servers.items():
        store = server.store
        assert len(list((store.folder / "records").glob("*/*"))) == (2 if number != 3 else 0)
        assert store.catalog.one("SELECT count(*) FROM record_packs") == (2,)
        (count,) = store.catalog.one("SELECT count(*) FROM changes WHERE state IN ('reserved', 'prepared', 'accepted')")
        assert count == open_changes


def changed(monkeypatch, owner, change, *servers):
    """What an owner sends of a change to some servers is another message."""
    real, seen = owner.signed, []

    def signed(msg, server, known=None):
        if isinstance(msg, (m.UploadOp, m.AnnotateOp)) and (not servers or server in servers):
            seen.append(server)
            msg = dataclasses.replace(msg, **change(msg))
        return real(msg, server)

    monkeypatch.setattr(owner, "signed", signed)
    return seen


def hashed(records):
    return record_pack_hash(record_hashes(records), records.shape[1])


def other(records):
    out = records.copy()
    out[:, -1] ^= 1
    return out


WRONG = [
    (ShapeError, (1, 2), lambda msg: {"records": msg.records[:-1]}),
    (ShapeError, (1, 2), lambda msg: {"records": msg.records[:, :-64]}),
    (ShapeError, (2,), lambda msg: {"records": msg.records[:0]}),
    (ShapeError, (1,), lambda msg: {"records": np.concatenate([msg.records] * 2)}),
    (ShapeError, (1, 2), lambda msg: {"records": np.concatenate([msg.records] * 2, axis=1)}),
    (ShapeError, (), lambda msg: {"record_hash": msg.record_hash[:-1]}),
    (ShapeError, (), lambda msg: {"record_hash": msg.record_hash + b"x"}),
    (ShapeError, (), lambda msg: {"album": msg.album[:16]}),
    (ShapeError, (), lambda msg: {"album": b""}),
    (ShapeError, (3,), lambda msg: {"album": msg.album + b"x"}),
    (AuthenticationError, (), lambda msg: {"record_hash": bytes(32)}),
    (AuthenticationError, (1,), lambda msg: {"records": other(msg.records)}),
    (AuthenticationError, (2,), lambda msg: {"records": msg.records[::-1].copy()}),
    (MessageError, (1, 2), lambda msg: {"record_hash": b""}),
    (MessageError, (3,), lambda msg: {"records": np.zeros((1, SIZE), np.uint8)}),
    (MessageError, (3,), lambda msg: {"record_hash": b""}),
    (ParameterError, (), lambda msg: {"record_hash": b"", "album": b"", "records": NONE}),
    (ParameterError, (3,), lambda msg: {"record_hash": b"", "album": b""}),
]


@pytest.mark.parametrize("what", ["upload", "annotate"])
def test_records_of_another_form(world, monkeypatch, what):
    for error, servers, change in WRONG:
        seen = changed(monkeypatch, world.eve, change, *servers)
        with pytest.raises(error):
            if what == "upload":
                world.eve.add_vectors(rows(3, 2))
            else:
                world.eve.annotate({i: {"new": 1} for i in world.mine[:2]})
        assert seen
        monkeypatch.undo()
    untouched(world)


DIFFERENT = [
    ((1,), lambda msg: {"records": other(msg.records), "record_hash": hashed(other(msg.records))}),
    ((2,), lambda msg: {"records": other(msg.records), "record_hash": hashed(other(msg.records))}),
    ((3,), lambda msg: {"record_hash": bytes(32)}),
    ((1, 2), lambda msg: {"album": bytes(32)}),
    ((2,), lambda msg: {"album": bytes(32)}),
    ((3,), lambda msg: {"album": bytes(32)}),
]


@pytest.mark.parametrize("what", ["upload", "annotate"])
def test_servers_that_were_sent_different_records_refuse(world, monkeypatch, what):
    for servers, change in DIFFERENT:
        monkeypatch.setattr("mipp.client.retry.ATTEMPTS", 1)
        seen = changed(monkeypatch, world.eve, change, *servers)
        with pytest.raises(MippError) as caught:
            if what == "upload":
                world.eve.add_vectors(rows(3, 2))
            else:
                world.eve.annotate({world.mine[0]: {"new": 1}})
        assert seen and "internal" not in str(caught.value)
        monkeypatch.undo()
        assert len(world.eve.batches()) == 1
        assert [r.metadata for r in world.eve.records(world.mine)] == [{"e": n} for n in range(4)]
        for _ in range(3):
            assert [p.metadata for p in world.ulla.preview(world.ids)] == [{"n": n} for n in range(5)]
    world.eve.annotate({world.mine[0]: {"e": 0}})  # what was left open is settled
    assert [r.metadata for r in world.eve.records(world.mine)] == [{"e": n} for n in range(4)]
    assert [p.metadata for p in world.ulla.preview(world.ids)] == [{"n": n} for n in range(5)]
    told = []
    for server in world.servers.values():
        with server.store.catalog.reading() as db:
            told.append(server.store.records.facts(db, world.eve.id))
    assert told[0] == told[1] == told[2] and world.status()["servers_agree"]


def annotation(owner, by_batch, **changes):
    """An annotation as a hostile program makes it."""
    op, count = schedule.random_bytes(16), sum(map(len, by_batch.values()))
    sealed = owner.seal_records(op, [owner.plain_record("", {"new": n}, None) for n in range(count)])
    numbers = np.array([row for some in by_batch.values() for row in some], "<i8")
    counts = [len(some) for some in by_batch.values()]
    msg = m.AnnotateOp(op, list(by_batch), counts, sealed.hash, sealed.album, numbers, sealed.records)
    return dataclasses.replace(msg, **changes)


def refused(world, error, msg):
    for server in (1, 2, 3):
        some = dataclasses.replace(msg, records=msg.records if server != 3 else NONE)
        with pytest.raises(error) as caught:
            world.eve.ask({server: some})
        assert "internal" not in str(caught.value)


def test_annotations_of_rows_that_are_not_there(world):
    mine, hers = world.mine[0][0], world.ids[0][0]
    for error, by_batch in (
        (NotFoundError, {mine: [4]}),
        (NotFoundError, {mine: [0, 2**40]}),
        (NotFoundError, {bytes(16): [0]}),
        (NotFoundError, {hers: [0]}),
        (NotFoundError, {mine: [0], hers: [1]}),
        (ShapeError, {mine: [-1]}),
        (ShapeError, {mine: [2**62]}),
        (ShapeError, {mine: [1, 1]}),
        (ShapeError, {mine[:15]: [1]}),
    ):  # fmt: skip
        refused(world, error, annotation(world.eve, by_batch))
    untouched(world)


def test_annotations_that_do_not_fit_together(world):
    mine = world.mine[0][0]
    for changes in (
        {"batches": [mine, mine], "counts": [1, 1]},
        {"counts": [1]},
        {"counts": [3]},
        {"counts": [2, 0], "batches": [mine, bytes(16)]},
        {"counts": [3, -1], "batches": [mine, bytes(16)]},
        {"counts": [], "batches": []},
        {"counts": [], "batches": [], "rows": np.empty(0, "<i8")},
        {"op": b"short"},
        {"op": b""},
    ):
        refused(world, ShapeError, annotation(world.eve, {mine: [0, 1]}, **changes))
    untouched(world)


def test_an_id_of_a_change_is_used_once(world):
    msg = annotation(world.eve, {world.mine[0][0]: [0]}, op=world.mine[0][0])
    msg = dataclasses.replace(msg, record_hash=hashed(msg.records))
    refused(world, NonceReuseError, msg)
    untouched(world)


def test_records_where_the_deployment_keeps_none(tmp_path):
    with mipp.Deployment.create(tmp_path / "d", mipp.Encoding("cosine", 4)) as made:
        eve = made.create_owner("eve")
        ids = eve.add_vectors(rows(2))
        records = np.zeros((1, SIZE), np.uint8)
        op = schedule.random_bytes(16)
        msg = m.AnnotateOp(op, [ids[0][0]], [1], hashed(records), bytes(32), np.zeros(1, "<i8"), records)
        for server in (1, 2, 3):
            with pytest.raises(ParameterError, match="no records"):
                eve.ask({server: msg})
        with pytest.raises(ParameterError, match="no records"):
            eve.annotate({ids[0]: {"a": 1}})
        user = made.create_user("u")
        eve.grant(user)
        for server in (1, 3):
            with pytest.raises(ParameterError, match="no records"):
                user.ask_all(m.FetchAlbums([eve.id]), (server,))
        with pytest.raises(NotFoundError):
            eve.ask({1: m.FetchOwnRecords(np.zeros((1, 16), np.uint8), np.zeros(1, "<i8"))})
        told = eve.ask({1: m.RecordPlacesRequest(ids[0][0], np.arange(2, dtype="<i8"))})[1]
        assert not told.packs.any() and not told.albums.any()
        assert made.verify()["problems"] == []


# --- what owners ask for --------------------------------------------------------------------------------------------


def test_requests_for_places_and_records_of_another_form(world):
    mine = world.mine[0][0]
    for server in (1, 2, 3):
        for error, batch, numbers in (
            (ShapeError, mine[:8], [0]),
            (ShapeError, mine, []),
            (ShapeError, mine, [0] * (FETCH_IMAGES + 1)),
            (NotFoundError, mine, [4]),
            (NotFoundError, mine, [-1]),
            (NotFoundError, mine, [-(2**63)]),
            (NotFoundError, world.ids[0][0], [0]),
            (NotFoundError, bytes(16), [0]),
        ):
            with pytest.raises(error):
                world.eve.ask({server: m.RecordPlacesRequest(batch, np.array(numbers, "<i8"))})
    pack = np.frombuffer(mine, np.uint8)[None]
    for error, packs, places in (
        (ShapeError, pack, []),
        (ShapeError, pack[:, :8], [0]),
        (ShapeError, np.repeat(pack, 2, axis=0), [0]),
        (ShapeError, np.repeat(pack, FETCH_IMAGES + 1, axis=0), [0] * (FETCH_IMAGES + 1)),
        (NotFoundError, pack, [4]),
        (NotFoundError, pack, [-1]),
        (NotFoundError, pack, [2**62]),
        (NotFoundError, np.frombuffer(world.ids[0][0], np.uint8)[None], [0]),
        (NotFoundError, np.zeros((1, 16), np.uint8), [0]),
    ):
        for server in (1, 2):
            with pytest.raises(error):
                world.eve.ask({server: m.FetchOwnRecords(packs, np.array(places, "<i8"))})
    with pytest.raises(MippError):  # a user's request is no owner's
        world.ulla.ask({1: m.FetchOwnRecords(pack, np.zeros(1, "<i8"))})
    untouched(world)


def test_rows_that_were_deleted_are_not_annotated(world):
    world.eve.delete(world.mine[:1])
    for _ in range(2):
        with pytest.raises(NotFoundError):
            world.eve.annotate({world.mine[0]: {"new": 1}, world.mine[1]: {"new": 2}})
        with pytest.raises(NotFoundError):
            world.eve.annotate({(world.mine[0][0], 99): {"new": 1}})
        assert [r.metadata for r in world.eve.records(world.mine[1:])] == [{"e": n} for n in (1, 2, 3)]
        for cloud in (1, 2):
            world.servers[cloud].store.compact(world.eve.id)


def test_what_cannot_be_annotated(world):
    first = world.mine[0]
    for wrong in (
        {}, [], None, {first: "text"}, {first: {"a": object()}}, {first: {"a": float("nan")}}, {first: {1: 2}},
        {first: {"a": "x" * SIZE}}, {"nothing": None}, {first: None, f"{first[0].hex()}:0": None},
    ):  # fmt: skip
        with pytest.raises(ParameterError):
            world.eve.annotate(wrong)
    with pytest.raises(ParameterError, match="largest field is 'long'"):
        world.eve.annotate({world.mine[1]: {"e": 5}, first: {"a": 1, "long": "x" * SIZE}})
    untouched(world)


# --- races ----------------------------------------------------------------------------------------------------------


def elsewhere(world):
    """Eve at another machine, where the lock of this one's folder does not hold."""
    again = world.owner("eve")
    again._changes.turn = contextlib.nullcontext()
    return again


def before_commit(monkeypatch, owner, *work):
    """Something else happens between the preparation of an owner's change and its COMMIT."""
    real, left = type(owner._changes)._commit, list(work)

    def commit(self, *args):
        if self is owner._changes and left:
            left.pop(0)()
        return real(self, *args)

    monkeypatch.setattr(type(owner._changes), "_commit", commit)
    return left


@pytest.mark.parametrize("what", ["delete", "delete that row", "merge", "annotate", "upload"])
def test_an_annotation_while_something_else_changes(world, monkeypatch, what):
    """The other change comes from another process of the owner."""
    again = elsewhere(world)
    first, second, third, last = world.mine
    work = {
        "delete": lambda: again.delete([third]),
        "delete that row": lambda: again.delete([first]),
        "merge": lambda: (again.delete([third]), again.compact(merge_below=100)),
        "annotate": lambda: again.annotate({first: {"other": 1}, second: {"other": 2}}),
        "upload": lambda: again.add_vectors(rows(2, 7)),
    }[what]
    left = before_commit(monkeypatch, world.eve, work)
    if what == "delete that row":
        with pytest.raises(NotFoundError):
            world.eve.annotate({first: {"new": 1}})
    else:  # a merge moves the row, and its id goes on naming it
        world.eve.annotate({first: {"new": 1}})
    assert not left
    monkeypatch.undo()
    expected = {
        "delete": [{"new": 1}, {"e": 1}, {"e": 3}],
        "delete that row": [{"e": 1}, {"e": 2}, {"e": 3}],
        "merge": [{"new": 1}, {"e": 1}, {"e": 3}],
        "annotate": [{"new": 1}, {"other": 2}, {"e": 2}, {"e": 3}],
        "upload": [{"new": 1}, {"e": 1}, {"e": 2}, {"e": 3}],
    }[what]
    ids = {
        "delete": [first, second, last],
        "delete that row": [second, third, last],
        "merge": [(world.eve.batches()[0].id, row) for row in range(3)],
    }.get(what, world.mine)
    assert [r.metadata for r in world.eve.records(ids)] == expected
    assert [p.metadata for p in world.ulla.preview(ids)] == expected
    assert [p.metadata for p in world.ulla.preview(world.ids)] == [{"n": n} for n in range(5)]
    assert world.status()["servers_agree"] and world.verify()["problems"] == []


@pytest.mark.parametrize("what", ["annotate", "delete"])
def test_a_merge_while_rows_change(world, monkeypatch, what):
    again = elsewhere(world)
    more = world.eve.add_vectors(rows(2, 5), metadata=[{"m": n} for n in range(2)])
    work = {
        "annotate": lambda: again.annotate({world.mine[1]: {"new": 1}}),
        "delete": lambda: again.delete([more[0]]),
    }[what]
    left = before_commit(monkeypatch, world.eve, work)
    world.eve.compact(merge_below=100)
    monkeypatch.undo()
    assert not left
    (batch,) = world.eve.batches()
    found = [r.metadata for r in world.eve.records([(batch.id, row) for row in range(batch.rows)])]
    assert (
        found
        == {
            "annotate": [{"e": 0}, {"new": 1}, {"e": 2}, {"e": 3}, {"m": 0}, {"m": 1}],
            "delete": [{"e": 0}, {"e": 1}, {"e": 2}, {"e": 3}, {"m": 1}],
        }[what]
    )
    assert world.verify()["problems"] == [] and world.status()["servers_agree"]


@pytest.mark.parametrize("what", ["annotate", "delete"])
def test_a_commit_about_a_batch_that_was_merged_meanwhile(world, monkeypatch, what):
    """Prepared on the state before, and made on the state after: servers refuse it, and nothing hangs."""
    again = elsewhere(world)
    real, left = type(world.eve._changes)._commit, [True]

    def commit(self, kind, op, content, contents, shares, head):
        if self is world.eve._changes and left:
            left.pop()
            again.delete(world.mine[3:])
            again.compact(merge_below=100)
            head = again.ask({1: m.HeadRequest(again.id)})[1]
        return real(self, kind, op, content, contents, shares, head)

    monkeypatch.setattr(type(world.eve._changes), "_commit", commit)
    monkeypatch.setattr("mipp.client.retry.ATTEMPTS", 1)
    with pytest.raises(MippError) as caught:
        if what == "annotate":
            world.eve.annotate({world.mine[0]: {"new": 1}})
        else:
            world.eve.delete(world.mine[:1])
    monkeypatch.undo()
    assert not left and "internal" not in str(caught.value)
    (batch,) = world.eve.batches()
    world.eve.annotate({(batch.id, 1): {"later": 1}})
    found = [r.metadata for r in world.eve.records([(batch.id, row) for row in range(3)])]
    assert found == [{"e": 0}, {"later": 1}, {"e": 2}]
    assert world.status()["servers_agree"] and world.verify()["problems"] == []
    assert [p.metadata for p in world.ulla.preview(world.ids)] == [{"n": n} for n in range(5)]


def test_two_processes_annotate_at_once(world):
    """Neither annotation undoes the other's rows."""
    owners, errors = [world.eve, elsewhere(world)], []

    def work(owner, ids):
        try:
            for n in range(4):
                owner.annotate({i: {"n": n} for i in ids})
        except MippError as error:
            errors.append(error)

    parts = [world.mine[:2], world.mine[2:]]
    threads = [threading.Thread(target=work, args=pair) for pair in zip(owners, parts, strict=True)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(isinstance(error, ConflictError) for error in errors)
    found = [r.metadata for r in world.eve.records(world.mine)]
    if not errors:
        assert found == [{"n": 3}] * 4
    assert found[0] == found[1] and found[2] == found[3]
    assert world.verify()["problems"] == [] and world.status()["servers_agree"]


# --- a server that lies to an owner -------------------------------------------------------------------------------


@pytest.mark.parametrize("liar", [1, 3])
def test_one_server_that_lies_about_places_is_not_believed(world, monkeypatch, liar):
    monkeypatch.setattr("mipp.client.recording.retry_conflicts", lambda attempt: attempt())
    records = world.servers[liar].store.records
    real = records.places
    for lie in (
        lambda packs, at, albums: (packs, (at + 1) % 4, albums),
        lambda packs, at, albums: (packs, at, np.zeros_like(albums)),
        lambda packs, at, albums: (np.zeros_like(packs), at, albums),
        lambda packs, at, albums: (packs[:0], at[:0], albums[:0]),
    ):
        monkeypatch.setattr(records, "places", lambda *args, lie=lie: lie(*real(*args)))
        with pytest.raises((ConflictError, MessageError, IntegrityError)):
            world.eve.records(world.mine)
        with pytest.raises((ConflictError, MessageError, IntegrityError)):
            world.eve.annotate({world.mine[1]: {"new": 1}})
    monkeypatch.undo()
    untouched(world)


def test_a_cloud_that_gives_another_record_back(world, monkeypatch):
    records = world.servers[1].store.records
    real = records.read
    for change in (
        lambda got: got[::-1].copy(),
        lambda got: got ^ np.uint8(1),
        lambda got: got[:1],
        lambda got: np.zeros_like(got),
    ):
        monkeypatch.setattr(records, "read", lambda *args, change=change: change(real(*args)))
        with pytest.raises((IntegrityError, MessageError)):
            world.eve.records(world.mine)
        with pytest.raises((IntegrityError, MessageError)):
            world.eve.annotate(dict.fromkeys(world.mine[:2]))
    monkeypatch.undo()
    untouched(world)


def test_records_of_one_owner_do_not_open_as_anothers(world):
    """Album, owner, pack and place are bound into each record."""
    store = world.servers[1].store.records
    pack = np.frombuffer(world.mine[0][0], np.uint8)[None].repeat(4, axis=0)
    sealed = store.read(world.eve.id, pack, np.arange(4))
    album = sealed[0, :32].tobytes()
    key = world.eve.album_key(album[:16])
    good = (world.eve.config.id, world.eve.id, world.mine[0][0], 1)
    body = sealed[1, recording.PREFIX_BYTES :].tobytes()
    assert recording.sealing.open_record(key, body, recording.record_data(*good))
    for place, wrong in enumerate((bytes(16), world.anna.id, bytes(16), 2)):
        named = [*good[:place], wrong, *good[place + 1 :]]
        with pytest.raises(AuthenticationError):
            recording.sealing.open_record(key, body, recording.record_data(*named))
    with pytest.raises(AuthenticationError):
        other_key = world.anna.album_key(album[:16])
        recording.sealing.open_record(other_key, body, recording.record_data(*good))
