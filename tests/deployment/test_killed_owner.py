"""An owner's program that dies in the middle of a change at three servers: the next one goes on, exactly once."""

import pytest

from mipp.client.syncing import FolderFollower
from mipp.features.encoding import descriptor_encoding
from mipp.rpc import messages as m
from tests.cli.conftest import picture
from tests.network import Network

pytestmark = pytest.mark.slow  # three servers, and descriptors of images


class Killed(BaseException):
    pass


def dies(owner, stage):
    """The program ends when all votes are there, or after so many servers were told of them."""
    real = owner.send

    def sent(requests, kinds, **options):
        if m.Certify in kinds.values():
            if stage:
                real({stage: requests[stage]}, {stage: m.Certify}, **options)
            raise Killed
        return real(requests, kinds, **options)

    owner.send = sent


def follow(owner, folder):
    follower = FolderFollower(owner, folder, settle=0, workers=1)
    return follower.step(follower.look())


@pytest.fixture
def network(tmp_path):
    made = Network(tmp_path / "d", descriptor_encoding("cld"), descriptor="cld").start().ready()
    yield made
    made.stop()


@pytest.mark.parametrize("stage", [0, 1, 3])
@pytest.mark.parametrize("change", ["add", "merge", "delete"])
def test_the_next_program_goes_on_at_once(network, tmp_path, change, stage):
    photos = tmp_path / "photos"
    photos.mkdir()
    with network.connect() as client:
        owner = client.create_owner("anna")
        for number in range(2):
            picture(photos / f"{number}.png", number)
            follow(owner, photos)
        ids = [image.id for image in owner.images()]
        dies(owner, stage)
        with pytest.raises(Killed):
            if change == "add":
                picture(photos / "2.png", 2)
                follow(owner, photos)
            elif change == "merge":
                owner.compact(merge_below=1000)
            else:
                (photos / "0.png").unlink()
                owner.delete(ids[0])
    with network.connect() as client:
        owner = client.owner("anna")
        assert not follow(owner, photos).report.added
        there = sorted(path.name for path in photos.iterdir())
        assert sorted(image.path.name for image in owner.images()) == there
        assert sum(b.live for b in owner.batches()) == len(there)
        picture(photos / "9.png", 9)
        assert len(follow(owner, photos).report.added) == 1
        (photos / "1.png").unlink()
        assert follow(owner, photos).deleted == 1
        assert sorted(image.path.name for image in owner.images()) == sorted(p.name for p in photos.iterdir())
