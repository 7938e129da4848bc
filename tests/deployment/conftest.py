"""A deployment whose servers run in processes of their own, and parties in it, for all tests of a module."""

import pytest

import mipp
from tests.conftest import ALL_RANKINGS, DIM, vectors
from tests.deployment.hosted import Hosted, Plain, running


@pytest.fixture(scope="module")
def net(tmp_path_factory):
    with running(Hosted(tmp_path_factory.mktemp("net") / "net", mipp.Encoding("cosine", DIM))) as made:
        yield made


@pytest.fixture(scope="module")
def parties(net):
    """An owner with eight rows, a user, and the plaintext."""
    with net.connect() as client:
        owner, user = client.create_owner("anna"), client.create_user("ulla")
        owner.grant(user.id, rankings=ALL_RANKINGS)
        plain, x = Plain(net.config.encoding), vectors(8)
        plain.rows = dict(zip(owner.add_vectors(x), x, strict=True))
        yield owner, user, plain
