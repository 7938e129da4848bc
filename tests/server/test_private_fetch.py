"""Private fetches at servers: exact at every size and pair of clouds, counted, refused, masked, repaired."""

import dataclasses
import itertools

import numpy as np
import pytest

import mipp
from mipp import pir
from mipp.client import retrieval
from mipp.deployment.embedded import Deployment
from mipp.errors import (
    AccessDeniedError,
    AuthenticationError,
    IntegrityError,
    MippError,
    NotFoundError,
    ParameterError,
    ShapeError,
    VerificationError,
)
from mipp.rpc import messages as m
from mipp.rpc.limits import ALBUM_OWNERS, FETCH_RECORDS
from mipp.server import private_fetch
from tests.client.test_preview import World, header_and_keys

SIZE = 512


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path / "d", rows=(40, 23))
    with made.deployment:
        yield made


@pytest.fixture
def three(tmp_path):
    made = World(tmp_path / "d", 3, rows=(40, 23))
    with made.deployment:
        yield made


def ask(user, header, keys, salts, cloud=1):
    frames = [np.frombuffer(f, np.uint8) for f in retrieval.encode(header)]
    return user.ask({cloud: m.FetchRecords(frames, salts[cloud], keys[cloud], b"", 0, 0)})[cloud]


def fetched(user, rows, pair=(1, 2)):
    """What two clouds answer together to one header, and their replies."""
    header, _, salts = header_and_keys(user, rows)
    made = [pir.generate_keys(row, user.index().original_total) for row in rows]
    keys = {cloud: [one[side] for one in made] for side, cloud in enumerate(pair)}
    salts = {cloud: bytes([cloud]) * 32 for cloud in pair}
    commitments = [retrieval.fetch_commitment(salts[c], keys[c]) for c in pair]
    header = dataclasses.replace(header, clouds=list(pair), commitments=commitments)
    replies = [ask(user, header, keys, salts, cloud).records for cloud in pair]
    return replies[0] ^ replies[1], replies


def true_record(world, row, cloud=1):
    """The record that a cloud has of a row of the index, by its original number; zeros for one that is deleted."""
    index = world.user.index()
    owner, batch, number = index.place_of_original(row)
    store = world.deployment.servers[cloud].store
    if number in store.batch(owner, batch)[1]:
        return np.zeros(SIZE, np.uint8)
    packs, places, _ = store.records.places(owner, batch, np.array([number]))
    return store.records.read(owner, packs, places)[0]


# --- exactness ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [256, 320, 1088])
def test_every_row_of_an_index_that_grows(tmp_path, size):
    """Batches of 1, 2, 5, ... rows, so that leaves of 128 rows and words of 64 end anywhere."""
    with Deployment.create(tmp_path / "d", mipp.Encoding("cosine", 4), preview_size=size) as deployment:
        owners, user = [deployment.create_owner(name) for name in "ab"], deployment.create_user("u")
        truth = {}
        for n, count in enumerate((1, 1, 5, 57, 63, 3, 130)):
            told = [{"n": len(truth) + i} for i in range(count)]
            ids = owners[n % 2].add_vectors(np.random.default_rng(n).normal(size=(count, 4)), metadata=told)
            truth |= dict(zip(ids, told, strict=True))
            if n == 1:
                for owner in owners:
                    owner.grant(user)
            if n:
                some = [*list(truth)[:2], *ids[:3], ids[-1], ids[len(ids) // 2]]
                assert [p.metadata for p in user.preview(some)] == [truth[i] for i in some]
        assert [p.metadata for p in user.preview(list(truth))] == list(truth.values())
        assert user.index().original_total == 260


def mixed(world):
    """Own packs, compacted at one cloud alone, annotated, merged and annotated again."""
    anna, berta = world.owners
    ids = list(world.captions)
    world.annotate(anna, ids[3:9])
    world.delete(anna, [ids[4], *ids[10:20]])
    own = anna.add_vectors(np.eye(4), metadata=[{"caption": f"o{n}"} for n in range(4)])
    world.captions |= {i: f"o{n}" for n, i in enumerate(own)}
    world.delete(anna, own[1:3])
    first, *_ = world.deployment.config.params.clouds
    world.deployment.servers[first].store.compact(anna.id)
    more = berta.add_vectors(np.eye(4), metadata=[{"caption": f"m{n}"} for n in range(4)])
    world.captions |= {i: f"m{n}" for n, i in enumerate(more)}
    world.annotate(berta, [more[1], ids[45]])
    for i in [i for i in world.captions if i[0] in (ids[-1][0], more[0][0])][::5]:
        world.delete(berta, [i])
    old = [i for b in berta.batches() for i in sorted(world.captions) if i[0] == b.id]
    berta.compact(merge_below=1000)
    (batch,) = berta.batches()
    world.captions |= {(batch.id, row): world.captions.pop(i) for row, i in enumerate(old)}
    world.annotate(berta, [(batch.id, 2), (batch.id, batch.rows - 1)])


def test_what_two_clouds_answer_is_the_record_and_nothing_of_deleted_rows(world):
    mixed(world)
    total = world.user.index().original_total
    for start in range(0, total, 32):
        rows = range(start, min(total, start + 32))
        got, _ = fetched(world.user, list(rows))
        for row, record in zip(rows, got, strict=True):
            assert np.array_equal(record, true_record(world, row)), row
    world.check(list(world.captions))


def test_each_pair_of_three_clouds(three):
    mixed(three)
    total = three.user.index().original_total
    for pair in itertools.combinations((1, 2, 4), 2):
        for start in range(0, total, 32):
            rows = list(range(start, min(total, start + 32)))
            got, _ = fetched(three.user, rows, pair)
            assert all(np.array_equal(record, true_record(three, row)) for row, record in zip(rows, got, strict=True))
    for _ in range(3):
        three.check(list(three.captions)[::7])


# --- one cloud's reply ----------------------------------------------------------------------------------------------


def bytes_limit(degrees):
    return degrees + 8 * np.sqrt(2 * degrees)


def uniform(data):
    counts = np.bincount(data.reshape(-1), minlength=256)
    expected = data.size / 256
    return float(((counts - expected) ** 2 / expected).sum())


def alike(first, second):
    a, b = (np.bincount(part.reshape(-1), minlength=256).astype(float) for part in (first, second))
    return float(((a - b) ** 2 / np.maximum(a + b, 1)).sum())


def test_replies_of_one_cloud_are_uniform_and_independent_of_the_row(world, monkeypatch):
    def replies(row):
        return [
            np.concatenate(parts) for parts in zip(*(fetched(world.user, [row] * 32)[1] for _ in range(3)), strict=True)
        ]

    one, two = replies(3), replies(50)
    for cloud in (0, 1):
        for data in (one[cloud], two[cloud]):
            assert uniform(data) < bytes_limit(255)
        assert alike(one[cloud], two[cloud]) < bytes_limit(255)
        # 96 replies to keys of one row: no two alike, none the record
        assert len({row.tobytes() for row in one[cloud]}) == 96
        half = np.unpackbits(one[cloud] ^ true_record(world, 3)).mean()
        assert abs(half - 0.5) < 0.01
    monkeypatch.setattr(private_fetch, "_mask", lambda key, header, first, shape: np.zeros(shape, np.uint8))
    # what is in the clear in all records shows that the mask is missing: the same few values in each selection
    columns = replies(3)[0][:, 16 + 16 : 40]
    assert uniform(columns) > bytes_limit(255)


def test_keys_that_select_several_rows_give_noise(world):
    """Keys that do not belong together, or one key twice, tell a user nothing of more than one record."""
    user = world.user
    total = user.index().original_total
    true = np.array([true_record(world, row) for row in range(total)])
    header, keys, salts = header_and_keys(user, [3])
    one = ask(user, header, keys, salts, 1).records[0]
    selection = np.unpackbits(pir.expand(keys[1][0]).view(np.uint8), bitorder="little")[:total].astype(bool)
    plain = np.bitwise_xor.reduce(true[selection], axis=0)
    assert np.count_nonzero(one == plain) < 20, "a reply alone is masked"
    with pytest.raises(AuthenticationError, match="commits"):
        ask(user, header, {1: keys[1], 2: keys[1]}, salts, 2)


# --- what is refused, and before anything is counted ----------------------------------------------------------------


def counted(world):
    return [sorted(n for _, _, n in world.deployment.servers[c].store.fetched()) for c in (1, 2)]


def test_the_same_header_with_other_keys_or_too_many(tmp_path):
    world = World(tmp_path / "d", rows=(5, 3), max_k=100, quota=100)
    with world.deployment:
        user = world.user
        header, keys, salts = header_and_keys(user, [3])
        again = header_and_keys(user, [4])[1]
        for server in (1, 2):
            with pytest.raises(AuthenticationError, match="commits"):
                ask(user, header, again, salts, server)
            with pytest.raises(AuthenticationError, match="commits"):
                ask(user, header, keys, {1: bytes(32), 2: bytes(32)}, server)
            with pytest.raises(AuthenticationError, match="commits"):
                ask(user, header, keys, {1: b"", 2: b""}, server)
        total = user.index().original_total
        for rows in ([], [0] * (FETCH_RECORDS + 1)):
            header, keys, salts = header_and_keys(user, rows)
            with pytest.raises(ShapeError):
                ask(user, header, keys, salts)
        for wrong in (1, total - 1, total + 1, 2 * total, 1 << 20):
            made = pir.generate_keys(0, wrong)
            commitments = [retrieval.fetch_commitment(salts[c], [made[c - 1]]) for c in (1, 2)]
            header, _, _ = header_and_keys(user, [0], commitments=commitments)
            for server in (1, 2):
                with pytest.raises(ParameterError, match="rows"):
                    ask(user, header, {1: [made[0]], 2: [made[1]]}, salts, server)
        assert counted(world) == [[], []]


def test_what_is_counted(tmp_path):
    world = World(tmp_path / "d", rows=(5, 3), max_k=7, quota=1)  # 30 records
    with world.deployment:
        ids = list(world.captions)
        world.check(ids[:1])
        assert counted(world) == [[10, 10], [10, 10]]
        with pytest.raises(AccessDeniedError, match="used up"):
            world.user.preview(ids[:8], pad=30)
        assert counted(world) == [[10, 10], [10, 10]], "all or nothing"
        world.check(ids[:8])
        assert counted(world) == [[20, 20], [20, 20]]
        header, keys, salts = header_and_keys(world.user, [2])
        for _ in range(10):
            ask(world.user, header, keys, salts, 1)  # the last one at one cloud is not the last one at the other
        assert counted(world) == [[30, 30], [20, 20]]
        with pytest.raises(AccessDeniedError, match="used up"):
            ask(world.user, header, keys, salts, 1)
        ask(world.user, header, keys, salts, 2)
        for owner in world.owners:
            owner.grant(world.user, max_k=7, quota=2)
        world.check(ids[:2])


def test_albums_and_places_of_owners_that_grant_nothing(world):
    other = world.deployment.create_owner("carla")
    other.add_vectors(np.eye(4))
    vera = world.deployment.create_user("vera")
    anna = world.owners[0]
    for server in (1, 2, 3):
        for user, owners in (
            (world.user, [other.id]), (world.user, [anna.id, other.id]), (world.user, [bytes(16)]),
            (world.user, [anna.id, anna.id]), (vera, [anna.id]),
        ):  # fmt: skip
            with pytest.raises(AccessDeniedError):
                user.ask({server: m.FetchAlbums(owners)})
        for owners in ([], [bytes(16)] * (ALBUM_OWNERS + 1)):
            with pytest.raises(ShapeError):
                world.user.ask({server: m.FetchAlbums(owners)})
        with pytest.raises(AccessDeniedError):
            world.user.ask({server: m.FetchOrigins(other.id)})
        with pytest.raises(AccessDeniedError):
            vera.ask({server: m.FetchOrigins(anna.id)})
        with pytest.raises(MippError):  # an owner is no user
            other.ask({server: m.FetchAlbums([other.id])})


def test_a_user_that_was_revoked_cannot_fetch_with_what_it_has(world):
    anna = world.owners[0]
    header, keys, salts = header_and_keys(world.user, [3])
    ask(world.user, header, keys, salts, 1)
    anna.revoke(world.user)
    for cloud in (1, 2):
        with pytest.raises(AccessDeniedError):
            ask(world.user, header, keys, salts, cloud)


@pytest.mark.parametrize("change", ["delete", "merge", "annotate"])
def test_a_snapshot_that_is_stale_is_asked_for_again(world, monkeypatch, change):
    anna, ids = world.owners[0], list(world.captions)
    real, work = (
        world.user._retrieved,
        {
            "delete": lambda: world.delete(anna, [ids[2]]),
            "annotate": lambda: world.annotate(anna, [ids[1], ids[2]]),
            "merge": lambda: world.delete(anna, [ids[2]]) or world.merge(anna),
        },
    )
    left, asked = [work[change]], []

    def retrieved(*args):
        asked.append(args)
        if left:
            left.pop()()
        return real(*args)

    monkeypatch.setattr(world.user, "_retrieved", retrieved)
    found = world.user.preview([ids[1], ids[2], ids[-1]])
    assert len(asked) == 2
    # a merge moves a row, which is found by its earlier id
    first = "anna 1" if change == "merge" else world.captions[ids[1]]
    assert [p.caption for p in found] == [first, world.captions.get(ids[2], ""), world.captions[ids[-1]]]
    assert [isinstance(p.error, NotFoundError) for p in found] == [False, ids[2] not in world.captions, False]


@pytest.mark.parametrize("count", [3, 40])
@pytest.mark.parametrize("cloud", [1, 2])
def test_records_that_move_while_a_fetch_begins(world, monkeypatch, cloud, count):
    """After the check of its snapshot some records of a pack go, or all: that is a stale snapshot, and no alarm."""
    anna, ids = world.owners[0], list(world.captions)
    server = world.deployment.servers[cloud]
    real, left = server.fetches._authorise, [True]

    def authorise(header, newest):
        found = real(header, newest)
        if left:
            left.pop()
            world.annotate(anna, ids[:count])
            server.store.compact(anna.id)
        return found

    monkeypatch.setattr(server.fetches, "_authorise", authorise)
    for _ in range(6):
        world.user.preview([ids[0], ids[-1]])
        left.append(True)
    left.clear()
    world.check(ids[::6])
    assert not server.store.records.damaged


def test_two_colluding_servers(world, monkeypatch):
    config = dataclasses.replace(world.user.config, params=mipp.Params(5, 2))
    monkeypatch.setattr(world.user, "config", config)
    for fetch in (world.user.preview, lambda ids: world.user.fetch(ids, private=True)):
        with pytest.raises(ParameterError, match="collude"):
            fetch(list(world.captions)[:1])


# --- alarms and repair ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("position", [0, 31, 40, 55, 56, 80, 300, 511])
def test_one_bit_of_one_reply(world, monkeypatch, position):
    server = world.deployment.servers[1]
    real, ids, texts = server._handlers[m.FetchRecords], list(world.captions), set()

    def flipped(request):
        records = real(request).records.copy()
        records[:, position] ^= 1 << position % 8
        return m.MaskedRecords(records)

    monkeypatch.setitem(server._handlers, m.FetchRecords, flipped)
    for wanted in (ids[:1], ids[-1:], ids[5:9], [(bytes(16), 3), ids[0]]):
        with pytest.raises(VerificationError) as caught:
            world.user.preview(wanted)
        texts.add(str(caught.value))
    assert len(texts) == 1


def test_a_damaged_file_at_one_of_three_clouds_is_passed_over_and_repaired(three):
    ids = list(three.captions)
    three.check(ids[::9])
    server = three.deployment.servers[2]
    for path in (server.store.folder / "records").glob("*/*"):
        raw = bytearray(path.read_bytes())
        raw[300] ^= 1
        path.write_bytes(raw)
    server.store.records.close()
    server.fetches.close()
    server.queries._plans.clear()
    for _ in range(4):  # the pairs in turn
        three.check(ids[::9])
    assert len(server.store.records.damaged) >= 1
    assert three.deployment.repair() == {"files": 2, "problems": []}
    assert not server.store.records.damaged and not server.store.records.lost(read=True)
    for pair in ((1, 2), (2, 4)):
        got, _ = fetched(three.user, [0, 45], pair)
        assert np.array_equal(got[0], true_record(three, 0)) and np.array_equal(got[1], true_record(three, 45))


def test_with_two_clouds_a_damaged_file_is_said(world):
    server = world.deployment.servers[2]
    next((server.store.folder / "records").glob("*/*")).unlink()
    with pytest.raises(IntegrityError, match=r"records of some rows are damaged or missing at server 2"):
        world.user.preview(list(world.captions)[:1])
    assert world.deployment.repair() == {"files": 1, "problems": []}
    world.check(list(world.captions)[::8])
