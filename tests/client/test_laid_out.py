"""Files of vectors in an index with clusters: rows lie in another order than in their file, and stay the file's."""

import shutil
from collections import Counter
from unittest import mock

import numpy as np
import pytest

import mipp
from mipp.client.reencoding import reencode
from mipp.errors import ConflictError, NotFoundError
from tests.client.test_lasting_ids import World, laid_out
from tests.client.test_probe import features, options


@pytest.fixture
def encoding():
    return mipp.Encoding("cosine", 12)


def swapped(clusters, encoding, x):
    """Two rows that follow each other and lie in different clusters change places: what is stored is the same."""
    place = {int(row): n for n, row in enumerate(clusters.order(encoding, encoding.encode_rows(x)))}
    inside = clusters.slots(len(x)) * clusters.count
    n = next(
        n for n in range(len(x) - 1)
        if max(place[n], place[n + 1]) < inside and (place[n] - place[n + 1]) % clusters.size
    )  # fmt: skip
    y = x.copy()
    y[[n, n + 1]] = x[[n + 1, n]]
    stored = [encoding.encode_rows(z)[clusters.order(encoding, encoding.encode_rows(z))] for z in (x, y)]
    assert (stored[0] == stored[1]).all() and (x != y).any()
    return n, y


@pytest.mark.parametrize("lost", [False, True])
def test_a_file_whose_rows_changed_places_is_another_one(tmp_path, encoding, lost):
    """It is stored alike, but captions go with rows of the file."""
    deployment = mipp.Deployment.create(tmp_path / "d", encoding, preview_size=512, threads=1, **options(encoding))
    owner, user = deployment.create_owner("o"), deployment.create_user("u")
    owner.grant(user)
    x, path = features(200, 8), tmp_path / "x.npy"
    n, y = swapped(deployment.config.clusters, encoding, x)
    names = [{"caption": f"{n}"} for n in range(200)]
    np.save(path, x)
    owner.add_stream(path, metadata=names)
    if lost:
        deployment.close()
        (tmp_path / "d" / "owners" / "o.journal").unlink()
        deployment = mipp.Deployment.open(tmp_path / "d")
        owner, user = deployment.owner("o"), deployment.user("u")
    for _ in range(2):
        assert owner.add_stream(path, metadata=names).skipped == 200
    np.save(path, y)
    report = owner.add_stream(path, metadata=names)
    assert (len(report.added), report.skipped, report.replaced) == (200, 0, 200)
    for row in (n, n + 1):
        assert user.preview(user.search(y[row], 1).hits)[0].caption == f"{row}"
    assert owner.add_stream(path, metadata=names).skipped == 200
    # both orders at once: two files
    np.save(tmp_path / "other.npy", x)
    assert len(owner.add_stream(tmp_path / "other.npy", metadata=names).added) == 200
    assert [owner.add_stream(f, metadata=names).skipped for f in (path, tmp_path / "other.npy")] == [200, 200]
    deployment.close()


@pytest.mark.parametrize("clustered", [False, True])
def test_an_index_with_the_same_rows_in_another_order_is_copied(tmp_path, encoding, clustered):
    more = options(encoding) if clustered else {}
    with (
        mipp.Deployment.create(tmp_path / "old", encoding, preview_size=512, threads=1) as old,
        mipp.Deployment.create(tmp_path / "new", encoding, preview_size=512, threads=1, **more) as new,
    ):
        source, target = old.create_owner("o"), new.create_owner("o")
        x = source.config.encoding.decode_rows(encoding.encode_rows(features(200, 8)))
        _, y = swapped(options(encoding)["clusters"], encoding, x)
        names = [{"caption": f"{n}"} for n in range(200)]
        for owner, rows in ((target, x), (source, y)):
            np.save(tmp_path / "x.npy", rows)
            owner.add_stream(tmp_path / "x.npy", metadata=names)
        assert reencode(source, target).added == 200
        assert reencode(source, target).added == 0


def test_files_of_an_index_with_clusters_keep_their_rows_in_another_one(tmp_path, encoding):
    with (
        mipp.Deployment.create(tmp_path / "old", encoding, threads=1, **options(encoding)) as old,
        mipp.Deployment.create(tmp_path / "new", encoding, threads=1, **options(encoding)) as new,
    ):
        source, target = old.create_owner("o"), new.create_owner("o")
        rows = {}
        for name, count in (("a", 60), ("b", 90)):
            path = (tmp_path / name).with_suffix(".npy")
            np.save(path, features(count, count))
            rows[path] = list(source.add_stream(path).added.ids)
        source.compact(merge_below=1000)
        assert reencode(source, target).added == 150
        assert {f.path: f.rows for f in target.vectors()} == {path: len(ids) for path, ids in rows.items()}
        # one entry for each file, however its rows are stored
        assert target.journal._all("SELECT count(*) FROM copies") == [(2,)]
        first, second = rows
        assert target.delete_files([first]) == (60, 0)
        (batch,) = [b for b in target.batches() if b.live]
        left, kept = target.rows_of(batch.id)[1], encoding.decode_rows(encoding.encode_rows(np.load(second)))
        assert sorted(left.round(2).tolist()) == sorted(kept.round(2).tolist())


def test_a_merge_takes_what_clusters_need(tmp_path, encoding, monkeypatch):
    """Whatever is too small for clusters counts as small, also where that is more than elsewhere."""
    monkeypatch.setattr("mipp.client.merging._MERGE_BELOW", 20)
    with mipp.Deployment.create(tmp_path / "d", encoding, threads=1, **options(encoding)) as deployment:
        owner, fewest = deployment.create_owner("o"), deployment.config.clusters.fewest_rows
        for n in range(3):
            owner.add_vectors(features(fewest - 1, n))
        owner.add_vectors(features(fewest, 3))
        assert owner.compact(merge_below=20) == 0
        assert owner.compact() == 2 and owner.compact() == 0
        assert sorted(b.rows for b in owner.batches()) == [fewest, 3 * (fewest - 1)]
        # as far as one batch holds them
        monkeypatch.setattr("mipp.client.merging.MAX_AUDIT_ROWS", 2 * fewest)
        for n in range(5):
            owner.add_vectors(features(fewest - 1, n))
        assert owner.compact() == 2 and owner.compact() == 0
        assert sorted(b.rows - fewest for b in owner.batches())[:3] == [-1, 0, fewest - 2]
        # a batch without live rows takes part in no merge of its own
        (alone,) = [b.id for b in owner.batches() if b.rows == fewest - 1]
        owner.delete([(alone, row) for row in range(fewest - 1)])
        assert owner.compact() == 0


@pytest.mark.parametrize("journal", ["lost", "older"])
@pytest.mark.parametrize("more", [{}, laid_out()], ids=["plain", "laid out"])
def test_a_merge_without_the_whole_journal_keeps_files_and_ids(tmp_path, journal, more):
    """A merge reads back what the journal does not know, and what it wrote of the merged batch stays."""
    world, rng = World(tmp_path / "d", **more), np.random.default_rng(3)
    path = tmp_path / "d" / "owners" / "anna.journal"

    def added(name, count):
        np.save(tmp_path / f"{name}.npy", rng.normal(size=(count, 8)))
        names = [{"caption": f"{name} {n}"} for n in range(count)]
        ids = world.owner.add_stream(tmp_path / f"{name}.npy", metadata=names).added.ids
        world.names |= {i: f"{name} {n}" for n, i in enumerate(ids)}

    added("a", 9)
    added("b", 7)
    world.merge()
    between = {image.origin: (image.batch, image.row) for image in world.owner.images()}
    world.deployment.close()
    shutil.copy(path, tmp_path / "journal")
    world.reopen()
    added("c", 8)
    if journal == "lost":
        world.lose_journal()
    else:
        world.deployment.close()
        shutil.copy(tmp_path / "journal", path)
        world.reopen()
    world.merge()
    listed = {f.path.name if f.path else "": f.rows for f in world.owner.vectors()}
    assert listed == ({"": 24} if journal == "lost" else {"a.npy": 9, "b.npy": 7, "": 8})
    ids = list(world.names)
    assert [r.metadata["caption"] for r in world.owner.records(ids)] == [world.names[i] for i in ids]
    for first, place in between.items():  # a place between two merges is the same image, or none
        try:
            (record,) = world.owner.records(place)
        except NotFoundError:
            continue
        assert record.metadata["caption"] == world.names[first]
    if journal == "older":
        assert world.owner.delete_files([tmp_path / "a.npy"]) == (9, 0)
        places = [(b.id, int(n)) for b in world.owner.batches() for n in world.owner.rows_of(b.id)[0]]
        left = Counter(r.metadata["caption"][0] for r in world.owner.records(places))
        assert left == {"b": 7, "c": 8}
    world.deployment.close()


def test_a_copied_index_knows_its_files(tmp_path, encoding):
    """The order of a file that was laid out is not known when its rows are copied: the next add brings it."""
    with (
        mipp.Deployment.create(tmp_path / "old", encoding, preview_size=512, threads=1, **options(encoding)) as old,
        mipp.Deployment.create(tmp_path / "new", encoding, preview_size=512, threads=1, **options(encoding)) as new,
    ):
        source, target = old.create_owner("o"), new.create_owner("o")
        x = encoding.decode_rows(encoding.encode_rows(features(200, 8)))
        np.save(tmp_path / "x.npy", x)
        source.annotate({i: {"caption": f"{n}"} for n, i in enumerate(source.add_stream(tmp_path / "x.npy").added.ids)})
        assert reencode(source, target).added == 200
        report = target.add_stream(tmp_path / "x.npy")
        assert (len(report.added), report.skipped, report.replaced) == (0, 200, 0)
        places = [(b.id, int(n)) for b in target.batches() for n in target.rows_of(b.id)[0]]
        assert sorted(int(r.metadata["caption"]) for r in target.records(places)) == list(range(200))


def test_files_of_the_same_rows_in_two_orders_are_known_again_in_turn(tmp_path, encoding):
    world = mipp.Deployment.create(tmp_path / "d", encoding, preview_size=512, threads=1, **options(encoding))
    owner, x = world.create_owner("o"), features(200, 8)
    _, y = swapped(world.config.clusters, encoding, x)
    for name, rows in (("x", x), ("y", y)):
        np.save(tmp_path / f"{name}.npy", rows)
        owner.add_stream(tmp_path / f"{name}.npy", metadata=[{"caption": name}] * 200)
    world.close()
    (tmp_path / "d" / "owners" / "o.journal").unlink()
    with mipp.Deployment.open(tmp_path / "d", threads=1) as world:
        owner = world.owner("o")
        assert [owner.add_stream(tmp_path / f"{name}.npy").skipped for name in "xy"] == [200, 200]
        assert owner.delete_files([tmp_path / "x.npy"]) == (200, 0)
        places = [(b.id, int(n)) for b in owner.batches() for n in owner.rows_of(b.id)[0]]
        assert {r.metadata["caption"] for r in owner.records(places)} == {"y"}


def test_of_two_merges_at_once_one_tries_again(tmp_path, encoding):
    """A batch that another process merged meanwhile is a conflict."""
    with mipp.Deployment.create(tmp_path / "d", encoding, threads=1, **options(encoding)) as deployment:
        owner = deployment.create_owner("o")
        for n in range(3):
            owner.add_vectors(features(40, n))
        real, calls = owner.fetch_anywhere, []

        def gone(*given):
            calls.append(given)
            if len(calls) == 1:
                raise NotFoundError("this owner has no batch")
            return real(*given)

        with mock.patch.object(owner, "fetch_anywhere", gone):
            assert owner.compact() == 2
        with mock.patch.object(owner, "fetch_anywhere", side_effect=NotFoundError("gone")):
            owner.add_vectors(features(40, 4))
            with pytest.raises(ConflictError, match="gone"):
                owner.compact()
