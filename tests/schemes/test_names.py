"""Names of schemes: the earlier one still works, an unknown one is refused."""

import json

import pytest

import mipp
from mipp import schemes
from mipp.errors import ParameterError
from mipp.paillier import generate_keypair
from tests.conftest import vectors

ENCODING = mipp.Encoding("cosine", 12)


@pytest.fixture(autouse=True)
def one_key(monkeypatch):
    key = generate_keypair(2048)
    monkeypatch.setattr("mipp.schemes.paillier.generate_keypair", lambda bits: key)


def test_a_deployment_made_under_the_earlier_name_opens(tmp_path):
    with mipp.Deployment.create(tmp_path / "d", ENCODING, scheme="paillier") as deployment:
        owner, user = deployment.create_owner("anna"), deployment.create_user("ulla")
        owner.add_vectors(vectors(8))
        owner.grant(user)
        found = [h.id for h in user.search(vectors(8)[3], 2).hits]
    path = tmp_path / "d" / "deployment.json"
    data = json.loads(path.read_text())
    assert data["params"]["scheme"] == "paillier"
    data["params"]["scheme"] = "homomorphic"
    path.write_text(json.dumps(data))
    with mipp.Deployment.open(tmp_path / "d") as again:
        assert again.config.params.scheme == "paillier"
        assert [h.id for h in again.user("ulla").search(vectors(8)[3], 2).hits] == found


def test_the_earlier_name_warns(tmp_path):
    with (
        pytest.warns(DeprecationWarning, match="called paillier"),
        mipp.Deployment.create(tmp_path / "d", ENCODING, scheme="homomorphic") as deployment,
    ):
        assert deployment.status()["params"]["scheme"] == "paillier"
    with pytest.warns(DeprecationWarning):
        assert mipp.Params(2, 1, 32, "homomorphic").scheme == "paillier"


@pytest.mark.parametrize("name", ["", "Shares", "lattice2", 3, b"shares"])
def test_unknown_names(tmp_path, name):
    with pytest.raises(ParameterError):
        mipp.Deployment.create(tmp_path / "d", ENCODING, scheme=name)
    assert not (tmp_path / "d").exists()


@pytest.mark.parametrize(("clouds", "scheme"), [(None, "shares"), (1, "lattice"), (2, "shares"), (3, "shares")])
def test_the_number_of_clouds_names_the_scheme(tmp_path, clouds, scheme):
    with mipp.Deployment.create(tmp_path / "d", ENCODING, clouds=clouds) as deployment:
        assert deployment.config.params.scheme == scheme
        assert len(deployment.config.params.clouds) == (clouds or 2)


def test_every_scheme_says_what_it_needs():
    for name in schemes.NAMES:
        scheme = schemes.get(name)
        assert scheme.name == name and scheme.summary and scheme.params(32).scheme == name


def test_range_search_has_its_earlier_name(world):
    query, value = vectors(1, 7)[0], 0.1
    with pytest.warns(DeprecationWarning, match="range_search"):
        assert world.user.match(query, value) == world.user.range_search(query, value)
