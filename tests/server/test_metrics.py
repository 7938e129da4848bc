"""The page for Prometheus: what it counts, and that it names nothing that is secret."""

import re

import numpy as np
import pytest

from mipp.errors import AccessDeniedError
from tests.conftest import ALL_RANKINGS, DIM, vectors
from tests.network import Network


@pytest.fixture
def network(tmp_path, encoding):
    made = Network(tmp_path / "network", encoding).start().ready()
    yield made
    made.stop()


def values(client, server=1):
    status, page = client.channel.get(server, "/metrics")
    assert status == 200
    return {m[1]: float(m[2]) for m in re.finditer(r"^(\S+) (\S+)$", page.decode(), re.MULTILINE)}


def test_counts(network):
    with network.connect() as client:
        anna, ulla = client.create_owner("anna"), client.create_user("ulla")
        anna.add_vectors(vectors(50))
        anna.grant(ulla.id, rankings=ALL_RANKINGS)
        before = values(client)
        cost = ulla.cost(3, ranking="server")
        ulla.search(vectors(1)[0], 3, ranking="server")
        with pytest.raises(AccessDeniedError):
            ulla.search(np.ones(DIM, np.float32), 3, ranking="server", owners=[b"x" * 16])
        after = values(client)
        assert after['mipp_rankings_total{outcome="ok"}'] - before.get('mipp_rankings_total{outcome="ok"}', 0) == 1
        assert after['mipp_requests_total{kind="UploadOp",outcome="ok"}'] == 1
        assert after["mipp_ready"] == after["mipp_votes"] == after['mipp_peer_there{server="3"}'] == 1
        assert after["mipp_peer_sent_bytes" + '{server="2"}'] > 0 and after["mipp_open_changes"] == 0
        sent = sum(v for k, v in after.items() if k.startswith("mipp_ranking_sent_bytes_total"))
        rounds = after["mipp_ranking_rounds_total"]
        bound = cost["servers"]["bound"]  # of the protocol; the transcript is never above it
        assert 0 < rounds <= bound["rounds"] and 0.5 * cost["servers"]["bytes"][1] < sent <= bound["bytes"][1]


def test_nothing_secret_on_any_page(network):
    with network.connect() as client:
        anna = client.create_owner("anna")
        anna.add_vectors(vectors(20))
        ids = [anna.id.hex(), anna.batches()[0].id.hex(), "anna"]
        for path in ("/metrics", "/readyz", "/healthz", "/v1/description"):
            text = client.channel.get(1, path)[1].decode()
            assert not any(i in text for i in ids), path
