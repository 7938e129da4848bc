"""An owner's daily work over three servers: ids through merges and outages, a followed folder, another index."""

import numpy as np
import pytest

import mipp
from mipp.cli.owner_grants import _names
from mipp.client.reencoding import reencode
from mipp.client.syncing import FolderFollower
from mipp.errors import MippError
from mipp.features.encoding import descriptor_encoding
from tests.cli.conftest import picture
from tests.network import Network

pytestmark = pytest.mark.slow  # three servers are started, stopped and started again


@pytest.fixture
def network(tmp_path):
    encoding = descriptor_encoding("cld", server_ranking=True)
    made = Network(tmp_path / "net", encoding, descriptor="cld", preview_size=1024).start().ready()
    yield made
    made.stop()


def test_daily_work(network, tmp_path):
    photos = tmp_path / "photos"
    photos.mkdir()
    for n in range(6):
        picture(photos / f"{n}.png", n)
    with network.connect() as client:
        owner, user = client.create_owner("anna"), client.create_user("ulla")
        owner.grant(user.id)
        follower = FolderFollower(owner, photos, settle=0, workers=1)
        assert len(follower.step(follower.look()).report.added) == 6
        ids = {image.path.name: image.id for image in owner.images()}
        hit = user.search_image(photos / "3.png", k=1).hits[0]

        client.create_user("vera")
        assert _names(owner, client.users()) == {user.id: "ulla", client.user("vera").id: "vera"}

        # a server is away in the middle of a pass: the next one makes up for it
        picture(photos / "6.png", 6)
        (photos / "0.png").unlink()
        network.stop(2)
        with pytest.raises(MippError):
            follower.step(follower.look())
        network.start(2).ready()
        done = follower.step(follower.look())
        assert done.deleted == 1 and [i.path.name for i in owner.images()] == [f"{n}.png" for n in range(1, 7)]

        assert owner.compact() >= 0 and len(owner.batches()) == 1
        assert {i.path.name: i.id for i in owner.images()}.items() >= {
            n: i for n, i in ids.items() if n != "0.png"
        }.items()
        assert [r.path for r in owner.records([ids["3.png"], ids["5.png"]])] == ["3.png", "5.png"]
        content = (photos / "3.png").read_bytes()
        assert [image.content for private in (False, True) for image in user.fetch([hit], private=private)] == [
            content
        ] * 2

        client.close()
    (network.folder / "client" / "owners" / "anna.journal").unlink()
    with network.connect() as client:
        owner = client.owner("anna")
        assert owner.delete([ids["4.png"]]) == 1 and len(owner.images()) == 5
        other = mipp.Deployment.create(
            tmp_path / "other", descriptor_encoding("ehd", server_ranking=True), descriptor="ehd", preview_size=512
        )
        with other:
            new = other.create_owner("anna")
            assert reencode(owner, new, workers=1).added == 5
            records = new.records([image.id for image in new.images()])
            assert sorted(r.path for r in records) == ["1.png", "2.png", "3.png", "5.png", "6.png"]


def test_vectors_between_networks(tmp_path):
    net = Network(tmp_path / "net", mipp.Encoding("cosine", 8)).start().ready()
    try:
        with net.connect() as client, mipp.Deployment.create(tmp_path / "o", mipp.Encoding("cosine", 8)) as other:
            old, new = client.create_owner("anna"), other.create_owner("anna")
            old.add_vectors(np.eye(8))
            assert reencode(old, new).added == 8 and reencode(old, new).skipped == 8
    finally:
        net.stop()
