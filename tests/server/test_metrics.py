"""The page for Prometheus: what it counts, and that it names nothing that is secret."""

import re
import time

import numpy as np
import pytest

from mipp.errors import AccessDeniedError
from mipp.mpc.cost import bound_comparisons, expected_calls
from tests.conftest import ALL_RANKINGS, DIM, vectors
from tests.network import Network

PHASES = ("product", "agree", "shuffle", "compare")


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
        for _ in range(100):  # servers settle what was acknowledged on their own time
            if not after["mipp_open_changes"]:
                break
            time.sleep(0.1)
            after = values(client)
        assert after['mipp_rankings_total{outcome="ok"}'] - before.get('mipp_rankings_total{outcome="ok"}', 0) == 1
        assert after['mipp_requests_total{kind="UploadOp",outcome="ok"}'] == 1
        assert after["mipp_ready"] == after["mipp_votes"] == after['mipp_peer_there{server="3"}'] == 1
        assert after["mipp_peer_sent_bytes" + '{server="2"}'] > 0 and after["mipp_open_changes"] == 0
        sent = sum(v for k, v in after.items() if k.startswith("mipp_ranking_sent_bytes_total"))
        rounds = after["mipp_ranking_rounds_total"]
        bound = cost["servers"]["bound"]  # of the protocol; the transcript is never above it
        assert 0 < rounds <= bound["rounds"] and 0.5 * cost["servers"]["bytes"][1] < sent <= bound["bytes"][1]
        # 50 rows are few enough for one call of all pairs, so the preview is exact
        assert after["mipp_ranking_comparisons_total"] == cost["servers"]["comparisons"] > 50 * 49 // 2
        phases = {p: after[f'mipp_ranking_phase_seconds_total{{phase="{p}"}}'] for p in PHASES}
        assert all(v > 0 for v in phases.values())
        assert sum(phases.values()) <= after["mipp_ranking_seconds_sum"]
        ulla.range_search(vectors(1)[0], 0.5)
        more = values(client)["mipp_ranking_comparisons_total"] - after["mipp_ranking_comparisons_total"]
        assert more == ulla.cost(ranking="threshold")["servers"]["comparisons"] == 50


def test_comparisons_of_a_large_index(network):
    """Their number depends on the order at the shuffled positions: near the preview, and never above its bound."""
    with network.connect() as client:
        anna, ulla = client.create_owner("anna"), client.create_user("ulla")
        anna.add_vectors(vectors(5000))
        anna.grant(ulla.id)
        ulla.search(vectors(1)[0], 10)
        expected = ulla.cost(10, ranking="server")["servers"]["comparisons"]
        for server in (1, 2, 3):
            counted = values(client, server)["mipp_ranking_comparisons_total"]
            assert 5000 < counted < bound_comparisons(expected_calls(5000, 10), 5000) and counted < 3 * expected


def test_nothing_secret_on_any_page(network):
    with network.connect() as client:
        anna = client.create_owner("anna")
        anna.add_vectors(vectors(20))
        ids = [anna.id.hex(), anna.batches()[0].id.hex(), "anna"]
        for path in ("/metrics", "/readyz", "/healthz", "/v1/description"):
            text = client.channel.get(1, path)[1].decode()
            assert not any(i in text for i in ids), path
