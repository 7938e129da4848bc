"""What servers of a network let wait of each other, in each session by itself."""

import numpy as np
import pytest

from mipp import Encoding
from mipp.errors import MippError
from mipp.mpc import mesh
from mipp.mpc.link import Frame, Header
from mipp.mpc.waiting import certificate_room, threshold_room, top_k_room
from mipp.server import ranking
from tests.network import Network

pytestmark = pytest.mark.slow

ROWS = 3000


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    made = Network(tmp_path_factory.mktemp("room"), Encoding("cosine", 32)).start(1, 2, 3).ready()
    yield made
    made.stop(1, 2, 3)


@pytest.fixture
def told(monkeypatch):
    """Bytes that sessions expected."""
    made, real = [], mesh.MeshLink.expect

    def expect(link, most):
        made.append(most)
        assert link._session.limit == mesh.EARLY_BYTES
        real(link, most)

    monkeypatch.setattr(mesh.MeshLink, "expect", expect)
    return made


@pytest.fixture(scope="module")
def parties(network):
    client = network.connect()
    owner, user = client.create_owner("anna"), client.create_user("ulla")
    rows = np.random.default_rng(5).normal(size=(ROWS, 32))
    yield owner, user, rows
    client.close()


def test_each_session_expects_its_own(network, parties, told, monkeypatch):
    (owner, user, rows), publics, real = parties, [], ranking.top_k_room
    owner.add_vectors(rows)
    assert told == [certificate_room(network.config.row_rule, ROWS)] * 3
    told.clear()
    owner.grant(user.id, rankings=("server", "threshold"))
    monkeypatch.setattr(ranking, "top_k_room", lambda public, *a: publics.append((public, *a)) or real(public, *a))
    assert len(user.search(rows[0], 7, ranking="server").hits) == 7
    bits = network.config.query_rule.proof_bits
    assert {(p.rows, *more) for p, *more in publics} == {(ROWS, 1, 7, bits, None)}
    public = publics[0][0]
    assert told == [top_k_room(public, 1, 7, bits)] * 3
    told.clear()
    assert len(user.range_search(rows[0], 0.99)) >= 1
    assert told == [threshold_room(public, 1, bits)] * 3


def test_a_server_that_floods_a_search_is_named(network, parties, monkeypatch):
    """It ends that search; the next one goes on."""
    _, user, rows = parties
    real, floods = mesh.MeshLink.expect, [True]

    def expect(link, most):
        real(link, most)
        if link._mesh.index == 2 and floods:
            floods.clear()
            data = bytes(1 << 20)
            for step in range(8):
                head = Header("and", 2, 1, step, bytes(16), len(data)).pack()
                link.send(1, Frame(head, [memoryview(data)]))

    monkeypatch.setattr(mesh.MeshLink, "expect", expect)
    with pytest.raises(MippError, match=r"server 2|party 2"):
        user.search(rows[0], 7, ranking="server")
    assert len(user.search(rows[0], 7, ranking="server").hits) == 7
