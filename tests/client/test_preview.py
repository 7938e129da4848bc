"""Private fetch from end to end: what comes back, in every state that rows can be in, and what is refused."""

import io

import numpy as np
import pytest
from PIL import Image

from mipp import Deployment, Encoding, Params, pir
from mipp.client import previewing, retrieval
from mipp.deployment import given
from mipp.errors import (
    AccessDeniedError,
    AuthenticationError,
    MessageError,
    NotFoundError,
    ParameterError,
    ShapeError,
    StaleSnapshotError,
    VerificationError,
)
from mipp.rpc import messages as m
from mipp.rpc.limits import ORIGINAL_BLOCK, size_class

ENCODING = Encoding("cosine", 4)


class World:
    """Two owners with captions, a user, and the truth: caption by owner's row."""

    def __init__(self, folder, clouds=2, rows=(150, 37), **options):
        self.deployment = Deployment.create(folder, ENCODING, preview_size=512, clouds=clouds)
        rng = np.random.default_rng(7)
        self.owners = [self.deployment.create_owner(name) for name in ("anna", "berta")]
        self.user = self.deployment.create_user("ulla")
        self.captions = {}
        for owner, count in zip(self.owners, rows, strict=True):
            owner.grant(self.user, **options)
            told = [{"caption": f"{owner.name} {i}"} for i in range(count)]
            ids = owner.add_vectors(rng.normal(size=(count, 4)), metadata=told)
            self.captions |= {i: fields["caption"] for i, fields in zip(ids, told, strict=True)}

    def check(self, ids):
        """Previews say what the truth says."""
        found = self.user.preview(ids)
        assert [p.caption for p in found] == [self.captions.get(i, "") for i in ids]
        assert [isinstance(p.error, NotFoundError) for p in found] == [i not in self.captions for i in ids]

    def annotate(self, owner, ids):
        new = {i: {"caption": f"new {n}"} for n, i in enumerate(ids)}
        owner.annotate(new)
        self.captions |= {i: fields["caption"] for i, fields in new.items()}

    def delete(self, owner, ids):
        owner.delete(ids)
        for i in ids:
            del self.captions[i]

    def merge(self, owner):
        """Compact; the truth by the ids that rows have then, in the same order."""
        before = {b.id for b in owner.batches()}
        old = [i for b in owner.batches() for i in sorted(self.captions) if i[0] == b.id]
        owner.compact(merge_below=1000)
        (batch,) = owner.batches()
        assert batch.id not in before and batch.rows == len(old)
        moved = {(batch.id, row): self.captions.pop(i) for row, i in enumerate(old)}
        self.captions |= moved
        return list(moved)


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path / "d")
    yield made
    made.deployment.close()


@pytest.mark.parametrize("clouds", [2, 3])
def test_every_state_of_rows(tmp_path, clouds):
    world = World(tmp_path / "d", clouds)
    with world.deployment:
        anna, berta = world.owners
        ids = list(world.captions)
        some = [*ids[:3], ids[127], ids[128], ids[149], ids[150], ids[-1]]
        world.check(some)
        world.annotate(anna, [ids[1], ids[127], ids[149]])
        world.check(some)
        world.annotate(anna, [ids[1]])
        world.annotate(berta, [ids[-1]])
        world.delete(anna, [ids[0], ids[128], *ids[5:50]])
        world.check(some)
        for cloud in world.deployment.config.params.clouds:  # in place, at one cloud after the other
            world.deployment.servers[cloud].store.compact(anna.id)
            world.check(some)
        more = anna.add_vectors(np.eye(4), metadata=[{"caption": f"more {i}"} for i in range(4)])
        world.captions |= {i: f"more {n}" for n, i in enumerate(more)}
        moved = world.merge(anna)
        world.check([moved[0], moved[1], moved[-1], ids[-1], ids[0]])
        world.annotate(anna, [moved[0], moved[-2]])
        world.delete(anna, [moved[1]])
        moved = world.merge(anna)
        world.check([*moved[:3], *moved[-3:], ids[150]])
        assert world.deployment.verify()["problems"] == []
        world.check(moved[:75])  # more than one page


def test_after_reopening_and_by_search(tmp_path):
    world = World(tmp_path / "d")
    with world.deployment:
        result = world.user.search(np.array([1.0, 0.5, 0.2, 0.1]), k=7)
        found = world.user.preview(result)
        expected = [world.captions[h.batch, h.row] for h in result.hits]
        assert [p.caption for p in found] == expected
        rows = result.hits.to_rows(found)
        assert [row["caption"] for row in rows] == expected and rows[0]["metadata"] == {"caption": expected[0]}
        assert all("caption" not in repr(p) and expected[0] not in repr(p) for p in found)
    with Deployment.open(tmp_path / "d") as deployment:
        assert [p.caption for p in deployment.user("ulla").preview(result)] == expected


# --- what servers see -----------------------------------------------------------------------------------------------


def sent(world, monkeypatch, ids, **options):
    """All private fetches that clouds got for a preview: (cloud, message)."""
    got = []
    for index, server in world.deployment.servers.items():
        real = server._handlers[m.FetchRecords]

        def noted(request, real=real, index=index):
            got.append((index, request.content))
            return real(request)

        monkeypatch.setitem(server._handlers, m.FetchRecords, noted)
    world.user.preview(ids, **options)
    monkeypatch.undo()
    return got


def test_the_number_fetched_is_rounded_up(world, monkeypatch):
    ids = list(world.captions)
    for count, pad, records in ((1, 0, 10), (10, 0, 10), (11, 0, 20), (3, 50, 50), (0, 20, 20), (0, 0, 0)):
        got = sent(world, monkeypatch, ids[:count], pad=pad)
        assert [len(msg.keys) for _, msg in got] == [records] * (2 if records else 0)
        assert all(index in (1, 2) for index, _ in got), "the key centre is not asked"
    gone = [(bytes(16), 0), (ids[0][0], 10**6)]
    got = sent(world, monkeypatch, gone)
    assert [len(msg.keys) for _, msg in got] == [10, 10], "rows that are not there are fetched in appearance"


def test_one_clouds_reply_is_uniform(world, monkeypatch):
    """Bytes of the replies of cloud 1 to 40 fetches of one row; a reply without its mask is found out."""
    row = next(iter(world.captions))

    def statistic():
        replies = []
        server = world.deployment.servers[1]
        real = server._handlers[m.FetchRecords]

        def noted(request):
            replies.append(real(request))
            return replies[-1]

        monkeypatch.setitem(server._handlers, m.FetchRecords, noted)
        for _ in range(40):
            world.user.preview([row])
        monkeypatch.setitem(server._handlers, m.FetchRecords, real)
        first = np.concatenate([reply.records[0, :40] for reply in replies])  # the prefix, which is public
        counts = np.bincount(first, minlength=256)
        return float(((counts - len(first) / 256) ** 2 / (len(first) / 256)).sum())

    assert statistic() < 255 + 8 * np.sqrt(2 * 255)
    from mipp.server import private_fetch

    monkeypatch.setattr(private_fetch, "_mask", lambda key, header, first, shape: np.zeros(shape, np.uint8))
    assert statistic() > 255 + 20 * np.sqrt(2 * 255)


# --- alarms ---------------------------------------------------------------------------------------------------------


def lying(world, monkeypatch, cloud, change):
    server = world.deployment.servers[cloud]
    real = server._handlers[m.FetchRecords]

    def wrong(request):
        records = real(request).records.copy()
        change(records)
        return m.MaskedRecords(records)

    monkeypatch.setitem(server._handlers, m.FetchRecords, wrong)


def test_a_changed_reply_is_an_alarm_for_every_row(world, monkeypatch):
    ids = list(world.captions)

    def flip(records):
        records[:, 100] ^= 1

    lying(world, monkeypatch, 2, flip)
    texts = set()
    for wanted in ([ids[0]], [ids[160]], [(bytes(16), 0), ids[3]]):
        with pytest.raises(VerificationError) as caught:
            world.user.preview(wanted)
        texts.add(str(caught.value))
    assert len(texts) == 1


def test_an_altered_record_fails_whatever_is_fetched(world, monkeypatch):
    """A cloud alters its copy of row 0: half of the fetches fail, those of row 0 as often as those of others."""
    ids = list(world.captions)
    pack = world.deployment.servers[1].store.records.pack(world.owners[0].id, ids[0][0])
    changed = pack.records.copy()
    position = next(n for n, o in enumerate(world.user.index().owners) if o.owner == world.owners[0].id)
    assert position in (0, 1)
    changed[0, 200] ^= 1
    monkeypatch.setattr(pack, "records", changed)
    monkeypatch.setattr(previewing, "PAGE", 1)
    for server in world.deployment.servers.values():
        server.fetches.close()
    failed = {}
    for name, row in (("altered", ids[0]), ("other", ids[77])):
        count = 0
        for _ in range(60):
            try:
                world.user.preview([row])
            except VerificationError:
                count += 1
        failed[name] = count
    assert all(12 < count < 48 for count in failed.values()), failed


def test_the_lying_one_of_three_clouds_is_named(tmp_path, monkeypatch):
    world = World(tmp_path / "d", 3)
    with world.deployment:
        ids = list(world.captions)

        def garble(records):
            records ^= 0x55

        lying(world, monkeypatch, 4, garble)
        named = set()
        for _ in range(6):  # the pairs in turn
            found = world.user.preview(ids[:2], identify=True)
            assert [p.caption for p in found] == ["anna 0", "anna 1"]
            named.add(found.suspects)
        assert named == {(), (4,)}
        monkeypatch.undo()
        lying(world, monkeypatch, 4, garble)
        lying(world, monkeypatch, 2, lambda records: np.bitwise_xor(records, 0x66, out=records))
        with pytest.raises(VerificationError) as caught:
            world.user.preview(ids[:2], identify=True)
        assert caught.value.suspects == ()


def test_what_an_owner_cannot_open_names_nobody(tmp_path, monkeypatch):
    world = World(tmp_path / "d", 3)
    with world.deployment:
        anna = world.owners[0]
        from mipp.crypto import records as sealing

        monkeypatch.setattr(sealing, "seal_records", lambda key, plains, data: np.full((len(plains), 456), 7, np.uint8))
        bad = anna.add_vectors(np.eye(4))
        monkeypatch.undo()
        with pytest.raises(VerificationError) as caught:
            world.user.preview(bad, identify=True)
        assert not caught.value.suspects
        world.check(list(world.captions)[:4])  # nobody else is harmed


# --- hostile users and owners ---------------------------------------------------------------------------------------


def header_and_keys(asker, rows, **changes):
    index = asker.index()
    made = [pir.generate_keys(row, index.original_total) for row in rows]
    pair = [1, 2]
    keys = {c: [one[side] for one in made] for side, c in enumerate(pair)}
    salts = {c: bytes([c]) * 32 for c in pair}
    header = m.FetchHeader(
        asker.config.id, asker.id, b"n" * 16, pair, len(rows), index.snapshot, [o.grant for o in index.owners],
        [o.position for o in index.owners], [len(o.batches) for o in index.owners],
        [retrieval.fetch_commitment(salts[c], keys[c]) for c in pair], index.batches, asker.key_set().id, -1,
    )  # fmt: skip
    for name, value in changes.items():
        object.__setattr__(header, name, value)
    return header, keys, salts


def ask(user, header, keys, salts, cloud=1, first=0, blocks=0):
    frames = [np.frombuffer(f, np.uint8) for f in retrieval.encode(header)]
    salt, some = salts.get(cloud, salts[1]), keys.get(cloud, keys[1])
    return user.ask({cloud: m.FetchRecords(frames, salt, some, b"", first, blocks)})[cloud]


def test_hostile_fetches_are_refused_and_not_counted(tmp_path):
    world = World(tmp_path / "d", max_k=10, quota=100)
    with world.deployment:
        user = world.user

        def refused(error, cloud=1, keys=None, first=0, blocks=0, **changes):
            header, right, salts = header_and_keys(user, [3], **changes)
            with pytest.raises(error):
                ask(user, header, keys(right) if keys else right, salts, cloud, first, blocks)

        refused(AuthenticationError, deployment=bytes(16))
        refused(AuthenticationError, user=world.owners[0].id)
        refused(AuthenticationError, nonce=b"short")
        refused(ParameterError, clouds=[2, 1])
        refused(ParameterError, clouds=[1, 3])
        refused(ParameterError, clouds=[2, 2])
        refused(ParameterError, cloud=3)
        refused(ShapeError, count=2)
        refused(AuthenticationError, commitments=[bytes(32), bytes(32)])
        refused(StaleSnapshotError, snapshot=bytes(32))
        refused(ShapeError, size_class=-2)
        refused(ShapeError, size_class=17, blocks=1)
        refused(ShapeError, size_class=2, first=3, blocks=2)
        refused(ShapeError, first=0, blocks=1)
        other = pir.generate_keys(3, 999)
        refused(AuthenticationError, keys=lambda right: {1: [other[0]], 2: [other[1]]})

        def committed(keys):
            header, _, salts = header_and_keys(user, [3])
            object.__setattr__(header, "commitments", [retrieval.fetch_commitment(salts[1], keys), bytes(32)])
            with pytest.raises((MessageError, ParameterError)):
                ask(user, header, {1: keys}, salts)

        for wrong in (other[0], b"", b"x" * 300, pir.generate_keys(3, user.index().original_total)[0][:-1]):
            committed([wrong])
        assert world.deployment.servers[1].store.fetched() == []
        header, keys, salts = header_and_keys(user, [3])
        one, two = (ask(user, header, keys, salts, c).records for c in (1, 2))
        again = ask(user, header, keys, salts, 1).records
        assert np.array_equal(one, again), "a header is always answered alike"
        assert (one ^ two)[0, :16].any()
        assert {f[2] for f in world.deployment.servers[1].store.fetched()} == {2}
        # replies to different headers do not combine
        object.__setattr__(header, "nonce", b"m" * 16)
        other = ask(user, header, keys, salts, 2).records
        assert np.count_nonzero((one ^ other)[0, :40] == (one ^ two)[0, :40]) < 10


def test_quota_of_records(tmp_path):
    world = World(tmp_path / "d", max_k=5, quota=1)
    with world.deployment:
        ids = list(world.captions)
        for count in (10, 2, 1):
            world.check(ids[:count])
        with pytest.raises(AccessDeniedError, match="used up"):
            world.user.preview(ids[:1])
        for cloud in (1, 2):
            assert {f[2] for f in world.deployment.servers[cloud].store.fetched()} == {30}


def test_revocation(world):
    anna, berta = world.owners
    ids, other = list(world.captions), world.deployment.create_user("v")
    anna.grant(other)
    assert other.preview(ids[:1])[0].caption == "anna 0"
    kept = dict(other._albums[anna.id][1])
    anna.revoke(other)
    with pytest.raises(AccessDeniedError):
        other.preview(ids[:1])
    with pytest.raises(AccessDeniedError):
        other.ask_all(m.FetchAlbums([anna.id]), (1, 3))
    new = anna.add_vectors(np.eye(4), metadata=[{"caption": f"later {i}"} for i in range(4)])
    world.captions |= {i: f"later {n}" for n, i in enumerate(new)}
    world.check([ids[0], *new])
    later = set(world.user._albums[anna.id][1]) - set(kept)
    assert len(later) == 1, "records that are written after a revocation are of a new album"
    berta.grant(other)
    assert other.preview([ids[-1]])[0].caption == "berta 36"
    assert anna.id not in {o.owner for o in other.index().owners}
    anna.grant(other)  # granted again: all albums, and none is one that it was shut out of with
    assert other.preview(new)[0].caption == "later 0"


def test_an_index_that_changes_meanwhile(world, monkeypatch):
    anna = world.owners[0]
    ids = list(world.captions)
    real, changes = world.user._album_keys, [lambda: anna.delete([ids[0]]), lambda: world.annotate(anna, [ids[1]])]

    def changing(index, servers):
        if changes:
            changes.pop(0)()
        return real(index, servers)

    monkeypatch.setattr(world.user, "_album_keys", changing)
    del world.captions[ids[0]]
    world.check([ids[0], ids[1], ids[2]])
    assert not changes


def test_different_records_at_the_clouds_are_not_taken(world, monkeypatch):
    anna = world.owners[0]
    real, seen = anna.signed, []

    def signed(msg, server, known=None):
        if isinstance(msg, m.UploadOp) and server == 2:
            other = msg.records.copy()
            other[0, -1] ^= 1
            object.__setattr__(msg, "records", other)
            seen.append(server)
        return real(msg, server)

    monkeypatch.setattr(anna, "signed", signed)
    with pytest.raises(AuthenticationError):
        anna.add_vectors(np.eye(4))
    assert seen
    monkeypatch.undo()
    world.check(list(world.captions)[:3])


@pytest.mark.parametrize("scheme", ["lattice", "paillier"])
def test_schemes_without_two_clouds(tmp_path, scheme, monkeypatch):
    with pytest.raises(ParameterError, match="one cloud keeps no records that a user could fetch"):
        Deployment.create(tmp_path / "p", ENCODING, scheme=scheme, preview_size=512)
    assert not (tmp_path / "p").exists()
    Deployment.create(tmp_path / "o", ENCODING, scheme=scheme, preview_size=0).close()
    # deployments of earlier versions may have them, for owners
    monkeypatch.setattr(given, "_checked_records", lambda size, params: size)
    with Deployment.create(tmp_path / "p", ENCODING, scheme=scheme, preview_size=512) as deployment:
        anna, user = deployment.create_owner("anna"), deployment.create_user("u")
        ids = anna.add_vectors(np.eye(4), metadata=[{"caption": "a"}, None, None, None])
        anna.grant(user)
        assert anna.records(ids[:1])[0].metadata == {"caption": "a"}
        with pytest.raises(ParameterError, match="two clouds"):
            user.preview(ids)
    with Deployment.create(tmp_path / "n", ENCODING) as deployment:
        anna, user = deployment.create_owner("anna"), deployment.create_user("u")
        ids = anna.add_vectors(np.eye(4))
        anna.grant(user)
        with pytest.raises(ParameterError, match="no records"):
            user.preview(ids)
        with pytest.raises(ParameterError, match="no records"):
            anna.add_vectors(np.eye(4), metadata=[{"a": 1}] * 4)
        with pytest.raises(ParameterError, match="no records"):
            user.fetch(ids, private=True)
    assert Params(5, 2).t == 2


# --- image files ----------------------------------------------------------------------------------------------------


def test_images_privately(tmp_path):
    rng = np.random.default_rng(3)
    sizes = [0, 1, 7, 8, 16_000, 17_000, 40_000, 70_000, 300_000, 6_000_000]
    files = {f"{i}.bin": rng.bytes(size) for i, size in enumerate(sizes)}
    with Deployment.create(tmp_path / "d", ENCODING, preview_size=512) as deployment:
        anna, berta, user = deployment.create_owner("anna"), deployment.create_owner("b"), deployment.create_user("u")
        ids = anna.add_vectors(rng.normal(size=(10, 4)), [(name, content, {"n": 1}) for name, content in files.items()])
        without = berta.add_vectors(np.eye(4))
        for owner in (anna, berta):
            owner.grant(user)
        told = []
        got = user.fetch([*ids, without[0]], private=True, progress=lambda count, total: told.append((count, total)))
        assert [g.content for g in got[:-1]] == list(files.values()) and [g.name for g in got[:-1]] == list(files)
        assert isinstance(got[-1].error, NotFoundError) and got[3].metadata == {"n": 1}
        assert sum(count for count, _ in told) == told[0][1] and len(told) > 3
        anna.annotate({ids[4]: {"n": 2}})
        anna.delete([ids[0]])
        anna.compact(merge_below=100)
        moved = [(anna.batches()[0].id, row) for row in range(9)]
        got = user.fetch([*moved, ids[0]], private=True)
        assert [g.content for g in got[:-1]] == list(files.values())[1:]
        assert isinstance(got[-1].error, NotFoundError)


def test_classes_of_size():
    block = ORIGINAL_BLOCK
    found = [size_class(n) for n in (0, 1, block, block + 1, 2 * block, 2 * block + 1, 4 * block, 4 * block + 1)]
    assert found == [0, 0, 0, 1, 1, 2, 2, 3]


def test_rows_that_fill_up_are_those_that_are_wanted(world, monkeypatch):
    """Else an owner's records that do not open would fail fetches of others' rows."""
    seen = []
    real = world.user._retrieved
    monkeypatch.setattr(
        world.user,
        "_retrieved",
        lambda index, pair, wanted, *rest: seen.append(wanted) or real(index, pair, wanted, *rest),
    )
    ids = list(world.captions)
    world.user.preview([ids[3], (bytes(16), 0), ids[4]], pad=20)
    assert len(seen[-1]) == 20 and len(set(seen[-1])) == 2
    world.user.preview([(bytes(16), 0)])
    assert len(seen[-1]) == 10


def test_a_thumbnail_makes_room(tmp_path):
    """A photo fills its record; a caption that comes later makes the thumbnail smaller."""
    rng = np.random.default_rng(2)
    raw = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (300, 300, 3), np.uint8)).save(raw, "PNG")
    with Deployment.create(tmp_path / "d", ENCODING, preview_size=2048) as deployment:
        anna, user = deployment.create_owner("anna"), deployment.create_user("u")
        (one,) = anna.add_vectors(rng.normal(size=(1, 4)), [("a.png", raw.getvalue())])
        anna.grant(user)
        before = anna.records([one])[0].thumbnail
        anna.annotate({one: {"caption": "x" * 900}})
        after = anna.records([one])[0]
        assert 0 < len(after.thumbnail) < len(before) and Image.open(io.BytesIO(after.thumbnail)).format == "WEBP"
        assert user.fetch([one], private=True)[0].metadata == after.metadata == {"caption": "x" * 900}
        with pytest.raises(ParameterError, match=f"{one[0].hex()}:0: .*largest field is 'caption'"):
            anna.annotate({one: {"caption": "x" * 3000}})
        with pytest.raises(ParameterError):
            anna.annotate({one: 3})
        anna.delete([one])
        for wrong in (lambda: anna.annotate({one: {"a": 1}}), lambda: anna.records([one])):
            with pytest.raises(NotFoundError, match="deleted"):
                wrong()


def test_halves_of_surrogate_pairs_are_replaced(tmp_path):
    """JSON can hold them; tables and files in UTF-8 cannot."""
    half = "\ud800"
    with Deployment.create(tmp_path, ENCODING, preview_size=512) as deployment:
        anna, user = deployment.create_owner("anna"), deployment.create_user("ulla")
        (row,) = anna.add_vectors(np.eye(4)[:1], metadata=[{"caption": f"a{half}", half: [{half: half}], "n": 1}])
        anna.grant(user)
        previews = user.preview([row])
        assert previews[0].metadata == {"caption": "a\ufffd", "\ufffd": [{"\ufffd": "\ufffd"}], "n": 1}
        assert str(previews.to_rows()).encode() and previews[0].caption.encode()
