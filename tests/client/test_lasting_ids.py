"""Ids that last: an id that was printed once names its image through merges, lost journals and kills, or no image."""

import dataclasses
import itertools
import random
import shutil
import sqlite3
from collections import Counter
from unittest import mock

import numpy as np
import pytest

import mipp
from mipp.client import ingest
from mipp.client.journal import Journal
from mipp.client.journal_places import Moving, runs_of
from mipp.client.journal_recovery import follow_servers
from mipp.encoding.clusters import Clusters
from mipp.errors import MippError, NotFoundError, ParameterError, StoreError, VerificationError

ROWS = np.eye(8)


class World:
    """An owner whose rows each have a caption and an image of their own, and a user."""

    def __init__(self, folder, **options):
        self.folder, self.options = folder, options
        self.deployment = mipp.Deployment.create(folder, mipp.Encoding("cosine", 8), preview_size=512, **options)
        self.owner, self.user = self.deployment.create_owner("anna"), self.deployment.create_user("ulla")
        self.owner.grant(self.user)
        #: lasting id of each row that is there -> its caption
        self.names = {}
        self._numbers = itertools.count()

    def add(self, rows=4):
        numbers = [next(self._numbers) for _ in range(rows)]
        images = [(f"{n}.png", f"image {n}".encode(), {"caption": f"row {n}"}) for n in numbers]
        labels = [f"image {n}" for n in numbers]
        ids = self.owner.add_vectors(ROWS[[n % 8 for n in numbers]], images, labels=labels)
        self.names |= {i: f"row {n}" for i, n in zip(ids, numbers, strict=True)}
        return ids

    def delete(self, *ids):
        assert self.owner.delete(list(ids)) == len(ids)
        for i in ids:
            del self.names[i]

    def merge(self):
        return self.owner.compact(merge_below=1000)

    def lose_journal(self):
        self.deployment.close()
        (self.folder / "owners" / "anna.journal").unlink()
        self.deployment = mipp.Deployment.open(self.folder)
        self.owner, self.user = self.deployment.owner("anna"), self.deployment.user("ulla")

    def reopen(self):
        self.deployment.close()
        self.deployment = mipp.Deployment.open(self.folder)
        self.owner, self.user = self.deployment.owner("anna"), self.deployment.user("ulla")

    def check(self):
        ids = list(self.names)
        assert [r.metadata["caption"] for r in self.owner.records(ids)] == [self.names[i] for i in ids]
        listed = {image.id for image in self.owner.images()}
        assert {f"{batch.hex()}:{row}" for batch, row in ids} == listed


def laid_out():
    """An index with clusters of one row each: batches of five rows or more are laid out."""
    return {"clusters": Clusters.of(mipp.Encoding("cosine", 8), ROWS[[0, 3, 5, 6]] + ROWS[[1, 2, 4, 7]], 2, least=1)}


@pytest.fixture(params=[{}, laid_out()], ids=["plain", "laid out"])
def world(tmp_path, request):
    made = World(tmp_path / "d", **request.param)
    yield made
    made.deployment.close()


def test_ids_outlive_merges_and_lost_journals(world):
    rng = np.random.default_rng(7)
    for turn in range(4):
        world.add(3)
        world.add(2)
        gone = [list(world.names)[i] for i in rng.choice(len(world.names), 1 + turn, replace=False)]
        world.delete(*gone)
        assert world.merge()
        if turn in (1, 3):
            world.lose_journal()
        world.check()
        with pytest.raises(NotFoundError):  # deleted and merged: it names nothing
            world.owner.records(gone[0])
    changed = list(world.names)[2]
    before = len(world.names)
    assert world.owner.annotate({changed: {"caption": "new"}}) == 1
    assert world.owner.records(changed)[0].metadata == {"caption": "new"}
    world.names[changed] = "new"
    world.delete(changed)
    assert sum(b.live for b in world.owner.batches()) == before - 1
    world.check()


def test_places_before_a_merge_lead_to_the_image_as_long_as_the_journal_is_there(world):
    (first, *_), second = world.add(3), world.add(3)
    world.merge()
    places = {image.origin: (image.batch, image.row) for image in world.owner.images()}
    between = [places[i] for i in world.names]
    assert between[0] != first
    world.add(1)
    world.merge()
    world.reopen()
    assert [r.metadata["caption"] for r in world.owner.records(between)] == [f"row {n}" for n in range(6)]
    assert world.owner.delete([between[4], second[1]]) == 1  # two ids of one image
    del world.names[second[1]]
    with pytest.raises(ParameterError, match="two of these ids name one row"):
        world.owner.annotate({between[0]: {}, first: {}})
    world.check()


def test_a_journal_of_an_earlier_version_learns_where_rows_came_from(world, monkeypatch):
    world.add(3), world.add(2)
    world.merge()
    large = world.add(4)
    world.deployment.close()
    with sqlite3.connect(world.folder / "owners" / "anna.journal") as db:
        for table in ("origins", "moves", "times", "orders"):
            db.execute(f"DROP TABLE {table}")
        db.execute("PRAGMA user_version = 2")
    world.deployment = mipp.Deployment.open(world.folder)
    world.owner = world.deployment.owner("anna")
    read = []
    real = world.owner.fetch_anywhere
    monkeypatch.setattr(world.owner, "fetch_anywhere", lambda batch, *rest: read.append(batch) or real(batch, *rest))
    world.check()
    assert read == [b.id for b in world.owner.batches() if b.id != large[0][0]]  # its tags say that it was never merged
    assert [image.added for image in world.owner.images()] == [None] * 9
    world.merge()
    world.check()


def test_a_cloud_that_tells_other_ids_is_not_believed(world, monkeypatch):
    """Without a journal, ids come from a cloud: tags show that it tells another row's."""
    world.add(2), world.add(2)
    world.merge()
    world.lose_journal()
    real = world.owner._fetch

    def swapped(server, batch):
        got = real(server, batch)
        return dataclasses.replace(got, origin_row=got.origin_row[::-1].copy())

    monkeypatch.setattr(world.owner, "_fetch", swapped)
    with pytest.raises(VerificationError, match="gave back row"):
        world.owner.delete([next(iter(world.names))])
    monkeypatch.undo()
    world.check()


def test_times_stay_with_images(world):
    ids = world.add(2)
    world.add(2)
    with sqlite3.connect(world.folder / "owners" / "anna.journal") as db:  # long ago
        db.execute("UPDATE times SET added=added-1000")
    times = world.owner.batch_times()
    world.merge()
    world.reopen()
    assert {image.added for image in world.owner.images()} == set(times.values())
    assert world.owner.batch_times()[ids[0][0]] == times[ids[0][0]]
    assert world.owner.batch_times()[world.owner.batches()[0].id] > max(times.values())


def test_a_merge_between_two_steps_of_a_read(world, monkeypatch):
    ids = world.add(2)
    world.add(2)
    left, real = [world.merge], world.owner._plain_records
    monkeypatch.setattr(world.owner, "_plain_records", lambda places: (left.pop()() if left else None, real(places))[1])
    assert [r.metadata["caption"] for r in world.owner.records(ids)] == ["row 0", "row 1"]


@pytest.mark.parametrize("point", ["before", "after"])
def test_a_process_that_dies_around_a_merge_loses_no_id(world, monkeypatch, point):
    world.add(3), world.add(2)
    make = world.owner._changes.make

    def dies(*args):
        if point == "after":
            make(*args)
        raise MemoryError("dies")

    monkeypatch.setattr(world.owner._changes, "make", dies)
    with pytest.raises(MemoryError):
        world.merge()
    world.reopen()
    assert len(world.owner.batches()) == (1 if point == "after" else 2)
    world.check()
    world.add(1)
    world.merge()
    world.check()
    journal = world.owner.journal
    live = {b.id for b in world.owner.batches()}
    assert {b for (b,) in journal._all("SELECT batch FROM origins")} == live
    assert {b for (b,) in journal._all("SELECT batch FROM moves")} >= live


def test_a_user_finds_what_it_saved(world):
    (first, _, third, fourth), more = world.add(4), world.add(2)
    hit = world.user.search(ROWS[1], k=1).hits[0]
    world.delete(third)
    world.owner.annotate({fourth: {"caption": "new"}})
    world.merge()
    world.user = world.deployment.user("ulla")
    saved = [hit, first, hit.id, third, more[1]]
    openly = world.user.fetch(saved)
    assert [image.content for image in openly] == [b"image 1", b"image 0", b"image 1", b"", b"image 5"]
    assert isinstance(openly[3].error, MippError)
    privately = world.user.fetch(saved, private=True)
    assert [image.content for image in privately] == [image.content for image in openly]
    captions = [p.caption for p in world.user.preview(saved)]
    assert captions == ["row 1", "row 0", "row 1", "", "row 5"]
    assert world.user.fetch(fourth)[0].content == b"image 3"
    assert world.user.preview(fourth)[0].error is not None  # an annotated row is not found by an earlier id


@pytest.mark.usefixtures("shared_ids")
def test_an_id_that_two_owners_answer_to_is_sent_to_none(world):
    ids = world.add(2)
    world.add(1)
    world.merge()
    # another owner takes the same batch id, which nobody has any more
    berta = world.deployment.create_owner("berta")
    berta.grant(world.user)
    with mock.patch("mipp.crypto.schedule.batch_nonce", lambda *_: ids[0][0]):
        berta.add_vectors(ROWS[:1], [("b.png", b"of berta", None)])
    berta.add_vectors(ROWS[:1], [("b.png", b"of berta", None)])
    berta.compact()
    # fresh: what a user remembers of owners that it saw is no part of this
    world.user = world.deployment.user("ulla")
    assert world.user.fetch(ids[1])[0].content == b"image 1"
    with pytest.raises(ParameterError, match="several owners"):
        world.user.fetch(ids[0], strict=True)
    assert world.user.preview(ids[0])[0].error is not None
    world.owner.revoke(world.user)
    assert world.user.fetch(ids[0])[0].content == b"of berta"
    with pytest.raises(MippError):
        world.user.fetch((ids[0][0], 5), strict=True)


def test_runs_hold_each_row_once():
    rng = np.random.default_rng(1)
    for _ in range(50):
        count = int(rng.integers(0, 30))
        batches = np.repeat(rng.integers(0, 3, count)[:, None], 16, axis=1).astype(np.uint8)
        numbers, rows = rng.integers(0, 9, count), np.cumsum(rng.integers(1, 3, count))
        back = [
            (run.first + i, run.origin, run.start + i)
            for run in runs_of(rows, batches, numbers)
            for i in range(run.rows)
        ]
        assert back == [(int(r), b.tobytes(), int(n)) for r, b, n in zip(rows, batches, numbers, strict=True)]


def test_a_merge_of_many_rows_is_a_few_entries(tmp_path):
    journal = Journal(tmp_path / "j", bytes(32))
    a, b, c = (bytes([n]) * 16 for n in (1, 2, 3))
    batches = np.frombuffer(a * 70_000 + b * 30_000, np.uint8).reshape(-1, 16)
    numbers = np.concatenate([np.arange(70_000), np.arange(30_000)])
    journal.merging(c, batches, numbers, Moving([a, b], np.repeat([0, 1], [70_000, 30_000]), numbers))
    assert [journal._all(f"SELECT count(*) FROM {of}") for of in ("origins", "moves", "orders")] == [
        [(n,)] for n in (2, 2, 0)
    ]
    assert journal.present([(b, 29_999), (b, 30_000), (a, 5)], {c}) == {(b, 29_999): (c, 99_999), (a, 5): (c, 5)}
    assert journal.lasting([(c, 70_001), (c, 100_000)]) == {(c, 70_001): (b, 1)}


def test_vectors_are_listed_by_file(tmp_path):
    with mipp.Deployment.create(tmp_path / "d", mipp.Encoding("cosine", 8)) as deployment:
        owner = deployment.create_owner("anna")
        for name, rows in ("a.npy", 5), ("b.npy", 3):
            path = tmp_path / name
            data = np.roll(ROWS, len(name) + rows, axis=1)[:rows] + np.eye(8)[rows - 1]
            ingest.add_vectors(owner, path, data)
        batches = {b.rows: b.id for b in owner.batches()}
        owner.delete([(batches[5], 1), (batches[3], 0)])
        assert [(f.path.name, f.rows) for f in owner.vectors()] == [("a.npy", 4), ("b.npy", 2)]
        owner.compact(merge_below=100)
        (merged,) = owner.batches()
        owner.delete([(batches[3], 2)])
        found = owner.vectors()
        assert [(f.path.name, f.rows, f.batches) for f in found] == [
            ("a.npy", 4, (merged.id,)), ("b.npy", 1, (merged.id,)),
        ]  # fmt: skip
        assert all(f.added for f in found)
        assert owner.images() == []
        follow_servers(owner, ingest.rows_label)


def test_a_journal_without_positions_is_read(tmp_path):
    """Of version 3, which had one entry for each row of a batch that was laid out."""
    a, b = bytes(16), bytes([1]) * 16
    journal = Journal(tmp_path / "j", bytes(32))
    journal.begin(b, ["b"], 3)
    with sqlite3.connect(tmp_path / "j") as db:
        db.execute("DROP TABLE orders")
        db.execute("DELETE FROM origins")
        places = [(0, 2), (1, 0), (2, 1)]
        db.executemany("INSERT INTO origins VALUES (?, ?, ?, ?, 1)", [(b, row, a, start) for row, start in places])
        db.executemany("INSERT INTO moves VALUES (?, ?, ?, ?, 1)", [(a, b, start, row) for row, start in places])
        db.execute("PRAGMA user_version = 3")
    journal.close()
    journal = Journal(tmp_path / "j", bytes(32))
    assert journal.present([(a, 0), (a, 2)], {b}) == {(a, 0): (b, 1), (a, 2): (b, 0)}
    assert journal.lasting([(b, 2)]) == {(b, 2): (a, 1)}
    assert journal._one("PRAGMA user_version") == (4,)


def test_a_damaged_order_is_an_error(tmp_path):
    a, b = bytes(16), bytes([1]) * 16
    journal = Journal(tmp_path / "j", bytes(32))
    journal.merging(
        b, np.zeros((3, 16), np.uint8), np.array([2, 0, 1]), Moving([a], np.zeros(3, int), np.array([2, 0, 1]))
    )
    for wrong in (b"abc", bytes(8) + b"\x03\0\0\0", bytes(12), "text"):
        with sqlite3.connect(tmp_path / "j") as db:
            db.execute("UPDATE orders SET rows=?", (wrong,))
        with pytest.raises(StoreError, match="damaged"):
            journal.lasting([(b, 0)])


def test_merges_that_lay_rows_out_take_four_bytes_a_row(tmp_path):
    rng, journal = np.random.default_rng(1), Journal(tmp_path / "j", bytes(32))
    a, b, c, d, e = (bytes([n]) * 16 for n in range(5))
    for batch, label, rows in ((a, "a", 60_000), (b, "b", 40_000), (d, "d", 5)):
        journal.begin(batch, [label], rows)
    before = (tmp_path / "j").stat().st_size
    ids = np.array([list(a), list(b)], np.uint8)
    order = rng.permutation(100_000)
    which, numbers = np.repeat([0, 1], [60_000, 40_000])[order], np.append(np.arange(60_000), np.arange(40_000))[order]
    journal.merging(c, ids[which], numbers, Moving([a, b], which, numbers))
    assert (tmp_path / "j").stat().st_size - before < 5 * 100_000
    where = {(int(w), int(n)): place for place, (w, n) in enumerate(zip(which, numbers, strict=True))}
    some = [(b, 0), (a, 59_999), (a, 7)]
    assert journal.present([*some, (b, 40_000)], {c}) == {i: (c, where[i[0][0], i[1]]) for i in some}
    assert journal.lasting([(c, 5), (c, 100_000)]) == {(c, 5): (ids[which[5]].tobytes(), numbers[5])}
    # and once more, without the rows of even number, together with others
    journal.deleted([(c, int(place)) for place in np.flatnonzero(numbers % 2 == 0)])
    left = np.flatnonzero(numbers % 2)
    rows = np.append(left, np.arange(5))
    order = rng.permutation(len(rows))
    source = np.repeat([0, 1], [len(left), 5])[order]
    names = np.concatenate([ids[which[left]], np.array([list(d)] * 5, np.uint8)])[order]
    journal.merging(e, names, np.append(numbers[left], np.arange(5))[order], Moving([c, d], source, rows[order]))
    (new,) = np.flatnonzero((source == 0) & (rows[order] == where[1, 39_999]))
    asked = [(b, 39_999), (c, where[1, 39_999]), (b, 4), (d, 3)]
    (other,) = np.flatnonzero((source == 1) & (rows[order] == 3))
    assert journal.present(asked, {e}) == {asked[0]: (e, new), asked[1]: (e, new), asked[3]: (e, other)}
    journal.settle({e: len(order)})
    assert {batch for (batch,) in journal._all("SELECT batch FROM orders")} == {c, e}  # places between lead on
    assert journal.present(asked[1:2], {e}) == {asked[1]: (e, new)}
    assert journal.places("a")[0][0] == e
    assert sum(count for *_, count in journal.content(e)) == 50_005


@pytest.mark.parametrize("lost", [False, True])
def test_files_keep_their_rows_through_merges_that_lay_them_out(tmp_path, lost):
    """A file's rows lie apart in such a batch: what is deleted with the file are its rows and no other's."""
    rng, world = np.random.default_rng(2), World(tmp_path / "d", **laid_out())
    owner, ids = world.owner, {}
    data = {name: rng.normal(size=(40, 8)) for name in "abc"}
    files = {name: tmp_path / f"{name}.npy" for name in data}
    for name, rows in data.items():
        np.save(files[name], rows)
        ids[name] = list(owner.add_stream(files[name], metadata=[{"caption": name}] * 40).added.ids)
    owner.delete(ids["b"][3:5])
    owner.compact(merge_below=1000)
    owner.delete(ids["b"][7:9])
    owner.add_vectors(ROWS[:3], metadata=[{"caption": "more"}] * 3)
    owner.compact(merge_below=1000)

    def captions():
        places = [(batch.id, int(n)) for batch in owner.batches() for n in owner.rows_of(batch.id)[0]]
        return Counter(record.metadata["caption"] for record in owner.records(places))

    assert len(owner.batches()) == 1 and captions() == {"a": 40, "b": 36, "c": 40, "more": 3}
    if lost:
        world.lose_journal()
        owner = world.owner
        assert [f.rows for f in owner.vectors()] == [119]
    else:
        assert {f.path: f.rows for f in owner.vectors() if f.path} == {files["a"]: 40, files["b"]: 36, files["c"]: 40}
        assert owner.delete_files([files["b"]]) == (36, 0)
        np.save(files["a"], data["a"][:10] + 1)
        report = owner.add_stream(files["a"], metadata=[{"caption": "new"}] * 10)
        assert report.replaced == 40 and len(report.added) == 10
        assert captions() == {"c": 40, "new": 10, "more": 3}
    assert [r.metadata["caption"] for r in owner.records(ids["c"])] == ["c"] * 40
    world.deployment.close()


@pytest.mark.parametrize("options", [{}, laid_out()], ids=["plain", "laid out"])
@pytest.mark.parametrize("seed", range(3))
def test_whatever_was_an_id_once_names_its_image_or_none(tmp_path, seed, options):
    """A model of all ids and places that there ever were, through changes, lost journals and earlier ones put back."""
    rng, world = random.Random(seed), World(tmp_path / "d", **options)
    journal = world.folder / "owners" / "anna.journal"
    ever, kept = dict[tuple[bytes, int], str](), None
    for step in range(16):
        what = rng.choice(["add", "add", "delete", "merge", "merge some", "lose", "keep", "put back"])
        if what == "add":
            ever |= {i: world.names[i] for i in world.add(rng.randint(1, 4))}
        elif what == "delete" and world.names:
            world.delete(rng.choice(list(world.names)))
        elif what.startswith("merge"):
            world.owner.compact(merge_below=1000 if what == "merge" else rng.randint(1, 4))
        elif what == "lose":
            world.lose_journal()
        elif what in ("keep", "put back"):
            world.deployment.close()
            if what == "keep":
                kept = journal.read_bytes()
            elif kept is not None:
                journal.write_bytes(kept)
            world.reopen()
        world.check()
        for image in world.owner.images():
            ever[image.batch, image.row] = world.names[image.origin]
        for one, caption in ever.items():
            try:
                (record,) = world.owner.records([one])
                assert record.metadata["caption"] == caption, (step, what)
            except NotFoundError:
                assert one not in world.names, (step, what)
    images, previews = world.user.fetch(list(ever)), world.user.preview(list(ever))
    for (one, caption), image, preview in zip(ever.items(), images, previews, strict=True):
        right = image.content == caption.replace("row", "image").encode()
        assert right if one in world.names else right or image.error is not None
        assert preview.caption in (caption, "") and (preview.error is not None or preview.caption)
    world.deployment.close()


def test_without_tags_one_cloud_is_not_believed(world, monkeypatch):
    """Journal and tags are lost: what a cloud tells of where rows came from is compared with the other cloud's."""
    world.add(2), world.add(2)
    world.merge()
    world.lose_journal()
    shutil.rmtree(world.folder / "owners" / "anna.tags")
    real = world.owner._fetch

    def swapped(server, batch):
        got = real(server, batch)
        return dataclasses.replace(got, origin_row=got.origin_row[::-1].copy()) if server == 1 else got

    monkeypatch.setattr(world.owner, "_fetch", swapped)
    with pytest.raises(VerificationError, match="do not hold the same rows"):
        world.owner.delete([next(iter(world.names))])
    monkeypatch.undo()
    world.check()
