"""What grants say of searches of chosen clusters, and how many rows these cover: at the user, and at every server."""

import pytest

import mipp
from mipp.client import index as index_module
from mipp.errors import AccessDeniedError, ParameterError
from tests.client.test_probe import BOTH, QUERIES, Index, features, options
from tests.conftest import made


@pytest.fixture
def index(tmp_path, encoding):
    with made("embedded", tmp_path, encoding, **options(encoding)) as deployment:
        yield Index(deployment)


def test_grants_name_it(index):
    """Owners decide: the default grant allows searches of all rows alone."""
    user = index.user
    index.anna.grant(user)
    assert len(user.search(QUERIES[0], 3, owners=["anna"]).hits) == 3
    with pytest.raises(AccessDeniedError, match="--ranking server --ranking probe"):
        user.search(QUERIES[0], 3, owners=["anna"], probe=True)
    # who does not allow it stops nobody's searches of the others
    result = user.search(QUERIES[0], 3, probe=True)
    assert {h.owner for h in result.hits} == {index.berta.id} and [o.owner for o in result.left_out] == [index.anna.id]
    index.anna.grant(user, rankings=["probe"], max_k=5, scores=False)
    assert len(user.search(QUERIES[0], 5, owners=["anna"], probe=True).hits) == 5
    for k, probe, text in ((6, True, "k up to 5"), (5, False, "does not allow ranking 'server'")):
        with pytest.raises(AccessDeniedError, match=text):
            user.search(QUERIES[0], k, owners=["anna"], probe=probe)


def test_servers_want_the_name(index, monkeypatch):
    """Whatever the user's program thinks."""
    monkeypatch.setattr(index_module, "_uncovered", lambda *_: "")
    index.anna.grant(index.user, rankings=["server", "user"])
    with pytest.raises(AccessDeniedError, match="does not allow ranking 'probe'"):
        index.user.search(QUERIES[0], 3, owners=["anna"], probe=True)


def test_an_index_without_clusters_grants_none(tmp_path, encoding):
    with mipp.Deployment.create(tmp_path / "d", encoding, threads=1) as plain:
        owner, user = plain.create_owner("o"), plain.create_user("u")
        with pytest.raises(ParameterError, match="rankings of a grant in this deployment"):
            owner.grant(user, rankings=BOTH)


@pytest.mark.parametrize("honest", [True, False])
@pytest.mark.parametrize("deleted", [0, 40])
def test_fewest_rows(index, monkeypatch, deleted, honest):
    """Of chosen clusters those rows count that are live whatever is chosen."""
    user, owner = index.user, index.anna
    mine = [i for i in index.rows if i[0] in {b.id for b in owner.batches()}]
    if deleted:
        owner.delete(mine[:deleted])
    sure = user.index(["anna"]).probed(index.clusters).least_live
    assert sure < user.index(["anna"]).total - 80
    if not honest:
        monkeypatch.setattr(index_module, "_uncovered", lambda *_: "")
    owner.grant(user, rankings=BOTH, min_rows=sure)
    assert len(user.search(QUERIES[0], 3, owners=["anna"], probe=True).hits) == 3
    assert not user.search(QUERIES[0], 3, probe=True).left_out
    owner.grant(user, rankings=BOTH, min_rows=sure + 1)
    assert len(user.search(QUERIES[0], 3, owners=["anna"]).hits) == 3
    with pytest.raises(AccessDeniedError, match=f"at least {sure + 1} " + ("of its rows" if honest else "rows, not")):
        user.search(QUERIES[0], 3, owners=["anna"], probe=True)
    if honest:
        assert [o.owner for o in user.search(QUERIES[0], 3, probe=True).left_out] == [owner.id]


def test_a_remembered_state_with_too_few_rows(index):
    """It is asked for once more, and what is too much for the newest is refused."""
    user, owners = index.user, ["berta"]
    few = user.index(owners).probed(index.clusters).least_live
    assert len(user.search(QUERIES[0], 3, owners=owners, probe=True).hits) == 3
    index.berta.add_vectors(features(150, 31))
    assert len(user.search(QUERIES[0], few + 5, owners=owners, probe=True).hits) == few + 5
    with pytest.raises(ParameterError, match="is sure to cover"):
        user.search(QUERIES[0], 200, owners=owners, probe=True)
