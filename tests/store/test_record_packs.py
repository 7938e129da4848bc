"""Packs of records in the store: written, changed, merged, shrunk, dropped, repaired, and nothing of them in clear."""

import contextlib
import os
import sqlite3
from pathlib import Path

import numpy as np
import pytest

import mipp
from mipp.errors import IntegrityError, LimitError, MippError, NotFoundError, StoreError
from mipp.rpc import messages as m
from mipp.rpc.limits import Card
from mipp.rpc.records import record_hashes, record_pack_hash
from mipp.store.catalog import NAME
from mipp.store.store import ServerStore
from tests.store.test_store import flip

CLOUDS, CENTRE, SIZE = (1, 2), 3, 512


def rows(count, seed=0):
    return np.random.default_rng(seed).normal(size=(count, 4))


class World:
    """An owner whose records are numbered, the truth beside it, and what each server keeps of them."""

    def __init__(self, folder):
        self.folder = folder
        self.deployment = mipp.Deployment.create(folder, mipp.Encoding("cosine", 4), preview_size=SIZE)
        self.anna, self.ulla = self.deployment.create_owner("anna"), self.deployment.create_user("ulla")
        self.anna.grant(self.ulla)
        self.truth, self.number = {}, 0

    def fields(self):
        self.number += 1
        return {"caption": f"c{self.number}"}

    def add(self, count):
        told = [self.fields() for _ in range(count)]
        ids = self.anna.add_vectors(rows(count, self.number), metadata=told)
        self.truth |= dict(zip(ids, told, strict=True))
        return ids

    def annotate(self, *ids):
        new = {i: self.fields() for i in ids}
        self.anna.annotate(new)
        self.truth |= new

    def delete(self, *ids):
        self.anna.delete(list(ids))
        for i in ids:
            del self.truth[i]

    def merge(self):
        old = [i for b in self.anna.batches() for i in sorted(self.truth) if i[0] == b.id]
        self.anna.compact(merge_below=1000)
        (batch,) = self.anna.batches()
        self.truth = {(batch.id, row): self.truth[i] for row, i in enumerate(old)}
        return list(self.truth)

    def compact(self):
        """In place, at each cloud."""
        for cloud in CLOUDS:
            self.store(cloud).compact(self.anna.id)

    def store(self, server):
        return self.deployment.servers[server].store

    def packs(self, server):
        """(rows, stored, file) of each record pack that a server knows, by id."""
        found = self.store(server).catalog.all("SELECT id, rows, stored, file FROM record_packs ORDER BY id")
        return {name: rest for name, *rest in found}

    def files(self, server):
        return sorted((self.store(server).folder / "records").glob("*/*"))

    def check(self):
        """Owner and user read what is true; all servers agree; files are those of the catalog, and whole."""
        ids = list(self.truth)
        assert [r.metadata for r in self.anna.records(ids)] == [self.truth[i] for i in ids]
        assert [p.metadata for p in self.ulla.preview(ids)] == [self.truth[i] for i in ids]
        assert self.deployment.status()["servers_agree"] and self.deployment.verify()["problems"] == []
        facts = []
        for server in (*CLOUDS, CENTRE):
            store = self.store(server)
            with store.catalog.reading() as db:
                facts.append(store.records.facts(db, self.anna.id))
            named = {store.folder / file for _, _, file in self.packs(server).values() if file}
            assert set(self.files(server)) == named and bool(named) == (server != CENTRE)
        assert facts[0] == facts[1] == facts[2]


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path / "d")
    yield made
    made.deployment.close()


# --- what is written ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 2, 63, 130])
def test_a_pack_of_its_own(world, count):
    ids = world.add(count)
    world.check()
    for cloud in CLOUDS:
        assert list(world.packs(cloud)) == [ids[0][0]]
        (path,) = world.files(cloud)
        raw = path.read_bytes()
        assert raw[:8] == b"mipprec1" and len(raw) == 256 + count * (SIZE + 32) + 32
        records = np.frombuffer(raw[256 : 256 + count * SIZE], np.uint8).reshape(count, SIZE)
        hashes = np.frombuffer(raw[256 + count * SIZE : -32], np.uint8).reshape(count, 32)
        assert np.array_equal(record_hashes(records), hashes)
        (known,) = world.store(CENTRE).catalog.all("SELECT hash, album FROM record_packs")
        assert record_pack_hash(hashes, SIZE) == known[0] and raw[256:288] == known[1]
    one, two = (world.files(cloud)[0].read_bytes()[256:-32] for cloud in CLOUDS)
    assert one == two


def test_deleted_records_leave_the_files_and_hashes_stay(world):
    ids = world.add(10)
    before = {cloud: world.files(cloud)[0].read_bytes() for cloud in CLOUDS}
    world.delete(ids[0], *ids[4:8])
    assert {cloud: world.files(cloud)[0].read_bytes() for cloud in CLOUDS} == before, "nothing is rewritten yet"
    world.compact()
    for cloud in CLOUDS:
        assert world.packs(cloud)[ids[0][0]][:2] == [10, 5]
        raw = world.files(cloud)[0].read_bytes()
        assert len(raw) == 256 + 5 * SIZE + 10 * 32 + 5 * 8 + 32
        assert raw[256 + 5 * SIZE :][: 10 * 32] == before[cloud][256 + 10 * SIZE :][: 10 * 32], "hashes of all rows"
        for gone in (0, 4, 5, 6, 7):
            assert before[cloud][256 + gone * SIZE :][:SIZE] not in raw
    world.check()
    world.delete(ids[1])
    world.compact()  # once more, from a file that lacks some
    world.check()
    world.delete(*world.truth)
    world.compact()
    for cloud in CLOUDS:
        assert not world.files(cloud) and not world.packs(cloud)


def test_an_annotation_is_a_new_ciphertext_of_the_same_row(world):
    ids = world.add(3)

    def stored():
        packs, places, _ = world.store(1).records.places(world.anna.id, ids[0][0], np.arange(3))
        return world.store(1).records.read(world.anna.id, packs, places), packs, places

    old, packs, _ = stored()
    world.annotate(ids[1])
    new, where, at = stored()
    assert np.array_equal(old[[0, 2]], new[[0, 2]]) and not np.array_equal(old[1], new[1])
    assert (old[1, 56:] == new[1, 56:]).mean() < 0.1, "salt, ciphertext and tag are others"
    assert at.tolist() == [0, 0, 2] and (where[1] != packs[1]).any()
    world.anna.annotate({ids[1]: world.truth[ids[1]]})  # the same text is another ciphertext, too
    assert (stored()[0][1, 56:] == new[1, 56:]).mean() < 0.1
    world.check()


def test_earlier_versions_are_not_given_back(world):
    ids = world.add(3)
    packs, places, _ = world.store(1).records.places(world.anna.id, ids[0][0], np.arange(3))
    world.annotate(*ids[:2])
    world.compact()
    asked = m.FetchOwnRecords(packs[1:2], places[1:2])
    for cloud in CLOUDS:
        with pytest.raises(NotFoundError):
            world.anna.ask({cloud: asked})
    with pytest.raises(StoreError):
        world.anna.ask({CENTRE: asked})
    assert [world.packs(1)[ids[0][0]][:2], len(world.packs(1))] == [[3, 1], 2]
    world.check()


def test_annotate_merge_annotate(world):
    first, second, third = world.add(5), world.add(1), world.add(7)
    world.annotate(first[2], third[6])
    world.annotate(first[2], second[0])
    world.delete(first[0], third[3])
    ids = world.merge()
    world.check()
    assert all(len(world.store(s).view(world.anna.id).batches) == 1 for s in (*CLOUDS, CENTRE))
    kept = {cloud: [p.read_bytes() for p in world.files(cloud)] for cloud in CLOUDS}
    world.annotate(ids[0], ids[-1])
    world.check()
    for cloud in CLOUDS:  # a merge sends no record anew
        assert set(kept[cloud]) < {p.read_bytes() for p in world.files(cloud)}
    more = world.add(2)
    world.annotate(more[1])
    world.delete(ids[1])
    ids = world.merge()
    world.annotate(ids[3])
    world.compact()
    world.check()


def test_packs_that_no_row_needs_are_dropped(world):
    ids = world.add(4)
    for _ in range(3):
        world.annotate(*ids)
    assert len(world.packs(1)) == 4
    world.compact()
    for cloud in CLOUDS:
        ((name, (count, stored, _)),) = world.packs(cloud).items()
        assert name != ids[0][0] and (count, stored) == (4, 4)
    world.check()


def test_a_pack_that_is_shrunk_or_dropped_is_not_kept_open(world):
    """A mapped file that is removed takes its room on the disk until it is closed."""
    ids = world.add(2500)
    world.ulla.preview(ids[:1])

    def removed():
        lines = Path("/proc/self/maps").read_text().splitlines()
        return [line for line in lines if str(world.folder) in line and "/records/" in line and "(deleted)" in line]

    assert not removed()
    world.delete(*ids[:5])
    world.compact()
    world.ulla.preview(ids[10:11])
    assert not removed()
    world.anna.forget()
    for cloud in CLOUDS:
        world.deployment.servers[cloud].fetches.close()
    assert not removed()


# --- limits, forgetting, sweeping ----------------------------------------------------------------------------------


def test_records_count_as_bytes_of_their_owner(world):
    ids = world.add(4)
    store, server = world.store(1), world.deployment.servers[1]
    size = store.size_of(world.anna.id)
    assert size == sum(p.stat().st_size for room in ("shares", "records") for p in (store.folder / room).glob("*/*"))
    server.card = Card(bytes=size + 4 * SIZE - 1)
    written = []
    writer = store.records.writer
    store.records.writer = lambda *args: written.append(args) or writer(*args)
    for change in (lambda: world.anna.annotate(dict.fromkeys(ids)), lambda: world.anna.add_vectors(rows(4))):
        with pytest.raises(LimitError, match="bytes"):
            change()
        assert len(world.files(1)) == 1 and store.size_of(world.anna.id) == size
    world.anna.annotate(dict.fromkeys(ids[:3]))
    assert store.size_of(world.anna.id) > size + 3 * SIZE


def test_forgetting_an_owner_removes_its_records(world):
    berta = world.deployment.create_owner("berta")
    other = berta.add_vectors(rows(2), metadata=[{"n": 1}, {"n": 2}])
    ids = world.add(3)
    world.annotate(ids[0])
    world.anna.forget()
    for server in (*CLOUDS, CENTRE):
        assert set(world.packs(server)) == {other[0][0]}
        assert {p.parent.name for p in world.files(server)} <= {berta.id.hex()}
    assert [r.metadata for r in berta.records(other)] == [{"n": 1}, {"n": 2}]


def test_a_sweep_leaves_records_and_removes_what_is_no_ones(world):
    ids = world.add(3)
    world.annotate(ids[0])
    stray = world.files(1)[0].with_name("stray")
    stray.write_bytes(b"x")
    assert world.store(1).sweep() == 1 and not stray.exists()
    assert world.store(2).sweep() == 0
    world.check()


def test_a_sweep_leaves_records_of_a_change_that_is_under_way(world, monkeypatch):
    ids = world.add(2)
    real = type(world.anna._changes)._commit

    def swept(self, *args):
        for cloud in CLOUDS:
            assert world.store(cloud).sweep() == 0
        real(self, *args)

    monkeypatch.setattr(type(world.anna._changes), "_commit", swept)
    world.annotate(ids[1])
    world.check()


# --- damage ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("position", [0, 9, 70, 300, 256 + SIZE + 10, -40, -1])
def test_damaged_files_are_named(world, position):
    world.add(2)
    path = world.files(2)[0]
    flip(path, position)
    problems = world.deployment.verify()["problems"]
    assert len(problems) == 1 and path.name in problems[0]


def test_missing_truncated_and_foreign_files_are_named(world):
    first, _, _ = world.add(2), world.add(2), world.add(2)
    one, two, three = world.files(1)
    one.unlink()
    two.write_bytes(two.read_bytes()[:-5])
    three.write_bytes(world.files(2)[0].read_bytes())
    problems = world.deployment.verify()["problems"]
    assert all(any(path.name.split(".")[0] in line for line in problems) for path in (one, two, three))
    assert len(problems) == 3
    assert sorted(world.store(1).records.lost(read=True)) == sorted(
        (world.anna.id, bytes.fromhex(path.name.split(".")[0])) for path in (one, two, three)
    )
    assert world.deployment.repair() == {"files": 3, "problems": []}
    world.check()
    assert first[0] in world.truth


def test_a_damaged_file_says_no_path_to_others(world):
    ids = world.add(2)
    flip(world.files(1)[0], 300)
    world.store(1).records.close()
    with pytest.raises(MippError) as caught:
        world.ulla.preview(ids)
    assert str(world.folder) not in str(caught.value) and world.files(1)[0].name not in str(caught.value)
    assert [r.metadata for r in world.anna.records(ids)] == list(world.truth.values()), "from the other cloud"


def test_an_owner_is_told_no_path_either(world):
    ids = world.add(2)
    for cloud in CLOUDS:
        flip(world.files(cloud)[0], 300)
        world.store(cloud).records.close()
    with pytest.raises(IntegrityError) as caught:
        world.anna.records(ids)
    assert str(world.folder) not in str(caught.value)


def test_only_what_the_owner_uploaded_is_taken_from_another_cloud(world):
    ids = world.add(4)
    world.delete(ids[0])
    world.compact()
    (other,) = world.files(2)
    size, digest = other.stat().st_size, other.read_bytes()
    body = np.frombuffer(digest[256:-32], np.uint8)
    pack, records = ids[0][0], world.store(1).records
    files = world.files(1)

    def put(change=lambda raw: None, stored=3, more=0):
        raw = body.copy()
        change(raw)
        records.put(world.anna.id, pack, stored, len(raw) + more, iter([raw]))

    def record(raw):
        raw[7] ^= 1

    def hashes(raw):
        raw[3 * SIZE] ^= 1

    def order(raw):
        raw[-24:] = np.array([2, 1, 3], "<i8").view(np.uint8)

    def beyond(raw):
        raw[-8:] = np.array([9], "<i8").view(np.uint8)

    def below(raw):
        raw[-24:-16] = np.array([-1], "<i8").view(np.uint8)

    for change in (record, hashes, order, beyond, below):
        with pytest.raises(IntegrityError):
            put(change)
    for stored, more in ((4, 0), (-1, 0), (5, 0), (3, 8), (2, 0)):
        with pytest.raises(IntegrityError):
            put(stored=stored, more=more)
    assert world.files(1) == files, "nothing of it is left"
    put()
    assert world.files(1)[0].stat().st_size == size
    world.check()


# --- backups and old catalogs ---------------------------------------------------------------------------------------


def test_a_backup_has_the_records(world, tmp_path):
    ids = world.add(3)
    world.annotate(ids[0])
    (tmp_path / "b").mkdir()
    count, missing = world.store(1).back_up(tmp_path / "b")
    assert not missing and count == len(world.files(1)) + 1
    copies = sorted((tmp_path / "b" / "records").glob("*/*"))
    assert [p.read_bytes() for p in copies] == [p.read_bytes() for p in world.files(1)]
    world.files(1)[0].unlink()
    (tmp_path / "c").mkdir()
    _, missing = world.store(1).back_up(tmp_path / "c")
    assert len(missing) == 1 and "repair" in missing[0]


def test_catalogs_of_earlier_versions_open(tmp_path):
    folder = tmp_path / "d"
    with mipp.Deployment.create(folder, mipp.Encoding("cosine", 4)) as deployment:
        anna, ulla = deployment.create_owner("anna"), deployment.create_user("ulla")
        ids = anna.add_vectors(rows(4), [("a", b"aa")] * 4)
        anna.grant(ulla)
    for server in (1, 2, 3):
        home = folder / "servers" / str(server)
        assert not (home / "records").exists()
        with contextlib.closing(sqlite3.connect(home / NAME, isolation_level=None)) as db:
            db.execute("DROP TABLE record_packs")
            db.execute("ALTER TABLE batches DROP COLUMN records")
            db.execute("ALTER TABLE grants DROP COLUMN fetched")
    with mipp.Deployment.open(folder) as deployment:
        anna, ulla = deployment.owner("anna"), deployment.user("ulla")
        assert ulla.search(rows(4)[1], 1, ranking="server").hits[0].id == f"{ids[1][0].hex()}:1"
        more = anna.add_vectors(rows(2, 1), [("b", b"bb")] * 2)
        anna.delete([more[1]])
        anna.compact(merge_below=100)
        assert deployment.verify()["problems"] == [] and deployment.status()["servers_agree"]
        (batch,) = anna.batches()
        found = ulla.fetch([(batch.id, row) for row in range(5)])
        assert sorted(f.content for f in found) == [b"aa"] * 4 + [b"bb"]


# --- nothing in clear -----------------------------------------------------------------------------------------------


def everything(folder):
    """All bytes of all files, and their names."""
    for path in Path(folder).rglob("*"):
        yield str(path.relative_to(folder)).encode()
        if path.is_file():
            yield path.read_bytes()


def test_nothing_of_records_is_in_clear(tmp_path):
    from PIL import Image

    marks = [b"MARKPATH", b"MARKCAPTION", b"MARKFIELD", b"MARKNEW", b"MARKNAME"]
    pictures = tmp_path / "pictures" / "MARKPATHa"
    pictures.mkdir(parents=True)
    for n in range(4):
        Image.fromarray(np.random.default_rng(n).integers(0, 256, (40, 40, 3), np.uint8)).save(
            pictures / f"MARKNAME{n}.png"
        )
    told = {pictures / f"MARKNAME{n}.png": {"caption": f"MARKCAPTION{n}", "MARKFIELD": n} for n in range(4)}
    folder = tmp_path / "d"
    seen = []
    with mipp.Deployment.create(folder, mipp.Encoding("l2", 144), preview_size=2048, descriptor="cedd") as made:
        anna, ulla = made.create_owner("anna"), made.create_user("ulla")
        anna.add_images([pictures.parent], metadata=told)
        anna.grant(ulla)
        (batch,) = anna.batches()
        ids = [(batch.id, row) for row in range(4)]
        found = ulla.preview(ids)
        assert found[0].path.startswith("MARKPATHa/MARKNAME") and found[0].metadata["caption"][:11] == "MARKCAPTION"
        assert {p.metadata["MARKFIELD"] for p in found} == {0, 1, 2, 3}
        seen += everything(folder)  # while all is open: with write-ahead logs
        anna.annotate({ids[0]: {"MARKFIELD": "MARKNEW"}})
        anna.delete(ids[1:2])
        anna.compact(merge_below=100)
        ulla.preview([(anna.batches()[0].id, 0)])
        seen += everything(folder)
    seen += everything(folder)
    assert b"".join(seen).count(b"mipprec1") > 4
    for mark in marks:
        assert not [part for part in seen if mark in part or mark.lower() in part], mark


# --- a change that a restored server had prepared -------------------------------------------------------------------


def test_files_of_an_adopted_annotation_are_used(world, monkeypatch):
    """A cloud that accepted an annotation and is told its outcome by the others fetches nothing that it has."""
    ids = world.add(3)
    store = world.store(2)

    def away(*args, **options):
        raise StoreError("away")

    monkeypatch.setattr(store.changes, "certify", away)
    new = {ids[0]: world.fields()}
    with contextlib.suppress(MippError):
        world.anna.annotate(new)
    monkeypatch.undo()
    world.truth |= new
    (chain,) = world.store(1).chains.all()
    assert chain.position == store.chains.heads()[world.anna.id][0] + 1, "the others decided without it"
    store.chains.adopt(chain)
    named = {file for _, _, file in world.packs(2).values()}
    assert {str(p.relative_to(store.folder)) for p in world.files(2)} <= named, "no file is left that nobody names"
    assert "" not in named and not store.records.lost(read=True)
    world.check()


def test_the_store_takes_no_folder_for_records_without_any(tmp_path):
    params = mipp.Params(3, 1)
    with contextlib.closing(ServerStore(tmp_path / "a", 1, params, bytes(32), has_shares=True, create=True)) as store:
        assert not (store.folder / "records").exists() and store.sweep() == 0
        (tmp_path / "b").mkdir()
        assert store.back_up(tmp_path / "b") == (0, [])
        assert store.compact(os.urandom(16)) == 0
