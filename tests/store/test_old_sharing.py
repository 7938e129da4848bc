"""Deployments of earlier versions, whose key centre has a finite point: they open, are searched and grow."""

import json

import numpy as np
import pytest

import mipp
from mipp.errors import DeploymentError
from tests.conftest import DIM, World, embedded_only, finite_sharing, vectors


@pytest.fixture
def old(tmp_path):
    """A folder as an earlier version left it, and its plaintext."""
    with finite_sharing():
        made = mipp.Deployment.create(tmp_path / "old", mipp.Encoding("cosine", DIM), threads=1)
    with made:
        plain = World(made).plain
    assert "sharing" not in json.loads((tmp_path / "old" / "deployment.json").read_text())["params"]
    return tmp_path / "old", plain


def reopened(deployment, plain):
    world = World.__new__(World)
    world.deployment, world.plain, world.user = deployment, plain, deployment.user("ulla")
    return world


@pytest.mark.parametrize("ranking", ["user", "server"])
def test_an_old_store_is_searched_and_grows_in_its_own_form(old, ranking):
    folder, plain = old
    with mipp.Deployment.open(folder, threads=1) as deployment:
        assert deployment.config.params.sharing == deployment.status()["params"]["sharing"] == "finite"
        world = reopened(deployment, plain)
        world.check(ranking=ranking)
        anna, x = deployment.owner("anna"), vectors(7, 50)
        world.plain |= dict(zip(anna.add_vectors(x), x, strict=True))
        world.check(ranking=ranking)
        assert len(world.check(k=67, ranking=ranking).hits) == 67
        carla = deployment.create_owner("carla")
        world.plain |= dict(zip(carla.add_vectors(x + 1), x + 1, strict=True))
        carla.grant(world.user.id, rankings=("server", "user"))
        world.check(ranking=ranking)
        assert deployment.verify()["problems"] == []
    with mipp.Deployment.open(folder, threads=1) as deployment:
        assert deployment.config.params.sharing == "finite"
        reopened(deployment, plain).check(ranking=ranking)


def test_an_old_store_is_compacted_and_read_by_its_owner(old):
    folder, plain = old
    with mipp.Deployment.open(folder, threads=1) as deployment:
        anna = deployment.owner("anna")
        first = anna.batches()[0].id
        numbers, features = anna.rows_of(first)
        expected = np.array([plain[first, int(n)] for n in numbers])
        encoding = deployment.config.encoding
        assert np.array_equal(features, encoding.decode_rows(encoding.encode_rows(expected)))
        before = deployment.user("ulla").search(vectors(1, 7)[0], 5, ranking="user")
        anna.compact()
        after = deployment.user("ulla").search(vectors(1, 7)[0], 5, ranking="user")
        assert [h.score for h in before.hits] == [h.score for h in after.hits]


def test_new_deployments_have_the_key_centre_at_infinity(world):
    assert world.deployment.config.params.sharing == world.deployment.status()["params"]["sharing"] == "infinity"
    text = (world.deployment.folder / "deployment.json").read_text()
    assert json.loads(text)["params"]["sharing"] == "infinity"
    for ranking in ("user", "server"):
        world.check(ranking=ranking)


@embedded_only
def test_a_store_taken_for_one_of_the_other_form_is_refused(tmp_path, world):
    """Rows would be noise: the catalogs name the form."""
    folder = world.deployment.folder
    world.deployment.close()
    data = json.loads((folder / "deployment.json").read_text())
    del data["params"]["sharing"]
    (folder / "deployment.json").write_text(json.dumps(data))
    with pytest.raises(DeploymentError, match="another deployment"):
        mipp.Deployment.open(folder, threads=1)
