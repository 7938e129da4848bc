"""What an owner believes of its own index: no single server makes it forget, double or mix up what it added."""

import dataclasses
import shutil
import sqlite3
from pathlib import Path

import numpy as np
import pytest

import mipp
from mipp.client import ingest
from mipp.client.reencoding import reencode
from mipp.client.syncing import FolderFollower
from mipp.errors import MippError, UnreachableError, VerificationError
from mipp.features.encoding import descriptor_encoding
from mipp.rpc import messages as m
from mipp.rpc.wire import encode, pack_frames
from tests.cli.conftest import picture


class World:
    """A folder of three images that an owner follows."""

    def __init__(self, folder):
        self.folder, self.photos = folder, folder / "photos"
        self.photos.mkdir()
        for number in range(3):
            picture(self.photos / f"{number}.png", number)
        self.deployment = mipp.Deployment.create(folder / "d", descriptor_encoding("cld"), descriptor="cld", threads=1)
        self.owner = self.deployment.create_owner("anna")
        self.sync()

    def sync(self):
        follower = FolderFollower(self.owner, self.photos, settle=0, workers=1)
        return follower.step(follower.look())

    def places(self):
        return {image.path.name: (image.batch, image.row) for image in self.owner.images()}

    def reopen(self):
        self.deployment.close()
        self.deployment = mipp.Deployment.open(self.folder / "d")
        self.owner = self.deployment.owner("anna")


@pytest.fixture
def world(tmp_path):
    made = World(tmp_path)
    yield made
    made.deployment.close()


def lie(monkeypatch, owner, change):
    """One server answers as ``change(message, reply)`` makes it."""
    ask = owner.ask
    monkeypatch.setattr(
        owner, "ask", lambda messages, **k: {s: change(s, messages[s], r) for s, r in ask(messages, **k).items()}
    )
    send = owner.send

    def sent(requests, kinds, **options):
        replies = send(requests, kinds, **options)
        return {s: change(s, kinds[s], r) for s, r in replies.items()}

    monkeypatch.setattr(owner, "send", sent)


@pytest.mark.parametrize("liar", [1, 2, 3])
@pytest.mark.parametrize("what", ["hidden", "fewer"])
def test_a_server_that_hides_rows(world, monkeypatch, liar, what):
    before = world.places()

    def change(server, _, reply):
        if server == liar and isinstance(reply, m.BatchList):
            if what == "fewer":
                return dataclasses.replace(reply, live=reply.live - 1)
            none = {name: getattr(reply, name)[:0] for name in ("rows", "live", "generation", "batches", "refused")}
            return dataclasses.replace(reply, **none)
        return reply

    lie(monkeypatch, world.owner, change)
    for act in (world.owner.images, world.sync):
        with pytest.raises(VerificationError, match=f"server {liar} differs from the others") as raised:
            act()
        assert raised.value.suspects == (liar,)
    monkeypatch.undo()
    assert world.places() == before
    (world.photos / "1.png").unlink()
    assert world.sync().deleted == 1 and set(world.places()) == {"0.png", "2.png"}


def test_a_cloud_that_gives_other_rows_back_as_live(world, monkeypatch):
    """A row was deleted by another program of the owner: which one it was is the key centre's word, too."""
    places = world.places()
    journal, world.owner.journal = world.owner.journal, None
    world.owner.delete([places["0.png"]])
    world.owner.journal = journal
    real = world.owner._fetch

    def other(server, batch):
        got = real(server, batch)
        return dataclasses.replace(got, ordinals=np.array([0, 2])) if server == 1 else got

    monkeypatch.setattr(world.owner, "_fetch", other)
    with pytest.raises(VerificationError):
        world.owner.images()
    monkeypatch.undo()
    assert set(world.places()) == {"1.png", "2.png"}
    assert [Path(path).name for path, _ in world.sync().report.added] == ["0.png"]


def test_images_of_a_lost_journal_while_a_cloud_is_away(world, monkeypatch):
    """Without journal and tags, one cloud could give each image another one's row."""
    places = world.places()
    world.deployment.close()
    (world.folder / "d" / "owners" / "anna.journal").unlink()
    shutil.rmtree(world.folder / "d" / "owners" / "anna.tags")
    world.reopen()
    real = world.owner._fetch

    def swapped(server, batch):
        if server == 2:
            raise UnreachableError("server 2 does not answer")
        got = real(server, batch)
        order = [1, 0, 2]
        return dataclasses.replace(got, origin_batch=got.origin_batch[order], origin_row=got.origin_row[order])

    monkeypatch.setattr(world.owner, "_fetch", swapped)
    with pytest.raises(UnreachableError):
        world.owner.images()
    monkeypatch.undo()
    assert not world.sync().report.added
    assert world.places() == places


@pytest.mark.parametrize("kind", ["rows", "omitted"])
def test_reencode_checks_what_a_cloud_of_the_old_index_gives(tmp_path, monkeypatch, kind):
    encoding = mipp.Encoding("l2", 4)
    with (
        mipp.Deployment.create(tmp_path / "old", encoding) as old,
        mipp.Deployment.create(tmp_path / "new", encoding) as new,
    ):
        source, target = old.create_owner("anna"), new.create_owner("anna")
        source.add_vectors(np.arange(12).reshape(3, 4))
        real = source._fetch

        def other(server, batch):
            got = real(server, batch)
            if server != 1:
                return got
            if kind == "rows":
                share = got.share.copy()
                share[0, 0] += 50
                return dataclasses.replace(got, share=share)
            cut = {name: getattr(got, name)[1:] for name in ("ordinals", "share", "origin_batch", "origin_row")}
            return dataclasses.replace(got, **cut)

        monkeypatch.setattr(source, "_fetch", other)
        with pytest.raises(VerificationError):
            reencode(source, target)
        assert not target.batches()
        monkeypatch.undo()
        assert reencode(source, target).added == 3


def test_a_server_that_says_no_after_the_change_was_made(world, monkeypatch):
    """It had the change committed, and tells its owner that it was refused: made again, every image would be twice."""
    owner, real, once = world.owner, world.owner.send, []
    picture(world.photos / "3.png", 3)

    def sent(requests, kinds, **options):
        if m.CommitOp in kinds.values() and not once:
            once.append(1)
            frames = next(iter(requests.values()))
            votes = {s: real({s: frames}, {s: m.CommitOp})[s] for s in (3, 1, 2)}
            packed = [pack_frames(encode(vote)) for vote in votes.values()]
            for server in (1, 2, 3):
                owner.ask({server: m.Certify(owner.id, votes[3].op, packed)})
            return {3: dataclasses.replace(votes[3], commit=False)}
        return real(requests, kinds, **options)

    monkeypatch.setattr(owner, "send", sent)
    assert len(world.sync().report.added) == 1 and once
    monkeypatch.undo()
    assert sum(b.live for b in owner.batches()) == 4 == len(world.places())
    assert all(owner.tags.store.sections(b.id) for b in owner.batches())


def test_deletions_count_once(world):
    """A process died between a deletion and its journal's entry, then one image was deleted twice."""
    places = world.places()
    journal, world.owner.journal = world.owner.journal, None
    world.owner.delete([places["0.png"]])
    world.owner.journal = journal
    assert [world.owner.delete([places["1.png"]]) for _ in range(2)] == [1, 0]
    assert set(world.places()) == {"2.png"}
    assert {Path(path).name for path, _ in world.sync().report.added} == {"0.png", "1.png"}


def test_a_part_of_a_file_of_vectors_that_is_deleted_in_two_calls(tmp_path):
    with mipp.Deployment.create(tmp_path / "d", mipp.Encoding("cosine", 8)) as deployment:
        owner, rng = deployment.create_owner("anna"), np.random.default_rng(0)
        one, other = rng.normal(size=(4, 8)), rng.normal(size=(4, 8))
        ids = [i for _, i in ingest.add_vectors(owner, tmp_path / "a.npy", one).added]
        ingest.add_vectors(owner, tmp_path / "b.npy", other)
        owner.compact(merge_below=1000)
        owner.delete(ids[:2])
        owner.delete(ids[2:])
        assert len(ingest.add_vectors(owner, tmp_path / "a.npy", one).added) == 4


@pytest.mark.parametrize("damage", ["DELETE FROM owner", "UPDATE owner SET tag='x'", "DROP TABLE items",
                                    "UPDATE files SET path='hello'"])  # fmt: skip
def test_a_damaged_journal_says_how_to_make_a_new_one(world, damage):
    world.deployment.close()
    path = world.folder / "d" / "owners" / "anna.journal"
    with sqlite3.connect(path) as db:
        db.execute(damage)
    world.deployment = mipp.Deployment.open(world.folder / "d")
    with pytest.raises(MippError, match="remove"):
        world.deployment.owner("anna").images()
