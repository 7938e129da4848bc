"""Rows that every cloud has lost: what searches say, what compact leaves, and how their owner adds them again."""

import errno

import numpy as np
import pytest

import mipp
from mipp.errors import BusyError, MessageError, StoreError, UnreachableError, VerificationError
from mipp.rpc import messages as m
from mipp.store import files as store_files
from tests.conftest import DIM, home, vectors

#: name -> scheme of the deployment, and the clouds that lose a file
LOSSES = {"lattice": "lattice", "paillier": "paillier", "shares": None}


@pytest.fixture(params=LOSSES, ids=list(LOSSES))
def deployment(request, tmp_path):
    scheme = LOSSES[request.param]
    given = {} if scheme is None else {"clouds": 1, "scheme": scheme}
    with mipp.Deployment.create(tmp_path / "d", mipp.Encoding("cosine", DIM), **given) as made:
        yield made


@pytest.fixture
def files(tmp_path):
    """Two files of vectors of the owner."""
    paths = [tmp_path / "a.npy", tmp_path / "b.npy"]
    for seed, path in enumerate(paths):
        np.save(path, vectors(20, seed))
    return paths


@pytest.fixture
def world(deployment, files):
    """Anna, who added both files, and Ulla, whom she granted."""
    anna, ulla = deployment.create_owner("anna"), deployment.create_user("ulla")
    for path in files:
        anna.add_stream(path)
    anna.grant(ulla, rankings=("user",))
    return anna, ulla


def lose(deployment, batch, clouds=None):
    """Files of rows of a batch go, at all clouds or some."""
    for cloud in clouds or deployment.config.params.clouds:
        (file,) = (home(deployment, cloud) / "shares").glob(f"*/{batch.hex()}.*")
        file.unlink()


def search(ulla, seed=3, **given):
    """A search for all rows that there are."""
    return ulla.search(vectors(1, seed)[0], k=ulla.index().total, ranking="user", **given)


def reopened(deployment):
    """Servers that read their files anew."""
    for server in deployment.servers.values():
        server.store.views.clear()


def test_rows_that_were_lost_are_added_again(deployment, world, files):
    anna, ulla = world
    before = {(h.score, h.owner) for h in search(ulla).hits}
    first = anna.batches()[0].id
    assert anna.lost_batches() == []
    lose(deployment, first)
    reopened(deployment)
    assert [(b.id, b.live) for b in anna.lost_batches()] == [(first, 20)]
    found = search(ulla)
    assert len(found.hits) == 20 and first in {one.batch for one in found.left_out}
    told = anna.add_stream(files[0])
    assert (len(told.added), told.skipped, told.lost) == (0, 20, 20)
    other = anna.add_stream(files[1])  # its rows are whole
    assert (len(other.added), other.skipped, other.lost) == (0, 20, 0)
    anna.delete([(first, 3)])
    assert anna.add_stream(files[0]).lost == 19
    assert anna.delete_files(files[:1]) == (19, 0)
    again = anna.add_stream(files[0])
    assert (len(again.added), again.skipped, again.lost) == (20, 0, 0)

    # the batch without live rows is no warning anywhere
    found = search(ulla)
    assert not found.left_out and {(h.score, h.owner) for h in found.hits} == before
    assert search(ulla, strict=True).hits
    assert anna.lost_batches() == [] and deployment.verify()["problems"] == []
    assert next((b.id, b.live) for b in anna.batches()) == (first, 0)
    # and goes with the next merge, at all servers
    assert anna.compact() == 2
    assert len(anna.batches()) == 1 and first not in {b.id for b in anna.agreed_batches()[1]}
    assert {(h.score, h.owner) for h in search(ulla).hits} == before and deployment.verify()["problems"] == []
    assert anna.audit().ok


def test_what_is_damaged_is_lost_too(deployment, world, files):
    """Of the right size, and met by nobody before."""
    anna, ulla = world
    first = anna.batches()[0].id
    for cloud in deployment.config.params.clouds:
        (file,) = (home(deployment, cloud) / "shares").glob(f"*/{first.hex()}.*")
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    reopened(deployment)
    assert anna.lost_batches() == [] and [b.id for b in anna.lost_batches(check=True)] == [first]
    assert anna.add_stream(files[0]).lost == 0 and search(ulla).left_out
    assert [b.id for b in anna.lost_batches()] == [first]  # the search met it
    assert anna.add_stream(files[0]).lost == 20
    anna.delete_files(files[:1])
    assert len(anna.add_stream(files[0]).added) == 20
    assert not search(ulla).left_out and anna.compact() == 2 and len(search(ulla).hits) == 40


def test_servers_that_rank_miss_nothing_either(tmp_path, files):
    """Also where they have not tested the rows that are gone."""
    encoding = mipp.Encoding("cosine", DIM)
    with mipp.Deployment.create(tmp_path / "d", encoding) as deployment:
        anna, ulla = deployment.create_owner("anna"), deployment.create_user("ulla")
        for path in files:
            anna.add_stream(path)
        anna.grant(ulla)
        first = anna.batches()[0].id
        for server in deployment.servers.values():
            with server.store.catalog.transaction() as db:
                db.execute("UPDATE batches SET certificate=x'' WHERE id=?", (first,))
                db.execute("UPDATE owners SET revision=revision+1")
        lose(deployment, first)
        reopened(deployment)
        assert ulla.search(vectors(1, 3)[0], k=5).left_out
        anna.delete_files(files[:1])
        assert not ulla.search(vectors(1, 3)[0], k=5, strict=True).left_out


def test_compact_does_all_that_it_can_and_names_the_rest(deployment, world, files):
    anna, ulla = world
    ids = anna.add_vectors(vectors(10, 5))
    first = anna.batches()[0].id
    anna.delete(ids[:6])
    lose(deployment, first)
    reopened(deployment)
    with pytest.raises(
        StoreError, match=rf"{first.hex()} \(20 rows\).*went: 1.*mipp owner delete anna .*mipp owner add anna"
    ):
        anna.compact()
    assert sorted((b.rows, b.live) for b in anna.batches()) == [(20, 20), (24, 24)]
    assert {b.id for b in anna.lost_batches()} == {first} and len(search(ulla).hits) == 24
    with pytest.raises(StoreError, match="went: 0"):  # nothing is left to do
        anna.compact()
    # deletions of some rows of it do not help, nor harm
    anna.delete([(first, 0)])
    with pytest.raises(StoreError, match=r"\(19 rows\)"):
        anna.compact()
    anna.delete_files([files[0]])
    assert anna.compact() == 1 and len(anna.batches()) == 1 and not search(ulla).left_out
    anna.add_stream(files[0])
    assert len(search(ulla).hits) == 40 + 4


def test_a_batch_without_live_rows_stays_alone(deployment, world, files):
    anna, ulla = world
    for batch in anna.batches():
        lose(deployment, batch.id)
    reopened(deployment)
    anna.delete_files(files)
    assert anna.compact() == 0 and len(anna.batches()) == 2 and anna.lost_batches() == []
    assert deployment.verify()["problems"] == [] and deployment.repair() == {"files": 0, "problems": []}
    anna.add_stream(files[0])
    assert not search(ulla).left_out and len(search(ulla).hits) == 20
    assert anna.compact() == 2 and len(search(ulla).hits) == 20


def test_what_one_cloud_has_is_not_lost(tmp_path, files):
    with mipp.Deployment.create(tmp_path / "d", mipp.Encoding("cosine", DIM)) as deployment:
        anna, ulla = deployment.create_owner("anna"), deployment.create_user("ulla")
        for path in files:
            anna.add_stream(path)
        anna.grant(ulla, rankings=("user",))
        first = anna.batches()[0].id
        lose(deployment, first, [1])
        reopened(deployment)
        assert search(ulla).left_out and anna.lost_batches() == []
        assert anna.add_stream(files[0]).lost == 0
        assert anna.compact() == 1 and not search(ulla).left_out and len(search(ulla).hits) == 40


def test_a_cloud_that_calls_live_rows_deleted_drops_none(deployment, world):
    """An owner that believed it would merge the rows away."""
    anna, _ = world
    first = anna.batches()[0].id
    cloud = deployment.servers[deployment.config.params.clouds[0]]
    real = cloud._handlers[m.ListBatches]

    def lying(request):
        told = real(request)
        live = told.live.copy()
        live[0] = 0
        return m.BatchList(told.position, told.view, told.rows, live, told.generation, told.batches, told.refused)

    cloud._handlers = {**cloud._handlers, m.ListBatches: lying}
    with pytest.raises(VerificationError, match=r"differ|not all are"):
        anna.compact()
    with pytest.raises(VerificationError, match="not all are"):
        anna._merge_small(1 << 16, {})
    cloud._handlers = {**cloud._handlers, m.ListBatches: real}
    assert first in {b.id for b in anna.batches()}


def test_a_server_of_an_earlier_version_knows_no_lost_batches(deployment, world):
    anna, _ = world
    for batch in anna.batches():
        lose(deployment, batch.id)
    cloud = deployment.servers[deployment.config.params.clouds[0]]

    def unknown(request):
        raise MessageError("malformed message, or of an unknown kind")

    cloud._handlers = {**cloud._handlers, m.LostRequest: unknown}
    assert anna.lost_batches() == []


@pytest.mark.parametrize("how", ["shape", "refusal", "silence"])
def test_finished_work_stays_whatever_clouds_say_of_lost_batches(how, deployment, world, files, tmp_path):
    anna, ulla = world
    cloud = deployment.servers[deployment.config.params.clouds[-1]]

    def answer(request):
        if how == "shape":
            return m.LostBatches(np.zeros((1, 8), np.uint8))
        raise BusyError("many") if how == "refusal" else UnreachableError("silent")

    cloud._handlers = {**cloud._handlers, m.LostRequest: answer}
    expected = {"shape": MessageError, "refusal": BusyError, "silence": UnreachableError}[how]
    with pytest.raises(expected):
        anna.lost_batches()
    told = anna.add_stream(files[0])
    assert (told.skipped, told.lost) == (20, None)
    lose(deployment, anna.batches()[0].id)
    reopened(deployment)
    for batch in range(2):
        np.save(tmp_path / "c.npy", vectors(20, 7 + batch))
        anna.add_stream(tmp_path / "c.npy")
    with pytest.raises(StoreError, match="Not all clouds say") as caught:  # the rest is merged; no advice to delete
        anna.compact()
    assert "delete" not in str(caught.value) and len(anna.batches()) == 2 and len(search(ulla).hits) == 40


def test_what_cannot_be_read_just_now_is_not_lost(deployment, world, files, monkeypatch):
    """Neither by a search that met it, nor when all files are read."""
    anna, _ = world

    def failing(path, *args, **kwargs):
        if "shares" in str(path):
            raise OSError(errno.EMFILE, "Too many open files")
        return open(path, *args, **kwargs)

    reopened(deployment)
    with monkeypatch.context() as patch:
        patch.setattr(store_files, "open", failing, raising=False)
        for number in deployment.config.params.clouds:
            assert deployment.servers[number].store.view(anna.id).batches[0].problem
        assert anna.lost_batches() == anna.lost_batches(check=True) == []
        assert anna.add_stream(files[0]).lost == 0
    assert anna.lost_batches() == anna.lost_batches(check=True) == []


def test_compact_names_what_clouds_could_not_rewrite(deployment, world):
    """Damaged batches that are too large to be merged."""
    anna, _ = world
    first = anna.batches()[0].id
    anna.delete([(first, 0)])
    for cloud in deployment.config.params.clouds:
        (file,) = (home(deployment, cloud) / "shares").glob(f"*/{first.hex()}.*")
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    reopened(deployment)
    with pytest.raises(StoreError, match=rf"{first.hex()} \(19 rows\).*went: 0.*mipp owner delete anna"):
        anna.compact(merge_below=1)


def test_what_came_back_and_cannot_be_compared_is_not_called_unreadable(tmp_path, files):
    """One cloud lost the batch, the other has it, and there are no tags."""
    with mipp.Deployment.create(tmp_path / "d", mipp.Encoding("cosine", DIM)) as deployment:
        anna = deployment.create_owner("anna")
        for path in files:
            anna.add_stream(path)
        lose(deployment, anna.batches()[0].id, [2])
        reopened(deployment)
        anna.tags = None
        with pytest.raises(StoreError, match="damaged at server 2"):
            anna.compact()


def test_a_cloud_that_is_left_out_is_asked_too(tmp_path, files):
    with mipp.Deployment.create(tmp_path / "d", mipp.Encoding("cosine", DIM), clouds=3) as deployment:
        anna = deployment.create_owner("anna")
        anna.add_stream(files[0])
        *some, last = deployment.config.params.clouds
        anna.away.leave_out({last})
        lose(deployment, anna.batches()[0].id, some)
        assert anna.lost_batches() == []
        lose(deployment, anna.batches()[0].id, [last])
        assert len(anna.lost_batches()) == 1
        anna.away.leave_out(())
        silent = UnreachableError("silent")
        silent.server = last
        anna.away.note(silent)
        with pytest.raises(UnreachableError, match=f"cloud {last} was silent"):
            anna.lost_batches()
        assert anna.add_stream(files[0]).lost is None


def test_backups_miss_no_files_that_nobody_needs(deployment, world, files, tmp_path):
    anna, _ = world
    for batch in anna.batches():
        lose(deployment, batch.id)
    anna.delete_files(files[:1])
    for number in deployment.config.params.clouds:
        (tmp_path / f"b{number}").mkdir()
        _, (line,) = deployment.servers[number].store.back_up(tmp_path / f"b{number}")
        assert anna.batches()[1].id.hex() in line


def test_images_that_were_lost_are_added_again(tmp_path):
    from PIL import Image

    from mipp.features.encoding import descriptor_encoding

    photos = tmp_path / "photos"
    photos.mkdir()
    for colour in ("red", "green", "blue"):
        Image.new("RGB", (32, 32), colour).save(photos / f"{colour}.png")
    with mipp.Deployment.create(tmp_path / "d", descriptor_encoding("cld"), descriptor="cld", clouds=1) as deployment:
        anna, ulla = deployment.create_owner("anna"), deployment.create_user("ulla")
        anna.grant(ulla, rankings=("user",))
        anna.add_images(photos, workers=1)
        lose(deployment, anna.batches()[0].id)
        reopened(deployment)
        assert (told := anna.add_images(photos, workers=1)).lost == told.skipped == 3
        assert anna.delete_files([photos / "red.png"]) == (1, 0)
        again = anna.add_images([photos / "red.png"], workers=1)
        assert (len(again.added), again.lost) == (1, 0)
        assert anna.add_images(photos, workers=1).lost == 2
        anna.delete_files([photos / "green.png", photos / "blue.png"])
        assert len(anna.add_images(photos, workers=1).added) == 2
        assert not ulla.index().left_out and ulla.index().total == 3
        assert {i.path.name for i in anna.images()} == {"red.png", "green.png", "blue.png"}
        assert anna.compact() == 2
