"""Hostile parties and private fetches: what attackers of this feature proved once, and that it is no more."""

import dataclasses

import numpy as np
import pytest

from mipp import Deployment, Encoding
from mipp.client import recording
from mipp.crypto import schedule
from mipp.errors import (
    AuthenticationError,
    ConflictError,
    IntegrityError,
    LimitError,
    MippError,
    ParameterError,
    ShapeError,
    StoreError,
    VerificationError,
)
from mipp.rpc import messages as m
from mipp.rpc.chain import Content
from mipp.rpc.records import records_facts
from mipp.rpc.wire import decode, encode, pack_frames, unpack_frames
from mipp.server import private_fetch
from mipp.sharing import share_rows

ENCODING = Encoding("cosine", 4)
NO_IDS, NO_ROWS = np.empty((0, 16), np.uint8), np.empty(0, "<i8")


def rows(count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 4))


@pytest.fixture
def deployment(tmp_path):
    with Deployment.create(tmp_path / "d", ENCODING, preview_size=512) as made:
        yield made


@pytest.fixture
def parties(deployment):
    """An honest owner with four images, a hostile one, a user that both admit."""
    anna, eve, user = deployment.create_owner("anna"), deployment.create_owner("eve"), deployment.create_user("ulla")
    ids = anna.add_vectors(rows(4), [(f"{i}.png", b"x" * 100, {"n": i}) for i in range(4)])
    for owner in (anna, eve):
        owner.grant(user)
    return anna, eve, user, ids


def merge(owner, replaces, moved, origin, *, images=None, before=lambda: None):
    """A merge as a hostile program makes it. ``origin``: of the images, by server; ``images``: by cloud."""
    p, count = owner.config.params, len(moved)
    shared = share_rows(owner.config.encoding.encode_rows(rows(count, 9)), owner.keys, owner.config.encoding.hash)
    moved = np.array(moved, "<i8").reshape(-1, 2)
    msgs = {}
    for server in sorted(owner.config.servers):
        cloud = server in p.clouds
        files = images[server] if images and cloud else np.empty(0, np.uint8)
        offsets = np.linspace(0, len(files), count + 1).astype("<i8")
        of, at = origin[server] if isinstance(origin, dict) else origin
        share = shared.shares[server] if cloud else np.empty((0, 0), p.dtype)
        msgs[server] = m.UploadOp(
            shared.nonce, count, owner.config.encoding.encoded_dim, owner.config.encoding.hash, sorted(replaces), share,
            files, offsets, of, at, b"", b"", np.empty((0, 0), np.uint8), moved, b"",
        )  # fmt: skip
    facts = records_facts(b"", b"", moved.tobytes())
    content = Content(count, owner.config.encoding.encoded_dim, tuple(sorted(replaces)), records=facts)
    contents, shares, heads = owner._changes._prepare(shared.nonce, msgs)
    if owner.config.certifies:
        heads = owner._changes._certified(shared.nonce, heads)
    before()
    head = owner.ask({1: m.HeadRequest(owner.id)})[1]
    owner._changes._commit("merge", shared.nonce, content, {s: contents[s] for s in sorted(heads)}, shares, head)


def own(ids):
    """The origins of rows that came with their batch."""
    return np.frombuffer(b"".join(batch for batch, _ in ids), np.uint8).reshape(-1, 16), np.array([r for _, r in ids])


def still_fine(user, ids):
    assert [p.metadata for p in user.preview(ids)] == [{"n": i} for i in range(4)]
    assert [f.content for f in user.fetch(ids, private=True)] == [b"x" * 100] * 4


# --- hostile owners -------------------------------------------------------------------------------------------------


def test_a_merge_keeps_what_its_rows_had(parties):
    _, eve, user, ids = parties
    mine = eve.add_vectors(rows(2, 3), [("a", b"aa"), ("b", b"bb")])
    batch = [mine[0][0]]
    right = own(mine)
    other = {1: right, 2: own(mine[::-1]), 3: right}
    files = {1: np.full(300, 1, np.uint8), 2: np.full(300, 2, np.uint8)}
    for error, moved, origin, images in (
        (ParameterError, [(0, 0), (0, 1)], right, files),
        (ParameterError, [(0, 0), (0, 1)], other, None),
        (ParameterError, [(0, 0), (0, 1)], own(mine[::-1]), None),
        (ParameterError, [(0, 0), (0, 1)], (NO_IDS, NO_ROWS), None),
        (ParameterError, [(0, 0), (0, 2)], right, None),
        (ParameterError, [(0, 0), (0, 1)], own(ids[:2]), None),
        (ShapeError, [(1, 0), (0, 1)], right, None),
        (ShapeError, [(0, -1), (0, 1)], right, None),
    ):  # fmt: skip
        with pytest.raises((error, MippError)) as caught:
            merge(eve, batch, moved, origin, images=images)
        assert "internal" not in str(caught.value)
        assert eve.batches()[0].id == batch[0]
    still_fine(user, ids)


def test_new_rows_have_images_of_their_own(parties):
    """Else an owner could name other ones to each cloud, which nothing compares."""
    _, eve, user, ids = parties
    first = eve.add_vectors(rows(2, 3), [("a", b"aa"), ("b", b"bb")])
    before = len(eve.batches())
    with pytest.raises(ParameterError):
        eve._upload(
            eve.config.encoding.encode_rows(rows(2, 4)), origin=own(first), records=eve.records_for(None, None, 2)
        )
    assert len(eve.batches()) == before
    still_fine(user, ids)


def test_files_are_asked_for_whatever_became_of_rows(parties, monkeypatch):
    """How many are asked for does not show how many of the hits are gone, or without an image."""
    _, eve, user, ids = parties
    (bare,) = eve.add_vectors(rows(1, 3))
    counts = []
    real = user._retrieved

    def noted(index, pair, wanted, size, told):
        counts.append((len(wanted), size))
        return real(index, pair, wanted, size, told)

    monkeypatch.setattr(user, "_retrieved", noted)
    for hits in (ids, [*ids[:2], bare, (bytes(16), 0)], [ids[0], bare, bare, bare]):
        counts.clear()
        user.fetch(hits, private=True)
        assert counts == [(10, -1), (4, 0)]


def test_an_alarm_names_the_owners(parties, monkeypatch):
    _, eve, user, ids = parties
    monkeypatch.setattr(
        recording.sealing, "seal_records", lambda key, plains, data: np.zeros((len(plains), 456), np.uint8)
    )
    mine = eve.add_vectors(rows(2, 3))
    monkeypatch.undo()
    with pytest.raises(VerificationError) as caught:
        user.preview([*ids, mine[0]])
    assert caught.value.owners == ("eve",)
    user.block(eve.id)
    still_fine(user, ids)


def test_a_merge_takes_no_deleted_row(parties):
    """Its record may be gone at a cloud: then all fetches there would be refused."""
    _, eve, user, ids = parties
    mine = eve.add_vectors(rows(2, 3))
    with pytest.raises(StoreError):
        merge(eve, [mine[0][0]], [(0, 0), (0, 1)], own(mine), before=lambda: eve.delete([mine[1]]))
    eve.ask({cloud: m.Compact(eve.id) for cloud in (1, 2)})
    with pytest.raises((StoreError, ConflictError, ParameterError)):
        merge(eve, [mine[0][0]], [(0, 0), (0, 1)], own(mine))
    still_fine(user, ids)


def test_different_images_at_the_clouds_are_not_taken(parties, monkeypatch):
    _, eve, user, ids = parties
    real = eve.signed

    def signed(msg, server, known=None):
        if isinstance(msg, m.UploadOp) and server == 2:
            files = msg.images.copy()
            files[-1] ^= 1
            msg = dataclasses.replace(msg, images=files)
        return real(msg, server)

    monkeypatch.setattr(eve, "signed", signed)
    with pytest.raises(AuthenticationError):
        eve.add_vectors(rows(1), [("a", b"aa")])
    still_fine(user, ids)


def test_albums_of_an_owner_are_bounded(parties, monkeypatch):
    _, eve, user, ids = parties
    mine = eve.add_vectors(rows(8, 3))
    monkeypatch.setattr(recording, "album_of", lambda owner, revoked: schedule.random_bytes(16))
    monkeypatch.setattr("mipp.store.records.MAX_ALBUMS", 4)
    with pytest.raises(LimitError):
        for one in mine:
            eve.annotate({one: {"n": 1}})
    still_fine(user, ids)


def test_an_owners_wrong_album_harms_nobody_else(parties, monkeypatch):
    _, eve, user, ids = parties
    monkeypatch.setattr(recording.sealing, "album_check", lambda key: bytes(16))
    mine = eve.add_vectors(rows(2, 3))
    monkeypatch.undo()
    still_fine(user, ids)
    found = user.preview([*ids, mine[0]])
    assert isinstance(found[-1].error, IntegrityError) and found[0].metadata == {"n": 0}


def test_an_owner_that_annotates_all_the_time(parties, monkeypatch):
    """A fetch of several requests is of one state, whatever changes meanwhile."""
    anna, eve, user, _ = parties
    content = np.random.default_rng(1).bytes(9_000_000)
    (big,) = anna.add_vectors(rows(1, 5), [("big", content)])
    (mine,) = eve.add_vectors(rows(1, 3))
    got = user.fetch([big], private=True, progress=lambda count, total: eve.annotate({mine: {"n": count}}))
    assert got[0].content == content
    with pytest.raises(MippError):  # but a revocation ends it
        user.fetch([big], private=True, progress=lambda count, total: eve.revoke(user))


# --- hostile servers ------------------------------------------------------------------------------------------------


def test_another_rows_record_is_an_alarm(parties, deployment, monkeypatch):
    """A cloud that makes the record of one row that of another would learn whether it guessed the row."""
    anna, _, user, ids = parties
    evil = deployment.servers[1]
    records = np.asarray(evil.store.records.pack(anna.id, ids[0][0]).records)
    real = private_fetch.PrivateFetch._selected

    def swapped(self, found, total, keys):
        out = real(self, found, total, keys)
        if self._server is evil:
            out[0] ^= records[2] ^ records[3]
        return out

    monkeypatch.setattr(private_fetch.PrivateFetch, "_selected", swapped)
    for wanted in ids:
        with pytest.raises(VerificationError):
            user.preview([wanted])


def test_an_earlier_record_is_an_alarm(parties, deployment, monkeypatch):
    anna, _, user, ids = parties
    evil = deployment.servers[1]
    old = np.asarray(evil.store.records.pack(anna.id, ids[0][0]).records)[2].copy()
    anna.annotate({ids[2]: {"n": "new"}})
    (name,) = set(evil.store.records.needed(anna.id)) - {ids[0][0]}
    new = np.asarray(evil.store.records.pack(anna.id, name).records)[0]
    real = private_fetch.PrivateFetch._selected

    def stale(self, found, total, keys):
        out = real(self, found, total, keys)
        if self._server is evil:
            out[0] ^= old ^ new
        return out

    assert user.preview([ids[2]])[0].metadata == {"n": "new"}
    monkeypatch.setattr(private_fetch.PrivateFetch, "_selected", stale)
    with pytest.raises(VerificationError):
        user.preview([ids[2]])


@pytest.mark.parametrize("server", [1, 3])
def test_a_wrong_part_of_an_album_key_shows_nothing(parties, deployment, monkeypatch, server):
    """What clouds are asked for is the same whether the album is among what is fetched or not."""
    _, eve, user, ids = parties
    mine = eve.add_vectors(rows(2, 3), [("a", b"aa"), ("b", b"bb")])
    evil = deployment.servers[server]
    real = evil.image_part
    monkeypatch.setattr(evil, "image_part", lambda owner: bytes(32) if owner == eve.id else real(owner))
    seen = []
    check = private_fetch.PrivateFetch._check

    def noted(self, signer, header, msg):
        seen.append((header.count, header.size_class))
        return check(self, signer, header, msg)

    monkeypatch.setattr(private_fetch.PrivateFetch, "_check", noted)
    told = []
    for hits in (ids, [*ids[:3], mine[0]]):
        seen.clear()
        user.preview(hits)
        told.append(list(seen))
    assert told[0] == told[1]


def test_a_forged_revocation_list(parties, deployment, monkeypatch):
    """A server that shows an unsigned grant in a revocation's place cannot bring back the album of the time before."""
    anna, _, user, ids = parties
    user.preview(ids)
    kept = set(user._albums[anna.id][1])
    anna.revoke(user)
    store = deployment.servers[1].store
    signed = decode(unpack_frames(store.grants(owner=anna.id)[0][1]), m.Signed)
    fake = m.Grant(anna.id, user.id, 1, (1 << 62) - 2, 0, ["server"], 0, True, 0, 0, False)
    frames = [np.frombuffer(bytes(f), np.uint8) for f in encode(fake)]
    packed = pack_frames(encode(dataclasses.replace(signed, frames=frames)))
    monkeypatch.setattr(store, "grants", lambda **options: [(b"x" * 16, packed)])
    new = anna.add_vectors(rows(2, 5))
    monkeypatch.undo()
    album = store.records.places(anna.id, new[0][0], np.array([0]))[2][0].tobytes()
    assert album not in kept


def test_a_lying_key_centre_does_not_move_records(parties, deployment, monkeypatch):
    anna, _, user, ids = parties
    records = deployment.servers[3].store.records
    real = records.places
    monkeypatch.setattr(records, "places", lambda owner, batch, at: real(owner, batch, (np.asarray(at) + 1) % 4))
    with pytest.raises(ConflictError):
        anna.annotate({ids[0]: {"n": "new"}})
    monkeypatch.undo()
    still_fine(user, ids)


def test_a_compacted_pack_as_long_as_a_whole_one_is_repaired(parties, deployment):
    anna, _, user, _ = parties
    count = anna.config.record_bytes // 8 + 1
    ids = anna.add_vectors(rows(count, 6), metadata=[{"n": i} for i in range(count)])
    anna.delete([ids[3]])
    anna.ask({cloud: m.Compact(anna.id) for cloud in (1, 2)})
    store = deployment.servers[2].store
    (store.folder / store.catalog.one("SELECT file FROM record_packs WHERE id=?", ids[0][0])[0]).unlink()
    store.records._open.clear()
    deployment.servers[2].queries._plans.clear()
    with pytest.raises(IntegrityError):
        user.preview(ids[:1])
    assert deployment.repair()["problems"] == [] and not store.records.lost(read=True)
    assert user.preview(ids[:1])[0].metadata == {"n": 0}
