"""An index made of another one: exactly once, with metadata, images and files, through merges and kills."""

import contextlib
import hashlib
import sqlite3

import numpy as np
import pytest

import mipp
from mipp.client import ingest
from mipp.client.reencoding import reencode
from mipp.errors import ParameterError
from mipp.features.encoding import descriptor_encoding
from tests.cli.conftest import picture


class Two:
    """An old and a new deployment with an owner anna in each."""

    def __init__(self, folder, old, new):
        self.folder = folder
        mipp.Deployment.create(folder / "old", **old).close()
        mipp.Deployment.create(folder / "new", **new).close()
        self.open(create=True)

    def open(self, create=False):
        self.deployments = [mipp.Deployment.open(self.folder / name) for name in ("old", "new")]
        get = "create_owner" if create else "owner"
        self.old, self.new = (getattr(d, get)("anna") for d in self.deployments)

    def close(self):
        for deployment in self.deployments:
            deployment.close()

    def reopen(self):
        self.close()
        self.open()


@pytest.fixture
def two(request, tmp_path):
    made = []

    def make(old, new):
        made.append(Two(tmp_path, old, new))
        return made[0]

    yield make
    made[0].close()


def images(descriptor, **options):
    encoding = descriptor_encoding(descriptor, server_ranking=True)
    return {"encoding": encoding, "descriptor": descriptor, "preview_size": 2048} | options


def vectors(bits, **options):
    return {"encoding": mipp.Encoding("cosine", 8, bits=bits), "preview_size": 512} | options


def rows_of(owner):
    found = [owner.rows_of(b.id)[1] for b in owner.batches() if b.live]
    return np.concatenate(found) if found else np.empty((0, 8))


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "inner").mkdir(parents=True)
    for n in range(6):
        picture(folder / ("inner" if n % 2 else ".") / f"{n}.png", n)
    return folder


def add(owner, folder):
    told = {path: {"caption": f"number {path.stem}"} for path in folder.rglob("*.png")}
    return owner.add_images(folder, metadata=told, workers=1)


def test_images_get_another_descriptor_without_their_files(two, photos, tmp_path):
    world = two(images("cld"), images("ehd"))
    add(world.old, photos)
    first, *_ = world.old.images()
    world.old.annotate({first.id: {"caption": "annotated"}})
    world.old.delete([world.old.images()[1].id])
    photos.rename(tmp_path / "hidden")
    report = reencode(world.old, world.new, workers=1)
    assert (report.added, report.skipped, report.left_out, report.twice) == (5, 0, [], False)
    old, new = world.old.images(), world.new.images()
    assert [i.path for i in new] == [i.path for i in old] and all(i.path is not None for i in old)
    before, after = (
        [(r.path, r.metadata) for r in o.records([i.id for i in o.images()])] for o in (world.old, world.new)
    )
    assert after == before and after[0][1] == {"caption": "annotated"}
    assert all(r.thumbnail for r in world.new.records([i.id for i in new]))
    user = world.deployments[1].create_user("ulla")
    world.new.grant(user)
    query = tmp_path / "hidden" / "4.png"
    hit = user.search_image(query, k=1).hits[0]
    (image,) = user.fetch([hit])
    assert (image.content, image.name) == (query.read_bytes(), "4.png")
    again = reencode(world.old, world.new, workers=1)
    assert (again.added, again.skipped) == (0, 5)
    # the files are known, so adding and deleting goes on from there
    (tmp_path / "hidden").rename(photos)
    assert world.new.add_images(photos, workers=1).skipped == 5


def test_what_came_since_is_added_and_nothing_twice_after_merges_and_lost_journals(two, photos):
    world = two(images("cld"), images("cld", preview_size=512))
    add(world.old, photos)
    reencode(world.old, world.new, workers=1)
    picture(photos / "late.png", 40)
    add(world.old, photos)
    world.old.compact()
    report = reencode(world.old, world.new, workers=1)
    assert (report.added, report.skipped) == (1, 6)
    world.new.delete([world.new.images()[0].id])
    world.new.compact()
    assert reencode(world.old, world.new, workers=1).added == 0, "what was deleted on purpose does not come back"
    for name in "old", "new":
        world.close()
        (world.folder / name / "owners" / "anna.journal").unlink()
        world.open()
        report = reencode(world.old, world.new, workers=1)
        assert report.added == (0 if name == "old" else 1), "a lost journal does not know what was deleted"


def test_files_of_another_folder_serve_as_originals(two, photos, tmp_path):
    world = two(images("cld"), images("ehd"))
    add(world.old, photos)
    moved = photos.rename(tmp_path / "moved")
    (moved / "0.png").unlink()
    picture(moved / "unknown.png", 90)
    asked = []
    real = world.old.fetch_anywhere
    world.old.fetch_anywhere = lambda *args: asked.append(args) or real(*args)
    report = reencode(world.old, world.new, originals=moved, workers=1)
    assert asked == [] and report.added == 5 and len(report.left_out) == 1
    assert "no file in" in report.left_out[0][1]
    records = world.new.records([i.id for i in world.new.images()])
    assert {r.path: r.metadata["caption"] for r in records}["inner/1.png"] == "number 1"
    assert "unknown.png" not in {r.path for r in records}
    again = reencode(world.old, world.new, originals=moved, workers=1)
    assert (again.added, again.skipped) == (0, 5)


def test_vectors_are_quantised_twice_within_the_bound(two, tmp_path):
    world = two(vectors(8), vectors(10))
    data = np.random.default_rng(1).normal(size=(300, 8))
    data /= np.linalg.norm(data, axis=1, keepdims=True)
    fields = [{"caption": f"row {n}"} for n in range(300)]
    ingest.add_vectors(world.old, tmp_path / "v.npy", data, metadata=fields)
    (batch,) = world.old.batches()
    world.old.delete([(batch.id, 0), (batch.id, 299)])
    report = reencode(world.old, world.new)
    assert (report.added, report.left_out, report.twice) == (298, [], True)
    got = rows_of(world.new)
    # a cosine row is put to length one again, which adds a part of its error in length
    steps = world.old.config.encoding.scale[0] + world.new.config.encoding.scale[0]
    assert np.abs(got - data[1:299]).max() < 2 * steps
    assert np.abs(got - rows_of(world.old)).max() < 2 * steps
    new = world.new.batches()[0].id
    assert [r.metadata for r in world.new.records([(new, n) for n in (0, 297)])] == [fields[1], fields[298]]
    assert [(f.path, f.rows) for f in world.new.vectors()] == [(tmp_path / "v.npy", 298)]
    assert reencode(world.old, world.new).added == 0
    # the file itself, added later, replaces what was quantised twice
    added = ingest.add_vectors(world.new, tmp_path / "v.npy", data)
    assert (len(added.added), added.replaced) == (300, 298)


@pytest.mark.parametrize(("old", "new"), [(2, 1), (1, 2)])
def test_from_two_clouds_to_one_and_back(two, old, new):
    """Rows come from the one cloud of the lattice scheme as from two, and the other way."""
    world = two(*(vectors(8, clouds=n, preview_size=512 if n > 1 else 0) for n in (old, new)))
    assert {d.config.params.scheme for d in world.deployments} == {"shares", "lattice"}
    rows = np.eye(8)
    world.old.add_vectors(rows, [("x.png", b"bytes", {"n": 1}), *[None] * 7])
    assert reencode(world.old, world.new).added == 8
    user = world.deployments[1].create_user("ulla")
    world.new.grant(user)
    found = user.search(rows[0], k=1).hits
    assert user.fetch(found)[0].metadata == {"n": 1}
    assert reencode(world.old, world.new).added == 0


def test_vectors_of_several_files_merges_and_images(two, tmp_path):
    world = two(vectors(8), vectors(8))
    rows = np.eye(8)
    ingest.add_vectors(world.old, tmp_path / "a.npy", rows[:3])
    ingest.add_vectors(world.old, tmp_path / "b.npy", rows[3:5])
    world.old.add_vectors(rows[5:7], [("x.png", b"bytes", {"n": 1}), None])
    world.old.add_vectors(rows[5:7])
    world.old.add_vectors(rows[5:7])  # twice on purpose
    world.old.compact(merge_below=100)
    report = reencode(world.old, world.new)
    assert (report.added, report.skipped) == (11, 0)
    assert sorted(map(tuple, rows_of(world.new))) == sorted(map(tuple, rows_of(world.old)))
    assert [(f.path, f.rows) for f in world.new.vectors()][:2] == [(tmp_path / "a.npy", 3), (tmp_path / "b.npy", 2)]
    assert world.new.delete_files([tmp_path / "a.npy"]) == (3, 0)
    user = world.deployments[1].create_user("ulla")
    world.new.grant(user)
    found = [h for h in user.search(rows[5], k=3).hits if user.fetch([h])[0].content == b"bytes"]
    assert len(found) == 1 and user.fetch(found)[0].metadata == {"n": 1}
    assert reencode(world.old, world.new).added == 0


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("kind", ["images", "vectors"])
def test_dying_at_any_change_loses_and_doubles_nothing(two, photos, tmp_path, monkeypatch, when, kind):
    monkeypatch.setattr("mipp.client.reencoding.IMAGE_CHUNK", 2)
    monkeypatch.setattr("mipp.client.reencoding._BLOCK", 2)
    monkeypatch.setattr("mipp.client.row_ids.BATCH_BYTES", 2 * (8 * 4 + 512))
    if kind == "images":
        world = two(images("cld"), images("ehd"))
        add(world.old, photos)
    else:
        world = two(vectors(8), vectors(10))
        world.old.add_vectors(np.eye(8)[:6])
    for turn in range(6):
        make = world.new._changes.make

        def dies(*args, make=make, turn=turn):
            if when == "before" and turn % 2:
                raise KeyboardInterrupt
            make(*args)
            raise KeyboardInterrupt

        monkeypatch.setattr(world.new._changes, "make", dies)
        with contextlib.suppress(KeyboardInterrupt):
            reencode(world.old, world.new, workers=1)
        if turn == 3 and kind == "images":
            world.old.compact()
        world.reopen()
    report = reencode(world.old, world.new, workers=1)
    assert report.added + report.skipped == 6 and not report.left_out
    assert sum(b.live for b in world.new.batches()) == 6
    if kind == "images":
        assert sorted(i.path for i in world.new.images()) == sorted(photos.rglob("*.png"))
    with sqlite3.connect(world.folder / "new" / "owners" / "anna.journal") as db:
        assert db.execute("SELECT count(*) FROM copies WHERE done=0").fetchone() == (0,)


def test_rows_that_do_not_fit_are_left_out_and_named(two, tmp_path):
    world = two(vectors(8, preview_size=2048), vectors(8, preview_size=256))
    ids = world.old.add_vectors(np.eye(8)[:3], metadata=[{"a": "x" * 900}, {"a": "y"}, None])
    report = reencode(world.old, world.new)
    assert report.added == 2 and [i for i, _ in report.left_out] == [f"{ids[0][0].hex()}:0"]
    world.old.annotate({ids[0]: {"a": "short"}})
    report = reencode(world.old, world.new)
    assert (report.added, report.skipped, report.left_out) == (1, 2, [])


@pytest.mark.parametrize(
    ("old", "new", "text"),
    [
        (images("cld"), vectors(8), "holds images and the new one vectors"),
        (vectors(8), images("cld"), "holds vectors and the new one images"),
        (vectors(8), {"encoding": mipp.Encoding("cosine", 4)}, "dimension 8 do not fit an index of 4"),
        (vectors(8), {"encoding": mipp.Encoding("ip", 8)}, "metric cosine are not what the metric ip"),
    ],
)
def test_indexes_that_do_not_fit(two, old, new, text):
    world = two(old, new)
    with pytest.raises(ParameterError, match=text):
        reencode(world.old, world.new)
    with pytest.raises(ParameterError, match="the same deployment"):
        reencode(world.old, world.old)


def test_the_journal_tells_no_rows_without_its_key(two):
    """Rows of few values could be guessed from a plain hash: each hash of content in the journal is keyed."""
    made = {"encoding": mipp.Encoding("hamming", 8), "preview_size": 512}
    world = two(made, made)
    row = np.array([[1, 0, 1, 1, 0, 0, 1, 0]])
    world.old.add_vectors(row)
    reencode(world.old, world.new)
    encoded = np.ascontiguousarray(made["encoding"].encode_rows(row))
    plain = hashlib.sha256(encoded.data.cast("B"))
    for owner in ("old", "new"):
        with contextlib.closing(sqlite3.connect(world.folder / owner / "owners" / "anna.journal")) as db:
            tables = [name for (name,) in db.execute("SELECT name FROM sqlite_master WHERE type='table'")]
            kept = [value for name in tables for line in db.execute(f'SELECT * FROM "{name}"') for value in line]
        assert len(tables) > 3 and kept
        assert not {plain.digest(), plain.hexdigest(), encoded.tobytes()} & set(kept)
        assert not any(isinstance(value, bytes) and plain.digest() in value for value in kept)
    count, key = len(world.new.batches()), world.new.journal.source_of(b"x")
    assert world.new.journal.copies_of(key, plain.digest()) == 0
    reencode(world.old, world.new)
    assert len(world.new.batches()) == count
